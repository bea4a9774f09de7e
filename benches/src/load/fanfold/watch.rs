//! Owns the look at a node while it is measured: what it counts at the end of each window, on a thread of its own.
//!
//! - It uses a client and the HTTP port of its own, so that the measured connections carry nothing else.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fanfold_server::workload::access::Access;

use super::error::FanfoldError;
use crate::load::target::{LongTimes, ServerUse};
use crate::load::usage;

/// The node's metrics that tell what keeps applying up.
const WAITS: &str = "fanfold_apply_wait_seconds";
const HELD: &str = "fanfold_upkeep_held_seconds";
const RAN: &str = "fanfold_upkeep_ran_seconds";

/// The one that tells how often memory was asked for.
const ALLOCATIONS: &str = "fanfold_allocations_total ";

/// From where on a time is too long.
const LONG: Duration = Duration::from_millis(5);

/// What the threads are called that apply.
const ENGINE: &str = "engine";

/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(60);

/// What a node is asked by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    pub(super) address: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) process_id: u32,
}

/// What a node says at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) deliveries: u64,
    pub(super) used: ServerUse,
    /// Waits of applying for a partition's lock.
    pub(super) waits: Waits,
    /// Times for which upkeep kept applying from a partition.
    pub(super) held: Waits,
    /// The same without the time in which upkeep had no processor.
    pub(super) ran: Waits,
    /// Seconds in which threads that apply were ready and had no processor.
    pub(super) ready_seconds: f64,
}

/// How often something was waited for so far, in all partitions, by the bounds that the node tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Waits {
    /// Bounds in seconds and how many waits were longer, the bounds ascending.
    longer: [(f64, u64); Waits::BOUNDS_MAX],
    bounds: usize,
}

impl Waits {
    const BOUNDS_MAX: usize = 32;

    /// Of a metric in the text that `/metrics` answers.
    fn parse(text: &str, metric: &str) -> Self {
        let mut all = Self::default();
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
        let mut within = [(0.0, 0u64); Self::BOUNDS_MAX];
        let mut count = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix(metric)) {
            if line.starts_with("_count") {
                count += value(line).unwrap_or_default();
            }
            let Some((_, bound)) = line.split_once("le=\"") else { continue };
            let Some(bound) = bound.split('"').next().and_then(|bound| bound.parse::<f64>().ok()) else {
                continue;
            };
            if !bound.is_finite() {
                continue;
            }
            let known = within[..all.bounds].iter().position(|(of, _)| (of - bound).abs() < f64::EPSILON);
            let at = known.unwrap_or(all.bounds);
            if at == Self::BOUNDS_MAX {
                continue;
            }
            all.bounds = all.bounds.max(at + 1);
            within[at].0 = bound;
            within[at].1 += value(line).unwrap_or_default();
        }
        for (longer, (bound, within)) in all.longer.iter_mut().zip(within).take(all.bounds) {
            *longer = (bound, count.saturating_sub(within));
        }
        all.longer[..all.bounds].sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }

    /// Those since `before` that were too long.
    pub(super) fn long_since(&self, before: &Self) -> LongTimes {
        let longest_ms = self.longest(before).map(|seconds| seconds * 1_000.0);
        LongTimes { count: self.longer_than(before, LONG), longest_ms }
    }

    /// How many waits since `before` were longer than `time`, which is one of the bounds.
    fn longer_than(&self, before: &Self, time: Duration) -> u64 {
        let of = |waits: &Self| {
            let at = waits.longer[..waits.bounds].iter().find(|(bound, _)| *bound >= time.as_secs_f64());
            at.map_or(0, |(_, count)| *count)
        };
        of(self) - of(before)
    }

    /// The smallest bound in seconds that no wait since `before` passed; none if one passed all.
    fn longest(&self, before: &Self) -> Option<f64> {
        let none_passed = |(now, then): &(&(f64, u64), &(f64, u64))| now.1 == then.1;
        let bounds = self.longer[..self.bounds].iter().zip(&before.longer);
        bounds.filter(none_passed).map(|(now, _)| now.0).next()
    }
}

