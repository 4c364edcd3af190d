//! The parts of CMAF that we touch: FFmpeg's init segments and fragments are read, given track and sequence numbers of our own,
//! and joined under a header that makes an MP4 of the same fragments (ISO/IEC 14496-12 §8.8, §8.16.3; ISO/IEC 23000-19).

use thiserror::Error;

use crate::mp4::{self, Mp4Error};

/// Track number of every video track.
pub(crate) const VIDEO_TRACK: u32 = 1;
/// Track number of every audio track: not the video's, so that an MP4 can hold both.
pub(crate) const AUDIO_TRACK: u32 = 2;
/// Samples that FFmpeg's AAC encoder puts before the first real one (`initial_padding` in libavcodec/aacenc.c).
const AAC_PRIMING: u32 = 1024;
/// Units per second of `mvhd` and `mehd`.
const MOVIE_TIMESCALE: u32 = 1000;

/// Why FFmpeg's output is not the CMAF that we can lay out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CmafError {
    /// The boxes are wrong.
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    /// A fragment has no length in time.
    #[error("a fragment holds no samples with a duration")]
    NoDuration,
    /// A video fragment cannot be decoded by itself.
    #[error("a video fragment does not start with a keyframe")]
    NoKeyframe,
}

/// What the sample entry of a track says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Coding {
    Video { width: u32, height: u32, codecs: String },
    Audio { sample_rate: u32 },
}

/// A track's init segment, with our track number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    pub(crate) coding: Coding,
    /// Units per second of the track's times.
    pub(crate) timescale: u32,
    trak: Vec<u8>,
    trex: Vec<u8>,
}

impl Init {
    /// Reads FFmpeg's init segment of one track.
    ///
    /// # Errors
    /// Boxes that are missing, cut short or of another codec than H.264 or AAC.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CmafError> {
        let moov = mp4::only(bytes, *b"moov")?.body;
        let trak = mp4::only(moov, *b"trak")?.body;
        let mdhd = mp4::descend(trak, &[*b"mdia", *b"mdhd"])?;
        let stsd = mp4::descend(trak, &[*b"mdia", *b"minf", *b"stbl", *b"stsd"])?;
        let coding = coding(stsd)?;
        let timescale_at = if mp4::u32_at(mdhd, 0, *b"mdhd")? >> 24 == 1 { 20 } else { 12 };
        let timescale = mp4::u32_at(mdhd, timescale_at, *b"mdhd")?;
        if timescale == 0 {
            return Err(Mp4Error::Unexpected("mdhd".into(), "its timescale is 0").into());
        }
        let track = coding.track();
        let mut trex = mp4::only(mp4::descend(moov, &[*b"mvex"])?, *b"trex")?.whole.to_vec();
        mp4::set_u32(&mut trex, 12, track, *b"trex")?;
        Ok(Self { trak: rebuild_trak(trak, &coding)?, trex, coding, timescale })
    }

    /// The track's own init segment for HLS.
    pub(crate) fn segment(&self) -> Result<Vec<u8>, CmafError> {
        header(&[self], None)
    }
}

impl Coding {
    fn track(&self) -> u32 {
        match self {
            Coding::Video { .. } => VIDEO_TRACK,
            Coding::Audio { .. } => AUDIO_TRACK,
        }
    }
}

/// `ftyp` and `moov` of these tracks; with `mehd` when the length of the whole is known.
pub(crate) fn header(tracks: &[&Init], duration_ms: Option<u64>) -> Result<Vec<u8>, CmafError> {
    let mut out = Vec::new();
    mp4::put(&mut out, *b"ftyp", |o| {
        o.extend_from_slice(b"iso6\0\0\x02\0iso6mp41");
        Ok(())
    })?;
    mp4::put(&mut out, *b"moov", |o| {
        put_mvhd(o)?;
        tracks.iter().for_each(|t| o.extend_from_slice(&t.trak));
        mp4::put(o, *b"mvex", |o| {
            duration_ms.map_or(Ok(()), |ms| put_mehd(o, ms))?;
            tracks.iter().for_each(|t| o.extend_from_slice(&t.trex));
            Ok(())
        })
    })?;
    Ok(out)
}

/// Version 0; the length is in `mehd`. Fields: ISO/IEC 14496-12 §8.2.2.
fn put_mvhd(out: &mut Vec<u8>) -> Result<(), Mp4Error> {
    mp4::put(out, *b"mvhd", |o| {
        mp4::put_u32s(o, &[0, 0, 0, MOVIE_TIMESCALE, 0, 0x0001_0000, 0x0100_0000, 0, 0]);
        mp4::put_u32s(o, &[0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000]);
        mp4::put_u32s(o, &[0, 0, 0, 0, 0, 0, AUDIO_TRACK + 1]);
        Ok(())
    })
}

