//! Arranges finished renditions as files and as the stored parts that the files share. Pure: it names ranges of FFmpeg's files and
//! reads none of them.

use std::path::PathBuf;

use thiserror::Error;

use crate::args::{FIRST_SEGMENT, SUBTITLES};
use crate::cmaf::{self, CmafError, Coding, Subsegment};
use crate::output::{MadeFile, Output, Slot, Track, segment_name};
use crate::plan::{AudioPlan, Plan, Rung, SubtitlePlan};
use crate::playlist;
use crate::source::Rational;
use crate::stills::{POSTER, PREVIEW, STORYBOARD, STORYBOARD_DIR, sheet_name};

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const VIDEO_TYPE: &str = "video/mp4";
const VIDEO_SEGMENT_TYPE: &str = "video/iso.segment";
const AUDIO_TYPE: &str = "audio/mp4";
const TEXT_TYPE: &str = "text/vtt";
const PICTURE_TYPE: &str = "image/jpeg";
/// WebVTT (ISO/IEC 14496-30 §7.5); variants of a master playlist name only what is in segments of MP4.
const TEXT_CODECS: &str = "wvtt";
/// AAC-LC (RFC 6381 §3.3), which FFmpeg's encoder makes unless told otherwise.
const AUDIO_CODECS: &str = "mp4a.40.2";
/// The master playlist's path.
const MASTER: &str = "master.m3u8";

/// A content before it is cut into blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Length of the film in milliseconds.
    pub duration_ms: u64,
    /// Video first, best first; then audio, the default first; then text.
    pub renditions: Vec<Rendition>,
    /// Everything that is stored, once each, in the order a viewer wants it. The caller cuts each at 1 MiB.
    pub parts: Vec<Part>,
    /// Sorted by path.
    pub files: Vec<LayoutFile>,
}

/// Bytes to be stored; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A range of a file in the work folder.
    Range {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Bytes that were made here.
    Bytes(Vec<u8>),
}

impl Part {
    /// Number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Part::Range { len, .. } => *len,
            Part::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// A file of the content: its parts joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutFile {
    /// Path in the content, for example `720p/seg00001.m4s`.
    pub path: String,
    /// Media type.
    pub media_type: &'static str,
    /// Indices into [`Layout::parts`].
    pub parts: Vec<usize>,
}

/// What a rendition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenditionKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Subtitles.
    Text,
}

/// A rendition with the fields of `docs/index-format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Video, audio or text.
    pub kind: RenditionKind,
    /// For example `720p` or `audio-en`.
    pub name: String,
    /// What a viewer's menu calls it (audio and text). The index does not keep it; the master playlist does.
    pub label: Option<String>,
    /// Whether it is shown also to those who asked for no subtitles (text). The index does not keep it.
    pub forced: bool,
    /// RFC 6381 codecs of this rendition alone.
    pub codecs: String,
    /// Peak bandwidth of this rendition alone in bit/s, as RFC 8216 §4.1 defines it.
    pub peak_bps: u64,
    /// Average bandwidth of this rendition alone in bit/s.
    pub average_bps: u64,
    /// Width and height in pixels (video).
    pub size: Option<(u32, u32)>,
    /// Frame rate (video).
    pub fps: Option<Rational>,
    /// Number of channels (audio).
    pub channels: Option<u32>,
    /// Samples per second (audio).
    pub sample_rate: Option<u32>,
    /// BCP 47 tag.
    pub language: Option<String>,
    /// Path of its media playlist.
    pub playlist: String,
    /// Path of its MP4 (video).
    pub mp4: Option<String>,
}

