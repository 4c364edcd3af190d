//! The pages and the policy they come with.

use reqwest::StatusCode;

use crate::fake_node::{FakeNode, Temper};
use crate::{Platform, problem};

#[tokio::test]
async fn pages_come_from_the_folder_and_may_talk_to_the_nodes() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let unbuilt = platform.get("/").send().await.unwrap();
    assert_eq!(unbuilt.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(unbuilt.text().await.unwrap().contains("make web"));
    let web = platform.data.path().join("web");
    std::fs::create_dir_all(web.join("assets")).unwrap();
    for (name, text) in [("index.html", "home"), ("watch.html", "player"), ("assets/app.js", "1"), ("top.css", "2")] {
        std::fs::write(web.join(name), text).unwrap();
    }
    for (path, text) in [
        ("/".to_owned(), "home"),
        (format!("/watch/{}", "a".repeat(64)), "player"),
        ("/assets/app.js".to_owned(), "1"),
        ("/assets/top.css".to_owned(), "2"),
    ] {
        let answer = platform.get(&path).send().await.unwrap();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains(&format!("connect-src 'self' {};", node.url)), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.text().await.unwrap(), text, "{path}");
    }
    node.vanish();
    let policy =
        platform.get("/").send().await.unwrap().headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains(&node.url), "it may come back while the page is open");
    let secret = platform.get("/assets/%2e%2e/platform.key.pem").send().await.unwrap();
    assert_eq!(secret.status(), StatusCode::NOT_FOUND);
    assert_eq!(platform.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    let icon = platform.get("/favicon.ico").send().await.unwrap();
    assert_eq!(
        (icon.status(), &icon.headers()["location"]),
        (StatusCode::TEMPORARY_REDIRECT, &"/assets/icon.svg".parse().unwrap())
    );
    assert_eq!(problem(platform.get("/nothing").send().await.unwrap()).await, (404, "not-found".into()));
    for (path, kind) in [("/nothing", "text/html; charset=utf-8"), ("/api/nothing", "application/problem+json")] {
        let browser = platform.get(path).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let answer = browser.send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["content-type"].to_str().unwrap()),
            (StatusCode::NOT_FOUND, kind)
        );
    }
}
