//! Owns the stages of a workload's run against nodes, and what each of them adds to the report.
//!
//! - The stages come in this order: follow, act, then check and read as often as wanted, then finish.
//! - Kills go on during follow and act only; what was under way then must all be there at the check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfold_protocol::UserId;

use super::access::{Access, Totals};
use super::compare::compare_all;
use super::difference::Difference;
use super::driver::Driver;
use super::error::WorkloadError;
use super::fleet::Fleet;
use super::graph::FollowGraph;
use super::killer::Killer;
use super::mirror::{AnswerDifference, Mirror};
use super::operation::Operation;
use super::progress;
use super::reads::{self, ReadPlan};
use super::report::Report;

/// A run under way.
#[derive(Debug)]
pub struct Run {
    access: Access,
    driver: Driver,
    mirror: Arc<Mirror>,
    fleet: Option<Fleet>,
    killer: Option<Killer>,
    report: Report,
    differences: Vec<Difference>,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    /// The figures.
    pub report: Report,
    /// The first feeds and timelines that differ from the oracle.
    pub differences: Vec<Difference>,
    /// The first answers that were not what the operation should have done.
    pub answers: Vec<AnswerDifference>,
}

impl Run {
    /// Begins a run against the nodes that `access` leads to; `fleet` is their processes, if they are ours. At most `window`
    /// operations are under way. The nodes must hold nothing yet.
    pub async fn begin(
        access: Access,
        fleet: Option<Fleet>,
        window: usize,
        report: Report,
    ) -> Result<Self, WorkloadError> {
        let Totals { entries, edges, .. } = access.totals().await?;
        if entries + edges > 0 {
            return Err(WorkloadError::NotEmpty { entries, edges });
        }
        let mirror = Arc::new(Mirror::new(access.definition().await?));
        let driver = Driver::new(access.clone(), window);
        Ok(Self { access, driver, mirror, fleet, killer: None, report, differences: Vec::new() })
    }

    /// Kills and restarts whoever leads most with this pause between, from now until the operations are acknowledged, at most
    /// so many times. Without processes of ours nothing is killed.
    pub fn start_killing(&mut self, pause: Duration, kills_max: usize) {
        self.killer = self.fleet.take().map(|fleet| Killer::start(fleet, pause, kills_max));
    }

    /// From now on operations come at a steady pace, so many a second.
    pub fn set_pace(&mut self, operations_per_second: u32) {
        self.driver.set_pace(Some(Duration::from_secs(1) / operations_per_second));
    }

    /// What the nodes should hold.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Makes the graph.
    pub async fn follow(&mut self, graph: &FollowGraph) -> Result<(), WorkloadError> {
        let begun = Instant::now();
        self.send("following", graph.operations().count() as u64, graph.operations()).await?;
        self.report.take_graph(&self.mirror, begun.elapsed());
        Ok(())
    }

    /// Sends the operations, about `count` of them, and waits until the fan-out has drained.
    pub async fn act(
        &mut self,
        count: u64,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<(), WorkloadError> {
        let begun = Instant::now();
        self.send("posting", count, operations).await?;
        if let Some(killer) = self.killer.take() {
            let killed = killer.stop().await?;
            self.report.take_restarts(&killed.recoveries);
            self.fleet = Some(killed.fleet);
        }
        let spinner = progress::spinner("draining", "waiting for the fan-out");
        guard(&mut self.killer, &mut self.fleet, self.access.wait_drained()).await?;
        spinner.finish_and_clear();
        self.report.take_operations(&self.mirror, begun.elapsed());
        self.report.deliveries_stored = Some(self.access.totals().await?.deliveries);
        Ok(())
    }

    /// Compares everything with the oracle.
    pub async fn check(&mut self) -> Result<(), WorkloadError> {
        let begun = Instant::now();
        let bar = progress::bar("comparing", self.report.users);
        let comparing = compare_all(&self.access, &self.mirror, &bar);
        let found = guard(&mut self.killer, &mut self.fleet, comparing).await?;
        bar.finish_and_clear();
        self.report.take_comparison(&found, begun.elapsed());
        self.differences.extend(found.differences);
        Ok(())
    }

    /// Measures `count` reads of first pages, plain and then hydrated.
    pub async fn read(&mut self, count: u64, seed: u64) -> Result<(), WorkloadError> {
        let users: Arc<[UserId]> = self.mirror.users().collect();
        if users.is_empty() || count == 0 {
            return Ok(());
        }
        let bar = progress::bar("reading", 2 * count);
        let plan = ReadPlan { reads: count, hydrate: false, seed };
        self.report.reads = Some(reads::measure(&self.access, &users, plan, &bar).await?);
        let plan = ReadPlan { hydrate: true, ..plan };
        self.report.hydrated_reads = Some(reads::measure(&self.access, &users, plan, &bar).await?);
        bar.finish_and_clear();
        Ok(())
    }

    /// Kills a node, the one that leads most, restarts it, and waits until what was on its way has drained.
    pub async fn kill_and_restart(&mut self) -> Result<(), WorkloadError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let spinner = progress::spinner("recovering", "kill -9 and restart");
        self.report.take_restarts(&[fleet.kill_and_restart().await?]);
        self.access.wait_drained().await?;
        spinner.finish_and_clear();
        Ok(())
    }

    /// Ends the run, and the nodes if they are ours.
    pub async fn finish(mut self) -> Result<Ran, WorkloadError> {
        if let Some(fleet) = self.fleet {
            self.report.node_memory_bytes = fleet.memory_bytes();
            fleet.end().await?;
        }
        let answers = self.mirror.differences().to_vec();
        Ok(Ran { report: self.report, differences: self.differences, answers })
    }

    async fn send(
        &mut self,
        name: &'static str,
        count: u64,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<(), WorkloadError> {
        let mirror = Arc::get_mut(&mut self.mirror).expect("a comparison lets go of the mirror when it ends");
        let bar = progress::bar(name, count);
        let sent = self.driver.run(operations, mirror, &bar);
        guard(&mut self.killer, &mut self.fleet, sent).await?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// Does the work, unless a node ends by itself or cannot be restarted: waiting for it would be in vain.
async fn guard<T>(
    killer: &mut Option<Killer>,
    fleet: &mut Option<Fleet>,
    work: impl Future<Output = Result<T, WorkloadError>>,
) -> Result<T, WorkloadError> {
    match (killer, fleet) {
        (Some(killer), _) => tokio::select! {
            done = work => done,
            error = killer.watch() => Err(error),
        },
        (None, Some(fleet)) => tokio::select! {
            done = work => done,
            error = fleet.watch() => Err(error.into()),
        },
        (None, None) => work.await,
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for difference in &self.differences {
            writeln!(f, "mismatch: {difference}")?;
        }
        for answer in &self.answers {
            writeln!(f, "wrong answer: {answer:?}")?;
        }
        Ok(())
    }
}
