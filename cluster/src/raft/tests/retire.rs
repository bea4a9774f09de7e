//! Tests of the end of a replica, and of the next one of the same group on the same node.

use std::path::Path;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{LogError, Record};

use super::trio::Trio;
use super::*;

/// A node with a group of one voter with snapshots, and a record of another group.
async fn prepared() -> (FaultFs, Log, Group<Notebook>) {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    log.submit(vec![Record::Vote { group: OTHER, data: Bytes::from_static(b"other") }], None).unwrap();
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    for number in 0..30 {
        group.propose(line(&format!("line {number}"))).await.unwrap();
        if number % 10 == 9 {
            group.snapshot(&group.turn().await).await.unwrap();
        }
    }
    (disk, log, group)
}

const OTHER: GroupId = GroupId(8);

/// Opens a later replica, which must have nothing.
async fn open_later(disk: &FaultFs, log: &Log) -> Result<Group<Notebook>, OpenError> {
    let spec = GroupSpec {
        group: GROUP,
        replica: ReplicaId(5),
        members: std::collections::BTreeMap::new(),
        formation: Formation::Joining,
    };
    let transport = Arc::new(InProcessTransport::default());
    Group::open(
        log.clone(),
        spec,
        memory_directory(disk).load(GROUP, Notebook::default()),
        &quick(),
        transport,
    )
    .await
}

#[tokio::test]
async fn a_retired_replica_leaves_nothing_and_is_never_opened_again() {
    let (disk, log, group) = prepared().await;
    group.retire().await.unwrap();
    assert_eq!(log.group_state(GROUP).unwrap(), fanfold_storage::log::GroupState::default());
    assert_eq!(disk.list(Path::new("/groups/0003")).unwrap(), ["replica"]);
    assert!(log.group_state(OTHER).unwrap().vote.is_some(), "the node's others go on");
    let again = open_single(memory_directory(&disk), &log, Formation::Existing).await;
    assert!(matches!(again, Err(OpenError::Retired { replica: ReplicaId(1) })));
    retire_closed(log.clone(), GROUP, ReplicaId(1), memory_directory(&disk)).await.unwrap();
    let later = open_later(&disk, &log).await.unwrap();
    assert_eq!(texts(&later), Vec::<String>::new());
    assert_eq!(later.members(), GroupMembers::default());
}

#[tokio::test]
async fn a_replica_is_not_opened_over_another_that_was_not_retired() {
    let (disk, log, group) = prepared().await;
    group.shutdown().await;
    let refused = open_later(&disk, &log).await.err().unwrap();
    let expected = |error: &OpenError| {
        matches!(error, OpenError::OtherReplica { replica: ReplicaId(5), found: ReplicaId(1) })
    };
    assert!(expected(&refused), "{refused}");
    drop(group);
    let group = open_single(memory_directory(&disk), &log, Formation::Existing).await.unwrap();
    assert_eq!(texts(&group).len(), 30);
}

/// The machine stops after every operation on the disk while a replica is retired.
#[tokio::test]
async fn a_retirement_that_is_stopped_anywhere_is_finished_by_whoever_comes_next() {
    let (disk, _log, group) = prepared().await;
    let before = disk.operations();
    group.retire().await.unwrap();
    let operations = disk.operations() - before;
    assert!(operations > 10, "{operations}");
    let mut halfway = 0;
    for stop in 0..operations {
        for loss in [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)] {
            let (disk, _log, group) = prepared().await;
            disk.stop_after(stop);
            let _ = group.retire().await;
            let disk = disk.lose_power(loss);
            let log = open_memory_log(&disk);
            match open_single(memory_directory(&disk), &log, Formation::Existing).await {
                // Before the note was durable nothing has happened.
                Ok(group) => {
                    assert_eq!(texts(&group).len(), 30);
                    group.retire().await.unwrap();
                }
                Err(OpenError::Retired { .. }) if stop % 2 == 0 => {
                    retire_closed(log.clone(), GROUP, ReplicaId(1), memory_directory(&disk)).await.unwrap();
                    assert_eq!(disk.list(Path::new("/groups/0003")).unwrap(), ["replica"]);
                    halfway += 1;
                }
                // A later replica finishes it too.
                Err(OpenError::Retired { .. }) => halfway += 1,
                Err(error) => panic!("stopped after {stop} operations, {loss:?}: {error}"),
            }
            let later = open_later(&disk, &log).await.unwrap();
            assert_eq!((texts(&later).len(), later.metrics().last_log_index), (0, None));
            assert!(log.group_state(OTHER).unwrap().vote.is_some());
        }
    }
    assert!(halfway > operations, "{halfway} of {operations}");
}

/// A group whose records are damaged on one node is rebuilt there under a new id, and the node's others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_replica_is_rebuilt_under_a_new_id() {
    let mut trio = Trio::new(quick()).await;
    let mut written = Vec::new();
    for number in 0..20 {
        written.push(format!("a line that can be found again {number}"));
        trio.propose(&[0, 1, 2], &written[number]).await;
    }
    let leader = trio.leader(&[0, 1, 2]).await;
    let broken = (leader + 1) % 3;
    trio.caught_up(leader, broken).await;
    trio.kill(broken);
    let disk = trio.disks[broken].clone();
    for path in disk.paths() {
        let mut content = disk.content(&path).unwrap();
        let needle = b"a line that can be found again 7";
        if let Some(at) = content.windows(needle.len()).position(|window| window == needle) {
            content[at + 3] ^= 1;
            disk.damage(&path, &content);
        }
    }
    let log = open_memory_log(&disk);
    let old = spec(broken as u64 + 1, 3, Formation::Existing);
    let transport = Arc::new(InProcessTransport::default());
    let opened = Group::open(
        log.clone(),
        old,
        memory_directory(&disk).load(GROUP, Notebook::default()),
        &quick(),
        transport,
    )
    .await;
    let refused = opened.err().unwrap();
    let is_quarantined =
        matches!(refused, OpenError::Log(LogStoreError::Log(LogError::Quarantined { group: GROUP, .. })));
    assert!(is_quarantined, "{refused}");
    retire_closed(log.clone(), GROUP, ReplicaId(broken as u64 + 1), memory_directory(&disk)).await.unwrap();
    drop(log);
    trio.join(broken, 9).await;
    let leader = trio.leader(&(0..3).filter(|node| *node != broken).collect::<Vec<_>>()).await;
    trio.add(leader, &[broken]).await;
    trio.vote(leader, &[0, 1, 2]).await.unwrap();
    let (_, index) = trio.propose(&[0, 1, 2], "whole again").await;
    written.push("whole again".to_owned());
    trio.converge(&[0, 1, 2], index).await;
    for node in 0..3 {
        assert_eq!(trio.lines(node), written);
    }
}
