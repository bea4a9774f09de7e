//! Owns the messages between replicas: their bytes, and their passage to and from openraft's types.
//!
//! Entries stand in an append message exactly as they stand in the log.

use bincode::{Decode, Encode};
use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};

use super::codec::{
    CodecError, LogIdBytes, VoteBytes, decode, decode_entry, decode_head, encode, encode_entry, encode_head,
};
use super::types::{LogId, ReplicaId, Types};

#[derive(Debug, Encode, Decode)]
struct AppendBytes {
    vote: VoteBytes,
    prev: Option<LogIdBytes>,
    committed: Option<LogIdBytes>,
    /// The index of the first entry; the others follow it.
    first: u64,
    /// The size of each entry that follows the head.
    lengths: Vec<u32>,
}

#[derive(Debug, Encode, Decode)]
enum AppendAnswerBytes {
    Success,
    PartialSuccess(Option<LogIdBytes>),
    Conflict,
    HigherVote(VoteBytes),
}

#[derive(Debug, Encode, Decode)]
struct VoteRequestBytes {
    vote: VoteBytes,
    last: Option<LogIdBytes>,
    transfer: bool,
}

#[derive(Debug, Encode, Decode)]
struct VoteAnswerBytes {
    vote: VoteBytes,
    granted: bool,
    last: Option<LogIdBytes>,
}

#[derive(Debug, Encode, Decode)]
struct TransferBytes {
    vote: VoteBytes,
    target: u64,
    last: Option<LogIdBytes>,
}

#[derive(Debug, Encode, Decode)]
struct TransferAnswerBytes {
    accepted: bool,
}

fn log_id(bytes: Option<LogIdBytes>) -> Option<LogId> {
    bytes.map(LogId::from)
}

fn log_id_bytes(id: Option<&LogId>) -> Option<LogIdBytes> {
    id.map(LogIdBytes::from)
}

pub(super) fn encode_append(request: &AppendEntriesRequest<Types>) -> Result<Bytes, CodecError> {
    let entries = request.entries.iter().map(encode_entry).collect::<Result<Vec<_>, _>>()?;
    let entries_bytes: usize = entries.iter().map(Bytes::len).sum();
    let head = AppendBytes {
        vote: (&request.vote).into(),
        prev: log_id_bytes(request.prev_log_id.as_ref()),
        committed: log_id_bytes(request.leader_commit.as_ref()),
        first: request.entries.first().map_or(0, |entry| entry.log_id.index),
        lengths: entries.iter().map(|entry| entry.len() as u32).collect(),
    };
    let mut bytes = encode_head(&head, entries_bytes)?;
    for entry in entries {
        bytes.extend_from_slice(&entry);
    }
    Ok(bytes.into())
}

/// The most bytes of an append message without entries, with all its numbers at their longest.
const HEARTBEAT_BYTES_MAX: usize = 160;

/// Whether an append message has no entries, so that it may overtake those that do.
pub fn is_heartbeat(bytes: &Bytes) -> bool {
    bytes.len() <= HEARTBEAT_BYTES_MAX
        && decode_head::<AppendBytes>(bytes).is_ok_and(|(head, _)| head.lengths.is_empty())
}

pub(super) fn decode_append(bytes: &Bytes) -> Result<AppendEntriesRequest<Types>, CodecError> {
    let (head, mut tail): (AppendBytes, Bytes) = decode_head(bytes)?;
    let expected: u64 = head.lengths.iter().map(|length| u64::from(*length)).sum();
    if expected != tail.len() as u64 {
        return Err(CodecError::Length { expected, actual: tail.len() as u64 });
    }
    let mut entries = Vec::with_capacity(head.lengths.len());
    for (position, length) in (head.first..).zip(&head.lengths) {
        entries.push(decode_entry(position, &tail.split_to(*length as usize))?);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote.into(),
        prev_log_id: log_id(head.prev),
        entries,
        leader_commit: log_id(head.committed),
    })
}

pub(super) fn encode_append_answer(answer: &AppendEntriesResponse<Types>) -> Result<Bytes, CodecError> {
    encode(&match answer {
        AppendEntriesResponse::Success => AppendAnswerBytes::Success,
        AppendEntriesResponse::PartialSuccess(last) => {
            AppendAnswerBytes::PartialSuccess(log_id_bytes(last.as_ref()))
        }
        AppendEntriesResponse::Conflict => AppendAnswerBytes::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswerBytes::HigherVote(vote.into()),
    })
}

pub(super) fn decode_append_answer(bytes: &Bytes) -> Result<AppendEntriesResponse<Types>, CodecError> {
    Ok(match decode(bytes)? {
        AppendAnswerBytes::Success => AppendEntriesResponse::Success,
        AppendAnswerBytes::PartialSuccess(last) => AppendEntriesResponse::PartialSuccess(log_id(last)),
        AppendAnswerBytes::Conflict => AppendEntriesResponse::Conflict,
        AppendAnswerBytes::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
    })
}

