//! Owns the entries of partitions on other nodes that are often read here, a celebrity's above all.
//!
//! - What is kept is what a home answered. A row says which version its reader is owed, so what is kept serves a delivered row as a
//!   replica does, which may be old as well (`hydrate.rs`).
//! - An entry is kept when it is wanted a second time within a while, so that what one reader scans pushes nothing out.
//! - Two generations instead of a list by use: what is read stays in the younger one; when that has half of the bytes, the older one
//!   goes as a whole.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::EntryId;
use parking_lot::Mutex;

/// Most bytes that are kept.
const BYTES_MAX: u64 = 16 << 20;

/// With a memory budget at most this part of it.
const BUDGET_PART: u64 = 64;

/// Bytes of an entry beside its payload: itself, and its place in the table.
const ENTRY_BYTES: u64 = (2 * (size_of::<Entry>() + size_of::<EntryId>())) as u64;

/// An entry that takes more than this part of all is not kept.
const LARGE_PART: u64 = 16;

/// Ids that were wanted once are remembered until there are so many others.
const WANTED_MAX: usize = 8_192;

/// The entries.
#[derive(Debug)]
pub(crate) struct KeptEntries {
    generations: Mutex<Generations>,
    bytes_max: u64,
    /// What both generations take, for whoever asks without the lock.
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Generations {
    young: Generation,
    old: Generation,
    /// Wanted once, lately and before that.
    wanted: [HashSet<EntryId>; 2],
}

#[derive(Debug, Default)]
struct Generation {
    entries: HashMap<EntryId, Entry>,
    bytes: u64,
}

fn bytes_of(entry: &Entry) -> u64 {
    ENTRY_BYTES + entry.payload.len() as u64
}

impl Generation {
    fn insert(&mut self, entry: Entry) {
        self.bytes += bytes_of(&entry);
        self.bytes -= self.entries.insert(entry.id, entry).as_ref().map_or(0, bytes_of);
    }

    fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= bytes_of(&entry);
        Some(entry)
    }
}

impl Generations {
    /// Whether an entry was wanted before, lately.
    fn was_wanted(&mut self, id: EntryId) -> bool {
        let [lately, before] = &mut self.wanted;
        if lately.contains(&id) || before.contains(&id) {
            return true;
        }
        if lately.len() >= WANTED_MAX {
            *before = mem::take(lately);
        }
        lately.insert(id);
        false
    }

    fn keep(&mut self, entry: Entry, bytes_max: u64) {
        self.old.remove(entry.id);
        self.young.insert(entry);
        if self.young.bytes > bytes_max / 2 {
            self.old = mem::take(&mut self.young);
        }
    }
}

