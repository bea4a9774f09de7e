//! Owns the sessions: which requests were seen, and what they were answered (R18).
//!
//! - An unknown session is an error, never a new one.
//! - A session unused for its life is forgotten by log time.
//! - Application keys are remembered for their window, numbered in the order they were made, up to a number of them.
//! - What sessions keep is bounded in bytes, counted the same way at every replica.
//! - A cut is told before anything of a session changes. A key that is forgotten leaves its bucket as it is: a bucket's keys
//!   before the first one known are ignored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::cut::Tracked;
use super::deque::ChunkedDeque;
use super::heap::{HeapBytes, allocated};
use super::map::IdMap;
use crate::codec::{Encoded, Malformed, Reader, encoded_struct, put_u64};
use crate::command::{AppendResult, Limits, Outcome, Refusal, WriteResult, WriteTag};
use crate::ids::{EntryId, Sequence, SessionId, SpaceId, Stamp, UserId};

/// A session's use is noted once per this fraction of its life.
const USE_GRAIN: u64 = 16;

/// Bytes of answers that one session keeps.
pub(super) const SESSION_RESULT_BYTES_MAX: usize = 4 << 20;

/// Bytes of answers that all sessions keep; beyond, a session keeps no more than [`SESSION_RESULT_BYTES_SHARE`]. Fewer in tests
/// of this crate.
const RESULT_BYTES_MAX: usize = if cfg!(test) { 16 << 20 } else { 256 << 20 };
const SESSION_RESULT_BYTES_SHARE: usize = 64 << 10;

/// Keys that a partition remembers, about 220 bytes each. Fewer in tests of this crate, so that one can reach it.
pub(super) const KEYS_MAX: usize = if cfg!(test) { 1 << 13 } else { 1 << 24 };

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) used: Stamp,
    /// Results below it are dropped.
    pub(super) floor: Sequence,
    pub(super) results: Results,
}

/// The answers that a session keeps, sequences ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    kept: VecDeque<Kept>,
    /// Of what they have on the heap: the same at every replica.
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    sequence: Sequence,
    /// Of the body.
    hash: u128,
    outcome: Outcome,
}

encoded_struct!(Kept { sequence, hash, outcome });

impl Results {
    /// Where a sequence is, or would be.
    fn place(&self, sequence: Sequence) -> Result<usize, usize> {
        // Nearly all are larger than all before.
        match self.kept.back() {
            Some(last) if last.sequence >= sequence => {
                self.kept.binary_search_by_key(&sequence, |kept| kept.sequence)
            }
            _ => Err(self.kept.len()),
        }
    }

    fn memory(&self) -> usize {
        allocated(self.kept.capacity() * size_of::<Kept>()) + self.bytes
    }

    /// What counts against the limits: the same at every replica.
    fn weight(&self) -> usize {
        self.kept.len() * size_of::<Kept>() + self.bytes
    }
}

/// Bytes that an answer has on the heap.
fn heap_bytes(outcome: &Outcome) -> usize {
    let Outcome::Written { result, .. } = outcome else { return 0 };
    match result {
        WriteResult::Appended { items } if items.len() > 1 => items.len() * size_of::<AppendResult>(),
        WriteResult::Related { refused, .. } => refused.len() * size_of::<UserId>(),
        WriteResult::FollowsImported { refused, .. } => refused.len() * size_of::<(u32, Refusal)>(),
        _ => 0,
    }
}

impl Encoded for Results {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.kept.len() as u64);
        self.kept.iter().for_each(|kept| kept.encode(out));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kept: VecDeque<Kept> = Vec::decode(from)?.into();
        let ascending = kept.iter().is_sorted_by(|a, b| a.sequence < b.sequence);
        if !ascending {
            return Err(from.malformed("larger sequence"));
        }
        let bytes = kept.iter().map(|kept| heap_bytes(&kept.outcome)).sum();
        Ok(Self { kept, bytes })
    }
}

encoded_struct!(Session { used, floor, results });

/// The numbers that a new incarnation leaves out: so many at least, and up to as many more as there are in this.
const SKIPPED_MIN: u64 = 1 << 16;
const SKIPPED_SPAN: u64 = 1 << 24;

