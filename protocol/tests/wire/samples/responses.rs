//! Owns the samples of responses and statuses.

use bytes::Bytes;
use fanfold_protocol::message::{
    AppendOutcome, Audience, Budget, ChangeLoss, ChangeRefusal, ChangeStep, ClusterChanged, ClusterNode,
    ClusterSettings, ClusterView, Counts, Edge, EdgePage, EntryView, Explanation, GroupHealth, GroupName,
    GroupView, Hot, HotList, JobFinding, JobPhase, JobState, JobStatus, LogStatus, Map, MemoryBudget,
    MemoryPart, MemoryState, MemoryUse, NodeAddress, NodeState, NodeStatus, Page, PartitionStatus,
    ProcessMemory, Reason, ReferenceState, ReferenceView, ReplicaRole, ReplicaView, ShortReason, SpaceInfo,
    StreamStatus, WriteResult, Written,
};
use fanfold_protocol::{ClusterId, NodeId, Opcode, PartitionId, Response, SessionId, Stamp, Status, UserId};

use super::{ALICE, BOB, FOLLOWS, POSTS, edge_cursor, entry_id, feed_cursor, mark, policy, token};

pub(super) fn refusals() -> Vec<(&'static str, Opcode, Status)> {
    let said = "node 2 holds the last voter of partition 4; add another first".to_owned();
    vec![
        ("no_cluster", Opcode::GetMap, Status::NoCluster),
        ("read_only_space", Opcode::Write, Status::ReadOnlySpace { space: "posts".to_owned() }),
        ("change", Opcode::ChangeCluster, Status::ChangeRefused { refusal: ChangeRefusal::LastVoter, said }),
        (
            "catalog",
            Opcode::ChangeCluster,
            Status::CatalogUnavailable { silent: vec![NodeId(1), NodeId(300)] },
        ),
        ("memory", Opcode::Write, Status::MemoryFull { delay_ms: 1_000 }),
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
        is_clock_off: false,
        is_disk_slow: false,
        is_disk_full: false,
        is_over_memory: false,
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
        is_clock_off: false,
        is_disk_slow: false,
        is_disk_full: false,
        is_over_memory: false,
        replicas: 1,
        leads: 0,
    };
    let voter =
        ReplicaView { replica: 7, node: NodeId(1), role: ReplicaRole::Voter, lag: Some(0), is_closed: false };
    let learner =
        ReplicaView { replica: 9, node: NodeId(2), role: ReplicaRole::Going, lag: None, is_closed: false };
    let catalog = GroupView {
        group: GroupName::Catalog,
        leader: Some(NodeId(1)),
        term: 3,
        preferred: Some(NodeId(1)),
        health: GroupHealth::Whole,
        is_diverged: false,
        replicas: vec![voter],
    };
    let partition = GroupView {
        group: GroupName::Partition(PartitionId(0)),
        leader: None,
        term: 4,
        preferred: None,
        health: GroupHealth::Lost,
        is_diverged: false,
        replicas: vec![voter, learner],
    };
    ClusterView {
        cluster: map().cluster,
        by: NodeId(1),
        epoch: 12,
        feature_level: 2,
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

fn upgraded() -> ClusterChanged {
    ClusterChanged { epoch: 14, steps: vec![ChangeStep::RaiseLevel { from: 1, to: 2 }], losses: Vec::new() }
}

fn hot_list() -> HotList {
    HotList {
        over_ms: 60_000,
        partitions: vec![Hot { of: PartitionId(4), count: 900, error: 0 }],
        users: vec![Hot { of: ALICE, count: 700, error: 12 }],
    }
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

pub(super) fn responses() -> Vec<(&'static str, Opcode, Response)> {
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
        ("node_status_memory", Opcode::GetStatus, Response::NodeStatus(over_budget())),
        ("node_status_pinned", Opcode::GetStatus, Response::NodeStatus(pinned())),
        ("job", Opcode::GetJob, Response::Job(job_status())),
        ("cluster", Opcode::GetCluster, Response::Cluster(cluster())),
        ("cluster_changed", Opcode::ChangeCluster, Response::ClusterChanged(cluster_changed())),
        ("cluster_changed_upgrade", Opcode::ChangeCluster, Response::ClusterChanged(upgraded())),
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
        kind: None,
    }
}

/// The same node with a budget that it is over.
fn over_budget() -> NodeStatus {
    let memory =
        MemoryBudget { budget_bytes: 1 << 30, resident_bytes: 1_200 << 20, state: MemoryState::Refusing };
    NodeStatus { memory: Some(memory), partitions: Vec::new(), ..node_status() }
}

/// The same node while the catalog keeps the log for another node, with what its process takes.
fn pinned() -> NodeStatus {
    let (by, kept_for) = (Some(GroupName::Catalog), Some(NodeId(3)));
    let log = LogStatus { pinned_by: by, pinned_for: kept_for, ..node_status().log };
    let parts = [(MemoryPart::Log, 8 << 20), (MemoryPart::Program, 20 << 20), (MemoryPart::Allocator, 300)];
    let parts = parts.map(|(part, bytes)| MemoryUse { part, bytes }).to_vec();
    let process = Some(ProcessMemory { resident_bytes: 64 << 20, parts });
    NodeStatus { log, process, partitions: Vec::new(), ..node_status() }
}

fn node_status() -> NodeStatus {
    let memory = (1..14).zip(MemoryPart::ALL).map(|(bytes, part)| MemoryUse { part, bytes }).collect();
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
            pinned_by: Some(GroupName::Partition(PartitionId(4))),
            pinned_for: None,
            kept_by_job: None,
        },
        damaged: Vec::new(),
        kept_by_damaged: Vec::new(),
        memory: None,
        process: None,
    }
}
