//! The client of a node's two listeners, for platforms and for tools: [`NodeClient`] asks the control listener, [`DeliveryClient`]
//! uploads and reads with tokens. Both are cheap to clone and share their connections.
//!
//! What it takes to upload a film, wait for it, and read a file of it (`docs/examples/upload_and_play.py` is the same in Python):
//!
//! ```no_run
//! use std::time::{Duration, SystemTime};
//!
//! use bytes::Bytes;
//! use control_api::{
//!     AuthorityClaims, NodeClient, Phase, PlatformKey, PublicationId, RequestClaims, TemporaryUrl, TokenRequest, UserKey,
//! };
//!
//! # async fn publish(pem: &str, film: Bytes) -> Result<Bytes, Box<dyn std::error::Error>> {
//! let platform = PlatformKey::from_pkcs8_pem(pem)?; // the node pins its public key
//! let user = UserKey::generate()?; // to whom tokens are encrypted
//! let client = NodeClient::new("http://10.0.0.11:7301")?;
//! let node = client.node().await?;
//! let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
//! let claims = |request, issued| {
//!     let (node, network, viewer_key) = (node.peer_id.clone(), node.network_id, user.jwk()?);
//!     Ok::<_, control_api::TokenError>(RequestClaims { node, network, viewer_key, request, issued, lifetime: 30 })
//! };
//!
//! // The upload: a name of our choice, the right to store blocks for it, a token, the file.
//! let (publication, size) = (PublicationId::from_bytes([7; 16]), film.len() as u64); // random, in earnest
//! let authority = platform.sign_authority(&AuthorityClaims {
//!     node: node.peer_id.clone(),
//!     network: node.network_id,
//!     publication,
//!     bytes: size.saturating_mul(4).max(1 << 30),
//!     issued: now()?,
//!     lifetime: 3_600,
//! })?;
//! let request = claims(TokenRequest::Upload { publication, size, authority }, now()?)?;
//! let answer = client.request_upload(&platform.sign_request(&request)?).await?;
//! let token = user.decrypt(&answer.encrypted_token)?;
//! let file = futures::stream::iter([Ok::<_, std::io::Error>(film)]);
//! let mut status = client.delivery().put_upload(&answer.upload_url, &token, size, file, |_sent| {}).await?;
//! while !status.phase.is_final() {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     status = client.delivery().upload_status(&answer.upload_url).await?;
//! }
//! if let Some(problem) = status.error {
//!     return Err(problem.into());
//! }
//!
//! // Playback: a token that opens this content for 30 s.
//! let content = status.content_key.ok_or("a node that is ready names the content")?;
//! let request = claims(TokenRequest::playback(content), now()?)?;
//! let answer = client.request_playback(&platform.sign_request(&request)?).await?;
//! let url = TemporaryUrl::new(&answer.temporary_url, &user.decrypt(&answer.encrypted_token)?)?;
//! let playlist = client.delivery().get(&url, "files/master.m3u8", false, Default::default()).await?;
//! Ok(playlist.bytes(64 << 10).await?)
//! # }
//! ```
//!
//! **Time.** A connection is given 5 s, a short request 15 s from end to end, and a node that is sending may be silent for 60 s. An
//! upload has no end of its own, for it may take hours; a node that vanishes meanwhile is noticed after some 30 s of silence.
//!
//! **Again.** Nothing is asked twice by itself: a signed request is good once, and whether an upload that broke off has arrived is
//! the caller's to ask ([`DeliveryClient::upload_status`]). What may be asked again, after a while or of another node, is
//! [`ClientError::Transport`], and [`ClientError::Refused`] with `busy`, `unavailable` or `request-before-start`.
//!
//! **Room.** No answer is read without a bound: 64 KiB of a status, a token or a problem, 1 MiB of a block, 64 MiB of a list. Past it,
//! the answer is [`ClientError::TooLong`]. Files are read by the caller, as a stream or up to the caller's own bound
//! ([`FileResponse`]).
//!
//! **Errors** are [`ClientError`]: a refusal with the node's own [`Problem`], or what else went wrong. None of them holds a token or
//! a URL. Redirects are not followed, and the environment's proxy is not asked: a token must not go elsewhere.

