//! Owns the files that an import writes beside its work: rejects and ids.
//!
//! - A file is made by its first line. After a kill it is cut back to what the state file knows, so that no line is in it twice.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::ImportError;

/// One such file.
#[derive(Debug)]
pub(crate) struct Output {
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    /// Bytes of it.
    pub(crate) length: u64,
}

impl Output {
    /// A file of which `length` bytes count; nothing is written without a path.
    pub(crate) fn new(path: Option<&Path>, length: u64) -> Self {
        Self { path: path.map(Path::to_owned), file: None, length }
    }

    /// Whether lines are wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Writes a line of columns.
    pub(crate) fn line(&mut self, columns: std::fmt::Arguments<'_>) -> Result<(), ImportError> {
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |source| ImportError::Write { path: path.clone(), source };
        if self.file.is_none() {
            self.file = Some(open(path, self.length).map_err(failed)?);
        }
        if let Some(file) = &mut self.file {
            let line = format!("{columns}\n");
            file.write_all(line.as_bytes()).map_err(failed)?;
            self.length += line.len() as u64;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> Result<(), ImportError> {
        let (Some(file), Some(path)) = (&mut self.file, &self.path) else { return Ok(()) };
        let synced = file.flush().and_then(|()| file.get_ref().sync_data());
        synced.map_err(|source| ImportError::Write { path: path.clone(), source })
    }
}

fn open(path: &Path, length: u64) -> std::io::Result<BufWriter<File>> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(BufWriter::new(file))
}
