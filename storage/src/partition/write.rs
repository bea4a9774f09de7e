//! Owns the writes to the timelines homed here: append, amend, delete and expiry.
//!
//! - A write runs once per session and sequence; a retry gets the first answer (R18).
//! - The event for the followers' partitions is part of the same command as the change.
//! - This log alone decides whether an entry had expired (R13).

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Partition;
use super::look_ahead::LOOK_AHEAD;
use super::sessions::{KEYS_MAX, Key, Seen};
use crate::codec::{Encoded, Reader};
use crate::command::{
    Append, AppendResult, KEY_BYTES_MAX, Limited, Outcome, Refusal, TTL_MS_MAX, Ttl, Write, WriteResult,
    WriteTag,
};
use crate::entry::{Audience, Delivery, Entry};
use crate::event::Event;
use crate::ids::{EntryId, JournalPosition, SlotIndex, SpaceId, Stamp, UserId};
use crate::space::SpaceDefinition;

/// The hash of what a write command says behind its tag, by which a retry is told from another request.
fn body_hash(raw: &[u8]) -> u128 {
    let mut from = Reader::new(raw);
    let body = from.byte().and_then(|_| WriteTag::decode(&mut from)).map(|_| raw.len() - from.left());
    xxhash_rust::xxh3::xxh3_128(body.map_or(raw, |start| &raw[start..]))
}

/// What an application key says.
pub(super) enum Keyed {
    /// Its entry was made before.
    Made(EntryId),
    /// Nothing; the key, if there is one, is to be kept with the hash of the content.
    Free(Option<(Key, u128)>),
}

impl Partition {
    pub(super) fn write(&mut self, tag: &WriteTag, write: Write, raw: &[u8]) -> Outcome {
        let hash = body_hash(raw);
        match self.sessions.seen(tag, hash, self.stamp, &self.limits) {
            Seen::Before(outcome) => return outcome,
            Seen::Refused(refusal) => return Outcome::Refused { refusal },
            Seen::New => {}
        }
        let outcome = match self.perform(write) {
            Ok(result) => {
                // A write that repeats an earlier one made no event; the earlier one's may still be on its way.
                let last = JournalPosition(self.journal.next().0 - 1);
                Outcome::Written { result, journal: (last.0 > 0).then_some(last) }
            }
            Err(refusal) => Outcome::Refused { refusal },
        };
        self.sessions.keep(tag, hash, outcome.clone());
        outcome
    }

    fn perform(&mut self, write: Write) -> Result<WriteResult, Refusal> {
        match write {
            Write::Append { items } => {
                let mut made = SmallVec::with_capacity(items.len());
                let (many, mut items) = (items.len() > 1, items.into_iter());
                loop {
                    if many && made.len().is_multiple_of(LOOK_AHEAD) {
                        self.look_ahead_of_appends(items.as_slice());
                    }
                    let Some(item) = items.next() else { break };
                    made.push(match self.append(item) {
                        Ok((id, duplicate)) => AppendResult::Made { id, duplicate },
                        Err(refusal) => AppendResult::Refused { refusal },
                    });
                }
                Ok(WriteResult::Appended { items: made })
            }
            Write::Amend { space, owner, id, expected_version, payload } => {
                self.amend(space, owner, id, expected_version, payload)
            }
            Write::Delete { space, owner, id } => self.delete(space, owner, id),
            Write::SetExpiry { space, owner, id, ttl } => self.set_expiry(space, owner, id, ttl),
            Write::Follow { graph, reader, owners } => self.follow(graph, reader, &owners),
            Write::Unfollow { graph, reader, owners } => self.unfollow(graph, reader, &owners),
            Write::Mute { user, targets } => self.mute(user, &targets),
            Write::Unmute { user, targets } => self.unmute(user, &targets),
            Write::Block { user, targets } => self.block(user, &targets),
            Write::Unblock { user, targets } => self.unblock(user, &targets),
            Write::ImportFollows { graph, edges } => self.import_follows(graph, &edges),
            Write::ImportEntries { entries } => Ok(self.import_entries(entries)),
        }
    }

    pub(super) fn space_for_owner(&self, space: SpaceId, owner: UserId) -> Result<&SpaceDefinition, Refusal> {
        self.check_home(owner)?;
        self.spaces.get(&space).ok_or(Refusal::UnknownSpace)
    }

    /// The space, if the owner's timeline in it takes writes.
    pub(super) fn writable_space(&self, space: SpaceId, owner: UserId) -> Result<&SpaceDefinition, Refusal> {
        let definition = self.space_for_owner(space, owner)?;
        if definition.policy.is_read_only { Err(Refusal::ReadOnly { space }) } else { Ok(definition) }
    }

