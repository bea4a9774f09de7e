//! Owns a run: the hosts of a seed, step by step, until everything has been done and compared.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::check::{self, Watch};
use crate::nemesis::Nemesis;
use crate::plan::{NODES, Plan};
use crate::wire::name_of;
use crate::world::{World, lock};
use crate::{client, entropy, node, whole};

/// How often the replicas are looked at.
const LOOK_EVERY_MS: u64 = 250;

/// How much longer than planned a run may take to settle.
const LATE_MS: u64 = 60_000;

/// What came of a run.
pub struct Report {
    pub violations: Vec<String>,
    pub events: u64,
    pub hash: u64,
    pub simulated_ms: u64,
    pub took: Duration,
    pub writes: u64,
    pub reads: u64,
    pub compared: u64,
    pub crashes: u64,
    pub faults: u64,
}

/// What panicked in this process.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs a seed. Only once in a process: nothing of an earlier run may be left.
pub fn run(plan: Plan) -> Report {
    let began = Instant::now();
    entropy::seed(plan.seed);
    std::panic::set_hook(Box::new(|panic| lock(&PANICS).push(panic.to_string())));
    let world = Arc::new(World::new(plan));
    fanfold_cluster::blocking::work_in_place_on_this_thread({
        let world = world.clone();
        Arc::new(move |dir| world.disk_time(dir))
    });
    fanfold_cluster::peer::use_sockets_on_this_thread(Arc::new(whole::SimulatedSockets));
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .udp_capacity(1 << 14)
        .tcp_capacity(1 << 12)
        .enable_random_order()
        .build();
    for number in 0..NODES {
        let world = world.clone();
        if plan.is_whole {
            sim.host(name_of(number), move || whole::run(world.clone(), number));
        } else {
            sim.host(name_of(number), move || node::run(world.clone(), number));
        }
    }
    sim.client(name_of(NODES), client::run(world.clone()));
    let (mut nemesis, mut watch) = (Nemesis::new(plan.seed), Watch::default());
    let end_ms = loop {
        let clients_done = sim.step().unwrap_or_else(|error| {
            world.violate(format!("a host failed: {error}"));
            true
        });
        let now_ms = world.now_ms() + 1;
        world.set_now_ms(now_ms);
        nemesis.step(&mut sim, &world);
        for panic in std::mem::take(&mut *lock(&PANICS)) {
            world.violate(panic);
        }
        let looks = now_ms.is_multiple_of(LOOK_EVERY_MS);
        if looks {
            watch.look(&world);
        }
        if !world.violations().is_empty() {
            break now_ms;
        }
        if looks && now_ms >= plan.end_ms() && clients_done && check::has_settled(&world) {
            check::check_end(&world);
            break now_ms;
        }
        if now_ms > plan.end_ms() + LATE_MS {
            let left = check::unsettled(&world).unwrap_or_else(|| "the clients have not ended".to_owned());
            world.violate(format!("it does not settle: {left}"));
            break now_ms;
        }
    };
    let (events, hash) = world.trace();
    let (writes, reads) = {
        let model = lock(&world.model);
        (model.writes, model.reads)
    };
    let report = Report {
        violations: world.violations(),
        events,
        hash,
        simulated_ms: end_ms,
        took: began.elapsed(),
        writes,
        reads,
        compared: watch.compared(),
        crashes: nemesis.crashes,
        faults: nemesis.faults,
    };
    // Replicas are dropped while their hosts still are there.
    (0..NODES).for_each(|number| {
        sim.crash(name_of(number));
        world.forget_replicas(number);
    });
    if plan.is_whole {
        // A directory that cannot be removed is one too many in the directory of temporary ones, and no more.
        let _ = std::fs::remove_dir_all(whole::dir_of(0).with_file_name(""));
    }
    report
}
