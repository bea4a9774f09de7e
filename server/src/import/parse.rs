//! Owns the meaning of a line: an edge or an entry, as tab-separated columns or a JSON object.

use std::collections::BTreeMap;

use fanfold_client::{Audience, EntryId, ImportEdge, ImportEntry, ImportExpiry, ImportPlace, SpaceInfo};
use fanfold_protocol::message::{EntryRef, KEY_BYTES_MAX};
use fanfold_protocol::{SpaceId, Stamp, UserId};
use serde::{Deserialize, Serialize};

use super::lines::LINE_BYTES_MAX;
use super::{json, tsv};

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Columns separated by tabs.
    Tsv,
    /// One JSON object a line.
    Json,
}

/// What the lines hold.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Follows,
    Entries {
        /// The space of entries that name none.
        space: String,
        /// None if nobody was asked, in a dry run.
        spaces: Option<KnownSpaces>,
    },
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Edge(ImportEdge),
    Entry(ImportEntry),
}

impl Item {
    /// The user at whose home it belongs.
    pub(crate) fn home(&self) -> UserId {
        match self {
            Self::Edge(edge) => edge.reader,
            Self::Entry(entry) => entry.owner,
        }
    }

    /// About the bytes it takes in a write.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Edge(_) => 16,
            Self::Entry(entry) => 48 + entry.payload.len(),
        }
    }
}

