//! `imira-platform`: the coordinator's daemon and its command-line client.

mod manual;

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use control_api::PlatformKeySize;
use imira_platform::catalogue::Visibility;
use imira_platform::config::Config;
use imira_platform::deletion::{Candidate, Deletion};
use imira_platform::secrets::ApiKey;
use imira_platform::server::Server;
use imira_platform::setup::DataFolder;
use imira_platform::upload::{self, UploadJob};
use imira_platform::watchers::Pace;
use manual::{CompletionsArgs, ManArgs};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Coordinator of an iMira delivery network: catalogue, node list, token broker, web pages.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the folder of a new platform: configuration, RSA key, database
    Init(InitArgs),
    /// Manage users
    #[command(subcommand)]
    User(UserCommand),
    /// Run the platform
    Run(RunArgs),
    /// Upload a video, wait until it is processed, and publish it
    Upload(UploadArgs),
    /// Delete what you uploaded, published or not, for good
    Delete(DeleteArgs),
    /// Print what makes a shell complete this command: imira-platform completions bash > /etc/bash_completion.d/imira-platform
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands into a folder
    Man(ManArgs),
}

#[derive(Args)]
struct InitArgs {
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// Address that people use [default: http:// and the listen address]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// A network and its id (32 hex digits); the first is the default for uploads
    #[arg(long = "network", value_name = "NAME=ID", required = true)]
    networks: Vec<String>,
    /// A node of a network: its control listener and, if known, where it stands. NAME is the network's and may be left out
    /// when there is one network
    #[arg(long = "node", value_name = "NAME=URL[@LAT,LON]")]
    nodes: Vec<String>,
    /// Size of the platform's RSA key: larger is slower to sign with
    #[arg(long, value_enum, default_value = "3072")]
    key_bits: KeyBits,
}

