//! The token broker: signs requests with the platform's key, and opens the nodes' answers with the users' custodial
//! keys (white paper 4.2.1).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chunkstore_block::{ContentKey, NetworkId, PublicationId};
use control_api::signing::MAX_REQUEST_LIFETIME;
use control_api::{
    Acknowledgement, AuthorityClaims, ClientError, DeletionClaims, ErrorKind, Jwk, PlatformKey, PlaybackRequest,
    Problem, RequestClaims, Scope, SigningError, TemporaryUrl, Token, TokenError, TokenRequest, UserKey,
};
use reqwest::Url;
use zeroize::Zeroizing;

use crate::config::Network;
use crate::nodes::{Node, NodeList};
use crate::store::{Content, Store, StoreError, User};
use crate::time::now;

/// A node has this long to answer a token request: two RSA operations and no disk.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(3);

/// A file may begin to come up to 24 h after the request (`docs/api.md` §2), and a long film takes hours to process: as long
/// as `docs/protocol.md` §6 allows (7 days), less a minute for clocks that differ.
const AUTHORITY_SECONDS: u64 = 7 * 24 * 60 * 60 - 60;

/// Custodial keys kept ready in memory, about 4 kB each; reading one anew costs a query and 0.1 ms.
const MAX_KEYS: usize = 4096;

/// Asks nodes for tokens on behalf of users.
pub struct Broker {
    key: PlatformKey,
    nodes: NodeList,
    store: Store,
    keys: Mutex<HashMap<i64, Arc<CustodialKey>>>,
}

struct CustodialKey {
    key: UserKey,
    jwk: Jwk,
}

/// Where an upload goes.
pub struct UploadSlot {
    /// `PeerId` of the ingest node.
    pub node: String,
    /// Where to `PUT` the file.
    pub url: String,
    /// What opens it.
    pub token: Token,
}

/// What somebody watches.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// The content.
    pub content_key: &'a str,
    /// Which publication of it: it stands in the node's receipts.
    pub publication: &'a str,
}

/// A content on one node, for 30 s.
#[derive(Debug)]
pub struct Access {
    /// `PeerId` of the node.
    pub node: String,
    /// Holds the token: for a `Location` header or a request, never for a log.
    pub url: TemporaryUrl,
}

/// Why a node gave no token.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It does not answer.
    #[error("the node does not answer")]
    Unreachable,
    /// It said no.
    #[error("the node refuses: {0}")]
    Refused(Problem),
    /// It said something that makes no sense.
    #[error("the node's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The fault is here.
    #[error("{0}")]
    Own(Problem),
}

impl Broker {
    /// A broker that signs with `key`.
    #[must_use]
    pub fn new(key: PlatformKey, nodes: NodeList, store: Store) -> Self {
        Self { key, nodes, store, keys: Mutex::default() }
    }

    /// Asks the nodes of a network, least loaded first, until one gives an upload token to `user`.
    pub async fn upload_slot(
        &self,
        user: &User,
        network: &Network,
        publication: &str,
        size: u64,
    ) -> Result<UploadSlot, Problem> {
        let (mut refusal, mut full) = (None, 0);
        if self.nodes.upload_order(&network.id, &mut rand::rng()).is_empty() {
            self.nodes.ask_down_nodes().await;
        }
        // A statement of its own: the thread's generator must not live across an await.
        let order = self.nodes.upload_order(&network.id, &mut rand::rng());
        let nodes = order.len();
        for node in order {
            match patiently(|| self.ask_upload(&node, user.id, publication, size)).await {
                Ok(slot) => return Ok(slot),
                Err(AccessError::Own(problem)) => return Err(problem),
                Err(AccessError::Refused(problem)) => {
                    tracing::warn!(node = %node.peer_id(), kind = problem.kind.name(), "node refuses an upload");
                    full += usize::from(problem.kind == ErrorKind::NoRoom);
                    refusal = Some(problem);
                }
                Err(AccessError::Unreachable) => self.nodes.mark_down(&node),
                Err(error @ AccessError::BadAnswer(_)) => {
                    tracing::warn!(node = %node.peer_id(), %error, "no upload token from this node");
                }
            }
        }
        if full > 1 && full == nodes {
            let detail =
                format!("All {nodes} nodes of the network that answer are full. Its operators must make room.");
            return Err(Problem::new(ErrorKind::NoRoom, detail));
        }
        Err(refusal.unwrap_or_else(|| no_node(network)))
    }

