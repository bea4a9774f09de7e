//! Owns the messages in which a snapshot goes from a leader to a replica: their bytes.
//!
//! - The receiver says what it wants next, so that a transfer that breaks goes on where it stopped.
//! - A message that is late, repeated or of another transfer changes nothing: the answer says what is wanted.

use bincode::{Decode, Encode};
use bytes::Bytes;
use fanfold_storage::snapshot::{Announced, StreamPosition};

use super::codec::{CodecError, SnapshotMetaBytes, VoteBytes, decode, decode_head, encode, encode_head};
use super::types::{SnapshotMeta, Vote};

/// The most bytes of a snapshot in one message.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// What tells a transfer from all others to the same replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct TransferId {
    /// The replica that sends.
    pub source: u64,
    /// The snapshot's number there.
    pub number: u64,
    /// CRC-32 over its manifest.
    pub crc: u32,
}

/// What a leader says to a replica that it sends a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TransferStep {
    /// There is a snapshot; what of it is wanted first?
    Begin { meta: SnapshotMeta, announced: Announced },
    /// A part of it.
    Chunk { position: StreamPosition, bytes: Bytes },
    /// All of it is there: put it in place. Asked again until it is done.
    Install,
}

/// A step of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TransferRequest {
    pub vote: Vote,
    pub id: TransferId,
    pub step: TransferStep,
}

/// What a replica answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferAnswer {
    /// These bytes are wanted next.
    Wants(StreamPosition),
    /// All bytes are there.
    Complete,
    /// It is being put in place.
    Installing,
    /// It is in place, or was not needed; the replica's vote.
    Done(Vote),
    /// The transfer is not known: begin again.
    Unknown,
    /// The replica has seen a later leader.
    Refused(Vote),
    /// What came is damaged, or does not belong together.
    Damaged,
    /// Another replica of the node is being filled: ask again.
    Later,
}

#[derive(Debug, Encode, Decode)]
struct HeadBytes {
    vote: VoteBytes,
    id: TransferId,
    step: StepBytes,
}

#[derive(Debug, Encode, Decode)]
enum StepBytes {
    Begin {
        meta: SnapshotMetaBytes,
        number: u64,
        manifest_bytes: u64,
        manifest_crc: u32,
    },
    /// The bytes follow the head.
    Chunk {
        stream: u32,
        offset: u64,
        length: u32,
        crc: u32,
    },
    Install,
}

#[derive(Debug, Encode, Decode)]
enum AnswerBytes {
    Wants { stream: u32, offset: u64 },
    Complete,
    Installing,
    Done(VoteBytes),
    Unknown,
    Refused(VoteBytes),
    Damaged,
    Later,
}

pub(super) fn encode_transfer_step(request: &TransferRequest) -> Result<Bytes, CodecError> {
    let mut tail: &[u8] = &[];
    let step = match &request.step {
        TransferStep::Begin { meta, announced } => StepBytes::Begin {
            meta: meta.into(),
            number: announced.number,
            manifest_bytes: announced.manifest_bytes,
            manifest_crc: announced.manifest_crc,
        },
        TransferStep::Chunk { position, bytes } => {
            tail = bytes;
            StepBytes::Chunk {
                stream: position.stream,
                offset: position.offset,
                length: bytes.len() as u32,
                crc: crc32fast::hash(bytes),
            }
        }
        TransferStep::Install => StepBytes::Install,
    };
    let head = HeadBytes { vote: (&request.vote).into(), id: request.id, step };
    let mut bytes = encode_head(&head, tail.len())?;
    bytes.extend_from_slice(tail);
    Ok(bytes.into())
}

pub(super) fn decode_transfer_step(bytes: &Bytes) -> Result<TransferRequest, CodecError> {
    let (head, tail): (HeadBytes, Bytes) = decode_head(bytes)?;
    let expected = if let StepBytes::Chunk { length, .. } = head.step { u64::from(length) } else { 0 };
    if expected != tail.len() as u64 || tail.len() > CHUNK_BYTES_MAX {
        return Err(CodecError::Length { expected, actual: tail.len() as u64 });
    }
    let step = match head.step {
        StepBytes::Begin { meta, number, manifest_bytes, manifest_crc } => TransferStep::Begin {
            meta: meta.try_into()?,
            announced: Announced { number, manifest_bytes, manifest_crc },
        },
        StepBytes::Chunk { stream, offset, crc, .. } => {
            if crc32fast::hash(&tail) != crc {
                return Err(CodecError::Checksum);
            }
            TransferStep::Chunk { position: StreamPosition { stream, offset }, bytes: tail }
        }
        StepBytes::Install => TransferStep::Install,
    };
    Ok(TransferRequest { vote: head.vote.into(), id: head.id, step })
}

