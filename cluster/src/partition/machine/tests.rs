//! What stops service, what is flushed when, and what is due.

use fanfold_storage::command::{Append, Command, Limits, Ttl, Write, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::FaultFs;
use fanfold_storage::ids::{EntryId, GraphId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::log::GroupId;
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::*;
use crate::memory::within;
use crate::raft::testing::memory_directory;

#[test]
fn a_committed_batch_that_does_not_decode_stops_service() {
    let mut machine = PartitionMachine::new(PartitionId(0), 1);
    let batch = encode_batch(Stamp(5), &[Command::OpenSession.to_bytes()]);
    assert!(matches!(machine.apply(1, &batch)[..], [Applied::Outcome(Outcome::Session { .. })]));
    assert_eq!(machine.apply(2, b"nonsense"), Vec::new());
    assert!(machine.state().is_none());
    assert_eq!(machine.apply(3, &batch), vec![Applied::Damaged]);
}

#[test]
fn damage_that_was_met_stops_service() {
    let mut machine = PartitionMachine::new(PartitionId(0), 1);
    let batch = encode_batch(Stamp(5), &[Command::OpenSession.to_bytes()]);
    machine.apply(1, &batch);
    let damage = SegmentError::Damaged { path: "a".into(), offset: 0, what: "a record" };
    // While a batch is applied, and before one is.
    let mut work = machine.begin(2, &batch);
    machine.state.note_damage(damage);
    while machine.go_on(&mut work) {}
    assert_eq!(PartitionMachine::finish(work), vec![Applied::Damaged]);
    assert_eq!(machine.apply(3, &batch), vec![Applied::Damaged]);
    assert!(machine.is_damaged());
    assert_eq!(machine.state_as_is().applied(), 2, "nothing is applied on top");
}

const SPACE: SpaceId = SpaceId(1);

/// One with a space and a session.
fn with_a_space() -> PartitionMachine {
    let mut machine = PartitionMachine::new(PartitionId(0), 1);
    let definition = SpaceDefinition {
        id: SPACE,
        name: "posts".into(),
        graph: GraphId(1),
        graph_name: "follows".into(),
        version: 1,
        policy: SpacePolicy::default(),
    };
    let setup = [Command::DefineSpace { definition }, Command::OpenSession].map(|c| c.to_bytes());
    machine.apply(1, &encode_batch(Stamp(1_000_000), &setup));
    machine
}

/// Applies the session's next write.
fn write(machine: &mut PartitionMachine, number: u64, write: Write) {
    let sequence = Sequence(number);
    let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
    let command = Command::Write { tag, write };
    machine.apply(number + 1, &encode_batch(Stamp(1_000_000 + number), &[command.to_bytes()]));
}

/// Appends 64 KiB.
fn post(machine: &mut PartitionMachine, number: u64) {
    post_of(machine, number, UserId(1), Ttl::SpaceDefault);
}

fn post_of(machine: &mut PartitionMachine, number: u64, owner: UserId, ttl: Ttl) {
    write(machine, number, append_of(owner, ttl, 64 << 10));
}

fn append_of(owner: UserId, ttl: Ttl, bytes: usize) -> Write {
    let item = Append {
        space: SPACE,
        owner,
        author: None,
        audience: Audience::Public,
        ttl,
        key: None,
        reference: None,
        payload: vec![1; bytes].into(),
    };
    Write::Append { items: vec![item] }
}

fn bounds(table_bytes: u64, unflushed_bytes_max: u64, cache_bytes: u64) -> FileSettings {
    FileSettings { table_bytes, unflushed_bytes_max, cache_bytes, ..DiskOptions::default().files }
}

#[test]
fn only_what_a_flush_would_change_is_waited_for() {
    let mut machine = with_a_space();
    post(&mut machine, 1);
    assert!(machine.flush_work(&bounds(1 << 20, 0, 0)).is_none());
    assert_eq!(machine.unflushed(), Unflushed::Little, "the table is not full");
    assert!(machine.flush_work(&bounds(0, 1 << 20, 0)).is_some());
    assert_eq!(machine.unflushed(), Unflushed::Due);
    (2..17).for_each(|number| post(&mut machine, number));
    assert_eq!(machine.unflushed(), Unflushed::TooMuch, "with what is frozen");
    machine.state.note_damage(SegmentError::Damaged { path: "a".into(), offset: 0, what: "a record" });
    assert_eq!(machine.unflushed(), Unflushed::Little, "nothing of it goes to disk any more");
}

#[test]
fn a_table_of_which_everything_was_deleted_is_not_waited_for() {
    let mut machine = with_a_space();
    assert!(machine.flush_work(&bounds(0, 0, 0)).is_none());
    post(&mut machine, 1);
    assert_eq!(machine.unflushed(), Unflushed::TooMuch);
    let id = machine.state.timeline(SPACE, UserId(1), EntryId::MAX, 1).entries[0].id;
    write(&mut machine, 2, Write::Delete { space: SPACE, owner: UserId(1), id });
    assert!(machine.flush_work(&bounds(0, 0, 0)).is_none());
    assert_eq!(machine.unflushed(), Unflushed::Little);
}

#[test]
fn cached_tables_give_way_where_tables_are_flushed() {
    let disk = FaultFs::new();
    let (files, _) = memory_directory(&disk).files(GroupId(1)).unwrap();
    let mut machine = with_a_space();
    let flush = |machine: &mut PartitionMachine, settings: &FileSettings| {
        let work = machine.flush_work(settings)?;
        drop(work(&files).unwrap()(machine));
        Some(machine.state.cached_tables().count())
    };
    let (keeps, keeps_none) = (bounds(0, 1 << 30, 1 << 30), bounds(0, 1 << 30, 0));
    for number in 1..3 {
        post(&mut machine, number);
        assert_eq!(flush(&mut machine, &keeps), Some(number as usize));
        assert_eq!(flush(&mut machine, &keeps), None);
    }
    assert_eq!(flush(&mut machine, &keeps_none), Some(0));
    assert_eq!(flush(&mut machine, &keeps_none), None);
    assert_eq!(machine.state.timeline(SPACE, UserId(1), EntryId::MAX, 9).entries.len(), 2);
}

#[test]
fn a_table_that_was_full_stays_as_a_cache_when_it_is_flushed() {
    let disk = FaultFs::new();
    let (files, _) = memory_directory(&disk).files(GroupId(1)).unwrap();
    for memory_bytes in [0, 1 << 30, 16 << 30] {
        let settings = within(&DiskOptions::default(), memory_bytes, 16).files;
        let mut machine = with_a_space();
        let work = (1..).find_map(|number| {
            post(&mut machine, number);
            machine.flush_work(&settings)
        });
        drop(work.unwrap()(&files).unwrap()(&mut machine));
        assert!(machine.flush_work(&settings).is_none(), "with {memory_bytes}: it stays");
        assert_eq!(machine.state.cached_tables().count(), 1);
    }
}

#[test]
fn what_is_due_is_known_without_the_state_and_nothing_is_once_it_is_damaged() {
    let mut machine = with_a_space();
    let due = machine.due();
    assert_eq!((due.ticks(u64::MAX - 1).len(), due.next()), (0, (None, false)));
    post_of(&mut machine, 1, UserId(1), Ttl::Ms { ttl_ms: 1_000 });
    let expires = Stamp(machine.state.stamp().0 + 1_000);
    assert_eq!(due.next(), (Some(expires), false));
    assert_eq!([expires.0 - 1, expires.0].map(|at| due.ticks(at).len()), [0, 1]);
    machine.state.note_damage(SegmentError::Damaged { path: "a".into(), offset: 0, what: "a record" });
    machine.apply(3, &encode_batch(expires, &due.ticks(expires.0)));
    assert_eq!(due.next(), (None, false), "nothing comes of a tick any more");
}

#[test]
fn what_is_due_is_never_noted_later_than_it_is_wherever_the_entry_went() {
    let disk = FaultFs::new();
    let (files, _) = memory_directory(&disk).files(GroupId(1)).unwrap();
    let mut machine = with_a_space();
    let due = machine.due();
    let ttl = |seconds: u64| Ttl::Ms { ttl_ms: seconds * 1_000 };
    for (number, seconds) in [(1, 20), (2, 40), (3, 60)] {
        post_of(&mut machine, number, UserId(1), ttl(seconds));
    }
    let expiry = |number: u64| Stamp(1_000_000 + number + 20_000 * number);
    let newest_first = machine.state.timeline(SPACE, UserId(1), EntryId::MAX, 9).entries;
    let id = newest_first[2].id;
    write(&mut machine, 4, Write::Delete { space: SPACE, owner: UserId(1), id });
    let work = machine.flush_work(&bounds(0, 1 << 30, 0)).unwrap();
    drop(work(&files).unwrap()(&mut machine));
    // What was deleted is due once more, and the others are found where they are now.
    for (index, number) in [(6, 1), (7, 2), (8, 3)] {
        assert_eq!(due.next(), (Some(expiry(number)), false));
        machine.apply(index, &encode_batch(expiry(number), &due.ticks(expiry(number).0)));
    }
    assert_eq!(due.next(), (None, false));
}

#[test]
fn what_is_due_is_known_of_a_table_that_was_full_amid_a_batch() {
    let mut machine = with_a_space();
    let appended = |number: u64, ttl: Ttl| {
        let sequence = Sequence(number);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: Sequence(1) };
        let command = Command::Write { tag, write: append_of(UserId(1), ttl, 1) };
        command.to_bytes()
    };
    let first = appended(1, Ttl::Ms { ttl_ms: 20_000 });
    let commands: Vec<_> =
        std::iter::once(first).chain((2..200).map(|number| appended(number, Ttl::SpaceDefault))).collect();
    let batch = encode_batch(Stamp(1_000_001), &commands);
    let mut work = machine.begin(2, &batch);
    assert!(machine.go_on(&mut work), "a batch in pieces");
    assert!(machine.flush_work(&bounds(0, 1 << 30, 0)).is_some());
    while machine.go_on(&mut work) {}
    assert_eq!(machine.due().next(), (Some(Stamp(1_020_001)), false));
}

#[test]
fn each_fan_out_with_slices_left_is_due_a_tick_a_few_at_a_time() {
    let mut machine = with_a_space();
    let limits = Limits { slice_followers: 1, ..Limits::default() };
    let configure = Command::Configure { limits }.to_bytes();
    machine.apply(2, &encode_batch(Stamp(1_000_000), &[configure]));
    for reader in [10, 11] {
        let (graph, reader, owners) = (GraphId(1), UserId(reader), (1..7).map(UserId).collect());
        write(&mut machine, reader.0, Write::Follow { graph, reader, owners });
    }
    for owner in 1..7 {
        post_of(&mut machine, 20 + owner, UserId(owner), Ttl::SpaceDefault);
    }
    let due = machine.due();
    let mut index = 100;
    let mut served = Vec::new();
    while due.next().1 {
        let ticks = due.ticks(1_000_100);
        served.push(ticks.len());
        index += 1;
        machine.apply(index, &encode_batch(Stamp(1_000_100), &ticks));
    }
    // Six fan-outs, of two followers each and one at a time.
    assert_eq!(served, [4, 4, 4]);
    assert_eq!(machine.state.usage().deliveries_stored, 12);
}
