//! Owns what has to be true of the cluster, as its clients know it, and the comparison of what they read with it.
//!
//! - Every user's writes come from one task, one after the other, and each is repeated until it is answered: so what a
//!   timeline holds is known exactly when that task reads it, but for what expires about then.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fanfold_storage::entry::Entry;
use fanfold_storage::ids::{EntryId, UserId};

use crate::plan::SLACK_MS;

/// A span of the simulation's time: something happened within.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from_ms: u64,
    pub to_ms: u64,
}

/// An entry that was answered.
#[derive(Debug, Clone)]
pub struct Known {
    pub owner: UserId,
    pub payload: Bytes,
    pub made: Span,
    pub ttl_ms: Option<u64>,
    pub is_deleted: bool,
    /// A read has not found it any more.
    pub is_gone: bool,
}

/// What was answered to the clients.
#[derive(Debug, Default)]
pub struct Model {
    pub entries: BTreeMap<EntryId, Known>,
    pub follows: BTreeSet<(UserId, UserId)>,
    pub writes: u64,
    pub reads: u64,
}

impl Model {
    /// Entries of an owner that may be deleted.
    pub fn live_of(&self, owner: UserId) -> Vec<EntryId> {
        let of = |known: &Known| known.owner == owner && !known.is_deleted && !known.is_gone;
        self.entries.iter().filter(|(_, known)| of(known)).map(|(id, _)| *id).collect()
    }

    /// Compares a timeline with what it has to be; `asked` spans the read.
    pub fn check_timeline(&mut self, owner: UserId, asked: Span, found: &[Entry]) -> Vec<String> {
        self.reads += 1;
        let mut wrong = Vec::new();
        let mut payloads = BTreeSet::new();
        for entry in found {
            if !payloads.insert(entry.payload.clone()) {
                wrong.push(format!("{:?} is in the timeline twice", entry.payload));
            }
            match self.entries.get(&entry.id) {
                None => wrong.push(format!("{entry:?} was never answered")),
                Some(known) if known.is_deleted => wrong.push(format!("{entry:?} was deleted and shows")),
                Some(known) if known.is_gone => wrong.push(format!("{entry:?} was gone and shows again")),
                Some(known) if (known.owner, &known.payload) != (entry.owner, &entry.payload) => {
                    wrong.push(format!("{entry:?} is not {known:?}"));
                }
                Some(known) => {
                    let late = known.ttl_ms.map(|ttl_ms| known.made.to_ms + ttl_ms + SLACK_MS);
                    if late.is_some_and(|late_ms| asked.from_ms > late_ms) {
                        wrong.push(format!("{entry:?} shows long behind its time: {known:?}"));
                    }
                }
            }
        }
        let shown: BTreeSet<EntryId> = found.iter().map(|entry| entry.id).collect();
        for (id, known) in &mut self.entries {
            if known.owner != owner || known.is_deleted || shown.contains(id) {
                continue;
            }
            let expires_ms = known.ttl_ms.map(|ttl_ms| known.made.from_ms + ttl_ms);
            match expires_ms {
                None => wrong.push(format!("{id:?} is lost: {known:?}")),
                Some(expires_ms) if asked.to_ms + SLACK_MS < expires_ms => {
                    wrong.push(format!("{id:?} is gone before its time: {known:?}"));
                }
                Some(_) => known.is_gone = true,
            }
        }
        wrong
    }
}
