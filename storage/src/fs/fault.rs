//! Owns a file system in memory that fails on demand: for tests of this crate and of others.
//!
//! - A loss of power and the end of a process are different things: see [`FaultFs::lose_power`] and [`FaultFs::kill`].
//! - Handles and threads of the lost machine get errors from then on and reach nothing of the new one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;
use super::{File, FileSystem, Mapped, PowerLoss};

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    stopped: bool,
    stop_after: Option<u64>,
    fail_sync_after: Option<(u64, PowerLoss)>,
    fail_write_after: Option<(u64, usize)>,
    fail_dir_sync_after: Option<u64>,
    room_bytes: Option<u64>,
    syncs_held: bool,
    /// Parts of files whose reads fail, by inode.
    unreadable: BTreeMap<u64, Range<u64>>,
    /// Bytes written, by the path under which the file was opened or made.
    written: BTreeMap<PathBuf, u64>,
    operations: u64,
    syncs: u64,
    before_each: Option<Hook>,
}

/// What is called before each operation.
#[derive(Clone)]
struct Hook(Arc<dyn Fn(&Path) + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").finish_non_exhaustive()
    }
}

/// A file system in memory that can lose power, fail syncs, write short, run full and stop. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FaultFs {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

impl FaultFs {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends this machine and gives the one that starts after a loss of power.
    #[must_use]
    pub fn lose_power(&self, loss: PowerLoss) -> Self {
        let mut disk = self.stop_and_copy();
        disk.lose_power(loss);
        Self::with_disk(disk)
    }

    /// Ends this machine's processes and gives the same machine: what was written is in its cache, synced or not.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::with_disk(self.stop_and_copy())
    }

    /// An independent machine with the same files, all synced; this one goes on.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut disk = self.lock().disk.clone();
        disk.lose_power(PowerLoss::KeepAll);
        Self::with_disk(disk)
    }

    fn with_disk(disk: Disk) -> Self {
        let state = State { disk, ..State::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), released: Condvar::new() }) }
    }

    fn stop_and_copy(&self) -> Disk {
        let mut state = self.lock();
        state.stopped = true;
        state.syncs_held = false;
        self.shared.released.notify_all();
        state.disk.clone()
    }

    /// From the operation after the next `count` on, everything fails; that operation may take effect in part.
    pub fn stop_after(&self, count: u64) {
        self.lock().stop_after = Some(count);
    }

    /// The sync after the next `count` fails with EIO; of what it should have made durable, only a part is.
    pub fn fail_sync_after(&self, count: u64, kept: PowerLoss) {
        self.lock().fail_sync_after = Some((count, kept));
    }

    /// The write after the next `count` fails with EIO when that many bytes were written.
    pub fn fail_write_after(&self, count: u64, written_bytes: usize) {
        self.lock().fail_write_after = Some((count, written_bytes));
    }

    /// The sync of a directory after the next `count` fails with EIO; names may be durable or not.
    pub fn fail_dir_sync_after(&self, count: u64) {
        self.lock().fail_dir_sync_after = Some(count);
    }

    /// From now on reads of a file fail with EIO, or do not any more; false if there is no such file.
    pub fn fail_reads(&self, path: &Path, fail: bool) -> bool {
        let mut state = self.lock();
        let Some(number) = state.disk.names.get(path).copied() else { return false };
        let part = 0..u64::MAX;
        if fail {
            state.unreadable.insert(number, part).is_none()
        } else {
            state.unreadable.remove(&number).is_some()
        }
    }

    /// From now on reads of that part of a file fail with EIO, as with bad sectors, and others do not; false if there is no such file.
    pub fn fail_reads_of(&self, path: &Path, part: Range<u64>) -> bool {
        let mut state = self.lock();
        let Some(number) = state.disk.names.get(path).copied() else { return false };
        state.unreadable.insert(number, part);
        true
    }

    /// Bytes written so far, by the path that each file was opened or made under.
    pub fn written(&self) -> BTreeMap<PathBuf, u64> {
        self.lock().written.clone()
    }

    /// How many bytes the disk has; files that would grow beyond are refused. None is without limit.
    pub fn set_room_bytes(&self, bytes: Option<u64>) {
        self.lock().room_bytes = bytes;
    }

    /// While held, syncs of files wait.
    pub fn hold_syncs(&self, held: bool) {
        self.lock().syncs_held = held;
        self.shared.released.notify_all();
    }

    /// Calls `hook` before each operation that changes something, or would, with its path; it may wait. Of a machine
    /// that has stopped nothing is told any more.
    pub fn before_each(&self, hook: impl Fn(&Path) + Send + Sync + 'static) {
        self.lock().before_each = Some(Hook(Arc::new(hook)));
    }

    fn tell(&self, path: &Path) {
        let state = self.lock();
        let hook = if state.stopped { None } else { state.before_each.clone() };
        drop(state);
        if let Some(Hook(hook)) = hook {
            hook(path);
        }
    }

    /// Operations that change something, so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The names of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().disk.names.keys().cloned().collect()
    }

    /// What a file holds; none if there is no such file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let number = *state.disk.names.get(path)?;
        Some(state.disk.inode(number).cached().to_vec())
    }

    /// Replaces what an existing file holds, on the disk itself, as decay would; false if there is no such file.
    pub fn damage(&self, path: &Path, content: &[u8]) -> bool {
        let mut state = self.lock();
        let Some(number) = state.disk.names.get(path).copied() else { return false };
        state.disk.inode(number).damage(content);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half done that matters to a test disk.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.lock();
        state.alive()?;
        let inode = *state.disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultFile { fs: self.clone(), path: path.to_owned(), inode }))
    }
}

