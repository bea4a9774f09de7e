//! Owns the primitive encodings of commands, events and state images: varints, byte strings and options.
//!
//! - Integers are LEB128 varints; byte strings carry their length; options carry one byte.
//! - A length is checked against what is left before anything is allocated.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::entry::{Audience, Delivery, EntryRef};
use crate::ids::{EntryId, Stamp, UserId};

/// Memory that the announced length of a list gets at once, at most.
const LIST_BYTES_MAX: usize = 64 << 10;

/// Bytes that are not what the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes at offset {offset}: {what} expected")]
pub struct Malformed {
    /// Where the reader stood.
    pub offset: usize,
    /// What it expected there.
    pub what: &'static str,
}

/// Reads encoded values from a slice.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The error that says `what` was expected here.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { offset: self.offset, what }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// Refuses bytes after the end.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(self.malformed("end")) }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.offset).ok_or(self.malformed("byte"))?;
        self.offset += 1;
        Ok(byte)
    }

    /// A truth value.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("flag")),
        }
    }

    /// An unsigned varint.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("varint"))
    }

    /// A varint that fits 32 bits.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| self.malformed("32-bit varint"))
    }

    /// A varint that fits 16 bits.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.u64()?).map_err(|_| self.malformed("16-bit varint"))
    }

    /// 16 bytes, little-endian.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        let mut raw = [0; 16];
        raw.copy_from_slice(self.raw(16)?);
        Ok(u128::from_le_bytes(raw))
    }

    /// How many items follow, each of at least one byte.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.u64()?;
        if count > self.left() as u64 {
            return Err(self.malformed("count"));
        }
        Ok(count as usize)
    }

    /// A byte string with its length.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.raw(len)
    }

    /// A UTF-8 string with its length.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let raw = self.bytes()?;
        String::from_utf8(raw.to_vec()).map_err(|_| self.malformed("UTF-8"))
    }

    /// So many bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.offset.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(self.malformed("bytes"))?;
        let raw = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(raw)
    }

    /// A value that may be absent.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A counted list.
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.count()?;
        // What a list says of its length is believed up to a limit: growing costs more than reading it.
        let mut items = Vec::with_capacity(count.min(LIST_BYTES_MAX / size_of::<T>().max(1)));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

/// A value with one encoding, used in commands, events and state images alike.
pub trait Encoded: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads it back.
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// Appends an unsigned varint.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a byte string with its length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

macro_rules! encoded_id {
    ($read:ident: $($name:ty),*) => {$(
        impl Encoded for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_u64(out, u64::from(self.0));
            }
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.$read().map(Self)
            }
        }
    )*};
}

encoded_id!(u64: UserId, EntryId, Stamp, crate::ids::SessionId, crate::ids::Sequence,
    crate::ids::JournalPosition, crate::ids::RowPosition, crate::ids::Generation);
encoded_id!(u16: crate::ids::Day, crate::ids::SpaceId, crate::ids::GraphId, crate::ids::PartitionId);

macro_rules! encoded_integer {
    ($($name:ident),*) => {$(
        impl Encoded for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_u64(out, u64::from(*self));
            }
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.$name()
            }
        }
    )*};
}

encoded_integer!(u64, u32, u16);

impl Encoded for u128 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u128()
    }
}

impl Encoded for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.flag()
    }
}

impl Encoded for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.bytes().map(Self::copy_from_slice)
    }
}

impl Encoded for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.string()
    }
}

impl<T: Encoded> Encoded for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.option(T::decode)
    }
}

impl<T: Encoded> Encoded for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        for item in self {
            item.encode(out);
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.list(T::decode)
    }
}

impl<T: Encoded, const N: usize> Encoded for SmallVec<[T; N]> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        for item in self {
            item.encode(out);
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.list(T::decode).map(Self::from_vec)
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

impl<T: Encoded + Ord> Encoded for BTreeSet<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Vec::<T>::decode(from)?.into_iter().collect())
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

impl<A: Encoded, B: Encoded> Encoded for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::decode(from)?, B::decode(from)?))
    }
}

/// Implements [`Encoded`] for a struct as its fields in the order given.
#[macro_export]
macro_rules! encoded_struct {
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Encoded for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::codec::Encoded::encode(&self.$field, out);)*
            }
            fn decode(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Malformed> {
                Ok(Self { $($field: $crate::codec::Encoded::decode(from)?),* })
            }
        }
    };
}

/// Implements [`Encoded`] for an enum whose variants have named fields or none, each behind its tag byte.
#[macro_export]
macro_rules! encoded_enum {
    ($name:ty, $what:literal { $($tag:literal => $variant:ident $({ $($field:ident),* $(,)? })?),* $(,)? }) => {
        impl $crate::codec::Encoded for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field),* })? => {
                        out.push($tag);
                        $($($crate::codec::Encoded::encode($field, out);)*)?
                    })*
                }
            }
            fn decode(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Malformed> {
                Ok(match from.byte()? {
                    $($tag => Self::$variant $({ $($field: $crate::codec::Encoded::decode(from)?),* })?,)*
                    _ => return Err(from.malformed($what)),
                })
            }
        }
    };
}

