//! Owns the replay of files into a node: follow links first, then the activity, then the comparison.

mod args;
pub mod recipe;

use std::io;
use std::time::Duration;

use fanfold_protocol::message::SpaceChanges;
use fanfold_server::workload::WorkloadError;
use fanfold_server::workload::access::Access;
use fanfold_server::workload::activity::{ActivityOptions, SeededActivity};
use fanfold_server::workload::graph::FollowGraph;
use fanfold_server::workload::node_process::{NodeProcess, NodeProcessOptions};
use fanfold_server::workload::report::Report;
use fanfold_server::workload::run::{Ran, Run};
use serde_json::json;

pub use args::ReplayArgs;

use crate::tsv::{self, ActionLine, FollowLine, TsvError};

/// How long a call is repeated; a restart may fall into it.
const CALL_DEADLINE: Duration = Duration::from_secs(300);
/// How long the node may take to start, its log replayed.
const READY_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a replay was not carried through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A file could not be read.
    #[error(transparent)]
    Tsv(#[from] TsvError),
    /// There is nobody to act.
    #[error("the follow links name no users, so that no activity can be drawn over them; give --activity")]
    NoUsers,
    /// The workload stopped.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The path of the running program is not known.
    #[error("the path of this program is not known: {source}")]
    Program {
        /// Why.
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("the runtime could not be started: {source}")]
    Runtime {
        /// Why.
        source: io::Error,
    },
    /// The report could not be written.
    #[error("the report could not be written to stdout: {source}")]
    Output {
        /// Why.
        source: io::Error,
    },
}

/// Replays what the arguments say.
pub async fn run(args: &ReplayArgs) -> Result<Ran, ReplayError> {
    let lines_max = args.lines.unwrap_or(usize::MAX);
    let actions = match &args.activity {
        Some(path) => tsv::read::<ActionLine>(path, lines_max)?,
        None => Vec::new(),
    };
    let graph = graph(args, &actions, lines_max)?;

    let node = match &args.address {
        Some(_) => None,
        None => Some(start_node(args).await?),
    };
    let own_address = node.as_ref().map(|node| node.address().to_string());
    let address = own_address.as_ref().or(args.address.as_ref()).map_or("", String::as_str);
    let access = Access::connect(address, CALL_DEADLINE).await?;
    alter(&access, args).await?;

    let report = Report::new("replay", parameters(args));
    let mut run = Run::begin(access, node.map(Into::into), args.window as usize, report).await?;
    if let Some(pause) = args.kill_every {
        run.start_killing(pause, usize::MAX);
    }
    run.follow(&graph).await?;
    if args.activity.is_some() {
        run.act(actions.len() as u64, recipe::operations(&actions)).await?;
    } else {
        let options = ActivityOptions { posts: args.posts, seed: args.seed };
        run.act(args.posts as u64, SeededActivity::new(&graph, options)).await?;
    }
    if args.check {
        run.check().await?;
    }
    run.read(args.reads, args.seed).await?;
    Ok(run.finish().await?)
}

fn graph(args: &ReplayArgs, actions: &[ActionLine], lines_max: usize) -> Result<FollowGraph, ReplayError> {
    let mut pairs = Vec::new();
    if let Some(path) = &args.follows {
        let follows = tsv::read::<FollowLine>(path, lines_max)?;
        pairs.extend(follows.into_iter().map(|follow| (follow.reader, follow.owner)));
    }
    if args.infer_follows {
        pairs.extend(recipe::inferred_follows(actions));
    }
    if args.activity.is_none() && pairs.is_empty() {
        return Err(ReplayError::NoUsers);
    }
    Ok(FollowGraph::from_pairs(pairs))
}

async fn start_node(args: &ReplayArgs) -> Result<NodeProcess, ReplayError> {
    let mut start_arguments = Vec::new();
    if let Some(partitions) = args.partitions {
        start_arguments.extend(["--partitions".into(), partitions.to_string().into()]);
    }
    start_arguments.extend(args.node_flags.iter().map(|flag| format!("--{flag}").into()));
    let options = NodeProcessOptions {
        program: std::env::current_exe().map_err(|source| ReplayError::Program { source })?,
        arguments: Vec::new(),
        start_arguments,
        ready_timeout: READY_TIMEOUT,
    };
    Ok(NodeProcess::start(options).await.map_err(WorkloadError::from)?)
}

async fn alter(access: &Access, args: &ReplayArgs) -> Result<(), WorkloadError> {
    let changes = SpaceChanges {
        pull_threshold: args.pull_threshold,
        feed_cap: args.feed_cap,
        ..SpaceChanges::default()
    };
    if changes == SpaceChanges::default() {
        return Ok(());
    }
    access.alter(changes).await
}

fn parameters(args: &ReplayArgs) -> serde_json::Value {
    let name = |path: &std::path::PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    json!({
        "follows": args.follows.as_ref().and_then(name),
        "activity": args.activity.as_ref().and_then(name),
        "infer_follows": args.infer_follows,
        "lines": args.lines,
        "drawn_posts": args.activity.is_none().then_some(args.posts),
        "seed": args.seed,
        "check": args.check,
        "kill_every_seconds": args.kill_every.map(|pause| pause.as_secs_f64()),
        "own_node": args.address.is_none(),
        "partitions": args.partitions,
        "pull_threshold": args.pull_threshold,
        "feed_cap": args.feed_cap,
        "window": args.window,
        "reads": args.reads,
    })
}
