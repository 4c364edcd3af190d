//! The command line of the simulator.

use clap::{Args, Parser, Subcommand};
use imira_sim::{
    placement,
    replication::{self, Settings},
    report::{self, Scale},
    search,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::PathBuf,
    process::ExitCode,
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
    /// Nodes that crash, die, join, lie and are cut off, and whether every block stays where it belongs
    Run(RunArgs),
    /// How many hops, requests and milliseconds a search of the network takes
    Lookups(LookupArgs),
    /// One page with a plot for each question about the network, and a CSV file behind each plot
    Report(ReportArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Nodes in the network at the beginning
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Blocks in it
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=3_000_000))]
    blocks: u32,
    /// Copies of each block (R)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    replication: u32,
    /// Hours in which things go wrong; up to an hour and a half to settle comes after them
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    /// Everything drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    /// Smaller networks and shorter times: minutes
    #[arg(long)]
    quick: bool,
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

#[expect(clippy::print_stdout, reason = "a command line")]
fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Placement(args) => {
            println!("seed {}", args.seed);
            println!("{}", placement::run(args.nodes, args.blocks, args.replicas, args.churn, args.seed));
            ExitCode::SUCCESS
        }
        Command::Run(args) => run(&args),
        Command::Report(args) => report(&args),
        Command::Lookups(args) => {
            lookups(&args);
            ExitCode::SUCCESS
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn run(args: &RunArgs) -> ExitCode {
    println!("seed {}", args.seed);
    let faults_until = Duration::try_from_secs_f64(args.hours * 3_600.0).unwrap_or(Duration::MAX).min(MOST);
    let r = args.replication as usize;
    let settings = Settings::new(args.nodes as usize, args.blocks as usize, r, faults_until, args.seed);
    let minutes = (faults_until + settings.settle()).as_secs() / 60;
    let bar = ProgressBar::new(minutes);
    let style = ProgressStyle::with_template("{elapsed} {bar:20} {pos}/{len} simulated minutes");
    // The template is a constant; were it wrong, the plain bar would do.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let begin = Instant::now();
    let outcome = replication::run(&settings, |minute| bar.set_position(minute));
    bar.finish_and_clear();
    match outcome {
        Ok(counts) => {
            let seconds = begin.elapsed().as_secs_f64();
            println!("events:   {}, {:.0} a second", counts.events, counts.events as f64 / seconds);
            println!("{counts}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("WRONG: {violation}");
            let (nodes, blocks, hours, seed) = (args.nodes, args.blocks, args.hours, args.seed);
            println!(
                "again: imira-sim run --nodes {nodes} --blocks {blocks} --replication {r} --hours {hours} --seed {seed}"
            );
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]
fn report(args: &ReportArgs) -> ExitCode {
    println!("seed {}", args.seed);
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{elapsed} {bar:20} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let written = report::write(&args.folder, scale, args.seed, |what, done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(what);
    });
    bar.finish_and_clear();
    match written {
        Ok(()) => {
            println!("{}", args.folder.join("report.html").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line")]
fn lookups(args: &LookupArgs) {
    println!("seed {}", args.seed);
    let bar = ProgressBar::new(args.lookups.into());
    let settings = search::Settings {
        nodes: args.nodes as usize,
        lookups: args.lookups as usize,
        results: args.results as usize,
        gone_percent: args.gone_percent,
        round_trip: Duration::from_millis(args.round_trip_ms),
        seed: args.seed,
    };
    let report = search::run(&settings, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    println!("{report}");
}

/// A month of faults.
const MOST: Duration = Duration::from_secs(31 * 24 * 3_600);
