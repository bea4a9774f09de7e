//! Owns the list of the files of an export, by which an import tells apart what two exports wrote.
//!
//! - It names as unfinished what an export is about to give its name or to remove, before it does, and lists the files once all is done.
//!   So whatever stops an export, files of two are never taken for one.
//! - Files that it does not name are no concern of it: people may have put them there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::UNFINISHED;

/// The name of the list.
const FILE: &str = "fanfold-export.json";

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// What an export wrote as a whole, by name.
    pub(super) files: BTreeMap<String, Written>,
    /// What may be of one export or of another.
    pub(super) unfinished: BTreeSet<String>,
}

/// What was written into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    bytes: u64,
    /// XXH3 of 64 bits over the file, in hexadecimal digits.
    xxh3: String,
}

/// Why a file of an export is not to be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mixed {
    /// The list cannot be used.
    #[error("cannot use {}, which lists the files of an export: {source}; remove it, and export again", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An export was stopped while it gave its files their names.
    #[error(
        "{} may be of another export than the files beside it, for one was stopped before all had their names; export again",
        path.display()
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what was exported.
    #[error(
        "{} is not as it was exported, by {}: it is of another export, damaged or changed; export again, or remove that list to \
         import it as it is",
        path.display(), list.display()
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// The list.
        list: PathBuf,
    },
}

impl Contents {
    /// What the list in a directory says; nothing if there is none.
    pub(super) fn load(dir: &Path) -> Result<Self, Mixed> {
        let path = dir.join(FILE);
        let load = || match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => Ok(serde_json::from_slice(&read?)?),
        };
        load().map_err(|source| Mixed::List { path: path.clone(), source })
    }

    /// Replaces the list in a directory, durably.
    pub(super) fn store(&self, dir: &Path) -> io::Result<()> {
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}{UNFINISHED}")));
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(new, path)?;
        File::open(dir)?.sync_all()
    }
}

/// Whether these files are what was exported, as far as a list beside them says.
pub(crate) fn check(files: &[PathBuf]) -> Result<(), Mixed> {
    for path in files {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let contents = Contents::load(dir)?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if contents.unfinished.contains(name) {
            return Err(Mixed::Unfinished { path: path.clone() });
        }
        let Some(written) = contents.files.get(name) else { continue };
        let found = Written::of(path).map_err(|source| Mixed::Read { path: path.clone(), source })?;
        if found != *written {
            return Err(Mixed::Differs { path: path.clone(), list: dir.join(FILE) });
        }
    }
    Ok(())
}

impl Written {
    fn of(path: &Path) -> io::Result<Self> {
        let (mut file, mut hash, mut bytes) = (File::open(path)?, Xxh3::new(), 0);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(Self::with(bytes, &hash));
            }
            hash.update(&piece[..read]);
            bytes += read as u64;
        }
    }

    fn with(bytes: u64, hash: &Xxh3) -> Self {
        Self { bytes, xxh3: format!("{:016x}", hash.digest()) }
    }
}

/// A file that is being written, and what was written.
pub(super) struct Hashed {
    file: File,
    hash: Box<Xxh3>,
    bytes: u64,
}

impl Hashed {
    pub(super) fn new(file: File) -> Self {
        Self { file, hash: Box::default(), bytes: 0 }
    }

    /// Makes it durable.
    pub(super) fn finish(self) -> io::Result<Written> {
        self.file.sync_all()?;
        Ok(Written::with(self.bytes, &self.hash))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::golden::golden;

    #[test]
    fn the_golden_list_is_read_and_written_again_as_it_is() {
        let (written, read) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let exported = b"what an export wrote";
        std::fs::write(read.path().join("entries.0000.jsonl.zst"), exported).unwrap();
        let whole = Written::of(&read.path().join("entries.0000.jsonl.zst")).unwrap();
        assert_eq!(whole, Written { bytes: 20, xxh3: "f9c178c8fd5423ed".to_owned() });
        let other = Written { bytes: 0, xxh3: "00000000000000ff".to_owned() };
        let contents = Contents {
            files: [
                ("entries.0000.jsonl.zst".to_owned(), whole),
                ("follows.follows.0001.tsv.zst".to_owned(), other),
            ]
            .into(),
            unfinished: ["entries.0001.jsonl.zst".to_owned()].into(),
        };
        contents.store(written.path()).unwrap();
        let text = golden("export.json", &std::fs::read(written.path().join(FILE)).unwrap());
        std::fs::write(read.path().join("fanfold-export.json"), text).unwrap();
        assert_eq!(Contents::load(read.path()).unwrap(), contents);
        // As an import looks at it.
        let file = |name: &str| [read.path().join(name)];
        check(&file("entries.0000.jsonl.zst")).unwrap();
        assert!(matches!(check(&file("entries.0001.jsonl.zst")), Err(Mixed::Unfinished { .. })));
        std::fs::write(&file("follows.follows.0001.tsv.zst")[0], "").unwrap();
        assert!(matches!(check(&file("follows.follows.0001.tsv.zst")), Err(Mixed::Differs { .. })));
    }
}
