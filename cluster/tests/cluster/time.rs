//! Time passes before it is read, and is one at all replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_cluster::clock::{Clock, SystemClock};
use fanfold_storage::command::{AppendResult, Ttl, Write, WriteResult};
use fanfold_storage::ids::{PartitionId, UserId};

use crate::support::*;

/// The system's clocks, both ahead by what a test says. Nobody is told when that changes.
#[derive(Debug, Clone, Default)]
struct AheadClock(Arc<(SystemClock, AtomicU64)>);

impl AheadClock {
    fn advance(&self, by_ms: u64) {
        self.0.1.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for AheadClock {
    fn wall_unix_ms(&self) -> i64 {
        self.0.0.wall_unix_ms() + self.0.1.load(Ordering::SeqCst) as i64
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.0.monotonic_ms() + self.0.1.load(Ordering::SeqCst)
    }
}

const TTL_MS: u64 = 20_000;

async fn post_for_a_while(cluster: &Cluster, owner: UserId) {
    let mut item = entry(owner, "for a while");
    item.ttl = Ttl::Ms { ttl_ms: TTL_MS };
    let receipt = cluster.write(owner, Write::Append { items: vec![item] }).await;
    let WriteResult::Appended { items } = receipt.result else { panic!("{receipt:?}") };
    assert!(matches!(items[..], [AppendResult::Made { .. }]), "{items:?}");
}

/// How many entries the leader shows.
async fn shown(cluster: &Cluster, owner: UserId) -> usize {
    let partition = PartitionId::of_user(owner, PARTITIONS);
    let page =
        cluster.at_leader(partition, async |node| node.read_timeline(&timeline(owner)).await).await.unwrap();
    page.entries.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_while_nobody_looked_is_not_read() {
    let (mut cluster, clock) = (Cluster::empty(3), AheadClock::default());
    for node in 1..=3 {
        cluster.place(node);
        cluster.set_clock(node, clock.clone());
        cluster.start(node).await;
    }
    cluster.whole().await;
    let owner = user_at(0, 0);
    for _ in 0..3 {
        post_for_a_while(&cluster, owner).await;
        assert_eq!(shown(&cluster, owner).await, 1);
        // No timer runs out now; the first that looks is a read.
        clock.advance(TTL_MS + 5_000);
        assert_eq!(shown(&cluster, owner).await, 0);
        cluster.agree("clocks were compared again", |view| view.nodes.iter().all(|n| !n.is_clock_off)).await;
    }
}