mod work;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use chunkstore_block::{BlockId, PlatformFingerprint};
use futures::{Stream, StreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::routes::NODE;
use crate::tokens::Token;
use crate::types::{
    BlocksResponse, DeletionResponse, DeletionsResponse, FragmentsResponse, NodeId, NodeStatus, PeerEntry,
    PeersResponse, PlaybackTokenResponse, Reachability, Readiness, ReceiptsResponse, RevocationResponse, UploadStatus,
    UploadTokenResponse,
};

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a short request may take from end to end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a node may be silent within a stream. Longer than its own search for a block.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// After how much silence the kernel asks whether the node is still there; ends uploads to a node that vanished.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a connection is kept for the next request. Less than the 10 s after which a node closes an idle one ([`crate::serve`]), or a
/// request could go out just as the node hangs up.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// The longest list that is read: the fragment list of a 150 GB film is about 20 MB.
const MAX_LIST_BYTES: usize = 64 << 20;

/// The longest status or token answer that is read; an honest one has less than 8 KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest index block (`docs/index-format.md`).
const MAX_BLOCK_BYTES: usize = chunkstore_block::MAX_BLOCK_BYTES;

/// Why a request to a node failed. No text here holds a token: URLs are left out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node refused, and said why.
    #[error("the node refused: {0}")]
    Refused(Problem),
    /// The node answered with an error that is no problem document.
    #[error("the node answered {0} without a reason; is this address a node's listener?")]
    Status(u16),
    /// The node could not be reached, or the connection broke.
    #[error("the node could not be reached, or the connection broke; see whether it runs and its address is right")]
    Transport(#[source] reqwest::Error),
    /// The answer is not what the interface says.
    #[error("the node's answer is not in the form of docs/api.md; are both of the same version?")]
    BadAnswer,
    /// The answer is longer than this client reads.
    #[error("the node's answer is longer than {0} bytes and was not read")]
    TooLong(usize),
    /// The address is no URL.
    #[error(
        "the node's address {0:?} is refused: write http:// or https://, host and port, without user name, query and fragment"
    )]
    BadUrl(String),
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        // A temporary URL holds a token, and reqwest prints URLs.
        Self::Transport(error.without_url())
    }
}

impl ClientError {
    /// The node's own words, when it gave some.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Status(_) | Self::Transport(_) | Self::BadAnswer | Self::TooLong(_) | Self::BadUrl(_) => None,
        }
    }
}

/// Talks to the control listener of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeClient {
    http: reqwest::Client,
    uploads: reqwest::Client,
    control: String,
}

impl NodeClient {
    /// A client of the control listener at `control_url`, for example `http://10.0.0.1:7200`.
    pub fn new(control_url: &str) -> Result<Self, ClientError> {
        Ok(Self {
            http: http_client(Some(READ_TIMEOUT))?,
            uploads: http_client(None)?,
            control: parse_base(control_url)?,
        })
    }

    /// A client of another control listener that shares this one's connections.
    pub fn at(&self, control_url: &str) -> Result<Self, ClientError> {
        Ok(Self { control: parse_base(control_url)?, ..self.clone() })
    }

    /// `GET /v1/node`.
    pub async fn node(&self) -> Result<NodeStatus, ClientError> {
        self.get_json("/v1/node", MAX_ANSWER_BYTES).await
    }

    /// `GET /v1/peers`.
    pub async fn peers(&self) -> Result<Vec<PeerEntry>, ClientError> {
        let answer: PeersResponse = self.get_json("/v1/peers", MAX_LIST_BYTES).await?;
        Ok(answer.peers)
    }

    /// `GET /v1/reachability`: the node asks another one, which takes some seconds.
    pub async fn reachability(&self) -> Result<Reachability, ClientError> {
        self.get_json("/v1/reachability", MAX_ANSWER_BYTES).await
    }

