//! Owns the hold on a running log: its files up to what was durable at one moment, kept while others go on writing.
//!
//! - No file is given back for reuse while somebody holds the log, so that it may grow meanwhile.
//! - What lies behind the position of the hold may be being written and is never shown.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::image::{End, Image, ReadPace};
use super::segment::Segment;
use super::shared::Shared;
use super::{GroupId, OpenError};
use crate::fs::File;

/// Keeps the segments of a log while it lives.
pub struct LogHold {
    shared: Arc<Shared>,
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
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut inner = shared.lock();
        inner.holds += 1;
        let end = (inner.status.durable_position, inner.durable_number);
        // Older ones may be on their way to be used again.
        let needed = |segment: &&Arc<Segment>| {
            segment.header.sequence >= inner.keep_from && segment.header.start < end.0
        };
        let segments = inner.segments.values().filter(needed).cloned().collect();
        Self { shared: Arc::clone(shared), segments, end }
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
        self.shared.lock().holds -= 1;
        self.shared.keeper.notify_one();
    }
}
