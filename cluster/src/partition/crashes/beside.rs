//! Stops while flushes run beside merges and snapshots, as a running node has them: what one writes has a piece of the other's before
//! and behind each of its own, and what they write is changed meanwhile.
//!
//! - Each operation on the partition's directory waits until it is let through, so the order is the same each time.

use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::task::JoinHandle;

use super::*;

/// So large that a segment is little more than its entries.
const BYTES: usize = 1_000;

/// An operation that waits until this is dropped.
struct Waiting {
    path: PathBuf,
    _go: Sender<()>,
}

impl Waiting {
    /// Whether it is on a file of a snapshot that has no name yet.
    fn is_of_snapshot(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str()?.split_once('.'));
        name.is_some_and(|(_, kind)| kind == "new")
    }
}

/// A flush, a merge or a snapshot.
struct Piece {
    task: JoinHandle<Result<(), Failed>>,
    waiting: Option<Waiting>,
}

/// Lets operations on the partition's directory through, one by one; all of them once this is gone.
struct Order<'a> {
    node: &'a Node,
    asked: Receiver<Waiting>,
}

impl<'a> Order<'a> {
    fn of(node: &'a Node) -> Self {
        let (ask, asked) = channel();
        node.disk.before_each(move |path| {
            let (go, gone) = channel();
            if path.starts_with(DIR) && ask.send(Waiting { path: path.to_owned(), _go: go }).is_ok() {
                // Nothing is ever sent.
                let _ = gone.recv();
            }
        });
        Self { node, asked }
    }

    /// Waits until a piece, which alone goes on, comes to its next operation or its end, or until what it does then is known.
    async fn goes_on(&self, piece: &mut Piece, is_known: impl Fn() -> bool) {
        while piece.waiting.is_none() && !piece.task.is_finished() && !self.node.has_stopped() && !is_known()
        {
            piece.waiting = self.asked.try_recv().ok();
            tokio::task::yield_now().await;
        }
    }

    async fn begin(&self, task: impl Future<Output = Result<(), Failed>> + Send + 'static) -> Piece {
        let mut piece = Piece { task: tokio::spawn(task), waiting: None };
        self.goes_on(&mut piece, || false).await;
        piece
    }

    /// Lets the operation through that a piece has come to.
    async fn step(&self, piece: &mut Piece) {
        piece.waiting = None;
        self.goes_on(piece, || false).await;
    }

    /// Lets each of two do an operation in turn, at most so many times, until one has no more.
    async fn in_turn(&self, one: &mut Piece, other: &mut Piece, most: usize) {
        for _ in 0..most {
            if one.waiting.is_none() || other.waiting.is_none() {
                return;
            }
            self.step(one).await;
            self.step(other).await;
        }
    }

    /// Lets a piece come to its end.
    async fn end(&self, mut piece: Piece) -> Result<(), Failed> {
        self.goes_on(&mut piece, || false).await;
        while piece.waiting.is_some() {
            self.step(&mut piece).await;
        }
        // Whoever waits for a piece that waits here would not come to an end.
        if self.node.has_stopped() { Err(Failed) } else { piece.task.await.unwrap() }
    }
}

/// Writes what is in memory to segments, once.
async fn flush(group: Group<PartitionMachine>) -> Result<(), Failed> {
    let settings = FileSettings { cache_bytes: u64::MAX, ..settings() };
    group.flush(&settings).await.map(|flushed| assert!(flushed)).map_err(|_| Failed)
}

async fn merge(group: Group<PartitionMachine>) -> Result<(), Failed> {
    let turn = group.turn().await;
    let work =
        group.change(|machine| machine.file_work(&settings())).await.expect("there is something to merge");
    group.work(&turn, work).await.map_err(|_| Failed)
}

async fn snapshot(group: Group<PartitionMachine>) -> Result<(), Failed> {
    let turn = group.turn().await;
    group.snapshot(&turn).await.map(drop).map_err(|_| Failed)
}

