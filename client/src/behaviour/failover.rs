//! Failover: three nodes that share what is applied, as replicas do, and leaders that change, die and fall silent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfold_protocol::message::{ClusterNode, ClusterSettings, ClusterView, Map, NodeAddress, NodeState};
use fanfold_protocol::{
    ClusterId, LeaderHint, NodeId, Request, Response, Sequence, SessionId, Status, UserId,
};
use futures_util::future::join_all;
use tokio::task::{AbortHandle, JoinSet};

use crate::client::Client;
use crate::error::Error;
use crate::lock::lock;
use crate::scripted::{Ask, Peer, Server, appended};

/// What the nodes of a test share.
struct Stage {
    /// By number, from 1 on; the map names the first `mapped` of them, and node 4 names all.
    addresses: Vec<String>,
    mapped: usize,
    leader: usize,
    /// The leaders that take over, each when so many writes were applied.
    successors: Vec<(usize, usize)>,
    /// Writes of these numbers and later ones are applied at the leader of that time and never answered by it.
    answers_lost: std::ops::Range<usize>,
    /// Nodes that take everything and answer nothing.
    silent: Vec<usize>,
    /// Nodes that the others have not heard of lately.
    gone: Vec<usize>,
    /// Nodes that have not heard that anybody but the first leads.
    left_behind: Vec<usize>,
    applied: HashMap<(SessionId, Sequence), u64>,
    sessions: u64,
    maps: usize,
}

impl Stage {
    fn map(&self, node: usize) -> Map {
        let named = if node > self.mapped { self.addresses.len() } else { self.mapped };
        let leader = if self.left_behind.contains(&node) { 1 } else { self.leader };
        let leader = if leader > named { Map::NO_LEADER } else { NodeId(leader as u64) };
        let nodes = self.addresses.iter().take(named).zip(1..);
        let nodes = nodes.map(|(address, node)| NodeAddress { node: NodeId(node), address: address.clone() });
        Map { cluster: ClusterId(7), epoch: 1, partitions: 1, nodes: nodes.collect(), leaders: vec![leader] }
    }

    /// The cluster as a node sees it that has heard of nobody who is gone.
    fn view(&self, by: usize) -> ClusterView {
        let node = |node: usize| ClusterNode {
            node: NodeId(node as u64),
            address: self.addresses[node - 1].clone(),
            peer_address: String::new(),
            zone: String::new(),
            state: NodeState::Active,
            heard_ms: None,
            is_alive: !self.gone.contains(&node),
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
            replicas: 0,
            leads: 0,
        };
        ClusterView {
            cluster: ClusterId(7),
            by: NodeId(by as u64),
            epoch: 1,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: (1..=self.mapped).map(node).collect(),
            groups: Vec::new(),
        }
    }

    /// The answer of a node; none if it keeps silent.
    fn reply(&mut self, node: usize, ask: &Ask) -> Option<Result<Response, Status>> {
        if self.silent.contains(&node) {
            return None;
        }
        let is_leader = self.leader == node;
        let not_leader = || {
            let address = self.addresses.get(self.leader.checked_sub(1)?)?.clone();
            Some(LeaderHint { node: NodeId(self.leader as u64), address })
        };
        match &ask.call.request {
            Request::GetMap => {
                self.maps += 1;
                Some(Ok(Response::Map(self.map(node))))
            }
            Request::ListSpaces => Some(Ok(crate::scripted::list_of_spaces())),
            Request::GetCluster => Some(Ok(Response::Cluster(self.view(node)))),
            Request::ListPaused => Some(Ok(Response::Paused(vec![UserId(node as u64)]))),
            _ if !is_leader => Some(Err(Status::NotLeader { hint: not_leader() })),
            Request::OpenSession(_) => {
                self.sessions += 1;
                Some(Ok(Response::SessionOpened(SessionId(self.sessions))))
            }
            Request::Write(write) => {
                let next = self.applied.len() as u64 + 1;
                let id = *self.applied.entry((write.tag.session, write.tag.sequence)).or_insert(next);
                let applied = self.applied.len();
                if let Some((_, successor)) = self.successors.first().filter(|(at, _)| applied >= *at) {
                    self.leader = *successor;
                    self.successors.remove(0);
                }
                let is_lost = id == next && self.answers_lost.contains(&applied);
                (!is_lost).then(|| Ok(appended(id)))
            }
            other => panic!("the test does not expect {other:?}"),
        }
    }
}

