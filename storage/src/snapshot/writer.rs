//! Owns the writing of one snapshot.
//!
//! - Bucket file and manifest are durable before either has its name, and the bucket file's name before the
//!   manifest's: a manifest that is found finds its files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::base::Base;
use super::bucket_file;
use super::manifest::{BUCKET_BYTES_MAX, BucketFile, MANIFEST_BYTES_MAX, META_BYTES_MAX};
use super::name::Kind;
use super::output::Output;
use super::shared::{Hold, Shared};
use super::{Listed, Manifest, Pace, Placed, SnapshotError};

/// A snapshot that is being written. Each bucket of the state is put or kept once, in any order; the order of
/// (section, number) is the fastest to load. Dropping the writer leaves nothing that counts. After an error it can
/// only be dropped.
#[derive(Debug)]
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    base: Option<Base>,
    output: Option<Output>,
    buckets: BTreeMap<(u8, u64), Placed>,
    segments: BTreeMap<String, Listed>,
    brought: Brought,
    hold: Hold,
}

/// Segments that came with a snapshot; removed when this is dropped, unless the snapshot was put in place.
#[derive(Debug)]
struct Brought {
    shared: Arc<Shared>,
    names: Vec<String>,
}

impl Drop for Brought {
    fn drop(&mut self) {
        for name in &self.names {
            // What cannot be removed now goes when the files are pruned next.
            let _ = self.shared.fs.remove(&self.shared.dir.join(name));
        }
    }
}

impl SnapshotWriter {
    pub(super) fn new(shared: &Arc<Shared>, base: Option<&Manifest>) -> Self {
        let (hold, base) = match base {
            Some(base) => Hold::snapshot(shared, base.number),
            None => (Hold::new(shared), None),
        };
        Self {
            shared: Arc::clone(shared),
            base: base.map(Base::new),
            output: None,
            buckets: BTreeMap::new(),
            segments: BTreeMap::new(),
            brought: Brought { shared: Arc::clone(shared), names: Vec::new() },
            hold,
        }
    }

    /// Whether a bucket must be put even if it did not change: there is no base, it is not in the base, or it
    /// lies in a file that is mostly out of use and should go.
    pub fn must_write(&self, section: u8, number: u64) -> bool {
        self.base.as_ref().is_none_or(|base| base.bucket(section, number).is_none())
    }

    /// Writes a bucket. `pace` is asked before each write to the file.
    pub fn put(
        &mut self,
        section: u8,
        number: u64,
        bytes: &[u8],
        pace: Pace<'_>,
    ) -> Result<(), SnapshotError> {
        limit("bucket", bytes.len() as u64, BUCKET_BYTES_MAX)?;
        let output = match &mut self.output {
            Some(output) => output,
            None => self.output.insert(create(&self.shared, &mut self.hold, pace)?),
        };
        let (offset, length) = (output.bytes(), bytes.len() as u64);
        output.append(bytes, pace)?;
        let crc = crc32fast::hash(bytes);
        let placed = Placed { section, number, file: output.number, offset, length, crc };
        self.add(placed);
        Ok(())
    }

    /// Refers to a bucket as it stands in the base; only for those that [`Self::must_write`] does not name.
    pub fn keep(&mut self, section: u8, number: u64) {
        let placed = self.base.as_ref().and_then(|base| base.bucket(section, number)).copied();
        self.add(placed.expect("only buckets of the base that need not be written are kept"));
    }

    fn add(&mut self, placed: Placed) {
        let before = self.buckets.insert(placed.key(), placed);
        assert!(before.is_none(), "a bucket is in a snapshot once");
    }

    /// Adds a segment; its file must be durable under its name. It stays while the writer lives.
    pub fn list_segment(&mut self, segment: Listed) {
        self.hold.add(segment.name.clone());
        let before = self.segments.insert(segment.name.clone(), segment);
        assert!(before.is_none(), "a segment is in a snapshot once");
    }

    /// Adds a segment that is about to get its name and is this snapshot's alone: it goes if the snapshot is not put in place.
    pub(super) fn bring_segment(&mut self, segment: Listed) {
        self.brought.names.push(segment.name.clone());
        self.list_segment(segment);
    }

    /// Begins a bucket whose bytes are [appended](Self::append) then, and were checked by whoever does so when the
    /// snapshot is finished.
    pub(super) fn begin_bucket(&mut self, bucket: &Placed, pace: Pace<'_>) -> Result<(), SnapshotError> {
        let output = match &mut self.output {
            Some(output) => output,
            None => self.output.insert(create(&self.shared, &mut self.hold, pace)?),
        };
        let placed = Placed { file: output.number, offset: output.bytes(), ..*bucket };
        self.add(placed);
        Ok(())
    }

