//! Owns the questions that reads ask of other partitions, their answers, and the bytes of both.
//!
//! - A question is answered by the leader of its partition, which confirms first that it still leads: what it reads
//!   includes everything that was answered before.
//! - Every answer is bounded by what its question says; a bound that a peer sends is cut to ours.
//! - The numbers are on the wire and never reused.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader, put_u64};
use fanfold_storage::command::Command;
use fanfold_storage::entry::{Audience, Delivery, Entry};
use fanfold_storage::ids::{EntryId, GraphId, JournalPosition, PartitionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{Partition, Subject};
use fanfold_storage::{encoded_enum, encoded_struct};
use tokio::time::timeout;

use super::request::{FOLLOW_SCAN_LIMIT_MAX, LIMIT_MAX};
use crate::error::NodeError;
use crate::partition::{ACTIVE_READERS_MAX, PartitionHandle};
use crate::peer::PeerRefusal;

/// Entries taken from one timeline at a time.
const TIMELINE_CHUNK: usize = 16;

/// Private entries of others that one question passes over, shared by its timelines, each of which gets at least one chunk: it is
/// answered under the lock. What is below those it passed over is asked for again.
const PASSED_OVER_MAX: usize = 8_192;

/// Entries read by id under one lock before the bytes are counted.
const ENTRIES_CHUNK: usize = 64;

/// The most questions of one call: as many as there can be partitions.
const QUESTIONS_MAX: usize = 4_096;

/// How long a question that waits is held, at most; whoever asks asks again.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(2);

/// What is asked of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The newest entries of owners homed there, each with ids below a bound.
    Newest {
        /// The space.
        space: SpaceId,
        /// For whose feed.
        reader: UserId,
        /// Only ids at or above it.
        from: EntryId,
        /// At most so many entries.
        limit: u32,
        /// The owners.
        sources: Vec<(UserId, EntryId)>,
    },
    /// The live ones among entries homed there; the answer may end early.
    Entries {
        /// The entries.
        ids: Vec<EntryId>,
        /// About the most bytes of payloads; one entry is always answered.
        bytes_max: u32,
    },
    /// How many readers homed there follow an owner.
    FollowerCount {
        /// The graph.
        graph: GraphId,
        /// The owner.
        owner: UserId,
    },
    /// The readers homed there who follow an owner, by user id.
    Followers {
        /// The graph.
        graph: GraphId,
        /// The owner.
        owner: UserId,
        /// Only users above it.
        after: Option<UserId>,
        /// At most so many.
        limit: u32,
    },
    /// Which entries a viewer homed there may see.
    Visible {
        /// The viewer.
        viewer: UserId,
        /// The entries.
        entries: Vec<Shown>,
    },
    /// An entry homed there, and how far it is on its way to a reader's partition.
    Way {
        /// The entry.
        id: EntryId,
        /// The reader's partition.
        destination: PartitionId,
    },
    /// Wait until an index is applied.
    Applied {
        /// The incarnation of the partition; of another one nothing is waited for.
        incarnation: u64,
        /// The index.
        index: u64,
    },
    /// Wait until the events of the journal up to a position are applied at a partition.
    Reached {
        /// The incarnation of the partition; of another one nothing is waited for.
        incarnation: u64,
        /// The position.
        position: JournalPosition,
        /// Where; none is everywhere.
        destination: Option<PartitionId>,
    },
    /// Wait until nothing is on its way from there.
    Drained,
    /// Apply a tick at the clock's time.
    Tick,
    /// Which index of its log reflects everything that was answered before.
    Index,
    /// These have read at a replica that does not lead: they are active.
    Active {
        /// The readers.
        readers: Vec<UserId>,
    },
    /// Memory is short at a replica that does not lead: let something give way through the log.
    GiveWay {
        /// Rows as well.
        rows: bool,
    },
}

/// What of an entry decides who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    space: SpaceId,
    owner: UserId,
    author: UserId,
    referenced_owner: Option<UserId>,
    audience: Audience,
}

/// What a partition answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing but that.
    Failed {
        /// Why.
        refusal: PeerRefusal,
    },
    /// To [`Question::Newest`].
    Newest {
        /// The entries.
        deliveries: Vec<Delivery>,
        /// With ids at or above it, these are all.
        bound: EntryId,
    },
    /// To [`Question::Entries`], in the order asked, as far as they fit.
    Entries {
        /// The entries.
        entries: Vec<Option<Entry>>,
    },
    /// To [`Question::FollowerCount`].
    Count {
        /// The number.
        count: u64,
    },
    /// To [`Question::Followers`].
    Edges {
        /// The readers, each with the time of the follow.
        edges: Vec<(UserId, Stamp)>,
    },
    /// To [`Question::Visible`], in the order asked.
    Visible {
        /// Whether each may be seen.
        visible: Vec<bool>,
    },
    /// To [`Question::Way`].
    Way {
        /// The entry, if it is there.
        entry: Option<Entry>,
        /// The last event about it towards the reader's partition, if it is kept still.
        event: Option<JournalPosition>,
        /// What the reader's partition has acknowledged.
        acknowledged: JournalPosition,
    },
    /// What was to be done or waited for is done.
    Done,
    /// What is waited for has not come yet.
    NotYet,
    /// To [`Question::Drained`]: where its journal stands.
    Drained {
        /// The next position.
        next: JournalPosition,
    },
    /// To [`Question::Index`], and to [`Question::GiveWay`] when something gave way, or nothing could.
    Index {
        /// The index.
        index: u64,
    },
}

