//! Chooses renditions. Pure: the same source and ladder always give the same plan.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fps;
use crate::language;
use crate::source::{AudioStream, Hdr, Rational, Source, SubtitleStream};
use crate::stills::{self, Poster, STILLS_DIR, Storyboard};

/// Length of a segment. 4 s keeps blocks near half a mebibyte (DESIGN §3).
pub(crate) const SEGMENT_SECONDS: u32 = 4;
/// Distance of keyframes: two in a segment, so that seeking is fine-grained.
pub(crate) const KEYFRAME_SECONDS: u32 = 2;

/// A resolution on offer and what it may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderRung {
    /// Pixels of the picture's short side.
    pub lines: u32,
    /// Cap of the bitrate in bit/s.
    pub max_bps: u32,
}

/// What renditions a node makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// Rungs, lowest first; at least one.
    pub rungs: Vec<LadderRung>,
    /// Most renditions of a source of up to 720 lines. Each costs an encoder.
    pub max_rungs_small: usize,
    /// Most renditions of larger sources.
    pub max_rungs_large: usize,
    /// x264's preset. `veryfast` because the nodes are small: `medium` takes about three times as long (x264 documentation).
    pub preset: String,
    /// x264's constant rate factor; 23 is its default. The caps of the rungs bind where this would cost more.
    pub crf: u8,
    /// Bitrate of stereo sound in bit/s; mono gets half of it.
    pub audio_bps: u32,
}

impl Default for Ladder {
    fn default() -> Self {
        let rungs = [(240, 400_000), (360, 800_000), (480, 1_400_000), (720, 3_000_000), (1080, 5_500_000)];
        Self {
            rungs: rungs.map(|(lines, max_bps)| LadderRung { lines, max_bps }).to_vec(),
            max_rungs_small: 3,
            max_rungs_large: 4,
            preset: "veryfast".to_owned(),
            crf: 23,
            audio_bps: 128_000,
        }
    }
}

/// What FFmpeg is to make of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Length that the result must have, within the tolerance of [`crate::run`].
    pub duration: Duration,
    /// The video stream's own length, where the source tells it.
    pub video_duration: Option<Duration>,
    /// Index of the video stream in the source.
    pub video_index: u32,
    /// Pictures per second of every rendition.
    pub fps: Rational,
    /// Whether the picture is one cover that is shown while the sound lasts.
    pub still: bool,
    /// Whether fields are joined to full pictures.
    pub deinterlace: bool,
    /// The high dynamic range that is mapped to the standard one.
    pub hdr: Option<Hdr>,
    /// Renditions, best first; at least two.
    pub rungs: Vec<Rung>,
    /// Audio renditions, the one that is heard unless a viewer chooses first.
    pub audio: Vec<AudioPlan>,
    /// Subtitles.
    pub subtitles: Vec<SubtitlePlan>,
    /// The picture that stands for the film.
    pub poster: Poster,
    /// Small pictures for seeking; a still picture has none.
    pub storyboard: Option<Storyboard>,
    /// x264's preset.
    pub preset: String,
    /// x264's constant rate factor.
    pub crf: u8,
}

/// One video rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Short side and `p`, for example `720p`; also its folder.
    pub name: String,
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Cap of the bitrate in bit/s.
    pub max_bps: u32,
    /// H.264 profile: `high`, or `main` for small pictures that old devices play.
    pub profile: &'static str,
}

/// An audio rendition: AAC-LC, mono or stereo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPlan {
    /// Index of the audio stream in the source.
    pub index: u32,
    /// For example `audio-en`; no two are alike.
    pub name: String,
    /// Folder of its files: the name, or `audio` when it is the only one.
    pub folder: String,
    /// What a viewer's menu calls it; no two are alike.
    pub label: String,
    /// Bitrate in bit/s.
    pub bps: u32,
    /// Number of channels.
    pub channels: u32,
    /// Samples per second.
    pub sample_rate: u32,
    /// BCP 47 tag.
    pub language: Option<String>,
}

