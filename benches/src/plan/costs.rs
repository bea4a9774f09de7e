//! Owns what a post, a delivery, a read, an entry and an edge cost: measured once and written down here, or taken from
//! the JSON reports of `fanout` and `read`.
//!
//! - Processor time is that of all replicas together; bytes are those of one replica.
//! - The unit of what is not proportional to deliveries is a partition that a post reaches, its owner's included: each
//!   takes a record, a row, and a list of local followers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fit::Line;

/// Entries of the pages that are measured.
const PAGE_ENTRIES: f64 = 20.0;

/// Why a report is no measure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostsError {
    /// It could not be read.
    #[error("{} could not be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what the harness prints.
    #[error("{} is not a report of this program: {source}; make it with --output json", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It says nothing of what is asked.
    #[error(
        "no run with {replicas} replica(s) tells {what}; measure `fanout` and `read` with --nodes {replicas}"
    )]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The replicas.
        replicas: u32,
    },
}

/// What things cost with a number of replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// The commit that was measured.
    pub commit: String,
    /// Replicas of each partition.
    pub replicas: u32,
    /// Processor microseconds of a post, by partitions reached: the base is for [`Costs::deliveries_per_post`].
    pub post_micros: Line,
    /// Deliveries of a measured post.
    pub deliveries_per_post: f64,
    /// Processor microseconds of a page of 20 without payloads, by the homes of its entries ([`page_homes`]).
    pub plain_read_micros: Line,
    /// Processor microseconds of a page of 20 with payloads, by the homes of its entries.
    pub hydrated_read_micros: Line,
    /// Bytes in memory of a feed's entry, by rows for each entry.
    pub entry_bytes: Line,
    /// Bytes in memory of an edge, both directions, by partitions with followers of an owner for each of its edges.
    pub edge_bytes: Line,
    /// Bytes of log of a post without its payload, by partitions reached.
    pub log_bytes: Line,
}

/// How many partitions a page's entries come from on average, if their owners are spread evenly.
pub fn page_homes(partitions: f64) -> f64 {
    partitions * (1.0 - (1.0 - 1.0 / partitions).powf(PAGE_ENTRIES))
}

/// A report, as far as it is a measure.
#[derive(Debug, Deserialize)]
struct Measured {
    machine: MeasuredMachine,
    runs: Vec<MeasuredRun>,
}

#[derive(Debug, Deserialize)]
struct MeasuredMachine {
    commit: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MeasuredRun {
    target: String,
    kind: String,
    replicas: u32,
    partitions: f64,
    mean_followers: f64,
    posts: f64,
    deliveries: f64,
    partitions_reached: f64,
    hydrated: Option<bool>,
    cpu_micros_per_post: Option<f64>,
    cpu_micros_per_read: Option<f64>,
    bytes_per_entry: Option<f64>,
    bytes_per_edge: Option<f64>,
    log_bytes_per_delivery: Option<f64>,
}

impl Costs {
    /// What the reports in these files come to, of runs with so many replicas.
    pub fn of_files(paths: &[PathBuf], replicas: u32) -> Result<Self, CostsError> {
        let reports = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        Self::of_reports(&reports, replicas)
    }

