//! Statuses keep their numbers and say what happened and what to do next.

use fanfold_protocol::field::{Field, LimitKind};
use fanfold_protocol::{EntryId, NodeId, PartitionId, SpaceId, Status, UserId};
use proptest::prelude::*;

use crate::strategies;

#[test]
fn every_field_and_limit_keeps_its_number() {
    let fields: Vec<Field> = (0..=u16::MAX).filter_map(Field::from_code).collect();
    assert_eq!(fields.first(), Some(&Field::FrameLength));
    for (code, field) in (1..).zip(fields) {
        assert_eq!(field.code(), code);
    }
    let limits: Vec<LimitKind> = (0..=u8::MAX).filter_map(LimitKind::from_code).collect();
    for (code, limit) in (1..).zip(limits) {
        assert_eq!(limit.code(), code);
    }
}

#[test]
fn text_names_the_data() {
    let known = vec![(SpaceId(1), "posts".to_owned()), (SpaceId(2), "stories".to_owned())];
    let text = Status::UnknownSpace { known }.to_string();
    assert!(text.contains("posts (1), stories (2)"), "{text}");
    let text = Status::TooLarge { field: Field::Payload, limit: 4_096 }.to_string();
    assert!(text.contains("payload") && text.contains("4096"), "{text}");
    let text = Status::UnsupportedVersion { min: 1, max: 3 }.to_string();
    assert!(text.contains("1 to 3"), "{text}");
    let text = Status::BlockedBy { blocker: UserId(5), blocked: UserId(6) }.to_string();
    assert!(text.contains("user 5 blocks user 6"), "{text}");
    let text = Status::CatalogUnavailable { silent: vec![NodeId(1), NodeId(3)] }.to_string();
    assert!(text.contains("nodes 1, 3 are silent") && text.contains("fanfold cluster recover"), "{text}");
    let text = Status::MemoryFull { delay_ms: 1_000 }.to_string();
    assert!(text.contains("`memory_bytes`") && text.contains("1000 ms"), "{text}");
    let text = Status::NotLeader { hint: None }.to_string();
    assert!(text.contains("knows of no leader") && !text.contains("ask"), "{text}");
}

#[test]
fn refusals_before_a_proposal_have_no_effect() {
    for status in [
        Status::Busy { delay_ms: 1 },
        Status::DiskFull { delay_ms: 1 },
        Status::MemoryFull { delay_ms: 1 },
        Status::NotLeader { hint: None },
        Status::WrongEpoch { current: 2 },
        Status::ShuttingDown,
        Status::BadChecksum,
        Status::CatalogUnavailable { silent: vec![NodeId(2)] },
    ] {
        assert!(status.is_retryable() && !status.may_have_applied(), "{status}");
    }
}

#[test]
fn uncertain_outcomes_are_retryable_and_may_have_applied() {
    for status in [Status::Unavailable { partition: PartitionId(1) }, Status::DeadlineExceeded] {
        assert!(status.is_retryable() && status.may_have_applied(), "{status}");
    }
}

#[test]
fn conflicts_are_final() {
    for status in [
        Status::SequenceConflict,
        Status::KeyConflict { existing: EntryId(1) },
        Status::VersionMismatch { current: 2 },
        Status::UnknownSession,
        Status::SequenceTooOld,
    ] {
        assert!(!status.is_retryable(), "{status}");
    }
}

proptest! {
    #[test]
    fn text_says_what_happened_and_what_to_do(status in strategies::status()) {
        let text = status.to_string();
        // "What happened; what to do" or "what happened, what else; what to do": one line, two parts.
        // What a change is refused with is written by the node.
        prop_assert!(text.contains("; ") || matches!(status, Status::ChangeRefused { .. }), "{}", text);
        prop_assert!((1..=40).contains(&status.code()));
    }
}
