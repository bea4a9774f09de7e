//! Owns the reads of edges: counts, and scans of followees and followers.

use fanfold_storage::ids::{GraphId, PartitionId, Stamp, UserId};

use super::ask::Asker;
use super::question::{Question, Reply};
use super::request::ScanAfter;
use super::view::{Counts, Edge, EdgePage};
use crate::error::NodeError;

/// How many follow a user and how many the user follows: the home says which partitions have followers.
pub(crate) async fn counts(asker: Asker<'_>, graph: GraphId, user: UserId) -> Result<Counts, NodeError> {
    let home = asker.confirmed_home(user).await?;
    let (followees, reach) =
        home.read(|state| (state.followee_count(graph, user), state.reach(graph, user)))?;
    let question = Question::FollowerCount { graph, owner: user };
    let questions = reach.into_iter().map(|partition| (partition, question.clone())).collect();
    let mut followers = 0;
    for (partition, here) in asker.ask(questions).await {
        match here? {
            Reply::Count { count } => followers += count,
            _ => return Err(NodeError::Unavailable { partition, may_have_applied: false }),
        }
    }
    Ok(Counts { followers, followees })
}

/// The owners a reader follows, by user id.
pub(crate) async fn scan_followees(
    asker: Asker<'_>,
    graph: GraphId,
    reader: UserId,
    after: Option<UserId>,
    limit: usize,
) -> Result<EdgePage, NodeError> {
    let home = asker.confirmed_home(reader).await?;
    let found = home.read(|state| state.followees(graph, reader, after, limit + 1))?;
    let partition = home.id();
    Ok(page(found.into_iter().map(|edge| (partition, edge)).collect(), limit))
}

/// The readers who follow an owner, by partition, then user id.
pub(crate) async fn scan_followers(
    asker: Asker<'_>,
    graph: GraphId,
    owner: UserId,
    after: Option<ScanAfter>,
    limit: usize,
) -> Result<EdgePage, NodeError> {
    let home = asker.confirmed_home(owner).await?;
    let reach = home.read(|state| state.reach(graph, owner))?;
    let mut found = Vec::new();
    for id in reach.into_iter().filter(|id| after.is_none_or(|after| *id >= after.partition)) {
        let after = after.filter(|after| after.partition == id).map(|after| after.user);
        let limit_here = (limit + 1 - found.len()) as u32;
        let question = Question::Followers { graph, owner, after, limit: limit_here };
        let Reply::Edges { edges } = asker.ask_one(id, question).await? else {
            return Err(NodeError::Unavailable { partition: id, may_have_applied: false });
        };
        found.extend(edges.into_iter().map(|edge| (id, edge)));
        if found.len() > limit {
            break;
        }
    }
    Ok(page(found, limit))
}

/// A page of what was found, one more than which means that it goes on.
fn page(mut found: Vec<(PartitionId, (UserId, Stamp))>, limit: usize) -> EdgePage {
    let is_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| is_more);
    let next = last.map(|(partition, (user, _))| ScanAfter { partition: *partition, user: *user });
    EdgePage { users: found.into_iter().map(|(_, (user, since))| Edge { user, since }).collect(), next }
}
