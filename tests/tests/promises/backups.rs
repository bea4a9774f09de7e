//! Backups, restores and checks of what is on disk (rows 17 to 19 and 30).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfold_client::{Client, JobKind, JobState, NodeId, StartJob, UserId};
use fanfold_cluster::backup::{Backup, BackupError, restore, restore_partition};
use fanfold_cluster::meter::Meter;
use fanfold_cluster::verify::{Finding, verify_data_dir};
use fanfold_protocol::EntryId;
use fanfold_storage::ids::PartitionId;

use crate::images::{Place, Running, backup_to, files, flip, users};
use crate::world::user;

fn fast() -> Meter {
    Meter::new(None)
}

/// Everybody follows some others, in every partition.
async fn follow_around(client: &Client) {
    let all = users();
    for (n, reader) in all.iter().enumerate() {
        let owners: Vec<UserId> = (1..all.len()).step_by(2).map(|m| all[(n + m) % all.len()]).collect();
        client.follows().follow_many(*reader, owners).await.unwrap();
    }
}

async fn post_around(client: &Client, rounds: usize) -> Vec<(UserId, EntryId)> {
    let mut made = Vec::new();
    for n in 0..rounds {
        for owner in users() {
            made.push((owner, client.space("posts").append(owner, format!("{n}")).await.unwrap().id));
        }
    }
    made
}