struct Cast {
    stage: Arc<Mutex<Stage>>,
    nodes: Vec<AbortHandle>,
    _tasks: JoinSet<()>,
}

impl Cast {
    async fn of(nodes: usize, mapped: usize) -> Self {
        let mut servers = Vec::new();
        for _ in 0..nodes {
            servers.push(Server::start().await);
        }
        let stage = Arc::new(Mutex::new(Stage {
            addresses: servers.iter().map(Server::address).collect(),
            mapped,
            leader: 1,
            successors: Vec::new(),
            answers_lost: 0..0,
            silent: Vec::new(),
            gone: Vec::new(),
            left_behind: Vec::new(),
            applied: HashMap::new(),
            sessions: 0,
            maps: 0,
        }));
        let mut tasks = JoinSet::new();
        let run = |(server, node)| tasks.spawn(serve(server, node, stage.clone()));
        let nodes = servers.into_iter().zip(1..).map(run).collect();
        Self { stage, nodes, _tasks: tasks }
    }

    fn set(&self, change: impl FnOnce(&mut Stage)) {
        change(&mut lock(&self.stage));
    }

    /// A client that has written once, so that it knows the map and has a session.
    async fn client(&self) -> Client {
        self.client_of(1).await
    }

    /// The same, and that has the map from a node.
    async fn client_of(&self, first: usize) -> Client {
        let addresses = lock(&self.stage).addresses.clone();
        let builder = Client::builder(&addresses[first - 1]).or(&addresses[1]);
        let client = builder.connect().await.expect("connected");
        client.space("posts").append(UserId(0), "first").await.expect("written");
        client
    }

    fn kill(&self, node: usize) {
        self.nodes[node - 1].abort();
    }
}

/// Accepts and answers; aborting it closes the port and all connections.
async fn serve(server: Server, node: usize, stage: Arc<Mutex<Stage>>) {
    let mut connections = JoinSet::new();
    loop {
        let peer = server.accept().await;
        connections.spawn(answer_all(peer, node, stage.clone()));
    }
}

async fn answer_all(mut peer: Peer, node: usize, stage: Arc<Mutex<Stage>>) {
    while let Some(ask) = peer.next_of_any_kind().await {
        let reply = lock(&stage).reply(node, &ask);
        if let Some(reply) = reply
            && !peer.try_answer(&ask, &reply).await
        {
            return;
        }
    }
}

/// Writes at once; each must be answered, and applied once.
async fn write_all(client: &Client, cast: &Cast, writes: u64) {
    let before = lock(&cast.stage).applied.len();
    let posts = client.space("posts");
    let answers = join_all((1..=writes).map(|n| posts.append(UserId(n), "hello").into_future())).await;
    let mut ids: Vec<u64> = answers.into_iter().map(|answer| answer.expect("answered").id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, writes, "each write has an answer of its own");
    assert_eq!(lock(&cast.stage).applied.len() - before, writes as usize, "nothing was applied twice");
}

#[tokio::test]
async fn leaders_may_change_in_the_middle_of_a_pipeline() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    cast.set(|stage| {
        stage.successors = vec![(60, 2), (120, 3), (180, 1)];
        stage.maps = 0;
    });
    write_all(&client, &cast, 200).await;
    let maps = lock(&cast.stage).maps;
    // Whoever led names who does.
    assert!(maps <= 12, "three changes cost {maps} maps for 200 writes");
}

