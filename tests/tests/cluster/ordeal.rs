//! Owns the tiers in which a cluster of processes lives through everything, under a constant load of posts, follows, deletes and
//! feed reads: in the end everything equals the oracle, replicas are identical, scans that were begun on the way go on, and
//! the history of each timeline is linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanfold_client::UserId;
use fanfold_server::workload::access::Access;
use fanfold_server::workload::activity::{ActivityOptions, SeededActivity};
use fanfold_server::workload::graph::FollowGraph;
use fanfold_server::workload::mirror::Mirror;
use fanfold_server::workload::report::Report;
use fanfold_server::workload::run::Run;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::links::Links;
use crate::load::{Checked, FIRST_USER, Histories, Reads, Scans};
use crate::namespaces::Namespaces;
use crate::network::Network;
use crate::replicas;
use crate::troubles::{Ordeal, PATIENCE, REPLICAS, Trouble};

/// Operations under way at most: more than come while a partition is without a leader.
const WINDOW: usize = 2_048;

/// What is done, and for how long.
struct Tier {
    /// The order of the troubles follows from it too.
    seed: u64,
    users: u64,
    operations_per_second: u32,
    lasts: Duration,
    troubles: Vec<Trouble>,
    /// Whether acknowledged entries are taken away in the end: a negative control, which has to be noticed.
    is_robbed: bool,
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .map_or(default, |said| said.parse().ok().unwrap_or_else(|| panic!("{name}={said}")))
}

/// The seed that is asked for, or any.
fn seed() -> u64 {
    variable("FANFOLD_SEED", rand::random_range(0..1_000_000))
}

/// So many of it.
fn times(trouble: Trouble, count: usize) -> impl Iterator<Item = Trouble> {
    std::iter::repeat_n(trouble, count)
}

/// What is not as it should be, by who found it.
#[derive(Debug, Default)]
struct Wrong {
    histories: Option<String>,
    scans: Vec<String>,
    comparison: Option<String>,
}

impl Wrong {
    fn is_nothing(&self) -> bool {
        self.histories.is_none() && self.scans.is_empty() && self.comparison.is_none()
    }
}

async fn live_through(tier: Tier, network: Box<dyn Network>, arguments: &[&str]) {
    let wrong = find_wrong(tier, network, arguments).await;
    assert!(wrong.is_nothing(), "{wrong:#?}");
}

