//! Owns the progress bars: on stderr, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str = "{prefix:>12} [{bar:30}] {human_pos}/{human_len} {per_sec} {msg}";
const SPINNER: &str = "{prefix:>12} {spinner} {msg} {elapsed}";

/// A bar over `total` steps; it draws nothing if stderr is not a terminal.
pub fn bar(name: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    // The template is a constant; were it wrong, the default style serves.
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(name);
    bar
}

/// A spinner for something of unknown length; it draws nothing if stderr is not a terminal.
pub fn spinner(name: &'static str, message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(SPINNER).unwrap_or_else(|_| ProgressStyle::default_spinner());
    spinner.set_style(style);
    spinner.set_prefix(name);
    spinner.set_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
