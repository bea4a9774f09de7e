//! Owns the bytes of Raft's own structures, in the log and between peers.
//!
//! - Everything starts with a format version; what follows is bincode with a limit, of structures defined here, so
//!   that a change inside openraft cannot change the format.
//! - A batch is never passed through bincode: its bytes follow the head as they are, and are not copied on reading.
//! - Nothing read here panics or allocates more than it received.

use std::collections::{BTreeMap, BTreeSet};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use bytes::Bytes;
use thiserror::Error;

use super::types::{
    Batch, Entry, LeaderId, LogId, Membership, Payload, ReplicaAddress, ReplicaId, SnapshotMeta,
    StoredMembership, Vote,
};

/// The version of all formats in this file.
pub(super) const FORMAT_VERSION: u8 = 1;

/// The most bytes that the head of a message or Raft entry may have, batches not counted.
pub(super) const HEAD_BYTES_MAX: usize = 256 << 10;

const CONFIG: Configuration<LittleEndian, Varint, Limit<HEAD_BYTES_MAX>> =
    bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();

/// Why bytes are not what they should be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There are no bytes at all.
    #[error("empty where a format version was expected")]
    Empty,
    /// Another format version.
    #[error("format version {version}, this program reads version {FORMAT_VERSION}")]
    Version {
        /// What the bytes say.
        version: u8,
    },
    /// The head is malformed or passes its limit.
    #[error("malformed head: {0}")]
    Head(#[source] DecodeError),
    /// The head could not be written; it passes its limit.
    #[error("head cannot be encoded: {0}")]
    Encode(#[source] EncodeError),
    /// Bytes follow where there should be none, or fewer follow than announced.
    #[error("{actual} bytes follow the head, {expected} were announced")]
    Length {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        actual: u64,
    },
    /// A part of a snapshot is not what was sent.
    #[error("a part of a snapshot does not match its checksum")]
    Checksum,
    /// A Raft entry stands at an index that is not its own.
    #[error("the Raft entry at index {position} says it is {index}")]
    WrongIndex {
        /// Where it stands.
        position: u64,
        /// What it says.
        index: u64,
    },
    /// A membership that no group can have.
    #[error("a membership without voters, or with a voter that is not a member")]
    Membership,
}

/// Writes the version and a head; `tail_bytes` more will follow.
pub(super) fn encode_head(head: &impl Encode, tail_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(64 + tail_bytes);
    bytes.push(FORMAT_VERSION);
    bincode::encode_into_std_write(head, &mut bytes, CONFIG).map_err(CodecError::Encode)?;
    Ok(bytes)
}

/// Reads the version and a head; returns what follows it.
pub(super) fn decode_head<H: Decode<()>>(bytes: &Bytes) -> Result<(H, Bytes), CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != FORMAT_VERSION {
        return Err(CodecError::Version { version });
    }
    let (head, used) = bincode::decode_from_slice(rest, CONFIG).map_err(CodecError::Head)?;
    Ok((head, bytes.slice(1 + used..)))
}

/// Writes a head that nothing follows.
pub(super) fn encode(head: &impl Encode) -> Result<Bytes, CodecError> {
    encode_head(head, 0).map(Bytes::from)
}

/// Reads a head that nothing follows.
pub(super) fn decode<H: Decode<()>>(bytes: &Bytes) -> Result<H, CodecError> {
    let (head, tail) = decode_head(bytes)?;
    if !tail.is_empty() {
        return Err(CodecError::Length { expected: 0, actual: tail.len() as u64 });
    }
    Ok(head)
}

/// Writes a Raft entry as it stands in the log and in messages.
pub(super) fn encode_entry(entry: &Entry) -> Result<Bytes, CodecError> {
    let (kind, batch) = match &entry.payload {
        Payload::Blank => (KindBytes::Blank, None),
        Payload::Normal(batch) => (KindBytes::Batch, Some(batch)),
        Payload::Membership(membership) => (KindBytes::Membership(membership.into()), None),
    };
    let batch: &[u8] = batch.map_or(&[], |batch| &batch.0);
    let mut bytes = encode_head(&EntryBytes { log_id: (&entry.log_id).into(), kind }, batch.len())?;
    bytes.extend_from_slice(batch);
    Ok(bytes.into())
}

