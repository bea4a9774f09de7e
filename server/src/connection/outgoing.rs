//! Owns the answers of one connection on their way out, and what its requests hold meanwhile.
//!
//! - A request holds a slot and its bytes from its start until its answer is written.
//! - A request that ends without an answer gives back what it held.
//! - What all connections count is counted once for a slot, however many requests it is for.
//! - Whoever answers packs into one buffer; the connection's task is woken once for all that gathers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanfold_protocol::ids::RequestId;
use fanfold_protocol::message::{EntryParts, Page};
use fanfold_protocol::{Packer, Reply, Status};

use super::changed::Changed;
use super::spare;
use crate::dispatch::BUSY_DELAY_MS;
use crate::listener::Shared;

/// The answers of one connection that wait to be written.
pub(super) struct Outgoing {
    shared: Arc<Shared>,
    answers: Mutex<Answers>,
    /// Answers wait, or something was given back.
    pub(super) changed: Changed,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// Answers that wait, and what their requests held.
pub(super) struct Answers {
    packer: Packer,
    held: Held,
}

/// What requests hold until their answers are written.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Held {
    requests: u64,
    /// Of the connection's bytes.
    bytes: u64,
    /// Of the node's bytes.
    of_node: u64,
}

impl Outgoing {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let packer = Packer::new(shared.limits.frame_bytes_max);
        Self {
            shared,
            answers: Mutex::new(Answers { packer, held: Held::default() }),
            changed: Changed::default(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Answers> {
        // A panic while packing leaves at worst one answer half packed, and the connection's checksum says so.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request that takes so many bytes may start now, `gathered` ones being about to.
    pub(super) fn has_room(&self, gathered: u64, bytes: u64) -> bool {
        let config = &self.shared.config;
        let requests = self.requests.load(Ordering::Acquire) + gathered;
        let held = self.bytes.load(Ordering::Acquire);
        requests == 0
            || requests < u64::from(config.connection_requests_max)
                && held + bytes <= u64::from(config.connection_bytes_max)
    }

    /// Whether no request is in flight and nothing waits to be written.
    pub(super) fn is_done(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0 && self.lock().packer.is_empty()
    }

    /// Takes a slot and bytes for requests; none if the node as a whole has no room for them.
    pub(super) fn begin(self: &Arc<Self>, requests: u64, bytes: u64) -> Option<Slot> {
        if !self.shared.bytes.try_take(bytes) {
            return None;
        }
        self.requests.fetch_add(requests, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.shared.metrics.in_flight.inc_by(requests as i64);
        let held = Held { requests, bytes, of_node: bytes };
        Some(Slot { outgoing: self.clone(), held, answered: 0 })
    }

    /// Says why the connection ends.
    pub(super) fn refuse_connection(&self, status: &Status) {
        self.lock().packer.refuse_connection(status);
    }

    /// Moves what waits into `out`, and says what is to be given back once that is written.
    pub(super) fn take_into(&self, out: &mut Vec<u8>) -> Held {
        let mut answers = self.lock();
        if answers.packer.is_empty() {
            return Held::default();
        }
        answers.packer.take_into(out);
        std::mem::take(&mut answers.held)
    }

    /// Gives back what requests held; answers whether that is anything.
    pub(super) fn give_back(&self, held: Held) -> bool {
        if held.requests == 0 {
            return false;
        }
        self.requests.fetch_sub(held.requests, Ordering::AcqRel);
        self.bytes.fetch_sub(held.bytes, Ordering::AcqRel);
        self.shared.bytes.give_back(held.of_node);
        true
    }
}

impl Drop for Outgoing {
    /// What answered requests held of the node, and nobody wrote because the client was gone.
    fn drop(&mut self) {
        let answers = self.answers.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shared.bytes.give_back(answers.held.of_node);
    }
}

impl Answers {
    /// Makes room for pages of about so many bytes, before they are packed.
    pub(super) fn make_room(&mut self, bytes: usize) {
        let has_some = self.packer.memory() > spare::SMALL_BYTES || !self.packer.is_empty();
        if bytes > spare::SMALL_BYTES && !has_some {
            self.packer.use_memory(spare::take(bytes));
        }
    }

    /// Packs an answer; what its request held is given back when it is written. `is_read`: it may be told to come
    /// again if the node has no room for the bytes of its answer; a write has taken effect and is answered so.
    pub(super) fn put(
        &mut self,
        mut slot: Slot,
        opcode: u16,
        id: RequestId,
        reply: &Reply,
        is_read: bool,
    ) -> Result<(), Status> {
        let held = std::mem::take(&mut slot.held);
        if is_read {
            self.make_room(held.bytes as usize);
        }
        self.pack(&mut slot, held, is_read, |packer, admits| packer.reply(opcode, id, reply, admits))
    }

    /// Packs a page of these entries, newest first, as [`Answers::put`] packs the answer to a read: to one of those that
    /// the slot is for, which takes so many bytes of it.
    pub(super) fn put_page<'a>(
        &mut self,
        (slot, bytes): (&mut Slot, u64),
        opcode: u16,
        id: RequestId,
        page: &Page,
        entries: impl ExactSizeIterator<Item = EntryParts<'a>>,
    ) -> Result<(), Status> {
        let held = slot.take(bytes);
        self.pack(slot, held, true, |packer, admits| packer.page(opcode, id, page, entries, admits))
    }

    fn pack(
        &mut self,
        slot: &mut Slot,
        mut held: Held,
        is_read: bool,
        pack: impl FnOnce(&mut Packer, &mut dyn FnMut(usize) -> Result<(), Status>) -> Result<usize, Status>,
    ) -> Result<(), Status> {
        let shared = &slot.outgoing.shared;
        let answered = pack(&mut self.packer, &mut |bytes| {
            let beyond = (bytes as u64).saturating_sub(held.of_node);
            if beyond > 0 && shared.bytes.try_take(beyond) {
                held.of_node += beyond;
            } else if beyond > 0 && is_read {
                return Err(Status::Busy { delay_ms: BUSY_DELAY_MS });
            }
            Ok(())
        });
        slot.answered += held.requests;
        self.held.requests += held.requests;
        self.held.bytes += held.bytes;
        self.held.of_node += held.of_node;
        answered.map(|_| ())
    }
}

/// What requests hold that are not answered yet.
pub(super) struct Slot {
    outgoing: Arc<Outgoing>,
    held: Held,
    /// Requests that are answered and still counted as in flight, until the slot is gone.
    answered: u64,
}

impl Slot {
    /// Takes one request and its bytes out.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        Self { held: self.take(bytes), outgoing: self.outgoing.clone(), answered: 0 }
    }

    fn take(&mut self, bytes: u64) -> Held {
        let held = Held { requests: 1, bytes, of_node: bytes };
        self.held.requests -= held.requests;
        self.held.bytes -= held.bytes;
        self.held.of_node -= held.of_node;
        held
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let ended = self.held.requests + self.answered;
        if ended > 0 {
            self.outgoing.shared.metrics.in_flight.dec_by(ended as i64);
        }
        if self.outgoing.give_back(self.held) {
            self.outgoing.changed.notify();
        }
    }
}