    fn of_reports(reports: &[Measured], replicas: u32) -> Result<Self, CostsError> {
        let missing = |what| CostsError::Missing { what, replicas };
        let of = |kind: &'static str| {
            let runs = reports.iter().flat_map(|report| &report.runs);
            runs.filter(move |run| run.target == "fanfold" && run.kind == kind && run.replicas == replicas)
        };
        let copies = f64::from(replicas);
        let posting = || of("fanout").filter(|run| run.posts > 0.0 && run.deliveries > 0.0);
        // Each measured point: what it stands at, and what was measured there.
        let line = |point: fn(&MeasuredRun, f64) -> Option<(f64, f64)>, what| {
            let points: Vec<_> = posting().filter_map(|run| point(run, copies)).collect();
            Line::through(&points).ok_or_else(|| missing(what))
        };
        let read = |hydrated| {
            let runs = of("read").filter(move |run| run.hydrated == Some(hydrated));
            let points = runs.filter_map(|run| Some((page_homes(run.partitions), run.cpu_micros_per_read?)));
            Line::through(&points.collect::<Vec<_>>())
        };
        let (posts, deliveries) = posting()
            .fold((0.0, 0.0), |(posts, deliveries), run| (posts + run.posts, deliveries + run.deliveries));
        let mut commits: Vec<&str> =
            reports.iter().map(|report| report.machine.commit.as_deref().unwrap_or("unknown")).collect();
        commits.dedup();
        Ok(Self {
            commit: commits.join(", "),
            replicas,
            post_micros: line(|run, _| Some((run.partitions_reached, run.cpu_micros_per_post?)), "posts")?,
            deliveries_per_post: deliveries / posts,
            plain_read_micros: read(false).ok_or_else(|| missing("reads without payloads"))?,
            hydrated_read_micros: read(true).ok_or_else(|| missing("reads with payloads"))?,
            entry_bytes: line(
                |run, copies| Some((run.rows_per_entry(), run.bytes_per_entry? / copies)),
                "entries",
            )?,
            edge_bytes: line(
                |run, copies| {
                    Some((run.partitions_reached / run.mean_followers, run.bytes_per_edge? / copies))
                },
                "edges",
            )?,
            log_bytes: line(
                |run, copies| {
                    let per_post = run.log_bytes_per_delivery? * run.deliveries / run.posts;
                    Some((run.partitions_reached, per_post / copies))
                },
                "the log",
            )?,
        })
    }
}

impl MeasuredRun {
    fn rows_per_entry(&self) -> f64 {
        self.partitions_reached * self.posts / self.deliveries
    }
}

fn read(path: &Path) -> Result<Measured, CostsError> {
    let failed = |source| CostsError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|source| CostsError::Report { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, replicas: u32, more: &str) -> String {
        format!(
            r#"{{"target": "fanfold", "kind": "{kind}", "replicas": {replicas}, "partitions": 1, "mean_followers": 200.0{more}}}"#
        )
    }

    fn posting(reached: f64, micros: f64, entry: f64) -> String {
        let more = format!(
            r#", "posts": 10, "deliveries": 2000, "partitions_reached": {reached}, "cpu_micros_per_post": {micros},
            "bytes_per_entry": {entry}, "bytes_per_edge": 18.0, "log_bytes_per_delivery": 1.5"#
        );
        run("fanout", 3, &more)
    }

    fn reading(hydrated: bool, micros: f64) -> String {
        let more = format!(
            r#", "posts": 0, "deliveries": 0, "partitions_reached": 1, "hydrated": {hydrated}, "cpu_micros_per_read": {micros}"#
        );
        run("read", 3, &more)
    }

    fn report(runs: &[String]) -> Measured {
        let text = format!(r#"{{"machine": {{"commit": "abc"}}, "runs": [{}]}}"#, runs.join(","));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn costs_come_out_of_the_reports_of_a_table() {
        let posts = report(&[posting(1.0, 60.0, 12.6), posting(21.0, 100.0, 18.6)]);
        let reads = report(&[reading(false, 5.0), reading(true, 14.0)]);
        let costs = Costs::of_reports(&[posts, reads], 3).unwrap();
        let near = |got: f64, wanted: f64| assert!((got - wanted).abs() < 1e-6, "{got} is not {wanted}");
        near(costs.post_micros.base, 58.0);
        near(costs.post_micros.slope, 2.0);
        near(costs.deliveries_per_post, 200.0);
        // Of one replica: 4.2 at a two hundredth of a row, 6.2 at 21 of them.
        near(costs.entry_bytes.slope, 20.0);
        near(costs.entry_bytes.base, 4.1);
        near(costs.edge_bytes.at(0.1), 6.0);
        near(costs.log_bytes.at(5.0), 100.0);
        near(costs.hydrated_read_micros.at(7.0), 14.0);
        near(page_homes(1.0), 1.0);
        assert!((11.0..12.0).contains(&page_homes(16.0)));
        assert_eq!(costs.commit, "abc");
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let posts = report(&[posting(1.0, 60.0, 12.6)]);
        let refused = Costs::of_reports(std::slice::from_ref(&posts), 3).unwrap_err();
        assert!(matches!(refused, CostsError::Missing { what: "reads without payloads", replicas: 3 }));
        assert!(matches!(Costs::of_reports(&[posts], 1), Err(CostsError::Missing { what: "posts", .. })));
    }
}
