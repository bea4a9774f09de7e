//! A data directory of version 1, as a node of version 1 left it, a backup and an export of it, read by the program of today.
//!
//! - `testdata/v1/data/`, `testdata/v1/backup/` and `testdata/v1/export/` were written once. They are never made again: what they
//!   hold is what users have on their disks.
//! - `testdata/v1/answers.txt` says what a node answers from it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod export;
mod make;
mod packed;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::backup::{Backup, restore};
use fanfold_cluster::clock::ManualClock;
use fanfold_cluster::dispatcher::{StreamError, StreamTransport};
use fanfold_cluster::jobs::{JobKind, JobState};
use fanfold_cluster::meter::Meter;
use fanfold_cluster::{Node, NodeOptions};
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::{PartitionId, SpaceId, UserId};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// Of the directory.
pub const PARTITIONS: u16 = 2;
/// Of the directory.
pub const POSTS: SpaceId = SpaceId(1);
/// Of the directory.
pub const STORIES: SpaceId = SpaceId(2);

/// When the directory was written, by the clock of its node, in Unix milliseconds.
pub const WRITTEN_UNIX_MS: i64 = 1_790_000_000_000;

/// From then until everything in it has expired that ever does.
const ALL_EXPIRED: Duration = Duration::from_secs(25 * 3_600);

/// The `n`th user, from 0, who is homed in a partition.
pub fn user(partition: u16, n: usize) -> UserId {
    let homed = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(partition);
    (1..).map(UserId).filter(homed).nth(n).unwrap()
}

/// Everybody of whom the directory knows.
pub fn users() -> Vec<UserId> {
    (0..PARTITIONS).flat_map(|partition| (0..4).map(move |n| user(partition, n))).collect()
}

/// Streams that hold messages back while told to.
pub struct Held {
    inner: Arc<dyn StreamTransport>,
    is_held: Arc<watch::Sender<bool>>,
}

impl StreamTransport for Held {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let (inner, mut is_held) = (self.inner.clone(), self.is_held.subscribe());
        Box::pin(async move {
            is_held.wait_for(|held| !held).await.map_err(|_| StreamError::Unavailable { destination })?;
            inner.send(destination, message).await
        })
    }
}

