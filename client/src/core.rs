//! Owns what the handles of one client share, and the two ways to the server: asking and writing.
//!
//! Invariants:
//! - Everything that is sent goes through here, under one deadline per call.
//! - A write keeps session, sequence and content through all its attempts. It changes to a new session only while it
//!   certainly had no effect (R18); otherwise a forgotten session is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfold_protocol::message::{CloseSession, OpenSession, SpaceInfo, Write, WriteOp, WriteTag, Written};
use fanfold_protocol::{
    Call, Field, Frame, GraphId, NodeId, PartitionId, Request, Response, SessionId, SlotIndex, SpaceId,
    Status, UserId,
};
use tokio::time::timeout_at;

use crate::attempts::Attempts;
pub(crate) use crate::attempts::Effect;
use crate::client::ClientBuilder;
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::{Error, Loss};
use crate::link::Link;
use crate::names::Names;
use crate::patience::Patience;
use crate::pending::Unanswered;
use crate::renewable::Renewable;
use crate::replicas::{Doubts, Replicas};
use crate::router::{Router, Routes, Target};
use crate::session::{Lane, Lanes, Session, Ticket};

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Core {
    deadline: Duration,
    router: Router,
    names: Renewable<Names>,
    replicas: Renewable<Replicas>,
    doubts: Doubts,
    patience: Patience,
    zone: Option<String>,
    lanes: Lanes,
    closed: AtomicBool,
}

impl Core {
    /// Fetches the map, so that a wrong address is found now and not by the first call.
    pub async fn connect(builder: ClientBuilder) -> Result<Arc<Self>, Error> {
        let core = Self {
            deadline: builder.deadline,
            router: Router::new(builder.seeds),
            names: Renewable::new(),
            replicas: Renewable::new(),
            doubts: Doubts::default(),
            patience: Patience::default(),
            zone: builder.zone,
            lanes: Lanes::default(),
            closed: AtomicBool::new(false),
        };
        let deadline = core.deadline(None);
        let mut attempts = Attempts::new(Effect::None, deadline);
        let connected = timeout_at(deadline.at(), async {
            loop {
                match core.router.routes(deadline).await {
                    Ok(_) => return Ok(()),
                    // Whoever keeps silent may be busy; that nobody listens is told at once.
                    Err(error @ Error::ConnectionLost { source: Loss::Silent, .. }) => {
                        attempts.pause(error).await?;
                    }
                    Err(error) => return Err(error),
                }
            }
        });
        let connected = connected.await;
        connected.unwrap_or_else(|_| Err(attempts.expired()))?;
        Ok(Arc::new(core))
    }

    /// The deadline of a call that starts now.
    pub fn deadline(&self, given: Option<Duration>) -> Deadline {
        Deadline::within(given.unwrap_or(self.deadline))
    }

    /// Sends a request to where it belongs, again if need be, and waits for its answer.
    pub async fn ask(
        &self,
        target: Target,
        request: &Request,
        effect: Effect,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let mut attempts = Attempts::new(effect, deadline);
        let asked =
            timeout_at(deadline.at(), self.ask_until_done(target, request, deadline, &mut attempts)).await;
        asked.unwrap_or_else(|_| Err(attempts.expired()))
    }

