//! Parts of a content that a token may be confined to: renditions, and a time lapse (`docs/api.md` §1 and §4).

use chunkstore_block::{File, Index, Part, Rendition, RenditionKind};
use serde::{Deserialize, Serialize};

use crate::problem::{ErrorKind, Problem};

/// The most renditions that a request may name: one of each kind and two to change to.
pub const MAX_RENDITIONS: usize = 4;

/// The longest name of a rendition, bytes (`docs/index-format.md`, Limits).
const MAX_NAME_BYTES: usize = 64;

/// The longest media playlist that is read for the times of its segments: about 100 hours.
pub(crate) const MAX_PLAYLIST_BYTES: u64 = 4 << 20;

/// A stretch of a film, from `from_ms` to before `to_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapse {
    /// Milliseconds from the beginning of the film.
    pub from_ms: u64,
    /// Greater than `from_ms`.
    pub to_ms: u64,
}

/// What of a content a token opens; the default is all of it. Index, pages, and files of no rendition (the master playlist) are always open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Names of renditions, at most [`MAX_RENDITIONS`]; none for all of them.
    pub renditions: Vec<String>,
    /// The segments that overlap it; none for the whole film.
    pub lapse: Option<Lapse>,
}

impl Scope {
    /// Whether everything is open.
    pub fn is_whole(&self) -> bool {
        self.renditions.is_empty() && self.lapse.is_none()
    }

    /// Whether a node takes it in a request.
    pub(crate) fn is_valid(&self) -> bool {
        let named = self.renditions.iter().all(|name| (1..=MAX_NAME_BYTES).contains(&name.len()));
        named && self.renditions.len() <= MAX_RENDITIONS && self.lapse.is_none_or(|lapse| lapse.from_ms < lapse.to_ms)
    }
}

/// To which renditions each fragment belongs, as bits: an index has 64 at most.
#[derive(Debug)]
pub(crate) struct Attribution {
    renditions: Vec<u64>,
    /// The renditions whose playback counts as watching, as bits, with their average bandwidth in bit/s.
    watched: Vec<(u64, u64)>,
    /// Where the film begins, once for each watched rendition.
    starts: Vec<u32>,
}

impl Attribution {
    pub(crate) fn of(index: &Index) -> Self {
        let mut renditions = vec![0; index.fragments.len()];
        for file in &index.files {
            let mask = mask_of(index, |rendition| belongs(file, rendition));
            for order in orders(file) {
                if let Some(of_fragment) = place(order).and_then(|place| renditions.get_mut(place)) {
                    *of_fragment |= mask;
                }
            }
        }
        Self { renditions, watched: watched(index), starts: starts(index) }
    }

    fn renditions_of(&self, order: u32) -> u64 {
        place(order).and_then(|place| self.renditions.get(place)).copied().unwrap_or(0)
    }

    /// How long `bytes` of a fragment play, milliseconds, by the average bandwidth of its rendition. Nothing for sound beside pictures,
    /// which would count the same time twice.
    pub(crate) fn played_ms(&self, order: u32, bytes: u64) -> f64 {
        let mask = self.renditions_of(order);
        let rate = self.watched.iter().find(|(bit, _)| mask & bit != 0).map(|(_, rate)| *rate);
        rate.filter(|rate| *rate > 0).map_or(0.0, |rate| bytes as f64 * 8_000.0 / rate as f64)
    }

    /// Whether the film begins with this fragment.
    pub(crate) fn is_start(&self, order: u32) -> bool {
        self.starts.contains(&order)
    }
}

/// Orders count from 1.
fn place(order: u32) -> Option<usize> {
    (order as usize).checked_sub(1)
}

/// Indexes have no more renditions (`docs/index-format.md`), so a bit each is enough.
fn renditions(index: &Index) -> impl Iterator<Item = (u64, &Rendition)> {
    index.renditions.iter().take(64).enumerate().map(|(place, rendition)| (1 << place, rendition))
}

/// The pictures, or the sound of a film without any.
fn counted(index: &Index) -> impl Iterator<Item = (u64, &Rendition)> {
    let has_video = index.renditions.iter().any(is_video);
    renditions(index).filter(move |(_, rendition)| !has_video || is_video(rendition))
}

fn watched(index: &Index) -> Vec<(u64, u64)> {
    counted(index).map(|(bit, rendition)| (bit, rendition.average_bandwidth_bps)).collect()
}

/// The first fragment of the first segment of each rendition that counts; of its MP4 where it has no segments.
fn starts(index: &Index) -> Vec<u32> {
    let first = |rendition: &Rendition| {
        let mut files = index.files.iter().filter(|file| belongs(file, rendition));
        let segment = files.clone().find(|file| file.path.ends_with(".m4s"));
        let file = segment.or_else(|| files.find(|file| rendition.mp4.as_ref() == Some(&file.path)))?;
        file.runs.first().map(|run| run.first_order)
    };
    counted(index).filter_map(|(_, rendition)| first(rendition)).collect()
}

fn is_video(rendition: &Rendition) -> bool {
    rendition.kind == RenditionKind::Video
}