fn put_mehd(out: &mut Vec<u8>, duration_ms: u64) -> Result<(), Mp4Error> {
    mp4::put(out, *b"mehd", |o| {
        mp4::put_u32s(o, &[0x0100_0000]);
        o.extend_from_slice(&duration_ms.to_be_bytes());
        Ok(())
    })
}

/// The track with our number and edit list. FFmpeg's edit list delays the video by the audio's priming; browsers ignore that when
/// they play segments, so the audio would be late. One edit that skips the priming is understood by all of them.
fn rebuild_trak(body: &[u8], coding: &Coding) -> Result<Vec<u8>, CmafError> {
    let mut out = Vec::new();
    mp4::put(&mut out, *b"trak", |o| {
        let mut tkhd = mp4::only(body, *b"tkhd")?.whole.to_vec();
        let id_at = if tkhd.get(8) == Some(&1) { 28 } else { 20 };
        mp4::set_u32(&mut tkhd, id_at, coding.track(), *b"tkhd")?;
        o.extend_from_slice(&tkhd);
        if let Coding::Audio { .. } = coding {
            put_edit(o)?;
        }
        o.extend_from_slice(mp4::only(body, *b"mdia")?.whole);
        Ok(())
    })?;
    Ok(out)
}

fn put_edit(out: &mut Vec<u8>) -> Result<(), Mp4Error> {
    mp4::put(out, *b"edts", |o| {
        mp4::put(o, *b"elst", |o| {
            mp4::put_u32s(o, &[0, 1, 0, AAC_PRIMING, 0x0001_0000]);
            Ok(())
        })
    })
}

fn coding(stsd: &[u8]) -> Result<Coding, Mp4Error> {
    let entries = stsd.get(8..).ok_or_else(|| Mp4Error::Short("stsd".into()))?;
    let [entry] = mp4::boxes(entries)?[..] else {
        return Err(Mp4Error::Unexpected("stsd".into(), "it has not exactly one entry"));
    };
    match &entry.kind {
        b"avc1" => avc1(entry.body),
        b"mp4a" => mp4a(entry.body),
        _ => Err(Mp4Error::Unexpected(mp4::name(entry.kind), "the codec is neither H.264 nor AAC")),
    }
}

/// VisualSampleEntry (§12.1.3) and the start of avcC (ISO/IEC 14496-15 §5.3.3.1); the codec string is RFC 6381 §3.3.
fn avc1(body: &[u8]) -> Result<Coding, Mp4Error> {
    let inner = body.get(78..).ok_or_else(|| Mp4Error::Short("avc1".into()))?;
    let [profile, compatible, level]: [u8; 3] = mp4::array_at(mp4::only(inner, *b"avcC")?.body, 1, *b"avcC")?;
    Ok(Coding::Video {
        width: mp4::u16_at(body, 24, *b"avc1")?.into(),
        height: mp4::u16_at(body, 26, *b"avc1")?.into(),
        codecs: format!("avc1.{profile:02x}{compatible:02x}{level:02x}"),
    })
}

/// AudioSampleEntry (§12.2.3). Its number of channels says nothing: FFmpeg writes 2 for mono, too.
fn mp4a(body: &[u8]) -> Result<Coding, Mp4Error> {
    Ok(Coding::Audio { sample_rate: mp4::u32_at(body, 24, *b"mp4a")? >> 16 })
}

/// What a `moof` says, and where its numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moof {
    /// First decode time, in the track's timescale.
    pub(crate) start: u64,
    /// Sum of the sample durations, in the track's timescale.
    pub(crate) duration: u64,
    /// Whether the first sample is a sync sample.
    pub(crate) starts_with_key: bool,
    sequence_at: usize,
    track_at: usize,
    start_at: usize,
    start_is_long: bool,
}

impl Moof {
    /// Reads a whole `moof` box with exactly one track.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CmafError> {
        let moof = mp4::only(bytes, *b"moof")?;
        let mfhd = mp4::only(moof.body, *b"mfhd")?;
        let traf = mp4::only(moof.body, *b"traf")?;
        let tfhd = mp4::only(traf.body, *b"tfhd")?;
        let tfdt = mp4::only(traf.body, *b"tfdt")?;
        let defaults = Defaults::parse(tfhd.body)?;
        let (duration, starts_with_key) = samples(traf.body, &defaults)?;
        if duration == 0 {
            return Err(CmafError::NoDuration);
        }
        Ok(Self {
            start: decode_time(tfdt.body)?,
            duration,
            starts_with_key,
            sequence_at: moof.body_at + mfhd.body_at + 4,
            track_at: moof.body_at + traf.body_at + tfhd.body_at + 4,
            start_at: moof.body_at + traf.body_at + tfdt.body_at + 4,
            start_is_long: is_long(tfdt.body)?,
        })
    }

    /// The bytes to overwrite, by their place in the `moof`, to give the fragment another track and sequence number.
    pub(crate) fn numbers(&self, track: u32, sequence: u32) -> [(usize, [u8; 4]); 2] {
        [(self.sequence_at, sequence.to_be_bytes()), (self.track_at, track.to_be_bytes())]
    }

    /// The bytes to overwrite, and their place, to let the fragment start at another time, which must not be later.
    pub(crate) fn time(&self, start: u64) -> (usize, Vec<u8>) {
        let bytes = start.to_be_bytes();
        (self.start_at, if self.start_is_long { bytes.to_vec() } else { bytes[4..].to_vec() })
    }
}

