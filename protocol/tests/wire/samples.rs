//! Owns one fixed sample of everything that travels: what the golden files hold.

use bytes::Bytes;
use fanfold_protocol::message::{
    AlterSpace, Amend, AppendItem, AppendOutcome, Audience, Budget, ChangeCluster, ChangeLoss, ChangeRefusal,
    ChangeStep, CloseSession, ClusterChange, ClusterChanged, ClusterNode, ClusterSettings, ClusterView,
    Consistency, Counts, CreateSpace, Edge, EdgePage, Edges, EntryName, EntryRef, EntryView, ExpiryChoice,
    Explain, Explanation, FanOut, GetCounts, GetHot, GroupHealth, GroupName, GroupView, Hot, HotBy, HotList,
    ImportEdge, ImportEntry, ImportExpiry, ImportFollows, ImportPlace, InitCluster, JobFinding, JobKind,
    JobPhase, JobState, JobStatus, LogStatus, Map, MemoryPart, MemoryUse, NodeAddress, NodeState, NodeStatus,
    OpenSession, Page, PartitionStatus, PauseFanOut, ReadEntries, ReadFeed, ReadFeeds, ReadTimeline, Reason,
    ReferenceState, ReferenceView, ReplicaRole, ReplicaView, ScanEdges, SetExpiry, ShortReason, SpaceChanges,
    SpaceInfo, SpacePolicy, StartJob, StreamStatus, Targets, TtlChoice, WaitDelivered, Write, WriteOp,
    WriteResult, WriteTag, Written,
};
use fanfold_protocol::{
    Call, ClusterId, Cursor, CursorScope, EdgePosition, EntryId, Frame, GraphId, LeaderHint, Mark, NodeId,
    Opcode, PartitionId, Request, RequestId, Response, Sequence, SessionId, SlotIndex, SpaceId, Stamp,
    Status, Token, UserId,
};

const POSTS: SpaceId = SpaceId(1);
const FOLLOWS: GraphId = GraphId(1);
const ALICE: UserId = UserId(1001);
const BOB: UserId = UserId(1002);
const REQUEST: RequestId = RequestId(7);

/// Names and frames of all samples.
pub fn frames() -> Vec<(String, Frame)> {
    let mut frames: Vec<(String, Frame)> = Vec::new();
    for (name, request) in requests() {
        let call = Call { deadline_ms: Some(2_000), request };
        frames.push((format!("request_{name}"), call.to_frame(REQUEST)));
    }
    for (name, opcode, response) in responses() {
        frames.push((format!("response_{name}"), Frame::response(opcode.code(), REQUEST, &response)));
    }
    let ping = Call { deadline_ms: None, request: Request::Ping };
    let batch = [ping.to_frame(RequestId(8)), ping.to_frame(RequestId(9))];
    frames.push(("request_batch".to_owned(), Frame::batch(&batch)));
    let answers = [
        Frame::response(Opcode::Ping.code(), RequestId(9), &Response::Pong),
        Frame::refusal(Opcode::Write.code(), RequestId(8), &Status::Busy { delay_ms: 25 }),
    ];
    frames.push(("response_batch".to_owned(), Frame::batch(&answers)));
    let hint = LeaderHint { node: NodeId(3), address: "10.0.0.3:7117".to_owned() };
    let refused = Frame::refusal(Opcode::Write.code(), REQUEST, &Status::NotLeader { hint: Some(hint) });
    frames.push(("refusal_not_leader".to_owned(), refused));
    for (name, opcode, status) in refusals() {
        frames.push((format!("refusal_{name}"), Frame::refusal(opcode.code(), REQUEST, &status)));
    }
    let refused = Frame::connection_refusal(&Status::UnsupportedVersion { min: 1, max: 1 });
    frames.push(("refusal_unsupported_version".to_owned(), refused));
    frames
}

fn refusals() -> Vec<(&'static str, Opcode, Status)> {
    let said = "node 2 holds the last voter of partition 4; add another first".to_owned();
    vec![
        ("no_cluster", Opcode::GetMap, Status::NoCluster),
        ("read_only_space", Opcode::Write, Status::ReadOnlySpace { space: "posts".to_owned() }),
        ("change", Opcode::ChangeCluster, Status::ChangeRefused { refusal: ChangeRefusal::LastVoter, said }),
    ]
}