pub(super) fn encode_transfer_step_answer(answer: &TransferAnswer) -> Result<Bytes, CodecError> {
    encode(&match answer {
        TransferAnswer::Wants(position) => {
            AnswerBytes::Wants { stream: position.stream, offset: position.offset }
        }
        TransferAnswer::Complete => AnswerBytes::Complete,
        TransferAnswer::Installing => AnswerBytes::Installing,
        TransferAnswer::Done(vote) => AnswerBytes::Done(vote.into()),
        TransferAnswer::Unknown => AnswerBytes::Unknown,
        TransferAnswer::Refused(vote) => AnswerBytes::Refused(vote.into()),
        TransferAnswer::Damaged => AnswerBytes::Damaged,
        TransferAnswer::Later => AnswerBytes::Later,
    })
}

pub(super) fn decode_transfer_step_answer(bytes: &Bytes) -> Result<TransferAnswer, CodecError> {
    Ok(match decode(bytes)? {
        AnswerBytes::Wants { stream, offset } => TransferAnswer::Wants(StreamPosition { stream, offset }),
        AnswerBytes::Complete => TransferAnswer::Complete,
        AnswerBytes::Installing => TransferAnswer::Installing,
        AnswerBytes::Done(vote) => TransferAnswer::Done(vote.into()),
        AnswerBytes::Unknown => TransferAnswer::Unknown,
        AnswerBytes::Refused(vote) => TransferAnswer::Refused(vote.into()),
        AnswerBytes::Damaged => TransferAnswer::Damaged,
        AnswerBytes::Later => TransferAnswer::Later,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::types::{LeaderId, LogId, Membership, ReplicaAddress, ReplicaId, StoredMembership};
    use super::*;

    fn request(step: TransferStep) -> TransferRequest {
        let id = TransferId { source: 4, number: 5, crc: 6 };
        TransferRequest { vote: Vote::new_committed(3, ReplicaId(6)), id, step }
    }

    fn steps() -> Vec<TransferStep> {
        let log_id = LogId::new(LeaderId { term: 2, node_id: ReplicaId(5) }, 9);
        let members = BTreeMap::from([(ReplicaId(1), ReplicaAddress("a".into()))]);
        let last_membership = StoredMembership::new(Some(log_id), Membership::from(members));
        let announced = Announced { number: 5, manifest_bytes: 700, manifest_crc: 6 };
        vec![
            TransferStep::Begin {
                meta: SnapshotMeta { last_log_id: Some(log_id), last_membership },
                announced,
            },
            TransferStep::Chunk {
                position: StreamPosition { stream: 3, offset: 1 << 40 },
                bytes: Bytes::from_static(b"a part of the state"),
            },
            TransferStep::Install,
        ]
    }

    #[test]
    fn steps_and_answers_come_back_as_they_were() {
        for step in steps() {
            let bytes = encode_transfer_step(&request(step.clone())).unwrap();
            assert_eq!(decode_transfer_step(&bytes).unwrap(), request(step));
            for end in 0..bytes.len() {
                assert!(decode_transfer_step(&bytes.slice(..end)).is_err(), "cut at {end}");
            }
        }
        let vote = Vote::new_committed(3, ReplicaId(6));
        for answer in [
            TransferAnswer::Wants(StreamPosition { stream: 1, offset: 2 }),
            TransferAnswer::Complete,
            TransferAnswer::Installing,
            TransferAnswer::Done(vote),
            TransferAnswer::Unknown,
            TransferAnswer::Refused(vote),
            TransferAnswer::Damaged,
            TransferAnswer::Later,
        ] {
            let bytes = encode_transfer_step_answer(&answer).unwrap();
            assert_eq!(decode_transfer_step_answer(&bytes).unwrap(), answer);
        }
    }

    #[test]
    fn a_changed_chunk_is_refused() {
        let bytes = encode_transfer_step(&request(steps().remove(1))).unwrap();
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(decode_transfer_step(&bytes.into()), Err(CodecError::Checksum)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = 1;
            let bytes = Bytes::from(bytes);
            let _ = decode_transfer_step(&bytes);
            let _ = decode_transfer_step_answer(&bytes);
        }
    }
}
