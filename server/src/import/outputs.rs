//! Owns the files that an import writes beside its work: rejects and ids.
//!
//! - A file is made by its first line; one of an earlier import goes when a new one begins, if it was not named: what somebody
//!   names is refused if it holds anything.
//! - After a kill it is cut back to what the state file knows, so that no line is in it twice. It is never made longer: if what was
//!   written is not there, nothing is written behind it.
//! - One that is moved away gets a successor, which begins with the lines that come then. Where something else has come into its
//!   place, nothing is written, be it the file itself that was put back.
//! - One is locked as long as it is written, so that no other import cuts or removes it.
//! - Devices and pipes are written to and nothing else.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ImportError;
use super::held::{is_held, is_same};
use super::lines::{is_device, is_stream};

/// One such file.
#[derive(Debug)]
pub(crate) struct Output {
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    /// Bytes of it.
    pub(crate) length: u64,
    /// It was moved away: what is in its place is somebody else's as long as there is no successor.
    pub(crate) is_moved: bool,
    /// Without bytes that count, what is there may be what this import wrote and does not know of any more.
    may_cut: bool,
}

impl Output {
    /// The file of an import that begins, or of one that goes on: how many bytes of it count, and whether it was moved away before
    /// there were any. Nothing is written without a path.
    pub(crate) fn open(path: Option<&Path>, known: Option<(u64, bool)>) -> Result<Self, ImportError> {
        let (length, is_moved) = known.unwrap_or_default();
        let may_cut = known.is_some() && !is_moved;
        let mut output = Self { path: path.map(Path::to_owned), file: None, length, is_moved, may_cut };
        match path {
            Some(path) if known.is_none() => {
                clear(path).map_err(|error| refusal(path, 0, error))?;
            }
            Some(_) if length > 0 => output.make()?,
            _ => {}
        }
        Ok(output)
    }

    /// Whether lines are wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Writes a line of columns.
    pub(crate) fn line(&mut self, columns: std::fmt::Arguments<'_>) -> Result<(), ImportError> {
        if self.path.is_some() && self.file.is_none() {
            self.make()?;
        }
        let (Some(path), Some(file)) = (&self.path, &mut self.file) else { return Ok(()) };
        let line = format!("{columns}\n");
        let written = file.write_all(line.as_bytes());
        written.map_err(|source| ImportError::Write { path: path.clone(), source })?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Makes what was written durable. If the file was moved away meanwhile, the next line begins another one.
    pub(crate) fn sync(&mut self) -> Result<(), ImportError> {
        let (Some(file), Some(path)) = (&mut self.file, &self.path) else { return Ok(()) };
        let failed = |source| ImportError::Write { path: path.clone(), source };
        file.flush().map_err(failed)?;
        if is_device(path) {
            return Ok(());
        }
        let written = file.get_ref().metadata().map_err(failed)?;
        file.get_ref().sync_data().map_err(failed)?;
        match path.metadata() {
            Ok(there) if is_same(&there, &written) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => self.begin_anew(),
            Err(error) => return Err(failed(error)),
            Ok(_) => return Err(ImportError::Replaced { path: path.clone(), length: self.length }),
        }
        Ok(())
    }

    /// Opens the file behind what counts of it.
    fn make(&mut self) -> Result<(), ImportError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        if self.length > 0 && path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.begin_anew();
            return Ok(());
        }
        match open(&path, self.length, self.may_cut) {
            Ok(file) => (self.file, self.is_moved) = (Some(BufWriter::new(file)), false),
            Err(error) => return Err(refusal(&path, self.length, error)),
        }
        Ok(())
    }

    /// Goes on in a file of its own, made by the next line.
    fn begin_anew(&mut self) {
        (self.file, self.length, self.is_moved, self.may_cut) = (None, 0, true, false);
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        eprintln!("fanfold: {path} was moved away; further lines go to a new one");
    }
}