/// Reads a Raft entry that stands at index `position`.
pub(super) fn decode_entry(position: u64, bytes: &Bytes) -> Result<Entry, CodecError> {
    let (head, tail): (EntryBytes, Bytes) = decode_head(bytes)?;
    let log_id = LogId::from(head.log_id);
    if log_id.index != position {
        return Err(CodecError::WrongIndex { position, index: log_id.index });
    }
    let payload = match head.kind {
        KindBytes::Batch => return Ok(Entry { log_id, payload: Payload::Normal(Batch(tail)) }),
        KindBytes::Blank => Payload::Blank,
        KindBytes::Membership(membership) => Payload::Membership(membership.try_into()?),
    };
    if !tail.is_empty() {
        return Err(CodecError::Length { expected: 0, actual: tail.len() as u64 });
    }
    Ok(Entry { log_id, payload })
}

#[derive(Debug, Encode, Decode)]
struct EntryBytes {
    log_id: LogIdBytes,
    kind: KindBytes,
}

#[derive(Debug, Encode, Decode)]
enum KindBytes {
    Blank,
    Batch,
    Membership(MembershipBytes),
}

/// A log id.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct LogIdBytes {
    term: u64,
    leader: u64,
    index: u64,
}

impl From<&LogId> for LogIdBytes {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id.0, index: id.index }
    }
}

impl From<LogIdBytes> for LogId {
    fn from(bytes: LogIdBytes) -> Self {
        let leader_id = LeaderId { term: bytes.term, node_id: ReplicaId(bytes.leader) };
        Self::new(leader_id, bytes.index)
    }
}

/// A vote.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct VoteBytes {
    term: u64,
    replica: u64,
    committed: bool,
}

impl From<&Vote> for VoteBytes {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, replica: vote.leader_id.node_id.0, committed: vote.committed }
    }
}

impl From<VoteBytes> for Vote {
    fn from(bytes: VoteBytes) -> Self {
        let leader_id = LeaderId { term: bytes.term, node_id: ReplicaId(bytes.replica) };
        Self { leader_id, committed: bytes.committed }
    }
}

/// A membership.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct MembershipBytes {
    voters: Vec<Vec<u64>>,
    members: Vec<(u64, String)>,
}

impl From<&Membership> for MembershipBytes {
    fn from(membership: &Membership) -> Self {
        let voters = membership.get_joint_config().iter();
        Self {
            voters: voters.map(|set| set.iter().map(|replica| replica.0).collect()).collect(),
            members: membership.nodes().map(|(replica, address)| (replica.0, address.0.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipBytes> for Membership {
    type Error = CodecError;

    fn try_from(bytes: MembershipBytes) -> Result<Self, CodecError> {
        if bytes.voters.is_empty() && bytes.members.is_empty() {
            return Ok(Self::default());
        }
        let set = |set: Vec<u64>| set.into_iter().map(ReplicaId).collect::<BTreeSet<_>>();
        let voters = bytes.voters.into_iter().map(set).collect();
        let member = |(replica, address)| (ReplicaId(replica), ReplicaAddress(address));
        let members: BTreeMap<_, _> = bytes.members.into_iter().map(member).collect();
        Self::new(voters, members).map_err(|_| CodecError::Membership)
    }
}

/// A membership with the log id it was set at.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct StoredMembershipBytes {
    log_id: Option<LogIdBytes>,
    membership: MembershipBytes,
}

impl From<&StoredMembership> for StoredMembershipBytes {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: stored.log_id().as_ref().map(LogIdBytes::from),
            membership: stored.membership().into(),
        }
    }
}

impl TryFrom<StoredMembershipBytes> for StoredMembership {
    type Error = CodecError;

    fn try_from(bytes: StoredMembershipBytes) -> Result<Self, CodecError> {
        Ok(Self::new(bytes.log_id.map(LogId::from), bytes.membership.try_into()?))
    }
}

/// What Raft notes with a snapshot.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct SnapshotMetaBytes {
    last: Option<LogIdBytes>,
    membership: StoredMembershipBytes,
}

impl From<&SnapshotMeta> for SnapshotMetaBytes {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.as_ref().map(LogIdBytes::from),
            membership: (&meta.last_membership).into(),
        }
    }
}

impl TryFrom<SnapshotMetaBytes> for SnapshotMeta {
    type Error = CodecError;

