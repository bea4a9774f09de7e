//! Where nodes listen: they move, they swap, and one is told a wrong address.

use std::net::SocketAddr;

use fanfold_storage::space::SpacePolicy;

use crate::support::*;

/// Looks between which a node with a wrong address has made changes of the catalog: enough for it to be refused, and to ask.
const LOOKS: usize = 10;

/// A leadership that is to return has returned after this.
const RETURNED_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

async fn is_known_at_its_address(cluster: &Cluster, node: u64) {
    let address = cluster.node(node).peer_address().unwrap().to_string();
    let is_there =
        |known: &fanfold_cluster::view::NodeView| known.node == node && known.peer_address == address;
    cluster.agree("where the node listens is known", |view| view.nodes.iter().any(is_there)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_listens_elsewhere_is_known_there() {
    let mut cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    // One of them has no replica of the catalog, and nobody can tell it who leads.
    for node in [3, 4] {
        cluster.stop(node).await;
        cluster.move_to(node, None);
        cluster.start(node).await;
        is_known_at_its_address(&cluster, node).await;
        cluster.whole().await;
    }
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moves_to_the_address_of_one_that_moves_later_is_known_there() {
    let mut cluster = Cluster::of(4, 3).await;
    cluster.stop(3).await;
    cluster.stop(4).await;
    let freed = cluster.move_to(4, None);
    cluster.move_to(3, freed);
    cluster.start(3).await;
    // By now it has said where it listens, and was refused.
    patient(cluster.node(3).create_space("later", None, SpacePolicy::default())).await.unwrap();
    let refused = cluster.node(1).view().nodes[2].peer_address.clone();
    assert_ne!(Some(refused), freed.map(|address| address.to_string()));
    cluster.start(4).await;
    is_known_at_its_address(&cluster, 4).await;
    is_known_at_its_address(&cluster, 3).await;
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_swap_their_addresses_are_known_there() {
    let mut cluster = Cluster::of(4, 3).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 3).await;
    // The first two swap back at last: nobody goes by what they said once.
    for (one, other, at) in [(3, 4, [4, 3]), (1, 2, [2, 1]), (3, 4, [3, 4])] {
        cluster.stop(one).await;
        cluster.stop(other).await;
        cluster.swap(one, other);
        cluster.start(one).await;
        cluster.start(other).await;
        is_known_at_its_address(&cluster, one).await;
        is_known_at_its_address(&cluster, other).await;
        let port =
            |node: u64, cluster: &Cluster| cluster.any().map().nodes[node as usize - 1].address.clone();
        assert_eq!(
            [port(one, &cluster), port(other, &cluster)],
            at.map(|n| format!("127.0.0.1:{}", 20_000 + n))
        );
        cluster.whole().await;
        followed.post(&cluster, 3).await;
        followed.seen(&cluster).await;
    }
}

/// What the catalog says of a node, as another one knows it: where clients and where other nodes find it.
fn known(cluster: &Cluster, by: u64, node: u64) -> [String; 2] {
    let view = cluster.node(by).view();
    let known = view.nodes.into_iter().find(|known| known.node == node).unwrap();
    [known.address, known.peer_address]
}

/// Lets a node that has a wrong address work for a while, and checks that the others know it as before all the time.
async fn stays_known(cluster: &Cluster, node: u64, at: &[String; 2], what: &str) {
    for look in 0..LOOKS {
        let space = format!("{what}-{look}");
        patient(cluster.node(node).create_space(&space, None, SpacePolicy::default())).await.unwrap();
        assert_eq!(known(cluster, 1, node), *at, "{what}, look {look}");
    }
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistyped_address_of_a_node_that_is_there_takes_nothing_from_anybody() {
    let mut cluster = Cluster::of(3, 3).await;
    let mut followed = Followed::new(&cluster).await;
    let (second, third) = (known(&cluster, 1, 2), known(&cluster, 1, 3));
    let wrong_peer: SocketAddr = second[1].parse().unwrap();
    // At last nobody is connected with it that has not had the chance to hear of the wrong address.
    for what in ["clients", "nodes", "nodes-again"] {
        let is_for_nodes = what != "clients";
        cluster.stop(3).await;
        cluster.tell(3, is_for_nodes.then_some(wrong_peer));
        cluster.set_port(3, if is_for_nodes { 20_003 } else { 20_002 });
        cluster.start(3).await;
        stays_known(&cluster, 3, &third, what).await;
        assert_eq!(known(&cluster, 3, 2), second);
        followed.post(&cluster, 2).await;
        followed.seen(&cluster).await;
    }
    cluster.stop(3).await;
    cluster.tell(3, None);
    cluster.start(3).await;
    cluster.whole().await;
    assert_eq!(known(&cluster, 1, 3), third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_swap_their_addresses_for_clients_one_after_the_other() {
    let mut cluster = Cluster::of(3, 3).await;
    let before = known(&cluster, 1, 3);
    cluster.stop(3).await;
    cluster.set_port(3, 20_002);
    cluster.start(3).await;
    // The other one has not left it yet.
    stays_known(&cluster, 3, &before, "one").await;
    cluster.stop(2).await;
    cluster.set_port(2, 20_003);
    cluster.start(2).await;
    let port = |node: u64, port: u64| (node, format!("127.0.0.1:{port}"));
    for (node, address) in [port(2, 20_003), port(3, 20_002)] {
        let is_there =
            |known: &fanfold_cluster::view::NodeView| known.node == node && known.address == address;
        cluster.agree("where clients find the node", |view| view.nodes.iter().any(is_there)).await;
    }
}

/// Nobody reaches it where the catalog says that it is: what it led others lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_the_address_of_one_that_is_down_leads_nothing() {
    let mut cluster = Cluster::of(3, 3).await;
    cluster.whole().await;
    cluster.stop(1).await;
    cluster.stop(3).await;
    cluster.swap(1, 3);
    cluster.start(3).await;
    let leads_nothing = |known: &fanfold_cluster::view::NodeView| {
        known.node == 3 && known.address.starts_with("moved:") && known.leads == 0
    };
    let is_led = |view: &fanfold_cluster::view::ClusterView| {
        view.nodes.iter().any(leads_nothing) && view.nodes.iter().any(|node| node.node == 2 && node.leads > 3)
    };
    cluster.agree("the other one leads everything", is_led).await;
    // Nor do its leaderships return.
    let begun = std::time::Instant::now();
    while begun.elapsed() < RETURNED_AFTER {
        assert!(is_led(&cluster.node(2).view()), "{:#?}", cluster.node(2).view().nodes);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.start(1).await;
    for node in [1, 3] {
        is_known_at_its_address(&cluster, node).await;
    }
    cluster.whole().await;
}
