//! Owns the way of answers to the client: what gathered is written at once.
//!
//! - Answers that the client does not take in time end the connection.

use std::sync::Arc;

use bytes::BytesMut;
use fanfold_protocol::Status;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outgoing::Outgoing;
use crate::config::ms;

/// A buffer that grew beyond this for a large answer is not kept.
const BUFFER_BYTES_MAX: usize = 1 << 20;

pub(super) struct Writer {
    /// Dropped when nothing more will be asked, whatever ended the connection.
    closing: DropGuard,
    broken: CancellationToken,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts the task that writes; it ends when the client takes nothing, or after [`Writer::finish`].
    pub(super) fn spawn(outgoing: OwnedWriteHalf, answers: Arc<Outgoing>) -> Self {
        let (closing, broken) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(write(outgoing, answers, closing.clone(), broken.clone()));
        Self { closing: closing.drop_guard(), broken, task }
    }

    /// Returns when nothing can be written any more.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Waits until every request in flight is answered and its answer written, or none can be.
    pub(super) async fn finish(self) {
        drop(self.closing);
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            tracing::error!(%error, "a connection's writer ended badly");
        }
    }
}

async fn write(
    mut outgoing: OwnedWriteHalf,
    answers: Arc<Outgoing>,
    closing: CancellationToken,
    broken: CancellationToken,
) {
    let _broken = broken.drop_guard();
    let shared = answers.shared().clone();
    let mut out = BytesMut::new();
    while next(&answers, &closing).await {
        out.clear();
        let held = answers.take_into(&mut out);
        let written = timeout(ms(shared.config.write_timeout_ms), outgoing.write_all(&out)).await;
        // What the requests held is free once their answers are written, or never will be.
        answers.give_back(held);
        match written {
            Ok(Ok(())) => shared.metrics.sent_bytes.inc_by(out.len() as u64),
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::info!("connection closed: the client does not take its answers");
                shared.metrics.closed(&Status::TooSlow);
                return;
            }
        };
        if out.capacity() > BUFFER_BYTES_MAX {
            out = BytesMut::new();
        }
    }
    if let Err(error) = outgoing.shutdown().await {
        tracing::debug!(%error, "the client was gone first");
    }
}

/// Waits for answers; false when none will come any more.
async fn next(answers: &Outgoing, closing: &CancellationToken) -> bool {
    while answers.is_empty() {
        if closing.is_cancelled() && answers.is_done() {
            return false;
        }
        tokio::select! {
            () = answers.changed.notified() => {}
            () = closing.cancelled(), if !closing.is_cancelled() => {}
        }
    }
    true
}
