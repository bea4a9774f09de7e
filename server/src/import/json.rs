//! Owns lines that are JSON objects, as they are read by an import and written by an export.
//!
//! - 64-bit numbers may be strings, and are written so, because many programs round large numbers.
//! - Bytes that are no text are written in base64, in a field of their own, and so is text with many control characters: these
//!   take six bytes each, and a line has a limit.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfold_client::{EntryId, ImportEdge, ImportExpiry, UserId};
use fanfold_protocol::message::EntryRef;
use serde::{Deserialize, Deserializer, Serialize};

use super::parse::{self, BadLine, RawEntry};

/// A number or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar(pub(crate) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl Serialize for Scalar {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeLine {
    reader: Scalar,
    owner: Scalar,
    since: Option<Scalar>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferenceLine {
    pub(crate) owner: Scalar,
    pub(crate) id: Scalar,
}

/// An entry.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EntryLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) space: Option<String>,
    pub(crate) owner: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audience: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<ReferenceLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
}

fn read<'l, T: Deserialize<'l>>(line: &'l [u8]) -> Result<T, BadLine> {
    serde_json::from_slice(line).map_err(|error| BadLine::Json(error.to_string()))
}

fn user(number: &Scalar, name: &'static str) -> Result<UserId, BadLine> {
    parse::number(&number.0, name).map(UserId)
}

/// `reader`, `owner`, `since`.
pub(crate) fn edge(line: &[u8]) -> Result<ImportEdge, BadLine> {
    let EdgeLine { reader, owner, since } = read(line)?;
    Ok(ImportEdge {
        reader: user(&reader, "reader")?,
        owner: user(&owner, "owner")?,
        since: since.map(|since| parse::time(&since.0, "since")).transpose()?,
    })
}

/// An entry with the fields of [`EntryLine`].
pub(crate) fn entry(line: &[u8]) -> Result<RawEntry, BadLine> {
    let line: EntryLine = read(line)?;
    let owner = line.owner.ok_or(BadLine::Missing("owner"))?;
    let id = |number: &Scalar| parse::number(&number.0, "id").map(EntryId);
    let expiry = line.expires.map(|expires| parse::expiry(&expires.0)).transpose()?;
    Ok(RawEntry {
        space: line.space,
        owner: user(&owner, "owner")?,
        time: line.time.map(|time| parse::time(&time.0, "time")).transpose()?,
        id: line.id.as_ref().map(id).transpose()?,
        author: line.author.map(|author| user(&author, "author")).transpose()?,
        audience: line.audience.as_deref().map(parse::audience).transpose()?.unwrap_or_default(),
        expiry: expiry.unwrap_or(ImportExpiry::SpaceDefault),
        version: line.version,
        key: bytes(line.key, line.key_base64, "key")?,
        reference: line
            .reference
            .map(|r| Ok(EntryRef { owner: user(&r.owner, "reference")?, id: id(&r.id)? }))
            .transpose()?,
        payload: bytes(line.payload, line.payload_base64, "payload")?.ok_or(BadLine::Missing("payload"))?,
    })
}

fn bytes(
    text: Option<String>,
    base64: Option<String>,
    name: &'static str,
) -> Result<Option<Vec<u8>>, BadLine> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(BadLine::Twice(name)),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => BASE64.decode(base64).map(Some).map_err(|_| BadLine::Base64(name)),
        (None, None) => Ok(None),
    }
}

/// Bytes as text, or else in base64.
pub(crate) fn from_bytes(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if escaped_len(bytes) <= 2 * bytes.len() => (Some(text.to_owned()), None),
        _ => (None, Some(BASE64.encode(bytes))),
    }
}

/// The bytes of a text between its quotes.
fn escaped_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::lines::LINE_BYTES_MAX;

    #[test]
    fn the_largest_payload_fits_a_line_whatever_it_is() {
        let large = 1 << 20;
        for byte in [0, b'\n', 0x1f, b'"', b'a', 0xff] {
            let bytes = vec![byte; large];
            let (text, base64) = from_bytes(&bytes);
            let line = serde_json::to_string(&(text, base64)).unwrap();
            assert!(line.len() < LINE_BYTES_MAX - 4_096, "{byte}: {}", line.len());
        }
        let every: Vec<u8> = (0..128).collect();
        let quoted = serde_json::to_string(std::str::from_utf8(&every).unwrap()).unwrap();
        assert_eq!(escaped_len(&every), quoted.len() - 2);
        let usual = b"{\"a\": \"b\"}\n";
        assert_eq!(from_bytes(usual), (Some(String::from_utf8(usual.to_vec()).unwrap()), None));
    }
}
