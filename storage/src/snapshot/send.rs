//! Owns the reading of a snapshot for another directory: as streams of bytes, which do not depend on the numbers of files here.
//!
//! - Stream 0 is the manifest, stream 1 all buckets in its order without gaps, and each segment is one of those behind.
//! - Nothing is checked here: whoever takes the streams has the checksums of all of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::OrFail;
use super::shared::{Hold, Shared};
use super::{Manifest, SnapshotError, SnapshotStore, StreamPosition};
use crate::fs::File;
use crate::log::Operation;

/// A snapshot that is read for another directory. Its files stay while this lives.
#[derive(Debug)]
pub struct SnapshotSender {
    shared: Arc<Shared>,
    manifest: Arc<Manifest>,
    encoded: Vec<u8>,
    /// Where each bucket begins in stream 1, and where the last ends.
    starts: Vec<u64>,
    open: HashMap<String, Arc<dyn File>>,
    _hold: Hold,
}

impl SnapshotSender {
    /// Begins to read a snapshot; none if it is not there whole any more.
    pub fn new(store: &SnapshotStore, manifest: &Manifest) -> Option<Self> {
        let (hold, manifest) = Hold::snapshot(&store.shared, manifest.number);
        let manifest = manifest?;
        let mut starts = vec![0];
        for bucket in &manifest.buckets {
            starts.push(starts[starts.len() - 1] + bucket.length);
        }
        let (shared, encoded) = (Arc::clone(&store.shared), manifest.encode());
        Some(Self { shared, manifest, encoded, starts, open: HashMap::new(), _hold: hold })
    }

    /// Its manifest as a file has it.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Bytes of all streams together.
    pub fn bytes(&self) -> u64 {
        self.encoded.len() as u64 + self.manifest.bucket_bytes() + self.manifest.segment_bytes()
    }

    /// What a stream holds from a position on, at most so many bytes; nothing behind the end of the stream or of all streams.
    pub fn read(&mut self, position: StreamPosition, bytes_max: u64) -> Result<Vec<u8>, SnapshotError> {
        let StreamPosition { stream, offset } = position;
        let part = |length: u64| offset.min(length)..offset.saturating_add(bytes_max).min(length);
        match stream {
            0 => {
                let part = part(self.encoded.len() as u64);
                Ok(self.encoded[part.start as usize..part.end as usize].to_vec())
            }
            1 => {
                let part = part(self.starts[self.starts.len() - 1]);
                self.read_buckets(part.start, part.end)
            }
            _ => {
                let Some(segment) = self.manifest.segments.get(stream as usize - 2) else {
                    return Ok(Vec::new());
                };
                let (name, part) = (segment.name.clone(), part(segment.bytes));
                let mut out = vec![0; (part.end - part.start) as usize];
                self.read_file(&name, part.start, &mut out)?;
                Ok(out)
            }
        }
    }

    fn read_buckets(&mut self, start: u64, end: u64) -> Result<Vec<u8>, SnapshotError> {
        let mut out = vec![0; (end - start) as usize];
        let mut at = self.starts.partition_point(|begins| *begins <= start).saturating_sub(1);
        let mut filled = 0;
        while filled < out.len() {
            let placed = self.manifest.buckets[at];
            let from = start + filled as u64 - self.starts[at];
            let bytes = (placed.length - from).min((out.len() - filled) as u64) as usize;
            if bytes > 0 {
                let part = &mut out[filled..filled + bytes];
                self.read_file(&placed.file_name(), placed.offset + from, part)?;
            }
            filled += bytes;
            at += 1;
        }
        Ok(out)
    }

    fn read_file(&mut self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SnapshotError> {
        let path = self.shared.dir.join(name);
        if !self.open.contains_key(name) {
            let file = self.shared.fs.open_read(&path).or_fail(Operation::Open, &path)?;
            self.open.insert(name.to_owned(), file);
        }
        let bytes = out.len() as u64;
        let read = self.open[name].read_at(offset, out);
        read.map_err(|source| SnapshotError::Read { path, offset, bytes, source })
    }
}
