//! Owns imports: edges and entries with times of their own, sent to the partitions they belong to.
//!
//! - One write to a partition is under way at a time, so that the order of what is imported is kept; different partitions
//!   are written to at once.
//! - An [`ImportLane`] has a session and numbers that its caller keeps, so that a program that was killed goes on under them
//!   and what it sent has one effect (R18).

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold_protocol::message::{
    ImportEdge, ImportEntry, ImportFollows, WriteOp, WriteResult, WriteTag, Written,
};
use fanfold_protocol::{GraphId, PartitionId, Sequence, SessionId, Status, UserId};
use futures_util::future::join_all;

use crate::append::{Appended, outcomes};
use crate::call::Call;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::error::Error;

/// Edges that an import puts into one write.
pub const IMPORT_EDGES_PER_WRITE: usize = 8_192;

/// Entries that an import puts into one write.
pub const IMPORT_ENTRIES_PER_WRITE: usize = 1_024;

/// Bytes of payload that an import puts into one write.
pub const IMPORT_BYTES_PER_WRITE: usize = 256 * 1024;

/// What came of imported edges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportedFollows {
    /// How many are new.
    pub changed: u64,
    /// Those refused, by their place among the edges; all others are there now.
    pub refused: Vec<(usize, Status)>,
}

/// What one write of an import brings; all of it is homed in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportOp {
    /// Edges of readers.
    Follows {
        /// The graph.
        graph: GraphId,
        /// At most [`IMPORT_EDGES_PER_WRITE`].
        edges: Vec<ImportEdge>,
    },
    /// Entries of owners.
    Entries(Vec<ImportEntry>),
}

impl ImportOp {
    fn into_op(self) -> WriteOp {
        match self {
            Self::Follows { graph, edges } => WriteOp::ImportFollows(ImportFollows { graph, edges }),
            Self::Entries(entries) => WriteOp::ImportEntries(entries),
        }
    }
}

/// A way of imports to one partition, exactly once even over the life of a process: session and numbers are the caller's.
#[derive(Debug, Clone)]
pub struct ImportLane {
    core: Arc<Core>,
    partition: PartitionId,
    session: SessionId,
}

impl ImportLane {
    pub(crate) async fn open(
        core: &Arc<Core>,
        partition: PartitionId,
        session: Option<SessionId>,
    ) -> Result<Self, Error> {
        let session = match session {
            Some(session) => session,
            None => core.open_session(partition, core.deadline(None)).await?,
        };
        Ok(Self { core: core.clone(), partition, session })
    }

    /// The session, to be kept until the import is done.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Sends a write under the number `sequence`, from 1 on; again, after a kill, under the same number with the same content.
    /// The partition forgets its answers below `lowest_unanswered`.
    ///
    /// # Errors
    /// [`Status::UnknownSession`] if the session was unused for so long that it was forgotten: this call has had no effect, and
    /// an earlier one under the number may have had it. [`Error::SessionForgotten`] if this call may have had it.
    pub async fn write(&self, sequence: u64, lowest_unanswered: u64, op: ImportOp) -> Result<Written, Error> {
        let tag = WriteTag {
            session: self.session,
            sequence: Sequence(sequence),
            lowest_unanswered: Sequence(lowest_unanswered),
        };
        let deadline = self.core.deadline(None);
        self.core.write_tagged(self.partition, tag, &op.into_op(), deadline).await
    }

    /// Forgets the session.
    pub async fn close(self) -> Result<(), Error> {
        self.core.close_session(self.partition, self.session, self.core.deadline(None)).await
    }
}

/// Items by home, each with its place in the whole list, in order.
fn by_home<T>(items: Vec<T>, home: impl Fn(&T) -> PartitionId) -> Vec<(Vec<usize>, Vec<T>)> {
    let mut homes: BTreeMap<PartitionId, (Vec<usize>, Vec<T>)> = BTreeMap::new();
    for (place, item) in items.into_iter().enumerate() {
        let (places, mine) = homes.entry(home(&item)).or_default();
        places.push(place);
        mine.push(item);
    }
    homes.into_values().collect()
}

