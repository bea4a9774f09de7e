//! Stops while a snapshot comes from a peer: its segments, under numbers of this directory, take the place of those that are here.

use super::*;
use crate::raft::PeerEndpoint;

const FOLLOWER: ReplicaId = ReplicaId(2);

/// Of so many operations one is stopped after, but by the test that takes long …
const STRIDE: u64 = 10;

/// … and of the last ones, among which the snapshot is put in place, all.
const LAST: u64 = 8;

/// Nothing that is waited for takes a part of this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes, the second of which follows.
struct Pair {
    wire: InProcessTransport,
    leader: Node,
    follower: Node,
    endpoints: Vec<Arc<dyn PeerEndpoint>>,
}

fn address(replica: ReplicaId) -> ReplicaAddress {
    ReplicaAddress(format!("node-{replica}"))
}

/// Keeps no log for followers that are behind, so that they need a snapshot.
fn strict() -> RaftSettings {
    RaftSettings { lagging_log_bytes_max: 0, ..quick() }
}

/// Starts one of the two where the other does not reach it.
async fn start(disk: FaultFs, replica: ReplicaId, formation: Formation, wire: &InProcessTransport) -> Node {
    let own = BTreeMap::from([(replica, address(replica))]);
    let members = if formation == Formation::Joining { BTreeMap::new() } else { own };
    let spec = GroupSpec { group: GROUP, replica, members, formation };
    Node::open_replica(disk, spec, &strict(), wire.clone()).await.unwrap()
}

impl Pair {
    /// Starts both; they reach each other once [`Pair::connect`] was called.
    async fn start(leader: FaultFs, follower: FaultFs, formation: Formation) -> Self {
        let wire = InProcessTransport::default();
        let leader = start(leader, ReplicaId(1), formation, &wire).await;
        let follower = start(follower, FOLLOWER, Formation::Joining, &wire).await;
        Self { wire, leader, follower, endpoints: Vec::new() }
    }

    fn connect(&mut self) {
        for node in [&self.leader, &self.follower] {
            let endpoint = node.group.endpoint();
            self.wire.register(GROUP, node.group.replica(), &endpoint);
            self.endpoints.push(endpoint);
        }
    }

    /// Starts the follower anew on what is left of its disk, where the leader does not reach it.
    async fn restart_follower(&mut self, loss: PowerLoss) {
        self.endpoints.clear();
        let disk = self.follower.disk.lose_power(loss);
        self.follower = start(disk, FOLLOWER, Formation::Joining, &self.wire).await;
    }

    /// Waits until the follower has all that the leader has.
    async fn caught_up(&self) {
        let caught_up = tokio::time::timeout(PATIENCE, self.wait_caught_up()).await;
        assert!(
            caught_up.is_ok(),
            "{:?}, damage {:?}",
            self.follower.group.metrics(),
            self.follower.group.read(Machine::damage)
        );
    }

