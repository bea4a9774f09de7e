//! Owns what is sent: the graph, the posts and reads of a measurement, and the reads that compare feeds with the oracle.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold_protocol::Status;

use super::error::FanfoldError;
use super::job::{Heard, Job, Next, Plan, Sent, Waited};
use super::oracle::Oracle;
use super::page::{self, Asked, PageCheck, PageError, Payloads};
use super::stages::{STAGES, StageTally, Stages};
use super::windows::Windows;
use crate::load::graph::BenchGraph;
use crate::load::target::{MicrosHistogram, micros_histogram};

/// Follows everybody by the graph.
#[derive(Debug)]
pub(super) struct FollowAll<'a> {
    graph: &'a BenchGraph,
    next: u32,
    /// How many owners each reader follows, celebrities not counted; readers begin with 1.
    pub(super) followed: Vec<u32>,
    /// Edges made so far.
    pub(super) edges: u64,
}

impl<'a> FollowAll<'a> {
    pub(super) fn new(graph: &'a BenchGraph) -> Self {
        Self { graph, next: 1, followed: Vec::new(), edges: 0 }
    }
}

impl Plan for FollowAll<'_> {
    fn next(&mut self, now: Instant) -> Next {
        while self.next <= self.graph.users() {
            let reader = self.next;
            self.next += 1;
            let mut owners = Vec::new();
            self.graph.followees(reader, &mut owners);
            self.followed.push(owners.len() as u32);
            owners.extend(self.graph.celebrities_of(reader));
            if !owners.is_empty() {
                return Next::Send(Job::Follow { reader, owners }, now);
            }
        }
        Next::Done
    }

    fn heard(&mut self, _: &Sent, heard: &Heard<'_>, _: Instant) -> Result<Option<Job>, FanfoldError> {
        if let Heard::Followed { changed } = heard {
            self.edges += u64::from(*changed);
        }
        Ok(None)
    }
}

/// Makes everybody follow one owner.
#[derive(Debug)]
pub(super) struct FollowOne {
    pub(super) owner: u32,
    pub(super) readers: std::ops::RangeInclusive<u32>,
    pub(super) edges: u64,
}

impl Plan for FollowOne {
    fn next(&mut self, now: Instant) -> Next {
        match self.readers.next() {
            Some(reader) => Next::Send(Job::Follow { reader, owners: vec![self.owner] }, now),
            None => Next::Done,
        }
    }

    fn heard(&mut self, _: &Sent, heard: &Heard<'_>, _: Instant) -> Result<Option<Job>, FanfoldError> {
        if let Heard::Followed { changed } = heard {
            self.edges += u64::from(*changed);
        }
        Ok(None)
    }
}

/// When the requests of a [`Traffic`] end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// After so many.
    Count(u64),
    /// When so much time has passed.
    Elapsed(Duration),
    /// When its stages are over.
    Over,
}

/// One owner's posts beside the others.
#[derive(Debug)]
pub(super) struct Whale {
    pub(super) owner: u32,
    pub(super) payload_bytes: u32,
    pub(super) pause: Duration,
    pub(super) due: Instant,
}

/// Reads at a pace, on connections of their own, beside what else is sent.
pub(super) struct ReadsApart<'a> {
    /// The read of a number from 0.
    pub(super) make: Box<dyn FnMut(u64) -> Job + 'a>,
    /// Reads a second.
    pub(super) rate: f64,
    pub(super) issued: u64,
}

impl std::fmt::Debug for ReadsApart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadsApart").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// Posts and reads, as fast as they are answered or at a pace, with what came of them.
#[derive(Debug)]
pub(super) struct Traffic<'a, F> {
    make: F,
    oracle: &'a mut Oracle,
    until: Until,
    /// Requests a second; none as fast as they are answered.
    rate: Option<f64>,
    /// Each so many posts one is followed to its last delivery; 0 for none.
    sample_every: u64,
    whale: Option<Whale>,
    apart: Option<ReadsApart<'a>>,
    pages: Option<PageCheck>,
    windows: Option<Windows>,
    stages: Option<(Stages, [StageTally; STAGES])>,
    begun: Instant,
    issued: u64,
    /// What came of it.
    pub(super) tally: Tally,
}