encoded_struct!(Shown { space, owner, author, referenced_owner, audience });
encoded_enum!(Question, "question" {
    1 => Newest { space, reader, from, limit, sources },
    2 => Entries { ids, bytes_max },
    3 => FollowerCount { graph, owner },
    4 => Followers { graph, owner, after, limit },
    5 => Visible { viewer, entries },
    6 => Way { id, destination },
    7 => Applied { incarnation, index },
    8 => Reached { incarnation, position, destination },
    9 => Drained,
    10 => Tick,
    11 => Index,
    12 => Active { readers },
    13 => GiveWay { rows },
});
encoded_enum!(Reply, "reply" {
    0 => Failed { refusal },
    1 => Newest { deliveries, bound },
    2 => Entries { entries },
    3 => Count { count },
    4 => Edges { edges },
    5 => Visible { visible },
    6 => Way { entry, event, acknowledged },
    7 => Done,
    8 => NotYet,
    9 => Drained { next },
    10 => Index { index },
});

impl Shown {
    /// What decides who may see an entry.
    pub fn of(entry: &Entry) -> Self {
        Self {
            space: entry.space,
            owner: entry.owner,
            author: entry.author,
            referenced_owner: entry.reference.map(|reference| reference.owner),
            audience: entry.audience,
        }
    }
}

impl Question {
    /// Answers at a partition of this node, if it leads.
    pub async fn answer(&self, partition: &PartitionHandle) -> Result<Reply, NodeError> {
        match self {
            Self::Applied { incarnation, index } => {
                partition.confirm().await?;
                held(partition.wait_position(*incarnation, *index)).await
            }
            Self::Reached { incarnation, position, destination } => {
                if partition.incarnation() != *incarnation {
                    partition.confirm().await?;
                    // Who leads only now may have had an old copy.
                    if partition.read(Partition::incarnation)? != *incarnation {
                        return Ok(Reply::Done);
                    }
                }
                held(partition.wait_progress(|progress| match destination {
                    Some(destination) => progress.has_reached(*destination, *position),
                    None => progress.delivered >= *position,
                }))
                .await
            }
            Self::Drained => match timeout(WAIT_MAX, partition.wait_drained()).await {
                Ok(next) => Ok(Reply::Drained { next: next? }),
                Err(_) => Ok(Reply::NotYet),
            },
            Self::Tick => partition.propose(&Command::Tick).await.map(|_| Reply::Done),
            Self::Active { readers } => {
                let readers = readers.iter().take(ACTIVE_READERS_MAX).copied().collect();
                partition.propose(&Command::Active { readers }).await.map(|_| Reply::Done)
            }
            Self::GiveWay { rows } => {
                partition.confirm().await?;
                if timeout(WAIT_MAX, partition.activity().give_way_for_another(*rows)).await.is_err() {
                    return Ok(Reply::NotYet);
                }
                partition.read(|state| Reply::Index { index: state.applied() })
            }
            Self::Way { destination, .. } => {
                partition.confirm().await?;
                let mut reply = partition.read(|state| self.read(state))?;
                if let Reply::Way { acknowledged, .. } = &mut reply {
                    let progress = partition.progress().borrow();
                    let stream = progress.streams.get(destination);
                    *acknowledged = stream.and_then(|stream| stream.acknowledged).unwrap_or_default();
                }
                Ok(reply)
            }
            _ => {
                partition.confirm().await?;
                partition.read(|state| self.read(state))
            }
        }
    }

    /// Answers at a replica whose state is not too old, whoever leads.
    pub async fn answer_as_is(&self, partition: &PartitionHandle) -> Result<Reply, NodeError> {
        match self {
            Self::Newest { .. }
            | Self::Entries { .. }
            | Self::FollowerCount { .. }
            | Self::Followers { .. }
            | Self::Visible { .. } => partition.read(|state| self.read(state)),
            _ => self.answer(partition).await,
        }
    }

