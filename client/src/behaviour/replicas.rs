//! Reads that any replica may answer, and pages that lack something: three nodes of which each leads a third of the partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfold_protocol::message::{
    Audience, ClusterNode, ClusterSettings, ClusterView, Consistency, EntryView, GroupHealth, GroupName,
    GroupView, Map, NodeAddress, NodeState, Page, ReferenceState, ReferenceView, ReplicaRole, ReplicaView,
    ShortReason,
};
use fanfold_protocol::{
    ClusterId, EntryId, LeaderHint, NodeId, PartitionId, Request, Response, Status, UserId,
};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Client;
use crate::lock::lock;
use crate::scripted::{Ask, Peer, Server, page, token};

const NODES: u64 = 3;
const PARTITIONS: u16 = 8;

/// What the nodes of a test share.
#[derive(Default)]
struct Stage {
    addresses: Vec<String>,
    /// What came, in its order: the node, and how many requests its frame held.
    frames: Vec<(u64, usize)>,
    reads: Vec<(u64, Request)>,
    maps: usize,
    /// Nodes that are not as young as a read wants, and say so.
    behind: BTreeSet<u64>,
    /// Nodes that take everything and answer nothing.
    silent: BTreeSet<u64>,
    /// The next pages, before those that are whole.
    next_pages: Vec<Page>,
}

fn leader(partition: PartitionId) -> NodeId {
    NodeId(u64::from(partition.0) % NODES + 1)
}

impl Stage {
    fn map(&self) -> Map {
        let nodes = self.addresses.iter().zip(1..);
        let nodes = nodes.map(|(address, node)| NodeAddress { node: NodeId(node), address: address.clone() });
        let leaders = (0..PARTITIONS).map(|n| leader(PartitionId(n))).collect();
        Map { cluster: ClusterId(7), epoch: 1, partitions: PARTITIONS, nodes: nodes.collect(), leaders }
    }

    fn view(&self) -> ClusterView {
        let node = |(address, node): (&String, u64)| ClusterNode {
            node: NodeId(node),
            address: address.clone(),
            peer_address: String::new(),
            zone: format!("zone-{node}"),
            state: NodeState::Active,
            heard_ms: Some(1),
            is_alive: true,
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
            replicas: 1,
            leads: 1,
        };
        let replica = |node| ReplicaView {
            replica: node,
            node: NodeId(node),
            role: ReplicaRole::Voter,
            lag: None,
            is_closed: false,
        };
        let group = |n| GroupView {
            group: GroupName::Partition(PartitionId(n)),
            health: GroupHealth::Whole,
            is_diverged: false,
            term: 1,
            leader: Some(leader(PartitionId(n))),
            preferred: None,
            replicas: (1..=NODES).map(replica).collect(),
        };
        ClusterView {
            cluster: ClusterId(7),
            by: NodeId(1),
            epoch: 1,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: self.addresses.iter().zip(1..).map(node).collect(),
            groups: (0..PARTITIONS).map(group).collect(),
        }
    }

    fn reply(&mut self, node: u64, ask: &Ask) -> Option<Result<Response, Status>> {
        match &ask.call.request {
            Request::GetMap => {
                self.maps += 1;
                return Some(Ok(Response::Map(self.map())));
            }
            Request::ListSpaces => return Some(Ok(crate::scripted::list_of_spaces())),
            Request::GetCluster => return Some(Ok(Response::Cluster(self.view()))),
            _ => {}
        }
        self.reads.push((node, ask.call.request.clone()));
        if self.silent.contains(&node) {
            return None;
        }
        let (user, consistency) = match &ask.call.request {
            Request::ReadFeed(read) => (read.reader, read.consistency),
            Request::ReadTimeline(read) => (read.owner, read.consistency),
            Request::ReadEntries(read) => {
                return Some(Ok(Response::Entries(read.ids.iter().map(|_| None).collect())));
            }
            Request::ReadFeeds(read) => {
                return Some(Ok(Response::Pages(read.readers.iter().map(|_| Ok(page(node))).collect())));
            }
            other => panic!("the test does not expect {other:?}"),
        };
        let leader = leader(PartitionId::of_user(user, PARTITIONS));
        let is_behind = consistency == Consistency::Leader || self.behind.contains(&node);
        if leader != NodeId(node) && is_behind {
            let address = self.addresses[leader.0 as usize - 1].clone();
            return Some(Err(Status::NotLeader { hint: Some(LeaderHint { node: leader, address }) }));
        }
        if self.next_pages.is_empty() {
            return Some(Ok(Response::Page(page(node))));
        }
        Some(Ok(Response::Page(self.next_pages.remove(0))))
    }
}

