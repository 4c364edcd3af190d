//! The plan as one FFmpeg command line. Pure.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use crate::limits::Limits;
use crate::plan::{AudioPlan, KEYFRAME_SECONDS, Plan, Rung, SEGMENT_SECONDS, SubtitlePlan};
use crate::probe::{FORMATS, input_url};
use crate::source::Hdr;
use crate::stills::{POSTER, Poster, SHEET_SIDE, STILLS_DIR, Storyboard};

/// Name of the subtitles in their folder.
pub(crate) const SUBTITLES: &str = "subtitles.vtt";
/// Number of the first segment, also in its name.
pub(crate) const FIRST_SEGMENT: u32 = 1;
/// More broken packets and pictures than this share, and FFmpeg fails: the film would be mostly frozen. Guess.
const MAX_ERROR_RATE: &str = "0.1";

/// Arguments for FFmpeg, to be run inside the work folder. One decoder a stream, one encoder for each rendition.
///
/// The rungs are one output; everything else has its own, or a sound that begins late would keep the pictures waiting in memory.
pub(crate) fn arguments(plan: &Plan, limits: &Limits, input: &Path) -> Vec<OsString> {
    let mut args = Args::default();
    args.words("-nostdin -hide_banner -v error -nostats -progress pipe:1 -stats_period 0.5 -y");
    args.pair("-max_error_rate", MAX_ERROR_RATE);
    // `pipe` is not for the input: it stays on the list of this one protocol.
    args.words("-protocol_whitelist file -format_whitelist").word(FORMATS);
    args.pair("-max_pixels", &limits.max_pixels.to_string());
    args.word("-i").0.push(input_url(input));
    // What a file declares is not what it holds: without this a small lie could fill the disk. The picture is cut in its filters, too: the storyboard's
    // time is none of the film's.
    let longest = (limits.max_duration.as_secs() + 1).to_string();
    args.pair("-filter_complex", &picture_filters(plan, &longest));
    plan.audio.iter().enumerate().for_each(|(i, audio)| {
        args.pair("-filter_complex", &audio_filters(i, audio, plan));
    });
    let common = |args: &mut Args| {
        args.pair("-t", &longest).words("-map_metadata -1 -map_chapters -1");
    };
    video(&mut args, plan);
    common(&mut args);
    hls(&mut args, "%v").pair("-var_stream_map", &stream_map(plan)).word("%v/ffmpeg.m3u8");
    for (i, audio) in plan.audio.iter().enumerate() {
        args.pair("-map", &format!("[a{i}]")).words("-c:a aac").pair("-b:a", &audio.bps.to_string());
        common(&mut args);
        hls(&mut args, &audio.folder).word(&format!("{}/ffmpeg.m3u8", audio.folder));
    }
    for subtitles in &plan.subtitles {
        text(&mut args, subtitles);
        common(&mut args);
        args.words("-f webvtt").word(&format!("{}/{SUBTITLES}", subtitles.name));
    }
    jpeg(&mut args, "[poster]", 3);
    common(&mut args);
    args.words("-frames:v 1 -f image2 -update 1").word(&format!("{STILLS_DIR}/{POSTER}"));
    if plan.storyboard.is_some() {
        jpeg(&mut args, "[board]", 5);
        common(&mut args);
        args.words("-f image2 -start_number 1").word(&format!("{STILLS_DIR}/%04d.jpg"));
    }
    args.0
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn words(&mut self, words: &str) -> &mut Self {
        self.0.extend(words.split(' ').map(OsString::from));
        self
    }

    fn pair(&mut self, option: &str, value: &str) -> &mut Self {
        self.word(option).word(value)
    }
}

/// Both streams are made to start at 0 and to run without gaps: players of segments see no edit lists.
fn picture_filters(plan: &Plan, longest: &str) -> String {
    let mut graph = format!("[0:{}]", plan.video_index);
    let top = plan.rungs.first();
    if plan.deinterlace {
        // A fifth dearer than yadif, a twentieth of the whole, and edges that do not flicker.
        graph.push_str("bwdif=deint=interlaced,");
    }
    if let (true, Some(top)) = (plan.still, top) {
        graph.push_str(&repeated(top, plan));
    }
    let _ = write!(graph, "fps={}:start_time=0,trim=duration={longest},", plan.fps);
    if let (Some(hdr), Some(top)) = (plan.hdr, top) {
        graph.push_str(&tone_mapped(hdr, top));
    }
    let boards = usize::from(plan.storyboard.is_some());
    let _ = write!(graph, "split={}", plan.rungs.len() + 1 + boards);
    (0..plan.rungs.len()).for_each(|i| graph.push_str(&format!("[s{i}]")));
    graph.push_str("[p]");
    (0..boards).for_each(|_| graph.push_str("[b]"));
    for (i, rung) in plan.rungs.iter().enumerate() {
        let (w, h) = (rung.width, rung.height);
        let _ = write!(graph, ";[s{i}]scale={w}:{h}:out_range=tv,setsar=1,format=yuv420p[v{i}]");
    }
    graph.push_str(&poster_filters(&plan.poster));
    plan.storyboard.iter().for_each(|board| graph.push_str(&storyboard_filters(board)));
    graph
}

