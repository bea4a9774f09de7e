//! Owns the time before a node belongs to a cluster: what it answers its clients, and how it finds or founds one.
//!
//! - A node waits here only if its directory is empty and it was told whom to join, or with whom to form.
//! - Clients get an answer from the first moment on: `NoCluster` to everything but a ping and the founding.
//! - Of the nodes that form a cluster by a list, only the first founds it, and only when all others have answered that they
//!   know of none: silence is no answer, because who is silent may be in a cluster already.
//! - Whoever is to found one, by command or by the list, says so before it asks the others, and founds only when each has
//!   answered that it neither knows a cluster nor is to found one. Of two at least one hears of the other: the one whose
//!   address comes later gives way, so that there is never more than one cluster. Only silence can be overruled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use fanfold_client::{Client, ClusterId, ClusterView, init_cluster};
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::{Hello, Limits};
use fanfold_protocol::message::{ChangeRefusal, GroupName, InitCluster, NodeState, Request, Response};
use fanfold_protocol::{Reply, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Connections that are served at a time while the node waits; more are closed.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take for a hello or a frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one node has to say whether it knows a cluster.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the others are asked.
const PROBE_EVERY: Duration = Duration::from_millis(300);

/// How long a founding waits for others that are silent, or are asking themselves.
const FOUNDING_WAIT: Duration = Duration::from_secs(4);

/// How much earlier than its client it gives up.
const FOUNDING_MARGIN: Duration = Duration::from_millis(500);

/// How long the answers under way may take when the node's own listener takes over.
const HAND_OVER: Duration = Duration::from_millis(500);

/// Where a node looks for its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// Where clients reach this node.
    pub own: String,
    /// The nodes that may know a cluster.
    pub join: Vec<String>,
    /// The first nodes of a cluster that is to be formed.
    pub form: Vec<String>,
    /// The number of partitions that its configuration names.
    pub partitions: Option<u16>,
}

/// What a node does once it waits no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Formed {
    /// It joins the cluster of so many partitions whose nodes listen for others at these addresses.
    Join { peers: Vec<String>, partitions: usize },
    /// It founds a cluster: as an operator said, or by the list.
    Found(Option<InitCluster>),
}

/// What another node says.
#[derive(Debug, PartialEq, Eq)]
enum Probe {
    /// It is in a cluster of so many partitions whose nodes listen for others there.
    Cluster { peers: Vec<String>, partitions: usize },
    /// It knows of no cluster.
    NoCluster,
    /// It says nothing, or nothing that helps.
    Silent,
}

/// What the node is about to do, as others that are to found a cluster are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Intent {
    /// It waits.
    Waits,
    /// It is to found a cluster, and asks whether it may.
    Asks,
    /// It founds or joins one.
    Knows,
}

/// The node as other waiting nodes see it.
#[derive(Debug)]
struct Stance {
    /// Drawn when it began to wait: by it a node that asks itself under another address is found out.
    number: u64,
    intent: AtomicU8,
}

impl Stance {
    fn set(&self, intent: Intent) {
        self.intent.store(intent as u8, Ordering::SeqCst);
    }

    /// What is answered to a node that is to found a cluster.
    fn answer(&self, asker: u64) -> Reply {
        let refused = |refusal, said: &str| Err(Status::ChangeRefused { refusal, said: said.to_owned() });
        let intent = self.intent.load(Ordering::SeqCst);
        if asker == self.number {
            refused(ChangeRefusal::Asker, "it is the asking node itself")
        } else if intent == Intent::Knows as u8 {
            refused(ChangeRefusal::Founded, "it founds or joins a cluster already")
        } else if intent == Intent::Asks as u8 {
            refused(ChangeRefusal::Founding, "it was told to found a cluster itself")
        } else {
            Ok(Response::Done)
        }
    }
}

/// An order to found a cluster, until when it is answered, and where to.
type Founding = (InitCluster, Instant, oneshot::Sender<Reply>);

/// A node that waits for its cluster.
pub(crate) struct Lobby {
    stance: Arc<Stance>,
    foundings: mpsc::Receiver<Founding>,
    /// The founding that was accepted, to be answered when it is done.
    accepted: Option<oneshot::Sender<Reply>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<TcpListener>,
}

impl Lobby {
    /// Answers the clients of `socket` until it is closed.
    pub fn open(socket: TcpListener, limits: Limits) -> Self {
        let (desk, foundings) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let stance = Arc::new(Stance { number: rand::random(), intent: AtomicU8::new(Intent::Waits as u8) });
        let desk = Desk { foundings: desk, stance: stance.clone() };
        let task = AbortOnDropHandle::new(tokio::spawn(attend(socket, limits, desk, stop.clone())));
        Self { stance, foundings, accepted: None, stop, task }
    }

