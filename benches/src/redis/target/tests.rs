//! Each way to post and to read against a real Redis: the same feeds and pages, and what is wrong is noticed.

use super::*;
use crate::load::graph::{GraphOptions, GraphShape};
use crate::redis::pages::ReadWay;
use crate::redis::process::is_installed;

const USERS: u32 = 300;

fn filled(instances: usize) -> Option<RedisTarget> {
    if !is_installed("redis-server") {
        println!("skipped: redis-server is not on the PATH");
        return None;
    }
    let options = GraphOptions {
        shape: GraphShape::PowerLaw,
        users: USERS,
        mean_followers: 30.0,
        celebrities: true,
        seed: 5,
    };
    let graph = Arc::new(BenchGraph::new(&options).unwrap());
    let options = RedisOptions {
        followers: Arc::new(graph.followers()),
        fill: FillPlan::new(&graph, 60, 10),
        graph,
        feed_cap: 60,
        payload_bytes: 50,
        instances,
        persistences: vec![Persistence::None, Persistence::Everysec, Persistence::Always],
        ways: FanoutWay::ALL.to_vec(),
        tuned: false,
        with_ceiling: false,
        directory: None,
    };
    let mut redis = RedisTarget::start(options).unwrap();
    assert_eq!(redis.load().unwrap().edges, redis.plan_edges());
    assert_eq!(redis.fill().unwrap().feed_entries, u64::from(USERS) * 60);
    Some(redis)
}

fn load(millis: u64) -> FanoutLoad {
    FanoutLoad {
        payload_bytes: 50,
        connections: 4,
        in_flight: 3,
        rate: None,
        duration: Duration::from_millis(millis),
        first_post: 0,
        sample_readers: 50,
        reads: None,
        window: None,
    }
}

impl RedisTarget {
    fn plan_edges(&self) -> u64 {
        self.options.followers.len()
    }
}

#[test]
fn every_way_delivers_each_post_once_to_each_follower() {
    for instances in [1, 2] {
        let Some(mut redis) = filled(instances) else { return };
        let all = redis.fanout(&load(50)).unwrap();
        assert_eq!(all.len(), 9);
        for figures in &all {
            let owners = (0..figures.posts).map(|post| redis.plan.graph().owner_of_post(post));
            let expected: usize = owners.map(|owner| redis.options.followers.of(owner).len()).sum();
            assert!(figures.posts > 0 && figures.post_micros.len() == figures.posts);
            assert_eq!(figures.deliveries, expected as u64, "{}", figures.way);
            assert_eq!(
                (figures.sampled_readers > 0, figures.mismatched_readers),
                (true, 0),
                "{}",
                figures.way
            );
        }
        assert!(all.iter().any(|figures| figures.persistence == Persistence::Always));
        redis.pause().unwrap();
        redis.resume().unwrap();
        redis.stop().unwrap();
    }
}

#[test]
fn what_is_asked_for_is_tried_each_time() {
    let Some(mut redis) = filled(1) else { return };
    redis.options.tuned = true;
    (redis.options.ways, redis.options.persistences) = (vec![FanoutWay::Rpush], vec![Persistence::None]);
    for in_flight in [3, 5, 3] {
        let [figures] = &redis.fanout(&FanoutLoad { in_flight, ..load(20) }).unwrap()[..] else { panic!() };
        let best = redis.best[&(FanoutWay::Rpush, Persistence::None, (4, in_flight))];
        assert_eq!((figures.connections, figures.in_flight), best);
    }
    assert_eq!(redis.best.len(), 2);
}

#[test]
fn a_feed_that_lacks_an_entry_or_holds_one_twice_is_noticed() {
    let Some(mut redis) = filled(1) else { return };
    let edges = Compared { sampled: redis.plan.graph().sampled_readers(40).len() as u64, mismatched: 0 };
    assert_eq!(redis.compare_edges(40).unwrap(), edges);
    let owner = redis.plan.graph().sampled_readers(40)[0];
    let mut control = Control::connect(redis.addresses[0]).unwrap();
    control.ok("RPOP", &[&format!("w{owner}")]).unwrap();
    assert_eq!(redis.compare_edges(40).unwrap(), Compared { mismatched: 1, ..edges });
    let compare = || oracle::compare(&redis.addresses, &redis.plan, &redis.log, &[7, 8]).unwrap().mismatched;
    assert_eq!(compare(), 0);
    let last = control.ask("RPOP", &["7"], |reply| String::from_utf8(reply.bytes().unwrap().to_vec()));
    assert_eq!(compare(), 1);
    let last = last.unwrap().unwrap();
    control.ok("RPUSH", &["7", &last]).unwrap();
    assert_eq!(compare(), 0);
    control.ok("RPUSH", &["8", &last]).unwrap();
    assert_eq!(compare(), 1);
}

