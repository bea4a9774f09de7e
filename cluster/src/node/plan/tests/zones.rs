//! Replicas over zones: however nodes came and went, they are as far apart as the nodes allow.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// What happens to a cluster, with the number of a node among those that there are.
#[derive(Debug, Clone, Copy)]
enum Event {
    Drained(usize),
    /// With as many replicas as are wanted from then on.
    DrainedAndSet(usize, u8),
    Lost(usize),
    Set(u8),
}

/// The cluster that these nodes make when they join in this order.
fn joined(zones: &[&str], partitions: usize, replicas: u8) -> CatalogState {
    let all = founded(zones);
    let mut state = founded(&zones[..1]);
    state.groups.resize(partitions + 1, state.groups[0].clone());
    state.settings.replicas = replicas;
    for (node, record) in all.nodes {
        state.nodes.insert(node, record);
        state = kept(state, &[]);
    }
    state
}

fn balanced(state: &CatalogState) -> CatalogState {
    let balanced = changed(state, &[], ClusterChange::Balance).unwrap();
    assert_eq!(kept(balanced.clone(), &[]), balanced, "the keeper thinks otherwise");
    assert_eq!(changed(&balanced, &[], ClusterChange::Balance).unwrap(), balanced, "it comes to no end");
    balanced
}

/// The zone of a node, or its own name.
fn zone(state: &CatalogState, node: u64) -> String {
    let named = &state.nodes[&node].zone;
    if named.is_empty() { format!("node {node}") } else { named.clone() }
}

/// The nodes of each zone that take replicas.
fn takers(state: &CatalogState, lost: &[u64]) -> BTreeMap<String, usize> {
    let mut takers = BTreeMap::new();
    let takes = state.active_nodes().filter(|node| !lost.contains(node));
    takes.for_each(|node| *takers.entry(zone(state, node)).or_default() += 1);
    takers
}

