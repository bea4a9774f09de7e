//! Owns the commands that write entries by hand: `post`, `delete`, `expire`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use fanfold_client::Audience;
use fanfold_protocol::message::EntryRef;
use fanfold_protocol::{EntryId, UserId};
use serde_json::json;

use super::error::CliError;
use super::output::{id, made, time};
use super::remote::Remote;

/// Who may see an entry.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum AudienceChoice {
    /// Everybody.
    Public,
    /// The owner's followers and the owner.
    Followers,
    /// The owner.
    Private,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanfold post 2 'hello'\n  fanfold post 2 'gone tomorrow' --space stories --ttl 24h"
)]
pub(super) struct PostArgs {
    /// Whose timeline it is appended to.
    owner: u64,
    /// The payload, as text.
    text: String,
    /// The space.
    #[arg(long, default_value = "posts")]
    space: String,
    /// Who wrote it, if not the owner.
    #[arg(long, value_name = "USER")]
    author: Option<u64>,
    /// Who may see it.
    #[arg(long, value_enum, default_value = "public")]
    audience: AudienceChoice,
    /// How long it lives, such as `24h`, or `never`; the space's default otherwise.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    ttl: Option<Lifetime>,
    /// A key of the application's: a second post under it within the window is the same entry.
    #[arg(long)]
    key: Option<String>,
    /// The entry it replies to or repeats, as OWNER:ENTRY.
    #[arg(long, value_name = "OWNER:ENTRY", value_parser = entry_ref)]
    refer_to: Option<EntryRef>,
    /// Return when it is durable, not only when it has reached every feed.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanfold delete 2 3557000000000000123")]
pub(super) struct DeleteArgs {
    /// The owner of the entry.
    owner: u64,
    /// The entry.
    entry: u64,
    /// The space.
    #[arg(long, default_value = "posts")]
    space: String,
    /// Return when it is durable, not only when it has left every feed.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfold expire 2 3557000000000000123 never --space stories    # a story becomes a highlight"
)]
pub(super) struct ExpireArgs {
    /// The owner of the entry.
    owner: u64,
    /// The entry.
    entry: u64,
    /// From now, such as `24h`, or `never`.
    #[arg(value_name = "DURATION", value_parser = lifetime)]
    after: Lifetime,
    /// The space.
    #[arg(long, default_value = "posts")]
    space: String,
    #[command(flatten)]
    remote: Remote,
}

/// How long something lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// For ever.
    Never,
    /// This long.
    For(Duration),
}

/// Reads a duration such as `90m`, or `never` or `none`.
pub(super) fn lifetime(text: &str) -> Result<Lifetime, humantime::DurationError> {
    match text {
        "never" | "none" => Ok(Lifetime::Never),
        _ => humantime::parse_duration(text).map(Lifetime::For),
    }
}

fn entry_ref(text: &str) -> Result<EntryRef, &'static str> {
    let parsed = text.split_once(':').and_then(|(owner, id)| Some((owner.parse().ok()?, id.parse().ok()?)));
    let (owner, id) = parsed.ok_or("expected OWNER:ENTRY, two numbers")?;
    Ok(EntryRef { owner: UserId(owner), id: EntryId(id) })
}

/// Appends one entry.
pub(super) async fn post(args: PostArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let space = client.space(args.space.as_str());
            let audience = match args.audience {
                AudienceChoice::Public => Audience::Public,
                AudienceChoice::Followers => Audience::Followers,
                AudienceChoice::Private => Audience::Private,
            };
            let mut call = space.append(UserId(args.owner), args.text).audience(audience);
            call = match args.ttl {
                None => call,
                Some(Lifetime::Never) => call.never_expires(),
                Some(Lifetime::For(ttl)) => call.ttl(ttl),
            };
            if let Some(author) = args.author {
                call = call.author(UserId(author));
            }
            if let Some(key) = args.key {
                call = call.key(key);
            }
            if let Some(reference) = args.refer_to {
                call = call.refer_to(reference);
            }
            let appended = call.await.map_err(|error| args.remote.failed(error))?;
            if !args.no_wait {
                client.wait_delivered(&appended.token).await.map_err(|error| args.remote.failed(error))?;
            }
            args.remote.output.show(
        || json!({ "id": id(appended.id), "duplicate": appended.duplicate, "time": made(appended.id) }),
        || {
            format!(
                "{}{}",
                appended.id,
                if appended.duplicate { " (made earlier under this key)" } else { "" }
            )
        },
    )
        })
        .await
}

/// Deletes one entry.
pub(super) async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let call = client.space(args.space.as_str()).delete(UserId(args.owner), EntryId(args.entry));
            let deleted = call.await.map_err(|error| args.remote.failed(error))?;
            if !args.no_wait {
                client.wait_delivered(&deleted.token).await.map_err(|error| args.remote.failed(error))?;
            }
            args.remote.output.show(
                || json!({ "existed": deleted.existed }),
                || if deleted.existed { "deleted".to_owned() } else { "was gone already".to_owned() },
            )
        })
        .await
}

/// Sets or clears the expiry of one entry.
pub(super) async fn expire(args: ExpireArgs) -> Result<(), CliError> {
    args.remote
        .with_client(async |client| {
            let space = client.space(args.space.as_str());
            let (owner, entry) = (UserId(args.owner), EntryId(args.entry));
            let set = match args.after {
                Lifetime::Never => space.clear_expiry(owner, entry).await,
                Lifetime::For(after) => space.set_expiry(owner, entry, after).await,
            };
            let expiry = set.map_err(|error| args.remote.failed(error))?.expiry.map(time);
            args.remote.output.show(
                || json!({ "expiry": expiry }),
                || expiry.clone().map_or_else(|| "never expires".to_owned(), |t| format!("expires {t}")),
            )
        })
        .await
}