    fn try_from(bytes: SnapshotMetaBytes) -> Result<Self, CodecError> {
        let last_membership = bytes.membership.try_into()?;
        Ok(Self { last_log_id: bytes.last.map(LogId::from), last_membership })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::golden::golden;

    fn log_id(term: u64, leader: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: ReplicaId(leader) }, index)
    }

    fn membership() -> Membership {
        let voters = vec![BTreeSet::from([ReplicaId(1), ReplicaId(2)]), BTreeSet::from([ReplicaId(2)])];
        let members: BTreeMap<_, _> =
            (1..=3).map(|id| (ReplicaId(id), ReplicaAddress(format!("host-{id}:7117")))).collect();
        Membership::new(voters, members).unwrap()
    }

    fn entries() -> Vec<Entry> {
        let payloads = [
            Payload::Blank,
            Payload::Normal(Batch(Bytes::from_static(b"abc"))),
            Payload::Membership(membership()),
        ];
        payloads.into_iter().map(|payload| Entry { log_id: log_id(3, 9, 77), payload }).collect()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for entry in entries() {
            let bytes = encode_entry(&entry).unwrap();
            assert_eq!(decode_entry(77, &bytes).unwrap(), entry);
        }
    }

    #[test]
    fn the_golden_heads_are_read_and_written_again_as_they_are() {
        for (name, entry) in ["raft_blank", "raft_batch", "raft_membership"].iter().zip(entries()) {
            let bytes = golden(name, &encode_entry(&entry).unwrap());
            assert_eq!(decode_entry(77, &bytes.into()).unwrap(), entry, "{name}");
        }
        let vote = Vote { leader_id: LeaderId { term: 70_000, node_id: ReplicaId(9) }, committed: true };
        let bytes = golden("raft_vote", &encode(&VoteBytes::from(&vote)).unwrap());
        assert_eq!(Vote::from(decode::<VoteBytes>(&bytes.into()).unwrap()), vote);
        let at = log_id(3, 9, 1 << 40);
        let bytes = golden("raft_log_id", &encode(&LogIdBytes::from(&at)).unwrap());
        assert_eq!(LogId::from(decode::<LogIdBytes>(&bytes.into()).unwrap()), at);
        let last_membership = StoredMembership::new(Some(log_id(3, 9, 77)), membership());
        let meta = SnapshotMeta { last_log_id: Some(at), last_membership };
        let bytes = golden("raft_snapshot_meta", &encode(&SnapshotMetaBytes::from(&meta)).unwrap());
        let read = SnapshotMeta::try_from(decode::<SnapshotMetaBytes>(&bytes.into()).unwrap()).unwrap();
        assert_eq!(read, meta);
    }

    #[test]
    fn an_entry_at_a_foreign_index_is_refused() {
        let bytes = encode_entry(&entries()[0]).unwrap();
        assert!(matches!(decode_entry(78, &bytes), Err(CodecError::WrongIndex { position: 78, index: 77 })));
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = encode_entry(&entries()[0]).unwrap().to_vec();
        bytes[0] = 2;
        assert!(matches!(decode_entry(77, &bytes.into()), Err(CodecError::Version { version: 2 })));
        assert!(matches!(decode_entry(77, &Bytes::new()), Err(CodecError::Empty)));
    }

    #[test]
    fn bytes_after_a_blank_entry_are_refused() {
        let mut bytes = encode_entry(&entries()[0]).unwrap().to_vec();
        bytes.push(0);
        assert!(matches!(
            decode_entry(77, &bytes.into()),
            Err(CodecError::Length { expected: 0, actual: 1 })
        ));
    }

    #[test]
    fn a_membership_without_voters_is_refused_but_the_initial_one_is_not() {
        let bytes = MembershipBytes { voters: vec![vec![]], members: vec![(1, String::new())] };
        assert!(matches!(Membership::try_from(bytes), Err(CodecError::Membership)));
        let initial = MembershipBytes::from(&Membership::default());
        assert_eq!(Membership::try_from(initial).unwrap(), Membership::default());
    }

    #[test]
    fn a_head_that_announces_more_than_the_limit_is_refused_before_allocation() {
        // A membership with 2^40 sets of voters: kind 2, then the length as a 64-bit varint.
        let mut bytes = vec![FORMAT_VERSION, 0, 0, 77, 2, 253];
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(matches!(decode_entry(77, &bytes.into()), Err(CodecError::Head(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = FORMAT_VERSION;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(entry) = decode_entry(3, &bytes) {
                prop_assert_eq!(decode_entry(3, &encode_entry(&entry).unwrap()).unwrap(), entry);
            }
        }
    }
}
