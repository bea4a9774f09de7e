//! Owns the writing of a snapshot that comes from another directory, as [streams](super::SnapshotSender).
//!
//! - Everything gets numbers of this directory: buckets go into one file of their own, segments are renumbered by whoever
//!   knows their format.
//! - Nothing counts before [`PreparedSnapshot::install`], and everything was checked by then.
//! - The receiver says which bytes it wants next, so a transfer that breaks goes on where it stopped; others are refused.

use std::path::Path;

use crc32fast::Hasher;

use super::manifest::MANIFEST_BYTES_MAX;
use super::name::Kind;
use super::output::Output;
use super::{Listed, Manifest, Pace, PreparedSnapshot, SnapshotError, SnapshotStore, SnapshotWriter};

/// A place in the streams of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamPosition {
    /// 0 the manifest, 1 the buckets, the segments from 2 on.
    pub stream: u32,
    /// Bytes of the stream before it.
    pub offset: u64,
}

/// What a sender says of its snapshot before it sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The manifest's number in the sender's directory.
    pub number: u64,
    /// The manifest's length.
    pub manifest_bytes: u64,
    /// CRC-32 over the manifest.
    pub manifest_crc: u32,
}

/// Gives the file of a segment, written but without its name, the number in the name that it will have; what is listed then.
pub type Renumber<'a> = &'a dyn Fn(&Path, &Listed, u64) -> Result<Listed, SnapshotError>;

/// A snapshot that is being received. Dropping it leaves nothing that counts. After an error it can only be dropped.
#[derive(Debug)]
pub struct SnapshotReceiver {
    store: SnapshotStore,
    announced: Announced,
    manifest: Received,
    writer: SnapshotWriter,
    /// The bucket that is being received, its bytes so far, and their checksum.
    bucket: (usize, u64, Hasher),
    segment: Option<Output>,
    position: StreamPosition,
}

/// The sender's manifest.
#[derive(Debug)]
enum Received {
    Partly(Vec<u8>),
    Whole(Manifest),
}

impl SnapshotReceiver {
    /// Begins to receive into a directory.
    pub fn new(store: &SnapshotStore, announced: Announced) -> Result<Self, SnapshotError> {
        let (bytes, limit_bytes) = (announced.manifest_bytes, MANIFEST_BYTES_MAX);
        if bytes > limit_bytes {
            return Err(SnapshotError::TooLarge { what: "manifest", bytes, limit_bytes });
        }
        Ok(Self {
            store: store.clone(),
            announced,
            manifest: Received::Partly(Vec::new()),
            writer: store.begin(None),
            bucket: (0, 0, Hasher::new()),
            segment: None,
            position: StreamPosition { stream: 0, offset: 0 },
        })
    }

    /// Which bytes are wanted next; none if all are there.
    pub fn wants(&self) -> Option<StreamPosition> {
        let Received::Whole(manifest) = &self.manifest else { return Some(self.position) };
        ((self.position.stream as usize) < 2 + manifest.segments.len()).then_some(self.position)
    }

    /// Takes the bytes at the position that is wanted; they must not reach into the next stream.
    pub fn take(
        &mut self,
        bytes: &[u8],
        renumber: Renumber<'_>,
        pace: Pace<'_>,
    ) -> Result<(), SnapshotError> {
        let Some(position) = self.wants() else { return Err(self.foreign()) };
        if bytes.is_empty() || bytes.len() as u64 > self.stream_bytes() - position.offset {
            return Err(self.foreign());
        }
        match position.stream {
            0 => self.take_manifest(bytes)?,
            1 => self.take_buckets(bytes, pace)?,
            _ => self.take_segment(bytes, pace)?,
        }
        self.position.offset += bytes.len() as u64;
        self.go_on(renumber, pace)
    }

    /// Makes everything durable but for names.
    pub fn prepare(self, pace: Pace<'_>) -> Result<PreparedSnapshot, SnapshotError> {
        if self.wants().is_some() {
            return Err(self.foreign());
        }
        let Received::Whole(manifest) = self.manifest else { unreachable!("it is wanted before all else") };
        self.writer.prepare(manifest.index, manifest.meta, pace)
    }

