//! Test videos, made by the real FFmpeg, once for each kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A moving picture of 320x240 at 24 frames a second with a tone, `seconds` long, as MP4 with the index in front.
pub fn clip(folder: &Path, seconds: u32) -> PathBuf {
    encoded(
        folder,
        &format!("clip-{seconds}s.mp4"),
        &format!("testsrc2=size=320x240:rate=24:duration={seconds}"),
        seconds,
    )
}

/// Noise of 1280x720, which no encoder makes small: some 0.6 MB a second once it is processed.
pub fn noisy_clip(folder: &Path, seconds: u32) -> PathBuf {
    let picture = format!("testsrc2=size=1280x720:rate=24:duration={seconds},noise=alls=60:allf=t");
    encoded(folder, &format!("noise-{seconds}s.mp4"), &picture, seconds)
}

/// With a tone, as MP4 with the index in front.
fn encoded(folder: &Path, name: &str, picture: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let mut arguments = vec!["-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", &tone];
    arguments.extend(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    arguments.extend(["-movflags", "+faststart", path.to_str().unwrap()]);
    let output = run_tool("ffmpeg", &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// Runs a program from the path to its end.
pub fn run_tool(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}; scripts/setup.sh installs it"))
}