/// A subtitle rendition: WebVTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtitlePlan {
    /// Index of the subtitle stream in the source.
    pub index: u32,
    /// For example `sub-en`, also its folder; no two are alike.
    pub name: String,
    /// What a viewer's menu calls it; no two are alike.
    pub label: String,
    /// BCP 47 tag.
    pub language: Option<String>,
    /// Whether it is shown also to those who asked for no subtitles.
    pub forced: bool,
}

/// Pictures a second of a still picture: few to encode, and enough for players that wait for one.
const STILL_FPS: Rational = Rational { num: 2, den: 1 };
/// Most lines of a still picture. More would be seen, but not worth a phone's data.
const STILL_LINES: u32 = 720;

/// Chooses the renditions of a source: its own size (at most the ladder's highest rung) and the rungs clearly below it.
pub fn plan(source: &Source, ladder: &Ladder) -> Plan {
    let shown = source.video.display_size();
    let still = source.video.still;
    Plan {
        duration: source.duration,
        video_duration: source.video.duration,
        video_index: source.video.index,
        fps: if still { STILL_FPS } else { fps::to_encode(source.video.fps) },
        still,
        deinterlace: source.video.interlaced,
        hdr: source.video.hdr.filter(|_| !still),
        rungs: if still { rungs(shown, &for_stills(ladder)) } else { rungs(shown, ladder) },
        audio: audio(&source.audio, ladder),
        subtitles: subtitles(&source.subtitles),
        poster: stills::poster(shown, source.duration),
        storyboard: (!still).then(|| stills::storyboard(shown, source.duration)),
        preset: ladder.preset.clone(),
        crf: ladder.crf,
    }
}

fn for_stills(ladder: &Ladder) -> Ladder {
    let lowest = ladder.rungs.iter().min_by_key(|r| r.lines);
    let mut rungs: Vec<LadderRung> = ladder.rungs.iter().copied().filter(|r| r.lines <= STILL_LINES).collect();
    if rungs.is_empty() {
        rungs.extend(lowest);
    }
    Ladder { rungs, max_rungs_small: 2, max_rungs_large: 2, ..ladder.clone() }
}

/// Folder of the audio rendition where there is one, as contents of one language have it.
const ONLY_AUDIO_DIR: &str = "audio";

fn audio(streams: &[AudioStream], ladder: &Ladder) -> Vec<AudioPlan> {
    let (mut names, mut labels) = (Unique::default(), Unique::default());
    let planned = streams.iter().map(|stream| {
        let name = names.take(named("audio", stream.language.as_deref()), "-");
        let channels = stream.channels.clamp(1, 2);
        AudioPlan {
            index: stream.index,
            folder: if streams.len() == 1 { ONLY_AUDIO_DIR.to_owned() } else { name.clone() },
            name,
            label: labels.take(label("Audio", stream.language.as_deref(), &[(stream.commentary, "commentary")]), " "),
            bps: ladder.audio_bps / 2 * channels,
            channels,
            sample_rate: 48_000,
            language: stream.language.clone(),
        }
    });
    planned.collect()
}

fn subtitles(streams: &[SubtitleStream]) -> Vec<SubtitlePlan> {
    let (mut names, mut labels) = (Unique::default(), Unique::default());
    let planned = streams.iter().map(|stream| SubtitlePlan {
        index: stream.index,
        name: names.take(named("sub", stream.language.as_deref()), "-"),
        label: labels.take(
            label(
                "Subtitles",
                stream.language.as_deref(),
                &[(stream.forced, "forced"), (stream.hearing_impaired, "SDH")],
            ),
            " ",
        ),
        language: stream.language.clone(),
        forced: stream.forced,
    });
    planned.collect()
}

fn named(kind: &str, language: Option<&str>) -> String {
    language.map_or_else(|| kind.to_owned(), |l| format!("{kind}-{l}"))
}

fn label(without_language: &str, language: Option<&str>, marks: &[(bool, &str)]) -> String {
    let mut label = language.map_or_else(|| without_language.to_owned(), language::name);
    for (_, mark) in marks.iter().filter(|(is_so, _)| *is_so) {
        label.push_str(&format!(" ({mark})"));
    }
    label
}

/// Gives every name once: the second `audio-en` becomes `audio-en-2`.
#[derive(Default)]
struct Unique(BTreeSet<String>);

