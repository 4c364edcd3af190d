//! How far the benchmark is, on stderr: a bar on a terminal, a line for each step elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{elapsed} {bar:20} {pos}/{len} {prefix}  {msg}");
        // The template is a constant; were it wrong, the plain bar would do.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// The next step begins.
    pub(crate) fn step(&self, name: &str) {
        if self.0.is_hidden() {
            eprintln!("{name}");
        }
        if !self.0.prefix().is_empty() {
            self.0.inc(1);
        }
        self.0.set_prefix(name.to_owned());
        self.0.set_message("");
    }

    /// What the step is at.
    pub(crate) fn at(&self, what: String) {
        self.0.set_message(what);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
