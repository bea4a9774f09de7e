//! Owns what nodes tell each other all the time: that they are there, their clocks, and what they lead.
//!
//! Format: `PEER.md`, "Pings".

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader, put_u64};
use fanfold_storage::log::GroupId;

/// What a ping and its answer say of the node that sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The epoch of the catalog that it knows.
    pub catalog_epoch: u64,
    /// The groups that it leads and their terms. Empty in an answer, where it says nothing.
    pub led: Vec<(GroupId, u64)>,
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
        out.into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let ping = Self {
            wall_ms: from.u64()?,
            catalog_epoch: from.u64()?,
            led: from.list(|from| Ok((GroupId(from.u32()?), from.u64()?)))?,
        };
        from.end()?;
        Ok(ping)
    }
}
