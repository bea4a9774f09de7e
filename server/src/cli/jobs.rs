//! Owns the commands `job list|cancel`: the checks and backups that nodes do on their own files.

use clap::{Args, Subcommand};
use fanfold_client::{Client, Error};
use fanfold_protocol::message::{JobKind, JobPhase, JobState, JobStatus};
use fanfold_protocol::{NodeId, Status};
use serde_json::{Value, json};

use super::change::{members, one_of};
use super::error::CliError;
use super::job;
use super::output::{bytes, table, text};
use super::remote::Remote;

/// How many jobs a node remembers.
const REMEMBERED_MAX: u64 = 16;

#[derive(Debug, Args)]
pub(super) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Lists the jobs of all nodes: checks and backups that run, and the last ones that ended.
    #[command(after_help = "Example:\n  fanfold job list")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Ends a job that runs, whoever started it.
    #[command(after_help = "Examples:\n  fanfold job cancel 3\n  fanfold job cancel 3 --node 2")]
    Cancel {
        /// Its number, as `job list` shows it.
        job: u64,
        /// The node that it runs on; else the one that is asked.
        #[arg(long, value_name = "NODE")]
        node: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Runs a command about jobs.
pub(super) async fn run(args: JobArgs) -> Result<(), CliError> {
    match args.command {
        JobCommand::List { remote } => {
            remote
                .with_client(async |client| {
                    let map = client.map().await.map_err(|error| remote.failed(error))?;
                    let mut all = Vec::new();
                    for node in map.nodes.iter().map(|node| node.node) {
                        match of(client, node).await {
                            Ok(jobs) => all.extend(jobs.into_iter().map(|job| (node, job))),
                            Err(error) => eprintln!("fanfold: node {node} is left out: {error}"),
                        }
                    }
                    show(&remote, &all)
                })
                .await
        }
        JobCommand::Cancel { job, node, remote } => {
            remote
                .with_client(async |client| {
                    let node = match node {
                        Some(node) => {
                            let view = client.cluster().await.map_err(|error| remote.failed(error))?;
                            one_of(&members(&view), NodeId(node))?
                        }
                        None => job::node(&remote, client).await?,
                    };
                    let known = of(client, node).await.map_err(|error| remote.failed(error))?;
                    let found = known.iter().find(|known| known.job == job).filter(|_| job != 0);
                    let Some(found) = found else {
                        let known = known.iter().map(|known| known.job.to_string()).collect();
                        return Err(CliError::NoSuch { what: "job", asked: job.to_string(), known });
                    };
                    if found.state != JobState::Running {
                        return Err(CliError::JobEnded { job, how: state(found) });
                    }
                    let status = client.cancel_job(node, job).await.map_err(|error| remote.failed(error))?;
                    show(&remote, &[(node, status)])
                })
                .await
        }
    }
}

/// The jobs that a node remembers, the newest first.
async fn of(client: &Client, node: NodeId) -> Result<Vec<JobStatus>, Error> {
    let ask = async |job: u64| match client.job(node, job).await {
        Err(error) if error.status() == Some(&Status::NotFound) => Ok(None),
        status => status.map(Some),
    };
    let Some(newest) = ask(0).await? else { return Ok(Vec::new()) };
    let numbers = newest.job.saturating_sub(REMEMBERED_MAX - 1).max(1)..newest.job;
    let mut all = vec![newest];
    for job in numbers.rev() {
        all.extend(ask(job).await?);
    }
    Ok(all)
}

fn show(remote: &Remote, all: &[(NodeId, JobStatus)]) -> Result<(), CliError> {
    remote.output.show(
        || Value::Array(all.iter().map(|(node, job)| job_json(*node, job)).collect()),
        || {
            let mut rows = table(["node", "job", "what", "state", "done", "of", "found"]);
            for (node, job) in all {
                rows.add_row([
                    node.to_string(),
                    job.job.to_string(),
                    what(job),
                    state(job),
                    bytes(job.done_bytes),
                    bytes(job.total_bytes),
                    job.found.to_string(),
                ]);
            }
            if all.is_empty() { "no job ran since the start".to_owned() } else { text(&rows) }
        },
    )
}

fn what(job: &JobStatus) -> String {
    match &job.kind {
        Some(JobKind::Verify) => "verify".to_owned(),
        Some(JobKind::Backup { dir, .. }) => format!("backup to {dir}"),
        None => String::new(),
    }
}

fn state(job: &JobStatus) -> String {
    let phase = match job.phase {
        JobPhase::Begins => "begins",
        JobPhase::Snapshots => "snapshots",
        JobPhase::Groups => "partitions",
        JobPhase::Log => "log",
    };
    match &job.state {
        JobState::Running => format!("runs: {phase}"),
        JobState::Done => "done".to_owned(),
        JobState::Failed(said) => format!("FAILED: {said}"),
        JobState::Cancelled => "cancelled".to_owned(),
    }
}

fn job_json(node: NodeId, job: &JobStatus) -> Value {
    let (state, said) = match &job.state {
        JobState::Running => ("running", None),
        JobState::Done => ("done", None),
        JobState::Failed(said) => ("failed", Some(said)),
        JobState::Cancelled => ("cancelled", None),
    };
    json!({ "node": node.to_string(), "job": job.job, "what": what(job), "state": state, "said": said,
        "done_bytes": job.done_bytes, "total_bytes": job.total_bytes, "found": job.found })
}
