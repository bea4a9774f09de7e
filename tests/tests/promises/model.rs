//! Owns the oracle's side of a test: the same changes, told in the client's words.

use fanfold_client::{Audience, Client, EntryId, SpaceInfo, UserId};
use fanfold_storage::entry::{self, Entry};
use fanfold_storage::ids::{self as stored, Stamp};
use fanfold_storage::oracle::Oracle;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

/// The naive model of one space.
pub struct Model {
    oracle: Oracle,
    space: stored::SpaceId,
    graph: stored::GraphId,
}

impl Model {
    pub async fn of(client: &Client, space: &str) -> Self {
        let info = client.spaces().show(space).await.unwrap();
        let mut oracle = Oracle::new();
        let (space, graph) = (stored::SpaceId(info.id.0), stored::GraphId(info.graph.0));
        oracle.define_space(definition(info));
        Self { oracle, space, graph }
    }

    pub fn append(&mut self, id: EntryId, owner: UserId, audience: Audience, expiry: Option<Stamp>) {
        self.oracle.append(Entry {
            id: stored::EntryId(id.0),
            space: self.space,
            owner: stored::UserId(owner.0),
            author: stored::UserId(owner.0),
            audience: match audience {
                Audience::Public => entry::Audience::Public,
                Audience::Followers => entry::Audience::Followers,
                Audience::Private => entry::Audience::Private,
            },
            version: 1,
            expiry,
            reference: None,
            payload: bytes::Bytes::new(),
        });
    }

    pub fn delete(&mut self, id: EntryId) {
        self.oracle.delete(stored::EntryId(id.0));
    }

    pub fn follow(&mut self, reader: UserId, owner: UserId) {
        self.oracle.follow(self.graph, stored::UserId(reader.0), stored::UserId(owner.0));
    }

    pub fn block(&mut self, user: UserId, target: UserId) {
        self.oracle.block(stored::UserId(user.0), stored::UserId(target.0));
    }

    pub fn unblock(&mut self, user: UserId, target: UserId) {
        self.oracle.unblock(stored::UserId(user.0), stored::UserId(target.0));
    }

    pub fn feed(&self, reader: UserId) -> Vec<EntryId> {
        in_client_words(self.oracle.feed(self.space, stored::UserId(reader.0)))
    }

    pub fn timeline(&self, owner: UserId, viewer: Option<UserId>) -> Vec<EntryId> {
        let viewer = viewer.map(|viewer| stored::UserId(viewer.0));
        in_client_words(self.oracle.timeline(self.space, stored::UserId(owner.0), viewer))
    }
}

fn in_client_words(ids: Vec<stored::EntryId>) -> Vec<EntryId> {
    ids.into_iter().map(|id| EntryId(id.0)).collect()
}

fn definition(info: SpaceInfo) -> SpaceDefinition {
    SpaceDefinition {
        id: stored::SpaceId(info.id.0),
        name: info.name,
        graph: stored::GraphId(info.graph.0),
        graph_name: info.graph_name,
        version: info.version,
        // Of the policy, the definition of a feed knows the horizon alone.
        policy: SpacePolicy { horizon_ms: info.policy.horizon_ms, ..SpacePolicy::default() },
    }
}
