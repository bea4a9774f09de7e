//! Owns where replicas go: what the keeper changes by itself, and what an operator's change comes to (C1).
//!
//! - Everything here is a function of the catalog's state, of what nodes said of themselves, and of who is alive.
//! - A group's replicas are spread over zones first, then over the nodes with the fewest. What leaves a zone leaves room in
//!   it. Nothing that happens by itself moves replicas only for that: what joined too late is made use of by a balance.
//! - Who votes is what a group's leader said last, not what is wanted: a group gets there by and by, if it can at all.
//! - Nothing is planned for a group that cannot commit it, and no node goes that one may still need.
//! - A majority is given up only by command: for one group, or with the nodes that a survivor's order removed.

use std::collections::BTreeSet;

use super::survey::{Held, Left, Surveyed};
use crate::catalog::{CatalogState, ClusterSettings, Edit, NodeState, REPLICAS_MAX, ReplicaRecord};
use crate::change::{AcceptedLoss, ClusterChange, ClusterChanged, ClusterRefusal, PlacementChange, Remains};
use crate::map::{group_of, partition_of};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupId;

mod balance;
mod draft;
mod empty;

use draft::Draft;

/// Groups that change at the same time because nodes are drained.
const MOVES_AT_ONCE: usize = 4;

/// Rounds of the keeper that are looked ahead.
const ROUNDS_MAX: usize = 4_096;

/// What a plan is made of.
pub(super) struct Facts<'a> {
    pub state: &'a CatalogState,
    /// What nodes said of themselves.
    pub survey: &'a Surveyed,
    /// Whether a node was heard of lately.
    pub is_alive: &'a dyn Fn(u64) -> bool,
    /// Whether it has been silent for so long that its replicas go elsewhere.
    pub is_lost: &'a dyn Fn(u64) -> bool,
    /// Whether a group is on its way to the replicas that it should have.
    pub is_moving: &'a dyn Fn(GroupId) -> bool,
}

/// What the keeper changes now, if anything.
pub(super) fn keep(facts: &Facts<'_>) -> Option<Edit> {
    let mut draft = Draft::new(facts);
    let moving = (0..draft.groups.len()).filter(|group| (facts.is_moving)(GroupId(*group as u32))).count();
    let mut moves_left = MOVES_AT_ONCE.saturating_sub(moving);
    for group in 0..draft.groups.len() {
        // A group that cannot commit it would get nowhere, and nobody would know any more who has what of it.
        if facts.state.recovering.contains_key(&(group as u32)) || facts.has_quorum(group).is_err() {
            continue;
        }
        draft.replace_gone(group, &mut moves_left);
        draft.fit(group);
    }
    let changed = draft.changed();
    draft.spread_leaders(&changed);
    let edit = draft.into_edit();
    (!edit.is_empty()).then_some(edit)
}

/// What goes on with one replica because nodes were removed that a majority needed: only a survivor's order does that.
/// Nobody must be silent that may know more, and groups that have a majority must have had the time to say so.
pub(super) fn give_up(facts: &Facts<'_>) -> Option<Edit> {
    let is_removed =
        |voter: &&ReplicaRecord| facts.state_of(voter.node).is_none_or(|s| s == NodeState::Removed);
    let recover = (1..facts.state.groups.len()).filter_map(|group| {
        let voters = facts.voters(group);
        if facts.state.recovering.contains_key(&(group as u32))
            || 2 * voters.iter().filter(is_removed).count() < voters.len()
        {
            return None;
        }
        let (node, left) = facts.furthest(group)?;
        // What was still being filled is less than anybody was promised.
        let votes = left.voters.iter().any(|voter| voter.node == node);
        votes.then_some((group as u32, node))
    });
    let edit = Edit { recover: recover.collect(), ..facts.nothing() };
    (!edit.is_empty()).then_some(edit)
}

