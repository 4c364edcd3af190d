//! Runs ours and the reference in turn, and takes medians.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::progress::Progress;

/// Rounds that count. The first of all does not: it touches memory that the machine has not used yet.
pub(crate) const ROUNDS: usize = 7;

const GIB: f64 = (1u64 << 30) as f64;

/// What it cost to handle so many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// The runs of one side.
pub(crate) struct Runs(Vec<Run>);

/// Ours and the reference, round by round.
pub(crate) struct Compared {
    pub(crate) ours: Runs,
    pub(crate) reference: Runs,
}

/// Wall clock and the CPU time of all threads of this process, in user and kernel mode.
pub(crate) struct Stopwatch {
    begun: Instant,
    cpu_begun: f64,
}

impl Run {
    /// MB/s, of 10^6 bytes.
    fn speed(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    fn cpu_per_gib(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / GIB)
    }
}

impl Runs {
    /// Median in MB/s.
    pub(crate) fn speed(&self) -> f64 {
        median(self.0.iter().map(Run::speed))
    }

    /// Median of CPU seconds per GiB.
    pub(crate) fn cpu_per_gib(&self) -> f64 {
        median(self.0.iter().map(Run::cpu_per_gib))
    }
}

impl Compared {
    /// The lowest and the highest ratio of a round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        self.spread_of(Run::speed)
    }

    /// The same for CPU seconds.
    pub(crate) fn cpu_spread(&self) -> (f64, f64) {
        self.spread_of(Run::cpu_per_gib)
    }

    fn spread_of(&self, figure: impl Fn(&Run) -> f64) -> (f64, f64) {
        let rounds = self.ours.0.iter().zip(&self.reference.0);
        let ratios = rounds.map(|(ours, reference)| figure(ours) / figure(reference));
        ratios.fold((f64::INFINITY, 0.0), |(low, high), ratio| (ratio.min(low), ratio.max(high)))
    }
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { cpu_begun: cpu_seconds(), begun: Instant::now() }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds() - self.cpu_begun
    }

    /// The run that ends now.
    pub(crate) fn stop(&self, bytes: u64) -> Run {
        Run { bytes, seconds: self.seconds(), cpu_seconds: self.cpu_seconds() }
    }
}

/// Runs both sides [`ROUNDS`] times and once before. Who goes first changes, so that neither always finds what the other left.
pub(crate) fn alternate(
    progress: &Progress,
    mut ours: impl FnMut() -> Result<Run>,
    mut reference: impl FnMut() -> Result<Run>,
) -> Result<Compared> {
    let mut compared = Compared { ours: Runs(Vec::new()), reference: Runs(Vec::new()) };
    for round in 0..=ROUNDS {
        show(progress, round);
        let (our_run, reference_run) = if round % 2 == 0 {
            let run = ours()?;
            (run, reference()?)
        } else {
            let run = reference()?;
            (ours()?, run)
        };
        if round > 0 {
            compared.ours.0.push(our_run);
            compared.reference.0.push(reference_run);
        }
    }
    Ok(compared)
}

/// Median of [`ROUNDS`] measurements, after one that does not count.
pub(crate) fn repeat<T>(progress: &Progress, mut measure: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    let mut measured = Vec::new();
    for round in 0..=ROUNDS {
        show(progress, round);
        let value = measure()?;
        if round > 0 {
            measured.push(value);
        }
    }
    Ok(measured)
}

fn show(progress: &Progress, round: usize) {
    progress.at(if round == 0 { "warming up".to_owned() } else { format!("round {round} of {ROUNDS}") });
}

/// The middle value, the upper of two.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Writes out what all programs left to be written in the file system of `folder`, so that the next run does not pay for
/// the one before.
pub(crate) fn settle(folder: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(folder)?)?)
}

/// The value after `name:` in a file of `/proc/self`, as in `write_bytes: 4096` or `VmRSS:  1234 kB`.
pub(crate) fn proc_value(file: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/self/{file}");
    let text = fs::read_to_string(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next()).and_then(|value| value.parse().ok());
    value.with_context(|| format!("{path} has no {name}"))
}

/// Programs that ran or waited for the disk in the last minute, on average.
pub(crate) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 3.0);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn the_first_round_does_not_count() {
        let progress = Progress::new(1);
        let run = |bytes| Run { bytes, seconds: 1.0, cpu_seconds: 0.5 };
        let mut ours = std::iter::once(run(1)).chain(std::iter::repeat(run(2_000_000)));
        let compared = alternate(&progress, || Ok(ours.next().unwrap()), || Ok(run(1_000_000))).unwrap();
        assert_eq!((compared.ours.speed(), compared.reference.speed()), (2.0, 1.0));
        assert_eq!(compared.spread(), (2.0, 2.0));
    }

    #[test]
    fn our_own_memory_is_read() {
        assert!(proc_value("status", "VmRSS").unwrap() > 100);
        assert!(proc_value("status", "VmNothing").is_err());
    }
}
