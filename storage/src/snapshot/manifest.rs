//! Owns what a snapshot consists of: its manifest.
//!
//! - Buckets are in the order of (section, number), each once.
//! - Every bucket lies inside one of the bucket files that the manifest lists with their lengths.
//!
//! Format: `storage/FORMAT.md`, "Manifest".

use std::collections::BTreeMap;

use super::error::Fault;
use super::header::{self, HEADER_BYTES};
use super::name::Kind;
use crate::codec::{Malformed, Reader, put_bytes, put_u64};
use crate::log::GroupId;

const MAGIC: [u8; 4] = *b"FFSM";
/// Most bytes of a manifest.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// Most bytes of the meta data of a snapshot.
pub const META_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of a bucket.
pub const BUCKET_BYTES_MAX: u64 = 1 << 30;

/// Where a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The section of the state that it belongs to.
    pub section: u8,
    /// Its number in the section.
    pub number: u64,
    /// The number of the bucket file.
    pub file: u64,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// CRC-32 over its bytes.
    pub crc: u32,
}

/// A segment that a snapshot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name of the file: 16 hexadecimal digits and `.segment`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 over the whole file.
    pub checksum: u32,
    /// What the segments' owner wants to know about it.
    pub detail: Vec<u8>,
}

/// A bucket file that a snapshot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketFile {
    /// Its number.
    pub number: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The group that it is a snapshot of.
    pub group: GroupId,
    /// Its number; a later snapshot of the directory has a higher one.
    pub number: u64,
    /// The last Raft index that the state includes.
    pub index: u64,
    /// What Raft keeps with a snapshot.
    pub meta: Vec<u8>,
    /// The bucket files, in the order of their numbers.
    pub files: Vec<BucketFile>,
    /// All buckets of the state, in the order of (section, number).
    pub buckets: Vec<Placed>,
    /// All segments, in the order of their names.
    pub segments: Vec<Listed>,
}

impl Manifest {
    /// The name of its file.
    pub fn name(&self) -> String {
        Kind::Manifest.name(self.number)
    }

