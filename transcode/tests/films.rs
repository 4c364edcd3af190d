//! Films as phones, cameras, editors and old programs make them: whatever went in, the same plays everywhere. `README.md` in this
//! folder lists them.
//!
//! Most of them show a white flash and sound a beep 1 s after their start, by which the picture and the sound of what came out are
//! held against each other.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Done, entries, pipeline, seconds, tool};
use tempfile::TempDir;

/// Sound and picture may be this far apart (ITU-R BT.1359 puts the threshold of notice at 45 ms).
const TOGETHER_S: f64 = 0.04;
/// What is lost or added at the ends of a film.
const LENGTH_S: f64 = 0.25;
/// Longest way to a keyframe.
const KEYFRAMES_S: f64 = 2.0;

/// What a film sounds like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sound {
    /// There is none.
    None,
    /// A beep where the picture is white.
    Beep,
    /// Some, and nothing in it that the picture shows.
    Hum,
}

/// What must come out: the picture of the best rung, pictures per second, the film's length, and its sound.
struct Expected {
    size: (u32, u32),
    fps: &'static str,
    seconds: f64,
    sound: Sound,
}

/// Runs FFmpeg once for each step, `name: arguments`, and returns the last file. These words stand for others: `PIC:size:fps` for
/// 5 s of a test picture with the flash, `BEEP` for the beep, `X264` for a quick encoder, `IN` for the file before, `PATH` for this one.
fn film(dir: &TempDir, steps: &[&str]) -> PathBuf {
    let mut before = PathBuf::new();
    for step in steps {
        let (name, args) = step.split_once(": ").unwrap();
        let args: Vec<String> = args.split(' ').map(spelled_out).collect();
        before = common::make(dir, name, &args.join(" ").replace(" IN", &format!(" {}", before.display())));
    }
    before
}

fn spelled_out(word: &str) -> String {
    let white = "drawbox=c=white:t=fill:enable=gte(t\\,1)*lt(t\\,1.4)";
    if let Some((size, fps)) = word.strip_prefix("PIC:").and_then(|rest| rest.split_once(':')) {
        return format!("-f lavfi -i testsrc=s={size}:r={fps}:d=5,{white}");
    }
    match word {
        "BEEP" => "-f lavfi -i aevalsrc=0.8*sin(5000*t)*gte(t\\,1)*lt(t\\,1.4):d=5:s=48000".to_owned(),
        "X264" => common::FAST.to_owned(),
        word => word.to_owned(),
    }
}

/// A film's way to its viewers, and all that is expected of it.
async fn check(steps: &[&str], expected: Expected) {
    let dir = tempfile::tempdir().unwrap();
    let web = tempfile::tempdir().unwrap();
    check_film(&film(&dir, steps), web.path(), &expected).await;
}

async fn check_film(input: &Path, web: &Path, expected: &Expected) -> Done {
    let done = pipeline(input).await.unwrap_or_else(|e| panic!("refused: {e}\n{e:?}"));
    done.write(web);
    let variants = variants(&done);
    assert!(variants.len() >= 2, "{variants:?}");
    let best = check_mp4(&web.join(format!("{}.mp4", variants[0])), expected, surplus(input));
    for variant in &variants[1..] {
        let mp4 = web.join(format!("{variant}.mp4"));
        assert_eq!(best, keyframe_times(&packets(&mp4)), "keyframes of {variant} and of {}", variants[0]);
        check_length(&mp4, expected);
    }
    check_picture(&web.join(format!("{}.mp4", variants[0])), expected);
    variants.iter().for_each(|variant| check_segments(&done, web, variant, &best));
    assert_decodes_quietly(&web.join("master.m3u8"));
    assert_eq!(done.text("master.m3u8").contains("TYPE=AUDIO"), expected.sound != Sound::None);
    if expected.sound == Sound::Beep {
        check_together(&web.join(format!("{}.mp4", variants[variants.len() - 1])), expected);
    }
    done
}

/// Folders of the video renditions, best first.
fn variants(done: &Done) -> Vec<String> {
    let master = done.text("master.m3u8");
    let paths = master.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    paths.map(|path| path.split_once('/').unwrap().0.to_owned()).collect()
}

