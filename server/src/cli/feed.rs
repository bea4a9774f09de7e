//! Owns the commands that read: `timeline`, `feed`, `feed explain`.

use clap::{Args, Subcommand};
use fanfold_client::{Error, Page};
use fanfold_protocol::UserId;
use fanfold_protocol::message::{Audience, EntryView, ReferenceState, ReferenceView, ShortReason};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::error::CliError;
use super::explain;
use super::output::{id, made, table, text, time};
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct Paging {
    /// Entries on one page, 1 to 1000.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Pages to show.
    #[arg(long, default_value_t = 1)]
    pages: usize,
    /// The space.
    #[arg(long, default_value = "posts")]
    space: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanfold timeline 2 --viewer 1")]
pub(super) struct TimelineArgs {
    /// Whose timeline.
    owner: u64,
    /// Through whose eyes; otherwise everything is shown.
    #[arg(long, value_name = "USER")]
    viewer: Option<u64>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  fanfold feed 1 --pages 3\n  fanfold feed explain 1 3557000000000000123"
)]
pub(super) struct FeedArgs {
    #[command(subcommand)]
    command: Option<FeedCommand>,
    /// Whose feed.
    #[arg(required = true)]
    reader: Option<u64>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum FeedCommand {
    /// Says why an entry is, or is not, in a reader's feed.
    #[command(after_help = "Example:\n  fanfold feed explain 1 3557000000000000123")]
    Explain(explain::ExplainArgs),
}

/// Shows a timeline.
pub(super) async fn timeline(args: TimelineArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let space = client.space(&*args.paging.space);
            let mut read = space.timeline(UserId(args.owner)).limit(args.paging.limit).hydrate();
            if let Some(viewer) = args.viewer {
                read = read.viewer(UserId(viewer));
            }
            show(&args.remote, read.pages(), args.paging.pages).await
        })
        .await
}

/// Shows a feed, or explains one entry of it.
pub(super) async fn feed(args: FeedArgs) -> Result<(), CliError> {
    if let Some(FeedCommand::Explain(args)) = args.command {
        return explain::run(args).await;
    }
    args.remote
        .with_client(async |client| {
            let reader = UserId(args.reader.expect("clap requires a reader where there is no subcommand"));
            let read = client.space(&*args.paging.space).feed(reader).limit(args.paging.limit).hydrate();
            show(&args.remote, read.pages(), args.paging.pages).await
        })
        .await
}

/// Shows pages as they come; as JSON, one object a page and line.
async fn show(
    remote: &Remote,
    pages: impl Stream<Item = Result<Page, Error>>,
    count: usize,
) -> Result<(), CliError> {
    let mut pages = std::pin::pin!(pages.take(count.max(1)));
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| remote.failed(error))?;
        remote.output.show(|| page_json(&page), || page_text(&page))?;
        for reason in &page.short_of {
            eprintln!("fanfold: the page is short: {}", short(*reason));
        }
    }
    Ok(())
}

fn page_text(page: &Page) -> String {
    if page.entries.is_empty() {
        return "no entries".to_owned();
    }
    let mut rows = table(["entry", "time", "owner", "author", "audience", "expires", "refers to", "payload"]);
    for entry in &page.entries {
        rows.add_row([
            entry.id.to_string(),
            made(entry.id),
            entry.owner.to_string(),
            entry.author.to_string(),
            audience(entry.audience).to_owned(),
            entry.expiry.map_or_else(|| "never".to_owned(), time),
            entry.reference.as_ref().map_or_else(|| "-".to_owned(), reference_text),
            payload_text(entry),
        ]);
    }
    text(&rows)
}

fn page_json(page: &Page) -> Value {
    json!({
        "entries": page.entries.iter().map(entry_json).collect::<Vec<_>>(),
        "complete_to": id(page.complete_to),
        "more": page.next.is_some(),
        "short_of": page.short_of.iter().copied().map(short).collect::<Vec<_>>(),
    })
}

fn entry_json(entry: &EntryView) -> Value {
    json!({
        "id": id(entry.id),
        "time": made(entry.id),
        "owner": id(entry.owner),
        "author": id(entry.author),
        "audience": audience(entry.audience),
        "version": entry.version,
        "expiry": entry.expiry.map(time),
        "payload": entry.payload.as_ref().map(|p| String::from_utf8_lossy(p).into_owned()),
        "reference": entry.reference.as_ref().map(reference_json),
    })
}

fn reference_json(reference: &ReferenceView) -> Value {
    let state = match &reference.state {
        ReferenceState::Live(entry) => return entry_json(entry),
        ReferenceState::Gone => "gone",
        ReferenceState::NotHydrated => "not hydrated",
    };
    json!({ "id": id(reference.id), "owner": id(reference.owner), "state": state })
}

fn reference_text(reference: &ReferenceView) -> String {
    let gone = if reference.state == ReferenceState::Gone { " (gone)" } else { "" };
    format!("{}:{}{gone}", reference.owner, reference.id)
}

/// The longest part of a payload that a table shows, in characters.
const PAYLOAD_CHARS_MAX: usize = 60;

fn payload_text(entry: &EntryView) -> String {
    let payload = entry.payload.as_deref().unwrap_or_default();
    let whole = String::from_utf8_lossy(payload);
    let mut shown: String =
        whole.chars().take(PAYLOAD_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if whole.chars().nth(PAYLOAD_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The name of an audience.
pub(super) fn audience(audience: Audience) -> &'static str {
    match audience {
        Audience::Public => "public",
        Audience::Followers => "followers",
        Audience::Private => "private",
    }
}

fn short(reason: ShortReason) -> String {
    match reason {
        ShortReason::Unreachable(partition) => format!("partition {partition} could not be asked"),
        ShortReason::Spent(budget) => format!("a budget of the read was spent ({budget:?})"),
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::EntryId;

    use super::*;

    fn entry(payload: &'static [u8]) -> EntryView {
        EntryView {
            id: EntryId(1 << 30),
            owner: UserId(2),
            author: UserId(2),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            payload: Some(payload.into()),
            reference: None,
        }
    }

    #[test]
    fn payloads_never_break_the_table() {
        assert_eq!(payload_text(&entry(b"a\nb\tc")), "a b c");
        assert_eq!(payload_text(&entry(b"\xff\xfe")), "\u{fffd}\u{fffd}");
        let long = payload_text(&entry(&[b'x'; 100]));
        assert_eq!(long.chars().count(), PAYLOAD_CHARS_MAX + 1);
    }

    #[test]
    fn ids_are_strings_in_json() {
        assert_eq!(entry_json(&entry(b"hi"))["id"], json!("1073741824"));
    }
}
