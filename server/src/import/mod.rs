//! Owns imports: files of edges and entries, brought into a cluster exactly once however often the work is interrupted.

mod block;
mod dry;
mod held;
pub(crate) mod json;
mod lane;
mod lanes;
mod lines;
mod outputs;
mod pace;
mod parse;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod tsv;

use std::io;
use std::path::{Path, PathBuf};

use fanfold_client::PartitionId;

/// What an import does that begins anew.
const ANEW: &str = "imports entries a second time, but for those whose keys are remembered";

/// How what was stopped is brought to its end.
fn how_to_go_on(rest: Option<&(PathBuf, u64)>) -> String {
    rest.map_or_else(
        || "run the same command again to go on where it was".to_owned(),
        |(input, line)| {
            format!(
                "what comes through a pipe cannot be gone on with: of {} everything up to line {line} is imported, and what \
                 follows may be; to import it again {ANEW}",
                input.display()
            )
        },
    )
}

/// What to do about a file that is not what was written.
fn replaced(length: u64) -> String {
    match length {
        0 => "it holds what this import does not go on with, such as a list that was moved away from it: move it away".to_owned(),
        _ => format!(
            "it has not the {length} bytes that this import wrote to it: put that file back, or move away the one that is there"
        ),
    }
}

/// Who runs an import.
fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("another process, {pid},"))
}

/// What is wrong with ids that are wanted from the middle on, or up to there.
fn ids_changed(are_wanted: bool, state: &Path) -> String {
    let state = state.display();
    if are_wanted {
        format!(
            "the import that {state} is of runs without --ids-out, and the list would not have the ids of what is imported \
             already: run it without --ids-out; to begin anew with another --state {ANEW}"
        )
    } else {
        format!(
            "the import that {state} is of runs with --ids-out, and the list would not have the ids of what is imported from now \
             on: name the same file again with --ids-out"
        )
    }
}

impl ImportError {
    /// Whether the command was called in a way that cannot work.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::Format { .. }
                | Self::Packed { .. }
                | Self::Mixed { .. }
                | Self::SameFile { .. }
                | Self::Ids { .. }
                | Self::Exists { .. }
        )
    }
}

pub(crate) use block::{BLOCK_ITEMS_MAX, Cut};
pub(crate) use dry::{Judge, dry_run};
pub(crate) use held::Held;
pub(crate) use lines::{Position, STDIN, extension, is_stream, named_as_packed};
pub(crate) use outputs::{Output, refuse_held};
pub(crate) use parse::{Format, Kind};
pub(crate) use run::{Options, Run};
pub(crate) use state::{Counts, Input, LaneState, Plan, State};

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An input cannot be opened.
    #[error("cannot read {}: {source}", path.display())]
    Open {
        /// The input.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An input is packed with what cannot be read.
    #[error(
        "{} is packed with {with}; unpack it, pack it with zstd, or pipe it unpacked into `fanfold import … -` with --format",
        path.display()
    )]
    Packed {
        /// The input.
        path: PathBuf,
        /// With what.
        with: &'static str,
    },
    /// Inputs are written in different ways.
    #[error(
        "{} and {} are not written in the same way; import them one after the other, or say with --format how both are",
        first.display(), other.display()
    )]
    Mixed {
        /// One.
        first: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// One file is named for two purposes.
    #[error("{} is named as {one} and as {other}, and would be overwritten; name another file", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
        /// For what.
        one: &'static str,
        /// And for what else.
        other: &'static str,
    },
    /// A list that was named, or a dry run, would overwrite a file that holds something.
    #[error("{} is there already, and an import that begins overwrites nothing that is named: name another file, or remove that one", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An input is not what an export wrote.
    #[error(transparent)]
    Export(#[from] crate::export::Mixed),
    /// An input cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Rejects or ids cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written of rejects or ids is no more there.
    #[error("{}: {}, and run the same command again to go on", path.display(), replaced(*length))]
    Replaced {
        /// The file.
        path: PathBuf,
        /// What is known of it.
        length: u64,
    },
    /// The state file is not usable.
    #[error(
        "cannot use the state file {}: {source}; name another one with --state, or remove it, to begin anew, which {ANEW}",
        path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process goes on with this import.
    #[error(
        "{} goes on with {}: wait until it ends, or end it and run the same command again, which goes on where it was",
        process(*pid), path.display()
    )]
    Held {
        /// The state file.
        path: PathBuf,
        /// That process, if it says so.
        pid: Option<u32>,
    },
    /// Another import writes a file.
    #[error("{} is written by another import that runs: wait until it ends, or name another file", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Ids are wanted in the middle, or no more.
    #[error("{}", ids_changed(*are_wanted, path))]
    Ids {
        /// Whether they are wanted now.
        are_wanted: bool,
        /// The state file.
        path: PathBuf,
    },
    /// The state file is of another import.
    #[error(
        "the state file {} is of an import {differs}; name another one with --state, or remove it, to begin anew, which {ANEW}",
        path.display()
    )]
    OtherImport {
        /// The file.
        path: PathBuf,
        /// In what it is another.
        differs: &'static str,
    },
    /// The format of an input is not known.
    #[error("{} ends neither in .tsv nor in .json, .jsonl or .ndjson; name the format with --format", path.display())]
    Format {
        /// The input.
        path: PathBuf,
    },
    /// A call failed.
    #[error("{0}")]
    Call(fanfold_client::Error),
    /// It was stopped in the middle.
    #[error("{source}; {}", how_to_go_on(rest.as_ref()))]
    Stopped {
        /// By what.
        source: Box<Self>,
        /// The input that cannot be gone on with, and the last line of it that is certainly done; none if it goes on.
        rest: Option<(PathBuf, u64)>,
    },
    /// The session was forgotten, so that what had been sent without an answer may be there or not.
    #[error(
        "the session of this import was forgotten, and some lines after {line} may have been imported: look at them, and run \
         the command again with --repeat-uncertain to import them (again)"
    )]
    SessionForgotten {
        /// The line up to which everything is there.
        line: u64,
    },
    /// A partition is not the one any more that was written to.
    #[error(
        "partition {partition} was restored, salvaged or begun anew after lines of this import had gone there, and may lack them: \
         begin it anew, without the state file, which {ANEW}"
    )]
    Restored {
        /// Which.
        partition: PartitionId,
    },
    /// The partitions have seen other writes than the state file says.
    #[error(
        "the state file is older than what was imported, or the inputs were changed: put back what was there; to begin anew \
         without it {ANEW}"
    )]
    StateOld,
}