/// How much longer the sound of a source lasts than its picture, by the packets whose times it tells.
fn surplus(input: &Path) -> f64 {
    let lines = entries(input, "-show_entries packet=codec_type,pts_time,duration_time");
    let ends = |kind: &str| {
        let of_kind = lines.iter().filter_map(|line| line.strip_prefix(kind)?.split_once(','));
        let ends =
            of_kind.filter_map(|(at, length)| Some(at.parse::<f64>().ok()? + length.parse::<f64>().unwrap_or(0.0)));
        ends.fold(0.0, f64::max)
    };
    (ends("audio,") - ends("video,")).max(0.0)
}

/// Returns the keyframes' times.
fn check_mp4(mp4: &Path, expected: &Expected, surplus: f64) -> Vec<f64> {
    check_length(mp4, expected);
    let packets = packets(mp4);
    let video: Vec<&Packet> = packets.iter().filter(|packet| packet.kind == "video").collect();
    let audio: Vec<&Packet> = packets.iter().filter(|packet| packet.kind == "audio").collect();
    assert_eq!(audio.is_empty(), expected.sound == Sound::None, "{} packets of sound", audio.len());
    if !audio.is_empty() {
        let (starts, ends) = (start(&video) - start(&audio), end(&video) - end(&audio));
        assert!(starts.abs() <= TOGETHER_S, "the sound starts {starts} s before the picture");
        let late = TOGETHER_S.max(frame(expected));
        assert!(ends <= late && -ends <= late + surplus, "the sound ends {ends} s before the picture");
    }
    let keys = keyframe_times(&packets);
    assert!(keys[0].abs() < 0.001, "the first keyframe is at {} s", keys[0]);
    let gaps = keys.windows(2).map(|pair| pair[1] - pair[0]).chain([end(&video) - keys[keys.len() - 1]]);
    let longest = gaps.fold(0.0, f64::max);
    assert!(longest <= KEYFRAMES_S + frame(expected), "{longest} s without a keyframe: {keys:?}");
    keys
}

fn check_length(mp4: &Path, expected: &Expected) {
    let actual = seconds(mp4);
    assert!((actual - expected.seconds).abs() <= LENGTH_S, "{}: {actual} s", mp4.display());
    assert_decodes_quietly(mp4);
}

/// As browsers, phones and televisions take it.
fn check_picture(mp4: &Path, expected: &Expected) {
    let entries_of =
        "-select_streams v -show_entries stream=codec_name,width,height,sample_aspect_ratio,pix_fmt,r_frame_rate";
    let (width, height) = expected.size;
    let wanted = format!("h264,{width},{height},1:1,yuv420p,{}", expected.fps);
    assert_eq!(entries(mp4, entries_of), [wanted]);
    let colours = entries(mp4, "-select_streams v -show_entries stream=color_range,color_transfer").join(",");
    assert!(
        !colours.contains("pc") && !colours.contains("smpte2084") && !colours.contains("arib-std-b67"),
        "{colours}"
    );
}

/// Every segment starts with a keyframe, and starts when the playlist says so.
fn check_segments(done: &Done, web: &Path, variant: &str, keys: &[f64]) {
    let playlist = done.text(&format!("{variant}/playlist.m3u8"));
    let mut at = 0.0;
    let mut length = 0.0;
    for line in playlist.lines() {
        if let Some(rest) = line.strip_prefix("#EXTINF:") {
            length = rest.trim_end_matches(',').parse::<f64>().unwrap();
        } else if !line.starts_with('#') {
            assert!(keys.iter().any(|key| (key - at).abs() < 0.002), "{variant}/{line} starts at {at} s: {keys:?}");
            let mut bytes = done.bytes(&format!("{variant}/init.mp4"));
            bytes.extend(done.bytes(&format!("{variant}/{line}")));
            let alone = web.join("alone.mp4");
            std::fs::write(&alone, bytes).unwrap();
            let first = packets(&alone).swap_remove(0);
            assert!(first.key && (first.at - at).abs() < 0.002, "{variant}/{line} starts with {first:?}");
            at += length;
        }
    }
    assert!(at > 0.0, "{playlist}");
}

#[derive(Debug)]
struct Packet {
    kind: String,
    at: f64,
    length: f64,
    key: bool,
}