/// How many of so many replicas are in each zone at best, the fullest first.
fn best(replicas: usize, takers: &BTreeMap<String, usize>) -> Vec<usize> {
    let mut filled: Vec<(usize, usize)> = takers.values().map(|nodes| (0, *nodes)).collect();
    for _ in 0..replicas {
        let open = filled.iter_mut().filter(|(replicas, nodes)| replicas < nodes);
        open.min_by_key(|(replicas, _)| *replicas).unwrap().0 += 1;
    }
    let mut counts: Vec<usize> =
        filled.into_iter().map(|(replicas, _)| replicas).filter(|r| *r > 0).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// Groups whose replicas could be further apart.
fn crowded(state: &CatalogState, lost: &[u64]) -> Vec<usize> {
    let takers = takers(state, lost);
    let is_crowded = |group: &usize| {
        let mut zones = BTreeMap::<String, usize>::new();
        let stays = |node: &u64| state.nodes[node].state == NodeState::Active && !lost.contains(node);
        let nodes: Vec<u64> = nodes(state, *group).into_iter().filter(stays).collect();
        nodes.iter().for_each(|node| *zones.entry(zone(state, *node)).or_default() += 1);
        let mut counts: Vec<usize> = zones.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts != best(nodes.len(), &takers)
    };
    (0..state.groups.len()).filter(is_crowded).collect()
}

/// Replicas by node that takes some; those of partitions only, or the catalog's too.
fn loads(state: &CatalogState, has_catalog: bool) -> BTreeMap<u64, usize> {
    let first = usize::from(!has_catalog);
    let load =
        |node| (first..state.groups.len()).filter(|group| nodes(state, *group).contains(&node)).count();
    state.active_nodes().map(|node| (node, load(node))).collect()
}

/// Replicas of partitions that the fullest node has at least, where each partition has no two in a zone.
fn least_full(state: &CatalogState) -> Option<usize> {
    let (takers, partitions) = (takers(state, &[]), state.groups.len() - 1);
    let replicas = state.groups[1].len();
    let room = |load: usize| takers.values().map(|nodes| partitions.min(nodes * load)).sum::<usize>();
    (replicas <= takers.len())
        .then(|| (1..=partitions).find(|load| room(*load) >= partitions * replicas).unwrap())
}

fn holds_after_balance(state: &CatalogState) {
    assert_eq!(crowded(state, &[]), [0; 0], "{:?}", state.groups);
    let (partitions, all) = (loads(state, false), loads(state, true));
    // The catalog's replicas count too, and are not moved for it.
    if let Some(least) = least_full(state) {
        assert!(partitions.values().all(|load| *load <= least + 1), "{least} {partitions:?}");
    }
    let takers = takers(state, &[]);
    if takers.values().all(|nodes| Some(nodes) == takers.values().next()) {
        assert!(all.values().max().unwrap() - all.values().min().unwrap() <= 1, "{all:?}");
    }
}

/// What is left when it has happened, and the nodes that are lost.
fn after(state: &CatalogState, event: Event) -> (CatalogState, Vec<u64>) {
    let node = |at: usize| 1 + (at % state.nodes.len()) as u64;
    let drain = |at| ClusterChange::Drain { node: node(at) };
    let set = |replicas| ClusterChange::Settings { replicas: Some(replicas), repair_after_ms: None };
    match event {
        Event::Lost(at) => (kept(state.clone(), &[node(at)]), vec![node(at)]),
        Event::Drained(at) => {
            let drained = changed(state, &[], drain(at)).unwrap_or_else(|_| state.clone());
            (kept(drained, &[]), Vec::new())
        }
        Event::Set(replicas) => (kept(changed(state, &[], set(replicas)).unwrap(), &[]), Vec::new()),
        Event::DrainedAndSet(at, replicas) => {
            let set = changed(state, &[], set(replicas)).unwrap();
            let drained = changed(&set, &[], drain(at)).unwrap_or(set);
            (kept(drained, &[]), Vec::new())
        }
    }
}

fn events() -> impl Strategy<Value = Event> {
    let replicas = || prop::sample::select(vec![1_u8, 3, 5, 7]);
    prop_oneof![
        (0..9_usize).prop_map(Event::Drained),
        (0..9_usize, replicas()).prop_map(|(at, replicas)| Event::DrainedAndSet(at, replicas)),
        (0..9_usize).prop_map(Event::Lost),
        replicas().prop_map(Event::Set),
    ]
}

#[test]
fn a_balance_puts_no_replica_beside_another_while_there_is_another_zone() {
    let three = joined(&["a", "c", "b"], 16, 3);
    assert_eq!(crowded(&three, &[]), [0; 0]);
    let four = joined(&["a", "c", "b", "c"], 16, 3);
    let state = balanced(&four);
    holds_after_balance(&state);
    let loads: Vec<usize> = loads(&state, false).into_values().collect();
    assert_eq!(loads, [16, 8, 16, 8], "those of the zone share what it has");
}

#[test]
fn a_replica_that_leaves_a_zone_leaves_room_in_it() {
    let state = balanced(&joined(&["a", "c", "b", "c", "a"], 16, 3));
    for node in [1, 2, 4, 5] {
        let drained = kept(changed(&state, &[], ClusterChange::Drain { node }).unwrap(), &[]);
        assert_eq!(crowded(&drained, &[]), [0; 0], "drained {node}: {:?}", drained.groups);
        let repaired = kept(state.clone(), &[node]);
        assert_eq!(crowded(&repaired, &[node]), [0; 0], "lost {node}: {:?}", repaired.groups);
        let removed = changed(&state, &[node], ClusterChange::Remove { node }).unwrap();
        assert_eq!(crowded(&removed, &[node]), [0; 0], "removed {node}: {:?}", removed.groups);
    }
}

#[test]
fn whoever_joins_first_a_balance_ends_the_same() {
    let mut orders = BTreeSet::from([String::new()]);
    for _ in 0..6 {
        let longer = |order: &String| ["a", "b", "c"].map(|zone| format!("{order}{zone}"));
        orders = orders.iter().flat_map(longer).collect();
        orders.retain(|order| ["a", "b", "c"].iter().all(|zone| order.matches(zone).count() <= 2));
    }
    assert_eq!(orders.len(), 90);
    let mut crowded_before = 0;
    for order in orders {
        let zones: Vec<&str> = order.split("").filter(|zone| !zone.is_empty()).collect();
        let state = joined(&zones, 16, 3);
        crowded_before += usize::from(!crowded(&state, &[]).is_empty());
        let state = balanced(&state);
        holds_after_balance(&state);
        assert!(loads(&state, false).into_values().all(|load| load == 8), "{order}: {:?}", state.groups);
    }
    // There was something to mend.
    assert!(crowded_before > 0);
}

#[test]
fn a_replica_that_no_zone_lets_move_to_the_emptiest_node_gets_there_by_way_of_others() {
    let zones = ["", "d", "a", "e", "", "d", "b", "c", "a", "a"];
    let state = balanced(&joined(&zones, 15, 3));
    holds_after_balance(&state);
    let loads = loads(&state, true);
    assert!(loads.values().all(|load| *load == 5), "{loads:?}");
}

#[test]
fn a_drained_nodes_replica_goes_elsewhere_before_there_are_fewer() {
    let state = balanced(&joined(&["a", "a", "b", "b", "c", "c"], 16, 5));
    for at in 0..6 {
        let (then, _) = after(&state, Event::DrainedAndSet(at, 3));
        assert!(then.groups[1..].iter().all(|wanted| wanted.len() == 3));
        assert_eq!(crowded(&then, &[]), [0; 0], "{:?}", then.groups);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: RngSeed::Fixed(42),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn replicas_are_as_far_apart_as_the_nodes_allow(
        zones in prop::collection::vec(prop::sample::select(vec!["", "a", "b", "c", "d"]), 3..10),
        partitions in 1..17_usize,
        replicas in prop::sample::select(vec![1_u8, 3, 5]),
        events in prop::collection::vec(events(), 1..5),
    ) {
        let mut state = balanced(&joined(&zones, partitions, replicas));
        holds_after_balance(&state);
        for event in events {
            let (then, lost) = after(&state, event);
            prop_assert_eq!(crowded(&then, &lost), Vec::<usize>::new(), "{:?} {:?} {:?}", event, state.groups, then.groups);
            // Who was lost is back, and has nothing.
            state = balanced(&then);
            holds_after_balance(&state);
        }
    }
}