    async fn wait_caught_up(&self) {
        loop {
            // What was just answered is applied, but the metrics may not know it yet.
            let metrics = self.leader.group.metrics();
            let last = metrics.last_log_index.max(Some(metrics.applied_index));
            let held = self.leader.group.replication().and_then(|all| all.get(&FOLLOWER).copied().flatten());
            if held >= last && Some(self.follower.group.applied_index()) >= last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the follower has, or its disk has stopped.
    async fn caught_up_or_stopped(&self) {
        let stopped = async {
            while !self.follower.has_stopped() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = self.caught_up() => {}
            () = stopped => {}
        }
    }
}

/// What all timelines of a node show.
fn shown(node: &Node) -> BTreeMap<EntryId, Bytes> {
    let entries = owners().flat_map(|owner| {
        let timeline = |machine: &PartitionMachine| {
            machine.state().unwrap().timeline(SPACE, owner, EntryId::MAX, usize::MAX)
        };
        node.group.read(timeline).entries
    });
    entries.map(|entry| (entry.id, entry.payload)).collect()
}

/// The disks of both, and what is known to each: the follower has segments and a snapshot of a time behind which the leader's log
/// is purged, and which the leader changed much of.
async fn prepared_pair() -> ((FaultFs, Known), (FaultFs, Known)) {
    let mut pair = Pair::start(FaultFs::new(), FaultFs::new(), Formation::New).await;
    let mut known = Known::default();
    for command in [Command::DefineSpace { definition: definition() }, Command::OpenSession] {
        assert!(pair.leader.apply(1_000_000, &command).await.is_ok());
    }
    for _ in 0..2 {
        assert!(pair.leader.post(&mut known).await.is_ok() && pair.leader.flush().await.is_ok());
        assert!(pair.leader.snapshot().await.is_ok());
    }
    pair.connect();
    pair.leader.group.add_learner(FOLLOWER, address(FOLLOWER)).await.unwrap();
    pair.caught_up().await;
    assert!(pair.leader.post(&mut known).await.is_ok());
    pair.caught_up().await;
    assert!(pair.follower.flush().await.is_ok() && pair.follower.snapshot().await.is_ok());
    let (old, behind) = (known.clone(), pair.follower.group.applied_index());
    let follower = pair.follower.disk.duplicate();
    pair.wire.isolate(GROUP, FOLLOWER, true);
    for _ in 0..3 {
        assert!(pair.leader.live(&mut known).await.is_ok() && pair.leader.flush().await.is_ok());
    }
    for _ in 0..2 {
        // What was deleted last is deleted where it lies.
        assert!(pair.leader.change(&mut known, true).await.is_ok() && pair.leader.snapshot().await.is_ok());
    }
    pair.leader.purged_behind(behind + 1).await;
    // What was purged is so on disk, too, once something behind it was answered. All of that is in the snapshot that is sent.
    assert!(pair.leader.post(&mut known).await.is_ok() && pair.leader.snapshot().await.is_ok());
    ((pair.leader.disk.duplicate(), known), (follower, old))
}

/// The follower takes snapshots, lets its log go, and starts once more.
async fn goes_on_following(pair: &mut Pair, known: &mut Known, what: &str) {
    let first = pair.follower.first_of_log();
    for is_oldest in [true, false] {
        assert!(pair.leader.post(known).await.is_ok() && pair.leader.change(known, is_oldest).await.is_ok());
        pair.caught_up().await;
        assert!(pair.follower.flush().await.is_ok() && pair.follower.snapshot().await.is_ok(), "{what}");
    }
    pair.follower.purged_behind(first).await;
    assert!(!pair.follower.kinds().contains("new"), "{what}: {:?}", pair.follower.disk.paths());
    // It does not hear what is committed: all is in the snapshot.
    pair.restart_follower(PowerLoss::LoseAll).await;
    pair.follower.check(known, &format!("{what}, once more"));
}

/// Lets the follower stop after so many operations, and its machine lose power, while it receives a snapshot; or lets it have that.
/// Answers how many operations there were, and whether its next start has what was sent.
async fn stop_after(
    (leader, known): &(FaultFs, Known),
    (follower, old): &(FaultFs, Known),
    stop: Option<(u64, PowerLoss)>,
) -> (u64, bool) {
    let (what, mut known) = (format!("stopped after {stop:?}"), known.clone());
    let mut pair = Pair::start(leader.duplicate(), follower.duplicate(), Formation::Existing).await;
    let (before, snapshot) =
        (pair.follower.disk.operations(), pair.follower.group.newest_snapshot().unwrap());
    assert_eq!(shown(&pair.follower), old.live);
    if let Some((operations, _)) = stop {
        pair.follower.disk.stop_after(operations);
    }
    pair.connect();
    pair.caught_up_or_stopped().await;
    let operations = pair.follower.disk.operations() - before;
    if stop.is_none() {
        let received = pair.follower.group.newest_snapshot().unwrap();
        assert!(snapshot.manifest.index < received.manifest.index);
        assert!(received.manifest.segments.len() > 1, "{} segments", received.manifest.segments.len());
    }
    pair.restart_follower(stop.map_or(PowerLoss::LoseAll, |(_, loss)| loss)).await;
    let shown = shown(&pair.follower);
    let is_new = shown == known.live;
    assert!(is_new || shown == old.live, "{what}: {} shown", shown.len());
    pair.connect();
    pair.caught_up().await;
    pair.follower.check(&mut known, &what);
    goes_on_following(&mut pair, &mut known, &what).await;
    (operations, is_new)
}

/// Stops after one of `stride` operations, with one of the losses, and after each of the last ones with all.
async fn stop_while_receiving(stride: u64) {
    let (leader, follower) = prepared_pair().await;
    let (operations, _) = stop_after(&leader, &follower, None).await;
    let (mut was_old, mut was_new) = (0, 0);
    for stop in 0..operations {
        let losses = [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)];
        let is_last = operations - stop <= LAST;
        for (n, loss) in losses.into_iter().enumerate() {
            if is_last || stop % stride == 0 && n as u64 == stop / stride % 3 {
                let (_, is_new) = stop_after(&leader, &follower, Some((stop, loss))).await;
                (was_old, was_new) = (was_old + u32::from(!is_new), was_new + u32::from(is_new));
            }
        }
    }
    assert!(
        operations > 80 && was_old > 10 && was_new > 5,
        "{operations}: {was_old} times old, {was_new} new"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_of_segments_that_loses_power_has_its_old_state_or_the_new_one() {
    stop_while_receiving(STRIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; the test above stops after a part of the operations"]
async fn a_receiver_of_segments_that_loses_power_anywhere_has_its_old_state_or_the_new_one() {
    stop_while_receiving(1).await;
}
