//! Owns the links between nodes of one machine: each is told to find another behind a proxy, which knows who calls by the
//! hello and passes nothing on in a direction that is cut.
//!
//! - A cut is from one node to another. What is on its way waits, as on a wire whose packets are sent again, or the
//!   connections end when the cut does.
//! - A connection that is begun while either direction is cut gets as far as its hello.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};

use fanfold_cluster::peer::Hello;
use fanfold_server::workload::fleet::Spot;
use fanfold_server::workload::node_process::NodeProcessOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::network::{Network, Way};

/// From one node to another, by their ids.
type Ids = (u64, u64);

#[derive(Debug, Clone, Default)]
struct State {
    cut: BTreeSet<Ids>,
    /// How often the connections between two nodes, the lower id first, were ended.
    ended: BTreeMap<Ids, u64>,
}

/// The links between all nodes.
pub struct Links {
    state: Arc<watch::Sender<State>>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Default for Links {
    fn default() -> Self {
        let stop = CancellationToken::new();
        Self { state: Arc::default(), stop: stop.clone(), _stop: stop.drop_guard() }
    }
}

impl Links {
    /// A proxy for what listens at `target`: where the others are told to find it.
    fn proxy(&self, target: SocketAddr) -> SocketAddr {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (state, stop) = (self.state.clone(), self.stop.clone());
        tokio::spawn(async move {
            let target_node = Arc::new(Mutex::new(0));
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((caller, _)) = accepted else { continue };
                let (state, stop, target_node) = (state.clone(), stop.clone(), target_node.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = connect(caller, target, &target_node, &state) => {}
                    }
                });
            }
        });
        address
    }
}

impl Network for Links {
    fn spots(&mut self, options: &NodeProcessOptions, count: usize) -> Vec<Spot> {
        let mut spots = Spot::free(options, count).unwrap();
        spots.iter_mut().for_each(|spot| spot.told = Some(self.proxy(spot.peer)));
        spots
    }

    fn cut(&mut self, ways: &[Way]) {
        self.state.send_modify(|state| state.cut.extend(ways.iter().map(|(from, to)| (from.node, to.node))));
    }

    fn heal(&mut self, connections_end: bool) {
        self.state.send_modify(|state| {
            for (from, to) in std::mem::take(&mut state.cut) {
                if connections_end {
                    *state.ended.entry((from.min(to), from.max(to))).or_default() += 1;
                }
            }
        });
    }

    fn bring_home(&mut self) {}
}

/// Passes a connection on until it ends.
async fn connect(
    mut caller: TcpStream,
    target: SocketAddr,
    target_node: &Mutex<u64>,
    state: &watch::Sender<State>,
) -> std::io::Result<()> {
    let mut hello = [0; Hello::BYTES];
    caller.read_exact(&mut hello).await?;
    let said = Hello::from_bytes(&hello).map_err(std::io::Error::other)?;
    let node = {
        let mut known = target_node.lock().unwrap();
        *known = if said.to == 0 { *known } else { said.to };
        *known
    };
    let (there, back) = ((said.from, node), (node, said.from));
    let pair = (there.0.min(there.1), there.0.max(there.1));
    let mut watched = state.subscribe();
    let ended = watched.borrow().ended.get(&pair).copied();
    open(&mut watched, there).await;
    let mut called = TcpStream::connect(target).await?;
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    called.write_all(&hello).await?;
    let ((from, to_caller), (answers, to)) = (caller.into_split(), called.into_split());
    let is_ended = async {
        let _ = watched.wait_for(|state| state.ended.get(&pair).copied() != ended).await;
    };
    let passed = async {
        // A side that ends is seen by the other only if the way there is open.
        tokio::join!(
            pass(from, to, there, state.subscribe()),
            pass(answers, to_caller, back, state.subscribe())
        )
    };
    tokio::select! {
        () = is_ended => {}
        _ = passed => {}
    }
    Ok(())
}

async fn open(watched: &mut watch::Receiver<State>, way: Ids) {
    let _ = watched.wait_for(|state| !state.cut.contains(&way)).await;
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    way: Ids,
    mut watched: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        open(&mut watched, way).await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
