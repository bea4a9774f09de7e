//! Owns the small files that people may read and nobody may change: JSON, and behind it a line with its checksum.
//!
//! Format: `storage/FORMAT.md`, "Backups".

use std::io;
use std::path::Path;

use fanfold_storage::fs::FileSystem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The last line, which covers everything before it.
fn seal(body: &[u8]) -> String {
    format!("{{\"crc32\":\"{:08x}\"}}\n", crc32fast::hash(body))
}

const SEAL_BYTES: usize = 21;

/// The most bytes of a sealed file: a line for each file of a backup.
const BYTES_MAX: u64 = 256 << 20;

fn to_bytes(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    let seal = seal(&bytes);
    bytes.extend_from_slice(seal.as_bytes());
    Ok(bytes)
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (body, found) = bytes.split_at_checked(bytes.len().checked_sub(SEAL_BYTES)?)?;
    (found == seal(body).as_bytes()).then(|| serde_json::from_slice(body).ok())?
}

/// Writes a value under a name, durable and as a whole; what had the name is replaced.
pub(super) fn write(fs: &dyn FileSystem, dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let (path, unfinished) = (dir.join(name), dir.join(format!("{name}.new")));
    match fs.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&unfinished)?;
    file.write_at(0, &to_bytes(value)?)?;
    file.sync_data()?;
    fs.rename(&unfinished, &path)?;
    fs.sync_dir(dir)
}

/// Reads a value; none if the bytes are not those that were written.
pub(super) fn read<T: DeserializeOwned>(fs: &dyn FileSystem, path: &Path) -> io::Result<Option<T>> {
    let file = fs.open_read(path)?;
    let length = file.len()?;
    if length > BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes)?;
    Ok(from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen() {
        let value = vec![("log/0000000000000001.log".to_owned(), 7_u64)];
        let mut bytes = to_bytes(&value).unwrap();
        assert_eq!(from_bytes(&bytes), Some(value));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(from_bytes::<Vec<(String, u64)>>(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..bytes.len() {
            assert_eq!(from_bytes::<Vec<(String, u64)>>(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
