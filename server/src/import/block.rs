//! Owns the cutting of the inputs into blocks, and of a block into one write per partition.
//!
//! - Where a block ends depends only on the lines and on [`Cut`]: a resumed import cuts the same blocks from where it goes on,
//!   so that their writes are the same as before. Only behind those that may have been sent before another size begins.
//! - A block is bounded in items and bytes, and ends with its input.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fanfold_client::{
    GraphId, IMPORT_BYTES_PER_WRITE, IMPORT_EDGES_PER_WRITE, IMPORT_ENTRIES_PER_WRITE, ImportOp, PartitionId,
};

use super::ImportError;
use super::lines::{Lines, Position};
use super::parse::{BadLine, Format, Item, Kind};
use super::run::BLOCKS_UNCERTAIN;

/// Items of a block, whatever they are and wherever they go.
pub(crate) const BLOCK_ITEMS_MAX: usize = 256 << 10;

/// Bytes of a block.
const BLOCK_BYTES_MAX: usize = 32 << 20;

/// How the inputs are read and cut.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) format: Format,
    pub(crate) kind: Kind,
    pub(crate) graph: GraphId,
    pub(crate) partitions: u16,
    /// Items of a block, as long as it may have been sent by an earlier run.
    pub(crate) block_items: usize,
    /// Items of the blocks behind those.
    pub(crate) later_items: usize,
}

/// A part of an input.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) input: usize,
    /// Behind it.
    pub(crate) end: Position,
    pub(crate) writes: Vec<PartWrite>,
    /// Lines that say nothing, and why.
    pub(crate) rejects: Vec<(u64, String)>,
    /// Items in its writes.
    pub(crate) items: u64,
    /// The size that it was cut to.
    pub(crate) items_max: usize,
}

/// What a block brings to one partition.
#[derive(Debug)]
pub(crate) struct PartWrite {
    pub(crate) partition: PartitionId,
    pub(crate) op: ImportOp,
    /// The line of each item.
    pub(crate) lines: Vec<u64>,
}

/// Reads the inputs from `at` on and gives their blocks away, until `take` wants no more.
pub(crate) fn cut(
    cut: &Cut,
    mut at: Position,
    bytes: &Arc<AtomicU64>,
    mut take: impl FnMut(Block) -> bool,
) -> Result<(), ImportError> {
    let mut cut_before = 0;
    while let Some(path) = cut.inputs.get(at.input) {
        let failed = |source| ImportError::Read { path: path.clone(), source };
        let mut lines = Lines::open(path, at, bytes.clone())?;
        loop {
            let items_max = if cut_before < BLOCKS_UNCERTAIN { cut.block_items } else { cut.later_items };
            let block = next_block(cut, items_max, &mut lines).map_err(failed)?;
            let Some(block) = block else { break };
            cut_before += 1;
            if !take(block) {
                return Ok(());
            }
        }
        at = Position { input: at.input + 1, ..Position::default() };
    }
    Ok(())
}

fn next_block(cut: &Cut, items_max: usize, lines: &mut Lines) -> std::io::Result<Option<Block>> {
    let begun = lines.at;
    let mut parts: Vec<Option<PartWrite>> = (0..cut.partitions).map(|_| None).collect();
    let mut part_bytes = vec![0; parts.len()];
    let (mut rejects, mut items, mut bytes, mut is_full) = (Vec::new(), 0, 0, false);
    while !is_full {
        let Some(line) = lines.next()? else { break };
        let parsed = match line {
            Ok([]) => continue,
            Ok(line) => cut.kind.parse(cut.format, line),
            Err(_) => Err(BadLine::TooLong),
        };
        let number = lines.at.line;
        match parsed {
            Ok(item) => {
                let partition = PartitionId::of_user(item.home(), cut.partitions);
                let place = usize::from(partition.0);
                bytes += item.bytes();
                part_bytes[place] += item.bytes();
                items += 1;
                let part = parts[place].get_or_insert_with(|| PartWrite::new(partition, cut));
                part.push(item, number);
                is_full = part.is_full(part_bytes[place]);
            }
            Err(error) => rejects.push((number, error.to_string())),
        }
        is_full |= items + rejects.len() >= items_max || bytes >= BLOCK_BYTES_MAX;
    }
    let writes = parts.into_iter().flatten().collect();
    let block = Block { input: begun.input, end: lines.at, writes, rejects, items: items as u64, items_max };
    Ok((lines.at != begun).then_some(block))
}

impl PartWrite {
    fn new(partition: PartitionId, cut: &Cut) -> Self {
        let op = match cut.kind {
            Kind::Follows => ImportOp::Follows { graph: cut.graph, edges: Vec::new() },
            Kind::Entries { .. } => ImportOp::Entries(Vec::new()),
        };
        Self { partition, op, lines: Vec::new() }
    }

    fn push(&mut self, item: Item, line: u64) {
        match (&mut self.op, item) {
            (ImportOp::Follows { edges, .. }, Item::Edge(edge)) => edges.push(edge),
            (ImportOp::Entries(entries), Item::Entry(entry)) => entries.push(entry),
            _ => return,
        }
        self.lines.push(line);
    }

    fn is_full(&self, bytes: usize) -> bool {
        let items_max = match self.op {
            ImportOp::Follows { .. } => IMPORT_EDGES_PER_WRITE,
            ImportOp::Entries(_) => IMPORT_ENTRIES_PER_WRITE,
        };
        self.lines.len() >= items_max || bytes >= IMPORT_BYTES_PER_WRITE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn blocks_that_may_have_been_sent_are_cut_as_before_and_later_ones_as_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one.tsv"), dir.path().join("other.tsv"));
        let line = |n: u64| format!("{n}\t{}\n", n + 1);
        let lines = |many| (1..=many).map(line).collect::<String>();
        std::fs::write(&one, lines(35)).unwrap();
        std::fs::write(&other, lines(2_000)).unwrap();
        let blocks = |block_items, later_items, at| {
            let (graph, inputs) = (GraphId::default(), vec![one.clone(), other.clone()]);
            let kind = Kind::Follows;
            let plan =
                Cut { inputs, format: Format::Tsv, kind, graph, partitions: 1, block_items, later_items };
            let mut all = Vec::new();
            cut(&plan, at, &Arc::default(), |block| {
                all.push((block.end, block.items, block.items_max));
                true
            })
            .unwrap();
            all
        };
        let before = blocks(10, 10, Position::default());
        for later in [3, 500] {
            let resumed = blocks(10, later, before[4].0);
            let uncertain = BLOCKS_UNCERTAIN as usize;
            assert_eq!(resumed[..uncertain], before[5..5 + uncertain]);
            assert!(
                resumed[uncertain..].iter().all(|(_, items, max)| *max == later && *items <= later as u64)
            );
            let items = |blocks: &[(Position, u64, usize)]| blocks.iter().map(|block| block.1).sum::<u64>();
            assert_eq!(items(&before[..5]) + items(&resumed), 2_035);
        }
    }
}
