//! Tests of whole groups: openraft's storage suite, one voter, and three voters with failures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::fs::{FaultFs, PowerLoss, RealFs};
use fanfold_storage::log::Log;
use futures_util::future::{join_all, select_all};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::files::Restored;
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::testing::*;
use super::types::Types;
use super::*;

mod snapshots;

struct RealLogs;

impl StoreBuilder<Types, LogStore, StateMachine<Notebook>, tempfile::TempDir> for RealLogs {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine<Notebook>), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(Arc::new(RealFs), &dir.path().join("log"), 64 << 10);
        let store = LogStore::open(log, GROUP).unwrap();
        let files = directory(Arc::new(RealFs), &dir.path().join("group"));
        let Restored { shared, files, current } = files.open(GROUP, Notebook::default(), None).unwrap();
        Ok((dir, store, StateMachine::new(shared, files, current)))
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
    let refused =
        Group::open(log, spec, memory_directory(&disk), Notebook::default(), &quick(), transport).await;
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

/// Three replicas in one process, each with a disk of its own.
struct Trio {
    settings: RaftSettings,
    transport: InProcessTransport,
    disks: Vec<FaultFs>,
    replicas: Vec<Option<Replica>>,
}

struct Replica {
    group: Group<Notebook>,
    _endpoint: Arc<dyn PeerEndpoint>,
    _log: Log,
}

impl Trio {
    async fn new(settings: RaftSettings) -> Self {
        let disks: Vec<_> = (0..3).map(|_| FaultFs::new()).collect();
        let transport = InProcessTransport::default();
        let mut trio = Self { settings, transport, disks, replicas: vec![None, None, None] };
        for replica in 0..3 {
            trio.start(replica, Formation::New).await;
        }
        trio
    }

    async fn start(&mut self, replica: usize, formation: Formation) {
        let log = open_memory_log(&self.disks[replica]);
        let spec = spec(replica as u64 + 1, 3, formation);
        let transport = Arc::new(self.transport.clone());
        let (files, machine) = (memory_directory(&self.disks[replica]), Notebook::default());
        let group = Group::open(log.clone(), spec, files, machine, &self.settings, transport).await.unwrap();
        let endpoint = group.endpoint();
        self.transport.register(GROUP, group.replica(), &endpoint);
        self.replicas[replica] = Some(Replica { group, _endpoint: endpoint, _log: log });
    }

    /// The replica's machine loses power, in the middle of whatever it does.
    fn kill(&mut self, replica: usize) {
        self.disks[replica] = self.disks[replica].lose_power(PowerLoss::LoseAll);
        self.replicas[replica] = None;
    }

    fn isolate(&self, replica: usize, isolated: bool) {
        self.transport.isolate(GROUP, ReplicaId(replica as u64 + 1), isolated);
    }

    fn group(&self, replica: usize) -> &Group<Notebook> {
        &self.replicas[replica].as_ref().unwrap().group
    }

    /// Proposes at whoever of `candidates` accepts it; returns who did.
    async fn propose(&self, candidates: &[usize], text: &str) -> (usize, u64) {
        let mut watches: Vec<_> =
            candidates.iter().map(|replica| self.group(*replica).watch_leadership()).collect();
        loop {
            for replica in candidates {
                // A proposal whose outcome is unknown is made again: see `lines`.
                if let Ok(proposed) = self.group(*replica).propose(line(text)).await {
                    return (*replica, proposed.index);
                }
            }
            // A leader without a lease says so at once, and gets it with the next heartbeat, which is no change.
            let change = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed())));
            let _ = tokio::time::timeout(Duration::from_millis(20), change).await;
        }
    }

    /// The lines of a replica; one that was proposed again right after an unknown outcome may be there twice.
    fn lines(&self, replica: usize) -> Vec<String> {
        let mut lines = texts(self.group(replica));
        lines.dedup();
        lines
    }

    async fn converge(&self, replicas: &[usize], index: u64) {
        join_all(replicas.iter().map(|replica| self.group(*replica).wait_applied(index)))
            .await
            .into_iter()
            .for_each(|waited| waited.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_survive_the_loss_of_their_leader() {
    let mut trio = Trio::new(quick()).await;
    let mut acked = Vec::new();
    let mut last = (0, 0);
    for number in 0..30 {
        acked.push(format!("before-{number}"));
        last = trio.propose(&[0, 1, 2], &acked[number]).await;
    }
    let leader = last.0;
    let others: Vec<usize> = (0..3).filter(|replica| *replica != leader).collect();
    trio.kill(leader);
    for number in 30..60 {
        acked.push(format!("after-{number}"));
        last = trio.propose(&others, &acked[number]).await;
    }
    trio.converge(&others, last.1).await;
    for replica in &others {
        assert_eq!(trio.lines(*replica), acked);
    }

    trio.start(leader, Formation::Existing).await;
    trio.group(leader).recovered(Duration::from_secs(20)).await.unwrap();
    trio.converge(&[leader], last.1).await;
    assert_eq!(trio.lines(leader), acked, "a restarted replica catches up");

    // All three lose power together; what was acknowledged is still there.
    for replica in 0..3 {
        trio.kill(replica);
    }
    for replica in 0..3 {
        trio.start(replica, Formation::Existing).await;
    }
    acked.push("last".to_owned());
    last = trio.propose(&[0, 1, 2], "last").await;
    trio.converge(&[0, 1, 2], last.1).await;
    for replica in 0..3 {
        assert_eq!(trio.lines(replica), acked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_answers_neither_writes_nor_reads() {
    let trio = Trio::new(quick()).await;
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let others: Vec<usize> = (0..3).filter(|replica| *replica != leader).collect();
    trio.isolate(leader, true);
    let writing = trio.group(leader).submit(line("cut off")).await.unwrap();
    let read = trio.group(leader).read_index().await;
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{read:?}");
    let (successor, _) = trio.propose(&others, "two").await;
    assert_ne!(successor, leader);
    trio.isolate(leader, false);
    let lost = writing.wait().await.unwrap_err();
    assert!(matches!(lost, ProposeError::Lost { .. } | ProposeError::NotLeader { .. }), "{lost}");
    let (_, index) = trio.propose(&others, "three").await;
    trio.converge(&[0, 1, 2], index).await;
    for replica in 0..3 {
        assert_eq!(trio.lines(replica), ["one", "two", "three"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_its_leader() {
    let trio = Trio::new(RaftSettings::default()).await;
    let (leader, index) = trio.propose(&[0, 1, 2], "one").await;
    trio.converge(&[0, 1, 2], index).await;
    let follower = (leader + 1) % 3;
    let refused = trio.group(follower).propose(line("two")).await.unwrap_err();
    let Some(expected) = trio.group(follower).leader_hint() else { panic!("no leader known") };
    assert_eq!(expected.replica, ReplicaId(leader as u64 + 1));
    assert_eq!(refused, ProposeError::NotLeader { hint: Some(expected) });
}
