//! Owns the tests of the log as a whole, and the naive model that they compare with.

mod crash;
mod damage;
mod driven;
mod golden;
mod hold;
mod property;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{GroupId, GroupState, Log, LogError, LogOptions, OpenError, Record, Recovered};
use crate::fs::FaultFs;

const DIR: &str = "/log";
const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);
const C: GroupId = GroupId(70);

/// Small segments, little in memory, a mark whenever nothing is queued.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 32 << 10,
        recent_bytes_max: 300,
        gather_bytes_max: 16 << 10,
        idle_mark_after: Duration::ZERO,
        salt: 5,
        ..LogOptions::default()
    }
}

/// No marks unless the log is closed.
fn unmarked() -> LogOptions {
    LogOptions { idle_mark_after: Duration::from_secs(3600), ..small() }
}

fn open(fs: &FaultFs, options: LogOptions) -> Result<(Log, Recovered), OpenError> {
    Log::open(Arc::new(fs.clone()), Path::new(DIR), options)
}

fn segment_path(sequence: u64) -> PathBuf {
    super::segment::path_of(Path::new(DIR), sequence)
}

/// Submits, and gives what the completion will say; an error at once if nothing was taken.
fn submit(log: &Log, records: Vec<Record>) -> Result<Receiver<Result<(), LogError>>, LogError> {
    let (tell, told) = channel();
    let done = move |result| {
        // Whoever asked may have gone.
        let _ = tell.send(result);
    };
    log.submit(records, Some(Box::new(done)))?;
    Ok(told)
}

fn submit_and_wait(log: &Log, records: Vec<Record>) -> Result<(), LogError> {
    submit(log, records)?.recv().expect("a completion always runs")
}

/// Waits for what another thread does; far longer than it can take, so that only a fault fails the test.
fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::yield_now();
    }
}

fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn vote(group: GroupId, text: &str) -> Record {
    Record::Vote { group, data: bytes(text) }
}

fn append(group: GroupId, index: u64, data: impl Into<Bytes>) -> Record {
    Record::Append { group, index, data: data.into() }
}

fn truncate(group: GroupId, index: impl Into<Option<u64>>) -> Record {
    Record::TruncateAfter { group, index: index.into() }
}

fn purge(group: GroupId, index: u64) -> Record {
    Record::Purge { group, index, data: bytes(format!("id {index}")) }
}

fn committed(group: GroupId, text: &str) -> Record {
    Record::Committed { group, data: bytes(text) }
}

/// What a group's part of the log should be, in the plainest form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ModelGroup {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

/// What the log should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    groups: BTreeMap<GroupId, ModelGroup>,
}

impl Model {
    fn apply(&mut self, records: &[Record]) {
        for record in records {
            let group = self.groups.entry(record.group()).or_default();
            match record {
                Record::Vote { data, .. } => group.vote = Some(data.clone()),
                Record::Committed { data, .. } => group.committed = Some(data.clone()),
                Record::Append { index, data, .. } => drop(group.entries.insert(*index, data.clone())),
                Record::TruncateAfter { index: Some(index), .. } => group.entries.retain(|i, _| i <= index),
                Record::TruncateAfter { index: None, .. } => group.entries.clear(),
                Record::Purge { index, data, .. } => {
                    group.entries.retain(|i, _| i > index);
                    group.purged = Some((*index, data.clone()));
                }
                Record::Forget { .. } => *group = ModelGroup::default(),
            }
        }
        self.groups.retain(|_, group| *group != ModelGroup::default());
    }

    /// The same as the log has it; only groups of the tests are asked for.
    fn of(log: &Log) -> Result<Self, LogError> {
        let mut model = Self::default();
        for group in [A, B, C] {
            let GroupState { vote, committed, purged, first, last } = log.group_state(group)?;
            let entries: BTreeMap<u64, Bytes> = log.read(group, 0..u64::MAX, 0)?.into_iter().collect();
            let more: usize = entries.values().skip(1).map(Bytes::len).sum();
            assert_eq!(more, 0, "the limit in bytes allows one entry");
            let entries: BTreeMap<u64, Bytes> =
                log.read(group, first..u64::MAX, u64::MAX)?.into_iter().collect();
            assert_eq!(entries.keys().next_back().copied(), last);
            assert!(entries.keys().next().is_none_or(|index| *index == first));
            model.groups.insert(group, ModelGroup { vote, committed, purged, entries });
        }
        model.groups.retain(|_, group| *group != ModelGroup::default());
        Ok(model)
    }
}
