//! Owns what every test starts from: a node, a client, and users whose homes are known.

use std::collections::BTreeSet;

use fanfold_client::{Client, Error, FeedRead, PartitionId, Space, Status, TimelineRead, UserId};
use fanfold_protocol::EntryId;
use fanfold_server::TestNode;
use futures_util::TryStreamExt;

/// Partitions of a test node.
pub const PARTITIONS: u16 = 4;

/// A node and a client of it.
pub struct World {
    pub node: TestNode,
    pub client: Client,
    pub posts: Space,
    pub stories: Space,
}

impl World {
    pub async fn start() -> Self {
        let node = TestNode::start().await.unwrap();
        let client = Client::connect(node.address()).await.unwrap();
        assert_eq!(client.map().await.unwrap().partitions, PARTITIONS);
        let (posts, stories) = (client.space("posts"), client.space("stories"));
        Self { node, client, posts, stories }
    }

    /// A second client of the same node, as another server of the application would have.
    pub async fn another_client(&self) -> Client {
        Client::connect(self.node.address()).await.unwrap()
    }
}

/// The `n`th user, from 0, who is homed in a partition.
pub fn user(partition: u16, n: usize) -> UserId {
    let homed = |user: &UserId| PartitionId::of_user(*user, PARTITIONS) == PartitionId(partition);
    (1..).map(UserId).filter(homed).nth(n).unwrap()
}

/// The ids of a whole feed, through all its pages; each page must be newest first and go on below the one before.
pub async fn feed_ids(read: FeedRead) -> Vec<EntryId> {
    joined(read.pages()).await
}

/// The ids of a whole timeline, through all its pages.
pub async fn timeline_ids(read: TimelineRead) -> Vec<EntryId> {
    joined(read.pages()).await
}

async fn joined(
    pages: futures_util::stream::BoxStream<'static, Result<fanfold_client::Page, Error>>,
) -> Vec<EntryId> {
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    assert!(pages.iter().all(|page| page.short_of.is_empty()));
    let ids: Vec<EntryId> = pages.iter().flat_map(|page| &page.entries).map(|entry| entry.id).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "repeated or out of order: {ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    ids
}

/// The status of a refusal.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    result.unwrap_err().status().unwrap().clone()
}
