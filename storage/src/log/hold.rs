//! Owns the hold on a running log: its files up to what was durable at one moment, kept while others go on writing.
//!
//! - No file is given back for reuse while somebody holds the log, so that it may grow meanwhile.
//! - A hold keeps a bounded number of bytes that nobody else needs, and none on a full disk: then it is let go of, and whoever
//!   holds it is told. What is read from then on may be something else.
//! - What lies behind the position of the hold may be being written and is never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::image::{End, Image, ReadPace};
use super::segment::Segment;
use super::shared::Shared;
use super::{GroupId, OpenError};
use crate::fs::File;

/// Told, without a lock, that a hold is let go of: its reader is to end.
pub type LetGo = Box<dyn Fn() + Send>;

/// Who holds the log.
#[derive(Default)]
pub(super) struct Holds {
    last: u64,
    held: BTreeMap<u64, (u64, LetGo)>,
}

impl Holds {
    fn add(&mut self, unneeded_bytes_max: u64, let_go: LetGo) -> u64 {
        self.last += 1;
        self.held.insert(self.last, (unneeded_bytes_max, let_go));
        self.last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether some keep more than they may, if so many bytes are there for nobody else.
    pub(super) fn exceed(&self, unneeded_bytes: u64, is_full: bool) -> bool {
        self.held.values().any(|(most_bytes, _)| is_full || unneeded_bytes > *most_bytes)
    }

    /// Forgets those; who is to be told.
    pub(super) fn let_go(&mut self, unneeded_bytes: u64, is_full: bool) -> Vec<LetGo> {
        let exceeds = |(_, (most_bytes, _)): &(u64, (u64, LetGo))| is_full || unneeded_bytes > *most_bytes;
        let (gone, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held).into_iter().partition(exceeds);
        self.held = held.into_iter().collect();
        gone.into_iter().map(|(_, (_, let_go))| let_go).collect()
    }
}

/// Keeps the segments of a log while it lives, unless it is let go of.
pub struct LogHold {
    shared: Arc<Shared>,
    id: u64,
    segments: Vec<Arc<Segment>>,
    end: End,
}

/// A segment of a hold.
#[derive(Debug)]
pub struct HeldSegment<'a> {
    /// The file.
    pub path: &'a PathBuf,
    /// The file, open.
    pub file: &'a dyn File,
    /// How much of it belongs to the hold; what is missing at its end reads as zeros.
    pub bytes: u64,
}

impl fmt::Debug for LogHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHold").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl LogHold {
    pub(super) fn new(shared: &Arc<Shared>, unneeded_bytes_max: u64, let_go: LetGo) -> Self {
        let mut inner = shared.lock();
        let id = inner.holds.add(unneeded_bytes_max, let_go);
        let end = (inner.status.durable_position, inner.durable_number);
        // Older ones may be on their way to be used again.
        let needed = |segment: &&Arc<Segment>| {
            segment.header.sequence >= inner.keep_from && segment.header.start < end.0
        };
        let segments = inner.segments.values().filter(needed).cloned().collect();
        Self { shared: Arc::clone(shared), id, segments, end }
    }

    /// Whether the files are still kept; what was read until now is what was held.
    pub fn is_kept(&self) -> bool {
        self.shared.lock().holds.held.contains_key(&self.id)
    }

    /// The absolute position that everything held lies before; all of it is durable.
    pub fn position(&self) -> u64 {
        self.end.0
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = HeldSegment<'_>> {
        self.segments.iter().map(|segment| {
            let bytes = segment.header.bytes.min(self.end.0 - segment.header.start);
            HeldSegment { path: &segment.path, file: &*segment.file, bytes }
        })
    }

    /// Reads everything held from the disk and checks it.
    pub fn read(&self, whole: Option<GroupId>, pace: ReadPace<'_>) -> Result<Image, OpenError> {
        let sequences: Vec<u64> = self.segments.iter().map(|segment| segment.header.sequence).collect();
        let shared = &self.shared;
        Image::of_segments(&*shared.fs, &shared.dir, &sequences, Some(self.end), whole, pace)
    }
}

impl Drop for LogHold {
    fn drop(&mut self) {
        let held = self.shared.lock().holds.held.remove(&self.id);
        // What it would have told is dropped without the lock.
        drop(held);
        self.shared.keeper.notify_one();
    }
}
