//! Owns the append messages under way to one follower: several at a time, so that it writes one while the next is coming.
//!
//! - They are handed over and written in their order, those without entries too: one that overtakes others would name a
//!   predecessor that is not there yet. Heartbeats, which may overtake, do not come this way.
//! - Their answers are given on in the same order, and nothing after one that is not a full success: what follows it
//!   names a predecessor that the follower does not have.
//! - One that overtook another all the same finds no predecessor. Its conflict is not given on as the follower's answer:
//!   Raft would take it for a log that lost what it had.
//! - How many are under way is bounded, in number and bytes.

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};

use super::network::Connection;
use super::types::{LogId, Payload, Types, Vote};

/// Messages under way. Further entries gather meanwhile and go together.
const MESSAGES_MAX: usize = 4;

/// Bytes of entries under way; a message beyond is sent only while nothing else is.
const BYTES_MAX: usize = 2 << 20;

/// A message without the one before it.
#[derive(Debug, thiserror::Error)]
#[error("an append message came before the one ahead of it")]
struct Overtaken;

/// A message under way.
struct Answered {
    vote: Vote,
    /// Before and at its last entry.
    range: (Option<LogId>, Option<LogId>),
    bytes: usize,
    result: Result<AppendEntriesResponse<Types>, RPCError<Types>>,
}

/// The messages to one follower.
struct Pipeline<'s, S> {
    connection: &'s Connection,
    /// None once there are no further ones.
    input: Option<S>,
    under_way: FuturesOrdered<BoxFuture<'s, Answered>>,
    bytes: usize,
}

