//! Owns what tests of groups share: a machine that keeps lines, and replicas on disks that can lose power.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fanfold_storage::fs::{FaultFs, FileSystem};
use fanfold_storage::log::{GroupId, Log, LogOptions};
use fanfold_storage::snapshot::Manifest;

use super::*;

/// Keeps each command as a line with its stamp; the outcome of a command is its line number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Notebook {
    pub lines: Vec<(u64, Bytes)>,
    /// How many lines came with each batch.
    pub batches: Vec<usize>,
    cut: Vec<(u64, Bytes)>,
    next_bucket: u64,
    /// Lines in the newest cut that was taken.
    taken: usize,
    /// Whether there is work on files, which panics.
    pub panics_at_work: bool,
    /// Lines that may come while a cut is under way, until the next has to wait.
    pub cut_lines_max: Option<usize>,
    /// Lines that may wait to be flushed, until the next has to wait; none: nothing is flushed.
    pub unflushed_max: Option<usize>,
    flushed: usize,
    /// How many lines waited at most.
    pub most_unflushed: usize,
    /// Whether flushes fail.
    pub fails_to_flush: bool,
    /// Where the steps of cuts were taken and where works on files were installed.
    pub kept_up_on: Vec<ThreadId>,
}

const LINES_OF_BUCKET: usize = 10;

impl Machine for Notebook {
    type Outcome = Vec<usize>;

    type Work<'b> = Vec<usize>;

    fn begin(&mut self, _index: u64, batch: &[u8]) -> Vec<usize> {
        let commands = decode_batch(batch);
        self.batches.push(commands.len());
        let first = self.lines.len() + 1;
        self.lines.extend(commands);
        self.most_unflushed = self.most_unflushed.max(self.lines.len() - self.flushed);
        (first..=self.lines.len()).collect()
    }

    fn go_on(&mut self, _work: &mut Vec<usize>) -> bool {
        false
    }

    fn finish(work: Vec<usize>) -> Vec<usize> {
        work
    }

    fn begin_cut(&mut self) {
        self.cut = self.lines.clone();
        self.next_bucket = 0;
        self.kept_up_on.push(thread::current().id());
    }

    /// Ten lines make a bucket; one that was full does not change.
    fn next_bucket(&mut self, must_write: &dyn Fn(u8, u64) -> bool) -> Option<Bucket> {
        self.kept_up_on.push(thread::current().id());
        let number = self.next_bucket;
        let lines = self.cut.chunks(LINES_OF_BUCKET).nth(number as usize)?;
        self.next_bucket += 1;
        let was_full = self.taken >= self.next_bucket as usize * LINES_OF_BUCKET;
        if was_full && !must_write(1, number) {
            return Some(Bucket::Unchanged { section: 1, number });
        }
        let lines = lines.iter().map(|(stamp_ms, line)| encode_batch(*stamp_ms, std::slice::from_ref(line)));
        Some(Bucket::Changed { section: 1, number, bytes: lines.flatten().collect() })
    }

    fn cut_holds_too_much(&mut self) -> bool {
        let came = self.lines.len() - self.cut.len();
        !self.cut.is_empty() && self.cut_lines_max.is_some_and(|most| came >= most)
    }

    fn last_bucket(&mut self) -> Option<LastWork> {
        Some(Box::new(|| LastBucket { section: 2, number: 0, bytes: Vec::new(), segments: Vec::new() }))
    }

    fn end_cut(&mut self, taken: bool) -> Garbage {
        let lines = std::mem::take(&mut self.cut).len();
        self.taken = if taken { lines } else { self.taken };
        self.kept_up_on.push(thread::current().id());
        Box::new(())
    }

    fn restoring(&self, manifest: Arc<Manifest>) -> RestoreWork<Self> {
        Box::new(move |files| {
            let mut buckets = BTreeMap::new();
            let decode = |section, number, bytes: &[u8]| Ok(((section, number), decode_batch(bytes)));
            files.snapshots.load(&manifest, decode, |(place, lines)| {
                buckets.insert(place, lines);
                Ok(())
            })?;
            let lines: Vec<_> = buckets.into_values().flatten().collect();
            Ok(Box::new(move |machine: &mut Self| {
                machine.taken = lines.len();
                Box::new(std::mem::replace(&mut machine.lines, lines)) as Garbage
            }))
        })
    }

    fn unflushed(&self) -> Unflushed {
        match (self.unflushed_max, self.lines.len() - self.flushed) {
            (None, _) | (_, 0) => Unflushed::Little,
            (Some(most), lines) if lines > most => Unflushed::TooMuch,
            _ => Unflushed::Due,
        }
    }

