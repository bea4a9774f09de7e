//! Owns the sending side of Raft's messages: openraft's network over a [`PeerTransport`].
//!
//! - A deadline is kept here for every message, since openraft does not end all of them by itself.
//! - A follower that denies an entry which it acknowledged to the same leader has lost durable data. It is not sent
//!   anything by this leader any more, so that it counts for no quorum (openraft checks this in debug builds only).

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use thiserror::Error;

use super::codec::CodecError;
use super::files::FileError;
use super::message;
use super::pipeline;
use super::send::{self, Outgoing};
use super::snapshot::SnapshotData;
use super::transport::{MessageKind, PeerRequest, PeerTransport, TransportError};
use super::types::{LogId, ReplicaAddress, ReplicaId, Snapshot, Types, Vote};

/// The answers to a stream of append messages.
type AppendAnswers<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// A follower denied an entry that it had acknowledged to the same leader.
#[derive(Debug, Clone, Copy, Error)]
#[error(
    "replica {target} acknowledged index {acknowledged} as durable and now denies index {denied}; \
     its disk lost data: rebuild it under a new replica id"
)]
struct Reverted {
    target: ReplicaId,
    acknowledged: u64,
    denied: u64,
}

/// A follower refused to become the leader.
#[derive(Debug, Clone, Copy, Error)]
#[error("replica {target} is not ready to lead")]
struct TransferRefused {
    target: ReplicaId,
}

/// Makes the connections of one replica to the others of its group.
pub(super) struct NetworkFactory {
    group: GroupId,
    source: ReplicaId,
    transport: Arc<dyn PeerTransport>,
    acknowledged: HashMap<ReplicaId, Arc<Mutex<Acknowledged>>>,
    outgoing: Outgoing,
    append_deadline: Duration,
}

impl NetworkFactory {
    /// Waits for the answer to entries until `append_deadline`.
    pub fn new(
        group: GroupId,
        source: ReplicaId,
        transport: Arc<dyn PeerTransport>,
        append_deadline: Duration,
    ) -> Self {
        let (acknowledged, outgoing) = (HashMap::new(), Outgoing::default());
        Self { group, source, transport, acknowledged, outgoing, append_deadline }
    }

    /// Which snapshots are being sent.
    pub fn outgoing(&self) -> Outgoing {
        self.outgoing.clone()
    }
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Connection;

    async fn new_client(&mut self, target: ReplicaId, address: &ReplicaAddress) -> Connection {
        Connection {
            group: self.group,
            source: self.source,
            target,
            address: address.clone(),
            transport: self.transport.clone(),
            // Shared by the clients for replication and for heartbeats, whose answers must agree.
            acknowledged: self.acknowledged.entry(target).or_default().clone(),
            outgoing: self.outgoing.clone(),
            append_deadline: self.append_deadline,
        }
    }
}

/// What a follower has acknowledged as durable to a leader.
#[derive(Debug, Default)]
struct Acknowledged {
    /// The leader, and the last entry; an answer to a later leader starts anew.
    last: Option<(Vote, LogId)>,
    reverted: Option<Reverted>,
}

impl Acknowledged {
    /// The last index acknowledged to this leader.
    fn index(&self, vote: &Vote) -> Option<u64> {
        let (leader, log_id) = self.last.as_ref()?;
        (leader == vote).then_some(log_id.index)
    }

    fn note(&mut self, vote: Vote, log_id: LogId) {
        if self.index(&vote).is_none_or(|index| index < log_id.index) {
            self.last = Some((vote, log_id));
        }
    }
}

/// A connection to one replica.
pub(super) struct Connection {
    group: GroupId,
    source: ReplicaId,
    target: ReplicaId,
    address: ReplicaAddress,
    transport: Arc<dyn PeerTransport>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    outgoing: Outgoing,
    append_deadline: Duration,
}

impl Connection {
    pub fn source(&self) -> ReplicaId {
        self.source
    }

    pub fn target(&self) -> ReplicaId {
        self.target
    }

    /// Sends a message and waits for the answer until a deadline.
    pub async fn call(
        &self,
        kind: MessageKind,
        action: RPCTypes,
        body: Result<Bytes, CodecError>,
        deadline: Duration,
    ) -> Result<Bytes, RPCError<Types>> {
        self.request(kind, action, body, deadline, false).await
    }

