//! `imira-platform upload`: registers a file, sends it to the node that the platform chose, follows the processing and
//! publishes. Speaks only the public API (`docs/api.md`), like any other uploader.

mod sending;

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use chunkstore_block::{ContentKey, IndexError, LoadedIndex, Loader};
use control_api::Problem;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::catalogue::{State, Visibility};
use crate::secrets::ApiKey;

/// How often the platform is asked how far the processing is.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// The platform may restart meanwhile; the upload goes on without it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Short requests to the platform. The upload itself has no limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What to upload, and how.
#[derive(Debug)]
pub struct UploadJob {
    /// Address of the platform.
    pub platform: String,
    /// Whose upload it is.
    pub api_key: ApiKey,
    /// Title.
    pub title: String,
    /// Whom it will be for.
    pub visibility: Visibility,
    /// Name or id of a network; the platform's default otherwise.
    pub network: Option<String>,
    /// Whether to publish at the end.
    pub publish: bool,
    /// The video.
    pub file: PathBuf,
}

/// What came of it. Its `Display` is the lines that the command prints.
#[derive(Debug, Serialize)]
pub struct Uploaded {
    /// Publication id.
    pub id: String,
    /// `ready` or `published`.
    pub state: State,
    /// Content key.
    pub content_key: String,
    /// Duration in milliseconds.
    pub duration_ms: Option<u64>,
    /// The page to watch it on.
    pub watch: String,
    /// The HLS master playlist.
    pub hls: String,
    /// The best MP4, through the platform: a plain player asks one address for all ranges, and a redirected one would
    /// end with its token.
    pub mp4: Option<String>,
}

impl fmt::Display for Uploaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "content key: {}", self.content_key)?;
        writeln!(f, "watch: {}", self.watch)?;
        writeln!(f, "hls: {}", self.hls)?;
        match &self.mp4 {
            Some(mp4) => writeln!(f, "mp4: {mp4}"),
            None => Ok(()),
        }
    }
}

/// Why the upload, or another command that speaks to a platform, failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Platform or node refused, and said why.
    #[error("{}", printable(.0))]
    Refused(Problem),
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A folder, a pipe or the like.
    #[error("{} is {what}, not a video", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The platform's address makes no sense.
    #[error("{0} is not the address of a platform; write for example http://127.0.0.1:7000")]
    BadAddress(String),
    /// Neither a publication id nor a content key.
    #[error("{0} names no content; write its publication id (32 digits of 0-9a-f) or its content key (64)")]
    NotAName(String),
    /// Nothing answers at the platform's address.
    #[error("no platform answers at {address} ({}); start it with `imira-platform run`, or correct --platform", root(.cause))]
    NoPlatform {
        /// Where.
        address: String,
        /// What happened.
        cause: reqwest::Error,
    },
    /// A node's listener.
    #[error(
        "{0} is the address of a node, not of a platform; give the one that `imira-platform run` listens on with --platform"
    )]
    NodeInstead(String),
    /// Nothing answers, or the connection broke.
    #[error("{who} cannot be reached, or the connection broke: {}", root(.cause))]
    Transport {
        /// Platform or node.
        who: &'static str,
        /// What happened, without the address.
        cause: reqwest::Error,
    },
    /// The answer is not what the interface says.
    #[error("{who} answered {status} in a form that docs/api.md does not have; is the address right?")]
    BadAnswer {
        /// Platform or node.
        who: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// The index does not fit.
    #[error("the index does not fit its content key: {0}; the node lies or is damaged")]
    Index(#[from] IndexError),
    /// A ready content without a key.
    #[error("the platform calls the content ready and names no content key; this is a defect of the platform")]
    NoKey,
    /// The user gave up.
    #[error(transparent)]
    Interrupted(#[from] Interruption),
}

/// Where an upload was when the user gave up, and what is left of it.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The user gave up, and nothing is left.
    #[error("interrupted; the unfinished upload {} is deleted", printable(.id))]
    Withdrawn {
        /// Publication id.
        id: String,
    },
    /// The user gave up before the platform told an id.
    #[error(
        "interrupted; if the platform's list has an upload that waits for its file, delete it there, or with `imira-platform delete`"
    )]
    Early,
    /// The user gave up, and the entry could not be deleted.
    #[error(
        "interrupted, and the unfinished upload is still on the platform ({why}); \
         this deletes it: imira-platform delete --platform {base} {}", printable(.id)
    )]
    Left {
        /// Address of the platform.
        base: String,
        /// Publication id.
        id: String,
        /// Why it is still there.
        why: String,
    },
    /// The user left when the file was at the node.
    #[error(
        "interrupted; the file has been sent and is processed all the same, and who wants it published does that on the platform's page; \
         this deletes it: imira-platform delete --platform {base} {}", printable(.id)
    )]
    Late {
        /// Address of the platform.
        base: String,
        /// Publication id.
        id: String,
    },
}

