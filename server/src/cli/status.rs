//! Owns the command `status`: how a node is, once or again and again.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use fanfold_protocol::message::{KeptLog, MemoryBudget, MemoryState, NodeStatus, PartitionStatus};
use fanfold_protocol::{NodeId, PartitionId};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::change::{group_json, group_text};
use super::cluster::view_text;
use super::error::CliError;
use super::output::{bytes, duration, id, line, table, text, time};
use super::remote::Remote;
use crate::names::part_name;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanfold status\n  fanfold status --watch --every 2s\n  fanfold status --output json | jq '.[0].partitions[0].applied'"
)]
pub(super) struct StatusArgs {
    /// Shows it again and again, until interrupted.
    #[arg(long)]
    watch: bool,
    /// How often, such as `2s`.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    #[command(flatten)]
    remote: Remote,
}

/// Asks and shows.
pub(super) async fn run(args: StatusArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            // A period of zero has no meaning to a timer; the shortest one asks a thousand times a second.
            let mut ticks = interval(args.every.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let failed = |error| args.remote.failed(error);
                let nodes = client
                    .statuses()
                    .deadline(args.remote.deadline.min(NODE_TIMEOUT))
                    .await
                    .map_err(failed)?;
                if let [(_, Err(error))] = &nodes[..] {
                    return Err(failed(error.clone()));
                }
                let view = if nodes.len() > 1 { Some(client.cluster().await.map_err(failed)?) } else { None };
                if args.watch && io::stdout().is_terminal() {
                    // Home, and clear what is below: the terminal does not flicker as it would when cleared whole.
                    line("\x1b[H\x1b[J")?;
                }
                args.remote.output.show(
                    || Value::Array(nodes.iter().map(answer_json).collect()),
                    || {
                        let cluster = view.iter().map(view_text);
                        cluster.chain(nodes.iter().map(answer_text)).collect::<Vec<_>>().join("\n\n")
                    },
                )?;
                if !args.watch {
                    return Ok(());
                }
            }
        })
        .await
}

/// How long one node has to answer, so that one that is gone does not keep the others from being shown.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);

type Answer = (NodeId, Result<NodeStatus, fanfold_client::Error>);

fn answer_text((node, answer): &Answer) -> String {
    match answer {
        Ok(status) => node_text(status),
        Err(error) => format!("node {node} does not answer: {error}"),
    }
}

fn answer_json((node, answer): &Answer) -> Value {
    match answer {
        Ok(status) => node_json(status),
        Err(error) => json!({ "node": id(node), "error": error.to_string() }),
    }
}

fn node_text(node: &NodeStatus) -> String {
    let clock = node.clock_held_ms.map_or_else(
        || "follows the wall clock".to_owned(),
        |ms| {
            format!("HELD: the wall clock is {ms} ms from the time that stamps follow; if it is right now, run `fanfold clock accept`")
        },
    );
    let pinned = match (node.log.kept_by_job, node.log.pinned_by) {
        (Some(job), _) => format!(", kept by job {job} (`fanfold job list`)"),
        (None, Some(group)) => format!(", kept by {}", group_text(group)),
        (None, None) => String::new(),
    };
    let behind = node.log.pinned_for.filter(|_| node.log.kept_by_job.is_none());
    let behind = behind.map(|node| format!(" for node {node}, which is behind"));
    let pinned = pinned + &behind.unwrap_or_default();
    let kept = node.kept_by_damaged.iter().map(|kept| {
        let (partition, size) = (kept.partition, bytes(kept.bytes));
        format!("\nlog: {size} of it kept by DAMAGED partition {partition}, and more with every write, until that is restored or salvaged")
    });
    let pinned: String = std::iter::once(pinned).chain(kept).collect();
    let budget = node.memory.map_or_else(String::new, |memory| format!("\nmemory: {}", budget_text(memory)));
    let head = format!(
        "node {} of cluster {}, version {}, up {}\nclock: {clock}\nlog: {} segments, {}, position {}{pinned}{budget}",
        node.node,
        node.cluster,
        node.version,
        duration(node.uptime_ms / 1_000 * 1_000),
        node.log.segments,
        bytes(node.log.bytes),
        node.log.last_position,
    );
    let disk = on_disk(&node.partitions);
    [head, partitions(node), disk, streams(&node.partitions), memory(node)].join("\n\n")
}

fn budget_text(memory: MemoryBudget) -> String {
    let state = match memory.state {
        MemoryState::Within => "",
        MemoryState::Over => ", OVER: nothing is left that can give way; see MemoryOverBudget in RUNBOOK.md",
        MemoryState::Refusing => {
            ", OVER: writes that need more memory are refused; see MemoryFull in RUNBOOK.md"
        }
    };
    format!("{} of a budget of {}{state}", bytes(memory.resident_bytes), bytes(memory.budget_bytes))
}

fn partitions(node: &NodeStatus) -> String {
    let heads = [
        "partition",
        "role",
        "term",
        "applied",
        "log",
        "stamp",
        "entries",
        "feeds",
        "users",
        "edges",
        "rows",
        "deliveries",
        "undelivered",
        "slices",
        "sessions",
    ];
    let mut rows = table(heads);
    // Those that are not even open have no figures.
    let is_open = |id: &&PartitionId| node.partitions.iter().any(|p| p.partition == **id);
    for id in node.damaged.iter().filter(|id| !is_open(id)) {
        rows.add_row([id.to_string(), "DAMAGED".to_owned()]);
    }
    for p in &node.partitions {
        let role = if p.is_leader { "leader" } else { "follower" };
        rows.add_row([
            p.partition.to_string(),
            if node.damaged.contains(&p.partition) { "DAMAGED" } else { role }.to_owned(),
            p.term.to_string(),
            p.applied.to_string(),
            p.log_last.to_string(),
            time(p.stamp),
            p.entries.to_string(),
            p.feeds.to_string(),
            p.users.to_string(),
            p.edges.to_string(),
            p.rows.to_string(),
            p.deliveries.to_string(),
            if p.is_leader { p.undelivered_events.to_string() } else { "-".to_owned() },
            p.pending_slices.to_string(),
            p.sessions.to_string(),
        ]);
    }
    text(&rows)
}

