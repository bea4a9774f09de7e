//! Owns lines of columns separated by tabs.
//!
//! - A column that is empty or absent is not given.
//! - In a payload and a key, `\t`, `\n`, `\r` and `\\` stand for what they stand for everywhere; all other bytes for themselves.

use fanfold_client::{EntryId, ImportEdge, UserId};
use fanfold_protocol::message::EntryRef;

use super::parse::{self, BadLine, RawEntry};

/// Splits a line into at most `N` columns, of which the first `min` are there.
fn columns<const N: usize>(line: &[u8], min: usize) -> Result<[&[u8]; N], BadLine> {
    let (mut columns, mut got) = ([&[][..]; N], 0);
    for column in line.split(|byte| *byte == b'\t') {
        if let Some(place) = columns.get_mut(got) {
            *place = column;
        }
        got += 1;
    }
    if (min..=N).contains(&got) { Ok(columns) } else { Err(BadLine::Columns { min, max: N, got }) }
}

fn text(column: &[u8]) -> &str {
    // No number, time or name has other bytes.
    std::str::from_utf8(column).unwrap_or("\u{fffd}")
}

fn given(column: &[u8]) -> Option<&str> {
    (!column.is_empty()).then(|| text(column))
}

fn user(column: &[u8], name: &'static str) -> Result<UserId, BadLine> {
    parse::number(text(column), name).map(UserId)
}

/// `reader`, `owner`, `since`.
pub(crate) fn edge(line: &[u8]) -> Result<ImportEdge, BadLine> {
    let [reader, owner, since] = columns(line, 2)?;
    Ok(ImportEdge {
        reader: user(reader, "reader")?,
        owner: user(owner, "owner")?,
        since: given(since).map(|since| parse::time(since, "since")).transpose()?,
    })
}

/// `owner`, `time`, `payload`, `key`, `author`, `audience`, `expires`, `reference`.
pub(crate) fn entry(line: &[u8]) -> Result<RawEntry, BadLine> {
    let [owner, time, payload, key, author, audience, expires, reference] = columns(line, 3)?;
    Ok(RawEntry {
        owner: user(owner, "owner")?,
        time: given(time).map(|time| parse::time(time, "time")).transpose()?,
        payload: unescape(payload)?,
        key: if key.is_empty() { None } else { Some(unescape(key)?) },
        author: given(author).map(|author| parse::number(author, "author").map(UserId)).transpose()?,
        audience: given(audience).map(parse::audience).transpose()?.unwrap_or_default(),
        expiry: given(expires).map(parse::expiry).transpose()?.unwrap_or_default(),
        reference: given(reference).map(refer).transpose()?,
        ..RawEntry::default()
    })
}

fn refer(text: &str) -> Result<EntryRef, BadLine> {
    let (owner, id) = text.split_once(':').ok_or(BadLine::Reference)?;
    let number = |text| parse::number(text, "reference").map_err(|_| BadLine::Reference);
    Ok(EntryRef { owner: UserId(number(owner)?), id: EntryId(number(id)?) })
}

fn unescape(column: &[u8]) -> Result<Vec<u8>, BadLine> {
    let mut out = Vec::with_capacity(column.len());
    let mut rest = column;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(match rest.get(at + 1) {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'\\') => b'\\',
            _ => return Err(BadLine::Escape),
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}
