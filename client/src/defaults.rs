//! Owns the client's own defaults and limits; the table in the crate's documentation lists them all.

use std::time::Duration;

/// How long a call may take, connecting and retrying included, if neither builder nor call says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long one attempt to connect and shake hands may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The wait before a second attempt; it doubles with each further one.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);

/// The longest wait between two attempts.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// Entries on a page of a feed or timeline, and users on a page of followees or followers.
pub const PAGE_LIMIT: u32 = 50;

/// Requests waiting for one connection's writer; further calls wait for room, within their deadline.
pub const QUEUE_REQUESTS_MAX: usize = 1_024;

/// Bytes of a request that still shares a frame with others.
pub const BATCH_ITEM_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the bodies gathered into one batch frame.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Sequences between the lowest unanswered and the next one of a session; beyond, a new session is opened. Below the
/// 4,096 results that a partition keeps per session.
pub const SESSION_WINDOW: u64 = 4_000;

/// Writes under way at once with one partition; further ones wait, within their deadline.
pub const WRITES_PER_PARTITION_MAX: usize = 2_048;

/// Entries that `append_many` puts into one write.
pub const APPEND_ITEMS_MAX: usize = 1_024;

/// Bytes of payload that `append_many` puts into one write.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// Entry ids in one request.
pub const ENTRY_IDS_MAX: usize = 1_000;

/// Readers in one request of `feeds`.
pub const READERS_MAX: usize = 1_024;

/// Entries that one request of `feeds` may ask for in total, so that the answer fits its frame.
pub const FEEDS_ENTRIES_MAX: usize = 4_000;

/// How long a server may stay silent while answers are outstanding; it is pinged at half that time.
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation's table, as rows of (what, value).
    fn table() -> Vec<(&'static str, &'static str)> {
        let cells = |row: &'static str| -> Option<(&'static str, &'static str)> {
            let mut cells = row.split('|').map(str::trim).skip(1);
            Some((cells.next()?, cells.next()?))
        };
        include_str!("docs/defaults.md").lines().filter_map(cells).collect()
    }

    #[test]
    fn documented_values_are_the_real_ones() {
        let kib = |bytes: usize| format!("{} KiB", bytes / 1_024);
        let limits = fanfold_protocol::Limits::default();
        let expected = [
            ("deadline of a call", format!("{} s", DEADLINE.as_secs())),
            ("one attempt to connect", format!("{} s", CONNECT_TIMEOUT.as_secs())),
            (
                "wait between attempts",
                format!("{} ms, doubling to {} s", RETRY_DELAY_MIN.as_millis(), RETRY_DELAY_MAX.as_secs()),
            ),
            ("silence after which", format!("{} s", KEEPALIVE_MAX.as_secs())),
            ("entries or users on a page", format!("{PAGE_LIMIT}, at most {}", limits.page_entries_max)),
            ("requests in flight", limits.pipelined_max.to_string()),
            ("requests queued", QUEUE_REQUESTS_MAX.to_string()),
            ("writes under way", WRITES_PER_PARTITION_MAX.to_string()),
            (
                "requests gathered",
                format!("those up to {} each, {} together", kib(BATCH_ITEM_BYTES_MAX), kib(BATCH_BYTES_MAX)),
            ),
            (
                "one write of `append_many`",
                format!("{APPEND_ITEMS_MAX} entries or {} MiB", APPEND_BYTES_MAX / (1024 * 1024)),
            ),
            ("one frame", format!("{} MiB", limits.frame_bytes_max / (1024 * 1024))),
            ("payload of an entry", kib(limits.payload_bytes_max as usize)),
            ("results kept per session", format!("4096; after {SESSION_WINDOW}")),
        ];
        let table = table();
        for (what, value) in expected {
            let row = table.iter().find(|(name, _)| name.starts_with(what));
            assert!(
                row.is_some_and(|(_, shown)| shown.starts_with(&value)),
                "{what} is {value}, not {row:?}"
            );
        }
    }
}
