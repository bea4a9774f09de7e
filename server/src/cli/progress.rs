//! Owns how long work shows how far it has come: a bar on a terminal, now and then a line elsewhere; on stderr.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fanfold_cluster::meter::Meter;
use fanfold_protocol::message::JobPhase;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::bytes;
use crate::translate;

/// How often it is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often a line is written where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far work has come.
pub(super) struct Shown {
    bar: ProgressBar,
    lines: bool,
    line_at: Instant,
    last: Option<JobPhase>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style());
        Self { bar, lines: !io::stderr().is_terminal(), line_at: Instant::now(), last: None }
    }

    pub(super) fn at(&mut self, phase: JobPhase, done: u64, total: u64) {
        let name = match phase {
            JobPhase::Begins => "looking",
            JobPhase::Snapshots => "taking snapshots",
            JobPhase::Groups => "partitions",
            JobPhase::Log => "log",
        };
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(name);
        let now = Instant::now();
        if self.lines && (self.last != Some(phase) || now >= self.line_at) {
            eprintln!("{name}: {} of {}", bytes(done), bytes(total));
            (self.last, self.line_at) = (Some(phase), now + LINE_EVERY);
        }
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// Shows on a terminal how far the reading of files has come, and prints lines above that.
pub(super) struct Reading(ProgressBar);

impl Reading {
    /// Of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        // Where stderr is no terminal it draws nothing.
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        Self(bar.with_style(style()).with_message("reading"))
    }

    pub(super) fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Prints to stdout.
    pub(super) fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Does work on a thread of its own and shows how far it has come.
pub(super) fn shown<T: Send + 'static>(meter: Meter, work: impl FnOnce(&Meter) -> T + Send + 'static) -> T {
    let meter = Arc::new(meter);
    let working = thread::spawn({
        let meter = meter.clone();
        move || work(&meter)
    });
    let mut shown = Shown::new();
    while !working.is_finished() {
        let progress = meter.progress();
        shown.at(translate::phase(progress.phase), progress.done_bytes, progress.total_bytes);
        thread::park_timeout(LOOK_EVERY);
    }
    shown.end();
    working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads a number of bytes, with or without a unit such as `MiB`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("a number of bytes is, for example, 1048576, 512KiB, 50MiB or 2GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a number of bytes begins with digits".to_owned())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or("at least 1 and below 2^64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_or_none() {
        for (text, bytes) in [("7", 7), ("512KiB", 512 << 10), ("50 MiB", 50 << 20), ("2g", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "MiB", "0", "-1", "5 MB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
