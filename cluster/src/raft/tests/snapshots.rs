//! Tests of a group's snapshots: what a restart begins with, what leaves the log, and what faults do.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use fanfold_storage::fs::FileSystem;
use tokio::task::JoinHandle;

use super::*;

/// A node with one voter on a disk in memory.
struct Single {
    disk: FaultFs,
    log: Log,
    group: Group<Notebook>,
    acked: Vec<String>,
}

impl Single {
    async fn new() -> Self {
        let disk = FaultFs::new();
        let log = open_memory_log(&disk);
        let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
        Self { disk, log, group, acked: Vec::new() }
    }

    async fn write(&mut self, lines: usize) {
        for _ in 0..lines {
            let text = format!("line {}", self.acked.len());
            self.group.propose(line(&text)).await.unwrap();
            self.acked.push(text);
        }
    }

    /// The same node on what is left of its disk.
    async fn restart_on(self, disk: FaultFs) -> Result<Self, OpenError> {
        let log = open_memory_log(&disk);
        let group = open_single(memory_directory(&disk), &log, Formation::Existing).await?;
        Ok(Self { disk, log, group, acked: self.acked })
    }

    async fn restart(self) -> Self {
        let disk = self.disk.lose_power(PowerLoss::LoseAll);
        self.restart_on(disk).await.unwrap()
    }

    /// Waits until the log begins behind `index`: openraft purges when it comes to it.
    async fn purged(&self, index: u64) {
        while self.log.group_state(GROUP).unwrap().first <= index {
            tokio::task::yield_now().await;
        }
    }

    fn newest(&self) -> u64 {
        self.group.newest_snapshot().unwrap().manifest.index
    }

    async fn snapshot(&self) -> Result<bool, FileError> {
        self.group.snapshot(&self.group.turn().await).await
    }

    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new("/groups/0003")).unwrap();
        names
            .iter()
            .filter(|name| name.ends_with(suffix))
            .map(|name| Path::new("/groups/0003").join(name))
            .collect()
    }

    fn damage(&self, path: &Path) {
        let mut content = self.disk.content(path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        assert!(self.disk.damage(path, &content));
    }
}

#[tokio::test]
async fn a_restart_begins_with_the_newest_snapshot_and_the_log_goes_behind_the_second_newest() {
    let mut node = Single::new().await;
    node.write(25).await;
    assert!(node.snapshot().await.unwrap());
    let first = node.newest();
    node.write(25).await;
    assert_eq!(node.log.group_state(GROUP).unwrap().first, 0, "a single snapshot may be damaged");
    assert!(node.snapshot().await.unwrap());
    let second = node.newest();
    assert!(second > first);
    node.purged(first).await;
    node.write(5).await;
    let mut node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
    assert_eq!(node.newest(), second);
    assert_eq!(node.log.group_state(GROUP).unwrap().first, first + 1);
    // What came from a snapshot goes on like anything else.
    node.write(5).await;
    assert!(node.snapshot().await.unwrap());
    node.purged(second).await;
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
    assert_eq!(node.files(".manifest").len(), 2, "older ones go");
}

#[tokio::test]
async fn what_was_damaged_is_passed_over_and_nothing_is_deleted() {
    let mut node = Single::new().await;
    for _ in 0..3 {
        node.write(12).await;
        node.snapshot().await.unwrap();
    }
    node.write(3).await;
    let newest = node.newest();
    let manifest = node.files(".manifest").pop().unwrap();
    node.damage(&manifest);
    let mut node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
    assert!(node.newest() < newest);
    node.write(3).await;
    node.snapshot().await.unwrap();
    assert!(node.files(".manifest").contains(&manifest), "it may be the only one with what it holds");
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
}

#[tokio::test]
async fn damage_in_what_a_snapshot_holds_is_found_when_it_is_read() {
    let mut node = Single::new().await;
    for _ in 0..2 {
        node.write(12).await;
        node.snapshot().await.unwrap();
    }
    let newest = node.newest();
    node.damage(&node.files(".buckets").pop().unwrap());
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
    assert!(node.newest() < newest);
}

#[tokio::test]
async fn a_missing_file_is_named_and_nothing_starts() {
    let mut node = Single::new().await;
    for _ in 0..2 {
        node.write(12).await;
        node.snapshot().await.unwrap();
    }
    let missing = node.files(".buckets").pop().unwrap();
    node.disk.remove(&missing).unwrap();
    let disk = node.disk.kill();
    let refused = node.restart_on(disk).await.err().unwrap().to_string();
    assert!(refused.contains(missing.to_str().unwrap()), "{refused}");
}

