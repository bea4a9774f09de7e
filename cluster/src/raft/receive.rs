//! Owns the receiving side of a snapshot's transfer.
//!
//! - One transfer at a time; another one replaces it. What was received is durable in files without names, which a
//!   restart removes, so that a stop at any point leaves the old state whole.
//! - A snapshot is put in place by Raft, in its own order: behind the truncation of a log that contradicts it, before
//!   the purge of what it includes. Meanwhile nobody else works on the group's files.
//! - What was received of a transfer whose sender is not heard of any more is removed after a while.
//! - One replica of a node is filled at a time, in the background.
//! - While Raft waits for room in the log it puts nothing in place, and the turn is left to those who make room.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fanfold_storage::snapshot::{PreparedSnapshot, SnapshotReceiver};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use super::files::FileError;
use super::group::{Group, Inner};
use super::keep::Turn;
use super::machine::Machine;
use super::snapshot::SnapshotData;
use super::transfer::{TransferAnswer, TransferId, TransferRequest, TransferStep};
use super::transport::EndpointError;
use super::types::{Snapshot, SnapshotMeta, Vote};

/// How long an answer waits for a snapshot that is being put in place.
const INSTALL_WAIT: Duration = Duration::from_secs(2);

/// In so long Raft answers unless it waits for room, or for a disk.
const RAFT_WAIT: Duration = Duration::from_secs(1);

/// What was received is kept for so long after its sender was last heard: one that gave up because it was cut off may begin again, and
/// goes on where it stopped.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(120);

/// What a replica is receiving.
#[derive(Debug, Default)]
pub(super) struct Incoming(parking_lot::Mutex<Stage>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Receiving(Arc<Receiving>),
    /// What came of it, once that is known.
    Installing(TransferId, watch::Receiver<Option<TransferAnswer>>),
}

#[derive(Debug)]
struct Receiving {
    id: TransferId,
    meta: SnapshotMeta,
    /// None once it is complete and being put in place, or failed.
    receiver: parking_lot::Mutex<Option<SnapshotReceiver>>,
    /// When its sender was last heard.
    heard: parking_lot::Mutex<Instant>,
}

impl Receiving {
    /// Whether nothing can come of it any more.
    fn has_failed(&self) -> bool {
        // One that is being written to has not.
        self.receiver.try_lock().is_some_and(|receiver| receiver.is_none())
    }
}

/// A snapshot that was received whole; dropped when it was put in place or is not wanted.
#[derive(Debug)]
pub(super) struct ReceivedSnapshot {
    pub prepared: PreparedSnapshot,
    /// Nobody else works on the files until then.
    pub turn: Turn,
}

/// Takes a step of a transfer.
pub(super) async fn handle<M: Machine>(
    inner: &Arc<Inner<M>>,
    request: TransferRequest,
) -> Result<TransferAnswer, EndpointError> {
    let known = inner.raft.metrics().borrow_watched().vote;
    if known > request.vote {
        return Ok(TransferAnswer::Refused(known));
    }
    let id = request.id;
    if let Some(receiving) = receiving(inner, id) {
        *receiving.heard.lock() = Instant::now();
    }
    match request.step {
        TransferStep::Begin { meta, announced } => {
            if !inner.files.fills.begin(inner.spec.group) {
                return Ok(TransferAnswer::Later);
            }
            let mut stage = inner.incoming.0.lock();
            let is_known = match &*stage {
                Stage::Idle => false,
                Stage::Receiving(receiving) => receiving.id == id && !receiving.has_failed(),
                Stage::Installing(installing, result) => *installing == id && result.borrow().is_none(),
            };
            if !is_known {
                let receiver = match SnapshotReceiver::new(&inner.files.snapshots, announced) {
                    Ok(receiver) => parking_lot::Mutex::new(Some(receiver)),
                    Err(error) => return Ok(failed(inner, &error.into())),
                };
                let heard = parking_lot::Mutex::new(Instant::now());
                let begun = Arc::new(Receiving { id, meta, receiver, heard });
                tokio::spawn(let_go_once_lost(Arc::downgrade(inner), Arc::downgrade(&begun)));
                let given_up = std::mem::replace(&mut *stage, Stage::Receiving(begun));
                // What came of it is removed.
                drop(crate::blocking::FreedBeside::new(given_up));
            }
            drop(stage);
            Ok(position(inner, id))
        }
        TransferStep::Chunk { position: at, bytes } => {
            let Some(receiving) = receiving(inner, id) else { return Ok(position(inner, id)) };
            inner.files.fills.go_on(inner.spec.group);
            let inner = inner.clone();
            let taken = crate::blocking::filling(move || {
                let mut slot = receiving.receiver.lock();
                let Some(receiver) = slot.as_mut() else { return TransferAnswer::Unknown };
                if receiver.wants() != Some(at) {
                    return wanted(receiver);
                }
                let renumber = |path: &std::path::Path, listed: &_, number| {
                    M::renumber(&inner.files, path, listed, number)
                };
                match receiver.take(&bytes, &renumber, &*inner.files.pace) {
                    Ok(()) => wanted(receiver),
                    Err(error) => {
                        *slot = None;
                        failed(&inner, &error.into())
                    }
                }
            });
            taken.await.map_err(|_| EndpointError::Stopped)
        }
        TransferStep::Install => {
            inner.files.fills.go_on(inner.spec.group);
            if let Some(receiving) = receiving(inner, id) {
                if !answers(inner).await {
                    // It stays as it is; the sender asks again.
                    return Ok(TransferAnswer::Unknown);
                }
                begin_install(inner, request.vote, &receiving);
            }
            let result = match &*inner.incoming.0.lock() {
                Stage::Installing(installing, result) if *installing == id => Some(result.clone()),
                _ => None,
            };
            let Some(mut result) = result else { return Ok(position(inner, id)) };
            let done = result.wait_for(Option::is_some);
            match tokio::time::timeout(INSTALL_WAIT, done).await {
                Ok(Ok(answer)) => Ok(answer.unwrap_or(TransferAnswer::Unknown)),
                Ok(Err(_)) => Err(EndpointError::Stopped),
                Err(_) => Ok(TransferAnswer::Installing),
            }
        }
    }
}

