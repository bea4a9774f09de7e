//! Owns the time before a node belongs to a cluster: what it answers its clients, and how it finds or founds one.
//!
//! - A node waits here only if its directory is empty and it was told whom to join, or with whom to form.
//! - Clients get an answer from the first moment on: `NoCluster` to everything but a ping and the founding.
//! - Of the nodes that form a cluster by a list, only the first founds it, and only when all others have answered that they
//!   know of none: silence is no answer, because who is silent may be in a cluster already.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fanfold_client::Client;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::handshake::{Hello, Limits};
use fanfold_protocol::message::{ChangeRefusal, InitCluster, NodeState, Request, Response};
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
}

/// What a node does once it waits no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Formed {
    /// It joins the cluster of the nodes that listen for others at these addresses.
    Join(Vec<String>),
    /// It founds a cluster: as an operator said, or by the list.
    Found(Option<InitCluster>),
}

/// What another node says.
#[derive(Debug, PartialEq, Eq)]
enum Probe {
    /// It is in a cluster whose nodes listen for others there.
    Cluster(Vec<String>),
    /// It knows of no cluster.
    NoCluster,
    /// It says nothing, or nothing that helps.
    Silent,
}

type Founding = (InitCluster, oneshot::Sender<Reply>);

/// A node that waits for its cluster.
pub(crate) struct Lobby {
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
        let task = AbortOnDropHandle::new(tokio::spawn(attend(socket, limits, desk, stop.clone())));
        Self { foundings, accepted: None, stop, task }
    }

    /// Waits until a cluster is found, or is to be founded here.
    pub async fn formed(&mut self, search: &Search) -> Formed {
        let found = find(search);
        tokio::select! {
            formed = found => formed,
            Some((init, reply)) = self.foundings.recv() => {
                self.accepted = Some(reply);
                Formed::Found(Some(init))
            }
        }
    }

    /// Goes on answering while `opening` runs; foundings come too late now.
    pub async fn while_opening<T>(&mut self, opening: impl Future<Output = T>) -> T {
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                Some((_, reply)) = self.foundings.recv() => {
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
            if let Probe::Cluster(peers) = answer {
                tracing::info!(%address, ?peers, "found a cluster");
                return Formed::Join(peers);
            }
        }
        next = (next + PROBE_EVERY).max(Instant::now());
        sleep_until(next).await;
    }
}

/// Asks a node whether it knows a cluster.
async fn probe(address: &str) -> Probe {
    let asked = async {
        let client = Client::builder(address).deadline(PROBE_TIMEOUT).connect().await?;
        client.cluster().await
    };
    match timeout(PROBE_TIMEOUT, asked).await {
        Ok(Ok(view)) => {
            let nodes = view.nodes.into_iter().filter(|node| node.state != NodeState::Removed);
            let peers = nodes.map(|node| node.peer_address).filter(|peer| !peer.is_empty());
            let peers: Vec<_> = peers.collect();
            if peers.is_empty() {
                tracing::warn!(%address, "that node listens to no others; start it with --peer-listen");
                return Probe::Silent;
            }
            Probe::Cluster(peers)
        }
        Ok(Err(error)) if error.status() == Some(&Status::NoCluster) => Probe::NoCluster,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "no answer about a cluster");
            Probe::Silent
        }
        Err(_) => Probe::Silent,
    }
}

/// Accepts connections until the stop, and gives the socket back.
async fn attend(
    socket: TcpListener,
    limits: Limits,
    desk: mpsc::Sender<Founding>,
    stop: CancellationToken,
) -> TcpListener {
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
    desk: &mpsc::Sender<Founding>,
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

async fn reply(frame: &Frame, limits: Limits, desk: &mpsc::Sender<Founding>) -> Reply {
    let call = frame.decode_call().map_err(|error| error.to_status())?;
    call.request.check(&limits)?;
    match call.request {
        Request::Ping => Ok(Response::Pong),
        Request::InitCluster(init) => {
            let (answer, answered) = oneshot::channel();
            desk.send((init, answer)).await.map_err(|_| Status::ShuttingDown)?;
            answered.await.unwrap_or(Err(Status::ShuttingDown))
        }
        _ => Err(Status::NoCluster),
    }
}

#[cfg(test)]
mod tests {
    use fanfold_client::init_cluster;

    use super::*;

    const SECONDS: Duration = Duration::from_secs(10);

    async fn lobby() -> (Lobby, String) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (Lobby::open(socket, Limits::default()), address)
    }

    fn search(own: &str, join: &[&String], form: &[&String]) -> Search {
        let owned = |list: &[&String]| list.iter().map(|address| (*address).clone()).collect();
        Search { own: own.to_owned(), join: owned(join), form: owned(form) }
    }

    #[tokio::test]
    async fn whoever_waits_answers_that_there_is_no_cluster() {
        let (_lobby, address) = lobby().await;
        assert_eq!(probe(&address).await, Probe::NoCluster);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(probe(&socket.local_addr().unwrap().to_string()).await, Probe::Silent);
    }

    #[tokio::test]
    async fn operator_founds_and_is_answered_when_it_is_done() {
        let (mut lobby, address) = lobby().await;
        let init = InitCluster { replicas: 3, partitions: 8 };
        let call = tokio::spawn({
            let address = address.clone();
            async move { init_cluster(&address, init, SECONDS).await }
        });
        let formed = lobby.formed(&search(&address, &[&address], &[])).await;
        assert_eq!(formed, Formed::Found(Some(init)));
        let late = tokio::spawn(async move { init_cluster(&address, init, SECONDS).await });
        let late = lobby.while_opening(late).await.unwrap().unwrap_err();
        assert!(matches!(late.status(), Some(Status::ChangeRefused { .. })), "{late}");
        assert!(!call.is_finished());
        assert!(lobby.close().await.is_some());
        call.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn first_of_the_list_founds_when_all_others_say_that_there_is_none() {
        let (mut first, a) = lobby().await;
        let (mut second, b) = lobby().await;
        let (form, silent) = ([&a, &b], "127.0.0.1:1".to_owned());
        assert_eq!(first.formed(&search(&a, &[], &form)).await, Formed::Found(None));
        let waits = [
            timeout(3 * PROBE_EVERY, second.formed(&search(&b, &[], &form))).await,
            timeout(3 * PROBE_EVERY, first.formed(&search(&a, &[], &[&a, &b, &silent]))).await,
        ];
        assert!(waits.iter().all(Result::is_err), "{waits:?}");
    }
}
