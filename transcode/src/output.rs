//! What FFmpeg left in the work folder: read strictly, and given the track and sequence numbers under which every fragment can
//! stand both in HLS and in the MP4 of its rendition.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::args::{FIRST_SEGMENT, MAX_SUBTITLE_BYTES, SUBTITLES};
use crate::cmaf::{self, AUDIO_TRACK, CmafError, Init, Moof, Subsegment, VIDEO_TRACK};
use crate::mp4;
use crate::plan::{Plan, SubtitlePlan};
use crate::stills::{POSTER, PREVIEW, STILLS_DIR, sheet_name};

/// The finished renditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// In the order of [`Plan::rungs`]; all are cut at the same times.
    pub video: Vec<Track>,
    /// In the order of [`Plan::audio`]; `None` where a stream held no sound.
    pub audio: Vec<Option<Track>>,
    /// In the order of [`Plan::subtitles`]; `None` where a stream held no text.
    pub subtitles: Vec<Option<MadeFile>>,
    /// The picture that stands for the film.
    pub poster: Option<MadeFile>,
    /// The storyboard's pictures.
    pub sheets: Vec<MadeFile>,
    /// Some seconds of the film's lowest rung.
    pub preview: Option<MadeFile>,
    /// All segments of one rung and of the first audio in the order of the MP4.
    pub(crate) order: Vec<Slot>,
}

impl Output {
    /// The audio of the MP4s, which is also heard unless a viewer chooses another.
    pub fn first_audio(&self) -> Option<&Track> {
        self.audio.iter().flatten().next()
    }
}

/// A file of the work folder that is published as it is; not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFile {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
}

/// One rendition's segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// What its decoder needs.
    pub init: Init,
    /// In order of time; at least one.
    pub segments: Vec<Segment>,
}

/// One fragment: `moof` and `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file that holds it.
    pub path: PathBuf,
    /// Where it starts in the file: FFmpeg's own `styp` and `sidx` before it are left out.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// First decode time in the track's timescale.
    pub start: u64,
    /// Length in the track's timescale.
    pub duration: u64,
}

impl Track {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        let units: u64 = self.segments.iter().map(|s| s.duration).sum();
        units as f64 / f64::from(self.init.timescale)
    }

    /// A segment's length in seconds.
    pub(crate) fn segment_seconds(&self, segment: &Segment) -> f64 {
        segment.duration as f64 / f64::from(self.init.timescale)
    }
}

/// A place in the MP4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The n-th video segment.
    Video(usize),
    /// The n-th audio segment.
    Audio(usize),
}

/// FFmpeg's files are not what was ordered.
#[derive(Debug, Error)]
pub enum OutputError {
    /// A file could not be read or written.
    #[error("FFmpeg's output {} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The boxes of a file are wrong.
    #[error("FFmpeg's output {} is not as expected: {source}", path.display())]
    Cmaf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CmafError,
    },
    /// A rendition has no segments.
    #[error("FFmpeg made no segments of {0}")]
    NoSegments(String),
    /// The renditions are cut at different times.
    #[error("the segments of {0} do not start where those of the best rendition do")]
    NotAligned(String),
}