/// The edit that a change asked for comes to.
pub(super) fn plan(facts: &Facts<'_>, change: ClusterChange) -> Result<Edit, ClusterRefusal> {
    let state = facts.state;
    match change {
        ClusterChange::Settings { replicas, repair_after_ms } => {
            if let Some(got) = replicas.filter(|got| got.is_multiple_of(2) || *got > REPLICAS_MAX) {
                return Err(ClusterRefusal::Replicas { got, max: REPLICAS_MAX });
            }
            let known = state.settings;
            let settings = ClusterSettings {
                replicas: replicas.unwrap_or(known.replicas),
                repair_after_ms: repair_after_ms.unwrap_or(known.repair_after_ms),
            };
            let settings = (settings != known).then_some(settings);
            Ok(Edit { epoch: state.epoch, settings, ..Edit::default() })
        }
        ClusterChange::Drain { node } => {
            if !(facts.is_alive)(node) {
                // It would drain for ever.
                facts.can_lose(node)?;
            }
            if facts.member(node)? == NodeState::Draining {
                return Ok(facts.nothing());
            }
            facts.may_leave(node)?;
            facts.may_drain(node)?;
            Ok(facts.set(node, NodeState::Draining))
        }
        ClusterChange::Undrain { node } => match facts.member(node)? {
            NodeState::Active => Ok(facts.nothing()),
            _ => Ok(facts.set(node, NodeState::Active)),
        },
        ClusterChange::Remove { node } => remove(facts, node),
        ClusterChange::Replace { node, by } => replace(facts, node, by),
        ClusterChange::Move { partition, from, to } => {
            let group = facts.group(partition)?;
            facts.member(from)?;
            facts.takes(to)?;
            let mut draft = Draft::new(facts);
            draft.exchange(group, from, to)?;
            Ok(draft.into_edit())
        }
        ClusterChange::Recover { partition, from } => recover(facts, partition, from),
        ClusterChange::BeginEmpty { partition, to } => empty::begin(facts, partition, to),
        // It is no edit: nothing moves.
        ClusterChange::Upgrade { .. } => Ok(facts.nothing()),
        ClusterChange::Balance => {
            let mut draft = Draft::new(facts);
            balance::balance(&mut draft);
            let all: BTreeSet<usize> = (0..draft.groups.len()).collect();
            draft.spread_leaders(&all);
            Ok(draft.into_edit())
        }
    }
}

/// The edit that makes a node the preferred leader of a group.
pub(super) fn prefer(
    facts: &Facts<'_>,
    partition: Option<PartitionId>,
    to: u64,
) -> Result<Edit, ClusterRefusal> {
    let group = facts.group(partition)?;
    facts.takes(to)?;
    let mut draft = Draft::new(facts);
    let nodes = &mut draft.groups[group];
    let Some(at) = nodes.iter().position(|node| *node == to) else {
        return Err(ClusterRefusal::NoReplica { partition, node: to, holders: nodes.clone() });
    };
    facts.has_quorum(group)?;
    nodes[..=at].rotate_right(1);
    Ok(draft.into_edit())
}

/// What an edit changes, with what the keeper does about it later.
pub(super) fn outcome(facts: &Facts<'_>, edit: &Edit) -> ClusterChanged {
    let mut state = facts.state.edited(edit);
    let nothing_moves = |_| false;
    for _ in 0..ROUNDS_MAX {
        let later = Facts { state: &state, is_moving: &nothing_moves, ..*facts };
        let Some(edit) = keep(&later) else { break };
        state = state.edited(&edit);
    }
    let nodes_of = |state: &CatalogState, group: u32| -> Vec<u64> {
        state.wanted(group).iter().map(|record| record.node).collect()
    };
    let groups = 0..facts.state.groups.len() as u32;
    let placement = groups.filter_map(|group| {
        let (from, to) = (nodes_of(facts.state, group), nodes_of(&state, group));
        (from != to).then(|| PlacementChange { partition: partition_of(GroupId(group)), from, to })
    });
    ClusterChanged {
        epoch: facts.state.epoch,
        nodes: edit.nodes.clone(),
        placement: placement.collect(),
        settings: edit.settings,
        level: None,
        emptied: edit
            .empty
            .iter()
            .filter_map(|(group, node)| Some((partition_of(GroupId(*group))?, *node)))
            .collect(),
        losses: edit
            .recover
            .iter()
            .filter_map(|(group, kept)| {
                let nodes = facts.holders(*group as usize).into_iter();
                let given_up = nodes.filter(|node| node != kept).collect();
                let left = facts.remains(*group as usize);
                Some(AcceptedLoss { partition: partition_of(GroupId(*group))?, kept: *kept, given_up, left })
            })
            .collect(),
    }
}

