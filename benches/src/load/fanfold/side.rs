//! Owns the Fanfold side as the harness drives it: what it is made of, the space's rules, and each measurement.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfold_protocol::message::{FanOut, NodeStatus, SpaceChanges};
use fanfold_server::workload::node_process::{NodeProcessOptions, free_addresses};
use rustix::process::Signal;

use super::error::FanfoldError;
use super::job::{Job, user};
use super::nodes::Nodes;
use super::oracle::{self, Oracle};
use super::page::{PageCheck, Payloads};
use super::plans::{Check, FollowAll, FollowOne, ReadsApart, Tally, Traffic, Until, Whale};
use super::pump::Pump;
use super::watch::{self, Watch, Watched};
use crate::load::fill::FillPlan;
use crate::load::graph::BenchGraph;
use crate::load::target::{
    Compared, FanoutLoad, Figures, Filled, Loaded, MixedLoad, Persistence, ReadLoad, ReadsBeside, Target,
    TargetError, TargetKind, WhaleFigures, WhaleLoad,
};
use crate::load::usage;

/// How long a node may take to start.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections and places for loading, filling and comparing.
const LOAD_CONNECTIONS: usize = 4;
const LOAD_DEPTH: usize = 64;
const FILL_DEPTH: usize = 256;
/// Posts of the fill between two waits for the drain, so that deliveries never pile up.
const FILL_CHUNK: u64 = 100_000;
/// One post in so many is followed to its last delivery.
const SAMPLE_EVERY: u64 = 101;
/// Requests that an open loop may have under way on a connection.
pub(super) const OPEN_DEPTH: usize = 256;
/// Connections of the reads beside posts.
const READ_CONNECTIONS: usize = 10;
/// Entries compared with the oracle at most: a page.
const COMPARED_MAX: u32 = 1_000;
/// Followers of an owner, as a share of the users, from which the owner is pulled when there are celebrities; a celebrity has a quarter
/// of the users, nobody else more than 7 % in a drawn graph.
const PULLED_SHARE: f64 = 0.15;

/// What the Fanfold side is made of.
#[derive(Debug, Clone)]
pub struct SideOptions {
    /// The program that is the node.
    pub program: PathBuf,
    /// More arguments for its `start`.
    pub start_arguments: Vec<OsString>,
    /// Nodes.
    pub nodes: u8,
    /// Replicas of each partition: an odd number, and not more than there are nodes.
    pub replicas: u8,
    /// Partitions.
    pub partitions: u16,
    /// Who follows whom.
    pub graph: Arc<BenchGraph>,
    /// References that a feed keeps.
    pub feed_cap: u32,
    /// What fills the feeds.
    pub fill: FillPlan,
    /// Bytes of each payload of the fill.
    pub fill_payload_bytes: u32,
    /// Readers whose feeds are compared with the oracle.
    pub sample_readers: u32,
}

/// Nodes with the load generator for them.
#[derive(Debug)]
pub struct FanfoldSide {
    pub(super) options: SideOptions,
    pub(super) nodes: Nodes,
    /// Where the node tells its metrics; only of a single one.
    http: Option<SocketAddr>,
    pub(super) pump: Pump,
    pub(super) oracle: Oracle,
    feed_entries: u64,
    /// Entries that each reader's feed shows since the fill; readers begin with 1.
    shown: Arc<[u32]>,
    /// The owner whom everybody follows, once there is one, with the edges made.
    whale: Option<(u32, u64)>,
}

impl FanfoldSide {
    /// Starts the nodes.
    pub fn start(options: SideOptions) -> Result<Self, TargetError> {
        Ok(Self::try_start(options)?)
    }

    fn try_start(options: SideOptions) -> Result<Self, FanfoldError> {
        let mut start_arguments: Vec<OsString> =
            vec!["--partitions".into(), options.partitions.to_string().into()];
        let http = if options.nodes == 1 { Some(free_addresses(1)?[0]) } else { None };
        start_arguments.extend(http.iter().flat_map(|http| ["--http".into(), http.to_string().into()]));
        start_arguments.extend(options.start_arguments.iter().cloned());
        let process = NodeProcessOptions {
            program: options.program.clone(),
            arguments: Vec::new(),
            start_arguments,
            ready_timeout: READY_TIMEOUT,
        };
        let nodes = Nodes::start(process, (options.nodes, options.replicas), rules(&options))?;
        let readers = options.graph.sampled_readers(options.sample_readers);
        let oracle = Oracle::new(&options.graph, &readers);
        let pump = Pump::new(nodes.routing()?)?;
        Ok(Self { options, nodes, http, pump, oracle, feed_entries: 0, shown: Arc::from([]), whale: None })
    }

