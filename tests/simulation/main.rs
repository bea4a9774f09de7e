//! The simulation: whole clusters in one process, on a simulated network, with disks and clocks that fail by the seed.
//!
//! - One process per seed, which does everything on one thread; the same seed gives the same trace.
//! - What it finds is compared with the model of what was answered and with the oracle; a failure is printed with the
//!   command that repeats it.
//! - Each negative control breaks one thing on purpose and has to be noticed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]
#![allow(missing_docs, reason = "nobody outside uses it")]

mod broken;
mod check;
mod client;
mod disk;
mod entropy;
mod model;
mod nemesis;
mod node;
mod plan;
mod rot;
mod run;
mod tiers;
mod trace;
mod whole;
mod wire;
mod world;

use std::process::ExitCode;

use plan::{Control, Plan, Weather};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str| value(name).map(|text| text.parse::<u64>().expect("a number"));
    let control = value("--control").map(|name| name.parse::<Control>().expect("a control"));
    if let Some(seed) = number("--seed") {
        let mut plan = Plan::new(seed, control);
        let weather = value("--weather").map(|name| name.parse::<Weather>().expect("a weather"));
        plan.weather = weather.unwrap_or(plan.weather);
        plan.length_ms = number("--seconds").map_or(plan.length_ms, |seconds| seconds * 1_000);
        // For the twin of a control, which has no whole nodes.
        plan.is_whole &= weather.is_none();
        plan.is_whole |= arguments.iter().any(|argument| argument == "--whole");
        plan.is_traced = arguments.iter().any(|argument| argument == "--trace");
        return tiers::one(plan);
    }
    // What the test runner of cargo passes on: names of tests to run, or the wish for a list.
    let is_value = |at: usize| at > 0 && arguments[at - 1].starts_with("--");
    let names = (0..arguments.len()).filter(|at| !arguments[*at].starts_with('-') && !is_value(*at));
    let is_asked_for = names.map(|at| &arguments[at]).all(|name| "simulation".contains(name.as_str()));
    if arguments.iter().any(|argument| argument == "--list") || !is_asked_for {
        return ExitCode::SUCCESS;
    }
    let jobs = number("--jobs").map_or(2, |jobs| jobs as usize);
    match (number("--seeds"), number("--controls")) {
        (Some(seeds), _) => {
            tiers::seeds(number("--from").unwrap_or(1), seeds, number("--seconds").unwrap_or(60), jobs)
        }
        (None, Some(seeds)) => tiers::controls(seeds, control, jobs),
        (None, None) => tiers::quick(jobs),
    }
}
