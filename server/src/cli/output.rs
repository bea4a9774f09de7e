//! Owns the shape of results on stdout: a table for people or JSON for programs.
//!
//! - 64-bit ids are strings in JSON, because many readers of JSON round large numbers.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use fanfold_protocol::{EntryId, Stamp};
use serde_json::Value;

use super::error::CliError;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

impl Output {
    /// Shows a result in the chosen shape.
    pub(super) fn show(
        self,
        json: impl FnOnce() -> Value,
        table: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self {
            Self::Table => line(&table()),
            Self::Json => line(&json().to_string()),
        }
    }
}

impl Output {
    /// One of many results, on a line of its own: for people the values in the order in which the item names them, behind
    /// `what` it is.
    pub(super) fn item(self, item: &Value) -> String {
        if self == Self::Json {
            return item.to_string();
        }
        let what = item["what"].as_str().into_iter().map(str::to_owned);
        let fields = item.as_object().into_iter().flatten();
        let fields = fields.filter(|(key, value)| *key != "what" && !value.is_null());
        let words = fields.map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        });
        what.chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Writes one line, or a block of lines, to stdout.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())
        .and_then(|()| out.flush())
        .map_err(|source| CliError::Process { doing: "writing to stdout", source })
}

/// A table with these column heads, without borders, so that it can be read and cut.
pub(super) fn table<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heads);
    table
}

/// The text of a table; its cells are padded, and nothing else is.
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// An id for JSON.
pub(super) fn id(value: impl std::fmt::Display) -> Value {
    Value::String(value.to_string())
}

/// A time for people and programs: RFC 3339, UTC, with milliseconds.
pub(super) fn time(stamp: Stamp) -> String {
    let since = std::time::Duration::from_millis(stamp.to_unix_ms());
    std::time::UNIX_EPOCH
        .checked_add(since)
        .filter(|_| stamp.0 < YEAR_9999_MS)
        .map_or_else(|| format!("after 9999 ({stamp})"), |t| humantime::format_rfc3339_millis(t).to_string())
}

/// The year 9999 in milliseconds since 2000; later times have no RFC 3339 form.
const YEAR_9999_MS: u64 = 252_400_000_000_000;

/// When an entry was made.
pub(super) fn made(entry: EntryId) -> String {
    time(entry.time())
}

/// A duration in milliseconds for people.
pub(super) fn duration(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stamp_has_a_text() {
        assert_eq!(time(Stamp(0)), "2000-01-01T00:00:00.000Z");
        assert_eq!(time(Stamp(848_000_000_123)), "2026-11-14T19:33:20.123Z");
        assert!(time(Stamp(u64::MAX)).starts_with("after 9999"));
        assert!(
            time(Stamp(YEAR_9999_MS - 1)).starts_with("9998")
                || time(Stamp(YEAR_9999_MS - 1)).starts_with("9997")
        );
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
