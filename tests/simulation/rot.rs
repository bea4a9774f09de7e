//! Owns the decay of a log on disk: a flipped bit where batches stand.

use std::path::{Path, PathBuf};

use fanfold_storage::fs::FaultFs;
use fanfold_storage::log::BLOCK_BYTES;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Flips a bit in the older half of what stands in the log, and says where.
pub fn flip(disk: &FaultFs, chance: &mut ChaCha8Rng) -> Option<(PathBuf, usize)> {
    let block_bytes = BLOCK_BYTES as usize;
    let mut segments: Vec<PathBuf> = disk.paths().into_iter().filter(|path| is_segment(path)).collect();
    segments.sort_unstable();
    // Blocks with something in them, the segments' headers left out.
    let mut blocks = Vec::new();
    for path in &segments {
        let content = disk.content(path)?;
        let full = content
            .chunks(block_bytes)
            .enumerate()
            .skip(1)
            .filter(|(_, block)| block.iter().any(|b| *b != 0));
        blocks.extend(full.map(|(n, _)| (path.clone(), n * block_bytes)));
    }
    let (path, block) = blocks.get(chance.random_range(0..(blocks.len() / 2).max(1)))?.clone();
    let mut content = disk.content(&path)?;
    content[block + chance.random_range(0..64)] ^= 1 << chance.random_range(0..8);
    disk.damage(&path, &content);
    Some((path, block))
}

fn is_segment(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("log"))
        && path.extension().is_some_and(|extension| extension == "log")
}
