//! Holds the catalog's bytes on disk to their golden files: a batch with every command, and its state in every shape.

use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::command::{Limits, encode_batch};
use fanfold_storage::ids::{GraphId, SpaceId, Stamp};
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

use super::command::{CatalogCommand, Founding, SpaceChanges, decode_batch};
use super::nodes::{ClusterSettings, Edit, NodeFacts, NodeRecord, NodeState, Place, ReplicaRecord};
use super::state::{CatalogState, plain_node};
use super::take_over::TakeOver;
use crate::golden::{golden, golden_of_before};

/// A state with nothing behind the end of the first version of its encoding but what is always there.
fn state() -> CatalogState {
    let policy =
        SpacePolicy { default_ttl_ms: Some(86_400_000), fan_out: FanOut::Pull, ..SpacePolicy::default() };
    let space = |id, name: &str, policy| SpaceDefinition {
        id: SpaceId(id),
        name: name.into(),
        graph: GraphId(1),
        graph_name: "follows".into(),
        version: 2,
        policy,
    };
    let second = NodeRecord {
        address: "10.0.0.2:7117".into(),
        peer_address: "10.0.0.2:7119".into(),
        zone: "b".into(),
        state: NodeState::Draining,
        directory_id: 0x22,
    };
    let replica = |replica, node| ReplicaRecord { replica, node };
    CatalogState {
        epoch: 300,
        cluster_id: Some(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF),
        partitions: 2,
        feature_level: 2,
        limits: Limits { window_rows: 4_096, ..Limits::default() },
        nodes: [(1, plain_node("10.0.0.1:7117".into())), (2, second)].into(),
        groups: vec![
            vec![replica(1, 1), replica(2, 2)],
            vec![replica(1, 1)],
            vec![replica(3, 2), replica(1, 1)],
        ],
        recovering: [(2, 3)].into(),
        given_up_before: [].into(),
        begins_empty: [].into(),
        last_replica: 3,
        settings: ClusterSettings { replicas: 2, repair_after_ms: 1_000 },
        graphs: [(GraphId(1), "follows".into())].into(),
        spaces: [
            (SpaceId(1), space(1, "posts", SpacePolicy { is_read_only: true, ..SpacePolicy::default() })),
            (SpaceId(2), space(2, "stories", policy)),
        ]
        .into(),
    }
}

/// One of each shape.
fn every_command() -> Vec<CatalogCommand> {
    let founding = Founding {
        cluster_id: u128::MAX - 7,
        partitions: 4_096,
        node: 1,
        address: "host:1".into(),
        limits: Limits::default(),
        feature_level: 1,
    };
    let changes = SpaceChanges {
        default_ttl_ms: Some(None),
        horizon_ms: Some(Some(5)),
        fan_out: Some(FanOut::Pull),
        ..SpaceChanges::default()
    };
    let facts = NodeFacts {
        directory_id: 77,
        address: "host:2".into(),
        peer_address: "host:3".into(),
        zone: "a".into(),
    };
    let edit = Edit {
        epoch: 9,
        nodes: vec![(2, NodeState::Draining)],
        groups: vec![(0, vec![Place { node: 1, is_new: false }, Place { node: 3, is_new: true }])],
        settings: Some(ClusterSettings::default()),
        recover: vec![(2, 3)],
        recovered: vec![4],
        empty: Vec::new(),
    };
    let taken = TakeOver {
        node: 1,
        replica: 9,
        gone: vec![2],
        founds: Some(3),
        address: "host:1".into(),
        known: None,
    };
    let given_up_before = [(1, 5)].into();
    let begins_empty = [(1, 5)].into();
    let known = CatalogState { epoch: 7, given_up_before, begins_empty, ..CatalogState::default() };
    let known = TakeOver { known: Some(Box::new(known)), ..taken.clone() };
    vec![
        CatalogCommand::Found(founding),
        CatalogCommand::SetNodeAddress { node: 2, address: "other:1".into() },
        CatalogCommand::CreateSpace {
            name: "notes".into(),
            graph: "friends".into(),
            policy: SpacePolicy::default(),
        },
        CatalogCommand::AlterSpace { name: "notes".into(), changes: changes.clone() },
        CatalogCommand::AlterSpace {
            name: "notes".into(),
            changes: SpaceChanges { is_read_only: Some(true), ..changes },
        },
        CatalogCommand::SetLimits { limits: Limits { window_rows: 4, ..Limits::default() } },
        CatalogCommand::AddNode(facts.clone()),
        CatalogCommand::UpdateNode { node: 4, facts },
        CatalogCommand::Edit(Edit { empty: vec![(3, 1)], ..edit.clone() }),
        CatalogCommand::Edit(edit),
        CatalogCommand::TakeOver(taken),
        CatalogCommand::TakeOver(known),
        CatalogCommand::RaiseLevel { epoch: 9, level: 2 },
    ]
}

fn encoded(state: &CatalogState) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

fn decoded(bytes: &[u8]) -> CatalogState {
    let mut from = Reader::new(bytes);
    let state = CatalogState::decode(&mut from).unwrap();
    from.end().unwrap();
    state
}

#[test]
fn the_golden_batch_of_the_catalog_has_every_command() {
    let commands = every_command();
    let items: Vec<_> = commands.iter().map(CatalogCommand::to_bytes).collect();
    let bytes = golden("catalog_batch", &encode_batch(Stamp(9), &items));
    assert_eq!(decode_batch(&bytes).unwrap(), commands);
    let mut tags: Vec<u8> = items.iter().map(|item| item[0]).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags, (1..=9).chain(32..=35).collect::<Vec<u8>>());
}

#[test]
fn the_golden_states_of_the_catalog_are_read_and_written_again_as_they_are() {
    let plain = state();
    let given_up = CatalogState { given_up_before: [(0, 2), (2, 3)].into(), ..plain.clone() };
    let empty = CatalogState { begins_empty: [(2, 3)].into(), ..given_up.clone() };
    for (name, state) in
        [("catalog_state", &plain), ("catalog_state_given_up", &given_up), ("catalog_state_empty", &empty)]
    {
        assert_eq!(decoded(&golden(name, &encoded(state))), *state, "{name}");
    }
}

#[test]
fn a_state_of_the_catalog_without_an_extension_is_of_groups_with_one_replica() {
    let bytes = golden_of_before("catalog_state_1", || {
        let (mut whole, mut extension) = (encoded(&state()), vec![2]);
        let nodes: Vec<_> = state().nodes.into_iter().collect();
        nodes.encode(&mut extension);
        let at = whole.windows(extension.len()).position(|bytes| bytes == extension).unwrap();
        whole.truncate(at);
        whole
    });
    let expected = CatalogState {
        nodes: state().nodes.into_iter().map(|(id, node)| (id, plain_node(node.address))).collect(),
        // The catalog is where the first partition is.
        groups: [[1].as_slice(), &[1], &[2, 1]]
            .map(|nodes| nodes.iter().map(|node| ReplicaRecord { replica: 1, node: *node }).collect())
            .into(),
        recovering: [].into(),
        last_replica: 1,
        settings: ClusterSettings::default(),
        ..state()
    };
    assert_eq!(decoded(&bytes), expected);
}
