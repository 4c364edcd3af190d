//! Asks ffprobe what a file holds.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::confine::Confinement;
use crate::fps;
use crate::language;
use crate::limits::Limits;
use crate::mp4;
use crate::process::command;
use crate::refusal::{self, ProbeError};
use crate::source::{AudioStream, Hdr, Rational, Source, SubtitleStream, VideoStream};

/// Demuxers that may be opened: containers that hold everything themselves. Playlists (`hls`, `dash`, `concat`) and pictures
/// (`image2`, `*_pipe`) are not among them.
pub(crate) const FORMATS: &str = "mov,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf";

/// Describes a file, or says why it is refused.
///
/// # Errors
/// [`ProbeError`]; its [`kind`](ProbeError::kind) is the problem type for the upload's status. A file that is cut short in the
/// middle may pass here and be refused by [`crate::run`], which reads all of it.
pub async fn probe(path: &Path, limits: &Limits) -> Result<Source, ProbeError> {
    let path = std::path::absolute(path).map_err(|e| ProbeError::io("find the file", e))?;
    let head = look(path.clone()).await?;
    let (ok, stdout, stderr) = ffprobe(&path, limits).await?;
    if !ok {
        return Err(refusal::from_ffprobe(&stderr, &head.bytes));
    }
    if head.cut_short {
        return Err(ProbeError::Damaged("the end of the file is missing".to_owned()));
    }
    let answer: Answer = serde_json::from_slice(&stdout)?;
    let mut source = describe(&answer, &stderr)?;
    check_size(&source.video, limits)?;
    if source.duration.is_zero() {
        let sound = source.audio.first().filter(|_| source.video.still).map(|a| a.index);
        source.duration = measure(&path, sound.unwrap_or(source.video.index), limits).await?;
    }
    check_duration(source.duration, limits)?;
    if source.video.hdr.is_some() {
        check_tone_mapping(limits).await?;
    }
    Ok(source)
}

/// The input as FFmpeg is told it: always the `file` protocol, whatever the name contains.
pub(crate) fn input_url(path: &Path) -> std::ffi::OsString {
    let mut url = std::ffi::OsString::from("file:");
    url.push(path);
    url
}

/// What the file says before any program looks.
struct Head {
    bytes: Vec<u8>,
    cut_short: bool,
}

/// Enough for the magic numbers, two packets of a transport stream included.
const HEAD_BYTES: u64 = 512;

async fn look(path: PathBuf) -> Result<Head, ProbeError> {
    let looked = tokio::task::spawn_blocking(move || look_blocking(&path)).await;
    let head = looked.map_err(std::io::Error::other).and_then(|r| r).map_err(|e| ProbeError::io("read the file", e))?;
    if head.bytes.is_empty() { Err(ProbeError::Empty) } else { Ok(head) }
}

fn look_blocking(path: &Path) -> std::io::Result<Head> {
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = Vec::new();
    (&file).take(HEAD_BYTES).read_to_end(&mut bytes)?;
    let cut_short = bytes.get(4..8) == Some(b"ftyp") && is_cut_short(&mut file, len)?;
    Ok(Head { bytes, cut_short })
}

/// Top-level boxes that are looked at. A fragmented film has two a fragment; the media box of others is among the first.
const MAX_BOXES: u32 = 10_000;

/// Whether the last media box of an MP4 reaches past the end of the file. Cheap: only headers are read.
fn is_cut_short(file: &mut std::fs::File, len: u64) -> std::io::Result<bool> {
    let mut at = 0u64;
    for _ in 0..MAX_BOXES {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.take(mp4::MAX_HEADER as u64).read_to_end(&mut start)?;
        let Ok(head) = mp4::header(&start) else { return Ok(false) };
        let Some(end) = head.size.and_then(|size| at.checked_add(size)) else { return Ok(false) };
        if end > len {
            return Ok(head.kind == *b"mdat");
        }
        at = end;
    }
    Ok(false)
}

