//! Owns the measuring of the log's fsyncs: a file system that does what another one does, and notes how long each took.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fanfold_storage::fs::{File, FileSystem, Mapped};

use crate::phases::{Phases, RequestPhase};

/// Notes the fsyncs of the files that are opened through it.
#[derive(Debug)]
pub(crate) struct TimedFs {
    inner: Arc<dyn FileSystem>,
    phases: Arc<Phases>,
}

#[derive(Debug)]
struct TimedFile {
    inner: Arc<dyn File>,
    phases: Arc<Phases>,
}

impl TimedFs {
    /// Notes what is done to the files of `inner`.
    pub fn new(inner: Arc<dyn FileSystem>, phases: Arc<Phases>) -> Self {
        Self { inner, phases }
    }

    fn timed(&self, opened: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        let phases = self.phases.clone();
        opened.map(|inner| Arc::new(TimedFile { inner, phases }) as Arc<dyn File>)
    }
}

impl FileSystem for TimedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.timed(self.inner.create(path))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.timed(self.inner.open_rw(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
}

impl File for TimedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn read_once(&self, part: Range<u64>) -> io::Result<Bytes> {
        self.inner.read_once(part)
    }

    fn write_aside(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_aside(offset, data)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }

    fn map(&self) -> io::Result<Mapped> {
        self.inner.map()
    }

    fn sync_data(&self) -> io::Result<()> {
        let started = Instant::now();
        let synced = self.inner.sync_data();
        self.phases.note(RequestPhase::Fsync, started.elapsed());
        synced
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.inner.drop_cache()
    }
}
