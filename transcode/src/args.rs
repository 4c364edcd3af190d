//! The plan as one FFmpeg command line. Pure.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use crate::limits::Limits;
use crate::plan::{AudioPlan, KEYFRAME_SECONDS, Plan, SEGMENT_SECONDS};
use crate::probe::{FORMATS, input_url};

/// Folder of the audio rendition.
pub(crate) const AUDIO_DIR: &str = "audio";
/// Number of the first segment, also in its name.
pub(crate) const FIRST_SEGMENT: u32 = 1;
/// More broken packets and pictures than this share, and FFmpeg fails: the film would be mostly frozen. Guess.
const MAX_ERROR_RATE: &str = "0.1";

/// Arguments for FFmpeg, to be run inside the work folder. One decoder, one encoder for each rendition.
pub(crate) fn arguments(plan: &Plan, limits: &Limits, input: &Path) -> Vec<OsString> {
    let mut args = Args::default();
    args.words("-nostdin -hide_banner -v error -nostats -progress pipe:1 -stats_period 0.5 -y");
    args.pair("-max_error_rate", MAX_ERROR_RATE);
    // `pipe` is not for the input: it stays on the list of this one protocol.
    args.words("-protocol_whitelist file -format_whitelist").word(FORMATS);
    args.pair("-max_pixels", &limits.max_pixels.to_string());
    args.word("-i").0.push(input_url(input));
    args.pair("-filter_complex", &filters(plan));
    video(&mut args, plan);
    if let Some(audio) = &plan.audio {
        args.pair("-map", "[audio]").words("-c:a aac").pair("-b:a", &audio.bps.to_string());
    }
    // What a file declares is not what it holds: without this a small lie could fill the disk.
    args.pair("-t", &(limits.max_duration.as_secs() + 1).to_string());
    args.words("-map_metadata -1 -map_chapters -1");
    hls(&mut args, plan);
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
fn filters(plan: &Plan) -> String {
    let mut graph = format!("[0:{}]", plan.video_index);
    if plan.deinterlace {
        graph.push_str("yadif=deint=interlaced,");
    }
    let _ = write!(graph, "fps={}:start_time=0,split={}", plan.fps, plan.rungs.len());
    (0..plan.rungs.len()).for_each(|i| graph.push_str(&format!("[s{i}]")));
    for (i, rung) in plan.rungs.iter().enumerate() {
        let (w, h) = (rung.width, rung.height);
        let _ = write!(graph, ";[s{i}]scale={w}:{h}:out_range=tv,setsar=1,format=yuv420p[v{i}]");
    }
    if let Some(audio) = &plan.audio {
        graph.push_str(&audio_filters(audio, plan));
    }
    graph
}

/// Sound that ends before the picture is filled with silence, or a player would wait for more of it.
fn audio_filters(audio: &AudioPlan, plan: &Plan) -> String {
    let (index, rate) = (audio.index, audio.sample_rate);
    let mut graph = format!(";[0:{index}]aresample={rate}:async=1:first_pts=0,aformat=channel_layouts=stereo");
    if let Some(video) = plan.video_duration {
        let _ = write!(graph, ",apad=whole_dur={:.3}", video.as_secs_f64());
    }
    graph + "[audio]"
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

fn hls(args: &mut Args, plan: &Plan) {
    args.words("-f hls -hls_playlist_type vod -hls_segment_type fmp4 -hls_list_size 0");
    args.pair("-hls_time", &SEGMENT_SECONDS.to_string()).pair("-start_number", &FIRST_SEGMENT.to_string());
    args.pair("-hls_fmp4_init_filename", "init.mp4").pair("-hls_segment_filename", "%v/seg%05d.m4s");
    args.pair("-var_stream_map", &stream_map(plan)).word("%v/ffmpeg.m3u8");
}

fn stream_map(plan: &Plan) -> String {
    let group = if plan.audio.is_some() { ",agroup:a" } else { "" };
    let video = plan.rungs.iter().enumerate().map(|(i, r)| format!("v:{i}{group},name:{}", r.name));
    let audio = plan.audio.iter().map(|_| format!("a:0,agroup:a,name:{AUDIO_DIR}"));
    video.chain(audio).collect::<Vec<_>>().join(" ")
}
