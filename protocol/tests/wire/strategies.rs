//! Owns the strategies that draw any message, for round trips.

use bytes::Bytes;
use fanfold_protocol::field::{Field, LimitKind};
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
    ClusterId, Cursor, CursorScope, EdgePosition, EntryId, GraphId, LeaderHint, Mark, NodeId, Opcode,
    PartitionId, Request, Response, Sequence, SessionId, SpaceId, Stamp, Status, Token, UserId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Numbers of all magnitudes: uniform ones would nearly always be huge.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
}

fn number32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0u32..32).prop_map(|(number, shift)| number >> shift)
}

fn user() -> impl Strategy<Value = UserId> {
    number().prop_map(UserId)
}

fn users() -> impl Strategy<Value = Vec<UserId>> {
    (vec(user(), 0..20), any::<bool>()).prop_map(|(mut users, sorted)| {
        if sorted {
            users.sort_unstable();
        }
        users
    })
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    any::<u64>().prop_map(EntryId)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    number().prop_map(Stamp)
}

fn space() -> impl Strategy<Value = SpaceId> {
    any::<u16>().prop_map(SpaceId)
}

fn graph() -> impl Strategy<Value = GraphId> {
    any::<u16>().prop_map(GraphId)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    any::<u16>().prop_map(PartitionId)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(|characters| characters.into_iter().collect())
}

/// Any token.
pub fn token() -> impl Strategy<Value = Token> {
    (partition(), number(), number(), option::of(number())).prop_map(
        |(partition, incarnation, log_index, journal_position)| Token {
            partition,
            incarnation,
            log_index,
            journal_position,
        },
    )
}

/// Any cursor.
pub fn cursor() -> impl Strategy<Value = Cursor> {
    let scope = prop_oneof![
        space().prop_map(CursorScope::Feed),
        space().prop_map(CursorScope::Timeline),
        graph().prop_map(CursorScope::Followees),
        graph().prop_map(CursorScope::Followers),
    ];
    let after = (partition(), user()).prop_map(|(partition, user)| EdgePosition { partition, user });
    (scope, user(), entry_id(), number(), option::of(after))
        .prop_map(|(scope, subject, below, as_of, after)| Cursor { scope, subject, below, as_of, after })
}

/// Any mark.
pub fn mark() -> impl Strategy<Value = Mark> {
    (partition(), number(), number(), entry_id()).prop_map(
        |(partition, incarnation, row_position, id_bound)| Mark {
            partition,
            incarnation,
            row_position,
            id_bound,
        },
    )
}

fn fan_out() -> impl Strategy<Value = FanOut> {
    select(vec![FanOut::Auto, FanOut::Push, FanOut::Pull])
}

fn audience() -> impl Strategy<Value = Audience> {
    select(vec![Audience::Public, Audience::Followers, Audience::Private])
}

fn policy() -> impl Strategy<Value = SpacePolicy> {
    let numbers = (number32(), number32(), any::<bool>());
    (option::of(number()), number32(), option::of(number()), fan_out(), numbers).prop_map(
        |(
            default_ttl_ms,
            feed_cap,
            horizon_ms,
            fan_out,
            (pull_threshold, payload_bytes_max, is_read_only),
        )| SpacePolicy {
            default_ttl_ms,
            feed_cap,
            horizon_ms,
            fan_out,
            pull_threshold,
            payload_bytes_max,
            is_read_only,
        },
    )
}

fn changes() -> impl Strategy<Value = SpaceChanges> {
    let nullable = || option::of(option::of(number()));
    let number = || option::of(number32());
    let is_read_only = option::of(any::<bool>());
    (nullable(), number(), nullable(), option::of(fan_out()), number(), number(), is_read_only).prop_map(
        |(default_ttl_ms, feed_cap, horizon_ms, fan_out, pull_threshold, payload_bytes_max, is_read_only)| {
            SpaceChanges {
                default_ttl_ms,
                feed_cap,
                horizon_ms,
                fan_out,
                pull_threshold,
                payload_bytes_max,
                is_read_only,
            }
        },
    )
}

fn entry_name() -> impl Strategy<Value = EntryName> {
    (space(), user(), entry_id()).prop_map(|(space, owner, id)| EntryName { space, owner, id })
}

