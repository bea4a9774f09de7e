//! Owns the clients of a run: tasks that write and read, each for users of its own, and repeat what is not answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::command::{
    Append, AppendResult, Command, Outcome, Refusal, Ttl, Write, WriteResult, WriteTag,
};
use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{GraphId, PartitionId, Sequence, SessionId, SpaceId, UserId};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};
use futures_util::future::join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{Known, Span};
use crate::plan::{NODES, PARTITIONS, TTL_MAX_MS, Weather};
use crate::wire::{Answer, Request, Wire};
use crate::world::{World, lock};

/// The space of all entries.
pub const SPACE: SpaceId = SpaceId(1);

/// The graph of all edges.
pub const GRAPH: GraphId = GraphId(1);

/// Tasks that write.
const TASKS: u64 = 4;

/// How long an attempt waits.
const ATTEMPT: Duration = Duration::from_millis(1_200);

/// The users of a run; a few, where subscriptions are to end and begin all the time.
pub fn users(weather: Weather) -> impl Iterator<Item = UserId> + Clone {
    let most = if weather == Weather::Streams { 8 } else { 24 };
    (1..=most).map(UserId)
}

/// A definition with small bounds, so that feeds pass them.
pub fn space() -> SpaceDefinition {
    let policy = SpacePolicy { feed_cap: 30, pull_threshold: 4, ..SpacePolicy::default() };
    SpaceDefinition {
        id: SPACE,
        name: "posts".to_owned(),
        graph: GRAPH,
        graph_name: "follows".to_owned(),
        version: 1,
        policy,
    }
}

/// Runs all clients to the end of the writes.
pub async fn run(world: Arc<World>) -> turmoil::Result {
    let nobody = Arc::new(|_| -> futures_util::future::BoxFuture<'static, Answer> {
        Box::pin(std::future::ready(Answer::Refused))
    });
    let wire = Wire::start(world.clone(), NODES, nobody).await?;
    for partition in (0..PARTITIONS).map(PartitionId) {
        let task = Task::new(&world, &wire, TASKS);
        let _defined =
            Caller::default().propose(&task, partition, Command::DefineSpace { definition: space() }).await;
    }
    let tasks = (0..TASKS).map(|number| tokio::spawn(Task::new(&world, &wire, number).run()));
    for ended in join_all(tasks).await {
        ended?;
    }
    world.note(format_args!("the clients have ended"));
    Ok(())
}

/// A task that writes for every fourth user.
struct Task {
    world: Arc<World>,
    wire: Arc<Wire>,
    number: u64,
    users: Vec<UserId>,
}

/// Whom a task asks, and as whom.
#[derive(Default)]
struct Caller {
    leaders: [usize; PARTITIONS as usize],
    sessions: [Option<(SessionId, u64)>; PARTITIONS as usize],
}

impl Task {
    fn new(world: &Arc<World>, wire: &Arc<Wire>, number: u64) -> Self {
        let users = users(world.plan.weather).filter(|user| user.0 % TASKS == number).collect();
        Self { world: world.clone(), wire: wire.clone(), number, users }
    }

    async fn run(self) {
        let mut chance = ChaCha8Rng::seed_from_u64(self.world.plan.seed.wrapping_mul(31) + self.number);
        let mut caller = Caller::default();
        let think_ms = if self.world.plan.weather == Weather::Streams { 60 } else { 150 };
        while self.world.now_ms() < self.world.plan.last_write_ms() {
            tokio::time::sleep(Duration::from_millis(chance.random_range(1..think_ms))).await;
            let owner = self.users[chance.random_range(0..self.users.len())];
            let churns = self.world.plan.weather == Weather::Streams;
            match chance.random_range(0..100) {
                0..40 => self.append(&mut caller, &mut chance, owner).await,
                40..55 => self.delete(&mut caller, &mut chance, owner).await,
                55..63 if churns => self.churn(&mut caller, &mut chance, owner).await,
                63..80 if churns => {
                    self.relate(&mut caller, owner, self.other(&mut chance, owner), false).await;
                }
                55..70 => self.relate(&mut caller, owner, self.other(&mut chance, owner), true).await,
                70..75 => self.relate(&mut caller, owner, self.other(&mut chance, owner), false).await,
                _ => self.read(&mut caller, owner).await,
            }
        }
    }

    async fn append(&self, caller: &mut Caller, chance: &mut ChaCha8Rng, owner: UserId) {
        let number = {
            let mut model = lock(&self.world.model);
            model.writes += 1;
            model.writes
        };
        let payload = Bytes::from(format!("{number}"));
        let ttl_ms = chance.random_bool(0.3).then(|| chance.random_range(5_000..TTL_MAX_MS));
        let item = Append {
            space: SPACE,
            owner,
            author: None,
            audience: Audience::Public,
            ttl: ttl_ms.map_or(Ttl::SpaceDefault, |ttl_ms| Ttl::Ms { ttl_ms }),
            key: None,
            reference: None,
            payload: payload.clone(),
        };
        let from_ms = self.world.now_ms();
        let result = caller.write(self, owner, Write::Append { items: vec![item] }).await;
        let made = Span { from_ms, to_ms: self.world.now_ms() };
        let WriteResult::Appended { items } = &result else { return self.odd("an append", &result) };
        let [AppendResult::Made { id, duplicate: false }] = items[..] else {
            return self.odd("an append", &result);
        };
        let known = Known { owner, payload, made, ttl_ms, is_deleted: false, is_gone: false };
        if let Some(other) = lock(&self.world.model).entries.insert(id, known) {
            self.world.violate(format!("{id:?} was given twice; before to {other:?}"));
        }
    }

