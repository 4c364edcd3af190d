//! The simulator. Drives the production placement code (`dht-core`) with drawn nodes and blocks; the same seed gives the
//! same output on every machine.

mod placement;
mod random;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "imira-sim", version, about = "Simulates placement in large networks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How evenly blocks spread over nodes, and how many are still in place after nodes came and went
    Placement(PlacementArgs),
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
fn main() {
    let Command::Placement(args) = Cli::parse().command;
    println!("seed {}", args.seed);
    println!("{}", placement::run(args.nodes, args.blocks, args.replicas, args.churn, args.seed));
}