    /// Answers from a partition's state.
    fn read(&self, state: &Partition) -> Reply {
        match self {
            Self::Newest { space, reader, from, limit, sources } => {
                let limit = (*limit as usize).min(LIMIT_MAX as usize + 1);
                let (deliveries, bound) = newest_of(state, (*space, *reader, *from, limit), sources);
                Reply::Newest { deliveries, bound }
            }
            Self::Entries { ids, bytes_max } => {
                let mut entries: Vec<Option<Entry>> = Vec::new();
                let mut left = *bytes_max as usize;
                'all: for ids in ids.chunks(ENTRIES_CHUNK) {
                    for entry in state.entries(ids) {
                        let bytes = entry.as_ref().map_or(0, |entry| entry.payload.len());
                        if bytes > left && !entries.is_empty() {
                            break 'all;
                        }
                        left = left.saturating_sub(bytes);
                        entries.push(entry);
                    }
                }
                Reply::Entries { entries }
            }
            Self::FollowerCount { graph, owner } => {
                Reply::Count { count: state.follower_count_here(*graph, *owner) }
            }
            Self::Followers { graph, owner, after, limit } => {
                let limit = (*limit).min(FOLLOW_SCAN_LIMIT_MAX + 1) as usize;
                Reply::Edges { edges: state.followers_here(*graph, *owner, *after, limit) }
            }
            Self::Visible { viewer, entries } => {
                Reply::Visible { visible: visible_to(state, *viewer, entries) }
            }
            Self::Way { id, destination } => {
                let facts = state.explain_owner(*id, *destination);
                let acknowledged = JournalPosition::default();
                Reply::Way { entry: facts.entry, event: facts.event, acknowledged }
            }
            Self::Index => Reply::Index { index: state.applied() },
            Self::Applied { .. }
            | Self::Reached { .. }
            | Self::Drained
            | Self::Tick
            | Self::Active { .. }
            | Self::GiveWay { .. } => Reply::NotYet,
        }
    }
}

/// What a wait comes to that is held for a while.
async fn held(wait: impl Future<Output = Result<(), NodeError>>) -> Result<Reply, NodeError> {
    match timeout(WAIT_MAX, wait).await {
        Ok(waited) => waited.map(|()| Reply::Done),
        Err(_) => Ok(Reply::NotYet),
    }
}

/// Which of some entries a viewer homed at a partition may see.
fn visible_to(state: &Partition, viewer: UserId, entries: &[Shown]) -> Vec<bool> {
    let graphs: BTreeMap<SpaceId, GraphId> = state.spaces().map(|space| (space.id, space.graph)).collect();
    // An entry of a space that the viewer's partition does not know cannot have been followed there.
    let subject = |entry: &Shown| Subject {
        graph: graphs.get(&entry.space).copied().unwrap_or_default(),
        owner: entry.owner,
        author: entry.author,
        referenced_owner: entry.referenced_owner,
        audience: entry.audience,
    };
    state.admits(viewer, &entries.iter().map(subject).collect::<Vec<_>>())
}

/// The newest entries of owners homed at one partition, and the bound down to which they are all.
fn newest_of(
    state: &Partition,
    (space, reader, from, limit): (SpaceId, UserId, EntryId, usize),
    sources: &[(UserId, EntryId)],
) -> (Vec<Delivery>, EntryId) {
    let mut newest: BinaryHeap<(Reverse<EntryId>, usize)> = BinaryHeap::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut is_cut = false;
    let passed_max = (PASSED_OVER_MAX / sources.len().max(1)).max(TIMELINE_CHUNK);
    // Of the timelines that were not looked at further, the largest id that was reached.
    let mut reached = EntryId::ZERO;
    for (owner, below) in sources {
        let (mut below, mut passed) = (*below, 0);
        'owner: loop {
            let slice = state.timeline(space, *owner, below, TIMELINE_CHUNK);
            for entry in &slice.entries {
                let full = newest.len() >= limit;
                if entry.id < from {
                    break 'owner;
                }
                if full && newest.peek().is_some_and(|(Reverse(lowest), _)| entry.id < *lowest) {
                    is_cut = true;
                    break 'owner;
                }
                // What is private never leaves home but for its owner.
                if entry.audience == Audience::Private && entry.owner != reader {
                    passed += 1;
                    if passed == passed_max {
                        reached = reached.max(entry.id);
                        break 'owner;
                    }
                    continue;
                }
                newest.push((Reverse(entry.id), deliveries.len()));
                deliveries.push(entry.delivery());
                if full {
                    newest.pop();
                    is_cut = true;
                }
            }
            match slice.entries.last() {
                Some(last) if slice.more => below = last.id,
                _ => break,
            }
        }
    }
    let lowest = newest.peek().filter(|_| is_cut).map_or(EntryId::ZERO, |(Reverse(lowest), _)| *lowest);
    let bound = lowest.max(reached);
    (newest.into_iter().map(|(_, at)| deliveries[at]).collect(), bound)
}

