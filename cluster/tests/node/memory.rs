//! A node and its memory budget, with a size that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::node::WriteSink;
use fanfold_cluster::status::MemoryStatus;
use fanfold_cluster::{NodeError, NodeOptions, Receipt, Resident, ResidentSize};
use fanfold_storage::command::{Ttl, Write};
use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{EntryId, UserId};
use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};
use tokio::sync::mpsc;

use super::support::*;

/// The budget of the nodes here.
pub const BUDGET: u64 = 64 << 20;

/// More than a tenth above it.
const TOO_MUCH: u64 = BUDGET + BUDGET / 8;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A resident size that is what a test says.
#[derive(Debug, Clone, Default)]
pub struct SetSize(Arc<AtomicU64>);

impl SetSize {
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl ResidentSize for SetSize {
    fn now(&self) -> Option<Resident> {
        Some(Resident { bytes: self.0.load(Ordering::Relaxed), mapped_bytes: 0 })
    }
}

/// A node with a budget, and its size.
async fn with_budget() -> (TestNode, SetSize) {
    let size = SetSize::default();
    let change = |options: &mut NodeOptions| {
        (options.memory_bytes, options.away_days) = (BUDGET, 1);
        options.resident = Arc::new(size.clone());
        options.limits.session_life_ms = 30 * DAY.as_millis() as u64;
    };
    let test = TestNode::with(change, Box::new(|streams| streams)).await;
    (test, size)
}

fn memory(test: &TestNode) -> MemoryStatus {
    test.node.status().memory.unwrap()
}

/// Sets the size, and waits until the node refuses writes, or does no more.
async fn becomes(test: &TestNode, size: &SetSize, bytes: u64, refuses: bool) {
    size.set(bytes);
    until(async || memory(test).refuses_writes == refuses).await;
}

/// What grows, of a user of its own.
fn growing(user: UserId, other: UserId, id: EntryId) -> Vec<Write> {
    let edge = ImportEdge { reader: user, owner: other, since: None };
    let import = ImportEntry {
        space: POSTS,
        owner: user,
        author: None,
        audience: Audience::Public,
        place: Place::Time { stamp: id.time() },
        lifetime: Lifetime::SpaceDefault,
        version: 1,
        key: None,
        reference: None,
        payload: Bytes::from("old"),
    };
    vec![
        Write::Append { items: vec![entry(user, "new")] },
        Write::Amend { space: POSTS, owner: user, id, expected_version: 1, payload: Bytes::from("more") },
        Write::Follow { graph: FOLLOWS, reader: user, owners: vec![other] },
        Write::Mute { user, targets: vec![other] },
        Write::Block { user, targets: vec![other] },
        Write::ImportFollows { graph: FOLLOWS, edges: vec![edge] },
        Write::ImportEntries { entries: vec![import] },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_over_its_budget_takes_only_what_needs_no_memory() {
    let (test, size) = with_budget().await;
    let (user, other) = (user_at(1, 0), user_at(1, 1));
    let (kept, deleted) = (test.post(user, "kept").await, test.post(user, "deleted").await);
    test.follow(other, &[user]).await;
    test.drained().await;
    becomes(&test, &size, TOO_MUCH, true).await;
    let said = memory(&test);
    assert_eq!((said.budget_bytes, said.resident_bytes, said.is_over), (BUDGET, TOO_MUCH, true));
    for write in growing(user, user_at(1, 2), kept) {
        let refused = test.try_write(user, write.clone()).await;
        assert_eq!(refused.unwrap_err(), NodeError::MemoryFull, "{write:?}");
    }
    assert_eq!(test.feed(other).await, [deleted, kept]);
    test.write(user, Write::Delete { space: POSTS, owner: user, id: deleted }).await;
    let ttl = Ttl::Ms { ttl_ms: DAY.as_millis() as u64 };
    test.write(user, Write::SetExpiry { space: POSTS, owner: user, id: kept, ttl }).await;
    test.write(user, Write::Unmute { user, targets: vec![other] }).await;
    test.write(user, Write::Unblock { user, targets: vec![other] }).await;
    test.drained().await;
    assert_eq!(test.feed(other).await, [kept]);
    test.write(other, Write::Unfollow { graph: FOLLOWS, reader: other, owners: vec![user] }).await;
    assert_eq!(test.feed(other).await, []);
    // Below the line, but not by enough.
    size.set(BUDGET + BUDGET / 11);
    until(async || memory(&test).resident_bytes < TOO_MUCH).await;
    assert!(memory(&test).refuses_writes);
    becomes(&test, &size, BUDGET / 2, false).await;
    assert!(!memory(&test).is_over);
    for write in growing(user, user_at(1, 2), kept) {
        test.write(user, write).await;
    }
}

/// Takes what a lane answers.
struct Answers(mpsc::UnboundedSender<(u64, Result<Receipt, NodeError>)>);

impl WriteSink for Answers {
    fn written(&self, results: &mut dyn Iterator<Item = (u64, Result<Receipt, NodeError>)>) {
        results.for_each(|result| self.0.send(result).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writes_that_are_submitted_together_those_that_need_memory_are_refused() {
    let (test, size) = with_budget().await;
    let user = user_at(1, 0);
    let (home, id) = (test.node.partition_of(user), test.post(user, "old").await);
    let (sink, mut answers) = mpsc::unbounded_channel();
    let mut lane = test.node.write_lane(home, Arc::new(Answers(sink))).unwrap();
    let writes = || {
        let delete = Write::Delete { space: POSTS, owner: user, id };
        [
            Write::Append { items: vec![entry(user, "new")] },
            delete,
            growing(user, user_at(1, 1), id).remove(2),
        ]
    };
    let mut ask = async || {
        let mut numbered = Vec::new();
        for (number, write) in (0..).zip(writes()) {
            numbered.push((number, test.tag(home).await, write));
        }
        lane.submit(numbered);
        let mut came = Vec::new();
        for _ in 0..3 {
            let (number, result) = patient(answers.recv()).await.unwrap();
            came.push((number, result.err()));
        }
        came.sort_unstable_by_key(|(number, _)| *number);
        came
    };
    becomes(&test, &size, TOO_MUCH, true).await;
    let full = || Some(NodeError::MemoryFull);
    assert_eq!(ask().await, [(0, full()), (1, None), (2, full())]);
    becomes(&test, &size, BUDGET / 2, false).await;
    assert_eq!(ask().await, [(0, None), (1, None), (2, None)]);
}

/// Feeds that hold references, in all partitions.
fn feeds(test: &TestNode) -> u64 {
    test.node.status().partitions.iter().map(|partition| partition.usage.feeds).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_of_readers_who_return_wait_until_there_is_memory() {
    let (test, size) = with_budget().await;
    let (owner, reader) = (user_at(1, 0), user_at(1, 1));
    test.follow(reader, &[owner]).await;
    let post = test.post(owner, "hello").await;
    test.drained().await;
    test.clock.advance(3 * DAY);
    becomes(&test, &size, TOO_MUCH, true).await;
    until(async || feeds(&test) == 0).await;
    for _ in 0..20 {
        assert_eq!(test.feed(reader).await, [post]);
        // Whatever the read led to is proposed with one of these, or before.
        test.write(reader, Write::Unmute { user: reader, targets: vec![owner] }).await;
        assert_eq!(feeds(&test), 0, "nothing is brought back for a reader");
    }
    becomes(&test, &size, BUDGET / 2, false).await;
    until(async || {
        assert_eq!(test.feed(reader).await, [post]);
        feeds(&test) == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_budget_says_nothing_of_one() {
    let size = SetSize::default();
    size.set(u64::MAX);
    let change = |options: &mut NodeOptions| options.resident = Arc::new(size.clone());
    let test = TestNode::with(change, Box::new(|streams| streams)).await;
    assert_eq!(test.node.status().memory, None);
    test.post(user_at(1, 0), "hello").await;
}