    /// The length of the stream that is being received.
    fn stream_bytes(&self) -> u64 {
        match (&self.manifest, self.position.stream) {
            (Received::Partly(_), _) => self.announced.manifest_bytes,
            (Received::Whole(_), 0) => 0,
            (Received::Whole(manifest), 1) => manifest.bucket_bytes(),
            (Received::Whole(manifest), stream) => {
                manifest.segments.get(stream as usize - 2).map_or(0, |segment| segment.bytes)
            }
        }
    }

    /// Ends streams that are complete, and those that are empty.
    fn go_on(&mut self, renumber: Renumber<'_>, pace: Pace<'_>) -> Result<(), SnapshotError> {
        while self.wants().is_some() && self.position.offset == self.stream_bytes() {
            match self.position.stream {
                0 => self.end_manifest()?,
                1 => self.end_buckets(pace)?,
                _ => self.end_segment(renumber, pace)?,
            }
            self.position = StreamPosition { stream: self.position.stream + 1, offset: 0 };
        }
        Ok(())
    }

    fn take_manifest(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        match &mut self.manifest {
            Received::Partly(manifest) => manifest.extend_from_slice(bytes),
            Received::Whole(_) => return Err(self.foreign()),
        }
        Ok(())
    }

    fn end_manifest(&mut self) -> Result<(), SnapshotError> {
        let Received::Partly(bytes) = &self.manifest else { return Ok(()) };
        if crc32fast::hash(bytes) != self.announced.manifest_crc {
            return Err(self.foreign());
        }
        let (group, number) = (self.store.shared.group, self.announced.number);
        let manifest = Manifest::decode(bytes, group, number);
        self.manifest = Received::Whole(manifest.map_err(|fault| fault.of(&self.store.shared.dir))?);
        Ok(())
    }

    fn take_buckets(&mut self, mut bytes: &[u8], pace: Pace<'_>) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            self.skip_ended(pace)?;
            let Received::Whole(manifest) = &self.manifest else { return Err(self.foreign()) };
            let (at, had, hasher) = &mut self.bucket;
            let left = manifest.buckets[*at].length - *had;
            let (part, rest) = bytes.split_at(left.min(bytes.len() as u64) as usize);
            hasher.update(part);
            *had += part.len() as u64;
            self.writer.append(part, pace)?;
            bytes = rest;
        }
        self.skip_ended(pace)
    }

    /// Ends the buckets that are complete and begins the next one that is not empty.
    fn skip_ended(&mut self, pace: Pace<'_>) -> Result<(), SnapshotError> {
        let Received::Whole(manifest) = &self.manifest else { return Ok(()) };
        while let Some(placed) = manifest.buckets.get(self.bucket.0) {
            let (at, had, hasher) = &mut self.bucket;
            if *had == 0 && self.writer.bucket_is_new(placed) {
                self.writer.begin_bucket(placed, pace)?;
            }
            if *had < placed.length {
                return Ok(());
            }
            if std::mem::take(hasher).finalize() != placed.crc {
                return Err(self.foreign());
            }
            (*at, *had) = (*at + 1, 0);
        }
        Ok(())
    }

    fn end_buckets(&mut self, pace: Pace<'_>) -> Result<(), SnapshotError> {
        self.skip_ended(pace)
    }

    fn take_segment(&mut self, bytes: &[u8], pace: Pace<'_>) -> Result<(), SnapshotError> {
        let output = if let Some(output) = &mut self.segment {
            output
        } else {
            let number = self.store.shared.take_number();
            self.segment.insert(Output::create(&self.store.shared, number)?)
        };
        output.append(bytes, pace)
    }

    fn end_segment(&mut self, renumber: Renumber<'_>, pace: Pace<'_>) -> Result<(), SnapshotError> {
        let Received::Whole(manifest) = &self.manifest else { return Ok(()) };
        let listed = &manifest.segments[self.position.stream as usize - 2];
        let Some(mut output) = self.segment.take() else { return Err(self.foreign()) };
        output.sync(pace)?;
        let name = Kind::Segment.name(output.number);
        let now = renumber(output.path(), listed, output.number)?;
        assert!(now.name == name && now.bytes == listed.bytes, "only the number becomes another");
        // Held before it has its name.
        self.writer.bring_segment(now);
        output.rename(Kind::Segment)
    }

    /// What came is not what was announced.
    fn foreign(&self) -> SnapshotError {
        SnapshotError::Foreign { path: self.store.shared.dir.clone() }
    }
}
