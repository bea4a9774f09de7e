//! Streams under faults: lost, repeated, delayed messages, and a destination that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfold_cluster::dispatcher::{StreamError, StreamTransport};
use fanfold_storage::command::Write;
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::{EntryId, PartitionId};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::support::*;

/// Holds all messages with events back while told to.
#[derive(Clone)]
pub struct Held {
    held: Arc<watch::Sender<bool>>,
}

impl Default for Held {
    fn default() -> Self {
        Self { held: Arc::new(watch::Sender::new(false)) }
    }
}

impl Held {
    pub fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    pub fn around(self, inner: Arc<dyn StreamTransport>) -> Arc<dyn StreamTransport> {
        Arc::new(HeldStreams { held: self, inner })
    }
}

struct HeldStreams {
    held: Held,
    inner: Arc<dyn StreamTransport>,
}

impl StreamTransport for HeldStreams {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let (inner, mut held) = (self.inner.clone(), self.held.held.subscribe());
        Box::pin(async move {
            let _ = held.wait_for(|held| !held).await;
            inner.send(destination, message).await
        })
    }
}

/// Loses messages, loses answers, and sends messages twice, each every few times.
struct Lossy {
    inner: Arc<dyn StreamTransport>,
    sent: AtomicU64,
}

impl StreamTransport for Lossy {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let inner = self.inner.clone();
        Box::pin(async move {
            match number % 5 {
                0 => Err(StreamError::Unavailable { destination }),
                1 => {
                    inner.send(destination, message).await?;
                    Err(StreamError::Unavailable { destination })
                }
                2 => {
                    let twice = [inner.send(destination, message.clone()), inner.send(destination, message)];
                    futures_util::future::join_all(twice).await.remove(0)
                }
                _ => inner.send(destination, message).await,
            }
        })
    }
}

/// A partition that nobody reaches while it is cut off.
struct CutOff {
    inner: Arc<dyn StreamTransport>,
    cut: PartitionId,
    is_cut: Arc<watch::Sender<bool>>,
}