    /// `GET /readyz`: what keeps the node from a part of its work.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let request = self.http.get(format!("{}/readyz", self.control)).timeout(REQUEST_TIMEOUT);
        // A node that is not ready says why with a status of 503.
        read_json(request.send().await?, MAX_ANSWER_BYTES).await
    }

    /// `GET /v1/blocks`: at most `limit` (1 to 1,000) blocks after `after`.
    pub async fn blocks(&self, after: Option<BlockId>, limit: u32) -> Result<BlocksResponse, ClientError> {
        let after = after.map_or(String::new(), |after| format!("after={after}&"));
        self.get_json(&format!("/v1/blocks?{after}limit={limit}"), MAX_LIST_BYTES).await
    }

    /// Asks for a playback token with a signed request; [`crate::UserKey::decrypt`] opens the answer.
    pub async fn request_playback(&self, jws: &str) -> Result<PlaybackTokenResponse, ClientError> {
        self.request_token(jws).await
    }

    /// Asks for an upload token with a signed request.
    pub async fn request_upload(&self, jws: &str) -> Result<UploadTokenResponse, ClientError> {
        self.request_token(jws).await
    }

    /// Takes back the playback tokens of a content with a signed [`crate::TokenRequest::Revoke`].
    pub async fn revoke(&self, jws: &str) -> Result<RevocationResponse, ClientError> {
        self.post_jws("/v1/revocations", jws).await
    }

    /// `GET /v1/receipts`: at most `limit` (1 to 500) of a platform's receipts after the number `after` of `log`; of another log, from
    /// its first that is there.
    pub async fn receipts(
        &self,
        platform: PlatformFingerprint,
        log: Option<&str>,
        after: u64,
        limit: u32,
    ) -> Result<ReceiptsResponse, ClientError> {
        let log = log.map_or(String::new(), |log| format!("log={log}&"));
        self.get_json(&format!("/v1/receipts?platform={platform}&{log}after={after}&limit={limit}"), MAX_LIST_BYTES)
            .await
    }

    /// Says with a signed [`crate::TokenRequest::Acknowledge`] which receipts are stored for good.
    pub async fn acknowledge_receipts(&self, jws: &str) -> Result<(), ClientError> {
        self.post("/v1/receipts/acknowledged", jws).await.map(drop)
    }

    /// A client of delivery listeners that shares this one's connections.
    pub fn delivery(&self) -> DeliveryClient {
        DeliveryClient { http: self.http.clone(), uploads: self.uploads.clone() }
    }

    /// Hands a signed deletion order over. The node has it durably when this returns.
    pub async fn delete(&self, order: &str) -> Result<DeletionResponse, ClientError> {
        self.post_jws("/v1/deletions", order).await
    }

    /// `GET /v1/deletions`: at most `limit` (1 to 500) of a platform's orders after the sequence number `after`.
    pub async fn deletions(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: u32,
    ) -> Result<DeletionsResponse, ClientError> {
        let path = format!("/v1/deletions?platform={platform}&after={after}&limit={limit}");
        self.get_json(&path, MAX_LIST_BYTES).await
    }

    async fn request_token<T: DeserializeOwned>(&self, jws: &str) -> Result<T, ClientError> {
        self.post_jws("/v1/tokens", jws).await
    }

    async fn post_jws<T: DeserializeOwned>(&self, path: &str, jws: &str) -> Result<T, ClientError> {
        read_json(self.post(path, jws).await?, MAX_ANSWER_BYTES).await
    }

    async fn post(&self, path: &str, jws: &str) -> Result<Response, ClientError> {
        let request = self.http.post(format!("{}{path}", self.control)).timeout(REQUEST_TIMEOUT);
        send(request.header(CONTENT_TYPE, "application/jose").body(jws.to_owned())).await
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str, max_bytes: usize) -> Result<T, ClientError> {
        let request = self.http.get(format!("{}{path}", self.control)).timeout(REQUEST_TIMEOUT);
        read_json(send(request).await?, max_bytes).await
    }
}

/// A node's delivery URL with a playback (or preview) token in it: whoever has it may watch, so it is a secret.
#[derive(Clone)]
pub struct TemporaryUrl(String);

impl fmt::Debug for TemporaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemporaryUrl(redacted)")
    }
}

