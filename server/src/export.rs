//! Owns the export of a data directory: what an import reads, each partition as it stands at one position of its log.
//!
//! - A node is opened on a likeness of the directory, listening nowhere, with a clock that stands still: nothing in the directory
//!   changes, and nothing expires that had not before.
//! - Files get their names when all are whole; an export that fails leaves an earlier one as it was. In its directory it takes the place
//!   of that: files of the same kind that it did not write go, so that no two exports are mixed. Only of partitions that it leaves out
//!   those of the earlier one stay. A list beside the files says which are whole (`export/contents.rs`).

mod contents;
mod out_file;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_cluster::backup::{Backup, BackupError, Likeness, restore_all};
use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::clock::ManualClock;
use fanfold_cluster::meter::{Cancelled, Meter};
use fanfold_cluster::{Node, NodeError, NodeOptions, OpenError};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::ids::{GraphId, PartitionId, SpaceId, Stamp};
use fanfold_storage::partition::{ExportedEdge, Partition};
use fanfold_storage::segment::SegmentError;

use contents::{Contents, Written};
pub(crate) use contents::{Mixed, check};
use out_file::{OutFile, UNFINISHED, unfinished};

use crate::import::STDIN as STDOUT;
use crate::import::json::{EntryLine, ReferenceLine, Scalar, from_bytes};

/// What the directory that an export needs for itself begins with.
const PLACE: &str = ".fanfold-export";

/// 2000-01-01T00:00:00Z, where stamps begin, in Unix milliseconds.
const STAMP_ZERO_UNIX_MS: i64 = 946_684_800_000;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is no data directory.
    #[error("{} holds no node; name the data directory of one with --data-dir", path.display())]
    NoNode {
        /// The path.
        path: PathBuf,
    },
    /// The node is one of several, and may not know of all that was acknowledged.
    #[error(
        "{} is of one of {nodes} nodes, which may be behind the others; export a backup of them all: \
         `fanfold backup create`, then --backup",
        path.display()
    )]
    OneOfSeveral {
        /// The data directory.
        path: PathBuf,
        /// How many nodes the cluster has.
        nodes: usize,
    },
    /// The backup cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The node does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A partition is not readable.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A file of the node is damaged, so that not all can be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// What is wrong is in a directory, or in one of several images, whose likeness, removed by now, was exported.
    #[error("{}", told_of(&.source.to_string(), .dirs, .likeness))]
    Of {
        /// The directories.
        dirs: Vec<PathBuf>,
        /// Its likeness.
        likeness: PathBuf,
        /// Why, with paths of the likeness.
        source: Box<ExportError>,
    },
    /// Somebody ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Lines that need files of their own.
    #[error("edges and entries, or edges of several graphs, need a directory: name one with --out")]
    Mixed,
    /// The list of the files of an earlier export cannot be used.
    #[error(transparent)]
    Contents(#[from] contents::Mixed),
    /// Another export writes its files there.
    #[error("another export writes into {}: wait until it ends, or name another directory with --out", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// The edges of all graphs.
    Follows,
    /// The entries of all spaces.
    Entries,
    /// Both.
    All,
}

impl What {
    /// Of which partition a file is that an export of this writes, finished or not; none if it is not named exactly so.
    fn partition_of(self, name: &str) -> Option<u16> {
        let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
        let of_entries = name.strip_prefix("entries.").and_then(|rest| rest.strip_suffix(".jsonl.zst"));
        let of_edges = || {
            let (graph, number) =
                name.strip_prefix("follows.")?.strip_suffix(".tsv.zst")?.rsplit_once('.')?;
            (!graph.is_empty() && !graph.contains('.')).then_some(number)
        };
        let number = match self {
            Self::Entries => of_entries,
            Self::Follows => of_edges(),
            Self::All => of_entries.or_else(of_edges),
        };
        let is_number = |number: &&str| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
        number.filter(is_number)?.parse().ok()
    }
}

