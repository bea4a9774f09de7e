//! Owns the command by which one node goes on with what it has, after the others are gone or in a cluster of its own.
//!
//! - It is the first command of a catalog that was recovered, so that nobody acts on what the log said before.
//! - It leaps over the epochs that others may have seen and this replica never heard of.
//! - Who votes in a partition, it does not know: those that lost their majority are found, and recovered, when the nodes
//!   that are left have said what they have.
//! - It brings the newest state that the node knows of, if its replica has less, or is made anew.
//! - Proposed again, it changes nothing.

use fanfold_storage::codec::{Encoded, Malformed, Reader};

use super::command::{CatalogOutcome, CatalogRefusal};
use super::nodes::{NodeState, ReplicaRecord};
use super::state::{CatalogState, plain_node};

/// More changes than a majority can have made that this replica missed.
pub(crate) const EPOCH_LEAP: u64 = 1 << 20;

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
    /// The newest state that is known, if it is newer than what the replica has.
    pub known: Option<Box<CatalogState>>,
}

/// What becomes of a group when nodes are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has a majority.
    GoesOn,
    /// It has lost its majority, and goes on with what one of these nodes has.
    Kept(Vec<u64>),
    /// Nobody has it.
    Lost,
}

impl CatalogState {
    /// What becomes of a group if nodes are gone, and it is on those where it is wanted.
    pub(crate) fn fate(&self, group: u32, gone: &[u64]) -> Fate {
        let wanted = self.wanted(group);
        let is_there = |node: u64| {
            !gone.contains(&node) && self.nodes.get(&node).is_some_and(|n| n.state != NodeState::Removed)
        };
        let left: Vec<u64> = wanted.iter().map(|record| record.node).filter(|n| is_there(*n)).collect();
        match left.len() {
            some if 2 * some > wanted.len() => Fate::GoesOn,
            0 => Fate::Lost,
            _ => Fate::Kept(left),
        }
    }

    pub(super) fn take_over(&mut self, taken: TakeOver) -> CatalogOutcome {
        let TakeOver { node, replica, gone, founds, address, known } = taken;
        let record = ReplicaRecord { replica, node };
        if self.wanted(0) == [record] {
            return CatalogOutcome::Done;
        }
        if let Some(known) = known.filter(|known| known.epoch > self.epoch) {
            *self = *known;
        }
        if self.cluster_id.is_none() {
            return CatalogOutcome::Refused(CatalogRefusal::NotFounded);
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
            self.begins_empty.clear();
            self.given_up_before = (0..self.groups.len() as u32).map(|group| (group, replica)).collect();
            return CatalogOutcome::Done;
        }
        self.groups[0] = vec![record];
        self.given_up_before.insert(0, replica);
        for node in gone {
            if let Some(record) = self.nodes.get_mut(&node) {
                record.state = NodeState::Removed;
            }
        }
        CatalogOutcome::Done
    }
}

/// A state that is known is the last of it, and the command has another number then.
impl Encoded for TakeOver {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        self.replica.encode(out);
        self.gone.encode(out);
        self.founds.is_some().encode(out);
        self.founds.unwrap_or_default().encode(out);
        self.address.encode(out);
        if let Some(known) = &self.known {
            known.encode(out);
        }
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
            known: None,
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
    fn one_of_the_catalog_goes_on_and_partitions_are_left_to_those_who_know() {
        let mut state = state();
        let fates = (0..5).map(|group| state.fate(group, &[2, 3])).collect::<Vec<_>>();
        let kept = |nodes: &[u64]| Fate::Kept(nodes.to_vec());
        assert_eq!(fates, [kept(&[1]), kept(&[1]), kept(&[4]), Fate::Lost, Fate::GoesOn]);
        let (before, taken) = (
            state.groups.clone(),
            TakeOver {
                node: 1,
                replica: 99,
                gone: vec![2, 3],
                founds: None,
                address: String::new(),
                known: None,
            },
        );
        assert_eq!(state.take_over(taken.clone()), CatalogOutcome::Done);
        assert_eq!(state.wanted(0), [ReplicaRecord { replica: 99, node: 1 }]);
        assert_eq!(state.groups[1..], before[1..], "their voters may be others");
        assert!(state.recovering.is_empty() && !state.is_given_up(1, 4));
        assert!(state.is_given_up(0, 2) && state.epoch > 1_000_000 && state.last_replica == 99);
        let states: Vec<_> = state.nodes.values().map(|node| node.state).collect();
        assert_eq!(states, [NodeState::Active, NodeState::Removed, NodeState::Removed, NodeState::Active]);
        let before = state.clone();
        assert_eq!(state.take_over(taken), CatalogOutcome::Done);
        assert_eq!(state, before, "once is enough");
    }

    #[test]
    fn what_is_known_counts_if_it_is_newer() {
        let (newer, mut older) = (state(), CatalogState { epoch: 51, last_replica: 7, ..state() });
        let taken = |known: &CatalogState| TakeOver {
            node: 1,
            replica: 99,
            gone: vec![2, 3],
            founds: None,
            address: String::new(),
            known: Some(Box::new(known.clone())),
        };
        let mut anew = CatalogState::default();
        assert_eq!(anew.take_over(taken(&newer)), CatalogOutcome::Done);
        assert_eq!((anew.cluster_id, anew.epoch), (Some(5), 50 + EPOCH_LEAP));
        assert_eq!(anew.wanted(0), [ReplicaRecord { replica: 99, node: 1 }]);
        let before = anew.clone();
        assert_eq!(anew.take_over(taken(&newer)), CatalogOutcome::Done);
        assert_eq!(anew, before, "once is enough");
        older.take_over(taken(&newer));
        assert_eq!(older.epoch, 51 + EPOCH_LEAP, "its own is the newest");
    }

    #[test]
    fn a_restored_node_is_alone_in_a_cluster_of_its_own() {
        let mut state = state();
        let taken = TakeOver {
            node: 1,
            replica: 99,
            gone: Vec::new(),
            founds: Some(8),
            address: "here:1".into(),
            known: None,
        };
        state.take_over(taken);
        assert_eq!((state.cluster_id, state.nodes.len()), (Some(8), 1));
        let alone = ReplicaRecord { replica: 99, node: 1 };
        assert!(state.groups.iter().all(|wanted| *wanted == [alone]));
        let mut out = Vec::new();
        state.encode(&mut out);
        assert_eq!(CatalogState::decode(&mut Reader::new(&out)).unwrap(), state);
    }
}
