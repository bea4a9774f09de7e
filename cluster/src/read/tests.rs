//! Reads and streams between partitions on two nodes, over real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Limits, Outcome, Ttl, Write, WriteTag, encode_batch};
use fanfold_storage::entry::{Audience, EntryRef};
use fanfold_storage::fs::RealFs;
use fanfold_storage::ids::{
    EntryId, GraphId, JournalPosition, PartitionId, Sequence, SpaceId, Stamp, UserId,
};
use fanfold_storage::log::{GroupId, Log, LogOptions};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::catalog::{CatalogState, NodeRecord, NodeState};
use crate::clock::{Stamps, SystemClock};
use crate::dispatcher::{ClusterStreams, Dispatcher, DispatcherSettings, take_in};
use crate::error::NodeError;
use crate::map::{Whereabouts, group_of};
use crate::partition::{PartitionHandle, PartitionMachine, Partitions, background};
use crate::peer::*;
use crate::proposer::Proposer;
use crate::raft::{
    Fills, Formation, Group, GroupDirectory, GroupSpec, InProcessTransport, MessageKind, RaftSettings,
    ReplicaAddress, ReplicaId, group_dir,
};

const PARTITIONS: u16 = 4;
const POSTS: SpaceId = SpaceId(1);
const FOLLOWS: GraphId = GraphId(1);
const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Known(Mutex<BTreeMap<u64, SocketAddr>>);

impl Addresses for Known {
    fn peer_address(&self, node: u64) -> Option<String> {
        self.0.lock().get(&node).map(ToString::to_string)
    }

    fn peers(&self) -> Vec<u64> {
        self.0.lock().keys().copied().collect()
    }
}

/// What other nodes reach of a half.
struct Answers(Arc<Partitions>);

impl PeerHandler for Answers {
    fn admit(&self, _: u64) -> Result<(), HelloRefusal> {
        Ok(())
    }

    fn raft(
        &self,
        _: u64,
        _: GroupId,
        _: ReplicaId,
        _: MessageKind,
        _: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(async { Err(PeerRefusal::NotHosted) })
    }

    fn call(&self, _: u64, call: PeerCall) -> BoxFuture<'_, Result<PeerAnswer, PeerRefusal>> {
        Box::pin(async move {
            match call {
                PeerCall::Ask(questions) => answer_asked(&self.0, &questions).await.map(PeerAnswer::Replies),
                PeerCall::Stream { destination, message } => {
                    take_in(&self.0, destination, message).await.map(PeerAnswer::Stream)
                }
                _ => Err(PeerRefusal::Malformed),
            }
        })
    }

    fn ping(&self) -> Ping {
        Ping::default()
    }

    fn heard(&self, _: u64, _: &Ping) {}
}

