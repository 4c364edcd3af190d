//! From registration to publication, and the ways it can fail.

use imira_platform::catalogue::Visibility;
use imira_platform::secrets::ApiKey;
use imira_platform::upload::{self, UploadJob};
use imira_platform::watchers::Pace;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::fake_node::{FakeNode, Temper, index};
use crate::{IMPATIENT, PACE, Platform, problem};

#[tokio::test]
async fn a_file_goes_to_the_least_loaded_node_and_is_catalogued() {
    let busy = FakeNode::start("12D3busy", 3.0, Temper::Honest).await;
    let idle = FakeNode::start("12D3free", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&busy, &idle]).await;
    let registered = platform.register("public").await;
    assert_eq!(registered["upload"]["node"], "12D3free");
    assert_eq!(registered["state"], "pending");
    let id = registered["id"].as_str().unwrap();
    let early = platform.as_ada(Method::POST, &format!("/api/contents/{id}/publish")).send().await.unwrap();
    assert_eq!(problem(early).await, (409, "wrong-state".into()));
    platform.send_file(&registered).await;
    let ready = platform.until(id, "ready").await;
    assert_eq!((&ready["duration_ms"], &ready["owner"]), (&json!(55_000), &json!("ada")));
    let path = format!("/api/contents/{id}/fragments");
    let listed: serde_json::Value = platform.as_ada(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["fragments"].as_array().unwrap().len(), index().0.fragments.len());
    assert_eq!(listed["fragments"][1]["length"], 5);
    assert_eq!(problem(platform.get(&path).send().await.unwrap()).await, (404, "not-found".into()));
}

#[tokio::test]
async fn a_node_that_lies_about_its_content_is_found_out() {
    let node = FakeNode::start("12D3a", 0.1, Temper::LiesAboutIndex).await;
    let platform = Platform::start(&[&node]).await;
    let registered = platform.register("public").await;
    platform.send_file(&registered).await;
    let rejected = platform.until(registered["id"].as_str().unwrap(), "rejected").await;
    assert_eq!(rejected["error"]["type"], "urn:imira:error:internal");
    assert!(rejected["error"]["detail"].as_str().unwrap().contains("12D3a"));
    assert_eq!(rejected["content_key"], json!(null));
}

#[tokio::test]
async fn a_node_that_sends_people_elsewhere_gets_no_upload() {
    let node = FakeNode::start("12D3a", 0.1, Temper::PointsElsewhere).await;
    let platform = Platform::start(&[&node]).await;
    let body = json!({"title": "Sintel", "visibility": "public", "size": 9});
    let answer = platform.as_ada(Method::POST, "/api/contents").json(&body).send().await.unwrap();
    assert_eq!(problem(answer).await, (503, "no-node".into()));
}

#[tokio::test]
async fn an_upload_whose_node_is_gone_is_given_up() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start_at(IMPATIENT, &[&node]).await;
    let registered = platform.register("public").await;
    node.vanish();
    let rejected = platform.until(registered["id"].as_str().unwrap(), "rejected").await;
    assert_eq!(rejected["error"]["type"], "urn:imira:error:no-node");
    assert!(rejected["error"]["detail"].as_str().unwrap().contains("Upload the file again"));
}

#[tokio::test]
async fn an_upload_that_its_node_forgot_is_given_up_sooner() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Forgets).await;
    let pace = Pace { forgotten: IMPATIENT.forgotten, ..PACE };
    let platform = Platform::start_at(pace, &[&node]).await;
    let registered = platform.register("public").await;
    let rejected = platform.until(registered["id"].as_str().unwrap(), "rejected").await;
    let detail = rejected["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("does not know it any more") && !detail.contains("12D3a"), "{detail}");
}