/// What is to be exported to where.
#[derive(Debug)]
pub(crate) struct Order {
    /// By which it is ended.
    pub(crate) meter: Arc<Meter>,
    pub(crate) what: What,
    pub(crate) out: PathBuf,
    pub(crate) leaves_out_damaged: bool,
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) edges: u64,
    pub(crate) entries: u64,
    /// Partitions of which there is nothing.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A partition that is not exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) partition: u16,
    /// What is damaged of it; none if it is not in the backup.
    pub(crate) damage: Option<String>,
}

impl Exported {
    /// The same, told of the directories that have a likeness.
    fn of(mut self, dirs: &[PathBuf], likeness: &Path) -> Self {
        for damage in self.left_out.iter_mut().filter_map(|left| left.damage.as_mut()) {
            *damage = told_of(damage, dirs, likeness);
        }
        self
    }
}

/// Exports a backup, which is one moment of a node that ran, or those of the nodes of a cluster: of each partition the one that goes
/// furthest. They are put together in a directory beside the files, mostly of links to theirs, and that is removed again. `done`
/// hears of each partition that is exported.
pub(crate) async fn export_backups(
    backups: Vec<Backup>,
    order: &Order,
    done: impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    order.check()?;
    let place = place_beside(&order.out)?;
    let (accepts_loss, meter) = (order.leaves_out_damaged, Arc::clone(&order.meter));
    let data_dir = place.dir.path().join("data");
    let dirs: Vec<_> = backups.iter().map(|backup| backup.dir.clone()).collect();
    let target = data_dir.clone();
    let put = tokio::task::spawn_blocking(move || restore_all(&backups, accepts_loss, &target, &meter));
    let empty = put.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let options = NodeOptions::new(&data_dir);
    let exported = open_and_export(options, order, &empty, done).await;
    exported.map(|all| all.of(&dirs, &data_dir)).map_err(|error| error.of(dirs, data_dir))
}

/// Exports a data directory on which no node runs, and changes nothing in it: a likeness of it is made beside the files, of copies of
/// its log and of links, and removed again. `done` hears of each partition that is exported.
pub(crate) async fn export(
    data_dir: &Path,
    order: &Order,
    done: impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    order.check()?;
    if !data_dir.join("identity").is_dir() {
        return Err(ExportError::NoNode { path: data_dir.to_owned() });
    }
    let place = place_beside(&order.out)?;
    let (original, target) = (data_dir.to_owned(), place.dir.path().join("data"));
    let meter = Arc::clone(&order.meter);
    let made = tokio::task::spawn_blocking(move || Likeness::make(&original, &target, &meter)).await;
    let likeness = made.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let mut options = NodeOptions::new(&likeness.dir);
    // What is there is used as it is.
    options.log.segment_bytes = likeness.log_segment_bytes.unwrap_or(options.log.segment_bytes);
    let exported = open_and_export(options, order, &[], done).await;
    let dirs = vec![data_dir.to_owned()];
    exported.map(|all| all.of(&dirs, &likeness.dir)).map_err(|error| error.of(dirs, likeness.dir.clone()))
}

impl Order {
    /// Whether that can be exported there.
    fn check(&self) -> Result<(), ExportError> {
        let is_mixed = self.what == What::All && self.is_to_stdout();
        if is_mixed { Err(ExportError::Mixed) } else { Ok(()) }
    }

    fn is_to_stdout(&self) -> bool {
        self.out == Path::new(STDOUT)
    }