/// Sessions of a bucket, as a power of two.
pub(super) const SESSIONS_SHIFT: u32 = 6;

/// Keys of a bucket, as a power of two.
pub(super) const KEYS_SHIFT: u32 = 10;

#[derive(Debug)]
pub(super) struct Sessions {
    /// Sessions by id.
    pub(super) tracked: Tracked,
    pub(super) open: BTreeMap<SessionId, Session>,
    by_use: BTreeSet<(Stamp, SessionId)>,
    pub(super) last: u64,
    /// Of the answers that are kept.
    heap: HeapBytes,
    /// The weights of all of them.
    weight: usize,
}

/// What a session knows of a request.
pub(super) enum Seen {
    /// Nothing: run it.
    New,
    /// Its answer.
    Before(Outcome),
    /// It may not run.
    Refused(Refusal),
}

impl Default for Sessions {
    fn default() -> Self {
        let (open, by_use) = (BTreeMap::new(), BTreeSet::new());
        let tracked = Tracked::new(SESSIONS_SHIFT);
        Self { tracked, open, by_use, last: 0, heap: HeapBytes::default(), weight: 0 }
    }
}

fn encode_session(id: SessionId, session: &Session, out: &mut Vec<u8>) {
    id.encode(out);
    session.encode(out);
}

impl Sessions {
    /// The ids ever given.
    pub(super) fn ids(&self) -> Range<u64> {
        1..self.last + 1
    }

    /// The first session at or behind an id.
    pub(super) fn next_at(&self, id: u64) -> Option<u64> {
        self.open.range(SessionId(id)..).next().map(|(id, _)| id.0)
    }

    /// Writes a session as a bucket holds it; nothing if there is none.
    pub(super) fn encode_session(&self, id: u64, out: &mut Vec<u8>) {
        if let Some(session) = self.open.get(&SessionId(id)) {
            encode_session(SessionId(id), session, out);
        }
    }

    /// Leaves out numbers that were given in a history that is gone. Incarnations are milliseconds of the wall clock, and
    /// fewer sessions are opened than milliseconds pass, so that each restore of the same image goes on elsewhere. The
    /// gap is bounded, because what is kept of changed sessions takes a bit for each number between them.
    pub(super) fn skip(&mut self, incarnation: u64) {
        self.last += SKIPPED_MIN + incarnation % SKIPPED_SPAN;
    }

    pub(super) fn open(&mut self, stamp: Stamp) -> SessionId {
        self.last += 1;
        self.tracked.add(self.last);
        let id = SessionId(self.last);
        self.restore(id, Session { used: stamp, floor: Sequence(0), results: Results::default() });
        id
    }

    pub(super) fn restore(&mut self, id: SessionId, session: Session) {
        self.by_use.insert((session.used, id));
        self.heap.replace(0, session.results.memory());
        self.weight += session.results.weight();
        self.open.insert(id, session);
    }

    pub(super) fn close(&mut self, id: SessionId) {
        if let Some(session) = self.open.remove(&id) {
            self.tracked.touch(id.0, |out| encode_session(id, &session, out));
            self.by_use.remove(&(session.used, id));
            self.heap.replace(session.results.memory(), 0);
            self.weight -= session.results.weight();
        }
    }

    /// Forgets the sessions unused for longer than their life.
    pub(super) fn expire(&mut self, stamp: Stamp, life_ms: u64) {
        while let Some((used, id)) = self.by_use.first().copied() {
            if used.0 + life_ms > stamp.0 {
                return;
            }
            self.close(id);
        }
    }

