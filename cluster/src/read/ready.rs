//! Owns the feed reads that need not wait: many at a time, from the partitions of this node as they are.
//!
//! - A page is found here only if the general way would find the same one: its home is confirmed without asking, or may
//!   answer as it is; its part of the home is enough, and everything it shows is on this node. Anything else is left to the general way.
//! - A partition is locked once for a group of pages, and once more for the payloads.
//! - What is found stays in memory that is used again. Payloads are copied into one buffer: to share each costs more than
//!   to copy the usual few hundred bytes.

use std::ops::Range;
use std::time::{Duration, Instant};

use fanfold_storage::entry::Delivery;
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId};
use fanfold_storage::partition::{FeedQuery, Partition};

use super::ask::Asker;
use super::hydrate::is_of;
use super::request::{Consistency, FeedRequest, LIMIT_MAX, Mark};
use crate::partition::PartitionHandle;
use crate::phases::RequestPhase;
use crate::position::Position;

/// Pages that are found under one lock, so that a batch that waits to be applied waits for few.
const PAGES_AT_ONCE: usize = 32;

/// Entries that are hydrated under one lock.
const ENTRIES_AT_ONCE: usize = 512;

/// Bytes of payloads gathered at a time; pages beyond go the general way, one by one.
const GATHERED_BYTES_MAX: usize = 4 << 20;

/// Memory for rows, entries and payloads that is kept; what took more is given back.
const ROWS_KEPT: usize = 8_192;
const ENTRIES_KEPT: usize = 4_096;
const GATHERED_BYTES_KEPT: usize = 1 << 20;

/// What was found of a batch of feeds.
#[derive(Debug, Default)]
pub struct ReadyFeeds {
    /// In the order asked; none where the general way has to be gone.
    pages: Vec<Option<Found>>,
    /// The rows of the pages, by the same places, and of some one more.
    rows: Vec<Vec<Delivery>>,
    /// Of the rows of hydrated pages, in their order, once they were found: what the entries say now, and where their payloads are.
    entries: Vec<Option<(Delivery, Range<usize>)>>,
    /// The payloads.
    gathered: Vec<u8>,
    /// Requests by home.
    places: Vec<(PartitionId, usize)>,
    queries: Vec<FeedQuery>,
    /// The rows of hydrated pages by the home of their entries.
    wanted: Vec<Wanted>,
    ids: Vec<EntryId>,
}

/// An entry of a hydrated page.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    home: PartitionId,
    id: EntryId,
    /// In the entries, of its page, and among the rows of that.
    place: usize,
    page: usize,
    row: usize,
}

#[derive(Debug, Clone)]
struct Found {
    space: SpaceId,
    /// How many it shows.
    rows: usize,
    /// Where the entries begin, if the page is hydrated.
    entries: Option<usize>,
    /// How old they may be, if they may be old.
    age_max: Option<Duration>,
    next: Option<EntryId>,
    mark: Mark,
    position: Position,
}

/// A page that was found at once.
#[derive(Debug)]
pub struct ReadyPage<'a> {
    /// Where to go on; none at the true end. Down to it the page is complete.
    pub next: Option<EntryId>,
    /// What a later `newer_than` counts from.
    pub mark: Mark,
    /// What the page reflects.
    pub position: Position,
    rows: &'a [Delivery],
    /// Of a hydrated page: as many as rows.
    entries: &'a [Option<(Delivery, Range<usize>)>],
    payloads: &'a [u8],
}

impl<'a> ReadyPage<'a> {
    /// The number of entries.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether a page is empty")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The bytes of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().flatten().map(|(_, payload)| payload.len()).sum()
    }

    /// The entries, newest first, with their payloads if the page is hydrated. None refers to another.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&'a Delivery, Option<&'a [u8]>)> + use<'a> {
        let Self { rows, entries, payloads, .. } = *self;
        rows.iter().enumerate().map(move |(n, row)| match entries.get(n) {
            Some(Some((entry, payload))) => (entry, Some(&payloads[payload.clone()])),
            _ => (row, None),
        })
    }
}

