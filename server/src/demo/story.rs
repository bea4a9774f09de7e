//! Owns the course of the demo.

use std::time::Duration;

use fanfold_protocol::message::SpaceChanges;
use serde_json::json;

use super::args::DemoArgs;
use super::error::DemoError;
use crate::workload::WorkloadError;
use crate::workload::access::Access;
use crate::workload::activity::{ActivityOptions, SeededActivity};
use crate::workload::fleet::Fleet;
use crate::workload::graph::FollowGraph;
use crate::workload::node_process::NodeProcessOptions;
use crate::workload::report::Report;
use crate::workload::run::{Ran, Run};

/// Operations under way at once.
const WINDOW: usize = 4_096;
/// How long a call is repeated.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// When a leading node of several is killed, after the posts have begun.
const KILL_AFTER: Duration = Duration::from_millis(500);
/// How long the nodes may take to start.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// First pages of feeds measured, plain and again hydrated.
const READS: u64 = 10_000;
/// Posts per user, if nothing else was asked for.
const POSTS_PER_USER: u64 = 2;
/// An owner is pulled where more than one in this many of a partition's users follow.
const PULLED_ABOVE_ONE_IN: u64 = 8;

/// Tells the story from the first start to the last comparison.
pub(super) async fn tell(args: &DemoArgs) -> Result<Ran, DemoError> {
    let options = NodeProcessOptions {
        program: std::env::current_exe().map_err(|source| DemoError::Program { source })?,
        arguments: Vec::new(),
        start_arguments: Vec::new(),
        ready_timeout: READY_TIMEOUT,
    };
    let fleet = Fleet::start(options, args.nodes as usize).await?;
    let access = Access::of(fleet.client(CALL_DEADLINE).await?).await?;
    let pull_threshold = alter_threshold(&access, args.users).await?;

    let graph = FollowGraph::power_law(args.users, args.seed);
    let posts = args.posts.unwrap_or(POSTS_PER_USER * args.users);
    let parameters = json!({
        "nodes": args.nodes, "users": args.users, "posts": posts, "seed": args.seed, "window": WINDOW, "reads": READS,
        "pull_threshold": pull_threshold,
    });
    let activity = SeededActivity::new(&graph, ActivityOptions { posts: posts as usize, seed: args.seed });

    let mut run = Run::begin(access, Some(fleet), WINDOW, Report::new("demo", parameters)).await?;
    run.follow(&graph).await?;
    if args.nodes > 1 {
        run.start_killing(KILL_AFTER, 1);
    }
    run.act(posts, activity).await?;
    run.check().await?;
    run.read(READS, args.seed).await?;
    run.kill_and_restart().await?;
    run.check().await?;
    Ok(run.finish().await?)
}

/// Lets celebrities of a graph of this size be pulled, so that both ways are used.
async fn alter_threshold(access: &Access, users: u64) -> Result<u32, WorkloadError> {
    let map = access.client.map().await.map_err(|source| WorkloadError::Prepare { source })?;
    let users_per_partition = users / u64::from(map.partitions.max(1));
    let threshold = (users_per_partition / PULLED_ABOVE_ONE_IN).max(1) as u32;
    let changes = SpaceChanges { pull_threshold: Some(threshold), ..SpaceChanges::default() };
    access.alter(changes).await?;
    Ok(threshold)
}
