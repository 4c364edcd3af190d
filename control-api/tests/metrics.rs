//! What an operator's tools read: `/metrics`, `/readyz`, and the control listener of a node that is still starting.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use axum::Router;
use axum::routing::get;
use control_api::{Gate, NotReady, Readiness};
use support::{node_id, serve};

async fn fetch(url: String) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn what_was_answered_and_refused_is_counted() {
    let served = serve().await;
    let content = served.backend.add_content("film.mp4", &[b"01234", b"56789"]);
    let url = served.temporary_url(content.key()).await;
    let delivery = served.client.delivery();
    let film = delivery.get(&url, "files/film.mp4", false, Default::default()).await.unwrap();
    assert_eq!(film.bytes(100).await.unwrap().len(), 10);
    assert!(delivery.get(&url, "files/other.mp4", false, Default::default()).await.is_err());
    let mut claims = served.playback(content.key());
    claims.node = "12D3KooWAnother".parse().unwrap();
    served.refusal(&claims).await;

    let (status, text) = fetch(format!("{}/metrics", served.control)).await;
    assert_eq!(status, 200);
    for line in [
        "imira_tokens_issued_total{kind=\"playback\"} 1",
        "imira_requests_total{listener=\"delivery\",route=\"/v1/t/{token}/files/{*path}\",status=\"200\"} 1",
        "imira_refusals_total{listener=\"delivery\",route=\"/v1/t/{token}/files/{*path}\",reason=\"not-found\"} 1",
        "imira_refusals_total{listener=\"control\",route=\"/v1/tokens\",reason=\"wrong-audience\"} 1",
        "imira_wait_seconds_count{listener=\"delivery\"} 2",
        "imira_uploads{phase=\"ready\"} 3",
        "imira_lookup_requests_total 240",
        "imira_build_info{version=\"0.1.0\"} 1",
        "imira_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(text.contains("\nprocess_open_fds ") && text.ends_with("# EOF\n"), "{text}");
    // A name described twice is refused by Prometheus.
    let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);

    let traffic = served.client.node().await.unwrap().traffic;
    assert_eq!((traffic.playback_tokens, traffic.upload_tokens, traffic.transfers), (1, 0, 0));
    // The film, and the refusal's body.
    assert!(traffic.sent_bytes > 10 && traffic.sent_bytes < 1_000, "{traffic:?}");
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why() {
    let served = serve().await;
    assert_eq!(fetch(format!("{}/readyz", served.control)).await, (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
    served.backend.0.not_ready.lock().unwrap().push(NotReady::new("no-room", "The disk is full."));
    let (status, text) = fetch(format!("{}/readyz", served.control)).await;
    let readiness: Readiness = serde_json::from_str(&text).unwrap();
    assert_eq!((status, readiness.ready, readiness.reasons[0].reason.as_str()), (503, false, "no-room"));
    assert_eq!(fetch(format!("{}/healthz", served.control)).await.0, 200);
    assert!(fetch(format!("{}/metrics", served.control)).await.1.contains("\nimira_ready 0\n"));
}

#[tokio::test]
async fn a_starting_node_answers_and_then_opens() {
    let gate = Gate::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(control_api::serve(listener, gate.router(), std::future::pending()));
    assert_eq!(fetch(format!("{url}/healthz")).await.0, 200);
    let (status, text) = fetch(format!("{url}/readyz")).await;
    assert!(status == 503 && text.contains("\"starting\""), "{text}");
    let (status, text) = fetch(format!("{url}/v1/node")).await;
    assert!(status == 503 && text.contains("urn:imira:error:starting"), "{text}");
    gate.open(Router::new().route("/v1/{name}", get(|| async { node_id().to_string() })));
    assert_eq!(fetch(format!("{url}/v1/node")).await, (200, node_id().to_string()));
}
