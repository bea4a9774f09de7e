//! Owns reading tab-separated files, plain or compressed with zstd.
//!
//! - Which of the two a file is, its first bytes tell, not its name.
//! - A line that does not have the columns is an error that names file and line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fanfold_protocol::UserId;

/// The first bytes of a zstd frame (RFC 8878).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Bytes of a line at most.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TsvError {
    /// It could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line has other columns.
    #[error("{}, line {line}: {expected} were expected, separated by tabs", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// The columns that every line has.
        expected: &'static str,
    },
}

/// Something that one line holds.
pub trait Record: Sized {
    /// What its columns are, for people.
    const COLUMNS: &'static str;

    /// Takes a line apart; `None` if it has other columns.
    fn parse(line: &str) -> Option<Self>;
}

/// One follow link: the first column follows the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowLine {
    /// Who follows.
    pub reader: UserId,
    /// Whom.
    pub owner: UserId,
}

impl Record for FollowLine {
    const COLUMNS: &'static str = "follower and followee";

    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let record = Self { reader: user(&mut columns)?, owner: user(&mut columns)? };
        columns.next().is_none().then_some(record)
    }
}

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Repeats the target's newest entry (`RT`).
    Repost,
    /// Mentions the target (`MT`).
    Mention,
    /// Replies to the target's newest entry (`RE`).
    Reply,
}

impl ActionKind {
    /// As the files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repost => "RT",
            Self::Mention => "MT",
            Self::Reply => "RE",
        }
    }
}

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionLine {
    /// When, in seconds since 1970.
    pub unix_s: u64,
    /// What.
    pub kind: ActionKind,
    /// Who did it.
    pub actor: UserId,
    /// Towards whom.
    pub target: UserId,
}

impl Record for ActionLine {
    const COLUMNS: &'static str = "unix time, kind (RT, MT or RE), actor and target";

    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let unix_s = number(&mut columns)?;
        let kinds = [ActionKind::Repost, ActionKind::Mention, ActionKind::Reply];
        let name = columns.next()?;
        let kind = kinds.into_iter().find(|kind| kind.name() == name)?;
        let record = Self { unix_s, kind, actor: user(&mut columns)?, target: user(&mut columns)? };
        columns.next().is_none().then_some(record)
    }
}

/// Reads the first `lines_max` lines of a file.
pub fn read<R: Record>(path: &Path, lines_max: usize) -> Result<Vec<R>, TsvError> {
    let io_error = |source| TsvError::Io { path: path.to_owned(), source };
    let mut reader = open(path).map_err(io_error)?;
    let (mut records, mut line) = (Vec::new(), String::new());
    while records.len() < lines_max {
        line.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).map_err(io_error)? == 0 {
            break;
        }
        let record = R::parse(line.trim_end_matches(['\n', '\r']));
        let number = records.len() + 1;
        let wrong = || TsvError::Line { path: path.to_owned(), line: number, expected: R::COLUMNS };
        records.push(record.ok_or_else(wrong)?);
    }
    Ok(records)
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::new(File::open(path)?);
    let compressed = file.fill_buf()?.starts_with(&ZSTD_MAGIC);
    if compressed {
        let decoder = zstd::Decoder::with_buffer(file)?;
        return Ok(Box::new(BufReader::new(decoder)));
    }
    Ok(Box::new(file))
}

fn number<T: FromStr>(columns: &mut std::str::Split<'_, char>) -> Option<T> {
    columns.next()?.parse().ok()
}

fn user(columns: &mut std::str::Split<'_, char>) -> Option<UserId> {
    number(columns).map(UserId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn plain_and_compressed_files_read_the_same() {
        let text = b"1\t2\n3\t4\n";
        let plain: Vec<FollowLine> = read(written(text).path(), usize::MAX).unwrap();
        let compressed = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(read::<FollowLine>(written(&compressed).path(), usize::MAX).unwrap(), plain);
        let (reader, owner) = (UserId(3), UserId(4));
        assert_eq!(plain[1], FollowLine { reader, owner });
    }

    #[test]
    fn actions_are_taken_apart() {
        let line = ActionLine::parse("1341100972\tMT\t223789\t213163").unwrap();
        assert_eq!((line.unix_s, line.kind), (1_341_100_972, ActionKind::Mention));
        assert_eq!((line.actor, line.target), (UserId(223_789), UserId(213_163)));
    }

    #[test]
    fn a_line_with_other_columns_is_named() {
        for wrong in ["3", "3\t4\t5", "3\tx", ""] {
            let file = written(format!("1\t2\n{wrong}\n").as_bytes());
            match read::<FollowLine>(file.path(), usize::MAX) {
                Err(TsvError::Line { line: 2, .. }) => {}
                other => panic!("{wrong:?}: {other:?}"),
            }
        }
        assert!(ActionLine::parse("1\tXX\t2\t3").is_none());
    }
}
