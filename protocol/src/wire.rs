//! Owns the primitives that bodies are made of: varints, fixed ids, byte strings, id lists, and their reader.
//!
//! Invariants:
//! - A number has exactly one encoding: longer ones than needed are refused.
//! - A count is checked against the bytes that are left, and against its limit, before anything is allocated.
//!
//! Format: `PROTOCOL.md`, "Primitives".

use bytes::Bytes;

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, UserId};

/// Bits of a number whose encoding fits a word.
const WORD_BITS: u32 = 56;

/// The bit of each byte of a word that says that another byte follows.
const MORE: u64 = 0x8080_8080_8080_8080;

/// Gives each byte of a word seven of [`WORD_BITS`] bits, the lowest first.
#[inline]
fn spread(bits: u64) -> u64 {
    let halves = bits & 0x0FFF_FFFF | (bits & 0xFF_FFFF_F000_0000) << 4;
    let quarters = halves & 0x3FFF_0000_3FFF | (halves & 0x0FFF_C000_0FFF_C000) << 2;
    quarters & 0x7F_007F_007F_007F | (quarters & 0x3F80_3F80_3F80_3F80) << 1
}

/// The encoding of a number that fits a word, and its bytes; without a branch a byte, which would be guessed wrong: how long
/// numbers are differs from one to the next.
#[inline]
fn word_of(number: u64) -> Option<(u64, usize)> {
    if number >= 1 << WORD_BITS {
        return None;
    }
    let bytes = (number | 1).ilog2() as usize / 7 + 1;
    let more = MORE & ((1 << (8 * (bytes - 1))) - 1);
    Some((spread(number) | more, bytes))
}

/// Takes back what [`spread`] did.
#[inline]
fn gather(spread: u64) -> u64 {
    let quarters = spread & 0x7F_007F_007F_007F | (spread & 0x7F00_7F00_7F00_7F00) >> 1;
    let halves = quarters & 0x3FFF_0000_3FFF | (quarters & 0x3FFF_0000_3FFF_0000) >> 2;
    halves & 0x0FFF_FFFF | (halves & 0x0FFF_FFFF_0000_0000) >> 4
}