/// Imports edges; the first write that fails ends those to its partition.
pub(crate) async fn import_follows(
    core: &Core,
    graph: GraphId,
    edges: Vec<ImportEdge>,
    deadline: Deadline,
) -> Result<ImportedFollows, Error> {
    let partitions = core.map(deadline).await?.partitions();
    let homes = by_home(edges, |edge| PartitionId::of_user(edge.reader, partitions));
    let writes = homes.into_iter().map(|(places, edges)| async move {
        let mut imported = ImportedFollows::default();
        let mut is_begun = false;
        for (places, edges) in places.chunks(IMPORT_EDGES_PER_WRITE).zip(edges.chunks(IMPORT_EDGES_PER_WRITE))
        {
            let op = WriteOp::ImportFollows(ImportFollows { graph, edges: edges.to_vec() });
            let written = core.write(edges[0].reader, op, deadline).await;
            // What failed was not all of it.
            let written = written.map_err(|error| if is_begun { error.after_uncertain() } else { error })?;
            is_begun = true;
            let WriteResult::FollowsImported { changed, refused } = written.result else {
                return Err(Error::unexpected_write());
            };
            imported.changed += u64::from(changed);
            for (place, status) in refused {
                let place = places.get(place as usize).ok_or(Error::unexpected_write())?;
                imported.refused.push((*place, status));
            }
        }
        Ok(imported)
    });
    let mut all = ImportedFollows::default();
    let imported = join_all(writes).await;
    let has_effect = |part: &Result<_, Error>| part.as_ref().map_or_else(Error::may_have_applied, |_| true);
    let is_uncertain = imported.iter().any(has_effect);
    for imported in imported {
        let imported = imported.map_err(|error| if is_uncertain { error.after_uncertain() } else { error });
        let ImportedFollows { changed, refused } = imported?;
        all.changed += changed;
        all.refused.extend(refused);
    }
    all.refused.sort_unstable_by_key(|(place, _)| *place);
    Ok(all)
}

/// Imports entries; a write that fails is the answer to all its entries and ends those to its partition.
pub(crate) fn import_entries(
    core: &Arc<Core>,
    entries: Vec<ImportEntry>,
) -> Call<Vec<Result<Appended, Error>>> {
    Call::new(core.clone(), move |core, deadline| async move {
        let partitions = core.map(deadline).await?.partitions();
        let count = entries.len();
        let homes = by_home(entries, |entry| PartitionId::of_user(entry.owner, partitions));
        let core = &core;
        let writes = homes.into_iter().map(|(places, entries)| async move {
            let mut answers = Vec::with_capacity(entries.len());
            let mut failed = None;
            for entries in cut(entries) {
                let (owner, count) = (entries[0].owner, entries.len());
                let written = match &failed {
                    Some(error) => Err(Error::clone(error)),
                    None => write_entries(core, owner, entries, deadline).await,
                };
                match written {
                    Ok(answered) => answers.extend(answered),
                    Err(error) => {
                        answers.extend(std::iter::repeat_n(Err(error.clone()), count));
                        failed = Some(error);
                    }
                }
            }
            places.into_iter().zip(answers)
        });
        let mut answers: Vec<Option<Result<Appended, Error>>> = (0..count).map(|_| None).collect();
        for (place, answer) in join_all(writes).await.into_iter().flatten() {
            answers[place] = Some(answer);
        }
        let answers = answers.into_iter();
        Ok(answers.map(|answer| answer.unwrap_or_else(|| Err(Error::unexpected_write()))).collect())
    })
}

async fn write_entries(
    core: &Core,
    owner: UserId,
    entries: Vec<ImportEntry>,
    deadline: Deadline,
) -> Result<Vec<Result<Appended, Error>>, Error> {
    let count = entries.len();
    outcomes(core.write(owner, WriteOp::ImportEntries(entries), deadline).await?, count)
}

/// Cuts entries into writes, in order.
fn cut(entries: Vec<ImportEntry>) -> Vec<Vec<ImportEntry>> {
    let (mut writes, mut bytes): (Vec<Vec<ImportEntry>>, usize) = (Vec::new(), 0);
    for entry in entries {
        let fits = writes.last().is_some_and(|write| {
            write.len() < IMPORT_ENTRIES_PER_WRITE && bytes + entry.payload.len() <= IMPORT_BYTES_PER_WRITE
        });
        if !fits {
            bytes = 0;
            writes.push(Vec::new());
        }
        bytes += entry.payload.len();
        if let Some(write) = writes.last_mut() {
            write.push(entry);
        }
    }
    writes
}
