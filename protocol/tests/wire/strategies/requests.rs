//! Owns the strategies that draw requests.

use fanfold_protocol::message::{
    AlterSpace, ChangeCluster, CloseSession, ClusterChange, Consistency, CreateSpace, Explain, GetCounts,
    GetHot, HotBy, InitCluster, JobKind, OpenSession, PauseFanOut, ReadEntries, ReadFeed, ReadFeeds,
    ReadTimeline, ScanEdges, StartJob, WaitDelivered,
};
use fanfold_protocol::{Request, SessionId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{group, node};

use super::writes::{changes, policy, write};
use super::{cursor, entry_id, graph, mark, number, number32, partition, space, text, token, user, users};

/// Any request.
pub fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        2 => select(vec![
            Request::Ping,
            Request::GetMap,
            Request::ListSpaces,
            Request::GetStatus,
            Request::WaitDrained,
            Request::AcceptClock,
            Request::GetCluster,
            Request::ListPaused,
        ]),
        2 => small_request().boxed(),
        2 => cluster_request().boxed(),
        4 => write().prop_map(Request::Write),
        4 => read_request(),
    ]
}

fn hot_by() -> impl Strategy<Value = HotBy> {
    select(HotBy::ALL.to_vec())
}

fn cluster_request() -> impl Strategy<Value = Request> {
    let change = prop_oneof![
        (option::of(number32()), option::of(number()))
            .prop_map(|(replicas, repair_after_ms)| ClusterChange::Settings { replicas, repair_after_ms }),
        node().prop_map(|node| ClusterChange::Drain { node }),
        node().prop_map(|node| ClusterChange::Undrain { node }),
        node().prop_map(|node| ClusterChange::Remove { node }),
        (node(), node()).prop_map(|(node, by)| ClusterChange::Replace { node, by }),
        (group(), node(), node()).prop_map(|(group, from, to)| ClusterChange::Move { group, from, to }),
        (group(), node()).prop_map(|(group, to)| ClusterChange::TransferLeader { group, to }),
        (group(), node()).prop_map(|(group, from)| ClusterChange::Recover { group, from }),
        (group(), node()).prop_map(|(group, to)| ClusterChange::BeginEmpty { group, to }),
        option::of(number32()).prop_map(|to| ClusterChange::Upgrade { to }),
        Just(ClusterChange::Balance),
    ];
    prop_oneof![
        3 => (change, any::<bool>())
            .prop_map(|(change, dry_run)| Request::ChangeCluster(ChangeCluster { change, dry_run })),
        1 => (number32(), any::<u16>(), any::<bool>(), option::of(any::<u64>())).prop_map(
            |(replicas, partitions, force, asker)| {
                Request::InitCluster(InitCluster { replicas, partitions, force, asker })
            }
        ),
        1 => (hot_by(), number32()).prop_map(|(by, limit)| Request::GetHot(GetHot { by, limit })),
        1 => (user(), any::<bool>())
            .prop_map(|(owner, paused)| Request::PauseFanOut(PauseFanOut { owner, paused })),
    ]
}

fn small_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (text(), option::of(text()), policy())
            .prop_map(|(name, graph, policy)| Request::CreateSpace(CreateSpace { name, graph, policy })),
        (text(), changes()).prop_map(|(name, changes)| Request::AlterSpace(AlterSpace { name, changes })),
        start_job().prop_map(Request::StartJob),
        number().prop_map(Request::GetJob),
        number().prop_map(Request::CancelJob),
        partition().prop_map(|partition| Request::OpenSession(OpenSession { partition })),
        (partition(), number().prop_map(SessionId))
            .prop_map(|(partition, session)| Request::CloseSession(CloseSession { partition, session })),
        token().prop_map(|token| Request::WaitDelivered(WaitDelivered { token })),
        (graph(), user()).prop_map(|(graph, user)| Request::GetCounts(GetCounts { graph, user })),
        (space(), user(), entry_id()).prop_map(|(space, reader, entry)| Request::Explain(Explain {
            space,
            reader,
            entry
        })),
    ]
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![
        Just(Consistency::Leader),
        Just(Consistency::AtLeast),
        number32().prop_map(|max_ms| Consistency::StaleOk { max_ms }),
    ]
}

fn read_request() -> impl Strategy<Value = Request> {
    let scan = || {
        (graph(), user(), number32(), option::of(cursor()))
            .prop_map(|(graph, user, limit, cursor)| ScanEdges { graph, user, limit, cursor })
    };
    let how = || (option::of(token()), any::<bool>(), consistency());
    let shared = || (space(), user(), number32(), option::of(cursor()), how());
    prop_oneof![
        (shared(), option::of(user())).prop_map(
            |((space, owner, limit, cursor, (at_least, hydrate, consistency)), viewer)| {
                Request::ReadTimeline(ReadTimeline {
                    space,
                    owner,
                    viewer,
                    limit,
                    cursor,
                    at_least,
                    hydrate,
                    consistency,
                })
            }
        ),
        (shared(), option::of(mark())).prop_map(
            |((space, reader, limit, cursor, (at_least, hydrate, consistency)), newer_than)| {
                Request::ReadFeed(ReadFeed {
                    space,
                    reader,
                    limit,
                    cursor,
                    newer_than,
                    hydrate,
                    at_least,
                    consistency,
                })
            }
        ),
        (space(), vec(entry_id(), 0..20), option::of(user()), consistency(), option::of(token())).prop_map(
            |(space, ids, viewer, consistency, at_least)| {
                Request::ReadEntries(ReadEntries { space, ids, viewer, consistency, at_least })
            }
        ),
        (space(), users(), number32(), any::<bool>(), consistency(), option::of(token())).prop_map(
            |(space, readers, limit, hydrate, consistency, at_least)| {
                Request::ReadFeeds(ReadFeeds { space, readers, limit, hydrate, consistency, at_least })
            }
        ),
        scan().prop_map(Request::ScanFollowees),
        scan().prop_map(Request::ScanFollowers),
    ]
}

fn start_job() -> impl Strategy<Value = StartJob> {
    (job_kind(), option::of(number()))
        .prop_map(|(kind, bytes_per_second)| StartJob { kind, bytes_per_second })
}

pub(super) fn job_kind() -> impl Strategy<Value = JobKind> {
    let backup = (text(), any::<bool>());
    let backup = backup.prop_map(|(dir, leaves_out_damaged)| JobKind::Backup { dir, leaves_out_damaged });
    prop_oneof![Just(JobKind::Verify), backup]
}
