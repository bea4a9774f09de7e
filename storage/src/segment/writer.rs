//! Owns the writing of a segment.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::OrFail;
use super::index_writer::IndexWriter;
use super::layout::encode_header;
use super::output::Output;
use super::record::{Key, encode_head};
use super::{SegmentError, SegmentInfo, SegmentNumber};
use crate::entry::Entry;
use crate::fs::FileSystem;
use crate::log::Operation;

/// Called with each number of bytes before they are written; may block to keep a rate.
pub type Pace<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Writes one segment. Beside a buffer of 1 MiB it keeps in memory what becomes the indexes: about 16 bytes for each entry, timeline
/// and expiring entry, and for a while in [`SegmentWriter::finish`] as much again for each entry.
///
/// Dropped unfinished it removes its file, as far as that can be done.
pub struct SegmentWriter<'a> {
    unfinished: Unfinished<'a>,
    output: Output<'a>,
    index: IndexWriter,
    last: Option<Key>,
    /// Of the record that is being added.
    head: Vec<u8>,
}

impl fmt::Debug for SegmentWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.unfinished.path;
        f.debug_struct("SegmentWriter")
            .field("path", path)
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}

/// The file without a lasting name.
struct Unfinished<'a> {
    fs: &'a dyn FileSystem,
    dir: PathBuf,
    number: SegmentNumber,
    path: PathBuf,
    named: bool,
}

impl Unfinished<'_> {
    fn give_name(mut self) -> Result<(), SegmentError> {
        let name = self.dir.join(self.number.file_name());
        self.fs.rename(&self.path, &name).or_fail(Operation::Rename, &name)?;
        self.named = true;
        self.fs.sync_dir(&self.dir).or_fail(Operation::SyncDirectory, &self.dir)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.named {
            // It only gives room back at once: what is left over is removed when the directory is opened.
            let _left_over = self.fs.remove(&self.path);
        }
    }
}

impl<'a> SegmentWriter<'a> {
    /// Begins the file `….segment.new` in `dir`; one left over by an earlier process is replaced.
    pub fn create(
        fs: &'a dyn FileSystem,
        dir: &Path,
        number: SegmentNumber,
        pace: Pace<'a>,
    ) -> Result<Self, SegmentError> {
        let name = dir.join(number.file_name());
        match fs.open_read(&name) {
            Ok(_) => return Err(SegmentError::Exists { path: name }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).or_fail(Operation::Open, &name),
        }
        let path = dir.join(number.unfinished_name());
        match fs.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).or_fail(Operation::Remove, &path);
            }
            _ => {}
        }
        let mut output = Output::create(fs, path.clone(), pace)?;
        let unfinished = Unfinished { fs, dir: dir.to_path_buf(), number, path, named: false };
        output.append(&encode_header(number))?;
        Ok(Self { unfinished, output, index: IndexWriter::new(number), last: None, head: Vec::new() })
    }

    /// Appends an entry. They come by space, owner and descending id; ids are unique.
    pub fn add(&mut self, entry: &Entry) -> Result<(), SegmentError> {
        let key = Key::of(entry);
        if self.last.is_some_and(|last| !last.is_before(&key)) {
            return Err(SegmentError::OutOfOrder { path: self.unfinished.path.clone(), id: entry.id });
        }
        if self.entries() == u64::from(u32::MAX) {
            let limit = self.entries();
            return Err(SegmentError::TooMany { path: self.unfinished.path.clone(), limit });
        }
        encode_head(entry, &mut self.head);
        self.output.append(&self.head)?;
        self.output.append(&entry.payload)?;
        self.index.add(entry, self.output.bytes());
        self.last = Some(key);
        Ok(())
    }

    /// How many entries were added.
    pub fn entries(&self) -> u64 {
        self.index.entries()
    }

    /// How long the file is so far, without the indexes.
    pub fn bytes(&self) -> u64 {
        self.output.bytes()
    }

    /// Writes the indexes, syncs the file, gives it its name and syncs the directory. At least one entry was added.
    pub fn finish(self) -> Result<SegmentInfo, SegmentError> {
        let Self { unfinished, mut output, index, .. } = self;
        if index.entries() == 0 {
            return Err(SegmentError::Empty { path: unfinished.path.clone() });
        }
        let mut info = index.write(&mut output)?;
        assert_eq!(output.bytes(), info.bytes, "the footer says how long the file is");
        info.checksum = output.sync()?;
        unfinished.give_name()?;
        Ok(info)
    }
}
