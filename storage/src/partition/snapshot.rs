//! Owns the image of a partition: its whole state as sections, each behind its tag and length.
//!
//! - The same state gives the same bytes: maps are written in the order of their keys.
//! - A restored partition goes on exactly as the original would have.

use std::collections::BTreeMap;

use super::Partition;
use super::delivered::{Aside, Delivered, RowState, WINDOW_ROWS_MAX};
use super::fan_out::Slice;
use super::heap::HeapBytes;
use super::journal::{Outgoing, Recorded};
use super::owners::{Chain, Owner, OwnerIndex};
use super::posting::PostingList;
use super::row::{EXPIRY_BYTES, Row};
use super::sessions::Session;
use super::stream::Incoming;
use crate::codec::{Encoded, Malformed, Reader, encoded_struct, put_bytes, put_u64};
use crate::ids::{EntryId, PartitionId, RowPosition, SessionId, SpaceId};

/// The version of the image's format.
const IMAGE_VERSION: u8 = 3;

encoded_struct!(Aside { author, referenced_owner, version, expiry });
encoded_struct!(Chain { space, head, floor, pulled, unpushed, slicing, slicing_id });
encoded_struct!(Owner { graph, id, generation, filled, followers, rows, chains });
encoded_struct!(Slice { row, owner, space, next });
encoded_struct!(Recorded { at, destinations, event });
encoded_struct!(Outgoing { resets, active, incarnation, begun, trimmed });
encoded_struct!(Incoming { epoch, watermark });
encoded_struct!(Session { used, floor, results });

impl Encoded for OwnerIndex {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u32().map(Self)
    }
}

impl Encoded for u128 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u128()
    }
}

impl<K: Encoded + Ord, V: Encoded> Encoded for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Vec::<(K, V)>::decode(from)?.into_iter().collect())
    }
}

impl<T: Encoded> Encoded for Box<[T]> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Vec::decode(from).map(Vec::into_boxed_slice)
    }
}

impl Encoded for PostingList {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, u64::from(self.len()));
        let mut before = 0;
        for member in self.iter() {
            put_u64(out, u64::from(member - before));
            before = member;
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        // The owners count what their lists hold when all are there.
        let (mut list, mut member, mut uncounted) = (Self::default(), 0u32, HeapBytes::default());
        for _ in 0..from.count()? {
            member = member.checked_add(from.u32()?).ok_or(from.malformed("local index"))?;
            list.insert(member, &mut uncounted);
        }
        Ok(list)
    }
}

/// The sections of an image, in their order; a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Section {
    Head = 1,
    Timelines = 2,
    Following = 3,
    FollowersHere = 4,
    Reach = 5,
    Delivered = 6,
    Feeds = 7,
    Streams = 8,
    Sessions = 9,
}

const SECTIONS: [Section; 9] = [
    Section::Head,
    Section::Timelines,
    Section::Following,
    Section::FollowersHere,
    Section::Reach,
    Section::Delivered,
    Section::Feeds,
    Section::Streams,
    Section::Sessions,
];

