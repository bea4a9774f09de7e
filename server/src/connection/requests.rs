//! Owns the requests of one connection between frame and answer.
//!
//! - A request takes a slot and its bytes before it starts and gives them back when its answer is written.
//! - A request that does not decode is answered alone; the connection goes on.
//! - Feed reads of one read of the socket are read together, and writes are proposed together. Anything else is answered
//!   at once, on the connection's own task; what has to wait for something goes on in a task of its own.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use fanfold_cluster::phases::{Noted, noting};
use fanfold_protocol::call::Call;
use fanfold_protocol::error::DecodeError;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::ids::RequestId;
use fanfold_protocol::message::Request;
use fanfold_protocol::{Reply, Status};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::End;
use super::outgoing::{Outgoing, Slot};
use super::reads::{Left, Reads};
use super::writes::Writes;
use crate::config::ms;
use crate::dispatch::{self, Asked, Spent};
use crate::hot::Sampler;
use crate::listener::Shared;
use crate::names::RequestKind;

/// About the bytes an unhydrated entry of a page takes.
const ENTRY_BYTES: usize = 48;

/// About the bytes a hydrated entry of a page takes.
const HYDRATED_ENTRY_BYTES: usize = 640;

pub(super) struct Requests {
    shared: Arc<Shared>,
    outgoing: Arc<Outgoing>,
    reads: Reads,
    writes: Writes,
    /// What is to be started next, before anything else is decoded.
    next: Option<Next>,
    /// The rest of a batch.
    items: std::vec::IntoIter<Frame>,
    /// When what is being taken was read from the socket.
    received: Instant,
    /// Which requests are counted for the list of what is hot.
    sampler: Sampler,
}

/// A frame that is to be started.
enum Next {
    /// As it came from the socket.
    Outer(Frame),
    /// Out of a batch.
    Item(Frame),
}

/// What was taken from the bytes that were read.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Whether a frame was complete.
    pub(super) any: bool,
    /// Whether too much is in flight to go on.
    pub(super) is_full: bool,
}

impl Requests {
    pub(super) fn new(outgoing: Arc<Outgoing>) -> Self {
        Self {
            shared: outgoing.shared().clone(),
            reads: Reads::new(outgoing.clone()),
            writes: Writes::new(outgoing.clone()),
            outgoing,
            next: None,
            items: Vec::new().into_iter(),
            received: Instant::now(),
            sampler: Sampler::new(RandomState::new().build_hasher().finish() as u32),
        }
    }

    /// Notes that bytes have just been read.
    pub(super) fn note_received(&mut self, now: Instant) {
        self.received = now;
    }

