//! Owns the lines of an input: read with bounded memory, from a file, a zstd file or standard input, from any position on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest line, in bytes; what is longer is skipped and rejected.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// Standard input, as a name of an input.
pub(crate) const STDIN: &str = "-";

/// Where an import stands in its inputs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(crate) struct Position {
    /// Which input.
    pub(crate) input: usize,
    /// Bytes of it, decompressed, that are done.
    pub(crate) offset: u64,
    /// Lines of it that are done.
    pub(crate) line: u64,
}

/// The lines of one input.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    pub(crate) at: Position,
    line: Vec<u8>,
}

/// Counts the bytes that were read of the files.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Lines {
    /// The lines of an input from a position on; `bytes` counts what is read of the file.
    pub(crate) fn open(path: &Path, at: Position, bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let mut skip = at.offset;
        let reader: Box<dyn Read + Send> = if path == Path::new(STDIN) {
            Box::new(io::stdin())
        } else if is_zstd(path) {
            Box::new(zstd::Decoder::new(Counted { inner: File::open(path)?, bytes })?)
        } else {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(skip))?;
            bytes.fetch_add(std::mem::take(&mut skip), Ordering::Relaxed);
            Box::new(Counted { inner: file, bytes })
        };
        let mut reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, reader));
        io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
        Ok(Self { reader, at, line: Vec::new() })
    }

    /// The next line without its end; `Err` inside if it is too long.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<&[u8], TooLong>>> {
        self.line.clear();
        let (mut bytes, mut ended) = (0, false);
        while !ended {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', buffer);
            let taken = end.map_or(buffer.len(), |end| end + 1);
            if self.line.len() + taken <= LINE_BYTES_MAX + 2 {
                self.line.extend_from_slice(&buffer[..taken]);
            }
            ended = end.is_some();
            bytes += taken as u64;
            self.reader.consume(taken);
        }
        if bytes == 0 {
            return Ok(None);
        }
        self.at.offset += bytes;
        self.at.line += 1;
        if self.line.len() as u64 != bytes {
            return Ok(Some(Err(TooLong)));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(if line.len() <= LINE_BYTES_MAX { Ok(line) } else { Err(TooLong) }))
    }
}

/// A line is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

fn is_zstd(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// What the name of an input ends in, compression aside.
pub(crate) fn extension(path: &Path) -> Option<String> {
    let plain = if is_zstd(path) { path.with_extension("") } else { PathBuf::from(path) };
    plain.extension().map(|extension| extension.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn read(path: &Path, at: Position) -> Vec<(u64, String)> {
        let mut lines = Lines::open(path, at, Arc::default()).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let line =
                line.map_or_else(|_| "too long".to_owned(), |l| String::from_utf8_lossy(l).into_owned());
            all.push((lines.at.line, line));
        }
        all
    }

    #[test]
    fn lines_are_the_same_from_every_position_plain_or_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a.tsv"), dir.path().join("a.tsv.zst"));
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("one\r\n\ntwo\n{long}\nthree\r\nlast");
        std::fs::write(&plain, &text).unwrap();
        std::fs::write(&packed, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        let expected = ["one", "", "two", "too long", "three", "last"];
        let mut at = vec![Position::default()];
        let mut lines = Lines::open(&plain, at[0], Arc::default()).unwrap();
        while lines.next().unwrap().is_some() {
            at.push(lines.at);
        }
        for path in [&plain, &packed] {
            assert_eq!(extension(path).as_deref(), Some("tsv"));
            for at in &at {
                let rest: Vec<(u64, String)> = read(path, *at);
                let expected = (1..).zip(expected).skip(at.line as usize);
                assert!(rest.iter().map(|(n, l)| (*n, l.as_str())).eq(expected), "{at:?}");
            }
        }
    }
}
