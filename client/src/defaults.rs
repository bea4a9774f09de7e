//! Owns the client's own defaults and limits; the table in the crate's documentation lists them all.

use std::time::Duration;

/// How long a call may take, connecting and retrying included, if neither builder nor call says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long one attempt to connect and shake hands may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The wait before a second attempt; it doubles with each further one.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);

/// The longest wait between two attempts.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// The longest wait between two attempts to connect to one node.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(200);

/// How long one node has to answer with the map before another one is asked.
pub const MAP_TIMEOUT: Duration = Duration::from_secs(1);

/// The shortest time between two fetches of the map, however many calls find it old.
pub const MAP_INTERVAL: Duration = Duration::from_millis(25);

/// How long a partition's leader may keep a call waiting before the client asks others whether it still leads.
pub const LEADER_DOUBT: Duration = Duration::from_secs(1);

/// How often it asks them from then on.
pub const LEADER_DOUBT_AGAIN: Duration = Duration::from_millis(200);
/// Answers that the catalog has no majority, after which a change that needs it is given up.
pub const CATALOG_ATTEMPTS: usize = 3;

/// How long each node has to answer a question to all, if the others have not heard of it lately.
pub const SILENT_WAIT: Duration = Duration::from_secs(1);

/// Replicas that are asked for a read that any may answer, one after the other, before the leader is.
pub const REPLICA_ATTEMPTS: usize = 2;

/// How long a replica that did not answer such a read is asked last.
pub const REPLICA_DOUBT: Duration = Duration::from_secs(2);

/// The age at which the list of replicas is fetched anew, even if nothing shows that it is old.
pub const REPLICAS_AGE_MAX: Duration = Duration::from_secs(30);

/// How long pages that lack something of an unreachable partition are read again, from when it was first missed.
pub const SHORT_PAGE_PATIENCE: Duration = Duration::from_secs(3);

/// The longest wait before such a page is read again.
pub const SHORT_PAGE_DELAY_MAX: Duration = Duration::from_millis(200);

/// How long after it was last missed a partition counts as still missed.
pub const SHORT_PAGE_MEMORY: Duration = Duration::from_secs(5);

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