#[tokio::test]
async fn an_upload_that_broke_off_is_given_up() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Breaks).await;
    let platform = Platform::start_at(Pace { broken: IMPATIENT.give_up, ..PACE }, &[&node]).await;
    let registered = platform.register("public").await;
    let rejected = platform.until(registered["id"].as_str().unwrap(), "rejected").await;
    assert_eq!(rejected["error"]["type"], "urn:imira:error:upload-incomplete");
    assert_eq!(rejected["error"]["detail"], "The upload was broken off. Upload the file again.");
}

/// The memory of an upload that had begun is in the catalogue.
#[tokio::test]
async fn an_upload_that_broke_off_is_given_up_after_a_restart() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Breaks).await;
    let mut platform = Platform::start(&[&node]).await;
    let id = platform.register("public").await["id"].as_str().unwrap().to_owned();
    platform.until(&id, "processing").await;
    platform.restart_at(Pace { broken: IMPATIENT.give_up, ..PACE }).await;
    assert_eq!(platform.until(&id, "rejected").await["error"]["type"], "urn:imira:error:upload-incomplete");
}

#[tokio::test]
async fn a_file_that_never_comes_is_given_up() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let pace = Pace { no_file: std::time::Duration::ZERO, broken: IMPATIENT.give_up, ..PACE };
    let platform = Platform::start_at(pace, &[&node]).await;
    let registered = platform.register("public").await;
    let rejected = platform.until(registered["id"].as_str().unwrap(), "rejected").await;
    assert_eq!(rejected["error"]["type"], "urn:imira:error:upload-incomplete");
    assert!(rejected["error"]["detail"].as_str().unwrap().starts_with("No file came within"));
}

/// A node that was busy after hours of transcoding lost the film: its silence was counted from the last progress, although
/// it answered all the time.
#[tokio::test]
async fn a_node_that_answers_is_waited_for() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Hesitates).await;
    // Given up after 100 ms of silence; the index comes after five pauses of 40 ms at the earliest.
    let platform = Platform::start_at(IMPATIENT, &[&node]).await;
    platform.ready("public").await;
}

/// One failed statement ended the watching task, and the upload stood still until the platform was restarted.
#[tokio::test]
async fn a_database_that_fails_for_a_while_costs_no_upload() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let registered = platform.register("public").await;
    let options = SqliteConnectOptions::new().filename(platform.folder.database());
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("ALTER TABLE fragments RENAME TO elsewhere").execute(&mut database).await.unwrap();
    platform.send_file(&registered).await;
    // One token is for the upload, and one for each try to store the finished content.
    while node.token_count() < 4 {
        tokio::time::sleep(PACE.active).await;
    }
    sqlx::query("ALTER TABLE elsewhere RENAME TO fragments").execute(&mut database).await.unwrap();
    platform.until(registered["id"].as_str().unwrap(), "ready").await;
}

#[tokio::test]
async fn uploads_under_way_are_taken_up_after_a_restart() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    let registered = platform.register("public").await;
    platform.restart().await;
    platform.send_file(&registered).await;
    platform.until(registered["id"].as_str().unwrap(), "ready").await;
}

#[tokio::test]
async fn without_nodes_nothing_is_registered() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    node.vanish();
    let platform = Platform::start(&[&node]).await;
    let body = json!({"title": "Sintel", "visibility": "public", "size": 9});
    let answer = platform.as_ada(Method::POST, "/api/contents").json(&body).send().await.unwrap();
    assert_eq!(problem(answer).await, (503, "no-node".into()));
    let listed: serde_json::Value =
        platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed, json!({"contents": [], "me": "ada"}));
}

#[tokio::test]
async fn senseless_registrations_are_refused() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    for body in [
        json!({"title": "", "visibility": "public", "size": 9}),
        json!({"title": "x", "visibility": "secret", "size": 9}),
        json!({"title": "x", "visibility": "public", "size": 9, "network": "nowhere"}),
        json!([]),
    ] {
        let answer = platform.as_ada(Method::POST, "/api/contents").json(&body).send().await.unwrap();
        assert_eq!(problem(answer).await, (400, "invalid".into()), "{body}");
    }
    let long = platform.as_ada(Method::POST, "/api/contents").body("x".repeat(70_000)).send().await.unwrap();
    assert_eq!(problem(long).await, (413, "invalid".into()));
    let no_text = platform.as_ada(Method::GET, "/api/contents/%ff").send().await.unwrap();
    assert_eq!(problem(no_text).await, (404, "not-found".into()));
    assert_eq!(node.token_count(), 0);
}

