//! Owns the lines of an input: read with bounded memory, from a file, a pipe or standard input, plain or zstd, from any position
//! of a file on.
//!
//! - What an input is packed with its first bytes say; a byte order mark is no part of the first line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ImportError;

/// The longest line, in bytes; what is longer is skipped and rejected.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// Standard input, as a name of an input.
pub(crate) const STDIN: &str = "-";

/// What some programs begin a text with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

/// How files begin that cannot be read, how their names end, and what people call them.
const FOREIGN: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gz", "gzip"),
    (b"BZh", "bz2", "bzip2"),
    (b"\xfd7zXZ", "xz", "xz"),
    (b"PK\x03\x04", "zip", "zip"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4"),
];

/// Bytes at the beginning by which an input is judged.
const HEAD_BYTES: u64 = 8;

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
    pub(crate) fn open(path: &Path, at: Position, bytes: Arc<AtomicU64>) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: path.to_owned(), source };
        let mut reader: Box<dyn Read + Send> = match path {
            path if path == Path::new(STDIN) => Box::new(io::stdin()),
            path => Box::new(File::open(path).map_err(failed)?),
        };
        let mut head = Vec::new();
        reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
        if let Some(with) = packed_with(&head) {
            return Err(ImportError::Packed { path: path.to_owned(), with });
        }
        let is_packed = is_zstd(path) || head.starts_with(ZSTD_MAGIC);
        // How much of a stream there is nobody knows.
        let bytes = if is_stream(path) { Arc::default() } else { bytes };
        let mut skip = at.offset;
        let reader: Box<dyn Read + Send> = if is_packed || is_stream(path) || skip == 0 {
            Box::new(Counted { inner: Cursor::new(head).chain(reader), bytes })
        } else {
            let mut file = File::open(path).map_err(failed)?;
            file.seek(SeekFrom::Start(skip)).map_err(failed)?;
            bytes.fetch_add(std::mem::take(&mut skip), Ordering::Relaxed);
            Box::new(Counted { inner: file, bytes })
        };
        let reader: Box<dyn Read + Send> =
            if is_packed { Box::new(zstd::Decoder::new(reader).map_err(failed)?) } else { reader };
        let mut reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, reader));
        io::copy(&mut reader.by_ref().take(skip), &mut io::sink()).map_err(failed)?;
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
        let mark = if self.at.line == 1 { BYTE_ORDER_MARK } else { b"" };
        let line = line.strip_prefix(mark).unwrap_or(line);
        Ok(Some(if line.len() <= LINE_BYTES_MAX { Ok(line) } else { Err(TooLong) }))
    }
}

/// A line is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

fn is_zstd(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// Whether an input can be read only once: standard input, a pipe, a device.
pub(crate) fn is_stream(path: &Path) -> bool {
    path == Path::new(STDIN) || is_device(path)
}

/// What stands for files that a process was started with, whatever they are.
const OF_PROCESS: [&str; 5] = ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];

/// Whether a path is no file that is this process's own: a device, a pipe, or what it was started with, as `/dev/stderr`.
pub(crate) fn is_device(path: &Path) -> bool {
    let is_of_process = OF_PROCESS.iter().any(|of_process| path.starts_with(of_process));
    is_of_process || path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// With what an input is packed that cannot be read, by its first bytes.
pub(crate) fn packed_with(head: &[u8]) -> Option<&'static str> {
    FOREIGN.iter().find_map(|(magic, _, name)| head.starts_with(magic).then_some(*name))
}

/// The same, by its name.
pub(crate) fn named_as_packed(path: &Path) -> Option<&'static str> {
    FOREIGN
        .iter()
        .find_map(|(_, ending, name)| path.extension().is_some_and(|e| e == *ending).then_some(*name))
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
    fn a_plain_file_is_none_of_the_system_wherever_it_is() {
        for stream in ["/dev/null", "/dev/stdin", "/dev/stderr", "/dev/fd/0", "/proc/self/fd/1"] {
            assert!(is_device(Path::new(stream)), "{stream}");
        }
        // Whether it is there or not.
        for file in ["/dev/shm/rejects.that.are.not.there", "/dev/stdin-not", "/process", "/dev"] {
            assert!(!is_device(Path::new(file)), "{file}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a.tsv"), dir.path().join("a.tsv.zst"));
        let text = "\u{feff}1\t2\r\n\u{feff}3\t4\n";
        std::fs::write(&plain, text).unwrap();
        std::fs::write(&packed, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        for path in [&plain, &packed] {
            let lines = read(path, Position::default());
            assert_eq!(lines, [(1, "1\t2".to_owned()), (2, "\u{feff}3\t4".to_owned())]);
        }
        std::fs::write(&plain, "\u{feff}").unwrap();
        assert_eq!(read(&plain, Position::default()), [(1, String::new())]);
    }

    #[test]
    fn what_a_file_is_packed_with_its_bytes_say_and_not_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tsv");
        std::fs::write(&path, zstd::encode_all(&b"1\t2\n"[..], 1).unwrap()).unwrap();
        assert_eq!(read(&path, Position::default()), [(1, "1\t2".to_owned())]);
        assert_eq!(read(&path, Position { input: 0, offset: 4, line: 1 }), []);
        std::fs::write(&path, b"\x1f\x8b\x08\x00 and so on").unwrap();
        let opened = Lines::open(&path, Position::default(), Arc::default()).err();
        assert!(matches!(opened, Some(ImportError::Packed { with: "gzip", .. })), "{opened:?}");
        assert_eq!(named_as_packed(Path::new("a.tsv.gz")), Some("gzip"));
        assert_eq!(named_as_packed(Path::new("a.tsv.zst")), None);
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