async fn find_wrong(tier: Tier, network: Box<dyn Network>, arguments: &[&str]) -> Wrong {
    let Tier { seed, users, operations_per_second, lasts, troubles, is_robbed } = tier;
    println!("FANFOLD_SEED={seed}, {} s: {troubles:?}", lasts.as_secs());
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let founding = crate::options(&[&crate::SMALL, arguments].concat());
    let joining = crate::options(&[&crate::SMALL[2..], arguments].concat());
    let mut ordeal = Ordeal::begin(network, &founding, joining, rng).await;
    let access = Access::of(ordeal.client.clone()).await.unwrap();
    let graph = FollowGraph::power_law(users, seed);
    let parameters = serde_json::json!({ "users": users, "seed": seed });
    let mut run = Run::begin(access.clone(), None, WINDOW, Report::new("cluster", parameters)).await.unwrap();
    run.follow(&graph).await.unwrap();
    run.set_pace(operations_per_second);

    let is_over = AtomicBool::new(false);
    let activity = SeededActivity::new(&graph, ActivityOptions { posts: usize::MAX, seed });
    let activity = activity.take_while(|_| !is_over.load(Ordering::Relaxed));
    let users: Arc<[UserId]> = graph.users().into();
    let reads = Reads::begin(&access, &users, seed);
    let histories = Histories::begin(async || ordeal.fleet.client(PATIENCE).await.unwrap(), seed).await;
    let count = troubles.len() as u32;
    let troubled = async {
        let begun = Instant::now();
        for (at, trouble) in troubles.into_iter().enumerate() {
            // The first one comes when the load has begun, and the last one has its share of time.
            let comes = (lasts * (2 * at as u32 + 1)) / (2 * count + 1);
            tokio::time::sleep(comes.saturating_sub(begun.elapsed())).await;
            let before = begun.elapsed();
            ordeal.make(trouble).await;
            let took = begun.elapsed().saturating_sub(before);
            println!("{:6.1} s: {trouble:?}, {:.1} s", before.as_secs_f64(), took.as_secs_f64());
        }
        tokio::time::sleep(lasts.saturating_sub(begun.elapsed())).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (acted, ()) = tokio::join!(run.act(0, activity), troubled);
    acted.unwrap();
    println!("{:?}", ordeal.tally());
    ordeal.whole().await;
    tokio::time::timeout(PATIENCE, reads.has_begun_a_scan()).await.unwrap();
    let (pages, scans) = reads.end().await;
    if is_robbed {
        rob(&access, &scans, run.mirror()).await;
    }
    let mut wrong = Wrong::default();
    let history = histories.end(&access.client).await.unwrap_or_else(|(owner, found)| {
        wrong.histories = Some(format!("the timeline of {owner}: {found:#?}"));
        Checked::default()
    });
    access.wait_drained().await.unwrap();
    let held = access.client.statuses().await.unwrap().into_iter();
    let held: Vec<_> = held.filter_map(|(node, said)| Some((node, said.unwrap().clock_held_ms?))).collect();
    assert!(held.is_empty(), "nobody changed a clock, and it is held: {held:?}");
    run.check().await.unwrap();
    let scans_begun = scans.len();
    wrong.scans = scans.go_on(&access, run.mirror()).await;
    let tally = run.mirror().tally();
    let ran = run.finish().await.unwrap();
    wrong.comparison = (ran.report.mismatches() > 0).then(|| format!("{ran}\n{}", ran.report));
    drop(access);
    let (left, _processes, _network) = ordeal.end().await;
    let compared = replicas::compare(&left, REPLICAS).await;
    println!(
        "{} operations, {} posts, {} feeds and {} timelines compared with the oracle; {pages} pages read, {scans_begun} \
         scans gone on with; {} events of histories, {} of unknown outcome; {compared} replicas compared",
        tally.operations,
        tally.posts,
        ran.report.feeds_checked,
        ran.report.timelines_checked,
        history.events,
        history.unknown
    );
    assert!(scans_begun > 0 && pages > 0 && compared > 0, "nothing was looked at");
    assert!(history.events > 0 || wrong.histories.is_some(), "no history was looked at");
    wrong
}

/// Takes acknowledged entries away, as if they had been lost: one below a scan, and one of a history.
async fn rob(access: &Access, scans: &Scans, mirror: &Mirror) {
    let oldest = *mirror.feed(scans.reader().unwrap()).last().unwrap();
    let owner = UserId(mirror.entry(oldest).unwrap().owner.0);
    assert!(access.space.delete(owner, oldest).await.unwrap().existed);
    let owner = UserId(FIRST_USER);
    let shown = access.space.timeline(owner).limit(1_000).await.unwrap();
    let oldest = shown.entries.last().unwrap().id;
    assert!(access.space.delete(owner, oldest).await.unwrap().existed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and a half"]
async fn nodes_killed_held_and_cut_off_for_a_minute_lose_and_repeat_nothing() {
    let mut troubles: Vec<_> =
        times(Trouble::Kill, 3).chain(times(Trouble::Suspend, 1)).chain(times(Trouble::Cut, 2)).collect();
    let (seed, lasts) = (seed(), Duration::from_secs(60));
    troubles.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let tier = Tier { seed, users: 300, operations_per_second: 150, lasts, troubles, is_robbed: false };
    live_through(tier, Box::new(Links::default()), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_away_is_missed_by_every_check() {
    let (seed, lasts) = (seed(), Duration::from_secs(5));
    let tier =
        Tier { seed, users: 100, operations_per_second: 150, lasts, troubles: Vec::new(), is_robbed: true };
    let wrong = find_wrong(tier, Box::new(Links::default()), &[]).await;
    assert!(wrong.histories.is_some(), "{wrong:?}");
    assert!(!wrong.scans.is_empty(), "{wrong:?}");
    assert!(wrong.comparison.is_some(), "{wrong:?}");
}

/// So many minutes of everything, in a drawn order.
fn long() -> Tier {
    let minutes: u64 = variable("FANFOLD_MINUTES", 20);
    let share = |count: u64| (count * minutes).div_ceil(20) as usize;
    let mut troubles: Vec<_> = times(Trouble::Kill, share(20))
        .chain(times(Trouble::Suspend, share(5)))
        .chain(times(Trouble::Cut, share(10)))
        .chain(times(Trouble::RollingRestart, share(2)))
        .collect();
    let seed = seed();
    troubles.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // What moves replicas needs the fourth node, which is there from the first of these to the last.
    let all = troubles.len();
    let people = [
        (15, Trouble::AddAndBalance),
        (35, Trouble::MoveAll),
        (50, Trouble::WipeAndReplace),
        (65, Trouble::MoveAllAndKill),
        (80, Trouble::DrainAndRemove),
    ];
    for (percent, trouble) in people.into_iter().rev() {
        troubles.insert(all * percent / 100, trouble);
    }
    if let Ok(only) = std::env::var("FANFOLD_TROUBLES") {
        let named = |name: &str| {
            let found = troubles.iter().find(|trouble| format!("{trouble:?}") == name);
            *found.unwrap_or_else(|| panic!("FANFOLD_TROUBLES: {name} is none of {troubles:?}"))
        };
        troubles = only.split(',').map(named).collect();
    }
    let lasts = Duration::from_secs(60 * minutes);
    Tier { seed, users: 1_000, operations_per_second: 150, lasts, troubles, is_robbed: false }
}

/// `FANFOLD_MINUTES` makes it shorter or longer, with as many fewer or more of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes twenty minutes"]
async fn whatever_is_done_to_nodes_for_twenty_minutes_loses_and_repeats_nothing() {
    live_through(long(), Box::new(Links::default()), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes twenty minutes, and needs root"]
async fn whatever_is_done_to_nodes_in_networks_of_their_own_loses_and_repeats_nothing() {
    live_through(long(), Box::new(Namespaces::new()), &["--insecure-listen-without-tls"]).await;
}
