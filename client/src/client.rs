//! Owns the client handle and its builder.

use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{ImportEntry, WriteOp};
use fanfold_protocol::{PartitionId, SessionId, Token, UserId};

use crate::append::Appended;
use crate::call::Call;
use crate::core::Core;
use crate::defaults;
use crate::error::Error;
use crate::graph::Graph;
use crate::import::ImportLane;
use crate::related::{Related, relate};
use crate::space::Space;
use crate::spaces::Spaces;

/// A client of one Fanfold cluster.
///
/// Cloning it is cheap, and all clones share one connection per node: make one client per process and clone it into
/// each task. Must be used inside a tokio runtime. Dropping the last clone closes the connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

impl Client {
    /// Connects to a cluster through the node at `address` (`host:port`) with the default settings.
    ///
    /// Fails at once with [`Error::Connect`] if nothing listens there. Later losses of the connection are repaired
    /// within the deadline of each call.
    pub async fn connect(address: impl Into<String>) -> Result<Self, Error> {
        Self::builder(address).connect().await
    }

    /// A client with other settings, connected by [`ClientBuilder::connect`].
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder { seeds: vec![address.into()], deadline: defaults::DEADLINE, zone: None }
    }

    /// The space of this name. Nothing is sent; an unknown name is an error of the first call.
    pub fn space(&self, name: impl Into<Arc<str>>) -> Space {
        Space::new(self.core.clone(), name.into())
    }

    /// The graph of this name. Nothing is sent; an unknown name is an error of the first call.
    pub fn graph(&self, name: impl Into<Arc<str>>) -> Graph {
        Graph::new(self.core.clone(), name.into())
    }

    /// The graph `follows`, in which the spaces `posts` and `stories` are.
    pub fn follows(&self) -> Graph {
        self.graph("follows")
    }

    /// The definitions of the spaces: list, show, create, alter.
    pub fn spaces(&self) -> Spaces {
        Spaces::new(self.core.clone())
    }

    /// Hides `target`, as owner, author or referenced owner, from all feeds of `user`. Twice is accepted.
    pub fn mute(&self, user: UserId, target: UserId) -> Call<Related> {
        relate(&self.core, user, vec![target], WriteOp::Mute)
    }

    /// Undoes a mute; without one it is accepted and has no effect.
    pub fn unmute(&self, user: UserId, target: UserId) -> Call<Related> {
        relate(&self.core, user, vec![target], WriteOp::Unmute)
    }

    /// Cuts `target` off from `user`, across all graphs: neither sees the other's entries, and a follow between them
    /// is refused. Answered when both users' partitions have applied it. Twice is accepted.
    pub fn block(&self, user: UserId, target: UserId) -> Call<Related> {
        relate(&self.core, user, vec![target], WriteOp::Block)
    }

    /// Undoes a block; without one it is accepted and has no effect. Follows made before the block count again. Answered
    /// when both users' partitions have applied it.
    pub fn unblock(&self, user: UserId, target: UserId) -> Call<Related> {
        relate(&self.core, user, vec![target], WriteOp::Unblock)
    }

    /// Imports entries with their times, in their order, into spaces named by id ([`Spaces::list`]). They are not fanned out:
    /// feeds have them by asking the timelines. The answers stand in the order of the entries.
    pub fn import_entries(&self, entries: Vec<ImportEntry>) -> Call<Vec<Result<Appended, Error>>> {
        crate::import::import_entries(&self.core, entries)
    }

    /// A way of imports to one partition; under `session`, if an earlier run opened it.
    ///
    /// # Errors
    /// No session could be opened.
    pub async fn import_lane(
        &self,
        partition: PartitionId,
        session: Option<SessionId>,
    ) -> Result<ImportLane, Error> {
        ImportLane::open(&self.core, partition, session).await
    }

    /// Waits until the write behind a token has reached every partition: every feed shows it, or, after a delete, no
    /// feed ever shows it again.
    pub fn wait_delivered(&self, token: &Token) -> Call<()> {
        crate::admin::wait_delivered(&self.core, *token)
    }

    /// Closes the sessions that this client holds. Calls made afterwards, by any clone, fail with [`Error::Closed`].
    ///
    /// Not needed for correctness: an unused session expires on its own.
    pub async fn close(self) -> Result<(), Error> {
        self.core.close().await
    }
}

/// The settings of a client that is not connected yet.
#[derive(Debug, Clone)]
#[must_use = "a client only connects when `connect` is awaited"]
pub struct ClientBuilder {
    pub(crate) seeds: Vec<String>,
    pub(crate) deadline: Duration,
    pub(crate) zone: Option<String>,
}

impl ClientBuilder {
    /// A further address to learn the cluster from, tried when those before it do not answer.
    pub fn or(mut self, address: impl Into<String>) -> Self {
        self.seeds.push(address.into());
        self
    }

    /// How long a call may take if it does not say otherwise, connecting and retrying included. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where this client runs, as nodes name it (`fanfold start --zone`): reads that any replica may answer go to replicas
    /// there, if there are any. Default: no zone is nearer than another.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Connects, and learns which nodes there are.
    ///
    /// Fails at once if no address can be reached, or within the deadline if none answers.
    pub async fn connect(self) -> Result<Client, Error> {
        Ok(Client { core: Core::connect(self).await? })
    }
}
