//! A node of several that is over its memory budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_cluster::{NodeError, NodeOptions, Resident, ResidentSize};
use fanfold_storage::command::Write;
use fanfold_storage::ids::{EntryId, PartitionId};

use crate::support::*;

/// The node with a budget, and the budget.
const SHORT: u64 = 2;
const BUDGET: u64 = 64 << 20;

/// The resident size of that node, in each of the tests.
static SIZE: AtomicU64 = AtomicU64::new(0);
static FOLLOWING: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct SetSize(&'static AtomicU64);

impl ResidentSize for SetSize {
    fn now(&self) -> Option<Resident> {
        Some(Resident { bytes: self.0.load(Ordering::Relaxed), mapped_bytes: 0 })
    }
}

/// Gives one of the nodes the budget.
fn make_short(options: &mut NodeOptions, size: &'static AtomicU64) {
    if options.advertise.ends_with(&format!(":{}", 20_000 + SHORT)) {
        (options.memory_bytes, options.resident) = (BUDGET, Arc::new(SetSize(size)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_its_budget_refuses_where_it_leads_and_follows_everywhere() {
    let cluster = Cluster::changed(3, 3, |options| make_short(options, &SIZE)).await;
    let is_over = |wanted: bool| {
        move |view: &fanfold_cluster::ClusterView| {
            view.nodes.iter().all(|node| node.is_over_memory == (wanted && node.node == SHORT))
        }
    };
    cluster.agree("nobody is over a budget", is_over(false)).await;
    SIZE.store(2 * BUDGET, Ordering::Relaxed);
    cluster.agree("all know who is over its budget", is_over(true)).await;
    let short = cluster.node(SHORT);
    let status = || short.status();
    patient(async {
        while !status().memory.unwrap().refuses_writes {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let (mut refused, mut followed) = (0, 0);
    for partition in (0..PARTITIONS).map(PartitionId) {
        let owner = user_at(partition.0, 3);
        let leads = status().partitions.iter().any(|here| here.partition == partition && here.is_leader);
        let tag = cluster.tag(partition).await;
        let write = Write::Append { items: vec![entry(owner, "hello")] };
        let answer = short.write(partition, tag, write).await;
        if leads {
            assert_eq!(answer.unwrap_err(), NodeError::MemoryFull);
            refused += 1;
        } else {
            // Whoever leads is asked next.
            assert!(matches!(answer, Err(NodeError::NotLeader { .. })), "{answer:?}");
            cluster.post(owner, "hello").await;
            let posted = |here: &fanfold_cluster::status::PartitionStatus| {
                here.partition == partition && here.usage.entries > 0
            };
            patient(async {
                while !status().partitions.iter().any(posted) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            })
            .await;
            followed += 1;
        }
    }
    assert!(refused > 0 && followed > 0, "{refused} refused, {followed} followed");
    SIZE.store(BUDGET / 2, Ordering::Relaxed);
    cluster.agree("nobody is over a budget any more", is_over(false)).await;
    for partition in 0..PARTITIONS {
        cluster.post(user_at(partition, 3), "again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_give_way_at_a_replica_that_does_not_lead() {
    let cluster = Cluster::changed(3, 3, |options| make_short(options, &FOLLOWING)).await;
    let short = cluster.node(SHORT);
    let status = || short.status().partitions;
    let follows = |here: &fanfold_cluster::status::PartitionStatus| !here.is_leader;
    let partition = status().into_iter().find(follows).expect("it cannot lead all").partition;
    let (owner, reader) = (user_at(partition.0, 3), user_at(partition.0, 4));
    cluster.follow(reader, owner).await;
    let kept = 4_096;
    let mut posted: Vec<EntryId> = Vec::new();
    while posted.len() < kept + 500 {
        let items: Vec<_> = (0..250).map(|n| entry(owner, &format!("post {n}"))).collect();
        posted.extend(all_made_by(&cluster.write(owner, Write::Append { items }).await));
    }
    let rows = || {
        let here = status().into_iter().find(|here| here.partition == partition);
        here.expect("it has a replica").usage.rows as usize
    };
    let becomes = async |wanted: usize| {
        patient(async {
            while rows() != wanted {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    };
    becomes(posted.len()).await;
    // Over the budget, and not so far that it refuses anything.
    FOLLOWING.store(BUDGET + BUDGET / 20, Ordering::Relaxed);
    becomes(kept).await;
    FOLLOWING.store(BUDGET / 2, Ordering::Relaxed);
    posted.reverse();
    posted.truncate(100);
    cluster.sees(reader, &posted).await;
}
