//! Owns the record of an entry: what stands of it between header and indexes.
//!
//! - Space, owner and id stand in the indexes only; the record's CRC covers them, so that a place that belongs to another entry
//!   is found out.

use bytes::{Buf, Bytes};
use crc32fast::Hasher;

use super::packed::{get_u32, get_u64};
use crate::entry::{Audience, Entry, EntryRef};
use crate::ids::{EntryId, SpaceId, Stamp, UserId};

/// The shortest record: CRC and flags.
pub(super) const RECORD_BYTES_MIN: usize = 5;

const AUDIENCE: u8 = 3;
const HAS_AUTHOR: u8 = 4;
const HAS_VERSION: u8 = 8;
const HAS_EXPIRY: u8 = 16;
const HAS_REFERENCE: u8 = 32;
const ALL_FLAGS: u8 = 63;

/// What names an entry and gives it its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) space: SpaceId,
    pub(super) owner: UserId,
    pub(super) id: EntryId,
}

impl Key {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { space: entry.space, owner: entry.owner, id: entry.id }
    }

    /// Whether `next` may follow.
    pub(super) fn is_before(&self, next: &Self) -> bool {
        (self.space, self.owner, next.id) < (next.space, next.owner, self.id)
    }

    fn hasher(&self) -> Hasher {
        let mut raw = [0; 18];
        raw[..2].copy_from_slice(&self.space.0.to_le_bytes());
        raw[2..10].copy_from_slice(&self.owner.0.to_le_bytes());
        raw[10..].copy_from_slice(&self.id.0.to_le_bytes());
        let mut hasher = Hasher::new();
        hasher.update(&raw);
        hasher
    }
}

/// Replaces `head` by the record of `entry` up to its payload.
pub(super) fn encode_head(entry: &Entry, head: &mut Vec<u8>) {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let audience = match entry.audience {
        Audience::Public => 0,
        Audience::Followers => 1,
        Audience::Private => 2,
    };
    head.clear();
    head.extend_from_slice(&[0; 4]);
    head.push(
        audience
            | flag(entry.author != entry.owner, HAS_AUTHOR)
            | flag(entry.version != 1, HAS_VERSION)
            | flag(entry.expiry.is_some(), HAS_EXPIRY)
            | flag(entry.reference.is_some(), HAS_REFERENCE),
    );
    if entry.author != entry.owner {
        head.extend_from_slice(&entry.author.0.to_le_bytes());
    }
    if entry.version != 1 {
        head.extend_from_slice(&entry.version.to_le_bytes());
    }
    if let Some(expiry) = entry.expiry {
        head.extend_from_slice(&expiry.0.to_le_bytes());
    }
    if let Some(reference) = entry.reference {
        head.extend_from_slice(&reference.owner.0.to_le_bytes());
        head.extend_from_slice(&reference.id.0.to_le_bytes());
    }
    let mut hasher = Key::of(entry).hasher();
    hasher.update(&head[4..]);
    hasher.update(&entry.payload);
    head[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// Reads the record that is all of `bytes`; the payload is what is left of it.
pub(super) fn decode(key: Key, mut bytes: Bytes) -> Result<Entry, &'static str> {
    let flags = *bytes.get(4).ok_or("the record is too short")?;
    let mut hasher = key.hasher();
    hasher.update(&bytes[4..]);
    if get_u32(&bytes, 0) != hasher.finalize() {
        return Err("the record does not match its CRC");
    }
    let audience = match flags & AUDIENCE {
        _ if flags > ALL_FLAGS => return Err("the record has unknown flags"),
        0 => Audience::Public,
        1 => Audience::Followers,
        2 => Audience::Private,
        _ => return Err("the record has an unknown audience"),
    };
    let mut at = RECORD_BYTES_MIN;
    let mut field = |flag: u8, field_bytes: usize| {
        let start = at;
        at += if flags & flag == 0 { 0 } else { field_bytes };
        (at > start).then_some(start)
    };
    let author = field(HAS_AUTHOR, 8);
    let version = field(HAS_VERSION, 4);
    let expiry = field(HAS_EXPIRY, 8);
    let reference = field(HAS_REFERENCE, 16);
    if at > bytes.len() {
        return Err("the record is too short");
    }
    let entry = Entry {
        id: key.id,
        space: key.space,
        owner: key.owner,
        author: author.map_or(key.owner, |at| UserId(get_u64(&bytes, at))),
        audience,
        version: version.map_or(1, |at| get_u32(&bytes, at)),
        expiry: expiry.map(|at| Stamp(get_u64(&bytes, at))),
        reference: reference
            .map(|at| EntryRef { owner: UserId(get_u64(&bytes, at)), id: EntryId(get_u64(&bytes, at + 8)) }),
        payload: Bytes::new(),
    };
    bytes.advance(at);
    Ok(Entry { payload: bytes, ..entry })
}