impl State {
    fn readable(&self, inode: u64, part: &Range<u64>) -> io::Result<()> {
        self.alive()?;
        match self.unreadable.get(&inode) {
            Some(bad) if part.start < bad.end && bad.start < part.end => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the machine has stopped")) } else { Ok(()) }
    }

    /// Counts a change; true if this is the one during which the machine stops.
    fn count(&mut self) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        if let Some(left) = &mut self.stop_after {
            if *left == 0 {
                self.stopped = true;
                return Ok(true);
            }
            *left -= 1;
        }
        Ok(false)
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Disk) -> T) -> io::Result<T> {
        let stops = self.count()?;
        let result = change(&mut self.disk);
        if stops {
            self.alive()?;
        }
        Ok(result)
    }
}

impl FileSystem for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        state.disk.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.alive()?;
        if !state.disk.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.tell(path);
        let mut state = self.lock();
        if state.disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.change(|disk| disk.add(path))?;
        Ok(Arc::new(FaultFile { fs: self.clone(), path: path.to_owned(), inode }))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tell(to);
        let mut state = self.lock();
        if !state.disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(|disk| disk.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tell(to);
        let mut state = self.lock();
        let inode = *state.disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if state.disk.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(|disk| disk.link(inode, to))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.lock();
        state.alive()?;
        Ok(state.room_bytes.map_or(u64::MAX, |room| room.saturating_sub(state.disk.used_bytes())))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tell(path);
        let mut state = self.lock();
        if !state.disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(|disk| disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.tell(dir);
        let mut state = self.lock();
        if state.count()? {
            return state.alive();
        }
        match &mut state.fail_dir_sync_after {
            Some(0) => {
                state.fail_dir_sync_after = None;
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        state.disk.sync_dir(dir);
        Ok(())
    }
}

/// An open file of a [`FaultFs`].
#[derive(Debug)]
struct FaultFile {
    fs: FaultFs,
    path: PathBuf,
    inode: u64,
}

impl File for FaultFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.fs.lock();
        state.alive()?;
        Ok(state.disk.inode(self.inode).cached().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.fs.lock();
        state.readable(self.inode, &(offset..offset + buffer.len() as u64))?;
        let content = state.disk.inode(self.inode).cached();
        let rest = content.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(rest.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fs.tell(&self.path);
        let mut state = self.fs.lock();
        let mut data = data;
        let mut fails = false;
        match &mut state.fail_write_after {
            Some((0, written_bytes)) => {
                data = &data[..data.len().min(*written_bytes)];
                fails = true;
                state.fail_write_after = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let grows_bytes =
            (offset + data.len() as u64).saturating_sub(state.disk.inode(self.inode).cached().len() as u64);
        if let Some(room_bytes) = state.room_bytes
            && grows_bytes > 0
            && state.disk.used_bytes() + grows_bytes > room_bytes
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.change(|disk| disk.inode(self.inode).write(offset as usize, data))?;
        let bytes = data.len() as u64;
        match state.written.get_mut(&self.path) {
            Some(written) => *written += bytes,
            None => drop(state.written.insert(self.path.clone(), bytes)),
        }
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.fs.tell(&self.path);
        self.fs.lock().change(|disk| disk.inode(self.inode).set_len(bytes as usize))
    }

    fn map(&self) -> io::Result<Mapped> {
        let mut state = self.fs.lock();
        // Mapping reads nothing yet.
        state.alive()?;
        Ok(Mapped::copied(state.disk.inode(self.inode).cached().to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.tell(&self.path);
        let mut state = self.fs.lock();
        while state.syncs_held {
            state = self.fs.shared.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.count()? {
            return state.alive();
        }
        state.syncs += 1;
        match &mut state.fail_sync_after {
            Some((0, kept)) => {
                let kept = *kept;
                state.fail_sync_after = None;
                state.disk.inode(self.inode).sync_in_part(kept);
                return Err(io::Error::from_raw_os_error(5));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        state.disk.inode(self.inode).sync();
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.fs.lock();
        state.alive()?;
        state.disk.inode(self.inode).drop_cache();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/d";

    fn file(fs: &FaultFs, name: &str) -> Arc<dyn File> {
        fs.create_dir_all(Path::new(DIR)).unwrap();
        fs.create(&Path::new(DIR).join(name)).unwrap()
    }

    #[test]
    fn only_synced_names_and_bytes_survive_a_loss_of_power() {
        let fs = FaultFs::new();
        let a = file(&fs, "a");
        a.write_at(0, b"synced").unwrap();
        a.sync_data().unwrap();
        fs.sync_dir(Path::new(DIR)).unwrap();
        a.write_at(0, b"UNSYNC").unwrap();
        file(&fs, "b").sync_data().unwrap();
        let killed = fs.kill();
        assert_eq!(killed.content(Path::new("/d/a")).unwrap(), b"UNSYNC");
        assert!(a.write_at(0, b"x").is_err(), "the old machine is gone");
        let after = killed.lose_power(PowerLoss::LoseAll);
        assert_eq!(after.content(Path::new("/d/a")).unwrap(), b"synced");
        assert_eq!(after.paths(), [PathBuf::from("/d/a")]);
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        let mut torn = 0;
        for seed in 0..40 {
            let fs = FaultFs::new();
            let a = file(&fs, "a");
            a.write_at(0, &[1; 4096]).unwrap();
            a.sync_data().unwrap();
            fs.sync_dir(Path::new(DIR)).unwrap();
            a.write_at(0, &[2; 4096]).unwrap();
            let content = fs.lose_power(PowerLoss::Random(seed)).content(Path::new("/d/a")).unwrap();
            assert!(content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            torn += u32::from(content.contains(&1) && content.contains(&2));
        }
        assert!(torn > 10, "most losses tear a write");
    }

    #[test]
    fn after_a_failed_sync_the_cache_shows_what_the_disk_does_not_have() {
        let fs = FaultFs::new();
        let a = file(&fs, "a");
        a.write_at(0, b"lost").unwrap();
        fs.fail_sync_after(0, PowerLoss::LoseAll);
        assert_eq!(a.sync_data().unwrap_err().raw_os_error(), Some(5));
        a.sync_data().unwrap();
        let mut buffer = [0; 4];
        a.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"lost");
        a.drop_cache().unwrap();
        assert_eq!(a.len().unwrap(), 0);
    }

    #[test]
    fn a_machine_that_stops_does_nothing_more() {
        let fs = FaultFs::new();
        let a = file(&fs, "a");
        fs.stop_after(1);
        a.write_at(0, b"one").unwrap();
        assert!(a.sync_data().is_err());
        assert!(a.write_at(0, b"two").is_err());
        assert_eq!(fs.operations(), 3);
    }

    #[test]
    fn a_machine_says_what_it_is_about_to_do_until_it_stops() {
        let (fs, told) = (FaultFs::new(), Arc::new(Mutex::new(Vec::new())));
        let tell = told.clone();
        fs.before_each(move |path| tell.lock().unwrap().push(path.to_owned()));
        let a = file(&fs, "a");
        a.write_at(0, b"one").unwrap();
        a.sync_data().unwrap();
        fs.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        fs.sync_dir(Path::new(DIR)).unwrap();
        fs.stop_after(0);
        assert!(fs.remove(Path::new("/d/b")).is_err() && a.sync_data().is_err());
        let expected = ["/d/a", "/d/a", "/d/a", "/d/b", "/d", "/d/b"].map(PathBuf::from);
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let fs = FaultFs::new();
        let a = file(&fs, "a");
        a.write_at(0, &[0; 100]).unwrap();
        fs.set_room_bytes(Some(100));
        a.write_at(50, &[1; 50]).unwrap();
        assert_eq!(a.write_at(90, &[1; 20]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs.fail_write_after(0, 3);
        assert!(a.write_at(0, &[9; 10]).is_err());
        assert_eq!(fs.content(Path::new("/d/a")).unwrap()[..5], [9, 9, 9, 0, 0]);
    }

    #[test]
    fn a_second_name_is_durable_by_itself_and_takes_no_room() {
        let fs = FaultFs::new();
        let a = file(&fs, "a");
        a.write_at(0, b"content").unwrap();
        a.sync_data().unwrap();
        fs.set_room_bytes(Some(8));
        fs.link(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        a.write_at(7, b"!").unwrap();
        a.sync_data().unwrap();
        assert_eq!(
            fs.link(Path::new("/d/a"), Path::new("/d/b")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(fs.link(Path::new("/d/c"), Path::new("/d/d")).is_err(), "there is no such file");
        assert_eq!(fs.duplicate().lose_power(PowerLoss::LoseAll).paths().len(), 2);
        fs.remove(Path::new("/d/a")).unwrap();
        fs.sync_dir(Path::new(DIR)).unwrap();
        let after = fs.lose_power(PowerLoss::LoseAll);
        assert_eq!(after.paths(), [PathBuf::from("/d/b")]);
        assert_eq!(after.open_read(Path::new("/d/b")).unwrap().map().unwrap().bytes()[..], b"content!"[..]);
    }
}
