//! Owns the balance of replicas over zones and nodes, by command.
//!
//! - Zones come first: replicas move while that puts those of a group further apart, the catalog's too.
//! - Then those of partitions move from fuller to emptier nodes, and none that puts a group's replicas closer together. Where
//!   zones are in the way of one move, a chain of moves leaves the nodes between with as many as they had (the augmenting
//!   paths of matroid union), so that loads end as even as zones allow.
//! - Only nodes that take replicas give and get any, and only groups with a majority change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::draft::Draft;
use super::{Facts, ROUNDS_MAX};

/// A group's replica goes from one node to another.
type Move = (usize, u64, u64);

/// Spreads replicas over zones, then over nodes.
pub(super) fn balance(draft: &mut Draft<'_>) {
    let facts: &Facts<'_> = draft.facts;
    let mut loads: BTreeMap<u64, usize> = facts.state.active_nodes().map(|node| (node, 0)).collect();
    loads.extend(draft.loads());
    loads.retain(|node, _| facts.is_active(*node) && (facts.is_alive)(*node));
    let can_change = |group: &usize| facts.has_quorum(*group).is_ok();
    let groups = (0..draft.groups.len()).filter(can_change).collect();
    let mut balance = Balance { draft, loads, groups, moves_left: ROUNDS_MAX };
    balance.part();
    balance.even();
}

struct Balance<'d, 'a> {
    draft: &'d mut Draft<'a>,
    /// Replicas by node, of those that take some.
    loads: BTreeMap<u64, usize>,
    /// Those that can change.
    groups: Vec<usize>,
    moves_left: usize,
}

impl Balance<'_, '_> {
    /// Moves replicas until those of each group lie as far apart as they can.
    fn part(&mut self) {
        for group in self.groups.clone() {
            while let Some(parting) = self.parting(group).filter(|_| self.moves_left > 0) {
                self.make(parting);
            }
        }
    }

    /// The move that puts the replicas of a group further apart, if there is one.
    fn parting(&self, group: usize) -> Option<Move> {
        let (draft, held) = (&self.draft, self.draft.staying(group, None));
        let has = |node: u64| draft.groups[group].contains(&node);
        let crowd = |node: u64, load: usize| (draft.zone(node).count(&held), load, node);
        let all = || self.loads.iter().map(|(node, load)| (*node, *load));
        let (from, _) =
            all().filter(|(node, _)| has(*node)).max_by_key(|(node, load)| crowd(*node, *load))?;
        let (to, _) = all().filter(|(node, _)| !has(*node)).min_by_key(|(node, load)| crowd(*node, *load))?;
        draft.zone(from).parts(draft.zone(to), &held).then_some((group, from, to))
    }

    /// Moves replicas until no node can give one to a node with at least two fewer.
    fn even(&mut self) {
        // Those that could give none; they are asked again at the end, since others have moved.
        let (mut stuck, mut has_moved) = (BTreeSet::new(), false);
        loop {
            let open = self.loads.iter().filter(|(node, _)| !stuck.contains(*node));
            let fullest = open.map(|(node, load)| (*load, *node)).max();
            let Some((_, from)) = fullest else {
                if !has_moved {
                    return;
                }
                (stuck, has_moved) = (BTreeSet::new(), false);
                continue;
            };
            match self.chain(from).filter(|chain| chain.len() <= self.moves_left) {
                Some(chain) => {
                    chain.into_iter().for_each(|step| self.make(step));
                    has_moved = true;
                }
                None => {
                    stuck.insert(from);
                }
            }
        }
    }

    /// The fewest moves after which a node has one replica less, one that had at least two fewer has one more, and all others
    /// have as many as before. Being the fewest, none of them is in the way of another.
    fn chain(&self, from: u64) -> Option<Vec<Move>> {
        let load = *self.loads.get(&from)?;
        let mut emptiest: Vec<_> = self.loads.iter().map(|(node, load)| (*load, *node)).collect();
        emptiest.sort_unstable();
        if emptiest.first().is_none_or(|(least, _)| least + 1 >= load) {
            return None;
        }
        // By node: how it gets a replica.
        let mut gets = BTreeMap::<u64, Move>::new();
        let mut next = VecDeque::from([from]);
        while let Some(node) = next.pop_front() {
            for (few, to) in &emptiest {
                if *to == from || gets.contains_key(to) {
                    continue;
                }
                let Some(group) = self.groups.iter().find(|group| self.may_move(**group, node, *to)) else {
                    continue;
                };
                gets.insert(*to, (*group, node, *to));
                if few + 1 < load {
                    let mut chain: Vec<Move> =
                        std::iter::successors(gets.get(to).copied(), |step| gets.get(&step.1).copied())
                            .collect();
                    chain.reverse();
                    return Some(chain);
                }
                next.push_back(*to);
            }
        }
        None
    }

    /// Whether a partition's replicas lie as far apart as before when one moves.
    fn may_move(&self, group: usize, from: u64, to: u64) -> bool {
        let (draft, nodes) = (&self.draft, &self.draft.groups[group]);
        group > 0
            && nodes.contains(&from)
            && !nodes.contains(&to)
            && draft.zone(from).keeps(draft.zone(to), &draft.staying(group, None))
    }

    fn make(&mut self, (group, from, to): Move) {
        self.draft.put(group, from, to);
        self.moves_left -= 1;
        self.loads.entry(from).and_modify(|load| *load -= 1);
        self.loads.entry(to).and_modify(|load| *load += 1);
    }
}
