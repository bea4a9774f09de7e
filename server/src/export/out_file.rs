//! Owns one file of an export while it is written.
//!
//! - It has a name of its own until it is given the one that it is to get.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::contents::{Hashed, Written};
use super::{ExportError, STDOUT};

/// The level of compression: fast, as the disk is seldom the limit.
const ZSTD_LEVEL: i32 = 3;

/// How the name of a file ends until all are whole.
pub(super) const UNFINISHED: &str = ".new";

/// A compressed file that is being written, or standard output.
pub(super) struct OutFile {
    path: PathBuf,
    sink: Sink,
}

enum Sink {
    Packed(zstd::Encoder<'static, BufWriter<Hashed>>),
    Stdout(BufWriter<io::Stdout>),
}

impl OutFile {
    pub(super) fn create(out: &Path, name: &str) -> Result<Self, ExportError> {
        if out == Path::new(STDOUT) {
            let sink = Sink::Stdout(BufWriter::new(io::stdout()));
            return Ok(Self { path: out.to_owned(), sink });
        }
        let path = out.join(format!("{name}.zst"));
        let create = || {
            std::fs::create_dir_all(out)?;
            zstd::Encoder::new(BufWriter::new(Hashed::new(File::create(unfinished(&path))?)), ZSTD_LEVEL)
        };
        match create() {
            Ok(encoder) => Ok(Self { path, sink: Sink::Packed(encoder) }),
            Err(source) => Err(ExportError::Write { path, source }),
        }
    }

    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let written = match &mut self.sink {
            Sink::Packed(sink) => write(sink),
            Sink::Stdout(sink) => write(sink),
        };
        written.map_err(|source| ExportError::Write { path: self.path.clone(), source })
    }

    /// Makes the file durable, and answers the name that it is to get, and what was written.
    pub(super) fn finish(self) -> Result<Option<(String, Written)>, ExportError> {
        let Self { path, sink } = self;
        let finish = || match sink {
            Sink::Stdout(mut sink) => sink.flush().map(|()| None),
            Sink::Packed(sink) => {
                sink.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(Some)
            }
        };
        let written = finish().map_err(|source| ExportError::Write { path: path.clone(), source })?;
        Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()).zip(written))
    }
}

/// What a file is called until all are whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(UNFINISHED);
    new.into()
}