/// A node with some of the partitions.
struct Half {
    partitions: Arc<Partitions>,
    known: Arc<Known>,
    whereabouts: Arc<Whereabouts>,
    address: SocketAddr,
    sequences: Mutex<BTreeMap<PartitionId, WriteTag>>,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Half {
    async fn new(node: u64, hosted: &[u16]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let (log, _) = Log::open(Arc::new(RealFs), &dir.path().join("log"), options).unwrap();
        let whereabouts = Arc::new(Whereabouts::default());
        whereabouts.view.offer(1, || {
            let record = |node: u64| NodeRecord {
                address: format!("node-{node}:1"),
                peer_address: String::new(),
                zone: String::new(),
                state: NodeState::Active,
                directory_id: 0,
            };
            let nodes = (1..=2).map(|node| (node, record(node))).collect();
            Arc::new(CatalogState { epoch: 1, nodes, ..CatalogState::default() })
        });
        let partitions = Arc::new(Partitions::new(PARTITIONS, whereabouts.clone()));
        let stamps = Arc::new(Stamps::new(Arc::new(SystemClock::new()), 0));
        let stop = CancellationToken::new();
        let streams = ClusterStreams::new(partitions.clone());
        for id in hosted.iter().copied().map(PartitionId) {
            let group = group_of(Some(id));
            let replica = ReplicaId(1);
            let members = BTreeMap::from([(replica, ReplicaAddress("here".into()))]);
            let spec = GroupSpec { group, replica, members, formation: Formation::New };
            let pace = Arc::new(|_| ());
            let directory = GroupDirectory {
                fs: Arc::new(RealFs),
                dir: group_dir(dir.path(), group),
                pace,
                fills: Fills::default(),
            };
            let (machine, settings) = (PartitionMachine::new(id, PARTITIONS), RaftSettings::default());
            let transport = Arc::new(InProcessTransport::default());
            let group = Group::open(log.clone(), spec, directory.load(group, machine), &settings, transport)
                .await
                .unwrap();
            let encode = |stamp_ms: u64, commands: &[Bytes]| encode_batch(Stamp(stamp_ms), commands);
            let proposer = Proposer::spawn(group.clone(), encode, stamps.clone(), background(&group));
            let handle = Arc::new(PartitionHandle::new(id, group, proposer, whereabouts.clone()));
            partitions.host(handle.clone());
            handle.propose(&Command::Configure { limits: Limits::default() }).await.unwrap();
            let definition = SpaceDefinition {
                id: POSTS,
                name: "posts".into(),
                graph: FOLLOWS,
                graph_name: "follows".into(),
                version: 1,
                policy: SpacePolicy::default(),
            };
            handle.propose(&Command::DefineSpace { definition }).await.unwrap();
            let settings = DispatcherSettings { journal_events_max: 100_000 };
            let dispatcher = Dispatcher::new(handle, Arc::new(streams.clone()), settings);
            tokio::spawn(dispatcher.run(stop.clone()));
        }
        let known = Arc::new(Known::default());
        let identity = watch::Sender::new(Some(PeerIdentity { cluster: 1, node }));
        let network = PeerNetwork::new(identity.subscribe(), known.clone(), PeerOptions::default());
        let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap(), &network).await.unwrap();
        let (address, answers) = (listener.local_addr(), Arc::new(Answers(partitions.clone())));
        tokio::spawn(listener.run(answers, stop.clone()));
        partitions.connect(network);
        let sequences = Mutex::default();
        Self { partitions, known, whereabouts, address, sequences, _dir: dir, _stop: stop.drop_guard() }
    }

    fn asker(&self) -> Asker<'_> {
        Asker::new(&self.partitions)
    }

    fn home(&self, user: UserId) -> Arc<PartitionHandle> {
        self.partitions.get(self.asker().home_of(user)).unwrap()
    }

    async fn write(&self, user: UserId, write: Write) -> (u64, Option<JournalPosition>) {
        let home = self.home(user);
        let known = self.sequences.lock().get(&home.id()).copied();
        let session = match known {
            Some(tag) => tag.session,
            None => match home.propose(&Command::OpenSession).await.unwrap().1 {
                Outcome::Session { session } => session,
                other => panic!("{other:?}"),
            },
        };
        let sequence = Sequence(known.map_or(1, |tag| tag.sequence.0 + 1));
        let tag = WriteTag { session, sequence, lowest_unanswered: sequence };
        self.sequences.lock().insert(home.id(), tag);
        match home.propose(&Command::Write { tag, write }).await.unwrap() {
            (index, Outcome::Written { journal, .. }) => (index, journal),
            other => panic!("{other:?}"),
        }
    }

    async fn post(&self, owner: UserId, payload: &str, reference: Option<EntryRef>) {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let item = Append { reference, payload, ..item(owner, Audience::Public) };
        self.write(owner, Write::Append { items: vec![item] }).await;
    }

    async fn post_many(&self, owner: UserId, audience: Audience, count: usize) {
        self.write(owner, Write::Append { items: vec![item(owner, audience); count] }).await;
    }

    /// A page of ids only, as long as pages may be.
    async fn scan(&self, reader: UserId, below: EntryId) -> Page {
        let limit = LIMIT_MAX;
        let (newer_than, at_least) = (None, None);
        let consistency = Consistency::Leader;
        let request = FeedRequest {
            space: POSTS,
            reader,
            limit,
            below,
            newer_than,
            hydrate: false,
            at_least,
            consistency,
        };
        timeout(LONG, read_feed(self.asker(), &self.home(reader), &request, PAGE_BYTES_MAX))
            .await
            .unwrap()
            .unwrap()
    }

    async fn feed(&self, reader: UserId) -> Page {
        self.feed_below(reader, EntryId::MAX, PAGE_BYTES_MAX).await
    }

    async fn feed_below(&self, reader: UserId, below: EntryId, bytes_max: usize) -> Page {
        let request = FeedRequest {
            space: POSTS,
            reader,
            limit: 10,
            below,
            newer_than: None,
            hydrate: true,
            at_least: None,
            consistency: crate::read::Consistency::Leader,
        };
        read_feed(self.asker(), &self.home(reader), &request, bytes_max).await.unwrap()
    }
}