fn recover(facts: &Facts<'_>, partition: PartitionId, from: u64) -> Result<Edit, ClusterRefusal> {
    let group = facts.group(Some(partition))?;
    facts.member(from)?;
    if let Err(nothing @ ClusterRefusal::NothingLeft { .. }) = facts.has_quorum(group) {
        return Err(nothing);
    }
    if !(facts.is_alive)(from) {
        return Err(ClusterRefusal::NodeSilent { node: from });
    }
    let holders = facts.holders(group);
    if !holders.contains(&from) {
        return Err(ClusterRefusal::NoReplica { partition: Some(partition), node: from, holders });
    }
    let (id, wanted) = (GroupId(group as u32), facts.state.wanted(group as u32));
    let begun = facts.state.recovering.get(&id.0);
    if begun.is_some() && wanted.iter().all(|record| record.node == from) {
        // It goes on by itself.
        return Ok(facts.nothing());
    }
    // What was begun with another replica may get nowhere; while that does not lead, nothing is known to be well.
    let leads = |replica: &u64| facts.survey.of(id).is_some_and(|report| report.has(*replica));
    if begun.is_none_or(leads) && facts.has_quorum(group).is_ok() {
        return Err(ClusterRefusal::HasQuorum { partition });
    }
    match facts.survey.held(id, from) {
        Some(held) if held.is_open => {}
        Some(_) => return Err(ClusterRefusal::ReplicaDamaged { partition, node: from }),
        None if facts.survey.has_heard(from) => {
            let holders = facts.survey.holders(id).collect();
            return Err(ClusterRefusal::NoReplica { partition: Some(partition), node: from, holders });
        }
        // It has said nothing yet.
        None => return Err(ClusterRefusal::NodeSilent { node: from }),
    }
    Ok(Edit { recover: vec![(group as u32, from)], ..facts.nothing() })
}

fn remove(facts: &Facts<'_>, node: u64) -> Result<Edit, ClusterRefusal> {
    if facts.member(node)? == NodeState::Active || !(facts.is_alive)(node) {
        facts.may_leave(node)?;
    }
    let mut draft = Draft::new(facts);
    if (facts.is_alive)(node) {
        let replicas = (0..draft.groups.len()).filter(|group| facts.may_hold(*group, node)).count() as u32;
        if replicas > 0 {
            return Err(ClusterRefusal::NotDrained { node, replicas });
        }
    }
    facts.can_lose(node)?;
    for group in draft.holding(node) {
        facts.has_quorum(group)?;
        match draft.candidate(group, Some(node)) {
            Some(to) => draft.exchange(group, node, to)?,
            None if draft.groups[group].len() > 1 => draft.groups[group].retain(|held| *held != node),
            None => return Err(ClusterRefusal::LastVoter { node, partition: partition_at(group) }),
        }
    }
    Ok(Edit { nodes: vec![(node, NodeState::Removed)], ..draft.into_edit() })
}

fn replace(facts: &Facts<'_>, node: u64, by: u64) -> Result<Edit, ClusterRefusal> {
    facts.member(node)?;
    if node == by {
        return Err(ClusterRefusal::Itself { node });
    }
    facts.takes(by)?;
    let mut draft = Draft::new(facts);
    for group in draft.holding(node) {
        let to =
            if draft.groups[group].contains(&by) { draft.candidate(group, Some(node)) } else { Some(by) };
        match to {
            Some(to) => draft.exchange(group, node, to)?,
            // The catalog has more voters the more nodes there are: it may have come to the newcomer by itself.
            None if group == 0
                && (3..draft.groups[0].len()).contains(&facts.catalog_target_without(node)) =>
            {
                facts.has_quorum(group)?;
                draft.groups[group].retain(|held| *held != node);
            }
            None => return Err(ClusterRefusal::HasReplica { partition: partition_at(group), node: by }),
        }
    }
    let state = if (facts.is_alive)(node) { NodeState::Draining } else { NodeState::Removed };
    if state == NodeState::Removed {
        facts.can_lose(node)?;
    }
    Ok(Edit { nodes: vec![(node, state)], ..draft.into_edit() })
}