/// Whether a `tfdt` (§8.8.12) has 64 bits.
fn is_long(tfdt: &[u8]) -> Result<bool, Mp4Error> {
    Ok(mp4::u32_at(tfdt, 0, *b"tfdt")? >> 24 != 0)
}

fn decode_time(tfdt: &[u8]) -> Result<u64, Mp4Error> {
    if is_long(tfdt)? { mp4::u64_at(tfdt, 4, *b"tfdt") } else { mp4::u32_at(tfdt, 4, *b"tfdt").map(u64::from) }
}

/// Fields of `tfhd` (§8.8.7) that samples fall back to.
struct Defaults {
    duration: u32,
    flags: u32,
}

impl Defaults {
    fn parse(tfhd: &[u8]) -> Result<Self, Mp4Error> {
        let present = mp4::u32_at(tfhd, 0, *b"tfhd")? & 0x00ff_ffff;
        // Offsets from elsewhere than the moof would be wrong in an MP4 of other fragments.
        if present & 0x02_0001 != 0x02_0000 {
            return Err(Mp4Error::Unexpected("tfhd".into(), "its base is not the moof"));
        }
        let mut at = 8 + if present & 0x2 != 0 { 4 } else { 0 };
        let mut field = |bit: u32| -> Result<u32, Mp4Error> {
            if present & bit == 0 {
                return Ok(0);
            }
            let value = mp4::u32_at(tfhd, at, *b"tfhd")?;
            at += 4;
            Ok(value)
        };
        let (duration, _size, flags) = (field(0x8)?, field(0x10)?, field(0x20)?);
        Ok(Self { duration, flags })
    }
}

/// Adds up the durations of all runs (`trun`, §8.8.8) and looks at the first sample.
fn samples(traf: &[u8], defaults: &Defaults) -> Result<(u64, bool), CmafError> {
    let mut total = 0u64;
    let mut first = None;
    for trun in mp4::boxes(traf)?.into_iter().filter(|b| b.kind == *b"trun") {
        let (duration, flags) = run(trun.body, defaults)?;
        total = total.checked_add(duration).ok_or(CmafError::NoDuration)?;
        first = first.or(Some(flags));
    }
    Ok((total, first.is_some_and(|flags| flags & NOT_SYNC == 0)))
}

/// `sample_is_non_sync_sample` (§8.8.3.1).
const NOT_SYNC: u32 = 0x0001_0000;

/// Duration of a run and the flags of its first sample.
fn run(trun: &[u8], defaults: &Defaults) -> Result<(u64, u32), CmafError> {
    let present = mp4::u32_at(trun, 0, *b"trun")? & 0x00ff_ffff;
    let count = mp4::u32_at(trun, 4, *b"trun")?;
    let width = |bit: u32| if present & bit != 0 { 4usize } else { 0 };
    let samples_at = 8 + width(0x1) + width(0x4);
    let stride = width(0x100) + width(0x200) + width(0x400) + width(0x800);
    let first_flags = if present & 0x4 != 0 {
        mp4::u32_at(trun, 8 + width(0x1), *b"trun")?
    } else if present & 0x400 != 0 {
        mp4::u32_at(trun, samples_at + width(0x100) + width(0x200), *b"trun")?
    } else {
        defaults.flags
    };
    if present & 0x100 == 0 {
        return Ok((u64::from(count) * u64::from(defaults.duration), first_flags));
    }
    // The reads fail at the end of the box, so a false count costs nothing.
    let mut total = 0u64;
    for i in 0..count as usize {
        total += u64::from(mp4::u32_at(trun, samples_at + i * stride, *b"trun")?);
    }
    Ok((total, first_flags))
}

/// One stretch of an MP4 that a player can seek to: a video fragment and the audio that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subsegment {
    /// Bytes of all fragments in it.
    pub(crate) bytes: u64,
    /// Length in the video's timescale.
    pub(crate) duration: u64,
}