    fn try_load(&mut self) -> Result<Loaded, FanfoldError> {
        let graph = self.options.graph.clone();
        let (before, cpu, begun) = (self.nodes.used()?, usage::own_cpu_seconds(), Instant::now());
        let mut plan = FollowAll::new(&graph);
        self.pump.run(&mut plan, LOAD_CONNECTIONS, LOAD_DEPTH)?;
        self.nodes.drain()?;
        self.shown = shown(&self.options, &plan.followed);
        Ok(Loaded {
            edges: plan.edges,
            connections: LOAD_CONNECTIONS as u32,
            in_flight: LOAD_DEPTH as u32,
            seconds: begun.elapsed().as_secs_f64(),
            client_cpu_seconds: usage::own_cpu_seconds() - cpu,
            before,
            after: self.nodes.used()?,
        })
    }

    fn try_compare_edges(&self, sample_users: u32) -> Result<Compared, FanfoldError> {
        let mut compared = Compared::default();
        for reader in self.options.graph.sampled_readers(sample_users) {
            let held = self.nodes.followees(user(reader))?;
            compared.sampled += 1;
            compared.mismatched += u64::from(!oracle::follows_as_drawn(&self.options.graph, reader, &held));
        }
        Ok(compared)
    }

    fn try_fill(&mut self) -> Result<Filled, FanfoldError> {
        let (before, begun) = (self.nodes.used()?, Instant::now());
        let (fill, payload_bytes) = (self.options.fill, self.options.fill_payload_bytes);
        let mut first = 0;
        while first < fill.posts() {
            let count = FILL_CHUNK.min(fill.posts() - first);
            let make = |number| Job::Append { owner: fill.owner(first + number), payload_bytes };
            let mut plan = Traffic::new(make, &mut self.oracle, Until::Count(count), None);
            self.pump.run(&mut plan, LOAD_CONNECTIONS, FILL_DEPTH)?;
            drop(plan);
            self.nodes.drain()?;
            first += count;
        }
        let graph = &self.options.graph;
        let entries =
            |reader| (u64::from(graph.degree(reader)) * fill.rounds()).min(u64::from(self.options.feed_cap));
        self.feed_entries = (1..=graph.users()).map(entries).sum();
        Ok(Filled {
            posts: fill.posts(),
            feed_entries: self.feed_entries,
            seconds: begun.elapsed().as_secs_f64(),
            before,
            after: self.nodes.used()?,
        })
    }

