//! Owns the requests of one connection that were sent and not answered.
//!
//! Invariants:
//! - Every request put in is taken out once: by its answer, or with all others when the connection is lost.
//! - A request keeps its place among those in flight until its answer has come, even if nobody waits for it any more,
//!   because the server counts it too.

use std::collections::HashMap;
use std::sync::Mutex;

use fanfold_protocol::{Frame, RequestId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Loss;
use crate::lock::lock;

/// Where the answer to one request goes.
pub(crate) type Reply = oneshot::Sender<Result<Frame, Unanswered>>;

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub(crate) enum Unanswered {
    /// No connection could be made; it was not sent.
    NotConnected(std::sync::Arc<std::io::Error>),
    /// It is larger than the server accepts; it was not sent.
    TooLarge { bytes: u64, limit: u64 },
    /// The connection was lost.
    Lost(Loss),
}

#[derive(Debug, Default)]
pub(crate) struct Pending {
    requests: Mutex<HashMap<RequestId, InFlight>>,
}

#[derive(Debug)]
struct InFlight {
    reply: Reply,
    _place: OwnedSemaphorePermit,
}

impl Pending {
    pub fn insert(&self, id: RequestId, reply: Reply, place: OwnedSemaphorePermit) {
        let earlier = lock(&self.requests).insert(id, InFlight { reply, _place: place });
        assert!(earlier.is_none(), "request ids of a connection are never reused");
    }

    /// Hands an answer to its caller; `false` if no request has this id.
    pub fn answer(&self, frame: Frame) -> bool {
        let Some(request) = lock(&self.requests).remove(&frame.request_id) else {
            return false;
        };
        // The caller may have given up meanwhile, which is no concern of the connection's.
        let _ = request.reply.send(Ok(frame));
        true
    }

    /// Tells all callers that the connection is lost.
    pub fn fail(&self, loss: &Loss) {
        let requests = std::mem::take(&mut *lock(&self.requests));
        for request in requests.into_values() {
            let _ = request.reply.send(Err(Unanswered::Lost(loss.clone())));
        }
    }

    /// Whether any answer is outstanding.
    pub fn is_empty(&self) -> bool {
        lock(&self.requests).is_empty()
    }
}
