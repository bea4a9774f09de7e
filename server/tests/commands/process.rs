//! Owns the processes of these tests: each is ended and reaped by its own id, whatever becomes of the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const FANFOLD: &str = env!("CARGO_BIN_EXE_fanfold");

/// A directory for one test: data, config file and log of its node.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("node.log")).unwrap()
    }

    /// `start` on this place's data, on free ports.
    pub fn start_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FANFOLD);
        command.arg("start").arg("--data-dir").arg(self.data_dir());
        command.args(["--partitions", "4", "--log-segment-bytes", "8388608"]);
        for flag in ["--listen", "--http"] {
            if !arguments.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a node that must become ready.
    pub fn start(&self, arguments: &[&str]) -> Node {
        Node::spawn(self.start_command(arguments), &self.path("node.log"))
    }
}

/// A running node.
pub struct Node {
    child: Child,
    /// Held open so that the node can write to its stdout.
    _stdout: BufReader<std::process::ChildStdout>,
    pub address: String,
    pub http: String,
}

impl Node {
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let log_file = File::options().create(true).append(true).open(log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log_file).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["listening", address, "http", http] = words[..] else {
            let status = child.wait();
            panic!("not ready: {line:?}, {status:?}\n{}", std::fs::read_to_string(log).unwrap());
        };
        let (address, http) = (address.to_owned(), http.to_owned());
        Self { child, _stdout: stdout, address, http }
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Main memory that the process holds now.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert!(!self.wait().success());
    }

    /// Ends it with SIGTERM, which must succeed.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }

    /// Runs a command against this node.
    pub fn run(&self, arguments: &[&str]) -> Output {
        fanfold(&[arguments, &["--address", &self.address]].concat())
    }

    /// The JSON that a command prints, which must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        json(&self.run(&[arguments, &["--output", "json"]].concat()))
    }

    /// Waits until what was written has reached every feed.
    pub fn drain(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = fanfold_client::Client::connect(&self.address).await.unwrap();
            client.wait_drained().await.unwrap();
        });
    }

    /// The answer to a GET on the HTTP port: status line and body.
    pub fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: fanfold\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail if it is reaped already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub fn fanfold(arguments: &[&str]) -> Output {
    Command::new(FANFOLD).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What a command printed as JSON; it must have succeeded.
pub fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The message of a command that must have failed with this exit code, and printed no result.
pub fn failure(output: &Output, code: i32) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(stdout(output), "", "a failure prints no result");
    assert!(!message.trim().is_empty());
    message
}