    async fn delete(&self, caller: &mut Caller, chance: &mut ChaCha8Rng, owner: UserId) {
        let live = lock(&self.world.model).live_of(owner);
        // Mostly one of the newest.
        let Some(id) = live.iter().rev().nth(chance.random_range(0..4)).copied() else { return };
        let result = caller.write(self, owner, Write::Delete { space: SPACE, owner, id }).await;
        let mut model = lock(&self.world.model);
        model.writes += 1;
        let Some(known) = model.entries.get_mut(&id) else { return };
        known.is_deleted = true;
        let may_have_expired = known.ttl_ms.is_some();
        drop(model);
        match result {
            WriteResult::Deleted { existed: true } => {}
            WriteResult::Deleted { existed: false } if may_have_expired => {}
            other => self.odd(&format!("the first delete of {id:?}"), &other),
        }
    }

    /// Another user.
    fn other(&self, chance: &mut ChaCha8Rng, user: UserId) -> UserId {
        let others: Vec<UserId> = users(self.world.plan.weather).filter(|other| *other != user).collect();
        others[chance.random_range(0..others.len())]
    }

    /// A follow that ends at once and begins again a little later: the answer to the first one may come behind both.
    async fn churn(&self, caller: &mut Caller, chance: &mut ChaCha8Rng, reader: UserId) {
        let owner = self.other(chance, reader);
        self.relate(caller, reader, owner, true).await;
        self.relate(caller, reader, owner, false).await;
        tokio::time::sleep(Duration::from_millis(chance.random_range(100..500))).await;
        self.relate(caller, reader, owner, true).await;
    }

    async fn relate(&self, caller: &mut Caller, reader: UserId, owner: UserId, follow: bool) {
        let owners = vec![owner];
        let write = if follow {
            Write::Follow { graph: GRAPH, reader, owners }
        } else {
            Write::Unfollow { graph: GRAPH, reader, owners }
        };
        let result = caller.write(self, reader, write).await;
        let mut model = lock(&self.world.model);
        model.writes += 1;
        let pair = (reader, owner);
        let changes = if follow { model.follows.insert(pair) } else { model.follows.remove(&pair) };
        drop(model);
        if result != (WriteResult::Related { changed: u32::from(changes), refused: Vec::new() }) {
            self.odd(&format!("follow {follow} of {pair:?}, which changes {changes},"), &result);
        }
    }

    async fn read(&self, caller: &mut Caller, owner: UserId) {
        let partition = PartitionId::of_user(owner, PARTITIONS);
        loop {
            let from_ms = self.world.now_ms();
            let answer = caller.ask(self, partition, Request::Timeline { partition, owner }).await;
            let asked = Span { from_ms, to_ms: self.world.now_ms() };
            let Answer::Timeline(found) = answer else { continue };
            let wrong = lock(&self.world.model).check_timeline(owner, asked, &found);
            wrong.into_iter().for_each(|what| self.world.violate(what));
            return;
        }
    }

    fn odd(&self, what: &str, result: &WriteResult) {
        self.world.violate(format!("{what} was answered {result:?}"));
    }
}

impl Caller {
    /// Asks until somebody who leads answers.
    async fn ask(&mut self, task: &Task, partition: PartitionId, request: Request) -> Answer {
        let leader = &mut self.leaders[usize::from(partition.0)];
        loop {
            match task.wire.ask(*leader, request.clone(), ATTEMPT).await {
                None | Some(Answer::Refused) => {
                    *leader = (*leader + 1) % NODES;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                Some(answer) => return answer,
            }
        }
    }

    async fn propose(&mut self, task: &Task, partition: PartitionId, command: Command) -> Outcome {
        loop {
            let asked = Request::Propose { partition, command: command.clone() };
            if let Answer::Proposed(outcome) = self.ask(task, partition, asked).await {
                task.world.note(format_args!("client {} was answered {outcome:?}", task.number));
                return outcome;
            }
        }
    }

    /// Writes in the session of the user's partition, which is opened first if there is none.
    async fn write(&mut self, task: &Task, user: UserId, write: Write) -> WriteResult {
        let partition = PartitionId::of_user(user, PARTITIONS);
        let at = usize::from(partition.0);
        if self.sessions[at].is_none()
            && let Outcome::Session { session } = self.propose(task, partition, Command::OpenSession).await
        {
            self.sessions[at] = Some((session, 0));
        }
        let Some((session, last)) = &mut self.sessions[at] else {
            task.world.violate("a session was not opened".to_owned());
            return std::future::pending().await;
        };
        *last += 1;
        let sequence = Sequence(*last);
        let tag = WriteTag { session: *session, sequence, lowest_unanswered: sequence };
        match self.propose(task, partition, Command::Write { tag, write: write.clone() }).await {
            Outcome::Written { result, .. } => result,
            // An entry that has expired cannot be deleted.
            Outcome::Refused { refusal: Refusal::NotFound } if matches!(write, Write::Delete { .. }) => {
                WriteResult::Deleted { existed: false }
            }
            other => {
                task.world.violate(format!("{write:?} was answered {other:?}"));
                std::future::pending().await
            }
        }
    }
}