    /// Gives files their names, so that they are there after a loss of power; then files of earlier exports of the same kind go, but
    /// for those of partitions that are left out, and whatever is unfinished.
    fn name_all(&self, written: &BTreeMap<String, Written>, left_out: &[LeftOut]) -> Result<(), ExportError> {
        if self.is_to_stdout() {
            return Ok(());
        }
        let failed = |source| ExportError::Write { path: self.out.clone(), source };
        let is_left_out = |partition| left_out.iter().any(|left| left.partition == partition);
        let is_ours =
            |name: &str| self.what.partition_of(name).is_some_and(|partition| !is_left_out(partition));
        let mut contents = Contents::load(&self.out)?;
        contents.files.retain(|name, _| !is_ours(name));
        contents.unfinished.retain(|name| !is_ours(name));
        let mut begun = contents.clone();
        let is_there = |name: &String| is_ours(name) && !name.ends_with(UNFINISHED);
        begun.unfinished.extend(self.names()?.into_iter().filter(is_there));
        begun.unfinished.extend(written.keys().cloned());
        begun.store(&self.out).map_err(failed)?;
        for path in written.keys().map(|name| self.out.join(name)) {
            let renamed = std::fs::rename(unfinished(&path), &path);
            renamed.map_err(|source| ExportError::Write { path, source })?;
        }
        let sync = || File::open(&self.out).and_then(|dir| dir.sync_all());
        sync().map_err(failed)?;
        let is_earlier = |name: &str| is_ours(name) && !written.contains_key(name);
        self.remove(|name| name.ends_with(UNFINISHED) || is_earlier(name))?;
        sync().map_err(failed)?;
        contents.files.extend(written.clone());
        contents.store(&self.out).map_err(failed)
    }

    /// Removes those of the files that an export of this writes, by name.
    fn remove(&self, goes: impl Fn(&str) -> bool) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { path: self.out.clone(), source };
        for name in self.names()?.into_iter().filter(|name| goes(name)) {
            std::fs::remove_file(self.out.join(name)).map_err(failed)?;
        }
        Ok(())
    }

    /// The names of the plain files that an export of this writes, finished or not.
    fn names(&self) -> Result<Vec<String>, ExportError> {
        let failed = |source| ExportError::Write { path: self.out.clone(), source };
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.out).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().into_string().ok();
            let Some(name) = name.filter(|name| self.what.partition_of(name).is_some()) else { continue };
            if item.file_type().map_err(failed)?.is_file() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// A directory that is removed again, on the disk of the files.
struct Place {
    dir: tempfile::TempDir,
    /// Locked as long as the directory is in use.
    _held: File,
    /// So is the one of the files, if there is one: what two exports write at once into one file is neither's.
    _out: Option<File>,
}