    fn expiry_of(&self, ttl: Ttl, space: &SpaceDefinition) -> Result<Option<Stamp>, Refusal> {
        let ttl_ms = match ttl {
            Ttl::SpaceDefault => space.policy.default_ttl_ms,
            Ttl::Never => None,
            Ttl::Ms { ttl_ms } if ttl_ms == 0 || ttl_ms > TTL_MS_MAX => return Err(Refusal::TtlOutOfRange),
            Ttl::Ms { ttl_ms } => Some(ttl_ms),
        };
        Ok(ttl_ms.map(|ttl_ms| Stamp(self.stamp.0 + ttl_ms)))
    }

    fn append(&mut self, item: Append) -> Result<(EntryId, bool), Refusal> {
        self.space_for_owner(item.space, item.owner)?;
        // A retry gets the first answer, whatever the space takes by now.
        let key = match self.look_up_key((item.space, item.owner), item.key.as_ref(), &item)? {
            Keyed::Made(existing) => return Ok((existing, true)),
            Keyed::Free(key) => key,
        };
        let space = self.writable_space(item.space, item.owner)?;
        if item.payload.len() > space.policy.payload_bytes_max as usize {
            return Err(Refusal::PayloadTooLarge { limit: space.policy.payload_bytes_max });
        }
        let expiry = self.expiry_of(item.ttl, space)?;
        let id = self.timelines.next_id(self.stamp, SlotIndex::of(item.owner));
        if let Some((key, hash)) = key {
            self.keys.keep(self.stamp, key, id, hash);
        }
        let author = item.author.unwrap_or(item.owner);
        let Append { space, owner, audience, reference, payload, .. } = item;
        let entry = Entry { id, space, owner, author, audience, version: 1, expiry, reference, payload };
        let delivery = entry.delivery();
        self.note_for_horizon(space, id);
        self.timelines.insert(entry);
        self.note_own(space, owner, id);
        if audience != Audience::Private && !self.keeps_back(space, owner, id) {
            self.publish(space, owner, Event::Deliver { space, delivery });
        }
        Ok((id, false))
    }