impl TemporaryUrl {
    /// From the node's `temporary_url` and the token; a base that is no URL is refused.
    pub fn new(temporary_url: &str, token: &Token) -> Result<Self, ClientError> {
        let base = parse_base(temporary_url)?;
        Ok(Self(format!("{base}/{}", token.expose())))
    }

    /// The whole URL of a path such as `files/master.m3u8`, for a `Location` header. The path's special characters are escaped.
    pub fn at(&self, path: &str) -> Result<String, ClientError> {
        let bad = || ClientError::BadUrl("a temporary URL".to_owned());
        let mut url = Url::parse(&self.0).map_err(|_| bad())?;
        // A segment of dots would climb out of the token's own paths.
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(bad());
        }
        url.path_segments_mut().map_err(|()| bad())?.extend(path.split('/'));
        Ok(url.into())
    }
}

/// A body that is being read, with what a proxy passes on.
pub struct FileResponse {
    /// 200, 206, 304 or 416 (a 416 has no error of its own here: `Content-Range` says the size).
    pub status: u16,
    /// The node's headers.
    pub headers: HeaderMap,
    response: Response,
}

impl FileResponse {
    /// The bytes as they come.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static {
        self.response.bytes_stream().map(|chunk| chunk.map_err(ClientError::from))
    }

    /// All bytes, at most `max_bytes`.
    pub async fn bytes(self, max_bytes: usize) -> Result<Bytes, ClientError> {
        read_body(self.response, max_bytes).await
    }
}

/// Talks to delivery listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryClient {
    http: reqwest::Client,
    /// Without a read timeout: reqwest's runs from the first byte sent, and an upload may take hours before its answer.
    uploads: reqwest::Client,
}

impl DeliveryClient {
    /// A client with connections of its own.
    pub fn new() -> Result<Self, ClientError> {
        Ok(Self { http: http_client(Some(READ_TIMEOUT))?, uploads: http_client(None)? })
    }

    /// `PUT`s a file of `size` bytes to the `upload_url` of a token answer. `progress` is told the bytes handed over so far.
    ///
    /// A node that refuses may close the connection before the body's end: that may show as [`ClientError::Transport`].
    pub async fn put_upload<S, E>(
        &self,
        upload_url: &str,
        token: &Token,
        size: u64,
        body: S,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<UploadStatus, ClientError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let mut sent = 0_u64;
        let counted = body.inspect(move |chunk| {
            if let Ok(bytes) = chunk {
                sent = sent.saturating_add(bytes.len() as u64);
                progress(sent);
            }
        });
        let request = self.uploads.put(check_url(upload_url)?).header(AUTHORIZATION, bearer(token));
        let request = request.header(CONTENT_LENGTH, size).body(reqwest::Body::wrap_stream(counted));
        read_json(send(request).await?, MAX_ANSWER_BYTES).await
    }

    /// `GET` of the same URL: how the upload is doing.
    pub async fn upload_status(&self, upload_url: &str) -> Result<UploadStatus, ClientError> {
        let request = self.http.get(check_url(upload_url)?).timeout(REQUEST_TIMEOUT);
        read_json(send(request).await?, MAX_ANSWER_BYTES).await
    }

    /// The `PeerId` of the node that answers under a delivery URL; none where what answers there is no node.
    pub async fn who_answers(&self, delivery_url: &str) -> Result<Option<NodeId>, ClientError> {
        let base = parse_base(delivery_url)?;
        let answer = self.http.get(format!("{base}/healthz")).timeout(REQUEST_TIMEOUT).send().await?;
        Ok(answer.headers().get(NODE).and_then(|node| node.to_str().ok()?.parse().ok()))
    }

    /// The ordered list of a content's data blocks.
    pub async fn fragments(&self, url: &TemporaryUrl) -> Result<FragmentsResponse, ClientError> {
        read_json(send(self.http.get(url.at("fragments")?)).await?, MAX_LIST_BYTES).await
    }

    /// The index block. Check it: its SHA-256 is the content key.
    pub async fn index(&self, url: &TemporaryUrl) -> Result<Bytes, ClientError> {
        read_body(send(self.http.get(url.at("index")?)).await?, MAX_BLOCK_BYTES).await
    }

