//! Owns the asking of other partitions: one call per node and round, each bounded and with a deadline.
//!
//! - A partition whose leader is here is asked under its read lock; the others by one call to each node that leads any.
//! - A node that does not lead says who does, and is believed a few times; then, or without an answer by the deadline,
//!   the partition counts as unreachable, and whoever asked says so (R15).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};
use fanfold_storage::partition::RemoteSource;
use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep, timeout_at};

use super::kept::KeptEntries;
use super::question::{
    Question, Reply, WAIT_MAX, decode_questions, decode_replies, encode_questions, encode_replies,
};
use crate::error::NodeError;
use crate::map::group_of;
use crate::partition::{Hosted, PartitionHandle, Partitions};
use crate::peer::{PeerAnswer, PeerCall, PeerRefusal};
use crate::phases::Phases;

/// How long one round of a read waits for what it asked.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a question that waits may take in all.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a wait goes on without an answer: longer than it takes to find a new leader.
const WAIT_PATIENCE: Duration = Duration::from_secs(10);

/// How long it pauses before it asks again.
const WAIT_PAUSE: Duration = Duration::from_millis(50);

/// How many nodes are believed to lead a partition, one after another, in one round.
const ATTEMPTS: usize = 3;

/// About the most bytes of payloads that one round brings.
const ENTRIES_BYTES_MAX: usize = 8 << 20;

/// Entries by id, as far as they were asked for.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Those that are there.
    pub found: BTreeMap<EntryId, Entry>,
    /// Homes that did not answer.
    pub unreachable: Vec<PartitionId>,
    /// Those that were not asked for any more.
    pub left: BTreeSet<EntryId>,
}

/// The partitions of the cluster as a read asks them.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    partitions: &'a Arc<Partitions>,
    /// How old answers may be, if they may be old.
    age_max: Option<Duration>,
    /// Partitions of which it is known already whether a replica here answers as it is.
    settled: Option<&'a BTreeMap<PartitionId, bool>>,
}

/// Which entries of which owners are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnersQuery {
    /// The space.
    pub space: SpaceId,
    /// For whose feed.
    pub reader: UserId,
    /// Only ids at or above it.
    pub from: EntryId,
    /// At most so many entries of each partition.
    pub limit: usize,
}

/// What the owners' partitions have.
#[derive(Debug, Default)]
pub(super) struct OwnersAnswer {
    /// The entries.
    pub deliveries: Vec<Delivery>,
    /// With ids at or above it, these are all.
    pub bound: EntryId,
    /// Partitions that did not answer, each with the bound below which it was asked.
    pub unreachable: BTreeMap<PartitionId, EntryId>,
}

/// Who is asked about a partition.
enum Target {
    Here(Arc<PartitionHandle>),
    /// A replica here whose state is not too old.
    AsIs(Arc<PartitionHandle>),
    Node(u64),
    Nobody(NodeError),
}

/// What came of each question, in the order asked.
type Answers = Vec<(PartitionId, Result<Reply, NodeError>)>;

impl<'a> Asker<'a> {
    /// Asks these partitions, by number.
    pub fn new(partitions: &'a Arc<Partitions>) -> Self {
        Self { partitions, age_max: None, settled: None }
    }

    /// Takes answers of replicas here that are at most so old.
    pub fn not_older_than(self, age_max: Option<Duration>) -> Self {
        Self { age_max, ..self }
    }

    /// Takes answers of those replicas here that are named with true, and of none that is named with false.
    pub fn settled(self, settled: &'a BTreeMap<PartitionId, bool>) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// The number of partitions.
    fn count(self) -> u16 {
        self.partitions.count()
    }

    /// The partition of this number, if it is here; whether it answers for everything is the caller's to see.
    pub fn hosted(self, id: PartitionId) -> Option<Hosted> {
        self.partitions.hosted(id)
    }

    /// Entries of partitions on other nodes that are often read here.
    pub fn kept(self) -> &'a KeptEntries {
        self.partitions.kept()
    }

    /// Waits until a replica here has everything that was answered longer than `age_max` before now.
    pub async fn freshen(self, partition: &PartitionHandle, age_max: Duration) -> Result<(), NodeError> {
        if partition.is_confirmed() {
            return Ok(());
        }
        let came = Instant::now();
        let known = partition.freshness().confirmed();
        let age = known.map(|(asked, _)| came.saturating_duration_since(asked));
        if let (Some((_, index)), Some(age)) = (known, age.filter(|age| *age <= age_max)) {
            if let Some(_renewal) = partition.freshness().renewal(age, age_max)
                && self.confirm_age(partition).await.is_err()
            {
                tracing::debug!(partition = partition.id().0, "the age of a replica was not renewed");
            }
            return partition.wait_applied(index).await;
        }
        self.confirm_age(partition).await?;
        match partition.freshness().confirmed() {
            Some((_, index)) => partition.wait_applied(index).await,
            None => Err(unavailable(partition.id())),
        }
    }

