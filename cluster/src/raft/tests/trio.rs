//! Replicas in one process, each with a disk of its own, for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use fanfold_storage::fs::FileSystem;
use futures_util::future::BoxFuture;

use super::super::transfer::{TransferStep, decode_transfer_step};
use super::*;

/// Replicas of one group on nodes that are numbered from 0.
pub(super) struct Trio {
    pub settings: RaftSettings,
    pub transport: InProcessTransport,
    pub wire: Wire,
    pub disks: Vec<FaultFs>,
    /// Where the groups' files are, if not on the disk of the log.
    pub files: Vec<Option<FaultFs>>,
    pub replicas: Vec<Option<Replica>>,
}

/// What goes over the wire, and when it breaks. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<WireState>>);

#[derive(Default)]
struct WireState {
    /// How many messages of snapshots went through.
    steps: usize,
    bytes: usize,
    /// How many of them asked for a snapshot to be put in place.
    installs: usize,
    /// After so many the next ones are lost.
    breaks_after: Option<(usize, usize)>,
    /// How many messages with entries, or heartbeats, there were.
    appends: usize,
    /// How long entries take.
    append_delay: Duration,
    /// Whose entries do not reach whom.
    cut: Option<(ReplicaId, ReplicaId)>,
    /// Since when the connections with a node are open, if they were begun anew.
    open_since: BTreeMap<String, Instant>,
}

impl Wire {
    /// Loses `lost` messages of snapshots once so many went through.
    pub fn break_after(&self, steps: usize, lost: usize) {
        self.0.lock().unwrap().breaks_after = Some((steps, lost));
    }

    /// Lets entries, and heartbeats, take so long.
    pub fn delay_appends(&self, delay: Duration) {
        self.0.lock().unwrap().append_delay = delay;
    }

    /// Loses entries, and heartbeats, of one node to another; nothing else.
    pub fn cut_appends(&self, source: usize, target: usize) {
        let replica = |node| ReplicaId(node as u64 + 1);
        self.0.lock().unwrap().cut = Some((replica(source), replica(target)));
    }

    /// All entries reach everybody again.
    pub fn heal_appends(&self) {
        self.0.lock().unwrap().cut = None;
    }

    /// Ends all connections with a node, and begins them anew.
    pub fn connect_anew(&self, node: usize) {
        self.0.lock().unwrap().open_since.insert(format!("node-{}", node + 1), Instant::now());
    }

    /// How many messages with entries, or heartbeats, there were.
    pub fn appends(&self) -> usize {
        self.0.lock().unwrap().appends
    }

    /// How many messages of snapshots went through, and their bytes.
    pub fn steps(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.steps, state.bytes)
    }

    /// How many messages asked for a snapshot to be put in place.
    pub fn installs(&self) -> usize {
        self.0.lock().unwrap().installs
    }

    fn is_lost(&self, request: &PeerRequest) -> bool {
        let mut state = self.0.lock().unwrap();
        if request.kind != MessageKind::Snapshot {
            let is_append = request.kind == MessageKind::Append;
            state.appends += usize::from(is_append);
            return is_append && state.cut == Some((request.source, request.target));
        }
        if let Some((after, lost)) = state.breaks_after
            && after == state.steps
            && lost > 0
        {
            state.breaks_after = Some((after, lost - 1));
            return true;
        }
        (state.steps, state.bytes) = (state.steps + 1, state.bytes + request.body.len());
        let step = decode_transfer_step(&request.body).map(|request| request.step);
        state.installs += usize::from(matches!(step, Ok(TransferStep::Install)));
        false
    }
}

struct Watched {
    transport: InProcessTransport,
    wire: Wire,
}

impl PeerTransport for Watched {
    fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (target, address) = (request.target, request.address.clone());
        if self.wire.is_lost(&request) {
            return Box::pin(async move { Err(TransportError::Broken { target, address }) });
        }
        let delay = self.wire.0.lock().unwrap().append_delay;
        let (is_append, sent) = (request.kind == MessageKind::Append, self.transport.clone());
        Box::pin(async move {
            if is_append && !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            sent.send(request).await
        })
    }

    fn counts(&self, address: &ReplicaAddress, ago: Duration) -> bool {
        let state = self.wire.0.lock().unwrap();
        state.open_since.get(&address.0).is_none_or(|since| since.elapsed() >= ago)
    }
}

pub(super) struct Replica {
    pub group: Group<Notebook>,
    pub _endpoint: Arc<dyn PeerEndpoint>,
    pub log: Log,
}

impl Trio {
    /// Three voters that form a group together.
    pub async fn new(settings: RaftSettings) -> Self {
        let mut trio = Self::empty(settings, 3);
        for replica in 0..3 {
            trio.start(replica, Formation::New).await;
        }
        trio
    }

    /// The same; elections by time take longer than any test.
    pub async fn without_time() -> Self {
        let settings = RaftSettings { election_min_ms: 200_000, election_max_ms: 400_000, ..quick() };
        let mut trio = Self::empty(settings, 3);
        // The one that forms the group finds the others there, and is elected at once.
        for node in [2, 1, 0] {
            trio.start(node, Formation::New).await;
        }
        trio
    }