/// Posts until it is stopped; what was answered, by owner, in order.
fn load(client: Client, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<BTreeMap<UserId, Vec<EntryId>>> {
    tokio::spawn(async move {
        let mut answered: BTreeMap<UserId, Vec<EntryId>> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            for (owner, id) in post_around(&client, 1).await {
                answered.entry(owner).or_default().push(id);
            }
        }
        answered
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_is_what_the_node_was_at_one_moment() {
    let place = Place::new();
    let node = Running::start(&place.path("data")).await;
    follow_around(&node.client).await;
    let before = post_around(&node.client, 10).await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = Client::connect(node.client.map().await.unwrap().nodes[0].address.clone()).await.unwrap();
    let loading = load(client, stop.clone());
    for name in ["first", "second"] {
        node.back_up(&place.path(name)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let answered = loading.await.unwrap();
    post_around(&node.client, 3).await;
    node.check_feeds(&[]).await;
    node.stop().await;

    for name in ["first", "second"] {
        let data_dir = place.path(&format!("{name} restored"));
        restore(&Backup::open(&place.path(name)).unwrap(), &data_dir, &fast()).unwrap();
        let node = Running::start(&data_dir).await;
        node.check_feeds(&[]).await;
        for (owner, mut ids) in node.timelines().await {
            ids.reverse();
            let mut made: Vec<EntryId> =
                before.iter().filter(|(made, _)| *made == owner).map(|(_, id)| *id).collect();
            assert!(ids.starts_with(&made), "what was answered before is there");
            made.extend(answered.get(&owner).into_iter().flatten());
            assert!(made.starts_with(&ids), "what is there is all up to one moment");
        }
        // It is a node as any other: it goes on, is checked and backed up again.
        post_around(&node.client, 2).await;
        node.check_feeds(&[]).await;
        node.back_up(&place.path(&format!("{name} again"))).await;
        let verified = node.job(JobKind::Verify, None).await;
        assert_eq!((verified.state, verified.found), (JobState::Done, 0), "{:?}", verified.findings);
        node.stop().await;
        assert_eq!(verify_data_dir(&data_dir, &fast()).unwrap().findings, Vec::new());
    }
    // Nothing that the restored nodes did changed the backups they came from.
    for name in ["first", "second"] {
        Backup::open(&place.path(name)).unwrap().check(&|_| true, &fast()).unwrap();
    }
}

/// Row 30.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_restored_alone_gives_feeds_that_are_the_oracle_of_what_survived() {
    let place = Place::new();
    let data_dir = place.path("data");
    let node = Running::start(&data_dir).await;
    follow_around(&node.client).await;
    let old = post_around(&node.client, 8).await;
    // Blocks and edges in all directions between the partition that is restored and another.
    let (ours, theirs) = (user(1, 0), user(2, 0));
    let (lost, kept, older) = ((user(1, 1), user(2, 1)), (user(2, 2), user(1, 2)), (ours, user(0, 0)));
    node.client.block(older.0, older.1).await.unwrap();
    node.client.wait_drained().await.unwrap();
    node.back_up(&place.path("backup")).await;

    post_around(&node.client, 8).await;
    for (owner, id) in old.iter().step_by(5) {
        node.client.space("posts").delete(*owner, *id).await.unwrap();
    }
    node.client.follows().unfollow(ours, theirs).await.unwrap();
    node.client.follows().follow(theirs, ours).await.unwrap();
    node.client.follows().unfollow(user(3, 0), ours).await.unwrap();
    node.client.block(lost.0, lost.1).await.unwrap();
    node.client.block(kept.0, kept.1).await.unwrap();
    node.check_feeds(&[older, lost, kept]).await;
    let before = node.timelines().await;
    node.stop().await;

    let backup = Backup::open(&place.path("backup")).unwrap();
    for _ in 0..2 {
        restore_partition(&backup, PartitionId(1), &data_dir, &fast()).unwrap();
    }
    for round in 0..2 {
        let node = Running::start(&data_dir).await;
        node.check_feeds(&[older, kept]).await;
        if round == 0 {
            for ((owner, before), (_, after)) in before.iter().zip(node.timelines().await) {
                let is_restored = (0..3).any(|n| user(1, n) == *owner);
                assert_eq!(is_restored, *before != after, "only the partition went back: {owner}");
                assert!(!is_restored || after.len() == 8, "what was deleted since is there again");
            }
        }
        post_around(&node.client, 3).await;
        node.client.follows().follow(ours, theirs).await.unwrap();
        node.check_feeds(&[older, kept]).await;
        node.stop().await;
    }
}

/// Makes a small backup and stops its node.
async fn small(place: &Place) {
    let node = Running::start(&place.path("data")).await;
    follow_around(&node.client).await;
    post_around(&node.client, 3).await;
    node.back_up(&place.path("backup")).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_backup_is_restored() {
    let place = Place::new();
    small(&place).await;
    let (dir, target) = (place.path("backup"), place.path("target"));
    let try_it = || Backup::open(&dir).and_then(|backup| restore(&backup, &target, &fast()));
    let all = files(&dir);
    assert!(
        ["log", "manifest", "buckets", "segment", "json"].iter().all(|kind| {
            all.iter().any(|path| path.extension().is_some_and(|extension| extension == *kind))
        })
    );
    for path in all {
        let whole = fs::read(&path).unwrap();
        let mut places: Vec<usize> = (0..whole.len()).step_by((whole.len() / 16).max(1)).collect();
        places.push(whole.len() - 1);
        for at in places {
            flip(&path, at);
            let refused = try_it().expect_err("a flipped bit").to_string();
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            fs::write(&path, &whole).unwrap();
        }
        fs::remove_file(&path).unwrap();
        let refused = try_it().expect_err("a missing file").to_string();
        let named = if path.ends_with("backup.json") { dir.to_str() } else { path.to_str() };
        assert!(refused.contains(named.unwrap()), "{refused}");
        fs::write(&path, &whole).unwrap();
    }
    assert!(!target.exists(), "nothing is touched before all is checked");
    try_it().unwrap();
    assert!(matches!(try_it(), Err(BackupError::NotEmpty { .. })));
    let elsewhere = place.path("other");
    Running::start(&elsewhere).await.stop().await;
    let backup = Backup::open(&dir).unwrap();
    let refused = restore_partition(&backup, PartitionId(1), &elsewhere, &fast());
    assert!(matches!(refused, Err(BackupError::OtherNode { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_every_kind_of_damage_and_says_where() {
    let place = Place::new();
    small(&place).await;
    let data_dir = place.path("data");
    let found = || verify_data_dir(&data_dir, &fast()).unwrap().findings;
    assert_eq!(found(), Vec::new());
    let of_kind = |kind: &str| {
        let mut all = files(&data_dir.join(if kind == "log" { "log" } else { "groups" }));
        all.retain(|path| path.extension().is_some_and(|extension| extension == kind));
        all
    };
    let names = |findings: &[Finding], path: &Path| findings.iter().any(|finding| finding.path == path);
    for kind in ["log", "manifest", "buckets", "segment"] {
        for path in of_kind(kind) {
            let whole = fs::read(&path).unwrap();
            // In a log, a batch of the middle: what nobody wrote yet is no damage.
            let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
            if kind == "log" && used < 3 * 4_096 {
                continue;
            }
            let at = if kind == "log" { 4_096 + 8 } else { used / 2 };
            flip(&path, at);
            let findings = found();
            assert!(names(&findings, &path), "{}: {findings:?}", path.display());
            if kind != "manifest" {
                assert!(findings.iter().any(|finding| finding.offset.is_some()), "{findings:?}");
            }
            fs::remove_file(&path).unwrap();
            if kind != "manifest" {
                let findings = found();
                let is_oldest = kind == "log" && of_kind(kind).first().is_none_or(|oldest| *oldest > path);
                assert!(names(&findings, &path) || is_oldest && !findings.is_empty(), "{findings:?}");
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    assert_eq!(found(), Vec::new());

    // While it runs.
    let node = Running::start(&data_dir).await;
    let segment = of_kind("segment").remove(0);
    let whole = fs::read(&segment).unwrap();
    flip(&segment, whole.len() / 2);
    let status = node.job(JobKind::Verify, Some(100 << 20)).await;
    assert_eq!(status.state, JobState::Done);
    assert!(status.findings.iter().any(|finding| Path::new(&finding.path) == segment), "{status:?}");
    let status = node.job(backup_to(&place.path("damaged")), None).await;
    assert!(matches!(&status.state, JobState::Failed(said) if said.contains("segment")), "{status:?}");
    assert!(Backup::open(&place.path("damaged")).is_err());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_one_at_a_time_and_can_be_cancelled() {
    let place = Place::new();
    let node = Running::start(&place.path("data")).await;
    follow_around(&node.client).await;
    post_around(&node.client, 3).await;
    let slow = |kind| StartJob { kind, bytes_per_second: Some(1) };
    let first = node.client.start_job(NodeId(1), slow(JobKind::Verify)).await.unwrap();
    let other = node.client.start_job(NodeId(1), slow(JobKind::Verify)).await.unwrap();
    assert!(matches!(&other.state, JobState::Failed(said) if said.contains("job 1 runs")), "{other:?}");
    node.client.cancel_job(NodeId(1), first.job).await.unwrap();
    let ended = loop {
        let status = node.client.job(NodeId(1), first.job).await.unwrap();
        if status.state != JobState::Running {
            break status.state;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(ended, JobState::Cancelled);
    assert!(node.client.job(NodeId(1), 99).await.is_err());
    // A relative path means nothing on another machine, and what is there is not overwritten.
    for dir in ["backups/monday", place.path("data").to_str().unwrap()] {
        let status = node.job(JobKind::Backup { dir: dir.to_owned(), leaves_out_damaged: false }, None).await;
        assert!(matches!(status.state, JobState::Failed(_)), "{dir}");
    }
    // A node that stops does not wait for a job at such a rate.
    node.client.start_job(NodeId(1), slow(backup_to(&place.path("never")))).await.unwrap();
    node.stop().await;
    assert!(Backup::open(&place.path("never")).is_err());
}