impl Partition {
    /// The image of the whole state.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = vec![IMAGE_VERSION];
        for section in SECTIONS {
            let mut body = Vec::new();
            self.encode_section(section, &mut body);
            out.push(section as u8);
            put_bytes(&mut out, &body);
        }
        out
    }

    /// The partition that an image describes.
    ///
    /// # Errors
    /// The bytes are not an image of this version.
    pub fn restore(id: PartitionId, partitions: u16, image: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(image);
        if from.byte()? != IMAGE_VERSION {
            return Err(from.malformed("image version 3"));
        }
        let mut partition = Self::new(id, partitions);
        for section in SECTIONS {
            if from.byte()? != section as u8 {
                return Err(from.malformed("section"));
            }
            let mut body = Reader::new(from.bytes()?);
            partition.decode_section(section, &mut body)?;
            body.end()?;
        }
        from.end()?;
        let spaces: Vec<SpaceId> = partition.spaces.keys().copied().collect();
        spaces.into_iter().for_each(|space| partition.recount_horizon(space));
        partition.note_all_owners();
        Ok(partition)
    }

    /// A hash of the state: equal on all replicas at the same index.
    pub fn checksum(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&self.snapshot())
    }

    fn encode_section(&self, section: Section, out: &mut Vec<u8>) {
        match section {
            Section::Head => {
                self.limits.encode(out);
                self.applied.encode(out);
                self.stamp.encode(out);
                self.incarnation.encode(out);
                self.spaces.encode(out);
                self.last_generation.encode(out);
            }
            Section::Timelines => {
                self.timelines.last_tick.encode(out);
                self.timelines.entries.encode(out);
            }
            Section::Following => {
                self.users.slots.encode(out);
            }
            Section::FollowersHere => {
                self.owners.slots.encode(out);
            }
            Section::Reach => self.reach.encode(out),
            Section::Delivered => self.encode_delivered(out),
            Section::Feeds => {
                self.feeds.encode(out);
                self.slices.iter().copied().collect::<Vec<_>>().encode(out);
            }
            Section::Streams => {
                self.journal.first.encode(out);
                put_u64(out, self.journal.len() as u64);
                self.journal.events().for_each(|event| event.encode(out));
                self.journal.streams.encode(out);
                self.inbox.encode(out);
            }
            Section::Sessions => {
                self.sessions.last.encode(out);
                self.sessions.open.encode(out);
                put_u64(out, self.keys.order.len() as u64);
                for (stamp, (space, owner, key), id, hash) in &self.keys.order {
                    ((*stamp, (*space, *owner)), (key.clone(), (*id, *hash))).encode(out);
                }
            }
        }
    }

    fn decode_section(&mut self, section: Section, from: &mut Reader<'_>) -> Result<(), Malformed> {
        match section {
            Section::Head => {
                self.limits = Encoded::decode(from)?;
                self.applied = Encoded::decode(from)?;
                self.stamp = Encoded::decode(from)?;
                self.incarnation = Encoded::decode(from)?;
                self.spaces = Encoded::decode(from)?;
                self.last_generation = Encoded::decode(from)?;
            }
            Section::Timelines => {
                self.timelines.last_tick = Encoded::decode(from)?;
                let entries: BTreeMap<EntryId, crate::entry::Entry> = Encoded::decode(from)?;
                entries.into_values().for_each(|entry| self.timelines.insert(entry));
            }
            Section::Following => {
                self.users.slots = Encoded::decode(from)?;
                self.users.reindex();
            }
            Section::FollowersHere => {
                self.owners.slots = Encoded::decode(from)?;
                self.owners.reindex();
            }
            Section::Reach => self.reach = Encoded::decode(from)?,
            Section::Delivered => self.decode_delivered(from)?,
            Section::Feeds => {
                self.feeds = Encoded::decode(from)?;
                self.slices = Vec::decode(from)?.into();
            }
            Section::Streams => {
                self.journal.first = Encoded::decode(from)?;
                self.journal.set_events(Vec::decode(from)?);
                self.journal.streams = Encoded::decode(from)?;
                self.inbox = Encoded::decode(from)?;
            }
            Section::Sessions => {
                self.sessions.last = Encoded::decode(from)?;
                let open: BTreeMap<SessionId, Session> = Encoded::decode(from)?;
                open.into_iter().for_each(|(id, session)| self.sessions.restore(id, session));
                for _ in 0..from.count()? {
                    let ((stamp, (space, owner)), (key, (id, hash))) = Encoded::decode(from)?;
                    self.keys.keep(stamp, (space, owner, key), id, hash);
                }
            }
        }
        Ok(())
    }

    fn encode_delivered(&self, out: &mut Vec<u8>) {
        put_u64(out, self.delivered.base());
        put_u64(out, self.delivered.len());
        for (position, row) in self.delivered.iter() {
            let (flags, previous, expiry) = row.raw(position);
            row.id.encode(out);
            row.owner.encode(out);
            row.space.encode(out);
            out.push(flags);
            previous.encode(out);
            out.extend_from_slice(&expiry);
        }
        let asides: BTreeMap<_, _> = self.delivered.asides().iter().map(|(p, aside)| (*p, *aside)).collect();
        asides.encode(out);
        self.special.all_left().encode(out);
    }

    fn decode_delivered(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        let base = from.u64()?;
        let count = from.count()?;
        if base.checked_add(count as u64).is_none() || count > WINDOW_ROWS_MAX as usize {
            return Err(from.malformed("positions of a window"));
        }
        self.delivered = Delivered::starting_at(base);
        for _ in 0..count {
            let (id, owner, space) = (Encoded::decode(from)?, Encoded::decode(from)?, Encoded::decode(from)?);
            let (flags, previous) = (from.byte()?, Encoded::decode(from)?);
            let mut expiry = [0; EXPIRY_BYTES];
            for byte in &mut expiry {
                *byte = from.byte()?;
            }
            let row = Row::from_raw((id, owner, space), self.delivered.next(), (flags, previous, expiry));
            self.delivered.append(row.ok_or(from.malformed("row"))?);
        }
        let asides: BTreeMap<RowPosition, Aside> = Encoded::decode(from)?;
        self.delivered.set_asides(asides.into_iter());
        let live = self.delivered.iter().filter(|(_, row)| row.state() == RowState::Live);
        let expiries = live.filter_map(|(p, row)| self.delivered.expiry(p, row).map(|expiry| (expiry, p)));
        self.row_expiries = expiries.collect();
        let left: BTreeMap<SpaceId, EntryId> = Encoded::decode(from)?;
        left.into_iter().for_each(|(space, id)| self.special.note_left(space, id));
        Ok(())
    }
}
