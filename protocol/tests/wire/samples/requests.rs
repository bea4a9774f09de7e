//! Owns the samples of requests.

use bytes::Bytes;
use fanfold_protocol::message::{
    AlterSpace, Amend, AppendItem, Audience, ChangeCluster, CloseSession, ClusterChange, Consistency,
    CreateSpace, Edges, EntryName, EntryRef, ExpiryChoice, Explain, GetCounts, GetHot, GroupName, HotBy,
    ImportEdge, ImportEntry, ImportExpiry, ImportFollows, ImportPlace, InitCluster, JobKind, OpenSession,
    PauseFanOut, ReadEntries, ReadFeed, ReadFeeds, ReadTimeline, ScanEdges, SetExpiry, SpaceChanges,
    StartJob, Targets, TtlChoice, WaitDelivered, Write, WriteOp, WriteTag,
};
use fanfold_protocol::{NodeId, PartitionId, Request, Sequence, SessionId, Stamp, UserId};

use super::{ALICE, BOB, FOLLOWS, POSTS, edge_cursor, entry_id, feed_cursor, mark, policy, token};

fn entry_name() -> EntryName {
    EntryName { space: POSTS, owner: ALICE, id: entry_id(10, ALICE) }
}

fn write(op: WriteOp) -> Request {
    let tag = WriteTag { session: SessionId(12), sequence: Sequence(34), lowest_unanswered: Sequence(30) };
    Request::Write(Write { partition: PartitionId(4), epoch: 2, tag, op })
}

fn append() -> WriteOp {
    let plain = AppendItem {
        space: POSTS,
        owner: ALICE,
        author: None,
        audience: Audience::Public,
        ttl: TtlChoice::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::from_static(b"hello"),
    };
    let full = AppendItem {
        author: Some(BOB),
        audience: Audience::Followers,
        ttl: TtlChoice::Ms(60_000),
        key: Some(Bytes::from_static(b"key-1")),
        reference: Some(EntryRef { owner: BOB, id: entry_id(1, BOB) }),
        ..plain.clone()
    };
    WriteOp::Append(vec![plain, full])
}

fn import_follows() -> WriteOp {
    let old = ImportEdge { reader: BOB, owner: ALICE, since: Some(Stamp(820_000_000_000)) };
    let edges = vec![old, ImportEdge { since: None, ..old }];
    WriteOp::ImportFollows(ImportFollows { graph: FOLLOWS, edges })
}

fn import_entries() -> WriteOp {
    let plain = ImportEntry {
        space: POSTS,
        owner: ALICE,
        place: ImportPlace::Time(Stamp(820_000_000_000)),
        author: None,
        audience: Audience::Public,
        expiry: ImportExpiry::SpaceDefault,
        version: 1,
        key: None,
        reference: None,
        payload: Bytes::from_static(b"long ago"),
    };
    let full = ImportEntry {
        place: ImportPlace::Id(entry_id(10, ALICE)),
        author: Some(BOB),
        audience: Audience::Followers,
        expiry: ImportExpiry::At(Stamp(850_000_000_000)),
        version: 3,
        key: Some(Bytes::from_static(b"key-1")),
        reference: Some(EntryRef { owner: BOB, id: entry_id(1, BOB) }),
        ..plain.clone()
    };
    WriteOp::ImportEntries(vec![plain, full])
}

pub(super) fn requests() -> Vec<(&'static str, Request)> {
    let mut all = vec![
        ("ping", Request::Ping),
        ("get_map", Request::GetMap),
        ("list_spaces", Request::ListSpaces),
        ("open_session", Request::OpenSession(OpenSession { partition: PartitionId(4) })),
        (
            "close_session",
            Request::CloseSession(CloseSession { partition: PartitionId(4), session: SessionId(12) }),
        ),
        ("wait_delivered", Request::WaitDelivered(WaitDelivered { token: token() })),
        ("get_counts", Request::GetCounts(GetCounts { graph: FOLLOWS, user: ALICE })),
        ("explain", Request::Explain(Explain { space: POSTS, reader: BOB, entry: entry_id(10, ALICE) })),
        ("get_status", Request::GetStatus),
        ("wait_drained", Request::WaitDrained),
        ("accept_clock", Request::AcceptClock),
        ("start_job", Request::StartJob(start_job())),
        ("get_job", Request::GetJob(3)),
        ("cancel_job", Request::CancelJob(3)),
    ];
    all.extend(cluster_requests());
    all.extend(space_requests());
    all.extend(write_requests());
    all.extend(read_requests());
    all
}

