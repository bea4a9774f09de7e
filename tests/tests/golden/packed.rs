//! Owns the form in which a data directory is kept beside the tests: the same tree, each file compressed.

use std::fs;
use std::path::{Path, PathBuf};

/// The level of compression.
const LEVEL: i32 = 19;

/// All plain files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Compresses every file of a directory into another.
pub fn pack(from: &Path, to: &Path) {
    for path in files(from) {
        let mut name = path.strip_prefix(from).unwrap().as_os_str().to_owned();
        name.push(".zst");
        let place = to.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, zstd::encode_all(&*fs::read(path).unwrap(), LEVEL).unwrap()).unwrap();
    }
}

/// The opposite.
pub fn unpack(from: &Path, to: &Path) {
    for path in files(from) {
        let place = to.join(path.strip_prefix(from).unwrap().with_extension(""));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, zstd::decode_all(&*fs::read(path).unwrap()).unwrap()).unwrap();
    }
}
