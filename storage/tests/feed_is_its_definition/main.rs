//! Random histories over several partitions, with hostile streams, against the oracle.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod node;
mod system;

use fanfold_storage::entry::Audience;
use fanfold_storage::space::FanOut;
use proptest::prelude::*;

use disk::Maintenance;
use system::{ImportItem, ImportPlace, Settings, Step, System};

const USERS: u64 = 9;

fn user() -> impl Strategy<Value = u64> {
    // Few owners are popular, so that thresholds and slices are passed.
    prop_oneof![2 => 0..2u64, 3 => 0..USERS]
}

fn audience() -> impl Strategy<Value = Audience> {
    prop_oneof![6 => Just(Audience::Public), 2 => Just(Audience::Followers), 1 => Just(Audience::Private)]
}

fn fan_out() -> impl Strategy<Value = FanOut> {
    prop_oneof![4 => Just(FanOut::Auto), 1 => Just(FanOut::Push), 1 => Just(FanOut::Pull)]
}

fn step() -> impl Strategy<Value = Step> {
    let pair = || (user(), user());
    prop_oneof![
        12 => (0..2usize, user(), user(), audience(), prop::option::of(1..6_000u64), any::<u8>())
            .prop_map(|(space, owner, author, audience, ttl_ms, reference)| Step::Append {
                space, owner, author, audience, ttl_ms, reference,
            }),
        3 => any::<u8>().prop_map(|pick| Step::Amend { pick }),
        4 => any::<u8>().prop_map(|pick| Step::Delete { pick }),
        3 => (any::<u8>(), prop::option::of(1..6_000u64)).prop_map(|(pick, ttl_ms)| Step::SetExpiry { pick, ttl_ms }),
        10 => pair().prop_map(|(a, b)| Step::Follow { reader: a, owners: vec![b] }),
        3 => (user(), prop::collection::vec(0..USERS, 1..6)).prop_map(|(reader, owners)| Step::Follow { reader, owners }),
        5 => pair().prop_map(|(a, b)| Step::Unfollow { reader: a, owner: b }),
        1 => pair().prop_map(|(a, b)| Step::Mute { user: a, target: b }),
        1 => pair().prop_map(|(a, b)| Step::Unmute { user: a, target: b }),
        2 => pair().prop_map(|(a, b)| Step::Block { user: a, target: b }),
        2 => pair().prop_map(|(a, b)| Step::Unblock { user: a, target: b }),
        4 => (user(), prop::collection::vec((user(), user(), -200..20_000i64), 1..8))
            .prop_map(|(reader, edges)| Step::ImportFollows { reader, edges }),
        5 => (user(), prop::collection::vec(import_item(), 1..6))
            .prop_map(|(owner, items)| Step::ImportEntries { owner, items }),
        1 => Just(Step::RetryLast),
        4 => (1..3_000u64).prop_map(|ms| Step::Advance { ms }),
        2 => (0..2usize, 1..7u32, 1..4u32, fan_out(), prop::option::of(1_000..20_000u64))
            .prop_map(|(space, feed_cap, pull_threshold, fan_out, horizon_ms)| Step::Alter {
                space, feed_cap, pull_threshold, fan_out, horizon_ms,
            }),
        10 => any::<u64>().prop_map(|seed| Step::Streams { seed }),
        3 => any::<u8>().prop_map(|partition| Step::Slice { partition }),
        2 => any::<u8>().prop_map(|partition| Step::Restart { partition }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(partition, open)| Step::Sessions { partition, open }),
        5 => any::<u8>().prop_map(|partition| Step::BeginCut { partition }),
        1 => any::<u8>().prop_map(|partition| Step::AbandonCut { partition }),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(partition, restart)| Step::FinishCut { partition, restart }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(source, destination)| Step::DropStream { source, destination }),
        1 => any::<u8>().prop_map(|partition| Step::Reincarnate { partition }),
        2 => any::<bool>().prop_map(|slices| Step::Check { slices }),
        1 => user().prop_map(|reader| Step::Mark { reader }),
        3 => user().prop_map(|reader| Step::Active { reader }),
        3 => (any::<u8>(), 0..3u32, 0..9u32)
            .prop_map(|(partition, from, most)| Step::FreeFeeds { partition, from, most }),
        3 => (any::<u8>(), 0..12u32, 1..6u32)
            .prop_map(|(partition, keep, most)| Step::LeaveWindow { partition, keep, most }),
        16 => (any::<u8>(), maintenance())
            .prop_map(|(partition, maintenance)| Step::Maintain { partition, maintenance }),
    ]
}

fn maintenance() -> impl Strategy<Value = Maintenance> {
    prop_oneof![
        4 => Just(Maintenance::Freeze),
        8 => Just(Maintenance::Flush),
        5 => Just(Maintenance::Merge),
        2 => any::<bool>().prop_map(|all| Maintenance::DropCached { all }),
        1 => Just(Maintenance::DropExpired),
    ]
}

