//! Owns Redis as a side of a measurement: its processes, what they were filled with, and every measurement asked of it.
//!
//! - Each usual way is run in each durability mode asked for; the figures of all runs are returned, the harness takes the best.
//! - The first measurement of a way in a mode tries a few numbers of connections and posts under way and those asked for, and keeps
//!   the best for whenever the same is asked for again.
//! - Every run is preceded by a short one that is not counted, and followed by a comparison with the oracle.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ceiling::{self, Ceiling};
use super::control::Control;
use super::encode::{Encoder, FanoutWay};
use super::error::RedisError;
use super::filling;
use super::keys;
use super::oracle::{self, PostLog};
use super::plan::Plan;
use super::posting::{OPEN_LOOP_IN_FLIGHT_MAX, Pace, Posting};
use super::process::{RedisProcess, figures_of};
use super::pump::{Micros, Pump};
use crate::load::fill::FillPlan;
use crate::load::graph::{BenchGraph, UserLists};
use crate::load::target::{
    Compared, FanoutLoad, Figures, Filled, Loaded, MicrosHistogram, MixedLoad, Persistence, ReadLoad,
    ServerUse, Target, TargetError, TargetKind, WhaleFigures, WhaleLoad,
};

/// Connections and posts under way that are tried besides those asked for: Redis is at its best somewhere between.
const TRIED: [(u32, u32); 4] = [(4, 8), (16, 4), (16, 16), (50, 16)];
/// How long a trial or a warm-up takes.
const TRIAL: Duration = Duration::from_secs(1);

/// What the Redis side is made of.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Who follows whom.
    pub graph: Arc<BenchGraph>,
    /// The same, by owner.
    pub followers: Arc<UserLists>,
    /// What fills the feeds.
    pub fill: FillPlan,
    /// Entries that a feed keeps.
    pub feed_cap: u32,
    /// Bytes of the payloads of the fill, for hydrated pages.
    pub payload_bytes: u32,
    /// Servers: 1, or 2 with one half of the users each.
    pub instances: usize,
    /// Durability modes to be measured, in this order.
    pub persistences: Vec<Persistence>,
    /// Ways to be measured.
    pub ways: Vec<FanoutWay>,
    /// Whether better numbers of connections and posts under way are looked for in closed loops.
    pub tuned: bool,
    /// Whether the client's ceiling is compared with redis-benchmark's.
    pub with_ceiling: bool,
    /// Where the files go; the system's temporary directory if none.
    pub directory: Option<PathBuf>,
}

/// Redis, filled and measured.
#[derive(Debug)]
pub struct RedisTarget {
    pub(super) options: RedisOptions,
    pub(super) plan: Plan,
    pub(super) processes: Vec<RedisProcess>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) script_sha: String,
    pub(super) log: PostLog,
    best: HashMap<Tuned, (u32, u32)>,
    ceiling: Option<Ceiling>,
    pub(super) has_payloads: bool,
}

/// What connections and posts under way were found best for: a way, its durability, and what was asked for, which is one of those tried.
type Tuned = (FanoutWay, Persistence, (u32, u32));

/// How posts are made in one run.
#[derive(Debug, Clone, Copy)]
struct Run {
    way: FanoutWay,
    connections: u32,
    in_flight: u32,
    rate: Option<f64>,
    payload_bytes: u32,
    first_post: u64,
    duration: Duration,
    whale_pause: Option<Duration>,
}

/// What was used when a measurement began.
#[derive(Debug)]
pub(super) struct Meter {
    before: ServerUse,
    client_cpu_seconds: f64,
}

