//! Owns the flushes of a group beside everything else: a table is written to disk as soon as it is full, whatever is being merged or
//! cut meanwhile, so that memory stays bounded.
//!
//! - While this runs and succeeds, applying waits when too much is to be flushed. After a failure, as on a full disk, it does not
//!   wait before a flush has succeeded again.

use tokio_util::sync::CancellationToken;

use super::{RETRY_MIN, UpkeepMeans};
use crate::raft::{FileError, Group, Machine};

/// Flushes what is due until it is stopped.
pub(super) async fn run_flushes<M: Machine>(group: Group<M>, means: UpkeepMeans, stop: CancellationToken) {
    let mut flushing = None;
    let mut early = means.pressure.watch_early();
    loop {
        let settings = means.pressure.settings(means.options.files);
        match group.flush(&settings).await {
            Ok(goes_on) => {
                flushing.get_or_insert_with(|| group.flushing());
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = std::future::ready(()), if goes_on => {}
                    () = group.wait_flush_due() => {}
                    Ok(()) = early.changed() => {}
                }
            }
            Err(error) => {
                flushing = None;
                if matches!(error, FileError::Panicked) {
                    tracing::error!(
                        group = group.id().0,
                        "a flush of the group panicked; the process ends, and a restart is safe"
                    );
                    return means.ended.panicked(group.id());
                }
                // The upkeep meets the same, says so, and makes room.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_MIN) => {}
                }
            }
        }
    }
}
