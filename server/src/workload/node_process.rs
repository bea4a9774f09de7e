//! Owns a node in a process of its own, for workloads that end it the hard way.
//!
//! - Its data lies in a temporary directory of its own, removed at the end unless `FANFOLD_KEEP_NODES` is set.
//! - The process is ended when this is dropped.
//! - A restarted node listens on the port it had, so that clients carry on with their sessions.
//! - Readiness is the one line the node prints on stdout; nothing is guessed from time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// Ports for nodes: below those that systems give to outgoing connections. A client that tries again and again to
/// reach a stopped node on its own machine could otherwise be given that very port and connect to itself.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const PORT_TRIES: usize = 64;
/// The file that receives the node's log.
const LOG_FILE: &str = "node.log";
/// The data directory.
const DATA_DIR: &str = "data";
/// While this environment variable is set, the directories stay when the nodes have ended.
const KEEP_VARIABLE: &str = "FANFOLD_KEEP_NODES";
/// Bytes of the readiness line at most.
const READY_LINE_BYTES_MAX: u64 = 1_024;
/// Bytes of the node's log shown when it fails.
const LOG_TAIL_BYTES: usize = 2_000;

/// How to run a node.
#[derive(Debug, Clone)]
pub struct NodeProcessOptions {
    /// The program.
    pub program: PathBuf,
    /// Arguments before `start`; none for `fanfold` itself.
    pub arguments: Vec<OsString>,
    /// Arguments after those given here anyway, such as `--partitions 4`.
    pub start_arguments: Vec<OsString>,
    /// How long a start may take, the replay of its log included.
    pub ready_timeout: Duration,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProcessError {
    /// No port could be bound.
    #[error("no free port was found between {} and {}; see what occupies them", PORTS.start, PORTS.end)]
    NoFreePort,
    /// The program could not be run.
    #[error("{} could not be run: {source}; build it or name another program", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its directory, or the file for its log, could not be made.
    #[error("{} could not be made: {source}; make room or set TMPDIR", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended, or said something else, before it was ready.
    #[error("the node did not become ready, it said {said:?}; the end of its log:\n{log_tail}")]
    NotReady {
        /// What it printed instead of the readiness line.
        said: String,
        /// The end of its log.
        log_tail: String,
    },
    /// It took too long.
    #[error("the node was not ready after {waited:?}; the end of its log:\n{log_tail}")]
    TooSlow {
        /// How long it had.
        waited: Duration,
        /// The end of its log.
        log_tail: String,
    },
    /// It ended though nobody ended it.
    #[error("the node ended by itself ({status}); the end of its log:\n{log_tail}")]
    Ended {
        /// How.
        status: String,
        /// The end of its log.
        log_tail: String,
    },
    /// The process could not be ended.
    #[error("the node's process could not be ended: {source}")]
    Kill {
        /// Why.
        source: io::Error,
    },
}

/// A running node.
#[derive(Debug)]
pub struct NodeProcess {
    options: NodeProcessOptions,
    address: SocketAddr,
    child: Child,
    /// Held open so that the node can write to its stdout.
    stdout: BufReader<ChildStdout>,
    /// After the process, so that it is removed last.
    directory: TempDir,
}

impl NodeProcess {
    /// Starts a node on a free port of this machine and waits until it is ready.
    pub async fn start(options: NodeProcessOptions) -> Result<Self, NodeProcessError> {
        let address = free_addresses(1)?[0];
        Self::start_at(options, address).await
    }

    /// Starts a node at an address of this machine and waits until it is ready.
    pub async fn start_at(
        options: NodeProcessOptions,
        address: SocketAddr,
    ) -> Result<Self, NodeProcessError> {
        let failed = |source| NodeProcessError::Directory { path: std::env::temp_dir(), source };
        let keeps = std::env::var_os(KEEP_VARIABLE).is_some();
        let mut directory = tempfile::Builder::new();
        let directory = directory.prefix("fanfold-node-").disable_cleanup(keeps).tempdir().map_err(failed)?;
        let (child, stdout) = spawn_ready(&options, directory.path(), address).await?;
        Ok(Self { options, address, child, stdout, directory })
    }

    /// Waits for ever, unless the node ends by itself: then how.
    pub async fn watch(&mut self) -> NodeProcessError {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.ended(&status)
    }

    fn ended(&self, status: &str) -> NodeProcessError {
        NodeProcessError::Ended { status: status.to_owned(), log_tail: log_tail(self.directory.path()) }
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join(DATA_DIR)
    }

    /// What it logged, since its first start.
    pub fn log_file(&self) -> PathBuf {
        self.directory.path().join(LOG_FILE)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The id of the process; none once it was reaped.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Main memory that the process holds now, if the system tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Ends the node with SIGKILL, reaps it, and starts it again with the same data on the same port.
    ///
    /// Answers how long the start took, from the new process to its readiness.
    pub async fn kill_and_restart(&mut self) -> Result<Duration, NodeProcessError> {
        self.kill().await?;
        self.restart().await
    }

    /// Ends the node with SIGKILL and reaps it; its data and its port stay its own.
    pub async fn kill(&mut self) -> Result<(), NodeProcessError> {
        self.child.kill().await.map_err(|source| NodeProcessError::Kill { source })
    }

    /// Stops the node cleanly with SIGTERM and reaps it. It must end as one that was asked to.
    pub async fn terminate(&mut self) -> Result<(), NodeProcessError> {
        self.signal(Signal::TERM)?;
        let status = self.child.wait().await.map_err(|source| NodeProcessError::Kill { source })?;
        if status.success() { Ok(()) } else { Err(self.ended(&status.to_string())) }
    }

    /// Holds the process where it is, until it is resumed.
    pub fn suspend(&self) -> Result<(), NodeProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a held process go on.
    pub fn resume(&self) -> Result<(), NodeProcessError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), NodeProcessError> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let ended = || NodeProcessError::Kill { source: io::ErrorKind::NotFound.into() };
        kill_process(id.ok_or_else(ended)?, signal)
            .map_err(|source| NodeProcessError::Kill { source: source.into() })
    }

