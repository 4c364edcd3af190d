//! A node for uploads alone, and a client of its resumable uploads that can do wrong.

use crate::eventually;
use crate::stage::{Node, NodeOptions, Stage};
use chunkstore_block::PublicationId;
use control_api::{
    AuthorityClaims, ClientError, NodeId, Phase, PlatformKey, PlatformKeySize, Problem, RequestClaims, Token,
    TokenRequest, UploadStatus, UserKey,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

/// Loaded machines of two cores take their time.
const LIMIT: Duration = Duration::from_secs(300);

/// A network of one node that keeps each block once, and the platform that signs for it.
pub struct Landing {
    /// Where the node runs.
    pub stage: Stage,
    /// The node.
    pub node: Node,
    platform: PlatformKey,
    user: UserKey,
}

/// One upload with its token.
#[derive(Clone)]
pub struct TusUpload {
    /// Where the token says that it is.
    pub url: String,
    /// Its token.
    pub token: Token,
    /// Its id.
    pub publication: PublicationId,
    http: Client,
}

impl Landing {
    /// A node with these lines of its configuration exchanged.
    pub async fn new(settings: &[(&'static str, &str)]) -> Self {
        let platform = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
        let mut options = NodeOptions { settings: vec![("replication", "1".into())], ..NodeOptions::default() };
        options.settings.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let (stage, nodes) = Stage::with_nodes_and(vec![options], &platform.public_key().to_pem().unwrap()).await;
        let [node] = nodes.try_into().unwrap_or_else(|_| panic!("one node was asked for"));
        Self { stage, node, platform, user: UserKey::generate().unwrap() }
    }

    /// A new upload of so many bytes.
    pub async fn upload(&self, size: u64) -> TusUpload {
        let publication = PublicationId::from_bytes(dht::random_bytes().unwrap());
        self.token(publication, size).await.unwrap()
    }

    /// A token for an upload, perhaps not the first.
    pub async fn token(&self, publication: PublicationId, size: u64) -> Result<TusUpload, Problem> {
        let node: NodeId = self.node.address.id.to_base58().parse().unwrap();
        let network = self.stage.network_id();
        let issued = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let authority =
            AuthorityClaims { node: node.clone(), network, publication, bytes: 1 << 40, issued, lifetime: 86_400 };
        let authority = self.platform.sign_authority(&authority).unwrap();
        let request = TokenRequest::Upload { publication, size, authority };
        let viewer_key = self.user.jwk().unwrap();
        let claims = RequestClaims { node, network, viewer_key, request, issued, lifetime: 30 };
        match self.node.client.request_upload(&self.platform.sign_request(&claims).unwrap()).await {
            Ok(answer) => Ok(TusUpload {
                url: answer.upload_url,
                token: self.user.decrypt(&answer.encrypted_token).unwrap(),
                publication,
                http: Client::new(),
            }),
            Err(ClientError::Refused(problem)) => Err(problem),
            Err(other) => panic!("{other}"),
        }
    }

    /// Ends the node without notice, and starts it again on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.node.process.kill();
        self.node.restart();
        self.node.wait_for_peers(0).await;
    }
}

impl TusUpload {
    /// A request with version and token.
    pub fn request(&self, method: &str, url: &str) -> RequestBuilder {
        let request = self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        request.bearer_auth(self.token.expose()).header("tus-resumable", "1.0.0")
    }

    /// `POST` with these headers.
    pub async fn create(&self, headers: &[(&str, &str)]) -> Response {
        let request = self.request("POST", &self.url);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    /// A part of so many bytes; its URL.
    pub async fn create_part(&self, length: usize) -> String {
        let created = self.create(&[("upload-concat", "partial"), ("upload-length", &length.to_string())]).await;
        assert_eq!(created.status(), 201);
        created.headers()["location"].to_str().unwrap().to_owned()
    }

    /// `PATCH` of a URL.
    pub async fn patch(&self, url: &str, offset: u64, body: impl Into<reqwest::Body>) -> Response {
        self.patching(url, offset).body(body).send().await.unwrap()
    }

    /// The head of a `PATCH`.
    pub fn patching(&self, url: &str, offset: u64) -> RequestBuilder {
        let request = self.request("PATCH", url).header("upload-offset", offset);
        request.header("content-type", "application/offset+octet-stream")
    }

    /// Begins a `PATCH` of `length` bytes on a connection of its own and sends `part` of it; dropped, the connection breaks.
    pub fn begin_patch(&self, offset: u64, length: usize, headers: &str, part: &[u8]) -> TcpStream {
        let (host, path) = self.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let head = format!(
            "PATCH /{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ntus-resumable: 1.0.0\r\nupload-offset: \
             {offset}\r\ncontent-type: application/offset+octet-stream\r\ncontent-length: {length}\r\n{headers}\r\n",
            self.token.expose()
        );
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(part).unwrap();
        stream
    }

    /// The offset that `HEAD` tells.
    pub async fn offset(&self) -> u64 {
        offset(&self.request("HEAD", &self.url).send().await.unwrap())
    }

    /// The status, which needs no token.
    pub async fn status(&self) -> UploadStatus {
        self.http.get(&self.url).send().await.unwrap().json().await.unwrap()
    }

    /// Waits for a status.
    pub async fn until(&self, what: &str, wanted: impl Fn(&UploadStatus) -> bool) -> UploadStatus {
        eventually(what, LIMIT, || async { Some(self.status().await).filter(|status| wanted(status)) }).await
    }

    /// Waits until it is ready; panics if it is rejected.
    pub async fn until_ready(&self) -> UploadStatus {
        let status = self.until("the upload being over", |status| status.phase.is_final()).await;
        assert_eq!(status.phase, Phase::Ready, "{status:?}");
        status
    }
}

/// `Upload-Offset` of an answer.
pub fn offset(response: &Response) -> u64 {
    let value = response.headers().get("upload-offset").unwrap_or_else(|| panic!("no Upload-Offset: {response:?}"));
    value.to_str().unwrap().parse().unwrap()
}

/// Status and error name of a refusal.
pub async fn refusal(response: Response) -> (u16, &'static str) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["tus-resumable"], "1.0.0");
    let body = response.bytes().await.unwrap();
    let problem = Problem::from_json(&body).unwrap_or_else(|| panic!("{status} {body:?}"));
    assert_eq!(problem.status, status);
    assert!(!problem.detail.is_empty());
    (status, problem.kind.name())
}
