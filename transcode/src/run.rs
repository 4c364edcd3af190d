//! Drives the one FFmpeg process that makes all renditions.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::arguments;
use crate::confine::Confinement;
use crate::kind::ErrorKind;
use crate::limits::Limits;
use crate::output::{self, Output, OutputError};
use crate::plan::Plan;
use crate::process::{Lines, Tail, command};
use crate::progress::{Estimator, Progress, out_time};
use crate::refusal;

/// Why there are no renditions.
#[derive(Debug, Error)]
pub enum RunError {
    /// The film cannot be decoded to its end.
    #[error(
        "The video is damaged or was cut short: {0}. If the original plays to its end, copy or export it again and upload that."
    )]
    Damaged(String),
    /// FFmpeg cannot decode this kind of film.
    #[error("This kind of video is not supported: {0}. Convert it, for example to MP4 with H.264, and upload that.")]
    Unsupported(String),
    /// FFmpeg stopped making progress.
    #[error("The conversion made no progress for {} seconds and was ended. Try again later.", .0.as_secs())]
    Stalled(Duration),
    /// FFmpeg took longer than a film of this length may.
    #[error("The conversion was not done after {} minutes and was ended. Try another node, or upload the video in parts.", .0.as_secs() / 60)]
    TooSlow(Duration),
    /// The caller asked for the end.
    #[error("The conversion was cancelled.")]
    Cancelled,
    /// FFmpeg failed for a reason that is not known to be the file's fault.
    #[error("The conversion failed ({status}). Tell the node's operator. FFmpeg said: {stderr}")]
    Failed {
        /// How FFmpeg ended.
        status: ExitStatus,
        /// The last lines of its messages.
        stderr: String,
    },
    /// FFmpeg could not be started, or the work folder not be used.
    #[error("The node could not convert the video ({what}). Tell its operator.")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// FFmpeg's files are not what was ordered.
    #[error("The conversion's result cannot be used. Tell the node's operator.")]
    Output(#[from] OutputError),
}

impl RunError {
    /// The problem type for the upload's status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RunError::Damaged(_) => ErrorKind::VideoDamaged,
            RunError::Unsupported(_) => ErrorKind::VideoUnsupported,
            RunError::Stalled(_)
            | RunError::TooSlow(_)
            | RunError::Cancelled
            | RunError::Failed { .. }
            | RunError::Io { .. }
            | RunError::Output(_) => ErrorKind::Internal,
        }
    }
}

/// Makes all renditions of `input` in `work_dir`, which must exist; folders there that are named like the renditions are replaced.
///
/// `progress` gets at most two reports a second. When `cancel` resolves, FFmpeg is killed and reaped before this returns; when the
/// future is dropped, it is killed and reaped soon after. Files stay in `work_dir` in every case; their owner removes them.
///
/// # Errors
/// [`RunError`]; among them [`RunError::Damaged`] for a film that ends early, so that none is published short.
pub async fn run(
    plan: &Plan,
    limits: &Limits,
    input: &Path,
    work_dir: &Path,
    progress: watch::Sender<Progress>,
    cancel: impl Future<Output = ()>,
) -> Result<Output, RunError> {
    let input = std::path::absolute(input).map_err(io_error("find the upload"))?;
    let work_dir = std::path::absolute(work_dir).map_err(io_error("find the work folder"))?;
    prepare(plan, &work_dir).await.map_err(io_error("prepare the work folder"))?;
    let wall = limits.max_wall(plan.duration);
    let mut command = command(&limits.tools.ffmpeg, limits, wall);
    command.args(arguments(plan, limits, &input)).current_dir(&work_dir);
    let confinement = Confinement::new(limits.confined, &limits.tools.ffmpeg, Some(&input), Some(&work_dir));
    let mut running = confinement.spawn(command).await.map_err(io_error("start FFmpeg"))?;
    let ended = tokio::select! {
        biased;
        () = cancel => Err(RunError::Cancelled),
        () = tokio::time::sleep(wall) => Err(RunError::TooSlow(wall)),
        ended = attend(&mut running.child, plan, limits, &progress) => ended,
    };
    let said = match ended {
        Ok(said) => said,
        Err(error) => {
            end(&mut running.child).await;
            return Err(error);
        }
    };
    judge(&said)?;
    let output = collect(plan.clone(), work_dir).await.map_err(|error| if_damaged(error, &said))?;
    check_length(plan, limits, &output)?;
    progress.send_replace(Progress { percent: 100.0, remaining: Some(Duration::ZERO), encoded: plan.duration });
    Ok(output)
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// Empty folders: segments of an earlier attempt must not be taken for this one's.
async fn prepare(plan: &Plan, work_dir: &Path) -> io::Result<()> {
    for dir in plan.folders().map(|name| work_dir.join(name)) {
        match tokio::fs::remove_dir_all(&dir).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        tokio::fs::create_dir(&dir).await?;
    }
    Ok(())
}

/// Kills and reaps. An error means that the process has gone already.
async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "FFmpeg had ended before it was killed");
    }
}

