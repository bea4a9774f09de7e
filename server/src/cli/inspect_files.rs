//! Owns the commands `inspect snapshot` and `inspect segment`: what a group keeps beside the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_cluster::inspect::name_of;
use fanfold_cluster::raft::group_dir;
use fanfold_protocol::Stamp;
use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::fs::RealFs;
use fanfold_storage::log::GroupId;
use fanfold_storage::partition::section_name;
use fanfold_storage::segment::{Segment, SegmentInfo};
use fanfold_storage::snapshot::{Found, Listed, Manifest, SnapshotStore};
use serde_json::{Value, json};

use super::error::CliError;
use super::inspect::{Place, begin};
use super::output::{Output, bytes, id, line, table, text, time};
use super::progress::Reading;
use crate::workload::progress;

/// Shows the snapshots of one group, or of all, newest first; only that of a number if one is given.
pub(super) fn snapshots(place: &Place, group: Option<GroupId>, number: Option<u64>) -> Result<(), CliError> {
    let inspection = begin(place)?;
    let groups = match group {
        Some(group) => vec![group],
        None => inspection.groups().map_err(super::inspect::InspectError::from)?,
    };
    let (mut items, mut texts, mut unusable) = (Vec::new(), Vec::new(), 0);
    let bar = progress::bar("groups", groups.len() as u64);
    for group in groups {
        let dir = group_dir(&place.data_dir, group);
        let found = found_in(place, group)?;
        let wanted: Vec<_> =
            found.into_iter().filter(|found| number.is_none_or(|number| found.number == number)).collect();
        if let Some(number) = number.filter(|_| wanted.is_empty()) {
            return Err(CliError::NoSnapshot { dir, number });
        }
        for Found { number, manifest } in wanted {
            let path = dir.join(format!("{number:016x}.manifest"));
            match manifest {
                Ok(manifest) => {
                    items.push(manifest_json(&path, &manifest));
                    texts.push(manifest_text(&path, &manifest));
                }
                Err(error) => {
                    unusable += 1;
                    items.push(json!({ "file": path, "group": group.0, "error": error.to_string() }));
                    texts.push(format!("UNUSABLE {}: {error}", path.display()));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    place.output.show(
        || Value::Array(items.clone()),
        || if texts.is_empty() { "there is no snapshot".to_owned() } else { texts.join("\n\n") },
    )?;
    if unusable > 0 { Err(CliError::Wrong { found: unusable }) } else { Ok(()) }
}

/// The snapshots of a group of a data directory, newest first.
fn found_in(place: &Place, group: GroupId) -> Result<Vec<Found>, CliError> {
    let dir = group_dir(&place.data_dir, group);
    if !dir.is_dir() {
        return Err(CliError::NoGroup { name: name_of(group), data_dir: place.data_dir.clone() });
    }
    Ok(SnapshotStore::look(Arc::new(RealFs), &dir, group)?.1)
}

/// Buckets and bytes by section.
fn sections(manifest: &Manifest) -> BTreeMap<u8, (u64, u64)> {
    let mut sections = BTreeMap::new();
    for bucket in &manifest.buckets {
        let (count, bytes) = sections.entry(bucket.section).or_insert((0, 0));
        (*count, *bytes) = (*count + 1, *bytes + bucket.length);
    }
    sections
}

/// What a section of a group's state is called.
fn section(group: GroupId, section: u8) -> String {
    let known = (group.0 > 0).then(|| section_name(section)).flatten();
    known.map_or_else(|| format!("section {section}"), str::to_owned)
}

/// What a manifest says of a segment beside name and length.
fn info(listed: &Listed) -> Option<SegmentInfo> {
    SegmentInfo::decode(&mut Reader::new(&listed.detail)).ok()
}

fn manifest_json(path: &Path, manifest: &Manifest) -> Value {
    let sections = sections(manifest).into_iter().map(|(number, (count, bytes))| {
        json!({ "section": section(manifest.group, number), "buckets": count, "bytes": bytes })
    });
    let files = manifest.files.iter().map(|file| json!({ "file": file.name(), "bytes": file.bytes }));
    let segments = manifest.segments.iter().map(|listed| {
        json!({ "file": listed.name, "bytes": listed.bytes, "crc32": format!("{:08x}", listed.checksum),
            "entries": info(listed).map(|info| info.entries) })
    });
    json!({ "file": path, "group": manifest.group.0, "number": format!("{:016x}", manifest.number),
        "index": manifest.index, "sections": sections.collect::<Vec<_>>(), "files": files.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>() })
}

fn manifest_text(path: &Path, manifest: &Manifest) -> String {
    let head = format!(
        "{}\nsnapshot {:016x} of {}, up to index {}",
        path.display(),
        manifest.number,
        name_of(manifest.group),
        manifest.index
    );
    let mut rows = table(["what", "count", "bytes"]);
    for (number, (count, sum)) in sections(manifest) {
        rows.add_row([
            format!("buckets: {}", section(manifest.group, number)),
            count.to_string(),
            bytes(sum),
        ]);
    }
    for file in &manifest.files {
        rows.add_row([file.name(), String::new(), bytes(file.bytes)]);
    }
    for listed in &manifest.segments {
        let entries = info(listed).map_or_else(String::new, |info| format!("{} entries", info.entries));
        rows.add_row([listed.name.clone(), entries, bytes(listed.bytes)]);
    }
    format!("{head}\n{}", text(&rows))
}

/// Shows one segment, or all that the newest snapshot of a group lists.
pub(super) fn segments(
    place: &Place,
    file: Option<&PathBuf>,
    group: Option<GroupId>,
    entries: bool,
) -> Result<(), CliError> {
    if let Some(file) = file {
        let reading = Reading::new(std::fs::metadata(file).map_or(0, |file| file.len()));
        return segment(place, file, entries, &reading);
    }
    let _inspection = begin(place)?;
    let group = group.unwrap_or(GroupId(1));
    let dir = group_dir(&place.data_dir, group);
    let newest = found_in(place, group)?.into_iter().find_map(|found| found.manifest.ok());
    let listed = || newest.iter().flat_map(|manifest| &manifest.segments);
    if listed().next().is_none() && place.output == Output::Table {
        line("no snapshot lists a segment: what there is, the log has")?;
    }
    let reading = Reading::new(listed().map(|listed| listed.bytes).sum());
    for listed in listed() {
        segment(place, &dir.join(&listed.name), entries, &reading)?;
    }
    Ok(())
}

fn segment(place: &Place, path: &Path, entries: bool, reading: &Reading) -> Result<(), CliError> {
    let segment = Segment::open_alone(&RealFs, path)?;
    let info = *segment.info();
    let expiry = info.expiry.map(|(first, last)| [time(Stamp(first.0)), time(Stamp(last.0))]);
    let show = || {
        place.output.show(
        || {
            json!({ "file": path, "number": info.number.to_string(), "entries": info.entries,
                "lowest": id(info.lowest), "highest": id(info.highest), "expiring": info.expiring, "expiry": expiry,
                "payload_bytes": info.payload_bytes, "bytes": info.bytes, "crc32": format!("{:08x}", info.checksum) })
        },
        || {
            let mut rows = table(["segment", &path.display().to_string()]);
            rows.add_row(["entries".to_owned(), info.entries.to_string()]);
            rows.add_row(["ids".to_owned(), format!("{} to {}", info.lowest, info.highest)]);
            let expires = |[first, last]: &[String; 2]| format!("{} entries, from {first} to {last}", info.expiring);
            rows.add_row(["expiry".to_owned(), expiry.as_ref().map_or("none".to_owned(), expires)]);
            rows.add_row(["payloads".to_owned(), bytes(info.payload_bytes)]);
            rows.add_row(["file".to_owned(), bytes(info.bytes)]);
            rows.add_row(["CRC-32".to_owned(), format!("{:08x}", info.checksum)]);
            text(&rows)
        },
    )
    };
    reading.print(show)?;
    if entries {
        for entry in &segment {
            let entry = entry?;
            let expiry = entry.expiry.map(|stamp| time(Stamp(stamp.0)));
            let shown = json!({ "space": entry.space.0, "owner": id(entry.owner), "id": id(entry.id),
                "version": entry.version, "expiry": expiry, "payload_bytes": entry.payload.len() });
            reading.print(|| line(&place.output.item(&shown)))?;
        }
    }
    segment.verify_telling(&|bytes| reading.read(bytes))?;
    Ok(())
}
