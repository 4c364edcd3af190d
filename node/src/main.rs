//! `imira-node`: the storage daemon that an operator runs.

mod away;
mod backend;
mod blocks;
mod cached;
mod cli;
mod config;
mod daemon;
mod deletions;
mod descriptors;
mod doctor;
mod files;
mod flights;
mod get;
mod housekeeping;
mod ingest;
mod logs;
mod manual;
mod membership;
mod network;
mod operator;
mod out;
mod pace;
mod put;
mod readiness;
mod receipts;
mod reload;
mod replication;
mod seen;
mod settings;
mod show;
mod tokens;
mod uploads;

use clap::Parser;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(io::stderr(), "imira-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