fn append_item() -> impl Strategy<Value = AppendItem> {
    let ttl = prop_oneof![
        Just(TtlChoice::SpaceDefault),
        Just(TtlChoice::Never),
        any::<i64>().prop_map(TtlChoice::Ms)
    ];
    let reference = (user(), entry_id()).prop_map(|(owner, id)| EntryRef { owner, id });
    (
        space(),
        user(),
        option::of(user()),
        audience(),
        ttl,
        option::of(bytes()),
        option::of(reference),
        bytes(),
    )
        .prop_map(|(space, owner, author, audience, ttl, key, reference, payload)| AppendItem {
            space,
            owner,
            author,
            audience,
            ttl,
            key,
            reference,
            payload,
        })
}

fn import_follows() -> impl Strategy<Value = ImportFollows> {
    let since = option::of((0..u64::MAX).prop_map(Stamp));
    let edge = (user(), user(), since).prop_map(|(reader, owner, since)| ImportEdge { reader, owner, since });
    (graph(), vec(edge, 0..5)).prop_map(|(graph, edges)| ImportFollows { graph, edges })
}

fn import_entry() -> impl Strategy<Value = ImportEntry> {
    let place = prop_oneof![stamp().prop_map(ImportPlace::Time), entry_id().prop_map(ImportPlace::Id)];
    let expiry = prop_oneof![
        Just(ImportExpiry::SpaceDefault),
        Just(ImportExpiry::Never),
        stamp().prop_map(ImportExpiry::At)
    ];
    (append_item(), place, expiry, number32()).prop_map(|(item, place, expiry, version)| ImportEntry {
        space: item.space,
        owner: item.owner,
        place,
        author: item.author,
        audience: item.audience,
        expiry,
        version,
        key: item.key,
        reference: item.reference,
        payload: item.payload,
    })
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    let edges =
        || (graph(), user(), users()).prop_map(|(graph, reader, owners)| Edges { graph, reader, owners });
    let targets = || (user(), users()).prop_map(|(user, targets)| Targets { user, targets });
    let expiry = prop_oneof![Just(ExpiryChoice::Clear), any::<i64>().prop_map(ExpiryChoice::InMs)];
    prop_oneof![
        vec(append_item(), 0..5).prop_map(WriteOp::Append),
        (entry_name(), number32(), bytes()).prop_map(|(entry, expected_version, payload)| {
            WriteOp::Amend(Amend { entry, expected_version, payload })
        }),
        entry_name().prop_map(WriteOp::Delete),
        (entry_name(), expiry).prop_map(|(entry, expiry)| WriteOp::SetExpiry(SetExpiry { entry, expiry })),
        edges().prop_map(WriteOp::Follow),
        edges().prop_map(WriteOp::Unfollow),
        targets().prop_map(WriteOp::Mute),
        targets().prop_map(WriteOp::Unmute),
        targets().prop_map(WriteOp::Block),
        targets().prop_map(WriteOp::Unblock),
        import_follows().prop_map(WriteOp::ImportFollows),
        vec(import_entry(), 0..5).prop_map(WriteOp::ImportEntries),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let tag = (number(), number(), number()).prop_map(|(session, sequence, lowest)| WriteTag {
        session: SessionId(session),
        sequence: Sequence(sequence),
        lowest_unanswered: Sequence(lowest),
    });
    (partition(), number(), tag, write_op()).prop_map(|(partition, epoch, tag, op)| Write {
        partition,
        epoch,
        tag,
        op,
    })
}

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

fn node() -> impl Strategy<Value = NodeId> {
    number().prop_map(NodeId)
}

fn group() -> impl Strategy<Value = GroupName> {
    prop_oneof![Just(GroupName::Catalog), partition().prop_map(GroupName::Partition)]
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
        Just(ClusterChange::Balance),
    ];
    prop_oneof![
        3 => (change, any::<bool>())
            .prop_map(|(change, dry_run)| Request::ChangeCluster(ChangeCluster { change, dry_run })),
        1 => (number32(), any::<u16>())
            .prop_map(|(replicas, partitions)| Request::InitCluster(InitCluster { replicas, partitions })),
        1 => (hot_by(), number32()).prop_map(|(by, limit)| Request::GetHot(GetHot { by, limit })),
        1 => (user(), any::<bool>())
            .prop_map(|(owner, paused)| Request::PauseFanOut(PauseFanOut { owner, paused })),
    ]
}

fn node_state() -> impl Strategy<Value = NodeState> {
    select(vec![NodeState::Active, NodeState::Draining, NodeState::Removed])
}