/// Looks at a node at the end of each window.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Result<Vec<Look>, FanfoldError>>,
}

impl Watch {
    /// Begins with a look now.
    pub(super) fn begin(watched: Watched, window: Duration) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| FanfoldError::Runtime { source })?;
            let access = runtime.block_on(Access::connect(&watched.address.to_string(), LOOK_DEADLINE))?;
            let look = || -> Result<Look, FanfoldError> {
                let deliveries = runtime.block_on(access.totals())?.deliveries;
                watched.look(deliveries)
            };
            let mut looks = vec![look()?];
            let begun = looks[0].at;
            loop {
                let due = begun + window * looks.len() as u32;
                let ended = stopped.recv_timeout(due.saturating_duration_since(Instant::now()));
                looks.push(look()?);
                if ended != Err(RecvTimeoutError::Timeout) {
                    return Ok(looks);
                }
            }
        });
        Self { stop, thread }
    }

    /// Looks once more, and gives all looks.
    pub(super) fn end(self) -> Result<Vec<Look>, FanfoldError> {
        // A watch that failed does not listen any more; it says why.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Watched {
    fn look(&self, deliveries: u64) -> Result<Look, FanfoldError> {
        let process = |source| FanfoldError::Process { source };
        let at = Instant::now();
        let used = usage::of_process(self.process_id).map_err(process)?;
        let metrics = metrics(self.http).map_err(|source| FanfoldError::Connection { source })?;
        let [waits, held, ran] = [WAITS, HELD, RAN].map(|metric| Waits::parse(&metrics, metric));
        let ready_seconds = usage::ready_seconds(self.process_id, ENGINE);
        Ok(Look { at, deliveries, used, waits, held, ran, ready_seconds })
    }
}

/// What `/metrics` answers at an HTTP port.
fn metrics(http: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&http, LOOK_DEADLINE)?;
    stream.set_read_timeout(Some(LOOK_DEADLINE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// How many pieces of memory the node with that HTTP port has asked for; none if it does not tell.
pub(super) fn allocations(http: SocketAddr) -> Result<Option<u64>, FanfoldError> {
    let text = metrics(http).map_err(|source| FanfoldError::Connection { source })?;
    let asked = text.lines().find_map(|line| line.strip_prefix(ALLOCATIONS)?.trim().parse().ok());
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn text(within: [[u64; 3]; 2]) -> String {
        let mut text = String::from("# TYPE fanfold_apply_wait_seconds histogram\n");
        for (partition, [small, large, count]) in within.into_iter().enumerate() {
            for (bound, value) in [("0.001", small), ("0.005", large), ("+Inf", count)] {
                let name = "fanfold_apply_wait_seconds_bucket";
                writeln!(text, "{name}{{partition=\"{partition}\",le=\"{bound}\"}} {value}").unwrap();
            }
            writeln!(text, "fanfold_apply_wait_seconds_count{{partition=\"{partition}\"}} {count}").unwrap();
        }
        text + "fanfold_apply_piece_seconds_count{partition=\"0\"} 77\n"
    }

    #[test]
    fn waits_of_all_partitions_are_told_by_their_bounds() {
        let ms = Duration::from_millis;
        let (before, after) = (text([[5, 5, 5], [1, 2, 2]]), text([[9, 10, 10], [1, 3, 4]]));
        let (before, after) = (Waits::parse(&before, WAITS), Waits::parse(&after, WAITS));
        assert_eq!((after.longer_than(&before, ms(1)), after.longer_than(&before, ms(5))), (3, 1));
        assert_eq!(after.longest(&before), None);
        let quiet = Waits::parse(&text([[9, 10, 10], [1, 3, 4]]), WAITS);
        assert_eq!(quiet.longest(&after), Some(0.001));
        let long = Waits::parse(&text([[9, 11, 11], [1, 3, 4]]), WAITS);
        assert_eq!(long.longest(&quiet), Some(0.005));
        let other = Waits::parse(&text([[9, 11, 11], [1, 3, 4]]), HELD);
        assert_eq!(other, Waits::default(), "each metric is told apart");
    }
}