/// What came of a traffic.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) posts: u64,
    pub(super) reads: u64,
    pub(super) post_micros: MicrosHistogram,
    pub(super) last_delivery_micros: MicrosHistogram,
    pub(super) post_to_last_micros: MicrosHistogram,
    pub(super) read_micros: MicrosHistogram,
    pub(super) whale_micros: MicrosHistogram,
    /// When the last answer came.
    pub(super) ended: Instant,
}

impl<'a, F: FnMut(u64) -> Job> Traffic<'a, F> {
    /// Traffic of what `make` makes of the numbers from 0.
    pub(super) fn new(make: F, oracle: &'a mut Oracle, until: Until, rate: Option<f64>) -> Self {
        let begun = Instant::now();
        Self {
            make,
            oracle,
            until,
            rate,
            sample_every: 0,
            whale: None,
            apart: None,
            pages: None,
            windows: None,
            stages: None,
            begun,
            issued: 0,
            tally: Tally {
                posts: 0,
                reads: 0,
                post_micros: micros_histogram(),
                last_delivery_micros: micros_histogram(),
                post_to_last_micros: micros_histogram(),
                read_micros: micros_histogram(),
                whale_micros: micros_histogram(),
                ended: begun,
            },
        }
    }

    /// Follows each `every`th post to its last delivery.
    pub(super) fn sampling(self, every: u64) -> Self {
        Self { sample_every: every, ..self }
    }

    /// With a whale beside.
    pub(super) fn with_whale(self, whale: Option<Whale>) -> Self {
        Self { whale, ..self }
    }

    /// With reads beside.
    pub(super) fn with_reads_apart(self, apart: Option<ReadsApart<'a>>) -> Self {
        Self { apart, ..self }
    }

    /// Looks at every page that is read.
    pub(super) fn checking(self, pages: PageCheck) -> Self {
        Self { pages: Some(pages), ..self }
    }

    /// With figures for each window of time.
    pub(super) fn by_windows(self, window: Option<Duration>) -> Self {
        let begun = self.begun;
        Self { windows: window.map(|window| Windows::new(begun, window)), ..self }
    }

    /// With figures for each of these stages.
    pub(super) fn in_stages(self, stages: Stages) -> Self {
        let tallies = std::array::from_fn(|_| StageTally::new());
        Self { stages: Some((stages, tallies)), ..self }
    }

    /// What came of it by stages and by windows.
    pub(super) fn into_stages(self) -> (Vec<StageTally>, Option<Windows>) {
        (self.stages.into_iter().flat_map(|(_, tallies)| tallies).collect(), self.windows)
    }

    /// What is tallied of a request that was due then; none if no stages are told apart.
    fn stage(&mut self, due: Instant) -> Option<&mut StageTally> {
        let (stages, tallies) = self.stages.as_mut()?;
        tallies.get_mut(stages.of(due)?)
    }

    /// What came of it, as a whole and by windows.
    pub(super) fn into_tally(self) -> (Tally, Option<Windows>) {
        (self.tally, self.windows)
    }

    /// When the first request was due.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// When the next request is due.
    fn due(&self, now: Instant) -> Instant {
        match self.rate {
            Some(rate) => self.begun + Duration::from_secs_f64(self.issued as f64 / rate),
            None => now,
        }
    }

    /// When the whale's next post is due; none if it does not post any more.
    fn whale_due(&self) -> Option<Instant> {
        let due = self.whale.as_ref()?.due;
        match self.until {
            Until::Elapsed(time) if due.saturating_duration_since(self.begun) >= time => None,
            _ => Some(due),
        }
    }

