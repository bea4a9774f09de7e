//! Owns what was answered of a partition's writes, as the oracle knows it.
//!
//! - A write that was not answered is asked again after a restart, under its old number: it is done once, whenever it was done.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::command::{
    AppendResult, Command, Outcome, Ttl, Write, WriteResult, WriteTag, encode_batch,
};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::ids::{EntryId, GraphId, Sequence, SessionId, Stamp, UserId};
use fanfold_storage::import::Lifetime;
use fanfold_storage::oracle::Oracle;

use super::{Failed, Node, SPACE, owners};
use crate::partition::machine::Applied;
use crate::raft::Batch;

pub(super) const GRAPH: GraphId = GraphId(1);

/// What was answered, and what was not.
#[derive(Clone, Default)]
pub(super) struct Model {
    oracle: Oracle,
    /// All that ever were there.
    made: BTreeSet<EntryId>,
    sequence: u64,
    /// The stamp of the last batch that was answered …
    answered: Stamp,
    /// … and of the last one that was proposed.
    pub now: Stamp,
    in_flight: Option<Write>,
}

/// What a partition shows.
type Shown = (BTreeMap<EntryId, Entry>, BTreeSet<(UserId, UserId)>);

impl Model {
    pub fn new(now: Stamp) -> Self {
        Self { now, answered: now, ..Self::default() }
    }

    /// The entries that live now, oldest first.
    pub fn live(&mut self) -> Vec<Entry> {
        self.oracle.set_now(self.now);
        self.entries()
    }

    fn entries(&self) -> Vec<Entry> {
        let ids = owners().flat_map(|owner| self.oracle.timeline(SPACE, owner, None));
        let entries: BTreeMap<_, _> =
            ids.filter_map(|id| Some((id, self.oracle.entry(id)?.clone()))).collect();
        entries.into_values().collect()
    }

    /// What is to be shown at `stamp`.
    fn expected(&mut self, stamp: Stamp) -> Shown {
        self.oracle.set_now(stamp);
        let entries = self.entries().into_iter().map(|entry| (entry.id, entry)).collect();
        let edges = owners()
            .flat_map(|reader| self.oracle.followees(GRAPH, reader).map(move |owner| (reader, owner)));
        (entries, edges.collect())
    }

    fn add(&mut self, entry: Entry) {
        assert!(self.made.insert(entry.id), "an id is made once");
        self.oracle.append(entry);
    }

    /// Takes note of what a write did, at the stamp that it was proposed under.
    fn take(&mut self, write: Write, result: WriteResult) {
        let expiry_of =
            |ttl: Ttl| if let Ttl::Ms { ttl_ms } = ttl { Some(Stamp(self.now.0 + ttl_ms)) } else { None };
        match (write, result) {
            (Write::Append { items }, WriteResult::Appended { items: made }) => {
                let entries: Vec<_> = items
                    .into_iter()
                    .zip(made)
                    .map(|(item, made)| {
                        entry(made_id(made), item.owner, expiry_of(item.ttl), 1, item.payload)
                    })
                    .collect();
                entries.into_iter().for_each(|entry| self.add(entry));
            }
            (Write::ImportEntries { entries }, WriteResult::Appended { items: made }) => {
                for (item, made) in entries.into_iter().zip(made) {
                    let expiry =
                        if let Lifetime::Until { expiry } = item.lifetime { Some(expiry) } else { None };
                    self.add(entry(made_id(made), item.owner, expiry, item.version, item.payload));
                }
            }
            (Write::Delete { id, .. }, WriteResult::Deleted { existed: true }) => self.oracle.delete(id),
            (Write::SetExpiry { id, ttl, .. }, WriteResult::ExpirySet { expiry }) => {
                assert_eq!(expiry, expiry_of(ttl));
                self.oracle.set_expiry(id, expiry);
            }
            (Write::ImportFollows { edges, .. }, WriteResult::FollowsImported { refused, .. }) => {
                assert_eq!(refused, []);
                edges.iter().for_each(|edge| self.oracle.follow(GRAPH, edge.reader, edge.owner));
            }
            other => panic!("{other:?}"),
        }
    }

