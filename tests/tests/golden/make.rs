//! Owns the writing of the directory: everything that a data directory can hold, in little.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::clock::ManualClock;
use fanfold_cluster::{Node, NodeOptions, Receipt};
use fanfold_storage::command::{Append, AppendResult, Ttl, Write, WriteResult, WriteTag};
use fanfold_storage::entry::{Audience, EntryRef};
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, Sequence, SessionId, Stamp, UserId};
use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};
use fanfold_storage::space::SpacePolicy;

use crate::{PARTITIONS, POSTS, STORIES, WRITTEN_UNIX_MS, open, user};

const FOLLOWS: GraphId = GraphId(1);

/// The first session of every partition, under which the directory is written.
const SESSION: SessionId = SessionId(1);

/// The sequence of the requests that are repeated.
const REPEATED: Sequence = Sequence(1_000_000);

/// How long before the directory was finished it was begun.
const LIFE: Duration = Duration::from_secs(7_200);

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

fn small(options: &mut NodeOptions) {
    options.partitions = Some(PARTITIONS);
    options.disk.files.table_bytes = 8 << 10;
    options.disk.files.cache_bytes = 0;
    options.disk.snapshot_log_bytes = 48 << 10;
    options.disk.log_bytes_max = 256 << 10;
}

async fn write(node: &Node, user: UserId, write: Write) -> Receipt {
    let sequence = Sequence(SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1);
    let tag = WriteTag { session: SESSION, sequence, lowest_unanswered: sequence };
    node.write(node.partition_of(user), tag, write).await.unwrap()
}

fn entry(owner: UserId, payload: &[u8]) -> Append {
    Append {
        space: POSTS,
        owner,
        author: None,
        audience: Audience::Public,
        ttl: Ttl::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::copy_from_slice(payload),
    }
}

async fn append(node: &Node, item: Append) -> EntryId {
    let receipt = write(node, item.owner, Write::Append { items: vec![item] }).await;
    let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
    let AppendResult::Made { id, .. } = items[0] else { panic!("{items:?}") };
    id
}

/// Posts under a session of its own.
pub async fn post(node: &Node, owner: UserId, payload: &[u8]) -> EntryId {
    let partition = node.partition_of(owner);
    let session = node.open_session(partition).await.unwrap();
    let tag = WriteTag { session, sequence: Sequence(1), lowest_unanswered: Sequence(1) };
    let write = Write::Append { items: vec![entry(owner, payload)] };
    let receipt = node.write(partition, tag, write).await.unwrap();
    let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
    let AppendResult::Made { id, .. } = items[0] else { panic!("{items:?}") };
    id
}

/// The requests that were answered last, sent again; one of them with another body, one under another sequence with the same key.
pub fn answered() -> Vec<(WriteTag, UserId, Write)> {
    let tag =
        |n| WriteTag { session: SESSION, sequence: Sequence(REPEATED.0 + n), lowest_unanswered: REPEATED };
    let append = |owner, payload| Write::Append {
        items: vec![Append { key: Some(Bytes::from_static(b"once")), ..entry(owner, payload) }],
    };
    let (here, there) = (user(0, 0), user(1, 0));
    vec![
        (tag(0), here, append(here, b"once")),
        (tag(0), there, append(there, b"once")),
        (tag(0), there, append(there, b"another body")),
        (tag(1), here, append(here, b"once")),
        (tag(1), there, append(there, b"the key names another")),
    ]
}

async fn related(node: &Node, user: UserId, what: Write) {
    let receipt = write(node, user, what).await;
    assert!(matches!(receipt.result, WriteResult::Related { changed: 1.., .. }), "{receipt:?}");
}

/// Who follows whom, mutes and blocks.
async fn relate(node: &Node) {
    let graph = FOLLOWS;
    for (at, n) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        let reader = user(at, n);
        let others = [(at, (n + 1) % 3), (1 - at, n), (1 - at, (n + 1) % 3)];
        let owners = others.map(|(at, n)| user(at, n)).to_vec();
        related(node, reader, Write::Follow { graph, reader, owners }).await;
    }
    let (muter, blocker) = (user(0, 1), user(1, 2));
    related(node, muter, Write::Mute { user: muter, targets: vec![user(1, 1)] }).await;
    related(node, blocker, Write::Block { user: blocker, targets: vec![user(0, 2)] }).await;
    let leaver = user(0, 0);
    related(node, leaver, Write::Unfollow { graph, reader: leaver, owners: vec![user(1, 1)] }).await;
}

/// What was brought from elsewhere: an edge and entries of an earlier time.
async fn import(node: &Node) {
    let old = Stamp(800_000_000_000);
    let (reader, owner) = (user(1, 3), user(0, 3));
    let edges = vec![ImportEdge { reader, owner, since: Some(old) }];
    write(node, reader, Write::ImportFollows { graph: FOLLOWS, edges }).await;
    let brought = |lifetime, payload: &'static [u8]| ImportEntry {
        space: POSTS,
        owner,
        author: Some(user(1, 3)),
        audience: Audience::Public,
        place: Place::Time { stamp: old },
        lifetime,
        version: 4,
        key: None,
        reference: None,
        payload: Bytes::from_static(payload),
    };
    let entries =
        vec![brought(Lifetime::Never, b"brought first"), brought(Lifetime::SpaceDefault, b"second")];
    write(node, owner, Write::ImportEntries { entries }).await;
}

