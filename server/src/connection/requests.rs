//! Owns the requests of one connection between frame and answer.
//!
//! - A request takes a slot and its bytes before it starts and gives them back when its answer is written.
//! - A request that does not decode is answered alone; the connection goes on.

use std::sync::Arc;

use fanfold_protocol::Status;
use fanfold_protocol::call::Call;
use fanfold_protocol::error::DecodeError;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::message::Request;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::Instrument;

use super::End;
use super::writer::Answer;
use crate::dispatch;
use crate::listener::Shared;
use crate::names::request_name;

/// About the bytes an unhydrated entry of a page takes.
const ENTRY_BYTES: usize = 48;

/// About the bytes a hydrated entry of a page takes.
const HYDRATED_ENTRY_BYTES: usize = 640;

pub(super) struct Requests {
    shared: Arc<Shared>,
    answers: mpsc::Sender<Answer>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Requests {
    pub(super) fn new(shared: Arc<Shared>, answers: mpsc::Sender<Answer>) -> Self {
        let slots = Arc::new(Semaphore::new(shared.config.connection_requests_max as usize));
        let bytes = Arc::new(Semaphore::new(shared.config.connection_bytes_max as usize));
        Self { shared, answers, slots, bytes }
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
            Err(error) => self.refuse(Frame::refusal(opcode, id, &error.to_status()), &error).await,
        }
    }

    async fn refuse(&mut self, refusal: Frame, error: &DecodeError) -> Result<(), End> {
        if !error.connection_goes_on() {
            return Err(End::Refused(error.to_status()));
        }
        tracing::debug!(request = refusal.request_id.0, %error, "request refused");
        self.answer(Answer { frame: refusal, held: Vec::new() }).await
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), End> {
        self.answers.send(answer).await.map_err(|_| End::Closed)
    }

    async fn start(&mut self, frame: Frame) -> Result<(), End> {
        let received = Instant::now();
        let (opcode, id) = (frame.opcode, frame.request_id);
        let call = match frame.decode_call() {
            Ok(call) => call,
            Err(error) => return self.refuse(Frame::refusal(opcode, id, &error.to_status()), &error).await,
        };
        let cost = self.cost(&call, &frame);
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| End::Closed)?;
        let bytes = self.bytes.clone().acquire_many_owned(cost).await.map_err(|_| End::Closed)?;
        let Ok(of_node) = self.shared.bytes.clone().try_acquire_many_owned(cost) else {
            let busy = Status::Busy { delay_ms: dispatch::BUSY_DELAY_MS };
            let kind = request_name(&call.request);
            self.shared.metrics.answered(kind, Some(&busy), received.elapsed().as_secs_f64());
            return self.answer(Answer { frame: Frame::refusal(opcode, id, &busy), held: Vec::new() }).await;
        };
        let (shared, answers) = (self.shared.clone(), self.answers.clone());
        let span = tracing::debug_span!("request", id = id.0);
        let run = async move {
            shared.metrics.in_flight.inc();
            let mut held = vec![slot, bytes, of_node];
            // An answer may be larger than was expected of it; what it really takes counts until it is written.
            let has_room = |answer_bytes: usize| {
                let beyond = (answer_bytes as u32).saturating_sub(cost);
                let more = shared.bytes.clone().try_acquire_many_owned(beyond);
                more.map(|more| held.push(more)).is_ok()
            };
            let frame = dispatch::answer(&shared, call, opcode, id, received, has_room).await;
            shared.metrics.in_flight.dec();
            // A connection that has ended needs no answer.
            let _ = answers.send(Answer { frame, held }).await;
        };
        tokio::spawn(run.instrument(span));
        Ok(())
    }

    /// About how many bytes a request and its answer take while it is in flight; never more than can be had.
    fn cost(&self, call: &Call, frame: &Frame) -> u32 {
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
        let most = config.connection_bytes_max.min(config.node_bytes_max);
        let cost = frame.encoded_len().saturating_add(answer.min(limits.frame_bytes_max as usize));
        u32::try_from(cost).unwrap_or(most).min(most)
    }
    /// Says why the connection ends.
    pub(super) async fn refuse_connection(&mut self, status: &Status) {
        let frame = Frame::connection_refusal(status);
        let _ = self.answer(Answer { frame, held: Vec::new() }).await;
    }
}
