//! Owns the strategies that draw responses.

use fanfold_protocol::message::{
    AppendOutcome, Budget, Counts, Edge, EdgePage, EntryView, Explanation, Hot, HotList, JobFinding,
    JobPhase, JobState, JobStatus, KeptLog, LogStatus, Map, MemoryBudget, MemoryPart, MemoryState, MemoryUse,
    NodeAddress, NodeStatus, Page, PartitionStatus, ProcessMemory, Reason, ReferenceState, ReferenceView,
    ShortReason, SpaceInfo, StreamStatus, WriteResult, Written,
};
use fanfold_protocol::{ClusterId, NodeId, Opcode, Response, SessionId, Stamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{cluster, cluster_changed};
use super::statuses::status;
use super::writes::{audience, policy};
use super::{
    bytes, cursor, entry_id, graph, mark, number, number32, partition, space, stamp, text, token, user, users,
};

fn hot_list() -> impl Strategy<Value = HotList> {
    let partition = (partition(), number(), number()).prop_map(|(of, count, error)| Hot { of, count, error });
    let hot_user = (user(), number(), number()).prop_map(|(of, count, error)| Hot { of, count, error });
    (number(), vec(partition, 0..4), vec(hot_user, 0..4)).prop_map(|(over_ms, partitions, users)| HotList {
        over_ms,
        partitions,
        users,
    })
}

fn entry_without_reference() -> impl Strategy<Value = EntryView> {
    (
        entry_id(),
        user(),
        option::of(user()),
        audience(),
        prop_oneof![Just(1), number32()],
        option::of(prop_oneof![stamp(), Just(Stamp(u64::MAX))]),
        option::of(bytes()),
    )
        .prop_map(|(id, owner, author, audience, version, expiry, payload)| EntryView {
            id,
            owner,
            author: author.unwrap_or(owner),
            audience,
            version,
            expiry,
            payload,
            reference: None,
        })
}

pub(super) fn reference(live: impl Strategy<Value = ReferenceState>) -> impl Strategy<Value = ReferenceView> {
    let dead = select(vec![ReferenceState::NotHydrated, ReferenceState::Gone]);
    (user(), entry_id(), prop_oneof![dead, live]).prop_map(|(owner, id, state)| ReferenceView {
        owner,
        id,
        state,
    })
}

pub(super) fn entry() -> impl Strategy<Value = EntryView> {
    let inner = (entry_without_reference(), option::of(reference(Just(ReferenceState::Gone))))
        .prop_map(|(entry, reference)| EntryView { reference, ..entry });
    let live = inner.prop_map(|entry| ReferenceState::Live(Box::new(entry)));
    (entry_without_reference(), option::of(reference(live)))
        .prop_map(|(entry, reference)| EntryView { reference, ..entry })
}

fn page() -> impl Strategy<Value = Page> {
    let budget = select(vec![Budget::OwnersAsked, Budget::Time, Budget::Bytes]);
    let short =
        prop_oneof![partition().prop_map(ShortReason::Unreachable), budget.prop_map(ShortReason::Spent)];
    let entries = (vec(entry(), 0..6), any::<bool>()).prop_map(|(mut entries, sorted)| {
        if sorted {
            entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.id));
        }
        entries
    });
    (
        entries,
        option::of(cursor()),
        entry_id(),
        vec(short, 0..3),
        option::of(mark()),
        option::of(number()),
        token(),
    )
        .prop_map(|(entries, next, complete_to, short_of, mark, new_count, token)| Page {
            entries,
            next,
            complete_to,
            short_of,
            mark,
            new_count,
            token,
        })
}

fn space_info() -> impl Strategy<Value = SpaceInfo> {
    (space(), text(), graph(), text(), number(), policy()).prop_map(
        |(id, name, graph, graph_name, version, policy)| SpaceInfo {
            id,
            name,
            graph,
            graph_name,
            version,
            policy,
        },
    )
}

fn written() -> impl Strategy<Value = Written> {
    let outcome = prop_oneof![
        (entry_id(), any::<bool>()).prop_map(|(id, duplicate)| AppendOutcome::Ok { id, duplicate }),
        status().prop_map(AppendOutcome::Refused),
    ];
    let result = prop_oneof![
        vec(outcome, 0..5).prop_map(WriteResult::Appended),
        number32().prop_map(|version| WriteResult::Amended { version }),
        any::<bool>().prop_map(|existed| WriteResult::Deleted { existed }),
        option::of(stamp()).prop_map(|expiry| WriteResult::ExpirySet { expiry }),
        (number32(), users()).prop_map(|(changed, refused)| WriteResult::Related { changed, refused }),
        (number32(), vec((number32(), status()), 0..4))
            .prop_map(|(changed, refused)| WriteResult::FollowsImported { changed, refused }),
    ];
    (token(), result).prop_map(|(token, result)| Written { token, result })
}