    fn appended(&mut self, sent: &Sent, owner: u32, token: &[u8], now: Instant) -> Option<Job> {
        let is_whale = self.whale.as_ref().is_some_and(|whale| whale.owner == owner);
        if !is_whale {
            self.tally.posts += 1;
            record(&mut self.tally.post_micros, now - sent.due);
            if let Some(stage) = self.stage(sent.due) {
                stage.posted(sent.due, now);
            }
            if let Some(windows) = &mut self.windows {
                windows.posted(sent.due, now);
            }
        }
        let is_sampled = self.sample_every > 0 && self.tally.posts % self.sample_every == 1;
        (is_whale || is_sampled).then(|| {
            let token = Bytes::copy_from_slice(token);
            Job::Wait(Waited { token, owner, due: sent.due, answered: now })
        })
    }

    /// Looks at a page. A page that the node calls short, because another partition could not be asked, is counted where nodes come
    /// and go, and ends the run elsewhere.
    fn look_at(&mut self, asked: Asked, body: &[u8], due: Instant) -> Result<(), FanfoldError> {
        let Some(pages) = &mut self.pages else { return Ok(()) };
        match (pages.check(asked, body), self.stage(due)) {
            (Ok(()), _) => Ok(()),
            (Err(PageError::Short), Some(stage)) => {
                stage.short_pages += 1;
                Ok(())
            }
            (Err(source), _) => Err(FanfoldError::WrongPage { reader: asked.reader, source }),
        }
    }

    fn delivered(&mut self, waited: &Waited, now: Instant) {
        if self.whale.as_ref().is_some_and(|whale| whale.owner == waited.owner) {
            record(&mut self.tally.whale_micros, now - waited.answered);
        } else {
            record(&mut self.tally.last_delivery_micros, now - waited.answered);
            record(&mut self.tally.post_to_last_micros, now - waited.due);
        }
    }
}

