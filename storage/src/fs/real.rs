//! Owns the file system of the machine, behind [`FileSystem`].

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{File, FileSystem, Mapped};

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
        Ok(Arc::new(RealFile { file }))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile { file: OpenOptions::new().read(true).write(true).open(path)? }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile { file: fs::File::open(path)? }))
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

/// An open file of the machine.
#[derive(Debug)]
struct RealFile {
    file: fs::File,
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
