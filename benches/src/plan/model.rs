//! Owns the arithmetic of a plan: from what is asked and what things cost to partitions, nodes, memory and disk.
//!
//! - Nothing here was measured at that size: the figures are those of small clusters, added up.
//! - A replica lies on one node as a whole and is applied by one thread; both bound how few partitions there may be, as does
//!   how large a partition may be that has to be moved and restarted. Reads go to leaders.
//! - The busiest node counts: replicas and leaders are spread as evenly as whole ones can be.
//! - Of all numbers of partitions that are possible, the one that needs the fewest nodes is taken, and of those the smallest.

use serde::Serialize;

use super::costs::{Costs, page_homes};

/// What a node holds besides partitions: its log, tables and buffers.
pub const NODE_BASE_BYTES: f64 = 2.0 * GIB;
/// Bytes that an entry takes on disk besides its payload, once in a segment and in the merges that are under way.
pub const ENTRY_DISK_BYTES: f64 = 64.0;
/// Log that a node keeps at most, with the next segments.
pub const LOG_DISK_BYTES: f64 = 4.0 * GIB;
/// Snapshots of a partition on disk: two whole ones, and one that is being written.
const SNAPSHOTS: f64 = 3.0;
/// Most partitions of a cluster.
const PARTITIONS_MAX: u32 = 4_096;

/// Bytes of a GiB.
pub const GIB: f64 = (1u64 << 30) as f64;
const DAY_SECONDS: f64 = 86_400.0;

/// What is asked of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Demand {
    /// Users whose feeds are held.
    pub users: f64,
    /// Owners that a user follows, which is also how many followers an owner has on average.
    pub follows: f64,
    /// Posts a day.
    pub posts_a_day: f64,
    /// Pages read a day.
    pub reads_a_day: f64,
    /// Posts a second at peak.
    pub posts_peak: f64,
    /// Pages a second at peak.
    pub reads_peak: f64,
    /// Whether pages bring payloads.
    pub hydrated: bool,
    /// Entries that a feed keeps.
    pub feed_entries: f64,
    /// Bytes of a payload.
    pub payload_bytes: f64,
    /// Days that entries are kept.
    pub keep_days: f64,
    /// Days whose payloads are to be read from memory.
    pub hot_days: f64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machine {
    /// Cores like those that were measured.
    pub cores: f64,
    /// Main memory in bytes.
    pub memory_bytes: f64,
    /// Disk in bytes.
    pub disk_bytes: f64,
    /// The largest partition in bytes of memory: it is moved, and read at a start, as a whole.
    pub partition_bytes: f64,
    /// How much of its cores may be busy at peak.
    pub cores_share: f64,
    /// How much of its memory may be used.
    pub memory_share: f64,
    /// How much of its disk may be used.
    pub disk_share: f64,
}

/// What the cluster has to do and hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Replicas of each partition.
    pub replicas: u32,
    /// Partitions.
    pub partitions: u32,
    /// Nodes.
    pub nodes: u32,
    /// Nodes that the processors, the memory and the disks alone would need, in this order.
    pub nodes_by: NodesBy,
    /// Partitions that a post reaches on average.
    pub partitions_reached: f64,
    /// Deliveries a second at peak.
    pub deliveries_peak: f64,
    /// Cores at peak, of all nodes.
    pub cores: Cores,
    /// The share of a core that the busiest thread of a partition needs at peak.
    pub partition_core_share: f64,
    /// Memory of all replicas, in bytes.
    pub memory: Memory,
    /// Disk of all replicas, in bytes.
    pub disk: Disk,
    /// Log written a second at peak by one node, in bytes.
    pub node_log_bytes_peak: f64,
    /// What a node sends to other nodes a second at peak, in bytes.
    pub node_peer_bytes_peak: f64,
    /// Core seconds of a day, of all nodes.
    pub core_seconds_a_day: f64,
}

/// Nodes by what limits them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NodesBy {
    /// Processors.
    pub cores: u32,
    /// Main memory.
    pub memory: u32,
    /// Disk.
    pub disk: u32,
}

/// Cores, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cores {
    /// Posts and their deliveries.
    pub posts: f64,
    /// Reads.
    pub reads: f64,
}

/// Bytes in memory, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Feeds and the rows they refer to.
    pub feeds: f64,
    /// Edges in both directions.
    pub edges: f64,
    /// Recent payloads, where their partitions are led.
    pub payloads: f64,
    /// What each node needs anyway.
    pub base: f64,
}

/// Bytes on disk, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Disk {
    /// Entries.
    pub entries: f64,
    /// Snapshots.
    pub snapshots: f64,
    /// Logs.
    pub logs: f64,
}

impl Memory {
    /// Everything.
    pub fn sum(&self) -> f64 {
        self.feeds + self.edges + self.payloads + self.base
    }
}

impl Disk {
    /// Everything.
    pub fn sum(&self) -> f64 {
        self.entries + self.snapshots + self.logs
    }
}

impl Cores {
    /// Everything.
    pub fn sum(&self) -> f64 {
        self.posts + self.reads
    }
}