impl<F: FnMut(u64) -> Job> Plan for Traffic<'_, F> {
    fn next(&mut self, now: Instant) -> Next {
        let due = self.due(now);
        let over = match self.until {
            Until::Count(count) => self.issued >= count,
            // At a pace, all that is due within the time is sent, however late: leaving out what a slow server
            // did not come to would hide its latency.
            Until::Elapsed(time) => due - self.begun >= time,
            Until::Over => self.stages.as_ref().is_none_or(|(stages, _)| stages.of(due).is_none()),
        };
        let whale_due = self.whale_due();
        if let Some(whale) = &mut self.whale
            && whale_due.is_some_and(|due| due <= now)
        {
            let due = whale.due;
            whale.due += whale.pause;
            return Next::Send(Job::Append { owner: whale.owner, payload_bytes: whale.payload_bytes }, due);
        }
        if over {
            return whale_due.map_or(Next::Done, Next::At);
        }
        if due > now {
            return Next::At(whale_due.map_or(due, |whale| whale.min(due)));
        }
        let number = self.issued;
        self.issued += 1;
        Next::Send((self.make)(number), due)
    }

    fn next_apart(&mut self, now: Instant) -> Next {
        let Some(apart) = &mut self.apart else { return Next::Done };
        let since = Duration::from_secs_f64(apart.issued as f64 / apart.rate);
        if matches!(self.until, Until::Elapsed(time) if since >= time) {
            return Next::Done;
        }
        let due = self.begun + since;
        if due > now {
            return Next::At(due);
        }
        let number = apart.issued;
        apart.issued += 1;
        Next::Send((apart.make)(number), due)
    }

    fn refused(&mut self, sent: &Sent, _: &Status) -> bool {
        self.stage(sent.due).map(|stage| stage.errors += 1).is_some()
    }

    fn heard(&mut self, sent: &Sent, heard: &Heard<'_>, now: Instant) -> Result<Option<Job>, FanfoldError> {
        self.tally.ended = now;
        match (&sent.job, heard) {
            (Job::Append { owner, .. }, Heard::Appended { id, token }) => {
                self.oracle.posted(*owner, *id);
                return Ok(self.appended(sent, *owner, token, now));
            }
            (Job::Wait(waited), _) => {
                self.delivered(waited, now);
            }
            (Job::Read { reader, limit, hydrate }, Heard::Page(body)) => {
                let asked = Asked { reader: *reader, limit: *limit, hydrate: *hydrate };
                self.look_at(asked, body, sent.due)?;
                self.tally.reads += 1;
                record(&mut self.tally.read_micros, now - sent.due);
                if let Some(stage) = self.stage(sent.due) {
                    stage.read(sent.due, now);
                }
                if let Some(windows) = &mut self.windows {
                    windows.read(sent.due, now);
                }
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Adds a time to a histogram; times above its range count as its highest.
pub(super) fn record(histogram: &mut MicrosHistogram, time: Duration) {
    histogram.saturating_record((time.as_micros() as u64).max(1));
}

/// Reads the feeds of the sampled readers and compares them with the oracle; with payloads also their first pages, as they were
/// measured.
#[derive(Debug)]
pub(super) struct Check<'a> {
    oracle: &'a Oracle,
    readers: std::vec::IntoIter<u32>,
    limit: u32,
    /// The limit of measured pages with payloads, and what those must be.
    hydrated: Option<(u32, Payloads)>,
    /// Whose hydrated page is read next.
    again: Option<u32>,
    pub(super) compared: u64,
    /// Whose pages differed.
    pub(super) mismatched: BTreeSet<u32>,
}

impl<'a> Check<'a> {
    /// Compares the newest `limit` entries of at most `readers_max` feeds.
    pub(super) fn new(oracle: &'a Oracle, readers_max: u32, limit: u32) -> Self {
        let mut readers = oracle.readers();
        readers.truncate(readers_max as usize);
        let readers = readers.into_iter();
        Self { oracle, readers, limit, hydrated: None, again: None, compared: 0, mismatched: BTreeSet::new() }
    }

    /// Compares a page of so many entries with its payloads as well.
    pub(super) fn with_payloads(self, hydrated: Option<(u32, Payloads)>) -> Self {
        Self { hydrated, ..self }
    }

    fn agrees(&self, asked: Asked, body: &[u8]) -> bool {
        let Some(page) = page::decoded(body) else { return false };
        let payloads_agree = match &self.hydrated {
            Some((_, payloads)) if asked.hydrate => payloads.are_in(&page),
            _ => !asked.hydrate,
        };
        payloads_agree && self.oracle.agrees(asked.reader, asked.limit as usize, &page)
    }
}

impl Plan for Check<'_> {
    fn next(&mut self, now: Instant) -> Next {
        if let (Some(reader), Some((limit, _))) = (self.again.take(), &self.hydrated) {
            return Next::Send(Job::Read { reader, limit: *limit, hydrate: true }, now);
        }
        self.again = self.readers.next();
        match self.again {
            Some(reader) => Next::Send(Job::Read { reader, limit: self.limit, hydrate: false }, now),
            None => Next::Done,
        }
    }

    fn heard(&mut self, sent: &Sent, heard: &Heard<'_>, _: Instant) -> Result<Option<Job>, FanfoldError> {
        if let (Job::Read { reader, limit, hydrate }, Heard::Page(body)) = (&sent.job, heard) {
            self.compared += u64::from(!hydrate);
            if !self.agrees(Asked { reader: *reader, limit: *limit, hydrate: *hydrate }, body) {
                self.mismatched.insert(*reader);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::*;

    #[test]
    fn a_wrong_page_ends_a_run() {
        let mut oracle = Oracle::default();
        let make = |_| Job::Read { reader: 5, limit: 4, hydrate: false };
        let mut plan = Traffic::new(make, &mut oracle, Until::Count(1), None).checking(page::tests::check());
        let now = Instant::now();
        let Next::Send(job, due) = plan.next(now) else { panic!("a read is due at once") };
        let sent = Sent { job, due };
        assert!(plan.heard(&sent, &Heard::Page(&[]), now).is_err());
        assert_eq!(plan.tally.reads, 0);
        let shown = page::tests::three_entries();
        assert!(plan.heard(&sent, &Heard::Page(&shown), now).is_ok());
        assert_eq!(plan.tally.reads, 1);
    }
}
