//! Clients that others wrote upload a film to a real node, which is killed in the middle. They are told nothing of it, and go on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Landing, clip};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A client under way.
struct Client {
    process: Child,
    reports: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Client {
    fn start(command: &mut Command, upload: &e2e::TusUpload) -> Self {
        command.env("UPLOAD_URL", &upload.url).env("UPLOAD_TOKEN", upload.token.expose());
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let reports = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, reports }
    }

    /// What it says next; other lines are its surroundings'.
    fn report(&mut self) -> Value {
        loop {
            let line = self.reports.next().expect("the client ended without a result").unwrap();
            if let Ok(report) = serde_json::from_str(&line) {
                return report;
            }
        }
    }

    fn wait_until_sent(&mut self, bytes: u64) {
        while self.report()["sent"].as_u64().expect("progress before the end") < bytes {}
    }

    fn url(mut self) -> String {
        loop {
            let report = self.report();
            if let Some(url) = report["url"].as_str() {
                assert!(self.process.wait().unwrap().success());
                return url.to_owned();
            }
            assert!(report["sent"].is_u64(), "{report}");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn in_node(client: &str, file: &Path, origin: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("platform/web/e2e/tus.mjs")).args(["--client", client, "--origin", origin]);
    command.arg("--file").arg(file);
    command
}

/// An upload by a client that is told where and nothing else, with the node killed after a third.
async fn survives_a_kill(mut landing: Landing, command: impl FnOnce(&Path) -> Command) {
    let file = clip(&landing.stage.path(""), 10);
    let size = file.metadata().unwrap().len();
    let upload = landing.upload(size).await;
    let mut client = Client::start(&mut command(&file), &upload);
    client.wait_until_sent(size / 3);
    landing.kill_and_restart().await;
    assert_eq!(client.url(), upload.url);
    assert_eq!(upload.until_ready().await.received_bytes, size);
    let metadata = upload.request("HEAD", &upload.url).send().await.unwrap().headers()["upload-metadata"].clone();
    assert!(metadata.to_str().unwrap().contains("filename "), "{metadata:?}");
}

async fn landing_for_pages() -> (Landing, String) {
    // Chosen before the stage is there that gives out ports; it is free again when this returns.
    let origin = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let landing = Landing::new(&[("cors_origins", &format!("[{origin:?}]"))]).await;
    (landing, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client() {
    let landing = Landing::new(&[]).await;
    survives_a_kill(landing, |file| in_node("tus-js-client", file, "http://unused")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_in_parallel() {
    let landing = Landing::new(&[]).await;
    let file = clip(&landing.stage.path(""), 5);
    let upload = landing.upload(file.metadata().unwrap().len()).await;
    let client = Client::start(in_node("tus-js-client", &file, "http://unused").args(["--parallel", "4"]), &upload);
    assert_eq!(client.url(), upload.url);
    upload.until_ready().await;
    let concat = upload.request("HEAD", &upload.url).send().await.unwrap().headers()["upload-concat"].clone();
    assert_eq!(concat.to_str().unwrap().split(' ').count(), 4, "{concat:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uppy() {
    let (landing, origin) = landing_for_pages().await;
    survives_a_kill(landing, |file| in_node("uppy", file, &origin)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tuspy() {
    let landing = Landing::new(&[]).await;
    survives_a_kill(landing, |file| {
        let mut command = Command::new(root().join("scripts/python.sh"));
        command.arg("upload_with_tuspy.py").arg(file);
        command
    })
    .await;
}
