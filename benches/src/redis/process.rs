//! Owns one `redis-server` process that the harness has started.
//!
//! - It listens on a free loopback port and keeps its files in a temporary directory; both end with their owner.
//! - Only this process is ever signalled, by its own id.
//! - Figures come from /proc, never from what Redis says of itself.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::control::Control;
use super::error::RedisError;
use crate::load::disk;
use crate::load::target::{Persistence, ServerUse};

/// How often a port that somebody else took in between is replaced by another.
const PORT_ATTEMPTS_MAX: u32 = 5;

/// Clock ticks a second of /proc: `USER_HZ` is 100 on every Linux architecture that Rust's std supports.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// A running `redis-server`, killed on drop.
#[derive(Debug)]
pub struct RedisProcess {
    child: Child,
    address: SocketAddr,
    persistence: Persistence,
    paused: bool,
    // Kept open so that Redis never writes to a closed pipe.
    stdout: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl RedisProcess {
    /// Starts a server without persistence, its files below `directory` (the system's temporary directory if none), and
    /// returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// If `redis-server` is absent, does not start or ends at once.
    pub fn start(directory: Option<&Path>) -> Result<Self, RedisError> {
        let mut attempt = 1;
        loop {
            match Self::start_once(directory) {
                Err(RedisError::Ended { .. }) if attempt < PORT_ATTEMPTS_MAX => attempt += 1,
                other => return other,
            }
        }
    }

    fn start_once(parent: Option<&Path>) -> Result<Self, RedisError> {
        let directory = match parent {
            Some(parent) => tempfile::Builder::new().prefix("fanfold-redis-").tempdir_in(parent)?,
            None => tempfile::Builder::new().prefix("fanfold-redis-").tempdir()?,
        };
        let address = free_address()?;
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--auto-aof-rewrite-percentage", "0"])
            // The rewrite at the switch to `appendonly yes` is not measured: it should be over soon.
            .args(["--rdbcompression", "no"])
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => RedisError::NotInstalled { program: "redis-server" },
                _ => RedisError::Start { program: "redis-server", source },
            })?;
        let stdout = child.stdout.take().expect("the standard output was asked for as a pipe");
        let mut process = Self {
            child,
            address,
            persistence: Persistence::None,
            paused: false,
            stdout: BufReader::new(stdout),
            _directory: directory,
        };
        process.wait_until_ready()?;
        // What it would say later stays within the pipe's buffer, as nobody reads there any more.
        Control::connect(address)?.ok("CONFIG", &["SET", "loglevel", "warning"])?;
        Ok(process)
    }

    fn wait_until_ready(&mut self) -> Result<(), RedisError> {
        let mut last_line = String::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                return Err(RedisError::Ended { status: self.child.wait()?, last_line });
            }
            if line.contains("Ready to accept connections") {
                return Ok(());
            }
            line.trim_end().clone_into(&mut last_line);
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does for durability now.
    pub fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Switches to another durability mode, and returns when the append-only file that this may begin is complete.
    ///
    /// # Errors
    ///
    /// If Redis refuses or cannot write its file.
    pub fn set_persistence(&mut self, wanted: Persistence) -> Result<(), RedisError> {
        if wanted == self.persistence {
            return Ok(());
        }
        let mut control = Control::connect(self.address)?;
        if wanted == Persistence::None {
            control.ok("CONFIG", &["SET", "appendonly", "no"])?;
        } else {
            control.ok("CONFIG", &["SET", "appendfsync", &wanted.to_string()])?;
            if self.persistence == Persistence::None {
                control.ok("CONFIG", &["SET", "appendonly", "yes"])?;
                control.wait_for_rewrite()?;
            }
        }
        self.persistence = wanted;
        Ok(())
    }

    /// Stops the process where it is (SIGSTOP), so that it keeps its memory and costs no CPU.
    ///
    /// # Errors
    ///
    /// If the system refuses the signal.
    pub fn pause(&mut self) -> Result<(), RedisError> {
        if self.paused {
            return Ok(());
        }
        self.signal(Signal::STOP)?;
        // The signal is only on its way: wait until the process stands.
        waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED)
            .map_err(|errno| RedisError::Connection { source: errno.into() })?;
        self.paused = true;
        Ok(())
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// If the system refuses the signal.
    pub fn resume(&mut self) -> Result<(), RedisError> {
        self.signal(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    fn signal(&self, signal: Signal) -> Result<(), RedisError> {
        // The child has not been waited for, so its id cannot belong to anybody else.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).map_err(|errno| RedisError::Connection { source: errno.into() })
    }

    /// What the system says of the process now.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub fn figures(&self) -> Result<ServerUse, RedisError> {
        figures_of(self.child.id())
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process. Its files go with the directory, so nothing needs to be saved.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `program` can be started, asked with `--version`.
pub fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What /proc says of the process `pid` now.
///
/// # Errors
///
/// If the process is gone or /proc is not readable.
pub fn figures_of(pid: u32) -> Result<ServerUse, RedisError> {
    let read = |file: &'static str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|source| RedisError::Process {
            file,
            pid,
            source,
        })
    };
    let missing = |file| RedisError::Process { file, pid, source: io::ErrorKind::InvalidData.into() };
    let cpu_seconds = cpu_seconds(&read("stat")?).ok_or_else(|| missing("stat"))?;
    let resident_bytes = field(&read("status")?, "VmRSS:").ok_or_else(|| missing("status"))? * 1024;
    let written_bytes = field(&read("io")?, "write_bytes:").ok_or_else(|| missing("io"))?;
    let disk_written_bytes = disk::written_bytes();
    Ok(ServerUse { cpu_seconds, resident_bytes, written_bytes, disk_written_bytes })
}

/// User and system time of a line of /proc/PID/stat. The name in parentheses may hold anything, also spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / CLOCK_TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_spaces_and_parentheses() {
        let line = "7 (redis (x) y) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 5 0 1 2 3";
        assert_eq!(cpu_seconds(line), Some(4.0));
        assert_eq!(cpu_seconds("7 (redis) S 1"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = figures_of(std::process::id()).unwrap();
        assert!(figures.resident_bytes > 1 << 20);
    }

    #[test]
    fn a_paused_server_uses_no_cpu_and_goes_on_afterwards() {
        if !is_installed("redis-server") {
            println!("skipped: redis-server is not on the PATH");
            return;
        }
        let mut redis = RedisProcess::start(None).unwrap();
        let pid = redis.child.id();
        redis.pause().unwrap();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(state.contains(") T "), "{state}");
        redis.resume().unwrap();
        redis.set_persistence(Persistence::Always).unwrap();
        Control::connect(redis.address()).unwrap().ok("SET", &["a", "b"]).unwrap();
        drop(redis);
        assert!(figures_of(pid).is_err(), "the server ends with its owner");
    }
}
