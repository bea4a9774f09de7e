//! Holds the encoding of commands to the golden file, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Limits, Ttl, Write, WriteTag, decode_batch, encode_batch};
use fanfold_storage::entry::{Audience, Delivery, EntryRef};
use fanfold_storage::event::{Event, FilledOwner, SpaceBackfill, StreamMessage};
use fanfold_storage::ids::{
    Day, EntryId, Generation, GraphId, JournalPosition, PartitionId, Sequence, SessionId, SpaceId, Stamp,
    StreamEpoch, UserId,
};
use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

const GOLDEN: &str = include_str!("../testdata/v1/batch.hex");

const SPACE: SpaceId = SpaceId(2);
const OWNER: UserId = UserId(300);
const ENTRY: EntryId = EntryId(0x1234_5678_9ABC);

fn writes() -> Vec<Write> {
    let full = Append {
        space: SPACE,
        owner: OWNER,
        author: Some(UserId(7)),
        audience: Audience::Followers,
        ttl: Ttl::Ms { ttl_ms: 86_400_000 },
        key: Some(Bytes::from_static(b"key")),
        reference: Some(EntryRef { owner: UserId(9), id: ENTRY }),
        payload: Bytes::from_static(b"hello"),
    };
    let plain = Append {
        author: None,
        audience: Audience::Public,
        ttl: Ttl::SpaceDefault,
        key: None,
        reference: None,
        ..full.clone()
    };
    let (graph, owners) = (GraphId(1), vec![UserId(1), UserId(128)]);
    vec![
        Write::Append { items: vec![full, plain] },
        Write::Amend { space: SPACE, owner: OWNER, id: ENTRY, expected_version: 3, payload: Bytes::new() },
        Write::Delete { space: SPACE, owner: OWNER, id: ENTRY },
        Write::SetExpiry { space: SPACE, owner: OWNER, id: ENTRY, ttl: Ttl::Never },
        Write::Follow { graph, reader: OWNER, owners: owners.clone() },
        Write::Unfollow { graph, reader: OWNER, owners: owners.clone() },
        Write::Mute { user: OWNER, targets: owners.clone() },
        Write::Unmute { user: OWNER, targets: owners.clone() },
        Write::Block { user: OWNER, targets: owners.clone() },
        Write::Unblock { user: OWNER, targets: owners },
        imported_follows(),
        imported_entries(),
    ]
}

fn imported_follows() -> Write {
    let edge = |since| ImportEdge { reader: OWNER, owner: UserId(7), since };
    Write::ImportFollows { graph: GraphId(1), edges: vec![edge(None), edge(Some(Stamp(840_000_000_000)))] }
}

fn imported_entries() -> Write {
    let plain = ImportEntry {
        space: SPACE,
        owner: OWNER,
        author: None,
        audience: Audience::Public,
        place: Place::Time { stamp: Stamp(840_000_000_000) },
        lifetime: Lifetime::SpaceDefault,
        version: 1,
        key: None,
        reference: None,
        payload: Bytes::from_static(b"old"),
    };
    let full = ImportEntry {
        author: Some(UserId(7)),
        place: Place::Id { id: ENTRY },
        lifetime: Lifetime::Until { expiry: Stamp(850_000_000_000) },
        version: 3,
        key: Some(Bytes::from_static(b"key")),
        reference: Some(EntryRef { owner: UserId(9), id: ENTRY }),
        ..plain.clone()
    };
    let kept = ImportEntry { lifetime: Lifetime::Never, ..plain.clone() };
    Write::ImportEntries { entries: vec![plain, full, kept] }
}