/// Reads all renditions and renumbers their fragments in place. Blocking; run once on FFmpeg's fresh output.
pub(crate) fn collect(plan: &Plan, work_dir: &Path) -> Result<Output, OutputError> {
    let mut video = Vec::new();
    for (i, rung) in plan.rungs.iter().enumerate() {
        // FFmpeg 5.1 puts the number of the variant into the name when there are several, and there always are.
        let scanned = scan_track(&work_dir.join(&rung.name), &format!("init_{i}.mp4"), true)?;
        let scanned = scanned.ok_or_else(|| OutputError::NoSegments(rung.name.clone()))?;
        video.push(scanned);
    }
    let audio = plan.audio.iter().map(|a| scan_track(&work_dir.join(&a.folder), "init.mp4", false));
    let audio: Vec<Option<Scanned>> = audio.collect::<Result<_, _>>()?;
    let best = video.first().ok_or_else(|| OutputError::NoSegments("the video".to_owned()))?;
    for (rung, track) in plan.rungs.iter().zip(&video) {
        check_aligned(&rung.name, &best.track, &track.track)?;
    }
    let mut sounds = audio.iter().flatten();
    let first_audio = sounds.next();
    let order = interleave(&best.track, first_audio.map(|a| &a.track));
    renumber(&order, &video, first_audio)?;
    sounds.try_for_each(number_alone)?;
    let stills = work_dir.join(STILLS_DIR);
    let preview = match video.last() {
        Some(lowest) if !plan.still => Some(write_preview(lowest, &stills.join(PREVIEW))?),
        _ => None,
    };
    Ok(Output {
        video: video.into_iter().map(|s| s.track).collect(),
        audio: audio.into_iter().map(|s| s.map(|s| s.track)).collect(),
        subtitles: plan.subtitles.iter().map(|s| read_subtitles(work_dir, s)).collect::<Result<_, _>>()?,
        poster: made(stills.join(POSTER))?,
        sheets: sheets(&stills)?,
        preview,
        order,
    })
}

/// A file that FFmpeg may have made; one without bytes counts as none.
fn made(path: PathBuf) -> Result<Option<MadeFile>, OutputError> {
    match std::fs::metadata(&path) {
        Ok(metadata) => Ok((metadata.len() > 0).then_some(MadeFile { len: metadata.len(), path })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OutputError::Io { path, source }),
    }
}

fn sheets(dir: &Path) -> Result<Vec<MadeFile>, OutputError> {
    let mut sheets = Vec::new();
    for number in 1.. {
        match made(dir.join(sheet_name(number)))? {
            Some(sheet) => sheets.push(sheet),
            None => break,
        }
    }
    Ok(sheets)
}

/// Subtitles that hold at least one line; a stream that is empty or could not be decoded leaves a header.
fn read_subtitles(work_dir: &Path, plan: &SubtitlePlan) -> Result<Option<MadeFile>, OutputError> {
    let path = work_dir.join(&plan.name).join(SUBTITLES);
    let Some(file) = made(path.clone())? else { return Ok(None) };
    let mut bytes = Vec::new();
    // FFmpeg ends at the limit only after the line that passes it.
    let read = File::open(&path).and_then(|f| f.take(2 * MAX_SUBTITLE_BYTES).read_to_end(&mut bytes));
    read.map_err(|source| OutputError::Io { path, source })?;
    Ok(bytes.windows(5).any(|w| w == b" --> ").then_some(file))
}

/// A track and where the numbers of its fragments are.
struct Scanned {
    track: Track,
    moofs: Vec<Moof>,
}

fn scan_track(dir: &Path, init: &str, is_video: bool) -> Result<Option<Scanned>, OutputError> {
    let (mut segments, mut moofs) = (Vec::new(), Vec::new());
    for number in FIRST_SEGMENT.. {
        let path = dir.join(segment_name(number));
        if !path.exists() {
            break;
        }
        let (segment, moof) = scan_segment(path, is_video)?;
        segments.push(segment);
        moofs.push(moof);
    }
    if segments.is_empty() {
        return Ok(None);
    }
    let init = read_init(&dir.join(init))?;
    Ok(Some(Scanned { track: Track { init, segments }, moofs }))
}

/// `seg00001.m4s`
pub(crate) fn segment_name(number: u32) -> String {
    format!("seg{number:05}.m4s")
}

/// An init segment is under 2 KiB.
const MAX_INIT_BYTES: u64 = 64 << 10;
/// 4 s at 60 pictures per second are 240 samples of at most 16 bytes; audio has 188.
const MAX_MOOF_BYTES: u64 = 1 << 20;

