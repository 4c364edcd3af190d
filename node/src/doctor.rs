//! `imira-node doctor`: what keeps a node from being of use, in plain sentences, and what to do about it.

mod folder;
mod machine;
mod reach;

use crate::config::Config;
use crate::files::{DataDir, Folder};
use crate::operator::control_url;
use crate::out;
use anyhow::Result;
use clap::Args;
use control_api::NodeClient;
use control_api::types::NodeStatus;
use dht::Keypair;
use std::fmt;
use std::process::ExitCode;

/// Something is to be mended.
const TO_MEND: u8 = 1;
/// Something could not be told.
const UNKNOWN: u8 = 2;

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    folder: Folder,
    /// The running node's control listener, if not by the address in config.toml.
    #[arg(long, value_name = "URL")]
    control: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Failure,
    /// It could not be told.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    state: State,
    says: String,
    /// What to do, unless it is well.
    remedy: Option<String>,
}

impl Finding {
    fn well(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, state: State::Well, says: says.into(), remedy: None }
    }

    fn of(state: State, what: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state, says: says.into(), remedy: Some(remedy.into()) }
    }

    fn warning(what: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(State::Warning, what, says, remedy)
    }

    fn failure(what: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(State::Failure, what, says, remedy)
    }

    fn unknown(what: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(State::Unknown, what, says, remedy)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Well => "ok  ",
            State::Warning => "WARN",
            State::Failure => "FAIL",
            State::Unknown => "?   ",
        };
        write!(f, "{state}  {}: {}", self.what, self.says)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n      {remedy}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything; 0 if all is well enough, 1 if something is to be mended, 2 if something could not be told.
pub(crate) async fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let findings = examine(args).await;
    for finding in &findings {
        out::line(finding)?;
    }
    Ok(ExitCode::from(verdict(&findings)))
}

fn verdict(findings: &[Finding]) -> u8 {
    let any = |state| findings.iter().any(|finding| finding.state == state);
    match (any(State::Failure), any(State::Unknown)) {
        (true, _) => TO_MEND,
        (false, true) => UNKNOWN,
        (false, false) => 0,
    }
}

async fn examine(args: &DoctorArgs) -> Vec<Finding> {
    let (mut findings, opened) = folder::examine(&args.folder);
    let Some(Opened { data, config, keypair }) = opened else { return findings };
    findings.push(machine::clock());
    findings.push(machine::open_files());
    findings.push(machine::ffmpeg(&transcode::Tools::default(), config.confine_ffmpeg).await);
    let running = running(args, &config, &keypair).await;
    let status = match &running {
        Running::Yes(_, status) => Some(&**status),
        Running::No | Running::Somebody(_) => None,
    };
    findings.push(machine::disk(&args.folder.data, &config, status, &data.store_path()));
    if let Running::Yes(client, _) = &running {
        findings.extend(reach::readiness(client).await);
    }
    findings.extend(reach::examine(&running, data, &config, keypair).await);
    findings
}

/// A folder that can be worked with.
struct Opened {
    data: DataDir,
    config: Config,
    keypair: Keypair,
}

/// Whether the node is up.
enum Running {
    Yes(NodeClient, Box<NodeStatus>),
    No,
    /// Something else answers at its control address.
    Somebody(String),
}

async fn running(args: &DoctorArgs, config: &Config, keypair: &Keypair) -> Running {
    let control = args.control.clone().unwrap_or_else(|| control_url(config));
    let Ok(client) = NodeClient::new(&control) else { return Running::No };
    match client.node().await {
        Ok(status) if status.peer_id.as_str() == keypair.public().to_peer_id().to_base58() => {
            Running::Yes(client, Box::new(status))
        }
        Ok(status) => {
            Running::Somebody(format!("{control} is the control listener of another node, {}", status.peer_id))
        }
        Err(control_api::ClientError::Transport(_)) => Running::No,
        Err(error) => Running::Somebody(format!("{control} is no control listener of a node: {error}")),
    }
}

#[cfg(test)]
mod tests;