fn events() -> Vec<Event> {
    let plain = Delivery {
        id: ENTRY,
        owner: OWNER,
        author: OWNER,
        audience: Audience::Public,
        referenced_owner: None,
        version: 1,
        expiry: None,
    };
    let full = Delivery {
        author: UserId(7),
        audience: Audience::Followers,
        referenced_owner: Some(UserId(9)),
        version: 2,
        expiry: Some(Stamp(850_000_000_000)),
        ..plain
    };
    let (graph, owner, generation) = (GraphId(1), OWNER, Generation(5));
    let deliveries = vec![plain, full];
    vec![
        Event::Deliver { space: SPACE, delivery: plain },
        Event::Update { space: SPACE, delivery: full },
        Event::Delete { space: SPACE, owner, id: ENTRY },
        Event::Subscribe { graph, owner, generation },
        Event::Unsubscribe { graph, owner, generation },
        Event::Backfill {
            graph,
            owner,
            generation,
            spaces: vec![SpaceBackfill { space: SPACE, floor: ENTRY, deliveries }],
        },
        Event::Block { blocker: owner, blocked: UserId(8) },
        Event::Unblock { blocker: owner, blocked: UserId(8) },
        Event::Reset { blocks: vec![(owner, UserId(8))] },
        Event::ForgetSubscriptions,
        Event::SubscribeMany { graph, owners: vec![(owner, generation), (UserId(7), Generation(6))] },
        Event::Filled {
            graph,
            owners: vec![FilledOwner { owner, generation, floors: vec![(SPACE, ENTRY)] }],
        },
        Event::Raise { floors: vec![(SPACE, (owner, ENTRY))] },
    ]
}

fn commands() -> Vec<Command> {
    let tag = WriteTag { session: SessionId(4), sequence: Sequence(1_000), lowest_unanswered: Sequence(990) };
    let policy = SpacePolicy {
        default_ttl_ms: Some(86_400_000),
        feed_cap: 800,
        horizon_ms: None,
        fan_out: FanOut::Pull,
        pull_threshold: 10_000,
        payload_bytes_max: 65_536,
        is_read_only: false,
    };
    let definition = SpaceDefinition {
        id: SPACE,
        name: "stories".into(),
        graph: GraphId(1),
        graph_name: "follows".into(),
        version: 3,
        policy,
    };
    let positioned =
        events().into_iter().enumerate().map(|(n, event)| (JournalPosition(10 + n as u64), event));
    let message = StreamMessage {
        source: PartitionId(3),
        epoch: StreamEpoch { incarnation: 1, resets: 2 },
        destination_incarnation: 1,
        previous: JournalPosition(9),
        events: positioned.collect(),
    };
    let mut commands = vec![Command::OpenSession, Command::CloseSession { session: SessionId(4) }];
    commands.extend(writes().into_iter().map(|write| Command::Write { tag, write }));
    commands.extend([
        Command::Configure { limits: Limits::default() },
        Command::DefineSpace { definition },
        Command::Stream { message },
        Command::Trim { through: JournalPosition(9) },
        Command::DropDestination { destination: PartitionId(15) },
        Command::ResumeDestination { destination: PartitionId(15), incarnation: 2 },
        Command::Tick,
        Command::Reincarnate { incarnation: 2 },
        Command::Active { readers: vec![OWNER, UserId(7)] },
        Command::FreeFeeds { before: Day(9_800), from: 4_096, most: 512 },
        Command::PauseFanOut { owner: OWNER, is_paused: true },
        Command::LeaveWindow { keep: 16_384, most: 4_096 },
    ]);
    commands
}

#[test]
fn a_batch_has_the_golden_bytes() {
    let encoded: Vec<Bytes> = commands().iter().map(Command::to_bytes).collect();
    let batch = encode_batch(Stamp(848_000_000_123), &encoded);
    let mut hex = String::new();
    for line in batch.chunks(32) {
        line.iter().for_each(|byte| write!(hex, "{byte:02x}").expect("a string takes everything"));
        hex.push('\n');
    }
    assert_eq!(hex, GOLDEN, "the encoding of commands changed");
    let (stamp, decoded) = decode_batch(&batch).unwrap();
    assert_eq!(stamp, Stamp(848_000_000_123));
    assert_eq!(decoded.into_iter().map(|(command, _)| command).collect::<Vec<_>>(), commands());
}

#[test]
fn a_batch_cut_or_flipped_anywhere_is_refused_or_still_well_formed() {
    let encoded: Vec<Bytes> = commands().iter().map(Command::to_bytes).collect();
    let batch = encode_batch(Stamp(1), &encoded);
    for end in 0..batch.len() {
        assert!(decode_batch(&batch[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..batch.len() * 8 {
        let mut flipped = batch.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A flipped bit may give another well-formed batch; the log's checksum is what finds it. It never panics.
        if let Ok((_, commands)) = decode_batch(&flipped) {
            assert!(commands.len() <= flipped.len());
        }
    }
}
