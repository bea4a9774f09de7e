//! The client's table of defaults and limits, held to the code row by row.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfold_client::{Client, FanOut, SpacePolicy, Spaces, UserId};
use fanfold_client::{IMPORT_BYTES_PER_WRITE, IMPORT_EDGES_PER_WRITE, IMPORT_ENTRIES_PER_WRITE};
use fanfold_protocol::Limits as WireLimits;
use fanfold_protocol::message::KEY_BYTES_MAX;
use fanfold_server::TestNode;
use fanfold_server::config::Config;
use fanfold_storage::command::Limits;

/// The client's constants, which are its own affair, read from their one place.
#[allow(dead_code, reason = "some are not in the table: requests are split there, and nobody notices")]
#[path = "../../client/src/defaults.rs"]
mod client;

/// The table, as rows of (what, value).
fn table() -> Vec<(&'static str, &'static str)> {
    let cells = |row: &'static str| -> Option<(&'static str, &'static str)> {
        let mut cells = row.split('|').map(str::trim).skip(1);
        Some((cells.next()?, cells.next()?))
    };
    // The first two rows are the heading and its rule.
    include_str!("../../client/src/docs/defaults.md").lines().filter_map(cells).skip(2).collect()
}

fn seconds(duration: Duration) -> String {
    assert_eq!(duration.subsec_nanos(), 0);
    format!("{} s", duration.as_secs())
}

fn kib(bytes: usize) -> String {
    assert_eq!(bytes % 1_024, 0);
    format!("{} KiB", bytes / 1_024)
}

fn mib(bytes: usize) -> String {
    assert_eq!(bytes % (1 << 20), 0);
    format!("{} MiB", bytes >> 20)
}

fn hours(duration_ms: u64) -> String {
    assert_eq!(duration_ms % 3_600_000, 0);
    format!("{} h", duration_ms / 3_600_000)
}

/// What the client does by itself.
fn of_the_client() -> Vec<(&'static str, String)> {
    vec![
        ("deadline of a call", seconds(client::DEADLINE)),
        ("one attempt to connect", seconds(client::CONNECT_TIMEOUT)),
        (
            "wait between attempts",
            format!(
                "{} ms, doubling to {}, with jitter; what `Busy` asks for",
                client::RETRY_DELAY_MIN.as_millis(),
                seconds(client::RETRY_DELAY_MAX)
            ),
        ),
        (
            "reconnecting to one node",
            format!(
                "{} ms, doubling to {} ms, with jitter",
                client::RETRY_DELAY_MIN.as_millis(),
                client::RECONNECT_DELAY_MAX.as_millis()
            ),
        ),
        ("one node's time to answer", seconds(client::MAP_TIMEOUT)),
        ("time between two fetches", format!("{} ms at least", client::MAP_INTERVAL.as_millis())),
        (
            "time after which a leader",
            format!(
                "{}, then every {} ms",
                seconds(client::LEADER_DOUBT),
                client::LEADER_DOUBT_AGAIN.as_millis()
            ),
        ),
        ("answers that the catalog has no majority", client::CATALOG_ATTEMPTS.to_string()),
        ("time that a node has to answer", seconds(client::SILENT_WAIT)),
        (
            "replicas asked for a read that any may answer",
            format!("{}, each for {}", client::REPLICA_ATTEMPTS, seconds(client::LEADER_DOUBT)),
        ),
        ("time for which a replica that failed", seconds(client::REPLICA_DOUBT)),
        (
            "age at which the list of replicas",
            format!("{}, or with the map's epoch", seconds(client::REPLICAS_AGE_MAX)),
        ),
        ("replicas that are asked first", "any, by the user's slot".to_owned()),
        ("who answers a read", "the leader".to_owned()),
        (
            "time for which a page that lacks something",
            format!("{}, within the deadline", seconds(client::SHORT_PAGE_PATIENCE)),
        ),
        ("silence after which", seconds(client::KEEPALIVE_MAX)),
        ("payloads on pages", "left out".to_owned()),
        ("requests queued", client::QUEUE_REQUESTS_MAX.to_string()),
        ("writes under way", client::WRITES_PER_PARTITION_MAX.to_string()),
        (
            "requests gathered",
            format!(
                "those up to {} each, {} together",
                kib(client::BATCH_ITEM_BYTES_MAX),
                kib(client::BATCH_BYTES_MAX)
            ),
        ),
        (
            "one write of `append_many`",
            format!("{} entries or {} of payload", client::APPEND_ITEMS_MAX, mib(client::APPEND_BYTES_MAX)),
        ),
        (
            "one write of an import",
            format!(
                "{IMPORT_EDGES_PER_WRITE} edges, {IMPORT_ENTRIES_PER_WRITE} entries or {} of payload",
                kib(IMPORT_BYTES_PER_WRITE)
            ),
        ),
    ]
}

