//! Tests of three voters with failures.

use super::trio::Trio;
use super::*;
use crate::proposer::{BATCH_COMMANDS_MAX, CommandResult, IN_FLIGHT_MAX, Proposer};

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

/// What is proposed at a leader that has just been cut off.
async fn cut_off(trio: &Trio) -> (usize, InFlight<Vec<usize>>) {
    let (leader, index) = trio.propose(&[0, 1, 2], "one").await;
    trio.converge(&[0, 1, 2], index).await;
    trio.isolate(leader, true);
    (leader, trio.group(leader).submit(line("two")).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_answers_before_its_successor_reaches_it() {
    let trio = Trio::new(quick()).await;
    let (leader, mut writing) = cut_off(&trio).await;
    // It must not wait for this.
    writing.reign.election = Duration::from_secs(3_600);
    let others: Vec<usize> = (0..3).filter(|replica| *replica != leader).collect();
    let successor = trio.leader(&others).await;
    trio.wire.cut_appends(successor, leader);
    trio.isolate(leader, false);
    let lost = tokio::time::timeout(Duration::from_secs(60), writing.wait()).await.unwrap();
    assert_eq!(lost, Err(ProposeError::Lost { hint: None }));
    assert_eq!(trio.group(leader).watch_leadership().led(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_though_it_does_not_know() {
    let trio = Trio::new(quick()).await;
    let (leader, writing) = cut_off(&trio).await;
    let lost = tokio::time::timeout(Duration::from_secs(60), writing.wait()).await.unwrap();
    assert_eq!(lost, Err(ProposeError::Lost { hint: None }));
    assert!(trio.group(leader).is_leader(), "nobody told it otherwise");
    let refused = trio.group(leader).propose(line("three")).await.unwrap_err();
    assert!(!refused.may_have_applied(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_at_a_leader_that_is_cut_off_are_lost_only_if_raft_has_them() {
    let trio = Trio::new(quick()).await;
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let stamps = crate::clock::Stamps::new(Arc::new(crate::clock::SystemClock::new()), 0);
    let group = trio.group(leader).clone();
    let proposer = Proposer::spawn(group, encode_batch, stamps, Box::new(|_| Vec::new()));
    trio.isolate(leader, true);
    let commands = 2 * IN_FLIGHT_MAX * BATCH_COMMANDS_MAX;
    let answers: Vec<_> =
        (0..commands).map(|_| proposer.submit(Bytes::from_static(b"two")).unwrap()).collect();
    let answers = join_all(answers.into_iter().map(crate::proposer::Answer::wait));
    let answers = tokio::time::timeout(Duration::from_secs(60), answers).await.unwrap();
    let is_lost = |answer: &&CommandResult<_>| answer.as_ref().unwrap_err().may_have_applied();
    let lost = answers.iter().take_while(is_lost).count();
    // A batch takes what has gathered, so how many commands Raft has is not fixed; that they are the first is.
    assert!(lost > 0 && lost <= IN_FLIGHT_MAX * BATCH_COMMANDS_MAX, "{lost} of {commands}");
    for answer in &answers[lost..] {
        assert!(matches!(answer, Err(ProposeError::NotLeader { .. })), "only queued, and not simply refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_its_quorum_waits_for_a_slow_disk() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&[0, 1, 2], "one").await;
    trio.converge(&[0, 1, 2], index).await;
    trio.disks[leader].hold_syncs(true);
    let writing = trio.group(leader).submit(line("two")).await.unwrap();
    tokio::time::sleep(6 * Duration::from_millis(quick().election_max_ms)).await;
    trio.disks[leader].hold_syncs(false);
    writing.wait().await.unwrap();
}

/// A follower whose log is full, and whose Raft waits for room.
async fn without_room(trio: &Trio) -> usize {
    let wide = "x".repeat(100 << 10);
    let (leader, mut index) = trio.propose(&[0, 1, 2], "one").await;
    let node = (leader + 1) % 3;
    // Whoever of the others leads while it fills up.
    trio.group(node).let_campaign(false);
    let others = [leader, (node + 1) % 3];
    let disk = &trio.disks[node];
    for _ in 0..12 {
        index = trio.propose(&others, &wide).await.1;
    }
    trio.group(node).wait_applied(index).await.unwrap();
    disk.set_room_bytes(Some(0));
    let log = &trio.replicas[node].as_ref().unwrap().log;
    while log.accepts_appends() {
        index = trio.propose(&others, &wide).await.1;
    }
    for _ in 0..8 {
        index = trio.propose(&others, &wide).await.1;
    }
    let last = log.group_state(GROUP).unwrap().last;
    assert!(last < Some(index), "what does not fit waits");
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_lets_its_log_go() {
    let trio = Trio::new(quick()).await;
    let node = without_room(&trio).await;
    let first = || trio.replicas[node].as_ref().unwrap().log.group_state(GROUP).unwrap().first;
    let (before, applied) = (first(), trio.group(node).applied_index());
    trio.group(node).let_go_if_full(applied);
    assert!(first() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_votes_and_catches_up_when_there_is_some() {
    let mut trio = Trio::new(quick()).await;
    let node = without_room(&trio).await;
    let leader = trio.leader(&[0, 1, 2]).await;
    let other = (0..3).find(|number| ![node, leader].contains(number)).unwrap();
    trio.group(node).let_campaign(false);
    trio.kill(leader);
    let elected = tokio::time::timeout(Duration::from_secs(20), trio.leader(&[other])).await;
    assert_eq!(elected, Ok(other), "it gave its vote");
    trio.disks[node].set_room_bytes(None);
    let (_, index) = trio.propose(&[other], "two").await;
    trio.converge(&[node, other], index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_can_be_stopped() {
    let trio = Trio::new(quick()).await;
    let node = without_room(&trio).await;
    tokio::time::timeout(Duration::from_secs(10), trio.group(node).shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_makes_some_while_it_is_sent_a_snapshot() {
    let trio = Trio::apart(RaftSettings { lagging_log_bytes_max: 0, ..quick() }).await;
    let node = without_room(&trio).await;
    let others = [(node + 1) % 3, (node + 2) % 3];
    // Whatever came of the first, it was answered when there is a second.
    while trio.wire.installs() < 2 {
        // What the follower would need next is not in the log of whoever leads any more.
        let (leader, _) = trio.propose(&others, "more").await;
        trio.group(leader).snapshot(&trio.group(leader).turn().await).await.unwrap();
    }
    let turn = tokio::time::timeout(Duration::from_secs(20), trio.group(node).turn()).await;
    let turn = turn.expect("whoever makes room comes to his turn");
    trio.group(node).snapshot_keeping(&turn, 0).await.unwrap();
    trio.group(node).snapshot_keeping(&turn, 0).await.unwrap();
    drop(turn);
    let (_, index) = trio.propose(&others, "last").await;
    let caught_up = tokio::time::timeout(Duration::from_secs(60), trio.group(node).wait_applied(index)).await;
    caught_up.unwrap().unwrap();
}