    /// Starts the requests of all whole frames, as long as there is room for them.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Taken, End> {
        let mut taken = Taken::default();
        while let Some(next) = self.next(buffer)? {
            taken.any = true;
            self.next = match next {
                Next::Outer(frame) if frame.is_batch() => self.open(frame)?.map(Next::Outer),
                Next::Outer(frame) => self.start(frame)?.map(Next::Outer),
                Next::Item(frame) => self.start(frame)?.map(Next::Item),
            };
            if self.next.is_some() {
                taken.is_full = true;
                break;
            }
        }
        Ok(taken)
    }

    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Next>, End> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        if let Some(item) = self.items.next() {
            return Ok(Some(Next::Item(item)));
        }
        Ok(Frame::decode_from(buffer, self.shared.limits.frame_bytes_max)?.map(Next::Outer))
    }

    /// Opens a batch; gives it back if it has to be refused and there is no room for that.
    fn open(&mut self, frame: Frame) -> Result<Option<Frame>, End> {
        match frame.clone().into_items(self.shared.limits.batch_items_max) {
            Ok(items) => {
                self.items = items.into_iter();
                Ok(None)
            }
            Err(error) => self.refuse(frame, &error),
        }
    }

    /// Answers the reads and proposes the writes that were gathered since the last time.
    pub(super) fn submit(&mut self) {
        self.answer_reads();
        self.writes.submit();
    }

    fn answer_reads(&mut self) {
        let (shared, outgoing) = (&self.shared, &self.outgoing);
        self.reads.run(|Left { asked, deadline, request, slot }| match slot {
            Some(slot) => run(shared, outgoing, request, asked, deadline, slot),
            None => refuse_busy(outgoing, asked),
        });
    }

    /// When the first deadline of a pending write may pass.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.writes.first_deadline()
    }

    /// Answers writes whose deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        self.writes.expire(now);
    }

    /// Answers what does not decode; gives the frame back if there is no room for that.
    fn refuse(&mut self, frame: Frame, error: &DecodeError) -> Result<Option<Frame>, End> {
        if !error.connection_goes_on() {
            return Err(End::Refused(error.to_status()));
        }
        if !self.has_room(0) {
            return Ok(Some(frame));
        }
        let (opcode, id) = (frame.opcode, frame.request_id);
        tracing::debug!(request = id.0, %error, "request refused");
        answer_refusal(&self.outgoing, opcode, id, error.to_status());
        Ok(None)
    }

    /// Whether a request that takes so many bytes may start; the reads that were gathered are answered if they are in
    /// its way.
    fn has_room(&mut self, bytes: u64) -> bool {
        if self.outgoing.has_room(self.reads.count(), self.reads.bytes() + bytes) {
            return true;
        }
        self.answer_reads();
        self.outgoing.has_room(0, bytes)
    }

    /// Starts a request; gives it back if there is no room for it yet.
    fn start(&mut self, frame: Frame) -> Result<Option<Frame>, End> {
        let call = match frame.decode_call() {
            Ok(call) => call,
            Err(error) => return self.refuse(frame, &error),
        };
        let cost = self.cost(&call, &frame);
        if !self.has_room(cost) {
            return Ok(Some(frame));
        }
        let (opcode, id, received) = (frame.opcode, frame.request_id, self.received);
        let asked = Asked { kind: RequestKind::of(&call.request), opcode, id, received };
        let checked = call.request.check(&self.shared.limits);
        if let Some(weight) = self.sampler.weight().filter(|_| checked.is_ok()) {
            self.shared.hot.note(&call.request, weight);
        }
        let longest = ms(self.shared.config.request_timeout_ms);
        let wanted = call.deadline_ms.map_or(longest, |ms| Duration::from_millis(u64::from(ms)).min(longest));
        let deadline = received + wanted;
        let request = match call.request {
            Request::ReadFeed(read) if checked.is_ok() => match dispatch::feed_request(&read) {
                Ok(request) => {
                    self.reads.gather(read, request, asked, deadline, cost);
                    return Ok(None);
                }
                // The general way refuses it.
                Err(_) => Request::ReadFeed(read),
            },
            request => request,
        };
        let Some(slot) = self.outgoing.begin(1, cost) else {
            refuse_busy(&self.outgoing, asked);
            return Ok(None);
        };
        if let Err(status) = checked {
            answer(&self.outgoing, asked, slot, &Err(status), true, Noted::default());
            return Ok(None);
        }
        match request {
            Request::Write(write) if Writes::takes(&write) => {
                if let Err((asked, slot, status)) = self.writes.gather(write, asked, deadline, slot) {
                    answer(&self.outgoing, asked, slot, &Err(status), false, Noted::default());
                }
            }
            request => run(&self.shared, &self.outgoing, request, asked, deadline, slot),
        }
        Ok(None)
    }

    /// About how many bytes a request and its answer take while it is in flight; never more than can be had.
    fn cost(&self, call: &Call, frame: &Frame) -> u64 {
        let limits = &self.shared.limits;
        let page = |limit: u32, hydrate: bool| {
            // A limit above the largest page is refused; until then it must not hold up what is in flight.
            let entries = limit.min(limits.page_entries_max) as usize;
            entries * if hydrate { HYDRATED_ENTRY_BYTES } else { ENTRY_BYTES }
        };
        let answer = match &call.request {
            Request::ReadFeed(read) => page(read.limit, read.hydrate),
            Request::ReadTimeline(read) => page(read.limit, read.hydrate),
            Request::ReadFeeds(read) => page(read.limit, read.hydrate).saturating_mul(read.readers.len()),
            Request::ReadEntries(read) => read.ids.len() * HYDRATED_ENTRY_BYTES,
            Request::ScanFollowees(scan) | Request::ScanFollowers(scan) => page(scan.limit, false),
            _ => ENTRY_BYTES,
        };
        let config = &self.shared.config;
        let most = u64::from(config.connection_bytes_max.min(config.node_bytes_max));
        let cost = frame.encoded_len().saturating_add(answer.min(limits.frame_bytes_max as usize));
        (cost as u64).min(most)
    }
}

/// Answers a request at once if nothing has to be waited for, else in a task of its own.
fn run(
    shared: &Arc<Shared>,
    outgoing: &Arc<Outgoing>,
    request: Request,
    asked: Asked,
    deadline: Instant,
    slot: Slot,
) {
    // Only reads can be told to come again: what has taken effect is answered so, and its answer is small.
    let is_read = matches!(
        request,
        Request::ReadFeed(_) | Request::ReadFeeds(_) | Request::ReadTimeline(_) | Request::ReadEntries(_)
    );
    let mut reply: Pin<Box<dyn Future<Output = (Reply, Noted)> + Send>> =
        Box::pin(noting(dispatch::reply(shared.clone(), request)));
    // Whatever it waits for, it is asked again by its own task, so that nothing has to wake this one.
    if let Poll::Ready((reply, noted)) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        answer(outgoing, asked, slot, &reply, is_read, noted);
        return;
    }
    let outgoing = outgoing.clone();
    let span = tracing::debug_span!("request", id = asked.id.0);
    let run = async move {
        let late = (Err(Status::DeadlineExceeded), Noted::default());
        let (reply, noted) = timeout_at(deadline, reply).await.unwrap_or(late);
        answer(&outgoing, asked, slot, &reply, is_read, noted);
        outgoing.changed.notify();
    };
    tokio::spawn(run.instrument(span));
}

fn answer(outgoing: &Outgoing, asked: Asked, slot: Slot, reply: &Reply, is_read: bool, phases: Noted) {
    let packed = outgoing.lock().put(slot, asked.opcode, asked.id, reply, is_read);
    let spent = Spent { phases, ..Spent::default() };
    dispatch::note(outgoing.shared(), &asked, packed.err().as_ref(), spent);
}

/// Answers a request for which the node has no room.
fn refuse_busy(outgoing: &Arc<Outgoing>, asked: Asked) {
    let busy = Status::Busy { delay_ms: dispatch::BUSY_DELAY_MS };
    dispatch::note(outgoing.shared(), &asked, Some(&busy), Spent::default());
    answer_refusal(outgoing, asked.opcode, asked.id, busy);
}

/// Answers a request that is not started. It takes a slot as any other: who sends many and reads nothing waits.
fn answer_refusal(outgoing: &Arc<Outgoing>, opcode: u16, id: RequestId, status: Status) {
    if let Some(slot) = outgoing.begin(1, 0) {
        // It is small, and fits whatever the limits are.
        let _ = outgoing.lock().put(slot, opcode, id, &Err(status), false);
    }
}
