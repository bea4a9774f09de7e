//! Owns `feed explain`: the reasons of an explanation in words.

use clap::Args;
use fanfold_protocol::message::{Explanation, Reason};
use fanfold_protocol::{EntryId, UserId};
use serde_json::{Value, json};

use super::error::CliError;
use super::feed::audience;
use super::output::time;
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Whose feed.
    reader: u64,
    /// Which entry.
    entry: u64,
    /// The space.
    #[arg(long, default_value = "posts")]
    space: String,
    #[command(flatten)]
    remote: Remote,
}

/// Asks and shows.
pub(super) async fn run(args: ExplainArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let call = client.space(&*args.space).explain(UserId(args.reader), EntryId(args.entry));
            let explanation = call.await.map_err(|error| args.remote.failed(error))?;
            args.remote.output.show(
                || json!({ "shown": explanation.shown, "reasons": reasons(&explanation) }),
                || explained(args.reader, args.entry, &explanation),
            )
        })
        .await
}

fn reasons(explanation: &Explanation) -> Vec<Value> {
    let reason = |r: &Reason| json!({ "reason": name(r), "text": words(r) });
    explanation.reasons.iter().map(reason).collect()
}

fn explained(reader: u64, entry: u64, explanation: &Explanation) -> String {
    let verb = if explanation.shown { "is" } else { "is not" };
    let mut out = format!("entry {entry} {verb} in the feed of {reader}:");
    for reason in &explanation.reasons {
        out.push_str("\n  - ");
        out.push_str(&words(reason));
    }
    out
}

fn name(reason: &Reason) -> &'static str {
    match reason {
        Reason::OwnEntry => "own_entry",
        Reason::FollowedSince(_) => "followed_since",
        Reason::NotFollowed => "not_followed",
        Reason::Pushed => "pushed",
        Reason::Pulled => "pulled",
        Reason::BelowFloor { .. } => "below_floor",
        Reason::NotFilledYet => "not_filled_yet",
        Reason::OnItsWay { .. } => "on_its_way",
        Reason::Muted(_) => "muted",
        Reason::Blocked { .. } => "blocked",
        Reason::Expired(_) => "expired",
        Reason::Deleted => "deleted",
        Reason::AudienceExcludes(_) => "audience_excludes",
        Reason::BelowHorizon(_) => "below_horizon",
        Reason::PendingSlice => "pending_slice",
        _ => "other",
    }
}

fn words(reason: &Reason) -> String {
    match reason {
        Reason::OwnEntry => "it is the reader's own".to_owned(),
        Reason::FollowedSince(since) => format!("the reader follows the owner since {}", time(*since)),
        Reason::NotFollowed => "the reader does not follow the owner".to_owned(),
        Reason::Pushed => "it was pushed: the feed holds a reference to it".to_owned(),
        Reason::Pulled => "it is pulled: merged from the owner's recent entries when the feed is read".to_owned(),
        Reason::BelowFloor { floor } => {
            format!("it lies at or below floor {floor}, so the owner's timeline is read for it")
        }
        Reason::NotFilledYet => {
            "the reader's partition waits for the owner's recent entries; the owner's timeline is read meanwhile"
                .to_owned()
        }
        Reason::OnItsWay { source, position, acknowledged } => format!(
            "it is on its way: event {position} of partition {source}, and the reader's partition has \
             acknowledged {acknowledged}"
        ),
        Reason::Muted(user) => format!("the reader mutes user {user}"),
        Reason::Blocked { blocker, blocked } => format!("user {blocker} blocks user {blocked}"),
        Reason::Expired(at) => format!("it expired at {}", time(*at)),
        Reason::Deleted => "it was deleted, or never existed".to_owned(),
        Reason::AudienceExcludes(who) => {
            format!("its audience ({}) does not include the reader", audience(*who))
        }
        Reason::BelowHorizon(at) => format!("it is older than the space's horizon, which stands at {}", time(*at)),
        Reason::PendingSlice => "its fan-out is under way; until it has reached this feed it is pulled".to_owned(),
        _ => "something this version of the program cannot name; use the one of the node".to_owned(),
    }
}