/// A node on a directory whose streams are held back, a clock that is turned by hand, and what lets the streams go.
pub async fn open(
    data_dir: &Path,
    clock: &ManualClock,
    change: impl FnOnce(&mut NodeOptions),
    is_held: bool,
) -> (Arc<Node>, Arc<watch::Sender<bool>>) {
    let mut options = NodeOptions::new(data_dir);
    options.clock = Arc::new(clock.clone());
    options.log.segment_bytes = 64 << 10;
    change(&mut options);
    let is_held = Arc::new(watch::Sender::new(is_held));
    let held = is_held.clone();
    let wrap = Box::new(|inner| Arc::new(Held { inner, is_held: held }) as Arc<dyn StreamTransport>);
    (Node::open_with(options, wrap).await.unwrap(), is_held)
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

fn fanfold(arguments: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold-tests-node"));
    command.args(arguments).arg("--data-dir").arg(data_dir).output().unwrap()
}

/// All answers, in the order in which they are asked: before the events that were on their way have arrived, after that, and
/// when everything has expired.
async fn all_answers(data_dir: &Path) -> String {
    let clock = ManualClock::new(WRITTEN_UNIX_MS);
    let (node, is_held) = open(data_dir, &clock, |_| {}, true).await;
    let mut said = answers::states(&node);
    is_held.send_replace(false);
    node.wait_drained().await.unwrap();
    said += &answers::answers(&node, "as written").await;
    said += &answers::repeated(&node).await;
    clock.advance(ALL_EXPIRED);
    node.pass_time().await.unwrap();
    said += &answers::answers(&node, "all expired").await;
    node.close().await.unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_version_1_answers_as_it_did() {
    let place = tempfile::tempdir().unwrap();
    let data_dir = place.path().join("data");
    packed::unpack(&testdata().join("data"), &data_dir);
    let kinds = ["log", "manifest", "buckets", "segment"];
    let names = packed::files(&data_dir);
    for kind in kinds {
        assert!(names.iter().any(|path| path.extension().is_some_and(|found| found == kind)), "a {kind}");
    }
    let expected = std::fs::read_to_string(testdata().join("answers.txt")).unwrap();
    // From the newest state on: nothing is applied twice, whoever opens it how often.
    let said = all_answers(&data_dir).await;
    for (said, expected) in said.lines().zip(expected.lines()) {
        assert_eq!(said, expected);
    }
    assert_eq!(said.lines().count(), expected.lines().count());

    let clock = ManualClock::new(WRITTEN_UNIX_MS + ALL_EXPIRED.as_millis() as i64);
    let (node, _) = open(&data_dir, &clock, |_| {}, false).await;
    let (posted, owner) = (make::post(&node, user(0, 0), b"of today").await, user(0, 0));
    node.wait_drained().await.unwrap();
    assert_eq!(answers::newest(&node, owner).await, Some(posted), "it is a node as any other");
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_version_1_is_restored_and_answers_as_it_did() {
    let place = tempfile::tempdir().unwrap();
    let (dir, data_dir) = (place.path().join("backup"), place.path().join("data"));
    packed::unpack(&testdata().join("backup"), &dir);
    let verified = fanfold(&["verify"], &dir);
    assert!(verified.status.success(), "{verified:?}");
    restore(&Backup::open(&dir).unwrap(), &data_dir, &Meter::new(None)).unwrap();
    let (node, _) = open(&data_dir, &ManualClock::new(WRITTEN_UNIX_MS), |_| {}, false).await;
    node.wait_drained().await.unwrap();
    let said = answers::answers(&node, "as written").await;
    let expected = std::fs::read_to_string(testdata().join("answers.txt")).unwrap();
    let expected = expected.lines().skip_while(|line| *line != "as written");
    let expected: Vec<_> = expected.take_while(|line| !line.starts_with("repeated")).collect();
    for (said, expected) in said.lines().zip(&expected) {
        assert_eq!(said, *expected);
    }
    assert!(expected.len() > 100 && said.lines().count() == expected.len(), "{said}");
    node.close().await.unwrap();
    // Its files may be linked into what was restored.
    let all = packed::files(&dir);
    let segment = all.iter().find(|path| path.extension().is_some_and(|found| found == "segment")).unwrap();
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    let verified = fanfold(&["verify"], &dir);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(!verified.status.success() && said.contains(segment.to_str().unwrap()), "{said}");
}

#[test]
fn verify_and_inspect_find_a_data_directory_of_version_1_whole() {
    let place = tempfile::tempdir().unwrap();
    let data_dir = place.path().join("data");
    packed::unpack(&testdata().join("data"), &data_dir);
    let said = |arguments: &[&str]| {
        let output = fanfold(arguments, &data_dir);
        let text = String::from_utf8(output.stdout.clone()).unwrap().replace(' ', "");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text
    };
    assert!(said(&["verify", "--output", "json"]).contains("\"found\":0"));
    let shown = said(&["inspect", "data-dir", "--output", "json"]);
    assert!(shown.contains("\"damaged_places\":0"), "{shown}");
    let groups = 1 + usize::from(PARTITIONS);
    assert_eq!(shown.matches("\"damaged_snapshots\":0,").count(), groups, "{shown}");
    assert!(said(&["inspect", "log", "--output", "json"]).contains("\"damaged_places\":0"));
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        said(&["inspect", "snapshot", "--partition", &partition]);
        said(&["inspect", "segment", "--partition", &partition, "--entries"]);
    }
    let refused = |arguments: &[&str]| {
        let output = fanfold(arguments, &data_dir);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for what in ["snapshot", "segment"] {
        let said = refused(&["inspect", what, "--partition", "9"]);
        assert!(said.contains("holds nothing of partition 9"), "{said}");
    }
    let other = testdata().join("answers.txt");
    let said = refused(&["inspect", "segment", other.to_str().unwrap()]);
    assert!(said.contains("is no segment"), "{said}");
    let manifests = packed::files(&data_dir.join("groups"));
    let manifest = manifests.iter().find(|path| path.extension().is_some_and(|found| found == "manifest"));
    let mut bytes = std::fs::read(manifest.unwrap()).unwrap();
    bytes[20] ^= 1;
    std::fs::write(manifest.unwrap(), bytes).unwrap();
    for what in ["snapshot", "data-dir"] {
        assert!(refused(&["inspect", what]).contains("1 thing is wrong"));
    }
}

/// Writes the directory, into an empty place only: for the first version of a new format, never for one that exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the directory of version 1 is never written again"]
async fn write_the_directory() {
    assert!(!testdata().join("data").exists(), "the directory of a version is written once");
    let place = tempfile::tempdir().unwrap();
    let (data_dir, copy) = (place.path().join("data"), place.path().join("copy"));
    make::directory(&data_dir).await;
    packed::pack(&data_dir, &testdata().join("data"));
    packed::unpack(&testdata().join("data"), &copy);
    std::fs::write(testdata().join("answers.txt"), all_answers(&copy).await).unwrap();
}

/// Writes the backup of the directory, the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the backup of version 1 is never written again"]
async fn write_the_backup() {
    assert!(!testdata().join("backup").exists(), "the backup of a version is written once");
    let place = tempfile::tempdir().unwrap();
    let (data_dir, dir) = (place.path().join("data"), place.path().join("backup"));
    packed::unpack(&testdata().join("data"), &data_dir);
    let (node, _held) = open(&data_dir, &ManualClock::new(WRITTEN_UNIX_MS), |_| {}, true).await;
    let kind = JobKind::Backup { dir: dir.clone(), leaves_out_damaged: false };
    let job = node.start_job(kind, None).unwrap().id;
    while node.job(job).unwrap().state == JobState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.job(job).unwrap().state, JobState::Done);
    node.close().await.unwrap();
    packed::pack(&dir, &testdata().join("backup"));
}