#[tokio::test]
async fn without_a_snapshot_that_reaches_the_log_nothing_starts() {
    let mut node = Single::new().await;
    for _ in 0..2 {
        node.write(12).await;
        node.snapshot().await.unwrap();
    }
    node.purged(0).await;
    node.write(1).await;
    for manifest in node.files(".manifest") {
        node.damage(&manifest);
    }
    let disk = node.disk.kill();
    let refused = node.restart_on(disk).await.err().unwrap();
    assert!(matches!(refused, OpenError::NoSnapshot { index: None, .. }), "{refused}");
}

#[tokio::test]
async fn a_full_disk_refuses_a_snapshot_and_nothing_else() {
    let mut node = Single::new().await;
    node.write(30).await;
    node.disk.set_room_bytes(Some(0));
    let full = node.snapshot().await.unwrap_err();
    assert!(full.is_full(), "{full}");
    node.disk.set_room_bytes(None);
    node.write(5).await;
    assert!(node.snapshot().await.unwrap());
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
}

/// The machine stops after every operation on the disk while snapshots are taken, files are removed and the log is purged.
#[tokio::test]
async fn a_stop_at_any_operation_loses_nothing() {
    let prepared = || async {
        let mut node = Single::new().await;
        for _ in 0..2 {
            node.write(12).await;
            node.snapshot().await.unwrap();
        }
        node.write(12).await;
        node
    };
    let node = prepared().await;
    let before = node.disk.operations();
    node.snapshot().await.unwrap();
    let operations = node.disk.operations() - before;
    assert!(operations > 8, "{operations}");
    for stop in 0..operations {
        for loss in [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)] {
            let node = prepared().await;
            let second = node.newest();
            node.disk.stop_after(stop);
            // It may still succeed, if what is left to do is openraft's own.
            let _ = node.snapshot().await;
            let disk = node.disk.lose_power(loss);
            let names = disk.list(Path::new("/groups/0003")).unwrap();
            let found = names.iter().filter(|name| name.ends_with(".manifest")).count();
            let node = node.restart_on(disk).await.unwrap();
            assert_eq!(texts(&node.group), node.acked, "stopped after {stop} operations, {loss:?}");
            // Nothing says that the second was read back before the log has gone up to it; so the first stays, if it is there.
            let is_read_back = node.log.group_state(GROUP).unwrap().first > second;
            let kept = node.files(".manifest").len();
            assert!(found < 3 || kept == 3 || is_read_back, "stopped after {stop} operations, {loss:?}");
            node.snapshot().await.unwrap();
            let node = node.restart().await;
            assert_eq!(texts(&node.group), node.acked, "and again after {stop} operations, {loss:?}");
        }
    }
}

/// A file system whose writer waits: each piece of a snapshot or segment is announced, and written once that is answered.
fn slow_directory(disk: &FaultFs) -> (GroupDirectory, Receiver<()>, SyncSender<()>) {
    let ((asks, asked), (allow, allowed)) = (sync_channel(0), sync_channel(0));
    let allowed = std::sync::Mutex::new(allowed);
    let pace = move |_| {
        // Who asks no more lets everything through.
        if asks.send(()).is_ok() {
            let _ = allowed.lock().unwrap().recv();
        }
    };
    (GroupDirectory { pace: Arc::new(pace), ..memory_directory(disk) }, asked, allow)
}

/// A group with some entries, whose writer of snapshots waits.
struct Slow {
    node: Single,
    asked: Receiver<()>,
    allow: SyncSender<()>,
}

impl Slow {
    async fn written() -> Self {
        let disk = FaultFs::new();
        let log = open_memory_log(&disk);
        let (directory, asked, allow) = slow_directory(&disk);
        let group = open_single(directory, &log, Formation::New).await.unwrap();
        let mut node = Single { disk, log, group, acked: Vec::new() };
        node.write(25).await;
        Self { node, asked, allow }
    }
}

/// Takes a snapshot meanwhile.
fn snapshot(node: &Single) -> JoinHandle<Result<bool, FileError>> {
    let group = node.group.clone();
    tokio::spawn(async move { group.snapshot(&group.turn().await).await })
}

