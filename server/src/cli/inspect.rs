//! Owns the commands `inspect`, and among them `inspect log`: the offline look at what is on disk.
//!
//! - The data directory is locked meanwhile; nothing in it is changed.
//! - Checksums of every batch and record are verified.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fanfold_cluster::inspect::{Inspection, concerned, entry_facts};
use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::log::{GroupId, Image, Inspected, InspectedRecord, inspect};
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Output, line, table, text};
use super::progress::Reading;
use super::{inspect_dir, inspect_files};

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows what is in the write-ahead log, with every checksum verified.
    #[command(after_help = "Example:\n  fanfold inspect log --records | less")]
    Log {
        #[command(flatten)]
        place: Place,
        /// Show every record, not only segments and totals.
        #[arg(long)]
        records: bool,
    },
    /// Shows the snapshots of a partition, of the catalog, or of all groups: what they consist of.
    #[command(after_help = "Example:\n  fanfold inspect snapshot --partition 3")]
    Snapshot {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        group: Which,
        /// Show only the snapshot of this number, in hexadecimal digits as in the name of its file.
        #[arg(long, value_name = "HEX", value_parser = |text: &str| u64::from_str_radix(text, 16))]
        number: Option<u64>,
    },
    /// Shows a segment, or the segments of a partition's newest snapshot, with every checksum verified.
    #[command(
        after_help = "Examples:\n  fanfold inspect segment ./fanfold-data/groups/0004/000000000000000a.segment --entries\n  fanfold inspect segment --partition 3"
    )]
    Segment {
        /// The file.
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        group: Which,
        /// Show every entry, without its payload.
        #[arg(long)]
        entries: bool,
    },
    /// Shows whose a data directory is, what it holds, and what the next start would use.
    #[command(after_help = "Example:\n  fanfold inspect data-dir --data-dir ./fanfold-data")]
    DataDir {
        #[command(flatten)]
        place: Place,
    },
}

/// One of the groups.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Which {
    /// The partition.
    #[arg(long)]
    partition: Option<u16>,
    /// The catalog.
    #[arg(long)]
    catalog: bool,
}

impl Which {
    fn group(&self) -> Option<GroupId> {
        let partition = self.partition.map(|partition| GroupId(u32::from(partition) + 1));
        partition.or(self.catalog.then_some(GroupId(0)))
    }
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// Directory with everything the node keeps; no node may run on it.
    #[arg(long, value_name = "DIR", default_value = "./fanfold-data")]
    pub(super) data_dir: PathBuf,
    /// How the result is shown.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Why what is on disk cannot be looked into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no such directory.
    #[error("{} is not a directory; name one with --data-dir", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be locked or read.
    #[error(transparent)]
    DataDir(#[from] fanfold_cluster::OpenError),
    /// The log's directory cannot be listed.
    #[error(transparent)]
    Log(#[from] fanfold_storage::log::OpenError),
}

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    match &args.what {
        What::Log { place, records } => log(place, *records),
        What::Snapshot { place, group, number } => inspect_files::snapshots(place, group.group(), *number),
        What::Segment { file, place, group, entries } => {
            inspect_files::segments(place, file.as_ref(), group.group(), *entries)
        }
        What::DataDir { place } => inspect_dir::data_dir(place),
    }
}

/// Tells how far the reading of a log has come.
pub(super) fn paced(reading: &Reading) -> impl Fn(u64) -> io::Result<()> {
    |bytes| {
        reading.read(bytes);
        Ok(())
    }
}

/// Bytes of the segments of a log.
pub(super) fn bytes_in(dir: &Path) -> u64 {
    let segments = RealFs
        .list(dir)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "log"));
    segments.filter_map(|name| Some(std::fs::metadata(dir.join(name)).ok()?.len())).sum()
}

pub(super) fn begin(place: &Place) -> Result<Inspection, InspectError> {
    if !place.data_dir.is_dir() {
        return Err(InspectError::NoDirectory { path: place.data_dir.clone() });
    }
    Ok(Inspection::begin(&place.data_dir)?)
}

/// What an open would find damaged: the place, and whose records may have stood there.
fn damage(dir: &Path, place: &Place, reading: &Reading) -> Result<Vec<Value>, CliError> {
    // A log that does not open at all was described piece by piece.
    let Ok(image) = Image::read(&RealFs, dir, None, &paced(reading)) else { return Ok(Vec::new()) };
    let recovered = image.recovered();
    let items = recovered.damaged.iter().map(|damage| {
        json!({ "what": "DAMAGE", "file": damage.path, "offset": damage.offset,
            "may_concern": concerned(damage, &recovered.groups) })
    });
    let items: Vec<_> = items.collect();
    if place.output == Output::Table {
        items.iter().try_for_each(|item| reading.print(|| line(&place.output.item(item))))?;
    }
    Ok(items)
}

/// What was counted over the whole log.
#[derive(Debug, Default)]
struct Totals {
    segments: u64,
    batches: u64,
    records: u64,
    bad_records: u64,
    places: usize,
    commands: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<&'static str, u64>,
}