impl Node {
    /// A flush beside a merge, then beside all that a snapshot does.
    async fn live_beside(&self, known: &mut Known) -> Result<(), Failed> {
        let (order, group) = (Order::of(self), || self.group.clone());
        self.post_of(known, BYTES).await?;
        let mut merging = order.begin(merge(group())).await;
        let mut flushing = order.begin(flush(group())).await;
        order.in_turn(&mut merging, &mut flushing, 2).await;
        // Of what is being merged, and of what is being flushed.
        self.change(known, true).await?;
        self.change(known, false).await?;
        order.in_turn(&mut merging, &mut flushing, usize::MAX).await;
        order.end(merging).await?;
        order.end(flushing).await?;

        // A cut begins while a flush is under way, and waits for it.
        self.post_of(known, BYTES).await?;
        let mut flushing = order.begin(flush(group())).await;
        order.step(&mut flushing).await;
        self.post_of(known, BYTES).await?;
        let mut cutting = order.begin(snapshot(group())).await;
        let before = self.disk.operations();
        cutting.waiting = None;
        order.goes_on(&mut cutting, || self.disk.operations() > before).await;
        self.change(known, false).await?;
        order.end(flushing).await?;

        // Behind what it flushes itself, the next flush is done beside it, and what it removes waits for that.
        order.goes_on(&mut cutting, || false).await;
        while cutting.waiting.as_ref().is_some_and(|waiting| !waiting.is_of_snapshot()) {
            order.step(&mut cutting).await;
        }
        self.post_of(known, BYTES).await?;
        let (first, newest) = (self.first_of_log(), self.newest());
        let mut flushing = order.begin(flush(group())).await;
        order.in_turn(&mut cutting, &mut flushing, 3).await;
        self.change(known, true).await?;
        let is_taken = || self.newest() > newest;
        while cutting.waiting.take().is_some() && !is_taken() {
            order.goes_on(&mut cutting, is_taken).await;
            if !is_taken() {
                order.step(&mut flushing).await;
            }
        }
        order.goes_on(&mut cutting, || self.first_of_log() > first).await;
        self.change(known, false).await?;
        assert!(flushing.waiting.is_some() || self.has_stopped(), "it is still under way");
        order.end(flushing).await?;
        order.end(cutting).await?;

        // What was written beside all that is named by this one.
        drop(order);
        self.snapshot().await?;
        self.post_of(known, BYTES).await
    }

    fn newest(&self) -> Option<u64> {
        self.group.newest_snapshot().map(|newest| newest.manifest.number)
    }
}

/// A disk with segments of one of which much is dead, two snapshots that name them, and a purged log.
async fn prepared() -> (FaultFs, Known) {
    let node = Node::open(FaultFs::new(), Formation::New).await.unwrap();
    let mut known = Known::default();
    for command in [Command::DefineSpace { definition: definition() }, Command::OpenSession] {
        assert!(node.apply(1_000_000, &command).await.is_ok());
    }
    for round in 0..3 {
        assert!(node.post_of(&mut known, BYTES).await.is_ok() && flush(node.group.clone()).await.is_ok());
        for _ in 0..2 * round {
            assert!(node.change(&mut known, true).await.is_ok());
        }
        assert!(node.snapshot().await.is_ok());
    }
    (node.disk.duplicate(), known)
}

#[tokio::test]
async fn a_loss_of_power_beside_flushes_merges_and_snapshots_loses_nothing_that_was_answered() {
    let (begun, known) = prepared().await;
    let node = Node::open(begun.duplicate(), Formation::Existing).await.unwrap();
    let (before, mut all) = (node.disk.operations(), known.clone());
    assert!(node.live_beside(&mut all).await.is_ok());
    let operations = node.disk.operations() - before;
    node.check(&mut all, "never stopped");
    drop(node);
    assert!(operations > 60, "{operations}");
    let mut stopped = 0;
    for stop in 0..operations + 4 {
        // One of the losses at each operation: the next one has another.
        let loss = [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)][stop as usize % 3];
        let what = format!("stopped after {stop} operations, {loss:?}");
        let mut known = known.clone();
        let node = Node::open(begun.duplicate(), Formation::Existing).await.expect(&what);
        node.disk.stop_after(stop);
        stopped += u32::from(node.live_beside(&mut known).await.is_err());
        let disk = node.disk.lose_power(loss);
        drop(node);
        goes_on(disk, &mut known, &what).await;
    }
    assert!(stopped > 60, "{stopped}");
}