/// Partitions that a post with so many followers reaches on average: the owner's, and those where a follower is.
pub fn partitions_reached(partitions: f64, followers: f64) -> f64 {
    1.0 + (partitions - 1.0) * (1.0 - (1.0 - 1.0 / partitions).powf(followers))
}

/// The plan with the fewest nodes; none if no number of partitions makes one possible.
pub fn plan(demand: &Demand, machine: &Machine, costs: &Costs) -> Option<Plan> {
    let exponents = 0..=PARTITIONS_MAX.ilog2();
    let plans = exponents.filter_map(|exponent| plan_with(demand, machine, costs, 1 << exponent));
    plans.min_by_key(|plan| plan.nodes)
}

/// The plan with so many partitions; none if one of them is too much for a node, or for a thread.
pub fn plan_with(demand: &Demand, machine: &Machine, costs: &Costs, partitions: u32) -> Option<Plan> {
    let (copies, parts) = (f64::from(costs.replicas), f64::from(partitions));
    let reached = partitions_reached(parts, demand.follows);
    let delivery_micros = costs.post_micros.base / costs.deliveries_per_post;
    let post_micros = delivery_micros * demand.follows + costs.post_micros.slope * reached;
    let read = if demand.hydrated { costs.hydrated_read_micros } else { costs.plain_read_micros };
    let read_micros = read.at(page_homes(parts));
    let cores =
        Cores { posts: demand.posts_peak * post_micros / 1e6, reads: demand.reads_peak * read_micros / 1e6 };
    let partition_core_share = cores.posts / copies / parts;
    if partition_core_share > machine.cores_share {
        return None;
    }
    let rows_per_entry = reached / demand.follows;
    let kept = demand.posts_a_day * (demand.payload_bytes + ENTRY_DISK_BYTES);
    let edges = demand.users * demand.follows * costs.edge_bytes.at(rows_per_entry) * copies;
    let held = Memory {
        feeds: demand.users * demand.feed_entries * costs.entry_bytes.at(rows_per_entry) * copies,
        edges,
        payloads: kept * demand.hot_days,
        base: 0.0,
    };
    let stored = Disk { entries: kept * demand.keep_days * copies, snapshots: SNAPSHOTS * edges, logs: 0.0 };
    if (held.feeds + held.edges) / copies / parts > machine.partition_bytes {
        return None;
    }
    // The fewest nodes on which the busiest one, with so many leaders and replicas, has room.
    let nodes_for = |of_a_leader: f64, of_a_replica: f64, room: f64| {
        (costs.replicas..=partitions * costs.replicas).find(|nodes| {
            let on_a_node = |all: f64| (all / f64::from(*nodes)).ceil();
            on_a_node(parts) * of_a_leader + on_a_node(parts * copies) * of_a_replica <= room
        })
    };
    let (leaders, replicas) = (parts, parts * copies);
    let nodes_by = NodesBy {
        cores: nodes_for(cores.reads / leaders, cores.posts / replicas, machine.cores * machine.cores_share)?,
        memory: nodes_for(
            held.payloads / leaders,
            (held.feeds + held.edges) / replicas,
            machine.memory_bytes * machine.memory_share - NODE_BASE_BYTES,
        )?,
        disk: nodes_for(
            0.0,
            stored.sum() / replicas,
            machine.disk_bytes * machine.disk_share - LOG_DISK_BYTES,
        )?,
    };
    let nodes = nodes_by.cores.max(nodes_by.memory).max(nodes_by.disk);
    let all = f64::from(nodes);
    let log_bytes = costs.log_bytes.at(reached) + demand.payload_bytes;
    let peer_bytes = log_bytes * (copies - 1.0) + costs.log_bytes.slope * (reached - 1.0);
    Some(Plan {
        replicas: costs.replicas,
        partitions,
        nodes,
        nodes_by,
        partitions_reached: reached,
        deliveries_peak: demand.posts_peak * demand.follows,
        cores,
        partition_core_share,
        memory: Memory { base: NODE_BASE_BYTES * all, ..held },
        disk: Disk { logs: LOG_DISK_BYTES * all, ..stored },
        node_log_bytes_peak: demand.posts_peak * log_bytes * copies / all,
        node_peer_bytes_peak: demand.posts_peak * peer_bytes / all,
        core_seconds_a_day: (demand.posts_a_day * post_micros + demand.reads_a_day * read_micros) / 1e6,
    })
}

/// What a day comes to at peak, if its busiest hour has so many times the average.
pub fn peak_of(a_day: f64, times: f64) -> f64 {
    a_day / DAY_SECONDS * times
}

/// What a peak comes to a day, if it is so many times the average.
pub fn day_of(peak: f64, times: f64) -> f64 {
    peak * DAY_SECONDS / times
}

#[cfg(test)]
mod tests {
    use super::super::fit::Line;
    use super::*;