    /// The names of all files of the snapshot, its own first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.name()).chain(self.named_files().map(|(name, _)| name))
    }

    /// Bucket files and segments with their lengths in bytes.
    pub fn named_files(&self) -> impl Iterator<Item = (String, u64)> {
        let buckets = self.files.iter().map(|file| (file.name(), file.bytes));
        buckets.chain(self.segments.iter().map(|segment| (segment.name.clone(), segment.bytes)))
    }

    /// Where a bucket stands.
    pub fn bucket(&self, section: u8, number: u64) -> Option<&Placed> {
        let at = self.buckets.binary_search_by_key(&(section, number), Placed::key).ok()?;
        Some(&self.buckets[at])
    }

    /// The file that a bucket of this snapshot stands in.
    pub(super) fn file_of(&self, placed: &Placed) -> &BucketFile {
        let at = self.files.binary_search_by_key(&placed.file, |file| file.number);
        &self.files[at.expect("a manifest lists the files of its buckets")]
    }

    /// Bytes of all buckets.
    pub fn bucket_bytes(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.length).sum()
    }

    /// Bytes of all segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How many bytes of each bucket file the snapshot refers to.
    pub(super) fn referred_bytes(&self) -> BTreeMap<u64, u64> {
        let mut referred: BTreeMap<u64, u64> = self.files.iter().map(|file| (file.number, 0)).collect();
        for bucket in &self.buckets {
            *referred.entry(bucket.file).or_default() += bucket.length;
        }
        referred
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        assert_eq!(self.unsound(), None, "a manifest is sound before it is written");
        let mut out = header::begin(MAGIC, self.group, self.number);
        put_u64(&mut out, self.index);
        put_bytes(&mut out, &self.meta);
        put_u64(&mut out, self.files.len() as u64);
        for file in &self.files {
            put_u64(&mut out, file.number);
            put_u64(&mut out, file.bytes);
        }
        put_u64(&mut out, self.buckets.len() as u64);
        for bucket in &self.buckets {
            out.push(bucket.section);
            for value in [bucket.number, bucket.file, bucket.offset, bucket.length, u64::from(bucket.crc)] {
                put_u64(&mut out, value);
            }
        }
        put_u64(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            put_bytes(&mut out, segment.name.as_bytes());
            put_u64(&mut out, segment.bytes);
            put_u64(&mut out, u64::from(segment.checksum));
            put_bytes(&mut out, &segment.detail);
        }
        header::seal(&mut out);
        out
    }

    /// Reads the manifest of a group with a number from the bytes of its file.
    pub(super) fn decode(bytes: &[u8], group: GroupId, number: u64) -> Result<Self, Fault> {
        header::check(bytes, MAGIC, group, number)?;
        let body = &bytes[HEADER_BYTES..];
        let manifest = Self::decode_body(&mut Reader::new(body), group, number).map_err(|malformed| {
            Fault::Damaged { offset: (HEADER_BYTES + malformed.offset) as u64, what: malformed.what }
        })?;
        match manifest.unsound() {
            Some(what) => Err(Fault::Damaged { offset: HEADER_BYTES as u64, what }),
            None => Ok(manifest),
        }
    }

    fn decode_body(from: &mut Reader<'_>, group: GroupId, number: u64) -> Result<Self, Malformed> {
        let manifest = Self {
            group,
            number,
            index: from.u64()?,
            meta: from.bytes()?.to_vec(),
            files: from.list(|from| Ok(BucketFile { number: from.u64()?, bytes: from.u64()? }))?,
            buckets: from.list(|from| {
                Ok(Placed {
                    section: from.byte()?,
                    number: from.u64()?,
                    file: from.u64()?,
                    offset: from.u64()?,
                    length: from.u64()?,
                    crc: from.u32()?,
                })
            })?,
            segments: from.list(|from| {
                Ok(Listed {
                    name: from.string()?,
                    bytes: from.u64()?,
                    checksum: from.u32()?,
                    detail: from.bytes()?.to_vec(),
                })
            })?,
        };
        from.end()?;
        Ok(manifest)
    }

    /// What does not hold that every manifest promises.
    fn unsound(&self) -> Option<&'static str> {
        let fits = |bucket: &Placed| {
            let at = self.files.binary_search_by_key(&bucket.file, |file| file.number).ok()?;
            let end = bucket.offset.checked_add(bucket.length)?;
            let inside = bucket.offset >= HEADER_BYTES as u64 && end <= self.files[at].bytes;
            (inside && bucket.length <= BUCKET_BYTES_MAX).then_some(())
        };
        let is_segment = |segment: &Listed| matches!(Kind::parse(&segment.name), Some((Kind::Segment, _)));
        if self.meta.len() as u64 > META_BYTES_MAX {
            Some("length of meta data")
        } else if self.files.iter().any(|file| file.bytes < HEADER_BYTES as u64) {
            Some("length of a bucket file")
        } else if !self.files.is_sorted_by(|a, b| a.number < b.number) {
            Some("order of bucket files")
        } else if !self.buckets.is_sorted_by(|a, b| a.key() < b.key()) {
            Some("order of buckets")
        } else if self.buckets.iter().any(|bucket| fits(bucket).is_none()) {
            Some("place of a bucket")
        } else if !self.segments.is_sorted_by(|a, b| a.name < b.name) {
            Some("order of segments")
        } else if !self.segments.iter().all(is_segment) {
            Some("name of a segment")
        } else {
            None
        }
    }
}

impl Placed {
    pub(super) fn key(&self) -> (u8, u64) {
        (self.section, self.number)
    }

    /// The name of the file that it stands in.
    pub fn file_name(&self) -> String {
        Kind::Buckets.name(self.file)
    }
}

impl BucketFile {
    /// The name of the file.
    pub fn name(&self) -> String {
        Kind::Buckets.name(self.number)
    }
}
