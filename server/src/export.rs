//! Owns the export of a data directory: what an import reads, each partition as it stands at one position of its log.
//!
//! - A node is opened on the directory, listening nowhere, with a clock that stands still: nothing is written to and nothing
//!   expires that had not before.
//! - A file gets its name when it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_cluster::backup::{Backup, BackupError, restore_all};
use fanfold_cluster::catalog::NodeState;
use fanfold_cluster::clock::ManualClock;
use fanfold_cluster::meter::Meter;
use fanfold_cluster::{Node, NodeError, NodeOptions, OpenError};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::ids::{GraphId, PartitionId, SpaceId, Stamp};
use fanfold_storage::partition::{ExportedEdge, Partition};
use fanfold_storage::segment::SegmentError;

use crate::import::STDIN as STDOUT;
use crate::import::json::{EntryLine, ReferenceLine, Scalar, from_bytes};

/// The level of compression: fast, as the disk is seldom the limit.
const ZSTD_LEVEL: i32 = 3;

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
        "{} is of one of {nodes} nodes, which may be behind the others; export a backup of them: \
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
    /// Lines that need files of their own.
    #[error("edges and entries, or edges of several graphs, need a directory: name one with --out")]
    Mixed,
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

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) edges: u64,
    pub(crate) entries: u64,
    /// Partitions that are damaged, or not in the backup, and of which there is nothing.
    pub(crate) left_out: Vec<u16>,
}

/// Exports a backup, which is one moment of a node that ran: it is put together in a directory of its own beside the files,
/// mostly of links to those of the backup, and that is removed again. `done` hears of each partition that is exported.
pub(crate) async fn export_backup(
    dir: &Path,
    what: What,
    out: &Path,
    leaves_out_damaged: bool,
    done: impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    let beside = if out == Path::new(STDOUT) { std::env::temp_dir() } else { out.to_owned() };
    let failed = |source| ExportError::Write { path: beside.clone(), source };
    std::fs::create_dir_all(&beside).map_err(failed)?;
    let place = tempfile::Builder::new().prefix(".fanfold-export").tempdir_in(&beside).map_err(failed)?;
    let data_dir = place.path().join("data");
    let (backups, target) = ([Backup::open(dir)?], data_dir.clone());
    let put = tokio::task::spawn_blocking(move || {
        restore_all(&backups, leaves_out_damaged, &target, &Meter::new(None))
    });
    let empty = put.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let mut exported = export(&data_dir, what, out, leaves_out_damaged, done).await?;
    exported.left_out.extend(empty);
    Ok(exported)
}

/// Exports a data directory; `done` hears of each partition that is.
pub(crate) async fn export(
    data_dir: &Path,
    what: What,
    out: &Path,
    leaves_out_damaged: bool,
    mut done: impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    if what == What::All && out == Path::new(STDOUT) {
        return Err(ExportError::Mixed);
    }
    if !data_dir.join("identity").is_dir() {
        return Err(ExportError::NoNode { path: data_dir.to_owned() });
    }
    // A clock behind the log's last stamp is held at it.
    let clock = Arc::new(ManualClock::new(STAMP_ZERO_UNIX_MS));
    let node = Node::open(NodeOptions { clock, ..NodeOptions::new(data_dir) }).await?;
    let nodes = node.view().nodes.iter().filter(|node| node.state != NodeState::Removed).count();
    let exported = if nodes > 1 {
        Err(ExportError::OneOfSeveral { path: data_dir.to_owned(), nodes })
    } else {
        export_node(&node, what, out, leaves_out_damaged, &mut done)
    };
    if let Err(error) = node.close().await {
        tracing::warn!(%error, "the log was not closed cleanly, which loses nothing");
    }
    exported
}

fn export_node(
    node: &Arc<Node>,
    what: What,
    out: &Path,
    leaves_out_damaged: bool,
    done: &mut impl FnMut(u16, u16),
) -> Result<Exported, ExportError> {
    let graphs: BTreeMap<GraphId, String> = node.graphs().into_iter().collect();
    let spaces: BTreeMap<SpaceId, String> = node.spaces().into_iter().map(|s| (s.id, s.name)).collect();
    let mut all = Exported::default();
    if what == What::Follows && graphs.len() > 1 && out == Path::new(STDOUT) {
        return Err(ExportError::Mixed);
    }
    for n in 0..node.partitions() {
        let exported = node.read_partition(PartitionId(n), |partition| -> Result<_, ExportError> {
            let mut exported = Exported::default();
            if what != What::Entries {
                exported.edges = export_edges(partition, &graphs, out)?;
            }
            if what != What::Follows {
                exported.entries = export_entries(partition, &spaces, out)?;
            }
            Ok(exported)
        });
        match exported.map_err(ExportError::from).flatten() {
            Ok(exported) => {
                all.edges += exported.edges;
                all.entries += exported.entries;
            }
            Err(error) if leaves_out_damaged && error.is_damage() => {
                tracing::warn!(partition = n, %error, "the partition is left out");
                remove_files(out, n)?;
                all.left_out.push(n);
            }
            Err(error) => return Err(error),
        }
        done(n + 1, node.partitions());
    }
    Ok(all)
}