/// The segment index (§8.16.3) of a file whose subsegments follow directly; each starts with a keyframe (SAP type 1).
pub(crate) fn sidx(timescale: u32, start: u64, subsegments: &[Subsegment]) -> Result<Vec<u8>, CmafError> {
    let too_large = |what| Mp4Error::TooLarge(what, "sidx".into());
    let count = u16::try_from(subsegments.len()).map_err(|_| too_large("the number of segments"))?;
    let mut out = Vec::new();
    mp4::put(&mut out, *b"sidx", |o| {
        mp4::put_u32s(o, &[0x0100_0000, VIDEO_TRACK, timescale]);
        o.extend_from_slice(&start.to_be_bytes());
        o.extend_from_slice(&0u64.to_be_bytes());
        mp4::put_u32s(o, &[u32::from(count)]);
        for sub in subsegments {
            let bytes = u32::try_from(sub.bytes).ok().filter(|b| b >> 31 == 0);
            let bytes = bytes.ok_or_else(|| too_large("a segment"))?;
            let duration = u32::try_from(sub.duration).map_err(|_| too_large("a duration"))?;
            mp4::put_u32s(o, &[bytes, duration, 0x9000_0000]);
        }
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `moof` as FFmpeg writes it: default duration 512, a first sample with flags, `count` samples.
    fn moof(count: u32, per_sample_duration: bool) -> Vec<u8> {
        let mut out = Vec::new();
        mp4::put(&mut out, *b"moof", |o| {
            mp4::put(o, *b"mfhd", |o| {
                mp4::put_u32s(o, &[0, 7]);
                Ok(())
            })?;
            mp4::put(o, *b"traf", |o| {
                mp4::put(o, *b"tfhd", |o| {
                    mp4::put_u32s(o, &[0x0002_0038, 1, 512, 9, 0x0101_0000]);
                    Ok(())
                })?;
                mp4::put(o, *b"tfdt", |o| {
                    mp4::put_u32s(o, &[0x0100_0000, 0, 49_152]);
                    Ok(())
                })?;
                mp4::put(o, *b"trun", |o| {
                    let extra = if per_sample_duration { 0x100 } else { 0 };
                    mp4::put_u32s(o, &[0x5 | extra, count, 100, 0x0200_0000]);
                    (0..count).filter(|_| per_sample_duration).for_each(|i| mp4::put_u32s(o, &[i + 1]));
                    Ok(())
                })
            })
        })
        .unwrap();
        out
    }

    #[test]
    fn times_are_added_up() {
        let read = Moof::parse(&moof(96, false)).unwrap();
        assert_eq!((read.start, read.duration, read.starts_with_key), (49_152, 96 * 512, true));
        assert_eq!(Moof::parse(&moof(4, true)).unwrap().duration, 10);
        assert_eq!(Moof::parse(&moof(0, true)), Err(CmafError::NoDuration));
    }

    #[test]
    fn numbers_are_replaced_and_nothing_else() {
        let before = moof(3, true);
        let mut after = before.clone();
        for (at, bytes) in Moof::parse(&before).unwrap().numbers(2, 41) {
            after[at..at + 4].copy_from_slice(&bytes);
        }
        let changed: Vec<_> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
        assert_eq!(changed, [23, 47]);
        assert_eq!((after[23], after[47]), (41, 2));
    }

    #[test]
    fn a_fragment_can_start_earlier() {
        let mut bytes = moof(3, true);
        let before = Moof::parse(&bytes).unwrap();
        let (at, time) = before.time(512);
        bytes[at..at + time.len()].copy_from_slice(&time);
        assert_eq!(Moof::parse(&bytes).unwrap(), Moof { start: 512, ..before });
    }

    #[test]
    fn every_cut_of_a_moof_is_refused() {
        let whole = moof(5, true);
        for len in 0..whole.len() {
            assert!(Moof::parse(&whole[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_false_sample_count_is_refused() {
        let mut bytes = moof(5, true);
        let count_at = bytes.len() - 5 * 4 - 12;
        bytes[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(Moof::parse(&bytes).is_err());
    }

    #[test]
    fn sidx_lists_every_subsegment() {
        let subs = [Subsegment { bytes: 1000, duration: 49_152 }, Subsegment { bytes: 500, duration: 24_576 }];
        let bytes = sidx(12_288, 0, &subs).unwrap();
        assert_eq!(bytes.len(), 8 + 32 + 24);
        assert_eq!(mp4::u32_at(&bytes, 40, *b"sidx"), Ok(1000));
        let huge = [Subsegment { bytes: 1 << 31, duration: 1 }];
        assert!(sidx(12_288, 0, &huge).is_err());
    }
}