impl RedisTarget {
    /// Starts the servers, empty.
    ///
    /// # Errors
    ///
    /// If Redis is not installed or does not start.
    pub fn start(options: RedisOptions) -> Result<Self, RedisError> {
        let RedisOptions { graph, followers, fill, feed_cap, .. } = &options;
        let instances = options.instances.clamp(1, 2);
        let plan = Plan::new(Arc::clone(graph), Arc::clone(followers), *fill, *feed_cap, instances);
        let mut processes = Vec::new();
        for _ in 0..instances {
            processes.push(RedisProcess::start(options.directory.as_deref())?);
        }
        let addresses: Vec<SocketAddr> = processes.iter().map(RedisProcess::address).collect();
        let mut script_sha = String::new();
        for address in &addresses {
            let mut control = Control::connect(*address)?;
            let script = keys::push_script(plan.feed_cap());
            script_sha = control.ask("SCRIPT", &["LOAD", &script], |reply| {
                reply.bytes().map(|sha| String::from_utf8_lossy(sha).into_owned()).unwrap_or_default()
            })?;
            control.ok("FUNCTION", &["LOAD", &keys::library(plan.feed_cap())])?;
        }
        Ok(Self {
            options,
            plan,
            processes,
            addresses,
            script_sha,
            log: PostLog::default(),
            best: HashMap::new(),
            ceiling: None,
            has_payloads: false,
        })
    }

    /// What the client reached on an empty server beside redis-benchmark, if it was asked for.
    pub fn ceiling(&self) -> Option<Ceiling> {
        self.ceiling
    }

    fn server_use(&self) -> Result<ServerUse, RedisError> {
        let mut sum = ServerUse::default();
        for process in &self.processes {
            let figures = process.figures()?;
            sum.cpu_seconds += figures.cpu_seconds;
            sum.resident_bytes += figures.resident_bytes;
            sum.written_bytes += figures.written_bytes;
            // One disk for all.
            sum.disk_written_bytes = figures.disk_written_bytes;
        }
        Ok(sum)
    }

    pub(super) fn set_persistence(&mut self, wanted: Persistence) -> Result<(), RedisError> {
        self.processes.iter_mut().try_for_each(|process| process.set_persistence(wanted))
    }

    fn persistence(&self) -> Persistence {
        self.processes.first().map_or(Persistence::None, RedisProcess::persistence)
    }

    pub(super) fn begin(&self) -> Result<Meter, RedisError> {
        let client_cpu_seconds = figures_of(std::process::id())?.cpu_seconds;
        Ok(Meter { before: self.server_use()?, client_cpu_seconds })
    }

    pub(super) fn figures(
        &self,
        meter: &Meter,
        way: &'static str,
        seconds: f64,
    ) -> Result<Figures, RedisError> {
        let mut figures = Figures::new(way, self.persistence());
        figures.before = meter.before;
        figures.after = self.server_use()?;
        figures.client_cpu_seconds = figures_of(std::process::id())?.cpu_seconds - meter.client_cpu_seconds;
        figures.partitions = self.processes.len() as u32;
        figures.seconds = seconds;
        let share = figures.server_cpu_seconds() / (seconds * self.processes.len() as f64).max(1e-9);
        figures.notes.push(("redis_core_share", share));
        if let Some(ceiling) = &self.ceiling {
            figures.notes.extend(ceiling.notes());
        }
        Ok(figures)
    }