    /// Whether a bucket was not begun yet.
    pub(super) fn bucket_is_new(&self, bucket: &Placed) -> bool {
        !self.buckets.contains_key(&bucket.key())
    }

    /// Appends to the bucket that was begun.
    pub(super) fn append(&mut self, bytes: &[u8], pace: Pace<'_>) -> Result<(), SnapshotError> {
        let output = self.output.as_mut().expect("a bucket was begun");
        output.append(bytes, pace)
    }

    /// Makes the snapshot durable and the newest one. `index` is the last Raft index that it includes.
    pub fn finish(self, index: u64, meta: Vec<u8>, pace: Pace<'_>) -> Result<Arc<Manifest>, SnapshotError> {
        self.prepare(index, meta, pace)?.install()
    }

    /// Makes everything of the snapshot durable, so that only names are missing.
    pub fn prepare(
        mut self,
        index: u64,
        meta: Vec<u8>,
        pace: Pace<'_>,
    ) -> Result<PreparedSnapshot, SnapshotError> {
        limit("meta data", meta.len() as u64, META_BYTES_MAX)?;
        if let Some(output) = &mut self.output {
            output.sync(pace)?;
        }
        let number = self.shared.take_number();
        let files = self.files();
        let manifest = Arc::new(Manifest {
            group: self.shared.group,
            number,
            index,
            meta,
            files,
            buckets: std::mem::take(&mut self.buckets).into_values().collect(),
            segments: std::mem::take(&mut self.segments).into_values().collect(),
        });
        let bytes = manifest.encode();
        limit("manifest", bytes.len() as u64, MANIFEST_BYTES_MAX)?;
        self.hold.add(manifest.name());
        let mut output = Output::create(&self.shared, number)?;
        output.append(&bytes, pace)?;
        output.sync(pace)?;
        Ok(PreparedSnapshot { writer: self, manifest, output })
    }

    /// The bucket files that are referred to.
    fn files(&self) -> Vec<BucketFile> {
        let mut files: BTreeMap<u64, u64> = BTreeMap::new();
        for placed in self.buckets.values() {
            files.entry(placed.file).or_default();
        }
        let base = self.base.iter().flat_map(|base| base.manifest.files.iter());
        for file in base.copied().chain(self.output.iter().map(bucket_file::file)) {
            files.entry(file.number).and_modify(|bytes| *bytes = file.bytes);
        }
        files.into_iter().map(|(number, bytes)| BucketFile { number, bytes }).collect()
    }

    /// What was taken from the base must not have been found damaged meanwhile.
    fn check_base(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let Some(base) = &self.base else { return Ok(()) };
        let number = base.manifest.number;
        let kept = manifest.files.iter().any(|file| base.manifest.files.contains(file));
        if kept && !self.shared.state.lock().whole.contains_key(&number) {
            return Err(SnapshotError::DamagedBase { number });
        }
        Ok(())
    }
}

/// A snapshot that is durable but for its names. Dropping it leaves nothing that counts.
#[derive(Debug)]
pub struct PreparedSnapshot {
    writer: SnapshotWriter,
    manifest: Arc<Manifest>,
    output: Output,
}

impl PreparedSnapshot {
    /// What it consists of.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Makes it the newest one.
    pub fn install(self) -> Result<Arc<Manifest>, SnapshotError> {
        let Self { mut writer, manifest, output } = self;
        if let Some(buckets) = writer.output.take() {
            buckets.rename(Kind::Buckets)?;
        }
        writer.check_base(&manifest)?;
        // A name that fails may be there all the same.
        writer.brought.names.clear();
        output.rename(Kind::Manifest)?;
        let number = manifest.number;
        writer.shared.state.lock().whole.insert(number, Arc::clone(&manifest));
        Ok(manifest)
    }
}

fn create(shared: &Arc<Shared>, hold: &mut Hold, pace: Pace<'_>) -> Result<Output, SnapshotError> {
    let number = shared.take_number();
    hold.add(Kind::Buckets.name(number));
    let mut output = Output::create(shared, number)?;
    output.append(&bucket_file::header(shared.group, number), pace)?;
    Ok(output)
}

fn limit(what: &'static str, bytes: u64, limit_bytes: u64) -> Result<(), SnapshotError> {
    if bytes > limit_bytes { Err(SnapshotError::TooLarge { what, bytes, limit_bytes }) } else { Ok(()) }
}