    async fn ask_until_done(
        &self,
        target: Target,
        request: &Request,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Response, Error> {
        loop {
            match self.attempt(target, request.clone(), deadline, attempts).await {
                Ok(response) => return Ok(response),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Sends a request once. What it finds out about the map is noted.
    async fn attempt(
        &self,
        target: Target,
        request: Request,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Response, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let routes = self.router.routes(deadline).await?;
        let replica = self.replica(&routes, target, attempts.count(), deadline).await;
        let link = match replica.and_then(|node| self.router.link_to_node(&routes, node)) {
            Some(link) => link,
            None => self.router.link(&routes, target, attempts.count()),
        };
        attempts.asks(link.address());
        let call = Call { deadline_ms: Some(deadline.remaining_ms()), request };
        let answer = match replica {
            Some(_) => from_replica(&link, &call, attempts).await,
            None => self.exchange(&link, &call, (&routes, target), deadline, attempts).await,
        };
        let sent = attempts.end();
        let address = || link.address().to_owned();
        let error = match answer.map(|frame| frame.decode_reply()) {
            Ok(Ok(Ok(response))) => return Ok(response),
            Ok(Ok(Err(status))) => {
                let status = without_own_hint(status, link.address());
                let may_have_applied = sent && status.may_have_applied();
                Error::Refused { status, may_have_applied }
            }
            Ok(Err(error)) => {
                let field = match error.to_status() {
                    Status::Malformed { field } | Status::TooLarge { field, .. } => field,
                    _ => Field::Body,
                };
                Error::BadAnswer { address: address(), field, may_have_applied: sent }
            }
            Err(Unanswered::NotConnected(source)) => Error::Connect { address: address(), source },
            Err(Unanswered::TooLarge { bytes, limit }) => Error::RequestTooLarge { bytes, limit },
            Err(Unanswered::Lost(source)) => {
                Error::ConnectionLost { address: address(), may_have_applied: sent, source }
            }
        };
        match replica {
            // It says nothing about who leads.
            Some(node) if error.is_retryable() => self.doubts.note(node),
            _ => self.learn(&error, (&routes, target), attempts.count() == 0),
        }
        Err(error)
    }

    /// The replica whose turn it is to answer; none if it is the leader's.
    async fn replica(
        &self,
        routes: &Arc<Routes>,
        target: Target,
        attempt: usize,
        deadline: Deadline,
    ) -> Option<NodeId> {
        let Target::Replica(slot) = target else { return None };
        let replicas = self.replicas(routes, deadline).await?;
        replicas.choose(slot, routes.partition_of_slot(slot), attempt, &self.doubts)
    }

    /// Where the replicas are; none of a cluster of one node, and while nobody says.
    pub async fn replicas(&self, routes: &Routes, deadline: Deadline) -> Option<Arc<Replicas>> {
        routes.nodes().nth(1)?;
        if let Some(stale) = self.replicas.peek().filter(|known| !known.is_current(routes.epoch())) {
            self.replicas.renew(&stale);
        }
        let fetch = || async {
            let soon = Deadline::within(defaults::MAP_TIMEOUT.min(deadline.remaining()));
            let asked = self.ask(Target::AnyNode, &Request::GetCluster, Effect::None, soon);
            // A read asks for this, and this asks for no replica.
            match Box::pin(asked).await? {
                Response::Cluster(view) => Ok(Replicas::new(&view, self.zone.as_deref())),
                _ => Err(Error::unexpected_read()),
            }
        };
        self.replicas.get(fetch).await.ok()
    }

    /// The node that a read about a slot goes to first, any of these replicas if there is a choice: what goes to one node may
    /// share a request.
    pub fn node_of_read(&self, routes: &Routes, replicas: Option<&Replicas>, slot: SlotIndex) -> NodeId {
        let partition = routes.partition_of_slot(slot);
        let replica = replicas.and_then(|replicas| replicas.choose(slot, partition, 0, &self.doubts));
        replica.unwrap_or_else(|| routes.leader(partition))
    }

    /// Whether an answer that lacks something of these partitions is worth another look.
    pub fn looks_again(&self, missed: &[PartitionId]) -> bool {
        self.patience.note(missed)
    }

    /// Waits for the answer. A leader that keeps a call waiting is doubted: if others say that somebody else leads
    /// meanwhile, the answer is given up, and a call that may be repeated goes there. Calls that must not be sent twice wait on.
    async fn exchange(
        &self,
        link: &Link,
        call: &Call,
        (routes, target): (&Arc<Routes>, Target),
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Frame, Unanswered> {
        let exchange = link.exchange(call, attempts.start());
        if !attempts.may_repeat() || routes.nodes().nth(1).is_none() || call.request.waits() {
            return exchange.await;
        }
        tokio::pin!(exchange);
        let mut patience = defaults::LEADER_DOUBT;
        loop {
            let doubt = async {
                tokio::time::sleep(patience).await;
                self.router.has_moved(target, link.address(), deadline).await
            };
            tokio::select! {
                answer = &mut exchange => return answer,
                has_moved = doubt => {
                    if has_moved {
                        return Err(Unanswered::Lost(Loss::Silent));
                    }
                    patience = defaults::LEADER_DOUBT_AGAIN;
                }
            }
        }
    }

    /// Drops the map, or corrects it, if a failure shows that it may be old.
    fn learn(&self, error: &Error, (routes, target): (&Arc<Routes>, Target), is_first: bool) {
        match error {
            Error::Refused { status: Status::NotLeader { hint: Some(hint) }, .. } => {
                self.router.hint(routes, target, hint, is_first);
            }
            Error::Refused {
                status:
                    Status::NotLeader { hint: None } | Status::WrongEpoch { .. } | Status::WrongPartition { .. },
                ..
            } => self.router.renew(routes),
            // A leader that cannot say what became of a write leads no more, if anybody else can.
            Error::Refused { status: Status::Unavailable { .. }, .. } if routes.nodes().nth(1).is_some() => {
                self.router.renew(routes);
            }
            // A node that went away is known to others before it is missed by its own partitions' clients.
            Error::ConnectionLost { address, .. } | Error::Connect { address, .. } => {
                self.router.lost(routes, address);
            }
            _ => {}
        }
    }

    /// Makes a change at the home of a user, exactly once.
    pub async fn write(&self, home: UserId, op: WriteOp, deadline: Deadline) -> Result<Written, Error> {
        let mut attempts = Attempts::new(Effect::Idempotent, deadline);
        let written =
            timeout_at(deadline.at(), self.write_until_done(home, op, deadline, &mut attempts)).await;
        written.unwrap_or_else(|_| Err(attempts.expired()))
    }

    async fn write_until_done(
        &self,
        home: UserId,
        op: WriteOp,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Written, Error> {
        let partition = self.router_partition(home, deadline, attempts).await?;
        let lane = self.lanes.of(partition);
        let _permit = lane.permits.acquire().await.expect("the semaphore is never closed");
        let mut ticket = self.ticket(&lane, partition, deadline, attempts).await?;
        loop {
            match self.write_once(partition, ticket.tag(), &op, deadline, attempts).await {
                Ok(written) => return Ok(written),
                Err(Error::Refused { status: Status::UnknownSession, .. }) => {
                    let session = ticket.session().clone();
                    lane.session.renew(&session);
                    if attempts.uncertain() {
                        return Err(Error::SessionForgotten { partition, session: session.id() });
                    }
                    ticket = self.ticket(&lane, partition, deadline, attempts).await?;
                }
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Makes a change in a partition under a tag that the caller keeps, so that it has one effect however often it is made.
    /// A session that is unknown at the first attempt is a refusal; after one whose end is not known it is a forgotten one.
    pub async fn write_tagged(
        &self,
        partition: PartitionId,
        tag: WriteTag,
        op: &WriteOp,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let mut attempts = Attempts::new(Effect::Idempotent, deadline);
        let written = timeout_at(deadline.at(), async {
            loop {
                match self.write_once(partition, tag, op, deadline, &mut attempts).await {
                    Ok(written) => return Ok(written),
                    Err(Error::Refused { status: Status::UnknownSession, .. }) if attempts.uncertain() => {
                        return Err(Error::SessionForgotten { partition, session: tag.session });
                    }
                    Err(error) => attempts.pause(error).await?,
                }
            }
        });
        let written = written.await;
        written.unwrap_or_else(|_| Err(attempts.expired()))
    }

    async fn write_once(
        &self,
        partition: PartitionId,
        tag: WriteTag,
        op: &WriteOp,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Written, Error> {
        let routes = self.router.routes(deadline).await?;
        let write = Write { partition, epoch: routes.epoch(), tag, op: op.clone() };
        let target = Target::Partition(partition);
        match self.attempt(target, Request::Write(write), deadline, attempts).await? {
            Response::Written(written) => Ok(written),
            _ => Err(Error::UnexpectedAnswer { may_have_applied: true }),
        }
    }

    /// The home of a user; the number of partitions of a cluster never changes.
    async fn router_partition(
        &self,
        home: UserId,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<PartitionId, Error> {
        loop {
            match self.router.routes(deadline).await {
                Ok(routes) => return Ok(routes.partition_of(home)),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// A number in the partition's session, which is opened if there is none with room.
    async fn ticket(
        &self,
        lane: &Lane,
        partition: PartitionId,
        deadline: Deadline,
        attempts: &mut Attempts,
    ) -> Result<Ticket, Error> {
        loop {
            let open = || async { self.open_session(partition, deadline).await.map(Session::new) };
            let session = lane.session.get(open).await;
            match session {
                Ok(session) => match session.ticket() {
                    Some(ticket) => return Ok(ticket),
                    None => lane.session.renew(&session),
                },
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Opens a session with a partition. A session opened for nothing expires unused.
    pub async fn open_session(&self, partition: PartitionId, deadline: Deadline) -> Result<SessionId, Error> {
        let request = Request::OpenSession(OpenSession { partition });
        match self.ask(Target::Partition(partition), &request, Effect::None, deadline).await? {
            Response::SessionOpened(id) => Ok(id),
            _ => Err(Error::unexpected_read()),
        }
    }

    /// All spaces, as they stand now.
    pub async fn list_spaces(&self, deadline: Deadline) -> Result<Vec<SpaceInfo>, Error> {
        match self.ask(Target::AnyNode, &Request::ListSpaces, Effect::None, deadline).await? {
            Response::Spaces(spaces) => Ok(spaces),
            _ => Err(Error::unexpected_read()),
        }
    }

    /// The id of a space.
    pub async fn space_id(&self, name: &str, deadline: Deadline) -> Result<SpaceId, Error> {
        self.named(deadline, |names| names.space(name)).await
    }

    /// The id of a graph.
    pub async fn graph_id(&self, name: &str, deadline: Deadline) -> Result<GraphId, Error> {
        self.named(deadline, |names| names.graph(name)).await
    }

    /// Looks a name up, and once more in a new list if it is not in the one at hand.
    async fn named<T>(
        &self,
        deadline: Deadline,
        find: impl Fn(&Names) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let at_hand = self.names.peek();
        let names = self.names(deadline).await?;
        match find(&names) {
            Err(_) if at_hand.is_some() => {
                self.names.renew(&names);
                find(&*self.names(deadline).await?)
            }
            found => found,
        }
    }

    async fn names(&self, deadline: Deadline) -> Result<Arc<Names>, Error> {
        let got = self.names.get(|| async { self.list_spaces(deadline).await.map(Names::new) });
        // The fetch under way may be another call's, with a longer deadline than this one's.
        match timeout_at(deadline.at(), got).await {
            Ok(names) => names,
            Err(_) => Err(Attempts::new(Effect::None, deadline).expired()),
        }
    }

    /// The list of spaces has changed.
    pub fn forget_names(&self) {
        self.names.clear();
    }

    /// The map.
    pub async fn map(&self, deadline: Deadline) -> Result<Arc<Routes>, Error> {
        let mut attempts = Attempts::new(Effect::None, deadline);
        let got = timeout_at(deadline.at(), async {
            loop {
                match self.router.routes(deadline).await {
                    Ok(routes) => return Ok(routes),
                    Err(error) => attempts.pause(error).await?,
                }
            }
        });
        let got = got.await;
        got.unwrap_or_else(|_| Err(attempts.expired()))
    }

    /// The nodes of the cluster.
    pub async fn nodes(&self, deadline: Deadline) -> Result<Vec<NodeId>, Error> {
        Ok(self.map(deadline).await?.nodes().collect())
    }

    /// Closes all sessions; from here on every call fails.
    pub async fn close(&self) -> Result<(), Error> {
        let deadline = self.deadline(None);
        let sessions = self.lanes.drain().into_iter();
        let closes = sessions.map(|(partition, session)| self.close_session(partition, session, deadline));
        let closed = futures_util::future::join_all(closes).await;
        self.closed.store(true, Ordering::Release);
        closed.into_iter().collect()
    }

    /// Closes a session; one that is unknown is fine.
    pub async fn close_session(
        &self,
        partition: PartitionId,
        session: SessionId,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let request = Request::CloseSession(CloseSession { partition, session });
        self.ask(Target::Partition(partition), &request, Effect::Idempotent, deadline).await.map(|_| ())
    }
}

/// A node that leads in vain, without the others, may name itself: that is no way to a leader.
fn without_own_hint(status: Status, address: &str) -> Status {
    match status {
        Status::NotLeader { hint: Some(hint) } if hint.address == address => Status::NotLeader { hint: None },
        status => status,
    }
}

/// Waits for the answer of a replica, but no longer than for that of a doubted leader: others have it too.
async fn from_replica(link: &Link, call: &Call, attempts: &mut Attempts) -> Result<Frame, Unanswered> {
    let exchange = link.exchange(call, attempts.start());
    let silent = Err(Unanswered::Lost(Loss::Silent));
    tokio::time::timeout(defaults::LEADER_DOUBT, exchange).await.unwrap_or(silent)
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::LeaderHint;

    use super::*;

    #[test]
    fn a_node_that_names_itself_as_the_leader_it_is_not_names_nobody() {
        let named = || {
            let hint = LeaderHint { node: NodeId(1), address: "a:1".to_owned() };
            Status::NotLeader { hint: Some(hint) }
        };
        assert_eq!(without_own_hint(named(), "a:1"), Status::NotLeader { hint: None });
        assert_eq!(without_own_hint(named(), "b:1"), named());
    }
}
