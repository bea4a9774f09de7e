//! Owns the opening of a directory: which snapshots are there, and which of them are whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::error::OrFail;
use super::manifest::MANIFEST_BYTES_MAX;
use super::name::{Kind, numbered};
use super::shared::{Shared, State};
use super::{Found, Manifest, SnapshotError};
use crate::fs::FileSystem;
use crate::log::{GroupId, Operation};

/// What whoever opens a directory does to it, and how much it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Makes it and removes what is unfinished; a snapshot is whole only with all of its files.
    Own,
    /// Changes nothing; of a snapshot only the manifest is looked at.
    Look,
}

pub(super) fn open(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    group: GroupId,
    using: Use,
) -> Result<(Shared, Vec<Found>), SnapshotError> {
    if using == Use::Own {
        fs.create_dir_all(dir).or_fail(Operation::CreateDirectory, dir)?;
    }
    let names = fs.list(dir).or_fail(Operation::ListDirectory, dir)?;
    let highest = names.iter().filter_map(|name| numbered(name)).map(|(number, _)| number).max();
    let mut lengths = BTreeMap::new();
    let (mut found, mut state) = (Vec::new(), State::default());
    for name in &names {
        match Kind::parse(name) {
            Some((Kind::Unfinished, _)) if using == Use::Own => {
                let path = dir.join(name);
                fs.remove(&path).or_fail(Operation::Remove, &path)?;
            }
            Some((Kind::Manifest, number)) => {
                let manifest = read(&*fs, dir, group, number, using);
                let manifest = manifest.and_then(|manifest| {
                    if using == Use::Own {
                        check_files(&*fs, dir, &manifest, &mut lengths)?;
                    }
                    Ok(Arc::new(manifest))
                });
                match &manifest {
                    Ok(manifest) => drop(state.whole.insert(number, Arc::clone(manifest))),
                    Err(_) => drop(state.damaged.insert(number)),
                }
                found.push(Found { number, manifest });
            }
            _ => {}
        }
    }
    // A process that was killed may have renamed a manifest without making that durable.
    if using == Use::Own {
        fs.sync_dir(dir).or_fail(Operation::SyncDirectory, dir)?;
    }
    found.sort_unstable_by_key(|found| std::cmp::Reverse(found.number));
    let shared = Shared {
        fs,
        dir: dir.to_path_buf(),
        group,
        next_number: AtomicU64::new(highest.map_or(1, |highest| highest + 1)),
        written_bytes: AtomicU64::new(0),
        read_back_bytes: AtomicU64::new(0),
        state: Mutex::new(state),
    };
    Ok((shared, found))
}

fn read(
    fs: &dyn FileSystem,
    dir: &Path,
    group: GroupId,
    number: u64,
    using: Use,
) -> Result<Manifest, SnapshotError> {
    let path = dir.join(Kind::Manifest.name(number));
    let file = fs.open_read(&path).or_fail(Operation::Open, &path)?;
    if using == Use::Look {
        file.drop_cache().or_fail(Operation::Read, &path)?;
    }
    let length = file.len().or_fail(Operation::Read, &path)?;
    if length > MANIFEST_BYTES_MAX {
        return Err(SnapshotError::Damaged { path, offset: MANIFEST_BYTES_MAX, what: "length" });
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes).or_fail(Operation::Read, &path)?;
    Manifest::decode(&bytes, group, number).map_err(|fault| fault.of(&path))
}

/// Whether every file that a manifest names is there with its length. `lengths` remembers those of earlier ones.
fn check_files(
    fs: &dyn FileSystem,
    dir: &Path,
    manifest: &Manifest,
    lengths: &mut BTreeMap<String, u64>,
) -> Result<(), SnapshotError> {
    for (name, expected_bytes) in manifest.named_files() {
        let path = dir.join(&name);
        if !lengths.contains_key(&name) {
            let file = fs.open_read(&path).or_fail(Operation::Open, &path)?;
            lengths.insert(name.clone(), file.len().or_fail(Operation::Read, &path)?);
        }
        let bytes = lengths[&name];
        if bytes != expected_bytes {
            return Err(SnapshotError::Length { path, bytes, expected_bytes });
        }
    }
    Ok(())
}