    /// Takes as long as the pace says.
    fn flush_work(&mut self, _settings: &FileSettings) -> Option<FileWork<Self>> {
        let (lines, fails) = (self.lines.len(), self.fails_to_flush);
        if self.unflushed_max.is_none() || lines == self.flushed {
            return None;
        }
        Some(Box::new(move |files| {
            (files.pace)(1);
            if fails {
                return Err(FileError::Stopped);
            }
            Ok(Box::new(move |notebook: &mut Self| {
                notebook.flushed = lines;
                Installed::Done(Box::new(()))
            }))
        }))
    }

    fn file_work(&mut self, _settings: &FileSettings) -> Option<FileWork<Self>> {
        let panics: FileWork<Self> = Box::new(|_| panic!("on purpose"));
        self.panics_at_work.then_some(panics)
    }
}

/// Each command as its stamp, its length and its bytes.
pub(crate) fn encode_batch(stamp_ms: u64, commands: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::new();
    for command in commands {
        bytes.put_u64(stamp_ms);
        bytes.put_u32(command.len() as u32);
        bytes.put_slice(command);
    }
    bytes.freeze()
}

fn decode_batch(mut bytes: &[u8]) -> Vec<(u64, Bytes)> {
    let mut commands = Vec::new();
    while bytes.has_remaining() {
        let (stamp_ms, length) = (bytes.get_u64(), bytes.get_u32() as usize);
        commands.push((stamp_ms, bytes.copy_to_bytes(length)));
    }
    commands
}

/// A batch with one line.
pub(crate) fn line(text: &str) -> Batch {
    Batch(encode_batch(0, &[Bytes::copy_from_slice(text.as_bytes())]))
}

/// The texts of all lines.
pub(crate) fn texts(group: &Group<Notebook>) -> Vec<String> {
    group.read(|notebook| {
        notebook.lines.iter().map(|(_, line)| String::from_utf8(line.to_vec()).unwrap()).collect()
    })
}

pub(crate) const GROUP: GroupId = GroupId(3);

/// The log of a node on any file system, with segments of this size.
pub(crate) fn open_log(fs: Arc<dyn FileSystem>, dir: &Path, segment_bytes: u64) -> Log {
    let options = LogOptions { segment_bytes, salt: 7, ..LogOptions::default() };
    Log::open(fs, dir, options).unwrap().0
}

/// The log of a node on a disk in memory.
pub(crate) fn open_memory_log(disk: &FaultFs) -> Log {
    open_log(Arc::new(disk.clone()), Path::new("/log"), 2 << 20)
}

/// Short times, so that tests of elections are quick.
pub(crate) fn quick() -> RaftSettings {
    RaftSettings { heartbeat_ms: 50, election_min_ms: 200, election_max_ms: 400, ..RaftSettings::default() }
}

/// A member list of this many replicas, numbered from 1.
pub(crate) fn members(count: u64) -> BTreeMap<ReplicaId, ReplicaAddress> {
    (1..=count).map(|id| (ReplicaId(id), ReplicaAddress(format!("node-{id}")))).collect()
}

pub(crate) fn spec(replica: u64, count: u64, formation: Formation) -> GroupSpec {
    GroupSpec { group: GROUP, replica: ReplicaId(replica), members: members(count), formation }
}

/// Opens a group with a single voter.
pub(crate) async fn open_single(
    files: GroupDirectory,
    log: &Log,
    formation: Formation,
) -> Result<Group<Notebook>, OpenError> {
    let transport = Arc::new(InProcessTransport::default());
    let spec = spec(1, 1, formation);
    let loading = files.load(spec.group, Notebook::default());
    Group::open(log.clone(), spec, loading, &quick(), transport).await
}

/// The directory of a group.
pub(crate) fn directory(fs: Arc<dyn FileSystem>, dir: &Path) -> GroupDirectory {
    GroupDirectory { fs, dir: dir.to_owned(), pace: Arc::new(|_| {}), fills: Fills::default() }
}

/// The directory of the group on a disk in memory.
pub(crate) fn memory_directory(disk: &FaultFs) -> GroupDirectory {
    directory(Arc::new(disk.clone()), Path::new("/groups/0003"))
}

/// Notes that a data directory holds a replica.
pub(crate) fn write_note(fs: &dyn FileSystem, data_dir: &Path, group: GroupId, replica: ReplicaId) {
    note::Note { replica, is_retired: false }.write(fs, &group_dir(data_dir, group), group).unwrap();
}
