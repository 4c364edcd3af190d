//! The command line of the simulator.

use clap::{Args, Parser, Subcommand};
use imira_sim::{
    placement,
    replication::{self, Counts, Failure, Sample, Settings},
    report::{self, ReportError, Scale},
    scenario::Scenario,
    search,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[derive(Parser)]
#[command(name = "imira-sim", version, about = "Simulates placement and replication in large networks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How evenly blocks spread over nodes, and how many are still in place after nodes came and went
    Placement(PlacementArgs),
    /// What a scenario file says, with everything that must hold checked at every step
    Run(RunArgs),
    /// Runs with drawn faults, seed after seed, until something is wrong
    Search(SearchArgs),
    /// How many hops, requests and milliseconds a search of the network takes
    Lookups(LookupArgs),
    /// One page with a plot for each question about the network, and a CSV file behind each plot
    Report(ReportArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The scenario; sim/scenarios has some
    scenario: PathBuf,
    /// Everything drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write how the network was at each moment that was looked at
    #[arg(long)]
    csv: Option<PathBuf>,
}

#[derive(Args)]
struct SearchArgs {
    /// How many seeds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=u64::MAX / 2))]
    from: u64,
    /// Nodes in each network
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(5..=100_000))]
    nodes: u32,
    /// Runs at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Begins no more runs after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
}

#[derive(Args)]
struct LookupArgs {
    /// Nodes in the network
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    nodes: u32,
    /// Searches, each by another node for another position
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lookups: u32,
    /// How many of the closest nodes must have answered before a search ends
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    results: u32,
    /// Of a hundred entries of the routing tables, those of nodes that are gone
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=90))]
    gone_percent: u32,
    /// Of a hundred nodes, those that name other malicious ones only
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=90))]
    malicious_percent: u32,
    /// Milliseconds there and back between any two nodes
    #[arg(long, default_value_t = 50)]
    round_trip_ms: u64,
    /// Everything drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct ReportArgs {
    /// Where `report.html` and the CSV files go
    #[arg(long, default_value = "report")]
    folder: PathBuf,
    /// Smaller networks and shorter times: two minutes instead of an hour
    #[arg(long)]
    quick: bool,
    /// One experiment instead of all; may be given again
    #[arg(long, value_name = "EXPERIMENT")]
    only: Vec<String>,
    /// Everything drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct PlacementArgs {
    /// Nodes in the network
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Blocks to place
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    blocks: u32,
    /// Copies of each block (R)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    replicas: u32,
    /// Joins and leaves, in random order, before the second count
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    churn: u32,
    /// Everything drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[expect(clippy::print_stderr, reason = "a command line")]
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Placement(args) => placement(&args),
        Command::Run(args) => run(&args),
        Command::Search(args) => search_seeds(&args),
        Command::Lookups(args) => lookups(&args),
        Command::Report(args) => report(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imira-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn placement(args: &PlacementArgs) -> Outcome {
    println!("seed {}", args.seed);
    let (begin, bar) = (Instant::now(), bar(2 * u64::from(args.blocks), "blocks placed or compared"));
    bar.set_draw_target(ProgressDrawTarget::hidden());
    let mut shown = false;
    let report = placement::run_and_tell(args.nodes, args.blocks, args.replicas, args.churn, args.seed, || {
        bar.inc(1);
        // Where all is done by then, a bar would only flicker.
        if !shown && begin.elapsed() > Duration::from_secs(2) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            shown = true;
        }
    });
    bar.finish_and_clear();
    println!("{report}");
    Ok(())
}

