//! Owns the oracle's side of a workload: every acknowledged operation, applied in the order of the run.
//!
//! - What the node answered is compared with what the operation should have done; differences are kept.
//! - The oracle gets ids from the node's answers and everything else from the operations.

use std::collections::{BTreeMap, HashMap, HashSet};

use fanfold_protocol::{EntryId, UserId};
use fanfold_storage::entry::{Entry, EntryRef};
use fanfold_storage::ids as stored;
use fanfold_storage::oracle::Oracle;
use fanfold_storage::space::SpaceDefinition;

use super::answer::Answer;
use super::operation::{AppendNumber, Operation, Post, Relation};
use super::words::{stored_audience, stored_user};

/// Differences kept in full; further ones are only counted.
const DIFFERENCES_KEPT_MAX: usize = 10;

/// What the node should hold.
#[derive(Debug)]
pub struct Mirror {
    oracle: Oracle,
    space: stored::SpaceId,
    graph: stored::GraphId,
    users: BTreeMap<UserId, Degree>,
    edges: u64,
    mutes: HashSet<(UserId, UserId)>,
    blocks: HashSet<(UserId, UserId)>,
    newest: HashMap<UserId, EntryId>,
    made: Vec<EntryId>,
    versions: HashMap<AppendNumber, u32>,
    deleted: HashSet<AppendNumber>,
    tally: Tally,
    differences: Vec<AnswerDifference>,
}

/// How many edges a user has at either end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Degree {
    /// Readers who follow the user.
    pub followers: u64,
    /// Owners whom the user follows.
    pub followees: u64,
}

/// Sums over the operations applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub operations: u64,
    /// Entries appended.
    pub posts: u64,
    /// Entries times the followers their owners had in the order of the run, private entries not counted.
    pub deliveries: u64,
    /// Answers that differ from what the operation should have done.
    pub answers_mismatched: u64,
}

/// An answer that differs from what the operation should have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerDifference {
    /// The operation.
    pub operation: Operation,
    /// What should have been answered; `None` for an id that does not grow or was given before.
    pub expected: Option<Answer>,
    /// What was.
    pub got: Answer,
}

impl Mirror {
    /// An empty one for a space as the node describes it.
    pub fn new(definition: SpaceDefinition) -> Self {
        let (space, graph) = (definition.id, definition.graph);
        let mut oracle = Oracle::new();
        oracle.define_space(definition);
        Self {
            oracle,
            space,
            graph,
            users: BTreeMap::new(),
            edges: 0,
            mutes: HashSet::new(),
            blocks: HashSet::new(),
            newest: HashMap::new(),
            made: Vec::new(),
            versions: HashMap::new(),
            deleted: HashSet::new(),
            tally: Tally::default(),
            differences: Vec::new(),
        }
    }

    /// Applies an operation that was answered. Operations come in the order of the run.
    pub fn apply(&mut self, operation: Operation, answer: Answer) {
        self.tally.operations += 1;
        let expected = match &operation {
            Operation::Append(post) => self.append(post, &answer),
            Operation::Amend { entry, payload, .. } => {
                let version = self.versions.entry(entry.by).or_insert(1);
                *version += 1;
                let expected = Answer::Amended(*version);
                self.oracle.amend(stored::EntryId(self.made[entry.by.0].0), payload.clone());
                Some(expected)
            }
            Operation::Delete { entry } => {
                self.oracle.delete(stored::EntryId(self.made[entry.by.0].0));
                Some(Answer::Deleted { existed: self.deleted.insert(entry.by) })
            }
            Operation::Follow { reader, owners } => Some(self.follow(*reader, owners)),
            Operation::Unfollow { reader, owner } => Some(self.unfollow(*reader, *owner)),
            Operation::Relate { user, target, change } => Some(self.relate(*user, *target, *change)),
        };
        if expected.as_ref() != Some(&answer) {
            self.tally.answers_mismatched += 1;
            if self.differences.len() < DIFFERENCES_KEPT_MAX {
                self.differences.push(AnswerDifference { operation, expected, got: answer });
            }
        }
    }