fn cluster_node() -> impl Strategy<Value = ClusterNode> {
    let names = (text(), text(), text());
    let life = (option::of(number()), any::<bool>(), option::of(any::<i64>()));
    (node(), names, node_state(), life, number32(), number32()).prop_map(
        |(
            node,
            (address, peer_address, zone),
            state,
            (heard_ms, is_alive, clock_ahead_ms),
            replicas,
            leads,
        )| {
            ClusterNode {
                node,
                address,
                peer_address,
                zone,
                state,
                heard_ms,
                is_alive,
                clock_ahead_ms,
                replicas,
                leads,
            }
        },
    )
}

fn cluster() -> impl Strategy<Value = ClusterView> {
    let roles = vec![ReplicaRole::Voter, ReplicaRole::Learner, ReplicaRole::Coming, ReplicaRole::Going];
    let replica = (number(), node(), select(roles), option::of(number()))
        .prop_map(|(replica, node, role, lag)| ReplicaView { replica, node, role, lag });
    let leaders = (option::of(node()), option::of(node()));
    let health = select(GroupHealth::ALL.to_vec());
    let group = (group(), number(), leaders, health, vec(replica, 0..4)).prop_map(
        |(group, term, (leader, preferred), health, replicas)| GroupView {
            group,
            leader,
            term,
            preferred,
            health,
            replicas,
        },
    );
    let settings = (number32(), number())
        .prop_map(|(replicas, repair_after_ms)| ClusterSettings { replicas, repair_after_ms });
    (any::<u128>(), node(), number(), settings, vec(cluster_node(), 0..4), vec(group, 0..4)).prop_map(
        |(cluster, by, epoch, settings, nodes, groups)| ClusterView {
            cluster: ClusterId(cluster),
            by,
            epoch,
            settings,
            nodes,
            groups,
        },
    )
}

fn cluster_changed() -> impl Strategy<Value = ClusterChanged> {
    let step = prop_oneof![
        (group(), node()).prop_map(|(group, to)| ChangeStep::AddReplica { group, to }),
        (group(), node()).prop_map(|(group, from)| ChangeStep::RemoveReplica { group, from }),
        (group(), node()).prop_map(|(group, to)| ChangeStep::MoveLeader { group, to }),
        (node(), node_state()).prop_map(|(node, state)| ChangeStep::SetNode { node, state }),
    ];
    let loss = (group(), text()).prop_map(|(group, what)| ChangeLoss { group, what });
    (number(), vec(step, 0..6), vec(loss, 0..3)).prop_map(|(epoch, steps, losses)| ClusterChanged {
        epoch,
        steps,
        losses,
    })
}

fn hot_list() -> impl Strategy<Value = HotList> {
    let partition = (partition(), number(), number()).prop_map(|(of, count, error)| Hot { of, count, error });
    let hot_user = (user(), number(), number()).prop_map(|(of, count, error)| Hot { of, count, error });
    (number(), vec(partition, 0..4), vec(hot_user, 0..4)).prop_map(|(over_ms, partitions, users)| HotList {
        over_ms,
        partitions,
        users,
    })
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
        (space(), vec(entry_id(), 0..20), option::of(user()), consistency()).prop_map(
            |(space, ids, viewer, consistency)| {
                Request::ReadEntries(ReadEntries { space, ids, viewer, consistency })
            }
        ),
        (space(), users(), number32(), any::<bool>(), consistency()).prop_map(
            |(space, readers, limit, hydrate, consistency)| {
                Request::ReadFeeds(ReadFeeds { space, readers, limit, hydrate, consistency })
            }
        ),
        scan().prop_map(Request::ScanFollowees),
        scan().prop_map(Request::ScanFollowers),
    ]
}

/// Any status.
pub fn status() -> impl Strategy<Value = Status> {
    prop_oneof![plain_status(), status_with_numbers(), status_with_lists()]
}

fn plain_status() -> impl Strategy<Value = Status> {
    select(vec![
        Status::BadMagic,
        Status::BadChecksum,
        Status::TooSlow,
        Status::BadCursor,
        Status::SpaceExists,
        Status::SequenceConflict,
        Status::SequenceTooOld,
        Status::UnknownSession,
        Status::SessionFull,
        Status::NotFound,
        Status::NotTheOwner,
        Status::DeadlineExceeded,
        Status::TooManyConnections,
        Status::ShuttingDown,
        Status::Internal,
        Status::IdTaken,
        Status::NoCluster,
    ])
}

