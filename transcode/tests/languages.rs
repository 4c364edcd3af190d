//! Every language that a film has can be chosen.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{FAST, PICTURE, assert_decodes, entries, make, pipeline, tool};
use tempfile::TempDir;

const TEXT: &str = "1\n00:00:01,000 --> 00:00:02,000\nHello <b>there</b>\n\n2\n00:00:03,000 --> 00:00:04,500\nBye\n";

fn write(dir: &TempDir, name: &str, text: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// How loud a frequency is in dB.
fn loudness(path: &Path, hertz: u32) -> f64 {
    let args = format!("-v info -i PATH -af bandpass=f={hertz}:width_type=h:w=20,volumedetect -vn -f null -");
    let text = String::from_utf8_lossy(&tool("ffmpeg", &args, path).stderr).into_owned();
    text.split("mean_volume: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_audio_stream_becomes_a_rendition_and_the_default_one_is_in_the_mp4() {
    let dir = tempfile::tempdir().unwrap();
    let args = format!(
        "{PICTURE} -f lavfi -i sine=440:d=5 -f lavfi -i sine=880:d=5 -f lavfi -i sine=1760:d=3 -map 0 -map 1 -map 2 -map 3 {FAST} -c:a aac \
         -ac:a:0 1 -ac:a:1 6 -ac:a:2 2 -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:a:2 language=eng \
         -disposition:a:0 0 -disposition:a:1 default -disposition:a:2 comment PATH"
    );
    let done = pipeline(&make(&dir, "three.mkv", &args)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let master = done.text("master.m3u8");
    let lines: Vec<_> = master.lines().filter(|l| l.contains("TYPE=AUDIO")).collect();
    let line = |name: &str, folder: &str, default: &str, channels: u32| {
        let language = &folder[6..8];
        format!(
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{name}\",LANGUAGE=\"{language}\",DEFAULT={default},AUTOSELECT=YES,\
             CHANNELS=\"{channels}\",URI=\"{folder}/playlist.m3u8\""
        )
    };
    let expected = [
        line("Deutsch", "audio-de", "YES", 2),
        line("English", "audio-en", "NO", 1),
        line("English (commentary)", "audio-en-2", "NO", 2),
    ];
    assert_eq!(lines, expected);
    for (folder, hertz, channels) in [("audio-de", 880, "2"), ("audio-en", 440, "1"), ("audio-en-2", 1760, "2")] {
        let list = web.path().join(folder).join("playlist.m3u8");
        assert_decodes(&list);
        assert_eq!(entries(&list, "-show_entries stream=channels")[0], channels, "{folder}");
        assert!(loudness(&list, hertz) > -40.0, "{folder}: {} dB", loudness(&list, hertz));
    }
    let mp4 = web.path().join("180p.mp4");
    assert_decodes(&mp4);
    assert_decodes(&web.path().join("master.m3u8"));
    assert_eq!(entries(&mp4, "-show_entries stream=codec_name"), ["h264", "aac"]);
    assert!(loudness(&mp4, 880) > loudness(&mp4, 440) + 20.0);
}

/// Its header was waited for in vain, and with it the pictures.
#[tokio::test]
async fn sound_that_never_comes_or_comes_late_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let late = format!(
        "{PICTURE} -f lavfi -i sine=440:d=5 -itsoffset 4 -f lavfi -i sine=880:d=1 -map 0 -map 1 -map 2 {FAST} -c:a aac PATH"
    );
    let late = make(&dir, "late.mkv", &late);
    let done = pipeline(&late).await.unwrap();
    let starts: Vec<_> = done.output.audio.iter().flatten().map(|t| t.segments[0].start).collect();
    assert_eq!(starts, [0, 0]);
    let never = format!("-i {} -map 0 -c copy -bsf:a:1 noise=drop=1 PATH", late.display());
    let done = pipeline(&make(&dir, "never.mkv", &never)).await.unwrap();
    assert_eq!(done.plan.audio.len(), 2);
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    assert_decodes(&web.path().join("master.m3u8"));
}

#[tokio::test]
async fn text_subtitles_become_webvtt() {
    let dir = tempfile::tempdir().unwrap();
    let text = write(&dir, "text.srt", TEXT.as_bytes());
    let args = format!(
        "{PICTURE} -i {0} -i {0} -map 0 -map 1 -map 2 -c:s:0 srt -c:s:1 ass {FAST} -metadata:s:s:0 language=eng -metadata:s:s:1 language=fre \
         -disposition:s:0 0 -disposition:s:1 forced PATH",
        text.display()
    );
    let done = pipeline(&make(&dir, "text.mkv", &args)).await.unwrap();
    let master = done.text("master.m3u8");
    for line in [
        "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"subs\",NAME=\"English\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,URI=\"sub-en/playlist.m3u8\"\n",
        "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"subs\",NAME=\"Français (forced)\",LANGUAGE=\"fr\",DEFAULT=NO,AUTOSELECT=YES,FORCED=YES,\
         URI=\"sub-fr/playlist.m3u8\"\n",
        ",SUBTITLES=\"subs\"\n180p/playlist.m3u8\n",
        ",SUBTITLES=\"subs\"\n90p/playlist.m3u8\n",
    ] {
        assert!(master.contains(line), "{line} in {master}");
    }
    assert_eq!(
        done.text("sub-en/playlist.m3u8"),
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:5.000000,\n\
         subtitles.vtt\n#EXT-X-ENDLIST\n"
    );
    for folder in ["sub-en", "sub-fr"] {
        let text = done.text(&format!("{folder}/subtitles.vtt"));
        assert!(text.starts_with("WEBVTT\n\n00:01.000 --> 00:02.000\nHello <b>there</b>\n"), "{text}");
        assert!(text.contains("\n00:03.000 --> 00:04.500\nBye\n"), "{text}");
    }
    let kinds: Vec<_> = done.layout.renditions.iter().map(|r| (r.name.as_str(), r.codecs.as_str())).collect();
    assert_eq!(kinds[2..], [("sub-en", "wvtt"), ("sub-fr", "wvtt")]);
    // FFmpeg reads no subtitles in HLS, so the file is asked.
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let lines = entries(&web.path().join("sub-fr/subtitles.vtt"), "-show_entries packet=pts_time,duration_time");
    assert_eq!(lines, ["1.000000,1.000000", "3.000000,1.500000"]);
}

#[tokio::test]
async fn subtitles_without_text_or_in_no_order_are_left_away_and_the_film_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let text = write(&dir, "text.srt", TEXT.as_bytes());
    let film = format!("{PICTURE} -i {} -map 0 -map 1 -c:s ass {FAST} PATH", text.display());
    let film = make(&dir, "film.mkv", &film);
    let empty = format!("-i {} -map 0 -c copy -bsf:s noise=drop=1 PATH", film.display());
    let done = pipeline(&make(&dir, "empty.mkv", &empty)).await.unwrap();
    assert_eq!((done.plan.subtitles.len(), &done.output.subtitles[..]), (1, &[None][..]));
    assert!(!done.text("master.m3u8").contains("SUBTITLES"));
    // The header of the style and every line of text are overwritten.
    let mut bytes = std::fs::read(&film).unwrap();
    for sign in [&b"[Script Info]"[..], b"ScriptType", b"Format:", b"Style:", b"0,,", b"Default"] {
        while let Some(at) = bytes.windows(sign.len()).position(|w| w == sign) {
            bytes[at..at + sign.len()].fill(0xff);
        }
    }
    let done = pipeline(&write(&dir, "broken.mkv", &bytes)).await.unwrap();
    assert_eq!(done.layout.duration_ms / 100, 50);
}