/// How FFmpeg ended and what it said.
struct Said {
    status: ExitStatus,
    tail: Tail,
    /// The first sign that the input is cut short.
    damage: Option<&'static str>,
}

/// Reads FFmpeg's reports and messages until it ends or stalls.
async fn attend(
    child: &mut Child,
    plan: &Plan,
    limits: &Limits,
    progress: &watch::Sender<Progress>,
) -> Result<Said, RunError> {
    let lost = || io_error("listen to FFmpeg")(io::Error::other("a pipe is missing"));
    let mut out = child.stdout.take().ok_or_else(lost)?;
    let mut err = child.stderr.take().ok_or_else(lost)?;
    let mut watcher = Watcher::new(plan, limits, progress);
    let (tail, damage) = listen(&mut err, watcher.follow(&mut out)).await?;
    let waited = tokio::time::timeout(limits.stall_timeout, child.wait()).await;
    let status = waited.map_err(|_| RunError::Stalled(limits.stall_timeout))?.map_err(io_error("wait for FFmpeg"))?;
    Ok(Said { status, tail, damage })
}

/// Reads the messages to their end while `reports` are followed to theirs; a stall in the reports ends both.
async fn listen(
    err: &mut ChildStderr,
    reports: impl Future<Output = Result<(), RunError>>,
) -> Result<(Tail, Option<&'static str>), RunError> {
    let messages = async { read_messages(err).await.map_err(io_error("listen to FFmpeg")) };
    let (said, ()) = tokio::try_join!(messages, reports)?;
    Ok(said)
}

async fn read_messages(err: &mut ChildStderr) -> io::Result<(Tail, Option<&'static str>)> {
    let (mut lines, mut tail, mut damage) = (Lines::default(), Tail::default(), None);
    let mut note = |line: &str| {
        damage = damage.or_else(|| refusal::damage(line));
        tail.push(line);
    };
    let mut buffer = [0; 4096];
    loop {
        match err.read(&mut buffer).await? {
            0 => break,
            n => lines.push(&buffer[..n], &mut note),
        }
    }
    lines.finish(&mut note);
    Ok((tail, damage))
}

/// Follows `-progress`, and notices when the film's time stands still.
struct Watcher<'a> {
    progress: &'a watch::Sender<Progress>,
    estimator: Estimator,
    started: Instant,
    reached: Duration,
    moved: Instant,
    patience: Duration,
}

impl<'a> Watcher<'a> {
    fn new(plan: &Plan, limits: &Limits, progress: &'a watch::Sender<Progress>) -> Self {
        let now = Instant::now();
        Self {
            progress,
            estimator: Estimator::new(plan.duration),
            started: now,
            reached: Duration::ZERO,
            moved: now,
            patience: limits.stall_timeout,
        }
    }

    async fn follow(&mut self, out: &mut ChildStdout) -> Result<(), RunError> {
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            let read = tokio::time::timeout_at(self.moved + self.patience, out.read(&mut buffer)).await;
            match read.map_err(|_| RunError::Stalled(self.patience))?.map_err(io_error("listen to FFmpeg"))? {
                0 => return Ok(()),
                n => lines.push(&buffer[..n], |line| self.line(line)),
            }
        }
    }

    fn line(&mut self, line: &str) {
        let Some(done) = out_time(line) else { return };
        let now = Instant::now();
        if done > self.reached {
            (self.reached, self.moved) = (done, now);
        }
        self.progress.send_replace(self.estimator.report(done, now - self.started));
    }
}

