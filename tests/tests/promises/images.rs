//! Owns what the tests of backups start from: a node on a directory of its own, jobs on it, and the oracle of what it holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fanfold_client::{Audience, Client, JobKind, JobState, JobStatus, NodeId, StartJob, UserId};
use fanfold_protocol::EntryId;
use fanfold_server::config::Config;
use fanfold_server::server::Server;
use futures_util::TryStreamExt;
use tempfile::TempDir;

use crate::model::Model;
use crate::world::{PARTITIONS, feed_ids, timeline_ids, user};

/// How many users of each partition the tests look at.
pub const USERS: usize = 3;

/// A node on a directory, and a client of it.
pub struct Running {
    server: Server,
    pub client: Client,
}

impl Running {
    pub async fn start(data_dir: &Path) -> Self {
        let config = Config {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            http: "off".to_owned(),
            partitions: Some(PARTITIONS),
            log_segment_bytes: 8 << 20,
            ..Config::default()
        };
        let server = Server::start(config).await.unwrap();
        let client = Client::connect(server.address().to_string()).await.unwrap();
        Self { server, client }
    }

    pub async fn stop(self) {
        drop(self.client);
        self.server.stop().await.unwrap();
    }

    /// Runs a job to its end.
    pub async fn job(&self, kind: JobKind, bytes_per_second: Option<u64>) -> JobStatus {
        let start = StartJob { kind, bytes_per_second };
        let mut status = self.client.start_job(NodeId(1), start).await.unwrap();
        while status.state == JobState::Running {
            tokio::time::sleep(Duration::from_millis(10)).await;
            status = self.client.job(NodeId(1), status.job).await.unwrap();
        }
        status
    }

    /// Makes a backup, which must succeed.
    pub async fn back_up(&self, dir: &Path) {
        let status = self.job(backup_to(dir), None).await;
        assert_eq!(status.state, JobState::Done, "{status:?}");
    }

    /// What everybody's timelines hold, newest first.
    pub async fn timelines(&self) -> Vec<(UserId, Vec<EntryId>)> {
        let mut all = Vec::new();
        for owner in users() {
            all.push((owner, timeline_ids(self.client.space("posts").timeline(owner).limit(100)).await));
        }
        all
    }

    /// Holds every feed against the oracle of what the homes of its owners and its reader hold.
    pub async fn check_feeds(&self, blocks: &[(UserId, UserId)]) {
        self.client.wait_drained().deadline(Duration::from_secs(60)).await.unwrap();
        let mut model = Model::of(&self.client, "posts").await;
        for (owner, ids) in self.timelines().await {
            ids.into_iter().rev().for_each(|id| model.append(id, owner, Audience::Public, None));
        }
        for reader in users() {
            let pages: Vec<_> = self.client.follows().followees(reader).pages().try_collect().await.unwrap();
            pages.iter().flat_map(|page| &page.users).for_each(|edge| model.follow(reader, edge.user));
        }
        blocks.iter().for_each(|(user, target)| model.block(*user, *target));
        for reader in users() {
            let shown = feed_ids(self.client.space("posts").feed(reader).limit(50)).await;
            assert_eq!(shown, model.feed(reader), "the feed of {reader}");
        }
    }
}

/// A backup into a directory.
pub fn backup_to(dir: &Path) -> JobKind {
    JobKind::Backup { dir: dir.to_str().unwrap().to_owned(), leaves_out_damaged: false }
}

/// Everybody, from every partition.
pub fn users() -> Vec<UserId> {
    (0..PARTITIONS).flat_map(|partition| (0..USERS).map(move |n| user(partition, n))).collect()
}

/// A directory for one test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// All plain files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Flips a bit in the middle of a file, through a name of its own, so that no link of it changes.
pub fn flip(path: &Path, at: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[at] ^= 0x10;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}