    /// Starts the node again after it has ended.
    ///
    /// Answers how long the start took, from the new process to its readiness.
    pub async fn restart(&mut self) -> Result<Duration, NodeProcessError> {
        let begun = Instant::now();
        let (child, stdout) = spawn_ready(&self.options, self.directory.path(), self.address).await?;
        self.child = child;
        self.stdout = stdout;
        Ok(begun.elapsed())
    }

    /// Ends the node with SIGKILL and reaps it.
    pub async fn end(mut self) -> Result<(), NodeProcessError> {
        self.child.kill().await.map_err(|source| NodeProcessError::Kill { source })
    }
}

/// Finds ports that nobody listens on now, each another one, and none that this process was told before: its node may be between
/// an end and a start.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, NodeProcessError> {
    static TOLD: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut rng = rand::rng();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = Vec::with_capacity(count);
    for _ in 0..count * PORT_TRIES {
        if free.len() == count {
            break;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rng.random_range(PORTS)));
        if !told.contains(&address.port()) && TcpListener::bind(address).is_ok() {
            told.insert(address.port());
            free.push(address);
        }
    }
    if free.len() < count { Err(NodeProcessError::NoFreePort) } else { Ok(free) }
}

async fn spawn_ready(
    options: &NodeProcessOptions,
    directory: &Path,
    address: SocketAddr,
) -> Result<(Child, BufReader<ChildStdout>), NodeProcessError> {
    let log_file = directory.join(LOG_FILE);
    let log = File::options().create(true).append(true).open(&log_file);
    let log = log.map_err(|source| NodeProcessError::Directory { path: log_file, source })?;
    let spawn_error = |source| NodeProcessError::Spawn { program: options.program.clone(), source };
    let has_http = options.start_arguments.iter().any(|argument| argument == "--http");
    let http: &[&str] = if has_http { &[] } else { &["--http", "off"] };
    let mut child = Command::new(&options.program)
        .args(&options.arguments)
        .arg("start")
        .args(http)
        .arg("--listen")
        .arg(address.to_string())
        .arg("--data-dir")
        .arg(directory.join(DATA_DIR))
        .args(&options.start_arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn_error)?;
    let stdout = child.stdout.take().ok_or_else(|| spawn_error(io::ErrorKind::BrokenPipe.into()))?;
    let mut stdout = BufReader::new(stdout);
    let mut said = String::new();
    let mut bounded = (&mut stdout).take(READY_LINE_BYTES_MAX);
    let read = bounded.read_line(&mut said);
    match tokio::time::timeout(options.ready_timeout, read).await {
        Ok(Ok(_)) if said.starts_with(&format!("listening {address}")) => Ok((child, stdout)),
        Ok(_) => Err(NodeProcessError::NotReady { said, log_tail: log_tail(directory) }),
        Err(_) => {
            Err(NodeProcessError::TooSlow { waited: options.ready_timeout, log_tail: log_tail(directory) })
        }
    }
}

fn log_tail(directory: &Path) -> String {
    let bytes = std::fs::read(directory.join(LOG_FILE)).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(script: &str) -> NodeProcessOptions {
        NodeProcessOptions {
            program: "/bin/sh".into(),
            // The script sees the arguments of a start as its own: $5 is the address.
            arguments: vec!["-c".into(), script.into(), "sh".into()],
            start_arguments: Vec::new(),
            ready_timeout: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn a_node_keeps_its_address_over_a_restart() {
        let script = "echo listening $5; exec sleep 1000";
        let mut node = NodeProcess::start(options(script)).await.unwrap();
        let (address, first) = (node.address(), node.child.id());
        node.kill_and_restart().await.unwrap();
        assert_eq!(node.address(), address);
        assert_ne!(node.child.id(), first);
        node.end().await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_is_noticed() {
        let mut node = NodeProcess::start(options("echo listening $5; exit 3")).await.unwrap();
        assert!(matches!(node.watch().await, NodeProcessError::Ended { status, .. } if status.contains('3')));
    }

    #[tokio::test]
    async fn a_node_that_fails_when_it_is_asked_to_end_is_noticed() {
        let script = "trap 'exit 3' TERM; echo listening $5; while true; do sleep 0.05; done";
        let mut node = NodeProcess::start(options(script)).await.unwrap();
        let ended = node.terminate().await;
        assert!(
            matches!(&ended, Err(NodeProcessError::Ended { status, .. }) if status.contains('3')),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_node_that_ends_early_is_reported_with_its_log() {
        let error = NodeProcess::start(options("echo the disk is gone >&2")).await.unwrap_err();
        match error {
            NodeProcessError::NotReady { said, log_tail, .. } => {
                assert_eq!(said, "");
                assert!(log_tail.contains("the disk is gone"));
            }
            other => panic!("{other}"),
        }
    }
}
