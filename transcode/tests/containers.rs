//! Films in containers and codecs of all kinds: each plays to its end.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FAST, PICTURE, SOUND, assert_decodes, entries, make, pipeline, seconds};

const TEXT: &str = "1\n00:00:01,000 --> 00:00:02,000\nHello\n";

#[tokio::test]
async fn each_comes_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.srt");
    std::fs::write(&text, TEXT).unwrap();
    let text = text.display();
    let inputs = [
        (
            "mov-text.mp4",
            format!("{PICTURE} {SOUND} -i {text} -map 0 -map 1 -map 2 -c:s mov_text {FAST} -c:a aac PATH"),
        ),
        ("webvtt.mkv", format!("{PICTURE} {SOUND} -i {text} -map 0 -map 1 -map 2 -c:s webvtt {FAST} -c:a aac PATH")),
        ("live.webm", format!("{PICTURE} {SOUND} -c:v libvpx -deadline realtime -c:a libopus -live 1 PATH")),
        (
            "uneven.mkv",
            format!("{PICTURE} {SOUND} -vf select=not(mod(n\\,7))+lt(t\\,2) -fps_mode vfr {FAST} -c:a aac PATH"),
        ),
        ("seven-one.mkv", format!("{PICTURE} -f lavfi -i anoisesrc=d=5 {FAST} -c:a flac -ac 8 PATH")),
        ("eight-kilohertz.avi", format!("{PICTURE} {SOUND} -c:v mjpeg -c:a pcm_s16le -ar 8000 PATH")),
        (
            "twelve-bits.mkv",
            format!(
                "{PICTURE} {SOUND} -c:v libx265 -x265-params log-level=none -preset ultrafast -pix_fmt yuv444p12le PATH"
            ),
        ),
        ("grey.mkv", format!("{PICTURE} {SOUND} -c:v ffv1 -pix_fmt gray PATH")),
        ("rgb.mkv", format!("{PICTURE} {SOUND} -c:v ffv1 -pix_fmt gbrp PATH")),
        ("transparent.mov", format!("{PICTURE} {SOUND} -c:v qtrle -pix_fmt argb PATH")),
        ("b-frames.ts", format!("{PICTURE} {SOUND} -c:v libx264 -bf 3 -pix_fmt yuv420p -c:a mp2 PATH")),
        ("programme.mpg", format!("{PICTURE} {SOUND} -c:v mpeg2video -c:a mp2 PATH")),
        ("old.flv", format!("{PICTURE} {SOUND} -c:v flv1 -c:a libmp3lame -ar 44100 PATH")),
        ("theora.ogg", format!("{PICTURE} {SOUND} -c:v libtheora -c:a libvorbis PATH")),
        ("windows.wmv", format!("{PICTURE} {SOUND} -c:v wmv2 -c:a wmav2 PATH")),
    ];
    for (name, args) in inputs {
        let done = pipeline(&make(&dir, name, &args)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let web = tempfile::tempdir().unwrap();
        done.write(web.path());
        let mp4 = web.path().join("180p.mp4");
        assert_decodes(&mp4);
        assert_eq!(entries(&mp4, "-show_entries stream=codec_name,pix_fmt"), ["h264,yuv420p", "aac"], "{name}");
        assert!((seconds(&mp4) - 5.0).abs() < 0.25, "{name}: {}", seconds(&mp4));
        assert!(!done.output.sheets.is_empty() && done.output.poster.is_some(), "{name}");
        let texts = usize::from(name.starts_with("mov-text") || name.starts_with("webvtt"));
        assert_eq!(done.output.subtitles.iter().flatten().count(), texts, "{name}");
    }
}