    async fn request(
        &self,
        kind: MessageKind,
        action: RPCTypes,
        body: Result<Bytes, CodecError>,
        deadline: Duration,
        is_ordered: bool,
    ) -> Result<Bytes, RPCError<Types>> {
        let request = PeerRequest {
            group: self.group,
            source: self.source,
            target: self.target,
            address: self.address.clone(),
            kind,
            is_ordered,
            body: body.map_err(|error| malformed(&error))?,
        };
        match tokio::time::timeout(deadline, self.transport.send(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ TransportError::Broken { .. })) => {
                Err(RPCError::Network(NetworkError::new(&error)))
            }
            Ok(Err(error)) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.source,
                target: self.target,
                timeout: deadline,
            })),
        }
    }

    /// Sends entries, or a message without any, and waits for the answer.
    ///
    /// `heartbeat_deadline`: it is a heartbeat, if it has no entries, and may overtake what was sent before; openraft's deadline
    /// for it would be missed by entries again and again while a disk is slow for a moment.
    pub async fn append(
        &self,
        request: AppendEntriesRequest<Types>,
        heartbeat_deadline: Option<Duration>,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let vote = request.vote;
        let before = {
            let acknowledged = self.acknowledged();
            if let Some(reverted) = acknowledged.reverted {
                return Err(RPCError::Unreachable(Unreachable::new(&reverted)));
            }
            acknowledged.index(&vote)
        };
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let body = message::encode_append(&request);
        let heartbeat_deadline = heartbeat_deadline.filter(|_| request.entries.is_empty());
        let (deadline, is_ordered) =
            (heartbeat_deadline.unwrap_or(self.append_deadline), heartbeat_deadline.is_none());
        let answer =
            self.request(MessageKind::Append, RPCTypes::AppendEntries, body, deadline, is_ordered).await?;
        let answer = message::decode_append_answer(&answer).map_err(|error| malformed(&error))?;
        self.check(vote, (prev, last), before, &answer).map_err(|reverted| {
            tracing::error!(group = self.group.0, "{reverted}");
            RPCError::Unreachable(Unreachable::new(&reverted))
        })?;
        Ok(answer)
    }

    fn acknowledged(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        // Each change replaces one field, so the value is whole whatever happened to the holder.
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the follower has acknowledged an entry to this leader.
    pub fn has_acknowledged(&self, vote: &Vote, log_id: Option<LogId>) -> bool {
        let index = self.acknowledged().index(vote);
        log_id.is_none_or(|log_id| index >= Some(log_id.index))
    }

    /// Takes note of an answer; `before` is what the follower had acknowledged when it was asked.
    fn check(
        &self,
        vote: Vote,
        (prev, last): (Option<LogId>, Option<LogId>),
        before: Option<u64>,
        answer: &AppendEntriesResponse<Types>,
    ) -> Result<(), Reverted> {
        let mut acknowledged = self.acknowledged();
        let noted = match answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(log_id) => *log_id,
            AppendEntriesResponse::HigherVote(_) => None,
            AppendEntriesResponse::Conflict => {
                // Only what was acknowledged before this was sent: answers may overtake each other.
                if let (Some(acknowledged_index), Some(prev)) = (before, prev)
                    && prev.index <= acknowledged_index
                {
                    let reverted = Reverted {
                        target: self.target,
                        acknowledged: acknowledged_index,
                        denied: prev.index,
                    };
                    acknowledged.reverted = Some(reverted);
                    return Err(reverted);
                }
                None
            }
        };
        if let Some(log_id) = noted {
            acknowledged.note(vote, log_id);
        }
        Ok(())
    }
}