fn item(owner: UserId, audience: Audience) -> Append {
    Append {
        space: POSTS,
        owner,
        author: None,
        audience,
        ttl: Ttl::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::new(),
    }
}

fn ids(page: &Page) -> Vec<EntryId> {
    page.entries.iter().map(|entry| entry.id).collect()
}

fn payloads(page: &Page) -> Vec<Option<Bytes>> {
    page.entries.iter().map(|entry| entry.payload.clone()).collect()
}

/// Two nodes with two partitions each, what the first sends through a proxy, and a user of each partition.
async fn halves() -> (Half, PeerProxy, Half, Vec<UserId>) {
    let (first, second) = (Half::new(1, &[0, 1]).await, Half::new(2, &[2, 3]).await);
    let proxy = PeerProxy::start(second.address).await.unwrap();
    first.known.0.lock().insert(2, proxy.address());
    second.known.0.lock().insert(1, first.address);
    for half in [&first, &second] {
        for (partition, node) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
            half.whereabouts.leaders.note(group_of(Some(PartitionId(partition))), 1, node);
        }
    }
    let of = |n| {
        (1..10_000)
            .map(UserId)
            .find(|user| PartitionId::of_user(*user, PARTITIONS) == PartitionId(n))
            .unwrap()
    };
    let users = (0..PARTITIONS).map(of).collect();
    (first, proxy, second, users)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_edges_and_waits_work_across_nodes() {
    let (first, _proxy, second, users) = halves().await;
    let follow = |owner| Write::Follow { graph: FOLLOWS, reader: users[0], owners: vec![owner] };
    second.post(users[2], "before", None).await;
    for owner in [users[1], users[2], users[3]] {
        first.write(users[0], follow(owner)).await;
    }
    second.post(users[3], "there", None).await;
    first.post(users[1], "here", None).await;
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let page = first.feed(users[0]).await;
    let expected = ["here", "there", "before"].map(|text| Some(Bytes::from_static(text.as_bytes())));
    let mut found = payloads(&page);
    found.sort();
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(found, sorted);
    assert_eq!((page.next, page.short_of.len()), (None, 0));
    // The edges of an owner are where the readers are.
    let counts = counts(second.asker(), FOLLOWS, users[2]).await.unwrap();
    assert_eq!(counts, Counts { followers: 1, followees: 0 });
    let followers = scan_followers(second.asker(), FOLLOWS, users[2], None, 10).await.unwrap();
    assert_eq!(followers.users.iter().map(|edge| edge.user).collect::<Vec<_>>(), [users[0]]);
    let there = page.entries.iter().find(|entry| entry.owner == users[3]).unwrap().id;
    let explained = explain(first.asker(), POSTS, users[0], there).await.unwrap();
    assert!(explained.shown, "{explained:?}");
    // Entries by id, with a viewer who is homed elsewhere.
    let request = EntriesRequest {
        space: POSTS,
        ids: vec![there],
        viewer: Some(users[0]),
        at_least: None,
        consistency: crate::read::Consistency::Leader,
    };
    let entries = read_entries(second.asker(), &request).await.unwrap();
    assert_eq!(entries[0].as_ref().unwrap().id, there);
    // A token of a write there is waited for from here.
    let (_, journal) = second.write(users[2], Write::Block { user: users[2], targets: vec![users[0]] }).await;
    let question = Question::Reached {
        incarnation: second.home(users[2]).incarnation(),
        position: journal.unwrap(),
        destination: Some(PartitionId(0)),
    };
    let reached = timeout(LONG, first.asker().wait(PartitionId(2), question)).await.unwrap();
    assert_eq!(reached, Ok(question::Reply::Done));
    assert!(first.feed(users[0]).await.entries.iter().all(|entry| entry.owner != users[2]), "blocked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_makes_pages_short_and_nothing_is_lost() {
    let (first, proxy, second, users) = halves().await;
    let owners = vec![users[1], users[2]];
    first.write(users[0], Write::Follow { graph: FOLLOWS, reader: users[0], owners }).await;
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    second.post(users[2], "there", None).await;
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    proxy.cut(Toward::Caller, true);
    let page = timeout(LONG, first.feed(users[0])).await.unwrap();
    assert_eq!(page.short_of, [ShortReason::Unreachable { partition: PartitionId(2) }]);
    assert_eq!(payloads(&page), [None], "known, but not its payload");
    // What is written meanwhile arrives once the way is there again, once.
    first.write(users[1], Write::Follow { graph: FOLLOWS, reader: users[1], owners: vec![users[3]] }).await;
    proxy.cut(Toward::Caller, false);
    proxy.break_all();
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let counted = counts(second.asker(), FOLLOWS, users[3]).await.unwrap();
    assert_eq!(counted.followers, 1);
    assert_eq!(payloads(&first.feed(users[0]).await), [Some(Bytes::from_static(b"there"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_past_a_partition_that_does_not_answer_is_never_at_its_end() {
    let (first, proxy, second, users) = halves().await;
    first.post(users[1], "older", None).await;
    let cap = SpacePolicy::default().feed_cap as usize;
    second.post_many(users[2], Audience::Public, cap + 1).await;
    let owners = vec![users[1], users[2]];
    first.write(users[0], Write::Follow { graph: FOLLOWS, reader: users[0], owners }).await;
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let whole = ids(&first.scan(users[0], EntryId::MAX).await);
    assert_eq!(whole.len(), cap + 2);
    let (left_out, older) = (whole[cap], whole[cap + 1]);
    proxy.cut(Toward::Caller, true);
    // What is above the gap is a page of its own, and the next one begins at the gap.
    let page = first.scan(users[0], EntryId::MAX).await;
    let short_of = vec![ShortReason::Unreachable { partition: PartitionId(2) }];
    assert_eq!((ids(&page), &page.short_of), (whole[..cap].to_vec(), &short_of));
    let gap = page.next.unwrap();
    assert!(gap > left_out && gap <= whole[cap - 1] && page.complete_to == gap, "{gap:?}");
    // Nothing is above it now: what is known below is shown, and said not to be all.
    let page = first.scan(users[0], gap).await;
    assert_eq!((ids(&page), &page.short_of, page.complete_to), (vec![older], &short_of, gap));
    assert_eq!(page.next, Some(older));
    let page = first.scan(users[0], older).await;
    assert_eq!((ids(&page), page.next), (vec![], Some(older)), "no true end");
    proxy.cut(Toward::Caller, false);
    proxy.break_all();
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let page = first.scan(users[0], gap).await;
    assert_eq!((ids(&page), page.next, page.short_of.len()), (vec![left_out, older], None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_passes_over_so_many_private_entries_and_the_next_goes_on() {
    let (first, _proxy, second, users) = halves().await;
    let (owner, reader) = (users[2], users[0]);
    second.post(owner, "below them", None).await;
    for _ in 0..9 {
        second.post_many(owner, Audience::Private, 1_000).await;
    }
    second.post(owner, "above them", None).await;
    let home = second.home(owner);
    let ask = |below| Question::Newest {
        space: POSTS,
        reader,
        from: EntryId(1),
        limit: 20,
        sources: vec![(owner, below)],
    };
    let answered = |reply| match reply {
        Ok(question::Reply::Newest { deliveries, bound }) => (deliveries.len(), bound),
        other => panic!("{other:?}"),
    };
    let (found, bound) = answered(ask(EntryId::MAX).answer(&home).await);
    assert!(found == 1 && bound > EntryId::ZERO, "{found} down to {bound}");
    assert_eq!(answered(ask(bound).answer(&home).await), (1, EntryId::ZERO));
    // A feed is filled all the same.
    first.write(reader, Write::Follow { graph: FOLLOWS, reader, owners: vec![owner] }).await;
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let page = first.scan(reader, EntryId::MAX).await;
    assert_eq!((page.entries.len(), page.next, page.short_of.len()), (2, None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hydrated_page_ends_when_its_bytes_are_spent_and_the_next_goes_on() {
    let (first, _proxy, second, users) = halves().await;
    let owners = vec![users[1], users[2], users[3]];
    first.write(users[0], Write::Follow { graph: FOLLOWS, reader: users[0], owners }).await;
    second.post(users[3], &"r".repeat(700), None).await;
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let referred = first.scan(users[0], EntryId::MAX).await.entries[0].id;
    for n in 0..4 {
        first.post(users[1], &"a".repeat(500), None).await;
        let reference = (n % 2 == 0).then_some(EntryRef { owner: users[3], id: referred });
        second.post(users[2], &"b".repeat(600), reference).await;
    }
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    timeout(LONG, second.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let whole = first.feed(users[0]).await;
    assert_eq!((whole.entries.len(), whole.next, whole.short_of.len()), (9, None, 0));
    let spent = ShortReason::Spent { budget: Budget::Bytes };
    for bytes_max in [1, 600, 1_000, 1_300, 2_000, 3_000, 10_000] {
        let (mut shown, mut below) = (Vec::new(), EntryId::MAX);
        loop {
            let page = first.feed_below(users[0], below, bytes_max).await;
            let bytes: usize = page.entries.iter().map(EntryView::payload_bytes).sum();
            // Each of three homes may bring one entry more.
            assert!(bytes <= 2 * bytes_max + 3 * 1_300, "{bytes} of {bytes_max}");
            assert!(page.next.is_none() || page.short_of == [spent], "{page:?}");
            assert_eq!(page.complete_to, page.next.unwrap_or(EntryId::ZERO));
            shown.extend(page.entries);
            match page.next {
                Some(next) => below = next,
                None => break,
            }
        }
        assert_eq!(shown, whole.entries, "{bytes_max}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_found_together_are_those_that_are_read_one_by_one() {
    let (first, _proxy, _second, users) = halves().await;
    for (reader, owner, posts) in [(users[0], users[1], 7), (users[1], users[0], 3)] {
        first.write(reader, Write::Follow { graph: FOLLOWS, reader, owners: vec![owner] }).await;
        for n in 0..posts {
            first.post(owner, &"p".repeat(100 * n + 1), None).await;
        }
    }
    timeout(LONG, first.asker().wait_everywhere(&Question::Drained)).await.unwrap().unwrap();
    let mut requests = Vec::new();
    for (n, limit) in [2, 10, 1, 100, 3, 7, 9, 4].into_iter().enumerate() {
        for hydrate in [false, true, n % 3 == 0] {
            requests.push(FeedRequest {
                space: POSTS,
                reader: users[(n + usize::from(hydrate)) % 2],
                limit,
                below: EntryId::MAX,
                newer_than: None,
                hydrate,
                at_least: None,
                consistency: Consistency::Leader,
            });
        }
    }
    let mut ready = ReadyFeeds::default();
    // What was found before leaves nothing behind.
    for _ in 0..2 {
        ready.find(first.asker(), PAGE_BYTES_MAX, requests.len(), |n| &requests[n]);
        for (n, request) in requests.iter().enumerate() {
            let home = first.home(request.reader);
            let one = read_feed(first.asker(), &home, request, PAGE_BYTES_MAX).await.unwrap();
            let found = ready.take(n).expect("all of it is on this node");
            assert_eq!(
                (found.len(), found.next, found.position),
                (one.entries.len(), one.next, one.position)
            );
            for ((entry, payload), expected) in found.entries().zip(&one.entries) {
                let found = (entry.id, entry.owner, payload);
                assert_eq!(found, (expected.id, expected.owner, expected.payload.as_deref()), "{request:?}");
            }
        }
        requests.reverse();
    }
    assert!(requests.len() > 16, "more than are begun together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_asked_in_vain_names_the_leader() {
    let (first, _proxy, second, users) = halves().await;
    // The first believes that the second leads a partition that is here, and knows nobody for the other.
    let count = Question::FollowerCount { graph: FOLLOWS, owner: users[0] };
    second.whereabouts.leaders.note(group_of(Some(PartitionId(2))), 9, 1);
    first.whereabouts.leaders.note(group_of(Some(PartitionId(2))), 9, 2);
    second.whereabouts.leaders.forget(group_of(Some(PartitionId(0))), 1);
    let unknown = second.asker().ask_one(PartitionId(0), count.clone()).await;
    assert_eq!(unknown, Err(NodeError::NotLeader { leader: None }));
    second.whereabouts.leaders.note(group_of(Some(PartitionId(0))), 2, 1);
    let known = second.asker().ask_one(PartitionId(0), count.clone()).await;
    assert_eq!(known, Ok(question::Reply::Count { count: 0 }));
    // Whoever leads is asked here, whatever is believed.
    let own = second.asker().ask_one(PartitionId(2), count.clone()).await;
    assert_eq!(own, Ok(question::Reply::Count { count: 0 }));
    // A partition that nobody hosts is refused by the node that was believed to.
    first.partitions.retire(PartitionId(1));
    first.whereabouts.leaders.note(group_of(Some(PartitionId(1))), 7, 2);
    let gone = first.asker().ask_one(PartitionId(1), count).await;
    assert!(matches!(gone, Err(NodeError::NotLeader { .. } | NodeError::Unavailable { .. })), "{gone:?}");
}