pub(super) fn encode_vote(request: &VoteRequest<Types>) -> Result<Bytes, CodecError> {
    encode(&VoteRequestBytes {
        vote: (&request.vote).into(),
        last: log_id_bytes(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    })
}

pub(super) fn decode_vote(bytes: &Bytes) -> Result<VoteRequest<Types>, CodecError> {
    let request: VoteRequestBytes = decode(bytes)?;
    Ok(VoteRequest {
        vote: request.vote.into(),
        last_log_id: log_id(request.last),
        leadership_transfer: request.transfer,
    })
}

pub(super) fn encode_vote_answer(answer: &VoteResponse<Types>) -> Result<Bytes, CodecError> {
    encode(&VoteAnswerBytes {
        vote: (&answer.vote).into(),
        granted: answer.vote_granted,
        last: log_id_bytes(answer.last_log_id.as_ref()),
    })
}

pub(super) fn decode_vote_answer(bytes: &Bytes) -> Result<VoteResponse<Types>, CodecError> {
    let answer: VoteAnswerBytes = decode(bytes)?;
    Ok(VoteResponse {
        vote: answer.vote.into(),
        vote_granted: answer.granted,
        last_log_id: log_id(answer.last),
    })
}

pub(super) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Result<Bytes, CodecError> {
    encode(&TransferBytes {
        vote: request.from_leader().into(),
        target: request.to_node_id().0,
        last: log_id_bytes(request.last_log_id()),
    })
}

pub(super) fn decode_transfer(bytes: &Bytes) -> Result<TransferLeaderRequest<Types>, CodecError> {
    let request: TransferBytes = decode(bytes)?;
    Ok(TransferLeaderRequest::new(request.vote.into(), ReplicaId(request.target), log_id(request.last)))
}

/// The reasons of a refusal stay where they arise: the leader only gives up the transfer.
pub(super) fn encode_transfer_answer(answer: &TransferLeaderResponse<Types>) -> Result<Bytes, CodecError> {
    encode(&TransferAnswerBytes { accepted: answer.is_ok() })
}

/// Whether the target accepted.
pub(super) fn decode_transfer_answer(bytes: &Bytes) -> Result<bool, CodecError> {
    Ok(decode::<TransferAnswerBytes>(bytes)?.accepted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::types::{Batch, Entry, LeaderId, Payload, Vote};
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 2, node_id: ReplicaId(5) }, index)
    }

    fn vote() -> Vote {
        Vote::new_committed(3, ReplicaId(6))
    }

    fn append() -> AppendEntriesRequest<Types> {
        let payloads = [Payload::Blank, Payload::Normal(Batch(Bytes::from_static(b"batch")))];
        let entries = (8..).zip(payloads).map(|(index, payload)| Entry { log_id: id(index), payload });
        AppendEntriesRequest {
            vote: vote(),
            prev_log_id: Some(id(7)),
            entries: entries.collect(),
            leader_commit: Some(id(6)),
        }
    }

    #[test]
    fn only_an_append_without_entries_is_a_heartbeat() {
        let far = |index| LogId::new(LeaderId { term: u64::MAX, node_id: ReplicaId(u64::MAX) }, index);
        let heartbeat = AppendEntriesRequest {
            vote: Vote::new_committed(u64::MAX, ReplicaId(u64::MAX)),
            prev_log_id: Some(far(u64::MAX)),
            entries: Vec::new(),
            leader_commit: Some(far(u64::MAX)),
        };
        assert!(is_heartbeat(&encode_append(&heartbeat).unwrap()));
        let one = Entry { log_id: id(8), payload: Payload::Normal(Batch(Bytes::from_static(b"x"))) };
        let small = AppendEntriesRequest { entries: vec![one], ..heartbeat };
        assert!(!is_heartbeat(&encode_append(&small).unwrap()));
        assert!(!is_heartbeat(&Bytes::from_static(b"rubbish")));
    }

    #[test]
    fn appends_come_back_as_they_were() {
        let (sent, bytes) = (append(), encode_append(&append()).unwrap());
        let got = decode_append(&bytes).unwrap();
        assert_eq!(
            (got.vote, got.prev_log_id, got.leader_commit),
            (sent.vote, sent.prev_log_id, sent.leader_commit)
        );
        assert_eq!(got.entries, sent.entries);
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(9))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote()),
        ] {
            assert_eq!(decode_append_answer(&encode_append_answer(&answer).unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn votes_come_back_as_they_were() {
        let request = VoteRequest { vote: vote(), last_log_id: Some(id(4)), leadership_transfer: true };
        assert_eq!(decode_vote(&encode_vote(&request).unwrap()).unwrap(), request);
        let answer = VoteResponse { vote: vote(), vote_granted: true, last_log_id: None };
        assert_eq!(decode_vote_answer(&encode_vote_answer(&answer).unwrap()).unwrap(), answer);
    }

    #[test]
    fn transfers_come_back_as_they_were() {
        let request = TransferLeaderRequest::new(vote(), ReplicaId(4), Some(id(2)));
        assert_eq!(decode_transfer(&encode_transfer(&request).unwrap()).unwrap(), request);
        assert!(decode_transfer_answer(&encode_transfer_answer(&Ok(())).unwrap()).unwrap());
    }

    #[test]
    fn an_append_cut_anywhere_is_refused() {
        let bytes = encode_append(&append()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode_append(&bytes.slice(..end)).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = 1;
            let bytes = Bytes::from(bytes);
            let _ = decode_append(&bytes);
            let _ = decode_append_answer(&bytes);
            let _ = decode_vote(&bytes);
            let _ = decode_vote_answer(&bytes);
            let _ = decode_transfer(&bytes);
            let _ = decode_transfer_answer(&bytes);
        }
    }
}
