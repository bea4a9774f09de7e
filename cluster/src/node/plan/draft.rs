//! Owns a draft of where the replicas of all groups are to be, and the ways to make it better.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::log::GroupId;

use super::{Facts, partition_at};
use crate::catalog::{Edit, NodeState, Place};
use crate::change::ClusterRefusal;
use crate::zone::Zone;

/// The nodes of each group's replicas, as they are to be.
pub(super) struct Draft<'a> {
    pub facts: &'a Facts<'a>,
    pub groups: Vec<Vec<u64>>,
}

impl<'a> Draft<'a> {
    pub fn new(facts: &'a Facts<'a>) -> Self {
        let nodes = facts.state.groups.iter().map(|wanted| wanted.iter().map(|record| record.node).collect());
        Self { facts, groups: nodes.collect() }
    }

    pub fn holding(&self, node: u64) -> Vec<usize> {
        (0..self.groups.len()).filter(|group| self.groups[*group].contains(&node)).collect()
    }

    /// Replicas by node.
    pub fn loads(&self) -> BTreeMap<u64, usize> {
        let mut loads = BTreeMap::new();
        self.groups.iter().flatten().for_each(|node| *loads.entry(*node).or_default() += 1);
        loads
    }

    /// What may fail together with a node.
    pub fn zone(&self, node: u64) -> Zone<'a> {
        self.facts.state.nodes.get(&node).map_or(Zone::Own(node), |record| Zone::of(node, &record.zone))
    }

    /// The zones of a group's replicas that stay where they are, one for each; not that of the node that leaves.
    pub fn staying(&self, group: usize, leaves: Option<u64>) -> Vec<Zone<'a>> {
        let stays =
            |node: &u64| Some(*node) != leaves && self.facts.is_active(*node) && !(self.facts.is_lost)(*node);
        self.groups[group].iter().copied().filter(stays).map(|node| self.zone(node)).collect()
    }

    /// The node that should take the next replica of a group, or that of the node that leaves: in the zone with the fewest of
    /// those that stay.
    pub fn candidate(&self, group: usize, leaves: Option<u64>) -> Option<u64> {
        let (facts, loads, held) = (self.facts, self.loads(), self.staying(group, leaves));
        let may = |node: &u64| !self.groups[group].contains(node) && (facts.is_alive)(*node);
        facts.state.active_nodes().filter(may).min_by_key(|node| {
            (self.zone(*node).count(&held), loads.get(node).copied().unwrap_or_default(), *node)
        })
    }

    /// Gives the replicas of nodes that are gone or leave to others.
    pub fn replace_gone(&mut self, group: usize, moves_left: &mut usize) {
        let is_moving = (self.facts.is_moving)(GroupId(group as u32));
        for node in self.groups[group].clone() {
            let state = self.facts.state_of(node);
            let is_removed = state.is_none_or(|state| state == NodeState::Removed);
            let is_gone = is_removed || (self.facts.is_lost)(node);
            let leaves = state == Some(NodeState::Draining) && !is_moving && *moves_left > 0;
            if !is_gone && !leaves {
                continue;
            }
            let Some(to) = self.candidate(group, Some(node)) else {
                if is_removed && self.groups[group].len() > 1 {
                    self.groups[group].retain(|held| *held != node);
                }
                continue;
            };
            self.put(group, node, to);
            if !is_gone {
                *moves_left -= 1;
            }
        }
    }

    /// Gives a group as many replicas as it should have.
    pub fn fit(&mut self, group: usize) {
        let target = self.facts.target(group);
        let before = self.groups[group].clone();
        while self.groups[group].len() < target {
            let Some(to) = self.candidate(group, None) else {
                // Not by halves: an even number of replicas is worse than one less.
                self.groups[group] = before;
                return;
            };
            self.groups[group].push(to);
        }
        let has_more = self.groups[group].len() > target && !(self.facts.is_moving)(GroupId(group as u32));
        if has_more && !self.is_yet_to_leave(group) {
            self.shrink(group, target);
        }
    }

    /// Takes replicas away: those that are not well, then those that share a zone with the most others.
    fn shrink(&mut self, group: usize, target: usize) {
        while self.groups[group].len() > target {
            let (loads, facts, nodes) = (self.loads(), self.facts, &self.groups[group]);
            let zones: Vec<_> = nodes.iter().map(|node| self.zone(*node)).collect();
            let worst = (0..nodes.len()).max_by_key(|at| {
                let node = nodes[*at];
                let is_well = (facts.is_alive)(node) && facts.is_active(node);
                let load = loads.get(&node).copied().unwrap_or_default();
                (!is_well, zones[*at].count(&zones), *at > 0, load)
            });
            let Some(worst) = worst else { return };
            self.groups[group].remove(worst);
        }
    }

    /// Whether a replica has still to leave a drained node for one that can take it, perhaps in a zone where no other is.
    fn is_yet_to_leave(&self, group: usize) -> bool {
        let leaves = |node: &u64| self.facts.state_of(*node) == Some(NodeState::Draining);
        let leaver = self.groups[group].iter().copied().find(leaves);
        leaver.is_some_and(|node| self.candidate(group, Some(node)).is_some())
    }

    /// Chooses the preferred leaders of these groups so that all nodes have about as many.
    pub fn spread_leaders(&mut self, groups: &BTreeSet<usize>) {
        let facts = self.facts;
        let may_lead = |node: u64| facts.is_active(node) && (facts.is_alive)(node);
        // It may refuse what makes memory grow in what it leads.
        let is_over = |node: u64| facts.survey.is_over_memory(node);
        let mut leads: BTreeMap<u64, usize> = BTreeMap::new();
        let others = (0..self.groups.len()).filter(|group| !groups.contains(group));
        let firsts = others.filter_map(|group| self.groups[group].first());
        firsts.for_each(|node| *leads.entry(*node).or_default() += 1);
        for group in groups {
            let nodes = &mut self.groups[*group];
            let count = |node: u64| leads.get(&node).copied().unwrap_or_default();
            // The one that is preferred now stays so if it is as good as any.
            let best = (0..nodes.len()).filter(|at| may_lead(nodes[*at]));
            if let Some(best) = best.min_by_key(|at| (is_over(nodes[*at]), count(nodes[*at]), *at)) {
                nodes.swap(0, best);
            }
            if let Some(first) = nodes.first() {
                *leads.entry(*first).or_default() += 1;
            }
        }
    }

    pub fn put(&mut self, group: usize, from: u64, to: u64) {
        if let Some(place) = self.groups[group].iter_mut().find(|node| **node == from) {
            *place = to;
        }
    }

    /// Moves a replica, if that can be done.
    pub fn exchange(&mut self, group: usize, from: u64, to: u64) -> Result<(), ClusterRefusal> {
        let (partition, nodes) = (partition_at(group), &self.groups[group]);
        if !nodes.contains(&from) {
            return Err(ClusterRefusal::NoReplica { partition, node: from, holders: nodes.clone() });
        }
        if nodes.contains(&to) {
            return Err(ClusterRefusal::HasReplica { partition, node: to });
        }
        self.facts.has_quorum(group)?;
        self.put(group, from, to);
        Ok(())
    }

    pub fn changed(&self) -> BTreeSet<usize> {
        let is_same = |group: &usize| {
            let before = self.facts.state.wanted(*group as u32).iter().map(|record| record.node);
            before.eq(self.groups[*group].iter().copied())
        };
        (0..self.groups.len()).filter(|group| !is_same(group)).collect()
    }

    pub fn into_edit(self) -> Edit {
        let changed = self.changed();
        let places =
            |nodes: &Vec<u64>| nodes.iter().map(|node| Place { node: *node, is_new: false }).collect();
        let groups = changed.into_iter().map(|group| (group as u32, places(&self.groups[group])));
        Edit { epoch: self.facts.state.epoch, groups: groups.collect(), ..Edit::default() }
    }
}
