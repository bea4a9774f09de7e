//! Reads: names, pages, many at once.

use fanfold_protocol::message::{EntryView, Page};
use fanfold_protocol::{Cursor, CursorScope, EntryId, Request, Response, SpaceId, Status, UserId};
use futures_util::TryStreamExt;

use crate::error::Error;
use crate::scripted::{Server, page};

fn cursor(below: u64) -> Cursor {
    Cursor {
        scope: CursorScope::Feed(SpaceId(1)),
        subject: UserId(1),
        below: EntryId(below),
        as_of: 0,
        after: None,
    }
}

fn with_entry(id: u64, next: Option<Cursor>) -> Page {
    let entry = EntryView {
        id: EntryId(id),
        owner: UserId(2),
        author: UserId(2),
        audience: fanfold_protocol::message::Audience::Public,
        version: 1,
        expiry: None,
        payload: None,
        reference: None,
    };
    Page { entries: vec![entry], next, ..page(id) }
}

#[tokio::test]
async fn pages_follow_the_cursor_to_the_true_end() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let pages = client.space("posts").feed(UserId(1)).limit(1).pages();
    let all = tokio::spawn(pages.map_ok(|page| page.entries[0].id.0).try_collect::<Vec<_>>());
    for (expected, answer) in [
        (None, with_entry(30, Some(cursor(30)))),
        (Some(cursor(30)), with_entry(20, Some(cursor(20)))),
        (Some(cursor(20)), with_entry(10, None)),
    ] {
        let ask = peer.next().await;
        let Request::ReadFeed(read) = &ask.call.request else { panic!("{ask:?}") };
        assert_eq!((read.cursor, read.limit), (expected, 1));
        peer.answer(&ask, &Response::Page(answer)).await;
    }
    assert_eq!(all.await.expect("no panic").expect("answered"), [30, 20, 10]);
}

#[tokio::test]
async fn scan_without_progress_ends_with_an_error_not_as_if_complete() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let pages = client.space("posts").feed(UserId(1)).cursor(cursor(30)).pages();
    let all = tokio::spawn(pages.try_collect::<Vec<_>>());
    let ask = peer.next().await;
    peer.answer(&ask, &Response::Page(Page { next: Some(cursor(30)), ..page(30) })).await;
    let error = all.await.expect("no panic").expect_err("stalled");
    assert!(matches!(error, Error::ScanStalled { below: EntryId(30) }), "{error:?}");
}

#[tokio::test]
async fn scan_past_entries_that_were_not_shown_ends_with_an_error() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let mut pages = client.space("posts").feed(UserId(1)).limit(1).pages();
    let all = tokio::spawn(async move { (pages.try_next().await, pages.try_next().await) });
    let ask = peer.next().await;
    let gap = Page { complete_to: EntryId(25), ..with_entry(10, Some(cursor(10))) };
    peer.answer(&ask, &Response::Page(gap)).await;
    let (shown, error) = all.await.expect("no panic");
    assert_eq!(shown.expect("answered").expect("a page").entries.len(), 1);
    assert!(matches!(error, Err(Error::ScanStalled { below: EntryId(25) })), "{error:?}");
}

#[tokio::test]
async fn unknown_space_is_looked_up_anew_before_it_is_an_error() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let known = tokio::spawn(client.space("posts").timeline(UserId(1)).into_future());
    let ask = peer.next().await;
    peer.answer(&ask, &Response::Page(page(1))).await;
    assert!(known.await.expect("no panic").is_ok());
    assert_eq!(peer.lists, 1);
    let unknown = tokio::spawn(client.space("albums").timeline(UserId(1)).into_future());
    peer.serve_until_idle(&unknown).await;
    match unknown.await.expect("no panic") {
        Err(Error::UnknownSpace { name, known }) => {
            assert_eq!((name.as_str(), known), ("albums", vec!["posts".to_owned(), "stories".to_owned()]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.lists, 2);
}

#[tokio::test]
async fn unknown_graph_names_the_known_ones() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let unknown = tokio::spawn(client.graph("friends").counts(UserId(1)).into_future());
    peer.serve_until_idle(&unknown).await;
    match unknown.await.expect("no panic") {
        Err(Error::UnknownGraph { known, .. }) => assert_eq!(known, ["follows"]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn feeds_answer_each_reader_and_ask_again_for_those_refused_for_now() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let readers = [1, 2, 3].map(UserId);
    let call = tokio::spawn(client.space("posts").feeds(&readers).limit(20).into_future());
    let ask = peer.next().await;
    let Request::ReadFeeds(read) = &ask.call.request else { panic!("{ask:?}") };
    assert_eq!(read.readers, readers);
    let pages = vec![Ok(page(11)), Err(Status::Busy { delay_ms: 1 }), Err(Status::BadCursor)];
    peer.answer(&ask, &Response::Pages(pages)).await;
    let ask = peer.next().await;
    let Request::ReadFeed(read) = &ask.call.request else { panic!("{ask:?}") };
    assert_eq!((read.reader, read.limit), (UserId(2), 20));
    peer.answer(&ask, &Response::Page(page(12))).await;
    let pages = call.await.expect("no panic").expect("answered");
    assert_eq!(pages[0].as_ref().expect("page").complete_to, EntryId(11));
    assert_eq!(pages[1].as_ref().expect("page").complete_to, EntryId(12));
    assert!(matches!(&pages[2], Err(Error::Refused { status: Status::BadCursor, .. })));
}

#[tokio::test]
async fn entries_come_back_in_the_order_asked() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let ids: Vec<EntryId> = (0..1_500).map(EntryId).collect();
    let call = tokio::spawn(client.space("posts").entries(&ids).into_future());
    for _ in 0..2 {
        let ask = peer.next().await;
        let Request::ReadEntries(read) = &ask.call.request else { panic!("{ask:?}") };
        assert!(read.ids.len() <= 1_000);
        let even = |id: &EntryId| id.0.is_multiple_of(2).then(|| with_entry(id.0, None).entries.remove(0));
        let views = read.ids.iter().map(even).collect();
        peer.answer(&ask, &Response::Entries(views)).await;
    }
    let views = call.await.expect("no panic").expect("answered");
    for (id, view) in ids.iter().zip(views) {
        assert_eq!(view.map(|view| view.id), id.0.is_multiple_of(2).then_some(*id));
    }
}
