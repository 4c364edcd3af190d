//! What FFmpeg left in the work folder: read strictly, and given the track and sequence numbers under which every fragment can
//! stand both in HLS and in the MP4 of its rendition.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::args::{AUDIO_DIR, FIRST_SEGMENT};
use crate::cmaf::{AUDIO_TRACK, CmafError, Init, Moof, VIDEO_TRACK};
use crate::mp4;
use crate::plan::Plan;

/// The finished renditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// In the order of [`Plan::rungs`]; all are cut at the same times.
    pub video: Vec<Track>,
    /// The audio rendition.
    pub audio: Option<Track>,
    /// All segments of one rung and of the audio in the order of the MP4.
    pub(crate) order: Vec<Slot>,
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
    pub(crate) fn seconds(&self) -> f64 {
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
        let scanned = scan_track(&work_dir.join(&rung.name), i, true)?;
        let scanned = scanned.ok_or_else(|| OutputError::NoSegments(rung.name.clone()))?;
        video.push(scanned);
    }
    let audio = match &plan.audio {
        Some(_) => scan_track(&work_dir.join(AUDIO_DIR), plan.rungs.len(), false)?,
        None => None,
    };
    let best = video.first().ok_or_else(|| OutputError::NoSegments("the video".to_owned()))?;
    for (rung, track) in plan.rungs.iter().zip(&video) {
        check_aligned(&rung.name, &best.track, &track.track)?;
    }
    let order = interleave(&best.track, audio.as_ref().map(|a| &a.track));
    renumber(&order, &video, audio.as_ref())?;
    Ok(Output { video: video.into_iter().map(|s| s.track).collect(), audio: audio.map(|s| s.track), order })
}

/// A track and where the numbers of its fragments are.
struct Scanned {
    track: Track,
    moofs: Vec<Moof>,
}

fn scan_track(dir: &Path, stream: usize, is_video: bool) -> Result<Option<Scanned>, OutputError> {
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
    // FFmpeg 5.1 puts the number of the variant into the name when there are several, and there always are.
    let init = read_init(&dir.join(format!("init_{stream}.mp4")))?;
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

fn overwrite(scanned: &Scanned, i: usize, track: u32, sequence: u32) -> Result<(), OutputError> {
    let segment = &scanned.track.segments[i];
    let write = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&segment.path)?;
        let mut patches = scanned.moofs[i].numbers(track, sequence).into_iter();
        patches.try_for_each(|(at, bytes)| file.write_all_at(&bytes, segment.offset + at as u64))
    };
    write().map_err(|source| OutputError::Io { path: segment.path.clone(), source })
}