/// What a server does that nobody configured.
fn of_the_server() -> Vec<(&'static str, String)> {
    let (config, wire, limits) = (Config::default(), WireLimits::default(), Limits::default());
    assert_eq!(limits.followees_max, limits.mutes_max, "one row says both");
    vec![
        ("entries or users on a page", format!("{}, at most {}", client::PAGE_LIMIT, wire.page_entries_max)),
        ("requests in flight", config.connection_requests_max.to_string()),
        ("one frame", mib(config.frame_bytes_max as usize)),
        ("session life", hours(limits.session_life_ms)),
        ("sessions open", limits.sessions_max.to_string()),
        ("results kept per session", limits.session_requests_max.to_string()),
        ("application key", format!("{KEY_BYTES_MAX} bytes at most")),
        ("key window", hours(limits.key_window_ms)),
        ("owners a reader follows", format!("{} each", limits.followees_max)),
    ]
}

/// What the spaces of a new node say.
fn of_spaces(posts: &SpacePolicy, stories: &SpacePolicy) -> Vec<(&'static str, String)> {
    let or_none = |duration_ms: Option<u64>| duration_ms.map_or("none".to_owned(), hours);
    assert_eq!(posts.fan_out, FanOut::Auto);
    vec![
        ("payload of an entry", kib(posts.payload_bytes_max as usize)),
        ("TTL of an entry in `posts`", or_none(posts.default_ttl_ms)),
        ("TTL of an entry in `stories`", or_none(stories.default_ttl_ms)),
        ("cap", posts.feed_cap.to_string()),
        ("horizon", or_none(posts.horizon_ms)),
        ("threshold", posts.pull_threshold.to_string()),
        ("audience, author", "everybody, its owner".to_owned()),
    ]
}

#[tokio::test]
async fn every_documented_default_is_the_real_one() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    let posts = client.spaces().show("posts").await.unwrap().policy;
    let stories = client.spaces().show("stories").await.unwrap().policy;
    assert_eq!(posts, Spaces::default_policy());
    assert_eq!(SpacePolicy { default_ttl_ms: None, ..stories.clone() }, posts, "only the TTL differs");

    let mut expected = of_the_client();
    expected.extend(of_the_server());
    expected.extend(of_spaces(&posts, &stories));
    let table = table();
    for (what, value) in &table {
        let known: Vec<_> = expected.iter().filter(|(name, _)| what.starts_with(name)).collect();
        assert_eq!(known.len(), 1, "{what}");
        assert_eq!(*value, known[0].1, "{what}");
    }
    assert_eq!(table.len(), expected.len());
    let window = format!("after {} open numbers", client::SESSION_WINDOW);
    assert!(table.iter().any(|(what, _)| what.starts_with("results kept") && what.ends_with(&window)));

    // And what an entry is that says nothing of itself.
    let entry = client.space("posts").append(UserId(1), "plain").await.unwrap();
    let page = client.space("posts").timeline(UserId(1)).await.unwrap();
    let view = &page.entries[0];
    assert_eq!((view.id, view.author, view.expiry), (entry.id, UserId(1), None));
    assert_eq!((view.audience, &view.payload), (fanfold_client::Audience::Public, &None));
    node.stop().await.unwrap();
}

/// The payload limit that a space may be given, as the table says in its last column.
#[tokio::test]
async fn a_payload_may_be_allowed_up_to_a_mebibyte() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    let policy = |payload_bytes_max| SpacePolicy { payload_bytes_max, ..Spaces::default_policy() };
    assert!(client.spaces().create("too-large", policy((1 << 20) + 1)).await.is_err());
    client.spaces().create("large", policy(1 << 20)).await.unwrap();
    let large = client.space("large");
    large.append(UserId(1), vec![7; 1 << 20]).await.unwrap();
    assert!(large.append(UserId(1), vec![7; (1 << 20) + 1]).await.is_err());
    assert!(
        include_str!("../../client/src/docs/defaults.md")
            .contains("`SpacePolicy::payload_bytes_max`, up to 1 MiB")
    );
}
