//! Two networks over loopback, with a proxy between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{FrameKind, HEAD_BYTES};
use super::hello::{Hello, HelloAnswer, Purpose};
use super::wire::{Body, Pieces};
use super::*;
use crate::raft::{MessageKind, PeerRequest, ReplicaId, TransportError};

const CLUSTER: u128 = 0xC1;

/// Where nodes are, as a test says.
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

/// Echoes; messages of group 7 wait until they are let go on.
struct Echo {
    node: u64,
    refused: Mutex<Option<HelloRefusal>>,
    bulk: Semaphore,
    received: Mutex<Vec<(u32, Bytes)>>,
    heard: Mutex<Vec<(u64, Ping)>>,
    cuts: watch::Sender<Vec<(u64, Cut)>>,
}

const SLOW_GROUP: u32 = 7;

impl PeerHandler for Echo {
    fn admit(&self, _: u64) -> Result<(), HelloRefusal> {
        self.refused.lock().map_or(Ok(()), Err)
    }
    fn raft(
        &self,
        _: u64,
        group: GroupId,
        target: ReplicaId,
        kind: MessageKind,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, PeerRefusal>> {
        self.received.lock().push((group.0, body.clone()));
        Box::pin(async move {
            if target.0 == 0 {
                return Err(PeerRefusal::NotHosted);
            }
            if group.0 == SLOW_GROUP && kind == MessageKind::Append {
                self.bulk.acquire().await.map_err(|_| PeerRefusal::Stopping)?.forget();
            }
            Ok(body)
        })
    }
    fn call(&self, from: u64, call: PeerCall) -> BoxFuture<'_, Result<PeerAnswer, PeerRefusal>> {
        Box::pin(async move {
            match call {
                PeerCall::Control(message) => Ok(PeerAnswer::Control(message)),
                PeerCall::Join(_) if from == 0 => Ok(PeerAnswer::Joined(JoinAnswer {
                    cluster: CLUSTER,
                    node: 9,
                    partitions: 16,
                    catalog: Bytes::new(),
                })),
                PeerCall::ProposeCatalog(_) => Err(PeerRefusal::NotLeader { leader: Some(3) }),
                _ => std::future::pending().await,
            }
        })
    }
    fn ping(&self) -> Ping {
        let led = vec![(GroupId(1), self.node)];
        Ping { wall_ms: 1_000 * self.node, catalog_epoch: self.node, led, ..Ping::default() }
    }
    fn heard(&self, from: u64, ping: &Ping) {
        self.heard.lock().push((from, ping.clone()));
    }

    fn ended(&self, from: u64, cut: Cut) {
        self.cuts.send_modify(|cuts| cuts.push((from, cut)));
    }
}

/// A node as far as the network goes.
struct Peer {
    network: PeerNetwork,
    known: Arc<Known>,
    echo: Arc<Echo>,
    address: SocketAddr,
    _stop: DropGuard,
}

fn options() -> PeerOptions {
    PeerOptions {
        ping_ms: 20,
        silent_ms: 400,
        dial_ms: 400,
        stall_ms: 400,
        frame_ms: 1_000,
        backoff_min_ms: 10,
        backoff_max_ms: 100,
        group_bytes_max: 64 << 10,
        connection_bytes_max: 1 << 20,
        connection_requests_max: 64,
        frame_bytes_max: 512 << 10,
        connections_max: 8,
    }
}

async fn peer(node: u64, options: PeerOptions) -> Peer {
    let known = Arc::new(Known::default());
    let identity = watch::Sender::new(Some(PeerIdentity { cluster: CLUSTER, node }));
    let network = PeerNetwork::new(identity.subscribe(), known.clone(), options);
    let echo = Arc::new(Echo {
        node,
        refused: Mutex::new(None),
        bulk: Semaphore::new(0),
        received: Mutex::default(),
        heard: Mutex::default(),
        cuts: watch::Sender::default(),
    });
    let stop = CancellationToken::new();
    let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap(), &network).await.unwrap();
    let address = listener.local_addr();
    tokio::spawn(listener.run(echo.clone(), stop.clone()));
    let (pings, handler, ended) = (network.clone(), echo.clone(), stop.clone());
    tokio::spawn(async move { pings.run(handler, ended).await });
    Peer { network, known, echo, address, _stop: stop.drop_guard() }
}

/// Nodes 1 and 2; what 1 sends goes through the proxy.
async fn pair(options: PeerOptions) -> (Peer, PeerProxy, Peer) {
    let (first, second) = (peer(1, options.clone()).await, peer(2, options).await);
    let proxy = PeerProxy::start(second.address).await.unwrap();
    first.known.0.lock().insert(2, proxy.address());
    second.known.0.lock().insert(1, first.address);
    (first, proxy, second)
}

