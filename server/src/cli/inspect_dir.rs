//! Owns the command `inspect data-dir`: whose it is, what it holds, and what the next start would use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_cluster::inspect::{Inspection, name_of};
use fanfold_cluster::raft::group_dir;
use fanfold_storage::fs::RealFs;
use fanfold_storage::log::{GroupId, GroupState, Image};
use fanfold_storage::snapshot::{Manifest, SnapshotStore};
use serde_json::{Value, json};

use super::error::CliError;
use super::inspect::{InspectError, Place, begin, bytes_in, paced};
use super::output::{bytes, table, text};
use super::progress::Reading;

/// A group as the next start finds it.
struct GroupFacts {
    group: GroupId,
    /// The newest snapshot that can be read, and manifests that cannot.
    newest: Option<Arc<Manifest>>,
    damaged: usize,
    state: GroupState,
    /// Files that no snapshot names, beside the note of the replica.
    orphans: Vec<PathBuf>,
    file_bytes: u64,
}

impl GroupFacts {
    fn of(data_dir: &Path, group: GroupId, log: &Image) -> Result<Self, CliError> {
        let dir = group_dir(data_dir, group);
        let (_, found) = SnapshotStore::look(Arc::new(RealFs), &dir, group)?;
        let damaged = found.iter().filter(|found| found.manifest.is_err()).count();
        let whole: Vec<_> = found.into_iter().filter_map(|found| found.manifest.ok()).collect();
        // The note says whose the directory is.
        let is_named = |name: &str| {
            name == "replica" || whole.iter().any(|manifest| manifest.names().any(|named| named == name))
        };
        let (mut orphans, mut file_bytes) = (Vec::new(), 0);
        for (path, length) in files(&dir)? {
            file_bytes += length;
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(is_named) {
                orphans.push(path);
            }
        }
        let state = log.group_state(group);
        Ok(Self { group, newest: whole.into_iter().next(), damaged, state, orphans, file_bytes })
    }

    /// The Raft entries that the next start applies.
    fn replayed(&self) -> u64 {
        let from = self.newest.as_ref().map_or(self.state.first, |newest| newest.index + 1);
        self.state.last.map_or(0, |last| (last + 1).saturating_sub(from.max(self.state.first)))
    }

    fn json(&self) -> Value {
        let newest = self.newest.as_ref();
        json!({ "group": self.group.0, "name": name_of(self.group),
            "snapshot": newest.map(|newest| format!("{:016x}", newest.number)),
            "snapshot_index": newest.map(|newest| newest.index), "damaged_snapshots": self.damaged,
            "purged": self.state.purged.as_ref().map(|(index, _)| index), "log_last": self.state.last,
            "replayed": self.replayed(), "files_bytes": self.file_bytes, "orphans": self.orphans })
    }

    fn row(&self) -> [String; 7] {
        let newest = self.newest.as_ref();
        let number = newest.map_or_else(|| "none".to_owned(), |newest| format!("{:x}", newest.number));
        let snapshot =
            if self.damaged > 0 { format!("{number}, {} UNREADABLE", self.damaged) } else { number };
        [
            name_of(self.group),
            snapshot,
            newest.map_or_else(String::new, |newest| newest.index.to_string()),
            self.state.last.map_or_else(String::new, |last| last.to_string()),
            self.replayed().to_string(),
            bytes(self.file_bytes),
            self.orphans.len().to_string(),
        ]
    }
}

/// The plain files of a directory with their lengths; none if it is not there.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>, CliError> {
    let items = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.map_err(|source| CliError::Process { doing: "listing the directory", source })?,
    };
    let file = |item: fs::DirEntry| {
        let metadata = item.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((item.path(), metadata.len()))
    };
    let mut files: Vec<_> = items.flatten().filter_map(file).collect();
    files.sort_unstable();
    Ok(files)
}

/// Shows a data directory.
pub(super) fn data_dir(place: &Place) -> Result<(), CliError> {
    let inspection: Inspection = begin(place)?;
    let facts = inspection.facts().map_err(InspectError::from)?;
    let log_dir = inspection.log_dir();
    let reading = Reading::new(bytes_in(&log_dir));
    let log = Image::read(&RealFs, &log_dir, None, &paced(&reading)).map_err(InspectError::from)?;
    drop(reading);
    let mut numbers: Vec<_> = (0..=u32::from(facts.partitions.unwrap_or(0))).map(GroupId).collect();
    numbers.extend(inspection.groups().map_err(InspectError::from)?);
    numbers.sort_unstable();
    numbers.dedup();
    let exists = |group: &GroupId| group_dir(&place.data_dir, *group).is_dir();
    let groups = numbers.into_iter().filter(exists);
    let groups: Vec<_> =
        groups.map(|group| GroupFacts::of(&place.data_dir, group, &log)).collect::<Result<_, _>>()?;
    let log_bytes: u64 = files(&log_dir)?.iter().map(|(_, length)| length).sum();
    let recovered = log.recovered();
    let places = recovered.damaged.len();
    let cluster = facts.identity.map(|identity| format!("{:032x}", identity.cluster_id));
    let node = facts.identity.map(|identity| identity.node_id);
    place.output.show(
        || {
            json!({ "data_dir": place.data_dir, "cluster": cluster, "node": node, "partitions": facts.partitions,
                "founded": facts.is_founded, "restored": facts.restored,
                "log": { "segments": recovered.segments, "records": recovered.records, "bytes": log_bytes,
                    "damaged_places": places, "torn_bytes": recovered.torn.as_ref().map(|torn| torn.bytes) },
                "groups": groups.iter().map(GroupFacts::json).collect::<Vec<_>>() })
        },
        || {
            let unknown = || "unknown (the identity is missing or unreadable; the log has it too)".to_owned();
            let mut rows = table(["what", ""]);
            rows.add_row(["directory".to_owned(), place.data_dir.display().to_string()]);
            rows.add_row(["cluster".to_owned(), cluster.clone().unwrap_or_else(unknown)]);
            rows.add_row(["node".to_owned(), node.map_or_else(unknown, |node| node.to_string())]);
            rows.add_row(["partitions".to_owned(), facts.partitions.map_or_else(unknown, |n| n.to_string())]);
            rows.add_row(["first start finished".to_owned(), facts.is_founded.to_string()]);
            rows.add_row(["restored".to_owned(), facts.restored.unwrap_or("no").to_owned()]);
            rows.add_row(["log segments".to_owned(), recovered.segments.to_string()]);
            rows.add_row(["log records".to_owned(), recovered.records.to_string()]);
            rows.add_row(["log".to_owned(), bytes(log_bytes)]);
            rows.add_row(["damaged places".to_owned(), places.to_string()]);
            let heads = ["group", "snapshot", "index", "log to", "replayed", "files", "orphans"];
            let mut of_groups = table(heads);
            for group in &groups {
                of_groups.add_row(group.row());
            }
            format!("{}\n\n{}", text(&rows), text(&of_groups))
        },
    )?;
    let unreadable: usize = groups.iter().map(|group| group.damaged).sum();
    match (places, unreadable) {
        (0, 0) => Ok(()),
        (0, found) => Err(CliError::Wrong { found: found as u64 }),
        _ => Err(CliError::Damaged { dir: log_dir, places }),
    }
}
