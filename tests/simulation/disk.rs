//! Owns a disk that forgets to sync: what one node has in a negative control.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fanfold_storage::fs::{FaultFs, File, FileSystem, Mapped};

/// A file system that answers every sync of a file without doing it.
#[derive(Debug)]
pub struct ForgetfulFs(pub FaultFs);

#[derive(Debug)]
struct ForgetfulFile(Arc<dyn File>);

fn forgetful(file: Arc<dyn File>) -> Arc<dyn File> {
    Arc::new(ForgetfulFile(file))
}

impl FileSystem for ForgetfulFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.create(path).map(forgetful)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_rw(path).map(forgetful)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_read(path).map(forgetful)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

impl File for ForgetfulFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn map(&self) -> io::Result<Mapped> {
        self.0.map()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.0.drop_cache()
    }
}
