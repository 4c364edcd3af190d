//! The index of a content: what it says ([`Index`]), how it is written ([`encode`]) and read ([`Loader`]).

mod build;
mod check;
mod encode;
mod error;
mod load;
mod wire;

use std::ops::{Deref, Range};

use crate::BlockId;

pub use build::IndexBuilder;
pub use check::{
    MAX_FILES, MAX_FRAGMENTS, MAX_LANGUAGE_BYTES, MAX_MEDIA_TYPE_BYTES, MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_RENDITIONS,
    MAX_RUNS, check_media_type, check_path,
};
pub use encode::{Encoded, EncodedBlock, Limits, encode};
pub use error::IndexError;
pub use load::{LoadedIndex, Loader};
pub use wire::{MAX_LEVEL, PageRef};

/// What an index block and its pages say of a content (`docs/index-format.md`).
///
/// The fields are free to be set; [`encode`] refuses what the format does not allow, and what a [`Loader`] returns
/// has been checked. [`IndexBuilder`] makes one from ordered pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// SHA-256 of the source file.
    pub source_sha256: [u8; 32],
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Video first, best first; then audio.
    pub renditions: Vec<Rendition>,
    /// The data blocks in order 1..N, each once.
    pub fragments: Fragments,
    /// Ascending by path, each path once.
    pub files: Vec<File>,
}

/// One resolution and bit rate of a video, or one audio or text track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// What it carries.
    pub kind: RenditionKind,
    /// For example "720p" or "audio-en"; at most 64 bytes.
    pub name: String,
    /// RFC 6381 codecs, for example "avc1.64001f"; at most 64 bytes.
    pub codecs: String,
    /// Peak bandwidth, bit/s.
    pub peak_bandwidth_bps: u64,
    /// Average bandwidth, bit/s.
    pub average_bandwidth_bps: u64,
    /// Width in pixels (video).
    pub width_px: Option<u64>,
    /// Height in pixels (video).
    pub height_px: Option<u64>,
    /// Numerator of the frame rate (video).
    pub frame_rate_numerator: Option<u64>,
    /// Denominator of the frame rate (video).
    pub frame_rate_denominator: Option<u64>,
    /// Channels (audio).
    pub channels: Option<u64>,
    /// Sample rate in Hz (audio).
    pub sample_rate_hz: Option<u64>,
    /// BCP 47 language; at most 35 bytes.
    pub language: Option<String>,
    /// Path of its HLS media playlist.
    pub playlist: String,
    /// Path of its MP4.
    pub mp4: Option<String>,
}

/// What a rendition carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RenditionKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Subtitles.
    Text,
}

/// A data block as an entry of the index. Its order is its place in the list, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The block.
    pub id: BlockId,
    /// Its length in bytes, 1 to 1,048,576.
    pub length: u32,
}

/// The ordered list of fragments, with the sums that make a byte range cheap to find. Reads like a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    list: Vec<Fragment>,
    /// `ends[i]` is the length of the first `i + 1` fragments together, in bytes.
    ends: Vec<u64>,
}

/// A file of the content: a playlist, a segment, an MP4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Names joined by single `/` ([`check_path`]).
    pub path: String,
    /// For example "video/mp4" ([`check_media_type`]).
    pub media_type: String,
    /// Its bytes are these runs joined. An empty file has none.
    pub runs: Vec<Run>,
}

/// Consecutive fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Order of the first fragment, counted from 1.
    pub first_order: u32,
    /// How many fragments.
    pub blocks: u32,
    /// Their length together.
    pub bytes: u64,
}

/// A piece of a byte range: bytes `skip..skip + take` of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Order of the fragment, counted from 1.
    pub order: u32,
    /// The block.
    pub id: BlockId,
    /// Length of the whole block in bytes.
    pub block_length: u32,
    /// Bytes of the block before the piece.
    pub skip: u32,
    /// Bytes of the piece, at least 1.
    pub take: u32,
}