pub use {encoded_enum, encoded_struct};

encoded_enum!(Audience, "audience" { 0 => Public, 1 => Followers, 2 => Private });
encoded_struct!(EntryRef { owner, id });
encoded_struct!(crate::entry::Entry {
    id,
    space,
    owner,
    author,
    audience,
    version,
    expiry,
    reference,
    payload
});
encoded_enum!(crate::space::FanOut, "fan-out" { 0 => Auto, 1 => Push, 2 => Pull });
encoded_struct!(crate::space::SpaceDefinition { id, name, graph, graph_name, version, policy });
encoded_struct!(crate::ids::StreamEpoch { incarnation, resets });

/// The bit beside the fan-out of a policy that says that the space is read-only.
const IS_READ_ONLY: u8 = 128;

impl Encoded for crate::space::SpacePolicy {
    fn encode(&self, out: &mut Vec<u8>) {
        self.default_ttl_ms.encode(out);
        self.feed_cap.encode(out);
        self.horizon_ms.encode(out);
        let at = out.len();
        self.fan_out.encode(out);
        if self.is_read_only {
            out[at] |= IS_READ_ONLY;
        }
        self.pull_threshold.encode(out);
        self.payload_bytes_max.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let default_ttl_ms = Encoded::decode(from)?;
        let feed_cap = Encoded::decode(from)?;
        let horizon_ms = Encoded::decode(from)?;
        let bits = from.byte()?;
        let fan_out = Encoded::decode(&mut Reader::new(&[bits & !IS_READ_ONLY]))?;
        Ok(Self {
            default_ttl_ms,
            feed_cap,
            horizon_ms,
            fan_out,
            pull_threshold: Encoded::decode(from)?,
            payload_bytes_max: Encoded::decode(from)?,
            is_read_only: bits & IS_READ_ONLY != 0,
        })
    }
}

const HAS_AUTHOR: u8 = 1;
const HAS_REFERENCE: u8 = 2;
const HAS_VERSION: u8 = 4;
const HAS_EXPIRY: u8 = 8;
const FOR_FOLLOWERS: u8 = 16;
const IS_PRIVATE: u8 = 32;

/// A delivery is the record that travels once per partition, so what is usual takes no room in it.
impl Encoded for Delivery {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(self.author != self.owner, HAS_AUTHOR)
                | flag(self.referenced_owner.is_some(), HAS_REFERENCE)
                | flag(self.version != 1, HAS_VERSION)
                | flag(self.expiry.is_some(), HAS_EXPIRY)
                | flag(self.audience == Audience::Followers, FOR_FOLLOWERS)
                | flag(self.audience == Audience::Private, IS_PRIVATE),
        );
        self.id.encode(out);
        self.owner.encode(out);
        if self.author != self.owner {
            self.author.encode(out);
        }
        if let Some(owner) = self.referenced_owner {
            owner.encode(out);
        }
        if self.version != 1 {
            self.version.encode(out);
        }
        if let Some(expiry) = self.expiry {
            expiry.encode(out);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let flags = from.byte()?;
        let audience = match flags & (FOR_FOLLOWERS | IS_PRIVATE) {
            0 => Audience::Public,
            FOR_FOLLOWERS => Audience::Followers,
            IS_PRIVATE => Audience::Private,
            _ => return Err(from.malformed("delivery flags")),
        };
        if flags > 63 {
            return Err(from.malformed("delivery flags"));
        }
        let id = EntryId::decode(from)?;
        let owner = UserId::decode(from)?;
        let author = if flags & HAS_AUTHOR != 0 { UserId::decode(from)? } else { owner };
        let referenced_owner = (flags & HAS_REFERENCE != 0).then(|| UserId::decode(from)).transpose()?;
        let version = if flags & HAS_VERSION != 0 { from.u32()? } else { 1 };
        let expiry = (flags & HAS_EXPIRY != 0).then(|| Stamp::decode(from)).transpose()?;
        Ok(Self { id, owner, author, audience, referenced_owner, version, expiry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_return(value: u64) {
            let mut out = Vec::new();
            put_u64(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.u64().unwrap(), value);
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Vec::<Delivery>::decode(&mut Reader::new(&bytes));
            let _ = crate::command::Command::decode(&mut Reader::new(&bytes));
            let _ = crate::space::SpaceDefinition::decode(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn a_plain_delivery_is_small() {
        let id = EntryId::from_tick(EntryId::first_tick_at(Stamp(848_000_000_000)), crate::ids::SlotIndex(7));
        let owner = UserId(1_000_000);
        let delivery = Delivery {
            id,
            owner,
            author: owner,
            audience: Audience::Public,
            referenced_owner: None,
            version: 1,
            expiry: None,
        };
        let mut out = Vec::new();
        delivery.encode(&mut out);
        assert!(out.len() <= 14, "{}", out.len());
    }
}