/// One picture, scaled once, again and again while the sound lasts.
fn repeated(top: &Rung, plan: &Plan) -> String {
    let pictures = (plan.duration.as_secs_f64() * plan.fps.value()).ceil() as u64;
    let step = 1000.0 / plan.fps.value();
    format!(
        "scale={}:{},setsar=1,format=yuv420p,loop=loop={}:size=1,settb=1/1000,setpts=N*{step:.0},",
        top.width,
        top.height,
        pictures.saturating_sub(1)
    )
}

/// Luminance in cd/m² that becomes white; what zscale's manual names for screens of standard range.
const WHITE: u32 = 100;

/// Tone mapping works on floats, which cost most of its time, so the picture is scaled before. The colours are named, since streams leave
/// out what their container says.
fn tone_mapped(hdr: Hdr, top: &Rung) -> String {
    let transfer = match hdr {
        Hdr::Pq => "smpte2084",
        Hdr::Hlg => "arib-std-b67",
    };
    format!(
        "scale={}:{}:out_range=tv,setsar=1,format=yuv420p10le,\
         zscale=tin={transfer}:pin=bt2020:min=bt2020nc:rin=tv:t=linear:npl={WHITE},format=gbrpf32le,\
         zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv420p,",
        top.width, top.height
    )
}

/// Pictures that are not wanted are dropped before they are scaled.
fn poster_filters(poster: &Poster) -> String {
    let (at, w, h) = (poster.at.as_secs_f64(), poster.width, poster.height);
    format!(";[p]select='gte(t,{at:.3})*lt(selected_n,1)',scale={w}:{h}:out_range=pc,setsar=1,format=yuvj420p[poster]")
}

fn storyboard_filters(board: &Storyboard) -> String {
    let (every, w, h) = (board.every.as_secs_f64(), board.width, board.height);
    format!(
        ";[b]select='gte(t,selected_n*{every:.3})',scale={w}:{h}:out_range=pc,setsar=1,format=yuvj420p,tile={SHEET_SIDE}x{SHEET_SIDE}[board]"
    )
}

/// Sound that ends before the picture is filled with silence, or a player would wait for more of it. FFmpeg mixes what has more than
/// two channels down to stereo.
fn audio_filters(i: usize, audio: &AudioPlan, plan: &Plan) -> String {
    let (index, rate) = (audio.index, audio.sample_rate);
    let layout = if audio.channels == 1 { "mono" } else { "stereo" };
    let mut graph = format!("[0:{index}]aresample={rate}:async=1:first_pts=0,aformat=channel_layouts={layout}");
    if let Some(video) = plan.video_duration {
        let _ = write!(graph, ",apad=whole_dur={:.3}", video.as_secs_f64());
    }
    graph + &format!("[a{i}]")
}

/// No B-frames: FFmpeg's edit list for them leaves a hole at the start that hls.js stumbles over (DESIGN §8).
fn video(args: &mut Args, plan: &Plan) {
    for i in 0..plan.rungs.len() {
        args.pair("-map", &format!("[v{i}]"));
    }
    args.words("-c:v libx264 -bf 0 -sc_threshold 0").pair("-preset", &plan.preset).pair("-crf", &plan.crf.to_string());
    args.pair("-force_key_frames", &format!("expr:gte(t,n_forced*{KEYFRAME_SECONDS})"));
    for (i, rung) in plan.rungs.iter().enumerate() {
        args.pair(&format!("-profile:v:{i}"), rung.profile);
        args.pair(&format!("-maxrate:v:{i}"), &rung.max_bps.to_string());
        args.pair(&format!("-bufsize:v:{i}"), &(u64::from(rung.max_bps) * 2).to_string());
    }
}

/// Most bytes of one subtitle file. A long film's are under a megabyte.
pub(crate) const MAX_SUBTITLE_BYTES: u64 = 4 << 20;

fn text(args: &mut Args, subtitles: &SubtitlePlan) {
    args.pair("-map", &format!("0:{}", subtitles.index)).words("-c:s webvtt");
    args.pair("-fs", &MAX_SUBTITLE_BYTES.to_string());
}

/// Every picture that the filters let through, once. Quality: FFmpeg's scale from 2 to 31, best first. Times are counted in milliseconds:
/// filters start anew when a stream changes its picture, and in pictures a second two would have the same time, which ends FFmpeg.
fn jpeg(args: &mut Args, filtered: &str, quality: u32) {
    args.pair("-map", filtered)
        .words("-c:v mjpeg -fps_mode passthrough -enc_time_base 1:1000")
        .pair("-q:v", &quality.to_string());
}

fn hls<'a>(args: &'a mut Args, folder: &str) -> &'a mut Args {
    args.words("-f hls -hls_playlist_type vod -hls_segment_type fmp4 -hls_list_size 0");
    args.pair("-hls_time", &SEGMENT_SECONDS.to_string()).pair("-start_number", &FIRST_SEGMENT.to_string());
    args.pair("-hls_fmp4_init_filename", "init.mp4").pair("-hls_segment_filename", &format!("{folder}/seg%05d.m4s"))
}

fn stream_map(plan: &Plan) -> String {
    let video = plan.rungs.iter().enumerate().map(|(i, r)| format!("v:{i},name:{}", r.name));
    video.collect::<Vec<_>>().join(" ")
}
