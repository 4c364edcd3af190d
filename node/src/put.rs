//! `imira-node put`: sends a video to a node and follows what becomes of it.

use crate::out;
use crate::show::{Bar, PhaseBar};
use crate::tokens::{Asker, PlatformArgs, UploadGrant};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use control_api::{ClientError, DeliveryClient, Token, UploadStatus};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

/// How often the node is asked how far it is.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// A node that is silent for longer is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Larger reads than tokio's 4 KiB: fewer trips to the blocking pool.
const READ_BYTES: usize = 256 * 1024;
/// The longest grant that is read.
const MAX_GRANT_BYTES: u64 = 64 * 1024;

#[derive(Args)]
pub(crate) struct PutArgs {
    /// The video.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What `imira-node token upload` printed, in a file, or - for standard input. A platform's answer to `POST /api/contents` has it as
    /// `upload`. Otherwise --platform-key is needed.
    #[arg(long, value_name = "FILE", conflicts_with = "platform_key")]
    grant: Option<PathBuf>,
    /// The private key of a platform that the node serves: a grant is asked for with it.
    #[arg(long, value_name = "PEM")]
    platform_key: Option<PathBuf>,
    /// The node's control listener, with --platform-key.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7301")]
    control: String,
    /// Print the last status as JSON.
    #[arg(long)]
    json: bool,
}

/// Ends when the video is ready, or with the reason why it never will be.
pub(crate) async fn run(args: &PutArgs) -> Result<()> {
    let metadata = std::fs::metadata(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    ensure!(metadata.is_file(), "{} is no file", args.file.display());
    let grant = grant(args, metadata.len()).await?;
    let token = Token::parse(&grant.token).context("the grant's token is none: 43 characters are needed")?;
    let client = DeliveryClient::new()?;
    send(&client, &grant.upload_url, &token, &args.file, metadata.len()).await?;
    let status = follow(&client, &grant.upload_url).await?;
    if let Some(problem) = status.error {
        bail!("the node refused the video: {problem}");
    }
    if args.json {
        out::line(serde_json::to_string(&status)?)?;
    } else {
        // Ready, so it is there.
        out::line(status.content_key.map(|key| key.to_string()).unwrap_or_default())?;
    }
    Ok(())
}

async fn grant(args: &PutArgs, size: u64) -> Result<UploadGrant> {
    if let Some(key) = &args.platform_key {
        let platform = PlatformArgs { platform_key: key.clone(), control: args.control.clone() };
        return Asker::new(&platform).await?.upload(size, None).await;
    }
    let path = args.grant.as_deref().context(
        "give --platform-key, the private key of a platform that the node serves (or --grant, with what `imira-node token upload` printed)",
    )?;
    let text = match path == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin().take(MAX_GRANT_BYTES))?,
        false => String::from_utf8(crate::files::read_bytes(path, MAX_GRANT_BYTES)?)?,
    };
    let value: serde_json::Value = serde_json::from_str(&text).context("the grant is no JSON")?;
    // Either our own, or a platform's answer, or the part of it.
    let upload = value.get("upload").unwrap_or(&value);
    let text = |name| upload.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let missing = "the grant has no upload_url and token; give what `imira-node token upload` prints";
    let (url, token) = (text("upload_url").or_else(|| text("url")), text("token"));
    Ok(UploadGrant { upload_url: url.context(missing)?, token: token.context(missing)? })
}

async fn send(client: &DeliveryClient, url: &str, token: &Token, path: &Path, size: u64) -> Result<()> {
    let file = File::open(path).await.with_context(|| format!("cannot read {}", path.display()))?;
    let bar = Arc::new(Bar::new("sending"));
    let shown = Arc::clone(&bar);
    let body = ReaderStream::with_capacity(file, READ_BYTES);
    client.put_upload(url, token, size, body, move |sent| shown.at(sent, size)).await?;
    Ok(())
}

async fn follow(client: &DeliveryClient, url: &str) -> Result<UploadStatus> {
    let (bar, mut heard) = (PhaseBar::new(), Instant::now());
    loop {
        match client.upload_status(url).await {
            Ok(status) if status.phase.is_final() => return Ok(status),
            Ok(status) => {
                heard = Instant::now();
                bar.at(status.phase.name(), status.percent, status.remaining_seconds);
            }
            Err(ClientError::Transport(_)) if heard.elapsed() < GIVE_UP_AFTER => {}
            Err(error) => return Err(error).context("the file has come whole, and how it goes on cannot be told"),
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
