//! Owns the requests that read timelines, entries, feeds and edges.

use std::sync::Arc;

use fanfold_cluster::{NodeError, read as stored};
use fanfold_protocol::message::{
    Counts, Explain, GetCounts, ReadEntries, ReadFeed, ReadFeeds, ReadTimeline, Response, ScanEdges,
};
use fanfold_protocol::{CursorScope, Reply, Status};
use fanfold_storage::ids::EntryId;

use super::failed;
use crate::listener::Shared;
use crate::translate;

/// What a page leaves of a frame for its head.
const HEAD_BYTES: usize = 16 << 10;

/// The most bytes of a page.
pub(crate) fn page_bytes(shared: &Shared) -> usize {
    (shared.limits.frame_bytes_max as usize).saturating_sub(HEAD_BYTES)
}

pub(super) async fn timeline(shared: &Arc<Shared>, read: ReadTimeline) -> Reply {
    let scope = CursorScope::Timeline(read.space);
    let request = stored::TimelineRequest {
        space: translate::space_id(read.space),
        owner: translate::user(read.owner),
        viewer: read.viewer.map(translate::user),
        limit: read.limit,
        below: translate::below(read.cursor.as_ref(), scope, read.owner)?,
        hydrate: read.hydrate,
        at_least: read.at_least.as_ref().map(translate::position),
        consistency: translate::consistency(read.consistency),
    };
    let page = shared.node.read_timeline(&request).await.map_err(|error| failed(shared, error))?;
    Ok(Response::Page(translate::page(page, scope, read.owner, page_bytes(shared))))
}

/// What a read of a feed asks of the node.
pub(crate) fn feed_request(read: &ReadFeed) -> Result<stored::FeedRequest, Status> {
    Ok(stored::FeedRequest {
        space: translate::space_id(read.space),
        reader: translate::user(read.reader),
        limit: read.limit,
        below: translate::below(read.cursor.as_ref(), CursorScope::Feed(read.space), read.reader)?,
        newer_than: read.newer_than.as_ref().map(translate::mark),
        hydrate: read.hydrate,
        at_least: read.at_least.as_ref().map(translate::position),
        consistency: translate::consistency(read.consistency),
    })
}

pub(super) async fn feed(shared: &Arc<Shared>, read: ReadFeed) -> Reply {
    let request = feed_request(&read)?;
    let page = shared.node.read_feed(&request).await.map_err(|error| failed(shared, error))?;
    let scope = CursorScope::Feed(read.space);
    Ok(Response::Page(translate::page(page, scope, read.reader, page_bytes(shared))))
}

pub(super) async fn feeds(shared: &Arc<Shared>, read: ReadFeeds) -> Reply {
    let scope = CursorScope::Feed(read.space);
    let request = stored::FeedsRequest {
        space: translate::space_id(read.space),
        readers: read.readers.iter().copied().map(translate::user).collect(),
        limit: read.limit,
        hydrate: read.hydrate,
        at_least: read.at_least.as_ref().map(translate::position),
        consistency: translate::consistency(read.consistency),
    };
    let pages = shared.node.read_feeds(&request).await.map_err(|error| failed(shared, error))?;
    let bytes = page_bytes(shared) / read.readers.len().max(1);
    let pages = pages.into_iter().zip(read.readers).map(|(page, reader)| match page {
        Ok(page) => Ok(translate::page(page, scope, reader, bytes)),
        Err(error) => Err(failed(shared, error)),
    });
    Ok(Response::Pages(pages.collect()))
}

pub(super) async fn entries(shared: &Arc<Shared>, read: ReadEntries) -> Reply {
    let request = stored::EntriesRequest {
        space: translate::space_id(read.space),
        ids: read.ids.into_iter().map(translate::entry_id).collect(),
        viewer: read.viewer.map(translate::user),
        at_least: read.at_least.as_ref().map(translate::position),
        consistency: translate::consistency(read.consistency),
    };
    let limit = page_bytes(shared);
    // Ids are answered one for one, so the caller has to ask for fewer.
    let too_large = Status::TooLarge { field: fanfold_protocol::Field::EntryIds, limit: limit as u64 };
    let entries = match shared.node.read_entries(&request).await {
        Ok(entries) => entries,
        Err(NodeError::TooLarge { .. }) => return Err(too_large),
        Err(error) => return Err(failed(shared, error)),
    };
    let bytes: usize =
        entries.iter().flatten().map(|e| e.payload.as_ref().map_or(0, bytes::Bytes::len)).sum();
    if bytes > limit {
        return Err(too_large);
    }
    Ok(Response::Entries(entries.into_iter().map(|entry| entry.map(translate::entry)).collect()))
}

pub(super) async fn counts(shared: &Arc<Shared>, get: GetCounts) -> Reply {
    let counts = shared.node.counts(translate::graph_id(get.graph), translate::user(get.user)).await;
    let counts = counts.map_err(|error| failed(shared, error))?;
    Ok(Response::Counts(Counts { followers: counts.followers, followees: counts.followees }))
}

pub(super) async fn followees(shared: &Arc<Shared>, scan: ScanEdges) -> Reply {
    let scope = CursorScope::Followees(scan.graph);
    let after = translate::after(scan.cursor.as_ref(), scope, scan.user)?.map(|after| after.user);
    let (graph, reader) = (translate::graph_id(scan.graph), translate::user(scan.user));
    let page = shared.node.scan_followees(graph, reader, after, scan.limit).await;
    let page = page.map_err(|error| failed(shared, error))?;
    Ok(Response::Edges(translate::edge_page(&page, scope, scan.user)))
}

pub(super) async fn followers(shared: &Arc<Shared>, scan: ScanEdges) -> Reply {
    let scope = CursorScope::Followers(scan.graph);
    let after = translate::after(scan.cursor.as_ref(), scope, scan.user)?;
    let (graph, owner) = (translate::graph_id(scan.graph), translate::user(scan.user));
    let page = shared.node.scan_followers(graph, owner, after, scan.limit).await;
    let page = page.map_err(|error| failed(shared, error))?;
    Ok(Response::Edges(translate::edge_page(&page, scope, scan.user)))
}

pub(super) async fn explain(shared: &Arc<Shared>, explain: Explain) -> Reply {
    let (space, reader) = (translate::space_id(explain.space), translate::user(explain.reader));
    let explained = shared.node.explain(space, reader, EntryId(explain.entry.0)).await;
    let explained = explained.map_err(|error| failed(shared, error))?;
    Ok(Response::Explanation(translate::explanation(&explained)))
}
