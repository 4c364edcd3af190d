//! Pictures of every kind come out as every screen shows them, and stills beside them.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{FAST, PICTURE, SOUND, assert_decodes, entries, make, pipeline, seconds, tool};
use tempfile::TempDir;
use transcode::{Limits, ProbeError, Tools, probe};

/// Mean of the red, green and blue of a file's first picture.
fn colour(path: &Path) -> [u8; 3] {
    let args = "-v error -i PATH -frames:v 1 -vf scale=1:1:flags=area -f rawvideo -pix_fmt rgb24 -";
    tool("ffmpeg", args, path).stdout[..3].try_into().unwrap()
}

fn near(colour: [u8; 3], wanted: [u8; 3]) -> bool {
    colour.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 25)
}

fn hdr(dir: &TempDir, name: &str, transfer: &str) -> PathBuf {
    let args = format!(
        "-f lavfi -i color=gray:s=640x360:r=25:d=2 -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le \
         -color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -tag:v hvc1 PATH"
    );
    make(dir, name, &args)
}

#[tokio::test]
async fn high_dynamic_range_becomes_standard_range() {
    let dir = tempfile::tempdir().unwrap();
    for (name, transfer) in [("pq.mp4", "smpte2084"), ("hlg.mp4", "arib-std-b67")] {
        let done = pipeline(&hdr(&dir, name, transfer)).await.unwrap();
        let web = tempfile::tempdir().unwrap();
        done.write(web.path());
        let mp4 = web.path().join("360p.mp4");
        assert_decodes(&mp4);
        let shown =
            entries(&mp4, "-show_entries stream=pix_fmt,color_range,color_space,color_transfer,color_primaries");
        assert_eq!(shown, ["yuv420p,tv,bt709,bt709,bt709"]);
        let [red, green, blue] = colour(&mp4);
        // A grey of 50 % is near 100 cd/m² in PQ, and half of the light of white in HLG.
        assert!(red > 90 && red.abs_diff(green) < 6 && green.abs_diff(blue) < 6, "{transfer}: {red} {green} {blue}");
    }
}

#[tokio::test]
async fn without_tone_mapping_high_dynamic_range_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let film = hdr(&dir, "pq.mp4", "smpte2084");
    let tools = Tools { ffmpeg: "echo".into(), ..Tools::default() };
    let error = probe(&film, &Limits { tools, ..Limits::default() }).await.unwrap_err();
    assert!(matches!(error, ProbeError::Unsupported(_)), "{error:?}");
    assert!(error.to_string().contains("lacks the filter zscale"), "{error}");
}

#[tokio::test]
async fn interlaced_deep_and_anamorphic_pictures_come_out_plain() {
    let dir = tempfile::tempdir().unwrap();
    let args = "-f lavfi -i testsrc=s=720x576:r=50:d=3 -vf interlace,setsar=64/45 -c:v libx264 -preset ultrafast -flags +ildct+ilme \
                -pix_fmt yuv422p10le PATH";
    let done = pipeline(&make(&dir, "tape.mkv", args)).await.unwrap();
    assert!(done.plan.deinterlace);
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let mp4 = web.path().join("576p.mp4");
    assert_decodes(&mp4);
    let shown = entries(&mp4, "-show_entries stream=width,height,sample_aspect_ratio,pix_fmt,field_order,r_frame_rate");
    assert_eq!(shown, ["1024,576,1:1,yuv420p,progressive,25/1"]);
}

