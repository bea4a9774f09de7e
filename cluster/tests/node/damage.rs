//! Bits that flip under a node: found by its check while it runs, kept from the other partitions, and what is left goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_cluster::backup::{
    Backup, BackupError, Begins, Salvage, restore_all, restore_partition, salvage,
};
use fanfold_cluster::jobs::{JobKind, JobState, JobStatus};
use fanfold_cluster::meter::Meter;
use fanfold_cluster::verify::{Finding, verify_data_dir};
use fanfold_cluster::{NodeError, NodeOptions};
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::{EntryId, PartitionId, UserId};
use tempfile::TempDir;

use crate::support::*;

pub const DAMAGED: PartitionId = PartitionId(0);

/// Entries go to segments early, which stay as they are, and snapshots are taken by backups alone.
pub fn segments_only(options: &mut NodeOptions) {
    options.disk.files.segment_bytes_max = 0;
    options.disk.files.table_bytes = 64 << 10;
    options.disk.files.cache_bytes = 0;
    options.disk.snapshot_log_bytes = 1 << 30;
    options.disk.log_bytes_max = 1 << 30;
}

pub async fn node() -> TestNode {
    TestNode::with(segments_only, Box::new(|streams| streams)).await
}

pub fn owner() -> UserId {
    user_at(DAMAGED.0, 0)
}

pub async fn post_many(test: &TestNode, count: usize) -> Vec<EntryId> {
    let mut posted = Vec::new();
    for n in 0..count {
        posted.push(test.post(owner(), &format!("{n}:{}", "x".repeat(4 << 10))).await);
    }
    posted
}

async fn ended(test: &TestNode, started: &JobStatus) -> JobStatus {
    until(async || test.node.job(started.id).unwrap().state != JobState::Running).await;
    test.node.job(started.id).unwrap()
}

pub async fn verify(test: &TestNode) -> Vec<Finding> {
    let status = ended(test, &test.node.start_job(JobKind::Verify, None).unwrap()).await;
    assert_eq!(status.state, JobState::Done);
    assert_eq!(test.node.figures().verify_findings, status.findings.len() as u64, "the alarm");
    status.findings
}

pub async fn back_up(test: &TestNode, name: &str, leaves_out_damaged: bool) -> JobStatus {
    let kind = JobKind::Backup { dir: test.dir.path().join(name), leaves_out_damaged };
    ended(test, &test.node.start_job(kind, None).unwrap()).await
}

fn data_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

pub fn group_dir(dir: &TempDir) -> PathBuf {
    data_dir(dir).join("groups/0001")
}

/// The files of a kind in the directory of the partition, the oldest first.
pub fn of_kind(dir: &TempDir, kind: &str) -> Vec<PathBuf> {
    let items = fs::read_dir(group_dir(dir)).unwrap().map(|item| item.unwrap().path());
    let mut all: Vec<_> = items.filter(|path| path.extension().is_some_and(|e| e == kind)).collect();
    all.sort();
    all
}

/// Flips a bit, in a file of its own, so that neither links nor who has it open see it; what was there.
fn flip(path: &Path, at: usize) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    let mut content = whole.clone();
    content[at] ^= 0x10;
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
    whole
}

pub fn flip_middle(path: &Path) -> Vec<u8> {
    flip(path, fs::metadata(path).unwrap().len() as usize / 2)
}

