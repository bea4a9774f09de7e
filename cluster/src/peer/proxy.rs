//! Owns a proxy between nodes whose directions can be cut, delayed and stalled, for tests; a network of the operating
//! system has nothing of the kind here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A direction through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From who connects to the target.
    Target,
    /// From the target to who connects.
    Caller,
}

/// What happens in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fault {
    /// What is sent is lost without a word.
    is_cut: bool,
    /// What is sent waits, and holds up what is behind it.
    is_stalled: bool,
    /// How long everything takes.
    delay: Duration,
}

/// Passes connections on to one address. Stops when it is dropped.
pub struct PeerProxy {
    address: SocketAddr,
    faults: [Arc<watch::Sender<Fault>>; 2],
    broken: watch::Sender<u64>,
    _stop: DropGuard,
}

impl PeerProxy {
    /// A proxy on a free port of the loopback address, for what listens at `target`.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, broken) = (CancellationToken::new(), watch::Sender::new(0));
        let faults = [Arc::new(watch::Sender::default()), Arc::new(watch::Sender::default())];
        let proxy = Self {
            address,
            faults: faults.clone(),
            broken: broken.clone(),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((caller, _)) = accepted else { continue };
                let (faults, mut broken) = (faults.clone(), broken.subscribe());
                broken.mark_unchanged();
                let stop = stop.clone();
                tokio::spawn(async move {
                    let Ok(target) = TcpStream::connect(target).await else { return };
                    let _ = (caller.set_nodelay(true), target.set_nodelay(true));
                    let ((from, to_caller), (answers, to)) = (caller.into_split(), target.into_split());
                    let [toward_target, toward_caller] = faults;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = broken.changed() => {}
                        // A side that ended stays open toward the other while that direction is cut, as on a wire.
                        () = async { tokio::join!(
                            pass(from, to, toward_target.subscribe()),
                            pass(answers, to_caller, toward_caller.subscribe()),
                        ); } => {}
                    }
                });
            }
        });
        Ok(proxy)
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses everything that is sent in a direction, or no longer.
    pub fn cut(&self, toward: Toward, is_cut: bool) {
        self.change(toward, |fault| fault.is_cut = is_cut);
    }

    /// Holds everything that is sent in a direction up, or lets it go on.
    pub fn stall(&self, toward: Toward, is_stalled: bool) {
        self.change(toward, |fault| fault.is_stalled = is_stalled);
    }

    /// Lets everything in a direction take so long.
    pub fn delay(&self, toward: Toward, delay: Duration) {
        self.change(toward, |fault| fault.delay = delay);
    }

    /// Ends all connections.
    pub fn break_all(&self) {
        self.broken.send_modify(|count| *count += 1);
    }

    fn change(&self, toward: Toward, change: impl FnOnce(&mut Fault)) {
        self.faults[toward as usize].send_modify(change);
    }
}

/// Passes bytes on until a side ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut fault: watch::Receiver<Fault>) {
    let mut buffer = vec![0; 64 << 10];
    // Once something was lost, what follows would be taken for something else.
    let mut is_lost = false;
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let arrives = Instant::now() + fault.borrow().delay;
        sleep_until(arrives).await;
        if fault.wait_for(|fault| !fault.is_stalled).await.is_err() {
            return;
        }
        is_lost |= fault.borrow().is_cut;
        if !is_lost && to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    if is_lost {
        // Nobody hears of the end.
        std::future::pending::<()>().await;
    }
    let _ = to.shutdown().await;
}