/// Makes one. Those that exports left behind which were killed go: nobody holds them.
fn place_beside(out: &Path) -> Result<Place, ExportError> {
    let is_stdout = out == Path::new(STDOUT);
    let beside = if is_stdout { std::env::temp_dir() } else { out.to_owned() };
    let failed = |source| ExportError::Write { path: beside.clone(), source };
    std::fs::create_dir_all(&beside).map_err(failed)?;
    let out = if is_stdout { None } else { Some(File::open(&beside).map_err(failed)?) };
    match out.as_ref().map_or(Ok(()), File::try_lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ExportError::Busy { path: beside.clone() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let make = || {
        if !is_stdout {
            remove_left_behind(&beside)?;
        }
        let dir = tempfile::Builder::new().prefix(PLACE).tempdir_in(&beside)?;
        let held = File::open(dir.path())?;
        held.lock()?;
        Ok(Place { dir, _held: held, _out: out })
    };
    make().map_err(failed)
}

fn remove_left_behind(beside: &Path) -> io::Result<()> {
    for item in std::fs::read_dir(beside)? {
        let item = item?;
        let is_ours = item.file_name().to_str().is_some_and(|name| name.starts_with(PLACE));
        if is_ours && item.file_type()?.is_dir() && File::open(item.path())?.try_lock().is_ok() {
            std::fs::remove_dir_all(item.path())?;
        }
    }
    Ok(())
}

async fn open_and_export(
    options: NodeOptions,
    order: &Order,
    missing: &[u16],
    mut done: impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    // A clock behind the log's last stamp is held at it.
    let clock = Arc::new(ManualClock::new(STAMP_ZERO_UNIX_MS));
    let data_dir = options.data_dir.clone();
    let node = Node::open(NodeOptions { clock, ..options }).await?;
    let nodes = node.view().nodes.iter().filter(|node| node.state != NodeState::Removed).count();
    let exported = if nodes > 1 {
        Err(ExportError::OneOfSeveral { path: data_dir, nodes })
    } else {
        export_node(&node, order, missing, &mut done)
    };
    if let Err(error) = node.close().await {
        tracing::warn!(%error, "the log was not closed cleanly, which loses nothing");
    }
    exported
}

fn export_node(
    node: &Arc<Node>,
    order: &Order,
    missing: &[u16],
    done: &mut impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    let mut written = BTreeMap::new();
    let exported = export_partitions(node, order, missing, &mut written, done);
    match &exported {
        Ok(all) => order.name_all(&written, &all.left_out)?,
        Err(_) if !order.is_to_stdout() => {
            // What stays of it the next export removes.
            let _ = order.remove(|name| name.ends_with(UNFINISHED));
        }
        Err(_) => {}
    }
    exported
}

/// Writes the files, whose names come later. Those of partitions that are `missing` would be empty.
fn export_partitions(
    node: &Arc<Node>,
    order: &Order,
    missing: &[u16],
    written: &mut BTreeMap<String, Written>,
    done: &mut impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    let what = order.what;
    let graphs: BTreeMap<GraphId, String> = node.graphs().into_iter().collect();
    let spaces: BTreeMap<SpaceId, String> = node.spaces().into_iter().map(|s| (s.id, s.name)).collect();
    let mut all = Exported::default();
    if what == What::Follows && graphs.len() > 1 && order.is_to_stdout() {
        return Err(ExportError::Mixed);
    }
    done(0, node.partitions());
    for n in 0..node.partitions() {
        if missing.contains(&n) {
            all.left_out.push(LeftOut { partition: n, damage: None });
            done(n + 1, node.partitions());
            continue;
        }
        let exported = node.read_partition(PartitionId(n), |partition| -> Result<_, ExportError> {
            let mut exported = Exported::default();
            if what != What::Entries {
                exported.edges = export_edges(partition, &graphs, order, written)?;
            }
            if what != What::Follows {
                exported.entries = export_entries(partition, &spaces, order, written)?;
            }
            Ok(exported)
        });
        match exported.map_err(ExportError::from).flatten() {
            Ok(exported) => {
                all.edges += exported.edges;
                all.entries += exported.entries;
            }
            Err(error) if order.leaves_out_damaged && error.is_damage() => {
                // What was written of it is not all.
                written.retain(|name, _| what.partition_of(name) != Some(n));
                all.left_out.push(LeftOut { partition: n, damage: Some(error.to_string()) });
            }
            Err(error) => return Err(error),
        }
        done(n + 1, node.partitions());
    }
    Ok(all)
}

/// What is wrong, with paths of the directory that has a likeness; of several images it is not known which one it was.
fn told_of(said: &str, dirs: &[PathBuf], likeness: &Path) -> String {
    let likeness = likeness.to_string_lossy();
    match dirs {
        [dir] => said.replace(&*likeness, &dir.to_string_lossy()),
        dirs if said.contains(&*likeness) => {
            let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            let said =
                said.replace(&format!("{likeness}/"), "").replace(&*likeness, "what they make together");
            format!("{said}; in one of the backups {}", dirs.join(", "))
        }
        _ => said.to_owned(),
    }
}

impl ExportError {
    /// The same, told of the directories that have a likeness.
    fn of(self, dirs: Vec<PathBuf>, likeness: PathBuf) -> Self {
        Self::Of { dirs, likeness, source: Box::new(self) }
    }

    /// Whether the reader of stdout went away.
    pub fn is_closed_pipe(&self) -> bool {
        match self {
            Self::Of { source, .. } => source.is_closed_pipe(),
            Self::Write { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    /// Whether a partition cannot be read because it is damaged.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Node(NodeError::Damaged { .. }) | Self::Segment(_))
    }
}

fn export_edges(
    partition: &Partition,
    graphs: &BTreeMap<GraphId, String>,
    order: &Order,
    written: &mut BTreeMap<String, Written>,
) -> Result<u64, ExportError> {
    let mut files: BTreeMap<GraphId, OutFile> = BTreeMap::new();
    let mut count = 0;
    partition.export_edges(|edge: ExportedEdge| {
        order.meter.check()?;
        if let std::collections::btree_map::Entry::Vacant(vacant) = files.entry(edge.graph) {
            let name = graphs.get(&edge.graph).map_or_else(|| edge.graph.to_string(), Clone::clone);
            vacant.insert(OutFile::create(&order.out, &format!("follows.{name}.{:04}.tsv", partition.id()))?);
        }
        count += 1;
        let since = unix_ms(edge.since);
        files.get_mut(&edge.graph).map_or(Ok(()), |file| {
            file.write(|out| writeln!(out, "{}\t{}\t{since}", edge.reader, edge.owner))
        })
    })?;
    for file in files.into_values() {
        written.extend(file.finish()?);
    }
    Ok(count)
}

fn export_entries(
    partition: &Partition,
    spaces: &BTreeMap<SpaceId, String>,
    order: &Order,
    written: &mut BTreeMap<String, Written>,
) -> Result<u64, ExportError> {
    let mut file = OutFile::create(&order.out, &format!("entries.{:04}.jsonl", partition.id()))?;
    let mut count = 0;
    partition.export_entries(|entry, key| {
        order.meter.check()?;
        count += 1;
        let line = entry_line(entry, key, spaces);
        file.write(|out| {
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")
        })
    })?;
    written.extend(file.finish()?);
    Ok(count)
}

fn unix_ms(stamp: Stamp) -> u64 {
    fanfold_protocol::Stamp(stamp.0).to_unix_ms()
}

fn entry_line(entry: &Entry, key: Option<&bytes::Bytes>, spaces: &BTreeMap<SpaceId, String>) -> EntryLine {
    let scalar = |number: u64| Scalar(number.to_string());
    let (payload, payload_base64) = from_bytes(&entry.payload);
    let (key, key_base64) = key.map_or((None, None), |key| from_bytes(key));
    EntryLine {
        id: Some(scalar(entry.id.0)),
        time: None,
        space: Some(spaces.get(&entry.space).map_or_else(|| entry.space.to_string(), Clone::clone)),
        owner: Some(scalar(entry.owner.0)),
        author: (entry.author != entry.owner).then(|| scalar(entry.author.0)),
        audience: match entry.audience {
            Audience::Public => None,
            Audience::Followers => Some("followers".to_owned()),
            Audience::Private => Some("private".to_owned()),
        },
        // The space may say something else where it is imported.
        expires: Some(entry.expiry.map_or_else(|| Scalar("never".to_owned()), |at| scalar(unix_ms(at)))),
        version: (entry.version != 1).then_some(entry.version),
        key,
        key_base64,
        reference: entry.reference.map(|r| ReferenceLine { owner: scalar(r.owner.0), id: scalar(r.id.0) }),
        payload,
        payload_base64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_export_at_a_time_writes_into_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("export");
        let held = place_beside(&out).unwrap();
        let refused = place_beside(&out).err();
        assert!(matches!(&refused, Some(ExportError::Busy { path }) if *path == out), "{refused:?}");
        place_beside(&dir.path().join("other")).unwrap();
        drop(held);
        place_beside(&out).unwrap();
        // To standard output any number goes.
        let _both = [place_beside(Path::new(STDOUT)).unwrap(), place_beside(Path::new(STDOUT)).unwrap()];
    }

    #[test]
    fn what_is_wrong_with_several_images_is_told_of_all_of_them() {
        let told = |said: &str, dirs: &[&str]| {
            let dirs = dirs.iter().map(PathBuf::from).collect();
            let said = io::Error::other(said.to_owned());
            let path = PathBuf::from("entries.0000.jsonl");
            ExportError::Write { path, source: said }
                .of(dirs, PathBuf::from("/out/.fanfold-export/data"))
                .to_string()
        };
        let said = "/out/.fanfold-export/data/groups/0002/7.segment is damaged";
        assert!(told(said, &["/b/node-1"]).ends_with(": /b/node-1/groups/0002/7.segment is damaged"));
        let of_two = told(said, &["/b/node-1", "/b/node-2"]);
        assert!(
            of_two
                .ends_with(": groups/0002/7.segment is damaged; in one of the backups /b/node-1, /b/node-2"),
            "{of_two}"
        );
        assert!(told("no room", &["/b/node-1", "/b/node-2"]).ends_with(": no room"));
    }
}
