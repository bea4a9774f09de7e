//! Disks that are full, fail or stall under nodes of a cluster (rows 20 to 22).

use fanfold_cluster::{Node, NodeError};
use fanfold_storage::command::{Write, WriteResult};
use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::PartitionId;

use crate::support::*;

/// Three nodes, of which some have disks of their own.
async fn with_disks(own: impl IntoIterator<Item = u64>) -> (Cluster, Vec<FaultFs>) {
    let mut cluster = Cluster::empty(3);
    let disks = own.into_iter().map(|node| {
        let disk = FaultFs::new();
        cluster.set_disk(node, disk.clone());
        disk
    });
    let disks: Vec<_> = disks.collect();
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.whole().await;
    (cluster, disks)
}

/// Whether the log of a node takes nothing for want of room.
fn is_full(cluster: &Cluster, node: u64) -> bool {
    cluster.node(node).status().log.full
}

/// Until the node of the group can say that it cannot be written to.
fn large(number: usize) -> String {
    format!("{number}:{}", "x".repeat(50 << 10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_leads_nothing_and_writes_go_on() {
    let (cluster, disks) = with_disks([2]).await;
    assert!(cluster.any().view().nodes[1].leads > 0);
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 2).await;
    disks[0].set_room_bytes(Some(0));
    // Owners of every partition, so that each group has to get on without the node.
    let owners: Vec<_> = (0..PARTITIONS).map(|partition| user_at(partition, 3)).collect();
    let mut written = 0;
    while !is_full(&cluster, 2) || written < 40 {
        cluster.post(owners[written % owners.len()], &large(written)).await;
        written += 1;
        assert!(written < 600, "its log does not become full");
    }
    cluster.agree("it leads nothing", |view| view.nodes[1].leads == 0).await;
    followed.post(&cluster, 5).await;
    followed.seen(&cluster).await;
    // The other two are a quorum, and one of them alone is none.
    disks[0].set_room_bytes(None);
    cluster.whole().await;
    followed.post(&cluster, 1).await;
    followed.seen(&cluster).await;
}

/// What the leader of a partition says to one attempt of a post.
async fn try_post(
    cluster: &Cluster,
    owner: fanfold_storage::ids::UserId,
    payload: &str,
) -> Result<WriteResult, NodeError> {
    let partition = PartitionId::of_user(owner, PARTITIONS);
    let write = Write::Append { items: vec![entry(owner, payload)] };
    let tag = cluster.tag(partition).await;
    let leader: &std::sync::Arc<Node> = patient(async {
        loop {
            match cluster.leader_of(partition) {
                Some(leader) => return leader,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    })
    .await;
    let written =
        tokio::time::timeout(std::time::Duration::from_secs(20), leader.write(partition, tag, write));
    let written = written.await.expect("it is answered, if only with what nobody knows");
    written.map(|receipt| receipt.result)
}

/// The disks of a majority are full, or of all.
async fn full_disks_refuse(full: &[u64]) {
    let (cluster, disks) = with_disks(full.iter().copied()).await;
    let mut followed = Followed::new(&cluster).await;
    followed.post(&cluster, 2).await;
    followed.seen(&cluster).await;
    disks.iter().for_each(|disk| disk.set_room_bytes(Some(0)));
    let owner = user_at(1, 3);
    let (mut answered, mut unknown, mut refused) = (0, 0, 0);
    while refused < 50 {
        match try_post(&cluster, owner, &large(answered)).await {
            Ok(_) => answered += 1,
            Err(NodeError::DiskFull) => refused += 1,
            Err(error) if error.may_have_applied() => unknown += 1,
            // On the way to a leader that knows.
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        assert!(answered < 200 && unknown < 200, "{answered} answered, {unknown} unknown, {refused} refused");
        if refused > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    // Reads go on, with everything that was answered.
    followed.seen(&cluster).await;
    disks.iter().for_each(|disk| disk.set_room_bytes(None));
    followed.post(&cluster, 3).await;
    followed.seen(&cluster).await;
    cluster.whole().await;
    let timeline = patient(cluster.at_leader(PartitionId::of_user(owner, PARTITIONS), async |node| {
        node.read_timeline(&timeline(owner)).await
    }));
    let shown = timeline.await.unwrap().entries.len();
    assert!(
        shown >= answered && shown <= answered + unknown,
        "{answered} <= {shown} <= {answered} + {unknown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_of_a_majority_refuse_writes_keep_reads_and_recover() {
    full_disks_refuse(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_of_all_refuse_writes_keep_reads_and_recover() {
    full_disks_refuse(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_fsync_fails_ends_the_others_go_on_and_a_restart_is_safe() {
    let (mut cluster, mut disks) = with_disks([2]).await;
    let mut followed = Followed::new(&cluster).await;
    for kept in [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(7)] {
        assert!(cluster.any().view().nodes[1].leads > 0);
        followed.post(&cluster, 2).await;
        disks[0].fail_sync_after(0, kept);
        let failed = cluster.node(2).clone();
        followed.post(&cluster, 3).await;
        let failure = patient(failed.failed()).await;
        assert!(failure.to_string().contains("must end"), "{failure}");
        drop(failed);
        // What the server does.
        cluster.kill(2).await;
        followed.post(&cluster, 3).await;
        disks[0] = disks[0].lose_power(kept);
        cluster.set_disk(2, disks[0].clone());
        cluster.start(2).await;
        cluster.whole().await;
    }
    // Only with it the others can lose one more.
    cluster.kill(3).await;
    followed.post(&cluster, 2).await;
    followed.seen(&cluster).await;
}
