//! Owns the snapshots of a group: taking one beside the applies, offering it to openraft, and letting the log go behind it.
//!
//! - The cut is made between two Raft entries, on the task that applies them; its buckets are taken under the lock in
//!   short pieces, and written on a blocking thread.
//! - openraft is told of a snapshot only when it is durable, so that nothing of ours can fail inside it.
//! - The log is purged up to the second newest snapshot (R20), and only then are files removed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fanfold_storage::codec::{Reader, put_bytes, put_u64};
use fanfold_storage::snapshot::{Listed, Manifest, Pin};

use super::codec::{SnapshotMetaBytes, decode, encode};
use super::files::{FileError, GroupFiles};
use super::machine::{Bucket, Machine, Shared};
use super::types::SnapshotMeta;

/// A snapshot on this node's disk, kept there while this is held.
#[derive(Debug, Clone)]
pub struct StoredSnapshot {
    /// What it consists of.
    pub manifest: Arc<Manifest>,
    /// Where it is.
    pub files: GroupFiles,
    _pin: Option<Arc<Pin>>,
}

impl StoredSnapshot {
    pub(super) fn new(files: &GroupFiles, manifest: Arc<Manifest>) -> Self {
        let pin = files.snapshots.pin(&manifest).map(Arc::new);
        Self { manifest, files: files.clone(), _pin: pin }
    }

    /// What Raft noted with it.
    pub(super) fn meta(&self) -> Result<SnapshotMeta, FileError> {
        Ok(decode::<SnapshotMetaBytes>(&self.manifest.meta.clone().into())?.try_into()?)
    }
}

/// The newest snapshot of a group and the one before; what openraft knows is never newer.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Option<(StoredSnapshot, SnapshotMeta)>>);

impl Current {
    pub fn get(&self) -> Option<(StoredSnapshot, SnapshotMeta)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, snapshot: StoredSnapshot, meta: SnapshotMeta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((snapshot, meta));
    }
}

/// Ends a cut that was not finished.
struct Cut<'a, M: Machine> {
    shared: &'a Shared<M>,
    taken: bool,
}

impl<M: Machine> Drop for Cut<'_, M> {
    fn drop(&mut self) {
        let taken = self.taken;
        drop(self.shared.change(|state| state.machine.end_cut(taken)));
    }
}

/// Writes the snapshot of a cut that was begun; `base` is the one since which changes were counted. Blocks; the machine is
/// locked for short pieces only.
pub(super) fn write_cut<M: Machine>(
    shared: &Shared<M>,
    files: &GroupFiles,
    base: Option<&Manifest>,
    meta: &SnapshotMeta,
) -> Result<Arc<Manifest>, FileError> {
    let mut cut = Cut { shared, taken: false };
    let noted = encode(&SnapshotMetaBytes::from(meta))?;
    let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
    let mut writer = files.snapshots.begin(base);
    loop {
        let must_write = |section, number| writer.must_write(section, number);
        match shared.change(|state| state.machine.next_bucket(&must_write)) {
            Some(Bucket::Changed { section, number, bytes }) => {
                writer.put(section, number, &bytes, &*files.pace)?;
            }
            Some(Bucket::Unchanged { section, number }) => writer.keep(section, number),
            Some(Bucket::Unfinished) => {}
            None => break,
        }
    }
    // What the state refers to is durable before the snapshot that says so.
    while let Some(work) = shared.change(|state| state.machine.cut_work()) {
        let install = work(files)?;
        drop(shared.change(|state| install(&mut state.machine)));
    }
    let last = shared.change(|state| state.machine.last_bucket()).ok_or(FileError::Damaged)?;
    writer.put(last.section, last.number, &last.bytes, &*files.pace)?;
    last.segments.into_iter().for_each(|segment| writer.list_segment(segment));
    let manifest = writer.finish(index, noted.to_vec(), &*files.pace)?;
    cut.taken = true;
    Ok(manifest)
}

/// A snapshot as openraft passes it on.
#[derive(Debug, Clone)]
pub(super) enum SnapshotData {
    /// On this node's disk.
    Stored(StoredSnapshot),
    /// As a peer sent it.
    Sent(Bytes),
}

impl SnapshotData {
    /// The whole snapshot as a peer is sent it: its buckets, then its segments.
    pub fn to_bytes(&self) -> Result<Bytes, FileError> {
        let StoredSnapshot { manifest, files, .. } = match self {
            Self::Stored(stored) => stored,
            Self::Sent(sent) => return Ok(sent.clone()),
        };
        let mut out = Vec::new();
        put_u64(&mut out, manifest.index);
        put_bytes(&mut out, &manifest.meta);
        put_u64(&mut out, manifest.buckets.len() as u64);
        files.snapshots.load(manifest, |section, number, bytes| {
            out.push(section);
            put_u64(&mut out, number);
            put_bytes(&mut out, bytes);
            Ok(())
        })?;
        put_u64(&mut out, manifest.segments.len() as u64);
        for segment in &manifest.segments {
            put_bytes(&mut out, segment.name.as_bytes());
            put_u64(&mut out, u64::from(segment.checksum));
            put_bytes(&mut out, &segment.detail);
            put_bytes(&mut out, &read_whole(files, segment)?);
        }
        Ok(out.into())
    }

    /// Makes the snapshot one of this directory's.
    pub fn adopt(&self, files: &GroupFiles) -> Result<Arc<Manifest>, FileError> {
        if let Self::Stored(stored) = self
            && stored.files.dir == files.dir
        {
            return Ok(stored.manifest.clone());
        }
        let sent = self.to_bytes()?;
        let mut from = Reader::new(&sent);
        let (index, meta) = (from.u64()?, from.bytes()?.to_vec());
        let mut writer = files.snapshots.begin(None);
        for _ in 0..from.count()? {
            let (section, number) = (from.byte()?, from.u64()?);
            writer.put(section, number, from.bytes()?, &*files.pace)?;
        }
        for _ in 0..from.count()? {
            let name = String::from_utf8_lossy(from.bytes()?).into_owned();
            let (checksum, detail, content) = (from.u32()?, from.bytes()?.to_vec(), from.bytes()?);
            let segment = Listed { name, bytes: content.len() as u64, checksum, detail };
            write_whole(files, &segment, content)?;
            writer.list_segment(segment);
        }
        from.end()?;
        Ok(writer.finish(index, meta, &*files.pace)?)
    }
}

fn read_whole(files: &GroupFiles, segment: &Listed) -> Result<Vec<u8>, FileError> {
    let path = files.dir.join(&segment.name);
    let read = || {
        let mut content = vec![0; segment.bytes as usize];
        files.fs.open_read(&path)?.read_at(0, &mut content)?;
        Ok(content)
    };
    read().map_err(|source| FileError::Io { path: path.clone(), source })
}

/// Makes a segment of this directory's; its name must be free.
fn write_whole(files: &GroupFiles, segment: &Listed, content: &[u8]) -> Result<(), FileError> {
    let path = files.dir.join(&segment.name);
    let unfinished = path.with_extension("new");
    let write = || {
        if files.fs.open_read(&path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = files.fs.create(&unfinished)?;
        file.write_at(0, content)?;
        file.sync_data()?;
        files.fs.rename(&unfinished, &path)?;
        files.fs.sync_dir(&files.dir)
    };
    write().map_err(|source| FileError::Io { path: path.clone(), source })
}
