//! Test videos, made by the real FFmpeg, once for each kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A moving picture of 320x240 at 24 frames a second with a tone, `seconds` long, as MP4 with the index in front.
pub fn clip(folder: &Path, seconds: u32) -> PathBuf {
    let path = folder.join(format!("clip-{seconds}s.mp4"));
    let picture = format!("testsrc2=size=320x240:rate=24:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let mut arguments = vec!["-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
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