/// Why renditions cannot be laid out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// A header cannot be written, for example because the film has more segments than `sidx` can list.
    #[error("the film cannot be laid out: {0}")]
    Cmaf(#[from] CmafError),
    /// Plan and output are not of the same run.
    #[error("the renditions are not those of the plan: {0}")]
    Mismatch(&'static str),
}

/// Arranges the output of [`crate::run`] for the same plan.
///
/// # Errors
/// [`LayoutError`]; none is the upload's fault.
pub fn layout(plan: &Plan, output: &Output) -> Result<Layout, LayoutError> {
    if plan.rungs.len() != output.video.len() {
        return Err(LayoutError::Mismatch("another number of video renditions"));
    }
    if plan.audio.len() != output.audio.len() || plan.subtitles.len() != output.subtitles.len() {
        return Err(LayoutError::Mismatch("another number of languages"));
    }
    let rungs = || plan.rungs.iter().zip(&output.video);
    let mut renditions =
        rungs().map(|(rung, track)| video_rendition(plan, rung, track)).collect::<Result<Vec<_>, _>>()?;
    for (audio, track) in sounds(plan, output) {
        renditions.push(audio_rendition(audio, track)?);
    }
    let duration_ms = duration_ms(output);
    let seconds = duration_ms as f64 / 1000.0;
    renditions.extend(texts(plan, output).map(|(text, file)| text_rendition(text, file, seconds)));
    let mut files = Files::default();
    files.add(MASTER.to_owned(), PLAYLIST_TYPE, Part::Bytes(playlist::master(&renditions).into_bytes()));
    files.add_made(POSTER, PICTURE_TYPE, output.poster.as_ref());
    for (rung, track) in rungs() {
        files.add_start(&rung.name, VIDEO_TYPE, track)?;
    }
    for (audio, track) in sounds(plan, output) {
        files.add_start(&audio.folder, AUDIO_TYPE, track)?;
    }
    for (text, file) in texts(plan, output) {
        let list = playlist::whole(SUBTITLES, seconds);
        files.add(playlist_path(&text.name), PLAYLIST_TYPE, Part::Bytes(list.into_bytes()));
        files.add_made(&format!("{}/{SUBTITLES}", text.name), TEXT_TYPE, Some(file));
    }
    let headers = mp4_headers(output, duration_ms)?;
    let mp4s: Vec<usize> = rungs()
        .zip(headers)
        .map(|((rung, _), header)| files.add(mp4_path(rung), VIDEO_TYPE, Part::Bytes(header)))
        .collect();
    files.add_segments(plan, output, &mp4s);
    files.add_storyboard(plan, output);
    files.add_made(PREVIEW, VIDEO_TYPE, output.preview.as_ref());
    Ok(files.finish(duration_ms, renditions))
}

/// Audio streams that held sound.
fn sounds<'a>(plan: &'a Plan, output: &'a Output) -> impl Iterator<Item = (&'a AudioPlan, &'a Track)> {
    plan.audio.iter().zip(&output.audio).filter_map(|(audio, track)| Some((audio, track.as_ref()?)))
}

/// Subtitle streams that held text.
fn texts<'a>(plan: &'a Plan, output: &'a Output) -> impl Iterator<Item = (&'a SubtitlePlan, &'a MadeFile)> {
    plan.subtitles.iter().zip(&output.subtitles).filter_map(|(text, file)| Some((text, file.as_ref()?)))
}

fn duration_ms(output: &Output) -> u64 {
    let tracks = output.video.iter().chain(output.first_audio());
    (tracks.map(Track::seconds).fold(0.0, f64::max) * 1000.0).round() as u64
}

fn mp4_path(rung: &Rung) -> String {
    format!("{}.mp4", rung.name)
}

fn playlist_path(dir: &str) -> String {
    format!("{dir}/playlist.m3u8")
}

#[derive(Default)]
struct Files {
    parts: Vec<Part>,
    files: Vec<LayoutFile>,
}

impl Files {
    /// Adds a part and a file that starts with it; returns the file's index.
    fn add(&mut self, path: String, media_type: &'static str, part: Part) -> usize {
        self.files.push(LayoutFile { path, media_type, parts: vec![self.parts.len()] });
        self.parts.push(part);
        self.files.len() - 1
    }

    /// What a player reads before the first segment.
    fn add_start(&mut self, dir: &str, media_type: &'static str, track: &Track) -> Result<(), LayoutError> {
        self.add(playlist_path(dir), PLAYLIST_TYPE, Part::Bytes(playlist::media(track).into_bytes()));
        self.add(format!("{dir}/init.mp4"), media_type, Part::Bytes(track.init.segment()?));
        Ok(())
    }

    /// A file that needs no header of ours; what is not there is left out.
    fn add_made(&mut self, path: &str, media_type: &'static str, made: Option<&MadeFile>) {
        if let Some(file) = made {
            let part = Part::Range { path: file.path.clone(), offset: 0, len: file.len };
            self.add(path.to_owned(), media_type, part);
        }
    }

