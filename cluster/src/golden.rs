//! Owns the golden files of what this crate writes to disk, `testdata/v1/`: 16 bytes a line, as hexadecimal digits; JSON as it is.
//!
//! - A file is never written again. `FANFOLD_WRITE_GOLDEN=1` writes those that are not there, for what is new in a format.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The bytes of a golden file, which are to be what is written today.
pub(crate) fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let bytes = golden_of_before(name, || written.to_vec());
    assert_eq!(to_hex(&bytes), to_hex(written), "{name}");
    bytes
}

/// The bytes of a golden file that was written by an earlier version, and is only read today; `make` says what that version wrote.
pub(crate) fn golden_of_before(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let text = content(&format!("{name}.hex"), || to_hex(&make()));
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// A golden file of JSON, which is to be what is written today.
pub(crate) fn golden_json(name: &str, written: &[u8]) -> String {
    let written = str::from_utf8(written).unwrap();
    let text = content(&format!("{name}.json"), || written.to_owned());
    assert_eq!(text, written, "{name}");
    text
}

fn content(name: &str, make: impl FnOnce() -> String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name);
    if std::env::var_os("FANFOLD_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, make()).unwrap();
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", pairs.join(" ")).unwrap();
    }
    text
}