impl Index {
    /// The file with this path. A binary search.
    pub fn file(&self, path: &str) -> Option<&File> {
        let place = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        self.files.get(place)
    }

    /// The pieces of blocks that make bytes `range` of `file`, in the order of the file: exactly the fragments that
    /// overlap the range. What reaches past the end of the file is left out.
    ///
    /// Costs one look at each run of the file and a binary search in those that overlap.
    pub fn file_parts<'a>(&'a self, file: &'a File, range: Range<u64>) -> impl Iterator<Item = Part> + 'a {
        let mut run_start = 0_u64;
        file.runs.iter().flat_map(move |run| {
            let start = range.start.saturating_sub(run_start).min(run.bytes);
            let end = range.end.saturating_sub(run_start).min(run.bytes);
            run_start = run_start.saturating_add(run.bytes);
            self.fragments.run_parts(run, start..end)
        })
    }
}

impl File {
    /// Length of the file in bytes.
    pub fn size(&self) -> u64 {
        self.runs.iter().fold(0, |size, run| size.saturating_add(run.bytes))
    }
}

impl Fragments {
    /// The fragment with this order, counted from 1.
    pub fn by_order(&self, order: u32) -> Option<&Fragment> {
        self.list.get((order as usize).checked_sub(1)?)
    }

    /// Length of all fragments together, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Length of a run's fragments together, or `None` if it names fragments that are not there.
    fn bytes_of_run(&self, run: &Run) -> Option<u64> {
        let first = (run.first_order as usize).checked_sub(1)?;
        let end = first.checked_add(run.blocks as usize)?;
        (end <= self.len()).then(|| self.start_of(end) - self.start_of(first))
    }

    /// The pieces of a run's blocks that make bytes `range` of the run.
    fn run_parts(&self, run: &Run, range: Range<u64>) -> impl Iterator<Item = Part> + use<'_> {
        let first = (run.first_order as usize).saturating_sub(1).min(self.len());
        let last = first.saturating_add(run.blocks as usize).min(self.len());
        let base = self.start_of(first);
        let place = first + self.ends[first..last].partition_point(|end| end - base <= range.start);
        (place..last)
            .map(move |place| (place, self.start_of(place) - base))
            .take_while(move |&(_, block_start)| block_start < range.end)
            .filter_map(move |(place, block_start)| self.part(place, block_start, &range))
    }

    /// The overlap of bytes `range` of a run with the fragment at `place`, which begins at `block_start` of the run.
    fn part(&self, place: usize, block_start: u64, range: &Range<u64>) -> Option<Part> {
        let fragment = self.list.get(place)?;
        let length = u64::from(fragment.length);
        let skip = range.start.saturating_sub(block_start).min(length);
        let take = range.end.saturating_sub(block_start).min(length).checked_sub(skip)?;
        let part = Part {
            order: u32::try_from(place + 1).ok()?,
            id: fragment.id,
            block_length: fragment.length,
            skip: u32::try_from(skip).ok()?,
            take: u32::try_from(take).ok()?,
        };
        (take > 0).then_some(part)
    }

    /// Bytes before the fragment at `place`.
    fn start_of(&self, place: usize) -> u64 {
        place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

impl Deref for Fragments {
    type Target = [Fragment];

    fn deref(&self) -> &[Fragment] {
        &self.list
    }
}

impl From<Vec<Fragment>> for Fragments {
    fn from(list: Vec<Fragment>) -> Self {
        let running = |sum: &mut u64, fragment: &Fragment| {
            *sum += u64::from(fragment.length);
            Some(*sum)
        };
        let ends = list.iter().scan(0, running).collect();
        Self { list, ends }
    }
}

impl FromIterator<Fragment> for Fragments {
    fn from_iter<I: IntoIterator<Item = Fragment>>(fragments: I) -> Self {
        Self::from(fragments.into_iter().collect::<Vec<_>>())
    }
}