    fn costs() -> Costs {
        Costs {
            commit: String::new(),
            replicas: 3,
            post_micros: Line { base: 40.0, slope: 5.0 },
            deliveries_per_post: 200.0,
            plain_read_micros: Line { base: 8.0, slope: 2.0 },
            hydrated_read_micros: Line { base: 10.0, slope: 10.0 },
            entry_bytes: Line { base: 4.0, slope: 60.0 },
            edge_bytes: Line { base: 5.0, slope: 0.0 },
            log_bytes: Line { base: 60.0, slope: 30.0 },
        }
    }

    fn demand() -> Demand {
        Demand {
            users: 1e6,
            follows: 100.0,
            posts_a_day: 1e6,
            reads_a_day: 1e8,
            posts_peak: 1_000.0,
            reads_peak: 10_000.0,
            hydrated: false,
            feed_entries: 800.0,
            payload_bytes: 436.0,
            keep_days: 10.0,
            hot_days: 1.0,
        }
    }

    fn machine() -> Machine {
        Machine {
            cores: 8.0,
            memory_bytes: 64.0 * GIB,
            disk_bytes: 1_000.0 * GIB,
            partition_bytes: 32.0 * GIB,
            cores_share: 0.5,
            memory_share: 0.75,
            disk_share: 0.75,
        }
    }

    fn near(got: f64, wanted: f64) {
        assert!((got - wanted).abs() <= 1e-6 * wanted.abs(), "{got} is not {wanted}");
    }

    #[test]
    fn one_partition_is_reckoned_by_hand() {
        let plan = plan_with(&demand(), &machine(), &costs(), 1).unwrap();
        // 100 deliveries at 0.2 µs and one partition at 5 µs.
        near(plan.cores.posts, 1_000.0 * 25.0 / 1e6);
        near(plan.cores.reads, 0.1);
        near(plan.partition_core_share, 0.025 / 3.0);
        // A row serves 100 entries, so that each takes 4.6 bytes.
        near(plan.memory.feeds, 1e6 * 800.0 * 4.6 * 3.0);
        near(plan.memory.edges, 1e8 * 5.0 * 3.0);
        near(plan.memory.payloads, 1e6 * 500.0);
        near(plan.disk.entries, 1e6 * 500.0 * 10.0 * 3.0);
        near(plan.disk.snapshots, 3.0 * 1e8 * 5.0 * 3.0);
        near(plan.node_log_bytes_peak, 1_000.0 * (90.0 + 436.0));
        near(plan.core_seconds_a_day, 25.0 + 1_000.0);
        assert_eq!((plan.nodes, plan.replicas), (3, 3));
        near(plan.memory.base, 6.0 * GIB);
    }

    #[test]
    fn followers_spread_over_partitions() {
        near(partitions_reached(1.0, 200.0), 1.0);
        near(partitions_reached(2.0, 1.0), 1.5);
        let many = partitions_reached(64.0, 200.0);
        assert!((60.0..64.0).contains(&many), "{many}");
        assert!(partitions_reached(4_096.0, 10.0) < 11.0);
    }

    #[test]
    fn a_partition_must_fit_into_a_node_and_be_applied_by_one_thread() {
        let large = Demand { users: 50e6, ..demand() };
        // 184 GB of feeds and 25 GB of edges in one partition.
        assert_eq!(plan_with(&large, &machine(), &costs(), 1), None);
        let fitting = plan(&large, &machine(), &costs()).unwrap();
        assert!(fitting.partitions >= 8 && fitting.nodes_by.memory >= 14, "{fitting:?}");
        let whole = Machine { partition_bytes: 8.0 * GIB, ..machine() };
        assert!(plan(&large, &whole, &costs()).unwrap().partitions > fitting.partitions);
        let busy = Demand { posts_peak: 100_000.0, ..demand() };
        assert_eq!(plan_with(&busy, &machine(), &costs(), 1), None);
        let spread = plan(&busy, &machine(), &costs()).unwrap();
        assert!(spread.partition_core_share <= 0.5);
    }

    #[test]
    fn reads_need_as_many_leaders_as_nodes() {
        // Four cores of a node at peak.
        let read = Demand { reads_peak: 1e7, ..demand() };
        assert_eq!(
            plan_with(&read, &machine(), &costs(), 16),
            None,
            "16 leaders have twenty cores each of reads"
        );
        let plan = plan_with(&read, &machine(), &costs(), 256).unwrap();
        assert!(plan.nodes_by.cores >= 100, "{plan:?}");
    }

    #[test]
    fn more_of_anything_never_needs_fewer_nodes() {
        let nodes = |demand: &Demand| plan(demand, &machine(), &costs()).unwrap().nodes;
        let least = nodes(&demand());
        for larger in [
            Demand { users: 1e8, ..demand() },
            Demand { reads_peak: 1e7, ..demand() },
            Demand { keep_days: 3_000.0, ..demand() },
            Demand { posts_peak: 1e6, ..demand() },
        ] {
            assert!(nodes(&larger) > least, "{larger:?}");
        }
    }

    #[test]
    fn days_and_peaks_belong_together() {
        near(peak_of(86_400.0, 3.0), 3.0);
        near(day_of(peak_of(5e6, 2.5), 2.5), 5e6);
    }
}
