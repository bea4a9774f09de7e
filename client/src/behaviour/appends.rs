//! Appends of many entries.

use fanfold_protocol::message::{AppendOutcome, WriteOp, WriteResult};
use fanfold_protocol::{EntryId, Field, LimitKind, Limits, Status, UserId};

use crate::error::Error;
use crate::new_entry::NewEntry;
use crate::scripted::{Ask, Server, written};

/// Answers each item with an id made of its owner; owner 3 is refused.
fn outcomes(ask: &Ask) -> WriteResult {
    let WriteOp::Append(items) = &ask.write().op else { panic!("{ask:?}") };
    let limit = Status::LimitReached { what: LimitKind::EntriesPerOwner, limit: 1 };
    let outcome = |owner: u64| match owner {
        3 => AppendOutcome::Refused(limit.clone()),
        owner => AppendOutcome::Ok { id: EntryId(1_000 + owner), duplicate: false },
    };
    WriteResult::Appended(items.iter().map(|item| outcome(item.owner.0)).collect())
}

#[tokio::test]
async fn answers_stand_in_the_order_of_the_entries_whatever_their_partitions() {
    let server = Server::with(Limits::default(), 4).await;
    let (client, mut peer) = server.connect().await;
    let entries: Vec<NewEntry> = (0..40).map(|owner| NewEntry::new(UserId(owner), "hello")).collect();
    let call = tokio::spawn(client.space("posts").append_many(entries).into_future());
    for _ in 0..4 {
        let ask = peer.next_write().await;
        let result = outcomes(&ask);
        peer.answer(&ask, &written(result)).await;
    }
    let answers = call.await.expect("no panic").expect("answered");
    assert_eq!(answers.len(), 40);
    for (owner, answer) in (0..).zip(answers) {
        match answer {
            Ok(appended) => assert_eq!(appended.id, EntryId(1_000 + owner)),
            Err(error) => {
                assert_eq!(owner, 3);
                assert!(matches!(error.status(), Some(Status::LimitReached { .. })), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn one_item_that_no_space_accepts_does_not_keep_the_others_out() {
    let server = Server::start().await;
    let (client, mut peer) = server.connect().await;
    let entries: Vec<NewEntry> = [1, 2].map(|owner| NewEntry::new(UserId(owner), "hello")).to_vec();
    let call = tokio::spawn(client.space("posts").append_many(entries).into_future());
    let ask = peer.next_write().await;
    let too_large = Status::TooLarge { field: Field::Payload, limit: 4 };
    peer.refuse(&ask, &too_large).await;
    for _ in 0..2 {
        let ask = peer.next_write().await;
        let WriteOp::Append(items) = &ask.write().op else { panic!("{ask:?}") };
        match items.as_slice() {
            [item] if item.owner == UserId(1) => peer.refuse(&ask, &too_large).await,
            [_] => {
                let result = outcomes(&ask);
                peer.answer(&ask, &written(result)).await;
            }
            _ => panic!("not alone: {items:?}"),
        }
    }
    let answers = call.await.expect("no panic").expect("answered");
    assert!(matches!(&answers[0], Err(Error::Refused { status, .. }) if *status == too_large));
    assert_eq!(answers[1].as_ref().expect("appended").id, EntryId(1_002));
}
