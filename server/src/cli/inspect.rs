//! Owns the commands `inspect log` and `inspect data-dir`: the offline look at what is on disk.
//!
//! - The data directory is locked meanwhile; nothing in it is changed.
//! - Checksums of every batch and record are verified.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use fanfold_cluster::inspect::{Inspection, entry_facts};
use fanfold_storage::fs::RealFs;
use fanfold_storage::log::{Inspected, InspectedRecord, inspect};
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Output, line, table, text};

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
    /// Shows whose a data directory is and what it holds.
    #[command(after_help = "Example:\n  fanfold inspect data-dir --data-dir ./fanfold-data")]
    DataDir {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Directory with everything the node keeps; no node may run on it.
    #[arg(long, value_name = "DIR", default_value = "./fanfold-data")]
    data_dir: PathBuf,
    /// How the result is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
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
        What::DataDir { place } => data_dir(place),
    }
}

fn begin(place: &Place) -> Result<Inspection, InspectError> {
    if !place.data_dir.is_dir() {
        return Err(InspectError::NoDirectory { path: place.data_dir.clone() });
    }
    Ok(Inspection::begin(&place.data_dir)?)
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
    let (mut totals, mut items, mut failed) = (Totals::default(), Vec::new(), None);
    let mut visit = |found: &Inspected<'_>| {
        let item = totals.see(found);
        let is_wanted = records || !matches!(found, Inspected::Record(_) | Inspected::Batch(_));
        match (place.output, item) {
            (Output::Json, Some(item)) => items.extend(is_wanted.then_some(item)),
            (Output::Table, Some(item)) if is_wanted && failed.is_none() => {
                failed = line(&words(&item)).err();
            }
            _ => {}
        }
    };
    inspect(&RealFs, &dir, &mut visit).map_err(InspectError::from)?;
    if let Some(error) = failed {
        return Err(error);
    }
    place.output.show(|| totals.json(&items), || totals.table())?;
    if totals.places > 0 {
        return Err(CliError::Damaged { dir, places: totals.places });
    }
    Ok(())
}

/// One line for people: the values of an item in the order in which it names them.
fn words(item: &Value) -> String {
    let what = item["what"].as_str().unwrap_or_default().to_owned();
    let fields = item.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, value)| *key != "what" && !value.is_null());
    let words = fields.map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    std::iter::once(what).chain(words).collect::<Vec<_>>().join(" ")
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

    fn json(&self, items: &[Value]) -> Value {
        json!({ "segments": self.segments, "batches": self.batches, "records": self.records,
            "bad_records": self.bad_records, "damaged_places": self.places, "kinds": self.kinds,
            "commands": self.commands, "items": items })
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

fn data_dir(place: &Place) -> Result<(), CliError> {
    let inspection = begin(place)?;
    let facts = inspection.facts().map_err(InspectError::from)?;
    let mut totals = Totals::default();
    inspect(&RealFs, &inspection.log_dir(), &mut |found| drop(totals.see(found)))
        .map_err(InspectError::from)?;
    let cluster = facts.identity.map(|identity| format!("{:032x}", identity.cluster_id));
    let node = facts.identity.map(|identity| identity.node_id);
    place.output.show(
        || {
            json!({ "data_dir": place.data_dir, "cluster": cluster, "node": node, "partitions": facts.partitions,
                "founded": facts.is_founded, "log": totals.json(&[]) })
        },
        || {
            let unknown = || "unknown (the identity is missing or unreadable; the log has it too)".to_owned();
            let mut rows = table(["what", ""]);
            rows.add_row(["directory".to_owned(), place.data_dir.display().to_string()]);
            rows.add_row(["cluster".to_owned(), cluster.clone().unwrap_or_else(unknown)]);
            rows.add_row(["node".to_owned(), node.map_or_else(unknown, |node| node.to_string())]);
            rows.add_row(["partitions".to_owned(), facts.partitions.map_or_else(unknown, |n| n.to_string())]);
            rows.add_row(["first start finished".to_owned(), facts.is_founded.to_string()]);
            rows.add_row(["log segments".to_owned(), totals.segments.to_string()]);
            rows.add_row(["log records".to_owned(), totals.records.to_string()]);
            rows.add_row(["damaged places".to_owned(), totals.places.to_string()]);
            text(&rows)
        },
    )?;
    if totals.places > 0 {
        return Err(CliError::Damaged { dir: inspection.log_dir(), places: totals.places });
    }
    Ok(())
}