/// Sends what comes out of `input`, and gives the answers.
pub(super) fn answers<'s, S>(
    connection: &'s Connection,
    input: S,
) -> impl Stream<Item = Result<StreamAppendResult<Types>, RPCError<Types>>> + 's
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin + 's,
{
    let under_way = FuturesOrdered::new();
    let pipeline = Pipeline { connection, input: Some(input), under_way, bytes: 0 };
    futures_util::stream::unfold(Some(pipeline), |pipeline| async {
        let mut pipeline = pipeline?;
        let Answered { vote, range: (prev, last), bytes, result } = pipeline.next().await?;
        pipeline.bytes -= bytes;
        let result = match result {
            Ok(AppendEntriesResponse::Conflict) if pipeline.connection.has_acknowledged(&vote, prev) => {
                Err(RPCError::Network(NetworkError::new(&Overtaken)))
            }
            result => result,
        };
        let is_whole = match &result {
            Ok(AppendEntriesResponse::Success) => true,
            Ok(AppendEntriesResponse::PartialSuccess(matching)) => *matching == last,
            _ => false,
        };
        let answer = result.map(|answer| answer.into_stream_result(prev, last));
        Some((answer, is_whole.then_some(pipeline)))
    })
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipeline<'_, S> {
    /// The next answer; sends meanwhile. None when everything is answered.
    async fn next(&mut self) -> Option<Answered> {
        loop {
            let has_room = self.under_way.len() < MESSAGES_MAX && self.bytes < BYTES_MAX;
            let Some(input) = self.input.as_mut().filter(|_| has_room) else {
                return self.under_way.next().await;
            };
            tokio::select! {
                biased;
                // Polled before the next message comes in, so that each is handed over in its turn.
                Some(answered) = self.under_way.next() => return Some(answered),
                request = input.next() => match request {
                    Some(request) => self.send(request),
                    None => self.input = None,
                },
            }
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<Types>) {
        let (vote, prev) = (request.vote, request.prev_log_id);
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let size = |payload: &Payload| if let Payload::Normal(batch) = payload { batch.0.len() } else { 0 };
        let bytes = request.entries.iter().map(|entry| size(&entry.payload)).sum();
        self.bytes += bytes;
        let connection = self.connection;
        self.under_way.push_back(Box::pin(async move {
            let result = connection.append(request, None).await;
            Answered { vote, range: (prev, last), bytes, result }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use fanfold_storage::log::GroupId;
    use futures_util::FutureExt;
    use openraft::RaftNetworkFactory;
    use tokio::sync::oneshot;

    use super::super::message;
    use super::super::network::NetworkFactory;
    use super::super::transport::{PeerRequest, PeerTransport, TransportError};
    use super::super::types::{Batch, Entry, LeaderId, ReplicaAddress, ReplicaId};
    use super::*;

    type AnswerTo = oneshot::Sender<AppendEntriesResponse<Types>>;

    /// A message, whether it may not overtake, and who waits for its answer.
    type Asked = (AppendEntriesRequest<Types>, bool, Option<AnswerTo>);

    /// Keeps what was handed over, to be answered by the test.
    #[derive(Default)]
    struct Follower(Mutex<Vec<Asked>>);

    impl PeerTransport for Follower {
        fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            let (answer, answered) = oneshot::channel();
            let message = message::decode_append(&request.body).unwrap();
            self.0.lock().unwrap().push((message, request.is_ordered, Some(answer)));
            let PeerRequest { target, address, .. } = request;
            Box::pin(async move {
                let answer = answered.await.map_err(|_| TransportError::Broken { target, address })?;
                Ok(message::encode_append_answer(&answer).unwrap())
            })
        }
    }

    impl Follower {
        /// The predecessor and the number of entries of each message so far.
        fn messages(&self) -> Vec<(u64, usize)> {
            let messages = self.0.lock().unwrap();
            messages
                .iter()
                .map(|(request, ..)| (request.prev_log_id.unwrap().index, request.entries.len()))
                .collect()
        }

        fn answer(&self, at: usize, answer: AppendEntriesResponse<Types>) {
            self.0.lock().unwrap()[at].2.take().unwrap().send(answer).unwrap();
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: ReplicaId(1) }, index)
    }

    /// A message with entries of so many bytes after `prev`.
    fn message(prev: u64, entries: u64, bytes: usize) -> AppendEntriesRequest<Types> {
        let batch = Bytes::from(vec![7; bytes]);
        let entry = |index| Entry { log_id: log_id(index), payload: Payload::Normal(Batch(batch.clone())) };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, ReplicaId(1)),
            prev_log_id: Some(log_id(prev)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
            leader_commit: None,
        }
    }

    async fn connection() -> (Connection, Arc<Follower>) {
        let follower = Arc::new(Follower::default());
        let mut factory =
            NetworkFactory::new(GroupId(1), ReplicaId(1), follower.clone(), Duration::from_secs(60));
        (factory.new_client(ReplicaId(2), &ReplicaAddress("node-2".into())).await, follower)
    }

    #[tokio::test]
    async fn messages_go_before_earlier_ones_are_answered_and_answers_come_in_order() {
        let (connection, follower) = connection().await;
        // The third has no entries: it tells what is committed, and must not overtake the others.
        let input =
            [message(4, 2, 1), message(6, 1, 1), message(7, 0, 1), message(7, 3, 1), message(10, 1, 1)];
        let mut answers = Box::pin(answers(&connection, futures_util::stream::iter(input)));
        assert!(answers.next().now_or_never().is_none());
        assert_eq!(follower.messages(), [(4, 2), (6, 1), (7, 0), (7, 3)], "no more than four");
        assert!(follower.0.lock().unwrap().iter().all(|(_, is_ordered, _)| *is_ordered));
        follower.answer(1, AppendEntriesResponse::Success);
        assert!(answers.next().now_or_never().is_none(), "the first is not answered");
        follower.answer(0, AppendEntriesResponse::Success);
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), Some(log_id(6)));
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), Some(log_id(7)));
        assert!(answers.next().now_or_never().is_none());
        assert_eq!(follower.messages().len(), 5);
        (2..5).for_each(|at| follower.answer(at, AppendEntriesResponse::Success));
        let rest: Vec<_> = answers.map(|answer| answer.unwrap().unwrap().unwrap().index).collect().await;
        assert_eq!(rest, [7, 10, 11]);
    }

    #[tokio::test]
    async fn nothing_comes_after_an_answer_that_is_no_full_success() {
        for answer in
            [AppendEntriesResponse::Conflict, AppendEntriesResponse::PartialSuccess(Some(log_id(5)))]
        {
            let (connection, follower) = connection().await;
            let input = [message(4, 2, 1), message(6, 1, 1)];
            let mut answers = Box::pin(answers(&connection, futures_util::stream::iter(input)));
            assert!(answers.next().now_or_never().is_none());
            follower.answer(0, answer);
            follower.answer(1, AppendEntriesResponse::Success);
            assert!(answers.next().await.is_some());
            assert!(answers.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_message_that_overtook_another_says_nothing_of_the_log() {
        let (connection, follower) = connection().await;
        let input = [message(4, 2, 1), message(6, 1, 1)];
        let mut answers = Box::pin(answers(&connection, futures_util::stream::iter(input)));
        assert!(answers.next().now_or_never().is_none());
        follower.answer(1, AppendEntriesResponse::Conflict);
        assert!(answers.next().now_or_never().is_none());
        follower.answer(0, AppendEntriesResponse::Success);
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), Some(log_id(6)));
        assert!(matches!(answers.next().await, Some(Err(RPCError::Network(_)))));
        assert!(answers.next().await.is_none(), "it begins anew");
    }

    #[tokio::test]
    async fn many_bytes_wait_for_those_under_way() {
        let (connection, follower) = connection().await;
        let input = [message(4, 1, BYTES_MAX), message(5, 1, 1)];
        let mut answers = Box::pin(answers(&connection, futures_util::stream::iter(input)));
        assert!(answers.next().now_or_never().is_none());
        assert_eq!(follower.messages(), [(4, 1)]);
        follower.answer(0, AppendEntriesResponse::Success);
        assert!(answers.next().await.is_some());
        assert!(answers.next().now_or_never().is_none());
        assert_eq!(follower.messages(), [(4, 1), (5, 1)]);
    }
}
