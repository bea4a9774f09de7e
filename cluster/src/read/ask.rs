//! Owns the questions that a read asks other partitions: one per partition and round, each bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use fanfold_storage::entry::{Audience, Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};
use fanfold_storage::partition::{Partition, RemoteSource};
use futures_util::future::join_all;

use crate::error::NodeError;
use crate::partition::PartitionHandle;

/// Entries taken from one timeline at a time.
const TIMELINE_CHUNK: usize = 16;

/// The partitions of the cluster as a read asks them.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    partitions: &'a [Option<Arc<PartitionHandle>>],
}

/// Which entries of which owners are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnersQuery {
    /// The space.
    pub space: SpaceId,
    /// For whose feed.
    pub reader: UserId,
    /// Only ids at or above it.
    pub from: EntryId,
    /// At most so many entries of each partition.
    pub limit: usize,
}

/// What the owners' partitions have.
#[derive(Debug, Default)]
pub(super) struct OwnersAnswer {
    /// The entries.
    pub deliveries: Vec<Delivery>,
    /// With ids at or above it, these are all.
    pub bound: EntryId,
    /// Partitions that did not answer, each with the bound below which it was asked.
    pub unreachable: BTreeMap<PartitionId, EntryId>,
}

impl<'a> Asker<'a> {
    /// Asks these partitions, by number.
    pub fn new(partitions: &'a [Option<Arc<PartitionHandle>>]) -> Self {
        Self { partitions }
    }

    /// The number of partitions.
    fn count(self) -> u16 {
        self.partitions.len() as u16
    }

    /// The partition of this number.
    pub fn partition(self, id: PartitionId) -> Result<&'a PartitionHandle, NodeError> {
        match self.partitions.get(usize::from(id.0)) {
            Some(Some(partition)) => Ok(partition),
            Some(None) => Err(NodeError::Damaged { partition: id }),
            None => Err(NodeError::UnknownPartition { partition: id }),
        }
    }

    /// The partition of this number, if it is here and answers from now on for everything that was answered before,
    /// without anybody having to be asked.
    pub fn ready(self, id: PartitionId) -> Option<&'a PartitionHandle> {
        self.partition(id).ok().filter(|partition| partition.is_confirmed())
    }

    /// The home of a user.
    pub fn home_of(self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.count())
    }

    /// The home of a user, which answers from now on for everything that was answered before.
    pub async fn confirmed_home(self, user: UserId) -> Result<&'a PartitionHandle, NodeError> {
        let home = self.partition(self.home_of(user))?;
        home.confirm().await?;
        Ok(home)
    }

    /// Asks partitions the same kind of question, all at once; what each answers or fails with, by partition.
    pub(super) async fn each<Q, A>(
        self,
        questions: impl IntoIterator<Item = (PartitionId, Q)>,
        answer: impl Fn(&Partition, Q) -> A,
    ) -> Vec<(PartitionId, Result<A, NodeError>)> {
        let answer = &answer;
        join_all(questions.into_iter().map(|(id, question)| async move {
            let asked = async {
                let partition = self.partition(id)?;
                partition.confirm().await?;
                partition.read(|state| answer(state, question))
            };
            (id, asked.await)
        }))
        .await
    }

    /// The newest entries of many owners, whatever homes they have.
    pub(super) async fn owners(self, query: OwnersQuery, sources: &[RemoteSource]) -> OwnersAnswer {
        let mut by_home: BTreeMap<PartitionId, Vec<RemoteSource>> = BTreeMap::new();
        for source in sources {
            by_home.entry(self.home_of(source.owner)).or_default().push(*source);
        }
        let highest = |sources: &[RemoteSource]| sources.iter().map(|s| s.below).max().unwrap_or_default();
        let tops: BTreeMap<_, _> = by_home.iter().map(|(id, sources)| (*id, highest(sources))).collect();
        let answers = self.each(by_home, |state, sources| newest_of(state, query, &sources)).await;
        let mut all = OwnersAnswer::default();
        for (id, answer) in answers {
            match answer {
                Ok((deliveries, bound)) => {
                    all.deliveries.extend(deliveries);
                    all.bound = all.bound.max(bound);
                }
                Err(error) => {
                    tracing::debug!(partition = id.0, %error, "a partition did not answer a read");
                    all.unreachable.insert(id, tops[&id]);
                }
            }
        }
        all
    }

    /// Entries by id, from the home that `home` names for each; those of an unreachable partition are its error.
    pub(super) async fn entries(
        self,
        ids: impl IntoIterator<Item = (PartitionId, EntryId)>,
    ) -> (BTreeMap<EntryId, Entry>, Vec<PartitionId>) {
        let mut by_home: BTreeMap<PartitionId, Vec<EntryId>> = BTreeMap::new();
        for (home, id) in ids {
            by_home.entry(home).or_default().push(id);
        }
        let answers = self.each(by_home, |state, ids| state.entries(&ids)).await;
        let (mut found, mut unreachable) = (BTreeMap::new(), Vec::new());
        for (id, answer) in answers {
            match answer {
                Ok(entries) => found.extend(entries.into_iter().flatten().map(|entry| (entry.id, entry))),
                Err(_) => unreachable.push(id),
            }
        }
        (found, unreachable)
    }

    /// Entries by id, in the order asked, and the homes that did not answer.
    pub(super) async fn entries_by_id(self, ids: &[EntryId]) -> (Vec<Option<Entry>>, Vec<PartitionId>) {
        let mut by_home: BTreeMap<PartitionId, (Vec<usize>, Vec<EntryId>)> = BTreeMap::new();
        for (place, id) in ids.iter().enumerate() {
            let (places, ids) = by_home.entry(self.home_of_entry(*id)).or_default();
            places.push(place);
            ids.push(*id);
        }
        let answers = self.each(by_home, |state, (places, ids)| (places, state.entries(&ids))).await;
        let (mut found, mut unreachable) = (vec![None; ids.len()], Vec::new());
        for (id, answer) in answers {
            match answer {
                Ok((places, entries)) => {
                    for (place, entry) in places.into_iter().zip(entries) {
                        found[place] = entry;
                    }
                }
                Err(_) => unreachable.push(id),
            }
        }
        (found, unreachable)
    }

    /// The home of an entry.
    pub(super) fn home_of_entry(self, id: EntryId) -> PartitionId {
        PartitionId::of_slot(id.slot(), self.count())
    }
}

/// The newest entries of owners homed at one partition, and the bound down to which they are all.
fn newest_of(state: &Partition, query: OwnersQuery, sources: &[RemoteSource]) -> (Vec<Delivery>, EntryId) {
    let mut newest: BinaryHeap<(Reverse<EntryId>, usize)> = BinaryHeap::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut is_cut = false;
    for source in sources {
        let mut below = source.below;
        'owner: loop {
            let slice = state.timeline(query.space, source.owner, below, TIMELINE_CHUNK);
            for entry in &slice.entries {
                let full = newest.len() >= query.limit;
                if entry.id < query.from {
                    break 'owner;
                }
                if full && newest.peek().is_some_and(|(Reverse(lowest), _)| entry.id < *lowest) {
                    is_cut = true;
                    break 'owner;
                }
                // What is private never leaves home but for its owner.
                if entry.audience == Audience::Private && entry.owner != query.reader {
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
    let bound = newest.peek().filter(|_| is_cut).map_or(EntryId::ZERO, |(Reverse(lowest), _)| *lowest);
    (newest.into_iter().map(|(_, at)| deliveries[at]).collect(), bound)
}