    /// `GET` or `HEAD` of any path below a temporary URL, with the headers of a range request passed on as they are
    /// (`Range`, `If-Range`, `If-None-Match`). Answers 200, 206, 304 and 416; every other status is an error.
    pub async fn get(
        &self,
        url: &TemporaryUrl,
        path: &str,
        head: bool,
        headers: HeaderMap,
    ) -> Result<FileResponse, ClientError> {
        let method = if head { Method::HEAD } else { Method::GET };
        let response = self.http.request(method, url.at(path)?).headers(headers).send().await?;
        let passed = matches!(response.status().as_u16(), 304 | 416);
        let response = if passed { response } else { check_status(response).await? };
        Ok(FileResponse { status: response.status().as_u16(), headers: response.headers().clone(), response })
    }
}

fn http_client(read_timeout: Option<Duration>) -> Result<reqwest::Client, ClientError> {
    // No redirects: a node has no reason to send the platform elsewhere, and a token must not follow.
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_keepalive(TCP_KEEPALIVE);
    let builder = builder.redirect(reqwest::redirect::Policy::none()).pool_idle_timeout(POOL_IDLE_TIMEOUT);
    // No proxy of the environment: nodes stand on private addresses, and a proxy would read the tokens in the URLs.
    let builder = builder.no_proxy();
    let builder = match read_timeout {
        Some(timeout) => builder.read_timeout(timeout),
        None => builder,
    };
    Ok(builder.build()?)
}

fn parse_base(url: &str) -> Result<String, ClientError> {
    Ok(check_url(url)?.as_str().trim_end_matches('/').to_owned())
}

fn check_url(url: &str) -> Result<Url, ClientError> {
    let plain = |url: &Url| {
        let named = !url.username().is_empty() || url.password().is_some();
        matches!(url.scheme(), "http" | "https") && !named && url.query().is_none() && url.fragment().is_none()
    };
    // What stands before an @ may be a password, and errors are logged.
    let shown = || url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned();
    Url::parse(url).ok().filter(plain).ok_or_else(|| ClientError::BadUrl(shown()))
}

fn bearer(token: &Token) -> String {
    format!("Bearer {}", token.expose())
}

async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    check_status(request.send().await?).await
}

/// Turns an error status into an error, with the problem when the body is one.
async fn check_status(response: Response) -> Result<Response, ClientError> {
    const MAX_PROBLEM_BYTES: usize = 16 * 1024;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = read_body(response, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    Err(Problem::from_json(&body).map_or(ClientError::Status(status), ClientError::Refused))
}

async fn read_json<T: DeserializeOwned>(response: Response, max_bytes: usize) -> Result<T, ClientError> {
    let body = read_body(response, max_bytes).await?;
    serde_json::from_slice(&body).map_err(|_| ClientError::BadAnswer)
}

async fn read_body(mut response: Response, max_bytes: usize) -> Result<Bytes, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(ClientError::TooLong(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve;
    use axum::Router;
    use tokio::net::TcpListener;

    #[test]
    fn a_url_has_scheme_host_port_and_path_only() {
        for good in ["http://10.0.0.1:7200", "https://node.example/behind/", "http://[::1]:1/v1/t/"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["ftp://n", "n:1", "", "http://", "http://n/?a", "http://n/?", "http://n/#a", "http://n/#"] {
            assert!(matches!(check_url(bad), Err(ClientError::BadUrl(_))), "{bad}");
        }
        for named in
            ["http://user@n", "http://user:secret@n/", "http://:secret@n", "https://node.example@evil.example/"]
        {
            let error = check_url(named).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("user@"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_status_of_100_kib_is_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = NodeClient::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let long = Router::new().fallback(|| async { "a".repeat(100 << 10) });
        tokio::spawn(serve(listener, long, std::future::pending()));
        assert!(matches!(client.node().await, Err(ClientError::TooLong(MAX_ANSWER_BYTES))));
        assert!(matches!(client.request_playback("a.b.c").await, Err(ClientError::TooLong(MAX_ANSWER_BYTES))));
        assert!(matches!(client.peers().await, Err(ClientError::BadAnswer)));
    }
}
