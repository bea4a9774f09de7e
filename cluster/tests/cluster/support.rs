//! Owns what the tests of a cluster share: nodes that can be stopped and started, and a client that finds the leaders.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::clock::{Clock, SystemClock};
use fanfold_cluster::dispatcher::StreamTransport;
use fanfold_cluster::read::{FeedRequest, TimelineRequest};
use fanfold_cluster::view::GroupHealth;
use fanfold_cluster::{ClusterView, Node, NodeError, NodeOptions, OpenError, Receipt, Start};
use fanfold_storage::command::{Append, AppendResult, Ttl, Write, WriteResult, WriteTag};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, SpaceId, UserId};
use fanfold_storage::space::SpacePolicy;

pub const POSTS: SpaceId = SpaceId(1);
pub const FOLLOWS: GraphId = GraphId(1);
pub const PARTITIONS: u16 = 4;

/// Longer than anything here takes, so that a wait that never ends fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at what no answer tells.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node that runs or not, with its directory.
struct Place {
    dir: tempfile::TempDir,
    node: Option<Arc<Node>>,
    peer_address: Option<SocketAddr>,
    /// Where clients are told to find it.
    port: u64,
    /// Where it tells the others to find it, if that is elsewhere.
    told: Option<SocketAddr>,
    /// Its own clock, if it has one.
    clock: Option<Arc<dyn Clock>>,
    /// Its own disk, if it has one.
    disk: Option<FaultFs>,
}

/// The system's clocks, the wall clock by so many milliseconds ahead.
#[derive(Debug, Clone, Default)]
pub struct ShiftedClock(Arc<(SystemClock, AtomicI64)>);

