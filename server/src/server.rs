//! Owns a running server: the node, its listener and its HTTP port, from start to stop.
//!
//! - The ports are bound before the node opens, so that an address in use is known at once; `/readyz` says when the
//!   node serves.
//! - When the node fails (its log cannot be written), the process ends: nothing that was not durable was answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fanfold_client::ClusterId;
use fanfold_cluster::clock::{Clock, SystemClock};
use fanfold_cluster::{Node, NodeFailure, NodeOptions, OpenError, Start};
use fanfold_storage::log::{LogError, LogOptions};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, ConfigError, ms};
use crate::http::Http;
use crate::listener::{Listener, Shared, limits};
use crate::lobby::{self, Formed, Lobby, Search};
use crate::metrics::Metrics;

/// Why a server did not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address} ({source}); is another node running? choose another address with --{flag}"
    )]
    Listen {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The cluster to join has another number of partitions.
    #[error(
        "the cluster to join has {found} partitions, not {asked}; the number is fixed when a cluster is made, so leave the setting out"
    )]
    PartitionsDiffer {
        /// What the cluster has.
        found: usize,
        /// What was asked for.
        asked: u16,
    },
    /// The task that answered clients before the node was open has failed.
    #[error("the clients could not be answered while the node waited for its cluster; start it again")]
    Lobby,
    /// The node cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log could not be closed.
    #[error(
        "the log was not closed cleanly: {0}; what was answered is safe, the next start reads the log back"
    )]
    Close(#[from] LogError),
}

/// A running server.
pub struct Server {
    node: Arc<Node>,
    shared: Arc<Shared>,
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    stop_timeout: Duration,
    listener: Listener,
    http_stop: CancellationToken,
}

impl Server {
    /// Starts a server on the machine's clock.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Arc::new(SystemClock::new())).await
    }

    /// Starts a server whose partitions run on the threads of `engine`, so that applying never holds up connections.
    pub async fn start_on(config: Config, engine: Handle) -> Result<Self, StartError> {
        Self::open(config, Arc::new(SystemClock::new()), engine).await
    }

    /// Starts a server on a clock of the caller's.
    pub async fn start_with(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::open(config, clock, Handle::current()).await
    }

    async fn open(config: Config, clock: Arc<dyn Clock>, engine: Handle) -> Result<Self, StartError> {
        config.check()?;
        let socket = bind("listen", config.listen_address()?).await?;
        let address =
            socket.local_addr().map_err(|source| listen_error("listen", config.listen_address(), source))?;
        let metrics = Arc::new(Metrics::default());
        let http_stop = CancellationToken::new();
        let http = match config.http_address()? {
            Some(wanted) => Some(
                Http::bind(wanted, config.http_connections_max)
                    .await
                    .map_err(|source| StartError::Listen { flag: "http", address: wanted, source })?,
            ),
            None => None,
        };
        let http_address = http.as_ref().map(Http::address);
        let http_node = http.map(|http| http.serve(metrics.clone(), http_stop.clone()));
        let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
        if !config.form.is_empty() && !config.form.contains(&advertise) {
            return Err(ConfigError::NotInForm { form: config.form, own: advertise }.into());
        }
        let options = NodeOptions {
            partitions: config.partitions,
            clock,
            advertise: advertise.clone(),
            peer_listen: config.peer_address()?,
            peer_advertise: config.peer_advertise.clone(),
            zone: config.zone.clone(),
            start: Start::Found { replicas: config.replicas },
            log: LogOptions { segment_bytes: config.log_segment_bytes, ..LogOptions::default() },
            disk: config.disk_options(),
            memory_bytes: config.memory_bytes,
            away_days: config.away_days,
            ..NodeOptions::new(&config.data_dir)
        };
        // A node that does not open leaves no port behind.
        let unopened = http_stop.clone().drop_guard();
        let (join, form) = (config.join.clone(), config.form.clone());
        let search = Search { own: advertise, join, form, partitions: config.partitions };
        check_cluster(&config, &search).await?;
        let (socket, node) = if must_look(&config) {
            tracing::info!(%address, join = ?search.join, form = ?search.form, "waiting for a cluster");
            let lobby = Lobby::open(socket, limits(&config));
            open_from(lobby, &search, options, &engine).await?
        } else {
            (socket, open_on(&engine, options).await?)
        };
        unopened.disarm();
        if let Some(http_node) = &http_node {
            http_node.set(node.clone());
        }
        let stop_timeout = ms(config.stop_timeout_ms);
        let shared = Arc::new(Shared::new(node.clone(), config, metrics));
        let listener = Listener::spawn(socket, shared.clone());
        tracing::info!(%address, http = ?http_address, cluster = %format!("{:032x}", node.identity().cluster_id), "serving");
        Ok(Self { node, shared, address, http_address, stop_timeout, listener, http_stop })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The node behind it.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Returns when the node has failed and the process has to end.
    pub async fn failed(&self) -> NodeFailure {
        self.node.failed().await
    }

    /// Stops cleanly: others take the lead while clients are still served; then no new requests, those in flight are answered or run into the timeout, the log is closed.
    pub async fn stop(self) -> Result<(), StartError> {
        self.http_stop.cancel();
        self.node.leave().await;
        self.listener.stop(self.stop_timeout).await;
        drop(self.shared);
        self.node.close().await?;
        Ok(())
    }

    /// Stops at once, as if the process had been killed: nothing is finished, flushed or marked.
    pub async fn abandon(self) {
        self.http_stop.cancel();
        self.listener.stop(Duration::ZERO).await;
        drop(self.shared);
        self.node.abandon().await;
    }
}

