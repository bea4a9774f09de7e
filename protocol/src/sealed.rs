//! Owns the envelope of sealed strings: tokens, cursors and marks, which applications keep but do not read.
//!
//! Invariant: a string that was cut, changed, or made for something else is refused.
//!
//! Format: `PROTOCOL.md`, "Sealed strings".

use bytes::Bytes;

use crate::error::BodyError;
use crate::wire::{Reader, Writer};

/// Most bytes of a sealed string.
pub const SEALED_BYTES_MAX: usize = 64;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// What a sealed string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Token = 1,
    Cursor = 2,
    Mark = 3,
}

/// Why bytes are not the sealed string they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// They are too short, too long, or do not match their checksum.
    #[error("the bytes are damaged or were cut; use them exactly as they were handed out")]
    Damaged,
    /// They are something else, such as a cursor in place of a token.
    #[error(
        "the bytes are intact and of another kind; use a token, cursor or mark only as what it was handed out"
    )]
    WrongKind,
    /// They were made by a newer version.
    #[error("the bytes have version {version}, newer than this program knows; update it")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
}

pub(crate) fn seal(kind: Kind, content: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::default();
    put(&mut w, kind, content);
    w.into_bytes()
}

/// Writes a sealed string with its length before it.
pub(crate) fn put_with_length(w: &mut Writer, kind: Kind, content: impl FnOnce(&mut Writer)) {
    let at = w.len();
    w.byte(0);
    let length = put(w, kind, content);
    // The limit makes it a number of one byte.
    w.replace_byte(at, length as u8);
}

/// What was written last, so that the same again is a copy.
#[derive(Debug)]
pub(crate) struct Last<T> {
    value: Option<T>,
    bytes: Vec<u8>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self { value: None, bytes: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Last<T> {
    /// Writes a value as `encode` does.
    pub(crate) fn put(&mut self, value: &T, w: &mut Writer, encode: impl FnOnce(&T, &mut Writer)) {
        if self.value.as_ref() == Some(value) {
            return w.append(&self.bytes);
        }
        let from = w.len();
        encode(value, w);
        self.bytes.clear();
        self.bytes.extend_from_slice(&w.as_slice()[from..]);
        self.value = Some(*value);
    }
}

fn put(w: &mut Writer, kind: Kind, content: impl FnOnce(&mut Writer)) -> usize {
    let from = w.len();
    w.byte(kind as u8);
    w.byte(VERSION);
    content(w);
    w.checksum(from);
    let length = w.len() - from;
    assert!(length <= SEALED_BYTES_MAX, "every kind fits the limit with the longest varints");
    length
}

pub(crate) fn open<T>(
    kind: Kind,
    bytes: &[u8],
    content: impl FnOnce(&mut Reader) -> Result<T, BodyError>,
) -> Result<T, SealedError> {
    if bytes.len() > SEALED_BYTES_MAX {
        return Err(SealedError::Damaged);
    }
    let (sealed, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(SealedError::Damaged)?;
    if crc32fast::hash(sealed) != u32::from_le_bytes(*checksum) {
        return Err(SealedError::Damaged);
    }
    let [found, version, rest @ ..] = sealed else {
        return Err(SealedError::Damaged);
    };
    if *found != kind as u8 {
        return Err(SealedError::WrongKind);
    }
    if *version != VERSION {
        return Err(SealedError::UnknownVersion { version: *version });
    }
    let body = Bytes::copy_from_slice(rest);
    let mut r = Reader::new(&body);
    let value = content(&mut r).map_err(|_| SealedError::Damaged)?;
    r.finish().map_err(|_| SealedError::Damaged)?;
    Ok(value)
}
