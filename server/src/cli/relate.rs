//! Owns the commands that change who sees whom: `follow`, `unfollow`, `mute`, `unmute`, `block`, `unblock`.

use clap::Args;
use fanfold_protocol::UserId;
use serde_json::{Value, json};

use super::error::CliError;
use super::output::id;
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct EdgeArgs {
    /// The reader.
    reader: u64,
    /// The owners.
    #[arg(required = true)]
    owners: Vec<u64>,
    /// The graph.
    #[arg(long, default_value = "follows")]
    graph: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The user.
    user: u64,
    /// The others.
    #[arg(required = true)]
    targets: Vec<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// What to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Follow,
    Unfollow,
    Mute,
    Unmute,
    Block,
    Unblock,
}

/// Changes edges.
pub(super) async fn edges(args: EdgeArgs, relation: Relation) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let graph = client.graph(args.graph.as_str());
            let owners: Vec<UserId> = args.owners.iter().copied().map(UserId).collect();
            let asked = owners.len();
            let related = if relation == Relation::Follow {
                graph.follow_many(UserId(args.reader), owners).await
            } else {
                graph.unfollow_many(UserId(args.reader), owners).await
            };
            let related = related.map_err(|error| args.remote.failed(error))?;
            show(&args.remote, related.changed, &related.refused, asked)
        })
        .await
}

/// Changes mutes or blocks.
pub(super) async fn targets(args: TargetArgs, relation: Relation) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let asked = args.targets.len();
            let (mut changed, mut refused) = (0, Vec::new());
            for target in args.targets.iter().copied().map(UserId) {
                let user = UserId(args.user);
                let related = match relation {
                    Relation::Mute => client.mute(user, target).await,
                    Relation::Unmute => client.unmute(user, target).await,
                    Relation::Block => client.block(user, target).await,
                    _ => client.unblock(user, target).await,
                };
                let related = related.map_err(|error| args.remote.failed(error))?;
                changed += related.changed;
                refused.extend(related.refused);
            }
            show(&args.remote, changed, &refused, asked)
        })
        .await
}

fn show(remote: &Remote, changed: u32, refused: &[UserId], asked: usize) -> Result<(), CliError> {
    let names: Vec<Value> = refused.iter().map(id).collect();
    remote.output.show(
        || json!({ "changed": changed, "refused": names }),
        || {
            let list = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let tail = if refused.is_empty() { String::new() } else { format!("\nrefused: {list}") };
            format!("changed {changed} of {asked}{tail}")
        },
    )?;
    match refused.len() {
        0 => Ok(()),
        refused => Err(CliError::SomeRefused { refused, asked }),
    }
}