/// An entry id `seconds` after a fixed point in time.
pub fn entry_id(seconds: u64, owner: UserId) -> EntryId {
    let time = Stamp(820_000_000_000 + seconds * 1_000);
    EntryId::from_parts(time, 5, SlotIndex::of(owner)).expect("fits its bits")
}

/// The sample token.
pub fn token() -> Token {
    Token { partition: PartitionId(4), incarnation: 1, log_index: 90_210, journal_position: Some(77) }
}

/// The sample cursor of a feed.
pub fn feed_cursor() -> Cursor {
    Cursor {
        scope: CursorScope::Feed(POSTS),
        subject: BOB,
        below: entry_id(10, ALICE),
        as_of: 0,
        after: None,
    }
}

/// The sample cursor of a scan of followers.
pub fn edge_cursor() -> Cursor {
    let after = Some(EdgePosition { partition: PartitionId(2), user: BOB });
    Cursor { scope: CursorScope::Followers(FOLLOWS), subject: ALICE, below: EntryId(0), as_of: 0, after }
}

/// The sample mark.
pub fn mark() -> Mark {
    Mark {
        partition: PartitionId(4),
        incarnation: 1,
        row_position: 5_000_000_000,
        id_bound: entry_id(10, ALICE),
    }
}

fn policy() -> SpacePolicy {
    SpacePolicy {
        default_ttl_ms: Some(86_400_000),
        feed_cap: 800,
        horizon_ms: None,
        fan_out: FanOut::Auto,
        pull_threshold: 10_000,
        payload_bytes_max: 4_096,
        is_read_only: false,
    }
}

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

fn requests() -> Vec<(&'static str, Request)> {
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
        ("init_cluster", Request::InitCluster(InitCluster { replicas: 3, partitions: 16 })),
        ("get_hot", Request::GetHot(GetHot { by: HotBy::FanOut, limit: 10 })),
        ("pause_fan_out", Request::PauseFanOut(PauseFanOut { owner: ALICE, paused: true })),
        ("list_paused", Request::ListPaused),
    ]
}

/// The sample cluster: one node that leads, and one that is about to go.
fn cluster() -> ClusterView {
    let node = ClusterNode {
        node: NodeId(1),
        address: "10.0.0.1:7117".to_owned(),
        peer_address: "10.0.0.1:7119".to_owned(),
        zone: "a".to_owned(),
        state: NodeState::Active,
        heard_ms: Some(0),
        is_alive: true,
        clock_ahead_ms: None,
        replicas: 2,
        leads: 2,
    };
    let going = ClusterNode {
        node: NodeId(2),
        address: "10.0.0.2:7117".to_owned(),
        peer_address: "10.0.0.2:7119".to_owned(),
        zone: String::new(),
        state: NodeState::Draining,
        heard_ms: None,
        is_alive: false,
        clock_ahead_ms: Some(-12),
        replicas: 1,
        leads: 0,
    };
    let voter = ReplicaView { replica: 7, node: NodeId(1), role: ReplicaRole::Voter, lag: Some(0) };
    let learner = ReplicaView { replica: 9, node: NodeId(2), role: ReplicaRole::Going, lag: None };
    let catalog = GroupView {
        group: GroupName::Catalog,
        leader: Some(NodeId(1)),
        term: 3,
        preferred: Some(NodeId(1)),
        health: GroupHealth::Whole,
        replicas: vec![voter],
    };
    let partition = GroupView {
        group: GroupName::Partition(PartitionId(0)),
        leader: None,
        term: 4,
        preferred: None,
        health: GroupHealth::Lost,
        replicas: vec![voter, learner],
    };
    ClusterView {
        cluster: map().cluster,
        by: NodeId(1),
        epoch: 12,
        settings: ClusterSettings { replicas: 3, repair_after_ms: 600_000 },
        nodes: vec![node, going],
        groups: vec![catalog, partition],
    }
}

fn cluster_changed() -> ClusterChanged {
    let group = GroupName::Partition(PartitionId(4));
    ClusterChanged {
        epoch: 13,
        steps: vec![
            ChangeStep::AddReplica { group, to: NodeId(3) },
            ChangeStep::RemoveReplica { group, from: NodeId(2) },
            ChangeStep::MoveLeader { group, to: NodeId(1) },
            ChangeStep::SetNode { node: NodeId(2), state: NodeState::Draining },
        ],
        losses: vec![ChangeLoss { group, what: "what came after entry 90".to_owned() }],
    }
}