fn mask_of(index: &Index, wanted: impl Fn(&Rendition) -> bool) -> u64 {
    renditions(index).filter(|(_, rendition)| wanted(rendition)).fold(0, |mask, (bit, _)| mask | bit)
}

/// A rendition's files are its playlist, what lies in the playlist's folder, and its MP4.
fn belongs(file: &File, rendition: &Rendition) -> bool {
    let folder = rendition.playlist.rsplit_once('/').map(|(folder, _)| folder);
    let within = |folder: &str| file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    file.path == rendition.playlist || rendition.mp4.as_ref() == Some(&file.path) || folder.is_some_and(within)
}

/// The orders of a file's fragments.
fn orders(file: &File) -> impl Iterator<Item = u32> {
    file.runs.iter().flat_map(|run| run.first_order..run.first_order.saturating_add(run.blocks))
}

/// When each fragment is played, from the media playlists; `None` for one of no segment, as of a header.
#[derive(Debug)]
pub(crate) struct Times {
    fragments: Vec<Option<Lapse>>,
    /// Bits of the renditions of which it is known.
    known: u64,
}

impl Times {
    pub(crate) fn new(index: &Index) -> Self {
        Self { fragments: vec![None; index.fragments.len()], known: 0 }
    }

    /// Takes the times of the segments of a media playlist (RFC 8216 §4.3.2.1). A fragment of several segments is played from the first of
    /// them to the last.
    pub(crate) fn add(&mut self, index: &Index, playlist_path: &str, text: &str) {
        let folder = playlist_path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let (mut seconds, mut length) = (0.0_f64, None);
        for line in text.lines().map(str::trim) {
            if let Some(said) = line.strip_prefix("#EXTINF:") {
                length = said.split(',').next().and_then(|number| number.parse::<f64>().ok());
            } else if !line.starts_with('#')
                && !line.is_empty()
                && let Some(length) = length.take()
            {
                let until = seconds + length.max(0.0);
                let lapse = Lapse { from_ms: (seconds * 1_000.0) as u64, to_ms: (until * 1_000.0).ceil() as u64 };
                seconds = until;
                if let Some(file) = index.file(&format!("{folder}{line}")) {
                    self.known |= mask_of(index, |rendition| belongs(file, rendition));
                    self.note(file, lapse);
                }
            }
        }
    }

    fn note(&mut self, file: &File, lapse: Lapse) {
        for order in orders(file) {
            let Some(known) = place(order).and_then(|place| self.fragments.get_mut(place)) else { continue };
            let wider =
                |known: Lapse| Lapse { from_ms: known.from_ms.min(lapse.from_ms), to_ms: known.to_ms.max(lapse.to_ms) };
            *known = Some(known.map_or(lapse, wider));
        }
    }

    fn of(&self, order: u32) -> Option<Lapse> {
        place(order).and_then(|place| self.fragments.get(place)).copied().flatten()
    }
}

/// A token's scope, set against a content.
pub(crate) struct Confined<'a> {
    attribution: &'a Attribution,
    /// Bits of the renditions that are open.
    open: Option<u64>,
    lapse: Option<(Lapse, &'a Times)>,
}

impl<'a> Confined<'a> {
    /// `times` must be there when the scope has a lapse.
    pub(crate) fn new(scope: &Scope, index: &Index, attribution: &'a Attribution, times: Option<&'a Times>) -> Self {
        let named = |rendition: &Rendition| scope.renditions.contains(&rendition.name);
        Self {
            attribution,
            open: (!scope.renditions.is_empty()).then(|| mask_of(index, named)),
            lapse: scope.lapse.zip(times),
        }
    }

    /// Refuses a fragment outside.
    pub(crate) fn check(&self, order: u32) -> Result<(), Problem> {
        let of = self.attribution.renditions_of(order);
        if self.open.is_some_and(|open| of != 0 && of & open == 0) {
            return Err(Problem::new(
                ErrorKind::WrongRendition,
                "The token is confined to other renditions of the content. Ask the platform for one for this rendition.",
            ));
        }
        let Some((lapse, times)) = self.lapse else { return Ok(()) };
        match times.of(order) {
            Some(played) if played.to_ms <= lapse.from_ms || played.from_ms >= lapse.to_ms => {
                Err(outside(lapse, &format!("this is played from {} to {} ms", played.from_ms, played.to_ms)))
            }
            // A header, or of no rendition. Of a rendition without a playlist, nobody knows what is when.
            None if of & times.known == 0 && of != 0 => Err(outside(lapse, "no playlist says when this is played")),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses unless all of `parts` are open.
    pub(crate) fn check_all(&self, parts: impl Iterator<Item = Part>) -> Result<(), Problem> {
        parts.map(|part| part.order).try_for_each(|order| self.check(order))
    }
}

fn outside(lapse: Lapse, why: &str) -> Problem {
    let detail = format!(
        "The token is confined to {} to {} ms of the film, and {why}. Ask the platform for one for this time lapse.",
        lapse.from_ms, lapse.to_ms
    );
    Problem::new(ErrorKind::OutsideLapse, detail)
}