fn space_requests() -> Vec<(&'static str, Request)> {
    let changes = SpaceChanges {
        default_ttl_ms: Some(None),
        feed_cap: Some(500),
        horizon_ms: Some(Some(604_800_000)),
        ..SpaceChanges::default()
    };
    vec![
        (
            "create_space",
            Request::CreateSpace(CreateSpace {
                name: "reels".to_owned(),
                graph: Some("subscriptions".to_owned()),
                policy: policy(),
            }),
        ),
        ("alter_space", Request::AlterSpace(AlterSpace { name: "posts".to_owned(), changes })),
        (
            "alter_space_read_only",
            Request::AlterSpace(AlterSpace {
                name: "posts".to_owned(),
                changes: SpaceChanges { is_read_only: Some(true), ..SpaceChanges::default() },
            }),
        ),
    ]
}

fn cluster_requests() -> Vec<(&'static str, Request)> {
    let (one, two) = (NodeId(1), NodeId(2));
    let group = GroupName::Partition(PartitionId(4));
    let change = |change, dry_run| Request::ChangeCluster(ChangeCluster { change, dry_run });
    let settings = ClusterChange::Settings { replicas: Some(3), repair_after_ms: Some(600_000) };
    vec![
        ("get_cluster", Request::GetCluster),
        ("change_cluster_settings", change(settings, false)),
        ("change_cluster_drain", change(ClusterChange::Drain { node: two }, true)),
        ("change_cluster_undrain", change(ClusterChange::Undrain { node: two }, false)),
        ("change_cluster_remove", change(ClusterChange::Remove { node: two }, false)),
        ("change_cluster_replace", change(ClusterChange::Replace { node: two, by: NodeId(4) }, true)),
        ("change_cluster_move", change(ClusterChange::Move { group, from: one, to: two }, false)),
        ("change_cluster_transfer_leader", change(ClusterChange::TransferLeader { group, to: two }, false)),
        (
            "change_cluster_recover",
            change(ClusterChange::Recover { group: GroupName::Catalog, from: one }, false),
        ),
        ("change_cluster_balance", change(ClusterChange::Balance, true)),
        ("change_cluster_upgrade", change(ClusterChange::Upgrade { to: Some(2) }, true)),
        ("change_cluster_begin_empty", change(ClusterChange::BeginEmpty { group, to: one }, false)),
        (
            "init_cluster",
            Request::InitCluster(InitCluster { replicas: 3, partitions: 16, force: true, asker: None }),
        ),
        (
            "init_cluster_asked",
            Request::InitCluster(InitCluster {
                replicas: 3,
                partitions: 16,
                force: false,
                asker: Some(0x0102_0304_0506_0708),
            }),
        ),
        ("get_hot", Request::GetHot(GetHot { by: HotBy::FanOut, limit: 10 })),
        ("pause_fan_out", Request::PauseFanOut(PauseFanOut { owner: ALICE, paused: true })),
        ("list_paused", Request::ListPaused),
    ]
}