    /// Runs a measurement and gives its figures, drained and compared.
    fn measure(
        &mut self,
        measurement: Measurement<'_, impl FnMut(u64) -> Job>,
    ) -> Result<(Figures, Tally), FanfoldError> {
        let Measurement {
            make,
            until,
            rate,
            connections,
            depth,
            whale,
            apart,
            window,
            sample_readers,
            pages,
        } = measurement;
        let connections_apart = if apart.is_some() { READ_CONNECTIONS } else { 0 };
        self.pump.connect(connections as usize + connections_apart)?;
        let statuses = self.nodes.statuses()?;
        let allocations = self.allocations()?;
        let (before, cpu) = (self.nodes.used()?, usage::own_cpu_seconds());
        let watch = match (window, self.http) {
            (Some(window), Some(http)) => {
                let (address, process_id) = self.nodes.first()?;
                Some(Watch::begin(Watched { address, http, process_id }, window))
            }
            _ => None,
        };
        let checking = self.page_check(pages.payload_bytes);
        let mut plan = Traffic::new(make, &mut self.oracle, until, rate)
            .sampling(SAMPLE_EVERY)
            .with_whale(whale)
            .with_reads_apart(apart)
            .checking(checking)
            .by_windows(window);
        let begun = plan.begun();
        self.pump.run_apart(&mut plan, connections as usize, depth, connections_apart)?;
        let (tally, windows) = plan.into_tally();
        let looks = watch.map(Watch::end).transpose()?.unwrap_or_default();
        self.nodes.drain()?;
        let drained = if tally.posts > 0 { Instant::now() } else { tally.ended };
        let (after, client_cpu_seconds) = (self.nodes.used()?, usage::own_cpu_seconds() - cpu);
        let allocations_after = self.allocations()?;
        let statuses_after = self.nodes.statuses()?;
        let mut figures = Figures::new("append", Persistence::Always);
        figures.partitions = u32::from(self.options.partitions);
        figures.nodes = u32::from(self.options.nodes);
        figures.replicas = u32::from(self.options.replicas);
        figures.connections = connections;
        figures.in_flight = depth as u32;
        figures.posts = tally.posts;
        figures.seconds = (drained - begun).as_secs_f64();
        figures.deliveries = deliveries(&statuses_after) - deliveries(&statuses);
        figures.post_micros = tally.post_micros.clone();
        figures.last_delivery_micros = tally.last_delivery_micros.clone();
        figures.post_to_last_micros = tally.post_to_last_micros.clone();
        figures.reads = tally.reads;
        figures.read_micros = tally.read_micros.clone();
        (figures.before, figures.after) = (before, after);
        figures.client_cpu_seconds = client_cpu_seconds;
        figures.feed_entries = Some(self.feed_entries);
        figures.log_bytes = Some(log_end(&statuses_after) - log_end(&statuses));
        figures.windows = windows.map(|windows| windows.figures(&looks)).unwrap_or_default();
        figures.notes.push((
            "requests sent again because the node was busy",
            std::mem::take(&mut self.pump.repeats) as f64,
        ));
        if let (Some(before), Some(after)) = (allocations, allocations_after) {
            let requests = (tally.posts + tally.reads).max(1);
            figures
                .notes
                .push(("allocations_per_request", after.saturating_sub(before) as f64 / requests as f64));
        }
        let share = accounted(&statuses_after) as f64 / after.resident_bytes.max(1) as f64;
        figures.notes.push(("accounted_part_of_resident_bytes", share));
        let moves = std::mem::take(&mut self.pump.moves);
        if moves > 0 {
            figures.notes.push(("partitions that another node came to lead", moves as f64));
        }
        self.compare(&mut figures, sample_readers, pages)?;
        Ok((figures, tally))
    }

    /// How often the node has asked for memory, if it is one that tells.
    fn allocations(&self) -> Result<Option<u64>, FanfoldError> {
        self.http.map_or(Ok(None), watch::allocations)
    }

    /// What pages must be beside payloads of so many bytes.
    pub(super) fn page_check(&self, payload_bytes: u32) -> PageCheck {
        PageCheck::new(self.options.graph.clone(), self.shown.clone(), self.payloads(payload_bytes))
    }

    fn payloads(&self, payload_bytes: u32) -> Payloads {
        let lengths = [self.options.fill_payload_bytes, payload_bytes];
        Payloads { bytes: self.pump.payload(), lengths }
    }

    /// Compares feeds with the oracle; where pages came with payloads, those as well.
    pub(super) fn compare(
        &mut self,
        figures: &mut Figures,
        sample_readers: u32,
        pages: Pages,
    ) -> Result<(), FanfoldError> {
        let limit = self.options.feed_cap.min(COMPARED_MAX);
        let hydrated = pages.hydrated.map(|limit| (limit, self.payloads(pages.payload_bytes)));
        let mut check = Check::new(&self.oracle, sample_readers, limit).with_payloads(hydrated);
        self.pump.run(&mut check, LOAD_CONNECTIONS, 4)?;
        figures.sampled_readers = check.compared;
        figures.mismatched_readers = check.mismatched.len() as u64;
        Ok(())
    }