fn malformed(error: &CodecError) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(request, Some(option.soft_ttl())).await
    }

    fn stream_append<S>(
        &mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'_, Result<AppendAnswers<'_>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let answers = pipeline::answers(&*self, input);
        Box::pin(async move { Ok(answers.boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = message::encode_vote(&request);
        let answer = self.call(MessageKind::Vote, RPCTypes::Vote, body, option.soft_ttl()).await?;
        message::decode_vote_answer(&answer).map_err(|error| malformed(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = message::encode_vote(&request);
        let answer = self.call(MessageKind::PreVote, RPCTypes::Vote, body, option.soft_ttl()).await?;
        message::decode_vote_answer(&answer).map_err(|error| malformed(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Stored(stored) = snapshot.snapshot else {
            return Err(StreamingError::Network(NetworkError::new(&FileError::Stopped)));
        };
        let outgoing = self.outgoing.clone();
        let sent = pin!(send::send(self, &outgoing, vote, snapshot.meta, stored, option.soft_ttl()));
        match select(sent, pin!(cancel)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = message::encode_transfer(&request);
        let answer =
            self.call(MessageKind::TransferLeader, RPCTypes::TransferLeader, body, option.soft_ttl()).await?;
        if message::decode_transfer_answer(&answer).map_err(|error| malformed(&error))? {
            Ok(Ok(()))
        } else {
            Err(RPCError::Network(NetworkError::new(&TransferRefused { target: self.target })))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::future::BoxFuture;
    use openraft::EntryPayload;

    use super::super::types::{Batch, Entry, LeaderId};
    use super::*;

    /// Answers append messages with what was prepared.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<AppendEntriesResponse<Types>>>,
    }

    impl PeerTransport for Scripted {
        fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            assert!(message::decode_append(&request.body).is_ok());
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async move {
                match answer {
                    Some(answer) => Ok(message::encode_append_answer(&answer).unwrap()),
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: ReplicaId(1) }, index)
    }

    /// Sends entries after `prev` up to `last` as the leader of a term, and gets this answer.
    async fn append(
        factory: &mut NetworkFactory,
        scripted: &Scripted,
        (term, prev, last): (u64, u64, u64),
        answer: AppendEntriesResponse<Types>,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        scripted.answers.lock().unwrap().push_back(answer);
        let entry = |index| Entry {
            log_id: log_id(index),
            payload: EntryPayload::Normal(Batch(Bytes::from_static(b"batch"))),
        };
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(term, ReplicaId(1)),
            prev_log_id: Some(log_id(prev)),
            entries: (prev + 1..=last).map(entry).collect(),
            leader_commit: None,
        };
        let mut client = factory.new_client(ReplicaId(2), &ReplicaAddress("node-2".into())).await;
        let answer = client.append_entries(request, RPCOption::new(Duration::from_secs(10))).await;
        scripted.answers.lock().unwrap().clear();
        answer
    }

    fn factory() -> (NetworkFactory, Arc<Scripted>) {
        let scripted = Arc::new(Scripted::default());
        (NetworkFactory::new(GroupId(1), ReplicaId(1), scripted.clone(), Duration::from_secs(10)), scripted)
    }

    #[tokio::test]
    async fn a_follower_that_denies_what_it_acknowledged_counts_no_more() {
        let (mut factory, scripted) = factory();
        append(&mut factory, &scripted, (1, 4, 7), AppendEntriesResponse::Success).await.unwrap();
        let denied = append(&mut factory, &scripted, (1, 7, 7), AppendEntriesResponse::Conflict).await;
        assert!(matches!(denied, Err(RPCError::Unreachable(_))));
        let later = append(&mut factory, &scripted, (1, 2, 9), AppendEntriesResponse::Success).await;
        assert!(matches!(later, Err(RPCError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_conflict_beyond_what_was_acknowledged_is_usual() {
        let (mut factory, scripted) = factory();
        let partial = AppendEntriesResponse::PartialSuccess(Some(log_id(5)));
        append(&mut factory, &scripted, (1, 4, 7), partial).await.unwrap();
        let answer = append(&mut factory, &scripted, (1, 6, 7), AppendEntriesResponse::Conflict).await;
        assert_eq!(answer.unwrap(), AppendEntriesResponse::Conflict);
    }

    #[tokio::test]
    async fn a_later_leader_starts_anew() {
        let (mut factory, scripted) = factory();
        append(&mut factory, &scripted, (1, 4, 7), AppendEntriesResponse::Success).await.unwrap();
        let answer = append(&mut factory, &scripted, (2, 7, 8), AppendEntriesResponse::Conflict).await;
        assert_eq!(answer.unwrap(), AppendEntriesResponse::Conflict);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_is_given_up() {
        let (mut factory, _) = factory();
        let mut client = factory.new_client(ReplicaId(2), &ReplicaAddress("node-2".into())).await;
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(1, ReplicaId(1)),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let answer = client.append_entries(request, RPCOption::new(Duration::from_secs(10))).await;
        assert!(matches!(answer, Err(RPCError::Timeout(_))));
    }
}