fn packets(path: &Path) -> Vec<Packet> {
    let lines = entries(path, "-show_entries packet=codec_type,pts_time,duration_time,flags");
    let packet = |line: &String| {
        let fields: Vec<&str> = line.split(',').collect();
        let at = fields[1].parse().unwrap_or_else(|_| panic!("{line} of {}", path.display()));
        // The packet that the edit list shortens has no length for ffprobe; it is never the last.
        let length = fields[2].parse().unwrap_or(0.0);
        Packet { kind: fields[0].to_owned(), at, length, key: fields[3].starts_with('K') }
    };
    lines.iter().map(packet).collect()
}

fn keyframe_times(packets: &[Packet]) -> Vec<f64> {
    packets.iter().filter(|packet| packet.kind == "video" && packet.key).map(|packet| packet.at).collect()
}

fn start(packets: &[&Packet]) -> f64 {
    packets.iter().map(|packet| packet.at).fold(f64::INFINITY, f64::min)
}

fn end(packets: &[&Packet]) -> f64 {
    packets.iter().map(|packet| packet.at + packet.length).fold(0.0, f64::max)
}

/// How long a picture stands.
fn frame(expected: &Expected) -> f64 {
    let (num, den) = expected.fps.split_once('/').unwrap();
    den.parse::<f64>().unwrap() / num.parse::<f64>().unwrap()
}

/// Decodes everything and stops at the first error; what FFmpeg says must be nothing.
fn assert_decodes_quietly(path: &Path) {
    let ended = tool("ffmpeg", "-v error -xerror -i PATH -map 0 -f null -", path);
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{}", path.display());
    assert!(ended.status.success(), "{}: {}", path.display(), ended.status);
}

/// Brighter on the average than the test picture ever is.
const FLASH_LUMA: f64 = 190.0;

/// Each time that the picture turns white, and each beep's first sample.
fn check_together(mp4: &Path, expected: &Expected) {
    let look = "-v info -i PATH -vf signalstats,metadata=print:key=lavfi.signalstats.YAVG -af silencedetect=n=-30dB:d=0.1 -f null -";
    let said = String::from_utf8_lossy(&tool("ffmpeg", look, mp4).stderr).into_owned();
    let (mut at, mut white, mut flashes, mut beeps) = (0.0, false, Vec::new(), Vec::new());
    for line in said.lines() {
        at = after(line, "pts_time:").unwrap_or(at);
        if let Some(luma) = after(line, "YAVG=") {
            if luma > FLASH_LUMA && !white {
                flashes.push(at);
            }
            white = luma > FLASH_LUMA;
        }
        // Silence ends with the film as well.
        beeps.extend(after(line, "silence_end: ").filter(|end| *end < expected.seconds - LENGTH_S));
    }
    let together = |(flash, beep): (&f64, &f64)| (flash - beep).abs() <= TOGETHER_S.max(frame(expected));
    let all = flashes.len() == beeps.len() && flashes.iter().zip(&beeps).all(together);
    assert!(all && !flashes.is_empty(), "flashes at {flashes:?} s, beeps at {beeps:?} s");
}

fn after(line: &str, sign: &str) -> Option<f64> {
    line.split_once(sign)?.1.split([' ', '\r']).next()?.parse().ok()
}