struct Cast {
    stage: Arc<Mutex<Stage>>,
    client: Client,
    _tasks: JoinSet<()>,
}

impl Cast {
    async fn new(zone: Option<&str>) -> Self {
        let mut servers = Vec::new();
        for _ in 0..NODES {
            servers.push(Server::start().await);
        }
        let addresses = servers.iter().map(Server::address).collect::<Vec<_>>();
        let stage = Arc::new(Mutex::new(Stage { addresses: addresses.clone(), ..Stage::default() }));
        let mut tasks = JoinSet::new();
        for (server, node) in servers.into_iter().zip(1..) {
            tasks.spawn(serve(server, node, stage.clone()));
        }
        let mut builder = Client::builder(&addresses[0]).or(&addresses[1]);
        if let Some(zone) = zone {
            builder = builder.zone(zone);
        }
        let client = builder.connect().await.expect("connected");
        Self { stage, client, _tasks: tasks }
    }

    /// What came since the last look: by node, the requests.
    fn reads(&self) -> Vec<(u64, Request)> {
        std::mem::take(&mut lock(&self.stage).reads)
    }
}

async fn serve(server: Server, node: u64, stage: Arc<Mutex<Stage>>) {
    let mut connections = JoinSet::new();
    loop {
        let peer = server.accept().await;
        connections.spawn(answer_all(peer, node, stage.clone()));
    }
}

async fn answer_all(mut peer: Peer, node: u64, stage: Arc<Mutex<Stage>>) {
    while let Some(ask) = peer.next_of_any_kind().await {
        let reply = {
            let mut stage = lock(&stage);
            let frames = std::mem::take(&mut peer.frame_items);
            stage.frames.extend(frames.into_iter().map(|items| (node, items)));
            stage.reply(node, &ask)
        };
        if let Some(reply) = reply
            && !peer.try_answer(&ask, &reply).await
        {
            return;
        }
    }
}

