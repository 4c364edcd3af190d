//! The report: one page with a plot for each question, and a CSV file behind each plot.

mod experiments;
mod page;
mod plot;

pub use page::{Bound, Figure};
pub use plot::PlotError;

use experiments::Findings;
use std::{
    fs, io,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What scenarios have in common that run the replication core.
const USUAL: &str = "Unless a scenario says otherwise, nodes have the daemon's defaults (grace period 10 min, a ping every 5 s, a comparison every \
     60 s, copies dropped after 2 min, repair as fast as the uplink is), blocks have 32 KiB to 1 MiB, 0.5 MB on average, each node has room for \
     thirty times its share, an uplink of 12.5 MB/s and a downlink of 62.5 MB/s, and one request in 1,000 is lost.";

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Some minutes: the shape of the curves.
    Quick,
    /// As the figures of the report are cited: about an hour.
    Full,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The folder does not take it.
    #[error("cannot write the report: {0}")]
    File(#[from] io::Error),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// It is not one of the experiments.
    #[error("there is no experiment {0:?}; there are {names}", names = experiments::ALL.map(|(name, _)| name).join(", "))]
    NoSuch(String),
    /// The network broke: that is worth more than any report.
    #[error("{experiment}, seed {seed}, commit {commit}: {violation}", commit = env!("IMIRA_COMMIT"))]
    Violation {
        /// Which experiment.
        experiment: &'static str,
        /// Its seed.
        seed: u64,
        /// What is wrong, and where.
        violation: crate::replication::Failure,
    },
}

/// The figures of all experiments. `progress` is told which was begun or ended last, how many have ended, and how many there are.
///
/// # Errors
/// The network broke.
pub fn figures(
    scale: Scale,
    seed: u64,
    mut progress: impl FnMut(&'static str, usize, usize) + Send,
) -> Result<Vec<Figure>, ReportError> {
    let all = experiment(scale, seed, &[], &mut progress)?;
    Ok(all.into_iter().flat_map(|(_, findings)| findings.figures).collect())
}

/// What each of the experiments found, or `only` those that are named, by its name. One runs on each processor at a time; what they find does not depend on it.
fn experiment(
    scale: Scale,
    seed: u64,
    only: &[String],
    progress: &mut (impl FnMut(&'static str, usize, usize) + Send),
) -> Result<Vec<(&'static str, Findings)>, ReportError> {
    let is_one = |name: &String| experiments::ALL.iter().any(|(known, _)| known == name);
    if let Some(unknown) = only.iter().find(|name| !is_one(name)) {
        return Err(ReportError::NoSuch(unknown.clone()));
    }
    let wanted =
        |(name, _): &(&'static str, experiments::Experiment)| only.is_empty() || only.iter().any(|it| it == name);
    let all: Vec<_> = experiments::ALL.into_iter().filter(wanted).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let progress = Mutex::new(progress);
    let tell = |what| {
        let progress: &mut _ = &mut *progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress(what, done.load(Ordering::Relaxed), all.len());
    };
    let found: Vec<Mutex<Option<Result<Findings, ReportError>>>> = all.iter().map(|_| Mutex::default()).collect();
    let work = || {
        loop {
            // The last takes longest.
            let Some(at) = all.len().checked_sub(1 + next.fetch_add(1, Ordering::Relaxed)) else { return };
            let (what, run) = all[at];
            tell(what);
            let outcome = run(scale, seed);
            *found[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            done.fetch_add(1, Ordering::Relaxed);
            tell(what);
        }
    };
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| (0..processors).for_each(|_| _ = scope.spawn(work)));
    let ended = found.into_iter().map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner));
    let named = all.iter().zip(ended).filter_map(|((name, _), outcome)| outcome.map(|it| it.map(|it| (*name, it))));
    named.collect()
}

/// Runs all experiments, or `only` those that are named, and writes `report.html` and the CSV files into `folder`. For `progress`, see [`figures`].
///
/// # Errors
/// As the variant says.
pub fn write(
    folder: &Path,
    scale: Scale,
    seed: u64,
    only: &[String],
    mut progress: impl FnMut(&'static str, usize, usize) + Send,
) -> Result<(), ReportError> {
    fs::create_dir_all(folder)?;
    let all = experiment(scale, seed, only, &mut progress)?;
    let chosen: String = only.iter().map(|name| format!(" --only \"{name}\"")).collect();
    for plot in all.iter().flat_map(|(_, findings)| &findings.plots) {
        fs::write(folder.join(format!("{}.csv", plot.name)), plot.csv())?;
    }
    let about = [
        format!(
            "The production placement and replication code in simulated networks; seed {seed}, {}. Everything follows from the seed: {again} \
             repeats it.",
            match scale {
                Scale::Quick => "quick: smaller networks and shorter times than the goals ask for",
                Scale::Full => "full",
            },
            again = match scale {
                Scale::Quick => format!("imira-sim report --quick --seed {seed}{chosen}"),
                Scale::Full => format!("imira-sim report --seed {seed}{chosen}"),
            },
        ),
        USUAL.to_owned(),
    ];
    let page = page::write("iMira network, simulated", &about, &all)?;
    fs::write(folder.join("report.html"), page)?;
    Ok(())
}