    /// Waits until a cluster is found, or is to be founded here.
    pub async fn formed(&mut self, search: &Search) -> Formed {
        loop {
            tokio::select! {
                formed = find(search) => match formed {
                    Formed::Found(_) => {
                        let until = Instant::now() + FOUNDING_WAIT;
                        if self.may_found(search, false, until).await.is_ok() {
                            return Formed::Found(None);
                        }
                    }
                    join @ Formed::Join { .. } => {
                        self.stance.set(Intent::Knows);
                        return join;
                    }
                },
                Some((init, until, reply)) = self.foundings.recv() => {
                    let allowed = match other_number(search, init) {
                        Some(refused) => Err(refused),
                        None => self.may_found(search, init.force, until).await,
                    };
                    match allowed {
                        Ok(()) => {
                            self.accepted = Some(reply);
                            return Formed::Found(Some(init));
                        }
                        Err(refused) => {
                            let _ = reply.send(Err(refused));
                        }
                    }
                }
            }
        }
    }

    /// Asks all others whether this node may found a cluster; from then on it does, or waits on.
    async fn may_found(&self, search: &Search, force: bool, until: Instant) -> Result<(), Status> {
        self.stance.set(Intent::Asks);
        let allowed = ask_all(self.stance.number, search, force, until).await;
        self.stance.set(if allowed.is_ok() { Intent::Knows } else { Intent::Waits });
        allowed
    }

    /// Goes on answering while `opening` runs; foundings come too late now.
    pub async fn while_opening<T>(&mut self, opening: impl Future<Output = T>) -> T {
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                Some((_, _, reply)) = self.foundings.recv() => {
                    let said = "this node is joining a cluster already; see `fanfold cluster status` in a moment";
                    let refusal = ChangeRefusal::Founded;
                    let _ = reply.send(Err(Status::ChangeRefused { refusal, said: said.to_owned() }));
                }
            }
        }
    }

    /// Answers who founded the cluster, ends the connections, and gives the socket back.
    pub async fn close(self) -> Option<TcpListener> {
        if let Some(founder) = self.accepted {
            let _ = founder.send(Ok(Response::Done));
        }
        self.stop.cancel();
        self.task.await.ok()
    }
}

/// The refusal of an order to found a cluster with another number of partitions than the node's configuration names: it would not
/// start again with that.
fn other_number(search: &Search, init: InitCluster) -> Option<Status> {
    let own = search.partitions.filter(|own| *own != init.partitions)?;
    let said = format!(
        "the configuration of this node names {own} partitions, not {asked}: say init with --partitions {own}, or leave the \
         number out of the configuration",
        asked = init.partitions
    );
    Some(Status::ChangeRefused { refusal: ChangeRefusal::Other, said })
}