#[tokio::test]
async fn stills_show_the_moments_that_they_name() {
    let dir = tempfile::tempdir().unwrap();
    // Red for 3 s, then green for 27 s, then blue for 30 s.
    let args = format!(
        "-f lavfi -i color=red:s=320x180:r=25:d=3 -f lavfi -i color=lime:s=320x180:r=25:d=27 -f lavfi -i color=blue:s=320x180:r=25:d=30 \
         -filter_complex [0][1][2]concat=n=3 {FAST} PATH"
    );
    let done = pipeline(&make(&dir, "colours.mp4", &args)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let poster = web.path().join("poster.jpg");
    assert_eq!(entries(&poster, "-show_entries stream=codec_name,width,height"), ["mjpeg,320,180"]);
    assert!(near(colour(&poster), [0, 255, 0]), "{:?}", colour(&poster));
    let list = done.text("storyboard.vtt");
    assert_eq!(list.matches(" --> ").count(), 30);
    for (time, expected) in
        [("00:00:02.000", [255, 0, 0]), ("00:00:28.000", [0, 255, 0]), ("00:00:54.000", [0, 0, 255])]
    {
        let place = list.split(&format!("{time} --> ")).nth(1).unwrap().lines().nth(1).unwrap();
        let (sheet, rectangle) = place.split_once("#xywh=").unwrap();
        let [x, y, w, h]: [&str; 4] = rectangle.split(',').collect::<Vec<_>>().try_into().unwrap();
        let cut = dir.path().join("cut.png");
        let args = format!("-v error -y -i {} -vf crop={w}:{h}:{x}:{y} PATH", web.path().join(sheet).display());
        assert!(tool("ffmpeg", &args, &cut).status.success());
        assert!(near(colour(&cut), expected), "{time}: {:?}", colour(&cut));
    }
    assert_eq!(done.output.sheets.len(), 2);
    let types: Vec<_> =
        ["poster.jpg", "preview.mp4", "storyboard.vtt", "storyboard/0002.jpg"].map(|p| done.media_type(p)).to_vec();
    assert_eq!(types, ["image/jpeg", "video/mp4", "text/vtt", "image/jpeg"]);
    let preview = web.path().join("preview.mp4");
    assert_decodes(&preview);
    assert!((seconds(&preview) - 8.0).abs() < 0.1, "{}", seconds(&preview));
    assert_eq!(entries(&preview, "-show_entries format=start_time"), ["0.000000"]);
    assert!(near(colour(&preview), [0, 255, 0]), "{:?}", colour(&preview));
}

#[tokio::test]
async fn short_and_tall_films_have_stills_too() {
    let dir = tempfile::tempdir().unwrap();
    let args = format!("-f lavfi -i testsrc=s=90x640:r=10:d=1 {FAST} PATH");
    let done = pipeline(&make(&dir, "tall.mp4", &args)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    assert_eq!(entries(&web.path().join("poster.jpg"), "-show_entries stream=width,height"), ["90,640"]);
    assert_eq!(entries(&web.path().join("storyboard/0001.jpg"), "-show_entries stream=width,height"), ["230,1600"]);
    assert_decodes(&web.path().join("preview.mp4"));
}

#[tokio::test]
async fn sound_with_a_cover_becomes_a_film_of_the_cover() {
    let dir = tempfile::tempdir().unwrap();
    let cover = make(&dir, "cover.png", "-f lavfi -i color=blue:s=1001x901 -frames:v 1 PATH");
    let tall = format!("-i {} -map 0 -map 1 -disposition:v:0 attached_pic", cover.display());
    let inputs = [
        ("song.m4a", format!("{SOUND} {tall} -c:a aac -c:v png -f mp4 PATH")),
        ("mp3.mp4", format!("{SOUND} {tall} -c:a libmp3lame -c:v mjpeg -pix_fmt yuvj444p PATH")),
        ("song.mka", format!("{SOUND} -attach {} -metadata:s:t mimetype=image/png -c:a libopus PATH", cover.display())),
    ];
    for (name, args) in inputs {
        let done = pipeline(&make(&dir, name, &args)).await.unwrap();
        assert!(done.plan.still, "{name}");
        let web = tempfile::tempdir().unwrap();
        done.write(web.path());
        let mp4 = web.path().join("720p.mp4");
        assert_decodes(&mp4);
        assert_decodes(&web.path().join("master.m3u8"));
        assert_eq!(
            entries(&mp4, "-show_entries stream=codec_name,width,height,r_frame_rate"),
            ["h264,800,720,2/1", "aac,0/0"]
        );
        assert!((seconds(&mp4) - 5.0).abs() < 0.6, "{name}: {}", seconds(&mp4));
        assert!(near(colour(&mp4), [0, 0, 255]), "{name}: {:?}", colour(&mp4));
        assert!(near(colour(&web.path().join("poster.jpg")), [0, 0, 255]), "{name}");
        assert!((1..=12).contains(&entries(&mp4, "-select_streams v -show_entries packet=pts").len()), "{name}");
    }
}

#[tokio::test]
async fn a_stream_that_begins_late_is_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let args = format!("{PICTURE} {SOUND} {FAST} -c:a aac -muxdelay 3 -output_ts_offset 100 PATH");
    let done = pipeline(&make(&dir, "late.ts", &args)).await.unwrap();
    let web = tempfile::tempdir().unwrap();
    done.write(web.path());
    let mp4 = web.path().join("180p.mp4");
    assert_decodes(&mp4);
    assert!((seconds(&mp4) - 5.0).abs() < 0.2, "{}", seconds(&mp4));
    assert_eq!(done.text("storyboard.vtt").matches(" --> ").count(), 3);
}