#[derive(Clone, Copy, ValueEnum)]
enum KeyBits {
    #[value(name = "2048")]
    Rsa2048,
    #[value(name = "3072")]
    Rsa3072,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add a user and print the API key, once
    Add {
        /// Folder of the platform
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Name of the user
        name: String,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Folder of the platform
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the built web pages
    #[arg(long, value_name = "DIR", default_value = "platform/web/dist")]
    web: PathBuf,
}

#[derive(Args)]
struct UploadArgs {
    /// Address of the platform
    #[arg(long, value_name = "URL")]
    platform: String,
    /// Title [default: the name of the file without its ending]
    #[arg(long)]
    title: Option<String>,
    /// Who may watch once it is published
    #[arg(long, value_enum, default_value = "public")]
    visibility: VisibilityArg,
    /// Network to upload to [default: the platform's first]
    #[arg(long)]
    network: Option<String>,
    /// Leave it `ready`, visible to its owner only
    #[arg(long)]
    no_publish: bool,
    /// File that holds the API key [default: the environment variable IMIRA_API_KEY]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Print one line of JSON at the end instead of text
    #[arg(long)]
    json: bool,
    /// The video
    file: PathBuf,
}

#[derive(Args)]
struct DeleteArgs {
    /// Address of the platform
    #[arg(long, value_name = "URL")]
    platform: String,
    /// File that holds the API key [default: the environment variable IMIRA_API_KEY]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
    /// Publication id, or a content key of which you have one publication
    content: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum VisibilityArg {
    Public,
    Unlisted,
    Owner,
}

impl From<VisibilityArg> for Visibility {
    fn from(argument: VisibilityArg) -> Self {
        match argument {
            VisibilityArg::Public => Self::Public,
            VisibilityArg::Unlisted => Self::Unlisted,
            VisibilityArg::Owner => Self::Owner,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG decides; what libraries say below warnings is theirs.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,imira_platform=info,control_api=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match Cli::parse().command {
        Command::Init(arguments) => init(arguments).await,
        Command::User(UserCommand::Add { data, name }) => add_user(data, &name).await,
        Command::Run(arguments) => run(arguments).await,
        Command::Upload(arguments) => upload_file(arguments).await,
        Command::Delete(arguments) => delete(arguments).await,
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(io::stderr(), "imira-platform: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn init(arguments: InitArgs) -> anyhow::Result<()> {
    let InitArgs { data, listen, public_url, networks, nodes, key_bits } = arguments;
    let config = Config::from_arguments(listen, public_url.as_deref(), &networks, &nodes)?;
    let folder = DataFolder::new(data);
    let size = match key_bits {
        KeyBits::Rsa2048 => PlatformKeySize::Rsa2048,
        KeyBits::Rsa3072 => PlatformKeySize::Rsa3072,
    };
    let fingerprint = folder.init(&config, size).await?;
    line(format_args!("configuration: {}", folder.config().display()))?;
    line(format_args!("public key: {}", folder.public_key().display()))?;
    line(format_args!("fingerprint: {fingerprint}"))?;
    Ok(())
}

async fn add_user(data: PathBuf, name: &str) -> anyhow::Result<()> {
    let key = DataFolder::new(data).add_user(name).await?;
    eprintln!("This key is shown once and stored nowhere. Whoever has it is {name}.");
    line(key.expose())?;
    Ok(())
}

async fn run(arguments: RunArgs) -> anyhow::Result<()> {
    // Both are caught before anything starts, so that an early signal is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let server = Server::start(&DataFolder::new(arguments.data), arguments.web, Pace::default()).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    Ok(server.run_until(stop).await?)
}

async fn upload_file(arguments: UploadArgs) -> anyhow::Result<()> {
    let api_key = read_api_key(arguments.api_key_file)?;

    let title = arguments.title.unwrap_or_else(|| upload::default_title(&arguments.file));
    let job = UploadJob {
        platform: arguments.platform,
        api_key,
        title,
        visibility: arguments.visibility.into(),
        network: arguments.network,
        publish: !arguments.no_publish,
        file: arguments.file,
    };
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let interrupted = async || {
        interrupts.recv().await;
    };
    let outcome = upload::run_until(&job, interrupted).await?;
    if arguments.json {
        line(serde_json::to_string(&outcome)?)?;
    } else {
        print(outcome)?;
    }
    Ok(())
}

async fn delete(arguments: DeleteArgs) -> anyhow::Result<()> {
    let DeleteArgs { platform, api_key_file, yes, content } = arguments;
    let deletion = Deletion::new(&platform, &read_api_key(api_key_file)?, &content)?;
    if !yes {
        anyhow::ensure!(io::stdin().is_terminal(), "nobody can be asked here; to delete {content} for good, add --yes");
        let question = question(&content, &deletion.candidates().await?)?;
        anyhow::ensure!(agreed(&question, io::stdin().lock())?, "nothing is deleted");
    }
    deletion.run().await?;
    line(format_args!("deleted: {content}"))?;
    Ok(())
}

fn question(name: &str, candidates: &[Candidate]) -> anyhow::Result<String> {
    match candidates {
        // An old one, or somebody else's, which the platform refuses.
        [] => Ok(format!("Delete {name} for good?")),
        [content] => Ok(format!("Delete {content} for good?")),
        [..] => {
            let all: Vec<String> = candidates.iter().map(|content| format!("\n  {content}")).collect();
            anyhow::bail!(
                "you published this film {} times; say which by its publication id:{}",
                all.len(),
                all.concat()
            )
        }
    }
}

/// Whatever is not a yes is a no, also the end of the input.
fn agreed(question: &str, mut answers: impl BufRead) -> io::Result<bool> {
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints an answer. Where nobody reads any more, as `head` after its last line, the rest is left out: it was not wanted.
fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

fn line(text: impl fmt::Display) -> io::Result<()> {
    print(format_args!("{text}\n"))
}

/// Never a flag's value, which every user of the machine could read in the list of processes.
fn read_api_key(file: Option<PathBuf>) -> anyhow::Result<ApiKey> {
    let text = match file {
        Some(file) => std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?,
        None => std::env::var("IMIRA_API_KEY")
            .context("no API key: set IMIRA_API_KEY or name a file with --api-key-file")?,
    };
    ApiKey::parse(text.trim()).context("this is not an API key; `imira-platform user add` prints one (imira_...)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in
            [("y\n", true), (" YES\r\n", true), ("n\n", false), ("\n", false), ("", false), ("yeah\n", false)]
        {
            assert_eq!(agreed("Sure?", answer.as_bytes()).unwrap(), expected, "{answer:?}");
        }
    }
}
