//! Owns the requests of one connection between frame and answer.
//!
//! - A request takes a slot and its bytes before it starts and gives them back when its answer is written.
//! - A request that does not decode is answered alone; the connection goes on.
//! - Writes of one read of the socket are proposed together. Anything else is answered at once, on the connection's own
//!   task; what has to wait for something goes on in a task of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

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
use super::writes::Writes;
use crate::config::ms;
use crate::dispatch::{self, Asked};
use crate::listener::Shared;
use crate::names::request_name;

/// About the bytes an unhydrated entry of a page takes.
const ENTRY_BYTES: usize = 48;

/// About the bytes a hydrated entry of a page takes.
const HYDRATED_ENTRY_BYTES: usize = 640;

pub(super) struct Requests {
    shared: Arc<Shared>,
    outgoing: Arc<Outgoing>,
    writes: Writes,
}

impl Requests {
    pub(super) fn new(outgoing: Arc<Outgoing>) -> Self {
        let writes = Writes::new(outgoing.clone());
        Self { shared: outgoing.shared().clone(), outgoing, writes }
    }

    /// Starts the request of a frame, or all of a batch; waits while too much is in flight.
    pub(super) async fn take(&mut self, frame: Frame) -> Result<(), End> {
        if !frame.is_batch() {
            return self.start(frame).await;
        }
        let (opcode, id) = (frame.opcode, frame.request_id);
        match frame.into_items(self.shared.limits.batch_items_max) {
            Ok(items) => {
                for item in items {
                    self.start(item).await?;
                }
                Ok(())
            }
            Err(error) => self.refuse(opcode, id, &error).await,
        }
    }

    /// Proposes the writes that were gathered since the last time.
    pub(super) fn submit(&mut self) {
        self.writes.submit();
    }

    /// When the first deadline of a pending write may pass.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.writes.first_deadline()
    }

    /// Answers writes whose deadline has passed.
    pub(super) fn expire(&self) {
        self.writes.expire();
    }

    async fn refuse(&mut self, opcode: u16, id: RequestId, error: &DecodeError) -> Result<(), End> {
        if !error.connection_goes_on() {
            return Err(End::Refused(error.to_status()));
        }
        tracing::debug!(request = id.0, %error, "request refused");
        self.answer_refusal(opcode, id, error.to_status()).await;
        Ok(())
    }

    /// Answers a request that is not started. It takes a slot as any other: who sends many and reads nothing waits.
    async fn answer_refusal(&mut self, opcode: u16, id: RequestId, status: Status) {
        self.make_room(0).await;
        if let Some(slot) = self.outgoing.begin(0) {
            // It is small, and fits whatever the limits are.
            let _ = self.outgoing.lock().put(slot, opcode, id, &Err(status), false);
            self.outgoing.changed.notify_one();
        }
    }

    /// Waits until a request that takes so many bytes may start; meanwhile deadlines are kept.
    async fn make_room(&mut self, bytes: u64) {
        if self.outgoing.has_room(bytes) {
            return;
        }
        // What was gathered has to be on its way, or nothing would ever make room.
        self.submit();
        loop {
            tokio::select! {
                () = self.outgoing.room(bytes) => return,
                () = super::until(self.writes.first_deadline()) => self.writes.expire(),
            }
        }
    }

    async fn start(&mut self, frame: Frame) -> Result<(), End> {
        let received = Instant::now();
        let (opcode, id) = (frame.opcode, frame.request_id);
        let call = match frame.decode_call() {
            Ok(call) => call,
            Err(error) => return self.refuse(opcode, id, &error).await,
        };
        let asked = Asked { kind: request_name(&call.request), opcode, id, received };
        let cost = self.cost(&call, &frame);
        self.make_room(cost).await;
        let Some(slot) = self.outgoing.begin(cost) else {
            let busy = Status::Busy { delay_ms: dispatch::BUSY_DELAY_MS };
            dispatch::note(&self.shared, &asked, Some(&busy));
            self.answer_refusal(opcode, id, busy).await;
            return Ok(());
        };
        if let Err(status) = call.request.check(&self.shared.limits) {
            answer(&self.outgoing, asked, slot, &Err(status), true);
            return Ok(());
        }
        let longest = ms(self.shared.config.request_timeout_ms);
        let wanted = call.deadline_ms.map_or(longest, |ms| Duration::from_millis(u64::from(ms)).min(longest));
        let deadline = received + wanted;
        match call.request {
            Request::Write(write) if Writes::takes(&write) => {
                if let Err((asked, slot, status)) = self.writes.gather(write, asked, deadline, slot) {
                    answer(&self.outgoing, asked, slot, &Err(status), false);
                }
            }
            request => self.run(request, asked, deadline, slot),
        }
        Ok(())
    }

    /// Answers a request at once if nothing has to be waited for, else in a task of its own.
    fn run(&self, request: Request, asked: Asked, deadline: Instant, slot: Slot) {
        // Only reads can be told to come again: what has taken effect is answered so, and its answer is small.
        let is_read = matches!(
            request,
            Request::ReadFeed(_) | Request::ReadFeeds(_) | Request::ReadTimeline(_) | Request::ReadEntries(_)
        );
        let mut reply: Pin<Box<dyn Future<Output = Reply> + Send>> =
            Box::pin(dispatch::reply(self.shared.clone(), request));
        // Whatever it waits for, it is asked again by its own task, so that nothing has to wake this one.
        if let Poll::Ready(reply) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer(&self.outgoing, asked, slot, &reply, is_read);
            return;
        }
        let outgoing = self.outgoing.clone();
        let span = tracing::debug_span!("request", id = asked.id.0);
        let run = async move {
            let reply = timeout_at(deadline, reply).await.unwrap_or(Err(Status::DeadlineExceeded));
            answer(&outgoing, asked, slot, &reply, is_read);
        };
        tokio::spawn(run.instrument(span));
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

fn answer(outgoing: &Outgoing, asked: Asked, slot: Slot, reply: &Reply, is_read: bool) {
    let packed = outgoing.lock().put(slot, asked.opcode, asked.id, reply, is_read);
    outgoing.changed.notify_one();
    dispatch::note(outgoing.shared(), &asked, packed.err().as_ref());
}