    /// Looks a request up before it runs.
    pub(super) fn seen(&mut self, tag: &WriteTag, hash: u128, stamp: Stamp, limits: &Limits) -> Seen {
        let Some(session) = self.open.get_mut(&tag.session) else {
            return Seen::Refused(Refusal::UnknownSession);
        };
        self.tracked.touch(tag.session.0, |out| encode_session(tag.session, session, out));
        if session.used.0 + limits.session_life_ms / USE_GRAIN < stamp.0 {
            self.by_use.remove(&(session.used, tag.session));
            session.used = stamp;
            self.by_use.insert((stamp, tag.session));
        }
        if tag.lowest_unanswered > session.floor {
            session.floor = tag.lowest_unanswered;
            let results = &mut session.results;
            let (memory, weight) = (results.memory(), results.weight());
            while let Some(seen) = results.kept.front().filter(|first| first.sequence < session.floor) {
                results.bytes -= heap_bytes(&seen.outcome);
                results.kept.pop_front();
            }
            self.heap.replace(memory, results.memory());
            self.weight -= weight - results.weight();
        }
        if tag.sequence < session.floor {
            return Seen::Refused(Refusal::SequenceTooOld);
        }
        let results = &session.results;
        let is_much = self.weight >= RESULT_BYTES_MAX;
        let most = if is_much { SESSION_RESULT_BYTES_SHARE } else { SESSION_RESULT_BYTES_MAX };
        match results.place(tag.sequence) {
            Ok(at) if results.kept[at].hash == hash => Seen::Before(results.kept[at].outcome.clone()),
            Ok(_) => Seen::Refused(Refusal::SequenceConflict),
            Err(_) if results.kept.len() >= limits.session_requests_max as usize => {
                Seen::Refused(Refusal::SessionFull)
            }
            Err(_) if results.weight() >= most => Seen::Refused(Refusal::SessionFull),
            Err(_) => Seen::New,
        }
    }

    /// Keeps the answer of a request that ran.
    pub(super) fn keep(&mut self, tag: &WriteTag, hash: u128, outcome: Outcome) {
        if let Some(session) = self.open.get_mut(&tag.session) {
            self.tracked.touch(tag.session.0, |out| encode_session(tag.session, session, out));
            let (results, sequence) = (&mut session.results, tag.sequence);
            let (memory, weight) = (results.memory(), results.weight());
            if let Err(at) = results.place(sequence) {
                results.bytes += heap_bytes(&outcome);
                results.kept.insert(at, Kept { sequence, hash, outcome });
            }
            self.heap.replace(memory, results.memory());
            self.weight += results.weight() - weight;
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.open.len() * size_of::<(SessionId, Session)>() * 2 + self.heap.get() + self.tracked.memory()
    }
}

/// An application key with where it holds.
pub(super) type Key = (SpaceId, UserId, Bytes);

/// A key that was kept.
#[derive(Clone, Debug)]
pub(super) struct KeptKey {
    made: Stamp,
    key: Key,
    id: EntryId,
    /// Of the body.
    hash: u128,
}

impl Encoded for KeptKey {
    fn encode(&self, out: &mut Vec<u8>) {
        let (space, owner, key) = &self.key;
        ((self.made, *space), (*owner, self.id)).encode(out);
        self.hash.encode(out);
        key.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let ((made, space), (owner, id)) = Encoded::decode(from)?;
        let hash = from.u128()?;
        Ok(Self { made, key: (space, owner, Bytes::decode(from)?), id, hash })
    }
}

/// Application keys and the entries they made.
#[derive(Debug)]
pub(super) struct Keys {
    /// Keys by their number.
    pub(super) tracked: Tracked,
    /// In the order they were made.
    order: ChunkedDeque<KeptKey>,
    /// The number of the oldest one: how many were forgotten.
    first: u64,
    known: IdMap<Key, (EntryId, u128)>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl Keys {
    /// No keys, the first of which will have the number `first`.
    pub(super) fn starting_at(first: u64) -> Self {
        let (order, known) = (ChunkedDeque::default(), IdMap::default());
        Self { tracked: Tracked::new(KEYS_SHIFT), order, first, known }
    }

    /// The numbers of the keys.
    pub(super) fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.order.len() as u64
    }

    /// Writes a key as a bucket holds it.
    pub(super) fn encode_key(&self, number: u64, out: &mut Vec<u8>) {
        if let Some(kept) = self.order.get((number - self.first) as usize) {
            kept.encode(out);
        }
    }

    /// Whether a partition remembers as many as it may.
    pub(super) fn is_full(&self) -> bool {
        self.order.len() >= KEYS_MAX
    }

    /// The keys that are remembered, with the entries they made.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, EntryId)> {
        (0..self.order.len()).filter_map(|n| self.order.get(n)).map(|kept| (&kept.key, kept.id))
    }

