//! Owns the measurement of nodes that one more joins while they work.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::error::FanfoldError;
use super::job::Job;
use super::newcomer::Newcomer;
use super::nodes::Nodes;
use super::plans::{Traffic, Until};
use super::side::{FanfoldSide, OPEN_DEPTH, Pages};
use super::stages::{STAGES, Stages};
use crate::load::target::{Figures, GrowFigures, GrowLoad, Grown, Persistence, SpanFigures};

impl FanfoldSide {
    /// Measures reads and posts at a pace while a node joins, and before and after that.
    pub fn grow(&mut self, load: &GrowLoad) -> Result<GrowFigures, FanfoldError> {
        let graph = self.options.graph.clone();
        let GrowLoad { hydrate, limit, payload_bytes, first, .. } = *load;
        let cycle = u64::from(load.reads_per_post) + 1;
        let make = move |number: u64| {
            let (posts, at) = (number / cycle, number % cycle);
            if at + 1 == cycle {
                return Job::Append { owner: graph.owner_of_post(first + posts), payload_bytes };
            }
            Job::Read { reader: graph.reader_of_read(first + number, false), limit, hydrate }
        };
        self.pump.connect(load.connections as usize)?;
        let connections = self.pump.connections();
        let (tell, newcomers) = channel();
        self.pump.newcomers = Some(newcomers);
        let checking = self.page_check(payload_bytes);
        let stages = Stages::begin();
        let mut plan = Traffic::new(make, &mut self.oracle, Until::Over, Some(load.rate))
            .checking(checking)
            .by_windows(load.window)
            .in_stages(stages.clone());
        let begun = plan.begun();
        let (nodes, pump) = (&mut self.nodes, &mut self.pump);
        let (pumped, grown) = std::thread::scope(|scope| {
            let growing = scope.spawn(|| {
                let grown = course(nodes, &stages, load, &|address| {
                    // Without anybody who listens there is nothing to be connected for.
                    Newcomer::dial(address, connections).map(|newcomer| drop(tell.send(newcomer)))
                });
                stages.end();
                grown
            });
            let pumped = pump.run(&mut plan, load.connections as usize, OPEN_DEPTH);
            stages.end();
            (pumped, growing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        self.pump.newcomers = None;
        pumped?;
        let (grown, marks) = grown?;
        let (tallies, windows) = plan.into_stages();
        let mut since = begun;
        let stages = tallies.into_iter().zip(marks).map(|(tally, (until, server_cpu_seconds))| {
            let seconds = until.saturating_duration_since(since).as_secs_f64();
            since = until;
            SpanFigures {
                seconds,
                read_micros: tally.read_micros,
                post_micros: tally.post_micros,
                errors: tally.errors,
                short_pages: tally.short_pages,
                server_cpu_seconds: Some(server_cpu_seconds),
            }
        });
        let stages = stages.collect();
        self.nodes.drain()?;
        let mut figures = Figures::new("grow", Persistence::Always);
        if load.grows {
            let pages = Pages { payload_bytes, hydrated: hydrate.then_some(limit) };
            self.compare(&mut figures, load.sample_readers, pages)?;
        }
        Ok(GrowFigures {
            stages,
            windows: windows.map(super::windows::Windows::spans).unwrap_or_default(),
            grown,
            repeats: std::mem::take(&mut self.pump.repeats),
            sampled_readers: figures.sampled_readers,
            mismatched_readers: figures.mismatched_readers,
        })
    }
}

/// The end of each stage, and the processor seconds of all nodes in it.
type Marks = Vec<(std::time::Instant, f64)>;

/// Lets time pass, has a node join, and lets time pass again.
fn course(
    nodes: &mut Nodes,
    stages: &Stages,
    load: &GrowLoad,
    joined: &dyn Fn(std::net::SocketAddr) -> Result<(), FanfoldError>,
) -> Result<(Grown, Marks), FanfoldError> {
    let mut marks = Marks::with_capacity(STAGES);
    let mut used = nodes.used()?.cpu_seconds;
    let mut mark = |nodes: &Nodes, marks: &mut Marks| -> Result<(), FanfoldError> {
        let ended = stages.next();
        let now = nodes.used()?.cpu_seconds;
        marks.push((ended, now - used));
        used = now;
        Ok(())
    };
    std::thread::sleep(load.duration);
    mark(nodes, &mut marks)?;
    let grown = if load.grows { nodes.grow(joined)? } else { Grown::default() };
    mark(nodes, &mut marks)?;
    std::thread::sleep(if load.grows { load.duration } else { Duration::ZERO });
    mark(nodes, &mut marks)?;
    Ok((grown, marks))
}
