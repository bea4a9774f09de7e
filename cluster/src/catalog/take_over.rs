//! Owns the command by which one node goes on with what it has, after the others are gone or in a cluster of its own.
//!
//! - It is the first command of a catalog that was recovered, so that nobody acts on what the log said before.
//! - It leaps over the epochs that others may have seen and this replica never heard of.
//! - Proposed again, it changes nothing.

use fanfold_storage::codec::{Encoded, Malformed, Reader};

use super::command::{CatalogOutcome, CatalogRefusal};
use super::nodes::{NodeState, ReplicaRecord};
use super::state::{CatalogState, plain_node};

/// More changes than a majority can have made that this replica missed.
const EPOCH_LEAP: u64 = 1 << 20;

/// A node goes on with what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeOver {
    /// The node.
    pub node: u64,
    /// Its replica of the catalog from now on, whose id nobody has used.
    pub replica: u64,
    /// Nodes that are gone for good.
    pub gone: Vec<u64>,
    /// The id of the cluster that it founds with what it has; none if it goes on in its own.
    pub founds: Option<u128>,
    /// Where it listens for clients, until it says more.
    pub address: String,
}

/// What becomes of a group when nodes are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has a majority.
    GoesOn,
    /// It goes on with what this node has.
    Kept(u64),
    /// Nobody has it.
    Lost,
}

impl CatalogState {
    /// What becomes of a group if `node` goes on and nodes are gone.
    pub(crate) fn fate(&self, group: u32, node: u64, gone: &[u64]) -> Fate {
        let wanted = self.wanted(group);
        let is_there = |node: u64| {
            !gone.contains(&node) && self.nodes.get(&node).is_some_and(|n| n.state != NodeState::Removed)
        };
        let left: Vec<u64> = wanted.iter().map(|record| record.node).filter(|n| is_there(*n)).collect();
        match left.first() {
            _ if 2 * left.len() > wanted.len() => Fate::GoesOn,
            None => Fate::Lost,
            Some(_) if left.contains(&node) => Fate::Kept(node),
            Some(other) => Fate::Kept(*other),
        }
    }

    pub(super) fn take_over(&mut self, taken: TakeOver) -> CatalogOutcome {
        let TakeOver { node, replica, gone, founds, address } = taken;
        let record = ReplicaRecord { replica, node };
        if self.cluster_id.is_none() {
            return CatalogOutcome::Refused(CatalogRefusal::NotFounded);
        }
        if self.wanted(0) == [record] {
            return CatalogOutcome::Done;
        }
        if founds.is_none() && !self.nodes.contains_key(&node) {
            return CatalogOutcome::Refused(CatalogRefusal::UnknownNode { node });
        }
        self.last_replica = self.last_replica.max(replica);
        self.epoch += EPOCH_LEAP;
        if let Some(cluster_id) = founds {
            self.cluster_id = Some(cluster_id);
            self.nodes = [(node, plain_node(address))].into();
            self.groups.iter_mut().for_each(|wanted| *wanted = vec![record]);
            self.recovering.clear();
            self.given_up_before = (0..self.groups.len() as u32).map(|group| (group, replica)).collect();
            return CatalogOutcome::Done;
        }
        let fates: Vec<Fate> =
            (0..self.groups.len() as u32).map(|group| self.fate(group, node, &gone)).collect();
        for (group, fate) in (0u32..).zip(fates) {
            let record = match fate {
                _ if group == 0 => record,
                Fate::Kept(node) => {
                    self.last_replica += 1;
                    let record = ReplicaRecord { replica: self.last_replica, node };
                    self.recovering.insert(group, record.replica);
                    record
                }
                Fate::GoesOn | Fate::Lost => continue,
            };
            self.groups[group as usize] = vec![record];
            self.given_up_before.insert(group, record.replica);
        }
        for node in gone {
            if let Some(record) = self.nodes.get_mut(&node) {
                record.state = NodeState::Removed;
            }
        }
        CatalogOutcome::Done
    }
}

impl Encoded for TakeOver {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        self.replica.encode(out);
        self.gone.encode(out);
        self.founds.is_some().encode(out);
        self.founds.unwrap_or_default().encode(out);
        self.address.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            node: from.u64()?,
            replica: from.u64()?,
            gone: Encoded::decode(from)?,
            founds: {
                let is_there = from.flag()?;
                let cluster_id = from.u128()?;
                is_there.then_some(cluster_id)
            },
            address: from.string()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four nodes; the catalog on 1 to 3, partitions on 1 to 3, on 2 to 4, and on 2 and 3.
    fn state() -> CatalogState {
        let mut next = 0;
        let mut on = |nodes: &[u64]| -> Vec<ReplicaRecord> {
            let record = |node: &u64| {
                next += 1;
                ReplicaRecord { replica: next, node: *node }
            };
            nodes.iter().map(record).collect()
        };
        CatalogState {
            epoch: 50,
            cluster_id: Some(5),
            nodes: (1..=4).map(|node| (node, plain_node(format!("h:{node}")))).collect(),
            groups: vec![on(&[1, 2, 3]), on(&[1, 2, 3]), on(&[2, 3, 4]), on(&[2, 3]), on(&[1, 2, 4])],
            last_replica: 20,
            ..CatalogState::default()
        }
    }

    #[test]
    fn one_of_the_catalog_goes_on_and_partitions_go_on_where_they_are() {
        let mut state = state();
        let taken = TakeOver { node: 1, replica: 99, gone: vec![2, 3], founds: None, address: String::new() };
        assert_eq!(state.take_over(taken.clone()), CatalogOutcome::Done);
        let on = |group| -> Vec<u64> { state.wanted(group).iter().map(|record| record.node).collect() };
        assert_eq!((on(0), on(1), on(2)), (vec![1], vec![1], vec![4]));
        assert_eq!((on(3), on(4)), (vec![2, 3], vec![1, 2, 4]), "nobody has it, and a majority is there");
        assert_eq!(state.wanted(0)[0].replica, 99);
        assert_eq!(state.recovering, [(1, 100), (2, 101)].into());
        assert!(state.is_given_up(0, 2) && state.is_given_up(1, 4) && !state.is_given_up(1, 100));
        assert!(!state.is_given_up(4, 12) && state.epoch > 1_000_000);
        let states: Vec<_> = state.nodes.values().map(|node| node.state).collect();
        assert_eq!(states, [NodeState::Active, NodeState::Removed, NodeState::Removed, NodeState::Active]);
        let before = state.clone();
        assert_eq!(state.take_over(taken), CatalogOutcome::Done);
        assert_eq!(state, before, "once is enough");
    }

    #[test]
    fn a_restored_node_is_alone_in_a_cluster_of_its_own() {
        let mut state = state();
        let taken =
            TakeOver { node: 1, replica: 99, gone: Vec::new(), founds: Some(8), address: "here:1".into() };
        state.take_over(taken);
        assert_eq!((state.cluster_id, state.nodes.len()), (Some(8), 1));
        let alone = ReplicaRecord { replica: 99, node: 1 };
        assert!(state.groups.iter().all(|wanted| *wanted == [alone]));
        let mut out = Vec::new();
        state.encode(&mut out);
        assert_eq!(CatalogState::decode(&mut Reader::new(&out)).unwrap(), state);
    }
}