    /// One run of posts, and a comparison if readers are given.
    fn post(&mut self, run: &Run, readers: &[u32]) -> Result<(Figures, Option<MicrosHistogram>), RedisError> {
        let lanes = run.connections.max(1) as usize + usize::from(run.whale_pause.is_some());
        let mut pump = Pump::connect(&self.addresses, lanes)?;
        let meter = self.begin()?;
        let start = pump.now();
        let payload = vec![b'x'; run.payload_bytes as usize];
        let encoder = Encoder::new(&self.plan, run.way, payload, self.script_sha.clone());
        let end = start + run.duration.as_micros() as Micros;
        let in_flight = if run.rate.is_some() { OPEN_LOOP_IN_FLIGHT_MAX } else { run.in_flight.max(1) };
        let pace = Pace { in_flight, rate: run.rate, end };
        let mut posting = Posting::new(encoder, &mut self.log, pace, run.first_post, lanes, start);
        if let Some(pause) = run.whale_pause {
            posting = posting.with_whale(pause, start);
        }
        pump.run(&mut posting, Posting::is_finished)?;
        let whale = posting.take_whale();
        let counted = posting.into_counted();
        let seconds = (counted.last - start) as f64 / 1e6;
        let mut figures = self.figures(&meter, run.way.name(self.processes.len()), seconds)?;
        (figures.connections, figures.in_flight) = (run.connections, in_flight);
        (figures.posts, figures.deliveries) = (counted.posts, counted.deliveries);
        figures.post_micros = counted.answer;
        figures.last_delivery_micros = counted.last_delivery;
        figures.post_to_last_micros = counted.whole;
        self.compare(readers, &mut figures)?;
        Ok((figures, whale))
    }

    pub(super) fn compare(&self, readers: &[u32], figures: &mut Figures) -> Result<(), RedisError> {
        let Compared { sampled, mismatched } =
            oracle::compare(&self.addresses, &self.plan, &self.log, readers)?;
        figures.sampled_readers += sampled;
        figures.mismatched_readers += mismatched;
        Ok(())
    }

    /// The connections and posts under way to be used; the first time the best of a few.
    fn tune(&mut self, run: &Run) -> Result<(u32, u32), RedisError> {
        let asked = (run.connections, run.in_flight);
        let trial = trial(run.duration);
        if run.rate.is_some() || !self.options.tuned {
            self.post(&Run { duration: trial, ..*run }, &[])?;
            return Ok(asked);
        }
        if let Some(best) = self.best.get(&(run.way, self.persistence(), asked)).copied() {
            let (connections, in_flight) = best;
            self.post(&Run { duration: trial, connections, in_flight, ..*run }, &[])?;
            return Ok(best);
        }
        let (mut best, mut most) = (asked, 0.0);
        // The first trial warms up: pages shared with a child that wrote the append-only file are copied there.
        self.post(&Run { duration: trial, ..*run }, &[])?;
        for (connections, in_flight) in TRIED.into_iter().chain([asked]) {
            let (figures, _) = self.post(&Run { duration: trial, connections, in_flight, ..*run }, &[])?;
            if figures.deliveries_per_second() > most {
                (best, most) = ((connections, in_flight), figures.deliveries_per_second());
            }
        }
        self.best.insert((run.way, self.persistence(), asked), best);
        Ok(best)
    }

    /// The durability modes in the order that switches least: an append-only file once begun is not begun anew in between.
    pub(super) fn persistences(&self) -> Vec<Persistence> {
        let mut all = self.options.persistences.clone();
        if all.last() == Some(&self.persistence()) {
            all.reverse();
        }
        all
    }

    fn fanouts(&mut self, load: &FanoutLoad) -> Result<Vec<Figures>, RedisError> {
        let readers = self.plan.graph().sampled_readers(load.sample_readers);
        let mut all = Vec::new();
        for persistence in self.persistences() {
            self.set_persistence(persistence)?;
            for way in self.options.ways.clone() {
                let mut run = Run::of(load, way);
                (run.connections, run.in_flight) = self.tune(&run)?;
                all.push(self.post(&run, &readers)?.0);
            }
        }
        Ok(all)
    }

    fn whales(&mut self, load: &WhaleLoad) -> Result<Vec<WhaleFigures>, RedisError> {
        if !self.plan.follows_whale() {
            self.plan.add_whale();
            filling::load_whale(&self.addresses, &self.plan)?;
        }
        let readers = self.plan.graph().sampled_readers(load.others.sample_readers);
        let mut all = Vec::new();
        for persistence in self.persistences() {
            self.set_persistence(persistence)?;
            for way in self.options.ways.clone() {
                let run = Run::of(&load.others, way);
                self.post(&Run { duration: load.warm_up, ..run }, &[])?;
                let (without, _) = self.post(&run, &readers)?;
                let (with, whale) =
                    self.post(&Run { whale_pause: Some(load.whale_pause), ..run }, &readers)?;
                let Some(whale_micros) = whale else { continue };
                let whale_followers = u64::from(self.plan.graph().users());
                all.push(WhaleFigures { without, with, whale_micros, whale_followers });
            }
        }
        Ok(all)
    }