/// Waits until the sender of a transfer was not heard for long, and removes what came of it, unless it has ended before.
async fn let_go_once_lost<M: Machine>(inner: Weak<Inner<M>>, receiving: Weak<Receiving>) {
    while let Some(lost_at) = receiving.upgrade().map(|receiving| *receiving.heard.lock() + KEPT_FOR) {
        tokio::time::sleep_until(lost_at).await;
        let (Some(inner), Some(receiving)) = (inner.upgrade(), receiving.upgrade()) else { return };
        let mut stage = inner.incoming.0.lock();
        if receiving.heard.lock().elapsed() < KEPT_FOR {
            continue;
        }
        let is_current = matches!(&*stage, Stage::Receiving(current) if Arc::ptr_eq(current, &receiving));
        let lost = is_current.then(|| std::mem::take(&mut *stage));
        drop(stage);
        // What came of it is removed.
        drop(crate::blocking::FreedBeside::new((lost, receiving)));
        return;
    }
}

/// Whether Raft gets to what it is told now.
async fn answers<M: Machine>(inner: &Inner<M>) -> bool {
    let answered = tokio::time::timeout(RAFT_WAIT, inner.raft.with_raft_state(|_| ())).await;
    answered.is_ok_and(|answered| answered.is_ok())
}

fn receiving<M: Machine>(inner: &Inner<M>, id: TransferId) -> Option<Arc<Receiving>> {
    match &*inner.incoming.0.lock() {
        Stage::Receiving(receiving) if receiving.id == id => Some(receiving.clone()),
        _ => None,
    }
}

/// Where a transfer stands.
fn position<M: Machine>(inner: &Inner<M>, id: TransferId) -> TransferAnswer {
    match &*inner.incoming.0.lock() {
        Stage::Receiving(receiving) if receiving.id == id => {
            // While a part is written, whoever asks has given that part up and begins again.
            let receiver = receiving.receiver.try_lock();
            receiver.and_then(|receiver| receiver.as_ref().map(wanted)).unwrap_or(TransferAnswer::Unknown)
        }
        Stage::Installing(installing, _) if *installing == id => TransferAnswer::Complete,
        _ => TransferAnswer::Unknown,
    }
}

fn wanted(receiver: &SnapshotReceiver) -> TransferAnswer {
    receiver.wants().map_or(TransferAnswer::Complete, TransferAnswer::Wants)
}

/// The answer when a snapshot cannot be received.
fn failed<M: Machine>(inner: &Inner<M>, error: &FileError) -> TransferAnswer {
    let group = inner.spec.group.0;
    tracing::error!(group, %error, "a snapshot from a peer cannot be received");
    // Without room it may go better later; the rest will not.
    if error.is_full() { TransferAnswer::Unknown } else { TransferAnswer::Damaged }
}

/// Puts a complete snapshot in place, on a task of its own.
fn begin_install<M: Machine>(inner: &Arc<Inner<M>>, vote: Vote, receiving: &Receiving) {
    let mut stage = inner.incoming.0.lock();
    let Some(mut slot) = receiving.receiver.try_lock() else { return };
    let Some(receiver) = slot.take_if(|receiver| receiver.wants().is_none()) else { return };
    let (result, watched) = watch::channel(None);
    *stage = Stage::Installing(receiving.id, watched);
    let (inner, meta) = (inner.clone(), receiving.meta.clone());
    tokio::spawn(async move {
        let answer =
            install(&inner, vote, meta, receiver).await.unwrap_or_else(|error| failed(&inner, &error));
        inner.files.fills.end(inner.spec.group);
        result.send_replace(Some(answer));
    });
}

async fn install<M: Machine>(
    inner: &Arc<Inner<M>>,
    vote: Vote,
    meta: SnapshotMeta,
    receiver: SnapshotReceiver,
) -> Result<TransferAnswer, FileError> {
    let turn = Group { inner: inner.clone() }.turn().await;
    let pace = inner.files.pace.clone();
    let prepared = crate::blocking::filling(move || receiver.prepare(&*pace)).await;
    let prepared = prepared.map_err(|_| FileError::Stopped)??;
    if !answers(inner).await {
        return Ok(TransferAnswer::Unknown);
    }
    let received = ReceivedSnapshot { prepared, turn };
    let snapshot = Snapshot { meta, snapshot: SnapshotData::received(received) };
    let answer = inner.raft.install_full_snapshot(vote, snapshot).await;
    Ok(TransferAnswer::Done(answer.map_err(|_| FileError::Stopped)?.vote))
}