fn map() -> impl Strategy<Value = Map> {
    let node = (number(), text()).prop_map(|(node, address)| NodeAddress { node: NodeId(node), address });
    (any::<u128>(), number(), any::<u16>(), vec(node, 0..4), vec(number().prop_map(NodeId), 0..9)).prop_map(
        |(cluster, epoch, partitions, nodes, leaders)| Map {
            cluster: ClusterId(cluster),
            epoch,
            partitions,
            nodes,
            leaders,
        },
    )
}

fn reason() -> impl Strategy<Value = Reason> {
    let plain = select(vec![
        Reason::OwnEntry,
        Reason::NotFollowed,
        Reason::Pushed,
        Reason::Pulled,
        Reason::NotFilledYet,
        Reason::Deleted,
        Reason::PendingSlice,
    ]);
    prop_oneof![
        plain,
        stamp().prop_map(Reason::FollowedSince),
        entry_id().prop_map(|floor| Reason::BelowFloor { floor }),
        (partition(), number(), number()).prop_map(|(source, position, acknowledged)| Reason::OnItsWay {
            source,
            position,
            acknowledged
        }),
        user().prop_map(Reason::Muted),
        (user(), user()).prop_map(|(blocker, blocked)| Reason::Blocked { blocker, blocked }),
        stamp().prop_map(Reason::Expired),
        audience().prop_map(Reason::AudienceExcludes),
        stamp().prop_map(Reason::BelowHorizon),
    ]
}

fn memory_use() -> impl Strategy<Value = MemoryUse> {
    (select(MemoryPart::ALL.to_vec()), number()).prop_map(|(part, bytes)| MemoryUse { part, bytes })
}

fn partition_status() -> impl Strategy<Value = PartitionStatus> {
    let memory = memory_use();
    let stream = (partition(), number(), number(), number()).prop_map(
        |(destination, pending_events, oldest_age_ms, acknowledged)| StreamStatus {
            destination,
            pending_events,
            oldest_age_ms,
            acknowledged,
        },
    );
    (partition(), any::<bool>(), vec(number(), 21), vec(memory, 0..4), vec(stream, 0..4)).prop_map(
        |(partition, is_leader, numbers, memory, streams)| PartitionStatus {
            partition,
            is_leader,
            term: numbers[0],
            applied: numbers[1],
            log_last: numbers[2],
            stamp: Stamp(numbers[3]),
            entries: numbers[4],
            feeds: numbers[5],
            users: numbers[6],
            edges: numbers[7],
            owners_here: numbers[8],
            rows: numbers[9],
            deliveries: numbers[10],
            undelivered_events: numbers[11],
            pending_slices: numbers[12],
            journal_first: numbers[13],
            journal_next: numbers[14],
            sessions: numbers[15],
            log_bytes: numbers[16],
            snapshot: numbers[17],
            snapshot_bytes: numbers[18],
            segments: numbers[19],
            segment_bytes: numbers[20],
            memory,
            streams,
        },
    )
}

fn job_status() -> impl Strategy<Value = JobStatus> {
    let state = prop_oneof![
        Just(JobState::Running),
        Just(JobState::Done),
        text().prop_map(JobState::Failed),
        Just(JobState::Cancelled)
    ];
    let phases = vec![JobPhase::Begins, JobPhase::Snapshots, JobPhase::Groups, JobPhase::Log];
    let finding = (text(), option::of(number()), text());
    let finding = finding.prop_map(|(path, offset, what)| JobFinding { path, offset, what });
    let kind = option::of(super::requests::job_kind());
    (number(), state, select(phases), number(), number(), number(), vec(finding, 0..4), kind).prop_map(
        |(job, state, phase, done_bytes, total_bytes, found, findings, kind)| JobStatus {
            job,
            state,
            phase,
            done_bytes,
            total_bytes,
            found,
            findings,
            kind,
        },
    )
}

