//! Owns the first bytes of a connection between nodes: who calls whom, in which cluster, and why the answer may be no.
//!
//! - Nothing else is sent or served before both hellos agree.
//! - A hello has a fixed size, so that what is not one is refused after at most that many bytes.
//!
//! Format: `PEER.md`, "Hello".

use thiserror::Error;

use super::frame::take;

/// The first four bytes that each side sends.
pub const MAGIC: [u8; 4] = *b"FNFP";

/// The only version of the protocol between nodes so far.
pub const VERSION: u16 = 1;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Everything but snapshots.
    Data = 1,
    /// Snapshots.
    Snapshot = 2,
    /// One call, by a node that may not belong to the cluster yet.
    Once = 3,
}

/// What the calling node sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version it speaks.
    pub version_min: u16,
    /// The highest version it speaks.
    pub version_max: u16,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Its cluster; 0 if it has none yet.
    pub cluster: u128,
    /// Its node id; 0 if it has none yet.
    pub from: u64,
    /// The node it wants; 0 for whoever listens.
    pub to: u64,
    /// The process, by a number of three bytes that it drew when it started; 0 if it does not say.
    pub process: u32,
}

/// What the called node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloAnswer {
    /// The version that both use from here on.
    pub version: u16,
    /// Whether the connection is served.
    pub refused: Option<HelloRefusal>,
    /// The cluster of the answering node; 0 if it has none yet.
    pub cluster: u128,
    /// Its node id; 0 if it has none yet.
    pub node: u64,
    /// The largest frame it takes, in bytes.
    pub frame_bytes_max: u32,
    /// Unanswered requests it takes on the connection.
    pub requests_max: u32,
    /// Bytes of unanswered requests it takes on the connection.
    pub bytes_max: u32,
}

/// Why a connection is not served. The numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum HelloRefusal {
    /// No version of the protocol is common.
    #[error("no version of the protocol between nodes is common; update the older node")]
    Version = 1,
    /// The caller belongs to another cluster.
    #[error("it belongs to another cluster; check the address")]
    WrongCluster = 2,
    /// Another node listens here than the one that was wanted.
    #[error("another node listens there; check the advertised peer address")]
    WrongNode = 3,
    /// The caller was removed from the cluster.
    #[error("this node was removed from the cluster; join it again with an empty data directory")]
    Removed = 4,
    /// Too many connections are open.
    #[error("too many connections are open there")]
    Full = 5,
    /// The called node belongs to no cluster yet.
    #[error("it does not belong to a cluster yet")]
    NotReady = 6,
    /// The cluster does not know the caller.
    #[error("it does not know this node; join the cluster first")]
    UnknownNode = 7,
    /// Another process is connected as the same node.
    #[error("another process runs as this node, on a copy of its data directory")]
    Twice = 8,
    /// The called node is about to take the cluster over, as an operator ordered it to.
    #[error("it is about to take the cluster over, by an order of its own")]
    TakingOver = 9,
}

impl HelloRefusal {
    /// The refusal with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        use HelloRefusal::{
            Full, NotReady, Removed, TakingOver, Twice, UnknownNode, Version, WrongCluster, WrongNode,
        };
        [Version, WrongCluster, WrongNode, Removed, Full, NotReady, UnknownNode, Twice, TakingOver]
            .into_iter()
            .find(|refusal| *refusal as u8 == number)
    }
}

/// Why bytes are not a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// They begin with something else.
    #[error("the first bytes are not those of a fanfold node")]
    Magic,
    /// They do not match their checksum.
    #[error("the checksum of a hello is wrong")]
    Checksum,
    /// A field has a value that it cannot have.
    #[error("a hello has a field that this program does not know")]
    Field,
}

impl Hello {
    /// Bytes of a hello.
    pub const BYTES: usize = 48;

    /// The hello as it is sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version_min.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version_max.to_le_bytes());
        bytes[8] = self.purpose as u8;
        bytes[9..12].copy_from_slice(&self.process.to_le_bytes()[..3]);
        bytes[12..28].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.from.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.to.to_le_bytes());
        sign(&mut bytes);
        bytes
    }

    /// Reads a hello.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, HelloError> {
        check(bytes)?;
        let purpose = [Purpose::Data, Purpose::Snapshot, Purpose::Once]
            .into_iter()
            .find(|purpose| *purpose as u8 == bytes[8])
            .ok_or(HelloError::Field)?;
        Ok(Self {
            version_min: u16::from_le_bytes(take(bytes, 4)),
            version_max: u16::from_le_bytes(take(bytes, 6)),
            purpose,
            cluster: u128::from_le_bytes(take(bytes, 12)),
            from: u64::from_le_bytes(take(bytes, 28)),
            to: u64::from_le_bytes(take(bytes, 36)),
            process: u32::from_le_bytes([bytes[9], bytes[10], bytes[11], 0]),
        })
    }
}

impl HelloAnswer {
    /// Bytes of an answer.
    pub const BYTES: usize = 48;

    /// The answer as it is sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6] = self.refused.map_or(0, |refusal| refusal as u8);
        bytes[8..24].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.node.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.requests_max.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.bytes_max.to_le_bytes());
        sign(&mut bytes);
        bytes
    }

    /// Reads an answer.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, HelloError> {
        check(bytes)?;
        let refused = match bytes[6] {
            0 => None,
            number => Some(HelloRefusal::from_number(number).ok_or(HelloError::Field)?),
        };
        if bytes[7] != 0 {
            return Err(HelloError::Field);
        }
        Ok(Self {
            version: u16::from_le_bytes(take(bytes, 4)),
            refused,
            cluster: u128::from_le_bytes(take(bytes, 8)),
            node: u64::from_le_bytes(take(bytes, 24)),
            frame_bytes_max: u32::from_le_bytes(take(bytes, 32)),
            requests_max: u32::from_le_bytes(take(bytes, 36)),
            bytes_max: u32::from_le_bytes(take(bytes, 40)),
        })
    }
}

/// Puts the checksum of all before it into the last four bytes.
fn sign<const N: usize>(bytes: &mut [u8; N]) {
    let checksum = crc32fast::hash(&bytes[..N - 4]);
    bytes[N - 4..].copy_from_slice(&checksum.to_le_bytes());
}

fn check<const N: usize>(bytes: &[u8; N]) -> Result<(), HelloError> {
    if bytes[..4] != MAGIC {
        return Err(HelloError::Magic);
    }
    if crc32fast::hash(&bytes[..N - 4]) != u32::from_le_bytes(take(bytes, N - 4)) {
        return Err(HelloError::Checksum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_keep_their_numbers() {
        for number in 0..=u8::MAX {
            let refusal = HelloRefusal::from_number(number);
            assert_eq!(refusal.map(|refusal| refusal as u8), (1..=9).contains(&number).then_some(number));
        }
    }

    proptest! {
        #[test]
        fn what_is_not_a_hello_is_refused(bytes in any::<[u8; Hello::BYTES]>(), at in 0..Hello::BYTES, to: u8) {
            prop_assert!(Hello::from_bytes(&bytes).is_err());
            prop_assert!(HelloAnswer::from_bytes(&bytes).is_err());
            let hello =
                Hello { version_min: 1, version_max: 1, purpose: Purpose::Data, cluster: 7, from: 1, to: 2, process: 3 };
            let mut changed = hello.to_bytes();
            prop_assert_eq!(Hello::from_bytes(&changed), Ok(hello));
            let same = changed[at] == to;
            changed[at] = to;
            prop_assert_eq!(Hello::from_bytes(&changed).is_ok(), same);
        }
    }
}