    fn load_graph(&mut self) -> Result<Loaded, RedisError> {
        let meter = self.begin()?;
        let start = Instant::now();
        let edges = filling::load_followers(&self.addresses, &self.plan)?;
        let seconds = start.elapsed().as_secs_f64();
        let client_cpu_seconds = figures_of(std::process::id())?.cpu_seconds - meter.client_cpu_seconds;
        // One connection to each instance; while one batch is answered the next is sent.
        let (connections, in_flight) = (self.addresses.len() as u32, 2);
        let (before, after) = (meter.before, self.server_use()?);
        Ok(Loaded { edges, connections, in_flight, seconds, client_cpu_seconds, before, after })
    }

    fn fill_feeds(&mut self) -> Result<Filled, RedisError> {
        if self.options.with_ceiling {
            self.ceiling = Some(ceiling::measure(self.options.directory.as_deref())?);
        }
        let before = self.server_use()?;
        let start = Instant::now();
        let feed_entries = filling::fill_feeds(&self.addresses, &self.plan)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Filled { posts: self.plan.fill_posts(), feed_entries, seconds, before, after: self.server_use()? })
    }
}

impl Run {
    fn of(load: &FanoutLoad, way: FanoutWay) -> Self {
        Self {
            way,
            connections: load.connections,
            in_flight: load.in_flight,
            rate: load.rate,
            payload_bytes: load.payload_bytes,
            first_post: load.first_post,
            duration: load.duration,
            whale_pause: None,
        }
    }
}

/// How long the run takes that precedes one of this duration and is not counted.
pub(super) fn trial(duration: Duration) -> Duration {
    TRIAL.min(duration / 2)
}

fn outwards<T>(result: Result<T, RedisError>) -> Result<T, TargetError> {
    result.map_err(|source| TargetError { side: TargetKind::Redis, source: Box::new(source) })
}

impl Target for RedisTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Redis
    }

    fn load(&mut self) -> Result<Loaded, TargetError> {
        outwards(self.load_graph())
    }

    fn compare_edges(&mut self, sample_users: u32) -> Result<Compared, TargetError> {
        let owners = self.plan.graph().sampled_readers(sample_users);
        outwards(filling::compare_followers(&self.addresses, &self.plan, &owners))
    }

    fn fill(&mut self) -> Result<Filled, TargetError> {
        outwards(self.fill_feeds())
    }

    fn fanout(&mut self, load: &FanoutLoad) -> Result<Vec<Figures>, TargetError> {
        outwards(self.fanouts(load))
    }

    fn read(&mut self, load: &ReadLoad) -> Result<Vec<Figures>, TargetError> {
        outwards(self.reads(load))
    }

    fn mixed(&mut self, load: &MixedLoad) -> Result<Vec<Figures>, TargetError> {
        outwards(self.mixes(load))
    }

    fn whale(&mut self, load: &WhaleLoad) -> Result<Vec<WhaleFigures>, TargetError> {
        outwards(self.whales(load))
    }

    fn pause(&mut self) -> Result<(), TargetError> {
        outwards(self.processes.iter_mut().try_for_each(RedisProcess::pause))
    }

    fn resume(&mut self) -> Result<(), TargetError> {
        outwards(self.processes.iter_mut().try_for_each(RedisProcess::resume))
    }

    fn stop(&mut self) -> Result<(), TargetError> {
        self.processes.clear();
        self.addresses.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