fn on_disk(partitions: &[PartitionStatus]) -> String {
    let mut rows = table(["partition", "log", "snapshot at", "of", "segments", "of"]);
    for p in partitions {
        rows.add_row([
            p.partition.to_string(),
            bytes(p.log_bytes),
            if p.snapshot == 0 { "none yet".to_owned() } else { p.snapshot.to_string() },
            bytes(p.snapshot_bytes),
            p.segments.to_string(),
            bytes(p.segment_bytes),
        ]);
    }
    text(&rows)
}

fn streams(partitions: &[PartitionStatus]) -> String {
    let mut rows = table(["source", "destination", "undelivered", "oldest", "acknowledged"]);
    for p in partitions {
        for stream in p.streams.iter().filter(|s| s.pending_events > 0) {
            rows.add_row([
                p.partition.to_string(),
                stream.destination.to_string(),
                stream.pending_events.to_string(),
                duration(stream.oldest_age_ms),
                stream.acknowledged.to_string(),
            ]);
        }
    }
    let is_led = partitions.iter().any(|p| p.is_leader);
    match (rows.is_empty(), is_led) {
        (true, true) => "streams: everything is delivered of the partitions that it leads".to_owned(),
        (true, false) => "streams: it leads no partition".to_owned(),
        (false, _) => text(&rows),
    }
}

fn memory(node: &NodeStatus) -> String {
    let mut rows = table(["memory", "bytes", "all partitions"]);
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    let process = node.process.iter().flat_map(|process| &process.parts);
    for used in node.partitions.iter().flat_map(|p| &p.memory).chain(process) {
        let name = part_name(used.part);
        match sums.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += used.bytes,
            None => sums.push((name, used.bytes)),
        }
    }
    let all: u64 = sums.iter().map(|(_, sum)| sum).sum();
    let resident = node.process.as_ref().map(|process| ("resident", process.resident_bytes));
    for (name, sum) in sums.into_iter().chain([("all of these", all)]).chain(resident) {
        rows.add_row([name.to_owned(), sum.to_string(), bytes(sum)]);
    }
    text(&rows)
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "node": id(node.node),
        "cluster": node.cluster.to_string(),
        "version": node.version,
        "uptime_ms": node.uptime_ms,
        "clock_held_ms": node.clock_held_ms,
        "log": {
            "segments": node.log.segments,
            "bytes": node.log.bytes,
            "last_position": node.log.last_position,
            "pinned_by": node.log.pinned_by.map(group_json),
            "pinned_for": node.log.pinned_for.map(|node| node.to_string()),
            "kept_by_job": node.log.kept_by_job,
        },
        "memory": node.memory.map(|memory| json!({
            "budget_bytes": memory.budget_bytes,
            "resident_bytes": memory.resident_bytes,
            "over_budget": memory.state != MemoryState::Within,
            "refusing_writes": memory.state == MemoryState::Refusing,
        })),
        "process": node.process.as_ref().map(|process| json!({
            "resident_bytes": process.resident_bytes,
            "memory": process.parts.iter().map(|used| (part_name(used.part), used.bytes))
                .collect::<BTreeMap<_, _>>(),
        })),
        "damaged": node.damaged.iter().map(|partition| partition.0).collect::<Vec<_>>(),
        "kept_by_damaged": node.kept_by_damaged.iter().map(kept_json).collect::<Vec<_>>(),
        "partitions": node.partitions.iter().map(partition_json).collect::<Vec<_>>(),
    })
}

fn kept_json(kept: &KeptLog) -> Value {
    json!({ "partition": kept.partition.0, "bytes": kept.bytes })
}

fn partition_json(p: &PartitionStatus) -> Value {
    let streams = p.streams.iter().map(|s| {
        json!({
            "destination": s.destination.0,
            "pending_events": s.pending_events,
            "oldest_age_ms": s.oldest_age_ms,
            "acknowledged": s.acknowledged,
        })
    });
    let memory: serde_json::Map<String, Value> =
        p.memory.iter().map(|m| (part_name(m.part).to_owned(), m.bytes.into())).collect();
    json!({
        "partition": p.partition.0,
        "is_leader": p.is_leader,
        "term": p.term,
        "applied": p.applied,
        "log_last": p.log_last,
        "stamp": time(p.stamp),
        "entries": p.entries,
        "feeds": p.feeds,
        "users": p.users,
        "edges": p.edges,
        "owners_here": p.owners_here,
        "rows": p.rows,
        "deliveries": p.deliveries,
        "undelivered_events": p.undelivered_events,
        "pending_slices": p.pending_slices,
        "journal_first": p.journal_first,
        "journal_next": p.journal_next,
        "sessions": p.sessions,
        "log_bytes": p.log_bytes,
        "snapshot": p.snapshot,
        "snapshot_bytes": p.snapshot_bytes,
        "segments": p.segments,
        "segment_bytes": p.segment_bytes,
        "memory_bytes": memory,
        "streams": streams.collect::<Vec<_>>(),
    })
}