    /// The ids of the feed of a reader, newest first.
    pub fn feed(&self, reader: UserId) -> Vec<EntryId> {
        let ids = self.oracle.feed(self.space, stored_user(reader));
        ids.into_iter().map(|id| EntryId(id.0)).collect()
    }

    /// The ids of the timeline of an owner, newest first, as nobody in particular sees it.
    pub fn timeline(&self, owner: UserId) -> Vec<EntryId> {
        let ids = self.oracle.timeline(self.space, stored_user(owner), None);
        ids.into_iter().map(|id| EntryId(id.0)).collect()
    }

    /// A live entry.
    pub fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.oracle.entry(stored::EntryId(id.0))
    }

    /// Whether a viewer may see an entry; without a viewer, everybody may.
    pub fn admits(&self, viewer: Option<UserId>, entry: &Entry) -> bool {
        viewer.is_none_or(|viewer| self.oracle.admits(stored_user(viewer), entry))
    }

    /// Everybody named by an operation, ascending.
    pub fn users(&self) -> impl Iterator<Item = UserId> {
        self.users.keys().copied()
    }

    /// How many edges a user has.
    pub fn degree(&self, user: UserId) -> Degree {
        self.users.get(&user).copied().unwrap_or_default()
    }

    /// Edges there are.
    pub fn edges(&self) -> u64 {
        self.edges
    }

    /// Sums over the operations applied.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The first answers that were not as they should be.
    pub fn differences(&self) -> &[AnswerDifference] {
        &self.differences
    }

    fn append(&mut self, post: &Post, answer: &Answer) -> Option<Answer> {
        self.tally.posts += 1;
        let followers = self.users.entry(post.owner).or_default().followers;
        let Answer::Appended(id) = *answer else {
            // The number must be taken all the same, or every later one would name a wrong entry.
            self.made.push(EntryId(0));
            return None;
        };
        self.made.push(id);
        let audience = stored_audience(post.audience);
        if audience != fanfold_storage::entry::Audience::Private {
            self.tally.deliveries += followers;
        }
        let reference = post.reference.map(|made| EntryRef {
            owner: stored_user(made.owner),
            id: stored::EntryId(self.made[made.by.0].0),
        });
        let grows = self.newest.insert(post.owner, id).is_none_or(|before| before < id);
        let is_new = self.oracle.entry(stored::EntryId(id.0)).is_none();
        self.oracle.append(Entry {
            id: stored::EntryId(id.0),
            space: self.space,
            owner: stored_user(post.owner),
            author: stored_user(post.author.unwrap_or(post.owner)),
            audience,
            version: 1,
            expiry: None,
            reference,
            payload: post.payload.clone(),
        });
        (grows && is_new).then_some(Answer::Appended(id))
    }

    fn follow(&mut self, reader: UserId, owners: &[UserId]) -> Answer {
        let (mut changed, mut refused) = (0, Vec::new());
        self.users.entry(reader).or_default();
        for &owner in owners {
            self.users.entry(owner).or_default();
            if owner == reader {
                continue;
            }
            let (one, other) = (stored_user(reader), stored_user(owner));
            if self.oracle.blocked(one, other) {
                refused.push(owner);
            } else if !self.oracle.follows(self.graph, one, other) {
                self.oracle.follow(self.graph, one, other);
                self.edges += 1;
                self.users.entry(reader).or_default().followees += 1;
                self.users.entry(owner).or_default().followers += 1;
                changed += 1;
            }
        }
        refused.sort_unstable();
        refused.dedup();
        Answer::Related { changed, refused }
    }

    fn unfollow(&mut self, reader: UserId, owner: UserId) -> Answer {
        let (one, other) = (stored_user(reader), stored_user(owner));
        let there = self.oracle.follows(self.graph, one, other);
        if there {
            self.oracle.unfollow(self.graph, one, other);
            self.edges -= 1;
            self.users.entry(reader).or_default().followees -= 1;
            self.users.entry(owner).or_default().followers -= 1;
        }
        Answer::Related { changed: u32::from(there), refused: Vec::new() }
    }

    fn relate(&mut self, user: UserId, target: UserId, change: Relation) -> Answer {
        self.users.entry(user).or_default();
        let pair = (user, target);
        let (one, other) = (stored_user(user), stored_user(target));
        let changed = match change {
            Relation::Mute => self.mutes.insert(pair),
            Relation::Unmute => self.mutes.remove(&pair),
            Relation::Block => self.blocks.insert(pair),
            Relation::Unblock => self.blocks.remove(&pair),
        };
        match change {
            Relation::Mute => self.oracle.mute(one, other),
            Relation::Unmute => self.oracle.unmute(one, other),
            Relation::Block => self.oracle.block(one, other),
            Relation::Unblock => self.oracle.unblock(one, other),
        }
        Answer::Related { changed: u32::from(changed), refused: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfold_protocol::message::Audience;
    use fanfold_storage::space::SpacePolicy;

    use super::*;
    use crate::workload::operation::Made;

    fn mirror() -> Mirror {
        Mirror::new(SpaceDefinition {
            id: stored::SpaceId(1),
            name: "posts".to_owned(),
            graph: stored::GraphId(1),
            graph_name: "follows".to_owned(),
            version: 1,
            policy: SpacePolicy::default(),
        })
    }

    fn post(owner: u64, audience: Audience) -> Operation {
        let (owner, payload) = (UserId(owner), Bytes::new());
        Operation::Append(Post { owner, author: None, audience, reference: None, payload })
    }

    fn follow(reader: u64, owners: &[u64]) -> Operation {
        Operation::Follow { reader: UserId(reader), owners: owners.iter().copied().map(UserId).collect() }
    }

    fn related(changed: u32, refused: &[u64]) -> Answer {
        Answer::Related { changed, refused: refused.iter().copied().map(UserId).collect() }
    }

    #[test]
    fn deliveries_count_the_followers_of_the_moment_and_no_private_entries() {
        let mut mirror = mirror();
        mirror.apply(follow(1, &[9]), related(1, &[]));
        mirror.apply(post(9, Audience::Public), Answer::Appended(EntryId(10)));
        mirror.apply(follow(2, &[9, 2]), related(1, &[]));
        mirror.apply(post(9, Audience::Followers), Answer::Appended(EntryId(11)));
        mirror.apply(post(9, Audience::Private), Answer::Appended(EntryId(12)));
        assert_eq!(mirror.tally(), Tally { operations: 5, posts: 3, deliveries: 3, answers_mismatched: 0 });
        assert_eq!(mirror.feed(UserId(2)), [11, 10].map(EntryId));
        assert_eq!(mirror.feed(UserId(9)), [12, 11, 10].map(EntryId));
        assert_eq!(mirror.degree(UserId(9)), Degree { followers: 2, followees: 0 });
    }

    #[test]
    fn wrong_answers_are_counted() {
        let block = Operation::Relate { user: UserId(9), target: UserId(1), change: Relation::Block };
        let delete = Operation::Delete { entry: Made { owner: UserId(9), by: AppendNumber(0) } };
        let wrong = [
            (post(9, Audience::Public), Answer::Appended(EntryId(10)), Answer::Appended(EntryId(10))),
            (post(9, Audience::Public), Answer::Appended(EntryId(11)), Answer::Appended(EntryId(9))),
            (follow(1, &[9]), related(1, &[]), related(0, &[])),
            (block, related(1, &[]), related(0, &[])),
            (follow(1, &[9, 8]), related(1, &[9]), related(2, &[])),
            (delete, Answer::Deleted { existed: true }, Answer::Deleted { existed: false }),
        ];
        let mut right = mirror();
        let mut mirror = mirror();
        for (count, (operation, good, bad)) in wrong.into_iter().enumerate() {
            right.apply(operation.clone(), good);
            assert_eq!(right.tally().answers_mismatched, 0, "{:?}", right.differences());
            // The first is the entry that the later ones are compared with.
            mirror.apply(operation, bad);
            assert_eq!(mirror.tally().answers_mismatched, count as u64, "{:?}", mirror.differences());
        }
    }
}
