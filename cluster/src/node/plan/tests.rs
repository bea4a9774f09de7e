//! What the keeper and an operator's changes come to.

use super::*;
use crate::catalog::{NodeRecord, ReplicaRecord};
use crate::node::survey::{GroupReport, Held, NodeReport};
use fanfold_storage::ids::Stamp;

mod zones;

const PARTITIONS: usize = 4;

/// Nodes by number with their zones, and groups that the first holds.
fn founded(zones: &[&str]) -> CatalogState {
    let record = |zone: &str| NodeRecord {
        address: String::new(),
        peer_address: String::new(),
        zone: zone.to_owned(),
        state: NodeState::Active,
        directory_id: 0,
    };
    CatalogState {
        nodes: (1..).zip(zones.iter().map(|zone| record(zone))).collect(),
        groups: vec![vec![ReplicaRecord { replica: 1, node: 1 }]; PARTITIONS + 1],
        last_replica: 1,
        epoch: 7,
        ..CatalogState::default()
    }
}

/// Lets the keeper work until it is done; all moves are made at once.
fn kept(mut state: CatalogState, lost: &[u64]) -> CatalogState {
    for _ in 0..100 {
        let edit = with(&state, lost, keep);
        let Some(edit) = edit else { return state };
        assert!(edit.groups.iter().all(|(_, places)| places.len() % 2 == 1), "{edit:?}");
        state = state.edited(&edit);
    }
    panic!("no end");
}