fn read_init(path: &Path) -> Result<Init, OutputError> {
    let io_error = |source| OutputError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_INIT_BYTES).read_to_end(&mut bytes)).map_err(io_error)?;
    Init::parse(&bytes).map_err(|source| OutputError::Cmaf { path: path.to_owned(), source })
}

fn scan_segment(path: PathBuf, is_video: bool) -> Result<(Segment, Moof), OutputError> {
    let scanned = File::open(&path).and_then(|mut file| find_fragment(&mut file));
    let scanned = scanned.map_err(|source| OutputError::Io { path: path.clone(), source })?;
    let moof = Moof::parse(&scanned.moof)
        .and_then(|moof| if is_video && !moof.starts_with_key { Err(CmafError::NoKeyframe) } else { Ok(moof) });
    let moof = moof.map_err(|source| OutputError::Cmaf { path: path.clone(), source })?;
    let segment =
        Segment { path, offset: scanned.offset, len: scanned.len, start: moof.start, duration: moof.duration };
    Ok((segment, moof))
}

struct Fragment {
    offset: u64,
    len: u64,
    moof: Vec<u8>,
}

/// Expects `styp`, `sidx` (both optional), `moof`, `mdat` and the end of the file. Only headers and the `moof` are read.
fn find_fragment(file: &mut File) -> io::Result<Fragment> {
    let file_len = file.metadata()?.len();
    let mut at = 0;
    loop {
        let (kind, size) = box_at(file, at)?;
        match &kind {
            b"styp" | b"sidx" => at += size,
            b"moof" if size <= MAX_MOOF_BYTES => {
                let (media, media_size) = box_at(file, at + size)?;
                if media != *b"mdat" || at + size + media_size != file_len {
                    return Err(invalid("a fragment is not one moof and one mdat"));
                }
                return Ok(Fragment { offset: at, len: file_len - at, moof: read_at(file, at, size)? });
            }
            _ => return Err(invalid("an unexpected box")),
        }
    }
}

fn box_at(file: &mut File, at: u64) -> io::Result<(mp4::Kind, u64)> {
    let start = read_at(file, at, mp4::MAX_HEADER as u64)?;
    let head = mp4::header(&start).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let size = head.size.ok_or_else(|| invalid("a box without a size"))?;
    // Keeps the sums of the caller far from overflow.
    if size > u64::from(u32::MAX) { Err(invalid("a box is too large")) } else { Ok((head.kind, size)) }
}

/// Up to `len` bytes at `at`; fewer at the end of the file.
fn read_at(file: &mut File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn check_aligned(name: &str, best: &Track, track: &Track) -> Result<(), OutputError> {
    let times = |t: &Track| -> Vec<(u64, u64)> { t.segments.iter().map(|s| (s.start, s.duration)).collect() };
    if best.init.timescale == track.init.timescale && times(best) == times(track) {
        Ok(())
    } else {
        Err(OutputError::NotAligned(name.to_owned()))
    }
}

/// Merges by start time, video first, so that a player has the picture of each moment before its sound.
fn interleave(video: &Track, audio: Option<&Track>) -> Vec<Slot> {
    let mut order = Vec::new();
    let mut next_audio = 0;
    let sounds = audio.map_or(&[][..], |a| &a.segments);
    let audio_scale = audio.map_or(1, |a| a.init.timescale);
    for (i, segment) in video.segments.iter().enumerate() {
        let earlier = |s: &Segment| {
            u128::from(s.start) * u128::from(video.init.timescale) < u128::from(segment.start) * u128::from(audio_scale)
        };
        while sounds.get(next_audio).is_some_and(earlier) {
            order.push(Slot::Audio(next_audio));
            next_audio += 1;
        }
        order.push(Slot::Video(i));
    }
    order.extend((next_audio..sounds.len()).map(Slot::Audio));
    order
}

/// Sequence numbers count through the MP4. The rungs are aligned, so one numbering of the audio fits all of them.
fn renumber(order: &[Slot], video: &[Scanned], audio: Option<&Scanned>) -> Result<(), OutputError> {
    for (slot, sequence) in order.iter().zip(1u32..) {
        match slot {
            Slot::Video(i) => video.iter().try_for_each(|t| overwrite(t, *i, VIDEO_TRACK, sequence))?,
            Slot::Audio(i) => audio.iter().try_for_each(|t| overwrite(t, *i, AUDIO_TRACK, sequence))?,
        }
    }
    Ok(())
}

/// Audio of no MP4 counts for itself.
fn number_alone(audio: &Scanned) -> Result<(), OutputError> {
    (0..audio.track.segments.len()).zip(1u32..).try_for_each(|(i, sequence)| overwrite(audio, i, AUDIO_TRACK, sequence))
}

fn overwrite(scanned: &Scanned, i: usize, track: u32, sequence: u32) -> Result<(), OutputError> {
    let segment = &scanned.track.segments[i];
    let write = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&segment.path)?;
        let mut patches = scanned.moofs[i].numbers(track, sequence).into_iter();
        patches.try_for_each(|(at, bytes)| file.write_all_at(&bytes, segment.offset + at as u64))
    };
    write().map_err(|source| OutputError::Io { path: segment.path.clone(), source })
}