impl Peer {
    async fn echo_call(&self, text: &'static str, deadline: Duration) -> Result<PeerAnswer, PeerError> {
        self.network.call(2, PeerCall::Control(Bytes::from_static(text.as_bytes())), deadline).await
    }

    async fn works(&self) {
        while self.echo_call("works", LONG).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    async fn append(&self, group: u32, body: Bytes) -> Result<Bytes, TransportError> {
        self.raft(MessageKind::Append, group, 5, body).await
    }

    async fn raft(
        &self,
        kind: MessageKind,
        group: u32,
        target: u64,
        body: Bytes,
    ) -> Result<Bytes, TransportError> {
        let request = PeerRequest {
            group: GroupId(group),
            source: ReplicaId(4),
            target: ReplicaId(target),
            address: crate::map::address_of(2),
            kind,
            is_ordered: false,
            body,
        };
        self.network.raft_transport().send(request).await
    }

    async fn wait_cut(&self, is_it: impl Fn(&(u64, Cut)) -> bool) {
        let mut cuts = self.echo.cuts.subscribe();
        let cut = timeout(LONG, cuts.wait_for(|cuts| cuts.iter().any(&is_it))).await.map(|_| ());
        assert!(cut.is_ok(), "cuts so far: {:?}", self.echo.cuts.borrow());
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn calls_and_messages_arrive_and_are_answered() {
    let (first, _proxy, second) = pair(options()).await;
    let answer = first.echo_call("hello", LONG).await.unwrap();
    assert_eq!(answer, PeerAnswer::Control(Bytes::from_static(b"hello")));
    let refused = first.network.call(2, PeerCall::ProposeCatalog(Bytes::new()), LONG).await;
    assert_eq!(refused, Err(PeerError::Refused(PeerRefusal::NotLeader { leader: Some(3) })));
    let large = Bytes::from(vec![9; 60 << 10]);
    assert_eq!(first.append(3, large.clone()).await.unwrap(), large);
    assert_eq!(first.raft(MessageKind::Snapshot, 3, 5, large.clone()).await.unwrap(), large);
    let not_hosted = first.raft(MessageKind::Vote, 3, 0, Bytes::new()).await;
    assert!(matches!(not_hosted, Err(TransportError::Unreachable { .. })));
    assert_eq!(*second.echo.received.lock(), [(3, large.clone()), (3, large), (3, Bytes::new())]);
}

#[tokio::test]
async fn a_node_that_has_not_joined_can_only_join() {
    let second = peer(2, options()).await;
    let stranger =
        PeerNetwork::new(watch::Sender::new(None).subscribe(), Arc::new(Known::default()), options());
    let address = second.address.to_string();
    let request = JoinRequest {
        directory: 1,
        client_address: "a:1".into(),
        peer_address: "a:2".into(),
        zone: String::new(),
        feature_level: 1,
    };
    let joined = stranger.call_address(&address, PeerCall::Join(request), LONG).await.unwrap();
    assert!(matches!(joined, PeerAnswer::Joined(JoinAnswer { cluster: CLUSTER, node: 9, .. })));
    let other = stranger.call_address(&address, PeerCall::Control(Bytes::new()), LONG).await;
    assert_eq!(other, Err(PeerError::Broken { cut: Cut::Closed, sent: true }));
    second.wait_cut(|(from, cut)| *from == 0 && *cut == Cut::Unexpected).await;
}

#[tokio::test]
async fn pings_carry_clocks_and_what_is_led_and_tell_who_is_alive() {
    let (first, proxy, second) = pair(options()).await;
    let mut alive = first.network.watch_alive();
    timeout(LONG, alive.wait_for(|alive| alive.contains(&2))).await.unwrap().unwrap();
    timeout(LONG, second.network.watch_alive().wait_for(|alive| alive.contains(&1))).await.unwrap().unwrap();
    assert!(first.network.alive(2).unwrap() < LONG);
    let ahead_ms = |here_ms: i64| first.network.clock_offsets(here_ms).get(&2).copied();
    timeout(LONG, async {
        while ahead_ms(1_000).is_none_or(|ahead| (ahead - 1_000).abs() > 200) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(ahead_ms(3_601_000), None, "this clock has jumped since, and perhaps the other one");
    let led = vec![(GroupId(1), 1)];
    assert!(second.echo.heard.lock().iter().any(|(from, ping)| *from == 1 && ping.led == led));
    // It is heard over both connections, so both nodes have to be cut off.
    proxy.cut(Toward::Target, true);
    second.known.0.lock().clear();
    timeout(LONG, alive.wait_for(|alive| !alive.contains(&2))).await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_end_by_their_deadline_whatever_is_cut() {
    for faults in [&[Toward::Target][..], &[Toward::Caller], &[Toward::Target, Toward::Caller]] {
        for stall in [false, true] {
            let (first, proxy, _second) = pair(options()).await;
            first.works().await;
            for toward in faults {
                if stall { proxy.stall(*toward, true) } else { proxy.cut(*toward, true) }
            }
            let (began, deadline) = (Instant::now(), Duration::from_millis(100));
            let error = first.echo_call("lost", deadline).await.unwrap_err();
            assert!(matches!(error, PeerError::Deadline), "{error}");
            assert!(began.elapsed() >= deadline);
            // Silence is noticed without a deadline of the caller.
            let error = first.echo_call("lost", LONG).await.unwrap_err();
            let is_noticed = matches!(error, PeerError::Broken { .. } | PeerError::Unreachable { .. });
            assert!(is_noticed, "{error}");
            for toward in faults {
                proxy.cut(*toward, false);
                proxy.stall(*toward, false);
            }
            proxy.break_all();
            timeout(LONG, first.works()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_group_without_credit_holds_up_neither_others_nor_its_heartbeats() {
    let (first, _proxy, second) = pair(options()).await;
    let first = Arc::new(first);
    let bulk = Bytes::from(vec![1; 30 << 10]);
    let stalled: Vec<_> = (0..2)
        .map(|_| {
            let (first, bulk) = (first.clone(), bulk.clone());
            tokio::spawn(async move { first.append(SLOW_GROUP, bulk).await })
        })
        .collect();
    timeout(LONG, async {
        while second.echo.received.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let refused = first.append(SLOW_GROUP, bulk.clone()).await;
    assert!(matches!(refused, Err(TransportError::Unreachable { .. })), "its credit is used up");
    assert_eq!(first.append(8, bulk.clone()).await.unwrap(), bulk);
    let vote = first.raft(MessageKind::Vote, SLOW_GROUP, 5, Bytes::from_static(b"vote")).await;
    assert_eq!(vote.unwrap(), Bytes::from_static(b"vote"));
    second.echo.bulk.add_permits(2);
    for append in stalled {
        assert_eq!(append.await.unwrap().unwrap(), bulk);
    }
    second.echo.bulk.add_permits(1);
    assert_eq!(first.append(SLOW_GROUP, bulk.clone()).await.unwrap(), bulk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_group_arrive_in_order() {
    let (first, _proxy, second) = pair(options()).await;
    second.echo.bulk.add_permits(1_000);
    for round in 0..20u8 {
        let sent: Vec<Bytes> = (0..10).map(|number| Bytes::from(vec![round * 10 + number; 200])).collect();
        let appends = sent.iter().map(|body| first.append(SLOW_GROUP, body.clone()));
        for (sent, answer) in sent.iter().zip(futures_util::future::join_all(appends).await) {
            assert_eq!(answer.unwrap(), sent);
        }
    }
    let received: Vec<u8> = second.echo.received.lock().iter().map(|(_, body)| body[0]).collect();
    assert_eq!(received, (0..200).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_changed_address_is_tried_at_once() {
    let slow = PeerOptions { backoff_min_ms: 3_600_000, backoff_max_ms: 3_600_000, ..options() };
    let (first, second) = (peer(1, slow.clone()).await, peer(2, slow).await);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    first.known.0.lock().insert(2, nobody);
    let error = first.echo_call("nobody", LONG).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    let error = first.echo_call("nobody", LONG).await.unwrap_err();
    assert!(!error.may_have_applied(), "at once: {error}");
    first.known.0.lock().insert(2, second.address);
    first.echo_call("there", LONG).await.unwrap();
}

#[tokio::test]
async fn a_node_that_says_hello_is_dialled_at_once() {
    let slow = PeerOptions { backoff_min_ms: 3_600_000, backoff_max_ms: 3_600_000, ..options() };
    let (first, second) = (peer(1, slow.clone()).await, peer(2, slow).await);
    *second.echo.refused.lock() = Some(HelloRefusal::NotReady);
    first.known.0.lock().insert(2, second.address);
    let error = first.echo_call("too early", LONG).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    *second.echo.refused.lock() = None;
    let mut reached = first.network.watch_reached();
    assert!(reached.borrow_and_update().is_empty());
    second.known.0.lock().insert(1, first.address);
    let reached = timeout(LONG, reached.wait_for(|reached| reached.contains_key(&2))).await;
    assert!(reached.is_ok(), "long before the next attempt is due");
    first.echo_call("there", LONG).await.unwrap();
}

#[tokio::test]
async fn only_admitted_nodes_of_the_cluster_are_served() {
    let (first, _proxy, second) = pair(options()).await;
    first.works().await;
    *second.echo.refused.lock() = Some(HelloRefusal::Removed);
    second.wait_cut(|(from, cut)| *from == 1 && *cut == Cut::Refused(HelloRefusal::Removed)).await;
    let is_refused = |error: &PeerError| {
        matches!(error, PeerError::Unreachable { reason: DialError::Refused(HelloRefusal::Removed), .. })
    };
    timeout(LONG, async {
        while !first.echo_call("again", LONG).await.is_err_and(|error| is_refused(&error)) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let hello = |cluster, to| Hello {
        version_min: 1,
        version_max: 1,
        purpose: Purpose::Data,
        cluster,
        from: 3,
        to,
        process: 0,
    };
    for (hello, refusal) in [
        (hello(CLUSTER + 1, 2), HelloRefusal::WrongCluster),
        (hello(CLUSTER, 5), HelloRefusal::WrongNode),
        (Hello { version_min: 2, version_max: 3, ..hello(CLUSTER, 2) }, HelloRefusal::Version),
        (Hello { from: 0, ..hello(CLUSTER, 2) }, HelloRefusal::UnknownNode),
    ] {
        assert_eq!(greeted(second.address, &hello).await.1.refused, Some(refusal));
    }
}

#[tokio::test]
async fn the_first_process_of_a_node_is_that_node_until_it_is_gone() {
    let second = peer(2, options()).await;
    let hello = |process, purpose| Hello {
        version_min: 1,
        version_max: 1,
        purpose,
        cluster: CLUSTER,
        from: 3,
        to: 2,
        process,
    };
    let (data, once) = (Purpose::Data, Purpose::Once);
    let (older, answer) = greeted(second.address, &hello(5, data)).await;
    assert_eq!(answer.refused, None);
    for purpose in [data, Purpose::Snapshot, once] {
        let refused = greeted(second.address, &hello(6, purpose)).await.1.refused;
        assert_eq!(refused, Some(HelloRefusal::Twice), "{purpose:?}");
    }
    let (newer, answer) = greeted(second.address, &hello(5, data)).await;
    assert_eq!(answer.refused, None, "the same process dials again");
    drop((older, newer));
    timeout(LONG, async {
        while greeted(second.address, &hello(6, data)).await.1.refused.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

/// A raw connection that said hello.
async fn greeted(address: SocketAddr, hello: &Hello) -> (TcpStream, HelloAnswer) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&hello.to_bytes()).await.unwrap();
    let mut answer = [0; HelloAnswer::BYTES];
    socket.read_exact(&mut answer).await.unwrap();
    (socket, HelloAnswer::from_bytes(&answer).unwrap())
}

/// A raw connection that is served.
async fn raw(address: SocketAddr) -> TcpStream {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        purpose: Purpose::Data,
        cluster: CLUSTER,
        from: 3,
        to: 2,
        process: 0,
    };
    let (socket, answer) = greeted(address, &hello).await;
    assert_eq!(answer.refused, None);
    socket
}

/// Whether a connection ended as it should.
type IsIt<'a> = &'a dyn Fn(&Cut) -> bool;

fn request(number: u64, bytes: usize) -> Vec<u8> {
    let body = Body::with_prefix(Some([5; 16]), Bytes::from(vec![1; bytes]));
    let mut pieces = Pieces::default();
    pieces.push(FrameKind::Raft, MessageKind::Append as u8, SLOW_GROUP, number, body);
    pieces.into_bytes()
}

#[tokio::test]
async fn rubbish_is_cut_with_a_reason() {
    let second = peer(2, options()).await;
    let mut http = TcpStream::connect(second.address).await.unwrap();
    http.write_all(&[b"GET / HTTP/1.1\r\n".as_slice(), &[0; Hello::BYTES]].concat()).await.unwrap();
    second.wait_cut(|(_, cut)| *cut == Cut::Hello(HelloError::Magic)).await;

    let mut damaged = request(1, 10);
    damaged[HEAD_BYTES + 20] ^= 1;
    let mut too_large = request(1, 10);
    too_large[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut skipped = request(1, 10);
    skipped.extend(request(3, 10));
    let mut repeated = request(1, 10);
    repeated.extend(request(1, 10));
    let too_much: Vec<u8> = (1..=65).flat_map(|number| request(number, 10)).collect();
    let large: Vec<u8> = (1..=3).flat_map(|number| request(number, 400 << 10)).collect();
    let too_large_cut = |cut: &Cut| matches!(cut, Cut::Frame(FrameError::TooLarge { .. }));
    let cases: [(Vec<u8>, IsIt); 6] = [
        (damaged, &|cut| *cut == Cut::Frame(FrameError::Checksum)),
        (too_large, &too_large_cut),
        (skipped, &|cut| *cut == Cut::Sequence { expected: 2, got: 3 }),
        (repeated, &|cut| *cut == Cut::Sequence { expected: 2, got: 1 }),
        (too_much, &|cut| *cut == Cut::TooMuch),
        (large, &|cut| *cut == Cut::TooMuch),
    ];
    for (bytes, is_it) in cases {
        second.echo.cuts.send_modify(Vec::clear);
        let mut socket = raw(second.address).await;
        let _ = socket.write_all(&bytes).await;
        second.wait_cut(|(from, cut)| *from == 3 && is_it(cut)).await;
    }
    assert!(second.echo.received.lock().iter().all(|(_, body)| body.iter().all(|byte| *byte == 1)));
}

#[tokio::test]
async fn the_slow_and_the_silent_are_cut_with_a_reason() {
    let second = peer(2, options()).await;
    let _says_nothing = TcpStream::connect(second.address).await.unwrap();
    second.wait_cut(|(from, cut)| *from == 0 && *cut == Cut::Slow).await;
    let _silent = raw(second.address).await;
    second.wait_cut(|(from, cut)| *from == 3 && *cut == Cut::Silent).await;
    let mut half = raw(second.address).await;
    half.write_all(&request(1, 100)[..50]).await.unwrap();
    second.wait_cut(|(from, cut)| *from == 3 && *cut == Cut::Stalled).await;
    let drip = raw(second.address).await;
    let (_read, mut write) = drip.into_split();
    let dripping = tokio::spawn(async move {
        for byte in request(1, 1_000) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    second.wait_cut(|(from, cut)| *from == 3 && *cut == Cut::Slow).await;
    dripping.abort();
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_and_the_number_of_connections_is_bounded() {
    let second = peer(2, options()).await;
    let older = raw(second.address).await;
    let _newer = raw(second.address).await;
    second.wait_cut(|(from, cut)| *from == 3 && *cut == Cut::Replaced).await;
    drop(older);
    let mut open = Vec::new();
    let mut full = None;
    for from in 10..30 {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            purpose: Purpose::Data,
            cluster: CLUSTER,
            from,
            to: 2,
            process: 0,
        };
        let (socket, answer) = greeted(second.address, &hello).await;
        full = full.or(answer.refused);
        open.push(socket);
    }
    assert_eq!(full, Some(HelloRefusal::Full));
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_cut_before_they_gather() {
    // Nothing else ends the connection while this runs.
    let patient = PeerOptions { stall_ms: 3_600_000, silent_ms: 3_600_000, ..options() };
    let second = peer(2, patient).await;
    let (_reads_nothing, mut write) = raw(second.address).await.into_split();
    let sending = tokio::spawn(async move {
        // More answers than the operating system keeps; each request is answered when it is read.
        for number in 1..=8_000 {
            let mut pieces = Pieces::default();
            let body = Body::with_prefix(Some([5; 16]), Bytes::from(vec![1; 4_000]));
            pieces.push(FrameKind::Raft, MessageKind::Append as u8, 8, number, body);
            if write.write_all(&pieces.into_bytes()).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    second.wait_cut(|(from, cut)| *from == 3 && *cut == Cut::TooMuch).await;
    sending.abort();
}

#[tokio::test]
async fn strangers_leave_room_for_the_nodes_and_have_to_ask_something() {
    let patient = PeerOptions { frame_ms: 3_600_000, ..options() };
    let second = peer(2, patient).await;
    let hello = |purpose, from| Hello {
        version_min: 1,
        version_max: 1,
        purpose,
        cluster: CLUSTER,
        from,
        to: 2,
        process: 0,
    };
    let (first, answer) = greeted(second.address, &hello(Purpose::Once, 0)).await;
    assert_eq!(answer.refused, None);
    let mut others = Vec::new();
    for _ in 0..options().connections_max {
        others.push(greeted(second.address, &hello(Purpose::Once, 0)).await.0);
    }
    timeout(LONG, async {
        while greeted(second.address, &hello(Purpose::Data, 3)).await.1.refused.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    second.wait_cut(|(from, cut)| *from == 0 && *cut == Cut::Silent).await;
    drop((first, others));
}