fn field() -> impl Strategy<Value = Field> {
    select((0..=u16::MAX).filter_map(Field::from_code).collect::<Vec<_>>())
}

fn status_with_numbers() -> impl Strategy<Value = Status> {
    let limit_kind = select((0..=u8::MAX).filter_map(LimitKind::from_code).collect::<Vec<_>>());
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(min, max)| Status::UnsupportedVersion { min, max }),
        any::<(u32, u32)>().prop_map(|(limit, got)| Status::FrameTooLarge { limit, got }),
        any::<u16>().prop_map(|opcode| Status::UnknownOpcode { opcode }),
        field().prop_map(|field| Status::Malformed { field }),
        (field(), number(), number(), any::<i64>()).prop_map(|(field, min, max, got)| Status::OutOfRange {
            field,
            min,
            max,
            got
        }),
        (field(), number()).prop_map(|(field, limit)| Status::TooLarge { field, limit }),
        number().prop_map(|current| Status::WrongEpoch { current }),
        partition().prop_map(|right| Status::WrongPartition { right }),
        number32().prop_map(|delay_ms| Status::Busy { delay_ms }),
        number32().prop_map(|delay_ms| Status::DiskFull { delay_ms }),
        entry_id().prop_map(|existing| Status::KeyConflict { existing }),
        number32().prop_map(|current| Status::VersionMismatch { current }),
        (user(), user()).prop_map(|(blocker, blocked)| Status::BlockedBy { blocker, blocked }),
        (limit_kind, number()).prop_map(|(what, limit)| Status::LimitReached { what, limit }),
        partition().prop_map(|partition| Status::Unavailable { partition }),
        partition().prop_map(|partition| Status::DamagedPartition { partition }),
    ]
}

fn status_with_lists() -> impl Strategy<Value = Status> {
    let hint = (number(), text()).prop_map(|(node, address)| LeaderHint { node: NodeId(node), address });
    prop_oneof![
        vec((space(), text()), 0..4).prop_map(|known| Status::UnknownSpace { known }),
        vec((graph(), text()), 0..4).prop_map(|known| Status::UnknownGraph { known }),
        option::of(hint).prop_map(|hint| Status::NotLeader { hint }),
        text().prop_map(|space| Status::ReadOnlySpace { space }),
        (select(ChangeRefusal::ALL.to_vec()), text())
            .prop_map(|(refusal, said)| Status::ChangeRefused { refusal, said }),
    ]
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

fn reference(live: impl Strategy<Value = ReferenceState>) -> impl Strategy<Value = ReferenceView> {
    let dead = select(vec![ReferenceState::NotHydrated, ReferenceState::Gone]);
    (user(), entry_id(), prop_oneof![dead, live]).prop_map(|(owner, id, state)| ReferenceView {
        owner,
        id,
        state,
    })
}

fn entry() -> impl Strategy<Value = EntryView> {
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

fn partition_status() -> impl Strategy<Value = PartitionStatus> {
    let memory =
        (select(MemoryPart::ALL.to_vec()), number()).prop_map(|(part, bytes)| MemoryUse { part, bytes });
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

fn start_job() -> impl Strategy<Value = StartJob> {
    let kind = prop_oneof![Just(JobKind::Verify), text().prop_map(|dir| JobKind::Backup { dir })];
    (kind, option::of(number())).prop_map(|(kind, bytes_per_second)| StartJob { kind, bytes_per_second })
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
    (number(), state, select(phases), number(), number(), number(), vec(finding, 0..4)).prop_map(
        |(job, state, phase, done_bytes, total_bytes, found, findings)| JobStatus {
            job,
            state,
            phase,
            done_bytes,
            total_bytes,
            found,
            findings,
        },
    )
}

fn node_status() -> impl Strategy<Value = NodeStatus> {
    let log = (number(), number(), number(), option::of(partition())).prop_map(
        |(segments, bytes, last_position, pinned_by)| LogStatus { segments, bytes, last_position, pinned_by },
    );
    (number(), any::<u128>(), text(), number(), option::of(any::<i64>()), vec(partition_status(), 0..3), log)
        .prop_map(|(node, cluster, version, uptime_ms, clock_held_ms, partitions, log)| NodeStatus {
            node: NodeId(node),
            cluster: ClusterId(cluster),
            version,
            uptime_ms,
            clock_held_ms,
            partitions,
            log,
        })
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