/// Refuses a file that somebody named and that holds something: it may be anything.
pub(crate) fn refuse_held(path: &Path) -> Result<(), ImportError> {
    if is_stream(path) {
        return Ok(());
    }
    if File::open(path).is_ok_and(|file| is_held(&file)) {
        return Err(ImportError::Busy { path: path.to_owned() });
    }
    match path.metadata() {
        Ok(meta) if meta.is_file() && meta.len() > 0 => Err(ImportError::Exists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// What [`clear`] and [`open`] fail with, for people.
fn refusal(path: &Path, length: u64, source: io::Error) -> ImportError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::InvalidData => ImportError::Replaced { path, length },
        ErrorKind::WouldBlock => ImportError::Busy { path },
        _ => ImportError::Write { path, source },
    }
}

/// Takes away what an earlier import wrote; `WouldBlock` if one writes it now.
fn clear(path: &Path) -> io::Result<()> {
    if is_device(path) {
        return Ok(());
    }
    // One that may not even be read is nobody's who writes it.
    if File::open(path).is_ok_and(|file| is_held(&file)) {
        return Err(ErrorKind::WouldBlock.into());
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => std::fs::remove_file(path),
        Ok(found) if found.is_symlink() && path.metadata().is_ok_and(|target| target.is_file()) => {
            File::options().write(true).open(path)?.set_len(0)
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `InvalidData` if the file does not hold so many bytes that end with a line, or holds any of which nobody knows whose they are;
/// `WouldBlock` if another import writes it.
fn open(path: &Path, length: u64, may_cut: bool) -> io::Result<File> {
    if is_device(path) {
        // Others may write there too.
        return File::options().append(true).open(path);
    }
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if is_held(&file) {
        return Err(ErrorKind::WouldBlock.into());
    }
    if let Some(last) = length.checked_sub(1) {
        let mut end = [0];
        if file.metadata()?.len() < length || file.read_exact_at(&mut end, last).is_err() || end != *b"\n" {
            return Err(ErrorKind::InvalidData.into());
        }
    } else if !may_cut && file.metadata()?.len() > 0 {
        return Err(ErrorKind::InvalidData.into());
    }
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn write(path: &Path, known: Option<(u64, bool)>, lines: &[&str]) -> Result<u64, ImportError> {
        let mut output = Output::open(Some(path), known)?;
        for line in lines {
            output.line(format_args!("{line}"))?;
        }
        output.sync()?;
        Ok(output.length)
    }

    #[test]
    fn a_file_is_cut_back_goes_on_and_never_holds_what_nobody_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("rejects"), dir.path().join("aside"));
        let content = || std::fs::read_to_string(&path).unwrap();
        let length = write(&path, None, &["one", "two"]).unwrap();
        let known = Some((length, false));
        write(&path, known, &["three"]).unwrap();
        write(&path, known, &["four"]).unwrap();
        assert_eq!(content(), "one\ntwo\nfour\n");
        // Moved away: a new file.
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(write(&path, known, &["five"]).unwrap(), 5);
        assert_eq!(content(), "five\n");
        // Something else in its place, shorter or not: nothing is written.
        for other in ["one\n", "something else, and longer"] {
            std::fs::write(&path, other).unwrap();
            let refused = write(&path, known, &["six"]);
            assert!(matches!(refused, Err(ImportError::Replaced { length: 8, .. })), "{refused:?}");
            assert_eq!(content(), other);
        }
        // What was written and is not known any more, after a kill: the same lines come again.
        assert_eq!(write(&path, Some((0, false)), &["one"]).unwrap(), 4);
        assert_eq!(content(), "one\n");
    }

    #[test]
    fn a_file_that_was_moved_away_and_put_back_is_kept_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("rejects"), dir.path().join("aside"));
        let content = || std::fs::read_to_string(&path).unwrap();
        let mut output = Output::open(Some(&path), None).unwrap();
        output.line(format_args!("one")).unwrap();
        output.sync().unwrap();
        std::fs::rename(&path, &aside).unwrap();
        output.sync().unwrap();
        assert_eq!((output.length, output.is_moved), (0, true));
        std::fs::rename(&aside, &path).unwrap();
        let refused = output.line(format_args!("two"));
        assert!(matches!(refused, Err(ImportError::Replaced { length: 0, .. })), "{refused:?}");
        assert_eq!(content(), "one\n");
        // Stopped in that state, and run again: with a line to write or without.
        let refused = write(&path, Some((0, true)), &["two"]);
        assert!(matches!(refused, Err(ImportError::Replaced { length: 0, .. })), "{refused:?}");
        assert_eq!(write(&path, Some((0, true)), &[]).unwrap(), 0);
        assert_eq!(content(), "one\n");
        // Moved away again, it gets its successor, which is known from then on.
        std::fs::rename(&path, &aside).unwrap();
        let mut output = Output::open(Some(&path), Some((0, true))).unwrap();
        output.line(format_args!("two")).unwrap();
        output.sync().unwrap();
        assert_eq!((content().as_str(), output.length, output.is_moved), ("two\n", 4, false));
        drop(output);
        // Nor does one go that an import finds which begins to write.
        let mut output = Output::open(Some(&path), None).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert!(matches!(output.line(format_args!("one")), Err(ImportError::Replaced { .. })));
        assert_eq!(content(), "one\n");
    }

    #[test]
    fn a_file_that_is_written_is_neither_removed_nor_cut_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let mut first = Output::open(Some(&path), None).unwrap();
        let mut second = Output::open(Some(&path), None).unwrap();
        first.line(format_args!("one")).unwrap();
        first.sync().unwrap();
        for refused in [
            Output::open(Some(&path), None).map(|_| ()),
            Output::open(Some(&path), Some((2, false))).map(|_| ()),
            second.line(format_args!("other")),
        ] {
            assert!(matches!(refused, Err(ImportError::Busy { .. })), "{refused:?}");
        }
        first.line(format_args!("two")).unwrap();
        first.sync().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        drop(first);
        assert_eq!(write(&path, Some((4, false)), &["three"]).unwrap(), 10);
    }

    #[test]
    fn what_an_earlier_import_wrote_goes_even_if_nothing_comes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("rejects"), dir.path().join("link"));
        write(&path, None, &["one"]).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(write(&link, None, &[]).unwrap(), 0);
        assert_eq!((link.is_symlink(), path.metadata().unwrap().len()), (true, 0));
        write(&path, None, &["one"]).unwrap();
        assert_eq!(write(&path, None, &[]).unwrap(), 0);
        assert!(!path.exists());
        // A device stays, and is not cut.
        assert_eq!(write(Path::new("/dev/null"), None, &["one"]).unwrap(), 4);
        assert_eq!(write(Path::new("/dev/null"), Some((4, false)), &["two"]).unwrap(), 8);
        assert!(Path::new("/dev/null").exists());
        assert!(matches!(write(Path::new("/dev/full"), None, &["one"]), Err(ImportError::Write { .. })));
        // A plain file is one, though it is in the memory that the system keeps under `/dev`.
        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            let path = memory.path().join("rejects");
            let length = write(&path, None, &["one", "two"]).unwrap();
            write(&path, Some((length, false)), &["three"]).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        }
        // Nor is what a process was started with, though it may be a file.
        let log = dir.path().join("log");
        std::fs::write(&log, "what others wrote\n").unwrap();
        let opened = File::options().append(true).open(&log).unwrap();
        let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
        write(Path::new(&open), None, &["one"]).unwrap();
        write(Path::new(&open), Some((4, false)), &["two"]).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "what others wrote\none\ntwo\n");
    }

    #[test]
    fn a_file_that_is_moved_away_while_it_is_written_gets_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("ids"), dir.path().join("aside"));
        let mut output = Output::open(Some(&path), None).unwrap();
        output.line(format_args!("one")).unwrap();
        output.sync().unwrap();
        std::fs::rename(&path, &aside).unwrap();
        output.line(format_args!("two")).unwrap();
        output.sync().unwrap();
        output.line(format_args!("three")).unwrap();
        output.sync().unwrap();
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "one\ntwo\n");
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), output.length), ("three\n", 6));
        // Another file in its place is nobody's to write to.
        std::fs::rename(&aside, &path).unwrap();
        output.line(format_args!("four")).unwrap();
        assert!(matches!(output.sync(), Err(ImportError::Replaced { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