impl KeptEntries {
    /// Those of a node with this memory budget (0: none).
    pub fn within(memory_bytes: u64) -> Self {
        let bytes_max = if memory_bytes == 0 { BYTES_MAX } else { BYTES_MAX.min(memory_bytes / BUDGET_PART) };
        Self { generations: Mutex::default(), bytes_max, bytes: AtomicU64::new(0) }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Those of these rows that are kept and that `serves` their row, the first of them until about `bytes_max` bytes of payloads are
    /// there.
    pub fn find<'r>(
        &self,
        rows: impl Iterator<Item = &'r Delivery>,
        bytes_max: usize,
        serves: impl Fn(&Entry, &Delivery) -> bool,
    ) -> Vec<Entry> {
        if self.bytes() == 0 {
            return Vec::new();
        }
        let mut generations = self.generations.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let Generations { young, old, .. } = &mut *generations;
            let kept = young.entries.get(&row.id).or_else(|| old.entries.get(&row.id));
            let Some(entry) = kept.filter(|entry| serves(entry, row)) else { continue };
            if bytes + entry.payload.len() > bytes_max {
                break;
            }
            bytes += entry.payload.len();
            found.push(entry.clone());
            if let Some(entry) = old.remove(row.id) {
                generations.keep(entry, self.bytes_max);
            }
        }
        self.count(&generations);
        found
    }

    /// Takes note of what homes on other nodes answered.
    pub fn answered<'e>(&self, entries: impl Iterator<Item = &'e Entry>) {
        let mut generations = self.generations.lock();
        for entry in entries {
            if bytes_of(entry) <= self.bytes_max / LARGE_PART && generations.was_wanted(entry.id) {
                // Its own: what came shares the memory of all that came.
                let payload = Bytes::copy_from_slice(&entry.payload);
                generations.keep(Entry { payload, ..entry.clone() }, self.bytes_max);
            }
        }
        self.count(&generations);
    }

    /// Gives all of them up; how many bytes they took.
    pub fn give_up(&self) -> u64 {
        if self.bytes() == 0 {
            return 0;
        }
        let given_up = mem::take(&mut *self.generations.lock());
        self.bytes.store(0, Ordering::Relaxed);
        given_up.young.bytes + given_up.old.bytes
    }

    fn count(&self, Generations { young, old, .. }: &Generations) {
        self.bytes.store(young.bytes + old.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use fanfold_storage::entry::Audience;
    use fanfold_storage::ids::{SpaceId, UserId};

    use super::*;

    const PAYLOAD_BYTES: usize = 1_000;

    fn entry(id: u64, version: u32) -> Entry {
        Entry {
            id: EntryId(id),
            space: SpaceId(1),
            owner: UserId(3),
            author: UserId(3),
            audience: Audience::Public,
            payload: vec![id as u8; PAYLOAD_BYTES].into(),
            version,
            expiry: None,
            reference: None,
        }
    }

    fn has(kept: &KeptEntries, id: u64, version: u32) -> bool {
        let rows = [entry(id, version).delivery()];
        let found = kept.find(rows.iter(), usize::MAX, |entry, row| entry.version >= row.version);
        assert!(found.iter().all(|found| found.payload == entry(id, 0).payload));
        !found.is_empty()
    }

    fn answer(kept: &KeptEntries, entry: &Entry) {
        kept.answered([entry].into_iter());
    }

    #[test]
    fn what_is_wanted_twice_is_kept_and_only_for_rows_that_it_serves() {
        let kept = KeptEntries::within(0);
        answer(&kept, &entry(1, 1));
        assert!(!has(&kept, 1, 1) && kept.bytes() == 0, "once is not often");
        answer(&kept, &entry(1, 1));
        assert!(has(&kept, 1, 1) && !has(&kept, 1, 2));
        let one = kept.bytes();
        answer(&kept, &entry(1, 2));
        assert!(has(&kept, 1, 2) && kept.bytes() == one, "in the place of the older version");
        let rows: Vec<_> = [1, 1].map(|id| entry(id, 1).delivery()).into();
        assert_eq!(kept.find(rows.iter(), PAYLOAD_BYTES, |_, _| true).len(), 1, "the bytes of one");
        assert_eq!((kept.give_up(), kept.bytes(), has(&kept, 1, 1)), (one, 0, false));
    }

    #[test]
    fn what_is_read_stays_and_the_bytes_have_a_bound() {
        let kept = KeptEntries::within(64 * 64 * PAYLOAD_BYTES as u64);
        let large = Entry { payload: vec![0; 5 * PAYLOAD_BYTES].into(), ..entry(9_999, 1) };
        for id in 1..2_000 {
            for _ in 0..2 {
                answer(&kept, &entry(id, 1));
                answer(&kept, &large);
            }
            assert!(has(&kept, 1, 1), "read all the time, after {id} others");
            assert!(kept.bytes() <= kept.bytes_max, "{}", kept.bytes());
        }
        assert!(has(&kept, 1_999, 1) && !has(&kept, 2, 1) && !has(&kept, 9_999, 1));
        // What nobody wants a second time pushes nothing out.
        (3_000..3_000 + 2 * WANTED_MAX as u64).for_each(|id| answer(&kept, &entry(id, 1)));
        assert!(has(&kept, 1_999, 1));
    }
}