/// The cluster of which another node is that is asked once, and that node's address, if it is not `own`.
pub(crate) async fn other_cluster(search: &Search, own: ClusterId) -> Option<String> {
    let others = search.join.iter().chain(&search.form).filter(|address| **address != search.own);
    let asked = others.map(async |address| {
        let view = seen_by(address).await?.ok()?;
        (view.cluster != own).then(|| address.clone())
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().next()
}

/// Asks the others until there is a cluster, or there is to be one.
async fn find(search: &Search) -> Formed {
    let is_first = search.form.first() == Some(&search.own);
    let mut others: Vec<&String> = search.join.iter().chain(&search.form).collect();
    others.retain(|address| **address != search.own);
    let mut next = Instant::now();
    loop {
        let probes = others.iter().map(|address| probe(address));
        let answers = futures_util::future::join_all(probes).await;
        if is_first && answers.iter().all(|answer| *answer == Probe::NoCluster) {
            return Formed::Found(None);
        }
        for (answer, address) in answers.into_iter().zip(&others) {
            if let Probe::Cluster { peers, partitions } = answer {
                tracing::info!(%address, ?peers, partitions, "found a cluster");
                return Formed::Join { peers, partitions };
            }
        }
        next = (next + PROBE_EVERY).max(Instant::now());
        sleep_until(next).await;
    }
}

/// What another node says to one that is to found a cluster.
#[derive(Debug, PartialEq, Eq)]
enum Consent {
    /// It has nothing against it.
    Agrees,
    /// It is the same node.
    Itself,
    /// It is to found one itself.
    Asks,
    /// It founds or joins one, or is in one.
    Knows,
    /// It says nothing, or nothing that helps.
    Silent,
}

/// Asks all others whether one may found a cluster, again and again while they are silent or ask themselves.
async fn ask_all(number: u64, search: &Search, force: bool, until: Instant) -> Result<(), Status> {
    let refused = |refusal, said: String| Err(Status::ChangeRefused { refusal, said });
    let all: Vec<&String> = search.join.iter().chain(&search.form).collect();
    let others: Vec<&String> = all.iter().copied().filter(|address| **address != search.own).collect();
    let mut next = Instant::now();
    loop {
        let answers = futures_util::future::join_all(others.iter().map(|address| ask(number, address))).await;
        let of = |consent: Consent| -> Vec<&str> {
            let answers = answers.iter().zip(&others).filter(|(answer, _)| **answer == consent);
            answers.map(|(_, address)| address.as_str()).collect()
        };
        let itself = of(Consent::Itself);
        // The order of the list, as this node has it; where it knows itself under another name, that counts.
        let is_own = |address: &str| address == search.own || itself.contains(&address);
        let place = |is: &dyn Fn(&str) -> bool| all.iter().position(|address| is(address));
        let own = place(&is_own);
        let asking = of(Consent::Asks);
        let earlier =
            asking.iter().find(|asking| place(&|address| address == **asking) < own || own.is_none());
        if let Some(address) = of(Consent::Knows).first() {
            let said =
                format!("{address} is in a cluster, or founds or joins one; this node joins it by itself");
            return refused(ChangeRefusal::Founded, said);
        }
        if let Some(first) = earlier {
            let said =
                format!("{first} was told to found a cluster too, and comes first; say init on {first} only");
            return refused(ChangeRefusal::Founding, said);
        }
        let silent = of(Consent::Silent);
        if asking.is_empty() && (force || silent.is_empty()) {
            return Ok(());
        }
        next = (next + PROBE_EVERY).max(Instant::now());
        if next >= until {
            return match asking.first() {
                Some(other) => {
                    let said = format!("{other} was told to found a cluster too; say init on one node only");
                    refused(ChangeRefusal::Founding, said)
                }
                None => refused(
                    ChangeRefusal::NodeSilent,
                    format!(
                        "{} did not answer and may be in a cluster: start it, or leave it out of --join; if it is known to be \
                         in none, `fanfold cluster init --force`",
                        silent.join(", ")
                    ),
                ),
            };
        }
        sleep_until(next).await;
    }
}

/// Asks a node whether this one may found a cluster.
async fn ask(number: u64, address: &str) -> Consent {
    let question = InitCluster { replicas: 1, partitions: 1, force: false, asker: Some(number) };
    let answered = timeout(PROBE_TIMEOUT, init_cluster(address, question, PROBE_TIMEOUT)).await;
    match answered {
        Ok(Ok(())) => Consent::Agrees,
        Ok(Err(error)) => match error.status() {
            Some(Status::ChangeRefused { refusal: ChangeRefusal::Asker, .. }) => Consent::Itself,
            Some(Status::ChangeRefused { refusal: ChangeRefusal::Founding, .. }) => Consent::Asks,
            Some(Status::ChangeRefused { refusal: ChangeRefusal::Founded, .. }) => Consent::Knows,
            _ => {
                tracing::debug!(%address, %error, "no answer about a founding");
                Consent::Silent
            }
        },
        Err(_) => Consent::Silent,
    }
}

/// Asks a node whether it knows a cluster.
async fn probe(address: &str) -> Probe {
    match seen_by(address).await {
        Some(Ok(view)) => {
            let partitions = view.groups.iter().filter(|group| group.group != GroupName::Catalog).count();
            let nodes = view.nodes.into_iter().filter(|node| node.state != NodeState::Removed);
            let peers = nodes.map(|node| node.peer_address).filter(|peer| !peer.is_empty());
            let peers: Vec<_> = peers.collect();
            if peers.is_empty() {
                tracing::warn!(%address, "that node listens to no others; start it with --peer-listen");
                return Probe::Silent;
            }
            Probe::Cluster { peers, partitions }
        }
        Some(Err(error)) if error.status() == Some(&Status::NoCluster) => Probe::NoCluster,
        Some(Err(error)) => {
            tracing::debug!(%address, %error, "no answer about a cluster");
            Probe::Silent
        }
        None => Probe::Silent,
    }
}

/// The cluster as a node sees it; none if it says nothing in time.
async fn seen_by(address: &str) -> Option<Result<ClusterView, fanfold_client::Error>> {
    let asked = async {
        let client = Client::builder(address).deadline(PROBE_TIMEOUT).connect().await?;
        client.cluster().await
    };
    timeout(PROBE_TIMEOUT, asked).await.ok()
}

/// Where foundings are handed in, and what others that are to found a cluster are answered.
#[derive(Clone)]
struct Desk {
    foundings: mpsc::Sender<Founding>,
    stance: Arc<Stance>,
}

/// Accepts connections until the stop, and gives the socket back.
async fn attend(socket: TcpListener, limits: Limits, desk: Desk, stop: CancellationToken) -> TcpListener {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else {
            // Too many, or the system has no room: whoever comes tries again.
            tokio::task::yield_now().await;
            continue;
        };
        let (desk, stop) = (desk.clone(), stop.clone());
        open.spawn(async move {
            let _place = place;
            if let Err(error) = talk(stream, limits, &desk, &stop).await {
                tracing::debug!(%error, "a waiting client's connection ended");
            }
        });
    }
    // What was asked before the stop is answered; nobody is read any more.
    let _ = timeout(HAND_OVER, async { while open.join_next().await.is_some() {} }).await;
    open.shutdown().await;
    socket
}

/// Serves one connection until its end or the stop.
async fn talk(
    mut stream: TcpStream,
    limits: Limits,
    desk: &Desk,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    let hello = loop {
        match Hello::decode_from(&mut buffer) {
            Ok(Some(hello)) => break hello.negotiate(limits),
            Ok(None) => {}
            Err(error) => break Err(error.to_status()),
        }
        if !read(&mut stream, &mut buffer, stop).await? {
            return Ok(());
        }
    };
    match hello {
        Ok(hello) => stream.write_all(&hello.to_bytes()).await?,
        Err(status) => return write(&mut stream, &Frame::connection_refusal(&status), limits).await,
    }
    loop {
        match Frame::decode_from(&mut buffer, limits.frame_bytes_max) {
            Ok(None) => {
                if !read(&mut stream, &mut buffer, stop).await? {
                    return Ok(());
                }
            }
            Ok(Some(frame)) => {
                let (opcode, request_id) = (frame.opcode, frame.request_id);
                let items = match frame.into_items(limits.batch_items_max) {
                    Ok(items) => items,
                    Err(error) => {
                        let refusal = Frame::refusal(opcode, request_id, &error.to_status());
                        write(&mut stream, &refusal, limits).await?;
                        continue;
                    }
                };
                for item in items {
                    let answer = match reply(&item, limits, desk).await {
                        Ok(response) => Frame::response(item.opcode, item.request_id, &response),
                        Err(status) => Frame::refusal(item.opcode, item.request_id, &status),
                    };
                    write(&mut stream, &answer, limits).await?;
                }
            }
            Err(error) => {
                return write(&mut stream, &Frame::connection_refusal(&error.to_status()), limits).await;
            }
        }
    }
}

/// Reads on; `false` when the client has closed, is too slow, or the node waits no more.
async fn read(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    stop: &CancellationToken,
) -> std::io::Result<bool> {
    tokio::select! {
        read = timeout(FRAME_TIMEOUT, stream.read_buf(buffer)) => match read {
            Ok(bytes) => bytes.map(|bytes| bytes > 0),
            // An idle connection may stay; one in the middle of something may not.
            Err(_) => Ok(buffer.is_empty()),
        },
        () = stop.cancelled() => Ok(false),
    }
}

async fn write(stream: &mut TcpStream, frame: &Frame, limits: Limits) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    if frame.encode_into(&mut out, limits.frame_bytes_max).is_err() {
        return Ok(());
    }
    timeout(FRAME_TIMEOUT, stream.write_all(&out)).await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))
}

async fn reply(frame: &Frame, limits: Limits, desk: &Desk) -> Reply {
    let call = frame.decode_call().map_err(|error| error.to_status())?;
    call.request.check(&limits)?;
    match call.request {
        Request::Ping => Ok(Response::Pong),
        Request::InitCluster(InitCluster { asker: Some(asker), .. }) => desk.stance.answer(asker),
        Request::InitCluster(init) => {
            let given = call.deadline_ms.map_or(FOUNDING_WAIT, |ms| Duration::from_millis(ms.into()));
            let until = Instant::now() + given.saturating_sub(FOUNDING_MARGIN).min(FOUNDING_WAIT);
            let (answer, answered) = oneshot::channel();
            desk.foundings.send((init, until, answer)).await.map_err(|_| Status::ShuttingDown)?;
            answered.await.unwrap_or(Err(Status::ShuttingDown))
        }
        _ => Err(Status::NoCluster),
    }
}

#[cfg(test)]
mod tests;