fn hot_list() -> HotList {
    HotList {
        over_ms: 60_000,
        partitions: vec![Hot { of: PartitionId(4), count: 900, error: 0 }],
        users: vec![Hot { of: ALICE, count: 700, error: 12 }],
    }
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
            }),
        ),
        (
            "read_entries",
            Request::ReadEntries(ReadEntries {
                space: POSTS,
                ids,
                viewer: None,
                consistency: Consistency::Leader,
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
            }),
        ),
        ("scan_followees", Request::ScanFollowees(ScanEdges { cursor: None, ..scan.clone() })),
        ("scan_followers", Request::ScanFollowers(scan)),
    ]
}

/// The sample page: a hydrated repost above a plain entry.
fn page() -> Page {
    let plain = EntryView {
        id: entry_id(9, BOB),
        owner: BOB,
        author: BOB,
        audience: Audience::Public,
        version: 1,
        expiry: None,
        payload: Some(Bytes::from_static(b"first")),
        reference: None,
    };
    let repost = EntryView {
        id: entry_id(10, ALICE),
        owner: ALICE,
        author: BOB,
        audience: Audience::Followers,
        version: 3,
        expiry: Some(Stamp(entry_id(10, ALICE).time().0 + 86_400_000)),
        payload: Some(Bytes::new()),
        reference: Some(ReferenceView {
            owner: BOB,
            id: plain.id,
            state: ReferenceState::Live(Box::new(plain.clone())),
        }),
    };
    Page {
        entries: vec![repost, plain],
        next: Some(feed_cursor()),
        complete_to: entry_id(9, BOB),
        short_of: vec![ShortReason::Unreachable(PartitionId(9)), ShortReason::Spent(Budget::OwnersAsked)],
        mark: Some(mark()),
        new_count: Some(2),
        token: token(),
    }
}

fn responses() -> Vec<(&'static str, Opcode, Response)> {
    let info = SpaceInfo {
        id: POSTS,
        name: "posts".to_owned(),
        graph: FOLLOWS,
        graph_name: "follows".to_owned(),
        version: 2,
        policy: policy(),
    };
    let edges = EdgePage {
        users: vec![
            Edge { user: UserId(5), since: Stamp(1_000) },
            Edge { user: UserId(9), since: Stamp(2_000) },
        ],
        next: Some(edge_cursor()),
    };
    let page_or_not = vec![Ok(page()), Err(Status::Unavailable { partition: PartitionId(9) })];
    let mut all = vec![
        ("pong", Opcode::Ping, Response::Pong),
        ("done", Opcode::WaitDrained, Response::Done),
        ("map", Opcode::GetMap, Response::Map(map())),
        ("spaces", Opcode::ListSpaces, Response::Spaces(vec![info.clone()])),
        ("space", Opcode::AlterSpace, Response::Space(info)),
        ("session_opened", Opcode::OpenSession, Response::SessionOpened(SessionId(12))),
        ("page", Opcode::ReadFeed, Response::Page(page())),
        ("entries", Opcode::ReadEntries, Response::Entries(vec![Some(page().entries[1].clone()), None])),
        ("pages", Opcode::ReadFeeds, Response::Pages(page_or_not)),
        ("counts", Opcode::GetCounts, Response::Counts(Counts { followers: 1_000_000, followees: 300 })),
        ("edges", Opcode::ScanFollowers, Response::Edges(edges)),
        ("explanation", Opcode::Explain, Response::Explanation(explanation())),
        ("node_status", Opcode::GetStatus, Response::NodeStatus(node_status())),
        ("job", Opcode::GetJob, Response::Job(job_status())),
        ("cluster", Opcode::GetCluster, Response::Cluster(cluster())),
        ("cluster_changed", Opcode::ChangeCluster, Response::ClusterChanged(cluster_changed())),
        ("hot", Opcode::GetHot, Response::Hot(hot_list())),
        ("paused", Opcode::ListPaused, Response::Paused(vec![ALICE, BOB])),
    ];
    all.extend(
        written().into_iter().map(|(name, result)| {
            (name, Opcode::Write, Response::Written(Written { token: token(), result }))
        }),
    );
    all
}