    /// Asks the leader of a replica here for its index.
    async fn confirm_age(self, partition: &PartitionHandle) -> Result<(), NodeError> {
        let id = partition.id();
        let ask = async || {
            let asker = Asker::new(self.partitions);
            match Box::pin(asker.ask_one(id, Question::Index)).await? {
                Reply::Index { index } => Ok(index),
                _ => Err(unavailable(id)),
            }
        };
        partition.freshness().confirm(ask).await
    }

    /// Where is noted how long things take.
    pub fn phases(self) -> &'a Phases {
        self.partitions.phases()
    }

    /// The home of a user.
    pub fn home_of(self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.count())
    }

    /// The home of a user, if it is here, which answers from now on for everything that was answered before.
    pub async fn confirmed_home(self, user: UserId) -> Result<Arc<PartitionHandle>, NodeError> {
        let home = self.partitions.get(self.home_of(user))?;
        home.confirm().await?;
        Ok(home)
    }

    /// Asks one partition.
    pub async fn ask_one(self, id: PartitionId, question: Question) -> Result<Reply, NodeError> {
        let mut answers = self.ask(vec![(id, question)]).await;
        answers.pop().map_or_else(|| Err(unavailable(id)), |(_, answer)| answer)
    }

    /// Asks one partition, once, for something that takes time.
    pub async fn ask_for_long(self, id: PartitionId, question: Question) -> Result<Reply, NodeError> {
        let mut answers = self.ask_within(vec![(id, question)], WAIT_TIMEOUT).await;
        answers.pop().map_or_else(|| Err(unavailable(id)), |(_, answer)| answer)
    }

    /// Asks for something that takes time, again until it has come. While nobody leads the partition, or its node cannot be
    /// reached, it is asked again for a while.
    pub async fn wait(self, id: PartitionId, question: Question) -> Result<Reply, NodeError> {
        let mut answered_at = Instant::now();
        loop {
            let mut answers = self.ask_within(vec![(id, question.clone())], WAIT_TIMEOUT).await;
            match answers.pop() {
                Some((_, Ok(Reply::NotYet))) => answered_at = Instant::now(),
                Some((_, Err(error))) if error.is_retryable() && answered_at.elapsed() < WAIT_PATIENCE => {
                    sleep(WAIT_PAUSE).await;
                }
                Some((_, answer)) => return answer,
                None => return Err(unavailable(id)),
            }
        }
    }

    /// Asks every partition the same thing that takes time, again until it has come; what each answered.
    pub async fn wait_everywhere(self, question: &Question) -> Result<Vec<Reply>, NodeError> {
        let all = (0..self.count()).map(|n| self.wait(PartitionId(n), question.clone()));
        join_all(all).await.into_iter().collect()
    }

    /// Asks partitions, all at once.
    pub(super) async fn ask(self, questions: Vec<(PartitionId, Question)>) -> Answers {
        self.ask_within(questions, ROUND_TIMEOUT).await
    }

    async fn ask_within(self, questions: Vec<(PartitionId, Question)>, within: Duration) -> Answers {
        let deadline = Instant::now() + within;
        let fresh = self.fresh_here(&questions, deadline).await;
        let mut answers: Vec<Result<Reply, NodeError>> =
            questions.iter().map(|(id, _)| Err(unavailable(*id))).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        // Whom the last answer named.
        let mut named: BTreeMap<usize, u64> = BTreeMap::new();
        for _ in 0..ATTEMPTS {
            let mut here = Vec::new();
            let mut there: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for n in std::mem::take(&mut open) {
                let id = questions[n].0;
                let target = fresh.get(&id).map(|partition| Target::AsIs(partition.clone()));
                match target.unwrap_or_else(|| self.target(id, named.remove(&n))) {
                    Target::Here(partition) => here.push((n, partition, false)),
                    Target::AsIs(partition) => here.push((n, partition, true)),
                    Target::Node(node) => there.entry(node).or_default().push(n),
                    Target::Nobody(error) => answers[n] = Err(error),
                }
            }
            let questions = &questions;
            let here = join_all(here.into_iter().map(|(n, partition, as_is)| async move {
                let (id, question) = &questions[n];
                if as_is {
                    return (n, question.answer_as_is(&partition).await);
                }
                let answer = timeout_at(deadline, question.answer(&partition)).await;
                (n, answer.unwrap_or_else(|_| Err(unavailable(*id))))
            }));
            let there = join_all(there.into_iter().map(|(node, asked)| async move {
                let answered = self.ask_node(node, asked.iter().map(|n| &questions[*n]), deadline).await;
                asked.into_iter().zip(answered).collect::<Vec<_>>()
            }));
            let (here, there) = join(here, there).await;
            for (n, answer) in here.into_iter().chain(there.into_iter().flatten()) {
                if let Err(NodeError::NotLeader { leader: Some(leader) }) = &answer {
                    named.insert(n, leader.node);
                    open.push(n);
                }
                answers[n] = answer;
            }
            if open.is_empty() || Instant::now() >= deadline {
                break;
            }
        }
        questions.into_iter().map(|(id, _)| id).zip(answers).collect()
    }

    /// The replicas here whose state is not too old for what is asked; of the others the leaders are asked.
    async fn fresh_here(
        self,
        questions: &[(PartitionId, Question)],
        deadline: Instant,
    ) -> BTreeMap<PartitionId, Arc<PartitionHandle>> {
        if self.age_max.is_none() && self.settled.is_none() {
            return BTreeMap::new();
        }
        let ids: BTreeSet<PartitionId> = questions.iter().map(|(id, _)| *id).collect();
        let here = ids.into_iter().filter_map(|id| self.partitions.get(id).ok());
        let freshened = join_all(here.map(|partition| async move {
            let settled = self.settled.and_then(|settled| settled.get(&partition.id()).copied());
            let is_fresh = match (settled, self.age_max) {
                (Some(settled), _) => settled,
                (None, None) => false,
                (None, Some(age_max)) => {
                    matches!(timeout_at(deadline, self.freshen(&partition, age_max)).await, Ok(Ok(())))
                }
            };
            is_fresh.then(|| (partition.id(), partition))
        }));
        freshened.await.into_iter().flatten().collect()
    }

    /// Who leads a partition: whoever was named, else this node, else who is known to.
    fn target(self, id: PartitionId, named: Option<u64>) -> Target {
        let own = self.partitions.own_node();
        let hosted = self.partitions.get(id);
        let node = match (&hosted, named) {
            (Ok(partition), _) if partition.is_confirmed() || partition.group().is_leader() => None,
            (_, Some(named)) => Some(named),
            (Err(NodeError::NotLeader { leader }), None) => leader.as_ref().map(|leader| leader.node),
            (Err(_), None) => None,
            (Ok(partition), None) => partition.known_leader().map(|leader| leader.node),
        };
        match (hosted, node) {
            (_, Some(node)) if Some(node) != own => Target::Node(node),
            (Ok(partition), _) => Target::Here(partition),
            (Err(error), _) => Target::Nobody(error),
        }
    }

    /// Asks the partitions that a node leads; as many answers as questions.
    async fn ask_node<'q>(
        self,
        node: u64,
        questions: impl ExactSizeIterator<Item = &'q (PartitionId, Question)> + Clone,
        deadline: Instant,
    ) -> Vec<Result<Reply, NodeError>> {
        let all = |refusal: &PeerRefusal| -> Vec<Result<Reply, NodeError>> {
            questions.clone().map(|(id, _)| Err(self.refused(*id, node, refusal))).collect()
        };
        let gone = PeerRefusal::Unavailable { may_have_applied: false };
        let Some(network) = self.partitions.network() else { return all(&gone) };
        let body = encode_questions(questions.clone().map(|(id, question)| (*id, question)));
        let left = deadline.saturating_duration_since(Instant::now());
        let replies = match network.call(node, PeerCall::Ask(body), left).await {
            Ok(PeerAnswer::Replies(bytes)) => match decode_replies(&bytes, questions.len()) {
                Ok(replies) => replies,
                Err(error) => {
                    tracing::warn!(node, %error, "a node answered a read with something else");
                    return all(&gone);
                }
            },
            Ok(_) => return all(&gone),
            Err(error) => {
                tracing::debug!(node, %error, "a node did not answer a read");
                return all(&gone);
            }
        };
        let answer = |((id, _), reply): (&(PartitionId, Question), Reply)| match reply {
            Reply::Failed { refusal } => Err(self.refused(*id, node, &refusal)),
            reply => Ok(reply),
        };
        questions.zip(replies).map(answer).collect()
    }

    fn refused(self, id: PartitionId, node: u64, refusal: &PeerRefusal) -> NodeError {
        let whereabouts = self.partitions.whereabouts();
        if matches!(refusal, PeerRefusal::NotLeader { .. } | PeerRefusal::NotHosted) {
            whereabouts.leaders.forget(group_of(Some(id)), node);
        }
        refusal.to_node_error(id, whereabouts)
    }

    /// The newest entries of many owners, whatever homes they have.
    pub(super) async fn owners(self, query: OwnersQuery, sources: &[RemoteSource]) -> OwnersAnswer {
        let mut by_home: BTreeMap<PartitionId, Vec<(UserId, EntryId)>> = BTreeMap::new();
        for source in sources {
            by_home.entry(self.home_of(source.owner)).or_default().push((source.owner, source.below));
        }
        let highest = |sources: &[(UserId, EntryId)]| sources.iter().map(|s| s.1).max().unwrap_or_default();
        let tops: BTreeMap<_, _> = by_home.iter().map(|(id, sources)| (*id, highest(sources))).collect();
        let OwnersQuery { space, reader, from, limit } = query;
        let limit = limit as u32;
        let question = |sources| Question::Newest { space, reader, from, limit, sources };
        let questions = by_home.into_iter().map(|(id, sources)| (id, question(sources))).collect();
        let mut all = OwnersAnswer::default();
        for (id, answer) in self.ask(questions).await {
            match answer {
                Ok(Reply::Newest { deliveries, bound }) => {
                    all.deliveries.extend(deliveries);
                    all.bound = all.bound.max(bound);
                }
                Ok(_) => {
                    all.unreachable.insert(id, tops[&id]);
                }
                Err(error) => {
                    tracing::debug!(partition = id.0, %error, "a partition did not answer a read");
                    all.unreachable.insert(id, tops[&id]);
                }
            }
        }
        all
    }

    /// Entries by id, from the home that is named for each, of each home in the order they come: all of them, or until about
    /// `bytes_max` bytes of payloads are there.
    pub(super) async fn entries(
        self,
        ids: impl IntoIterator<Item = (PartitionId, EntryId)>,
        bytes_max: usize,
    ) -> Gathered {
        let mut by_home: BTreeMap<PartitionId, Vec<EntryId>> = BTreeMap::new();
        for (home, id) in ids {
            by_home.entry(home).or_default().push(id);
        }
        let (mut all, mut bytes_left) = (Gathered::default(), bytes_max);
        while !by_home.is_empty() && bytes_left > 0 {
            let bytes_max = (bytes_left.min(ENTRIES_BYTES_MAX) / by_home.len()) as u32;
            let question = |ids: &Vec<EntryId>| Question::Entries { ids: ids.clone(), bytes_max };
            let questions = by_home.iter().map(|(id, ids)| (*id, question(ids))).collect();
            for (home, answer) in self.ask(questions).await {
                let mut asked = by_home.remove(&home).unwrap_or_default();
                match answer {
                    Ok(Reply::Entries { entries }) if (1..=asked.len()).contains(&entries.len()) => {
                        // What did not fit is asked again.
                        let rest = asked.split_off(entries.len());
                        if !rest.is_empty() {
                            by_home.insert(home, rest);
                        }
                        for entry in entries.into_iter().flatten() {
                            bytes_left = bytes_left.saturating_sub(entry.payload.len());
                            all.found.insert(entry.id, entry);
                        }
                    }
                    _ => all.unreachable.push(home),
                }
            }
        }
        all.left = by_home.into_values().flatten().collect();
        all
    }

    /// The home of an entry.
    pub fn home_of_entry(self, id: EntryId) -> PartitionId {
        PartitionId::of_slot(id.slot(), self.count())
    }
}

/// Answers the questions of another node's reads, each at its partition here.
pub(crate) async fn answer_asked(partitions: &Partitions, questions: &[u8]) -> Result<Bytes, PeerRefusal> {
    let questions = decode_questions(questions).map_err(|_| PeerRefusal::Malformed)?;
    let answer = async |(id, question): &(PartitionId, Question)| {
        let answered = match partitions.get(*id) {
            // That would bring feeds back. They are told of again with a later read.
            Ok(_) if matches!(question, Question::Active { .. }) && partitions.refuses_growth(*id) => {
                Ok(Reply::Done)
            }
            Ok(partition) => question.answer(&partition).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| Reply::Failed { refusal: PeerRefusal::from(&error) })
    };
    let all = join_all(questions.iter().map(answer));
    // Whoever asked gave up before that.
    let within = tokio::time::timeout(WAIT_MAX + WAIT_TIMEOUT, all).await;
    let replies = within.map_err(|_| PeerRefusal::Unavailable { may_have_applied: false })?;
    Ok(encode_replies(&replies))
}

fn unavailable(partition: PartitionId) -> NodeError {
    NodeError::Unavailable { partition, may_have_applied: false }
}
