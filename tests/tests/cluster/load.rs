//! Owns what goes on beside the run's own operations while nodes are in trouble: reads of feeds, scans that are gone on
//! with at the end, and timelines that several write at the same time.
//!
//! - A read fails only if it was not answered for longer than any trouble lasts.
//! - Timelines that many write have a history; their users follow nobody, so that their feeds are their timelines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanfold_client::{Client, Cursor, EntryId, Error, Page, UserId};
use fanfold_server::workload::access::Access;
use fanfold_server::workload::mirror::Mirror;
use futures_util::TryStreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::{Contradiction, Done, Event, check};

/// Tasks that read feeds.
const READERS: u64 = 4;

/// Between two reads of one of them.
const READ_EVERY: Duration = Duration::from_millis(40);

/// One of so many pages is kept, to go on from.
const BOOKMARK_EVERY: u64 = 40;

/// Entries on a page that is kept.
const PAGE_LIMIT: u32 = 20;

/// The first of the users with a history, beyond those of any graph.
pub const FIRST_USER: u64 = 1 << 40;

/// Timelines with a history, and who writes and reads each.
const TIMELINES: u64 = 8;
const WRITERS: u64 = 3;

/// How long what a writer does may take: less than most outages, so that outcomes are left open.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// Entries on a page of a history.
const HISTORY_LIMIT: usize = 30;

/// Where a scan is to go on.
#[derive(Debug)]
struct Bookmark {
    reader: UserId,
    next: Cursor,
    /// What was above was shown.
    complete_to: EntryId,
}

/// Reads of feeds under way.
pub struct Reads {
    stop: CancellationToken,
    tasks: JoinSet<Vec<Bookmark>>,
    pages: Arc<AtomicU64>,
    has_kept: Arc<watch::Sender<bool>>,
}

/// Scans that were begun.
pub struct Scans(Vec<Bookmark>);

impl Reads {
    pub fn begin(access: &Access, users: &Arc<[UserId]>, seed: u64) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (pages, has_kept) = (Arc::default(), Arc::default());
        for task in 0..READERS {
            let rng = ChaCha8Rng::seed_from_u64(seed ^ task);
            let tells = (Arc::clone(&pages), Arc::clone(&has_kept));
            tasks.spawn(read(access.clone(), users.clone(), rng, stop.clone(), tells));
        }
        Self { stop, tasks, pages, has_kept }
    }

    /// Waits until there is a scan to go on with.
    pub async fn has_begun_a_scan(&self) {
        self.has_kept.subscribe().wait_for(|has_kept| *has_kept).await.unwrap();
    }

    /// Ends them: how many pages were read, and the scans that were begun.
    pub async fn end(self) -> (u64, Scans) {
        self.stop.cancel();
        let kept = self.tasks.join_all().await;
        (self.pages.load(Ordering::Relaxed), Scans(kept.into_iter().flatten().collect()))
    }
}

async fn read(
    access: Access,
    users: Arc<[UserId]>,
    mut rng: ChaCha8Rng,
    stop: CancellationToken,
    (pages, has_kept): (Arc<AtomicU64>, Arc<watch::Sender<bool>>),
) -> Vec<Bookmark> {
    let mut kept = Vec::new();
    while !stop.is_cancelled() {
        let reader = users[rng.random_range(0..users.len())];
        let read = access.space.feed(reader).limit(PAGE_LIMIT);
        let page = if rng.random() { read.hydrate().await } else { read.await };
        let page = page.unwrap_or_else(|error| panic!("the feed of {reader} was not read: {error}"));
        let descends = page.entries.windows(2).all(|pair| pair[0].id > pair[1].id);
        assert!(descends, "the feed of {reader} is out of order or repeats: {page:?}");
        if pages.fetch_add(1, Ordering::Relaxed).is_multiple_of(BOOKMARK_EVERY)
            && let Some(next) = page.next
        {
            kept.push(Bookmark { reader, next, complete_to: page.complete_to });
            has_kept.send_replace(true);
        }
        tokio::time::sleep(READ_EVERY).await;
    }
    kept
}

impl Scans {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The reader of one of them.
    pub fn reader(&self) -> Option<UserId> {
        self.0.first().map(|bookmark| bookmark.reader)
    }

    /// Goes on with all of them: what comes should be what the feed has there now. Answers what is not so.
    pub async fn go_on(self, access: &Access, mirror: &Mirror) -> Vec<String> {
        let mut wrong = Vec::new();
        for Bookmark { reader, next, complete_to } in self.0 {
            let pages = access.space.feed(reader).cursor(next).limit(1_000).pages();
            let pages: Vec<Page> = pages.try_collect().await.unwrap();
            let shown: Vec<EntryId> =
                pages.iter().flat_map(|page| &page.entries).map(|entry| entry.id).collect();
            let mut wanted = mirror.feed(reader);
            wanted.retain(|id| *id < complete_to);
            if shown != wanted {
                wrong.push(format!(
                    "the scan of {reader} below {complete_to} shows {shown:?}, not {wanted:?}"
                ));
            }
        }
        wrong
    }
}