    /// How many entries the write brings that was not answered.
    fn new_in_flight(&self) -> usize {
        match &self.in_flight {
            Some(Write::Append { items }) => items.len(),
            Some(Write::ImportEntries { entries }) => entries.len(),
            _ => 0,
        }
    }
}

fn made_id(made: AppendResult) -> EntryId {
    let AppendResult::Made { id, duplicate: false } = made else { panic!("{made:?}") };
    id
}

fn entry(id: EntryId, owner: UserId, expiry: Option<Stamp>, version: u32, payload: bytes::Bytes) -> Entry {
    let (space, author, audience, reference) = (SPACE, owner, Audience::Public, None);
    Entry { id, space, owner, author, audience, version, expiry, reference, payload }
}

impl Node {
    /// Writes a millisecond after what was before.
    pub async fn write_model(&self, model: &mut Model, write: Write) -> Result<(), Failed> {
        model.now.0 += 1;
        model.sequence += 1;
        model.in_flight = Some(write);
        self.write_in_flight(model).await
    }

    async fn write_in_flight(&self, model: &mut Model) -> Result<(), Failed> {
        let Some(write) = model.in_flight.clone() else { return Ok(()) };
        let sequence = Sequence(model.sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        let command = Command::Write { tag, write: write.clone() };
        match self.apply(model.now.0, &command).await?.pop() {
            Some(Applied::Outcome(Outcome::Written { result, .. })) => model.take(write, result),
            other => panic!("{other:?}"),
        }
        (model.in_flight, model.answered) = (None, model.now);
        Ok(())
    }

    /// Lets time pass.
    pub async fn pass(&self, model: &mut Model, ms: u64) -> Result<(), Failed> {
        model.now.0 += ms;
        let batch = Batch(encode_batch(model.now, &[Command::Tick.to_bytes()]));
        self.group.propose(batch).await.map_err(|_| Failed)?;
        model.answered = model.now;
        Ok(())
    }

    fn shown(&self) -> (Stamp, Shown) {
        self.group.read(|machine| {
            let state = machine.state().expect("nothing is damaged");
            let timelines =
                owners().flat_map(|owner| state.timeline(SPACE, owner, EntryId::MAX, usize::MAX).entries);
            let entries: BTreeMap<_, _> = timelines.map(|entry| (entry.id, entry)).collect();
            let edges = owners().flat_map(|reader| {
                let followees = state.followees(GRAPH, reader, None, usize::MAX);
                followees.into_iter().map(move |(owner, _)| (reader, owner))
            });
            (state.stamp(), (entries, edges.collect()))
        })
    }

    /// What is there is what was answered, and of the write that was not all or nothing, by timelines, by ids and by edges; then that
    /// write is asked again.
    pub async fn check_model(&self, model: &mut Model, what: &str) {
        let (stamp, (shown, edges)) = self.shown();
        assert!(model.answered <= stamp && stamp <= model.now, "{what}: the time that was answered");
        let (expected, known_edges) = model.expected(stamp);
        let new = shown.keys().filter(|id| !model.made.contains(id)).count();
        assert!(new == 0 || new == model.new_in_flight(), "{what}: a part of a write");
        let changed = match model.in_flight {
            Some(Write::Delete { id, .. } | Write::SetExpiry { id, .. }) => Some(id),
            _ => None,
        };
        for id in model.made.iter().filter(|id| Some(**id) != changed) {
            let (shown, expected) = (shown.get(id), expected.get(id));
            let is_there = (shown.is_some(), expected.is_some());
            assert!(
                shown == expected,
                "{what}: {id:?} is not as it was answered: (shown, expected) {is_there:?}"
            );
        }
        assert!(edges.is_superset(&known_edges), "{what}: edges");
        assert!(self.write_in_flight(model).await.is_ok(), "{what}: the same again");
        let (stamp, (shown, edges)) = self.shown();
        let (expected, known_edges) = model.expected(stamp);
        assert!(shown == expected, "{what}: {} shown, {} expected", shown.len(), expected.len());
        assert_eq!(edges, known_edges, "{what}");
        let ids: Vec<EntryId> = model.made.iter().copied().collect();
        let by_id = self.group.read(|machine| machine.state_as_is().entries(&ids));
        assert!(by_id.into_iter().flatten().eq(expected.into_values()), "{what}: by ids");
    }
}