    /// Three voters whose logs have disks of their own.
    pub async fn apart(settings: RaftSettings) -> Self {
        let mut trio = Self::empty(settings, 3);
        trio.files = (0..3).map(|_| Some(FaultFs::new())).collect();
        for replica in 0..3 {
            trio.start(replica, Formation::New).await;
        }
        trio
    }

    /// A sole voter on the first of so many nodes, and replicas on the others that wait to be added.
    pub async fn single(settings: RaftSettings, nodes: usize) -> Self {
        let mut trio = Self::empty(settings, nodes);
        trio.open(0, spec(1, 1, Formation::New)).await;
        for node in 1..nodes {
            trio.join(node, node as u64 + 1).await;
        }
        trio
    }

    pub fn empty(settings: RaftSettings, nodes: usize) -> Self {
        let disks = (0..nodes).map(|_| FaultFs::new()).collect();
        let (files, replicas) = (Vec::new(), (0..nodes).map(|_| None).collect());
        let (transport, wire) = (InProcessTransport::default(), Wire::default());
        Self { settings, transport, wire, disks, files, replicas }
    }

    pub async fn start(&mut self, node: usize, formation: Formation) {
        self.open(node, spec(node as u64 + 1, 3, formation)).await;
    }

    /// Starts a replica that somebody adds.
    pub async fn join(&mut self, node: usize, replica: u64) {
        let replica = ReplicaId(replica);
        let members = BTreeMap::new();
        let spec = GroupSpec { group: GROUP, replica, members, formation: Formation::Joining };
        self.open(node, spec).await;
    }

    pub async fn open(&mut self, node: usize, spec: GroupSpec) {
        let log = open_memory_log(&self.disks[node]);
        let transport = Arc::new(Watched { transport: self.transport.clone(), wire: self.wire.clone() });
        let disk = self.files.get(node).and_then(Option::as_ref).unwrap_or(&self.disks[node]);
        let (files, machine) = (memory_directory(disk), Notebook::default());
        let group = Group::open(log.clone(), spec, files.load(GROUP, machine), &self.settings, transport)
            .await
            .unwrap();
        let endpoint = group.endpoint();
        self.transport.register(GROUP, group.replica(), &endpoint);
        self.replicas[node] = Some(Replica { group, _endpoint: endpoint, log });
    }

    /// The node's machine loses power, in the middle of whatever it does.
    pub fn kill(&mut self, node: usize) {
        self.disks[node] = self.disks[node].lose_power(PowerLoss::LoseAll);
        self.replicas[node] = None;
    }

    pub fn isolate(&self, node: usize, isolated: bool) {
        self.transport.isolate(GROUP, ReplicaId(node as u64 + 1), isolated);
    }

    pub fn group(&self, node: usize) -> &Group<Notebook> {
        &self.replicas[node].as_ref().unwrap().group
    }

    /// Proposes at whoever of `candidates` accepts it; returns who did.
    pub async fn propose(&self, candidates: &[usize], text: &str) -> (usize, u64) {
        let mut watches: Vec<_> =
            candidates.iter().map(|node| self.group(*node).watch_leadership()).collect();
        loop {
            for node in candidates {
                // A proposal whose outcome is unknown is made again: see `lines`.
                if let Ok(proposed) = self.group(*node).propose(line(text)).await {
                    return (*node, proposed.index);
                }
            }
            // A leader without a lease says so at once, and gets it with the next heartbeat, which is no change.
            let change = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed())));
            let _ = tokio::time::timeout(Duration::from_millis(20), change).await;
        }
    }

    /// Waits until one of the candidates leads.
    pub async fn leader(&self, candidates: &[usize]) -> usize {
        loop {
            if let Some(leader) = candidates.iter().find(|node| self.group(**node).is_leader()) {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The lines of a replica; one that was proposed again right after an unknown outcome may be there twice.
    pub fn lines(&self, node: usize) -> Vec<String> {
        let mut lines = texts(self.group(node));
        lines.dedup();
        lines
    }

    pub async fn converge(&self, nodes: &[usize], index: u64) {
        join_all(nodes.iter().map(|node| self.group(*node).wait_applied(index)))
            .await
            .into_iter()
            .for_each(|waited| waited.unwrap());
    }

    /// Adds replicas as learners at a leader and waits until they hold its log.
    pub async fn add(&self, leader: usize, nodes: &[usize]) {
        for node in nodes {
            let replica = self.group(*node).replica();
            let address = ReplicaAddress(format!("node-{replica}"));
            self.group(leader).add_learner(replica, address).await.unwrap();
        }
        for node in nodes {
            self.caught_up(leader, *node).await;
        }
    }

    /// Waits until a replica would count for a majority.
    pub async fn caught_up(&self, leader: usize, node: usize) {
        let replica = self.group(node).replica();
        loop {
            let metrics = self.group(leader).metrics();
            let last = metrics.last_log_index.max(Some(metrics.applied_index));
            let held = self.group(leader).replication().unwrap().get(&replica).copied().flatten();
            if held >= last && self.group(leader).is_ready(replica) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the machine of a node has stopped.
    pub async fn disk_stopped(&self, node: usize) {
        while self.disks[node].free_bytes(std::path::Path::new("/")).is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Makes the replicas of these nodes the voters.
    pub async fn vote(&self, leader: usize, nodes: &[usize]) -> Result<(), ChangeError> {
        let voters = nodes.iter().map(|node| self.group(*node).replica()).collect();
        self.group(leader).change_voters(voters).await
    }
}
