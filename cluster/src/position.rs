//! Owns positions: what an answer reflects, and what a later read must at least have seen (R17).

use fanfold_storage::command::WriteResult;
use fanfold_storage::ids::{JournalPosition, PartitionId};

/// What an answer reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition that answered.
    pub partition: PartitionId,
    /// Its incarnation; a position of another incarnation names a history that is gone, and nothing waits for it.
    pub incarnation: u64,
    /// The index of its log that the answer reflects.
    pub index: u64,
    /// The last event of its journal that the answer reflects; none if there is none.
    pub journal: Option<JournalPosition>,
}

/// What a write answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What it did.
    pub result: WriteResult,
    /// Where it stands.
    pub position: Position,
}