/// What repeats a run to the same step.
fn again(failure: &Failure, command: &str) -> String {
    format!("WRONG: {failure}\ncommit {}; again: imira-sim {command}", env!("IMIRA_COMMIT"))
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn run(args: &RunArgs) -> Outcome {
    let scenario = Scenario::read(&args.scenario)?;
    if scenario.settles() && args.csv.is_some() {
        let path = args.scenario.display();
        return Err(format!(
            "{path} settles, and such a run is not looked at meanwhile: leave out --csv, or set `settles = false` there, \
             and whether everything comes to rest is not checked"
        )
        .into());
    }
    let settings = scenario.settings(&args.scenario, args.seed)?;
    println!("{}\nseed {}, commit {}", scenario.about, args.seed, env!("IMIRA_COMMIT"));
    let (begin, bar) = (Instant::now(), bar(scenario.length().as_secs() / 60, "simulated minutes"));
    let outcome = if scenario.settles() {
        bar.set_length((scenario.length() + settings.settle()).as_secs() / 60);
        replication::run(&settings, |minute| bar.set_position(minute)).map(|counts| (Vec::new(), counts))
    } else {
        let progress = |minute| bar.set_position(minute);
        replication::watch(&settings, scenario.length(), scenario.sample_every(), progress)
    };
    bar.finish_and_clear();
    let command = format!("run {} --seed {}", args.scenario.display(), args.seed);
    let (samples, counts) = outcome.map_err(|failure| again(&failure, &command))?;
    println!("{}", pace(&counts, &settings, begin.elapsed()));
    println!("{counts}");
    if let Some(last) = samples.last() {
        println!("in place: {}", shares(last));
    }
    if let Some(path) = &args.csv {
        fs::write(path, csv(&samples)).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn shares(sample: &Sample) -> String {
    let share = |part: usize| 100.0 * part as f64 / sample.acknowledged.max(1) as f64;
    format!(
        "{:.3} %, readable {:.3} %, with all copies {:.3} % of {} in the end",
        share(sample.in_place),
        share(sample.readable),
        share(sample.with_all_copies),
        sample.acknowledged
    )
}

/// Events a second, and the memory of the process.
fn pace(counts: &Counts, settings: &Settings, elapsed: Duration) -> String {
    let mut text = format!("events:   {}, {:.0} a second", counts.events, counts.events as f64 / elapsed.as_secs_f64());
    if let Some(bytes) = peak_memory_bytes() {
        let (nodes, replicas) = (settings.nodes, settings.blocks * settings.config.replication);
        let (a_node, a_replica) = (bytes / nodes.max(1) as u64, bytes / replicas.max(1) as u64);
        _ = write!(text, "; {} MB at most, {a_node} bytes a node, {a_replica} a replica", bytes / 1_000_000); // a string takes everything
    }
    text
}

/// Where the system tells (Linux).
fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

fn csv(samples: &[Sample]) -> String {
    let mut csv =
        "seconds,up,acknowledged,in_place,readable,with_all_copies,lost,moved_bytes,oracle_bytes,destroyed_bytes\n"
            .to_owned();
    for sample in samples {
        let counts = [sample.up, sample.acknowledged, sample.in_place, sample.readable, sample.with_all_copies];
        let bytes = [sample.lost, sample.moved_bytes, sample.oracle_bytes, sample.destroyed_bytes];
        let numbers = counts.iter().map(ToString::to_string).chain(bytes.iter().map(ToString::to_string));
        let row: Vec<_> = [sample.time.as_secs().to_string()].into_iter().chain(numbers).collect();
        _ = writeln!(csv, "{}", row.join(",")); // a string takes everything
    }
    csv
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn search_seeds(args: &SearchArgs) -> Outcome {
    let (next, end) = (AtomicU64::new(args.from), args.from.saturating_add(args.seeds));
    println!("{} nodes, seeds {} to {}, commit {}", args.nodes, args.from, end - 1, env!("IMIRA_COMMIT"));
    let (bar, begin) = (bar(args.seeds, "seeds"), Instant::now());
    let limit = args.minutes.map_or(Duration::MAX, |minutes| Duration::from_secs(minutes * 60));
    let found: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let (runs, excused) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while begin.elapsed() < limit && lock().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match replication::run(&Settings::drawn(args.nodes as usize, seed), |_| ()) {
                Ok(counts) => _ = excused.fetch_add(counts.excused, Ordering::Relaxed),
                Err(failure) => *lock() = Some((seed, failure)),
            }
            runs.fetch_add(1, Ordering::Relaxed);
            bar.inc(1);
        }
    };
    thread::scope(|scope| (0..args.threads).for_each(|_| _ = scope.spawn(work)));
    bar.finish_and_clear();
    if let Some((seed, failure)) = lock().take() {
        let command = format!("search --nodes {} --from {seed} --seeds 1", args.nodes);
        return Err(again(&failure, &command).into());
    }
    let (runs, excused) = (runs.into_inner(), excused.into_inner());
    println!(
        "{runs} of {} runs, nothing wrong; {excused} blocks were lost with all R holders within the repair window",
        args.seeds
    );
    if runs < args.seeds {
        println!("the time was over; --from {} goes on", args.from + runs);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn report(args: &ReportArgs) -> Outcome {
    println!("seed {}, commit {}", args.seed, env!("IMIRA_COMMIT"));
    let bar = bar(1, "{msg}");
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let written = report::write(&args.folder, scale, args.seed, &args.only, |what, done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(what);
    });
    bar.finish_and_clear();
    written.map_err(|error| match error {
        ReportError::Violation { .. } => {
            let quick = if args.quick { " --quick" } else { "" };
            format!("WRONG: {error}\nagain: imira-sim report{quick} --seed {}", args.seed).into()
        }
        ReportError::File(_) | ReportError::Plot(_) | ReportError::NoSuch(_) => {
            Box::<dyn std::error::Error>::from(error)
        }
    })?;
    println!("{}", Path::new(&args.folder).join("report.html").display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn lookups(args: &LookupArgs) -> Outcome {
    println!("seed {}", args.seed);
    let bad = args.nodes as usize * (args.gone_percent + args.malicious_percent) as usize / 100;
    if bad + 1 >= args.nodes as usize {
        return Err("too few honest nodes are left to search: lower --gone-percent or --malicious-percent".into());
    }
    let bar = bar(args.lookups.into(), "searches");
    let settings = search::Settings {
        nodes: args.nodes as usize,
        lookups: args.lookups as usize,
        results: args.results as usize,
        gone_percent: args.gone_percent,
        malicious_percent: args.malicious_percent,
        round_trip: Duration::from_millis(args.round_trip_ms),
        seed: args.seed,
    };
    let report = search::run(&settings, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    println!("{report}");
    Ok(())
}

fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template(&format!("{{elapsed}} {{bar:20}} {{pos}}/{{len}} {what}, {{eta}} left"));
    // Were the template wrong, the plain bar would do.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Drawn four times a second, however often it moves, and also while it does not.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