#[tokio::test]
async fn entries_are_applied_while_the_disk_keeps_a_snapshot_waiting() {
    let Slow { mut node, asked, allow } = Slow::written().await;
    let index = node.group.applied_index();
    let taken = snapshot(&node);
    let mut pieces = 0;
    while !taken.is_finished() {
        if asked.try_recv().is_ok() {
            pieces += 1;
            // The piece waits until this was applied and answered.
            node.write(1).await;
            allow.send(()).unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert!(taken.await.unwrap().unwrap());
    assert!(pieces > 1, "{pieces}");
    assert_eq!(node.newest(), index, "what came later is not in it");
    drop((asked, allow));
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
}

#[tokio::test]
async fn applying_waits_for_a_cut_that_has_saved_as_much_as_it_may() {
    let Slow { mut node, asked, allow } = Slow::written().await;
    node.group.change(|notebook| notebook.cut_lines_max = Some(3)).await;
    let taken = snapshot(&node);
    while asked.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    node.write(3).await;
    let (group, late) = (node.group.clone(), "one too many");
    let next = group.propose(line(late));
    tokio::pin!(next);
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut next).await;
    assert!(waited.is_err() && texts(&node.group) == node.acked, "{waited:?}");
    allow.send(()).unwrap();
    while !taken.is_finished() {
        assert!(asked.try_recv().is_err(), "what somebody waits for keeps to no pace");
        tokio::task::yield_now().await;
    }
    assert!(taken.await.unwrap().unwrap());
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("the cut has ended").unwrap();
    assert!(node.group.apply_times().held.sum >= Duration::from_millis(200), "the wait counts");
    node.acked.push(late.to_owned());
    drop((asked, allow));
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
}

#[tokio::test]
async fn a_cut_that_fails_lets_go_whoever_waits_for_it() {
    let Slow { mut node, asked, allow } = Slow::written().await;
    node.group.change(|notebook| notebook.cut_lines_max = Some(0)).await;
    let taken = snapshot(&node);
    while asked.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    // Its entry is applied, and the next waits.
    node.write(1).await;
    node.disk.set_room_bytes(Some(0));
    drop((asked, allow));
    let written = tokio::time::timeout(Duration::from_secs(60), node.write(2)).await;
    written.expect("the cut has ended");
    assert!(taken.await.unwrap().unwrap_err().is_full());
    node.disk.set_room_bytes(None);
    node.group.change(|notebook| notebook.cut_lines_max = None).await;
    assert!(node.snapshot().await.unwrap());
    let node = node.restart().await;
    assert_eq!(texts(&node.group), node.acked);
}

/// Work that is behind so many times when it is to be installed.
fn in_rounds(behind: usize) -> FileWork<Notebook> {
    Box::new(move |files| {
        (files.pace)(1);
        Ok(Box::new(move |notebook: &mut Notebook| {
            notebook.kept_up_on.push(thread::current().id());
            behind
                .checked_sub(1)
                .map_or_else(|| Installed::Done(Box::new(())), |behind| Installed::Behind(in_rounds(behind)))
        }))
    })
}

/// Work that names a segment each time it is done, and fails after so many times.
fn fails_after(times: usize) -> FileWork<Notebook> {
    Box::new(move |files| {
        let name = format!("{:016x}.segment", files.snapshots.take_number());
        files.fs.create(&files.dir.join(name)).unwrap();
        let times = times.checked_sub(1).ok_or(FileError::Stopped)?;
        Ok(Box::new(move |_: &mut Notebook| Installed::Behind(fails_after(times))))
    })
}

#[tokio::test]
async fn what_work_wrote_that_fails_is_removed() {
    let mut node = Single::new().await;
    node.write(3).await;
    let turn = node.group.turn().await;
    for times in 0..3 {
        assert!(node.group.work(&turn, fails_after(times)).await.is_err());
        assert_eq!(node.files(".segment"), Vec::<PathBuf>::new(), "after {times}");
    }
}

/// Threads for the background give way to all others: applying would wait for one that has the lock and no processor.
#[tokio::test]
async fn the_lock_is_taken_where_the_group_is_applied_and_files_are_written_elsewhere() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let (wrote, written) = std::sync::mpsc::channel();
    let pace = Arc::new(move |_| wrote.send(thread::current().id()).unwrap());
    let directory = GroupDirectory { pace, ..memory_directory(&disk) };
    let group = open_single(directory, &log, Formation::New).await.unwrap();
    let mut node = Single { disk, log, group, acked: Vec::new() };
    node.write(25).await;
    assert!(node.snapshot().await.unwrap());
    let turn = node.group.turn().await;
    let before: Vec<_> = written.try_iter().collect();
    let kept_up_before = node.group.read(|notebook| notebook.kept_up_on.len());
    node.group.work(&turn, in_rounds(3)).await.unwrap();
    let here = thread::current().id();
    let kept_up_on = node.group.read(|notebook| notebook.kept_up_on.clone());
    assert_eq!(kept_up_on.len() - kept_up_before, 4, "each round of work is followed by a try to install it");
    assert!(kept_up_on.len() > 5 && kept_up_on.iter().all(|thread| *thread == here), "{kept_up_on:?}");
    let rounds: Vec<_> = written.try_iter().collect();
    assert_eq!(rounds.len(), 4);
    let written = [before, rounds].concat();
    assert!(written.len() > 5 && !written.contains(&here), "{written:?}");
}
