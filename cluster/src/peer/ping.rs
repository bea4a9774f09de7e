//! Owns what nodes tell each other all the time: that they are there, their clocks, and what they lead.
//!
//! Format: `PEER.md`, "Pings".

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader, put_u64};
use fanfold_storage::log::GroupId;

use crate::raft::Quiet;

/// What a ping and its answer say of the node that sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The epoch of the catalog that it knows.
    pub catalog_epoch: u64,
    /// The groups that it leads and their terms. Empty in an answer, where it says nothing.
    pub led: Vec<(GroupId, u64)>,
    /// Those of them in which nothing happens, by group. Empty in an answer, where it says nothing.
    pub quiet: Vec<(GroupId, Quiet)>,
    /// The groups of which a replica here sleeps that does not lead, and in which term; by group.
    pub asleep: Vec<(GroupId, u64)>,
    /// It is to lead nothing: its disk does not get on or is full, or it is about to stop.
    pub is_slow: bool,
    /// Its log takes no entries for want of room.
    pub is_full: bool,
}

impl Ping {
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(24 + 8 * self.led.len());
        put_u64(&mut out, self.wall_ms);
        put_u64(&mut out, self.catalog_epoch);
        put_u64(&mut out, self.led.len() as u64);
        for (group, term) in &self.led {
            group.0.encode(&mut out);
            term.encode(&mut out);
        }
        put_u64(&mut out, self.quiet.len() as u64);
        for (group, quiet) in &self.quiet {
            group.0.encode(&mut out);
            quiet.term.encode(&mut out);
            quiet.index.encode(&mut out);
        }
        put_u64(&mut out, self.asleep.len() as u64);
        for (group, term) in &self.asleep {
            group.0.encode(&mut out);
            term.encode(&mut out);
        }
        put_u64(&mut out, u64::from(self.is_slow) | u64::from(self.is_full) << 1);
        out.into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let mut ping = Self {
            wall_ms: from.u64()?,
            catalog_epoch: from.u64()?,
            led: from.list(|from| Ok((GroupId(from.u32()?), from.u64()?)))?,
            quiet: from.list(|from| {
                let group = GroupId(from.u32()?);
                Ok((group, Quiet { term: from.u64()?, index: from.u64()? }))
            })?,
            asleep: from.list(|from| Ok((GroupId(from.u32()?), from.u64()?)))?,
            ..Self::default()
        };
        let disk = from.u64()?;
        (ping.is_slow, ping.is_full) = (disk != 0, disk & 2 != 0);
        from.end()?;
        Ok(ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_beside_a_slow_one() {
        for (is_slow, is_full) in [(false, false), (true, false), (true, true)] {
            let ping = Ping { is_slow, is_full, ..Ping::default() };
            assert_eq!(Ping::from_bytes(&ping.to_bytes()).unwrap(), ping);
        }
    }
}
