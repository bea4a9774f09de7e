//! Owns what the tests of a node share: a node with a clock to turn, and short words for what is done with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::clock::{LOG_EPOCH_UNIX_MS, ManualClock};
use fanfold_cluster::node::WrapStreams;
use fanfold_cluster::read::{EntryView, FeedRequest, Page, TimelineRequest};
use fanfold_cluster::{Node, NodeError, NodeOptions, Position, Receipt};
use fanfold_storage::command::{Append, AppendResult, Ttl, Write, WriteResult, WriteTag};
use fanfold_storage::entry::{Audience, EntryRef};
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, SpaceId, UserId};

pub const POSTS: SpaceId = SpaceId(1);
pub const FOLLOWS: GraphId = GraphId(1);
pub const PARTITIONS: u16 = 4;

/// Longer than anything here takes, so that a wait that never ends fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node in a directory of its own.
pub struct TestNode {
    pub node: Arc<Node>,
    pub clock: ManualClock,
    pub dir: Arc<tempfile::TempDir>,
    sessions: Mutex<BTreeMap<PartitionId, (SessionId, u64)>>,
}

/// A node that was stopped cleanly.
pub struct Stopped {
    pub dir: Arc<tempfile::TempDir>,
    clock: ManualClock,
}

impl Stopped {
    /// Opens the same directory again, with these changes of the settings.
    pub async fn start_with(self, change: impl FnOnce(&mut NodeOptions)) -> TestNode {
        TestNode::open(self.dir, self.clock, change, Box::new(|streams| streams)).await
    }
}

pub fn options(dir: &tempfile::TempDir, clock: &ManualClock) -> NodeOptions {
    let mut options = NodeOptions::new(dir.path().join("data"));
    options.partitions = Some(PARTITIONS);
    options.clock = Arc::new(clock.clone());
    options.log.segment_bytes = 1 << 20;
    options
}

impl TestNode {
    pub async fn new() -> Self {
        Self::with(|_| {}, Box::new(|streams| streams)).await
    }

    pub async fn with(change: impl FnOnce(&mut NodeOptions), wrap: WrapStreams) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let clock = ManualClock::new(LOG_EPOCH_UNIX_MS + 848_000_000_000);
        Self::open(dir, clock, change, wrap).await
    }

    async fn open(
        dir: Arc<tempfile::TempDir>,
        clock: ManualClock,
        change: impl FnOnce(&mut NodeOptions),
        wrap: WrapStreams,
    ) -> Self {
        let mut options = options(&dir, &clock);
        change(&mut options);
        let node = Node::open_with(options, wrap).await.unwrap();
        Self { node, clock, dir, sessions: Mutex::default() }
    }

    /// Stops without a mark, and opens the same directory again.
    pub async fn restart_hard(self) -> Self {
        self.restart_hard_with(|_| {}).await
    }

    /// Stops without a mark, and opens the same directory again, with these changes of the settings.
    pub async fn restart_hard_with(self, change: impl FnOnce(&mut NodeOptions)) -> Self {
        let Self { node, clock, dir, .. } = self;
        node.abandon().await;
        Self::open(dir, clock, change, Box::new(|streams| streams)).await
    }

    /// Stops cleanly, and opens the same directory again.
    pub async fn restart(self) -> Self {
        self.stop().await.start_with(|_| {}).await
    }

    /// Stops cleanly.
    pub async fn stop(self) -> Stopped {
        let Self { node, clock, dir, .. } = self;
        node.close().await.unwrap();
        Stopped { dir, clock }
    }

    pub async fn tag(&self, partition: PartitionId) -> WriteTag {
        let known = self.sessions.lock().unwrap().contains_key(&partition);
        if !known {
            let session = self.node.open_session(partition).await.unwrap();
            self.sessions.lock().unwrap().entry(partition).or_insert((session, 0));
        }
        let mut sessions = self.sessions.lock().unwrap();
        let (session, sequence) = sessions.get_mut(&partition).unwrap();
        *sequence += 1;
        let sequence = Sequence(*sequence);
        WriteTag { session: *session, sequence, lowest_unanswered: sequence }
    }

    pub async fn try_write(&self, user: UserId, write: Write) -> Result<Receipt, NodeError> {
        let partition = self.node.partition_of(user);
        let tag = self.tag(partition).await;
        patient(self.node.write(partition, tag, write)).await
    }

    pub async fn write(&self, user: UserId, write: Write) -> Receipt {
        self.try_write(user, write).await.unwrap()
    }

    pub async fn post(&self, owner: UserId, payload: &str) -> EntryId {
        self.append(entry(owner, payload)).await.0
    }

    pub async fn append(&self, item: Append) -> (EntryId, Position) {
        let receipt = self.write(item.owner, Write::Append { items: vec![item] }).await;
        let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
        let AppendResult::Made { id, .. } = items[0] else { panic!("{items:?}") };
        (id, receipt.position)
    }

    pub async fn follow(&self, reader: UserId, owners: &[UserId]) {
        let write = Write::Follow { graph: FOLLOWS, reader, owners: owners.to_vec() };
        let receipt = self.write(reader, write).await;
        let all = owners.len() as u32;
        assert!(
            matches!(receipt.result, WriteResult::Related { changed, .. } if changed == all),
            "{receipt:?}"
        );
    }

    pub async fn drained(&self) {
        patient(self.node.wait_drained()).await.unwrap();
    }

    pub async fn page(&self, request: &FeedRequest) -> Page {
        patient(self.node.read_feed(request)).await.unwrap()
    }

    /// All ids of a feed, read in pages of `limit`.
    pub async fn feed_by(&self, reader: UserId, limit: u32) -> Vec<EntryId> {
        let mut all = Vec::new();
        let mut request = FeedRequest { limit, ..feed(reader) };
        loop {
            let page = self.page(&request).await;
            assert!(page.entries.len() <= limit as usize && page.short_of.is_empty(), "{page:?}");
            assert!(page.next.is_none() || page.entries.len() == limit as usize, "short without a reason");
            all.extend(ids(&page.entries));
            match page.next {
                Some(next) => request.below = next,
                None => return all,
            }
        }
    }

    pub async fn feed(&self, reader: UserId) -> Vec<EntryId> {
        self.feed_by(reader, 100).await
    }
}

/// Fails if something takes for ever.
pub async fn patient<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.expect("this takes far less")
}

/// Waits for what no answer tells.
pub async fn until(holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !Box::pin(holds()).await {
            tokio::task::yield_now().await;
        }
    };
    patient(wait).await;
}

pub fn ids(entries: &[EntryView]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
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

pub fn reply(owner: UserId, to: EntryRef) -> Append {
    Append { reference: Some(to), ..entry(owner, "reply") }
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

pub fn timeline(owner: UserId, viewer: Option<UserId>) -> TimelineRequest {
    let (space, below) = (POSTS, EntryId::MAX);
    TimelineRequest {
        space,
        owner,
        viewer,
        limit: 100,
        below,
        hydrate: true,
        at_least: None,
        consistency: fanfold_cluster::read::Consistency::Leader,
    }
}

/// A user homed at a partition; each `nth` is another.
pub fn user_at(partition: u16, nth: usize) -> UserId {
    let at_home = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(partition);
    (1..).map(UserId).filter(at_home).nth(nth).unwrap()
}
