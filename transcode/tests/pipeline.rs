//! From a file to playlists, segments and MP4s that FFmpeg plays.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FAST, PICTURE, assert_decodes, clip, entries, keyframes, make, pipeline, seconds};

#[tokio::test]
async fn a_clip_with_sound_becomes_hls_and_mp4_of_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let done = pipeline(&clip(&dir)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    for file in ["180p.mp4", "90p.mp4", "master.m3u8"] {
        assert_decodes(&web.path().join(file));
    }
    let mp4 = web.path().join("180p.mp4");
    assert!((seconds(&mp4) - 5.0).abs() < 0.1, "{}", seconds(&mp4));
    assert_eq!(entries(&mp4, "-show_entries stream=codec_name"), ["h264", "aac"]);
    assert_eq!(keyframes(&mp4), keyframes(&web.path().join("90p.mp4")));
    assert_eq!(keyframes(&mp4).len(), 3);
    assert!(done.stored() as f64 <= done.segments() as f64 * 1.05, "{} of {}", done.stored(), done.segments());
    assert_eq!((done.reports.percent, done.layout.duration_ms / 100), (100.0, 50));
}

#[tokio::test]
async fn playlists_name_everything_a_player_chooses_by() {
    let dir = tempfile::tempdir().unwrap();
    let done = pipeline(&clip(&dir)).await.unwrap();
    let master = done.text("master.m3u8");
    let part = |text: &str| assert!(master.contains(text), "{text} in {master}");
    part(
        "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio/playlist.m3u8\"",
    );
    part("CODECS=\"avc1.4d400c,mp4a.40.2\",RESOLUTION=320x180,FRAME-RATE=25.000,AUDIO=\"audio\"\n180p/playlist.m3u8\n");
    part(",AVERAGE-BANDWIDTH=");
    let media = done.text("90p/playlist.m3u8");
    assert_eq!(
        media,
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.000000,\nseg00001.m4s\n#EXTINF:1.000000,\n\
         seg00002.m4s\n#EXT-X-ENDLIST\n"
    );
}

#[tokio::test]
async fn a_silent_clip_of_odd_size_and_rate_in_444_plays_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let args = "-f lavfi -i testsrc=s=317x243:r=45000/1499:d=3 -c:v libx264 -preset ultrafast -pix_fmt yuv444p PATH";
    let done = pipeline(&make(&dir, "odd.mp4", args)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let mp4 = web.path().join("242p.mp4");
    assert_decodes(&mp4);
    assert_decodes(&web.path().join("master.m3u8"));
    assert!((seconds(&mp4) - 3.0).abs() < 0.1);
    let shown = entries(&mp4, "-show_entries stream=codec_name,width,height,pix_fmt,r_frame_rate");
    assert_eq!(shown, ["h264,316,242,yuv420p,45000/1499"]);
    assert!(!done.text("master.m3u8").contains("AUDIO"));
}

#[tokio::test]
async fn a_turned_picture_and_late_sound_come_out_upright_and_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let upright = make(&dir, "a.mp4", &format!("{PICTURE} -itsoffset 1 -f lavfi -i sine=440:d=4 {FAST} -c:a aac PATH"));
    let args = format!("-i {} -c copy -metadata:s:v:0 rotate=90 PATH", upright.display());
    let done = pipeline(&make(&dir, "turned.mp4", &args)).await.unwrap();
    let best = &done.plan.rungs[0];
    assert_eq!((best.width, best.height), (180, 320));
    let audio = done.output.first_audio().unwrap();
    assert_eq!((audio.segments[0].start, done.output.video[0].segments[0].start), (0, 0));
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let silence =
        common::tool("ffmpeg", "-v info -i PATH -af silencedetect=d=0.5 -vn -f null -", &web.path().join("180p.mp4"));
    let text = String::from_utf8_lossy(&silence.stderr).into_owned();
    let end = text.split("silence_end: ").nth(1).unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
    assert!((end - 1.0).abs() < 0.05, "the sound starts at {end}");
}

/// By hand: `TRANSCODE_IN=film.mp4 TRANSCODE_OUT=folder cargo test -p transcode --test pipeline -- --ignored`.
#[tokio::test]
#[ignore = "takes a film of yours"]
async fn by_hand() {
    let input = std::env::var("TRANSCODE_IN").unwrap();
    let done = pipeline(input.as_ref()).await.unwrap();
    let out = std::path::PathBuf::from(std::env::var("TRANSCODE_OUT").unwrap());
    done.write(&out);
    let summary =
        format!("{:#?}\n{:#?}\nstored {} of {}\n", done.plan, done.layout.renditions, done.stored(), done.segments());
    std::fs::write(out.join("summary.txt"), summary).unwrap();
}