macro_rules! films {
    ($($(#[$attribute:meta])* $name:ident: $size:expr, $fps:literal, $seconds:literal s, $sound:ident, $steps:expr;)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test]
            async fn $name() {
                check(&$steps, Expected { size: $size, fps: $fps, seconds: $seconds, sound: Sound::$sound }).await;
            }
        )*
    };
}

films! {
    // How the picture is held, shaped and timed.
    turned_by_a_phone: (144, 256), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP X264 -c:a aac PATH", "b.mp4: -i IN -c copy -metadata:s:v:0 rotate=90 PATH"];
    upside_down: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP X264 -c:a aac PATH", "b.mov: -i IN -c copy -metadata:s:v:0 rotate=180 PATH"];
    portrait: (144, 256), "30/1", 5.0 s, Beep, ["a.mp4: PIC:144x256:30 BEEP X264 -c:a aac PATH"];
    anamorphic_pixels: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:180x144:25 BEEP X264 -vf setsar=64/45 -c:a aac PATH"];
    odd_sides: (250, 142), "25/1", 5.0 s, Beep,
        ["a.mkv: PIC:251x143:25 BEEP -c:v libx264 -preset ultrafast -pix_fmt yuv444p -c:a aac PATH"];
    tiny: (32, 18), "25/1", 5.0 s, Beep, ["a.mp4: PIC:32x18:25 BEEP X264 -c:a aac PATH"];
    wider_than_cinema: (336, 144), "24/1", 5.0 s, Beep, ["a.mp4: PIC:336x144:24 BEEP X264 -c:a aac PATH"];
    variable_frame_rate: (256, 144), "30/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:30 BEEP -vf select=lt(n\\,60)+not(mod(n\\,3)) -vsync vfr X264 -c:a aac PATH"];
    two_pictures_a_second: (256, 144), "2/1", 5.0 s, Beep, ["a.mp4: PIC:256x144:2 BEEP X264 -c:a aac PATH"];
    a_picture_every_two_seconds: (256, 144), "1/1", 6.0 s, None,
        ["a.mp4: -f lavfi -i testsrc=s=256x144:r=1/2:d=6 X264 PATH"];
    slow_motion_of_120_pictures: (256, 144), "60/1", 5.0 s, Beep, ["a.mp4: PIC:256x144:120 BEEP X264 -c:a aac PATH"];
    american_broadcast_rate: (256, 144), "30000/1001", 5.0 s, Beep, ["a.mp4: PIC:256x144:30000/1001 BEEP X264 -c:a aac PATH"];
    a_single_picture: (256, 144), "25/1", 0.04 s, None, ["a.mp4: PIC:256x144:25 X264 -frames:v 1 PATH"];
    a_fifth_of_a_second: (256, 144), "25/1", 0.2 s, Hum,
        ["a.mp4: PIC:256x144:25 -f lavfi -i sine=440 X264 -c:a aac -t 0.2 PATH"];
    interlaced: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:50 BEEP -vf interlace X264 -flags +ilme+ildct -x264opts tff=1 -c:a aac PATH"];

    // How its colours are stored.
    ten_bits: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le -c:a aac PATH"];
    high_dynamic_range: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libx265 -x265-params log-level=error:pools=1 -preset ultrafast -pix_fmt yuv420p10le \
          -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -tag:v hvc1 -c:a aac PATH"];
    hybrid_log_gamma: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mov: PIC:256x144:25 BEEP -c:v libx265 -x265-params log-level=error:pools=1 -preset ultrafast -pix_fmt yuv420p10le \
          -color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc -tag:v hvc1 -c:a aac PATH"];
    full_colour: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libx264 -preset ultrafast -pix_fmt yuv444p -c:a aac PATH"];
    full_range: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libx264 -preset ultrafast -pix_fmt yuvj420p -c:a aac PATH"];
    red_green_blue: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mkv: PIC:256x144:25 BEEP -c:v libx264rgb -preset ultrafast -pix_fmt rgb24 -c:a flac PATH"];
    see_through: (256, 144), "25/1", 5.0 s, Beep, ["a.mov: PIC:256x144:25 BEEP -c:v qtrle -pix_fmt argb -c:a pcm_s16le PATH"];

    // What it sounds like.
    surround: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP X264 -af pan=5.1|FC=c0 -c:a ac3 PATH"];
    eight_channels: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mkv: PIC:256x144:25 BEEP X264 -af pan=7.1|SL=c0|SR=c0 -c:a flac PATH"];
    one_channel: (256, 144), "25/1", 5.0 s, Beep, ["a.mp4: PIC:256x144:25 BEEP X264 -ac 1 -c:a aac PATH"];
    half_the_sampling_rate: (256, 144), "25/1", 5.0 s, Beep, ["a.mp4: PIC:256x144:25 BEEP X264 -ar 22050 -c:a aac PATH"];
    twice_the_sampling_rate: (256, 144), "25/1", 5.0 s, Beep, ["a.mov: PIC:256x144:25 BEEP X264 -ar 96000 -c:a pcm_s24le PATH"];
    no_sound: (256, 144), "25/1", 5.0 s, None, ["a.mp4: PIC:256x144:25 X264 PATH"];
    three_languages: (256, 144), "25/1", 5.0 s, Beep, [THREE_LANGUAGES];

    // When it starts and ends.
    sound_starts_late: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 -itsoffset 0.7 -f lavfi -i aevalsrc=0.8*sin(5000*t)*gte(t\\,0.3):d=4.3:s=48000 X264 -c:a aac PATH"];
    sound_ends_early: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 -t 2.5 BEEP X264 -c:a aac PATH"];
    sound_ends_early_in_matroska: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mkv: PIC:256x144:25 -t 2.5 BEEP X264 -c:a libvorbis PATH"];
    sound_ends_early_in_a_transport_stream: (256, 144), "25/1", 5.0 s, Beep,
        ["a.ts: PIC:256x144:25 -t 2.5 BEEP X264 -c:a aac PATH"];
    picture_starts_late: (256, 144), "25/1", 5.5 s, Hum,
        ["a.mp4: -itsoffset 0.5 PIC:256x144:25 -f lavfi -i sine=440:d=5.5 X264 -c:a aac PATH"];
    picture_starts_late_in_matroska: (256, 144), "25/1", 5.5 s, Hum,
        ["a.mkv: -itsoffset 0.5 PIC:256x144:25 -f lavfi -i sine=440:d=5.5 X264 -c:a libopus PATH"];
    starts_before_zero: (256, 144), "25/1", 4.5 s, Beep,
        ["a.mkv: PIC:256x144:25 BEEP X264 -c:a aac PATH", "b.mov: -i IN -c copy -output_ts_offset -0.5 -avoid_negative_ts disabled PATH"];
    starts_before_zero_in_matroska: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mkv: PIC:256x144:25 BEEP X264 -c:a aac PATH", "b.mkv: -i IN -c copy -output_ts_offset -0.5 -avoid_negative_ts disabled PATH"];
    starts_an_hour_in: (256, 144), "25/1", 5.0 s, Beep,
        ["a.ts: PIC:256x144:25 BEEP X264 -c:a aac -output_ts_offset 3600 PATH"];
    open_groups_of_pictures: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libx264 -preset veryfast -bf 3 -x264opts \
          open-gop=1:keyint=20:b-pyramid=normal -pix_fmt yuv420p -c:a aac PATH"];
    cut_in_a_phones_editor: (256, 144), "25/1", 4.0 s, Hum,
        ["a.mp4: PIC:256x144:25 -f lavfi -i sine=440:d=5 -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac PATH",
         "b.mp4: -ss 1 -i IN -c copy PATH"];

    // What it is wrapped in.
    transport_stream: (256, 144), "25/1", 5.0 s, Beep, ["a.ts: PIC:256x144:25 BEEP X264 -bf 2 -c:a mp2 PATH"];
    camcorder_stream: (256, 144), "25/1", 5.0 s, Beep,
        ["a.m2ts: PIC:256x144:25 BEEP X264 -c:a ac3 -mpegts_m2ts_mode 1 PATH"];
    program_stream: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mpg: PIC:256x144:25 BEEP -c:v mpeg2video -bf 2 -b:v 1M -c:a mp2 PATH"];
    studio_mpeg2: (256, 144), "25/1", 5.0 s, Beep,
        ["a.ts: PIC:256x144:25 BEEP -c:v mpeg2video -pix_fmt yuv422p -b:v 4M -flags +ildct+ilme -top 1 -c:a mp2 PATH"];
    avi: (256, 144), "25/1", 5.0 s, Beep, ["a.avi: PIC:256x144:25 BEEP -c:v mpeg4 -b:v 1M -c:a libmp3lame PATH"];
    avi_with_b_frames: (256, 144), "25/1", 5.0 s, Beep,
        ["a.avi: PIC:256x144:25 BEEP -c:v mpeg4 -bf 2 -b:v 1M -c:a libmp3lame PATH"];
    digital_video: (768, 576), "25/1", 2.0 s, Beep,
        ["a.avi: PIC:720x576:25 BEEP -t 2 -c:v dvvideo -pix_fmt yuv420p -aspect 4:3 -c:a pcm_s16le PATH"];
    flash_video: (256, 144), "25/1", 5.0 s, Beep, ["a.flv: PIC:256x144:25 BEEP -c:v flv -b:v 1M -ar 44100 -c:a libmp3lame PATH"];
    streamed_flash_video: (256, 144), "25/1", 5.0 s, Beep, ["a.flv: PIC:256x144:25 BEEP X264 -c:a aac -flvflags no_duration_filesize PATH"];
    theora: (256, 144), "25/1", 5.0 s, Beep, ["a.ogv: PIC:256x144:25 BEEP -c:v libtheora -b:v 1M -c:a libvorbis PATH"];
    recorded_by_a_browser: (256, 144), "25/1", 5.0 s, Beep,
        ["a.webm: PIC:256x144:25 BEEP -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 300k -c:a libopus -live 1 PATH"];
    webm_of_old: (256, 144), "25/1", 5.0 s, Beep,
        ["a.webm: PIC:256x144:25 BEEP -c:v libvpx -deadline realtime -cpu-used 8 -b:v 300k -c:a libvorbis PATH"];
    av1: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP -c:v libsvtav1 -preset 12 -svtav1-params lp=1 -pix_fmt yuv420p -c:a libopus PATH"];
    windows_media: (256, 144), "25/1", 5.0 s, Beep, ["a.wmv: PIC:256x144:25 -t 4.95 BEEP -c:v wmv2 -b:v 1M -c:a wmav2 PATH"];
    old_phone: (176, 144), "25/1", 5.0 s, Beep, ["a.3gp: PIC:176x144:25 BEEP -c:v h263 -b:v 500k -c:a aac PATH"];
    motion_jpeg: (256, 144), "25/1", 5.0 s, Beep, ["a.mov: PIC:256x144:25 BEEP -c:v mjpeg -pix_fmt yuvj422p -c:a pcm_s16le PATH"];
    prores: (256, 144), "25/1", 5.0 s, Beep, ["a.mov: PIC:256x144:25 BEEP -c:v prores_ks -c:a pcm_s24le PATH"];
    fragmented: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mp4: PIC:256x144:25 BEEP X264 -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof -g 25 PATH"];
    with_attachments: (256, 144), "25/1", 5.0 s, Beep,
        ["font.ttf: -f lavfi -i sine -t 0.1 -f u8 PATH",
         "a.mkv: PIC:256x144:25 BEEP X264 -c:a aac -attach IN -metadata:s:t:0 mimetype=application/x-truetype-font PATH"];
    with_a_cover: (256, 144), "25/1", 5.0 s, Beep,
        ["cover.png: -f lavfi -i testsrc=s=300x300 -frames:v 1 PATH",
         "a.mp4: PIC:256x144:25 BEEP -i IN -map 2 -map 0 -map 1 -c:v:0 copy -c:v:1 libx264 -preset:v:1 ultrafast -pix_fmt:v:1 yuv420p \
          -disposition:v:0 attached_pic -c:a aac PATH"];
    with_chapters_and_a_data_stream: (256, 144), "25/1", 5.0 s, Beep,
        ["a.mov: PIC:256x144:25 BEEP X264 -timecode 01:00:00:00 -c:a aac PATH"];
}

