//! Owns the software of a whole node: `Node` itself, over turmoil's connections, in a directory of its own.
//!
//! - The first one founds the cluster, the others join it; from then on each goes on as what it is.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfold_cluster::peer::{Acceptor, Socket, Sockets};
use fanfold_cluster::raft::FileSettings;
use fanfold_cluster::read::TimelineRequest;
use fanfold_cluster::{DiskOptions, Node, NodeError, NodeOptions, Start};
use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::entry::Entry;
use fanfold_storage::ids::{EntryId, PartitionId, UserId};
use futures_util::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};

use crate::client::SPACE;
use crate::plan::{NODES, PARTITIONS};
use crate::wire::{Answer, Request, Service, Wire, name_of};
use crate::world::{NodeClock, World, lock};

/// Where nodes listen for each other.
const PEER_PORT: u16 = 5_000;

/// Entries of a page.
const PAGE: u32 = 500;

/// Runs a node until its process ends.
pub async fn run(world: Arc<World>, node: usize) -> turmoil::Result {
    world.note(format_args!("node {node} starts"));
    let opened = Node::open(options(&world, node)).await;
    let ended: Box<dyn std::error::Error> = match opened {
        Ok(opened) => {
            world.note(format_args!("node {node} serves"));
            lock(&world.nodes).insert(node, opened.clone());
            let service = service(opened.clone());
            let _wire = Wire::start(world.clone(), node, service).await?;
            format!("{:?}", opened.failed().await).into()
        }
        Err(error) => error.into(),
    };
    if !world.machines[node].is_faulty.load(Ordering::Relaxed) {
        world.violate(format!("node {node} ends, and its disk has done nothing wrong: {ended}"));
    }
    world.note(format_args!("node {node} has ended"));
    Ok(())
}

/// Where a node's directory is; what is in the simulated disk has the same names.
pub fn dir_of(node: usize) -> PathBuf {
    std::env::temp_dir().join(format!("fanfold-simulation-{}", std::process::id())).join(name_of(node))
}

fn options(world: &Arc<World>, node: usize) -> NodeOptions {
    let mut options = NodeOptions::new(dir_of(node).join("data"));
    options.partitions = Some(PARTITIONS);
    options.fs = world.file_system(node);
    options.clock = Arc::new(NodeClock::new(world, node));
    options.log.segment_bytes = 256 << 10;
    options.log.recent_bytes_max = 32 << 10;
    options.disk = DiskOptions {
        files: FileSettings {
            table_bytes: 16 << 10,
            unflushed_bytes_max: 32 << 10,
            segment_bytes_max: 128 << 10,
            cache_bytes: 16 << 10,
            cut_bytes_max: 2 << 10,
        },
        snapshot_log_bytes: 24 << 10,
        log_bytes_max: 2 << 20,
        background_bytes_per_second: 1 << 50,
        fill_bytes_per_second: 1 << 20,
        reserve_bytes: 0,
    };
    options.advertise = format!("{}:1", name_of(node));
    options.peer_listen = Some(SocketAddr::from(([0, 0, 0, 0], PEER_PORT)));
    options.peer_advertise = Some(format!("{}:{PEER_PORT}", name_of(node)));
    options.start = if node == 0 {
        Start::Found { replicas: NODES as u8 }
    } else {
        let others = (0..NODES).filter(|other| *other != node);
        Start::Join { addresses: others.map(|other| format!("{}:{PEER_PORT}", name_of(other))).collect() }
    };
    options
}

/// What a node does with clients' requests.
fn service(node: Arc<Node>) -> Service {
    Arc::new(move |request| {
        let node = node.clone();
        Box::pin(async move { answer(&node, request).await.unwrap_or(Answer::Refused) })
    })
}

async fn answer(node: &Node, request: Request) -> Option<Answer> {
    let written = match request {
        Request::Propose { partition, command: Command::OpenSession } => {
            node.open_session(partition).await.map(|session| Outcome::Session { session })
        }
        Request::Propose { partition, command: Command::Write { tag, write } } => {
            let receipt = node.write(partition, tag, write).await;
            receipt.map(|receipt| Outcome::Written { result: receipt.result, journal: None })
        }
        // The catalog has defined it.
        Request::Propose { command: Command::DefineSpace { .. }, .. } => Ok(Outcome::Done),
        Request::Timeline { owner, .. } => return timeline(node, owner).await.map(Answer::Timeline),
        Request::Propose { .. } | Request::Raft { .. } | Request::Stream { .. } => return None,
    };
    match written {
        Ok(outcome) => Some(Answer::Proposed(outcome)),
        Err(NodeError::Refused { refusal }) => Some(Answer::Proposed(Outcome::Refused { refusal })),
        Err(_) => None,
    }
}

async fn timeline(node: &Node, owner: UserId) -> Option<Vec<Entry>> {
    let (mut entries, mut below) = (Vec::new(), EntryId::MAX);
    loop {
        let request = TimelineRequest {
            space: SPACE,
            owner,
            viewer: None,
            limit: PAGE,
            below,
            hydrate: true,
            at_least: None,
            consistency: fanfold_cluster::read::Consistency::Leader,
        };
        let page = node.read_timeline(&request).await.ok()?;
        entries.extend(page.entries.into_iter().map(|view| Entry {
            id: view.id,
            space: SPACE,
            owner: view.owner,
            author: view.author,
            audience: view.audience,
            version: view.version,
            expiry: view.expiry,
            reference: None,
            payload: view.payload.unwrap_or_default(),
        }));
        match page.next {
            Some(next) if page.short_of.is_empty() => below = next,
            Some(_) => return None,
            None => return page.short_of.is_empty().then_some(entries),
        }
    }
}

/// Whether a node leads a partition, as it says.
pub fn leads(node: &Node, partition: PartitionId) -> bool {
    let leader = node.map().leaders.get(usize::from(partition.0)).copied().flatten();
    leader == Some(node.identity().node_id)
}

/// turmoil's connections.
pub struct SimulatedSockets;

struct Listening(TcpListener);

fn socket(stream: TcpStream) -> Socket {
    let (reading, writing) = stream.into_split();
    Socket::new(Box::new(reading), Box::new(writing))
}

impl Sockets for SimulatedSockets {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Socket>> {
        let host = address.split(':').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            // turmoil knows no such name before the host is there.
            Ok(socket(TcpStream::connect((host, PEER_PORT)).await?))
        })
    }

    fn bind(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let listening: Box<dyn Acceptor> = Box::new(Listening(TcpListener::bind(address).await?));
            Ok(listening)
        })
    }
}

impl Acceptor for Listening {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Socket, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((socket(stream), from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// How long a cluster of whole nodes forms before anything happens to it.
pub const FORMING: Duration = Duration::from_secs(8);
