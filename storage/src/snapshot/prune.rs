//! Owns the removal of files that no snapshot needs any more.
//!
//! - Manifests go first, and are gone for good before any file that they name.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::SnapshotError;
use super::error::OrFail;
use super::name::{Kind, numbered};
use super::shared::{Shared, State};
use crate::fs::FileSystem;
use crate::log::Operation;

/// Removes what is neither needed nor in use; how many files. Whole snapshots with this number or a larger one are needed.
pub(super) fn prune(
    shared: &Shared,
    needed_from: u64,
    in_use: &dyn Fn(&str) -> bool,
) -> Result<u64, SnapshotError> {
    // Listed before it is decided what stays: whatever is made later is not in the list, and what is in the list is
    // held until the snapshots name it.
    let names = shared.fs.list(&shared.dir).or_fail(Operation::ListDirectory, &shared.dir)?;
    let Some(needed) = forget_old(&mut shared.state.lock(), needed_from) else { return Ok(0) };
    let is_unneeded = |name: &&String| !needed.contains(*name);
    let (mut manifests, mut others) = (Vec::new(), Vec::new());
    for name in names.iter().filter(is_unneeded) {
        match Kind::parse(name) {
            Some((Kind::Manifest, _)) => manifests.push(name),
            Some((Kind::Buckets | Kind::Segment, _)) if !in_use(name) => others.push(name),
            _ => {}
        }
    }
    remove(shared, &manifests)?;
    if !others.is_empty() {
        // Also if an earlier attempt removed the manifests and came no further.
        shared.sync_dir()?;
    }
    remove(shared, &others)?;
    Ok((manifests.len() + others.len()) as u64)
}

/// Removes all files with a number, finished or not.
pub(super) fn clear(fs: &dyn FileSystem, dir: &Path) -> Result<u64, SnapshotError> {
    let names = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        names => names.or_fail(Operation::ListDirectory, dir)?,
    };
    let (manifests, others): (Vec<_>, Vec<_>) = names
        .iter()
        .filter(|name| numbered(name).is_some())
        .partition(|name| matches!(Kind::parse(name), Some((Kind::Manifest, _))));
    for names in [&manifests, &others] {
        for name in names {
            let path = dir.join(name);
            fs.remove(&path).or_fail(Operation::Remove, &path)?;
        }
        if !names.is_empty() {
            fs.sync_dir(dir).or_fail(Operation::SyncDirectory, dir)?;
        }
    }
    Ok((manifests.len() + others.len()) as u64)
}

/// Forgets all snapshots that may go, and gives the names that must stay; none if nothing may go.
fn forget_old(state: &mut State, needed_from: u64) -> Option<BTreeSet<String>> {
    if state.keeps_all() {
        return None;
    }
    let newest: BTreeSet<u64> = state.newest_two().map(|manifest| manifest.number).collect();
    let State { whole, damaged, held } = state;
    whole.retain(|number, manifest| {
        newest.contains(number) || *number >= needed_from || held.contains_key(&manifest.name())
    });
    // A damaged one that is pinned keeps its name, so it stays damaged.
    damaged.retain(|number| held.contains_key(&Kind::Manifest.name(*number)));
    let named = whole.values().flat_map(|manifest| manifest.names());
    Some(named.chain(held.keys().cloned()).collect())
}

fn remove(shared: &Shared, names: &[&String]) -> Result<(), SnapshotError> {
    for name in names {
        let path = shared.dir.join(name);
        match shared.fs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).or_fail(Operation::Remove, &path);
            }
            _ => {}
        }
    }
    Ok(())
}