/// Writes a body.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// Writes into memory that is there already; what it holds is forgotten.
    pub(crate) fn with_memory(mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self { buffer: memory }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.buffer.into()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Keeps so many bytes.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.buffer.truncate(bytes);
    }

    /// Takes out everything from `at` on.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        self.buffer.split_off(at)
    }

    /// Moves everything to the end of `out`; if that is empty, the two change memory.
    pub(crate) fn move_into(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.buffer);
        } else {
            out.append(&mut self.buffer);
        }
    }

    /// Empties it; its memory is kept.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Bytes as they are, without their length.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The CRC32 of everything since `from`.
    pub(crate) fn checksum(&mut self, from: usize) {
        let checksum = crc32fast::hash(&self.buffer[from..]);
        self.buffer.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Puts another byte where one was written.
    pub(crate) fn replace_byte(&mut self, at: usize, value: u8) {
        self.buffer[at] = value;
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.buffer.push(value);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    /// LEB128: seven bits a byte, the lowest first, the top bit set on all but the last.
    #[inline]
    pub(crate) fn number(&mut self, value: impl Into<u64>) {
        let mut rest: u64 = value.into();
        if rest < 0x80 {
            return self.byte(rest as u8);
        }
        if let Some((word, bytes)) = word_of(rest) {
            return self.start_of(&word.to_le_bytes(), bytes);
        }
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    /// A byte and two numbers, as if one after the other: what nearly every entry of a page is.
    #[inline]
    pub(crate) fn byte_and_numbers(&mut self, byte: u8, first: u64, second: u64) {
        if let (Some((word, bytes)), Some((second_word, second_bytes))) = (word_of(first), word_of(second))
            && bytes + second_bytes < size_of::<u128>()
        {
            let both = u128::from(byte) | u128::from(word) << 8 | u128::from(second_word) << (8 + 8 * bytes);
            self.start_of(&both.to_le_bytes(), 1 + bytes + second_bytes);
        } else {
            self.byte(byte);
            self.number(first);
            self.number(second);
        }
    }

    /// The first bytes of an array: it is copied as a whole, which is no call, and the rest taken back.
    #[inline]
    fn start_of<const N: usize>(&mut self, array: &[u8; N], bytes: usize) {
        let end = self.buffer.len() + bytes;
        self.buffer.extend_from_slice(array);
        self.buffer.truncate(end);
    }

    /// Zigzag, then LEB128: small numbers of either sign are short.
    pub(crate) fn signed(&mut self, value: i64) {
        self.number((value << 1 ^ value >> 63) as u64);
    }

    pub(crate) fn fixed64(&mut self, value: u64) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn fixed128(&mut self, value: u128) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.buffer.extend_from_slice(value);
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(crate) fn count(&mut self, items: usize) {
        self.number(items as u64);
    }

    /// Users: as differences if ascending, else one by one.
    pub(crate) fn users(&mut self, users: &[UserId]) {
        let sorted = users.is_sorted();
        self.list_header(users.len(), sorted);
        let mut previous = 0;
        for user in users {
            self.number(user.0 - if sorted { previous } else { 0 });
            previous = user.0;
        }
    }

    /// Entry ids: as differences if descending, else one by one.
    pub(crate) fn entry_ids(&mut self, ids: &[EntryId]) {
        let sorted = ids.is_sorted_by(|newer, older| newer >= older);
        self.list_header(ids.len(), sorted);
        let mut previous = None;
        for id in ids {
            self.entry_id_after(*id, previous);
            previous = sorted.then_some(*id);
        }
    }

    /// An entry id as the difference to a newer one, or in full.
    pub(crate) fn entry_id_after(&mut self, id: EntryId, newer: Option<EntryId>) {
        match newer {
            Some(newer) => self.number(newer.0 - id.0),
            None => self.fixed64(id.0),
        }
    }

    pub(crate) fn list_header(&mut self, items: usize, sorted: bool) {
        self.number((items as u64) << 1 | u64::from(sorted));
    }
}

/// Reads a body; byte strings it hands out are slices of it, and nothing else shares it.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    body: &'a Bytes,
    /// What is before it was read.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a Bytes) -> Self {
        Self { body, at: 0 }
    }

    #[inline]
    fn rest(&self) -> &[u8] {
        &self.body[self.at..]
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest().len()
    }

    /// Ends the reading; what is left over is an error.
    pub(crate) fn finish(self) -> Result<(), BodyError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(BodyError::TrailingBytes { count }),
        }
    }

    pub(crate) fn take(&mut self, count: usize, field: Field) -> Result<Bytes, BodyError> {
        if count > self.remaining() {
            return Err(BodyError::Truncated { field });
        }
        let from = self.at;
        self.at += count;
        Ok(self.body.slice(from..self.at))
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], BodyError> {
        let bytes = *self.rest().first_chunk().ok_or(BodyError::Truncated { field })?;
        self.at += N;
        Ok(bytes)
    }

    #[inline]
    pub(crate) fn byte(&mut self, field: Field) -> Result<u8, BodyError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn boolean(&mut self, field: Field) -> Result<bool, BodyError> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BodyError::Malformed { field }),
        }
    }

    /// A presence bitmap in which only the bits of `known` may be set.
    pub(crate) fn presence(&mut self, known: u8) -> Result<u8, BodyError> {
        let bits = self.byte(Field::Presence)?;
        if bits & !known == 0 { Ok(bits) } else { Err(BodyError::Malformed { field: Field::Presence }) }
    }

    /// A field whose presence is told by a bit of a bitmap.
    pub(crate) fn optional<T>(
        &mut self,
        present: u8,
        bit: u8,
        decode: impl FnOnce(&mut Self) -> Result<T, BodyError>,
    ) -> Result<Option<T>, BodyError> {
        if present >> bit & 1 == 1 { decode(self).map(Some) } else { Ok(None) }
    }

    #[inline]
    pub(crate) fn number(&mut self, field: Field) -> Result<u64, BodyError> {
        let word = self.rest().first_chunk().map(|word| u64::from_le_bytes(*word));
        let Some((word, ends)) = word.map(|word| (word, !word & MORE)).filter(|(_, ends)| *ends != 0) else {
            return self.number_by_bytes(field);
        };
        // The lowest of the last bytes of numbers: all bits up to its own.
        let bits = word & (ends ^ (ends - 1));
        let length = ends.trailing_zeros() as usize / 8 + 1;
        if length > 1 && bits >> (8 * (length - 1)) == 0 {
            return Err(BodyError::Malformed { field });
        }
        self.at += length;
        Ok(gather(bits & !MORE))
    }

    /// The same for a long number, or one near the end.
    fn number_by_bytes(&mut self, field: Field) -> Result<u64, BodyError> {
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7F);
            let fits = bits << shift >> shift == bits;
            let shortest = shift == 0 || byte != 0;
            if !fits || !shortest {
                return Err(BodyError::Malformed { field });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BodyError::Malformed { field })
    }

    pub(crate) fn number32(&mut self, field: Field) -> Result<u32, BodyError> {
        u32::try_from(self.number(field)?).map_err(|_| BodyError::Malformed { field })
    }

    pub(crate) fn number16(&mut self, field: Field) -> Result<u16, BodyError> {
        u16::try_from(self.number(field)?).map_err(|_| BodyError::Malformed { field })
    }

    pub(crate) fn signed(&mut self, field: Field) -> Result<i64, BodyError> {
        let zigzag = self.number(field)?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    pub(crate) fn fixed64(&mut self, field: Field) -> Result<u64, BodyError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn fixed128(&mut self, field: Field) -> Result<u128, BodyError> {
        self.array(field).map(u128::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, field: Field) -> Result<Bytes, BodyError> {
        let length = self.number(field)?;
        let length = usize::try_from(length).map_err(|_| BodyError::Truncated { field })?;
        self.take(length, field)
    }

    pub(crate) fn string(&mut self, field: Field) -> Result<String, BodyError> {
        let bytes = self.bytes(field)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| BodyError::Malformed { field })
    }

    /// How many items follow, each of at least `item_bytes_min` bytes and at most `limit` of them.
    pub(crate) fn count(
        &mut self,
        field: Field,
        item_bytes_min: usize,
        limit: usize,
    ) -> Result<usize, BodyError> {
        let count = self.number(field)?;
        self.justified(count, field, item_bytes_min, limit)
    }

    /// How many items follow and whether they are sorted.
    pub(crate) fn list_header(
        &mut self,
        field: Field,
        item_bytes_min: usize,
        limit: usize,
    ) -> Result<(usize, bool), BodyError> {
        let header = self.number(field)?;
        let count = self.justified(header >> 1, field, item_bytes_min, limit)?;
        Ok((count, header & 1 == 1))
    }

    /// The items of a list whose count was justified.
    pub(crate) fn items<T>(
        &mut self,
        count: usize,
        mut decode: impl FnMut(&mut Self) -> Result<T, BodyError>,
    ) -> Result<Vec<T>, BodyError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(decode(self)?);
        }
        Ok(items)
    }

    fn justified(
        &self,
        count: u64,
        field: Field,
        item_bytes_min: usize,
        limit: usize,
    ) -> Result<usize, BodyError> {
        if count > limit as u64 {
            return Err(BodyError::TooLarge { field, limit: limit as u64 });
        }
        if count > (self.remaining() / item_bytes_min) as u64 {
            return Err(BodyError::Truncated { field });
        }
        Ok(count as usize)
    }

    pub(crate) fn user(&mut self, field: Field) -> Result<UserId, BodyError> {
        self.number(field).map(UserId)
    }

    pub(crate) fn entry_id(&mut self, field: Field) -> Result<EntryId, BodyError> {
        self.fixed64(field).map(EntryId)
    }

    pub(crate) fn users(&mut self, field: Field, limit: usize) -> Result<Vec<UserId>, BodyError> {
        let (count, sorted) = self.list_header(field, 1, limit)?;
        let mut users = Vec::with_capacity(count);
        let mut previous = 0u64;
        for _ in 0..count {
            let number = self.number(field)?;
            let base = if sorted { previous } else { 0 };
            previous = base.checked_add(number).ok_or(BodyError::Malformed { field })?;
            users.push(UserId(previous));
        }
        Ok(users)
    }

    pub(crate) fn entry_ids(&mut self, field: Field, limit: usize) -> Result<Vec<EntryId>, BodyError> {
        let (count, sorted) = self.list_header(field, 1, limit)?;
        let mut ids = Vec::with_capacity(count);
        let mut previous = None;
        for _ in 0..count {
            let id = self.entry_id_after(previous, field)?;
            previous = sorted.then_some(id);
            ids.push(id);
        }
        Ok(ids)
    }

    pub(crate) fn entry_id_after(
        &mut self,
        newer: Option<EntryId>,
        field: Field,
    ) -> Result<EntryId, BodyError> {
        let Some(newer) = newer else {
            return self.entry_id(field);
        };
        let difference = self.number(field)?;
        newer.0.checked_sub(difference).map(EntryId).ok_or(BodyError::Malformed { field })
    }
}

/// One bit per optional field, the first field at the lowest bit.
pub(crate) fn bitmap<const N: usize>(present: [bool; N]) -> u8 {
    const { assert!(N <= 8) };
    present.iter().enumerate().fold(0, |bits, (bit, present)| bits | u8::from(*present) << bit)
}

#[cfg(test)]
mod tests;
