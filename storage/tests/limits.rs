//! A command that a limit refuses has no effect at all.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use fanfold_storage::command::{
    Append, Command, Limits, Outcome, Refusal, Ttl, Write, WriteResult, WriteTag, encode_batch,
};
use fanfold_storage::entry::Audience;
use fanfold_storage::ids::{GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::partition::Partition;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

const GRAPH: GraphId = GraphId(1);
const READER: UserId = UserId(1);

struct One {
    partition: Partition,
    applied: u64,
}

impl One {
    fn new(limits: Limits) -> Self {
        let definition = SpaceDefinition {
            id: SpaceId(1),
            name: "posts".into(),
            graph: GRAPH,
            graph_name: "follows".into(),
            version: 1,
            policy: SpacePolicy::default(),
        };
        let mut one = Self { partition: Partition::new(PartitionId(0), 1), applied: 0 };
        one.apply(&Command::Configure { limits });
        one.apply(&Command::DefineSpace { definition });
        assert_eq!(one.apply(&Command::OpenSession), Outcome::Session { session: SessionId(1) });
        one
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.applied += 1;
        let batch = encode_batch(Stamp(1_000 + self.applied), &[command.to_bytes()]);
        self.partition.apply(self.applied, &batch).unwrap().remove(0)
    }

    fn write(&mut self, write: Write) -> Outcome {
        let sequence = Sequence(self.applied);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        self.apply(&Command::Write { tag, write })
    }

    fn changed(&mut self, write: Write) -> u32 {
        match self.write(write) {
            Outcome::Written { result: WriteResult::Related { changed, .. }, .. } => changed,
            other => panic!("{other:?}"),
        }
    }

    fn is_refused(&mut self, write: Write) -> bool {
        let outcome = self.write(write);
        matches!(outcome, Outcome::Refused { refusal: Refusal::LimitReached { limit: 3, .. } })
    }
}

fn users(ids: &[u64]) -> Vec<UserId> {
    ids.iter().copied().map(UserId).collect()
}

#[test]
fn a_follow_beyond_the_limit_follows_nobody() {
    let follow = |ids: &[u64]| Write::Follow { graph: GRAPH, reader: READER, owners: users(ids) };
    let mut one = One::new(Limits { followees_max: 3, ..Limits::default() });
    assert!(one.is_refused(follow(&[2, 3, 4, 5])));
    let unfollow = Write::Unfollow { graph: GRAPH, reader: READER, owners: users(&[2, 3, 4, 5]) };
    assert_eq!(one.changed(unfollow), 0, "nothing was followed");
    // Oneself, those who are named twice and those who are followed already count for nothing.
    assert_eq!(one.changed(follow(&[2, 3, 2, 1])), 2);
    assert_eq!(one.changed(follow(&[2, 3, 4, 4, 1])), 1);
    assert!(one.is_refused(follow(&[2, 5])));
    assert_eq!(one.changed(follow(&[4, 3, 2])), 0);
}

#[test]
fn mutes_and_blocks_beyond_the_limit_are_none() {
    let mut one = One::new(Limits { mutes_max: 3, ..Limits::default() });
    let mute = |ids: &[u64]| Write::Mute { user: READER, targets: users(ids) };
    let block = |ids: &[u64]| Write::Block { user: READER, targets: users(ids) };
    assert!(one.is_refused(mute(&[2, 3, 4, 5])) && one.is_refused(block(&[2, 3, 4, 5])));
    assert_eq!(one.changed(Write::Unmute { user: READER, targets: users(&[2, 3, 4, 5]) }), 0);
    assert_eq!(one.changed(Write::Unblock { user: READER, targets: users(&[2, 3, 4, 5]) }), 0);
    assert_eq!((one.changed(mute(&[2, 2, 1])), one.changed(block(&[2, 3, 4, 4]))), (1, 3));
    assert!(one.is_refused(mute(&[3, 4, 5])) && one.is_refused(block(&[5])));
    assert_eq!((one.changed(mute(&[2])), one.changed(block(&[4, 2]))), (0, 0));
}

#[test]
fn a_session_keeps_answers_up_to_a_number_of_bytes() {
    let mut one = One::new(Limits::default());
    let item = Append {
        space: SpaceId(1),
        owner: READER,
        author: None,
        audience: Audience::Private,
        ttl: Ttl::SpaceDefault,
        key: None,
        reference: None,
        payload: Bytes::new(),
    };
    let mut append = |sequence: u64, lowest: u64| {
        let (session, lowest_unanswered) = (SessionId(1), Sequence(lowest));
        let tag = WriteTag { session, sequence: Sequence(sequence), lowest_unanswered };
        one.apply(&Command::Write { tag, write: Write::Append { items: vec![item.clone(); 1_024] } })
    };
    let full = Outcome::Refused { refusal: Refusal::SessionFull };
    let first = append(1, 1);
    let kept = (2..4_096).take_while(|sequence| append(*sequence, 1) != full).count() as u64;
    assert!((50..500).contains(&kept), "4 MiB of answers to 1,024 items each: {kept}");
    assert_eq!(append(1, 1), first, "what is kept is still answered");
    assert_ne!(append(kept + 2, kept), full, "what the client has seen makes room");
}
