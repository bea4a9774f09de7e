//! Owns the way of answers to the client: what waits is packed together and flushed once.
//!
//! - Answers that the client does not take in time end the connection.

use std::sync::Arc;

use bytes::BytesMut;
use fanfold_protocol::Status;
use fanfold_protocol::call::BATCH_ITEMS_MAX;
use fanfold_protocol::frame::Frame;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::ms;
use crate::listener::Shared;

/// Answers are packed into one batch up to about so many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// What a batch takes besides its items, at most: its header and the number of items.
const BATCH_HEAD_BYTES: usize = 32;

/// An answer, and what its request held until it is written.
pub(super) struct Answer {
    pub(super) frame: Frame,
    #[expect(dead_code, reason = "it is held, and given back when the answer is dropped")]
    pub(super) held: Vec<OwnedSemaphorePermit>,
}

pub(super) struct Writer {
    broken: CancellationToken,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts the task that writes; it ends when all senders are gone or the client takes nothing.
    pub(super) fn spawn(outgoing: OwnedWriteHalf, shared: Arc<Shared>) -> (mpsc::Sender<Answer>, Self) {
        let (answers, waiting) = mpsc::channel(shared.config.connection_requests_max as usize);
        let broken = CancellationToken::new();
        let task = tokio::spawn(write(outgoing, waiting, shared, broken.clone()));
        (answers, Self { broken, task })
    }

    /// Returns when nothing can be written any more.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Waits until every answer is written, or none can be.
    pub(super) async fn finish(self) {
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            tracing::error!(%error, "a connection's writer ended badly");
        }
    }
}

async fn write(
    mut outgoing: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<Answer>,
    shared: Arc<Shared>,
    broken: CancellationToken,
) {
    let _broken = broken.drop_guard();
    let mut out = BytesMut::new();
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, BATCH_ITEMS_MAX).await > 0 {
        out.clear();
        encode(&gathered, shared.limits.frame_bytes_max, &mut out);
        let written = timeout(ms(shared.config.write_timeout_ms), outgoing.write_all(&out)).await;
        match written {
            Ok(Ok(())) => shared.metrics.sent_bytes.inc_by(out.len() as u64),
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::info!("connection closed: the client does not take its answers");
                shared.metrics.closed(&Status::TooSlow);
                return;
            }
        };
        // What the requests held is free once their answers are written.
        gathered.clear();
    }
    if let Err(error) = outgoing.shutdown().await {
        tracing::debug!(%error, "the client was gone first");
    }
}

/// Packs small answers into batches; a large one travels alone.
fn encode(answers: &[Answer], frame_bytes_max: u32, out: &mut BytesMut) {
    let mut batch: Vec<Frame> = Vec::new();
    let mut batch_bytes = 0;
    let batch_bytes_max = BATCH_BYTES.min(frame_bytes_max as usize - BATCH_HEAD_BYTES);
    for answer in answers {
        let bytes = answer.frame.encoded_len();
        let alone = answer.frame.is_batch() || answer.frame.is_connection_refusal();
        if alone || batch_bytes + bytes > batch_bytes_max {
            flush(&mut batch, frame_bytes_max, out);
            batch_bytes = 0;
        }
        if alone {
            put(&answer.frame, frame_bytes_max, out);
        } else {
            batch.push(answer.frame.clone());
            batch_bytes += bytes;
        }
    }
    flush(&mut batch, frame_bytes_max, out);
}

fn flush(batch: &mut Vec<Frame>, frame_bytes_max: u32, out: &mut BytesMut) {
    match batch.as_slice() {
        [] => {}
        [one] => put(one, frame_bytes_max, out),
        many => put(&Frame::batch(many), frame_bytes_max, out),
    }
    batch.clear();
}

fn put(frame: &Frame, frame_bytes_max: u32, out: &mut BytesMut) {
    if let Err(error) = frame.encode_into(out, frame_bytes_max) {
        tracing::error!(request = frame.request_id.0, %error, "an answer does not fit a frame");
        let refusal = Frame::refusal(frame.opcode, frame.request_id, &Status::Internal);
        refusal.encode_into(out, frame_bytes_max).expect("a refusal fits the smallest frame");
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::ids::RequestId;
    use fanfold_protocol::opcode::Opcode;

    use super::*;

    fn answer(id: u64, bytes: usize) -> Answer {
        let frame = Frame::response(Opcode::GetMap.code(), RequestId(id), &fanfold_protocol::Response::Done);
        Answer { frame: Frame { body: vec![0; bytes].into(), ..frame }, held: Vec::new() }
    }

    #[test]
    fn no_answer_is_lost_whatever_their_sizes() {
        const FRAME_BYTES_MAX: u32 = 4_096;
        for bytes in 1_980..2_080 {
            let answers: Vec<Answer> = (0..3).map(|n| answer(u64::MAX - n, bytes)).collect();
            let mut out = BytesMut::new();
            encode(&answers, FRAME_BYTES_MAX, &mut out);
            let mut items = Vec::new();
            while let Some(frame) = Frame::decode_from(&mut out, FRAME_BYTES_MAX).unwrap() {
                items.extend(frame.into_items(BATCH_ITEMS_MAX as u32).unwrap());
            }
            let sent: Vec<Frame> = answers.into_iter().map(|answer| answer.frame).collect();
            assert_eq!(items, sent, "{bytes}");
        }
    }
}
