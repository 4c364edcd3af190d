//! Signing in, by key and by cookie.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::fake_node::{FakeNode, Temper};
use crate::{Platform, problem};

async fn cookie(platform: &Platform) -> String {
    let body = json!({"api_key": platform.ada.expose()});
    let answer = platform.request(Method::POST, "/api/session").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict; Max-Age=2592000") && !cookie.contains("Secure"));
    cookie.split(';').next().unwrap().to_owned()
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_cookie_signs_in_until_it_signs_out() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let cookie = cookie(&platform).await;
    let me = || platform.get("/api/me").header("cookie", &cookie);
    assert_eq!(send(me()).await.json::<Value>().await.unwrap(), json!({"name": "ada"}));
    let sign_out = || platform.request(Method::DELETE, "/api/session").header("cookie", &cookie);
    let elsewhere = send(sign_out().header("origin", "https://evil.example")).await;
    assert_eq!(elsewhere.status(), StatusCode::NO_CONTENT);
    assert_eq!(send(me()).await.status(), StatusCode::OK, "another site cannot sign out");
    let ours = send(sign_out().header("origin", &platform.url)).await;
    assert!(ours.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(problem(send(me()).await).await, (401, "sign-in-required".into()));
}

#[tokio::test]
async fn a_cookie_changes_something_only_from_our_pages() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let cookie = cookie(&platform).await;
    let register = || {
        let body = json!({"title": "x", "visibility": "public", "size": 9});
        platform.request(Method::POST, "/api/contents").header("cookie", &cookie).json(&body)
    };
    for request in [
        register(),
        register().header("origin", "https://evil.example"),
        register().header("origin", "null"),
        register().header("sec-fetch-site", "same-site").header("origin", &platform.url),
    ] {
        assert_eq!(problem(send(request).await).await, (401, "sign-in-required".into()));
    }
    assert_eq!(send(register().header("sec-fetch-site", "same-origin")).await.status(), StatusCode::CREATED);
    assert_eq!(send(register().header("origin", &platform.url)).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let strange = imira_platform::secrets::ApiKey::generate().unwrap();
    for key in ["", "imira_short", strange.expose()] {
        let body = json!({"api_key": key});
        let session = send(platform.request(Method::POST, "/api/session").json(&body)).await;
        assert_eq!(problem(session).await, (401, "sign-in-required".into()));
        let list = send(platform.get("/api/contents").header("authorization", format!("Bearer {key}"))).await;
        assert_eq!(list.status(), StatusCode::UNAUTHORIZED);
    }
    let body = json!({"api_key": platform.ada.expose()});
    let foreign = platform.request(Method::POST, "/api/session").json(&body).header("origin", "https://evil.example");
    assert!(!send(foreign).await.headers().contains_key("set-cookie"));
}
