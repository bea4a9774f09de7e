//! Owns lines that are JSON objects, as they are read by an import and written by an export.
//!
//! - 64-bit numbers may be strings, and are written so, because many programs round large numbers.
//! - Bytes that are no text are written in base64, in a field of their own.

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
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}
