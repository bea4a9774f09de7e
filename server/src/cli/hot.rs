//! Owns the command that shows what is hot.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use fanfold_client::{Hot, HotBy, HotList};
use fanfold_protocol::message::HOT_USERS_MAX;
use serde_json::json;

use super::error::CliError;
use super::output::{duration, id, table, text};
use super::remote::{Remote, answered};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Reads of timelines and feeds.
    Reads,
    /// Writes at the user's home.
    Writes,
    /// Deliveries of the owner's new entries: to each follower, one for each entry.
    Fanout,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfold hot --by fanout --limit 5\n\nWhat clients asked in the last one to two minutes, summed over the nodes that answer; busy connections are sampled. By fan-out, what was delivered meanwhile: to followers of that user, in that partition."
)]
pub(super) struct HotArgs {
    /// What is counted.
    #[arg(long, value_enum, default_value_t = By::Reads)]
    by: By,
    /// Users and partitions shown.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    #[command(flatten)]
    remote: Remote,
}

/// Shows what is hot.
pub(super) async fn run(args: HotArgs) -> Result<(), CliError> {
    let by = match args.by {
        By::Reads => HotBy::Reads,
        By::Writes => HotBy::Writes,
        By::Fanout => HotBy::FanOut,
    };
    let remote = &args.remote;
    // Who is the hottest of all need not be so on any one node.
    let look = async |client: &fanfold_client::Client| {
        let (lists, _) = answered(remote, client.hot(by, HOT_USERS_MAX as u32).await)?;
        let answered: Vec<HotList> = lists.into_iter().map(|(_, list)| list).collect();
        let limit = args.limit as usize;
        let users = sum(answered.iter().flat_map(|list| &list.users), limit);
        let partitions = sum(answered.iter().flat_map(|list| &list.partitions), limit);
        let over_ms = answered.iter().map(|list| list.over_ms).max().unwrap_or_default();
        remote.output.show(
            || {
                let user = |hot: &Hot<_>| json!({ "user": id(hot.of), "count": hot.count, "error": hot.error });
                let partition = |hot: &Hot<fanfold_client::PartitionId>| {
                    json!({ "partition": hot.of.0, "count": hot.count })
                };
                json!({
                    "over_ms": over_ms,
                    "users": users.iter().map(user).collect::<Vec<_>>(),
                    "partitions": partitions.iter().map(partition).collect::<Vec<_>>(),
                })
            },
            || {
                let head = format!("in the last {}", duration(over_ms / 1_000 * 1_000));
                let mut by_user = table(["user", "count", "error"]);
                for hot in &users {
                    by_user.add_row([hot.of.to_string(), hot.count.to_string(), format!("<= {}", hot.error)]);
                }
                let mut by_partition = table(["partition", "count"]);
                for hot in &partitions {
                    by_partition.add_row([hot.of.to_string(), hot.count.to_string()]);
                }
                [head, text(&by_user), text(&by_partition)].join("\n\n")
            },
        )
    };
    remote.with_client(look).await
}

/// The counts of several nodes together, the hottest first.
fn sum<'a, T: Copy + Ord + 'a>(lists: impl Iterator<Item = &'a Hot<T>>, limit: usize) -> Vec<Hot<T>> {
    let mut sums: BTreeMap<T, (u64, u64)> = BTreeMap::new();
    for hot in lists {
        let sum = sums.entry(hot.of).or_default();
        sum.0 += hot.count;
        sum.1 += hot.error;
    }
    let mut all: Vec<_> = sums.into_iter().map(|(of, (count, error))| Hot { of, count, error }).collect();
    all.sort_unstable_by_key(|hot| std::cmp::Reverse(hot.count));
    all.truncate(limit);
    all
}
