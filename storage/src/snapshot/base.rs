//! Owns which buckets a snapshot may take from the one before, and which it writes again so that old files can go.
//!
//! - A file of which less than half is referred to is emptied: files are never more than twice what they hold.
//! - When there are too many files, those that hold least are emptied.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::header::HEADER_BYTES;
use super::{Manifest, Placed};

/// Most bucket files that a snapshot refers to before small ones are gathered.
const FILES_MAX: usize = 64;

/// The snapshot that the next one builds on.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) manifest: Arc<Manifest>,
    emptied: BTreeSet<u64>,
}

impl Base {
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        let emptied = emptied(&manifest);
        Self { manifest, emptied }
    }

    /// Where a bucket stands, if it may stay there.
    pub(super) fn bucket(&self, section: u8, number: u64) -> Option<&Placed> {
        self.manifest.bucket(section, number).filter(|bucket| !self.emptied.contains(&bucket.file))
    }
}

fn emptied(manifest: &Manifest) -> BTreeSet<u64> {
    let referred = manifest.referred_bytes();
    let is_waste = |number: u64, bytes: u64| referred[&number] * 2 < bytes - HEADER_BYTES as u64;
    let (mut emptied, mut full) = (BTreeSet::new(), Vec::new());
    for file in &manifest.files {
        if is_waste(file.number, file.bytes) {
            emptied.insert(file.number);
        } else {
            full.push((referred[&file.number], file.number));
        }
    }
    if full.len() >= FILES_MAX {
        full.sort_unstable();
        let surplus = full.len() - FILES_MAX / 2;
        emptied.extend(full[..surplus].iter().map(|(_, number)| *number));
    }
    emptied
}