const THREE_LANGUAGES: &str = "a.mkv: PIC:256x144:25 BEEP BEEP BEEP -map 0 -map 1 -map 2 -map 3 X264 -c:a aac \
    -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:a:2 language=fra PATH";

async fn check_beeping(input: &Path, seconds: f64) -> Done {
    let web = tempfile::tempdir().unwrap();
    let expected = Expected { size: (256, 144), fps: "25/1", seconds, sound: Sound::Beep };
    check_film(input, web.path(), &expected).await
}

fn subtitles(dir: &TempDir) -> String {
    let path = dir.path().join("words.srt");
    std::fs::write(
        &path,
        "1\n00:00:01,000 --> 00:00:02,000\nBeep!\n\n2\n00:00:03,000 --> 00:00:04,000\n<i>Quiet.</i>\n",
    )
    .unwrap();
    path.display().to_string()
}

fn with_subtitles(dir: &TempDir, name: &str, codec: &str) -> PathBuf {
    let words = subtitles(dir);
    let step = format!(
        "{name}: PIC:256x144:25 BEEP -i {words} -i {words} -i {words} -map 0 -map 1 -map 2 -map 3 -map 4 X264 -c:a aac -c:s {codec} \
         -metadata:s:s:0 language=eng -metadata:s:s:1 language=ger -metadata:s:s:2 language=fra PATH"
    );
    film(dir, &[&step])
}