/// What FFmpeg says when the machine, or our own command, is at fault. What else ends it is in the film.
const THE_NODES: [&str; 9] = [
    "Cannot allocate memory",
    "No space left on device",
    "Permission denied",
    "Input/output error",
    "Read-only file system",
    "Too many open files",
    "File too large",
    "Unrecognized option",
    "Unknown encoder",
];

/// FFmpeg ended well, and what it made is of no use. Where it complained, or made nothing at all, it found too little that it could make something of.
fn if_damaged(error: RunError, said: &Said) -> RunError {
    let RunError::Output(output) = &error else { return error };
    let disk_failed = matches!(output, OutputError::Io { source, .. } if source.kind() != io::ErrorKind::InvalidData);
    // No more than the head of a segment.
    let is_nothing =
        matches!(output, OutputError::Io { path, .. } if std::fs::metadata(path).is_ok_and(|file| file.len() < 256));
    if disk_failed || (said.tail.text().is_empty() && !is_nothing) {
        return error;
    }
    RunError::Damaged("too little of it can be decoded".to_owned())
}

/// FFmpeg's exit code when more of the input was broken than `-max_error_rate` allows.
const TOO_MANY_ERRORS: i32 = 69;

/// FFmpeg ends with 0 even when the input stops in the middle, so its messages count as well.
fn judge(said: &Said) -> Result<(), RunError> {
    if let Some(damage) = said.damage {
        return Err(RunError::Damaged(damage.to_owned()));
    }
    if said.status.success() {
        return Ok(());
    }
    let stderr = said.tail.text();
    if said.status.code() == Some(TOO_MANY_ERRORS) {
        return Err(RunError::Damaged("too much of it cannot be decoded".to_owned()));
    }
    if ["Decoder not found", "no decoder found", "not currently supported", "not implemented"]
        .iter()
        .any(|s| stderr.contains(s))
    {
        return Err(RunError::Unsupported("its codec cannot be decoded here".to_owned()));
    }
    let is_the_nodes = said.status.code().is_none() || THE_NODES.iter().any(|sign| stderr.contains(sign));
    if is_the_nodes {
        return Err(RunError::Failed { status: said.status, stderr });
    }
    Err(RunError::Damaged("it cannot be decoded".to_owned()))
}

async fn collect(plan: Plan, work_dir: PathBuf) -> Result<Output, RunError> {
    let collected = tokio::task::spawn_blocking(move || output::collect(&plan, &work_dir)).await;
    Ok(collected.map_err(|e| io_error("read FFmpeg's output")(io::Error::other(e)))??)
}

/// A film may miss this much at its end: containers round, and last frames differ.
const MAX_MISSING: f64 = 1.0;
/// Of a short clip even a second is much.
const MAX_MISSING_SHARE: f64 = 0.05;
/// But never less than this: some frames at a slow rate.
const MIN_MISSING: f64 = 0.25;

/// Compares the length that was made with the one that the file declares. Where it is declared only for the whole file, the longer of
/// picture and sound counts; otherwise the picture, as the sound may have been filled up with silence.
fn check_length(plan: &Plan, limits: &Limits, output: &Output) -> Result<(), RunError> {
    let (expected, of_video) = plan.expected();
    let expected = expected.as_secs_f64();
    let video = output.video.first().map_or(0.0, |t| t.seconds());
    let audio = output.first_audio().map_or(0.0, |t| t.seconds());
    let actual = if of_video { video } else { video.max(audio) };
    if actual > limits.max_duration.as_secs_f64() {
        // It was cut there.
        return Err(RunError::Unsupported(format!(
            "it is longer than the {} minutes that this node takes at most, whatever it says of itself",
            limits.max_duration.as_secs().div_ceil(60)
        )));
    }
    let allowed = (expected * MAX_MISSING_SHARE).clamp(MIN_MISSING, MAX_MISSING);
    if expected - actual > allowed {
        return Err(RunError::Damaged(format!(
            "it says it lasts {expected:.1} s, but only {actual:.1} s of it can be decoded"
        )));
    }
    Ok(())
}
