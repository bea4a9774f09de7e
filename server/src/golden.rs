//! Owns the golden files of what this crate writes to disk, `testdata/v1/`: JSON as it is.
//!
//! - A file is never written again. `FANFOLD_WRITE_GOLDEN=1` writes those that are not there, for what is new in a format.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// A golden file, which is to be what is written today.
pub(crate) fn golden(name: &str, written: &[u8]) -> String {
    let written = str::from_utf8(written).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name);
    if std::env::var_os("FANFOLD_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, written, "{name}");
    text
}