fn consistency_of(request: &Request) -> Consistency {
    match request {
        Request::ReadFeed(read) => read.consistency,
        Request::ReadTimeline(read) => read.consistency,
        Request::ReadFeeds(read) => read.consistency,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_choice_goes_where_it_may_be_answered() {
    let cast = Cast::new(None).await;
    let posts = cast.client.space("posts");
    let mut spread = BTreeSet::new();
    for reader in (0..30).map(UserId) {
        let home = leader(PartitionId::of_user(reader, PARTITIONS)).0;
        posts.feed(reader).await.expect("answered");
        posts.feed(reader).at_least(&token()).leader().await.expect("answered");
        for (node, request) in cast.reads() {
            assert_eq!((node, consistency_of(&request)), (home, Consistency::Leader));
        }
        posts.timeline(reader).at_least(&token()).await.expect("answered");
        posts.feed(reader).stale_ok(Duration::from_millis(250)).await.expect("answered");
        let reads = cast.reads();
        let kinds: Vec<_> = reads.iter().map(|(_, request)| consistency_of(request)).collect();
        assert_eq!(kinds, [Consistency::AtLeast, Consistency::StaleOk { max_ms: 250 }]);
        assert_eq!(reads[0].0, reads[1].0, "what is about one user goes to one replica");
        spread.insert(reads[0].0);
    }
    assert_eq!(spread.len(), 3, "all replicas take part");
    assert_eq!(lock(&cast.stage).maps, 1);
}

#[tokio::test]
async fn replicas_of_the_own_zone_answer() {
    let cast = Cast::new(Some("zone-2")).await;
    let reads = (0..20).map(|reader| cast.client.space("posts").feed(UserId(reader)));
    for read in reads {
        read.stale_ok(Duration::from_secs(1)).await.expect("answered");
    }
    assert!(cast.reads().iter().all(|(node, _)| *node == 2));
}

#[tokio::test]
async fn replica_that_is_behind_hands_on_to_others_and_the_leader_and_no_map_is_fetched() {
    let cast = Cast::new(None).await;
    lock(&cast.stage).behind = BTreeSet::from([1, 2, 3]);
    for reader in (0..12).map(UserId) {
        let home = leader(PartitionId::of_user(reader, PARTITIONS)).0;
        let page = cast.client.space("posts").feed(reader).stale_ok(Duration::from_secs(1)).await;
        assert_eq!(page.expect("the leader answers").complete_to, EntryId(home));
        let asked: Vec<_> = cast.reads().into_iter().map(|(node, _)| node).collect();
        assert!(asked.len() <= 3 && asked.last() == Some(&home), "{asked:?}");
    }
    assert_eq!(lock(&cast.stage).maps, 1);
}

#[tokio::test]
async fn silent_replica_is_left_and_asked_last_for_a_while() {
    let cast = Cast::new(None).await;
    let posts = cast.client.space("posts");
    posts.feed(UserId(0)).stale_ok(Duration::from_secs(1)).await.expect("answered");
    let silent = cast.reads()[0].0;
    lock(&cast.stage).silent.insert(silent);
    let started = Instant::now();
    posts.feed(UserId(0)).stale_ok(Duration::from_secs(1)).await.expect("another answers");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    cast.reads();
    posts.feed(UserId(0)).stale_ok(Duration::from_secs(1)).await.expect("another answers");
    assert!(cast.reads().iter().all(|(node, _)| *node != silent));
}

#[tokio::test]
async fn many_users_reads_to_one_node_share_its_frames() {
    let cast = Cast::new(None).await;
    let posts = cast.client.space("posts");
    // Connected to all of them.
    join_all((0..20).map(|reader| posts.feed(UserId(reader)).into_future())).await;
    cast.reads();
    lock(&cast.stage).frames.clear();
    let reads = (0..300).map(|reader| posts.feed(UserId(reader)).into_future());
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    let mut items: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (node, count) in std::mem::take(&mut lock(&cast.stage).frames) {
        items.entry(node).or_default().push(count);
    }
    assert_eq!(items.len(), 3);
    for (node, frames) in items {
        let reads: usize = frames.iter().sum();
        assert!(frames.len() <= 3, "node {node} got {reads} reads in {} frames", frames.len());
    }
    for (node, request) in cast.reads() {
        let Request::ReadFeed(read) = request else { panic!("{request:?}") };
        assert_eq!(leader(PartitionId::of_user(read.reader, PARTITIONS)).0, node);
    }
}

#[tokio::test]
async fn feeds_of_many_readers_are_one_request_per_node() {
    let cast = Cast::new(None).await;
    let readers: Vec<_> = (0..60).map(UserId).collect();
    let posts = cast.client.space("posts");
    let stale = Consistency::StaleOk { max_ms: 1_000 };
    let read = || posts.feeds(&readers).limit(10);
    for (read, consistency, at_least) in [
        (read(), Consistency::Leader, None),
        (read().stale_ok(Duration::from_secs(1)), stale, None),
        (read().at_least(&token()), Consistency::AtLeast, Some(token())),
        (read().at_least(&token()).stale_ok(Duration::from_secs(1)), stale, Some(token())),
        (read().at_least(&token()).leader(), Consistency::Leader, Some(token())),
    ] {
        let pages = read.await.expect("answered");
        let reads = cast.reads();
        let nodes: BTreeSet<_> = reads.iter().map(|(node, _)| *node).collect();
        assert_eq!((reads.len(), nodes.len()), (3, 3), "{reads:?}");
        for (reader, page) in readers.iter().zip(pages) {
            let node = page.expect("answered").complete_to.0;
            let asked = reads.iter().find(|(by, _)| *by == node).expect("asked");
            let Request::ReadFeeds(read) = &asked.1 else { panic!("{asked:?}") };
            assert!(read.readers.contains(reader));
            assert_eq!((read.consistency, read.at_least), (consistency, at_least));
        }
    }
}

#[tokio::test]
async fn entries_by_id_are_asked_as_the_choice_says() {
    let cast = Cast::new(None).await;
    let posts = cast.client.space("posts");
    let ids: Vec<_> = (0..60).map(|n| EntryId(n << 6)).collect();
    let read = || posts.entries(&ids);
    let stale = Consistency::StaleOk { max_ms: 1_000 };
    for (read, consistency, at_least) in [
        (read(), Consistency::Leader, None),
        (read().at_least(&token()), Consistency::AtLeast, Some(token())),
        (read().at_least(&token()).stale_ok(Duration::from_secs(1)), stale, Some(token())),
        (read().at_least(&token()).leader(), Consistency::Leader, Some(token())),
    ] {
        assert_eq!(read.await.expect("answered").len(), ids.len());
        let mut asked = Vec::new();
        for (node, request) in cast.reads() {
            let Request::ReadEntries(read) = request else { panic!("{request:?}") };
            assert_eq!((read.consistency, read.at_least), (consistency, at_least));
            let is_led = |id: &EntryId| leader(PartitionId::of_slot(id.slot(), PARTITIONS)).0 == node;
            assert!(consistency != Consistency::Leader || read.ids.iter().all(is_led), "{read:?}");
            asked.extend(read.ids);
        }
        asked.sort_unstable();
        assert_eq!(asked, ids);
    }
}

#[tokio::test]
async fn pages_from_replicas_reflect_what_the_pages_before_reflected() {
    let cast = Cast::new(None).await;
    let next = |below| fanfold_protocol::Cursor {
        scope: fanfold_protocol::CursorScope::Feed(fanfold_protocol::SpaceId(1)),
        subject: UserId(1),
        below: EntryId(below),
        as_of: 0,
        after: None,
    };
    let pages = |stage: &mut Stage| {
        stage.next_pages =
            vec![Page { next: Some(next(9)), ..page(9) }, Page { next: Some(next(8)), ..page(8) }];
    };
    pages(&mut lock(&cast.stage));
    let read = cast.client.space("posts").feed(UserId(1)).stale_ok(Duration::from_secs(60));
    read.pages().try_collect::<Vec<_>>().await.expect("answered");
    let named = |(_, request): (u64, Request)| match request {
        Request::ReadFeed(read) => read.at_least,
        other => panic!("{other:?}"),
    };
    let tokens: Vec<_> = cast.reads().into_iter().map(named).collect();
    assert_eq!(tokens, [None, Some(token()), Some(token())]);
    pages(&mut lock(&cast.stage));
    let read = cast.client.space("posts").feed(UserId(1));
    read.pages().try_collect::<Vec<_>>().await.expect("answered");
    let tokens: Vec<_> = cast.reads().into_iter().map(named).collect();
    assert_eq!(tokens, [None; 3], "the leader needs none");
}

fn entry(id: u64, payload: Option<&'static str>, reference: Option<ReferenceState>) -> EntryView {
    let owner = UserId(2);
    EntryView {
        id: EntryId(id),
        owner,
        author: owner,
        audience: Audience::Public,
        version: 1,
        expiry: None,
        payload: payload.map(Into::into),
        reference: reference.map(|state| ReferenceView { owner, id: EntryId(5), state }),
    }
}

#[tokio::test]
async fn page_that_lacks_something_is_read_again_until_it_is_whole() {
    let cast = Cast::new(None).await;
    let posts = cast.client.space("posts");
    let short_of = vec![ShortReason::Unreachable(PartitionId(4))];
    let short = Page { short_of: short_of.clone(), ..page(1) };
    let open = Page { entries: vec![entry(9, Some("text"), Some(ReferenceState::NotHydrated))], ..page(2) };
    let bare = Page { entries: vec![entry(9, None, None)], short_of, ..page(3) };
    let whole = Page { entries: vec![entry(9, Some("text"), Some(ReferenceState::Gone))], ..page(4) };
    lock(&cast.stage).next_pages = vec![short.clone(), open.clone(), bare, whole.clone()];
    assert_eq!(posts.feed(UserId(1)).hydrate().await.expect("answered"), whole);
    assert_eq!(cast.reads().len(), 4);
    lock(&cast.stage).next_pages = vec![open.clone(), whole.clone()];
    assert_eq!(posts.timeline(UserId(1)).hydrate().await.expect("answered"), whole);
    // What was not asked for is not missed.
    lock(&cast.stage).next_pages = vec![open.clone()];
    assert_eq!(posts.feed(UserId(1)).await.expect("answered"), open);
    // A partition that does not come back costs no more than the deadline, nor the page that there is.
    lock(&cast.stage).next_pages = vec![short.clone(); 1_000];
    let started = Instant::now();
    let read = posts.feed(UserId(1)).hydrate().deadline(Duration::from_millis(700));
    assert_eq!(read.await.expect("the short page"), short);
    assert!(started.elapsed() < Duration::from_secs(5));
}
