//! Clips made by FFmpeg's own generators, and files put together from a layout.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended};

use tempfile::TempDir;
use tokio::sync::watch;
use transcode::{
    ErrorKind, Ladder, Layout, Limits, Output, Part, Plan, ProbeError, Progress, RunError, layout, plan, probe, run,
};

pub fn tool(program: &str, args: &str, path: &Path) -> Ended {
    let words: Vec<String> = args.split(' ').map(|w| w.replace("PATH", path.to_str().unwrap())).collect();
    Command::new(program).args(words).output().unwrap()
}

/// Runs FFmpeg with `PATH` replaced by the file's name and returns the file.
pub fn make(dir: &TempDir, name: &str, args: &str) -> PathBuf {
    let path = dir.path().join(name);
    let ended = tool("ffmpeg", &format!("-v error -y {args}"), &path);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    path
}

pub const PICTURE: &str = "-f lavfi -i testsrc=s=320x180:r=25:d=5";
pub const SOUND: &str = "-f lavfi -i sine=440:d=5";
pub const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

/// 5 s of 320 x 180 with stereo sound.
pub fn clip(dir: &TempDir) -> PathBuf {
    make(dir, "clip.mp4", &format!("{PICTURE} {SOUND} {FAST} -c:a aac -ac 2 -movflags +faststart PATH"))
}

pub struct Done {
    pub work: TempDir,
    pub plan: Plan,
    pub output: Output,
    pub layout: Layout,
    pub reports: Progress,
}

pub async fn pipeline(input: &Path) -> Result<Done, RunError> {
    let limits = Limits::default();
    let source = probe(input, &limits).await.unwrap();
    let plan = plan(&source, &Ladder::default());
    let work = tempfile::tempdir().unwrap();
    let (sender, receiver) = watch::channel(Progress::default());
    let output = run(&plan, &limits, input, work.path(), sender, pending()).await?;
    let layout = layout(&plan, &output).unwrap();
    let reports = *receiver.borrow();
    Ok(Done { work, plan, output, layout, reports })
}

impl Done {
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let file = self.layout.files.iter().find(|f| f.path == path).unwrap();
        file.parts.iter().flat_map(|p| part(&self.layout.parts[*p])).collect()
    }

    pub fn media_type(&self, path: &str) -> &'static str {
        self.layout.files.iter().find(|f| f.path == path).unwrap().media_type
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.bytes(path)).unwrap()
    }

    /// Writes all files below a folder, as a web server would have them.
    pub fn write(&self, dir: &Path) {
        for file in &self.layout.files {
            let path = dir.join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.bytes(&file.path)).unwrap();
        }
    }

    /// Bytes of all parts but those of the stills and the preview, which are beside HLS and MP4.
    pub fn stored(&self) -> u64 {
        let beside = self.output.sheets.iter().chain(&self.output.poster).chain(&self.output.preview);
        self.layout.parts.iter().map(Part::size).sum::<u64>() - beside.map(|file| file.len).sum::<u64>()
    }

    pub fn segments(&self) -> u64 {
        let tracks = self.output.video.iter().chain(self.output.audio.iter().flatten());
        tracks.flat_map(|t| &t.segments).map(|s| s.len).sum()
    }
}

fn part(part: &Part) -> Vec<u8> {
    match part {
        Part::Bytes(bytes) => bytes.clone(),
        Part::Range { path, offset, len } => {
            let bytes = std::fs::read(path).unwrap();
            bytes[*offset as usize..(*offset + *len) as usize].to_vec()
        }
    }
}

/// Decodes everything; what FFmpeg complains about must be nothing.
pub fn assert_decodes(path: &Path) {
    let ended = tool("ffmpeg", "-v warning -xerror -i PATH -map 0 -f null -", path);
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{}", path.display());
    assert!(ended.status.success());
}

pub fn entries(path: &Path, args: &str) -> Vec<String> {
    let ended = tool("ffprobe", &format!("-v error -of csv=p=0 {args} PATH"), path);
    String::from_utf8(ended.stdout).unwrap().lines().map(|l| l.trim_end_matches(',').to_owned()).collect()
}

pub fn seconds(path: &Path) -> f64 {
    entries(path, "-show_entries format=duration")[0].parse().unwrap()
}

/// Times of the keyframes of the first video stream.
pub fn keyframes(path: &Path) -> Vec<String> {
    let all = entries(path, "-select_streams v:0 -show_entries packet=pts_time,flags");
    all.into_iter().filter(|l| l.contains('K')).collect()
}

/// A file that was not taken, by whichever step.
#[derive(Debug)]
pub enum Refused {
    Probe(ProbeError),
    Run(RunError),
}

impl Refused {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Refused::Probe(error) => error.kind(),
            Refused::Run(error) => error.kind(),
        }
    }

    /// What the uploader reads.
    pub fn sentence(&self) -> String {
        match self {
            Refused::Probe(error) => error.to_string(),
            Refused::Run(error) => error.to_string(),
        }
    }
}

/// The whole way of a file that may be refused.
pub async fn attempt(input: &Path, limits: &Limits) -> Result<Done, Refused> {
    let source = probe(input, limits).await.map_err(Refused::Probe)?;
    let plan = plan(&source, &Ladder::default());
    let work = tempfile::tempdir().unwrap();
    let (sender, receiver) = watch::channel(Progress::default());
    let output = run(&plan, limits, input, work.path(), sender, pending()).await.map_err(Refused::Run)?;
    let layout = layout(&plan, &output).unwrap();
    let reports = *receiver.borrow();
    Ok(Done { work, plan, output, layout, reports })
}
