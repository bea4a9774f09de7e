//! Owns the explanation of why an entry is, or is not, in a feed: the facts of both homes and of the stream between.

use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{EntryId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::ReaderFacts;

use super::ask::Asker;
use super::feed::read_feed;
use super::question::{Question, Reply};
use super::request::{Consistency, FeedRequest, PAGE_BYTES_MAX};
use super::view::{Explanation, Reason};
use crate::error::NodeError;

/// Explains an entry in the feed of a reader. Whether it is shown is found by reading the feed there.
pub(crate) async fn explain(
    asker: Asker<'_>,
    space: SpaceId,
    reader: UserId,
    id: EntryId,
) -> Result<Explanation, NodeError> {
    let home = asker.confirmed_home(reader).await?;
    let source = asker.home_of_entry(id);
    let Reply::Way { entry, event, acknowledged } =
        asker.ask_one(source, Question::Way { id, destination: home.id() }).await?
    else {
        return Err(NodeError::Unavailable { partition: source, may_have_applied: false });
    };
    let event = event.filter(|position| *position > acknowledged);
    let way = event.map(|position| Reason::OnItsWay { source, position, acknowledged });
    let shown = is_shown(asker, space, reader, id).await?;
    let entry = entry.as_ref().filter(|entry| entry.space == space);
    let Some(entry) = entry else {
        // The owner's home forgets what expired; the reader's may still have the row.
        let expired = home.read(|state| state.expired_at(space, id))?.map(|at| Reason::Expired { at });
        let gone = expired.unwrap_or(Reason::Deleted);
        return Ok(Explanation { shown, reasons: std::iter::once(gone).chain(way).collect() });
    };
    let delivery = entry.delivery();
    let read = home.read(|state| {
        let horizon_ms = state.space(space).and_then(|known| known.policy.horizon_ms);
        let horizon = horizon_ms.map(|ms| Stamp(state.stamp().0.saturating_sub(ms)));
        state.explain_reader(space, reader, &delivery).map(|facts| (facts, horizon))
    })?;
    let (facts, horizon) = read.map_err(NodeError::refused)?;
    let mut reasons = exclusions(&facts, horizon, entry.audience, entry.expiry);
    let arrival = way.filter(|_| !facts.own && facts.followed_since.is_some() && !facts.row);
    reasons.extend(arrival);
    reasons.extend(path(&facts, id));
    Ok(Explanation { shown, reasons })
}

async fn is_shown(asker: Asker<'_>, space: SpaceId, reader: UserId, id: EntryId) -> Result<bool, NodeError> {
    let home = asker.confirmed_home(reader).await?;
    let request = FeedRequest {
        space,
        reader,
        limit: 1,
        below: EntryId(id.0.saturating_add(1)),
        newer_than: None,
        hydrate: true,
        at_least: None,
        consistency: Consistency::Leader,
    };
    let page = read_feed(asker, &home, &request, PAGE_BYTES_MAX).await?;
    Ok(page.entries.first().is_some_and(|entry| entry.id == id))
}

/// What keeps an entry out of the feed.
fn exclusions(
    facts: &ReaderFacts,
    horizon: Option<Stamp>,
    audience: Audience,
    expiry: Option<Stamp>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(at) = expiry.filter(|_| facts.expired) {
        reasons.push(Reason::Expired { at });
    }
    if !facts.own && facts.followed_since.is_none() {
        reasons.push(Reason::NotFollowed);
    }
    if audience == Audience::Private && !facts.own {
        reasons.push(Reason::AudienceExcludes { audience });
    }
    reasons.extend(facts.muted.iter().map(|user| Reason::Muted { user: *user }));
    reasons.extend(facts.blocked.iter().map(|(blocker, blocked)| {
        let (blocker, blocked) = (*blocker, *blocked);
        Reason::Blocked { blocker, blocked }
    }));
    if let Some(horizon) = horizon.filter(|_| facts.below_horizon) {
        reasons.push(Reason::BelowHorizon { horizon });
    }
    reasons
}

/// How an entry comes into the feed.
fn path(facts: &ReaderFacts, id: EntryId) -> Vec<Reason> {
    if facts.own {
        return vec![Reason::OwnEntry];
    }
    let Some(since) = facts.followed_since else { return Vec::new() };
    let mut reasons = vec![Reason::FollowedSince { since }];
    if !facts.filled {
        reasons.push(Reason::NotFilledYet);
    } else if facts.stored {
        reasons.push(Reason::Pushed);
    } else if facts.slicing {
        reasons.push(Reason::PendingSlice);
    } else if facts.row && id > facts.feed_floor && id <= facts.walk_to {
        reasons.push(Reason::Pulled);
    } else if id <= facts.feed_floor.max(facts.owner_floor) {
        reasons.push(Reason::BelowFloor { floor: facts.feed_floor.max(facts.owner_floor) });
    }
    reasons
}