/// ffprobe's answer for a file with thousands of streams stays below this.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// Of the messages only the beginning matters.
const MAX_MESSAGE_BYTES: u64 = 64 << 10;
const ENTRIES: &str = "format=format_name,duration:\
stream=index,codec_type,codec_name,width,height,pix_fmt,color_transfer,r_frame_rate,avg_frame_rate,sample_aspect_ratio,field_order,\
duration,channels,sample_rate:\
stream_tags=language,DURATION:stream_disposition=default,attached_pic,forced,comment,hearing_impaired:stream_side_data=rotation";

async fn ffprobe(path: &Path, limits: &Limits) -> Result<(bool, Vec<u8>, String), ProbeError> {
    let mut command = command(&limits.tools.ffprobe, limits, limits.probe_timeout);
    command.args(["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS]);
    command.args(["-of", "json", "-show_entries", ENTRIES, "-i"]).arg(input_url(path));
    let confinement = Confinement::new(limits.confined, &limits.tools.ffprobe, Some(path), None);
    collect(command, confinement, limits.probe_timeout).await
}

/// Runs a program to its end and keeps the beginning of what it says.
async fn collect(
    command: tokio::process::Command,
    confinement: Confinement,
    timeout: Duration,
) -> Result<(bool, Vec<u8>, String), ProbeError> {
    let failed = |e| ProbeError::io("run ffprobe", e);
    let mut running = confinement.spawn(command).await.map_err(failed)?;
    let child = &mut running.child;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(beginning(stdout, MAX_ANSWER_BYTES), beginning(stderr, MAX_MESSAGE_BYTES));
        Ok((child.wait().await?, out?, err?))
    };
    let ended: std::io::Result<_> = match tokio::time::timeout(timeout, work).await {
        Ok(ended) => ended,
        Err(_) => {
            child.kill().await.map_err(failed)?;
            return Err(ProbeError::TimedOut(timeout));
        }
    };
    let (status, out, err) = ended.map_err(failed)?;
    // `nice` and `prlimit` answer so when the program is not there.
    if matches!(status.code(), Some(126 | 127)) {
        return Err(failed(std::io::Error::other(String::from_utf8_lossy(&err).trim().to_owned())));
    }
    Ok((status.success(), out, String::from_utf8_lossy(&err).into_owned()))
}

/// The first `max` bytes; the rest is read and dropped, so that the writer never waits.
async fn beginning(pipe: Option<impl tokio::io::AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(kept) };
    (&mut pipe).take(max).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// Recordings straight from a browser name no duration: all packets are read once, without decoding.
async fn measure(path: &Path, stream: u32, limits: &Limits) -> Result<Duration, ProbeError> {
    let mut command = command(&limits.tools.ffmpeg, limits, limits.probe_timeout * MEASURE_FACTOR);
    command.args(["-nostdin", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i"]);
    command.arg(input_url(path)).args(["-map", &format!("0:{stream}"), "-c", "copy", "-f", "null"]);
    command.args(["-progress", "pipe:1", "-nostats", "-stats_period", "5", "-"]);
    let confinement = Confinement::new(limits.confined, &limits.tools.ffmpeg, Some(path), None);
    let (_, out, stderr) = collect(command, confinement, limits.probe_timeout * MEASURE_FACTOR).await?;
    let text = String::from_utf8_lossy(&out);
    let last = text.lines().rev().find_map(|l| l.strip_prefix("out_time_us=")?.parse().ok());
    match last {
        Some(us) if us > 0 => Ok(Duration::from_micros(us)),
        _ => Err(ProbeError::Damaged(refusal::damage(&stderr).unwrap_or("no picture in it can be read").to_owned())),
    }
}

/// Filters that [`crate::run`] needs for a high dynamic range. FFmpeg has the first only when it was built with libzimg.
const TONE_MAPPING: [&str; 2] = ["zscale", "tonemap"];

/// Without tone mapping such a film would come out pale and grey, so it is refused where that is missing.
async fn check_tone_mapping(limits: &Limits) -> Result<(), ProbeError> {
    let mut command = command(&limits.tools.ffmpeg, limits, limits.probe_timeout);
    command.args(["-hide_banner", "-filters"]);
    let confinement = Confinement::new(limits.confined, &limits.tools.ffmpeg, None, None);
    let (_, out, _) = collect(command, confinement, limits.probe_timeout).await?;
    let text = String::from_utf8_lossy(&out);
    let is_there = |filter: &str| text.lines().any(|line| line.split_whitespace().nth(1) == Some(filter));
    match TONE_MAPPING.iter().find(|filter| !is_there(filter)) {
        None => Ok(()),
        Some(missing) => Err(ProbeError::Unsupported(format!(
            "a high dynamic range (HDR), for which the FFmpeg of this node lacks the filter {missing}"
        ))),
    }
}

/// Reading a whole file takes longer than looking at its head. Guess.
const MEASURE_FACTOR: u32 = 10;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    duration: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stream {
    index: u32,
    codec_type: String,
    codec_name: String,
    width: u32,
    height: u32,
    pix_fmt: String,
    color_transfer: String,
    r_frame_rate: String,
    avg_frame_rate: String,
    sample_aspect_ratio: String,
    field_order: String,
    duration: Option<String>,
    channels: u32,
    sample_rate: String,
    tags: Tags,
    disposition: Disposition,
    side_data_list: Vec<SideData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tags {
    language: Option<String>,
    #[serde(rename = "DURATION")]
    duration: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Disposition {
    default: u8,
    attached_pic: u8,
    forced: u8,
    comment: u8,
    hearing_impaired: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SideData {
    rotation: Option<f64>,
}

fn describe(answer: &Answer, stderr: &str) -> Result<Source, ProbeError> {
    let audio = audio(&answer.streams);
    let is_video = |s: &Stream, covers: u8| s.codec_type == "video" && s.disposition.attached_pic == covers;
    let film = chosen(&answer.streams, |s| is_video(s, 0));
    let cover = chosen(&answer.streams, |s| is_video(s, 1)).filter(|_| !audio.is_empty());
    let Some(video) = film.or(cover) else {
        let what = if answer.streams.iter().any(|s| s.codec_type == "audio") {
            "it holds sound, but neither a film nor a cover picture to show with it"
        } else {
            "it holds no video stream"
        };
        return Err(ProbeError::NotAVideo(what.to_owned()));
    };
    let mut video = video_stream(video, stderr)?;
    let whole = answer.format.duration.as_deref().and_then(seconds);
    // A stream is no longer than its file. The limit is compared with the file's length, and sound is filled up to the stream's.
    video.duration = video.duration.map(|own| own.min(whole.unwrap_or(own)));
    Ok(Source {
        container: answer.format.format_name.clone(),
        duration: whole.or(video.duration).unwrap_or_default(),
        audio,
        subtitles: subtitles(&answer.streams),
        video,
    })
}

/// Most audio streams that are taken: each costs an encoder.
const MAX_AUDIO: usize = 8;

fn audio(streams: &[Stream]) -> Vec<AudioStream> {
    let fits = |s: &Stream| s.codec_type == "audio" && !s.codec_name.is_empty() && s.channels > 0;
    let first = chosen(streams, fits);
    let rest = streams.iter().filter(|s| fits(s) && first.is_some_and(|f| f.index != s.index));
    first.into_iter().chain(rest).take(MAX_AUDIO).map(audio_stream).collect()
}

/// Subtitles that are text. Pictures of text cannot become WebVTT.
const TEXT_CODECS: &[&str] = &["subrip", "ass", "ssa", "mov_text", "webvtt", "text"];
/// Most subtitle streams that are taken. More than the languages of most discs.
const MAX_SUBTITLES: usize = 16;

fn subtitles(streams: &[Stream]) -> Vec<SubtitleStream> {
    let text = streams.iter().filter(|s| s.codec_type == "subtitle" && TEXT_CODECS.contains(&s.codec_name.as_str()));
    text.take(MAX_SUBTITLES).map(subtitle_stream).collect()
}

/// The stream that players take: the one marked as default, else the first.
fn chosen(streams: &[Stream], fits: impl Fn(&Stream) -> bool) -> Option<&Stream> {
    let marked = streams.iter().find(|s| fits(s) && s.disposition.default == 1);
    marked.or_else(|| streams.iter().find(|s| fits(s)))
}

fn video_stream(stream: &Stream, stderr: &str) -> Result<VideoStream, ProbeError> {
    if matches!(stream.codec_name.as_str(), "" | "unknown" | "none") {
        return Err(ProbeError::Unsupported("its video codec is not known here".to_owned()));
    }
    if stream.width == 0 || stream.height == 0 || stream.pix_fmt.is_empty() {
        let why = refusal::damage(stderr).unwrap_or("no picture in it can be read");
        return Err(ProbeError::Damaged(why.to_owned()));
    }
    let base = Rational::parse(&stream.r_frame_rate);
    let still = stream.disposition.attached_pic != 0;
    let own = stream.duration.as_deref().and_then(seconds);
    let own = own.or_else(|| stream.tags.duration.as_deref().and_then(clock));
    Ok(VideoStream {
        index: stream.index,
        codec: stream.codec_name.clone(),
        still,
        width: stream.width,
        height: stream.height,
        rotation: rotation(stream),
        fps: fps::of_stream(base, Rational::parse(&stream.avg_frame_rate)),
        pix_fmt: stream.pix_fmt.clone(),
        hdr: match stream.color_transfer.as_str() {
            "smpte2084" => Some(Hdr::Pq),
            "arib-std-b67" => Some(Hdr::Hlg),
            _ => None,
        },
        sar: Rational::parse(&stream.sample_aspect_ratio).unwrap_or(Rational { num: 1, den: 1 }),
        interlaced: matches!(stream.field_order.as_str(), "tt" | "bb" | "tb" | "bt"),
        // A cover lasts as long as the sound.
        duration: own.filter(|_| !still),
    })
}

fn audio_stream(stream: &Stream) -> AudioStream {
    AudioStream {
        index: stream.index,
        codec: stream.codec_name.clone(),
        channels: stream.channels,
        sample_rate: stream.sample_rate.parse().unwrap_or(0),
        language: language_of(stream),
        commentary: stream.disposition.comment != 0,
    }
}

fn subtitle_stream(stream: &Stream) -> SubtitleStream {
    SubtitleStream {
        index: stream.index,
        codec: stream.codec_name.clone(),
        language: language_of(stream),
        forced: stream.disposition.forced != 0,
        hearing_impaired: stream.disposition.hearing_impaired != 0,
    }
}

fn language_of(stream: &Stream) -> Option<String> {
    stream.tags.language.as_deref().and_then(language::bcp47)
}

/// FFmpeg counts the display matrix' angle against the clock (libavutil/display.h); quarter turns only.
fn rotation(stream: &Stream) -> u32 {
    let angle = stream.side_data_list.iter().find_map(|s| s.rotation).unwrap_or(0.0);
    let quarters = (-angle / 90.0).round() as i64;
    (quarters.rem_euclid(4) * 90) as u32
}

/// `55.125000`
fn seconds(text: &str) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(value).ok().filter(|d| !d.is_zero())
}

/// Matroska's `00:00:55.150000000`
fn clock(text: &str) -> Option<Duration> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let rest: f64 = parts.next()?.parse().ok()?;
    seconds(&format!("{}", f64::from(hours) * 3600.0 + f64::from(minutes) * 60.0 + rest))
}

/// Below this a picture holds nothing, and half of it is smaller than one block of the codec.
const MIN_SIDE: u32 = 16;
/// A side that H.264 could not carry after turning and stretching.
const MAX_ASPECT: u32 = 16;

fn check_size(video: &VideoStream, limits: &Limits) -> Result<(), ProbeError> {
    let (width, height) = (video.width, video.height);
    let (shown_width, shown_height) = video.display_size();
    let too_large = |w: u32, h: u32| u64::from(w) * u64::from(h) > limits.max_pixels;
    if too_large(width, height) || too_large(shown_width, shown_height) {
        return Err(ProbeError::TooLarge { width, height, limit: limits.max_pixels });
    }
    let (short, long) = (shown_width.min(shown_height), shown_width.max(shown_height));
    if short < MIN_SIDE || long / short >= MAX_ASPECT {
        return Err(ProbeError::Unsupported(format!("a picture of {shown_width} x {shown_height} pixels")));
    }
    Ok(())
}

fn check_duration(actual: Duration, limits: &Limits) -> Result<(), ProbeError> {
    if actual > limits.max_duration {
        return Err(ProbeError::TooLong { actual, limit: limits.max_duration });
    }
    Ok(())
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use super::*;

    fn described(json: &str) -> Result<Source, ProbeError> {
        describe(&serde_json::from_str(json).unwrap(), "")
    }

    #[test]
    fn the_default_streams_are_taken_and_covers_are_not() {
        let source = described(
            r#"{"streams": [
                {"index": 0, "codec_type": "video", "codec_name": "mjpeg", "width": 9, "height": 9, "pix_fmt": "x", "disposition": {"attached_pic": 1, "default": 1}},
                {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2, "sample_rate": "44100"},
                {"index": 2, "codec_type": "audio", "codec_name": "ac3", "channels": 6, "sample_rate": "48000", "disposition": {"default": 1}, "tags": {"language": "ger"}},
                {"index": 3, "codec_type": "video", "codec_name": "h264", "width": 720, "height": 576, "pix_fmt": "yuv420p", "sample_aspect_ratio": "64:45",
                 "r_frame_rate": "25/1", "avg_frame_rate": "25/1", "field_order": "tt", "tags": {"DURATION": "00:01:02.500000000"}, "side_data_list": [{"rotation": -90}]}
               ], "format": {"format_name": "matroska,webm", "duration": "63.0"}}"#,
        )
        .unwrap();
        assert_eq!((source.video.index, source.video.rotation, source.video.interlaced), (3, 90, true));
        assert_eq!(source.video.display_size(), (576, 1024));
        assert_eq!(source.video.duration, Some(Duration::from_millis(62_500)));
        assert_eq!(source.duration, Duration::from_secs(63));
        let audio: Vec<_> = source.audio.iter().map(|a| (a.index, a.language.as_deref())).collect();
        assert_eq!(audio, [(2, Some("de")), (1, None)]);
    }

    #[test]
    fn text_subtitles_are_taken_and_pictures_of_text_are_not() {
        let source = described(
            r#"{"streams": [
                {"index": 0, "codec_type": "video", "codec_name": "hevc", "width": 90, "height": 90, "pix_fmt": "yuv420p10le",
                 "color_transfer": "arib-std-b67"},
                {"index": 1, "codec_type": "subtitle", "codec_name": "hdmv_pgs_subtitle", "tags": {"language": "eng"}},
                {"index": 2, "codec_type": "subtitle", "codec_name": "mov_text", "disposition": {"forced": 1}, "tags": {"language": "swe"}}
               ]}"#,
        )
        .unwrap();
        assert_eq!(source.video.hdr, Some(Hdr::Hlg));
        let text: Vec<_> = source.subtitles.iter().map(|s| (s.index, s.language.as_deref(), s.forced)).collect();
        assert_eq!(text, [(2, Some("sv"), true)]);
    }

    #[test]
    fn a_cover_is_shown_where_there_is_nothing_else() {
        let cover = r#"{"index": 1, "codec_type": "video", "codec_name": "mjpeg", "width": 900, "height": 900, "pix_fmt": "yuvj444p",
                        "duration": "7", "disposition": {"attached_pic": 1}}"#;
        let sound = r#"{"index": 0, "codec_type": "audio", "codec_name": "aac", "channels": 2}"#;
        let source =
            described(&format!(r#"{{"streams": [{sound}, {cover}], "format": {{"duration": "7"}}}}"#)).unwrap();
        assert_eq!((source.video.index, source.video.still, source.video.duration), (1, true, None));
        assert!(described(&format!(r#"{{"streams": [{cover}]}}"#)).is_err());
    }

    #[test]
    fn sound_alone_is_no_video() {
        let refused =
            described(r#"{"streams": [{"codec_type": "audio", "codec_name": "mp3", "channels": 2}], "format": {}}"#);
        assert!(matches!(refused, Err(ProbeError::NotAVideo(_))));
        assert!(matches!(described("{}"), Err(ProbeError::NotAVideo(_))));
    }
}
