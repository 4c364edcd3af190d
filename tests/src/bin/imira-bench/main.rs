//! `imira-bench`: our figures beside those of a plain reference, measured in turn in the same run (`make bench`).
//!
//! Prints one table and writes it as JSON. A suite is a list of steps; a step measures something and gives rows.

mod chunkstore;
mod delivery;
mod dht;
mod floods;
mod measure;
mod network;
mod progress;
mod report;
mod sim;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use progress::Progress;
use report::Row;

/// All suites, in the order in which they run.
const SUITES: [Suite; 7] =
    [chunkstore::SUITE, dht::SUITE, network::SUITE, delivery::SUITE, floods::SUITE, tokens::SUITE, sim::SUITE];
/// What the suites write at most: two copies of the store with many blocks, and room for a log.
const NEEDED_BYTES: u64 = 16 << 30;
/// `TMPFS_MAGIC` of Linux.
const TMPFS: i64 = 0x0102_1994;
/// Above this load of the last minute, wall-clock figures say more about the other programs.
const QUIET_LOAD: f64 = 0.5;

/// Steps that belong together.
struct Suite {
    name: &'static str,
    steps: &'static [Step],
}

/// One measurement, of one or more rows.
struct Step {
    what: &'static str,
    run: fn(&Context) -> Result<Vec<Row>>,
}

/// What a step is given.
struct Context<'a> {
    /// Empty, on the disk to measure.
    folder: PathBuf,
    /// Fewer blocks where it takes minutes to store them.
    quick: bool,
    progress: &'a Progress,
}

#[derive(Parser)]
#[command(name = "imira-bench", version, about = "Measures our speed beside a plain reference's, in the same run")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    /// The suite to run; without it, all of them
    #[arg(long, default_value = "")]
    suite: String,
    /// Only steps whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// A tenth of the blocks where storing them takes minutes; the rows say so
    #[arg(long)]
    quick: bool,
    /// A folder on the disk to measure; what the runs leave in it is removed
    #[arg(long, default_value = "bench")]
    folder: PathBuf,
    /// Where to write the figures
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What runs in a process of its own, started by a step.
#[derive(Subcommand)]
enum Part {
    /// Opens a store with many blocks and says what that cost
    #[command(hide = true)]
    OpenStore(chunkstore::OpenStore),
    /// Attacks a node
    #[command(hide = true)]
    Attack(floods::Attack),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.part {
        Some(Part::OpenStore(part)) => part.run(),
        Some(Part::Attack(part)) => part.run(),
        None => run(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imira-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let steps = chosen(&cli.suite, &cli.only)?;
    fs::create_dir_all(&cli.folder).with_context(|| format!("cannot make {}", cli.folder.display()))?;
    check_disk(&cli.folder)?;
    let load = measure::load()?;
    if load > QUIET_LOAD {
        eprintln!("the load of this machine is {load:.1}: other programs are running, so trust the ratios only");
    }
    let progress = Progress::new(steps.len());
    let mut rows = Vec::new();
    for (suite, step) in steps {
        progress.step(&format!("{}: {}", suite.name, step.what));
        let folder = tempfile::tempdir_in(&cli.folder)?;
        let context = Context { folder: folder.path().to_owned(), quick: cli.quick, progress: &progress };
        let measured = (step.run)(&context).with_context(|| format!("{}: {}", suite.name, step.what))?;
        rows.extend(measured.into_iter().map(|row| (suite.name, row)));
    }
    progress.finish();
    fs::write(&cli.json, report::json(&rows)?).with_context(|| format!("cannot write {}", cli.json.display()))?;
    report::print(&rows, load);
    eprintln!("written to {}", cli.json.display());
    Ok(())
}

fn chosen(suite: &str, only: &str) -> Result<Vec<(&'static Suite, &'static Step)>> {
    let suites: Vec<&Suite> = SUITES.iter().filter(|known| suite.is_empty() || known.name == suite).collect();
    if suites.is_empty() {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("there is no suite '{suite}'; the suites are: {}", names.join(", "));
    }
    let steps = suites.into_iter().flat_map(|suite| suite.steps.iter().map(move |step| (suite, step)));
    let steps: Vec<_> = steps.filter(|(_, step)| step.what.contains(only)).collect();
    ensure!(!steps.is_empty(), "no step has '{only}' in its name");
    Ok(steps)
}

/// A file system in memory syncs nothing, and a full one ends the run after minutes.
fn check_disk(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let kind = rustix::fs::statfs(folder)?.f_type;
    ensure!(kind != TMPFS, "{shown} is in memory, not on a disk; choose another folder with --folder");
    let space = rustix::fs::statvfs(folder)?;
    let free = space.f_bavail * space.f_frsize;
    ensure!(free >= NEEDED_BYTES, "{shown} has {} GiB free; {} are needed", free >> 30, NEEDED_BYTES >> 30);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_refused_with_the_names_of_the_known() {
        let error = chosen("chunkstor", "").err().unwrap().to_string();
        assert!(error.contains("no suite 'chunkstor'") && error.contains("chunkstore"), "{error}");
        assert_eq!(chosen("", "").unwrap().len(), SUITES.iter().map(|suite| suite.steps.len()).sum::<usize>());
    }
}
