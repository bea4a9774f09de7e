//! Owns sending a workload's operations: many in flight, and still with the effect of one after the other.
//!
//! - At most `window` operations are under way; the schedule says which of them may be sent now.
//! - Answers are given to the mirror in the order of the run.
//! - The first operation that fails ends the run: with an unknown outcome no comparison has a meaning. The client has
//!   repeated it by then, under its session and sequence, for as long as its deadline allows.

use std::collections::HashMap;
use std::time::Duration;

use fanfold_client::Error as ClientError;
use fanfold_protocol::message::EntryRef;
use fanfold_protocol::{EntryId, UserId};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep_until};

use super::access::Access;
use super::answer::Answer;
use super::error::WorkloadError;
use super::mirror::Mirror;
use super::operation::{AppendNumber, Made, Operation, Post, Relation};
use super::schedule::{Place, Schedule};

type Sent = BoxFuture<'static, Result<Answer, ClientError>>;

/// Sends operations and mirrors their answers.
#[derive(Debug)]
pub struct Driver {
    access: Access,
    window: usize,
    schedule: Schedule<Answer>,
    made: HashMap<AppendNumber, EntryId>,
    /// Between two operations, if they come at a steady pace.
    pace: Option<Duration>,
}

impl Driver {
    /// One with at most `window` operations under way, at least one.
    pub fn new(access: Access, window: usize) -> Self {
        assert!(window > 0, "something must be under way");
        Self { access, window, schedule: Schedule::default(), made: HashMap::new(), pace: None }
    }

    /// From now on operations come at a steady pace, with so much time between two, however long they take; as far as the
    /// window allows.
    pub fn set_pace(&mut self, between: Option<Duration>) {
        self.pace = between;
    }

    /// Sends all operations and waits for their answers. May be called again with the rest of a run.
    pub async fn run(
        &mut self,
        operations: impl IntoIterator<Item = Operation>,
        mirror: &mut Mirror,
        progress: &ProgressBar,
    ) -> Result<(), WorkloadError> {
        let mut operations = operations.into_iter().fuse();
        let mut under_way = FuturesUnordered::new();
        let (mut next_at, mut is_over) = (Instant::now(), false);
        loop {
            while self.schedule.len() < self.window && self.pace.is_none_or(|_| next_at <= Instant::now()) {
                let Some(operation) = operations.next() else {
                    is_over = true;
                    break;
                };
                self.schedule.admit(operation);
                next_at += self.pace.unwrap_or_default();
            }
            while let Some((place, number, operation)) = self.schedule.next_ready() {
                let sent = send(&self.access, &self.made, operation);
                under_way.push(async move { (place, number, sent.await) });
            }
            let may_admit = self.pace.is_some() && !is_over && self.schedule.len() < self.window;
            let answered = tokio::select! {
                Some(answered) = under_way.next() => answered,
                () = sleep_until(next_at), if may_admit => continue,
                else => {
                    assert!(self.schedule.is_empty(), "an operation waits only for earlier ones");
                    return Ok(());
                }
            };
            let (place, number, outcome) = answered;
            self.complete(place, number, outcome)?;
            while let Some((operation, answer)) = self.schedule.pop_finished() {
                mirror.apply(operation, answer);
                progress.inc(1);
            }
        }
    }

    fn complete(
        &mut self,
        place: Place,
        number: Option<AppendNumber>,
        outcome: Result<Answer, ClientError>,
    ) -> Result<(), WorkloadError> {
        let answer = outcome.map_err(|source| self.failed(place, source))?;
        if let (Some(number), Answer::Appended(id)) = (number, &answer) {
            self.made.insert(number, *id);
        }
        self.schedule.complete(place, answer);
        Ok(())
    }

    fn failed(&self, place: Place, source: ClientError) -> WorkloadError {
        let (kind, user) = describe(self.schedule.operation(place));
        WorkloadError::Operation { place, kind, user, source }
    }
}

fn send(access: &Access, made: &HashMap<AppendNumber, EntryId>, operation: &Operation) -> Sent {
    let id = |entry: &Made| made[&entry.by];
    match operation {
        Operation::Append(post) => append(access, post, post.reference.as_ref().map(id)),
        Operation::Amend { entry, version, payload } => {
            let call = access.space.amend(entry.owner, id(entry), *version, payload.clone()).into_future();
            Box::pin(async move { call.await.map(|amended| Answer::Amended(amended.version)) })
        }
        Operation::Delete { entry } => {
            let call = access.space.delete(entry.owner, id(entry)).into_future();
            Box::pin(async move { call.await.map(|deleted| Answer::Deleted { existed: deleted.existed }) })
        }
        Operation::Follow { reader, owners } => related(access.graph.follow_many(*reader, owners.as_slice())),
        Operation::Unfollow { reader, owner } => related(access.graph.unfollow(*reader, *owner)),
        Operation::Relate { user, target, change } => related(match change {
            Relation::Mute => access.client.mute(*user, *target),
            Relation::Unmute => access.client.unmute(*user, *target),
            Relation::Block => access.client.block(*user, *target),
            Relation::Unblock => access.client.unblock(*user, *target),
        }),
    }
}

fn append(access: &Access, post: &Post, reference: Option<EntryId>) -> Sent {
    let mut append = access.space.append(post.owner, post.payload.clone()).audience(post.audience);
    if let Some(author) = post.author {
        append = append.author(author);
    }
    if let (Some(made), Some(id)) = (post.reference, reference) {
        append = append.refer_to(EntryRef { owner: made.owner, id });
    }
    let call = append.into_future();
    Box::pin(async move { call.await.map(|appended| Answer::Appended(appended.id)) })
}

fn related(call: fanfold_client::Call<fanfold_client::Related>) -> Sent {
    let call = call.into_future();
    Box::pin(async move {
        call.await.map(|related| {
            let mut refused = related.refused;
            refused.sort_unstable();
            Answer::Related { changed: related.changed, refused }
        })
    })
}

fn describe(operation: &Operation) -> (&'static str, UserId) {
    match operation {
        Operation::Append(post) => ("append", post.owner),
        Operation::Amend { entry, .. } => ("amend", entry.owner),
        Operation::Delete { entry } => ("delete", entry.owner),
        Operation::Follow { reader, .. } => ("follow", *reader),
        Operation::Unfollow { reader, .. } => ("unfollow", *reader),
        Operation::Relate { user, change, .. } => (
            match change {
                Relation::Mute => "mute",
                Relation::Unmute => "unmute",
                Relation::Block => "block",
                Relation::Unblock => "unblock",
            },
            *user,
        ),
    }
}