/// Why a line says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("{got} columns, not {min} to {max}")]
    Columns { min: usize, max: usize, got: usize },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not a number from 0 to 18446744073709551615")]
    Number(&'static str),
    #[error("{0} is neither milliseconds since 1970 nor a time like 2024-05-01T12:00:00Z, from 2000 on")]
    Time(&'static str),
    #[error("audience is none of public, followers, private")]
    Audience,
    #[error("reference is not OWNER:ENTRY")]
    Reference,
    #[error("a backslash is followed by none of t, n, r and a backslash")]
    Escape,
    #[error("the key has {0} bytes, not 1 to {KEY_BYTES_MAX}")]
    Key(usize),
    #[error("the payload is longer than the {0} bytes that the space allows")]
    Payload(u32),
    #[error("there is no space {0}")]
    Space(String),
    #[error("{0} is given twice, as text and in base64")]
    Twice(&'static str),
    #[error("{0} is not base64")]
    Base64(&'static str),
    #[error("not a JSON object of the fields known: {0}")]
    Json(String),
    #[error("the id {0} is none that an entry of this owner can have")]
    Id(u64),
    #[error("{0} is later than now")]
    Ahead(&'static str),
    #[error("it has expired")]
    Expired,
    #[error("expires is more than 100 years ahead")]
    Late,
    #[error("the space {0} takes no entries")]
    ReadOnly(String),
}

/// Spaces by name, as they were when an import was begun: what is cut into writes may not depend on later changes.
pub(crate) type KnownSpaces = BTreeMap<String, KnownSpace>;

/// What an import has to know of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownSpace {
    pub(super) id: u16,
    pub(super) payload_bytes_max: u32,
}

impl From<&SpaceInfo> for KnownSpace {
    fn from(space: &SpaceInfo) -> Self {
        Self { id: space.id.0, payload_bytes_max: space.policy.payload_bytes_max }
    }
}

/// What a line says of an entry, before it is known where it belongs.
#[derive(Debug, Default)]
pub(crate) struct RawEntry {
    pub(crate) space: Option<String>,
    pub(crate) owner: UserId,
    pub(crate) time: Option<Stamp>,
    pub(crate) id: Option<EntryId>,
    pub(crate) author: Option<UserId>,
    pub(crate) audience: Audience,
    pub(crate) expiry: ImportExpiry,
    pub(crate) version: Option<u32>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) reference: Option<EntryRef>,
    pub(crate) payload: Vec<u8>,
}

impl Kind {
    /// What a line says.
    pub(crate) fn parse(&self, format: Format, line: &[u8]) -> Result<Item, BadLine> {
        match (self, format) {
            (Self::Follows, Format::Tsv) => tsv::edge(line).map(Item::Edge),
            (Self::Follows, Format::Json) => json::edge(line).map(Item::Edge),
            (Self::Entries { .. }, Format::Tsv) => self.entry(tsv::entry(line)?),
            (Self::Entries { .. }, Format::Json) => self.entry(json::entry(line)?),
        }
    }

    fn entry(&self, raw: RawEntry) -> Result<Item, BadLine> {
        let Self::Entries { space, spaces } = self else { return Err(BadLine::Missing("space")) };
        let name = raw.space.as_deref().unwrap_or(space);
        let mut id = SpaceId(0);
        if let Some(spaces) = spaces {
            let space = spaces.get(name).ok_or_else(|| BadLine::Space(name.to_owned()))?;
            if raw.payload.len() > space.payload_bytes_max as usize {
                return Err(BadLine::Payload(space.payload_bytes_max));
            }
            id = SpaceId(space.id);
        }
        if let Some(key) = raw.key.as_ref().filter(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(BadLine::Key(key.len()));
        }
        let place = match (raw.id, raw.time) {
            (Some(id), _) => ImportPlace::Id(id),
            (None, Some(time)) => ImportPlace::Time(time),
            (None, None) => return Err(BadLine::Missing("time")),
        };
        Ok(Item::Entry(ImportEntry {
            space: id,
            owner: raw.owner,
            place,
            author: raw.author,
            audience: raw.audience,
            expiry: raw.expiry,
            version: raw.version.unwrap_or(1),
            key: raw.key.map(Into::into),
            reference: raw.reference,
            payload: raw.payload.into(),
        }))
    }
}

/// A time: milliseconds since 1970, or as in RFC 3339.
pub(crate) fn time(text: &str, name: &'static str) -> Result<Stamp, BadLine> {
    let unix_ms = match text.parse::<u64>() {
        Ok(unix_ms) => Some(unix_ms),
        Err(_) => humantime::parse_rfc3339_weak(text)
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok()),
    };
    unix_ms.and_then(Stamp::from_unix_ms).ok_or(BadLine::Time(name))
}

/// An expiry: a time, or `never`.
pub(crate) fn expiry(text: &str) -> Result<ImportExpiry, BadLine> {
    if text == "never" { Ok(ImportExpiry::Never) } else { time(text, "expires").map(ImportExpiry::At) }
}

pub(crate) fn audience(text: &str) -> Result<Audience, BadLine> {
    match text {
        "public" => Ok(Audience::Public),
        "followers" => Ok(Audience::Followers),
        "private" => Ok(Audience::Private),
        _ => Err(BadLine::Audience),
    }
}

pub(crate) fn number(text: &str, name: &'static str) -> Result<u64, BadLine> {
    // `parse` takes a sign too.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(BadLine::Number(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TIME: u64 = 1_714_564_800_000;

    fn entries() -> Kind {
        Kind::Entries { space: "posts".to_owned(), spaces: None }
    }

    fn edge(format: Format, line: &str) -> Result<ImportEdge, BadLine> {
        Kind::Follows.parse(format, line.as_bytes()).map(|item| match item {
            Item::Edge(edge) => edge,
            Item::Entry(_) => panic!("an edge was asked for"),
        })
    }

    fn entry(format: Format, line: &[u8]) -> Result<ImportEntry, BadLine> {
        entries().parse(format, line).map(|item| match item {
            Item::Entry(entry) => entry,
            Item::Edge(_) => panic!("an entry was asked for"),
        })
    }

    #[test]
    fn edges_are_the_same_in_every_form() {
        let (reader, owner) = (UserId(u64::MAX), UserId(2));
        let edge_at = ImportEdge { reader, owner, since: Stamp::from_unix_ms(TIME) };
        let max = u64::MAX;
        assert_eq!(edge(Format::Tsv, &format!("{max}\t2\t{TIME}")), Ok(edge_at));
        assert_eq!(edge(Format::Tsv, &format!("{max}\t2\t2024-05-01T12:00:00Z")), Ok(edge_at));
        assert_eq!(edge(Format::Tsv, &format!("{max}\t2")), Ok(ImportEdge { since: None, ..edge_at }));
        let json = format!(r#"{{"reader":"{max}","owner":2,"since":{TIME}}}"#);
        assert_eq!(edge(Format::Json, &json), Ok(edge_at));
    }

    #[test]
    fn bad_edges_say_why() {
        for (line, why) in [
            ("1", BadLine::Columns { min: 2, max: 3, got: 1 }),
            ("1\t2\t3\t4", BadLine::Columns { min: 2, max: 3, got: 4 }),
            ("-1\t2", BadLine::Number("reader")),
            ("+1\t2", BadLine::Number("reader")),
            ("1\t18446744073709551616", BadLine::Number("owner")),
            ("1\t\u{fffd}", BadLine::Number("owner")),
            ("1\t2\tsoon", BadLine::Time("since")),
            // Before 2000.
            ("1\t2\t5", BadLine::Time("since")),
        ] {
            assert_eq!(edge(Format::Tsv, line), Err(why), "{line}");
        }
        for line in ["{}", "[1,2]", r#"{"reader":1,"owner":-2}"#, r#"{"reader":1,"owner":2,"x":3}"#, "{"] {
            assert!(matches!(edge(Format::Json, line), Err(BadLine::Json(_))), "{line}");
        }
    }

    #[test]
    fn an_entry_has_all_that_its_line_says() {
        let tsv = format!("2\t{TIME}\ta\\tb\\n\\\\\tkey\t3\tfollowers\tnever\t4:5");
        let found = entry(Format::Tsv, tsv.as_bytes()).unwrap();
        let json = format!(
            r#"{{"owner":2,"time":{TIME},"payload":"a\tb\n\\","key":"key","author":"3","audience":"followers",
                "expires":"never","reference":{{"owner":4,"id":"5"}}}}"#
        );
        assert_eq!(entry(Format::Json, json.as_bytes()), Ok(found.clone()));
        assert_eq!(&found.payload[..], b"a\tb\n\\");
        assert_eq!(found.place, ImportPlace::Time(Stamp::from_unix_ms(TIME).unwrap()));
        assert_eq!((found.author, found.expiry), (Some(UserId(3)), ImportExpiry::Never));
        let kept =
            entry(Format::Json, br#"{"owner":2,"id":"7","payload_base64":"/w==","version":3}"#).unwrap();
        assert_eq!((kept.place, kept.version), (ImportPlace::Id(EntryId(7)), 3));
        assert_eq!(&kept.payload[..], b"\xff");
    }

    #[test]
    fn bad_entries_say_why() {
        let key = "k".repeat(65);
        for (line, why) in [
            ("2\t9\tx".to_owned(), BadLine::Time("time")),
            ("2\t\tx".to_owned(), BadLine::Missing("time")),
            (format!("2\t{TIME}\tx\\q"), BadLine::Escape),
            (format!("2\t{TIME}\tx\\"), BadLine::Escape),
            (format!("2\t{TIME}\tx\t{key}"), BadLine::Key(65)),
            (format!("2\t{TIME}\tx\t\t\tall"), BadLine::Audience),
            (format!("2\t{TIME}\tx\t\t\t\t\t5"), BadLine::Reference),
        ] {
            assert_eq!(entry(Format::Tsv, line.as_bytes()), Err(why), "{line}");
        }
        // Bytes that are no text are a payload, but no JSON.
        assert_eq!(
            &entry(Format::Tsv, &[b"2\t1714564800000\t", &[0xff][..]].concat()).unwrap().payload[..],
            [0xff]
        );
        assert!(matches!(entry(Format::Json, b"{\"owner\":2,\"payload\":\"\xff\"}"), Err(BadLine::Json(_))));
        let twice = br#"{"owner":2,"time":1714564800000,"payload":"x","payload_base64":""}"#;
        assert_eq!(entry(Format::Json, twice), Err(BadLine::Twice("payload")));
        let spaces = Kind::Entries { space: "posts".to_owned(), spaces: Some(BTreeMap::new()) };
        let line = format!("2\t{TIME}\tx");
        assert_eq!(spaces.parse(Format::Tsv, line.as_bytes()), Err(BadLine::Space("posts".to_owned())));
    }
}
