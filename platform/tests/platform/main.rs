//! The platform as a whole, over HTTP, with nodes that misbehave. The real path, with real nodes and FFmpeg, is in the
//! workspace's `tests/`.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails there.

mod command;
mod deletions;
mod fake_node;
mod pages;
mod playback;
mod sessions;
mod uploads;

use std::time::{Duration, Instant};

use control_api::PlatformKeySize;
use fake_node::{FakeNode, NETWORK};
use imira_platform::config::Config;
use imira_platform::secrets::ApiKey;
use imira_platform::server::Server;
use imira_platform::setup::DataFolder;
use imira_platform::watchers::Pace;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// As fast as a test wants it; a busy machine is given the time that it takes.
const PACE: Pace = Pace {
    active: Duration::from_millis(20),
    idle: Duration::from_millis(40),
    give_up: Duration::from_secs(60),
    give_up_coming: Duration::from_secs(60),
    forgotten: Duration::from_secs(60),
    broken: Duration::from_secs(60),
    no_file: Duration::from_secs(60 * 60),
};

/// For tests in which the platform gives up.
const IMPATIENT: Pace = Pace {
    give_up: Duration::from_millis(100),
    give_up_coming: Duration::from_millis(100),
    forgotten: Duration::from_millis(100),
    ..PACE
};

struct Platform {
    url: String,
    folder: DataFolder,
    data: tempfile::TempDir,
    ada: ApiKey,
    eve: ApiKey,
    http: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Platform {
    async fn start(nodes: &[&FakeNode]) -> Self {
        Self::start_at(PACE, nodes).await
    }

    /// Starts, and waits until the nodes that are there are listed.
    async fn start_at(pace: Pace, fakes: &[&FakeNode]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(data.path());
        let nodes: Vec<String> = fakes.iter().map(|node| format!("demo={}", node.url)).collect();
        let networks = [format!("demo={NETWORK}")];
        let config = Config::from_arguments("127.0.0.1:0".parse().unwrap(), None, &networks, &nodes).unwrap();
        folder.init(&config, PlatformKeySize::Rsa2048).await.unwrap();
        let (ada, eve) = (folder.add_user("ada").await.unwrap(), folder.add_user("eve").await.unwrap());
        let (url, stop, running) = serve(&folder, &data, pace).await;
        let redirects = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(redirects).no_proxy().build().unwrap();
        let platform = Self { url, folder, data, ada, eve, http, stop, running };
        platform.until_listed(fakes).await;
        platform
    }

    /// The policy of every page names the nodes that the platform knows.
    async fn until_listed(&self, fakes: &[&FakeNode]) {
        for _ in 0..500 {
            let answer = self.get("/healthz").send().await.unwrap();
            let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
            if fakes.iter().all(|node| !node.is_there() || policy.contains(&node.url)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never listed");
    }

    /// Stops it and starts it again on the same folder.
    async fn restart(&mut self) {
        self.restart_at(PACE).await;
    }

    async fn restart_at(&mut self, pace: Pace) {
        self.shut_down().await;
        self.start_again(pace).await;
    }

    async fn start_again(&mut self, pace: Pace) {
        let (url, stop, running) = serve(&self.folder, &self.data, pace).await;
        (self.url, self.stop, self.running) = (url, stop, running);
    }

    async fn shut_down(&mut self) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        (&mut self.running).await.unwrap();
        begun.elapsed()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn as_ada(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(self.ada.expose())
    }

    async fn register(&self, visibility: &str) -> Value {
        let body = json!({"title": "Sintel", "visibility": visibility, "size": 9});
        let answer = self.as_ada(Method::POST, "/api/contents").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json().await.unwrap()
    }

    async fn send_file(&self, registered: &Value) {
        let upload = &registered["upload"];
        let put = self.http.put(upload["url"].as_str().unwrap()).bearer_auth(upload["token"].as_str().unwrap());
        assert_eq!(put.body("a video, say").send().await.unwrap().status(), StatusCode::ACCEPTED);
    }

    async fn show(&self, id: &str) -> Value {
        self.as_ada(Method::GET, &format!("/api/contents/{id}")).send().await.unwrap().json().await.unwrap()
    }

    /// Waits for a state; a test that waits in vain fails within ten seconds.
    async fn until(&self, id: &str, state: &str) -> Value {
        for _ in 0..500 {
            let content = self.show(id).await;
            if content["state"] == state {
                return content;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {state}: {}", self.show(id).await);
    }

    async fn ready(&self, visibility: &str) -> (String, String) {
        let registered = self.register(visibility).await;
        self.send_file(&registered).await;
        let id = registered["id"].as_str().unwrap().to_owned();
        let key = self.until(&id, "ready").await["content_key"].as_str().unwrap().to_owned();
        (id, key)
    }

    async fn published(&self, visibility: &str) -> (String, String) {
        let (id, key) = self.ready(visibility).await;
        let publish = self.as_ada(Method::POST, &format!("/api/contents/{id}/publish")).send().await.unwrap();
        assert_eq!(publish.status(), StatusCode::OK);
        (id, key)
    }
}

async fn serve(
    folder: &DataFolder,
    data: &tempfile::TempDir,
    pace: Pace,
) -> (String, CancellationToken, JoinHandle<()>) {
    let server = Server::start(folder, data.path().join("web"), pace).await.unwrap();
    let url = format!("http://{}", server.address());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move { server.run_until(stopped.cancelled_owned()).await.unwrap() });
    (url, stop, running)
}

async fn problem(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], status);
    (status, body["type"].as_str().unwrap().trim_start_matches("urn:imira:error:").to_owned())
}