    /// Asks one node for a playback token. `user` is a row id: the viewer's, or the guest's.
    pub async fn playback_access(&self, node: &Node, user: i64, watched: Watched<'_>) -> Result<Access, AccessError> {
        patiently(|| self.ask_playback(node, user, watched)).await
    }

    async fn ask_playback(&self, node: &Node, user: i64, watched: Watched<'_>) -> Result<Access, AccessError> {
        let content: ContentKey = watched.content_key.parse().map_err(|error| own(&error))?;
        let publication = watched.publication.parse().map_err(|error| own(&error))?;
        let custodial = self.custodial_key(user).await.map_err(|error| own(&error))?;
        let request = PlaybackRequest { content, publication: Some(publication), scope: Scope::default() };
        let request = TokenRequest::Playback(request);
        let jws = self.sign(node, &custodial, request).map_err(|error| own(&error))?;
        let answer = in_time(node.client().request_playback(&jws)).await?;
        let token = open(&custodial, &answer.encrypted_token)?;
        check_url(&answer.temporary_url, node.delivery_url(), "/v1/t/")?;
        let url = TemporaryUrl::new(&answer.temporary_url, &token)
            .map_err(|_| AccessError::BadAnswer("its temporary URL is not http or https"))?;
        Ok(Access { node: node.peer_id().to_string(), url })
    }

    /// Signs the order to delete a content, once it has its number.
    pub(crate) fn deletion_of(
        &self,
        content: &Content,
    ) -> Result<impl FnOnce(u64) -> Result<String, SigningError> + Send + '_, StoreError> {
        let publication = content.publication.parse().map_err(|_| StoreError::Unreadable("publication id"))?;
        let network = content.network.parse().map_err(|_| StoreError::Unreadable("network id"))?;
        Ok(move |sequence| {
            self.key.sign_deletion(&DeletionClaims { network, publication, sequence, issued: unsigned_now() })
        })
    }

    async fn ask_upload(
        &self,
        node: &Node,
        user: i64,
        publication: &str,
        size: u64,
    ) -> Result<UploadSlot, AccessError> {
        let publication: PublicationId = publication.parse().map_err(|error| own(&error))?;
        let custodial = self.custodial_key(user).await.map_err(|error| own(&error))?;
        let authority = self.sign_authority(node, publication, size).map_err(|error| own(&error))?;
        let request = TokenRequest::Upload { publication, size, authority };
        let jws = self.sign(node, &custodial, request).map_err(|error| own(&error))?;
        let answer = in_time(node.client().request_upload(&jws)).await?;
        check_url(&answer.upload_url, node.delivery_url(), &format!("/v1/uploads/{publication}"))?;
        let token = open(&custodial, &answer.encrypted_token)?;
        Ok(UploadSlot { node: node.peer_id().to_string(), url: answer.upload_url, token })
    }

    /// Signs that the platform has a node's receipts for good.
    pub(crate) fn acknowledge(&self, node: &Node, acknowledgement: Acknowledgement) -> Result<String, SigningError> {
        // Nothing is encrypted in the answer, so no user's key goes along.
        let viewer_key = Jwk { kty: String::new(), n: String::new(), e: String::new() };
        self.key.sign_request(&RequestClaims {
            node: node.peer_id().clone(),
            network: network_of(node),
            viewer_key,
            request: TokenRequest::Acknowledge(acknowledgement),
            issued: unsigned_now(),
            // The longest, so that clocks may differ.
            lifetime: MAX_REQUEST_LIFETIME,
        })
    }

    /// A few milliseconds of processor time, as is opening the answer: short enough for an async task.
    fn sign(&self, node: &Node, user: &CustodialKey, request: TokenRequest) -> Result<String, SigningError> {
        self.key.sign_request(&RequestClaims {
            node: node.peer_id().clone(),
            network: network_of(node),
            viewer_key: user.jwk.clone(),
            request,
            issued: unsigned_now(),
            // The longest, so that clocks may differ.
            lifetime: MAX_REQUEST_LIFETIME,
        })
    }

    fn sign_authority(&self, node: &Node, publication: PublicationId, size: u64) -> Result<String, SigningError> {
        self.key.sign_authority(&AuthorityClaims {
            node: node.peer_id().clone(),
            network: network_of(node),
            publication,
            bytes: AuthorityClaims::allowance(size),
            issued: unsigned_now(),
            lifetime: AUTHORITY_SECONDS,
        })
    }

    async fn custodial_key(&self, user: i64) -> Result<Arc<CustodialKey>, KeyringError> {
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&user).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let der = Zeroizing::new(self.store.private_key(user).await?);
        let key = UserKey::from_pkcs8_der(&der)?;
        let key = Arc::new(CustodialKey { jwk: key.jwk()?, key });
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.insert(user, Arc::clone(&key));
        Ok(key)
    }
}