/// The bytes of questions to the partitions of one node.
pub(super) fn encode_questions<'q>(
    questions: impl ExactSizeIterator<Item = (PartitionId, &'q Question)>,
) -> Bytes {
    let mut out = Vec::new();
    put_u64(&mut out, questions.len() as u64);
    for (partition, question) in questions {
        partition.encode(&mut out);
        question.encode(&mut out);
    }
    out.into()
}

/// Reads questions.
pub(super) fn decode_questions(bytes: &[u8]) -> Result<Vec<(PartitionId, Question)>, Malformed> {
    let mut from = Reader::new(bytes);
    let questions = Vec::decode(&mut from)?;
    from.end()?;
    if questions.len() > QUESTIONS_MAX {
        return Err(from.malformed("fewer questions"));
    }
    Ok(questions)
}

/// The bytes of replies, in the order of their questions.
pub(super) fn encode_replies(replies: &[Reply]) -> Bytes {
    let mut out = Vec::new();
    put_u64(&mut out, replies.len() as u64);
    replies.iter().for_each(|reply| reply.encode(&mut out));
    out.into()
}

/// Reads the replies to so many questions.
pub(super) fn decode_replies(bytes: &[u8], questions: usize) -> Result<Vec<Reply>, Malformed> {
    let mut from = Reader::new(bytes);
    let replies: Vec<Reply> = Vec::decode(&mut from)?;
    from.end()?;
    if replies.len() != questions {
        return Err(from.malformed("as many replies as questions"));
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use fanfold_storage::entry::EntryRef;
    use proptest::prelude::*;

    use super::*;

    fn questions() -> Vec<(PartitionId, Question)> {
        let (space, graph, owner) = (SpaceId(1), GraphId(2), UserId(3));
        let sources = vec![(owner, EntryId::MAX), (UserId(4), EntryId(5))];
        let shown = Shown { space, owner, author: owner, referenced_owner: None, audience: Audience::Public };
        [
            Question::Newest { space, reader: UserId(9), from: EntryId(1), limit: 20, sources },
            Question::Entries { ids: vec![EntryId(1), EntryId(2)], bytes_max: 100 },
            Question::FollowerCount { graph, owner },
            Question::Followers { graph, owner, after: Some(UserId(1)), limit: 3 },
            Question::Visible { viewer: UserId(9), entries: vec![shown] },
            Question::Way { id: EntryId(7), destination: PartitionId(2) },
            Question::Applied { incarnation: 1, index: 2 },
            Question::Reached { incarnation: 1, position: JournalPosition(2), destination: None },
            Question::Drained,
            Question::Tick,
            Question::Index,
            Question::Active { readers: vec![UserId(3), UserId(1)] },
            Question::GiveWay { rows: true },
        ]
        .map(|question| (PartitionId(4), question))
        .to_vec()
    }

    fn replies() -> Vec<Reply> {
        let entry = Entry {
            id: EntryId(1),
            space: SpaceId(1),
            owner: UserId(3),
            author: UserId(3),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            reference: Some(EntryRef { owner: UserId(4), id: EntryId(9) }),
            payload: Bytes::from_static(b"payload"),
        };
        let event = Some(JournalPosition(4));
        vec![
            Reply::Failed { refusal: PeerRefusal::NotLeader { leader: Some(2) } },
            Reply::Newest { deliveries: vec![entry.delivery()], bound: EntryId(8) },
            Reply::Entries { entries: vec![None, Some(entry.clone())] },
            Reply::Count { count: 7 },
            Reply::Edges { edges: vec![(UserId(1), Stamp(2))] },
            Reply::Visible { visible: vec![true, false] },
            Reply::Way { entry: Some(entry), event, acknowledged: JournalPosition(3) },
            Reply::Done,
            Reply::NotYet,
            Reply::Drained { next: JournalPosition(1) },
            Reply::Index { index: 5 },
        ]
    }

    #[test]
    fn questions_and_replies_survive_their_encoding() {
        let all = questions();
        let bytes = encode_questions(all.iter().map(|(partition, question)| (*partition, question)));
        assert_eq!(decode_questions(&bytes).unwrap(), all);
        let all = replies();
        assert_eq!(decode_replies(&encode_replies(&all), all.len()).unwrap(), all);
        assert!(decode_replies(&encode_replies(&all), all.len() + 1).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _ = (decode_questions(&bytes), decode_replies(&bytes, 1));
            let all = questions();
            let mut asked =
                encode_questions(all.iter().map(|(partition, question)| (*partition, question))).to_vec();
            let mut replied = encode_replies(&replies()).to_vec();
            let (asked_at, replied_at) = (at.index(asked.len()), at.index(replied.len()));
            (asked[asked_at], replied[replied_at]) = (to, to);
            let _ = (decode_questions(&asked), decode_replies(&replied, 10));
        }
    }
}
