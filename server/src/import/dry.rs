//! Owns the dry run: everything is read, and judged as far as that can be done without writing.
//!
//! - What it says is wrong an import would reject. What it does not look at is named in [`Judge::not_checked`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fanfold_client::{
    GraphId, ImportEdge, ImportEntry, ImportExpiry, ImportOp, ImportPlace, SpaceInfo, Stamp,
};
use fanfold_protocol::message::TTL_MS_MAX;
use fanfold_protocol::{EntryId, SlotIndex, SpaceId};

use super::block::{BLOCK_ITEMS_MAX, Block, Cut, cut};
use super::lines::Position;
use super::outputs::Output;
use super::parse::{BadLine, Format, Kind};
use super::{Counts, ImportError};

/// What lines are judged by.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The wall clock of this machine; those of the nodes are near.
    now: Stamp,
    /// None if no node was asked.
    spaces: Option<BTreeMap<SpaceId, SpaceInfo>>,
}

impl Judge {
    /// By what the cluster says of its spaces, if it was asked.
    pub(crate) fn new(now: Stamp, spaces: Option<Vec<SpaceInfo>>) -> Self {
        let by_id = |spaces: Vec<SpaceInfo>| spaces.into_iter().map(|space| (space.id, space)).collect();
        Self { now, spaces: spaces.map(by_id) }
    }

    /// What nobody looks at in a dry run, for people.
    pub(crate) fn not_checked(&self, kind: &Kind) -> Vec<&'static str> {
        let (asked, written) = match kind {
            Kind::Follows => (
                "whether the graph is there",
                "blocks, what is followed already, and the limit of owners that one user follows",
            ),
            Kind::Entries { .. } => {
                ("whether the spaces are there, and what they allow", "which keys and ids are taken")
            }
        };
        let not_asked = self.spaces.is_none().then_some(asked);
        not_asked.into_iter().chain([written]).collect()
    }

    fn edge(&self, edge: &ImportEdge) -> Result<(), BadLine> {
        let is_ahead = edge.since.is_some_and(|since| since > self.now);
        if is_ahead { Err(BadLine::Ahead("since")) } else { Ok(()) }
    }

    fn entry(&self, entry: &ImportEntry) -> Result<(), BadLine> {
        let time = match entry.place {
            ImportPlace::Time(time) => time,
            ImportPlace::Id(id) if id == EntryId(0) || id.slot() != SlotIndex::of(entry.owner) => {
                return Err(BadLine::Id(id.0));
            }
            ImportPlace::Id(id) => id.time(),
        };
        if time > self.now {
            return Err(BadLine::Ahead("the time"));
        }
        let space = self.spaces.as_ref().and_then(|spaces| spaces.get(&entry.space));
        if let Some(space) = space.filter(|space| space.policy.is_read_only) {
            return Err(BadLine::ReadOnly(space.name.clone()));
        }
        let lifetime_ms = || space?.policy.default_ttl_ms;
        let expiry = match entry.expiry {
            ImportExpiry::Never => None,
            ImportExpiry::At(expiry) => Some(expiry),
            ImportExpiry::SpaceDefault => lifetime_ms().map(|ms| Stamp(time.0.saturating_add(ms))),
        };
        match expiry {
            Some(expiry) if expiry <= self.now => Err(BadLine::Expired),
            Some(expiry) if expiry.0 - self.now.0 > TTL_MS_MAX => Err(BadLine::Late),
            _ => Ok(()),
        }
    }

    /// The lines of a block that are wrong, in order, and how many are not.
    fn judge(&self, block: Block) -> (Vec<(u64, String)>, u64) {
        let Block { writes, mut rejects, items, .. } = block;
        let said_nothing = rejects.len();
        for write in &writes {
            let judged: Vec<Result<(), BadLine>> = match &write.op {
                ImportOp::Follows { edges, .. } => edges.iter().map(|edge| self.edge(edge)).collect(),
                ImportOp::Entries(entries) => entries.iter().map(|entry| self.entry(entry)).collect(),
            };
            let wrong = judged.into_iter().zip(&write.lines);
            rejects.extend(wrong.filter_map(|(judged, line)| Some((*line, judged.err()?.to_string()))));
        }
        rejects.sort_unstable_by_key(|(line, _)| *line);
        let wrong = (rejects.len() - said_nothing) as u64;
        (rejects, items - wrong)
    }
}

