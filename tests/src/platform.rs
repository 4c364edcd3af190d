//! The platform in a process of its own, and uploading with its command line.

use crate::eventually;
use crate::process::{Process, run, run_ok};
use crate::stage::Stage;
use chunkstore_block::ContentKey;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// A coordinator with one user.
pub struct Platform {
    process: Option<Process>,
    /// Where people reach it.
    pub url: String,
    /// The user's API key.
    pub api_key: String,
    data: PathBuf,
}

/// A published content.
#[derive(Clone, Debug)]
pub struct Published {
    /// The video's name.
    pub key: ContentKey,
    /// Publication id.
    pub id: String,
    /// Watch page.
    pub watch: String,
    /// Master playlist by way of 307s.
    pub hls: String,
}

impl Platform {
    /// Makes the data folder of a platform that knows the nodes with these control listeners, and a user.
    pub(crate) fn init(stage: &Stage, controls: &[SocketAddr]) -> Self {
        let data = stage.path("platform");
        let listen = stage.free_address();
        let url = format!("http://{listen}");
        let (listen, network) = (listen.to_string(), format!("test={}", stage.network_id()));
        let nodes: Vec<_> = controls.iter().map(|control| format!("test=http://{control}")).collect();
        let mut arguments = vec!["init", "--data", data.to_str().unwrap(), "--listen", &listen, "--public-url", &url];
        arguments.extend(["--network", &network]);
        for node in &nodes {
            arguments.extend(["--node", node]);
        }
        run_ok("imira-platform", &arguments);
        let api_key = run_ok("imira-platform", &["user", "add", "--data", data.to_str().unwrap(), "owner"]);
        Self { process: None, url, api_key, data }
    }

    pub(crate) fn public_key_file(&self) -> PathBuf {
        self.data.join("platform.pub.pem")
    }

    /// Its private key, for tests that sign as it would.
    pub fn key(&self) -> control_api::PlatformKey {
        let pem = std::fs::read_to_string(self.data.join("platform.key.pem")).unwrap();
        control_api::PlatformKey::from_pkcs8_pem(&pem).unwrap()
    }

    pub(crate) async fn start(&mut self) {
        let web = web_dist();
        let arguments = ["run", "--data", self.data.to_str().unwrap(), "--web", web.to_str().unwrap()];
        self.process = Some(Process::start("imira-platform", &arguments, &self.data.join("log")));
        let health = format!("{}/healthz", self.url);
        eventually("the platform answering", Duration::from_secs(30), || async {
            reqwest::get(&health).await.ok().filter(|response| response.status().is_success())
        })
        .await;
    }

    /// Ends it as power loss would.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.start().await;
    }

    /// What the platform wrote so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Uploads and publishes with the command line; panics with its error when it fails.
    pub fn publish(&self, file: &Path) -> Published {
        let output = self.upload(file, &[]);
        assert!(
            output.status.success(),
            "upload of {} failed:\n{}\n{}",
            file.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let answer = last_json(&output);
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned();
        Published { key: text("content_key").parse().unwrap(), id: text("id"), watch: text("watch"), hls: text("hls") }
    }

    /// Runs the upload command with further arguments.
    pub fn upload(&self, file: &Path, further: &[&str]) -> Output {
        let mut arguments = vec!["upload", "--platform", &self.url, "--title", "A test", "--json"];
        arguments.extend(further);
        arguments.push(file.to_str().unwrap());
        run("imira-platform", &arguments, &[("IMIRA_API_KEY", &self.api_key)])
    }

    /// Deletes a content as the owner; what the platform answers.
    pub async fn delete(&self, id: &str) -> u16 {
        let request = reqwest::Client::new().delete(format!("{}/api/contents/{id}", self.url));
        request.bearer_auth(&self.api_key).send().await.unwrap().status().as_u16()
    }

    /// `GET` of a JSON document as the owner.
    pub async fn get(&self, path: &str) -> Value {
        let response =
            reqwest::Client::new().get(format!("{}{path}", self.url)).bearer_auth(&self.api_key).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path} answers {status} {text:?}: {error}"))
    }
}

/// The last line of the upload command, which `--json` makes a document.
fn last_json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The built web pages.
fn web_dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("platform/web/dist")
}
