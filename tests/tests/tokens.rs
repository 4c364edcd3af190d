//! What does not open a content, asked of a real node: each refusal has a name of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chunkstore_block::{ContentKey, NetworkId};
use control_api::signing::{RequestClaims, TokenRequest};
use control_api::{ClientError, ErrorKind, NodeId, PlatformKey, PlatformKeySize, Problem, Token, UserKey};
use e2e::{Node, Platform, Published, Stage, clip};
use std::time::{Duration, Instant, SystemTime};

/// A published content and what is needed to ask for it as the platform does.
struct Scene {
    stage: Stage,
    nodes: Vec<Node>,
    platform: Platform,
    published: Published,
    signer: PlatformKey,
    viewer: UserKey,
}

impl Scene {
    async fn new() -> Self {
        let (stage, nodes, platform) = Stage::with_platform(2).await;
        let published = platform.publish(&clip(&stage.path(""), 2));
        let signer = platform.key();
        Self { stage, nodes, platform, published, signer, viewer: UserKey::generate().unwrap() }
    }

    fn claims(&self) -> RequestClaims {
        RequestClaims {
            node: self.node_id(0),
            network: self.stage.network_id(),
            viewer_key: self.viewer.jwk().unwrap(),
            request: TokenRequest::playback(self.published.key),
            issued: now(),
            lifetime: 30,
        }
    }

    fn node_id(&self, index: usize) -> NodeId {
        self.nodes[index].address.id.to_base58().parse().unwrap()
    }

    async fn ask(&self, jws: &str) -> Result<(String, Token), Problem> {
        match self.nodes[0].client.request_playback(jws).await {
            Ok(answer) => Ok((answer.temporary_url, self.viewer.decrypt(&answer.encrypted_token).unwrap())),
            Err(ClientError::Refused(problem)) => Err(problem),
            Err(other) => panic!("{other}"),
        }
    }

    async fn refusal(&self, claims: &RequestClaims) -> ErrorKind {
        self.ask(&self.signer.sign_request(claims).unwrap()).await.unwrap_err().kind
    }

    async fn token(&self, content: ContentKey) -> (String, Token) {
        let claims = RequestClaims { request: TokenRequest::playback(content), ..self.claims() };
        self.ask(&self.signer.sign_request(&claims).unwrap()).await.unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Opens a path with a token: the refusal's name, or nothing when it opens.
async fn open(base: &str, token: &str, path: &str) -> Option<ErrorKind> {
    let response = reqwest::get(format!("{base}{token}/{path}")).await.unwrap();
    if response.status().is_success() {
        return None;
    }
    let status = response.status().as_u16();
    let problem = Problem::from_json(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.detail.contains(token), "the answer repeats the token");
    Some(problem.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_must_not_be_answered() {
    let scene = Scene::new().await;
    let good = scene.claims();

    let jws = scene.signer.sign_request(&good).unwrap();
    scene.ask(&jws).await.unwrap();
    assert_eq!(scene.ask(&jws).await.unwrap_err().kind, ErrorKind::RequestReplayed);

    let stranger = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let unpinned = scene.ask(&stranger.sign_request(&good).unwrap()).await.unwrap_err();
    assert_eq!(unpinned.kind, ErrorKind::PlatformNotPinned);

    // Another request's signature under this one's claims.
    let other = scene.signer.sign_request(&good).unwrap();
    let fresh = scene.signer.sign_request(&good).unwrap();
    let (claims, _) = fresh.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let forged = scene.ask(&format!("{claims}.{signature}")).await.unwrap_err();
    assert_eq!(forged.kind, ErrorKind::BadSignature);

    let wrong_network = RequestClaims { network: NetworkId::from_bytes([9; 16]), ..good.clone() };
    assert_eq!(scene.refusal(&wrong_network).await, ErrorKind::WrongNetwork);
    let other_node = RequestClaims { node: scene.node_id(1), ..good.clone() };
    assert_eq!(scene.refusal(&other_node).await, ErrorKind::WrongAudience);
    let stale = RequestClaims { issued: now() - 60, ..good.clone() };
    assert_eq!(scene.refusal(&stale).await, ErrorKind::RequestExpired);
    let early = RequestClaims { issued: now() + 60, ..good.clone() };
    assert_eq!(scene.refusal(&early).await, ErrorKind::RequestFromTheFuture);
    assert_eq!(scene.ask("not.a.jws").await.unwrap_err().kind, ErrorKind::MalformedRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_a_restart_do_not_make_a_used_request_good_again() {
    let mut scene = Scene::new().await;
    // Ahead of the node's clock, as the skew allows, so that it is not simply older than the restart.
    let ahead = RequestClaims { issued: now() + 5, ..scene.claims() };
    let used = scene.signer.sign_request(&ahead).unwrap();
    scene.ask(&used).await.unwrap();
    scene.nodes[0].process.kill();
    scene.nodes[0].restart();
    scene.nodes[0].wait_for_peers(1).await;
    assert_eq!(scene.ask(&used).await.unwrap_err().kind, ErrorKind::RequestBeforeStart);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_must_not_open() {
    let scene = Scene::new().await;
    let (base, token) = scene.token(scene.published.key).await;
    let master = "files/master.m3u8";
    assert_eq!(open(&base, token.expose(), master).await, None);

    let forged = Token::generate().unwrap();
    assert_eq!(open(&base, forged.expose(), master).await, Some(ErrorKind::TokenUnknown));
    assert_eq!(open(&base, "short", master).await, Some(ErrorKind::TokenUnknown));

    // Another content's token opens none of this content's blocks.
    let other = scene.platform.publish(&clip(&scene.stage.path(""), 3));
    let (_, others) = scene.token(other.key).await;
    let stored = scene.platform.get(&format!("/api/contents/{}/fragments", scene.published.id)).await;
    let own: Vec<_> =
        stored["fragments"].as_array().unwrap().iter().map(|f| f["sha256"].as_str().unwrap().to_owned()).collect();
    let theirs = scene.platform.get(&format!("/api/contents/{}/fragments", other.id)).await.to_string();
    let only_ours = own.iter().find(|id| !theirs.contains(id.as_str())).expect("two clips share every block");
    let path = format!("blocks/{only_ours}");
    assert_eq!(open(&base, others.expose(), &path).await, Some(ErrorKind::WrongContent));

    // Thirty seconds, by the clock on the wall. Issued after `asked`, so it cannot seem to live too short.
    let asked = Instant::now();
    let (base, token) = scene.token(scene.published.key).await;
    let issued = Instant::now();
    let (base, token) = (base.as_str(), token.expose());
    let refused = e2e::eventually("the token expiring", Duration::from_secs(40), || open(base, token, master)).await;
    assert_eq!(refused, ErrorKind::TokenExpired);
    assert!(asked.elapsed() >= Duration::from_secs(30), "the token lived {:?}", asked.elapsed());
    // Polled on a noisy machine: the upper bound is generous.
    assert!(issued.elapsed() < Duration::from_secs(36), "the token lived {:?}", issued.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_could_not_be_copied_is_refused_before_its_first_byte() {
    let (_stage, _nodes, platform) = Stage::with_platform(1).await;
    let body = serde_json::json!({"title": "A test", "visibility": "public", "size": 10});
    let request = reqwest::Client::new().post(format!("{}/api/contents", platform.url));
    let answer = request.bearer_auth(&platform.api_key).json(&body).send().await.unwrap();
    let problem = Problem::from_json(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((problem.kind, problem.status), (ErrorKind::NotReplicated, 503));
}