    /// Left out where the sheets are not as many as they must be: when a stream changes its picture, FFmpeg's filters start anew, and
    /// nobody knows which picture is where.
    fn add_storyboard(&mut self, plan: &Plan, output: &Output) {
        let (Some(board), Some(best)) = (&plan.storyboard, output.video.first()) else { return };
        if board.sheets(best.seconds()) != output.sheets.len() {
            return;
        }
        let list = board.list(best.seconds(), output.sheets.len());
        self.add(STORYBOARD.to_owned(), TEXT_TYPE, Part::Bytes(list.into_bytes()));
        for (sheet, number) in output.sheets.iter().zip(1u32..) {
            self.add_made(&format!("{STORYBOARD_DIR}/{}", sheet_name(number)), PICTURE_TYPE, Some(sheet));
        }
    }

    /// Segments moment by moment across renditions; video and the first audio also continue the MP4s that they belong to.
    fn add_segments(&mut self, plan: &Plan, output: &Output, mp4s: &[usize]) {
        let sounds: Vec<_> = sounds(plan, output).collect();
        let mut heard = 0;
        for slot in &output.order {
            match *slot {
                Slot::Video(i) => {
                    for ((rung, track), mp4) in plan.rungs.iter().zip(&output.video).zip(mp4s) {
                        let part = self.add_segment(&rung.name, VIDEO_SEGMENT_TYPE, track, i);
                        self.files[*mp4].parts.push(part);
                    }
                }
                Slot::Audio(i) => {
                    heard = i + 1;
                    for (nth, (audio, track)) in sounds.iter().enumerate().filter(|(_, (_, t))| i < t.segments.len()) {
                        let part = self.add_segment(&audio.folder, AUDIO_TYPE, track, i);
                        mp4s.iter().filter(|_| nth == 0).for_each(|mp4| self.files[*mp4].parts.push(part));
                    }
                }
            }
        }
        // A later language may last longer than the first.
        for (audio, track) in &sounds {
            (heard..track.segments.len()).for_each(|i| {
                self.add_segment(&audio.folder, AUDIO_TYPE, track, i);
            });
        }
    }

    fn add_segment(&mut self, dir: &str, media_type: &'static str, track: &Track, i: usize) -> usize {
        let segment = &track.segments[i];
        let name = segment_name(i as u32 + FIRST_SEGMENT);
        let part = Part::Range { path: segment.path.clone(), offset: segment.offset, len: segment.len };
        self.add(format!("{dir}/{name}"), media_type, part);
        self.parts.len() - 1
    }

    fn finish(mut self, duration_ms: u64, renditions: Vec<Rendition>) -> Layout {
        self.files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Layout { duration_ms, renditions, parts: self.parts, files: self.files }
    }
}

/// `ftyp`, `moov` of both tracks and the `sidx` by which players seek, for each rung.
fn mp4_headers(output: &Output, duration_ms: u64) -> Result<Vec<Vec<u8>>, LayoutError> {
    output.video.iter().map(|video| mp4_header(video, output, duration_ms)).collect()
}

fn mp4_header(video: &Track, output: &Output, duration_ms: u64) -> Result<Vec<u8>, LayoutError> {
    let inits: Vec<&cmaf::Init> = [Some(video), output.first_audio()].into_iter().flatten().map(|t| &t.init).collect();
    let mut bytes = cmaf::header(&inits, Some(duration_ms))?;
    let start = video.segments.first().map_or(0, |s| s.start);
    bytes.extend(cmaf::sidx(video.init.timescale, start, &subsegments(video, output)?)?);
    Ok(bytes)
}

/// Each video fragment with the audio up to the next one.
fn subsegments(video: &Track, output: &Output) -> Result<Vec<Subsegment>, LayoutError> {
    let mut subs: Vec<Subsegment> = Vec::new();
    for slot in &output.order {
        match *slot {
            Slot::Video(i) => {
                let segment = video.segments.get(i).ok_or(LayoutError::Mismatch("a segment is missing"))?;
                subs.push(Subsegment { bytes: segment.len, duration: segment.duration });
            }
            Slot::Audio(i) => {
                let segment = output.first_audio().and_then(|a| a.segments.get(i));
                let segment = segment.ok_or(LayoutError::Mismatch("an audio segment is missing"))?;
                let last = subs.last_mut().ok_or(LayoutError::Mismatch("the audio starts before the video"))?;
                last.bytes += segment.len;
            }
        }
    }
    Ok(subs)
}

