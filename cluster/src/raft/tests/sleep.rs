//! Tests of idle groups, and of leaders whose processes have ended.

use tokio::time::Instant;

use super::trio::Trio;
use super::*;

const ALL: [usize; 3] = [0, 1, 2];

fn node_at(address: &ReplicaAddress) -> usize {
    address.0.strip_prefix("node-").and_then(|number| number.parse::<usize>().ok()).unwrap() - 1
}

/// What pings between these nodes bring about, once; the leaders that somebody finds lost.
fn ping(trio: &Trio, nodes: &[usize]) -> Vec<(usize, ReplicaId)> {
    let mut lost = Vec::new();
    for to in nodes {
        for from in nodes.iter().filter(|from| *from != to) {
            let quiet = trio.group(*from).quiet();
            trio.group(*to).heard_quiet(*from as u64, |address| node_at(address) == *from, quiet);
        }
        let sleeps = |address: &ReplicaAddress, term| {
            let node = nodes.iter().find(|node| **node == node_at(address))?;
            (trio.group(*node).sleeps_in() == Some(term)).then(Instant::now)
        };
        lost.extend(trio.group(*to).look(&sleeps).map(|leader| (*to, leader)));
    }
    lost
}

/// Lets pings go on until all sleep.
async fn asleep(trio: &Trio, nodes: &[usize]) {
    while !nodes.iter().all(|node| trio.group(*node).is_asleep()) {
        assert_eq!(ping(trio, nodes), []);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn others(leader: usize) -> Vec<usize> {
    ALL.into_iter().filter(|node| *node != leader).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_says_nothing_and_wakes_for_a_write() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    asleep(&trio, &ALL).await;
    let (term, sent) = (trio.group(leader).metrics().term, trio.wire.appends());
    let begun = Instant::now();
    while begun.elapsed() < 4 * Duration::from_millis(quick().election_max_ms) {
        assert_eq!(ping(&trio, &ALL), []);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(trio.wire.appends(), sent, "a group that sleeps beats");
    // Long after the last beat the leader is taken for one, by itself and by all.
    let written = trio.group(leader).propose(line("two")).await.unwrap();
    trio.converge(&ALL, written.index).await;
    assert_eq!(trio.group(leader).metrics().term, term);
    assert!(ALL.iter().all(|node| !trio.group(*node).is_asleep()), "entries wake");
    asleep(&trio, &ALL).await;
    trio.group(leader).read_index().await.unwrap();
    assert!(trio.group(leader).is_asleep(), "a read does not wake");
    let to = trio.group(others(leader)[0]).replica();
    trio.group(leader).transfer_leader(to).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sleeps_grants_nothing_while_the_leader_is_heard_of() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    asleep(&trio, &ALL).await;
    let term = trio.group(leader).metrics().term;
    let follower = others(leader)[0];
    let begun = Instant::now();
    while begun.elapsed() < 4 * Duration::from_millis(quick().election_max_ms) {
        // It alone is wrong about the leader, whose last beat is long ago.
        let pings = async {
            loop {
                ping(&trio, &ALL);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = trio.group(follower).succeed(trio.group(leader).replica()) => {}
            () = pings => {}
        }
    }
    assert_eq!(trio.group(leader).metrics().term, term, "an election without need");
    assert!(trio.group(leader).is_leader());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_falls_silent_while_all_sleep_is_succeeded() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    asleep(&trio, &ALL).await;
    trio.isolate(leader, true);
    let left = others(leader);
    let lost = loop {
        let lost = ping(&trio, &left);
        if !lost.is_empty() {
            break lost;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    join_all(lost.iter().map(|(node, leader)| trio.group(*node).succeed(*leader))).await;
    let (successor, index) = trio.propose(&left, "two").await;
    assert_ne!(successor, leader);
    trio.isolate(leader, false);
    trio.converge(&ALL, index).await;
    asleep(&trio, &ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_sleep_keeps_the_leader_awake() {
    let trio = Trio::new(quick()).await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    asleep(&trio, &ALL).await;
    let reached = [leader, others(leader)[0]];
    while trio.group(leader).is_asleep() {
        ping(&trio, &reached);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..50 {
        ping(&trio, &reached);
        assert!(!trio.group(leader).is_asleep());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ended_is_succeeded_before_time_tells() {
    let mut trio = Trio::without_time().await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    let replica = trio.group(leader).replica();
    trio.kill(leader);
    let left = others(leader);
    join_all(left.iter().map(|node| trio.group(*node).succeed(replica))).await;
    let (successor, index) = trio.propose(&left, "two").await;
    assert_ne!(successor, leader);
    trio.converge(&left, index).await;
    assert_eq!(trio.lines(successor), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_wrong_about_its_leader_changes_nothing() {
    let trio = Trio::without_time().await;
    let (leader, index) = trio.propose(&ALL, "one").await;
    trio.converge(&ALL, index).await;
    let term = trio.group(leader).metrics().term;
    trio.group(others(leader)[1]).succeed(trio.group(leader).replica()).await;
    assert_eq!(trio.group(others(leader)[1]).metrics().term, term);
    let written = trio.group(leader).propose(line("two")).await.unwrap();
    trio.converge(&ALL, written.index).await;
    assert_eq!(trio.group(leader).metrics().term, term);
}
