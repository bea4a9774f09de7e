//! Owns backups: an image of a node that is made while it runs, and put back while none runs.
//!
//! - All groups are cut at one position of the log: what is in it is a state that the node was in.
//! - A directory is a backup once it has its `backup.json`, which names every file with its length and checksum.
//! - What is restored has new incarnations before it serves (R11).
//! - A node of several is restored as the only one of a new cluster: it does not know the old one, which may still run.
//!
//! Format: `storage/FORMAT.md`, "Backups".

mod contents;
mod create;
mod error;
mod files;
mod likeness;
mod marker;
mod restore;
mod salvage;
mod sealed;
#[cfg(test)]
mod tests;

pub use contents::{Backup, Contents, FileOf, GroupOf};
#[cfg(test)]
use create::Prepared;
pub(crate) use create::{Source, prepare, write};
pub use error::BackupError;
pub use likeness::Likeness;
pub(crate) use marker::{Alone, FILE as RESTORE_FILE, Restored};
pub use restore::{restore, restore_all, restore_partition};
pub use salvage::{Begins, Salvage, salvage};