impl ExportError {
    /// Whether a partition cannot be read because it is damaged.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Node(NodeError::Damaged { .. }) | Self::Segment(_))
    }
}

/// Removes what was written of a partition.
fn remove_files(out: &Path, partition: u16) -> Result<(), ExportError> {
    if out == Path::new(STDOUT) {
        return Ok(());
    }
    let failed = |source| ExportError::Write { path: out.to_owned(), source };
    let part = format!(".{partition:04}.");
    let is_ours = |name: &str| name.starts_with("follows.") || name.starts_with("entries.");
    for item in std::fs::read_dir(out).into_iter().flatten() {
        let item = item.map_err(failed)?;
        if item.file_name().to_str().is_some_and(|name| is_ours(name) && name.contains(&part)) {
            std::fs::remove_file(item.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn export_edges(
    partition: &Partition,
    graphs: &BTreeMap<GraphId, String>,
    out: &Path,
) -> Result<u64, ExportError> {
    let mut files: BTreeMap<GraphId, OutFile> = BTreeMap::new();
    let mut count = 0;
    partition.export_edges(|edge: ExportedEdge| {
        if let std::collections::btree_map::Entry::Vacant(vacant) = files.entry(edge.graph) {
            let name = graphs.get(&edge.graph).map_or_else(|| edge.graph.to_string(), Clone::clone);
            vacant.insert(OutFile::create(out, &format!("follows.{name}.{:04}.tsv", partition.id()))?);
        }
        count += 1;
        let since = unix_ms(edge.since);
        files.get_mut(&edge.graph).map_or(Ok(()), |file| {
            file.write(|out| writeln!(out, "{}\t{}\t{since}", edge.reader, edge.owner))
        })
    })?;
    files.into_values().try_for_each(OutFile::finish)?;
    Ok(count)
}

fn export_entries(
    partition: &Partition,
    spaces: &BTreeMap<SpaceId, String>,
    out: &Path,
) -> Result<u64, ExportError> {
    let mut file = OutFile::create(out, &format!("entries.{:04}.jsonl", partition.id()))?;
    let mut count = 0;
    partition.export_entries(|entry, key| {
        count += 1;
        let line = entry_line(entry, key, spaces);
        file.write(|out| {
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")
        })
    })?;
    file.finish()?;
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

/// A compressed file that is being written, or standard output.
struct OutFile {
    path: PathBuf,
    sink: Sink,
}

enum Sink {
    Packed(zstd::Encoder<'static, BufWriter<File>>),
    Stdout(BufWriter<io::Stdout>),
}

impl OutFile {
    fn create(out: &Path, name: &str) -> Result<Self, ExportError> {
        if out == Path::new(STDOUT) {
            let sink = Sink::Stdout(BufWriter::new(io::stdout()));
            return Ok(Self { path: out.to_owned(), sink });
        }
        let path = out.join(format!("{name}.zst"));
        let create = || {
            std::fs::create_dir_all(out)?;
            zstd::Encoder::new(BufWriter::new(File::create(unfinished(&path))?), ZSTD_LEVEL)
        };
        match create() {
            Ok(encoder) => Ok(Self { path, sink: Sink::Packed(encoder) }),
            Err(source) => Err(ExportError::Write { path, source }),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ExportError> {
        let written = match &mut self.sink {
            Sink::Packed(sink) => write(sink),
            Sink::Stdout(sink) => write(sink),
        };
        written.map_err(|source| ExportError::Write { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(), ExportError> {
        let Self { path, sink } = self;
        let finish = || match sink {
            Sink::Stdout(mut sink) => sink.flush(),
            Sink::Packed(sink) => {
                sink.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                std::fs::rename(unfinished(&path), &path)
            }
        };
        finish().map_err(|source| ExportError::Write { path: path.clone(), source })
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}
