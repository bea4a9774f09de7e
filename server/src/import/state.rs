//! Owns the state file of an import: up to where everything was answered, and the numbers under which the rest is sent again.
//!
//! - It is replaced at once or not at all: written beside, synced, renamed.
//! - It is written before the first write, so that whatever was sent can be sent again under the same session and numbers.
//! - It says of each lane whether anything was sent that it does not count, before that is sent.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImportError;
use super::lines::{Position, is_stream, packed_with};
use super::parse::{Format, KnownSpaces};

/// Bytes of an input by whose hash it is known again.
const HASHED_BYTES: u64 = 64 << 10;

/// Which file an input is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    path: PathBuf,
    pub(crate) bytes: u64,
    hash: u64,
}

/// What decides how the inputs are cut and where the writes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) what: String,
    /// The graph or space.
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) cluster: String,
    pub(crate) partitions: u16,
    pub(crate) inputs: Vec<Input>,
}

/// Where a partition's writes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneState {
    pub(crate) session: u64,
    /// The number of the next write, if none had been sent since.
    pub(crate) next: u64,
    /// Whether any may have been sent since.
    pub(crate) is_open: bool,
    /// The partition's, as its answers told it. Under another one what was answered may be gone (R11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<u64>,
}

impl LaneState {
    pub(crate) fn new(session: u64) -> Self {
        Self { session, next: 1, is_open: false, incarnation: None }
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Edges or entries that are new.
    pub(crate) imported: u64,
    /// Edges or entries that were there.
    pub(crate) known: u64,
    pub(crate) rejected: u64,
}

/// Where an import stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) plan: Plan,
    /// The spaces of an import of entries when it was begun.
    pub(crate) spaces: Option<KnownSpaces>,
    pub(crate) block_items: usize,
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) position: Position,
    pub(crate) counts: Counts,
    /// Lengths of the file of rejects and of that of ids.
    pub(crate) written: [u64; 2],
    /// Whether they were moved away and have no successor.
    pub(crate) moved: [bool; 2],
    pub(crate) done: bool,
}

impl Plan {
    /// In what an import is another than this one, for people.
    pub(crate) fn differs(&self, other: &Self) -> Option<&'static str> {
        let Self { what, name, format, cluster, partitions, inputs } = other;
        let differs = [
            ((&self.cluster, self.partitions) != (cluster, *partitions), "to another cluster"),
            (self.what != *what, "of edges, and entries are to be imported, or the other way round"),
            (self.name != *name, "to another graph or space"),
            (self.inputs != *inputs, "of other files, or they were changed since"),
            (self.format != *format, "of lines that are written in another way"),
        ];
        differs.into_iter().find_map(|(differs, how)| differs.then_some(how))
    }
}

impl Input {
    /// Knows a file by its length and its beginning.
    pub(crate) fn of(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Open { path: path.to_owned(), source };
        // What is read of one is gone.
        if is_stream(path) {
            return Ok(Self { path: path.to_owned(), bytes: 0, hash: 0 });
        }
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut beginning = Vec::new();
        file.take(HASHED_BYTES).read_to_end(&mut beginning).map_err(failed)?;
        if let Some(with) = packed_with(&beginning) {
            return Err(ImportError::Packed { path: path.to_owned(), with });
        }
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { path, bytes, hash: xxhash_rust::xxh3::xxh3_64(&beginning) })
    }
}

impl State {
    /// The state that a file holds; none if there is no file.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, ImportError> {
        let failed = |source| ImportError::State { path: path.to_owned(), source };
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether ids are written; none as long as nothing was imported that has one.
    pub(crate) fn has_ids(&self) -> Option<bool> {
        let Counts { imported, known, .. } = self.counts;
        if self.written[1] > 0 || self.moved[1] {
            return Some(true);
        }
        (imported + known > 0).then_some(false)
    }

    /// Replaces what the file holds.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ImportError> {
        self.replace(path).map_err(|source| ImportError::State { path: path.to_owned(), source })
    }

    fn replace(&self, path: &Path) -> std::io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::parse::KnownSpace;
    use super::*;
    use crate::golden::golden;

    fn input(path: &str, bytes: u64, hash: u64) -> Input {
        Input { path: path.into(), bytes, hash }
    }

    /// What is written for a state; it must be the golden file, and be read as the same.
    fn assert_golden(name: &str, state: &State) {
        let dir = tempfile::tempdir().unwrap();
        let (written, read) = (dir.path().join("written"), dir.path().join("posts.tsv.import"));
        state.save(&written).unwrap();
        std::fs::write(&read, golden(name, &std::fs::read(&written).unwrap())).unwrap();
        assert_eq!(State::load(&read).unwrap().as_ref(), Some(state), "{name}");
    }

    #[test]
    fn the_golden_states_are_read_and_written_again_as_they_are() {
        let space = |id, payload_bytes_max| KnownSpace { id, payload_bytes_max };
        let entries = State {
            plan: Plan {
                what: "entries".to_owned(),
                name: "posts".to_owned(),
                format: Format::Json,
                cluster: "0123456789abcdef0123456789abcdef".to_owned(),
                partitions: 2,
                inputs: vec![input("/data/a.jsonl.zst", 123_456, u64::MAX - 1), input("/data/b.jsonl", 0, 7)],
            },
            spaces: Some(
                [("posts".to_owned(), space(1, 65_536)), ("stories".to_owned(), space(2, 10))].into(),
            ),
            block_items: 262_144,
            lanes: vec![
                LaneState { next: 17, is_open: true, ..LaneState::new(3) },
                LaneState::new(4_294_967_299),
            ],
            position: Position { input: 1, offset: 8_192, line: 99 },
            counts: Counts { imported: 1_000, known: 20, rejected: 3 },
            written: [301, 40_000],
            moved: [true, false],
            done: false,
        };
        assert_golden("import_entries.json", &entries);
        let plan = Plan {
            what: "follows".to_owned(),
            format: Format::Tsv,
            inputs: vec![input("/data/follows.tsv", 12, 13)],
            ..entries.plan.clone()
        };
        let follows = State { plan, spaces: None, moved: [false, true], done: true, ..entries };
        assert_golden("import_follows.json", &follows);
        let told = LaneState { incarnation: Some(1_790_000_000_000), ..follows.lanes[0] };
        let answered = State { lanes: vec![told, follows.lanes[1]], ..follows };
        assert_golden("import_answered.json", &answered);
    }
}