#[tokio::test]
async fn subtitles_in_three_languages() {
    let dir = tempfile::tempdir().unwrap();
    check_beeping(&with_subtitles(&dir, "a.mkv", "srt"), 5.0).await;
    check_beeping(&with_subtitles(&dir, "a.mp4", "mov_text"), 5.0).await;
}

#[tokio::test]
async fn viewers_can_choose_between_the_languages() {
    let dir = tempfile::tempdir().unwrap();
    let done = pipeline(&film(&dir, &[THREE_LANGUAGES])).await.unwrap();
    let master = done.text("master.m3u8");
    for language in ["en", "de", "fr"] {
        assert!(master.contains(&format!("LANGUAGE=\"{language}\"")), "{language} in {master}");
    }
}

#[tokio::test]
async fn viewers_can_choose_between_the_subtitles() {
    let dir = tempfile::tempdir().unwrap();
    let done = pipeline(&with_subtitles(&dir, "a.mkv", "srt")).await.unwrap();
    let master = done.text("master.m3u8");
    let lines: Vec<&str> = master.lines().filter(|line| line.contains("TYPE=SUBTITLES")).collect();
    assert_eq!(lines.len(), 3, "{master}");
    for (line, language) in lines.iter().zip(["en", "de", "fr"]) {
        assert!(line.contains(&format!("LANGUAGE=\"{language}\"")), "{language} in {line}");
    }
}

