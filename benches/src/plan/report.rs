//! Owns a plan as it is printed: what was asked, what it comes to, and what it was reckoned with.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::costs::Costs;
use super::model::{Demand, Machine, Plan};
use crate::load::report::short;

/// A plan with everything it was reckoned from.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// What was asked.
    pub demand: Demand,
    /// A node.
    pub machine: Machine,
    /// What things cost.
    pub costs: Costs,
    /// What it comes to.
    pub plan: Plan,
}

/// Bytes with their unit.
fn bytes(count: f64) -> String {
    format!("{}B", short(count))
}

fn cores(count: f64) -> String {
    if count < 10.0 { format!("{count:.1} cores") } else { format!("{count:.0} cores") }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { demand, machine, costs, plan } = self;
        let pages = if demand.hydrated { "with payloads" } else { "without payloads" };
        writeln!(
            f,
            "{} users who follow {} each; {} posts and {} pages {pages} a day, {}/s and {}/s at peak",
            short(demand.users),
            short(demand.follows),
            short(demand.posts_a_day),
            short(demand.reads_a_day),
            short(demand.posts_peak),
            short(demand.reads_peak)
        )?;
        writeln!(
            f,
            "feeds of {}, payloads of {} bytes, kept for {} days; costs measured at commit {} with {} replica(s)\n",
            demand.feed_entries, demand.payload_bytes, demand.keep_days, costs.commit, costs.replicas
        )?;
        let all = f64::from(plan.nodes);
        let rows: [[String; 3]; 13] = [
            ["nodes".into(), plan.nodes.to_string(), self.limits()],
            [
                "partitions".into(),
                plan.partitions.to_string(),
                format!("{} replicas of {} each", plan.replicas, bytes(self.partition_bytes())),
            ],
            [
                "partitions a post reaches".into(),
                format!("{:.1}", plan.partitions_reached),
                format!("{:.1} followers in each", demand.follows / plan.partitions_reached),
            ],
            [
                "deliveries at peak".into(),
                format!("{}/s", short(plan.deliveries_peak)),
                "counted once".into(),
            ],
            [
                "posts and deliveries at peak".into(),
                cores(plan.cores.posts),
                format!("busiest partition's thread {:.0} %", 100.0 * plan.partition_core_share),
            ],
            [
                "reads at peak".into(),
                cores(plan.cores.reads),
                format!("each node {:.0} % busy", 100.0 * plan.cores.sum() / (all * machine.cores)),
            ],
            ["feeds in memory".into(), bytes(plan.memory.feeds), String::new()],
            ["edges in memory".into(), bytes(plan.memory.edges), String::new()],
            [
                "recent payloads in memory".into(),
                bytes(plan.memory.payloads),
                format!("of {} day(s)", demand.hot_days),
            ],
            [
                "memory of a node".into(),
                bytes(plan.memory.sum() / all),
                format!("of {}", bytes(machine.memory_bytes)),
            ],
            [
                "disk of a node".into(),
                bytes(plan.disk.sum() / all),
                format!("of {}", bytes(machine.disk_bytes)),
            ],
            ["log of a node at peak".into(), format!("{}/s", bytes(plan.node_log_bytes_peak)), String::new()],
            [
                "sent to other nodes at peak".into(),
                format!("{}/s", bytes(plan.node_peer_bytes_peak)),
                "by each".into(),
            ],
        ];
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .add_rows(rows);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{table}")
    }
}

impl PlanReport {
    /// The memory of one replica.
    fn partition_bytes(&self) -> f64 {
        let Plan { memory, replicas, partitions, .. } = &self.plan;
        (memory.feeds + memory.edges) / f64::from(*replicas) / f64::from(*partitions)
    }

    fn limits(&self) -> String {
        let by = self.plan.nodes_by;
        format!("{} by cores, {} by memory, {} by disk", by.cores, by.memory, by.disk)
    }
}
