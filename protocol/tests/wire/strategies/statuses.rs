//! Owns the strategies that draw statuses.

use fanfold_protocol::field::{Field, LimitKind};
use fanfold_protocol::message::ChangeRefusal;
use fanfold_protocol::{LeaderHint, NodeId, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{entry_id, graph, number, number32, partition, space, text, user};

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
        number32().prop_map(|delay_ms| Status::MemoryFull { delay_ms }),
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
        vec(number(), 0..4).prop_map(|silent| Status::CatalogUnavailable {
            silent: silent.into_iter().map(NodeId).collect()
        }),
    ]
}