fn write_requests() -> Vec<(&'static str, Request)> {
    let edges = Edges { graph: FOLLOWS, reader: BOB, owners: vec![UserId(5), UserId(9), ALICE] };
    let targets = Targets { user: ALICE, targets: vec![BOB, UserId(3)] };
    let amend =
        Amend { entry: entry_name(), expected_version: 1, payload: Bytes::from_static(b"hello, all") };
    vec![
        ("write_append", write(append())),
        ("write_amend", write(WriteOp::Amend(amend))),
        ("write_delete", write(WriteOp::Delete(entry_name()))),
        (
            "write_set_expiry",
            write(WriteOp::SetExpiry(SetExpiry { entry: entry_name(), expiry: ExpiryChoice::InMs(-1) })),
        ),
        (
            "write_clear_expiry",
            write(WriteOp::SetExpiry(SetExpiry { entry: entry_name(), expiry: ExpiryChoice::Clear })),
        ),
        ("write_follow", write(WriteOp::Follow(edges.clone()))),
        ("write_unfollow", write(WriteOp::Unfollow(edges))),
        ("write_mute", write(WriteOp::Mute(targets.clone()))),
        ("write_unmute", write(WriteOp::Unmute(targets.clone()))),
        ("write_block", write(WriteOp::Block(targets.clone()))),
        ("write_unblock", write(WriteOp::Unblock(targets))),
        ("write_import_follows", write(import_follows())),
        ("write_import_entries", write(import_entries())),
    ]
}

fn read_requests() -> Vec<(&'static str, Request)> {
    let timeline = ReadTimeline {
        space: POSTS,
        owner: ALICE,
        viewer: Some(BOB),
        limit: 20,
        cursor: None,
        at_least: Some(token()),
        hydrate: true,
        consistency: Consistency::Leader,
    };
    let feed = ReadFeed {
        space: POSTS,
        reader: BOB,
        limit: 20,
        cursor: Some(feed_cursor()),
        newer_than: Some(mark()),
        hydrate: false,
        at_least: None,
        consistency: Consistency::Leader,
    };
    let at_least = ReadTimeline { consistency: Consistency::AtLeast, ..timeline.clone() };
    let stale = ReadFeed { consistency: Consistency::StaleOk { max_ms: 2_500 }, ..feed.clone() };
    let ids = vec![entry_id(10, ALICE), entry_id(9, BOB), entry_id(3, ALICE)];
    let scan = ScanEdges { graph: FOLLOWS, user: ALICE, limit: 100, cursor: Some(edge_cursor()) };
    vec![
        ("read_timeline", Request::ReadTimeline(timeline)),
        ("read_timeline_at_least", Request::ReadTimeline(at_least)),
        ("read_feed_stale", Request::ReadFeed(stale)),
        (
            "read_entries_stale",
            Request::ReadEntries(ReadEntries {
                space: POSTS,
                ids: ids.clone(),
                viewer: Some(BOB),
                consistency: Consistency::StaleOk { max_ms: 1 },
                at_least: None,
            }),
        ),
        (
            "read_entries_at_least",
            Request::ReadEntries(ReadEntries {
                space: POSTS,
                ids: ids.clone(),
                viewer: Some(BOB),
                consistency: Consistency::AtLeast,
                at_least: Some(token()),
            }),
        ),
        (
            "read_feeds_stale",
            Request::ReadFeeds(ReadFeeds {
                space: POSTS,
                readers: vec![ALICE],
                limit: 10,
                hydrate: false,
                consistency: Consistency::StaleOk { max_ms: 60_000 },
                at_least: None,
            }),
        ),
        (
            "read_feeds_at_least",
            Request::ReadFeeds(ReadFeeds {
                space: POSTS,
                readers: vec![ALICE, BOB],
                limit: 10,
                hydrate: true,
                consistency: Consistency::AtLeast,
                at_least: Some(token()),
            }),
        ),
        (
            "read_entries",
            Request::ReadEntries(ReadEntries {
                space: POSTS,
                ids,
                viewer: None,
                consistency: Consistency::Leader,
                at_least: None,
            }),
        ),
        ("read_feed", Request::ReadFeed(feed)),
        (
            "read_feeds",
            Request::ReadFeeds(ReadFeeds {
                space: POSTS,
                readers: vec![BOB, ALICE],
                limit: 10,
                hydrate: true,
                consistency: Consistency::Leader,
                at_least: None,
            }),
        ),
        ("scan_followees", Request::ScanFollowees(ScanEdges { cursor: None, ..scan.clone() })),
        ("scan_followers", Request::ScanFollowers(scan)),
    ]
}

fn start_job() -> StartJob {
    let kind = JobKind::Backup { dir: "/backups/monday".to_owned(), leaves_out_damaged: false };
    StartJob { kind, bytes_per_second: Some(50 << 20) }
}
