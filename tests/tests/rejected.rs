//! Files that are no videos: a clear error to the uploader, the content rejected, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Stage, clip};
use std::path::PathBuf;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_video_is_rejected_and_leaves_nothing() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let files = bad_files(&stage);
    for (file, kind) in &files {
        let output = platform.upload(file, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{} was taken", file.display());
        assert!(said.len() > 30, "{}: no explanation: {said:?}", file.display());
        assert!(!said.contains("panicked"), "{said}");
        let contents = platform.get("/api/contents").await;
        let newest = &contents["contents"][0];
        assert_eq!(newest["state"], "rejected", "{}: {newest}", file.display());
        let problem = newest["error"]["type"].as_str().unwrap_or_default();
        assert_eq!(problem, format!("urn:imira:error:{kind}"), "{}: {newest}", file.display());
        assert!(newest["error"]["detail"].as_str().unwrap_or_default().len() > 20, "{newest}");
    }
    for node in &nodes {
        assert!(node.stored().await.is_empty());
        assert!(node.staging().is_empty(), "left in staging: {:?}", node.staging());
    }
    // The network is none the worse for it.
    platform.publish(&clip(&stage.path(""), 2));
}

fn bad_files(stage: &Stage) -> Vec<(PathBuf, &'static str)> {
    let whole = std::fs::read(clip(&stage.path(""), 6)).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = stage.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = "This is a text about videos, not a video.\n".repeat(1000);
    vec![
        (write("notes.txt", text.as_bytes()), "not-a-video"),
        (write("renamed.mp4", text.as_bytes()), "not-a-video"),
        (write("empty.mp4", b""), "upload-empty"),
        // The index stands in front, so the head of the file looks like the whole film.
        (write("cut-in-the-middle.mp4", &whole[..whole.len() * 6 / 10]), "video-damaged"),
        (write("cut-in-the-index.mp4", &whole[..1000]), "video-damaged"),
    ]
}