#[tokio::test]
async fn hint_to_a_node_that_the_map_does_not_name_is_followed() {
    let cast = Cast::of(4, 3).await;
    let client = cast.client().await;
    cast.set(|stage| stage.successors = vec![(10, 4)]);
    write_all(&client, &cast, 50).await;
    assert_eq!(lock(&cast.stage).leader, 4);
}

#[tokio::test]
async fn dead_leader_is_left_and_what_it_applied_is_not_applied_again() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    cast.set(|stage| {
        stage.successors = vec![(60, 2)];
        stage.answers_lost = 40..60;
    });
    let killer = async {
        while lock(&cast.stage).leader == 1 {
            tokio::task::yield_now().await;
        }
        cast.kill(1);
    };
    tokio::join!(write_all(&client, &cast, 100), killer);
}

#[tokio::test]
async fn leader_that_falls_silent_is_doubted_and_left() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    cast.set(|stage| {
        stage.silent = vec![1];
        stage.leader = 2;
    });
    let started = tokio::time::Instant::now();
    write_all(&client, &cast, 20).await;
    assert!(started.elapsed() < Duration::from_secs(8), "well before the silence ends the connection");
}

#[tokio::test]
async fn a_map_that_names_a_lost_leader_is_asked_for_elsewhere() {
    for is_killed in [true, false] {
        let cast = Cast::of(3, 3).await;
        let client = cast.client_of(3).await;
        cast.set(|stage| {
            stage.left_behind = vec![3];
            stage.leader = 2;
            if !is_killed {
                stage.silent = vec![1];
            }
        });
        if is_killed {
            cast.kill(1);
        }
        let started = tokio::time::Instant::now();
        write_all(&client, &cast, 20).await;
        assert!(started.elapsed() < Duration::from_secs(8), "well before the deadline");
    }
}

#[tokio::test]
async fn write_that_no_leader_took_has_not_applied() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    cast.set(|stage| stage.leader = 0);
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_millis(600));
    let error = append.await.expect_err("nobody leads");
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: false, .. }), "{error:?}");
    for node in 1..=3 {
        cast.kill(node);
    }
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_millis(600));
    let error = append.await.expect_err("nobody is there");
    // What waits in a connection that is about to break may have been sent.
    let again = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_millis(600));
    let again = again.await.expect_err("nobody is there");
    assert!(!again.may_have_applied(), "{again:?} after {error:?}");
}

#[tokio::test]
async fn write_that_was_sent_to_a_leader_that_died_may_have_applied() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    cast.set(|stage| stage.answers_lost = 0..1_000);
    let append = client.space("posts").append(UserId(1), "hello").deadline(Duration::from_secs(2));
    let killer = async {
        while lock(&cast.stage).applied.len() < 2 {
            tokio::task::yield_now().await;
        }
        cast.set(|stage| stage.leader = 0);
        cast.kill(1);
    };
    let (error, ()) = tokio::join!(append.into_future(), killer);
    let error = error.expect_err("nobody leads any more");
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: true, .. }), "{error:?}");
}

#[tokio::test]
async fn a_question_to_all_does_not_wait_for_a_node_that_is_known_to_be_gone() {
    let cast = Cast::of(3, 3).await;
    let client = cast.client().await;
    // One is dead, one hangs.
    cast.kill(2);
    cast.set(|stage| (stage.silent, stage.gone) = (vec![3], vec![2, 3]));
    let all = client.paused_by_node().deadline(Duration::from_secs(600)).into_future();
    let all =
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time").expect("one answers");
    let answered: Vec<_> = all.iter().map(|(node, owners)| (node.0, owners.clone().ok())).collect();
    assert_eq!(answered, [(1, Some(vec![UserId(1)])), (2, None), (3, None)]);
    assert!(client.paused().deadline(Duration::from_secs(2)).await.is_err(), "not all have answered");
}
