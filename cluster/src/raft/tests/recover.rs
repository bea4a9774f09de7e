//! Tests of groups that go on after they lost their majority for good.

use std::collections::BTreeMap;

use super::trio::Trio;
use super::*;

fn recovering(replica: u64) -> GroupSpec {
    let replica = ReplicaId(replica);
    let members = BTreeMap::from([(replica, ReplicaAddress("survivor".into()))]);
    GroupSpec { group: GROUP, replica, members, formation: Formation::Recover }
}

/// A group whose leader and another one are lost; which node is left, and what it had.
async fn lost(with_snapshot: bool) -> (Trio, usize, Vec<String>) {
    let mut trio = Trio::new(quick()).await;
    let mut written = Vec::new();
    let mut last = (0, 0);
    for number in 0..20 {
        written.push(format!("line {number}"));
        last = trio.propose(&[0, 1, 2], &written[number]).await;
    }
    let left = (last.0 + 1) % 3;
    trio.converge(&[left], last.1).await;
    if with_snapshot {
        for _ in 0..2 {
            trio.group(left).snapshot(&trio.group(left).turn().await).await.unwrap();
        }
    }
    for node in 0..3 {
        trio.kill(node);
    }
    (trio, left, written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_is_left_goes_on_alone_under_a_new_id() {
    for with_snapshot in [false, true] {
        let (mut trio, left, mut written) = lost(with_snapshot).await;
        trio.open(left, recovering(7)).await;
        let group = trio.group(left);
        assert!(group.is_leader() && group.leads_alone());
        let term = group.metrics().term;
        assert!(term > 1_000_000, "others may know a later term than this replica: {term}");
        assert_eq!(group.members().voters.keys().copied().collect::<Vec<_>>(), [ReplicaId(7)]);
        assert_eq!(trio.lines(left), written);
        written.push("after".to_owned());
        trio.propose(&[left], "after").await;
        // It is as any other from then on, and asking again recovers nothing again.
        trio.kill(left);
        trio.open(left, recovering(7)).await;
        assert_eq!(trio.lines(left), written);
        trio.kill(left);
        let members = recovering(7).members;
        let spec = GroupSpec { members, formation: Formation::Existing, ..recovering(7) };
        trio.open(left, spec).await;
        assert_eq!(trio.lines(left), written);
        trio.kill((left + 1) % 3);
        trio.disks[(left + 1) % 3] = FaultFs::new();
        trio.join((left + 1) % 3, 8).await;
        trio.add(left, &[(left + 1) % 3]).await;
        trio.vote(left, &[left, (left + 1) % 3]).await.unwrap();
        let index = trio.group(left).read_index().await.unwrap();
        trio.converge(&[(left + 1) % 3], index).await;
        assert_eq!(trio.lines((left + 1) % 3), written);
    }
}

/// The machine stops after every operation on the disk while the replica is recovered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_stopped_anywhere_can_be_done_again() {
    for stop in 0..12 {
        let (mut trio, left, mut written) = lost(true).await;
        trio.disks[left].stop_after(stop);
        let log = crate::blocking::blocking({
            let disk = trio.disks[left].clone();
            move || {
                let options = fanfold_storage::log::LogOptions {
                    segment_bytes: 2 << 20,
                    salt: 7,
                    ..fanfold_storage::log::LogOptions::default()
                };
                Log::open(Arc::new(disk), std::path::Path::new("/log"), options)
            }
        });
        if let Ok((log, _)) = log.await.unwrap() {
            let transport = Arc::new(InProcessTransport::default());
            let (files, machine) = (memory_directory(&trio.disks[left]), Notebook::default());
            let opened =
                Group::open(log, recovering(7), files.load(GROUP, machine), &trio.settings, transport);
            let _ = tokio::time::timeout(Duration::from_secs(2), opened).await;
        }
        trio.disks[left] = trio.disks[left].lose_power(PowerLoss::LoseAll);
        trio.open(left, recovering(7)).await;
        assert_eq!(trio.lines(left), written, "stopped after {stop} operations");
        written.push("after".to_owned());
        trio.propose(&[left], "after").await;
        assert_eq!(trio.lines(left), written);
    }
}

#[tokio::test]
async fn nothing_is_recovered_from_nothing() {
    let disk = FaultFs::new();
    let transport = Arc::new(InProcessTransport::default());
    let (files, machine) = (memory_directory(&disk), Notebook::default());
    let opened =
        Group::open(open_memory_log(&disk), recovering(7), files.load(GROUP, machine), &quick(), transport)
            .await;
    assert!(matches!(opened, Err(OpenError::Empty { replica: ReplicaId(7) })));
}