impl StreamTransport for CutOff {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        if destination == self.cut && *self.is_cut.borrow() {
            return Box::pin(async move { Err(StreamError::Unavailable { destination }) });
        }
        self.inner.send(destination, message)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_repeated_messages_deliver_everything_once() {
    let lossy = |inner| Arc::new(Lossy { inner, sent: AtomicU64::new(0) }) as Arc<dyn StreamTransport>;
    let test = TestNode::with(|_| {}, Box::new(lossy)).await;
    let owners: Vec<_> = (0..PARTITIONS).map(|p| user_at(p, 0)).collect();
    let readers: Vec<_> = (0..PARTITIONS).map(|p| user_at(p, 1)).collect();
    for reader in &readers {
        test.follow(*reader, &owners).await;
    }
    let mut posts = Vec::new();
    for _ in 0..25 {
        for owner in &owners {
            posts.push(test.post(*owner, "x").await);
        }
    }
    posts.sort_unstable_by(|a, b| b.cmp(a));
    test.drained().await;
    let status = test.node.status();
    let stored: u64 = status.partitions.iter().map(|partition| partition.usage.deliveries_stored).sum();
    // Entries that came before the subscription was filled come with its backfill instead, each once too.
    assert!(stored <= 400, "{stored}");
    for reader in &readers {
        assert_eq!(test.feed(*reader).await, posts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_destination_is_dropped_and_made_whole_when_it_returns() {
    let is_cut = Arc::new(watch::Sender::new(false));
    let shared = is_cut.clone();
    let cut = PartitionId(3);
    let wrap = move |inner| Arc::new(CutOff { inner, cut, is_cut: shared }) as Arc<dyn StreamTransport>;
    let test = TestNode::with(|options| options.journal_events_max = 10, Box::new(wrap)).await;
    let (owner, far, near) = (user_at(0, 0), user_at(3, 0), user_at(1, 0));
    for reader in [far, near] {
        test.follow(reader, &[owner]).await;
    }
    test.drained().await;
    let first = test.post(owner, "before").await;
    test.drained().await;
    is_cut.send_replace(true);
    let mut posts = vec![first];
    let mut last = None;
    for _ in 0..40 {
        let (id, position) = test.append(entry(owner, "meanwhile")).await;
        posts.insert(0, id);
        last = Some(position);
    }
    // The others go on, and the journal is given up for the silent one.
    until(async || test.node.status().partitions[0].journal_len == 0).await;
    assert_eq!(test.feed(near).await, posts);
    let stream = |test: &TestNode| {
        let status = test.node.status();
        *status.partitions[0].streams.iter().find(|stream| stream.destination == cut).unwrap()
    };
    assert!(!stream(&test).is_active);
    // What was posted meanwhile does not count as delivered, and a block waits for its return.
    let position = last.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), test.node.wait_delivered(&position)).await;
    assert!(waiting.is_err());
    let block = test.write(owner, Write::Block { user: owner, targets: vec![user_at(3, 5)] });
    tokio::pin!(block);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut block).await.is_err());
    is_cut.send_replace(false);
    patient(&mut block).await;
    patient(test.node.wait_delivered(&position)).await.unwrap();
    test.drained().await;
    assert!(stream(&test).is_active);
    assert_eq!(test.feed(far).await, posts);
    let blocked = user_at(3, 5);
    let page = test.node.read_timeline(&timeline(owner, Some(blocked))).await.unwrap();
    assert_eq!(ids(&page.entries), [] as [EntryId; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_done_at_once_and_whoever_stops_waiting_for_it_holds_nothing() {
    let is_cut = Arc::new(watch::Sender::new(true));
    let shared = is_cut.clone();
    let cut = PartitionId(3);
    let wrap = move |inner| Arc::new(CutOff { inner, cut, is_cut: shared }) as Arc<dyn StreamTransport>;
    let test = TestNode::with(|_| {}, Box::new(wrap)).await;
    let (owner, far) = (user_at(0, 0), user_at(3, 0));
    test.post(owner, "not for all").await;
    let block = Write::Block { user: owner, targets: vec![far] };
    let home = test.node.partition_of(owner);
    let tag = test.tag(home).await;
    // The other partition cannot be reached, and the write is there all the same.
    let begun = patient(test.node.begin_write(home, tag, block.clone())).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), test.node.end_write(begun)).await;
    assert!(waiting.is_err());
    // Sent again under its number it has its first answer, and waits again.
    let begun = patient(test.node.begin_write(home, tag, block)).await.unwrap();
    let waiting = test.node.end_write(begun);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    is_cut.send_replace(false);
    patient(waiting).await.unwrap();
    let page = test.node.read_timeline(&timeline(owner, Some(far))).await.unwrap();
    assert_eq!(ids(&page.entries), [] as [EntryId; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_destination_holds_up_nobody_else() {
    let is_cut = Arc::new(watch::Sender::new(true));
    let shared = is_cut.clone();
    let cut = PartitionId(2);
    let wrap = move |inner| Arc::new(CutOff { inner, cut, is_cut: shared }) as Arc<dyn StreamTransport>;
    let test = TestNode::with(|_| {}, Box::new(wrap)).await;
    let (owner, far, near) = (user_at(0, 0), user_at(2, 0), user_at(1, 0));
    for reader in [far, near] {
        test.follow(reader, &[owner]).await;
    }
    let (id, position) = test.append(entry(owner, "x")).await;
    let request = fanfold_cluster::read::FeedRequest { at_least: Some(position), ..feed(near) };
    assert_eq!(ids(&test.page(&request).await.entries), [id]);
    // The reader whose subscription is on its way reads from the owner's timeline.
    assert_eq!(test.feed(far).await, [id]);
    is_cut.send_replace(false);
    test.drained().await;
    assert_eq!(test.feed(far).await, [id]);
}