/// Why a user's key cannot be had.
#[derive(Debug, thiserror::Error)]
enum KeyringError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] TokenError),
}

/// Asks a node, and once more in the next second if it was started in this one: it cannot tell a request of the same
/// second from one that was used before its start (`request-before-start`), and nothing is wrong with either side.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, AccessError>
where
    F: Future<Output = Result<T, AccessError>>,
{
    match ask().await {
        Err(AccessError::Refused(problem)) if problem.kind == ErrorKind::RequestBeforeStart => {
            tokio::time::sleep(until_next_second()).await;
            ask().await
        }
        answer => answer,
    }
}

/// The times in requests are whole seconds.
fn until_next_second() -> Duration {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    Duration::from_secs(1) - Duration::from_nanos(passed.into())
}

async fn in_time<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T, AccessError> {
    match tokio::time::timeout(TOKEN_TIMEOUT, request).await {
        Err(_) => Err(AccessError::Unreachable),
        Ok(answer) => answer.map_err(access_error),
    }
}

fn access_error(error: ClientError) -> AccessError {
    match error {
        ClientError::Refused(problem) => AccessError::Refused(problem),
        ClientError::Transport(_) => AccessError::Unreachable,
        ClientError::Status(_) | ClientError::BadAnswer | ClientError::TooLong(_) | ClientError::BadUrl(_) => {
            AccessError::BadAnswer("it is not what docs/api.md says")
        }
    }
}

fn open(user: &CustodialKey, encrypted: &str) -> Result<Token, AccessError> {
    user.key
        .decrypt(encrypted)
        .map_err(|_| AccessError::BadAnswer("the encrypted token does not open with the user's key"))
}

/// Uploaders and viewers are sent there and the platform itself reads from there, so it must be the node's delivery
/// listener and nothing else: exactly `path` below `delivery_url`.
fn check_url(text: &str, delivery_url: &str, path: &str) -> Result<(), AccessError> {
    let said = Url::parse(text).map_err(|_| BAD_URL)?;
    let base = Url::parse(delivery_url).map_err(|_| BAD_URL)?;
    let web = matches!(said.scheme(), "http" | "https");
    let bare =
        said.username().is_empty() && said.password().is_none() && said.query().is_none() && said.fragment().is_none();
    let expected = format!("{}{path}", base.path().trim_end_matches('/'));
    if web && bare && said.origin() == base.origin() && said.path() == expected { Ok(()) } else { Err(BAD_URL) }
}

const BAD_URL: AccessError =
    AccessError::BadAnswer("its URL is not below its delivery_url; see `delivery_url` of both programs' config.toml");

fn own(error: &dyn fmt::Display) -> AccessError {
    AccessError::Own(Problem::internal(error))
}

fn no_node(network: &Network) -> Problem {
    let detail = format!(
        "None of the {} nodes of network {} gives a usable answer. Start one, correct config.toml, or see the log.",
        network.nodes.len(),
        network.name
    );
    Problem::new(ErrorKind::NoNode, detail)
}

fn network_of(node: &Node) -> NetworkId {
    node.status().network_id
}

fn unsigned_now() -> u64 {
    u64::try_from(now()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_sent_to_the_nodes_own_delivery_listener_only() {
        let good = |text: &str, base: &str| check_url(text, base, "/v1/t/").is_ok();
        assert!(good("http://n.example:7201/v1/t/", "http://n.example:7201"));
        assert!(good("https://n.example/imira/v1/t/", "https://n.example:443/imira/"));
        for bad in [
            "http://169.254.169.254/v1/t/",
            "http://n.example:7202/v1/t/",
            "https://n.example:7201/v1/t/",
            "http://n.example:7201@evil.example/v1/t/",
            "http://user@n.example:7201/v1/t/",
            "http://n.example:7201/v1/t/?x=",
            "http://n.example:7201/v1/t/#",
            "http://n.example:7201/v1/t",
            "http://n.example:7201/x/../admin/v1/t/",
            "http://n.example:7201/",
            "javascript:alert(1)//",
            "/v1/t/",
        ] {
            assert!(!good(bad, "http://n.example:7201"), "{bad}");
        }
    }
}