#[test]
fn every_way_to_read_gives_the_same_pages() {
    for instances in [1, 2] {
        let Some(mut redis) = filled(instances) else { return };
        for (celebrities, hydrate) in [(false, false), (false, true), (true, false), (true, true)] {
            let load = ReadLoad {
                celebrities,
                hydrate,
                limit: 20,
                connections: 3,
                depth: 2,
                duration: Duration::from_millis(50),
                first_read: 0,
                sample_readers: 20,
            };
            let all = redis.read(&load).unwrap();
            assert_eq!(all.len(), ReadWay::all(celebrities, hydrate, instances).len());
            for figures in all {
                assert!(figures.reads > 0 && figures.read_micros.len() == figures.reads);
                assert_eq!(figures.mismatched_readers, 0, "{}", figures.way);
            }
        }
    }
}

#[test]
fn a_payload_that_is_missing_or_cut_is_noticed_in_every_way() {
    let Some(mut redis) = filled(1) else { return };
    let load = |celebrities| ReadLoad {
        celebrities,
        hydrate: true,
        limit: 20,
        connections: 3,
        depth: 2,
        duration: Duration::from_millis(50),
        first_read: 0,
        sample_readers: 0,
    };
    let mismatched = |redis: &mut RedisTarget, celebrities| -> Vec<u64> {
        redis.read(&load(celebrities)).unwrap().iter().map(|figures| figures.mismatched_readers).collect()
    };
    assert_eq!(mismatched(&mut redis, false), [0, 0, 0]);
    let mut control = Control::connect(redis.addresses[0]).unwrap();
    for number in 0..redis.plan.fill_posts() {
        let key = format!("p{}", keys::id_of(number));
        if number % 2 == 0 {
            control.ask("DEL", &[&key], |_| ()).unwrap();
        } else {
            control.ok("SET", &[&key, "cut"]).unwrap();
        }
    }
    for celebrities in [false, true] {
        let mismatched = mismatched(&mut redis, celebrities);
        assert!(mismatched.len() == 3 && mismatched.iter().all(|count| *count > 0), "{mismatched:?}");
    }
}

#[test]
fn reads_and_posts_go_together_at_a_rate() {
    let Some(mut redis) = filled(1) else { return };
    let load = MixedLoad {
        rate: 2_000.0,
        reads_per_post: 100,
        payload_bytes: 50,
        hydrate: false,
        limit: 20,
        connections: 4,
        duration: Duration::from_millis(200),
        first_post: 0,
        first_read: 0,
        sample_readers: 50,
    };
    for figures in redis.mixed(&load).unwrap() {
        assert!(figures.posts > 0 && figures.reads > 20 * figures.posts, "{}", figures.reads);
        assert_eq!(figures.mismatched_readers, 0);
    }
}

#[test]
fn a_whale_reaches_everybody_while_others_post() {
    let Some(mut redis) = filled(1) else { return };
    let others = FanoutLoad { rate: Some(200.0), ..load(200) };
    let (whale_pause, warm_up) = (Duration::from_millis(50), Duration::from_millis(20));
    let whales = redis.whale(&WhaleLoad { others, whale_pause, warm_up }).unwrap();
    assert_eq!(whales.len(), 9);
    // Four posts each time to warm up, which are not measured.
    let measured = |whale: &WhaleFigures| whale.without.posts + whale.with.posts + whale.whale_micros.len();
    assert_eq!(redis.log.len(), whales.iter().map(|whale| measured(whale) + 4).sum::<u64>());
    for whale in whales {
        assert!(whale.with.posts > 0 && !whale.whale_micros.is_empty());
        assert_eq!((whale.with.mismatched_readers, whale.whale_followers), (0, u64::from(USERS)));
    }
}
