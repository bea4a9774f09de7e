//! Row 20: a disk that is full, of a real file system, under a real node.
//!
//! - The disk is a small tmpfs in a mount namespace of its own, which not every machine lets a test make: run it with
//!   `cargo test -p fanfold-tests --test disk_full -- --ignored`. It needs `unshare` and `nsenter`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use fanfold_client::{Client, EntryId, Error, Status, UserId};
use futures_util::TryStreamExt;

/// Any free port.
const LISTEN: &str = "127.0.0.1:0";

const OWNERS: u64 = 40;
const PAYLOAD_BYTES: usize = 48 << 10;

/// Refused without a break for so long, writes are refused for good.
const FULL_FOR: Duration = Duration::from_secs(8);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small disk in a namespace of its own, kept by a shell.
struct Disk {
    shell: Child,
    place: tempfile::TempDir,
}

impl Disk {
    fn new(mebibytes: u32) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut shell = Command::new("unshare")
            .args(["-Urm", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mount =
            format!("mount -t tmpfs -o size={mebibytes}m fanfold {} && echo made\n", place.path().display());
        shell.stdin.as_mut().unwrap().write_all(mount.as_bytes()).unwrap();
        let mut said = String::new();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "made\n", "no small disk can be made here");
        Self { shell, place }
    }

    /// Where a path of the disk is for this process.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.shell.id()));
        root.join(self.place.path().strip_prefix("/").unwrap()).join(name)
    }

    /// Runs the program in the namespace.
    fn fanfold(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "-U", "-m", "-t", &self.shell.id().to_string()]);
        command.arg(env!("CARGO_BIN_EXE_fanfold-tests-node")).args(arguments);
        command.arg("--data-dir").arg(self.place.path().join("data"));
        command
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

struct Node {
    process: Child,
    /// Held open so that the node can write to it.
    _stdout: BufReader<ChildStdout>,
    client: Client,
    address: String,
}

impl Node {
    /// Listens where it did before, so that the catalog has nothing to learn.
    async fn start(disk: &Disk, listen: &str) -> Self {
        let arguments = [
            "start",
            "--partitions",
            "2",
            "--listen",
            listen,
            "--http",
            "off",
            "--log-segment-bytes",
            "8388608",
            "--table-bytes",
            "1048576",
            "--cache-bytes",
            "0",
            "--snapshot-log-bytes",
            "8388608",
            "--log-bytes-max",
            "67108864",
            "--reserve-bytes",
            "2097152",
            "--log-level",
            "warn",
        ];
        let mut process = disk.fanfold(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.split_whitespace().nth(1).unwrap_or_else(|| panic!("not ready: {line:?}")).to_owned();
        let client = Client::connect(address.clone()).await.unwrap();
        Self { process, _stdout: stdout, client, address }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What was answered.
#[derive(Default)]
struct Told {
    made: BTreeMap<UserId, BTreeSet<EntryId>>,
    count: u64,
    /// Posts that were refused because the disk is full.
    refused: u64,
    /// Posts without an answer in time.
    unknown: u64,
}

impl Told {
    /// One post; whether it was taken. It may be refused for nothing but the disk.
    async fn post(&mut self, node: &Node) -> bool {
        let owner = UserId(1 + self.count % OWNERS);
        let payload: Vec<u8> =
            (0..PAYLOAD_BYTES).map(|n| ((n as u64 * (self.count + 7)) >> 3) as u8).collect();
        match node.client.space("posts").append(owner, payload).deadline(Duration::from_secs(1)).await {
            Ok(made) => {
                self.made.entry(owner).or_default().insert(made.id);
                self.count += 1;
                true
            }
            Err(error) => {
                let (unknown, last) = match &error {
                    Error::DeadlineExceeded { may_have_applied, last, .. } => {
                        (*may_have_applied, last.as_deref())
                    }
                    error => (error.may_have_applied(), Some(error)),
                };
                let status = last.and_then(Error::status);
                assert!(unknown || matches!(status, Some(Status::DiskFull { .. })), "{error:?}");
                assert!(unknown || status.map(Status::code) == Some(34));
                self.refused += u64::from(!unknown);
                self.unknown += u64::from(unknown);
                false
            }
        }
    }

    /// Posts until nothing was taken for long.
    async fn fill(&mut self, node: &Node) {
        let (begun, mut taken) = (Instant::now(), Instant::now());
        while taken.elapsed() < FULL_FOR {
            assert!(begun.elapsed() < PATIENCE, "the disk does not become full");
            if self.post(node).await {
                taken = Instant::now();
            }
        }
    }

    /// Posts until one is taken.
    async fn post_again(&mut self, node: &Node) {
        let begun = Instant::now();
        while !self.post(node).await {
            assert!(begun.elapsed() < PATIENCE, "the service does not return");
        }
    }

    /// All that was answered is there, and nothing that was refused.
    async fn check(&self, node: &Node) {
        let mut others = 0;
        for (owner, made) in &self.made {
            let pages = node.client.space("posts").timeline(*owner).limit(200).hydrate().pages();
            let pages: Vec<_> = pages.try_collect().await.unwrap();
            let shown: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
            assert!(shown.iter().all(|entry| entry.payload.as_ref().unwrap().len() == PAYLOAD_BYTES));
            let shown: BTreeSet<EntryId> = shown.iter().map(|entry| entry.id).collect();
            assert!(shown.is_superset(made), "{owner}: {} answered, {} there", made.len(), shown.len());
            others += (shown.len() - made.len()) as u64;
        }
        assert!(others <= self.unknown, "{others} of {}", self.unknown);
        assert!(self.refused > 0);
    }
}

fn ballast(path: &Path, mebibytes: usize) {
    fs::write(path, vec![1; mebibytes << 20]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a mount namespace"]
async fn a_full_disk_refuses_writes_keeps_reads_and_recovers_by_itself() {
    let disk = Disk::new(256);
    (0..2).for_each(|n| ballast(&disk.path(&format!("ballast {n}")), 40));
    let node = Node::start(&disk, LISTEN).await;
    let mut told = Told::default();
    told.fill(&node).await;
    assert!(told.count > 500, "{}", told.count);
    told.check(&node).await;

    // Room comes back while it runs.
    fs::remove_file(disk.path("ballast 0")).unwrap();
    told.post_again(&node).await;
    for _ in 0..200 {
        told.post_again(&node).await;
    }
    told.check(&node).await;

    // Killed while it is full, and started while it is still full.
    told.fill(&node).await;
    told.check(&node).await;
    let address = node.address.clone();
    node.kill();
    let node = Node::start(&disk, &address).await;
    told.check(&node).await;
    fs::remove_file(disk.path("ballast 1")).unwrap();
    told.post_again(&node).await;
    told.check(&node).await;
    node.kill();
    let node = Node::start(&disk, &address).await;
    told.check(&node).await;
    node.kill();
    println!("{} posts of {PAYLOAD_BYTES} bytes were answered", told.count);
    let verified = disk.fanfold(&["verify"]).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}
