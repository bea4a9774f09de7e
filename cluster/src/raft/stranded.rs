//! Owns what a replica says of itself while nobody leads its group: it decides whether the group can go on, and with whom.

use std::time::Duration;

use super::group::Group;
use super::machine::Machine;
use super::types::{ReplicaAddress, ReplicaId};

/// What a replica has whose group nobody leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// Who votes, as far as it knows.
    pub voters: Vec<(ReplicaId, ReplicaAddress)>,
    /// The term and the index of its last Raft entry: the later one knows everything that was acknowledged to the other.
    pub last: (u64, u64),
}

impl<M: Machine> Group<M> {
    /// What this replica has, unless it leads, or heard a leader lately, or has nothing.
    pub fn stranded(&self) -> Option<Stranded> {
        let lately = Duration::from_millis(2 * self.inner.settings.election_max_ms);
        if self.is_leader() || self.heard().is_some_and(|(since, _)| since <= lately) {
            return None;
        }
        // A log that cannot be read has nothing to go on with.
        let (last, _) = self.inner.store.ends().ok()?;
        let last = last.map(|last| (last.leader_id.term, last.index))?;
        Some(Stranded { voters: self.members().voters.into_iter().collect(), last })
    }
}
