//! Owns the test node: a whole node inside the process of an application's own tests.
//!
//! - It has a temporary directory, a free port on loopback, and a clock that only the test turns.
//! - It is the same node as in production: real sockets, real fsync, the same limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::clock::ManualClock;
use tempfile::TempDir;

use crate::config::Config;
use crate::server::{Server, StartError};

/// Partitions of a test node, if the test does not say otherwise: enough to have streams between them.
const PARTITIONS: u16 = 4;

/// Size of a log segment of a test node: small, so that a start is quick.
const LOG_SEGMENT_BYTES: u64 = 8 << 20;

/// When the clock of a test node starts: 2026-01-01T00:00:00Z, in Unix milliseconds.
const START_UNIX_MS: i64 = 1_767_225_600_000;

/// A node for tests.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use fanfold_client::{Client, UserId};
/// use fanfold_server::TestNode;
/// use std::time::Duration;
///
/// let node = TestNode::start().await?;
/// let client = Client::connect(node.address()).await?;
/// let stories = client.space("stories");
/// stories.append(UserId(1), "gone tomorrow").await?;
///
/// node.advance(Duration::from_secs(25 * 3600)).await?;
/// assert!(stories.timeline(UserId(1)).await?.entries.is_empty());
/// node.stop().await?;
/// # Ok(()) }
/// ```
pub struct TestNode {
    server: Option<Server>,
    config: Config,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

/// Why a test node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestNodeError {
    /// No temporary directory could be made.
    #[error("no temporary directory: {0}")]
    Directory(#[from] std::io::Error),
    /// The node did not start or stop.
    #[error(transparent)]
    Server(#[from] StartError),
    /// The node did not let time pass.
    #[error(transparent)]
    Node(#[from] fanfold_cluster::NodeError),
}

impl TestNode {
    /// Starts a node with the spaces `posts` and `stories`.
    pub async fn start() -> Result<Self, TestNodeError> {
        Self::start_with(Config { partitions: Some(PARTITIONS), ..Config::default() }).await
    }

    /// Starts a node with these settings; directory, addresses and segment size are the test node's own.
    pub async fn start_with(config: Config) -> Result<Self, TestNodeError> {
        let dir = tempfile::Builder::new().prefix("fanfold-test").tempdir()?;
        let clock = Arc::new(ManualClock::new(START_UNIX_MS));
        let mut config = Config {
            data_dir: dir.path().join("data"),
            listen: "127.0.0.1:0".to_owned(),
            http: "off".to_owned(),
            log_segment_bytes: LOG_SEGMENT_BYTES,
            reserve_bytes: 0,
            ..config
        };
        let server = Server::start_with(config.clone(), clock.clone()).await?;
        // A restart keeps the port, so that clients find it again.
        config.listen = server.address().to_string();
        Ok(Self { server: Some(server), config, clock, _dir: dir })
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a test node runs until it is stopped")
    }

    /// Where clients connect, `ip:port`.
    pub fn address(&self) -> String {
        self.server().address().to_string()
    }

    /// The same as an address.
    pub fn socket_address(&self) -> SocketAddr {
        self.server().address()
    }

    /// Lets time pass: when this returns, what expires by then is gone from every timeline and feed.
    pub async fn advance(&self, by: Duration) -> Result<(), TestNodeError> {
        self.clock.advance(by);
        Ok(self.server().node().pass_time().await?)
    }

    /// Moves the wall clock alone, forward or back, as an operator or a bad time server would. Stamps do not follow a
    /// jump of more than a second.
    pub fn jump(&self, by_ms: i64) {
        self.clock.jump(by_ms);
    }

    /// Stops the node as a killed process would, and starts it again on the same directory and port.
    pub async fn restart_hard(&mut self) -> Result<(), TestNodeError> {
        if let Some(server) = self.server.take() {
            server.abandon().await;
        }
        self.server = Some(Server::start_with(self.config.clone(), self.clock.clone()).await?);
        Ok(())
    }

    /// Stops the node cleanly and removes its directory.
    pub async fn stop(mut self) -> Result<(), TestNodeError> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        Ok(())
    }
}
