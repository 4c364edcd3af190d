//! What a package installs beside the program: shell completions and manual pages.

use crate::cli::Cli;
use crate::out;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

const NAME: &str = "imira-node";

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub(crate) struct ManArgs {
    /// A folder that is there: one page for each command goes into it.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Ok(out::print(String::from_utf8_lossy(&script))?)
}

pub(crate) fn man(args: &ManArgs) -> Result<()> {
    match &args.out {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("cannot write manual pages into {}", folder.display())),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            Ok(out::print(String::from_utf8_lossy(&page))?)
        }
    }
}
