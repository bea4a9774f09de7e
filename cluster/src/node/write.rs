//! Owns the writes of applications: sessions, and commands that carry a tag.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use fanfold_storage::codec::Encoded;
use fanfold_storage::command::{Command, Outcome, Refusal, Write, WriteTag};
use fanfold_storage::ids::{JournalPosition, PartitionId, SessionId, UserId};

use super::Node;
use crate::catalog::Catalog;
use crate::error::NodeError;
use crate::memory;
use crate::partition::{Applied, PartitionHandle, Partitions};
use crate::position::{Position, Receipt};
use crate::proposer::{AnswerSink, CommandResult};

/// Takes what came of writes that were submitted together.
///
/// It runs on a task of the partition: it must be short and must not wait.
pub trait WriteSink: Send + Sync + 'static {
    /// Takes results by the numbers of their writes. Each write is answered exactly once.
    fn written(&self, results: &mut dyn Iterator<Item = (u64, Result<Receipt, NodeError>)>);
}

/// Memory that a thread keeps for the next commands; what a larger group took is given back.
const ENCODED_BYTES_KEPT: usize = 64 << 10;

thread_local! {
    /// Where commands are encoded, of all lanes of a thread: memory of their own would be in no cache when their turn comes.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A write that is durable and applied where it was written.
#[derive(Debug)]
pub struct Written {
    receipt: Receipt,
    /// The other partitions that have to apply it before it is answered.
    concerned: Vec<PartitionId>,
}

/// The way of many writes to one partition: submitted together, proposed together, answered together.
pub struct WriteLane {
    partition: PartitionId,
    partitions: Arc<Partitions>,
    catalog: Weak<Catalog>,
    sink: Arc<dyn WriteSink>,
    /// The replica that took the last writes; it may be gone by the next.
    route: Option<Route>,
}

/// A replica of the partition that is here, and what takes its answers.
struct Route {
    home: Arc<PartitionHandle>,
    answers: Arc<dyn AnswerSink<Applied>>,
}

/// Turns what the proposer answers into what was written.
struct LaneAnswers {
    home: Arc<PartitionHandle>,
    catalog: Weak<Catalog>,
    sink: Arc<dyn WriteSink>,
}

impl WriteLane {
    /// Submits writes with their numbers, in order, without waiting; the lane's sink hears of each of them once.
    ///
    /// A block or unblock is to go through [`Node::write`], which waits for the other user's partition (R14).
    pub fn submit(&mut self, writes: impl IntoIterator<Item = (u64, WriteTag, Write)>) {
        let mut encoded = ENCODED.take();
        let (refuses, mut refused) = (self.partitions.refuses_growth(self.partition), Vec::new());
        let ends: Vec<(u64, usize)> = writes
            .into_iter()
            .filter_map(|(number, tag, write)| {
                debug_assert!(!matches!(write, Write::Block { .. } | Write::Unblock { .. }));
                if refuses && memory::grows(&write) {
                    refused.push(number);
                    return None;
                }
                Command::Write { tag, write }.encode(&mut encoded);
                Some((number, encoded.len()))
            })
            .collect();
        if !refused.is_empty() {
            self.sink.written(&mut refused.into_iter().map(|number| (number, Err(NodeError::MemoryFull))));
        }
        // Split in pieces, so that most commands take no allocation of their own.
        let mut all = Bytes::copy_from_slice(&encoded);
        encoded.clear();
        if encoded.capacity() <= ENCODED_BYTES_KEPT {
            ENCODED.set(encoded);
        }
        let mut start = 0;
        let commands = ends.into_iter().map(|(number, end)| {
            let command = all.split_to(end - start);
            start = end;
            (number, command)
        });
        match self.partitions.get(self.partition) {
            Ok(home) => {
                let (catalog, sink) = (&self.catalog, &self.sink);
                let known = self.route.take().filter(|route| Arc::ptr_eq(&route.home, &home));
                let route = self.route.insert(known.unwrap_or_else(|| Route::new(home, catalog, sink)));
                route.home.proposer().submit_all(commands, &route.answers);
            }
            Err(error) => {
                self.route = None;
                self.sink.written(&mut commands.map(|(number, _)| (number, Err(error.clone()))));
            }
        }
    }
}

impl Route {
    fn new(home: Arc<PartitionHandle>, catalog: &Weak<Catalog>, sink: &Arc<dyn WriteSink>) -> Self {
        let (catalog, sink) = (catalog.clone(), sink.clone());
        let answers = Arc::new(LaneAnswers { home: home.clone(), catalog, sink });
        Self { home, answers }
    }
}

impl AnswerSink<Applied> for LaneAnswers {
    fn answer(&self, answers: &mut Vec<(u64, CommandResult<Applied>)>) {
        let mut results = answers.drain(..).map(|(number, answer)| (number, self.receipt(answer)));
        self.sink.written(&mut results);
    }
}

impl LaneAnswers {
    fn receipt(&self, answer: CommandResult<Applied>) -> Result<Receipt, NodeError> {
        let partition = self.home.id();
        let proposed = answer.map_err(|error| self.home.not_proposed(&error))?;
        match proposed.outcome {
            Applied::Outcome(Outcome::Written { result, journal }) => {
                let incarnation = self.home.incarnation();
                let position = Position { partition, incarnation, index: proposed.index, journal };
                Ok(Receipt { result, position })
            }
            Applied::Outcome(outcome) => Err(match self.catalog.upgrade() {
                Some(catalog) => unexpected(&catalog, partition, &outcome),
                None => NodeError::ShuttingDown,
            }),
            Applied::Damaged => Err(self.home.damaged(true)),
        }
    }
}

impl Node {
    /// A lane for writes to a partition whose results go to `sink`.
    pub fn write_lane(
        &self,
        partition: PartitionId,
        sink: Arc<dyn WriteSink>,
    ) -> Result<WriteLane, NodeError> {
        let _pass = self.enter()?;
        self.partition(partition)?;
        let (partitions, catalog) = (self.partitions.clone(), Arc::downgrade(&self.catalog));
        Ok(WriteLane { partition, partitions, catalog, sink, route: None })
    }

    /// Opens a session with a partition.
    pub async fn open_session(&self, partition: PartitionId) -> Result<SessionId, NodeError> {
        let _pass = self.enter()?;
        match self.partition(partition)?.propose(&Command::OpenSession).await?.1 {
            Outcome::Session { session } => Ok(session),
            outcome => Err(unexpected(&self.catalog, partition, &outcome)),
        }
    }

    /// Closes a session; an unknown one is fine.
    pub async fn close_session(&self, partition: PartitionId, session: SessionId) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.partition(partition)?.propose(&Command::CloseSession { session }).await.map(|_| ())
    }

    /// Writes. Answered when it is durable and applied; a block or unblock when both users' partitions have applied it
    /// (R14).
    pub async fn write(
        &self,
        partition: PartitionId,
        tag: WriteTag,
        write: Write,
    ) -> Result<Receipt, NodeError> {
        let written = self.begin_write(partition, tag, write).await?;
        self.end_write(written).await
    }

    /// The first half of [`write`](Self::write): it is durable and applied where it was written.
    pub async fn begin_write(
        &self,
        partition: PartitionId,
        tag: WriteTag,
        write: Write,
    ) -> Result<Written, NodeError> {
        let _pass = self.enter()?;
        let home = self.partition(partition)?;
        if self.partitions.refuses_growth(partition) && memory::grows(&write) {
            return Err(NodeError::MemoryFull);
        }
        let concerned = self.blocked_homes(partition, &write);
        let (index, outcome) = home.propose(&Command::Write { tag, write }).await?;
        let (result, journal) = match outcome {
            Outcome::Written { result, journal } => (result, journal),
            outcome => return Err(unexpected(&self.catalog, partition, &outcome)),
        };
        let incarnation = home.incarnation();
        let receipt = Receipt { result, position: Position { partition, incarnation, index, journal } };
        Ok(Written { receipt, concerned })
    }

    /// The second half: a block or unblock waits until the other users' partitions have applied it, as long as they may
    /// be out of reach. Whoever stops waiting drops it.
    pub async fn end_write(&self, written: Written) -> Result<Receipt, NodeError> {
        let Written { receipt, concerned } = written;
        if !concerned.is_empty() {
            self.wait_for_block(&concerned, receipt.position).await?;
        }
        Ok(receipt)
    }

    /// The other partitions that a block or unblock concerns.
    fn blocked_homes(&self, own: PartitionId, write: &Write) -> Vec<PartitionId> {
        let (Write::Block { targets, .. } | Write::Unblock { targets, .. }) = write else {
            return Vec::new();
        };
        let home = |target: &UserId| self.partition_of(*target);
        let mut homes: Vec<_> = targets.iter().map(home).filter(|home| *home != own).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    async fn wait_for_block(&self, concerned: &[PartitionId], written: Position) -> Result<(), NodeError> {
        let Position { partition, index, journal, .. } = written;
        // The write is done, whatever keeps the wait from its end.
        let unknown = NodeError::Unavailable { partition, may_have_applied: true };
        let Ok((_pass, home)) = self.enter().and_then(|pass| Ok((pass, self.partition(partition)?))) else {
            return Err(unknown);
        };
        // Without an event of its own it may repeat one that is still on its way, or the stream was dropped and its
        // reset will carry it; in that case the stream is not settled until it did.
        let last = home.read(|state| JournalPosition(state.journal_next().0 - 1));
        let last = last.map_err(|_| unknown.clone())?;
        let position = journal.unwrap_or(last);
        let reached = home.wait_progress(|progress| {
            progress.looked_at >= index && concerned.iter().all(|id| progress.has_reached(*id, position))
        });
        tokio::select! {
            reached = reached => reached.map_err(|_| unknown),
            () = self.stopping.cancelled() => Err(unknown),
        }
    }
}

fn unexpected(catalog: &Catalog, partition: PartitionId, outcome: &Outcome) -> NodeError {
    match outcome {
        Outcome::Refused { refusal: Refusal::UnknownSpace } => {
            NodeError::UnknownSpace { known: catalog.known_spaces() }
        }
        Outcome::Refused { refusal: Refusal::UnknownGraph } => {
            NodeError::UnknownGraph { known: catalog.known_graphs() }
        }
        Outcome::Refused { refusal } => NodeError::Refused { refusal: *refusal },
        _ => NodeError::Unavailable { partition, may_have_applied: true },
    }
}
