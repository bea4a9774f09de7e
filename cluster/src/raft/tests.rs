//! Tests of whole groups: openraft's storage suite and one voter; several voters, members and snapshots by topic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::fs::{FaultFs, PowerLoss, RealFs};
use fanfold_storage::log::{GroupId, Log};
use futures_util::future::{join_all, select_all};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::files::Restored;
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::testing::*;
use super::types::Types;
use super::*;

mod members;
mod recover;
mod replay;
mod retire;
mod sleep;
mod snapshots;
mod transfer;
mod trio;
mod voters;

struct RealLogs;

impl StoreBuilder<Types, LogStore, StateMachine<Notebook>, tempfile::TempDir> for RealLogs {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine<Notebook>), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(Arc::new(RealFs), &dir.path().join("log"), 64 << 10);
        let store = LogStore::open(log, GROUP).unwrap();
        let log = store.clone();
        let files = directory(Arc::new(RealFs), &dir.path().join("group"));
        let Restored { shared, files, current } =
            files.load(GROUP, Notebook::default()).finish().await.unwrap().join(None, None).unwrap();
        Ok((dir, store, StateMachine::new(ReplicaId(1), shared, files, current, log)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(RealLogs).await.unwrap();
}

#[tokio::test]
async fn a_single_voter_serves_as_soon_as_it_is_open() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    assert!(group.is_leader());
    let hint = group.leader_hint().unwrap();
    assert_eq!((hint.replica, hint.address.0.as_str()), (ReplicaId(1), "node-1"));
    let first = group.propose(line("one")).await.unwrap();
    let second = group.propose(line("two")).await.unwrap();
    assert_eq!((first.outcome, second.outcome), (vec![1], vec![2]));
    assert_eq!(second.index, first.index + 1);
    assert_eq!(group.applied_index(), second.index);
    assert!(group.read_index().await.unwrap() >= second.index);
    group.wait_applied(second.index).await.unwrap();
    let metrics = group.metrics();
    assert!(metrics.is_leader && metrics.stopped.is_none());
    assert_eq!((metrics.leader, metrics.applied_index), (Some(ReplicaId(1)), second.index));
}

#[tokio::test]
async fn acked_batches_survive_kill_and_power_loss() {
    let mut disk = FaultFs::new();
    let mut acked: Vec<String> = Vec::new();
    for life in 0..6 {
        let log = open_memory_log(&disk);
        let formation = if life == 0 { Formation::New } else { Formation::Existing };
        let group = open_single(memory_directory(&disk), &log, formation).await.unwrap();
        assert_eq!(texts(&group), acked, "after restart {life}");
        for number in 0..20 {
            let text = format!("{life}-{number}");
            group.propose(line(&text)).await.unwrap();
            acked.push(text);
        }
        // The machine goes down with everything still running; nothing is closed before.
        disk = match life % 3 {
            0 => disk.kill(),
            1 => disk.lose_power(PowerLoss::LoseAll),
            _ => disk.lose_power(PowerLoss::KeepAll),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_batches_survive_a_drop_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = Vec::new();
    for life in 0..3 {
        let log = open_log(Arc::new(RealFs), &dir.path().join("log"), 1 << 20);
        let files = directory(Arc::new(RealFs), &dir.path().join("group"));
        let group = open_single(files, &log, Formation::New).await.unwrap();
        assert_eq!(texts(&group), acked);
        for number in 0..10 {
            let text = format!("{life}-{number}");
            group.propose(line(&text)).await.unwrap();
            acked.push(text);
        }
        let stopped = group.clone();
        drop(group);
        stopped.shutdown().await;
        assert_eq!(stopped.metrics().stopped, Some(StopReason::Shutdown));
        drop(stopped);
        log.close().unwrap();
    }
}

#[tokio::test]
async fn raft_stops_when_the_last_handle_is_dropped() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    let mut leadership = group.watch_leadership();
    drop(group);
    while leadership.changed().await {}
    // The same replica can be opened again over the same log.
    let group = open_single(memory_directory(&disk), &log, Formation::Existing).await.unwrap();
    group.propose(line("again")).await.unwrap();
}

#[tokio::test]
async fn an_empty_log_of_an_existing_group_is_refused() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let refused = open_single(memory_directory(&disk), &log, Formation::Existing).await;
    assert!(matches!(refused, Err(OpenError::Empty { replica: ReplicaId(1) })));
}

#[tokio::test]
async fn a_replica_that_is_no_member_is_refused() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let transport = Arc::new(InProcessTransport::default());
    let spec = GroupSpec { replica: ReplicaId(9), ..spec(1, 1, Formation::New) };
    let loading = memory_directory(&disk).load(spec.group, Notebook::default());
    let refused = Group::open(log, spec, loading, &quick(), transport).await;
    assert!(matches!(refused, Err(OpenError::NotMember { replica: ReplicaId(9) })));
}

#[tokio::test]
async fn a_batch_above_the_limit_is_refused() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    let batch = Batch(Bytes::from(vec![0; BATCH_BYTES_MAX + 1]));
    let refused = group.propose(batch).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })));
    group.propose(line("small")).await.unwrap();
}

#[tokio::test]
async fn a_stopped_group_answers_everything_with_an_error() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    group.shutdown().await;
    assert_eq!(group.stopped().await, StopReason::Shutdown);
    assert!(group.propose(line("late")).await.is_err());
    assert_eq!(group.read_index().await, Err(ReadError::Stopped));
    assert_eq!(group.wait_applied(1_000).await, Err(ReadError::Stopped));
}

#[tokio::test]
async fn a_failed_sync_stops_the_group_and_answers_nothing() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    let mut written = Vec::new();
    let lost = loop {
        // The sync that fails may be the one of a segment that is being made ahead, which is tried again.
        disk.fail_sync_after(0, PowerLoss::LoseAll);
        match group.propose(line("line")).await {
            Ok(_) => written.push("line".to_owned()),
            Err(lost) => break lost,
        }
    };
    assert!(lost.may_have_applied(), "{lost}");
    assert!(matches!(group.stopped().await, StopReason::Storage(_)));
    assert_eq!(texts(&group), written);
}

#[tokio::test]
async fn what_a_full_disk_did_not_refuse_has_its_room() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    disk.set_room_bytes(Some(0));
    while !log.status().full || log.accepts(1_000_000) {
        group.propose(line(&"x".repeat(100 << 10))).await.unwrap();
    }
    // Less is left than this, and more than smaller ones need.
    assert!(log.accepts_appends());
    assert_eq!(group.propose(line(&"x".repeat(1_000_000))).await.unwrap_err(), ProposeError::DiskFull);
    let mut in_flight = Vec::new();
    let refused = loop {
        match group.submit(line(&"x".repeat(30 << 10))).await {
            Ok(batch) => in_flight.push(batch),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert!(!in_flight.is_empty());
    for batch in in_flight {
        let written = tokio::time::timeout(Duration::from_secs(20), batch.wait()).await;
        written.expect("it waits for no room").unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    disk.set_room_bytes(Some(0));
    let mut written = 0;
    // Segments are small enough for the log to need another one after some of these.
    let refused = loop {
        match group.propose(line(&"x".repeat(100 << 10))).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert_eq!(texts(&group).len(), written, "reads go on");
    disk.set_room_bytes(None);
    let mut again = group.propose(line("room")).await;
    while again == Err(ProposeError::DiskFull) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        again = group.propose(line("room")).await;
    }
    assert_eq!(again.unwrap().outcome, vec![written + 1]);
}