/// Rounds of entries of every kind; the ids of the plain ones.
async fn entries(node: &Node, rounds: usize) -> Vec<(UserId, EntryId)> {
    let mut plain = Vec::new();
    for round in 0..rounds {
        for (at, n) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let owner = user(at, n);
            let payload = vec![b'a' + (round % 26) as u8; 300 + 40 * n];
            let mut item = entry(owner, &payload);
            match (round + n) % 6 {
                0 => item.ttl = Ttl::Ms { ttl_ms: 4 * 3_600_000 },
                1 => item.audience = Audience::Followers,
                2 => item.space = STORIES,
                3 => item.author = Some(user(1 - at, n)),
                4 if !plain.is_empty() => {
                    let (owner, id) = plain[plain.len() / 2];
                    item.reference = Some(EntryRef { owner, id });
                }
                5 if round % 4 == 0 => item.audience = Audience::Private,
                _ => {}
            }
            let (is_plain, key) = ((round + n) % 6 > 2, format!("key {round} {owner}"));
            if round % 3 == 0 {
                item.key = Some(key.into());
            }
            let id = append(node, item).await;
            plain.extend(is_plain.then_some((owner, id)));
        }
    }
    plain
}

/// Waits until every partition has taken another snapshot.
async fn another_snapshot(node: &Node) {
    let index =
        |status: &fanfold_cluster::status::PartitionStatus| status.snapshot.map_or(0, |taken| taken.index);
    let before: Vec<u64> = node.status().partitions.iter().map(index).collect();
    let newer = || node.status().partitions.iter().map(index).zip(&before).all(|(now, before)| now > *before);
    let wait = async {
        while !newer() {
            // What makes one due.
            for partition in 0..PARTITIONS {
                let item = Append { ttl: Ttl::Ms { ttl_ms: 1 }, ..entry(user(partition, 0), &[b'z'; 900]) };
                append(node, item).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// Writes the directory.
pub async fn directory(data_dir: &Path) {
    let clock = ManualClock::new(WRITTEN_UNIX_MS - LIFE.as_millis() as i64);
    let (node, is_held) = open(data_dir, &clock, small, false).await;
    for partition in (0..PARTITIONS).map(PartitionId) {
        assert_eq!(node.open_session(partition).await.unwrap(), SESSION);
    }
    node.create_space("notes", Some("friends"), SpacePolicy::default()).await.unwrap();
    relate(&node).await;
    import(&node).await;
    let teller = user(0, 3);
    let highlight = append(&node, Append { space: STORIES, ..entry(teller, b"a story that stays") }).await;
    append(&node, Append { space: STORIES, ..entry(teller, b"a story") }).await;
    let plain = entries(&node, 18).await;
    node.wait_drained().await.unwrap();
    clock.advance(LIFE / 2);
    node.pass_time().await.unwrap();
    another_snapshot(&node).await;
    let stays = Write::SetExpiry { space: STORIES, owner: teller, id: highlight, ttl: Ttl::Never };
    write(&node, teller, stays).await;
    // What is on disk changes: marks of what is dead, newer versions, another expiry.
    for (n, (owner, id)) in plain.iter().take(24).enumerate() {
        let (space, owner, id) = (POSTS, *owner, *id);
        let changed = match n % 4 {
            0 => Write::Delete { space, owner, id },
            1 => {
                let payload = Bytes::from_static(b"amended");
                Write::Amend { space, owner, id, expected_version: 1, payload }
            }
            2 => Write::SetExpiry { space, owner, id, ttl: Ttl::Ms { ttl_ms: 5 * 3_600_000 } },
            _ => continue,
        };
        write(&node, owner, changed).await;
    }
    another_snapshot(&node).await;
    clock.advance(LIFE / 2);
    node.pass_time().await.unwrap();
    node.wait_drained().await.unwrap();
    // From here on nothing arrives anywhere: events stay in the journals, some behind the last snapshot.
    is_held.send_replace(true);
    entries(&node, 2).await;
    let reader = user(1, 1);
    related(&node, reader, Write::Unfollow { graph: FOLLOWS, reader, owners: vec![user(0, 1)] }).await;
    another_snapshot(&node).await;
    entries(&node, 1).await;
    for (tag, owner, write) in answered().into_iter().take(2) {
        node.write(node.partition_of(owner), tag, write).await.unwrap();
    }
    let status = node.status();
    assert!(status.partitions.iter().all(|p| p.undelivered_events > 0 && p.segments > 0), "{status:?}");
    node.abandon().await;
}