#[derive(Deserialize)]
struct Registered {
    id: String,
    upload: Slot,
}

#[derive(Deserialize)]
struct Slot {
    url: String,
    token: String,
}

#[derive(Deserialize)]
struct ContentState {
    state: State,
    content_key: Option<ContentKey>,
    duration_ms: Option<u64>,
    progress: Option<Progress>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Progress {
    phase: String,
    percent: f64,
    remaining_seconds: Option<f64>,
}

/// Does the whole job.
///
/// Errors: what platform and node say when they refuse, and trouble with the file or the connection.
pub async fn run(job: &UploadJob) -> Result<Uploaded, UploadError> {
    run_until(job, std::future::pending).await
}

/// Does the whole job unless it is `interrupted`: a registration whose file has not come is deleted then, for nobody would send it. A second
/// interruption does not wait for that.
///
/// Errors: those of [`run`], and [`UploadError::Interrupted`], which says what is left.
pub async fn run_until(job: &UploadJob, mut interrupted: impl AsyncFnMut()) -> Result<Uploaded, UploadError> {
    let platform = Platform::new(&job.platform, &job.api_key)?;
    let file_error = |cause| UploadError::File { path: job.file.clone(), cause };
    // Before it is opened: opening a pipe waits for its other end.
    let kind = tokio::fs::metadata(&job.file).await.map_err(file_error)?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(UploadError::NotAFile { path: job.file.clone(), what });
    }
    // What cannot be read is not registered.
    let size = tokio::fs::File::open(&job.file).await.map_err(file_error)?.metadata().await.map_err(file_error)?.len();
    let mut registering = pin!(platform.register(job, size));
    let registered = tokio::select! {
        answer = &mut registering => answer?,
        () = interrupted() => {
            eprintln!("{INTERRUPTED}");
            return Err(tokio::select! {
                answer = registering => platform.withdraw(answer?.id, interrupted).await,
                () = interrupted() => Interruption::Early.into(),
            });
        }
    };
    let mut meter = Meter::new();
    tokio::select! {
        sent = send(&platform, &registered, &job.file, size, &mut meter) => sent?,
        () = interrupted() => {
            eprintln!("{INTERRUPTED}");
            return Err(platform.withdraw(registered.id, interrupted).await);
        }
    }
    let (base, id) = (platform.base.clone(), registered.id.clone());
    tokio::select! {
        outcome = finish(&platform, job, registered, &mut meter) => outcome,
        () = interrupted() => Err(Interruption::Late { base, id }.into()),
    }
}

/// Waits for the processing, and publishes.
async fn finish(
    platform: &Platform,
    job: &UploadJob,
    registered: Registered,
    meter: &mut Meter,
) -> Result<Uploaded, UploadError> {
    let ready = platform.wait_until_ready(&registered.id, meter).await?;
    meter.finish();
    let key = ready.content_key.ok_or(UploadError::NoKey)?;
    if job.publish {
        let path = format!("/api/contents/{}/publish", registered.id);
        let _: ContentState = read(PLATFORM, platform.request(Method::POST, &path)).await?;
    }
    let mp4 = platform.best_mp4(key).await?;
    let base = &platform.base;
    Ok(Uploaded {
        state: if job.publish { State::Published } else { ready.state },
        watch: format!("{base}/watch/{key}"),
        hls: format!("{base}/play/{key}/files/master.m3u8"),
        mp4: mp4.map(|path| format!("{base}/proxy/{key}/files/{path}")),
        id: registered.id,
        content_key: key.to_string(),
        duration_ms: ready.duration_ms,
    })
}