/// Recordings of television change their picture and their clock without notice.
#[tokio::test]
async fn a_transport_stream_that_changes_its_picture_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let first = film(&dir, &["a.ts: PIC:256x144:25 BEEP X264 -t 3 -c:a aac PATH"]);
    let second = film(&dir, &["b.ts: PIC:320x240:25 BEEP X264 -t 2 -c:a aac -output_ts_offset 3 PATH"]);
    let mut both = std::fs::read(first).unwrap();
    both.extend(std::fs::read(second).unwrap());
    let joined = dir.path().join("joined.ts");
    std::fs::write(&joined, both).unwrap();
    check_beeping(&joined, 5.0).await;
}

#[tokio::test]
async fn a_transport_stream_whose_clock_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let part = std::fs::read(film(&dir, &["a.ts: PIC:256x144:25 BEEP X264 -t 3 -c:a aac PATH"])).unwrap();
    let joined = dir.path().join("joined.ts");
    std::fs::write(&joined, [part.as_slice(), part.as_slice()].concat()).unwrap();
    check_beeping(&joined, 6.0).await;
}

#[tokio::test]
async fn colours_are_kept_from_white_to_black() {
    let dir = tempfile::tempdir().unwrap();
    let halves = "color=c=white:s=128x144:r=25:d=2,pad=256:144:0:0:black";
    for (name, format) in
        [("tv.mp4", "yuv420p"), ("pc.mp4", "yuvj420p"), ("pc10.mp4", "yuv422p10le"), ("rgb.mp4", "rgb24")]
    {
        let encoder = if format == "rgb24" { "libx264rgb" } else { "libx264" };
        let args = format!("-f lavfi -i {halves} -c:v {encoder} -qp 0 -preset ultrafast -pix_fmt {format} PATH");
        let done = pipeline(&common::make(&dir, name, &args)).await.unwrap();
        let web = tempfile::tempdir().unwrap();
        done.write(web.path());
        let look = "-v info -i PATH -frames:v 1 -vf signalstats,metadata=print -f null -";
        let said = String::from_utf8_lossy(&tool("ffmpeg", look, &web.path().join("144p.mp4")).stderr).into_owned();
        let luma = |sign: &str| said.lines().find_map(|line| after(line, sign)).unwrap_or_else(|| panic!("{said}"));
        let (black, white) = (luma("signalstats.YLOW="), luma("signalstats.YHIGH="));
        assert!((black - 16.0).abs() <= 2.0 && (white - 235.0).abs() <= 2.0, "{name}: {black} to {white}");
    }
}
