//! Owns the sending side of a snapshot's transfer.
//!
//! - Each message has a deadline, the transfer has none: it goes on as long as the receiver makes progress.
//! - A connection that breaks is tried again, with the same snapshot, for as long as it pays; then openraft decides.
//! - One chunk is in memory at a time. The snapshot's files stay while it is sent, and so does the log behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::in_background;
use bytes::Bytes;
use fanfold_storage::snapshot::{Announced, SnapshotSender};
use openraft::errors::{NetworkError, RPCError, StreamingError};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::files::FileError;
use super::network::Connection;
use super::snapshot::StoredSnapshot;
use super::transfer::{
    CHUNK_BYTES_MAX, TransferAnswer, TransferId, TransferRequest, TransferStep, decode_transfer_step_answer,
    encode_transfer_step,
};
use super::transport::MessageKind;
use super::types::{ReplicaId, SnapshotMeta, Types, Vote};

/// How long a receiver may make no progress before the transfer is given up.
const STALLED_AFTER: Duration = Duration::from_secs(20);

/// Between two attempts when the receiver cannot be reached.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Which snapshots are being sent to whom: the log behind them must stay.
#[derive(Debug, Clone, Default)]
pub(super) struct Outgoing(Arc<Mutex<BTreeMap<ReplicaId, u64>>>);

impl Outgoing {
    /// To whom one is being sent, and its index.
    pub fn all(&self) -> BTreeMap<ReplicaId, u64> {
        self.0.lock().clone()
    }
}

/// Ends the entry of one transfer.
struct Sending {
    outgoing: Outgoing,
    target: ReplicaId,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.outgoing.0.lock().remove(&self.target);
    }
}

/// Why a receiver has no snapshot.
#[derive(Debug, Clone, Copy, Error)]
enum TransferFailed {
    #[error("replica {0} found the snapshot damaged on the way; see its log")]
    Damaged(ReplicaId),
    #[error("replica {0} has made no progress with the snapshot for {seconds} s", seconds = STALLED_AFTER.as_secs())]
    Stalled(ReplicaId),
}

type Failed = StreamingError<Types>;

fn broken(error: &(impl std::error::Error + 'static)) -> Failed {
    StreamingError::Network(NetworkError::new(error))
}

/// A snapshot on its way to a replica.
struct Transfer<'a> {
    connection: &'a Connection,
    vote: Vote,
    id: TransferId,
    deadline: Duration,
    progressed: Instant,
}

/// Sends a snapshot; the receiver's vote once it is in place there.
pub(super) async fn send(
    connection: &Connection,
    outgoing: &Outgoing,
    vote: Vote,
    meta: SnapshotMeta,
    stored: StoredSnapshot,
    deadline: Duration,
) -> Result<SnapshotResponse<Types>, Failed> {
    let target = connection.target();
    outgoing.0.lock().insert(target, stored.manifest.index);
    let _sending = Sending { outgoing: outgoing.clone(), target };
    let sender = SnapshotSender::new(&stored.files.snapshots, &stored.manifest);
    let Some(sender) = sender else { return Err(broken(&FileError::Stopped)) };
    let manifest = sender.encoded();
    let announced = Announced {
        number: stored.manifest.number,
        manifest_bytes: manifest.len() as u64,
        manifest_crc: crc32fast::hash(manifest),
    };
    let id =
        TransferId { source: connection.source().0, number: announced.number, crc: announced.manifest_crc };
    let mut transfer = Transfer { connection, vote, id, deadline, progressed: Instant::now() };
    let begin = TransferStep::Begin { meta, announced };
    let mut sender = Some(sender);
    let mut furthest = None;
    let mut step = begin.clone();
    loop {
        step = match transfer.step(step).await? {
            None => {
                sleep(RETRY_AFTER).await;
                begin.clone()
            }
            Some(TransferAnswer::Wants(position)) => {
                if furthest < Some(position) {
                    furthest = Some(position);
                    transfer.progressed = Instant::now();
                }
                let (reader, pace) = (sender.take(), stored.files.pace.clone());
                let Some(mut reader) = reader else { return Err(broken(&FileError::Stopped)) };
                let read = in_background(move || {
                    let bytes = reader.read(position, CHUNK_BYTES_MAX as u64);
                    pace(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
                    (reader, bytes)
                });
                let (reader, bytes) = read.await.map_err(|_| broken(&FileError::Stopped))?;
                sender = Some(reader);
                let bytes = bytes.map_err(|error| broken(&FileError::from(error)))?;
                TransferStep::Chunk { position, bytes: bytes.into() }
            }
            Some(TransferAnswer::Later) => {
                // The node is filled by another group's leader; that may take long.
                transfer.progressed = Instant::now();
                sleep(RETRY_AFTER).await;
                begin.clone()
            }
            Some(TransferAnswer::Unknown) => {
                // It was replaced, or the receiver began anew, or has no room.
                sleep(RETRY_AFTER).await;
                begin.clone()
            }
            Some(TransferAnswer::Complete) => TransferStep::Install,
            Some(TransferAnswer::Installing) => {
                transfer.progressed = Instant::now();
                TransferStep::Install
            }
            Some(TransferAnswer::Done(vote) | TransferAnswer::Refused(vote)) => {
                return Ok(SnapshotResponse::new(vote));
            }
            Some(TransferAnswer::Damaged) => return Err(broken(&TransferFailed::Damaged(target))),
        };
    }
}

impl Transfer<'_> {
    /// Takes a step; none if the receiver cannot be reached now.
    async fn step(&mut self, step: TransferStep) -> Result<Option<TransferAnswer>, Failed> {
        if self.progressed.elapsed() > STALLED_AFTER {
            return Err(broken(&TransferFailed::Stalled(self.connection.target())));
        }
        let request = TransferRequest { vote: self.vote, id: self.id, step };
        let body = encode_transfer_step(&request);
        let answer: Result<Bytes, RPCError<Types>> =
            self.connection.call(MessageKind::Snapshot, RPCTypes::InstallSnapshot, body, self.deadline).await;
        match answer {
            Ok(answer) => {
                let answer = decode_transfer_step_answer(&answer).map_err(|error| broken(&error))?;
                Ok(Some(answer))
            }
            Err(error) => {
                tracing::debug!(target = self.connection.target().0, %error, "a step of a snapshot is tried again");
                Ok(None)
            }
        }
    }
}