fn node_status() -> impl Strategy<Value = NodeStatus> {
    let pinned = (option::of(super::cluster::group()), option::of(number().prop_map(NodeId)));
    let log = (number(), number(), number(), pinned, option::of(number())).prop_map(
        |(segments, bytes, last_position, (pinned_by, pinned_for), kept_by_job)| LogStatus {
            segments,
            bytes,
            last_position,
            pinned_by,
            pinned_for,
            kept_by_job,
        },
    );
    let state = select(vec![MemoryState::Within, MemoryState::Over, MemoryState::Refusing]);
    let memory = option::of((number(), number(), state)).prop_map(|memory| {
        memory.map(|(budget_bytes, resident_bytes, state)| MemoryBudget {
            budget_bytes,
            resident_bytes,
            state,
        })
    });
    let kept = (partition(), number()).prop_map(|(partition, bytes)| KeptLog { partition, bytes });
    let (partitions, damaged) = (vec(partition_status(), 0..3), (vec(partition(), 0..3), vec(kept, 0..3)));
    let head = (number(), any::<u128>(), text(), number(), option::of(any::<i64>()));
    let process = (number(), vec(memory_use(), 0..3))
        .prop_map(|(resident_bytes, parts)| ProcessMemory { resident_bytes, parts });
    (head, partitions, log, damaged, (memory, option::of(process))).prop_map(
        |(
            (node, cluster, version, uptime_ms, clock_held_ms),
            partitions,
            log,
            (damaged, kept_by_damaged),
            (memory, process),
        )| {
            NodeStatus {
                node: NodeId(node),
                cluster: ClusterId(cluster),
                version,
                uptime_ms,
                clock_held_ms,
                partitions,
                log,
                damaged,
                kept_by_damaged,
                memory,
                process,
            }
        },
    )
}

fn edge_page() -> impl Strategy<Value = EdgePage> {
    let edge = (user(), stamp()).prop_map(|(user, since)| Edge { user, since });
    (vec(edge, 0..20), any::<bool>(), option::of(cursor())).prop_map(|(mut users, sorted, next)| {
        if sorted {
            users.sort_unstable_by_key(|edge| edge.user);
        }
        EdgePage { users, next }
    })
}

/// Any response with the opcode it answers.
pub fn response() -> impl Strategy<Value = (Opcode, Response)> {
    let page_or_status = prop_oneof![page().prop_map(Ok), status().prop_map(Err)];
    let done = [
        Opcode::CloseSession,
        Opcode::WaitDelivered,
        Opcode::WaitDrained,
        Opcode::AcceptClock,
        Opcode::InitCluster,
        Opcode::PauseFanOut,
    ];
    prop_oneof![
        Just((Opcode::Ping, Response::Pong)),
        select(done.to_vec()).prop_map(|opcode| (opcode, Response::Done)),
        map().prop_map(|map| (Opcode::GetMap, Response::Map(map))),
        cluster().prop_map(|view| (Opcode::GetCluster, Response::Cluster(view))).boxed(),
        cluster_changed()
            .prop_map(|changed| (Opcode::ChangeCluster, Response::ClusterChanged(changed)))
            .boxed(),
        hot_list().prop_map(|list| (Opcode::GetHot, Response::Hot(list))).boxed(),
        users().prop_map(|owners| (Opcode::ListPaused, Response::Paused(owners))),
        vec(space_info(), 0..4).prop_map(|spaces| (Opcode::ListSpaces, Response::Spaces(spaces))),
        (select(vec![Opcode::CreateSpace, Opcode::AlterSpace]), space_info())
            .prop_map(|(opcode, space)| (opcode, Response::Space(space))),
        number().prop_map(|number| (Opcode::OpenSession, Response::SessionOpened(SessionId(number)))),
        written().prop_map(|written| (Opcode::Write, Response::Written(written))),
        (select(vec![Opcode::ReadTimeline, Opcode::ReadFeed]), page())
            .prop_map(|(opcode, page)| (opcode, Response::Page(page))),
        vec(option::of(entry()), 0..5).prop_map(|entries| (Opcode::ReadEntries, Response::Entries(entries))),
        vec(page_or_status, 0..4).prop_map(|pages| (Opcode::ReadFeeds, Response::Pages(pages))),
        (number(), number()).prop_map(|(followers, followees)| {
            (Opcode::GetCounts, Response::Counts(Counts { followers, followees }))
        }),
        (select(vec![Opcode::ScanFollowees, Opcode::ScanFollowers]), edge_page())
            .prop_map(|(opcode, page)| (opcode, Response::Edges(page))),
        (any::<bool>(), vec(reason(), 0..6)).prop_map(|(shown, reasons)| {
            (Opcode::Explain, Response::Explanation(Explanation { shown, reasons }))
        }),
        node_status().prop_map(|status| (Opcode::GetStatus, Response::NodeStatus(status))),
        job_status().prop_map(|status| (Opcode::GetJob, Response::Job(status))),
    ]
}
