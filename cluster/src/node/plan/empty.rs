//! Owns the beginning of a partition with nothing, where nothing is left of it, by command only.
//!
//! - A replica that is open on a live node is something, and a live node that has not said what it has may have one.
//! - What comes back later of the partition was given up, and is refused.

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupId;

use super::{Facts, partition_at};
use crate::catalog::{Edit, NodeState};
use crate::change::ClusterRefusal;

/// The edit by which a partition begins with nothing on a node.
pub(super) fn begin(facts: &Facts<'_>, partition: PartitionId, to: u64) -> Result<Edit, ClusterRefusal> {
    let group = facts.group(Some(partition))?;
    facts.takes(to)?;
    let (id, wanted) = (group as u32, facts.state.wanted(group as u32));
    if facts.state.begins_empty.contains_key(&id) && wanted.iter().all(|record| record.node == to) {
        // It goes on by itself.
        return Ok(facts.nothing());
    }
    // While what was begun with another replica does not lead, nothing is known to be well.
    let begun = facts.state.recovering.get(&id);
    let leads = |replica: &u64| facts.survey.of(GroupId(id)).is_some_and(|report| report.has(*replica));
    if begun.is_none_or(leads) && facts.has_quorum(group).is_ok() {
        return Err(ClusterRefusal::HasQuorum { partition });
    }
    let nodes = facts.may_have(group);
    if !nodes.is_empty() {
        return Err(ClusterRefusal::ReplicaLeft { partition, nodes });
    }
    Ok(Edit { empty: vec![(id, to)], ..facts.nothing() })
}

impl Facts<'_> {
    /// The live nodes that have, or may have, a replica of a group that counts.
    fn may_have(&self, group: usize) -> Vec<u64> {
        let may = |node: u64| match self.survey.held(GroupId(group as u32), node) {
            // While a recovery gets nowhere, another replica may be named instead, though it was given up.
            Some(held) => {
                let counts = !self.state.is_given_up(held.group, held.replica);
                held.is_open && (counts || self.state.recovering.contains_key(&held.group))
            }
            None => !self.survey.has_heard(node),
        };
        let members = self.state.nodes.iter().filter(|(_, record)| record.state != NodeState::Removed);
        members.map(|(node, _)| *node).filter(|node| (self.is_alive)(*node) && may(*node)).collect()
    }

    /// Checks that there is something that a partition could go on with.
    pub(super) fn something_left(&self, group: usize) -> Result<(), ClusterRefusal> {
        let Some(partition) = partition_at(group) else { return Ok(()) };
        if !self.may_have(group).is_empty() {
            return Ok(());
        }
        let silent = self.holders(group);
        let takers = self.state.active_nodes().filter(|node| (self.is_alive)(*node)).collect();
        Err(ClusterRefusal::NothingLeft { partition, silent, takers })
    }
}
