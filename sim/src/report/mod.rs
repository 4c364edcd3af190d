//! The report: one page with a plot for each question, and a CSV file behind each plot.

mod experiments;
mod page;
mod plot;

pub use page::{Bound, Figure};
pub use plot::PlotError;

use experiments::Findings;
use std::{fs, io, path::Path};

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
    /// The network broke: that is worth more than any report.
    #[error("{experiment}, seed {seed}: {violation}")]
    Violation {
        /// Which experiment.
        experiment: &'static str,
        /// Its seed.
        seed: u64,
        /// What is wrong.
        violation: crate::replication::Violation,
    },
}

/// The figures of all experiments.
///
/// # Errors
/// The network broke.
pub fn figures(
    scale: Scale,
    seed: u64,
    mut progress: impl FnMut(&'static str, usize, usize),
) -> Result<Vec<Figure>, ReportError> {
    Ok(experiment(scale, seed, &mut progress)?.figures)
}

fn experiment(
    scale: Scale,
    seed: u64,
    progress: &mut impl FnMut(&'static str, usize, usize),
) -> Result<Findings, ReportError> {
    let mut findings = Findings::default();
    for (done, (what, run)) in experiments::ALL.into_iter().enumerate() {
        progress(what, done, experiments::ALL.len());
        findings.extend(run(scale, seed)?);
    }
    Ok(findings)
}

/// Runs all experiments and writes `report.html` and the CSV files into `folder`. `progress` hears what is being simulated, how many
/// experiments are done, and how many there are.
///
/// # Errors
/// As the variant says.
pub fn write(
    folder: &Path,
    scale: Scale,
    seed: u64,
    mut progress: impl FnMut(&'static str, usize, usize),
) -> Result<(), ReportError> {
    fs::create_dir_all(folder)?;
    let findings = experiment(scale, seed, &mut progress)?;
    for plot in &findings.plots {
        fs::write(folder.join(format!("{}.csv", plot.name)), plot.csv())?;
    }
    let about = format!(
        "The production placement and replication code in simulated networks; seed {seed}, {}. Everything follows from the seed.",
        match scale {
            Scale::Quick => "quick: smaller networks and shorter times than the goals ask for",
            Scale::Full => "full",
        }
    );
    let page = page::write("iMira network, simulated", &about, &findings.figures, &findings.plots)?;
    fs::write(folder.join("report.html"), page)?;
    Ok(())
}
