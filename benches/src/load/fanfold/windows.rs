//! Owns the figures of a measurement by windows of time: a long one shows whether it holds.

use std::time::{Duration, Instant};

use super::plans::record;
use super::watch::Look;
use crate::load::target::{MicrosHistogram, SpanFigures, WindowFigures, micros_histogram};

/// What was answered within one window.
#[derive(Debug)]
struct Window {
    posts: u64,
    post_micros: MicrosHistogram,
    reads: u64,
    read_micros: MicrosHistogram,
}

impl Window {
    fn new() -> Self {
        Self { posts: 0, post_micros: micros_histogram(), reads: 0, read_micros: micros_histogram() }
    }
}

/// What was answered, by windows from `begun` on.
#[derive(Debug)]
pub(super) struct Windows {
    begun: Instant,
    window: Duration,
    all: Vec<Window>,
}

impl Windows {
    pub(super) fn new(begun: Instant, window: Duration) -> Self {
        Self { begun, window, all: Vec::new() }
    }

    fn at(&mut self, now: Instant) -> &mut Window {
        let number = (now - self.begun).div_duration_f64(self.window) as usize;
        while self.all.len() <= number {
            self.all.push(Window::new());
        }
        &mut self.all[number]
    }

    /// Notes an answered post, which was due at `due`.
    pub(super) fn posted(&mut self, due: Instant, now: Instant) {
        let window = self.at(now);
        window.posts += 1;
        record(&mut window.post_micros, now - due);
    }

    /// Notes an answered read, which was due at `due`.
    pub(super) fn read(&mut self, due: Instant, now: Instant) {
        let window = self.at(now);
        window.reads += 1;
        record(&mut window.read_micros, now - due);
    }

    /// The windows alone.
    pub(super) fn spans(self) -> Vec<SpanFigures> {
        let seconds = self.window.as_secs_f64();
        let span = |Window { read_micros, post_micros, .. }| SpanFigures {
            seconds,
            read_micros,
            post_micros,
            errors: 0,
            short_pages: 0,
            server_cpu_seconds: None,
        };
        self.all.into_iter().map(span).collect()
    }

    /// The windows with what the node said at the end of each; one that has no look at its end is left out.
    pub(super) fn figures(self, looks: &[Look]) -> Vec<WindowFigures> {
        let spans = looks.windows(2).zip(self.all);
        let figures = spans.filter_map(|(looks, window)| {
            let [before, after] = looks else { return None };
            Some(WindowFigures {
                seconds: (after.at - before.at).as_secs_f64(),
                posts: window.posts,
                post_micros: window.post_micros,
                reads: window.reads,
                read_micros: window.read_micros,
                deliveries: after.deliveries - before.deliveries,
                before: before.used,
                after: after.used,
                stalls: after.waits.long_since(&before.waits),
                holds: after.held.long_since(&before.held),
                holds_ran: after.ran.long_since(&before.ran),
                ready_seconds: after.ready_seconds - before.ready_seconds,
            })
        });
        figures.collect()
    }
}
