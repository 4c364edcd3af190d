//! A delivery listener that lies: it passes everything on to a real node's, but changes a byte of every block.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, header};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Stands between viewers and a node. Give its URL as the node's `delivery_url`, then say where the node is.
#[derive(Clone)]
pub struct Liar {
    address: SocketAddr,
    behind: Arc<OnceLock<SocketAddr>>,
    lies: Arc<AtomicU64>,
    blamed: Arc<OnceLock<HeaderValue>>,
}

impl Liar {
    /// Starts listening.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let liar = Self { address, behind: Arc::default(), lies: Arc::default(), blamed: Arc::default() };
        let router = Router::new().fallback(forward).with_state(liar.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        liar
    }

    /// What viewers are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Names the delivery listener of the node that it stands before.
    pub fn stand_before(&self, node: SocketAddr) {
        self.behind.set(node).unwrap();
    }

    /// Says in its answers that they come from another node.
    pub fn blame(&self, peer_id: &str) {
        self.blamed.set(peer_id.parse().unwrap()).unwrap();
    }

    /// How many blocks it has changed so far.
    pub fn lies(&self) -> u64 {
        self.lies.load(Ordering::Relaxed)
    }
}

async fn forward(State(liar): State<Liar>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let url = format!("http://{}{}", liar.behind.get().unwrap(), parts.uri);
    let client = reqwest::Client::new();
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let answer = client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    if status.is_success()
        && parts.uri.path().contains("/blocks/")
        && let Some(byte) = bytes.last_mut()
    {
        *byte ^= 1;
        liar.lies.fetch_add(1, Ordering::Relaxed);
    }
    headers.remove(header::TRANSFER_ENCODING);
    if let Some(blamed) = liar.blamed.get() {
        headers.insert("imira-node", blamed.clone());
    }
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
