//! A node of several that is over its memory budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_cluster::{NodeError, Resident, ResidentSize};
use fanfold_storage::command::Write;
use fanfold_storage::ids::PartitionId;

use crate::support::*;

/// The node with a budget, and the budget.
const SHORT: u64 = 2;
const BUDGET: u64 = 64 << 20;

/// The resident size of that node.
static SIZE: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct SetSize;

impl ResidentSize for SetSize {
    fn now(&self) -> Option<Resident> {
        Some(Resident { bytes: SIZE.load(Ordering::Relaxed), mapped_bytes: 0 })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_its_budget_refuses_where_it_leads_and_follows_everywhere() {
    let cluster = Cluster::changed(3, 3, |options| {
        if options.advertise.ends_with(&format!(":{}", 20_000 + SHORT)) {
            (options.memory_bytes, options.resident) = (BUDGET, Arc::new(SetSize));
        }
    })
    .await;
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