impl ShiftedClock {
    pub fn shift(&self, ahead_ms: i64) {
        self.0.1.store(ahead_ms, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn wall_unix_ms(&self) -> i64 {
        self.0.0.wall_unix_ms() + self.0.1.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.0.monotonic_ms()
    }
}

/// Nodes by the numbers that the tests give them, which are their ids unless one is refused.
pub struct Cluster {
    places: BTreeMap<u64, Place>,
    sessions: Mutex<BTreeMap<PartitionId, (SessionId, u64)>>,
    pub replicas: u8,
    /// What is changed of the settings that nodes start with.
    pub change: fn(&mut NodeOptions),
    /// What carries the streams of nodes that start.
    pub wrap: fn(Streams) -> Streams,
}

pub type Streams = Arc<dyn StreamTransport>;

impl Cluster {
    /// One node.
    pub async fn founded(replicas: u8) -> Self {
        let mut cluster = Self::empty(replicas);
        cluster.start(1).await;
        cluster
    }

    /// No node yet.
    pub fn empty(replicas: u8) -> Self {
        Self {
            places: BTreeMap::new(),
            sessions: Mutex::default(),
            replicas,
            change: |_| {},
            wrap: |streams| streams,
        }
    }

    /// Where the data directory of a node is that does not run.
    pub fn place(&mut self, number: u64) -> PathBuf {
        let new = || Place {
            dir: tempfile::tempdir().unwrap(),
            node: None,
            peer_address: None,
            port: 20_000 + number,
            told: None,
            clock: None,
            disk: None,
        };
        self.places.entry(number).or_insert_with(new).dir.path().join("data")
    }

    /// So many nodes, with all replicas where they should be.
    pub async fn of(nodes: u64, replicas: u8) -> Self {
        Self::changed(nodes, replicas, |_| {}).await
    }

    /// The same with other settings.
    pub async fn changed(nodes: u64, replicas: u8, change: fn(&mut NodeOptions)) -> Self {
        let mut cluster = Self { change, ..Self::empty(replicas) };
        for node in 1..=nodes {
            cluster.start(node).await;
        }
        cluster.whole().await;
        cluster
    }

    /// Starts a node, for the first time or again.
    pub async fn start(&mut self, number: u64) {
        patient(self.try_start(number)).await.unwrap();
    }

    pub async fn try_start(&mut self, number: u64) -> Result<(), OpenError> {
        let options = self.options(number);
        let opened = Node::open_with(options, Box::new(self.wrap)).await;
        self.took_place(number, opened)
    }

    /// Starts two nodes at the same time.
    pub async fn try_start_two(&mut self, one: u64, other: u64) -> [Result<(), OpenError>; 2] {
        let (first, second) = (self.options(one), self.options(other));
        let (first, second) = tokio::join!(Node::open(first), Node::open(second));
        [self.took_place(one, first), self.took_place(other, second)]
    }

    fn took_place(&mut self, number: u64, opened: Result<Arc<Node>, OpenError>) -> Result<(), OpenError> {
        let node = opened?;
        let place = self.places.get_mut(&number).unwrap();
        place.peer_address = node.peer_address();
        place.node = Some(node);
        Ok(())
    }

    fn options(&mut self, number: u64) -> NodeOptions {
        let known: Vec<_> = self.places.values().filter_map(|place| place.peer_address).collect();
        let place = self.places.entry(number).or_insert_with(|| Place {
            dir: tempfile::tempdir().unwrap(),
            node: None,
            peer_address: None,
            port: 20_000 + number,
            told: None,
            clock: None,
            disk: None,
        });
        assert!(place.node.is_none(), "node {number} runs");
        let mut options = NodeOptions::new(place.dir.path().join("data"));
        options.partitions = Some(PARTITIONS);
        options.log.segment_bytes = 1 << 20;
        options.advertise = format!("127.0.0.1:{}", place.port);
        options.peer_listen = Some(place.peer_address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
        options.peer_advertise = place.told.map(|told| told.to_string());
        if let Some(clock) = &place.clock {
            options.clock = clock.clone();
        }
        if let Some(disk) = &place.disk {
            options.fs = Arc::new(disk.clone());
        }
        options.raft.heartbeat_ms = 100;
        options.raft.election_min_ms = 500;
        options.raft.election_max_ms = 1_000;
        options.start = if number == 1 {
            Start::Found { replicas: self.replicas }
        } else {
            Start::Join { addresses: known.iter().map(ToString::to_string).collect() }
        };
        (self.change)(&mut options);
        options
    }

    /// Stops a node cleanly.
    pub async fn stop(&mut self, number: u64) {
        let node = self.places.get_mut(&number).unwrap().node.take().unwrap();
        patient(node.close()).await.unwrap();
    }

    /// Stops a node as a kill would.
    pub async fn kill(&mut self, number: u64) {
        let node = self.places.get_mut(&number).unwrap().node.take().unwrap();
        patient(node.abandon()).await;
    }

    /// Forgets a node that does not run, and its directory.
    pub fn lose(&mut self, number: u64) -> SocketAddr {
        let place = self.places.remove(&number).unwrap();
        assert!(place.node.is_none());
        place.peer_address.unwrap()
    }

    /// Lets a place with a new directory listen at an address.
    pub fn reserve(&mut self, number: u64, address: SocketAddr) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            dir,
            node: None,
            peer_address: Some(address),
            port: 20_000 + number,
            told: None,
            clock: None,
            disk: None,
        };
        self.places.insert(number, place);
    }

    /// Lets a node that does not run listen elsewhere from now on.
    pub fn move_to(&mut self, number: u64, address: Option<SocketAddr>) -> Option<SocketAddr> {
        std::mem::replace(&mut self.places.get_mut(&number).unwrap().peer_address, address)
    }

    /// Lets two nodes that do not run have each other's addresses from now on.
    pub fn swap(&mut self, one: u64, other: u64) {
        let (of_one, of_other) = (self.move_to(one, None), self.move_to(other, None));
        self.move_to(one, of_other);
        self.move_to(other, of_one);
        let port = |cluster: &Self, node: u64| cluster.places[&node].port;
        let (of_one, of_other) = (port(self, one), port(self, other));
        self.places.get_mut(&one).unwrap().port = of_other;
        self.places.get_mut(&other).unwrap().port = of_one;
    }

    /// Lets a node that does not run tell the others to find it at an address, or where it listens.
    pub fn tell(&mut self, number: u64, address: Option<SocketAddr>) {
        self.places.get_mut(&number).unwrap().told = address;
    }

    /// Lets a node that does not run tell clients to find it at a port.
    pub fn set_port(&mut self, number: u64, port: u64) {
        self.places.get_mut(&number).unwrap().port = port;
    }

    /// Gives a node that does not run a clock of its own.
    pub fn set_clock(&mut self, number: u64, clock: impl Clock) {
        self.places.get_mut(&number).unwrap().clock = Some(Arc::new(clock));
    }

    /// Gives a node that was never started a disk of its own, in memory.
    pub fn set_disk(&mut self, number: u64, disk: FaultFs) {
        self.place(number);
        self.places.get_mut(&number).unwrap().disk = Some(disk);
    }

    /// The data directory of a node.
    pub fn data_dir(&self, number: u64) -> PathBuf {
        self.places[&number].dir.path().join("data")
    }

    pub fn node(&self, number: u64) -> &Arc<Node> {
        self.places[&number].node.as_ref().unwrap()
    }

    pub fn running(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.places.values().filter_map(|place| place.node.as_ref())
    }

    /// Any node that runs.
    pub fn any(&self) -> &Arc<Node> {
        self.running().next().unwrap()
    }

    /// Waits until all that run agree on something.
    pub async fn agree(&self, what: &str, holds: impl Fn(&ClusterView) -> bool) {
        let wait = async {
            while !self.running().all(|node| holds(&node.view())) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let views: Vec<_> = self.running().map(|node| node.view()).collect();
            panic!("never: {what}\n{views:#?}");
        }
    }

    /// Waits until every group has exactly the replicas that it should have, as many as there can be, and is led by the
    /// preferred one.
    pub async fn whole(&self) {
        let replicas = usize::from(self.replicas);
        self.agree("every group is whole", |view| {
            let active = view.nodes.iter().filter(|node| node.state == NodeState::Active).count();
            let want = replicas.min(active);
            let want = if want % 2 == 0 { want - 1 } else { want };
            let is_whole = |group: &fanfold_cluster::view::GroupView| {
                let partition = group.partition.is_none() || group.wanted.len() == want;
                let leads = group.wanted.first().map(|preferred| preferred.node);
                partition
                    && group.leader == leads
                    && group.health == GroupHealth::Whole
                    && group.voters.len() == group.wanted.len()
            };
            view.groups.iter().all(is_whole)
        })
        .await;
    }

    /// Waits until every group has a leader that is alive.
    pub async fn led(&self) {
        self.agree("every group is led", |view| view.groups.iter().all(|group| group.leader.is_some())).await;
    }

    /// Makes a space by way of a node. The catalog's leader may be gone: whoever asked it in that instant is told that nobody
    /// knows, and asks again.
    pub async fn make_space(&self, by: u64, name: &str) {
        let mut asked_before = false;
        let make = async {
            loop {
                match self.node(by).create_space(name, None, SpacePolicy::default()).await {
                    Ok(_) => return,
                    Err(NodeError::SpaceExists) if asked_before => return,
                    Err(error) if error.may_have_applied() => asked_before = true,
                    Err(error) => panic!("{name}: {error:?}"),
                }
            }
        };
        patient(make).await;
    }

    /// The node that leads a partition, as those that run see it.
    pub fn leader_of(&self, partition: PartitionId) -> Option<&Arc<Node>> {
        let leaders = self.running().filter_map(|node| node.map().leaders[usize::from(partition.0)]);
        let leader = leaders.into_iter().find(|leader| self.is_running(*leader))?;
        self.running().find(|node| node.identity().node_id == leader)
    }

    fn is_running(&self, id: u64) -> bool {
        self.running().any(|node| node.identity().node_id == id)
    }

    /// Does something at the leader of a partition, again and again while it can be done later.
    pub async fn at_leader<T>(
        &self,
        partition: PartitionId,
        what: impl AsyncFn(&Arc<Node>) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let tried = async {
            loop {
                if let Some(leader) = self.leader_of(partition) {
                    match Box::pin(what(leader)).await {
                        Err(error) if error.is_retryable() => {}
                        done => return done,
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        patient(tried).await
    }

    /// The tag of the next write of a partition's own session.
    pub async fn tag(&self, partition: PartitionId) -> WriteTag {
        if !self.sessions.lock().unwrap().contains_key(&partition) {
            let opened = self.at_leader(partition, async |node| node.open_session(partition).await).await;
            self.sessions.lock().unwrap().entry(partition).or_insert((opened.unwrap(), 0));
        }
        let mut sessions = self.sessions.lock().unwrap();
        let (session, sequence) = sessions.get_mut(&partition).unwrap();
        *sequence += 1;
        let sequence = Sequence(*sequence);
        WriteTag { session: *session, sequence, lowest_unanswered: sequence }
    }

    /// Opens a new session for the next write to a partition: it has lost those that it had.
    pub fn forget_session(&self, partition: PartitionId) {
        self.sessions.lock().unwrap().remove(&partition);
    }

    /// Writes once, however often it has to be sent.
    pub async fn write(&self, user: UserId, write: Write) -> Receipt {
        let partition = PartitionId::of_user(user, PARTITIONS);
        let tag = self.tag(partition).await;
        let written = self.at_leader(partition, async |node| node.write(partition, tag, write.clone()).await);
        written.await.unwrap()
    }

    pub async fn post(&self, owner: UserId, payload: &str) -> EntryId {
        made_by(&self.write(owner, Write::Append { items: vec![entry(owner, payload)] }).await)
    }

    pub async fn follow(&self, reader: UserId, owner: UserId) {
        let receipt = self.write(reader, Write::Follow { graph: FOLLOWS, reader, owners: vec![owner] }).await;
        assert!(matches!(receipt.result, WriteResult::Related { changed: 1, .. }), "{receipt:?}");
    }

    /// The newest of a reader's feed, as the leader of its home shows it now; none while that cannot be read whole.
    async fn try_feed(&self, reader: UserId) -> Option<Vec<EntryId>> {
        let leader = self.leader_of(PartitionId::of_user(reader, PARTITIONS))?;
        let page = leader.read_feed(&feed(reader)).await.ok()?;
        page.short_of.is_empty().then(|| page.entries.iter().map(|entry| entry.id).collect())
    }

    /// Waits until a reader's feed is what it should be.
    pub async fn sees(&self, reader: UserId, expected: &[EntryId]) {
        let mut last = None;
        let wait = async {
            loop {
                last = self.try_feed(reader).await;
                if last.as_deref() == Some(expected) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let is_in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(is_in_time, "{reader:?} should see {expected:?} and sees {last:?}\n{:#?}", self.any().view());
    }
}

/// A feed of readers in every partition who follow one owner.
pub struct Followed {
    pub owner: UserId,
    pub readers: Vec<UserId>,
    pub posts: Vec<EntryId>,
}

impl Followed {
    pub async fn new(cluster: &Cluster) -> Self {
        let (owner, readers) =
            (user_at(0, 0), (0..PARTITIONS).map(|partition| user_at(partition, 1)).collect());
        let this = Self { owner, readers, posts: Vec::new() };
        for reader in &this.readers {
            cluster.follow(*reader, owner).await;
        }
        this
    }

    pub async fn post(&mut self, cluster: &Cluster, count: usize) {
        for _ in 0..count {
            let number = self.posts.len();
            self.posts.insert(0, cluster.post(self.owner, &number.to_string()).await);
        }
    }

    /// Waits until all readers see all posts.
    pub async fn seen(&self, cluster: &Cluster) {
        for reader in &self.readers {
            cluster.sees(*reader, &self.posts).await;
        }
    }
}

/// The first entry that a write made.
pub fn made_by(written: &Receipt) -> EntryId {
    all_made_by(written)[0]
}

/// The entries that a write made.
pub fn all_made_by(written: &Receipt) -> Vec<EntryId> {
    let WriteResult::Appended { items } = &written.result else { panic!("{written:?}") };
    let id = |item: &AppendResult| match item {
        AppendResult::Made { id, .. } => *id,
        refused @ AppendResult::Refused { .. } => panic!("{refused:?}"),
    };
    items.iter().map(id).collect()
}

/// Copies a directory with all that is in it.
pub fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(|item| item.unwrap().path()) {
        let name = to.join(item.file_name().unwrap());
        if item.is_dir() {
            copy_all(&item, &name);
        } else {
            fs::copy(&item, name).unwrap();
        }
    }
}

/// Fails if something takes for ever.
pub async fn patient<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.expect("this takes far less")
}

pub fn entry(owner: UserId, payload: &str) -> Append {
    Append {
        space: POSTS,
        owner,
        author: None,
        audience: Audience::Public,
        ttl: Ttl::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub fn feed(reader: UserId) -> FeedRequest {
    FeedRequest {
        space: POSTS,
        reader,
        limit: 100,
        below: EntryId::MAX,
        newer_than: None,
        hydrate: false,
        at_least: None,
        consistency: fanfold_cluster::read::Consistency::Leader,
    }
}

pub fn timeline(owner: UserId) -> TimelineRequest {
    TimelineRequest {
        space: POSTS,
        owner,
        viewer: None,
        limit: 200,
        below: EntryId::MAX,
        hydrate: false,
        at_least: None,
        consistency: fanfold_cluster::read::Consistency::Leader,
    }
}

/// A user homed at a partition; each `nth` is another.
pub fn user_at(partition: u16, nth: usize) -> UserId {
    let at_home = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(partition);
    (1..).map(UserId).filter(at_home).nth(nth).unwrap()
}
