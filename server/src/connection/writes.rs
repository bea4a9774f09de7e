//! Owns the writes of one connection that are under way: proposed together, answered together.
//!
//! - A write is answered once: by what came of it, or at its deadline; what comes later is dropped.
//! - The order of the writes to one partition is that of their frames, blocks and unblocks aside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanfold_cluster::node::{WriteLane, WriteSink};
use fanfold_cluster::{NodeError, Receipt};
use fanfold_protocol::message::{Write, WriteOp};
use fanfold_protocol::{Reply, Status};
use fanfold_storage::command as stored;
use tokio::time::Instant;

use super::outgoing::{Outgoing, Slot};
use super::waiting::Waiting;
use crate::dispatch::{self, Answered, Asked, Spent};
use crate::translate;

/// A write whose outcome is not known yet.
struct Pending {
    asked: Asked,
    slot: Slot,
    /// What a refusal says besides its reason.
    ttls_ms: Vec<i64>,
    is_expiry: bool,
}

/// What the writes of a connection have in common with those who answer them.
struct Answering {
    outgoing: Arc<Outgoing>,
    waiting: Mutex<Waiting<Pending>>,
}

impl Answering {
    fn waiting(&self) -> MutexGuard<'_, Waiting<Pending>> {
        // Nothing under this lock can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, pending: &Pending, result: Result<Receipt, NodeError>) -> Reply {
        let shared = self.outgoing.shared();
        let refused = translate::WriteRefused { ttls_ms: &pending.ttls_ms, is_expiry: pending.is_expiry };
        translate::receipt(result, &refused, || shared.node.spaces())
    }
}

impl WriteSink for Answering {
    fn written(&self, results: &mut dyn Iterator<Item = (u64, Result<Receipt, NodeError>)>) {
        let shared = self.outgoing.shared();
        {
            let mut waiting = self.waiting();
            let mut answers = self.outgoing.lock();
            // Counted before the lock is given back: who has an answer finds it counted.
            let mut answered = Answered::now(shared);
            for (number, result) in results {
                let Some(pending) = waiting.remove(number) else { continue };
                let applied = result.as_ref().ok().map(|receipt| receipt.position);
                let reply = self.reply(&pending, result);
                let Pending { asked, slot, .. } = pending;
                let packed = answers.put(slot, asked.opcode, asked.id, &reply, false);
                let applied = applied.map(|position| (position.partition.0, position.index));
                let spent = Spent { applied, ..Spent::default() };
                answered.note(&asked, packed.err().as_ref(), spent);
            }
        }
        self.outgoing.changed.notify();
    }
}

/// The writes of one connection.
pub(super) struct Writes {
    answering: Arc<Answering>,
    /// By partition; made when first written to.
    lanes: Vec<Option<Lane>>,
    /// Partitions with gathered writes.
    gathered: Vec<u16>,
}

struct Lane {
    lane: WriteLane,
    gathered: Vec<(u64, stored::WriteTag, stored::Write)>,
}

impl Writes {
    pub(super) fn new(outgoing: Arc<Outgoing>) -> Self {
        let answering = Arc::new(Answering { outgoing, waiting: Mutex::default() });
        Self { answering, lanes: Vec::new(), gathered: Vec::new() }
    }

    /// Whether a write can go this way: not one that waits for another partition.
    pub(super) fn takes(write: &Write) -> bool {
        !matches!(write.op, WriteOp::Block(_) | WriteOp::Unblock(_))
    }

    /// Gathers a write, which [`Writes::submit`] proposes; or says why there is no such partition.
    pub(super) fn gather(
        &mut self,
        write: Write,
        asked: Asked,
        deadline: Instant,
        slot: Slot,
    ) -> Result<(), (Asked, Slot, Status)> {
        let partition = write.partition.0;
        let lane = match lane(&mut self.lanes, &self.answering, partition) {
            Ok(lane) => lane,
            Err(status) => return Err((asked, slot, status)),
        };
        let ttls_ms = translate::named_ttls(&write.op);
        let is_expiry = matches!(write.op, WriteOp::SetExpiry(_));
        let number = self.answering.waiting().insert(deadline, Pending { asked, slot, ttls_ms, is_expiry });
        if lane.gathered.is_empty() {
            self.gathered.push(partition);
        }
        lane.gathered.push((number, translate::tag(write.tag), translate::write(write.op)));
        Ok(())
    }

    /// Proposes what was gathered.
    pub(super) fn submit(&mut self) {
        for partition in self.gathered.drain(..) {
            if let Some(Some(lane)) = self.lanes.get_mut(usize::from(partition)) {
                lane.lane.submit(lane.gathered.drain(..));
            }
        }
    }

    /// When the first deadline of a pending write may pass.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.answering.waiting().first_deadline()
    }

    /// Answers writes whose deadline has passed; they may still take effect.
    pub(super) fn expire(&self, now: Instant) {
        let outgoing = &self.answering.outgoing;
        let expired = self.answering.waiting().expired(now);
        for Pending { asked, slot, .. } in expired {
            let status = Err(Status::DeadlineExceeded);
            let packed = outgoing.lock().put(slot, asked.opcode, asked.id, &status, false);
            dispatch::note(outgoing.shared(), &asked, packed.err().as_ref(), Spent::default());
        }
    }
}

/// The lane to a partition.
fn lane<'l>(
    lanes: &'l mut Vec<Option<Lane>>,
    answering: &Arc<Answering>,
    partition: u16,
) -> Result<&'l mut Lane, Status> {
    let shared = answering.outgoing.shared();
    let at = usize::from(partition);
    if lanes.get(at).is_none_or(Option::is_none) {
        let id = translate::partition_id(fanfold_protocol::PartitionId(partition));
        let lane = shared.node.write_lane(id, answering.clone());
        let lane = lane.map_err(|error| dispatch::failed_write(shared, error))?;
        if lanes.len() <= at {
            lanes.resize_with(at + 1, || None);
        }
        lanes[at] = Some(Lane { lane, gathered: Vec::new() });
    }
    Ok(lanes[at].as_mut().expect("it was found or made"))
}