    fn try_fanout(
        &mut self,
        load: &FanoutLoad,
        whale: Option<Whale>,
    ) -> Result<(Figures, Tally), FanfoldError> {
        let graph = self.options.graph.clone();
        let (first, payload_bytes) = (load.first_post, load.payload_bytes);
        let readers = self.options.graph.clone();
        let apart = load.reads.map(|ReadsBeside { rate, limit, hydrate }| {
            let reader = move |number| readers.reader_of_read(first + number, false);
            let make = Box::new(move |number| Job::Read { reader: reader(number), limit, hydrate });
            ReadsApart { make, rate, issued: 0 }
        });
        self.measure(Measurement {
            make: move |number| Job::Append { owner: graph.owner_of_post(first + number), payload_bytes },
            until: Until::Elapsed(load.duration),
            rate: load.rate,
            connections: load.connections,
            depth: if load.rate.is_some() { OPEN_DEPTH } else { load.in_flight as usize },
            whale,
            apart,
            window: load.window,
            sample_readers: load.sample_readers,
            pages: Pages {
                payload_bytes,
                hydrated: load.reads.filter(|reads| reads.hydrate).map(|reads| reads.limit),
            },
        })
    }

    fn try_read(&mut self, load: &ReadLoad) -> Result<Figures, FanfoldError> {
        let graph = self.options.graph.clone();
        let ReadLoad { celebrities, hydrate, limit, first_read, .. } = *load;
        let make = move |number| {
            let reader = graph.reader_of_read(first_read + number, celebrities);
            Job::Read { reader, limit, hydrate }
        };
        let (mut figures, _) = self.measure(Measurement {
            make,
            until: Until::Elapsed(load.duration),
            rate: None,
            connections: load.connections,
            depth: load.depth as usize,
            whale: None,
            apart: None,
            window: None,
            sample_readers: load.sample_readers,
            pages: Pages {
                payload_bytes: self.options.fill_payload_bytes,
                hydrated: hydrate.then_some(limit),
            },
        })?;
        figures.way = "merged read";
        Ok(figures)
    }

    fn try_mixed(&mut self, load: &MixedLoad) -> Result<Figures, FanfoldError> {
        let graph = self.options.graph.clone();
        let MixedLoad { hydrate, limit, payload_bytes, first_post, first_read, .. } = *load;
        let cycle = u64::from(load.reads_per_post) + 1;
        let make = move |number: u64| {
            let (posts, at) = (number / cycle, number % cycle);
            if at + 1 == cycle {
                return Job::Append { owner: graph.owner_of_post(first_post + posts), payload_bytes };
            }
            let reader = graph.reader_of_read(first_read + number, number.is_multiple_of(2));
            Job::Read { reader, limit, hydrate }
        };
        let (mut figures, _) = self.measure(Measurement {
            make,
            until: Until::Elapsed(load.duration),
            rate: Some(load.rate),
            connections: load.connections,
            depth: OPEN_DEPTH,
            whale: None,
            apart: None,
            window: None,
            sample_readers: load.sample_readers,
            pages: Pages { payload_bytes, hydrated: hydrate.then_some(limit) },
        })?;
        figures.way = "merged read, append";
        Ok(figures)
    }

    fn try_whale(&mut self, load: &WhaleLoad) -> Result<WhaleFigures, FanfoldError> {
        let (owner, whale_followers) = match self.whale {
            Some(whale) => whale,
            None => self.make_whale()?,
        };
        let warm_up = FanoutLoad { duration: load.warm_up, sample_readers: 0, ..load.others.clone() };
        let (warm_up, _) = self.try_fanout(&warm_up, None)?;
        let mut others = load.others.clone();
        others.first_post += warm_up.posts;
        let (without, _) = self.try_fanout(&others, None)?;
        others.first_post += without.posts;
        let due = Instant::now() + load.whale_pause;
        let whale = Whale { owner, payload_bytes: others.payload_bytes, pause: load.whale_pause, due };
        let (with, tally) = self.try_fanout(&others, Some(whale))?;
        Ok(WhaleFigures { without, with, whale_micros: tally.whale_micros, whale_followers })
    }

    /// Makes every user follow one more owner.
    fn make_whale(&mut self) -> Result<(u32, u64), FanfoldError> {
        let owner = self.options.graph.everybody() + 1;
        let mut plan = FollowOne { owner, readers: 1..=self.options.graph.users(), edges: 0 };
        self.pump.run(&mut plan, LOAD_CONNECTIONS, FILL_DEPTH)?;
        let edges = plan.edges;
        self.nodes.drain()?;
        self.oracle.followed_by_all(owner);
        self.whale = Some((owner, edges));
        Ok((owner, edges))
    }
}