#[tokio::test]
async fn an_empty_file_is_rejected_without_asking_a_node() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let body = json!({"title": "Nothing", "visibility": "public", "size": 0});
    let answer = platform.as_ada(Method::POST, "/api/contents").json(&body).send().await.unwrap();
    assert_eq!(problem(answer).await, (400, "upload-empty".into()));
    let listed: Value = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["contents"][0]["state"], "rejected");
    assert_eq!(listed["contents"][0]["error"]["type"], "urn:imira:error:upload-empty");
    assert_eq!(node.token_count(), 0);
}

pub(crate) fn job(platform: &Platform, publish: bool) -> UploadJob {
    let file = platform.data.path().join("video.mkv");
    std::fs::write(&file, "a video, say").unwrap();
    UploadJob {
        platform: platform.url.clone(),
        api_key: ApiKey::parse(platform.ada.expose()).unwrap(),
        title: "Sintel".into(),
        visibility: Visibility::Unlisted,
        network: None,
        publish,
        file,
    }
}

#[tokio::test]
async fn the_command_uploads_and_publishes() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let uploaded = upload::run(&job(&platform, true)).await.unwrap();
    let key = &uploaded.content_key;
    assert_eq!(platform.show(&uploaded.id).await["state"], "published");
    assert_eq!(uploaded.watch, format!("{}/watch/{key}", platform.url));
    assert_eq!(uploaded.mp4, Some(format!("{}/proxy/{key}/files/720p.mp4", platform.url)));
}

#[tokio::test]
async fn the_command_goes_on_where_the_node_was_when_the_connection_broke() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Stumbles).await;
    let platform = Platform::start(&[&node]).await;
    upload::run(&job(&platform, true)).await.unwrap();
    assert_eq!(node.bytes(), b"a video, say");
}

#[tokio::test]
async fn the_command_refuses_a_folder_before_it_registers() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let folder = platform.data.path().to_owned();
    let error = upload::run(&UploadJob { file: folder.clone(), ..job(&platform, true) }).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} is a folder, not a video", folder.display()));
    assert_eq!(node.token_count(), 0);
}

#[tokio::test]
async fn the_command_says_what_the_node_said() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Rejects).await;
    let platform = Platform::start(&[&node]).await;
    let error = upload::run(&job(&platform, true)).await.unwrap_err().to_string();
    assert!(error.contains("The file is not a video") && error.contains("It is a text."), "{error}");
}

#[tokio::test]
async fn the_command_says_how_many_nodes_are_full() {
    let nodes =
        [FakeNode::start("12D3a", 0.1, Temper::Honest).await, FakeNode::start("12D3b", 0.2, Temper::Honest).await];
    let platform = Platform::start(&[&nodes[0], &nodes[1]]).await;
    nodes[0].fill();
    upload::run(&job(&platform, true)).await.unwrap();
    nodes[1].fill();
    let error = upload::run(&job(&platform, true)).await.unwrap_err().to_string();
    assert!(error.contains("All 2 nodes of the network that answer are full"), "{error}");
}

#[tokio::test]
async fn the_command_tells_a_node_from_a_platform() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let error = upload::run(&UploadJob { platform: node.url.clone(), ..job(&platform, true) }).await.unwrap_err();
    assert!(error.to_string().contains("is the address of a node"), "{error}");
}

#[tokio::test]
async fn the_command_says_that_nobody_answers() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    platform.shut_down().await;
    let error = upload::run(&job(&platform, true)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no platform answers at {}", platform.url)), "{error}");
}