/// Longest preview, in segments: 8 s.
const PREVIEW_SEGMENTS: usize = 2;

/// Segments from a fifth into the film, past its titles. Their times start at 0, so they are stored once more; they are small.
fn write_preview(lowest: &Scanned, path: &Path) -> Result<MadeFile, OutputError> {
    let track = &lowest.track;
    let fifth = track.segments.iter().map(|s| s.duration).sum::<u64>() / 5;
    let begin = track.segments.first().map_or(0, |s| s.start);
    let after = track.segments.iter().take_while(|s| s.start + s.duration - begin <= fifth).count();
    let from = after.min(track.segments.len().saturating_sub(PREVIEW_SEGMENTS));
    let picked = || track.segments.iter().zip(&lowest.moofs).skip(from).take(PREVIEW_SEGMENTS);
    let header = preview_header(track, picked().map(|(segment, _)| segment));
    let header = header.map_err(|source| OutputError::Cmaf { path: path.to_owned(), source })?;
    let mut bytes = header;
    let first = track.segments.get(from).map_or(0, |s| s.start);
    for ((segment, moof), sequence) in picked().zip(1u32..) {
        let io_error = |source| OutputError::Io { path: segment.path.clone(), source };
        let mut fragment = File::open(&segment.path)
            .and_then(|mut file| read_at(&mut file, segment.offset, segment.len))
            .map_err(io_error)?;
        let patches = moof.numbers(VIDEO_TRACK, sequence).map(|(at, number)| (at, number.to_vec()));
        for (at, patch) in patches.into_iter().chain([moof.time(segment.start - first)]) {
            fragment[at..at + patch.len()].copy_from_slice(&patch);
        }
        bytes.extend(fragment);
    }
    std::fs::write(path, &bytes).map_err(|source| OutputError::Io { path: path.to_owned(), source })?;
    Ok(MadeFile { path: path.to_owned(), len: bytes.len() as u64 })
}

fn preview_header<'a>(track: &Track, segments: impl Iterator<Item = &'a Segment>) -> Result<Vec<u8>, CmafError> {
    let subs: Vec<Subsegment> = segments.map(|s| Subsegment { bytes: s.len, duration: s.duration }).collect();
    let units: u64 = subs.iter().map(|s| s.duration).sum();
    let mut bytes = cmaf::header(&[&track.init], Some(units * 1000 / u64::from(track.init.timescale)))?;
    bytes.extend(cmaf::sidx(track.init.timescale, 0, &subs)?);
    Ok(bytes)
}