const PLATFORM: &str = "the platform";
const NODE: &str = "the node";

const INTERRUPTED: &str = "interrupted; deleting the unfinished upload (once more to leave it there)";

/// A platform, as its users' programs see it.
pub(crate) struct Platform {
    http: reqwest::Client,
    base: String,
    api_key: ApiKey,
}

impl Platform {
    pub(crate) fn new(address: &str, api_key: &ApiKey) -> Result<Self, UploadError> {
        let bad = || UploadError::BadAddress(address.to_owned());
        let url = Url::parse(address).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(bad());
        }
        // No redirects: the API key and the upload token are for the addresses that were named.
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(sending::DEAD_AFTER)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|cause| transport(PLATFORM, cause))?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, api_key: api_key.clone() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.api_key.expose())
            .timeout(REQUEST_TIMEOUT)
    }

    async fn register(&self, job: &UploadJob, size: u64) -> Result<Registered, UploadError> {
        let mut body = json!({"title": job.title, "visibility": job.visibility, "size": size});
        if let Some(network) = &job.network {
            body["network"] = json!(network);
        }
        match read(PLATFORM, self.request(Method::POST, "/api/contents").json(&body)).await {
            Err(error) => Err(self.first_failure(error).await),
            answer => answer,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, UploadError> {
        match read(PLATFORM, self.request(Method::GET, path)).await {
            Err(error) => Err(self.first_failure(error).await),
            answer => answer,
        }
    }

    /// Deletes a content, named by its publication id or its content key.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), UploadError> {
        match checked(PLATFORM, self.request(Method::DELETE, &format!("/api/contents/{name}"))).await {
            Err(error) => Err(self.first_failure(error).await),
            Ok(_) => Ok(()),
        }
    }

    /// Why the first request failed: the address may be nobody's, or a node's.
    async fn first_failure(&self, error: UploadError) -> UploadError {
        match error {
            UploadError::Transport { cause, .. } if cause.is_connect() => {
                UploadError::NoPlatform { address: self.base.clone(), cause }
            }
            UploadError::Refused(_) | UploadError::BadAnswer { .. } if self.is_node().await => {
                UploadError::NodeInstead(self.base.clone())
            }
            other @ (UploadError::Transport { .. }
            | UploadError::Refused(_)
            | UploadError::BadAnswer { .. }
            | UploadError::File { .. }
            | UploadError::NotAFile { .. }
            | UploadError::BadAddress(_)
            | UploadError::NotAName(_)
            | UploadError::NoPlatform { .. }
            | UploadError::NodeInstead(_)
            | UploadError::Index(_)
            | UploadError::NoKey
            | UploadError::Interrupted(_)) => other,
        }
    }

    /// Both listeners of a node describe their interface, and a platform does not. Asked without the API key, which is none of a node's business.
    async fn is_node(&self) -> bool {
        let asked = self.http.get(format!("{}/openapi.json", self.base)).timeout(REQUEST_TIMEOUT).send().await;
        let is_json = |answer: Response| {
            let kind = answer.headers().get(reqwest::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            answer.status().is_success() && kind.is_some_and(|kind| kind.starts_with("application/json"))
        };
        asked.is_ok_and(is_json)
    }

    /// Deletes an upload that was interrupted, and tells what came of that.
    async fn withdraw(&self, id: String, mut interrupted: impl AsyncFnMut()) -> UploadError {
        let why = tokio::select! {
            deleted = self.delete(&id) => match deleted {
                Ok(()) => return Interruption::Withdrawn { id }.into(),
                Err(error) => error.to_string(),
            },
            () = interrupted() => "it was not waited for".to_owned(),
        };
        Interruption::Left { base: self.base.clone(), id, why }.into()
    }

    async fn wait_until_ready(&self, id: &str, meter: &mut Meter) -> Result<ContentState, UploadError> {
        let path = format!("/api/contents/{id}");
        let mut last_heard = Instant::now();
        loop {
            match read::<ContentState>(PLATFORM, self.request(Method::GET, &path)).await {
                Ok(content) => {
                    last_heard = Instant::now();
                    match content.state {
                        State::Rejected => return Err(rejection(content.error)),
                        State::Ready | State::Published => return Ok(content),
                        State::Pending | State::Processing => meter.show(content.progress.as_ref()),
                    }
                }
                Err(UploadError::Transport { .. }) if last_heard.elapsed() < GIVE_UP_AFTER => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The path of the MP4 of the best video rendition, as the index says.
    async fn best_mp4(&self, key: ContentKey) -> Result<Option<String>, UploadError> {
        let loaded = self.index(key).await?;
        // Video comes first in the list, best first.
        Ok(loaded.index.renditions.into_iter().find_map(|rendition| rendition.mp4))
    }

    async fn index(&self, key: ContentKey) -> Result<LoadedIndex, UploadError> {
        let mut loader = Loader::new(key, &self.block(&format!("/proxy/{key}/index")).await?)?;
        while let Some(page) = loader.wanted() {
            let bytes = self.block(&format!("/proxy/{key}/pages/{}", page.id)).await?;
            loader.supply(page.id, &bytes)?;
        }
        Ok(loader.finish()?)
    }

    async fn block(&self, path: &str) -> Result<Vec<u8>, UploadError> {
        let answer = checked(PLATFORM, self.request(Method::GET, path)).await?;
        Ok(answer.bytes().await.map_err(|cause| transport(PLATFORM, cause))?.to_vec())
    }
}

/// Brings the file to the node.
async fn send(
    platform: &Platform,
    registered: &Registered,
    file: &Path,
    size: u64,
    meter: &mut Meter,
) -> Result<(), UploadError> {
    let sending = meter.sending(size);
    let Err(error) = sending::send(&platform.http, &registered.upload, file, size, &sending).await else {
        return Ok(());
    };
    // What was ended meanwhile, by its owner or by the platform, is known there; the node's refusal may have no text.
    let path = format!("/api/contents/{}", registered.id);
    match read::<ContentState>(PLATFORM, platform.request(Method::GET, &path)).await {
        Ok(content) if content.state == State::Rejected => Err(rejection(content.error)),
        Ok(_) | Err(_) => Err(error),
    }
}

async fn read<T: DeserializeOwned>(who: &'static str, request: RequestBuilder) -> Result<T, UploadError> {
    let answer = checked(who, request).await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(|cause| transport(who, cause))?;
    serde_json::from_slice(&body).map_err(|_| UploadError::BadAnswer { who, status })
}

/// Sends, and turns an error status into the problem that came with it.
async fn checked(who: &'static str, request: RequestBuilder) -> Result<Response, UploadError> {
    let answer = request.send().await.map_err(|cause| transport(who, cause))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(|cause| transport(who, cause))?;
    Err(Problem::from_json(&body).map_or(UploadError::BadAnswer { who, status }, UploadError::Refused))
}

/// What comes from the network must not move the cursor or recolour the terminal.
pub(crate) fn printable(text: impl fmt::Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The innermost cause: reqwest's own text says only that sending failed.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    printable(cause)
}

fn transport(who: &'static str, cause: reqwest::Error) -> UploadError {
    UploadError::Transport { who, cause: cause.without_url() }
}

fn rejection(problem: Option<Problem>) -> UploadError {
    UploadError::Refused(problem.unwrap_or_else(|| {
        Problem::new(control_api::ErrorKind::Internal, "The platform rejected the upload and did not say why.")
    }))
}

/// Shows progress: bars on a terminal, a line now and then elsewhere. On standard error, so that standard output has the
/// result alone.
struct Meter {
    bar: Option<ProgressBar>,
    phase: String,
    last_line: Instant,
}

/// Tells how far the sending is.
#[derive(Clone)]
struct Sending {
    bar: Option<ProgressBar>,
}

impl Sending {
    /// So many bytes are at the node, or on their way there.
    fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// It is tried again after a pause.
    fn broke(&self, why: &UploadError, pause: Duration) {
        let text = format!("{why}; trying again in {} s", pause.as_secs());
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Meter {
    fn new() -> Self {
        Self { bar: None, phase: String::new(), last_line: Instant::now() }
    }

    fn sending(&mut self, size: u64) -> Sending {
        self.phase = "sending".to_owned();
        if !std::io::stderr().is_terminal() {
            eprintln!("sending {size} bytes");
            return Sending { bar: None };
        }
        let bar = ProgressBar::new(size);
        bar.set_style(style("{prefix:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
        bar.set_prefix("sending");
        self.bar = Some(bar.clone());
        Sending { bar: Some(bar) }
    }

    fn show(&mut self, progress: Option<&Progress>) {
        let Some(progress) = progress else { return };
        if self.phase != progress.phase {
            self.begin(&progress.phase);
        } else if self.bar.is_none() && self.last_line.elapsed() < LINE_EVERY {
            return;
        }
        let remaining = progress.remaining_seconds.map_or_else(String::new, |seconds| format!("{seconds:.0} s left"));
        match &self.bar {
            Some(bar) => {
                bar.set_position(thousandths(progress.percent));
                bar.set_message(remaining);
            }
            None => {
                eprintln!("{} {:.0} % {remaining}", printable(&progress.phase), progress.percent);
                self.last_line = Instant::now();
            }
        }
    }

    fn begin(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
        if let Some(done) = self.bar.take() {
            done.finish();
            let bar = ProgressBar::new(1000);
            bar.set_style(style("{prefix:12} {wide_bar} {percent} % {msg}"));
            // Phases come from the network; control characters would move the cursor.
            bar.set_prefix(phase.chars().filter(char::is_ascii_graphic).take(12).collect::<String>());
            self.bar = Some(bar);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; were one wrong, the plain bar would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A percentage as a bar's position; what is no number is 0.
fn thousandths(percent: f64) -> u64 {
    let clamped = if percent.is_finite() { percent.clamp(0.0, 100.0) } else { 0.0 };
    // Between 0 and 1,000 after the clamp.
    (clamped * 10.0).round() as u64
}

/// The title that a file gets when none is given: its name.
#[must_use]
pub fn default_title(file: &Path) -> String {
    file.file_stem().map_or_else(|| "Untitled".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_positions() {
        assert_eq!(thousandths(41.55), 416);
        assert_eq!(thousandths(f64::NAN), 0);
        assert_eq!(thousandths(1e9), 1000);
        assert_eq!(thousandths(-3.0), 0);
    }

    #[test]
    fn what_a_node_says_cannot_move_the_cursor() {
        let problem = Problem::new(control_api::ErrorKind::NotAVideo, "It is\u{1b}[2J a\r\ntext\u{9b}.");
        let printed = UploadError::Refused(problem).to_string();
        assert!(printed.ends_with("It is [2J a  text ."), "{printed:?}");
    }

    #[test]
    fn the_printed_lines_are_what_scripts_expect() {
        let outcome = Uploaded {
            id: "1".into(),
            state: State::Published,
            content_key: "ab".into(),
            duration_ms: Some(1),
            watch: "http://p/watch/ab".into(),
            hls: "http://p/play/ab/files/master.m3u8".into(),
            mp4: Some("http://p/proxy/ab/files/1080p.mp4".into()),
        };
        assert_eq!(
            outcome.to_string(),
            "content key: ab\nwatch: http://p/watch/ab\nhls: http://p/play/ab/files/master.m3u8\n\
             mp4: http://p/proxy/ab/files/1080p.mp4\n"
        );
    }
}