fn video_rendition(plan: &Plan, rung: &Rung, track: &Track) -> Result<Rendition, LayoutError> {
    let Coding::Video { width, height, codecs } = &track.init.coding else {
        return Err(LayoutError::Mismatch("a video rendition holds sound"));
    };
    Ok(Rendition {
        size: Some((*width, *height)),
        fps: Some(plan.fps),
        mp4: Some(mp4_path(rung)),
        ..rendition(RenditionKind::Video, rung.name.clone(), codecs.clone(), &rung.name, track)
    })
}

fn audio_rendition(audio: &AudioPlan, track: &Track) -> Result<Rendition, LayoutError> {
    let Coding::Audio { sample_rate } = &track.init.coding else {
        return Err(LayoutError::Mismatch("the audio rendition holds no sound"));
    };
    Ok(Rendition {
        label: Some(audio.label.clone()),
        channels: Some(audio.channels),
        sample_rate: Some(*sample_rate),
        language: audio.language.clone(),
        ..rendition(RenditionKind::Audio, audio.name.clone(), AUDIO_CODECS.to_owned(), &audio.folder, track)
    })
}

/// One segment, so its peak is its average.
fn text_rendition(text: &SubtitlePlan, file: &MadeFile, seconds: f64) -> Rendition {
    let average_bps = bps(&[(file.len, seconds)]);
    Rendition {
        label: Some(text.label.clone()),
        forced: text.forced,
        language: text.language.clone(),
        ..bare(RenditionKind::Text, text.name.clone(), TEXT_CODECS.to_owned(), &text.name, (average_bps, average_bps))
    }
}

fn rendition(kind: RenditionKind, name: String, codecs: String, dir: &str, track: &Track) -> Rendition {
    let sizes: Vec<(u64, f64)> = track.segments.iter().map(|s| (s.len, track.segment_seconds(s))).collect();
    let average_bps = bps(&sizes);
    let peak_bps = peak_bps(&sizes).unwrap_or(average_bps).max(average_bps);
    bare(kind, name, codecs, dir, (peak_bps, average_bps))
}

/// What renditions of every kind have.
fn bare(
    kind: RenditionKind,
    name: String,
    codecs: String,
    dir: &str,
    (peak_bps, average_bps): (u64, u64),
) -> Rendition {
    Rendition {
        kind,
        name,
        label: None,
        forced: false,
        codecs,
        peak_bps,
        average_bps,
        size: None,
        fps: None,
        channels: None,
        sample_rate: None,
        language: None,
        playlist: playlist_path(dir),
        mp4: None,
    }
}

fn bps(sizes: &[(u64, f64)]) -> u64 {
    let bytes: u64 = sizes.iter().map(|s| s.0).sum();
    let seconds: f64 = sizes.iter().map(|s| s.1).sum();
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).ceil() as u64 } else { 0 }
}

/// The largest bitrate of any contiguous segments that last 0.5 to 1.5 target durations (RFC 8216 §4.1); `None` when none do.
fn peak_bps(sizes: &[(u64, f64)]) -> Option<u64> {
    let target = sizes.iter().map(|s| s.1.round()).fold(1.0, f64::max);
    let from = |start: usize| {
        (start + 1..=sizes.len())
            .map(move |end| &sizes[start..end])
            .take_while(move |set| set.iter().map(|s| s.1).sum::<f64>() <= target * 1.5)
            .filter(move |set| set.iter().map(|s| s.1).sum::<f64>() >= target * 0.5)
            .map(bps)
    };
    (0..sizes.len()).flat_map(from).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_ignores_a_sliver_at_the_end() {
        let sizes = [(500_000, 4.0), (1_000_000, 4.0), (90_000, 0.1)];
        assert_eq!(peak_bps(&sizes), Some((1_090_000.0f64 * 8.0 / 4.1).ceil() as u64));
        assert_eq!(peak_bps(&[(1000, 0.2)]), None);
        assert_eq!(bps(&[(1000, 2.0), (1000, 2.0)]), 4000);
    }
}
