//! Owns the look at a log as an open would find it: what its groups are, and what is damaged. Nothing is changed.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::index::{Found, GroupIndex};
use super::inspect::segments_in;
use super::open::{check_oldest, read_segments};
use super::recover::Recovery;
use super::scan::Scanned;
use super::{GroupId, GroupState, OpenError, Recovered};
use crate::fs::FileSystem;

/// What a log says, read from its files.
#[derive(Debug)]
pub struct Image {
    recovery: Recovery,
}

/// Called with a number of bytes before they are read; may wait, and ends the reading with an error.
pub type ReadPace<'a> = &'a dyn Fn(u64) -> io::Result<()>;

/// Up to where a log is read that is being written, and the number of the last batch before that.
pub(super) type End = (u64, u64);

impl Image {
    /// Reads the log of a directory that nobody has open. The entries of the group `whole` are kept in memory.
    pub fn read(
        fs: &dyn FileSystem,
        dir: &Path,
        whole: Option<GroupId>,
        pace: ReadPace<'_>,
    ) -> Result<Self, OpenError> {
        let sequences = segments_in(fs, dir)?;
        if sequences.is_empty() {
            return Err(OpenError::MissingLog { path: dir.to_path_buf() });
        }
        Self::of_segments(fs, dir, &sequences, None, whole, pace)
    }

    pub(super) fn of_segments(
        fs: &dyn FileSystem,
        dir: &Path,
        sequences: &[u64],
        end: Option<End>,
        whole: Option<GroupId>,
        pace: ReadPace<'_>,
    ) -> Result<Self, OpenError> {
        let mut recovery = Recovery::new(0);
        recovery.whole = whole;
        recovery.durable_number = end.map_or(0, |(_, number)| number);
        read_segments(dir, sequences, &mut recovery, &mut |_, path, buffer| {
            let mut segment = Scanned::read_paced(fs, path, pace, buffer)?;
            if let Some((position, _)) = end {
                segment.cut(position);
            }
            Ok(segment)
        })?;
        let last = recovery.end();
        check_oldest(dir, &recovery, last.as_ref(), sequences.first().copied().unwrap_or_default())?;
        if let Some(last) = last {
            recovery.apply_batches(&last, last.batches.len());
            recovery.segments.push(last.into_segment());
        }
        recovery.find_missing_at_end();
        recovery.finish();
        Ok(Self { recovery })
    }

    /// What was found, damage above all.
    pub fn recovered(&self) -> &Recovered {
        &self.recovery.recovered
    }

    /// What the log knows of a group; an unknown group has an empty state. What follows damage is not counted.
    pub fn group_state(&self, group: GroupId) -> GroupState {
        self.recovery.index.get(group).map(GroupIndex::state).unwrap_or_default()
    }

    /// The entries of the group that was asked for whole.
    pub fn entries(&self, group: GroupId) -> impl Iterator<Item = (u64, Bytes)> {
        let state = self.recovery.index.get(group);
        let range = state.and_then(|state| Some(state.first()..=state.last()?));
        let entry = move |index| match state?.find(index)? {
            Found::InMemory(data) => Some((index, data)),
            Found::OnDisk(_) => None,
        };
        range.into_iter().flatten().filter_map(entry)
    }
}