/// Flips a bit in place.
pub fn flip_in_place(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

pub fn names(findings: &[Finding], path: &Path) -> bool {
    findings.iter().any(|finding| finding.path == path)
}

pub async fn timeline_of(test: &TestNode, owner: UserId) -> Result<Vec<EntryId>, NodeError> {
    let mut request = timeline(owner, None);
    let mut all = Vec::new();
    loop {
        let page = patient(test.node.read_timeline(&request)).await?;
        all.extend(ids(&page.entries));
        match page.next {
            Some(next) => request.below = next,
            None => break,
        }
    }
    all.reverse();
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_any_kind_of_file_is_found_under_a_running_node() {
    let test = node().await;
    for name in ["first", "second"] {
        post_many(&test, 40).await;
        assert_eq!(back_up(&test, name, false).await.state, JobState::Done);
    }
    let named = of_kind(&test.dir, "segment");
    post_many(&test, 40).await;
    let unnamed = || of_kind(&test.dir, "segment").into_iter().find(|path| !named.contains(path));
    until(async || unnamed().is_some()).await;
    assert_eq!(verify(&test).await, Vec::new());

    let [manifests, buckets] = ["manifest", "buckets"].map(|kind| of_kind(&test.dir, kind));
    assert_eq!(manifests.len(), 2);
    let replica = group_dir(&test.dir).join("replica");
    for path in manifests.iter().chain([&named[0], &unnamed().unwrap(), &replica, buckets.last().unwrap()]) {
        let whole = flip_middle(path);
        let findings = verify(&test).await;
        assert!(names(&findings, path), "{}: {findings:?}", path.display());
        fs::write(path, whole).unwrap();
        // Buckets are written again meanwhile.
        until(async || verify(&test).await.is_empty()).await;
    }
    let log = fs::read_dir(data_dir(&test.dir).join("log")).unwrap().map(|item| item.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|e| e == "log")).min().unwrap();
    flip_in_place(&log, 4_096 + 8);
    assert!(names(&verify(&test).await, &log));
    flip_in_place(&log, 4_096 + 8);
    assert_eq!(verify(&test).await, Vec::new());
    // What the database holds, wherever it stands there.
    let identity = data_dir(&test.dir).join("identity");
    let (db, cluster) = (identity.join("db"), test.node.status().cluster_id.to_le_bytes());
    let content = fs::read(&db).unwrap();
    let places: Vec<_> = content.windows(16).enumerate().filter(|(_, bytes)| *bytes == cluster).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|(at, _)| flip_in_place(&db, *at as u64));
    let findings = verify(&test).await;
    assert!(names(&findings, &identity), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_does_not_give_is_told_apart_from_damage() {
    let disk = FaultFs::new();
    let own = disk.clone();
    let on_it = move |options: &mut NodeOptions| {
        segments_only(options);
        options.disk.snapshot_log_bytes = 64 << 10;
        options.fs = Arc::new(own);
    };
    let test = TestNode::with(on_it, Box::new(|streams| streams)).await;
    let posted = post_many(&test, 40).await;
    let of_kind = |kind: &str| {
        let group = group_dir(&test.dir);
        let mut paths = disk.paths().into_iter();
        paths.find(|path| path.starts_with(&group) && path.extension().is_some_and(|e| e == kind))
    };
    until(async || of_kind("manifest").is_some() && of_kind("segment").is_some()).await;
    until(async || verify(&test).await.is_empty()).await;
    let log = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "log"));
    let note = Some(data_dir(&test.dir).join("log").join("node"));
    for path in ["manifest", "buckets", "segment"].map(of_kind).into_iter().chain([log, note]) {
        let path = path.unwrap();
        assert!(disk.fail_reads(&path, true));
        let findings = verify(&test).await;
        assert!(disk.fail_reads(&path, false));
        assert!(names(&findings, &path), "{}: {findings:?}", path.display());
        assert!(findings.iter().all(Finding::is_unread), "{findings:?}");
        // Buckets are written again, all else is as it was.
        until(async || verify(&test).await.is_empty()).await;
    }
    // What is damaged is no less for that.
    let manifest = of_kind("manifest").unwrap();
    let mut content = disk.content(&manifest).unwrap();
    content[40] ^= 1;
    assert!(disk.damage(&manifest, &content));
    let findings = verify(&test).await;
    assert!(names(&findings, &manifest) && !findings.iter().any(Finding::is_unread), "{findings:?}");
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_a_segment_that_no_snapshot_names_is_over_with_a_restart() {
    let test = node().await;
    let posted = post_many(&test, 60).await;
    // Its flush would find what is not taken over yet.
    until(async || test.node.status().partitions.iter().any(|p| p.partition == DAMAGED && p.segments > 0))
        .await;
    let segment = of_kind(&test.dir, "segment").remove(0);
    // The payload of an entry is all but the whole of it.
    let bytes = fs::metadata(&segment).unwrap().len();
    (1..8).for_each(|part| flip_in_place(&segment, bytes * part / 9));
    // What is in memory as well goes from there soon.
    until(async || timeline_of(&test, owner()).await.is_err()).await;
    let read = timeline_of(&test, owner()).await;
    assert!(matches!(read, Err(NodeError::Damaged { partition: DAMAGED, .. })), "{read:?}");
    let Err(NodeError::Damaged { damage: Some(damage), .. }) = &read else { panic!("{read:?}") };
    names_the_place(&test, &segment).await;
    assert!(damage.offset.is_some());
    let findings = verify(&test).await;
    assert!(findings.iter().filter(|finding| finding.path == segment).count() >= 2, "{findings:?}");
    assert!(test.node.status().partitions[0].is_damaged);
    keeps_the_log(&test, user_at(1, 0)).await;
    let refused = back_up(&test, "refused", false).await.state;
    assert!(matches!(&refused, JobState::Failed(said) if said.contains("partition 0")), "{refused:?}");
    assert!(!test.dir.path().join("refused").exists(), "nothing is left behind");
    let test = test.restart_hard_with(segments_only).await;
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
    assert_eq!(verify(&test).await, Vec::new());
    assert_eq!(test.node.status().kept_by_damaged, []);
}

/// Status and figures say that the damaged partition keeps the log, and that this grows with what is written elsewhere.
async fn keeps_the_log(test: &TestNode, other: UserId) {
    let kept = || {
        let (status, figures) = (test.node.status().kept_by_damaged, test.node.figures().kept_by_damaged);
        assert_eq!(status, figures);
        let [(DAMAGED, bytes)] = status[..] else { panic!("{status:?}") };
        bytes
    };
    let before = kept();
    let bytes = 64 << 10;
    test.post(other, &"x".repeat(bytes as usize)).await;
    assert!(before > 0 && kept() >= before + bytes, "{before}, then {}", kept());
}

/// The other partitions serve, and this one does not.
async fn only_it_refuses(test: &TestNode, other: UserId, kept: &[EntryId]) {
    assert_eq!(test.node.status().damaged, [DAMAGED]);
    let read = timeline_of(test, owner()).await;
    assert!(matches!(read, Err(NodeError::Damaged { partition: DAMAGED, .. })), "{read:?}");
    assert_eq!(timeline_of(test, other).await.unwrap(), kept);
}

/// What is answered to reads and backups names the file that is damaged, and where in it.
async fn names_the_place(test: &TestNode, path: &Path) {
    let offset = verify(test).await.into_iter().find(|finding| finding.path == path).unwrap().offset;
    let NodeError::Damaged { damage: Some(damage), .. } = timeline_of(test, owner()).await.unwrap_err()
    else {
        panic!("it says nothing of what is damaged");
    };
    assert_eq!((damage.path.as_deref(), damage.offset), (Some(path), offset));
    let refused = match back_up(test, "refused", false).await.state {
        JobState::Failed(said) => said,
        state => panic!("{state:?}"),
    };
    for said in [refused, test.node.damaged(DAMAGED).to_string()] {
        let place = offset.map(|offset| format!("offset {offset}")).unwrap_or_default();
        assert!(said.contains(path.to_str().unwrap()) && said.contains(&place), "{said}");
    }
}

fn salvaged(dir: &TempDir, is_dry_run: bool) -> Salvage {
    salvage(&data_dir(dir), Some(DAMAGED), is_dry_run, &Meter::new(None)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_note_keeps_only_its_partition_from_opening_and_is_mended_without_loss() {
    let test = node().await;
    let other = user_at(1, 0);
    let (posted, kept) = (post_many(&test, 3).await, [test.post(other, "kept").await]);
    let stopped = test.stop().await;
    let note = group_dir(&stopped.dir).join("replica");
    flip(&note, 20);
    let found = verify_data_dir(&data_dir(&stopped.dir), &Meter::new(None)).unwrap().findings;
    assert!(names(&found, &note), "{found:?}");
    let test = stopped.start_with(segments_only).await;
    only_it_refuses(&test, other, &kept).await;
    assert!(names(&verify(&test).await, &note));
    names_the_place(&test, &note).await;
    let stopped = test.stop().await;
    for is_dry_run in [true, false] {
        assert_eq!(salvaged(&stopped.dir, is_dry_run).begins, Begins::Whole);
    }
    let test = stopped.start_with(segments_only).await;
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
    assert_eq!(timeline_of(&test, other).await.unwrap(), kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_whole_snapshot_a_partition_refuses_alone_and_begins_empty_once_that_is_accepted() {
    let test = node().await;
    let other = user_at(1, 0);
    let kept = [test.post(other, "kept").await];
    test.follow(other, &[owner()]).await;
    for name in ["first", "second", "third"] {
        post_many(&test, 5).await;
        assert_eq!(back_up(&test, name, false).await.state, JobState::Done);
    }
    test.drained().await;
    let stopped = test.stop().await;
    let manifests = of_kind(&stopped.dir, "manifest");
    manifests.iter().for_each(|manifest| drop(flip_middle(manifest)));
    let test = stopped.start_with(segments_only).await;
    only_it_refuses(&test, other, &kept).await;
    keeps_the_log(&test, user_at(1, 1)).await;
    names_the_place(&test, manifests.last().unwrap()).await;
    let status = back_up(&test, "without", true).await;
    assert_eq!((&status.state, status.findings.len()), (&JobState::Done, 1), "{status:?}");
    let backup = Backup::open(&test.dir.path().join("without")).unwrap();
    assert_eq!(
        (backup.contents.left_out.as_slice(), backup.contents.missing().as_slice()),
        (&[0][..], &[0][..])
    );
    let target = test.dir.path().join("restored");
    assert!(restore_all(std::slice::from_ref(&backup), false, &target, &Meter::new(None)).is_err());
    assert_eq!(restore_all(std::slice::from_ref(&backup), true, &target, &Meter::new(None)).unwrap(), [0]);
    // What was restored goes on alone from its start on, and not before.
    let early = salvage(&target, Some(DAMAGED), false, &Meter::new(None));
    assert!(matches!(early, Err(BackupError::NotStarted { .. })), "{early:?}");
    let stopped = test.stop().await;
    // Those that are in it can be restored one by one; what is not is told.
    let restored =
        |partition| restore_partition(&backup, partition, &data_dir(&stopped.dir), &Meter::new(None));
    let left_out = restored(DAMAGED);
    assert!(matches!(left_out, Err(BackupError::LeftOut { partition: DAMAGED })), "{left_out:?}");
    restored(PartitionId(1)).unwrap();

    assert_eq!(salvaged(&stopped.dir, true).begins, Begins::Empty);
    assert_eq!(of_kind(&stopped.dir, "manifest").len(), 2, "a dry run changes nothing");
    assert_eq!(salvaged(&stopped.dir, false).begins, Begins::Empty);
    let test = stopped.start_with(segments_only).await;
    assert_eq!(timeline_of(&test, other).await.unwrap(), kept);
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), []);
    let posted = post_many(&test, 3).await;
    test.drained().await;
    let mut newest_first: Vec<_> = posted.iter().chain(&kept).copied().collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(test.feed(other).await, newest_first, "its streams began anew");
    assert_eq!(verify(&test).await, Vec::new());
    let test = test.restart_hard_with(segments_only).await;
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_log_is_damaged_goes_on_from_its_snapshot_once_that_is_accepted() {
    let test = node().await;
    let other = user_at(1, 0);
    let before = post_many(&test, 5).await;
    assert_eq!(back_up(&test, "first", false).await.state, JobState::Done);
    test.post(owner(), "what is lost, since it lies behind the snapshot").await;
    let kept = [test.post(other, "kept").await];
    test.post(owner(), "lost too").await;
    let stopped = test.stop().await;
    let place = log_files(&stopped.dir).into_iter().find_map(|path| {
        let content = fs::read(&path).unwrap();
        let at = content.windows(12).position(|bytes| bytes == b"what is lost")?;
        Some((path, at))
    });
    let (path, at) = place.unwrap();
    flip_in_place(&path, at as u64);
    let test = stopped.start_with(segments_only).await;
    only_it_refuses(&test, other, &kept).await;
    keeps_the_log(&test, user_at(1, 1)).await;
    names_the_place(&test, &path).await;
    let status = back_up(&test, "without", true).await;
    assert_eq!((&status.state, status.findings.len()), (&JobState::Done, 1), "{status:?}");
    assert!(
        status.findings[0].path == path
            && status.findings[0].offset.is_some_and(|offset| offset <= at as u64)
    );
    let stopped = test.stop().await;
    let salvage = salvaged(&stopped.dir, true);
    assert!(matches!(salvage.begins, Begins::Snapshot { .. }) && !salvage.findings.is_empty(), "{salvage:?}");
    salvaged(&stopped.dir, false);
    // The place in the log stays damaged until the log is let go of, and is nobody's any more.
    assert!(log_files(&stopped.dir).contains(&path));
    let found = verify_data_dir(&data_dir(&stopped.dir), &Meter::new(None)).unwrap().findings;
    assert_eq!(found, Vec::new());
    assert_eq!(salvaged(&stopped.dir, true).begins, Begins::Whole);
    let test = stopped.start_with(segments_only).await;
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), before);
    assert_eq!(timeline_of(&test, other).await.unwrap(), kept);
    post_many(&test, 3).await;
    assert_eq!(verify(&test).await, Vec::new());
    assert_eq!(back_up(&test, "after", false).await.state, JobState::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_of_whose_log_it_is_that_rots_is_found_while_the_node_runs_and_once_it_stopped() {
    let test = node().await;
    assert_eq!(verify(&test).await, Vec::new());
    let note = data_dir(&test.dir).join("log").join("node");
    flip(&note, 20);
    assert!(names(&verify(&test).await, &note));
    let stopped = test.stop().await;
    let found = verify_data_dir(&data_dir(&stopped.dir), &Meter::new(None)).unwrap().findings;
    assert!(names(&found, &note), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_directory_of_a_partition_is_found_and_so_is_that_the_node_refuses_it() {
    let test = TestNode::with(
        |options| {
            segments_only(options);
            options.disk.snapshot_log_bytes = 64 << 10;
            options.disk.log_bytes_max = 4 << 20;
        },
        Box::new(|streams| streams),
    )
    .await;
    post_many(&test, 1_500).await;
    until(async || test.node.status().partitions.iter().all(|p| p.snapshot.is_some())).await;
    let stopped = test.stop().await;
    let found = || verify_data_dir(&data_dir(&stopped.dir), &Meter::new(None)).unwrap().findings;
    assert_eq!(found(), Vec::new());
    let gone = group_dir(&stopped.dir);
    let aside = stopped.dir.path().join("aside");
    fs::rename(&gone, &aside).unwrap();
    assert!(names(&found(), &gone), "{:?}", found());
    // The log alone tells of it, or the identity alone.
    for other in ["identity", "log"] {
        let (place, kept) = (data_dir(&stopped.dir).join(other), stopped.dir.path().join(other));
        fs::rename(&place, &kept).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(names(&found(), &gone), "without {other}: {:?}", found());
        fs::remove_dir_all(&place).unwrap();
        fs::rename(&kept, &place).unwrap();
    }
    let test = stopped.start_with(segments_only).await;
    assert!(matches!(timeline_of(&test, owner()).await, Err(NodeError::Damaged { .. })));
    let known = test.node.status().damaged;
    assert_eq!(known, [DAMAGED]);
    assert!(verify(&test).await.iter().any(|finding| finding.path.starts_with(&gone)));
}

fn log_files(dir: &TempDir) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir(dir).join("log")).unwrap().map(|item| item.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect()
}

/// How much the newest snapshots of all partitions have.
pub fn included(test: &TestNode) -> u64 {
    let status = test.node.status();
    status.partitions.iter().filter_map(|partition| Some(partition.snapshot.as_ref()?.index)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_would_keep_too_much_of_the_log_fails_and_another_names_the_one_that_runs() {
    let small_log = |options: &mut NodeOptions| {
        segments_only(options);
        options.disk.snapshot_log_bytes = 256 << 10;
        options.disk.log_bytes_max = 16 << 20;
    };
    let test = node().await;
    // Several segments of the log, so that a check at a byte a second never gets to the second one.
    post_many(&test, 300).await;
    let test = test.restart_hard_with(small_log).await;
    let started = test.node.start_job(JobKind::Verify, Some(1)).unwrap();
    let refused = test.node.start_job(JobKind::Verify, None).unwrap();
    let says = format!("fanfold job cancel {}", started.id);
    assert!(matches!(&refused.state, JobState::Failed(said) if said.contains(&says)), "{refused:?}");
    assert_eq!((refused.id, test.node.job(0).unwrap().id), (0, started.id));
    let mut kept = None;
    while test.node.job(started.id).unwrap().state == JobState::Running {
        // Behind each two snapshots' worth the log goes further: what is kept for the job alone grows by little.
        let included = included(&test);
        for _ in 0..32 {
            test.post(owner(), &"x".repeat(16 << 10)).await;
            kept = kept.or(test.node.status().log_kept_by_job);
        }
        until(async || self::included(&test) > included).await;
        kept = kept.or(test.node.status().log_kept_by_job);
    }
    assert_eq!(kept, Some(started.id));
    let ended = test.node.job(started.id).unwrap().state;
    assert!(matches!(&ended, JobState::Failed(said) if said.contains("log_bytes_max")), "{ended:?}");
    until(async || test.node.status().log.bytes <= 20 << 20).await;
    // Whoever ends one makes room for the next.
    let slow = test.node.start_job(JobKind::Verify, Some(1)).unwrap();
    test.node.cancel_job(slow.id).unwrap();
    assert_eq!(self::ended(&test, &slow).await.state, JobState::Cancelled);
    assert_eq!(verify(&test).await, Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backup_is_made_in_the_data_directory() {
    let test = node().await;
    test.post(owner(), "one").await;
    for name in ["data/backup", "data/log/../backup", "data"] {
        let state = back_up(&test, name, false).await.state;
        assert!(
            matches!(&state, JobState::Failed(said) if said.contains("data directory")),
            "{name}: {state:?}"
        );
    }
    assert!(!data_dir(&test.dir).join("backup").exists());
}

/// R20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_behind_a_snapshot_that_does_not_read_back_as_it_was_written() {
    for restarts in [false, true] {
        the_log_stays_behind_what_does_not_read_back(restarts).await;
    }
}

/// `restarts`: the node begins anew from the snapshot, which opens its segments and does not read their entries.
async fn the_log_stays_behind_what_does_not_read_back(restarts: bool) {
    let mut test = node().await;
    let other = user_at(1, 0);
    let kept = [test.post(other, "kept").await];
    let mut posted = post_many(&test, 20).await;
    assert_eq!(back_up(&test, "first", false).await.state, JobState::Done);
    if restarts {
        test = test.restart_hard_with(segments_only).await;
    }
    posted.extend(post_many(&test, 20).await);
    // The manifest of the first names it, and nobody has read it back yet.
    let segment = of_kind(&test.dir, "segment").remove(0);
    let at = fs::metadata(&segment).unwrap().len() / 2;
    flip_in_place(&segment, at);
    let taken = back_up(&test, "second", false).await.state;
    assert!(matches!(taken, JobState::Failed(_)), "{taken:?}");
    until(async || test.node.status().partitions[0].is_damaged).await;
    let stopped = test.stop().await;
    // All of it is in the log still: nothing is lost.
    assert_eq!(salvaged(&stopped.dir, true).begins, Begins::Whole);
    salvaged(&stopped.dir, false);
    let test = stopped.start_with(segments_only).await;
    assert_eq!(timeline_of(&test, owner()).await.unwrap(), posted);
    assert_eq!(timeline_of(&test, other).await.unwrap(), kept);
}
