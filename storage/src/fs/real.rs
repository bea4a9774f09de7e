//! Owns the file system of the machine, behind [`FileSystem`].

use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::block::ALIGNED_BYTES;
use super::{BLOCK_BYTES, Block, File, FileSystem, Mapped};

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl FileSystem for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            Some(_) => self.sync_dir(Path::new(".")),
            None => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let is_file = kind.is_file() || kind.is_symlink() && entry.path().is_file();
            if is_file && let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(RealFile::of(file, true))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(RealFile::of(OpenOptions::new().read(true).write(true).open(path)?, true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(RealFile::of(fs::File::open(path)?, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

/// Whether a write beside the page cache was done; if a file was opened so and cannot be written so, the page cache takes it.
fn was_written(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        done => done.map(|()| true),
    }
}

/// An open file of the machine.
#[derive(Debug)]
struct RealFile {
    file: fs::File,
    is_writable: bool,
    /// The same beside the page cache, once it was needed; none where the system refuses that.
    direct: OnceLock<Option<fs::File>>,
}

impl RealFile {
    fn of(file: fs::File, is_writable: bool) -> Arc<Self> {
        Arc::new(Self { file, is_writable, direct: OnceLock::new() })
    }

    fn direct(&self) -> Option<&fs::File> {
        let open = || {
            let flags = OFlags::DIRECT.bits() as i32;
            let mut options = OpenOptions::new();
            options.read(true).write(self.is_writable).custom_flags(flags);
            // Whatever its name is by now.
            options.open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Reads whole pages into a block from `offset` on, to the end of the file at most; how many bytes, and none if the
    /// system does not read this file so.
    fn read_direct(&self, offset: u64, pages: &mut [u8]) -> io::Result<usize> {
        let Some(direct) = self.direct() else { return Ok(0) };
        let mut done = 0;
        // Behind a part of a page the file ends.
        while done < pages.len() && done.is_multiple_of(ALIGNED_BYTES) {
            match direct.read_at(&mut pages[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                // The page cache might know better, and hide what the disk has become.
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn read_once(&self, part: Range<u64>) -> io::Result<Bytes> {
        let before = (part.start % ALIGNED_BYTES as u64) as usize;
        let wanted = (part.end - part.start) as usize;
        let pages = (before + wanted).next_multiple_of(ALIGNED_BYTES);
        let block = if pages > BLOCK_BYTES || self.direct().is_none() { None } else { Block::new().ok() };
        let Some(mut block) = block else {
            let mut bytes = vec![0; wanted];
            self.read_at(part.start, &mut bytes)?;
            return Ok(bytes.into());
        };
        let done = self.read_direct(part.start - before as u64, &mut block.bytes_mut()[..pages])?;
        if done < before + wanted {
            self.read_at(part.start, &mut block.bytes_mut()[before..before + wanted])?;
        }
        Ok(block.freeze().slice(before..before + wanted))
    }

    fn write_aside(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let is_aligned = |number: usize| number.is_multiple_of(ALIGNED_BYTES);
        let mut pages = data.len() - data.len() % ALIGNED_BYTES;
        if !is_aligned(data.as_ptr() as usize) || !is_aligned(offset as usize) {
            pages = 0;
        }
        let direct = if pages > 0 { self.direct() } else { None };
        let written = match direct {
            Some(direct) => was_written(direct.write_all_at(&data[..pages], offset))?,
            None => false,
        };
        let done = if written { pages } else { 0 };
        self.write_at(offset + done as u64, &data[done..])
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn map(&self) -> io::Result<Mapped> {
        Mapped::file(&self.file)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        // Without a length the advice covers the file to its end. Only clean pages are dropped; whoever needs
        // the disk's own view of dirty ones syncs before.
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_after_the_cache_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealFs.create(&path).unwrap();
        file.write_at(4096, b"hello").unwrap();
        file.sync_data().unwrap();
        file.drop_cache().unwrap();
        let mut buffer = [0; 5];
        RealFs.open_read(&path).unwrap().read_at(4096, &mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        assert_eq!(file.len().unwrap(), 4101);
        assert_eq!(file.read_at(4100, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(RealFs.create(&path).is_err(), "a name is created once");
        RealFs.rename(&path, &dir.path().join("other")).unwrap();
        RealFs.sync_dir(dir.path()).unwrap();
        assert_eq!(RealFs.list(dir.path()).unwrap(), ["other"]);
    }

    #[test]
    fn what_passes_by_the_page_cache_is_the_same_as_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let file = RealFile::of(created, true);
        let flags = OFlags::DIRECT.bits() as i32;
        let lets_pass = OpenOptions::new().read(true).custom_flags(flags).open(&path).is_ok();
        assert_eq!(file.direct().is_some(), lets_pass, "the system says whether it can be done");
        let byte = |at: usize| (at * 31 / 7) as u8;
        let mut block = Block::new().unwrap();
        let length = 2 * BLOCK_BYTES + 3 * ALIGNED_BYTES + 77;
        for begin in (0..length).step_by(BLOCK_BYTES) {
            let bytes = BLOCK_BYTES.min(length - begin);
            let part = &mut block.bytes_mut()[..bytes];
            part.iter_mut().zip(begin..).for_each(|(to, at)| *to = byte(at));
            file.write_aside(begin as u64, &block.bytes()[..bytes]).unwrap();
        }
        file.sync_data().unwrap();
        let read = RealFs.open_read(&path).unwrap();
        assert_eq!(read.len().unwrap(), length as u64);
        for part in
            [0..1, 0..length, 5..ALIGNED_BYTES + 5, BLOCK_BYTES - 1..BLOCK_BYTES + 1, length - 80..length]
        {
            let expected: Vec<u8> = part.clone().map(byte).collect();
            let wanted = part.start as u64..part.end as u64;
            assert_eq!(read.read_once(wanted.clone()).unwrap(), expected, "{part:?}");
            let mut cached = vec![0; part.len()];
            read.read_at(wanted.start, &mut cached).unwrap();
            assert_eq!(cached, expected, "{part:?}");
        }
        let behind = length as u64 - 1..length as u64 + 1;
        assert_eq!(read.read_once(behind).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let refused = was_written(Err(io::ErrorKind::InvalidInput.into()));
        assert!(!refused.unwrap(), "the page cache takes it");
        assert!(was_written(Err(io::ErrorKind::StorageFull.into())).is_err() && was_written(Ok(())).unwrap());
        // Data that does not begin in a block is written all the same.
        file.write_aside(1, &[9; 10_000]).unwrap();
        assert_eq!(read.read_once(0..3).unwrap()[..], [byte(0), 9, 9]);
    }

    #[test]
    fn mapped_bytes_outlive_the_name_and_the_forgotten_pages() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        let file = RealFs.create(&path).unwrap();
        file.write_at(0, &[7; 10_000]).unwrap();
        let mapped = file.map().unwrap();
        let slice = mapped.bytes().slice(5_000..);
        RealFs.link(&path, &other).unwrap();
        assert_eq!(RealFs.link(&path, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        RealFs.remove(&path).unwrap();
        mapped.forget_pages().unwrap();
        drop((mapped, file));
        assert!(slice.len() == 5_000 && slice.iter().all(|byte| *byte == 7));
        assert_eq!(RealFs.open_read(&other).unwrap().len().unwrap(), 10_000);
        RealFs.create(&path).unwrap();
        assert!(RealFs.open_read(&path).unwrap().map().unwrap().bytes().is_empty());
    }
}