/// Whether the node has no cluster yet and is not to found one alone.
fn must_look(config: &Config) -> bool {
    let is_to_look = !config.join.is_empty() || !config.form.is_empty();
    is_to_look && !fanfold_cluster::identity::is_settled(&config.data_dir)
}

/// Refuses a directory of another cluster than those have, as far as they answer, whom the node is told to join.
async fn check_cluster(config: &Config, search: &Search) -> Result<(), OpenError> {
    let Some(own) = fanfold_cluster::identity::cluster_of(&config.data_dir) else { return Ok(()) };
    match lobby::other_cluster(search, ClusterId(own)).await {
        Some(address) => Err(OpenError::OtherCluster { data_dir: config.data_dir.clone(), own, address }),
        None => Ok(()),
    }
}

/// What a node is made of is spawned where it is opened.
async fn open_on(engine: &Handle, options: NodeOptions) -> Result<Arc<Node>, OpenError> {
    // A start that is given up ends the opening too.
    let opening = AbortOnDropHandle::new(engine.spawn(Node::open(options)));
    opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Waits for a cluster, and opens the node in it. Clients are answered meanwhile.
async fn open_from(
    mut lobby: Lobby,
    search: &Search,
    options: NodeOptions,
    engine: &Handle,
) -> Result<(TcpListener, Arc<Node>), StartError> {
    let options = match lobby.formed(search).await {
        Formed::Join { peers, partitions } => {
            // Before anybody there knows of this node.
            if let Some(asked) = options.partitions.filter(|asked| usize::from(*asked) != partitions) {
                return Err(StartError::PartitionsDiffer { found: partitions, asked });
            }
            NodeOptions { start: Start::Join { addresses: peers }, ..options }
        }
        Formed::Found(None) => options,
        Formed::Found(Some(init)) => {
            let replicas = u8::try_from(init.replicas).unwrap_or(u8::MAX);
            NodeOptions { start: Start::Found { replicas }, partitions: Some(init.partitions), ..options }
        }
    };
    let node = lobby.while_opening(open_on(engine, options)).await?;
    let socket = lobby.close().await.ok_or(StartError::Lobby)?;
    Ok((socket, node))
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { flag, address, source })
}

fn listen_error(
    flag: &'static str,
    address: Result<SocketAddr, ConfigError>,
    source: std::io::Error,
) -> StartError {
    match address {
        Ok(address) => StartError::Listen { flag, address, source },
        Err(error) => error.into(),
    }
}
