//! Tests of snapshots that go from a leader to a replica.

use fanfold_storage::fs::FileSystem;

use super::super::receive::KEPT_FOR;
use super::trio::Trio;
use super::*;

/// Keeps no log for followers that are behind, so that they need a snapshot.
fn strict() -> RaftSettings {
    RaftSettings { lagging_log_bytes_max: 0, ..quick() }
}

/// Writes lines at the first replica and takes snapshots until its log does not begin at the beginning any more.
async fn compacted(trio: &Trio, lines: usize, bytes: usize) -> Vec<String> {
    let mut written = Vec::new();
    for part in 0..3 {
        for number in 0..lines {
            written.push(format!("{part} {number} {}", "x".repeat(bytes)));
            trio.propose(&[0], written.last().unwrap()).await;
        }
        trio.group(0).snapshot(&trio.group(0).turn().await).await.unwrap();
    }
    purged(trio, 0).await;
    written
}

/// Waits until a replica's log does not begin at the beginning any more.
async fn purged(trio: &Trio, node: usize) {
    let log = &trio.replicas[node].as_ref().unwrap().log;
    while log.group_state(GROUP).unwrap().first < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_filled_by_a_snapshot_that_breaks_while_writes_go_on() {
    let trio = Trio::single(strict(), 2).await;
    let mut written = compacted(&trio, 10, 400 << 10).await;
    // Some chunks go through, then the connection is broken for a while.
    trio.wire.break_after(5, 3);
    let replica = trio.group(1).replica();
    trio.group(0).add_learner(replica, ReplicaAddress("node-2".into())).await.unwrap();
    for number in 0..30 {
        written.push(format!("meanwhile {number}"));
        trio.propose(&[0], written.last().unwrap()).await;
    }
    trio.caught_up(0, 1).await;
    let index = trio.group(0).read_index().await.unwrap();
    trio.converge(&[1], index).await;
    assert_eq!(trio.lines(1), written);
    let sent = trio.group(0).newest_snapshot().unwrap().manifest;
    let (steps, bytes) = trio.wire.steps();
    assert!(steps > 10, "{steps} messages");
    let once = sent.bucket_bytes() as usize;
    assert!(bytes > once && bytes < once + once / 10, "{bytes} bytes of {once}: it went on where it broke");
    assert!(trio.group(1).newest_snapshot().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_far_behind_gets_a_snapshot_beside_its_own_files() {
    let mut trio = Trio::new(strict()).await;
    let (leader, index) = trio.propose(&[0, 1, 2], "one").await;
    let (behind, other) = ((leader + 1) % 3, (leader + 2) % 3);
    trio.converge(&[behind], index).await;
    trio.group(behind).snapshot(&trio.group(behind).turn().await).await.unwrap();
    trio.isolate(behind, true);
    let mut written = vec!["one".to_owned()];
    for part in 0..3 {
        for number in 0..15 {
            written.push(format!("{part} {number}"));
            trio.propose(&[leader], written.last().unwrap()).await;
        }
        trio.group(leader).snapshot(&trio.group(leader).turn().await).await.unwrap();
    }
    purged(&trio, leader).await;
    trio.isolate(behind, false);
    trio.caught_up(leader, behind).await;
    let (_, index) = trio.propose(&[leader], "last").await;
    written.push("last".to_owned());
    trio.converge(&[behind, other], index).await;
    for node in 0..3 {
        assert_eq!(trio.lines(node), written);
    }
    // What was installed is what a restart begins with.
    trio.kill(behind);
    trio.start(behind, Formation::Existing).await;
    trio.group(behind).recovered(Duration::from_secs(20)).await.unwrap();
    trio.converge(&[behind], index).await;
    assert_eq!(trio.lines(behind), written);
}

/// A follower within the bound keeps the log that it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_waits_for_a_follower_that_is_a_little_behind() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&[0, 1, 2], "one").await;
    let behind = (leader + 1) % 3;
    trio.converge(&[behind], index).await;
    trio.caught_up(leader, behind).await;
    trio.isolate(behind, true);
    for part in 0..3 {
        for number in 0..5 {
            trio.propose(&[leader], &format!("{part} {number}")).await;
        }
        trio.group(leader).snapshot(&trio.group(leader).turn().await).await.unwrap();
    }
    // openraft itself keeps what it is just trying to send, but not what comes before the next attempt.
    let snapshot = trio.group(leader).newest_snapshot().unwrap().manifest.index;
    assert_eq!(trio.group(leader).purgeable(snapshot, u64::MAX), Some(index));
    assert_eq!(trio.group(leader).purgeable(snapshot, 0), Some(snapshot), "the bound");
    let address = trio.group(leader).members().voters[&trio.group(behind).replica()].clone();
    assert_eq!(trio.group(leader).log_kept_for(), Some(address));
    let other = trio.group((leader + 2) % 3);
    for _ in 0..2 {
        other.snapshot(&other.turn().await).await.unwrap();
    }
    assert_eq!((other.kept_snapshots().len(), other.log_kept_for()), (2, None), "who follows does not know");
    trio.isolate(behind, false);
    let (_, last) = trio.propose(&[leader], "last").await;
    trio.converge(&[behind], last).await;
    trio.caught_up(leader, behind).await;
    assert_eq!(trio.group(leader).log_kept_for(), None);
    assert_eq!(trio.wire.steps().0, 0, "no snapshot was needed");
}

#[tokio::test]
async fn what_was_received_goes_once_its_sender_was_not_heard_for_long() {
    let mut trio = Trio::single(strict(), 2).await;
    compacted(&trio, 10, 400 << 10).await;
    trio.wire.break_after(5, usize::MAX);
    let replica = trio.group(1).replica();
    trio.group(0).add_learner(replica, ReplicaAddress("node-2".into())).await.unwrap();
    let received = || {
        let names = trio.disks[1].list(std::path::Path::new("/groups/0003")).unwrap();
        names.into_iter().filter(|name| name.split_once('.').is_some_and(|(_, kind)| kind == "new")).count()
    };
    while trio.wire.steps().0 < 5 || received() == 0 {
        tokio::task::yield_now().await;
    }
    for (waited, is_kept) in [(KEPT_FOR / 2, true), (KEPT_FOR / 2, false)] {
        tokio::time::pause();
        tokio::time::advance(waited).await;
        tokio::time::resume();
        let gone = async {
            while received() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let within = Duration::from_millis(if is_kept { 200 } else { 60_000 });
        assert_eq!(tokio::time::timeout(within, gone).await.is_err(), is_kept);
    }
    trio.kill(0);
}

/// The receiver's machine stops after every operation on its disk while it is sent a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_stopped_anywhere_has_its_old_state_or_the_new_one() {
    let mut operations = None;
    let mut stop = 0;
    while operations.is_none_or(|operations| stop < operations) {
        let mut trio = Trio::single(strict(), 2).await;
        let mut written = compacted(&trio, 4, 40).await;
        let before = trio.disks[1].operations();
        if operations.is_some() {
            trio.disks[1].stop_after(stop);
        }
        let replica = trio.group(1).replica();
        trio.group(0).add_learner(replica, ReplicaAddress("node-2".into())).await.unwrap();
        if operations.is_none() {
            trio.caught_up(0, 1).await;
            operations = Some(trio.disks[1].operations() - before);
            continue;
        }
        // Either it stops, or what is left to do was done before it could.
        let caught_up = tokio::time::timeout(Duration::from_secs(5), async {
            tokio::select! {
                () = trio.caught_up(0, 1) => {}
                () = trio.disk_stopped(1) => {}
            }
        });
        caught_up.await.unwrap();
        let loss = [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)][stop as usize % 3];
        trio.disks[1] = trio.disks[1].lose_power(loss);
        trio.replicas[1] = None;
        trio.join(1, 2).await;
        let lines = trio.lines(1);
        assert!(written.starts_with(&lines), "stopped after {stop} operations: {lines:?}");
        written.push("last".to_owned());
        trio.propose(&[0], "last").await;
        trio.caught_up(0, 1).await;
        let index = trio.group(0).read_index().await.unwrap();
        trio.converge(&[1], index).await;
        assert_eq!(trio.lines(1), written, "stopped after {stop} operations");
        stop += 1;
    }
    assert!(stop > 10, "{stop}");
}
