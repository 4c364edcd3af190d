//! What is not published, and why.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{FAST, PICTURE, clip, make, pipeline};
use tempfile::TempDir;
use transcode::{ErrorKind, Limits, ProbeError, RunError, probe};

async fn refused(path: &Path) -> ProbeError {
    probe(path, &Limits::default()).await.unwrap_err()
}

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn what_is_no_video_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(refused(&write(&dir, "empty", b"")).await, ProbeError::Empty));
    let secret = write(&dir, "secret.mp4", b"the node's own file");
    let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n", secret.display());
    let files = [
        write(&dir, "text", b"Just some words.\n"),
        write(&dir, "text.mp4", b"Just some words.\n"),
        write(&dir, "list.m3u8", list.as_bytes()),
        write(&dir, "list", format!("ffconcat version 1.0\nfile {}\n", secret.display()).as_bytes()),
        make(&dir, "still.png", "-f lavfi -i testsrc=s=320x180 -frames:v 1 PATH"),
        make(&dir, "sound.m4a", "-f lavfi -i sine=440:d=1 -c:a aac PATH"),
        make(&dir, "sound.mp3", "-f lavfi -i sine=440:d=1 PATH"),
    ];
    for file in files {
        let error = refused(&file).await;
        assert!(matches!(error, ProbeError::NotAVideo(_)), "{}: {error:?}", file.display());
        assert_eq!(error.kind(), ErrorKind::NotAVideo);
    }
}

#[tokio::test]
async fn a_film_without_its_end_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let whole = make(&dir, "end.mp4", &format!("{PICTURE} {FAST} PATH"));
    let bytes = std::fs::read(&whole).unwrap();
    let cut = write(&dir, "cut", &bytes[..bytes.len() / 2]);
    assert_eq!(refused(&cut).await.kind(), ErrorKind::VideoDamaged);
    let bytes = std::fs::read(clip(&dir)).unwrap();
    let cut = write(&dir, "cut-faststart", &bytes[..bytes.len() * 2 / 3]);
    assert_eq!(refused(&cut).await.kind(), ErrorKind::VideoDamaged);
}

/// Matroska tells nothing at its start, so this is found out while the film is read; none may be published short.
#[tokio::test]
async fn a_matroska_film_without_its_end_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let whole = make(&dir, "whole.mkv", &format!("{PICTURE} {FAST} PATH"));
    let bytes = std::fs::read(&whole).unwrap();
    let cut = write(&dir, "cut", &bytes[..bytes.len() / 2]);
    let error = pipeline(&cut).await.err().unwrap();
    assert!(matches!(error, RunError::Damaged(_)), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::VideoDamaged);
}

/// The boxes are all there, but the second half of the pictures is not.
#[tokio::test]
async fn a_film_that_declares_more_than_it_holds_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(clip(&dir)).unwrap();
    let len = bytes.len();
    bytes[len / 2..].fill(0);
    let error = pipeline(&write(&dir, "hollow.mp4", &bytes)).await.err().unwrap();
    assert!(matches!(error, RunError::Damaged(_)), "{error:?}");
}

/// The tag was believed: FFmpeg filled up the sound of 3 s with 12 hours of silence.
#[tokio::test]
async fn a_stream_that_says_it_is_longer_than_its_file_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let short_sound = "-f lavfi -i sine=440:d=3";
    let honest = make(&dir, "honest.mkv", &format!("{PICTURE} {short_sound} {FAST} -c:a aac PATH"));
    let mut bytes = std::fs::read(honest).unwrap();
    let (tag, lie) = (b"00:00:05.", b"11:59:00.");
    let at = bytes.windows(tag.len()).position(|window| window == tag).unwrap();
    bytes[at..at + lie.len()].copy_from_slice(lie);
    let lie = write(&dir, "lie.mkv", &bytes);
    let source = probe(&lie, &Limits::default()).await.unwrap();
    assert!(source.video.duration.unwrap() < Duration::from_secs(6), "{source:?}");
    let done = pipeline(&lie).await.unwrap();
    let sound: u64 = done.output.first_audio().unwrap().segments.iter().map(|segment| segment.duration).sum();
    assert!((4..=6).contains(&(sound / 48_000)), "{sound} samples of sound");
}

#[tokio::test]
async fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = clip(&dir);
    let short = Limits { max_duration: Duration::from_secs(4), ..Limits::default() };
    assert!(matches!(probe(&file, &short).await, Err(ProbeError::TooLong { .. })));
    let small = Limits { max_pixels: 1000, ..Limits::default() };
    let error = probe(&file, &small).await.unwrap_err();
    assert!(matches!(error, ProbeError::TooLarge { width: 320, height: 180, .. }));
    assert_eq!(error.kind(), ErrorKind::VideoUnsupported);
    let missing =
        Limits { tools: transcode::Tools { ffprobe: "/no/ffprobe".into(), ..Default::default() }, ..Limits::default() };
    assert_eq!(probe(&file, &missing).await.unwrap_err().kind(), ErrorKind::Internal);
}