fn log(place: &Place, records: bool) -> Result<(), CliError> {
    let inspection = begin(place)?;
    let dir = inspection.log_dir();
    // Once for what stands there, once for what an open finds damaged.
    let reading = Reading::new(2 * bytes_in(&dir));
    let (mut totals, mut items, mut failed) = (Totals::default(), Vec::new(), None);
    let mut visit = |found: &Inspected<'_>| {
        let item = totals.see(found);
        let is_wanted = records || !matches!(found, Inspected::Record(_) | Inspected::Batch(_));
        match (place.output, item) {
            (Output::Json, Some(item)) => items.extend(is_wanted.then_some(item)),
            (Output::Table, Some(item)) if is_wanted && failed.is_none() => {
                failed = reading.print(|| line(&place.output.item(&item))).err();
            }
            _ => {}
        }
    };
    inspect(&RealFs, &dir, &|bytes| reading.read(bytes), &mut visit).map_err(InspectError::from)?;
    if let Some(error) = failed {
        return Err(error);
    }
    let concerned = damage(&dir, place, &reading)?;
    drop(reading);
    place.output.show(|| totals.json(&items, &concerned), || totals.table())?;
    if totals.places > 0 {
        return Err(CliError::Damaged { dir, places: totals.places });
    }
    Ok(())
}

impl Totals {
    /// Counts what was found and says what to show of it.
    fn see(&mut self, found: &Inspected<'_>) -> Option<Value> {
        Some(match found {
            Inspected::Segment(segment) => {
                self.segments += 1;
                self.places += usize::from(segment.damaged_copy.is_some());
                json!({ "what": "segment", "file": segment.path, "sequence": segment.sequence, "start": segment.start,
                    "bytes": segment.bytes, "incarnation": segment.incarnation,
                    "damaged_header_copy_at": segment.damaged_copy })
            }
            Inspected::MissingSegment { path } => {
                self.places += 1;
                json!({ "what": "MISSING segment", "file": path })
            }
            Inspected::UnreadableSegment { path, error } => {
                self.places += 1;
                json!({ "what": "UNREADABLE segment", "file": path, "error": error.to_string() })
            }
            Inspected::Batch(batch) => {
                self.batches += 1;
                json!({ "what": if batch.mark { "mark" } else { "batch" }, "offset": batch.offset,
                    "position": batch.position, "number": batch.number, "bytes": batch.bytes,
                    "records": batch.records })
            }
            Inspected::Record(record) => self.record(record),
            Inspected::Unknown { path, offset, bytes, reused, before_batch } => {
                self.places += usize::from(*before_batch);
                let what = match (before_batch, reused) {
                    (true, _) => "DAMAGED bytes",
                    (false, true) => "old bytes of a reused file",
                    (false, false) => "torn tail",
                };
                json!({ "what": what, "file": path, "offset": offset, "bytes": bytes })
            }
            _ => return None,
        })
    }

    fn record(&mut self, record: &InspectedRecord<'_>) -> Value {
        self.records += 1;
        *self.kinds.entry(record.kind).or_default() += 1;
        let mut item = json!({ "what": "record", "group": record.group.0, "kind": record.kind,
            "index": record.index, "offset": record.offset, "bytes": record.bytes });
        let Some(payload) = record.payload else {
            (self.bad_records, self.places) = (self.bad_records + 1, self.places + 1);
            item["checksum"] = json!("WRONG");
            return item;
        };
        let Some(index) = record.index.filter(|_| record.kind == "append") else { return item };
        match entry_facts(record.group, index, payload) {
            Ok(facts) => {
                for kind in &facts.commands {
                    *self.commands.entry(kind).or_default() += 1;
                }
                item["term"] = json!(facts.term);
                item["stamp"] = json!(facts.stamp.map(|stamp| stamp.0));
                item["commands"] = json!(facts.commands.join(","));
            }
            Err(error) => {
                self.places += 1;
                item["error"] = json!(error.to_string());
            }
        }
        item
    }

    fn json(&self, items: &[Value], damage: &[Value]) -> Value {
        json!({ "segments": self.segments, "batches": self.batches, "records": self.records,
            "bad_records": self.bad_records, "damaged_places": self.places, "kinds": self.kinds,
            "commands": self.commands, "damage": damage, "items": items })
    }

    fn table(&self) -> String {
        let mut rows = table(["what", "count"]);
        let fixed = [
            ("segments", self.segments),
            ("batches", self.batches),
            ("records", self.records),
            ("records with a wrong checksum", self.bad_records),
            ("damaged places", self.places as u64),
        ];
        for (what, count) in fixed {
            rows.add_row([what.to_owned(), count.to_string()]);
        }
        for (kind, count) in &self.kinds {
            rows.add_row([format!("records: {kind}"), count.to_string()]);
        }
        for (kind, count) in &self.commands {
            rows.add_row([format!("commands: {kind}"), count.to_string()]);
        }
        text(&rows)
    }
}
