//! Owns which seeds are run: a process for each, a few at a time, and what is printed of them.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::{Control, Plan, Weather};
use crate::run::run;

/// The seeds that every `cargo test` runs, and their simulated seconds.
const QUICK: (u64, u64) = (4, 20);

/// The longest that a seed takes, in real time; most take a few seconds.
const SEED_MAX: Duration = Duration::from_secs(300);

/// Runs one seed in this process.
pub fn one(plan: Plan) -> ExitCode {
    watch(plan.seed);
    let report = run(plan);
    let took = report.took.as_secs_f64();
    println!(
        "seed {} {:?}{}{}: trace {:016x} of {} events, {:.1} s simulated in {took:.1} s, {} writes, {} reads, \
         {} faults, {} crashes, {} comparisons of replicas",
        plan.seed,
        plan.weather,
        if plan.is_whole { " of whole nodes" } else { "" },
        plan.control.map_or_else(String::new, |control| format!(" with {control}")),
        report.hash,
        report.events,
        report.simulated_ms as f64 / 1_000.0,
        report.writes,
        report.reads,
        report.faults,
        report.crashes,
        report.compared,
    );
    for violation in report.violations.iter().take(5) {
        println!("  WRONG at {violation}");
    }
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a process printed, and whether it found nothing wrong.
struct Ran {
    is_fine: bool,
    text: String,
}

fn spawn(seed: u64, seconds: u64, control: Option<Control>, weather: Option<Weather>) -> Ran {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    if let Some(control) = control {
        command.args(["--control", &control.to_string()]);
    }
    if let Some(weather) = weather {
        command.args(["--weather", &format!("{weather:?}")]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("a process starts");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() && text.is_empty() {
        text =
            format!("seed {seed} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ran { is_fine: output.status.success(), text }
}

/// Ends this process if its seed takes that long: something waits for what never comes, and so would the tier.
fn watch(seed: u64) {
    thread::spawn(move || {
        thread::sleep(SEED_MAX);
        eprintln!(
            "seed {seed} takes longer than {} s of real time: something waits for ever",
            SEED_MAX.as_secs()
        );
        std::process::exit(1);
    });
}

/// Runs this for each number, a few at a time, and collects what it gives.
fn side_by_side<T: Send>(numbers: &[u64], jobs: usize, work: impl Fn(u64) -> T + Sync) -> BTreeMap<u64, T> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let gave = work(*number);
                    done.lock().unwrap().insert(*number, gave);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// A few seeds, and one of each kind twice: log and replicas, and whole nodes.
pub fn quick(jobs: usize) -> ExitCode {
    let (count, seconds) = QUICK;
    let status = seeds(1, count, seconds, jobs);
    let traces = side_by_side(&[1, 4], jobs, |seed| [(); 2].map(|()| spawn(seed, seconds, None, None).text));
    for [one, other] in traces.values() {
        if trace_of(one).is_none() || trace_of(one) != trace_of(other) {
            println!("the same seed gave another trace:\n{one}{other}");
            return ExitCode::FAILURE;
        }
    }
    if !traces[&4][0].contains("of whole nodes") {
        println!("seed 4 is not of whole nodes:\n{}", traces[&4][0]);
        return ExitCode::FAILURE;
    }
    println!("the same seeds gave the same traces twice");
    status
}

fn trace_of(text: &str) -> Option<&str> {
    text.split("trace ").nth(1)?.split(" events").next()
}

/// So many seeds.
pub fn seeds(from: u64, count: u64, seconds: u64, jobs: usize) -> ExitCode {
    let began = Instant::now();
    let ran = side_by_side(&(from..from + count).collect::<Vec<_>>(), jobs, |seed| {
        let ran = spawn(seed, seconds, None, None);
        print!("{}", ran.text);
        ran.is_fine
    });
    let wrong: Vec<u64> = ran.iter().filter(|(_, is_fine)| !**is_fine).map(|(seed, _)| *seed).collect();
    let took = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds of {seconds} s in {took:.0} s with {jobs} processes: {:.0} simulated seconds a second; \
         {} found something wrong",
        (count * seconds) as f64 / took,
        wrong.len()
    );
    for seed in &wrong {
        println!(
            "  to repeat: cargo test -p fanfold-tests --test simulation -- --seed {seed} --seconds {seconds}"
        );
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every negative control, or one: each has to be noticed with one of so many seeds, none of which finds anything without
/// it.
pub fn controls(count: u64, only: Option<Control>, jobs: usize) -> ExitCode {
    let numbers =
        (0..Control::ALL.len() as u64).filter(|n| only.is_none_or(|only| only == Control::ALL[*n as usize]));
    let caught = side_by_side(&numbers.collect::<Vec<_>>(), jobs, |number| {
        let control = Control::ALL[number as usize];
        let caught = (1..=count).find_map(|seed| {
            let ran = spawn(seed, 60, Some(control), None);
            (!ran.is_fine).then_some((seed, ran.text))
        });
        let Some((seed, text)) = caught else {
            println!("{control} is NOT noticed with {count} seeds");
            return false;
        };
        let whole = spawn(seed, 60, None, Some(Weather::of(control)));
        let is_fine = if whole.is_fine { "nothing is wrong" } else { "the SAME is wrong" };
        print!("{control} is noticed with seed {seed}; without it {is_fine}:\n  {text}  {}", whole.text);
        whole.is_fine
    });
    if caught.values().all(|caught| *caught) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
