//! Tests of changes of the members and of the leader.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::trio::Trio;
use super::*;

fn ids(members: &std::collections::BTreeMap<ReplicaId, ReplicaAddress>) -> Vec<u64> {
    members.keys().map(|replica| replica.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_to_three_and_shrinks_to_one() {
    let trio = Trio::single(quick(), 3).await;
    let mut written = vec!["alone".to_owned()];
    trio.propose(&[0], "alone").await;
    assert!(trio.group(0).leads_alone());
    trio.add(0, &[1, 2]).await;
    let members = trio.group(0).members();
    assert_eq!((ids(&members.voters), ids(&members.learners)), (vec![1], vec![2, 3]));
    assert!(!trio.group(0).leads_alone(), "there are others");
    trio.vote(0, &[0, 1, 2]).await.unwrap();
    let members = trio.group(0).members();
    assert_eq!((ids(&members.voters), members.learners.len(), members.is_joint), (vec![1, 2, 3], 0, false));
    for number in 0..20 {
        written.push(format!("three {number}"));
        trio.propose(&[0], &written[number + 1]).await;
    }
    let index = trio.group(0).read_index().await.unwrap();
    trio.converge(&[0, 1, 2], index).await;
    for node in 0..3 {
        assert_eq!(trio.lines(node), written);
    }
    trio.vote(0, &[0]).await.unwrap();
    let members = trio.group(0).members();
    assert_eq!((ids(&members.voters), members.learners.len()), (vec![1], 0), "who was dropped has left");
    while !trio.group(0).leads_alone() {
        tokio::task::yield_now().await;
    }
    written.push("alone again".to_owned());
    trio.propose(&[0], "alone again").await;
    assert_eq!(trio.lines(0), written);
    let refused = trio.group(0).change_voters(BTreeSet::new()).await;
    assert_eq!(refused, Err(ChangeError::LastVoter));
    assert_eq!(trio.group(0).remove_learner(ReplicaId(1)).await, Err(ChangeError::LastVoter));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_made_are_refused_and_change_nothing() {
    let mut trio = Trio::single(quick(), 3).await;
    trio.propose(&[0], "one").await;
    let stranger = trio.vote(0, &[0, 1]).await;
    assert_eq!(stranger, Err(ChangeError::NotMember { replica: ReplicaId(2) }));
    trio.add(0, &[1]).await;
    let follower = trio.group(1).add_learner(ReplicaId(3), ReplicaAddress::default()).await;
    let Err(ChangeError::NotLeader { hint }) = follower else { panic!("{follower:?}") };
    assert_eq!(hint.map(|hint| hint.replica), Some(ReplicaId(1)));
    // The third is a member that nobody has ever reached.
    trio.replicas[2] = None;
    trio.group(0).add_learner(ReplicaId(3), ReplicaAddress::default()).await.unwrap();
    let lost = trio.group(0).change_voters([ReplicaId(2), ReplicaId(3)].into()).await;
    assert_eq!(lost, Err(ChangeError::WouldLoseQuorum { ready: 1, needed: 2 }));
    let silent = trio.group(0).transfer_leader(ReplicaId(3)).await;
    assert_eq!(silent, Err(ChangeError::NotMember { replica: ReplicaId(3) }), "only a voter can lead");
    let members = trio.group(0).members();
    assert_eq!((ids(&members.voters), ids(&members.learners)), (vec![1], vec![2, 3]));
    trio.group(0).remove_learner(ReplicaId(3)).await.unwrap();
    trio.group(0).remove_learner(ReplicaId(3)).await.unwrap();
    trio.vote(0, &[0, 1]).await.unwrap();
    assert_eq!(
        trio.group(0).remove_learner(ReplicaId(2)).await,
        Err(ChangeError::Votes { replica: ReplicaId(2) })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_answered_before_its_connections_were_begun_anew_does_not_count() {
    let trio = Trio::without_time().await;
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let (lost, left) = (trio.group(others[0]).replica(), trio.group(others[1]).replica());
    let group = trio.group(leader);
    let near = async |replica: ReplicaId| {
        while !group.is_near(replica) {
            tokio::task::yield_now().await;
        }
    };
    near(lost).await;
    near(left).await;
    // From now on nothing new is answered, and what was answered is younger than any silence that counts.
    trio.wire.cut_appends(leader, others[0]);
    assert!(group.is_ready(lost));
    for _ in 0..100 {
        trio.wire.connect_anew(others[0]);
        if !group.is_ready(lost) {
            break;
        }
        // A message that was on its way when they were cut is answered once.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!group.is_ready(lost), "another process may be there");
    assert!(!group.is_near(lost));
    assert!(group.is_ready(left));
    trio.wire.heal_appends();
    let answers = async {
        while !group.is_ready(lost) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answers).await.expect("it answers again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_is_handed_over_under_load_and_nothing_is_lost() {
    let trio = Arc::new(Trio::new(quick()).await);
    let (first, _) = trio.propose(&[0, 1, 2], "begin").await;
    let writing = tokio::spawn({
        let trio = trio.clone();
        async move {
            let mut last = 0;
            for number in 0..200 {
                last = trio.propose(&[0, 1, 2], &format!("line {number}")).await.1;
            }
            last
        }
    });
    let mut leader = first;
    for _ in 0..3 {
        let to = (leader + 1) % 3;
        loop {
            let replica = trio.group(to).replica();
            leader = trio.leader(&[0, 1, 2]).await;
            if leader == to || trio.group(leader).transfer_leader(replica).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        leader = trio.leader(&[0, 1, 2]).await;
    }
    let last = writing.await.unwrap();
    trio.converge(&[0, 1, 2], last).await;
    let expected: Vec<String> =
        std::iter::once("begin".to_owned()).chain((0..200).map(|n| format!("line {n}"))).collect();
    for node in 0..3 {
        assert_eq!(trio.lines(node), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced_by_another() {
    let mut trio = Trio::new(quick()).await;
    trio.disks.push(FaultFs::new());
    trio.replicas.push(None);
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let gone = (leader + 1) % 3;
    trio.kill(gone);
    trio.join(3, 4).await;
    trio.add(leader, &[3]).await;
    let stay: Vec<usize> = (0..4).filter(|node| *node != gone).collect();
    trio.vote(leader, &stay).await.unwrap();
    let (_, index) = trio.propose(&stay, "two").await;
    trio.converge(&stay, index).await;
    for node in &stay {
        assert_eq!(trio.lines(*node), ["one", "two"]);
        assert!(!trio.group(*node).members().contains(ReplicaId(gone as u64 + 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_steps_down_and_another_goes_on() {
    let trio = Trio::new(quick()).await;
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    for node in &others {
        trio.caught_up(leader, *node).await;
    }
    trio.vote(leader, &others).await.unwrap();
    let (successor, index) = trio.propose(&others, "two").await;
    assert!(others.contains(&successor));
    trio.converge(&others, index).await;
    assert_eq!(trio.group(successor).members().voters.len(), 2);
}

/// One that leads alone answers reads by itself; as soon as another may lead it must ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_a_former_sole_voter_is_answered_after_somebody_else_may_lead() {
    let trio = Trio::single(quick(), 3).await;
    trio.propose(&[0], "old").await;
    assert!(trio.group(0).leads_alone());
    trio.add(0, &[1, 2]).await;
    trio.vote(0, &[0, 1, 2]).await.unwrap();
    // From here on the others can elect a leader without the first.
    trio.isolate(0, true);
    let (successor, _) = trio.propose(&[1, 2], "new").await;
    assert_ne!(successor, 0);
    let read = trio.group(0).read_index().await;
    assert!(read.is_err(), "{read:?} without {:?}", trio.lines(1));
    assert!(!trio.group(0).leads_alone());
}

/// Whoever becomes the sole voter as a follower leads, once its clock has run out, and is alone then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_is_left_leads_alone() {
    let trio = Trio::new(quick()).await;
    let (leader, _) = trio.propose(&[0, 1, 2], "one").await;
    let left = (leader + 1) % 3;
    trio.caught_up(leader, left).await;
    trio.vote(leader, &[left]).await.unwrap();
    trio.propose(&[left], "two").await;
    while !trio.group(left).leads_alone() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(trio.lines(left), ["one", "two"]);
}

/// The leader dies when the others have heard of the first half of a change, and not of the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_leader_dies_in_the_middle_is_finished_by_the_next() {
    for grows in [false, true] {
        let mut trio = Trio::new(quick()).await;
        for replica in [4, 5] {
            trio.disks.push(FaultFs::new());
            trio.replicas.push(None);
            trio.join(replica - 1, replica as u64).await;
        }
        let (leader, _) = trio.propose(&[0, 1, 2], "before").await;
        trio.add(leader, &[3, 4]).await;
        let stay: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        // One leaves and one comes, or two come; the one that dies is out, or still in.
        let wanted: Vec<usize> = if grows { vec![0, 1, 2, 3, 4] } else { vec![stay[0], stay[1], 3] };
        let voters: BTreeSet<ReplicaId> = wanted.iter().map(|node| trio.group(*node).replica()).collect();
        trio.wire.delay_appends(Duration::from_millis(30));
        let changing = tokio::spawn({
            let (group, voters) = (trio.group(leader).clone(), voters.clone());
            async move { group.change_voters(voters).await }
        });
        while !trio.group(stay[0]).members().is_joint {
            tokio::task::yield_now().await;
        }
        trio.isolate(leader, true);
        trio.kill(leader);
        changing.abort();
        assert!(trio.group(stay[0]).members().is_joint);
        trio.wire.delay_appends(Duration::ZERO);
        let left: Vec<usize> = (0..5).filter(|node| *node != leader).collect();
        let (next, _) = trio.propose(&left, "in between").await;
        assert!(trio.group(next).members().is_joint, "nobody finishes it by itself");
        for node in wanted.iter().filter(|node| **node != leader) {
            trio.caught_up(next, *node).await;
        }
        trio.group(next).change_voters(voters.clone()).await.unwrap();
        let members = trio.group(next).members();
        assert!(!members.is_joint && members.voters.keys().eq(&voters), "{members:?}");
        let (_, index) = trio.propose(&left, "after").await;
        let here: Vec<usize> = wanted.into_iter().filter(|node| *node != leader).collect();
        trio.converge(&here, index).await;
        for node in here {
            assert_eq!(trio.lines(node), ["before", "in between", "after"]);
        }
    }
}

/// Proposes until it is over: whoever does not lead names the one that does, or has not published yet that it was elected. How often
/// one was named, and how many lines were written.
async fn write(trio: &Trio, is_over: &AtomicBool) -> (usize, usize) {
    let (mut at, mut refusals, mut lines) = (trio.leader(&[0, 1, 2]).await, 0, 0);
    while !is_over.load(Ordering::Relaxed) {
        match trio.group(at).propose(line("a line")).await {
            Ok(_) => lines += 1,
            Err(ProposeError::NotLeader { hint: Some(hint) }) => {
                (at, refusals) = (hint.replica.0 as usize - 1, refusals + 1);
            }
            Err(ProposeError::NotLeader { hint: None }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
    (refusals, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proposes_during_a_hand_over_is_sent_to_the_new_leader_once_and_loses_nothing() {
    let (trio, is_over) = (Arc::new(Trio::without_time().await), Arc::new(AtomicBool::new(false)));
    trio.propose(&[0, 1, 2], "begin").await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (trio, is_over) = (trio.clone(), is_over.clone());
            tokio::spawn(async move { write(&trio, &is_over).await })
        })
        .collect();
    let mut hand_overs = 0;
    for _ in 0..6 {
        let leader = trio.leader(&[0, 1, 2]).await;
        let to = trio.group((leader + 1) % 3).replica();
        // It is what was just elected, and the others may not have answered yet.
        while trio.group(leader).transfer_leader(to).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hand_overs += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        let (refusals, lines) = writer.await.unwrap();
        assert!(refusals <= hand_overs, "{refusals} refusals for {hand_overs} hand-overs");
        assert!(lines > 0);
    }
}
