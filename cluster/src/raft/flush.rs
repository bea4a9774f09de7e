//! Owns the flushes of a group's machine: while it runs beside everything else, and while its log is replayed.
//!
//! - Whoever applies waits for who flushes, once there is much, as long as there is somebody.
//! - What was begun is finished, whoever stops waiting for it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::files::{FileError, FileSettings, GroupFiles};
use super::group::Group;
use super::keep::finished;
use super::machine::{Machine, Shared};

impl<M: Machine> Group<M> {
    /// Flushes the next of what is due; false if there was nothing. The machine takes note if that fails.
    pub async fn flush(&self, settings: &FileSettings) -> Result<bool, FileError> {
        flush(&self.inner.shared, &self.inner.files, settings).await
    }

    /// Waits until something is to be flushed.
    pub async fn wait_flush_due(&self) {
        self.inner.shared.wait_flush_due().await;
    }

    /// Says that somebody flushes what is due, until this is dropped: whoever applies waits for that while much is.
    pub fn flushing(&self) -> Flushing<M> {
        Flushing::begin(&self.inner.shared)
    }
}

/// Somebody flushes what is due.
pub struct Flushing<M: Machine>(Arc<Shared<M>>);

impl<M: Machine> Flushing<M> {
    fn begin(shared: &Arc<Shared<M>>) -> Self {
        shared.set_flushed(true);
        Self(shared.clone())
    }
}

impl<M: Machine> Drop for Flushing<M> {
    fn drop(&mut self) {
        self.0.set_flushed(false);
    }
}

async fn flush<M: Machine>(
    shared: &Arc<Shared<M>>,
    files: &GroupFiles,
    settings: &FileSettings,
) -> Result<bool, FileError> {
    let (shared, files, settings) = (shared.clone(), files.clone(), *settings);
    let flushed = async move {
        let _flushing = shared.flushing.lock().await;
        let work = shared.keep_up("begin flush", |state| state.machine.flush_work(&settings)).await;
        let Some(work) = work else { return Ok(false) };
        let done = shared.work(&files, work).await;
        if let Err(error) = &done {
            shared.keep_up("note failure", |state| state.machine.note_failed(error)).await;
        }
        done.map(|()| true)
    };
    finished(flushed).await
}

/// Flushes by these settings, if there are any, what `replay` fills while it runs: a start takes no more memory than the run before
/// it. Once a flush fails nobody does, and nobody waits for it: whoever keeps the group up later meets the same, and says so.
pub(super) async fn flush_meanwhile<M: Machine, T>(
    shared: &Arc<Shared<M>>,
    files: &GroupFiles,
    settings: Option<FileSettings>,
    replay: impl Future<Output = T>,
) -> T {
    let Some(settings) = settings else { return replay.await };
    // The machine goes by these settings from now on.
    if flush(shared, files, &settings).await.is_err() {
        return replay.await;
    }
    let (flushing, stop) = (Flushing::begin(shared), CancellationToken::new());
    // Whoever stops waiting for the replay stops this.
    let stops = stop.clone().drop_guard();
    // A node that starts serves nobody whose writes would need the room.
    let files = GroupFiles { pace: Arc::new(|_| {}), ..files.clone() };
    let flushes = tokio::spawn(async move {
        let shared = &flushing.0;
        let flush_due = async {
            while let Ok(goes_on) = flush(shared, &files, &settings).await {
                if !goes_on {
                    shared.wait_flush_due().await;
                }
            }
        };
        stop.run_until_cancelled(flush_due).await;
    });
    let replayed = replay.await;
    drop(stops);
    // Who flushes next says so after this one is gone.
    let _ended = flushes.await;
    replayed
}
