//! Owns the disk that [`FaultFs`](super::FaultFs) pretends to be: what is durable, what is only cached, and what a
//! loss of power makes of it.
//!
//! - `durable` is what the platters hold; `cached` what a read sees; `pending` what a sync has yet to carry over.
//! - A loss of power keeps any set of 512-byte blocks of pending writes, and the first few pending name changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Disks write this many bytes in one piece, or not at all.
const SECTOR_BYTES: usize = 512;

/// What reaches the disk of all that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// Nothing.
    LoseAll,
    /// Everything.
    KeepAll,
    /// Any 512-byte blocks of the writes and the first few name changes, as the seed says.
    Random(u64),
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a seed always gives the same loss.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// The content of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: Vec<Change>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(data);
        }
        Change::SetLen(bytes) => content.resize(*bytes, 0),
    }
}

impl Inode {
    pub(super) fn cached(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.change(Change::Write { offset, data: data.to_vec() });
    }

    pub(super) fn set_len(&mut self, bytes: usize) {
        self.change(Change::SetLen(bytes));
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.cached, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// What a failed sync does: some blocks reach the disk, the rest is forgotten while the cache still shows it.
    pub(super) fn sync_in_part(&mut self, loss: PowerLoss) {
        let pending = std::mem::take(&mut self.pending);
        keep_blocks(&mut self.durable, &pending, loss);
    }

    /// What the disk holds, and above it only what is still to be written.
    pub(super) fn drop_cache(&mut self) {
        self.cached.clone_from(&self.durable);
        for change in &self.pending {
            apply(&mut self.cached, change);
        }
    }

    /// Changes bytes on the disk and in the cache at once, as decay does.
    pub(super) fn damage(&mut self, content: &[u8]) {
        self.pending.clear();
        self.durable = content.to_vec();
        self.cached = content.to_vec();
    }

    fn lose_power(&mut self, loss: PowerLoss) {
        self.sync_in_part(loss);
        self.cached.clone_from(&self.durable);
    }
}

fn keep_blocks(content: &mut Vec<u8>, pending: &[Change], loss: PowerLoss) {
    let mut dice = match loss {
        PowerLoss::LoseAll => return,
        PowerLoss::KeepAll => {
            for change in pending {
                apply(content, change);
            }
            return;
        }
        PowerLoss::Random(seed) => Dice::new(seed),
    };
    // Some losses keep nearly all blocks and some hardly any, so that every shape of a torn write turns up.
    let kept_in_eight = 1 + dice.roll(7);
    for change in pending {
        match change {
            Change::SetLen(_) if dice.roll(8) < kept_in_eight => apply(content, change),
            Change::SetLen(_) => {}
            Change::Write { offset, data } => {
                let mut from = *offset;
                let end = offset + data.len();
                while from < end {
                    let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if dice.roll(8) < kept_in_eight {
                        let block = data[from - offset..to - offset].to_vec();
                        apply(content, &Change::Write { offset: from, data: block });
                    }
                    from = to;
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Rename(path, _) | Self::Remove(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Add(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

/// Names and contents of all files.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
}

impl Disk {
    pub(super) fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.entry(number).or_default()
    }

    pub(super) fn add(&mut self, path: &Path) -> u64 {
        self.inodes_made += 1;
        self.link(self.inodes_made, path);
        self.inodes_made
    }

    pub(super) fn link(&mut self, inode: u64, path: &Path) {
        self.rename_change(NameChange::Add(path.to_path_buf(), inode));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        self.rename_change(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.rename_change(NameChange::Remove(path.to_path_buf()));
    }

    fn rename_change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (done, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending_names).into_iter().partition(|change| change.dir() == Some(dir));
        for change in done {
            change.apply(&mut self.durable_names);
        }
        self.pending_names = rest;
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<&u64> = self.names.values().collect();
        named.into_iter().filter_map(|inode| self.inodes.get(inode)).map(|i| i.cached.len() as u64).sum()
    }

    pub(super) fn lose_power(&mut self, loss: PowerLoss) {
        let kept = match loss {
            PowerLoss::LoseAll => 0,
            PowerLoss::KeepAll => self.pending_names.len(),
            PowerLoss::Random(seed) => Dice::new(seed).roll(self.pending_names.len() as u64 + 1) as usize,
        };
        for change in self.pending_names.drain(..).take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names.clone_from(&self.durable_names);
        for (number, inode) in &mut self.inodes {
            let own = match loss {
                PowerLoss::Random(seed) => PowerLoss::Random(seed.wrapping_add(*number)),
                other => other,
            };
            inode.lose_power(own);
        }
    }
}