fn written() -> Vec<(&'static str, WriteResult)> {
    let outcomes = vec![
        AppendOutcome::Ok { id: entry_id(10, ALICE), duplicate: false },
        AppendOutcome::Ok { id: entry_id(9, ALICE), duplicate: true },
        AppendOutcome::Refused(Status::KeyConflict { existing: entry_id(3, ALICE) }),
    ];
    vec![
        ("written_appended", WriteResult::Appended(outcomes)),
        ("written_amended", WriteResult::Amended { version: 2 }),
        ("written_deleted", WriteResult::Deleted { existed: true }),
        ("written_expiry_set", WriteResult::ExpirySet { expiry: Some(Stamp(820_000_000_000)) }),
        ("written_related", WriteResult::Related { changed: 2, refused: vec![BOB] }),
        (
            "written_follows_imported",
            WriteResult::FollowsImported {
                changed: 1,
                refused: vec![(1, Status::BlockedBy { blocker: ALICE, blocked: BOB })],
            },
        ),
    ]
}

fn map() -> Map {
    Map {
        cluster: ClusterId(0x0123_4567_89AB_CDEF_0011_2233_4455_6677),
        epoch: 2,
        partitions: 4,
        nodes: vec![NodeAddress { node: NodeId(1), address: "127.0.0.1:7117".to_owned() }],
        leaders: vec![NodeId(1); 4],
    }
}

fn explanation() -> Explanation {
    let reasons = vec![
        Reason::OwnEntry,
        Reason::FollowedSince(Stamp(1_000)),
        Reason::NotFollowed,
        Reason::Pushed,
        Reason::Pulled,
        Reason::BelowFloor { floor: entry_id(3, ALICE) },
        Reason::NotFilledYet,
        Reason::OnItsWay { source: PartitionId(4), position: 77, acknowledged: 70 },
        Reason::Muted(ALICE),
        Reason::Blocked { blocker: ALICE, blocked: BOB },
        Reason::Expired(Stamp(2_000)),
        Reason::Deleted,
        Reason::AudienceExcludes(Audience::Private),
        Reason::BelowHorizon(Stamp(3_000)),
        Reason::PendingSlice,
    ];
    Explanation { shown: false, reasons }
}

fn start_job() -> StartJob {
    let kind = JobKind::Backup { dir: "/backups/monday".to_owned() };
    StartJob { kind, bytes_per_second: Some(50 << 20) }
}

fn job_status() -> JobStatus {
    let finding = JobFinding {
        path: "groups/0003/000000000000000a.segment".to_owned(),
        offset: Some(8_192),
        what: "wrong checksum".to_owned(),
    };
    JobStatus {
        job: 3,
        state: JobState::Failed("a file is damaged".to_owned()),
        phase: JobPhase::Groups,
        done_bytes: 5_000_000,
        total_bytes: 90_000_000,
        found: 1,
        findings: vec![finding],
    }
}

fn node_status() -> NodeStatus {
    let memory = (1..).zip(MemoryPart::ALL).map(|(bytes, part)| MemoryUse { part, bytes }).collect();
    let streams = vec![StreamStatus {
        destination: PartitionId(5),
        pending_events: 3,
        oldest_age_ms: 40,
        acknowledged: 74,
    }];
    let partition = PartitionStatus {
        partition: PartitionId(4),
        is_leader: true,
        term: 1,
        applied: 2,
        log_last: 3,
        stamp: Stamp(4),
        entries: 5,
        feeds: 6,
        users: 7,
        edges: 8,
        owners_here: 9,
        rows: 10,
        deliveries: 11,
        undelivered_events: 12,
        pending_slices: 13,
        journal_first: 14,
        journal_next: 15,
        sessions: 16,
        log_bytes: 17,
        snapshot: 18,
        snapshot_bytes: 19,
        segments: 20,
        segment_bytes: 21,
        memory,
        streams,
    };
    NodeStatus {
        node: NodeId(1),
        cluster: map().cluster,
        version: "0.1.0".to_owned(),
        uptime_ms: 65_000,
        clock_held_ms: Some(-3_600_000),
        partitions: vec![partition],
        log: LogStatus {
            segments: 2,
            bytes: 128 << 20,
            last_position: 99_000,
            pinned_by: Some(PartitionId(4)),
        },
    }
}
