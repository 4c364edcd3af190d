//! No FFmpeg outlives the one who asked for it.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use transcode::{Ladder, Limits, Progress, RunError, plan, probe, run};

/// Whether a process runs in this folder.
fn anyone_in(dir: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.map(|p| p.path().join("cwd")).any(|cwd| std::fs::read_link(cwd).is_ok_and(|d| d == dir))
}

#[tokio::test]
async fn cancelling_ends_the_process_before_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let film = "-f lavfi -i testsrc=s=320x180:r=25:d=600 -c:v libx264 -preset ultrafast -t 600 PATH";
    let input = common::make(&dir, "long.mp4", film);
    let limits = Limits::default();
    // Slow enough that it cannot be done before it is cancelled.
    let ladder = Ladder { preset: "veryslow".to_owned(), ..Ladder::default() };
    let plan = plan(&probe(&input, &limits).await.unwrap(), &ladder);
    let work = tempfile::tempdir().unwrap();
    let (sender, mut receiver) = watch::channel(Progress::default());
    let seen = work.path().to_owned();
    let cancel = async move {
        receiver.wait_for(|p| p.encoded > Duration::ZERO).await.unwrap();
        assert!(anyone_in(&seen));
    };
    let ended = run(&plan, &limits, &input, work.path(), sender, cancel).await;
    assert!(matches!(ended, Err(RunError::Cancelled)), "{ended:?}");
    assert!(!anyone_in(work.path()));
}
