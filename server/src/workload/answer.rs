//! Owns what came of an operation, as the workload sees it.

use fanfold_protocol::{EntryId, UserId};

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry is durable under this id.
    Appended(EntryId),
    /// The payload was replaced; the entry has this version now.
    Amended(u32),
    /// The entry is gone.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// Edges, mutes or blocks were changed.
    Related {
        /// How many changed.
        changed: u32,
        /// Whom a block kept from being followed, ascending.
        refused: Vec<UserId>,
    },
}