/// What a measurement sends, and how.
struct Measurement<'a, F> {
    make: F,
    until: Until,
    rate: Option<f64>,
    connections: u32,
    depth: usize,
    whale: Option<Whale>,
    apart: Option<ReadsApart<'a>>,
    window: Option<Duration>,
    sample_readers: u32,
    pages: Pages,
}

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    /// Bytes of the payloads that are appended meanwhile.
    pub(super) payload_bytes: u32,
    /// Entries of a page that comes with payloads, if such are read.
    pub(super) hydrated: Option<u32>,
}

/// The rules of the space: everybody pushed, or, with celebrities, those pulled.
fn rules(options: &SideOptions) -> SpaceChanges {
    let celebrities = options.graph.first_celebrity().is_some();
    let local_users = f64::from(options.graph.users()) / f64::from(options.partitions);
    SpaceChanges {
        feed_cap: Some(options.feed_cap),
        fan_out: Some(if celebrities { FanOut::Auto } else { FanOut::Push }),
        pull_threshold: celebrities.then(|| ((local_users * PULLED_SHARE) as u32).max(1)),
        ..SpaceChanges::default()
    }
}

/// Entries that a page of each reader shows once feeds are full, those beyond the cap not counted.
fn shown(options: &SideOptions, followed: &[u32]) -> Arc<[u32]> {
    let (graph, rounds) = (&options.graph, options.fill.rounds());
    let by_celebrity = graph.first_celebrity().map_or(0, |who| options.fill.numbers_of_celebrity(who).len());
    let of = |(at, owners): (usize, &u32)| {
        let celebrities = graph.celebrities_of(at as u32 + 1).count() * by_celebrity;
        // The reader's own entries are shown as well.
        let visible = rounds * (u64::from(*owners) + 1) + celebrities as u64;
        visible.min(u64::from(options.feed_cap)) as u32
    };
    followed.iter().enumerate().map(of).collect()
}

/// References stored in feeds so far, each counted at its leader.
fn deliveries(statuses: &[NodeStatus]) -> u64 {
    let replicas = statuses.iter().flat_map(|status| &status.partitions);
    replicas.filter(|replica| replica.is_leader).map(|replica| replica.deliveries).sum()
}

/// Bytes that the nodes account for by the parts of their memory.
fn accounted(statuses: &[NodeStatus]) -> u64 {
    let replicas = statuses.iter().flat_map(|status| &status.partitions);
    let processes = statuses.iter().filter_map(|status| status.process.as_ref());
    let parts =
        replicas.flat_map(|replica| &replica.memory).chain(processes.flat_map(|process| &process.parts));
    parts.map(|memory| memory.bytes).sum()
}

/// Bytes written to the logs of all nodes so far.
fn log_end(statuses: &[NodeStatus]) -> u64 {
    statuses.iter().map(|status| status.log.last_position).sum()
}

impl Target for FanfoldSide {
    fn kind(&self) -> TargetKind {
        TargetKind::Fanfold
    }

    fn load(&mut self) -> Result<Loaded, TargetError> {
        Ok(self.try_load()?)
    }

    fn compare_edges(&mut self, sample_users: u32) -> Result<Compared, TargetError> {
        Ok(self.try_compare_edges(sample_users)?)
    }

    fn fill(&mut self) -> Result<Filled, TargetError> {
        Ok(self.try_fill()?)
    }

    fn fanout(&mut self, load: &FanoutLoad) -> Result<Vec<Figures>, TargetError> {
        Ok(vec![self.try_fanout(load, None)?.0])
    }

    fn read(&mut self, load: &ReadLoad) -> Result<Vec<Figures>, TargetError> {
        Ok(vec![self.try_read(load)?])
    }

    fn mixed(&mut self, load: &MixedLoad) -> Result<Vec<Figures>, TargetError> {
        Ok(vec![self.try_mixed(load)?])
    }

    fn whale(&mut self, load: &WhaleLoad) -> Result<Vec<WhaleFigures>, TargetError> {
        Ok(vec![self.try_whale(load)?])
    }

    fn pause(&mut self) -> Result<(), TargetError> {
        Ok(self.nodes.signal(Signal::STOP)?)
    }

    fn resume(&mut self) -> Result<(), TargetError> {
        Ok(self.nodes.signal(Signal::CONT)?)
    }

    fn stop(&mut self) -> Result<(), TargetError> {
        Ok(self.nodes.stop()?)
    }
}
