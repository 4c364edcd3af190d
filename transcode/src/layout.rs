//! Arranges finished renditions as files and as the stored parts that the files share. Pure: it names ranges of FFmpeg's files and
//! reads none of them.

use std::path::PathBuf;

use thiserror::Error;

use crate::args::AUDIO_DIR;
use crate::cmaf::{self, CmafError, Coding, Subsegment};
use crate::output::{Output, Slot, Track, segment_name};
use crate::plan::{Plan, Rung};
use crate::playlist;
use crate::source::Rational;

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const VIDEO_TYPE: &str = "video/mp4";
const VIDEO_SEGMENT_TYPE: &str = "video/iso.segment";
const AUDIO_TYPE: &str = "audio/mp4";
/// AAC-LC (RFC 6381 §3.3), which FFmpeg's encoder makes unless told otherwise.
const AUDIO_CODECS: &str = "mp4a.40.2";
/// The master playlist's path.
const MASTER: &str = "master.m3u8";

/// A content before it is cut into blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Length of the film in milliseconds.
    pub duration_ms: u64,
    /// Video first, best first; then audio, as the index wants them.
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
}

/// A rendition with the fields of `docs/index-format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Video or audio.
    pub kind: RenditionKind,
    /// For example `720p` or `audio-en`.
    pub name: String,
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
    let rungs = || plan.rungs.iter().zip(&output.video);
    let mut renditions =
        rungs().map(|(rung, track)| video_rendition(plan, rung, track)).collect::<Result<Vec<_>, _>>()?;
    if let Some(track) = &output.audio {
        renditions.push(audio_rendition(plan, track)?);
    }
    let duration_ms = duration_ms(output);
    let mut files = Files::default();
    files.add(MASTER.to_owned(), PLAYLIST_TYPE, Part::Bytes(playlist::master(&renditions).into_bytes()));
    for (rung, track) in rungs() {
        files.add_start(&rung.name, VIDEO_TYPE, track)?;
    }
    if let Some(track) = &output.audio {
        files.add_start(AUDIO_DIR, AUDIO_TYPE, track)?;
    }
    let headers = mp4_headers(output, duration_ms)?;
    let mp4s: Vec<usize> = rungs()
        .zip(headers)
        .map(|((rung, _), header)| files.add(mp4_path(rung), VIDEO_TYPE, Part::Bytes(header)))
        .collect();
    files.add_segments(plan, output, &mp4s);
    Ok(files.finish(duration_ms, renditions))
}

fn duration_ms(output: &Output) -> u64 {
    let tracks = output.video.iter().chain(&output.audio);
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

    /// Segments moment by moment across renditions; each also continues the MP4s that it belongs to.
    fn add_segments(&mut self, plan: &Plan, output: &Output, mp4s: &[usize]) {
        for slot in &output.order {
            match *slot {
                Slot::Video(i) => {
                    for ((rung, track), mp4) in plan.rungs.iter().zip(&output.video).zip(mp4s) {
                        let part = self.add_segment(&rung.name, VIDEO_SEGMENT_TYPE, track, i);
                        self.files[*mp4].parts.push(part);
                    }
                }
                Slot::Audio(i) => {
                    if let Some(track) = &output.audio {
                        let part = self.add_segment(AUDIO_DIR, AUDIO_TYPE, track, i);
                        mp4s.iter().for_each(|mp4| self.files[*mp4].parts.push(part));
                    }
                }
            }
        }
    }

    fn add_segment(&mut self, dir: &str, media_type: &'static str, track: &Track, i: usize) -> usize {
        let segment = &track.segments[i];
        let name = segment_name(i as u32 + crate::args::FIRST_SEGMENT);
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
    let inits: Vec<&cmaf::Init> = [Some(video), output.audio.as_ref()].into_iter().flatten().map(|t| &t.init).collect();
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
                let segment = output.audio.as_ref().and_then(|a| a.segments.get(i));
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

fn audio_rendition(plan: &Plan, track: &Track) -> Result<Rendition, LayoutError> {
    let (Coding::Audio { channels, sample_rate }, Some(audio)) = (&track.init.coding, &plan.audio) else {
        return Err(LayoutError::Mismatch("the audio rendition holds no sound"));
    };
    let name = audio.language.as_ref().map_or_else(|| "audio".to_owned(), |l| format!("audio-{l}"));
    Ok(Rendition {
        channels: Some(*channels),
        sample_rate: Some(*sample_rate),
        language: audio.language.clone(),
        ..rendition(RenditionKind::Audio, name, AUDIO_CODECS.to_owned(), AUDIO_DIR, track)
    })
}

fn rendition(kind: RenditionKind, name: String, codecs: String, dir: &str, track: &Track) -> Rendition {
    let sizes: Vec<(u64, f64)> = track.segments.iter().map(|s| (s.len, track.segment_seconds(s))).collect();
    let average_bps = bps(&sizes);
    Rendition {
        kind,
        name,
        codecs,
        peak_bps: peak_bps(&sizes).unwrap_or(average_bps).max(average_bps),
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