fn with<T>(state: &CatalogState, lost: &[u64], plan: impl FnOnce(&Facts<'_>) -> T) -> T {
    with_survey(state, &surveyed(state), lost, plan)
}

fn with_survey<T>(
    state: &CatalogState,
    survey: &Surveyed,
    lost: &[u64],
    plan: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let is_lost = |node: u64| lost.contains(&node);
    let is_alive = |node: u64| !lost.contains(&node);
    plan(&Facts { state, survey, is_alive: &is_alive, is_lost: &is_lost, is_moving: &|_| false })
}

/// What nodes say where all groups are as they should be.
fn surveyed(state: &CatalogState) -> Surveyed {
    let mut survey = Surveyed::default();
    for node in state.nodes.keys() {
        let groups = (0..).zip(&state.groups);
        let report = |(group, wanted): (u32, &Vec<ReplicaRecord>)| GroupReport {
            group,
            term: 1,
            settled_epoch: state.epoch,
            voters: wanted.clone(),
            learners: Vec::new(),
            lag: Vec::new(),
            leader: (wanted[0].replica, 50),
            applied: Stamp(50),
        };
        let led = groups.clone().filter(|(_, wanted)| wanted[0].node == *node).map(report).collect();
        let held = groups.filter_map(|(group, wanted)| {
            let replica = wanted.iter().find(|record| record.node == *node)?.replica;
            Some(Held { group, replica, is_open: true, applied: 0, stranded: None, marks: Vec::new() })
        });
        survey.note(*node, NodeReport { led, held: held.collect(), ..NodeReport::default() });
    }
    survey
}

fn changed(
    state: &CatalogState,
    lost: &[u64],
    change: ClusterChange,
) -> Result<CatalogState, ClusterRefusal> {
    with(state, lost, |facts| plan(facts, change)).map(|edit| state.edited(&edit))
}

fn nodes(state: &CatalogState, group: usize) -> BTreeSet<u64> {
    state.groups[group].iter().map(|record| record.node).collect()
}

#[test]
fn a_group_has_as_many_replicas_as_there_are_nodes_for() {
    for (count, replicas, catalog, partition) in [
        (1, 3, 1, 1),
        (2, 3, 1, 1),
        (3, 3, 3, 3),
        (4, 3, 3, 3),
        (5, 3, 5, 3),
        (5, 5, 5, 5),
        (5, 1, 5, 1),
        (4, 4, 3, 3),
    ] {
        let mut state = founded(&vec![""; count]);
        state.settings.replicas = replicas;
        let state = kept(state, &[]);
        let lengths: Vec<_> = state.groups.iter().map(Vec::len).collect();
        assert_eq!(
            (lengths[0], &lengths[1..]),
            (catalog, &[partition; PARTITIONS][..]),
            "{count} {replicas}"
        );
    }
}

#[test]
fn replicas_are_in_as_many_zones_as_there_are() {
    let state = kept(founded(&["a", "a", "b", "b", "c"]), &[]);
    for group in 1..=PARTITIONS {
        let zones: BTreeSet<_> = nodes(&state, group).iter().map(|n| state.nodes[n].zone.clone()).collect();
        assert_eq!(zones.len(), 3, "{:?}", state.groups[group]);
    }
    let leads: BTreeSet<_> = state.groups[1..].iter().map(|wanted| wanted[0].node).collect();
    assert!(leads.len() >= 3, "{leads:?}");
}

#[test]
fn replicas_of_a_lost_node_go_elsewhere_and_stay_if_there_is_nowhere() {
    let three = kept(founded(&[""; 3]), &[]);
    assert_eq!(kept(three.clone(), &[2]), three, "nobody can take them");
    let four = kept(founded(&[""; 4]), &[]);
    let repaired = kept(four.clone(), &[2]);
    for group in 0..=PARTITIONS {
        assert!(!nodes(&repaired, group).contains(&2));
        let stayed = nodes(&four, group).intersection(&nodes(&repaired, group)).count();
        assert_eq!(stayed, 3 - usize::from(nodes(&four, group).contains(&2)));
    }
}

#[test]
fn a_drained_node_becomes_empty_and_can_be_removed() {
    let state = kept(founded(&[""; 4]), &[]);
    let early = changed(&state, &[], ClusterChange::Remove { node: 1 });
    assert!(matches!(early, Err(ClusterRefusal::NotDrained { node: 1, .. })));
    let state = kept(changed(&state, &[], ClusterChange::Drain { node: 1 }).unwrap(), &[]);
    assert!(
        (0..=PARTITIONS).all(|group| !nodes(&state, group).contains(&1) && nodes(&state, group).len() == 3)
    );
    let state = changed(&state, &[], ClusterChange::Remove { node: 1 }).unwrap();
    assert_eq!(state.nodes[&1].state, NodeState::Removed);
    let next = changed(&state, &[], ClusterChange::Drain { node: 2 });
    assert_eq!(
        next,
        Err(ClusterRefusal::BelowReplicas { node: 2, replicas: 3, left: 2, silent: Vec::new() })
    );
}

#[test]
fn a_group_without_a_quorum_is_left_alone() {
    let state = kept(founded(&[""; 4]), &[]);
    let group = (1..=PARTITIONS).find(|group| nodes(&state, *group).contains(&4)).unwrap();
    let others: Vec<u64> = nodes(&state, group).into_iter().filter(|node| *node != 4).collect();
    let to = (1..=4).find(|node| !nodes(&state, group).contains(node)).unwrap();
    let partition = Some(PartitionId(group as u16 - 1));
    let moved = ClusterChange::Move { partition, from: others[0], to };
    let refused = changed(&state, &others, moved).unwrap_err();
    assert_eq!(refused, ClusterRefusal::QuorumLost { partition, silent: others.clone() });
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    let replaced = ClusterChange::Replace { node: others[0], by: 4 };
    assert!(matches!(changed(&state, &others, replaced), Err(ClusterRefusal::QuorumLost { .. })));
}

#[test]
fn a_node_that_the_catalog_grew_to_takes_the_place_of_a_dead_one() {
    // The fifth node makes the catalog one of five, with a replica on the newcomer.
    let mut state = kept(founded(&[""; 4]), &[]);
    state.nodes.insert(5, state.nodes[&1].clone());
    let state = kept(state, &[]);
    assert_eq!(state.wanted(0).len(), 5);
    let replaced = changed(&state, &[2], ClusterChange::Replace { node: 2, by: 5 }).unwrap();
    assert_eq!(replaced.nodes[&2].state, NodeState::Removed);
    let placed = kept(replaced, &[2]);
    assert!(placed.groups.iter().flatten().all(|record| record.node != 2), "{placed:?}");
    assert!(placed.groups.iter().all(|wanted| wanted.len() == 3), "{placed:?}");
    // Where fewer would be left than there should be, it has to be another node.
    let few = kept(founded(&[""; 3]), &[]);
    let itself = changed(&few, &[2], ClusterChange::Replace { node: 2, by: 2 });
    assert_eq!(itself, Err(ClusterRefusal::Itself { node: 2 }));
    let refused = changed(&few, &[2], ClusterChange::Replace { node: 2, by: 3 }).unwrap_err();
    assert!(matches!(refused, ClusterRefusal::HasReplica { node: 3, .. }), "{refused:?}");
}

#[test]
fn a_new_node_gets_its_share_when_it_is_asked_for() {
    let mut state = kept(founded(&[""; 3]), &[]);
    let record = state.nodes[&1].clone();
    state.nodes.insert(4, record);
    assert_eq!(with(&state, &[], keep), None, "not by itself");
    let state = changed(&state, &[], ClusterChange::Balance).unwrap();
    let loads = with(&state, &[], |facts| Draft::new(facts).loads());
    assert!(loads.values().max().unwrap() - loads.values().min().unwrap() <= 1, "{loads:?}");
    assert_eq!(kept(state.clone(), &[]), state);
}

#[test]
fn a_balance_lets_nobody_lead_who_is_over_its_memory_budget() {
    let state = kept(founded(&[""; 3]), &[]);
    let mut survey = surveyed(&state);
    survey.note(2, NodeReport { is_over_memory: true, ..NodeReport::default() });
    let balanced = with_survey(&state, &survey, &[], |facts| plan(facts, ClusterChange::Balance));
    let balanced = state.edited(&balanced.unwrap());
    let leads = |state: &CatalogState, node: u64| {
        state.groups[1..].iter().filter(|wanted| wanted[0].node == node).count()
    };
    assert_eq!((leads(&state, 2) > 0, leads(&balanced, 2)), (true, 0));
}

#[test]
fn an_even_number_of_replicas_is_refused() {
    let state = kept(founded(&[""; 5]), &[]);
    for replicas in 0..=REPLICAS_MAX + 1 {
        let settings = ClusterChange::Settings { replicas: Some(replicas), repair_after_ms: None };
        let refused = changed(&state, &[], settings).err();
        let is_possible = [1, 3, 5, 7].contains(&replicas);
        let expected =
            (!is_possible).then_some(ClusterRefusal::Replicas { got: replicas, max: REPLICAS_MAX });
        assert_eq!(refused, expected);
    }
}

#[test]
fn a_node_goes_only_when_no_group_has_anything_on_it() {
    let state = kept(founded(&[""; 2]), &[]);
    let before = surveyed(&state);
    let mut drained = kept(changed(&state, &[], ClusterChange::Drain { node: 1 }).unwrap(), &[]);
    assert!((0..=PARTITIONS).all(|group| nodes(&drained, group) == BTreeSet::from([2])));
    drained.epoch += 1;
    let remove = |survey: &Surveyed, lost: &[u64]| {
        with_survey(&drained, survey, lost, |facts| plan(facts, ClusterChange::Remove { node: 1 }))
    };
    // All is wanted elsewhere, and the only voters are still there.
    let replicas = PARTITIONS as u32 + 1;
    assert_eq!(remove(&before, &[]), Err(ClusterRefusal::NotDrained { node: 1, replicas }));
    assert_eq!(remove(&Surveyed::default(), &[]), Err(ClusterRefusal::NotDrained { node: 1, replicas }));
    let silent = remove(&before, &[1]);
    assert_eq!(silent, Err(ClusterRefusal::QuorumLost { partition: None, silent: vec![1] }));
    let mut learns = surveyed(&drained);
    let mut report = learns.of(GroupId(2)).unwrap().clone();
    report.learners = state.wanted(2).to_vec();
    learns.note(2, NodeReport { led: vec![report.clone()], ..NodeReport::default() });
    assert_eq!(remove(&learns, &[]), Err(ClusterRefusal::NotDrained { node: 1, replicas: 1 }));
    // Its leader has not heard of the last change.
    report.learners.clear();
    report.settled_epoch -= 1;
    learns.note(2, NodeReport { led: vec![report], ..NodeReport::default() });
    assert_eq!(remove(&learns, &[]), Err(ClusterRefusal::NotDrained { node: 1, replicas: 1 }));
    assert_eq!(remove(&surveyed(&drained), &[]).unwrap().nodes, [(1, NodeState::Removed)]);
}

#[test]
fn a_group_that_lost_its_voters_waits_for_its_recovery() {
    let state = kept(founded(&[""; 5]), &[]);
    let group = 1;
    let held: Vec<u64> = nodes(&state, group).into_iter().collect();
    let (from, lost) = (held[0], &held[1..]);
    let after = kept(state.clone(), lost);
    assert_eq!(nodes(&after, group), nodes(&state, group), "nobody could commit another place");
    // Whatever is wanted by now: those who vote are the old ones.
    let others: Vec<u64> = (1..=5).filter(|node| !lost.contains(node)).collect();
    let mut wanted = state.clone();
    wanted.groups[group] =
        others.iter().map(|node| ReplicaRecord { replica: 90 + node, node: *node }).collect();
    let partition = PartitionId(group as u16 - 1);
    let recover = ClusterChange::Recover { partition, from };
    let recover_of = |lost: &[u64], survey: &Surveyed| {
        with_survey(&wanted, survey, lost, |facts| {
            let edit = plan(facts, recover)?;
            Ok::<_, ClusterRefusal>((edit.recover.clone(), outcome(facts, &edit).losses))
        })
    };
    let survey = surveyed(&state);
    let (recovered, losses) = recover_of(lost, &survey).unwrap();
    assert_eq!(recovered, [(group as u32, from)]);
    let given_up: BTreeSet<u64> = losses[0].given_up.iter().copied().collect();
    assert_eq!(given_up, lost.iter().copied().collect());
    assert_eq!(recover_of(&lost[..1], &survey), Err(ClusterRefusal::HasQuorum { partition }));
    // One of two that are alive has a damaged replica.
    let mut damaged = survey;
    let replica = state.groups[group].iter().find(|record| record.node == lost[0]).unwrap().replica;
    let held =
        Held { group: group as u32, replica, is_open: false, applied: 0, stranded: None, marks: Vec::new() };
    damaged.note(lost[0], NodeReport { held: vec![held], ..NodeReport::default() });
    assert_eq!(recover_of(&lost[1..], &damaged).unwrap().0, [(group as u32, from)]);
}

#[test]
fn a_recovery_that_gets_nowhere_is_begun_anew_with_another_replica() {
    let mut state = kept(founded(&[""; 5]), &[]);
    let before = surveyed(&state);
    let held: Vec<u64> = nodes(&state, 1).into_iter().collect();
    let (first, second, dead) = (held[0], held[1], held[2]);
    let partition = PartitionId(0);
    let recover = |state: &CatalogState, survey: &Surveyed, from: u64| {
        let planned = |facts: &Facts<'_>| plan(facts, ClusterChange::Recover { partition, from });
        with_survey(state, survey, &[dead], planned)
    };
    let says = |survey: &Surveyed, node: u64, is_open: bool| {
        let mut survey = survey.clone();
        let replica = state.groups[1].iter().find(|record| record.node == node).unwrap().replica;
        survey.note(
            node,
            NodeReport {
                held: vec![Held {
                    group: 1,
                    replica,
                    is_open,
                    applied: 0,
                    stranded: None,
                    marks: Vec::new(),
                }],
                ..NodeReport::default()
            },
        );
        survey
    };
    let damaged = says(&before, first, false);
    let refused = recover(&state, &damaged, first);
    assert_eq!(refused, Err(ClusterRefusal::ReplicaDamaged { partition, node: first }));
    let unheard = says(&says(&Surveyed::default(), first, false), dead, true);
    assert_eq!(recover(&state, &unheard, second), Err(ClusterRefusal::NodeSilent { node: second }));
    // The replica could be opened until it was recovered.
    let begun = recover(&state, &says(&before, second, false), first).unwrap();
    let (both, none) =
        (says(&damaged, second, true), says(&says(&Surveyed::default(), first, false), second, true));
    state = state.edited(&begun);
    assert!(recover(&state, &both, first).unwrap().is_empty(), "it goes on by itself");
    for survey in [&both, &none] {
        assert_eq!(recover(&state, survey, second).unwrap().recover, [(1, second)]);
    }
    // It led after all.
    let led = surveyed(&state);
    assert_eq!(recover(&state, &led, first), Ok(Edit { epoch: state.epoch, ..Edit::default() }));
    let mut report = led.of(GroupId(1)).unwrap().clone();
    report.voters.push(ReplicaRecord { replica: 99, node: second });
    report.voters.push(ReplicaRecord { replica: 98, node: dead });
    let mut grown = led;
    grown.note(first, NodeReport { led: vec![report], ..NodeReport::default() });
    assert_eq!(recover(&state, &grown, second), Err(ClusterRefusal::HasQuorum { partition }));
}

/// Four nodes, of which the second and third were removed by a survivor's order, and a partition that nobody leads: who
/// votes in it and how far its replica came, by node.
fn stranded(wanted: &[u64], said: &[(u64, &[u64], (u64, u64))]) -> (CatalogState, Surveyed) {
    let record = |node: &u64| ReplicaRecord { replica: 10 + node, node: *node };
    let mut state = founded(&[""; 4]);
    for node in [2, 3] {
        state.nodes.get_mut(&node).unwrap().state = NodeState::Removed;
    }
    state.groups[1] = wanted.iter().map(record).collect();
    let mut survey = surveyed(&CatalogState { groups: vec![state.groups[0].clone()], ..state.clone() });
    for (node, voters, last) in said {
        let applied = Stamp(last.1);
        let left = Left { voters: voters.iter().map(record).collect(), last: *last, applied };
        let (stranded, marks) = (Some(left), Vec::new());
        let held = Held { group: 1, replica: 10 + node, is_open: true, applied: 0, stranded, marks };
        survey.note(*node, NodeReport { held: vec![held], ..NodeReport::default() });
    }
    (state, survey)
}

#[test]
fn what_a_survivor_left_without_a_majority_goes_on_with_the_furthest() {
    let given_up = |wanted: &[u64], said: &[(u64, &[u64], (u64, u64))]| {
        let (state, survey) = stranded(wanted, said);
        let edit = with_survey(&state, &survey, &[2, 3], give_up);
        edit.map(|edit| edit.recover).unwrap_or_default()
    };
    assert_eq!(given_up(&[2, 3, 4], &[(4, &[2, 3, 4], (5, 9))]), [(1, 4)]);
    assert_eq!(given_up(&[1, 2, 3, 4], &[(1, &[1, 2, 3, 4], (5, 9)), (4, &[1, 2, 3, 4], (4, 70))]), [(1, 1)]);
    assert_eq!(given_up(&[1, 2, 3, 4], &[(1, &[1, 2, 3, 4], (5, 9)), (4, &[1, 2, 3, 4], (5, 10))]), [(1, 4)]);
    // A move to one of the nodes that are gone was under way, and has not come to anything.
    assert_eq!(given_up(&[2, 3, 4], &[(1, &[1, 2, 4], (5, 9)), (4, &[1, 2, 4], (5, 7))]), []);
    // Or from one of them.
    assert_eq!(given_up(&[1, 2, 4], &[(4, &[2, 3, 4], (5, 9))]), [(1, 4)]);
    assert_eq!(given_up(&[2], &[(4, &[2], (5, 9))]), [], "it was being filled");
    assert_eq!(given_up(&[2, 3], &[]), [], "nobody has it");
    let (mut state, survey) = stranded(&[2, 3, 4], &[(4, &[2, 3, 4], (5, 9))]);
    state.given_up_before.insert(1, 90);
    assert_eq!(with_survey(&state, &survey, &[2, 3], give_up), None, "it was given up before");
}

#[test]
fn a_partition_that_does_not_exist_is_no_other_one() {
    let state = kept(founded(&[""; 4]), &[]);
    let partition = PartitionId(PARTITIONS as u16);
    let unknown = ClusterRefusal::UnknownPartition { partition, partitions: PARTITIONS as u16 };
    let nodes: Vec<u64> = nodes(&state, PARTITIONS).into_iter().collect();
    let to = (1..=4).find(|node| !nodes.contains(node)).unwrap();
    let moved = |partition| {
        changed(&state, &[], ClusterChange::Move { partition: Some(partition), from: nodes[0], to })
    };
    assert_eq!(moved(partition), Err(unknown.clone()));
    assert_ne!(moved(PartitionId(partition.0 - 1)).unwrap(), state);
    let recover = ClusterChange::Recover { partition, from: nodes[0] };
    assert_eq!(changed(&state, &nodes[1..], recover), Err(unknown.clone()));
    let preferred = |partition| with(&state, &[], |facts| prefer(facts, Some(partition), nodes[1]));
    assert_eq!(preferred(partition), Err(unknown.clone()));
    assert!(preferred(PartitionId(partition.0 - 1)).is_ok());
    assert_eq!(unknown.to_string(), "there is no partition 4; there are 0 to 3");
}

#[test]
fn a_node_is_not_drained_while_those_that_are_left_cannot_take_its_replicas() {
    let five = kept(founded(&[""; 5]), &[]);
    let drain = |state: &CatalogState, lost: &[u64]| changed(state, lost, ClusterChange::Drain { node: 2 });
    assert!(drain(&five, &[5]).is_ok());
    let refused = drain(&five, &[4, 5]).unwrap_err();
    assert_eq!(refused, ClusterRefusal::BelowReplicas { node: 2, replicas: 3, left: 2, silent: vec![4, 5] });
    assert!(refused.to_string().contains("beside the silent 4, 5"), "{refused}");
    // What is accepted ends, though one stays silent.
    let drained = kept(drain(&five, &[5]).unwrap(), &[]);
    assert!((0..=PARTITIONS).all(|group| !nodes(&drained, group).contains(&2)), "{drained:?}");
}

#[test]
fn nobody_is_made_a_leader_that_cannot_lead() {
    let state = kept(founded(&[""; 5]), &[]);
    let held: Vec<u64> = nodes(&state, 1).into_iter().collect();
    let prefer = |lost: &[u64], to: u64| with(&state, lost, |facts| prefer(facts, Some(PartitionId(0)), to));
    assert!(matches!(prefer(&[], 9), Err(ClusterRefusal::UnknownNode { node: 9, .. })));
    assert_eq!(prefer(&held[..1], held[0]), Err(ClusterRefusal::NodeSilent { node: held[0] }));
    assert!(matches!(prefer(&held[1..], held[0]), Err(ClusterRefusal::QuorumLost { .. })));
    assert!(prefer(&held[..1], held[1]).is_ok());
}

#[test]
fn a_recovery_says_how_far_each_replica_that_is_left_has_come() {
    // Nodes 2 and 3 are gone.
    let voters: &[u64] = &[1, 2, 3, 4];
    let (state, survey) = stranded(voters, &[(1, voters, (5, 9)), (4, voters, (5, 12))]);
    let losses = with_survey(&state, &survey, &[2, 3], |facts| {
        let edit = plan(facts, ClusterChange::Recover { partition: PartitionId(0), from: 1 }).unwrap();
        outcome(facts, &edit).losses
    });
    let remains = |node: u64, index: u64| Remains { node, last: (5, index), applied: Stamp(index) };
    assert_eq!(losses[0].kept, 1);
    assert_eq!(losses[0].left, [remains(4, 12), remains(1, 9)]);
    // One that still takes itself for the leader says so too.
    let state = kept(founded(&[""; 5]), &[]);
    let leader = state.groups[1][0].node;
    let lost: Vec<u64> = nodes(&state, 1).into_iter().filter(|node| *node != leader).collect();
    let losses = with(&state, &lost, |facts| {
        let edit = plan(facts, ClusterChange::Recover { partition: PartitionId(0), from: leader }).unwrap();
        outcome(facts, &edit).losses
    });
    assert_eq!(losses[0].left, [Remains { node: leader, last: (1, 50), applied: Stamp(50) }]);
}

#[test]
fn a_partition_begins_empty_only_when_nothing_is_left_of_it() {
    let state = kept(founded(&[""; 5]), &[]);
    let held: Vec<u64> = nodes(&state, 1).into_iter().collect();
    let others: Vec<u64> = (1..=5).filter(|node| !held.contains(node)).collect();
    let (partition, to) = (PartitionId(0), others[0]);
    let begin = ClusterChange::BeginEmpty { partition, to };
    assert_eq!(changed(&state, &[], begin), Err(ClusterRefusal::HasQuorum { partition }));
    let left = ClusterRefusal::ReplicaLeft { partition, nodes: vec![held[0]] };
    assert_eq!(changed(&state, &held[1..], begin), Err(left));
    let dead = ClusterChange::BeginEmpty { partition, to: held[0] };
    assert_eq!(changed(&state, &held, dead), Err(ClusterRefusal::NodeSilent { node: held[0] }));
    // Who lives and has said nothing may have one.
    let unheard = with_survey(&state, &Surveyed::default(), &held, |facts| plan(facts, begin));
    assert_eq!(unheard, Err(ClusterRefusal::ReplicaLeft { partition, nodes: others.clone() }));
    // Whatever else is asked for, the way out is named.
    let recover = ClusterChange::Recover { partition, from: to };
    let moved = ClusterChange::Move { partition: Some(partition), from: held[0], to };
    let drain = ClusterChange::Drain { node: held[0] };
    let mut lost = state.clone();
    lost.groups[0] = vec![ReplicaRecord { replica: 99, node: to }];
    let replaced = ClusterChange::Replace { node: held[0], by: others[1] };
    for change in [recover, moved, drain, replaced] {
        let refused = with_survey(&lost, &surveyed(&lost), &held, |facts| plan(facts, change)).unwrap_err();
        assert!(matches!(refused, ClusterRefusal::NothingLeft { .. }), "{change:?} {refused}");
        let said = format!("fanfold partition recover 0 --empty --to {to} --accept-loss");
        assert!(refused.to_string().contains(&said), "{refused}");
    }
    // One that is damaged is nothing.
    let mut survey = surveyed(&state);
    let replica = state.groups[1].iter().find(|record| record.node == held[0]).unwrap().replica;
    let rotten = Held { group: 1, replica, is_open: false, applied: 0, stranded: None, marks: Vec::new() };
    survey.note(held[0], NodeReport { held: vec![rotten], ..NodeReport::default() });
    let edit = with_survey(&state, &survey, &held[1..], |facts| plan(facts, begin)).unwrap();
    let begun = state.edited(&edit);
    let replica = begun.last_replica;
    assert_eq!(begun.wanted(1), [ReplicaRecord { replica, node: to }]);
    assert_eq!((begun.recovering.get(&1), begun.begins_empty.get(&1)), (Some(&replica), Some(&replica)));
    assert!(begun.is_given_up(1, replica - 1) && !begun.is_given_up(1, replica));
    assert_eq!(
        with_survey(&begun, &survey, &held, |facts| plan(facts, begin)).map(|e| e.is_empty()),
        Ok(true)
    );
    let done = begun.edited(&Edit { recovered: vec![1], ..Edit::default() });
    assert!(done.recovering.is_empty() && done.begins_empty.is_empty());
}
