//! A small social network on Fanfold: people follow, post, reply, read their feed, mute, edit and delete.
//!
//! Start a node with `fanfold start` (or `cargo run --release -- start` in the repository), then:
//!
//! ```text
//! cargo run -p fanfold-client --example social_feed [ADDRESS]
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfold_client::{Audience, Client, EntryRef, EntryView, Page, ReferenceState, Space, Token, UserId};
use futures_util::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7117".to_owned());
    // One client per process; clones are cheap and share its connections.
    let client = Client::builder(address).deadline(Duration::from_secs(5)).connect().await?;
    let (posts, stories) = (client.space("posts"), client.space("stories"));

    // Users are numbers of the application's choice. New ones, so that the example can run again.
    let base = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
    let [ada, ben, cleo] = [UserId(base), UserId(base + 1), UserId(base + 2)];

    // Ben follows Ada and Cleo: one write, however many owners.
    client.follows().follow_many(ben, [ada, cleo]).await?;

    // The key makes a retry harmless, even one from another server of yours: it finds the first entry.
    let hello = posts.append(ada, "Hello, I am Ada.").key("hello").await?;
    let again = posts.append(ada, "Hello, I am Ada.").key("hello").await?;
    assert!(again.duplicate && again.id == hello.id);

    // A reply refers to another entry; a feed read with `hydrate` brings that along.
    let to_ada = EntryRef { owner: ada, id: hello.id };
    let reply = posts.append(cleo, "Welcome, Ada!").refer_to(to_ada).await?;

    // Stories vanish after 24 hours by themselves; this one after a minute, and only followers see it.
    let story = stories
        .append(cleo, "Sunset from my window")
        .ttl(Duration::from_secs(60))
        .audience(Audience::Followers)
        .await?;

    // An append is answered when it is durable. Its way into the feeds takes a moment; who needs to, waits.
    for token in [&hello.token, &reply.token, &story.token] {
        client.wait_delivered(token).await?;
    }
    show("Ben's feed", &posts.feed(ben).limit(20).hydrate().await?)?;
    show("Ben's stories", &stories.feed(ben).limit(20).hydrate().await?)?;

    // An edit names the version it was based on, so that no edit overwrites another unseen.
    let amended = posts.amend(ada, hello.id, 1, "Hello, I am Ada Lovelace.").await?;
    client.wait_delivered(&amended.token).await?;

    // Muting, blocking and unfollowing act at once, on what was delivered long ago, too.
    client.mute(ben, cleo).await?;
    show("Ben's feed without Cleo", &posts.feed(ben).limit(20).hydrate().await?)?;
    client.unmute(ben, cleo).await?;

    // Tokens can be kept as bytes, in a cookie for instance; a read with one sees at least what it stands for.
    let deleted = posts.delete(ada, hello.id).await?;
    let cookie = deleted.token.to_bytes();
    let token = Token::from_bytes(&cookie)?;
    let page = posts.feed(ben).limit(20).hydrate().at_least(&token).await?;
    show("Ben's feed after Ada deleted her entry", &page)?;

    // Why is it not there any more?
    let explanation = posts.explain(ben, hello.id).await?;
    writeln!(
        io::stdout(),
        "\nIs entry {} in Ben's feed? {}: {:?}",
        hello.id,
        explanation.shown,
        explanation.reasons
    )?;

    import(&posts, ada).await?;
    let counts = client.follows().counts(ada).await?;
    writeln!(io::stdout(), "Ada has {} follower(s) and follows {}.", counts.followers, counts.followees)?;
    client.close().await?;
    Ok(())
}

/// Appends many entries with one call, and reads them back page by page.
async fn import(posts: &Space, owner: UserId) -> Result<(), Box<dyn Error>> {
    let entries: Vec<_> =
        (1..=250).map(|n| fanfold_client::NewEntry::new(owner, format!("Diary, day {n}"))).collect();
    for appended in posts.append_many(entries).await? {
        // Each entry is answered for itself: one may be refused and the others accepted.
        appended?;
    }
    let mut count = 0;
    let mut pages = posts.timeline(owner).limit(100).pages();
    while let Some(page) = pages.try_next().await? {
        count += page.entries.len();
    }
    writeln!(io::stdout(), "Ada's timeline has {count} entries.")?;
    Ok(())
}

fn show(title: &str, page: &Page) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{title}:")?;
    for entry in &page.entries {
        writeln!(out, "  {}", line(entry))?;
        match entry.reference.as_ref().map(|reference| &reference.state) {
            Some(ReferenceState::Live(original)) => writeln!(out, "    in reply to {}", line(original))?,
            Some(ReferenceState::Gone) => writeln!(out, "    in reply to an entry that is gone")?,
            Some(ReferenceState::NotHydrated) | None => {}
        }
    }
    Ok(())
}

fn line(entry: &EntryView) -> String {
    let text = entry.payload.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    format!("user {}: {text}", entry.author)
}
