//! Owns the image of a partition: its whole state as sections, each behind its tag and length.
//!
//! - The same state gives the same bytes: maps are written in the order of their keys.
//! - A restored partition goes on exactly as the original would have.

use std::collections::BTreeMap;

use super::delivered::{Involved, Row, RowState};
use super::fan_out::Slice;
use super::feed::Feed;
use super::journal::{Outgoing, Recorded};
use super::owners::{Chain, Owner, OwnerIndex};
use super::posting::PostingList;
use super::sessions::Session;
use super::stream::Incoming;
use super::users::{Edge, User};
use super::{IdMap, Partition};
use crate::codec::{Encoded, Malformed, Reader, encoded_enum, encoded_struct, put_bytes, put_u64};
use crate::ids::{EntryId, GraphId, PartitionId, RowPosition, SessionId, SpaceId, UserId};

/// The version of the image's format.
const IMAGE_VERSION: u8 = 1;

encoded_enum!(RowState, "row state" { 0 => Live, 1 => Expired, 2 => Dead });
encoded_struct!(Row { id, owner, space, state, audience, backfill, version, expiry, previous });
encoded_struct!(Involved { author, referenced_owner });
encoded_struct!(Edge { owner, since });
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

impl Encoded for Box<[PartitionId]> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.to_vec().encode(out);
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
        let (mut list, mut member) = (Self::default(), 0u32);
        for _ in 0..from.count()? {
            member = member.checked_add(from.u32()?).ok_or(from.malformed("local index"))?;
            list.insert(member);
        }
        Ok(list)
    }
}

impl Encoded for User {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.following.encode(out);
        for set in [&self.mutes, &self.blocks, &self.blocked_by] {
            put_u64(out, set.len() as u64);
            set.iter().for_each(|id| id.encode(out));
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut user = Self::new(UserId::decode(from)?);
        user.following = Vec::decode(from)?;
        for set in [&mut user.mutes, &mut user.blocks, &mut user.blocked_by] {
            *set = Vec::<UserId>::decode(from)?.into_iter().collect();
        }
        Ok(user)
    }
}

impl Encoded for Feed {
    fn encode(&self, out: &mut Vec<u8>) {
        self.floor.encode(out);
        put_u64(out, self.len() as u64);
        self.positions().for_each(|position| position.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut feed = Self::default();
        feed.floor = EntryId::decode(from)?;
        feed.replace(Vec::decode(from)?);
        Ok(feed)
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
            return Err(from.malformed("image version 1"));
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
                self.deliveries_stored.encode(out);
            }
            Section::Timelines => {
                self.timelines.last_tick.encode(out);
                self.timelines.entries.encode(out);
            }
            Section::Following => {
                self.users.slots.encode(out);
                self.users.free.encode(out);
            }
            Section::FollowersHere => {
                self.owners.slots.encode(out);
                self.owners.free.encode(out);
            }
            Section::Reach => {
                let sorted: BTreeMap<_, _> =
                    self.reach.iter().map(|(key, reach)| (*key, reach.clone())).collect();
                sorted.encode(out);
            }
            Section::Delivered => {
                self.delivered.base.encode(out);
                put_u64(out, self.delivered.rows.len() as u64);
                self.delivered.rows.iter().for_each(|row| row.encode(out));
                let involved: BTreeMap<_, _> =
                    self.delivered.involved.iter().map(|(p, i)| (*p, *i)).collect();
                involved.encode(out);
            }
            Section::Feeds => {
                self.feeds.encode(out);
                self.slices.iter().copied().collect::<Vec<_>>().encode(out);
            }
            Section::Streams => {
                self.journal.first.encode(out);
                self.journal.events.iter().cloned().collect::<Vec<_>>().encode(out);
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
                self.deliveries_stored = Encoded::decode(from)?;
            }
            Section::Timelines => {
                self.timelines.last_tick = Encoded::decode(from)?;
                let entries: BTreeMap<EntryId, crate::entry::Entry> = Encoded::decode(from)?;
                entries.into_values().for_each(|entry| self.timelines.insert(entry));
            }
            Section::Following => {
                self.users.slots = Encoded::decode(from)?;
                self.users.free = Encoded::decode(from)?;
                self.users.reindex();
            }
            Section::FollowersHere => {
                self.owners.slots = Encoded::decode(from)?;
                self.owners.free = Encoded::decode(from)?;
                self.owners.reindex();
            }
            Section::Reach => {
                let sorted: BTreeMap<(GraphId, UserId), _> = Encoded::decode(from)?;
                self.reach = sorted.into_iter().collect();
            }
            Section::Delivered => self.decode_delivered(from)?,
            Section::Feeds => {
                self.feeds = Encoded::decode(from)?;
                self.slices = Vec::decode(from)?.into();
            }
            Section::Streams => {
                self.journal.first = Encoded::decode(from)?;
                self.journal.events = Vec::decode(from)?.into();
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

    fn decode_delivered(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        self.delivered.base = Encoded::decode(from)?;
        let rows: Vec<Row> = Vec::decode(from)?;
        let involved: BTreeMap<RowPosition, Involved> = Encoded::decode(from)?;
        for (n, row) in rows.iter().enumerate().filter(|(_, row)| row.state == RowState::Live) {
            let position = RowPosition(self.delivered.base + n as u64);
            self.row_expiries.extend(row.expiry.map(|expiry| (expiry, position)));
        }
        self.delivered.rows = rows.into();
        self.delivered.involved = involved.into_iter().collect::<IdMap<_, _>>();
        Ok(())
    }
}