impl Unique {
    fn take(&mut self, wanted: String, separator: &str) -> String {
        let mut name = wanted.clone();
        for number in 2u32.. {
            if self.0.insert(name.clone()) {
                break;
            }
            name = format!("{wanted}{separator}{number}");
        }
        name
    }
}

fn rungs(shown: (u32, u32), ladder: &Ladder) -> Vec<Rung> {
    let source_lines = shown.0.min(shown.1);
    let highest = ladder.rungs.iter().map(|r| r.lines).max().unwrap_or(source_lines);
    let top = even_down(source_lines.min(highest));
    let mut lines = vec![top];
    lines.extend(clearly_below(top, ladder));
    if lines.len() == 1 {
        lines.push(even_down(top / 2));
    }
    let most = if top <= 720 { ladder.max_rungs_small } else { ladder.max_rungs_large };
    let lines = spread(&lines, most.max(2));
    lines.into_iter().map(|l| rung(l, shown, ladder)).collect()
}

/// The ladder's rungs, highest first, that are more than 10 % below: nearer ones would cost an encoder for no visible gain.
fn clearly_below(top: u32, ladder: &Ladder) -> Vec<u32> {
    let mut below: Vec<u32> = ladder.rungs.iter().map(|r| r.lines).filter(|l| l * 10 < top * 9).collect();
    below.sort_unstable_by(|a, b| b.cmp(a));
    below
}

/// At most `most` of the entries, evenly over the list, first and last included.
fn spread(lines: &[u32], most: usize) -> Vec<u32> {
    if lines.len() <= most {
        return lines.to_vec();
    }
    (0..most).map(|i| lines[i * (lines.len() - 1) / (most - 1)]).collect()
}

fn rung(lines: u32, (width, height): (u32, u32), ladder: &Ladder) -> Rung {
    let short = width.min(height);
    let scaled = |side: u32| even(f64::from(side) * f64::from(lines) / f64::from(short));
    let (width, height) = if width <= height { (lines, scaled(height)) } else { (scaled(width), lines) };
    Rung {
        name: format!("{lines}p"),
        width,
        height,
        max_bps: cap(lines, ladder),
        profile: if lines > 480 { "high" } else { "main" },
    }
}

/// Least cap that still gives a picture. Guess.
const MIN_BPS: u32 = 100_000;

/// The cap for a height between rungs, on the straight line between them; below the lowest, by the number of pixels.
fn cap(lines: u32, ladder: &Ladder) -> u32 {
    let below = ladder.rungs.iter().filter(|r| r.lines <= lines).max_by_key(|r| r.lines);
    let above = ladder.rungs.iter().filter(|r| r.lines >= lines).min_by_key(|r| r.lines);
    match (below, above) {
        (Some(b), Some(a)) if a.lines > b.lines => {
            let part = f64::from(lines - b.lines) / f64::from(a.lines - b.lines);
            (f64::from(b.max_bps) + part * (f64::from(a.max_bps) - f64::from(b.max_bps))) as u32
        }
        (Some(b), _) => b.max_bps,
        (None, Some(a)) => {
            let side = f64::from(lines) / f64::from(a.lines);
            ((f64::from(a.max_bps) * side * side) as u32).max(MIN_BPS)
        }
        (None, None) => MIN_BPS,
    }
}

fn even_down(side: u32) -> u32 {
    (side / 2 * 2).max(2)
}

/// The nearest even number; 4:2:0 stores colour for two by two pixels.
fn even(side: f64) -> u32 {
    ((side / 2.0).round() as u32 * 2).max(2)
}

impl Plan {
    /// How long the video must be, and whether that is said of the video itself rather than of the whole file.
    pub(crate) fn expected(&self) -> (Duration, bool) {
        self.video_duration.map_or((self.duration, false), |d| (d, true))
    }

    /// Folders that FFmpeg writes into.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        let rungs = self.rungs.iter().map(|r| r.name.as_str());
        let audio = self.audio.iter().map(|a| a.folder.as_str());
        rungs.chain(audio).chain(self.subtitles.iter().map(|s| s.name.as_str())).chain([STILLS_DIR])
    }
}