impl ReadyFeeds {
    /// Takes what was found of the request at this place.
    pub fn take(&mut self, place: usize) -> Option<ReadyPage<'_>> {
        let Found { rows, entries, next, mark, position, .. } = self.pages.get_mut(place)?.take()?;
        let entries = entries.map_or(0..0, |from| from..from + rows);
        let (rows, entries) = (&self.rows[place][..rows], &self.entries[entries]);
        Some(ReadyPage { next, mark, position, rows, entries, payloads: &self.gathered })
    }

    /// Finds nothing of so many requests.
    pub(crate) fn clear(&mut self, requests: usize) {
        self.pages.clear();
        self.pages.resize(requests, None);
        if self.rows.iter().map(Vec::capacity).sum::<usize>() > ROWS_KEPT {
            self.rows.clear();
        }
        self.rows.resize_with(self.rows.len().max(requests), Vec::new);
        self.entries.clear();
        self.places.clear();
        if self.entries.capacity() > ENTRIES_KEPT {
            (self.entries, self.wanted) = (Vec::new(), Vec::new());
        }
        self.gathered.clear();
        self.gathered.shrink_to(GATHERED_BYTES_KEPT);
    }

    /// Finds what can be found at once. Pages with more than `bytes_max` bytes of payloads go the general way.
    pub(crate) fn find<'r>(
        &mut self,
        asker: Asker<'_>,
        bytes_max: usize,
        count: usize,
        request: impl Fn(usize) -> &'r FeedRequest,
    ) {
        self.clear(count);
        for place in 0..count {
            let asked = request(place);
            let simple = asked.newer_than.is_none() && (1..=LIMIT_MAX).contains(&asked.limit);
            if simple {
                self.places.push((asker.home_of(asked.reader), place));
            }
        }
        self.places.sort_unstable();
        let places = std::mem::take(&mut self.places);
        for group in places.chunk_by(|a, b| a.0 == b.0).flat_map(|home| home.chunks(PAGES_AT_ONCE)) {
            let Some(home) = asker.hosted(group[0].0) else { continue };
            // Asking for the time costs as much as a part of a page.
            let may_be_old = |(_, place): &(_, usize)| request(*place).consistency.age_max().is_some();
            let age = if group.iter().any(may_be_old) { home.age() } else { None };
            let started = Instant::now();
            // A damaged partition is the general way's to tell.
            if home.read(|state| self.find_rows((&home, age), state, group, &request)).is_err() {
                group.iter().for_each(|(_, place)| self.pages[*place] = None);
            }
            let found = group.iter().filter(|(_, place)| self.pages[*place].is_some()).count();
            asker.phases().note_many(RequestPhase::Merge, started.elapsed(), found as u64);
        }
        self.places = places;
        if self.entries.is_empty() {
            return;
        }
        let hydrated = self.pages.iter().flatten().filter(|page| page.entries.is_some()).count();
        let started = Instant::now();
        self.hydrate(asker, bytes_max);
        asker.phases().note_many(RequestPhase::Hydrate, started.elapsed(), hydrated as u64);
    }

    fn find_rows<'r>(
        &mut self,
        (home, age): (&PartitionHandle, Option<Duration>),
        state: &Partition,
        group: &[(PartitionId, usize)],
        request: &impl Fn(usize) -> &'r FeedRequest,
    ) {
        let (row, id_bound) = state.feed_mark();
        let position = crate::partition::position_of(state);
        let is_reached = |at_least: &Position| {
            let ours =
                (at_least.partition, at_least.incarnation) == (position.partition, position.incarnation);
            ours && at_least.index <= position.index
        };
        let is_confirmed = home.is_confirmed();
        let is_allowed = |asked: &FeedRequest| {
            let may_answer = match asked.consistency {
                Consistency::Leader => is_confirmed,
                Consistency::AtLeast => true,
                // Who renews what is known of the age goes the general way.
                Consistency::StaleOk { .. } => asked.consistency.age_max().is_some_and(|age_max| {
                    age.is_some_and(|age| age <= age_max && home.freshness().renewal(age, age_max).is_none())
                }),
            };
            may_answer && asked.at_least.as_ref().is_none_or(is_reached)
        };
        if !group.iter().any(|(_, place)| is_allowed(request(*place))) {
            return;
        }
        let mark = Mark { partition: position.partition, incarnation: position.incarnation, row, id_bound };
        self.queries.clear();
        self.queries.extend(group.iter().map(|(_, place)| {
            let FeedRequest { space, reader, below, limit, .. } = *request(*place);
            // One more than needed tells whether the page is the last one.
            FeedQuery { space, reader, below, limit: limit as usize + 1 }
        }));
        let Self { pages, rows, queries, entries, .. } = self;
        state.feed_slices(queries, |n, slice| {
            let place = group[n].1;
            let asked = request(place);
            // A refusal is the general way's to tell.
            let Ok(slice) = slice else { return };
            if !is_allowed(asked) {
                return;
            }
            home.activity().note(asked.reader, slice.active);
            let limit = asked.limit as usize;
            let is_whole = slice.rows.len() > limit || !slice.more;
            if !slice.remote.is_empty() || !is_whole {
                return;
            }
            let found = std::mem::replace(&mut slice.rows, std::mem::take(&mut rows[place]));
            let shown = &found[..found.len().min(limit)];
            let next = shown.last().filter(|_| found.len() > limit).map(|last| last.id);
            let hydrated = asked.hydrate.then_some(entries.len());
            if asked.hydrate {
                entries.resize(entries.len() + shown.len(), None);
            }
            pages[place] = Some(Found {
                space: asked.space,
                rows: shown.len(),
                entries: hydrated,
                age_max: asked.consistency.age_max(),
                next,
                mark,
                position,
            });
            rows[place] = found;
        });
    }

    /// Finds the entries of hydrated pages.
    fn hydrate(&mut self, asker: Asker<'_>, bytes_max: usize) {
        let Self { pages, rows, entries, wanted, ids, gathered, .. } = self;
        wanted.clear();
        let mut left = vec![bytes_max; pages.len()];
        for (page, found) in pages.iter().enumerate() {
            let Some((found, from)) = found.as_ref().and_then(|found| Some((found, found.entries?))) else {
                continue;
            };
            let shown = rows[page][..found.rows].iter().enumerate();
            wanted.extend(shown.map(|(row, shown)| {
                let home = asker.home_of_entry(shown.id);
                Wanted { home, id: shown.id, place: from + row, page, row }
            }));
        }
        if !wanted.is_sorted_by_key(|wanted| wanted.home) {
            wanted.sort_by_key(|wanted| wanted.home);
        }
        let groups = wanted.chunk_by(|a, b| a.home == b.home).flat_map(|home| home.chunks(ENTRIES_AT_ONCE));
        for group in groups {
            let Some(home) = asker.hosted(group[0].home) else { continue };
            let (is_confirmed, age) = (home.is_confirmed(), home.age());
            ids.clear();
            ids.extend(group.iter().map(|wanted| wanted.id));
            // What is damaged or gone leaves its pages to the general way, as does what refers to an entry: that may be
            // anywhere.
            let _ = home.read(|state| {
                state.entries_into(ids, |n, entry| {
                    let (Wanted { place, page, row, .. }, bytes) = (group[n], entry.payload.len());
                    let is_it =
                        pages[page].as_ref().is_some_and(|found| is_of(entry, found.space, &rows[page][row]));
                    let age_max = pages[page].as_ref().and_then(|page| page.age_max);
                    let may_answer =
                        is_confirmed || age.is_some_and(|age| age_max.is_some_and(|max| age <= max));
                    let fits =
                        may_answer && bytes <= left[page] && gathered.len() + bytes <= GATHERED_BYTES_MAX;
                    if fits && is_it && entry.reference.is_none() {
                        left[page] -= bytes;
                        let from = gathered.len();
                        gathered.extend_from_slice(&entry.payload);
                        entries[place] = Some((entry.delivery(), from..gathered.len()));
                    }
                });
            });
        }
        for page in pages {
            let is_whole = page.as_ref().is_none_or(|page| {
                page.entries.is_none_or(|from| entries[from..from + page.rows].iter().all(Option::is_some))
            });
            if !is_whole {
                *page = None;
            }
        }
    }
}
