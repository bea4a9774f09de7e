//! Owns the taking in of the messages of a replica's peers.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use tokio::time::Instant;

use super::group::Inner;
use super::machine::Machine;
use super::members::CAUGHT_UP_ENTRIES;
use super::transport::{EndpointError, MessageKind, PeerEndpoint};
use super::{message, receive, transfer};

/// When a replica last heard from its leader, and which index was committed by then.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Option<(Instant, u64)>>);

impl Heard {
    pub fn note(&self, at: Instant, committed: u64) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_none_or(|(before, _)| before <= at) {
            *heard = Some((at, committed));
        }
    }

    /// The last time, and the index; none before the first.
    pub fn last(&self) -> Option<(Instant, u64)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Machine> Inner<M> {
    /// Entries of so many bytes were taken in, and so many more are missing here: a replica that does not vote yet, and is being
    /// filled, lets its leader wait for the pace.
    async fn filled(&self, bytes: u64, missing: u64) {
        let votes = || {
            let metrics = self.raft.metrics().borrow_watched().clone();
            metrics.membership_config.voter_ids().any(|voter| voter == self.spec.replica)
        };
        if missing > CAUGHT_UP_ENTRIES && !votes() {
            self.filling.came(&self.files.fills, bytes, missing).await;
        }
    }
}

/// Takes in the messages for one replica.
pub(super) struct Endpoint<M: Machine> {
    pub inner: Arc<Inner<M>>,
}

impl<M: Machine> PeerEndpoint for Endpoint<M> {
    fn handle(&self, kind: MessageKind, body: Bytes) -> BoxFuture<'_, Result<Bytes, EndpointError>> {
        let raft = &self.inner.raft;
        Box::pin(async move {
            let answer = match kind {
                MessageKind::Append => {
                    let body_bytes = body.len() as u64;
                    let (came, request) = (Instant::now(), message::decode_append(&body)?);
                    // Before Raft sees them: it would wait for room, and neither vote nor hear a leader meanwhile.
                    if !request.entries.is_empty() && !self.inner.log.accepts(body.len() as u64) {
                        return Err(EndpointError::DiskFull);
                    }
                    self.inner.before_append(&request);
                    let committed = request.leader_commit.map_or(0, |log_id| log_id.index);
                    let last = request.entries.last().map(|entry| entry.log_id.index);
                    let answer = raft.append_entries(request).await.map_err(|_| EndpointError::Stopped)?;
                    if matches!(answer, AppendEntriesResponse::Success) {
                        self.inner.heard.note(came, committed);
                    }
                    if let Some(last) = last {
                        self.inner.filled(body_bytes, committed.saturating_sub(last)).await;
                    }
                    message::encode_append_answer(&answer)
                }
                MessageKind::Vote => {
                    let request = message::decode_vote(&body)?;
                    let answer = match self.inner.before_vote(&request) {
                        Some(refused) => refused,
                        None => raft.vote(request).await.map_err(|_| EndpointError::Stopped)?,
                    };
                    message::encode_vote_answer(&answer)
                }
                MessageKind::PreVote => {
                    let request = message::decode_vote(&body)?;
                    let answer = match self.inner.before_vote(&request) {
                        Some(refused) => refused,
                        None => raft.pre_vote(request).await.map_err(|_| EndpointError::Stopped)?,
                    };
                    message::encode_vote_answer(&answer)
                }
                MessageKind::Snapshot => {
                    self.inner.before_order();
                    let answer = receive::handle(&self.inner, transfer::decode_transfer_step(&body)?).await?;
                    transfer::encode_transfer_step_answer(&answer)
                }
                MessageKind::TransferLeader => {
                    self.inner.before_order();
                    let answer = raft.handle_transfer_leader(message::decode_transfer(&body)?).await;
                    message::encode_transfer_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
            };
            Ok(answer?)
        })
    }
}