    pub(super) fn find(&self, key: &Key) -> Option<(EntryId, u128)> {
        self.known.get(key).copied()
    }

    pub(super) fn keep(&mut self, made: Stamp, key: Key, id: EntryId, hash: u128) {
        self.restore(KeptKey { made, key, id, hash });
    }

    /// Adds a key behind all others.
    pub(super) fn restore(&mut self, kept: KeptKey) {
        self.tracked.add(self.numbers().end);
        self.known.insert(kept.key.clone(), (kept.id, kept.hash));
        self.order.push_back(kept);
    }

    /// Forgets the keys older than the window.
    pub(super) fn expire(&mut self, stamp: Stamp, window_ms: u64) {
        while self.order.front().is_some_and(|kept| kept.made.0 + window_ms <= stamp.0) {
            let Some(kept) = self.order.pop_front() else { return };
            self.tracked.save(self.first, |out| kept.encode(out));
            self.first += 1;
            self.known.remove(&kept.key);
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.known.memory()
            + self.order.memory()
            // The bytes of a key are shared by the two.
            + self.known.len() * 64
            + self.tracked.memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { session_requests_max: u32::MAX, ..Limits::default() }
    }

    fn tag(session: SessionId, sequence: u64, lowest_unanswered: u64) -> WriteTag {
        WriteTag { session, sequence: Sequence(sequence), lowest_unanswered: Sequence(lowest_unanswered) }
    }

    /// An answer with about 64 KiB on the heap.
    fn large() -> Outcome {
        let made = AppendResult::Made { id: EntryId(1), duplicate: false };
        let items = vec![made; (64 << 10) / size_of::<AppendResult>()];
        Outcome::Written { result: WriteResult::Appended { items: items.into() }, journal: None }
    }

    /// Runs requests until the session takes no more; how many it took.
    fn fill(sessions: &mut Sessions, session: SessionId, from: u64) -> u64 {
        for sequence in from.. {
            let tag = tag(session, sequence, from);
            match sessions.seen(&tag, 7, Stamp(1), &limits()) {
                Seen::New => sessions.keep(&tag, 7, large()),
                Seen::Refused(Refusal::SessionFull) => return sequence - from,
                Seen::Before(_) | Seen::Refused(_) => panic!("request {sequence} is new"),
            }
            assert!(sequence - from < 10_000, "nothing bounds what a session keeps");
        }
        unreachable!("numbers do not end")
    }

    #[test]
    fn a_session_keeps_answers_up_to_a_number_of_bytes() {
        let mut sessions = Sessions::default();
        let (first, second) = (sessions.open(Stamp(1)), sessions.open(Stamp(1)));
        let taken = fill(&mut sessions, first, 1);
        assert!((60..=66).contains(&taken), "{taken} of 64 KiB in 4 MiB");
        // It is that one's own affair, and over once the client has its answers.
        assert_eq!(fill(&mut sessions, second, 1), taken);
        assert_eq!(fill(&mut sessions, first, 1_000), taken);
        // An answer that is kept is given again all the same.
        assert!(matches!(sessions.seen(&tag(first, 1_000, 1_000), 7, Stamp(1), &limits()), Seen::Before(_)));
    }

    #[test]
    fn when_all_together_keep_much_each_keeps_a_small_share() {
        let mut sessions = Sessions::default();
        let mut taken = Vec::new();
        while sessions.weight < RESULT_BYTES_MAX {
            let session = sessions.open(Stamp(1));
            taken.push(fill(&mut sessions, session, 1));
            assert!(taken.len() < 100, "nothing bounds what all keep");
        }
        let session = sessions.open(Stamp(1));
        assert!(fill(&mut sessions, session, 1) <= 2, "64 KiB each");
        assert!(taken[0] > 50);
    }

    #[test]
    fn a_new_incarnation_leaves_numbers_out() {
        let mut sessions = Sessions::default();
        let before = sessions.open(Stamp(1));
        sessions.skip(1_764_000_000_000);
        let after = sessions.open(Stamp(1));
        assert!(after.0 > before.0 + SKIPPED_MIN && after.0 <= before.0 + 1 + SKIPPED_MIN + SKIPPED_SPAN);
    }
}
