//! Owns the asking of other partitions: one call per node and round, each bounded and with a deadline.
//!
//! - A partition whose leader is here is asked under its read lock; the others by one call to each node that leads any.
//! - A node that does not lead says who does, and is believed a few times; then, or without an answer by the deadline,
//!   the partition counts as unreachable, and whoever asked says so (R15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, SpaceId, UserId};
use fanfold_storage::partition::RemoteSource;
use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep, timeout_at};

use super::question::{
    Question, Reply, WAIT_MAX, decode_questions, decode_replies, encode_questions, encode_replies,
};
use crate::error::NodeError;
use crate::map::group_of;
use crate::partition::{Hosted, PartitionHandle, Partitions};
use crate::peer::{PeerAnswer, PeerCall, PeerRefusal};

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

/// The partitions of the cluster as a read asks them.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    partitions: &'a Partitions,
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
    Node(u64),
    Nobody(NodeError),
}

/// What came of each question, in the order asked.
type Answers = Vec<(PartitionId, Result<Reply, NodeError>)>;

impl<'a> Asker<'a> {
    /// Asks these partitions, by number.
    pub fn new(partitions: &'a Partitions) -> Self {
        Self { partitions }
    }

    /// The number of partitions.
    fn count(self) -> u16 {
        self.partitions.count()
    }

    /// The partition of this number, if it is here and answers from now on for everything that was answered before,
    /// without anybody having to be asked.
    pub fn ready(self, id: PartitionId) -> Option<Hosted> {
        self.partitions.hosted(id).filter(|partition| partition.is_confirmed())
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
    pub(super) async fn ask_one(self, id: PartitionId, question: Question) -> Result<Reply, NodeError> {
        let mut answers = self.ask(vec![(id, question)]).await;
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
        let mut answers: Vec<Result<Reply, NodeError>> =
            questions.iter().map(|(id, _)| Err(unavailable(*id))).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        // Whom the last answer named.
        let mut named: BTreeMap<usize, u64> = BTreeMap::new();
        for _ in 0..ATTEMPTS {
            let mut here = Vec::new();
            let mut there: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for n in std::mem::take(&mut open) {
                match self.target(questions[n].0, named.remove(&n)) {
                    Target::Here(partition) => here.push((n, partition)),
                    Target::Node(node) => there.entry(node).or_default().push(n),
                    Target::Nobody(error) => answers[n] = Err(error),
                }
            }
            let questions = &questions;
            let here = join_all(here.into_iter().map(|(n, partition)| async move {
                let (id, question) = &questions[n];
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

    /// Entries by id, from the home that is named for each, and the homes that did not answer.
    pub(super) async fn entries(
        self,
        ids: impl IntoIterator<Item = (PartitionId, EntryId)>,
    ) -> (BTreeMap<EntryId, Entry>, Vec<PartitionId>) {
        let mut by_home: BTreeMap<PartitionId, Vec<EntryId>> = BTreeMap::new();
        for (home, id) in ids {
            by_home.entry(home).or_default().push(id);
        }
        let (mut found, mut unreachable) = (BTreeMap::new(), Vec::new());
        while !by_home.is_empty() {
            let bytes_max = (ENTRIES_BYTES_MAX / by_home.len()) as u32;
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
                        found.extend(entries.into_iter().flatten().map(|entry| (entry.id, entry)));
                    }
                    _ => unreachable.push(home),
                }
            }
        }
        (found, unreachable)
    }

    /// Entries by id, in the order asked, and the homes that did not answer.
    pub(super) async fn entries_by_id(self, ids: &[EntryId]) -> (Vec<Option<Entry>>, Vec<PartitionId>) {
        let (found, unreachable) = self.entries(ids.iter().map(|id| (self.home_of_entry(*id), *id))).await;
        (ids.iter().map(|id| found.get(id).cloned()).collect(), unreachable)
    }

    /// The home of an entry.
    pub(super) fn home_of_entry(self, id: EntryId) -> PartitionId {
        PartitionId::of_slot(id.slot(), self.count())
    }
}

/// Answers the questions of another node's reads, each at its partition here.
pub(crate) async fn answer_asked(partitions: &Partitions, questions: &[u8]) -> Result<Bytes, PeerRefusal> {
    let questions = decode_questions(questions).map_err(|_| PeerRefusal::Malformed)?;
    let answer = async |(id, question): &(PartitionId, Question)| {
        let answered = match partitions.get(*id) {
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