impl Facts<'_> {
    fn nothing(&self) -> Edit {
        Edit { epoch: self.state.epoch, ..Edit::default() }
    }

    fn set(&self, node: u64, state: NodeState) -> Edit {
        Edit { nodes: vec![(node, state)], ..self.nothing() }
    }

    fn state_of(&self, node: u64) -> Option<NodeState> {
        Some(self.state.nodes.get(&node)?.state)
    }

    fn is_active(&self, node: u64) -> bool {
        self.state_of(node) == Some(NodeState::Active)
    }

    /// The state of a node that belongs to the cluster.
    fn member(&self, node: u64) -> Result<NodeState, ClusterRefusal> {
        match self.state_of(node) {
            None => {
                let known = self.state.present_nodes().collect();
                Err(ClusterRefusal::UnknownNode { node, known })
            }
            Some(NodeState::Removed) => Err(ClusterRefusal::NodeRemoved { node }),
            Some(state) => Ok(state),
        }
    }

    /// The place of a group, if there is such a partition.
    fn group(&self, partition: Option<PartitionId>) -> Result<usize, ClusterRefusal> {
        let (group, groups) = (group_of(partition).0 as usize, self.state.groups.len());
        let partitions = u16::try_from(groups.saturating_sub(1)).unwrap_or(u16::MAX);
        match partition {
            Some(partition) if group >= groups => {
                Err(ClusterRefusal::UnknownPartition { partition, partitions })
            }
            _ => Ok(group),
        }
    }

    /// Checks that a node can be given replicas.
    fn takes(&self, node: u64) -> Result<(), ClusterRefusal> {
        match self.member(node)? {
            NodeState::Active if (self.is_alive)(node) => Ok(()),
            NodeState::Active => Err(ClusterRefusal::NodeSilent { node }),
            _ => Err(ClusterRefusal::NodeDraining { node }),
        }
    }

    /// Checks that the others can hold as many replicas as groups have now.
    fn may_leave(&self, node: u64) -> Result<(), ClusterRefusal> {
        let left = self.state.active_nodes().filter(|other| *other != node).count();
        if left == 0 {
            return Err(ClusterRefusal::LastVoter { node, partition: None });
        }
        self.are_enough(node, left, Vec::new())
    }

    /// Checks that those who can take replicas now can hold as many as groups have: a drain ends only when each of the node's
    /// replicas was taken by somebody.
    fn may_drain(&self, node: u64) -> Result<(), ClusterRefusal> {
        let others = self.state.active_nodes().filter(|other| *other != node);
        let (alive, silent): (Vec<u64>, Vec<u64>) = others.partition(|other| (self.is_alive)(*other));
        self.are_enough(node, alive.len(), silent)
    }

    fn are_enough(&self, node: u64, left: usize, silent: Vec<u64>) -> Result<(), ClusterRefusal> {
        let replicas = self.state.groups.iter().skip(1).map(Vec::len).max().unwrap_or(1).max(self.target(1));
        if replicas > left {
            let (replicas, left) = (replicas as u8, left as u32);
            return Err(ClusterRefusal::BelowReplicas { node, replicas, left, silent });
        }
        Ok(())
    }

    /// Who votes in a group, as its leader said last; if none has said anything, as the furthest of its replicas knows; who
    /// should, if nobody knows.
    fn voters(&self, group: usize) -> &[ReplicaRecord] {
        if let Some(report) = self.survey.of(GroupId(group as u32)) {
            return &report.voters;
        }
        let left = self.furthest(group).map(|(_, left)| &left.voters).filter(|voters| !voters.is_empty());
        left.map_or_else(|| self.state.wanted(group as u32), Vec::as_slice)
    }

    /// The node that has the most of a group that nobody leads, and what it knows of it.
    fn furthest(&self, group: usize) -> Option<(u64, &Left)> {
        self.survey.furthest(GroupId(group as u32), |node, held| self.is_there(node, held))
    }

    /// What live nodes have of a group that nobody leads, the furthest first.
    fn remains(&self, group: usize) -> Vec<Remains> {
        let left = self.survey.left(GroupId(group as u32), |node, held| self.is_there(node, held));
        let remains = left.map(|(node, left)| Remains { node, last: left.last, applied: left.applied });
        let mut remains: Vec<_> = remains.collect();
        let leader = self.leads_nobody(group);
        remains.extend(leader.filter(|leader| remains.iter().all(|other| other.node != leader.node)));
        remains.sort_by_key(|remains| std::cmp::Reverse(remains.last));
        remains
    }

    /// What the replica has that led a group last: without the others it does so in vain.
    fn leads_nobody(&self, group: usize) -> Option<Remains> {
        let id = GroupId(group as u32);
        let report = self.survey.of(id)?;
        let (replica, index) = report.leader;
        let node = report.members().find(|record| record.replica == replica)?.node;
        let held = self.survey.held(id, node).filter(|held| held.is_open && held.replica == replica)?;
        let remains = || Remains { node, last: (report.term, index), applied: report.applied };
        self.is_there(node, held).then(remains)
    }

    fn is_there(&self, node: u64, held: &Held) -> bool {
        let is_member = self.state_of(node).is_some_and(|state| state != NodeState::Removed);
        is_member && (self.is_alive)(node) && !self.state.is_given_up(held.group, held.replica)
    }

    /// The nodes that have something of a group, as its leader said last, or else as they say.
    fn holders(&self, group: usize) -> Vec<u64> {
        let id = GroupId(group as u32);
        let nodes: Vec<u64> = match self.survey.of(id) {
            Some(report) => report.members().map(|record| record.node).collect(),
            None => {
                self.voters(group).iter().map(|record| record.node).chain(self.survey.holders(id)).collect()
            }
        };
        let mut seen = BTreeSet::new();
        nodes.into_iter().filter(|node| seen.insert(*node)).collect()
    }

    /// Checks that a group can change at all: that most of its voters take part.
    fn has_quorum(&self, group: usize) -> Result<(), ClusterRefusal> {
        let (id, voters) = (GroupId(group as u32), self.voters(group));
        let is_gone =
            |voter: &&ReplicaRecord| !(self.is_alive)(voter.node) || self.survey.is_closed(id, voter);
        let silent: Vec<u64> = voters.iter().filter(is_gone).map(|voter| voter.node).collect();
        if 2 * silent.len() < voters.len() {
            return Ok(());
        }
        self.something_left(group)?;
        Err(ClusterRefusal::QuorumLost { partition: partition_at(group), silent })
    }

    /// Whether a group may have a replica on a node, or be about to get one there.
    fn may_hold(&self, group: usize, node: u64) -> bool {
        let is_wanted = self.state.wanted(group as u32).iter().any(|record| record.node == node);
        // A leader that goes by an older catalog may know less.
        let goes_without = self.survey.of(GroupId(group as u32)).is_some_and(|report| {
            report.settled_epoch > 0 && report.settled_epoch >= self.state.epoch && !report.is_on(node)
        });
        is_wanted || !goes_without
    }

    /// Checks that the groups that a silent node votes in go on without it.
    fn can_lose(&self, node: u64) -> Result<(), ClusterRefusal> {
        let mut groups = 0..self.state.groups.len();
        groups.try_for_each(|group| {
            let votes = self.voters(group).iter().any(|voter| voter.node == node);
            if votes { self.has_quorum(group) } else { Ok(()) }
        })
    }

    /// Replicas that a group should have.
    fn target(&self, group: usize) -> usize {
        let active = self.state.active_nodes().count();
        if group == 0 {
            return catalog_target(active);
        }
        let most = usize::from(self.state.settings.replicas).min(active).max(1);
        if most.is_multiple_of(2) { most - 1 } else { most }
    }

    /// Replicas that the catalog should have when a node takes none any more.
    fn catalog_target_without(&self, node: u64) -> usize {
        catalog_target(self.state.active_nodes().filter(|other| *other != node).count())
    }
}

fn catalog_target(active: usize) -> usize {
    match active {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// The partition of a group by its place; none is the catalog's.
fn partition_at(group: usize) -> Option<PartitionId> {
    partition_of(GroupId(group as u32))
}

#[cfg(test)]
mod tests;