    /// What an application key says of an entry whose content is `body`.
    pub(super) fn look_up_key(
        &self,
        (space, owner): (SpaceId, UserId),
        key: Option<&Bytes>,
        body: &impl Encoded,
    ) -> Result<Keyed, Refusal> {
        let Some(key) = key else { return Ok(Keyed::Free(None)) };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Refusal::KeyLength);
        }
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        let (key, hash) = ((space, owner, key.clone()), xxhash_rust::xxh3::xxh3_128(&encoded));
        match self.keys.find(&key) {
            Some((existing, before)) if before == hash => Ok(Keyed::Made(existing)),
            Some((existing, _)) => Err(Refusal::KeyConflict { existing }),
            None if self.keys.is_full() => {
                Err(Refusal::LimitReached { what: Limited::Keys, limit: KEYS_MAX as u32 })
            }
            None => Ok(Keyed::Free(Some((key, hash)))),
        }
    }

    /// The entry, if it is there and the owner's.
    fn owned(&self, space: SpaceId, owner: UserId, id: EntryId) -> Result<Cow<'_, Entry>, Refusal> {
        self.writable_space(space, owner)?;
        // The slot in an id says so even of an entry that another partition holds.
        if id.slot() != SlotIndex::of(owner) {
            return Err(Refusal::NotTheOwner);
        }
        let entry =
            self.timelines.live(id, self.stamp).filter(|e| e.space == space).ok_or(Refusal::NotFound)?;
        if entry.owner == owner { Ok(entry) } else { Err(Refusal::NotTheOwner) }
    }

    fn amend(
        &mut self,
        space: SpaceId,
        owner: UserId,
        id: EntryId,
        expected: u32,
        payload: Bytes,
    ) -> Result<WriteResult, Refusal> {
        let limit = self.writable_space(space, owner)?.policy.payload_bytes_max;
        if payload.len() > limit as usize {
            return Err(Refusal::PayloadTooLarge { limit });
        }
        let current = self.owned(space, owner, id)?.version;
        if current != expected {
            return Err(Refusal::VersionMismatch { current });
        }
        let changed = self.timelines.amend(id, payload).ok_or(Refusal::NotFound)?;
        let delivery = changed.delivery();
        let version = delivery.version;
        self.publish_change(space, delivery);
        Ok(WriteResult::Amended { version })
    }

    fn delete(&mut self, space: SpaceId, owner: UserId, id: EntryId) -> Result<WriteResult, Refusal> {
        match self.owned(space, owner, id) {
            Ok(_) => {}
            Err(Refusal::NotFound) => return Ok(WriteResult::Deleted { existed: false }),
            Err(refusal) => return Err(refusal),
        }
        let entry = self.timelines.remove(id);
        if entry.is_some_and(|entry| entry.audience != Audience::Private) {
            self.publish(space, owner, Event::Delete { space, owner, id });
        }
        Ok(WriteResult::Deleted { existed: true })
    }

    fn set_expiry(
        &mut self,
        space: SpaceId,
        owner: UserId,
        id: EntryId,
        ttl: Ttl,
    ) -> Result<WriteResult, Refusal> {
        let definition = self.writable_space(space, owner)?;
        let expiry = self.expiry_of(ttl, definition)?;
        self.owned(space, owner, id)?;
        let changed = self.timelines.set_expiry(id, expiry).ok_or(Refusal::NotFound)?;
        let delivery = changed.delivery();
        self.publish_change(space, delivery);
        Ok(WriteResult::ExpirySet { expiry })
    }

    fn publish_change(&mut self, space: SpaceId, delivery: Delivery) {
        if delivery.audience != Audience::Private {
            self.publish(space, delivery.owner, Event::Update { space, delivery });
        }
    }

    /// Brings an event about an owner homed here to every partition that follows: this one at once, the others by
    /// the journal.
    fn publish(&mut self, space: SpaceId, owner: UserId, event: Event) {
        let graph = self.spaces[&space].graph;
        self.take_owner_event(&event);
        self.journal.record(self.stamp, self.reach.of(graph, owner), event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Limits, encode_batch};
    use crate::ids::{GraphId, PartitionId, Sequence, SessionId};
    use crate::space::{SpaceDefinition, SpacePolicy};

    const SPACE: SpaceId = SpaceId(1);
    const OWNER: UserId = UserId(1);

    fn apply(partition: &mut Partition, at: Stamp, command: &Command) -> Outcome {
        let batch = encode_batch(at, &[command.to_bytes()]);
        partition.apply(partition.applied() + 1, &batch).unwrap().remove(0)
    }

    /// Appends with these keys.
    fn append(
        partition: &mut Partition,
        at: Stamp,
        sequence: u64,
        keys: std::ops::Range<u64>,
    ) -> Vec<AppendResult> {
        let item = |key: u64| Append {
            space: SPACE,
            owner: OWNER,
            author: None,
            audience: Audience::Public,
            ttl: Ttl::SpaceDefault,
            key: Some(Bytes::copy_from_slice(&key.to_be_bytes())),
            reference: None,
            payload: Bytes::new(),
        };
        let sequence = Sequence(sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        let write = Write::Append { items: keys.map(item).collect() };
        match apply(partition, at, &Command::Write { tag, write }) {
            Outcome::Written { result: WriteResult::Appended { items }, .. } => items.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_remembered_up_to_a_number_and_then_refused_until_some_are_forgotten() {
        let (first, most) = (Stamp(1_000_000), KEYS_MAX as u64);
        let mut partition = Partition::new(PartitionId(0), 1);
        let limits = Limits { key_window_ms: 1_000, ..Limits::default() };
        let policy = SpacePolicy::default();
        let (graph, name, graph_name) = (GraphId(1), "posts".into(), "follows".into());
        let definition = SpaceDefinition { id: SPACE, name, graph, graph_name, version: 1, policy };
        apply(&mut partition, first, &Command::Configure { limits: limits.clone() });
        apply(&mut partition, first, &Command::DefineSpace { definition });
        apply(&mut partition, first, &Command::OpenSession);
        let made = |result: &AppendResult| matches!(result, AppendResult::Made { duplicate: false, .. });
        assert!(append(&mut partition, first, 1, 0..most).iter().all(made));
        let refusal = Refusal::LimitReached { what: Limited::Keys, limit: most as u32 };
        assert_eq!(append(&mut partition, first, 2, most..most + 1), [AppendResult::Refused { refusal }]);
        // A retry still gets the first answer.
        let again = append(&mut partition, first, 3, 5..6);
        assert!(matches!(again[..], [AppendResult::Made { duplicate: true, .. }]), "{again:?}");
        let later = Stamp(first.0 + limits.key_window_ms);
        assert!(append(&mut partition, later, 4, most..most + 1).iter().all(made));
    }
}