fn import_item() -> impl Strategy<Value = ImportItem> {
    let place = prop_oneof![
        6 => (-200..20_000i64).prop_map(ImportPlace::Ago),
        2 => (0..3i64).prop_map(ImportPlace::Ago),
        // Many at the same time.
        3 => Just(ImportPlace::Start),
        1 => any::<u8>().prop_map(ImportPlace::IdOf),
    ];
    let key = prop::option::weighted(0.2, 0..3u8);
    (0..2usize, user(), audience(), place, key, prop::option::weighted(0.3, -1_000..6_000i64)).prop_map(
        |(space, owner, audience, place, key, expiry_in_ms)| ImportItem {
            space,
            owner,
            audience,
            place,
            key,
            expiry_in_ms,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![Just(1u16), Just(2), Just(4)], 3..40u32, 1..4u32, 0..3u32).prop_map(
        |(partitions, window_rows, slice_followers, backfill_followers)| Settings {
            partitions,
            window_rows,
            slice_followers,
            backfill_followers,
        },
    )
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// One reader and one owner in two partitions: follows, unfollows, posts and deletes against single events of the two
/// streams, so that every order of the row 31 of the promises comes up.
fn pair_step() -> impl Strategy<Value = Step> {
    let (reader, owner) = system::APART;
    let event = |from_owner: bool| Step::OneEvent { from_owner };
    prop_oneof![
        2 => Just(Step::Append {
            space: 0, owner, author: owner, audience: Audience::Public, ttl_ms: None, reference: u8::MAX,
        }),
        2 => (0..2u8).prop_map(|pick| Step::Delete { pick }),
        2 => Just(Step::Follow { reader, owners: vec![owner] }),
        2 => Just(Step::Unfollow { reader, owner }),
        4 => any::<bool>().prop_map(event),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10 * cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_deleted_entry_never_returns_whatever_the_order(steps in prop::collection::vec(pair_step(), 4..24)) {
        let settings = Settings { partitions: 2, window_rows: 40, slice_followers: 4, backfill_followers: 4 };
        let mut system = System::new(&settings, 3);
        for step in &steps {
            system.step(step);
        }
        system.check(true);
    }
}

/// A few owners whose entries change over and over, while tables and segments come and go.
fn timeline_step() -> impl Strategy<Value = Step> {
    let ttl_ms = || prop::option::of(1..400_000u64);
    prop_oneof![
        8 => (0..2usize, 0..3u64, audience(), ttl_ms()).prop_map(|(space, owner, audience, ttl_ms)| {
            Step::Append { space, owner, author: owner, audience, ttl_ms, reference: u8::MAX }
        }),
        4 => any::<u8>().prop_map(|pick| Step::Amend { pick }),
        3 => any::<u8>().prop_map(|pick| Step::Delete { pick }),
        3 => (any::<u8>(), ttl_ms()).prop_map(|(pick, ttl_ms)| Step::SetExpiry { pick, ttl_ms }),
        1 => (0..3u64, 0..3u64).prop_map(|(reader, owner)| Step::Follow { reader, owners: vec![owner] }),
        2 => (1..100_000u64).prop_map(|ms| Step::Advance { ms }),
        1 => any::<u8>().prop_map(|partition| Step::Restart { partition }),
        1 => Just(Step::Check { slices: true }),
        18 => maintenance().prop_map(|maintenance| Step::Maintain { partition: 0, maintenance }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_timeline_is_the_same_wherever_it_lies(steps in prop::collection::vec(timeline_step(), 20..160)) {
        let settings = Settings { partitions: 1, window_rows: 8, slice_followers: 4, backfill_followers: 4 };
        let mut system = System::new(&settings, 3);
        for step in &steps {
            system.step(step);
        }
        system.check(true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_feed_equals_its_definition(settings in settings(), steps in prop::collection::vec(step(), 1..90)) {
        let mut system = System::new(&settings, USERS);
        for step in &steps {
            system.step(step);
        }
        system.check(true);
        system.restart_from_cuts();
        system.check(false);
    }
}

/// Rows of a subscription that ended must not raise the floor of the one that follows it.
#[test]
fn an_expiry_reaches_rows_of_a_renewed_subscription() {
    let settings = Settings { partitions: 1, window_rows: 6, slice_followers: 4, backfill_followers: 4 };
    let mut system = System::new(&settings, 4);
    let append = |owner| Step::Append {
        space: 0,
        owner,
        author: owner,
        audience: Audience::Public,
        ttl_ms: None,
        reference: u8::MAX,
    };
    let follow = |owner| Step::Follow { reader: 1, owners: vec![owner] };
    let mut steps = vec![follow(2), append(2), append(2), append(2)];
    steps.extend([
        Step::Unfollow { reader: 1, owner: 2 },
        follow(2),
        follow(3),
        append(3),
        append(3),
        append(3),
    ]);
    // The newest entry of the first owner is the fourth from the end.
    steps.extend([Step::SetExpiry { pick: 3, ttl_ms: Some(100) }, Step::Advance { ms: 3_000 }]);
    steps.iter().for_each(|step| system.step(step));
    system.check(true);
}

/// A backfill ends at private entries without end; what it left out is still in every feed.
#[test]
fn entries_below_many_private_ones_are_shown() {
    let settings = Settings { partitions: 2, window_rows: 40, slice_followers: 4, backfill_followers: 4 };
    let mut system = System::new(&settings, 4);
    let (reader, owner) = system::APART;
    let append = |audience| Step::Append {
        space: 0,
        owner,
        author: owner,
        audience,
        ttl_ms: None,
        reference: u8::MAX,
    };
    let mut steps = vec![append(Audience::Public); 5];
    steps.extend(vec![append(Audience::Private); 20]);
    steps.extend([reader, owner + 1].map(|reader| Step::Follow { reader, owners: vec![owner] }));
    steps.extend([append(Audience::Public), Step::Check { slices: true }]);
    steps.extend([append(Audience::Private), Step::Unfollow { reader, owner }]);
    steps.push(Step::Follow { reader, owners: vec![owner] });
    steps.iter().for_each(|step| system.step(step));
    system.check(true);
    system.restart_from_cuts();
    system.check(false);
}
