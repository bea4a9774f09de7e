//! Owns the commands about spaces: create, list, show, alter.

use clap::{Args, Subcommand, ValueEnum};
use fanfold_client::Client;
use fanfold_protocol::message::{AlterSpace, FanOut, SpaceChanges, SpaceInfo, SpacePolicy};
use fanfold_protocol::{Limits, Request};
use serde_json::{Value, json};

use super::entry::{Lifetime, lifetime};
use super::error::CliError;
use super::output::{bytes, duration, table, text};
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct SpaceArgs {
    #[command(subcommand)]
    command: SpaceCommand,
}

#[derive(Debug, Subcommand)]
enum SpaceCommand {
    /// Makes a space.
    #[command(after_help = "Example:\n  fanfold space create photos --default-ttl 30d --feed-cap 400")]
    Create {
        /// Its name: 1 to 64 of a-z, 0-9, - and _.
        name: String,
        /// The graph whose edges fill its feeds; made if there is none. It never changes.
        #[arg(long, default_value = "follows")]
        graph: String,
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        remote: Remote,
    },
    /// Lists the spaces.
    #[command(after_help = "Example:\n  fanfold space list --output json")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows one space.
    #[command(after_help = "Example:\n  fanfold space show stories")]
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Changes the rules of a space.
    #[command(
        after_help = "Example:\n  fanfold space alter posts --horizon 90d --pull-threshold 5000\n  fanfold space alter posts --read-only --dry-run\n  fanfold space alter posts --read-only         # takes no writes until `--read-only false`"
    )]
    Alter {
        /// Its name.
        name: String,
        #[command(flatten)]
        rules: Rules,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FanOutChoice {
    /// Push, and pull the owners above the threshold.
    Auto,
    /// Always push.
    Push,
    /// Always pull.
    Pull,
}

/// The rules of a space; what is not named stays, or is the default of a new space.
#[derive(Debug, Args)]
struct Rules {
    /// How long entries live that do not say, such as `24h`, or `none`.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    default_ttl: Option<Lifetime>,
    /// References that one feed keeps; older entries are read from the timelines.
    #[arg(long, value_name = "N")]
    feed_cap: Option<u32>,
    /// The age beyond which entries leave the feeds, such as `90d`, or `none`.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    horizon: Option<Lifetime>,
    /// How entries reach the feeds.
    #[arg(long, value_enum)]
    fan_out: Option<FanOutChoice>,
    /// Followers within one partition above which an owner is pulled, if the fan-out is `auto`.
    #[arg(long, value_name = "N")]
    pull_threshold: Option<u32>,
    /// The largest payload, in bytes.
    #[arg(long, value_name = "BYTES")]
    payload_bytes_max: Option<u32>,
    /// Whether it takes no writes: its timelines stay as they are, apart from what expires.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    read_only: Option<bool>,
}

impl Rules {
    fn changes(&self) -> SpaceChanges {
        let ms = |lifetime: Lifetime| match lifetime {
            Lifetime::Never => None,
            Lifetime::For(time) => Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        };
        SpaceChanges {
            default_ttl_ms: self.default_ttl.map(ms),
            feed_cap: self.feed_cap,
            horizon_ms: self.horizon.map(ms),
            fan_out: self.fan_out.map(|choice| match choice {
                FanOutChoice::Auto => FanOut::Auto,
                FanOutChoice::Push => FanOut::Push,
                FanOutChoice::Pull => FanOut::Pull,
            }),
            pull_threshold: self.pull_threshold,
            payload_bytes_max: self.payload_bytes_max,
            is_read_only: self.read_only,
        }
    }

    fn policy(&self) -> SpacePolicy {
        changed(&default_policy(), &self.changes())
    }
}

/// A policy after changes.
fn changed(policy: &SpacePolicy, changes: &SpaceChanges) -> SpacePolicy {
    SpacePolicy {
        default_ttl_ms: changes.default_ttl_ms.unwrap_or(policy.default_ttl_ms),
        feed_cap: changes.feed_cap.unwrap_or(policy.feed_cap),
        horizon_ms: changes.horizon_ms.unwrap_or(policy.horizon_ms),
        fan_out: changes.fan_out.unwrap_or(policy.fan_out),
        pull_threshold: changes.pull_threshold.unwrap_or(policy.pull_threshold),
        payload_bytes_max: changes.payload_bytes_max.unwrap_or(policy.payload_bytes_max),
        is_read_only: changes.is_read_only.unwrap_or(policy.is_read_only),
    }
}

/// The rules of a new space, as the storage crate states them.
fn default_policy() -> SpacePolicy {
    crate::translate::policy_to_wire(&fanfold_storage::space::SpacePolicy::default())
}

/// Runs a command about spaces.
pub(super) async fn run(args: SpaceArgs) -> Result<(), CliError> {
    match args.command {
        SpaceCommand::Create { name, graph, rules, remote } => {
            let create = async |client: &Client| {
                let made = client.spaces().create(name, rules.policy()).graph(graph).await;
                show(&remote, &made.map_err(|error| remote.failed(error))?)
            };
            remote.with_client(create).await
        }
        SpaceCommand::List { remote } => {
            let list_all = async |client: &Client| {
                let spaces = client.spaces().list().await.map_err(|error| remote.failed(error))?;
                let json = || Value::Array(spaces.iter().map(space_json).collect());
                remote.output.show(json, || list(&spaces))
            };
            remote.with_client(list_all).await
        }
        SpaceCommand::Show { name, remote } => {
            let show_one = async |client: &Client| {
                let space = client.spaces().show(name).await.map_err(|error| remote.failed(error))?;
                show(&remote, &space)
            };
            remote.with_client(show_one).await
        }
        SpaceCommand::Alter { name, rules, dry_run, remote } => {
            let changes = rules.changes();
            if changes == SpaceChanges::default() {
                return Err(CliError::NothingToChange);
            }
            let alter = async |client: &Client| {
                if dry_run {
                    return show_change(&remote, client, name, changes).await;
                }
                let altered = client.spaces().alter(name, changes).await;
                show(&remote, &altered.map_err(|error| remote.failed(error))?)
            };
            remote.with_client(alter).await
        }
    }
}

/// Shows what changes would do to a space that the node would take.
async fn show_change(
    remote: &Remote,
    client: &Client,
    name: String,
    changes: SpaceChanges,
) -> Result<(), CliError> {
    let now = client.spaces().show(name.clone()).await.map_err(|error| remote.failed(error))?;
    let then = SpaceInfo { policy: changed(&now.policy, &changes), ..now.clone() };
    let asked = Request::AlterSpace(AlterSpace { name, changes });
    let refused = |status| fanfold_client::Error::Refused { status, may_have_applied: false };
    asked.check(&Limits::default()).map_err(|status| remote.failed(refused(status)))?;
    remote.output.show(
        || json!({ "dry_run": true, "now": space_json(&now), "then": space_json(&then) }),
        || {
            let mut rows = table(["rule", "now", "then"]);
            for ((rule, now), (_, then)) in rules(&now).into_iter().zip(rules(&then)) {
                if now != then {
                    rows.add_row([rule.to_owned(), now, then]);
                }
            }
            if rows.is_empty() {
                return "nothing would change".to_owned();
            }
            format!("this would change (--dry-run):\n{}", text(&rows))
        },
    )
}

fn show(remote: &Remote, space: &SpaceInfo) -> Result<(), CliError> {
    remote.output.show(
        || space_json(space),
        || {
            let mut rows = table(["rule", "value"]);
            for (rule, value) in rules(space) {
                rows.add_row([rule.to_owned(), value]);
            }
            text(&rows)
        },
    )
}

fn list(spaces: &[SpaceInfo]) -> String {
    let mut rows = table([
        "space",
        "graph",
        "default ttl",
        "feed cap",
        "horizon",
        "fan-out",
        "threshold",
        "payload",
        "writes",
    ]);
    for space in spaces {
        let policy = &space.policy;
        rows.add_row([
            space.name.clone(),
            space.graph_name.clone(),
            time(policy.default_ttl_ms),
            policy.feed_cap.to_string(),
            time(policy.horizon_ms),
            fan_out(policy.fan_out).to_owned(),
            policy.pull_threshold.to_string(),
            bytes(policy.payload_bytes_max.into()),
            if policy.is_read_only { "refused" } else { "taken" }.to_owned(),
        ]);
    }
    text(&rows)
}

fn rules(space: &SpaceInfo) -> [(&'static str, String); 11] {
    let policy = &space.policy;
    [
        ("name", space.name.clone()),
        ("id", space.id.to_string()),
        ("graph", format!("{} ({})", space.graph_name, space.graph)),
        ("version", space.version.to_string()),
        ("default ttl", time(policy.default_ttl_ms)),
        ("feed cap", policy.feed_cap.to_string()),
        ("horizon", time(policy.horizon_ms)),
        ("fan-out", fan_out(policy.fan_out).to_owned()),
        ("pull threshold", policy.pull_threshold.to_string()),
        ("payload limit", bytes(policy.payload_bytes_max.into())),
        ("read-only", policy.is_read_only.to_string()),
    ]
}

fn space_json(space: &SpaceInfo) -> Value {
    let policy = &space.policy;
    json!({
        "id": space.id.0,
        "name": space.name,
        "graph": space.graph_name,
        "graph_id": space.graph.0,
        "version": space.version,
        "default_ttl_ms": policy.default_ttl_ms,
        "feed_cap": policy.feed_cap,
        "horizon_ms": policy.horizon_ms,
        "fan_out": fan_out(policy.fan_out),
        "pull_threshold": policy.pull_threshold,
        "payload_bytes_max": policy.payload_bytes_max,
        "read_only": policy.is_read_only,
    })
}

fn time(ms: Option<u64>) -> String {
    ms.map_or_else(|| "none".to_owned(), duration)
}

fn fan_out(fan_out: FanOut) -> &'static str {
    match fan_out {
        FanOut::Auto => "auto",
        FanOut::Push => "push",
        FanOut::Pull => "pull",
    }
}