/// Timelines that are written under way, with their histories so far.
pub struct Histories {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    timelines: Vec<Arc<Written>>,
}

struct Written {
    owner: UserId,
    begun: Instant,
    next_tag: AtomicU64,
    events: Mutex<Vec<Event>>,
    /// The newest entries that somebody knows to be there, or to have been.
    known: Mutex<Vec<EntryId>>,
    unknown: AtomicU64,
}

/// What histories came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub events: usize,
    /// Writes whose outcome nobody knew.
    pub unknown: u64,
}

impl Histories {
    /// Begins, each task with a client of its own.
    pub async fn begin(clients: impl AsyncFn() -> Client, seed: u64) -> Self {
        let (stop, mut tasks, mut timelines) = (CancellationToken::new(), JoinSet::new(), Vec::new());
        for at in 0..TIMELINES {
            let written = Arc::new(Written {
                owner: UserId(FIRST_USER + at),
                begun: Instant::now(),
                next_tag: AtomicU64::new(1),
                events: Mutex::default(),
                known: Mutex::default(),
                unknown: AtomicU64::new(0),
            });
            for writer in 0..WRITERS {
                let rng = ChaCha8Rng::seed_from_u64(seed ^ (at << 8) ^ writer);
                tasks.spawn(written.clone().write(clients().await, rng, stop.clone()));
            }
            timelines.push(written);
        }
        Self { stop, tasks, timelines }
    }

    /// Ends all writes, and checks the histories against what the timelines show now.
    pub async fn end(self, client: &Client) -> Result<Checked, (UserId, Contradiction)> {
        self.stop.cancel();
        self.tasks.join_all().await;
        let mut checked = Checked::default();
        for written in self.timelines {
            let pages = client.space("posts").timeline(written.owner).limit(1_000).hydrate().pages();
            let pages: Vec<Page> = pages.try_collect().await.unwrap();
            let last = pages.iter().flat_map(shown).collect();
            let events = std::mem::take(&mut *written.events.lock().unwrap());
            checked.events += check(events, last).map_err(|found| (written.owner, found))?;
            checked.unknown += written.unknown.load(Ordering::Relaxed);
        }
        Ok(checked)
    }
}

/// What a hydrated page of a history shows.
fn shown(page: &Page) -> Vec<(EntryId, u64)> {
    let tag = |payload: &[u8]| u64::from_le_bytes(payload.try_into().unwrap());
    page.entries.iter().map(|entry| (entry.id, tag(entry.payload.as_ref().unwrap()))).collect()
}

impl Written {
    async fn write(self: Arc<Self>, client: Client, mut rng: ChaCha8Rng, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let called = self.begun.elapsed().as_nanos() as u64;
            let done = match rng.random_range(0..10) {
                0..4 => self.append(&client).await,
                4..6 => self.delete(&client, &mut rng).await,
                _ => self.page(&client, rng.random()).await,
            };
            let answered = self.begun.elapsed().as_nanos() as u64;
            if let Some(done) = done {
                self.events.lock().unwrap().push(Event { called, answered, done });
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(10..150))).await;
        }
    }

    async fn append(&self, client: &Client) -> Option<Done> {
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        let append = client.space("posts").append(self.owner, tag.to_le_bytes().to_vec());
        let id = self.outcome(append.deadline(WRITE_DEADLINE).await).ok()?.map(|appended| appended.id);
        if let Some(id) = id {
            let mut known = self.known.lock().unwrap();
            known.push(id);
            let surplus = known.len().saturating_sub(HISTORY_LIMIT / 2);
            known.drain(..surplus);
        }
        Some(Done::Append { tag, id })
    }

    async fn delete(&self, client: &Client, rng: &mut ChaCha8Rng) -> Option<Done> {
        let id = {
            let known = self.known.lock().unwrap();
            known.get(rng.random_range(0..known.len().max(1))).copied()?
        };
        let deleted = client.space("posts").delete(self.owner, id).deadline(WRITE_DEADLINE).await;
        let existed = self.outcome(deleted).ok()?.map(|deleted| deleted.existed);
        Some(Done::Delete { id, existed })
    }

    /// A page of the timeline with its payloads, or one of the feed without: a feed's payloads are fetched when the ids are
    /// known, and what is deleted between leaves the page, so that it is not of one moment.
    async fn page(&self, client: &Client, of_feed: bool) -> Option<Done> {
        let (space, limit) = (client.space("posts"), HISTORY_LIMIT as u32);
        let read = if of_feed {
            space.feed(self.owner).limit(limit).deadline(WRITE_DEADLINE).await
        } else {
            space.timeline(self.owner).limit(limit).hydrate().deadline(WRITE_DEADLINE).await
        };
        let page = read.ok().filter(|page| page.short_of.is_empty())?;
        let limit = HISTORY_LIMIT;
        Some(if of_feed {
            Done::Ids { limit, shown: page.entries.iter().map(|entry| entry.id).collect() }
        } else {
            Done::Page { limit, shown: shown(&page) }
        })
    }

    /// What came of a write: nothing, if nobody knows. An error: it certainly was not done.
    fn outcome<T>(&self, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.may_have_applied() => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