/// Reads everything; what is wrong is listed if a file was named for it.
pub(crate) fn dry_run(
    inputs: Vec<std::path::PathBuf>,
    (format, kind): (Format, Kind),
    judge: &Judge,
    rejects: Option<&Path>,
    bytes: &Arc<AtomicU64>,
    mut progress: impl FnMut(&Counts),
) -> Result<Counts, ImportError> {
    let graph = GraphId::default();
    let (block_items, later_items) = (BLOCK_ITEMS_MAX, BLOCK_ITEMS_MAX);
    let plan = Cut { inputs, format, kind, graph, partitions: 1, block_items, later_items };
    let mut output = Output::open(rejects, None)?;
    let (mut counts, mut failed) = (Counts::default(), Ok(()));
    cut(&plan, Position::default(), bytes, |block| {
        let path = plan.inputs[block.input].display();
        let (wrong, right) = judge.judge(block);
        counts.imported += right;
        counts.rejected += wrong.len() as u64;
        let mut lines = wrong.iter();
        failed = lines.try_for_each(|(line, why)| output.line(format_args!("{path}\t{line}\t{why}")));
        progress(&counts);
        failed.is_ok()
    })?;
    failed?;
    output.sync()?;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use fanfold_client::SpacePolicy;

    use super::*;

    #[test]
    fn what_an_import_would_reject_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rejects) = (dir.path().join("posts.jsonl"), dir.path().join("wrong"));
        let owner = fanfold_client::UserId(2);
        let now = Stamp::from_unix_ms(1_714_564_800_000).unwrap();
        let id = |time: Stamp, slot| EntryId::from_parts(time, 1, slot).unwrap().0;
        let (mine, others) = (SlotIndex::of(owner), SlotIndex(SlotIndex::of(owner).0 ^ 1));
        let later = Stamp(now.0 + 1);
        let text = [
            format!(r#"{{"owner":2,"id":{},"payload":""}}"#, id(now, mine)),
            format!(r#"{{"owner":2,"id":{},"payload":""}}"#, id(now, others)),
            r#"{"owner":2,"id":0,"payload":""}"#.to_owned(),
            format!(r#"{{"owner":2,"id":{},"payload":""}}"#, id(later, mine)),
            format!(r#"{{"owner":2,"time":{},"payload":""}}"#, later.to_unix_ms()),
            format!(r#"{{"owner":2,"time":{t},"payload":"","expires":{t}}}"#, t = now.to_unix_ms()),
            format!(r#"{{"owner":2,"time":{},"payload":""}}"#, now.to_unix_ms()),
            "rubbish".to_owned(),
        ];
        std::fs::write(&path, text.join("\n")).unwrap();
        let judge = Judge::new(now, None);
        let kind = Kind::Entries { space: "posts".to_owned(), spaces: None };
        assert_eq!(judge.not_checked(&kind).len(), 2);
        let how = (Format::Json, kind);
        let counts =
            dry_run(vec![path.clone()], how, &judge, Some(&rejects), &Arc::default(), |_| {}).unwrap();
        assert_eq!((counts.imported, counts.rejected), (2, 6));
        let rejects = std::fs::read_to_string(rejects).unwrap();
        let lines: Vec<&str> = rejects.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "6", "8"]);
        // What lives for a millisecond unless it says otherwise.
        let policy = SpacePolicy { default_ttl_ms: Some(1), ..fanfold_client::Spaces::default_policy() };
        let mut space = SpaceInfo {
            id: SpaceId(3),
            name: "brief".to_owned(),
            graph: GraphId::default(),
            graph_name: String::new(),
            version: 1,
            policy,
        };
        let judge = Judge::new(later, Some(vec![space.clone()]));
        let entry = |expiry| ImportEntry {
            space: SpaceId(3),
            owner,
            place: ImportPlace::Time(now),
            author: None,
            audience: fanfold_client::Audience::Public,
            expiry,
            version: 1,
            key: None,
            reference: None,
            payload: bytes::Bytes::new(),
        };
        assert_eq!(judge.entry(&entry(ImportExpiry::SpaceDefault)), Err(BadLine::Expired));
        assert_eq!(judge.entry(&entry(ImportExpiry::Never)), Ok(()));
        // A hundred years is as long as anything lives.
        let last = Stamp(later.0 + TTL_MS_MAX);
        assert_eq!(judge.entry(&entry(ImportExpiry::At(last))), Ok(()));
        assert_eq!(judge.entry(&entry(ImportExpiry::At(Stamp(last.0 + 1)))), Err(BadLine::Late));
        space.policy.is_read_only = true;
        let judge = Judge::new(later, Some(vec![space]));
        assert_eq!(judge.entry(&entry(ImportExpiry::Never)), Err(BadLine::ReadOnly("brief".to_owned())));
    }
}
