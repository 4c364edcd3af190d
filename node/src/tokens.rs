//! `imira-node token`: what a platform does for a user, by hand. For engineers who look at a node, and for scripts.

use crate::cli::not_answering;
use crate::files::read;
use crate::out;
use anyhow::{Context, Result};
use chunkstore_block::{ContentKey, PublicationId};
use clap::{Args, Subcommand};
use control_api::signing::MAX_REQUEST_LIFETIME;
use control_api::types::NodeStatus;
use control_api::{
    AuthorityClaims, Clock, NodeClient, PlatformKey, RequestClaims, SystemClock, TemporaryUrl, Token, TokenRequest,
    UserKey,
};
use std::path::PathBuf;

/// Longer than any upload takes to be processed; docs/protocol.md §6 allows 7 days.
const AUTHORITY_SECONDS: u64 = 6 * 24 * 60 * 60;

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Get a temporary URL for a content, good for 30 seconds; prints it.
    Playback(PlaybackArgs),
    /// Get the URL and the token for one upload, good for 24 hours; prints them as JSON, as `imira-node put --grant -` reads them.
    Upload(UploadArgs),
}

#[derive(Args)]
pub(crate) struct PlaybackArgs {
    /// Which content: its key, 64 hex digits.
    #[arg(value_name = "CONTENT_KEY")]
    content: ContentKey,
    /// What stands behind the token in the URL: `index`, `fragments`, `files/master.m3u8`.
    #[arg(value_name = "PATH", default_value = "files/master.m3u8")]
    path: String,
    #[command(flatten)]
    platform: PlatformArgs,
}

#[derive(Args)]
pub(crate) struct UploadArgs {
    /// How many bytes the file has.
    #[arg(long, value_name = "BYTES")]
    size: u64,
    /// The publication's id, 32 hex digits; a new one if left out.
    #[arg(long, value_name = "ID")]
    publication: Option<PublicationId>,
    #[command(flatten)]
    platform: PlatformArgs,
}

/// Whose word it is, and who is asked.
#[derive(Args, Clone)]
pub(crate) struct PlatformArgs {
    /// The private key of a platform that the node serves (platform.key.pem).
    #[arg(long, value_name = "PEM")]
    pub(crate) platform_key: PathBuf,
    /// The node's control listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7301")]
    pub(crate) control: String,
}

/// Where an upload goes, and with what.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct UploadGrant {
    pub(crate) upload_url: String,
    pub(crate) token: String,
}

/// A platform, as far as one node is concerned.
pub(crate) struct Asker {
    key: PlatformKey,
    user: UserKey,
    client: NodeClient,
    status: NodeStatus,
}

pub(crate) async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Playback(args) => {
            let url = Asker::new(&args.platform).await?.playback(args.content).await?;
            out::line(url.at(&args.path)?)?;
        }
        TokenCommand::Upload(args) => {
            let asker = Asker::new(&args.platform).await?;
            let grant = asker.upload(args.size, args.publication).await?;
            out::line(serde_json::to_string(&grant)?)?;
        }
    }
    Ok(())
}

impl Asker {
    pub(crate) async fn new(args: &PlatformArgs) -> Result<Self> {
        let key = PlatformKey::from_pkcs8_pem(&read(&args.platform_key)?).with_context(|| {
            format!("{} is not a platform's private key (platform.key.pem)", args.platform_key.display())
        })?;
        let client = NodeClient::new(&args.control)?;
        let status = client.node().await.with_context(|| not_answering(&args.control))?;
        Ok(Self { key, user: UserKey::generate()?, client, status })
    }

    /// A temporary URL, which begins to expire now.
    pub(crate) async fn playback(&self, content: ContentKey) -> Result<TemporaryUrl> {
        let answer = self.client.request_playback(&self.sign(TokenRequest::playback(content))?).await?;
        Ok(TemporaryUrl::new(&answer.temporary_url, &self.open(&answer.encrypted_token)?)?)
    }

    pub(crate) async fn upload(&self, size: u64, publication: Option<PublicationId>) -> Result<UploadGrant> {
        let publication = match publication {
            Some(publication) => publication,
            None => PublicationId::from_bytes(dht::random_bytes()?),
        };
        let authority = self.key.sign_authority(&AuthorityClaims {
            node: self.status.peer_id.clone(),
            network: self.status.network_id,
            publication,
            bytes: AuthorityClaims::allowance(size),
            issued: SystemClock.unix_seconds(),
            lifetime: AUTHORITY_SECONDS,
        })?;
        let request = TokenRequest::Upload { publication, size, authority };
        let answer = self.client.request_upload(&self.sign(request)?).await?;
        let token = self.open(&answer.encrypted_token)?;
        Ok(UploadGrant { upload_url: answer.upload_url, token: token.expose().to_owned() })
    }

    fn sign(&self, request: TokenRequest) -> Result<String> {
        Ok(self.key.sign_request(&RequestClaims {
            node: self.status.peer_id.clone(),
            network: self.status.network_id,
            viewer_key: self.user.jwk()?,
            request,
            issued: SystemClock.unix_seconds(),
            // The longest, so that clocks may differ.
            lifetime: MAX_REQUEST_LIFETIME,
        })?)
    }

    fn open(&self, encrypted: &str) -> Result<Token> {
        Ok(self.user.decrypt(encrypted)?)
    }
}
