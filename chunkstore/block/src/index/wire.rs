//! Single blocks of an index as CBOR: the index block and the page. What spans blocks is in `encode` and `load`.

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, decode, encode};

use super::check::{
    MAX_FILES, MAX_FRAGMENTS, MAX_RENDITIONS, MAX_RUNS, at_least_one, check_file, check_fragment_length, check_path_of,
    check_rendition, limit,
};
use super::{File, Fragment, IndexError, Rendition, RenditionKind, Run};
use crate::{BlockId, MAX_BLOCK_BYTES};

/// The highest level of a list (`docs/index-format.md`, "Limits").
pub const MAX_LEVEL: u8 = 4;

const INDEX_KIND: &str = "imira-index";
const PAGE_KIND: &str = "imira-page";
const VERSION: u64 = 1;
const CIPHER_NONE: u64 = 0;
const INDEX_KEYS: u64 = 8;
const PAGE_KEYS: u64 = 5;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fragments,
    Files,
}

/// The index block.
pub(super) struct Root {
    pub(super) source_sha256: [u8; 32],
    pub(super) duration_ms: u64,
    pub(super) renditions: Vec<Rendition>,
    pub(super) fragments: List,
    pub(super) files: List,
}

/// A list in the index block: the top of a tree.
pub(super) struct List {
    pub(super) level: u8,
    pub(super) total: Total,
    pub(super) items: Items,
}

/// A page: a lower part of a tree.
pub(super) struct Page {
    pub(super) kind: Kind,
    pub(super) level: u8,
    pub(super) items: Items,
}

/// What a list or page holds itself.
pub(super) enum Items {
    Fragments(Vec<Fragment>),
    Files(Vec<File>),
    Pages(Vec<PageEntry>),
}

/// A page as the list above names it.
#[derive(Clone, Debug)]
pub(super) struct PageEntry {
    pub(super) page: PageRef,
    pub(super) below: Below,
}

/// Id and length of an index page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageRef {
    /// The page's block.
    pub id: BlockId,
    /// Its length in bytes.
    pub length: u32,
}

/// What an entry says of everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Below {
    Fragments(Total),
    Files { count: u64, first_path: String },
}

/// Sums over entries. `bytes` is of fragments and stays zero for files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Root {
    /// Reads an index block and checks all that it alone shows.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        limit("index.length", bytes.len() as u64, MAX_BLOCK_BYTES as u64)?;
        let mut reader = Reader::new(bytes);
        let mut keys = reader.begin_block("index", INDEX_KIND, "index.kind", "index.version")?;
        reader.key(&mut keys, 2)?;
        check_cipher(reader.uint("index.cipher")?)?;
        reader.key(&mut keys, 3)?;
        let source_sha256 = reader.bytes32("index.source_sha256")?;
        reader.key(&mut keys, 4)?;
        let duration_ms = reader.uint("index.duration_ms")?;
        reader.key(&mut keys, 5)?;
        let renditions = reader.renditions()?;
        reader.key(&mut keys, 6)?;
        let fragments = reader.list(Kind::Fragments)?;
        reader.key(&mut keys, 7)?;
        let files = reader.list(Kind::Files)?;
        reader.end_block(keys)?;
        let root = Self { source_sha256, duration_ms, renditions, fragments, files };
        check_canonical("index", &root.encode(), bytes)?;
        Ok(root)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.root_start(self.source_sha256, self.duration_ms, &self.renditions);
        for (key, kind, list) in [(6, Kind::Fragments, &self.fragments), (7, Kind::Files, &self.files)] {
            writer.uint(key);
            writer.list_start(kind, list.level, list.total, list.items.len());
            writer.items(&list.items);
        }
        writer.finish()
    }
}

impl Page {
    /// Reads a page and checks all that it alone shows.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        limit("page.length", bytes.len() as u64, MAX_BLOCK_BYTES as u64)?;
        let mut reader = Reader::new(bytes);
        let mut keys = reader.begin_block("page", PAGE_KIND, "page.kind", "page.version")?;
        reader.key(&mut keys, 2)?;
        let kind = match reader.uint("page.list")? {
            0 => Kind::Fragments,
            1 => Kind::Files,
            found => return Err(IndexError::Value { field: "page.list", found }),
        };
        reader.key(&mut keys, 3)?;
        let level = reader.level("page.level", MAX_LEVEL - 1)?;
        reader.key(&mut keys, 4)?;
        let items = reader.items(kind, level)?;
        reader.end_block(keys)?;
        let page = Self { kind, level, items };
        check_canonical("page", &page.encode(), bytes)?;
        Ok(page)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.page_start(self.kind, self.level, self.items.len());
        writer.items(&self.items);
        writer.finish()
    }
}

impl Items {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fragments(fragments) => fragments.len(),
            Self::Files(files) => files.len(),
            Self::Pages(entries) => entries.len(),
        }
    }

    /// Counts and bytes over everything below, as the entries claim them.
    pub(super) fn total(&self) -> Total {
        match self {
            Self::Fragments(fragments) => Total {
                count: fragments.len() as u64,
                bytes: fragments.iter().map(|fragment| u64::from(fragment.length)).sum(),
            },
            Self::Files(files) => Total { count: files.len() as u64, bytes: 0 },
            Self::Pages(entries) => entries.iter().map(|entry| entry.below.total()).fold(Total::default(), Total::plus),
        }
    }

    /// The first path, where these are files or pages of files.
    pub(super) fn first_path(&self) -> Option<&str> {
        match self {
            Self::Fragments(_) => None,
            Self::Files(files) => files.first().map(|file| file.path.as_str()),
            Self::Pages(entries) => match &entries.first()?.below {
                Below::Fragments(_) => None,
                Below::Files { first_path, .. } => Some(first_path),
            },
        }
    }
}

impl Below {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Fragments(_) => Kind::Fragments,
            Self::Files { .. } => Kind::Files,
        }
    }

    pub(super) fn total(&self) -> Total {
        match *self {
            Self::Fragments(total) => total,
            Self::Files { count, .. } => Total { count, bytes: 0 },
        }
    }
}

impl Total {
    /// Cannot overflow: a block has fewer than 2^15 entries, each at most 2^24 fragments of 2^20 bytes.
    pub(super) fn plus(self, other: Self) -> Self {
        Self { count: self.count + other.count, bytes: self.bytes + other.bytes }
    }
}

/// Writes deterministic CBOR: `minicbor` takes the shortest form of every number, and we use definite lengths only.
pub(super) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(Encoder::new(Vec::new()))
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    /// Everything of the index block before key 6.
    pub(super) fn root_start(&mut self, source_sha256: [u8; 32], duration_ms: u64, renditions: &[Rendition]) {
        written(self.0.map(INDEX_KEYS));
        self.uint_text(0, INDEX_KIND);
        self.uints(&[1, VERSION, 2, CIPHER_NONE, 3]);
        written(self.0.bytes(&source_sha256));
        self.uints(&[4, duration_ms, 5]);
        written(self.0.array(renditions.len() as u64));
        renditions.iter().for_each(|rendition| self.rendition(rendition));
    }

    /// A list of the index block up to its entries.
    pub(super) fn list_start(&mut self, kind: Kind, level: u8, total: Total, entries: usize) {
        match kind {
            Kind::Fragments => {
                written(self.0.array(4));
                self.uints(&[level.into(), total.count, total.bytes]);
            }
            Kind::Files => {
                written(self.0.array(3));
                self.uints(&[level.into(), total.count]);
            }
        }
        written(self.0.array(entries as u64));
    }

    /// A page up to its entries.
    pub(super) fn page_start(&mut self, kind: Kind, level: u8, entries: usize) {
        written(self.0.map(PAGE_KEYS));
        self.uint_text(0, PAGE_KIND);
        self.uints(&[1, VERSION, 2, kind as u64, 3, level.into(), 4]);
        written(self.0.array(entries as u64));
    }

    fn items(&mut self, items: &Items) {
        match items {
            Items::Fragments(fragments) => fragments.iter().for_each(|fragment| self.fragment(fragment)),
            Items::Files(files) => files.iter().for_each(|file| self.file(file)),
            Items::Pages(entries) => entries.iter().for_each(|entry| self.page_entry(entry)),
        }
    }

    pub(super) fn fragment(&mut self, fragment: &Fragment) {
        written(self.0.array(2));
        written(self.0.bytes(fragment.id.as_bytes()));
        self.uint(fragment.length.into());
    }

    pub(super) fn file(&mut self, file: &File) {
        written(self.0.array(4));
        written(self.0.str(&file.path));
        written(self.0.str(&file.media_type));
        self.uint(file.size());
        written(self.0.array(file.runs.len() as u64));
        for run in &file.runs {
            written(self.0.array(3));
            self.uints(&[run.first_order.into(), run.blocks.into(), run.bytes]);
        }
    }

    pub(super) fn page_entry(&mut self, entry: &PageEntry) {
        written(self.0.array(4));
        written(self.0.bytes(entry.page.id.as_bytes()));
        self.uint(entry.page.length.into());
        match &entry.below {
            Below::Fragments(total) => self.uints(&[total.count, total.bytes]),
            Below::Files { count, first_path } => {
                self.uint(*count);
                written(self.0.str(first_path));
            }
        }
    }

    fn rendition(&mut self, rendition: &Rendition) {
        let numbers = optional_numbers(rendition);
        let texts = [&rendition.language, &rendition.mp4];
        let optional = numbers.iter().flatten().count() + texts.iter().filter(|text| text.is_some()).count();
        written(self.0.map(6 + optional as u64));
        self.uints(&[0, rendition.kind as u64]);
        self.uint_text(1, &rendition.name);
        self.uint_text(2, &rendition.codecs);
        self.uints(&[3, rendition.peak_bandwidth_bps, 4, rendition.average_bandwidth_bps]);
        for (key, number) in (5..).zip(numbers) {
            number.iter().for_each(|&number| self.uints(&[key, number]));
        }
        rendition.language.iter().for_each(|text| self.uint_text(11, text));
        self.uint_text(12, &rendition.playlist);
        rendition.mp4.iter().for_each(|text| self.uint_text(13, text));
    }

    pub(super) fn uint(&mut self, number: u64) {
        written(self.0.u64(number));
    }

    fn uints(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|&number| self.uint(number));
    }

    fn uint_text(&mut self, key: u64, text: &str) {
        self.uint(key);
        written(self.0.str(text));
    }
}

/// Keys 5 to 10 of a rendition, in order.
fn optional_numbers(rendition: &Rendition) -> [Option<u64>; 6] {
    [
        rendition.width_px,
        rendition.height_px,
        rendition.frame_rate_numerator,
        rendition.frame_rate_denominator,
        rendition.channels,
        rendition.sample_rate_hz,
    ]
}

#[expect(clippy::expect_used, reason = "a Vec takes every byte, and only plain items are encoded")]
fn written<T>(outcome: Result<T, encode::Error<Infallible>>) {
    outcome.expect("writing to a Vec cannot fail");
}

/// Reads CBOR whose every item is named for the error message. It is lenient in what [`check_canonical`] catches.
struct Reader<'b>(Decoder<'b>);

/// How far a map has been read.
struct Keys {
    map: &'static str,
    left: u64,
}

impl<'b> Reader<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    /// Opens a block's map, and refuses other kinds of blocks and other versions by name before anything else.
    fn begin_block(
        &mut self,
        block: &'static str,
        expected: &'static str,
        kind: &'static str,
        version: &'static str,
    ) -> Result<Keys, IndexError> {
        let mut keys = Keys { map: block, left: self.map(block)? };
        self.key(&mut keys, 0)?;
        let found = self.text(kind)?;
        if found != expected {
            return Err(IndexError::Kind { field: kind, found: found.chars().take(32).collect(), expected });
        }
        self.key(&mut keys, 1)?;
        match self.uint(version)? {
            VERSION => Ok(keys),
            found => Err(IndexError::Version { field: version, found }),
        }
    }

    /// Ends a block's map, after which nothing may follow.
    fn end_block(&mut self, keys: Keys) -> Result<(), IndexError> {
        if keys.left > 0 {
            let key = self.uint(keys.map)?;
            return Err(IndexError::UnknownKey { field: keys.map, key });
        }
        match self.0.input().len() - self.0.position() {
            0 => Ok(()),
            bytes => Err(IndexError::Trailing { field: keys.map, bytes }),
        }
    }

    /// Reads the key `expected` of a map.
    fn key(&mut self, keys: &mut Keys, expected: u64) -> Result<(), IndexError> {
        let field = keys.map;
        let missing = IndexError::MissingKey { field, key: expected };
        keys.left = keys.left.checked_sub(1).ok_or_else(|| missing.clone())?;
        match self.uint(field)? {
            found if found == expected => Ok(()),
            found if found > expected => Err(missing),
            _ => Err(IndexError::NotCanonical { field }),
        }
    }

    fn renditions(&mut self) -> Result<Vec<Rendition>, IndexError> {
        let count = self.array("index.renditions")?;
        limit("index.renditions", count, MAX_RENDITIONS)?;
        (0..count).map(|_| self.rendition()).collect()
    }

    fn rendition(&mut self) -> Result<Rendition, IndexError> {
        let mut draft = RenditionDraft::default();
        let mut previous = None;
        for _ in 0..self.map("rendition")? {
            let key = self.uint("rendition")?;
            if previous >= Some(key) {
                return Err(IndexError::NotCanonical { field: "rendition" });
            }
            previous = Some(key);
            self.rendition_value(key, &mut draft)?;
        }
        let rendition = draft.finish()?;
        check_rendition(&rendition)?;
        Ok(rendition)
    }

    fn rendition_value(&mut self, key: u64, draft: &mut RenditionDraft) -> Result<(), IndexError> {
        match key {
            0 => draft.kind = Some(rendition_kind(self.uint("rendition.kind")?)?),
            1 => draft.name = Some(self.text("rendition.name")?.to_owned()),
            2 => draft.codecs = Some(self.text("rendition.codecs")?.to_owned()),
            3 => draft.peak = Some(self.uint("rendition.peak_bandwidth")?),
            4 => draft.average = Some(self.uint("rendition.average_bandwidth")?),
            5 => draft.numbers[0] = Some(self.uint("rendition.width")?),
            6 => draft.numbers[1] = Some(self.uint("rendition.height")?),
            7 => draft.numbers[2] = Some(self.uint("rendition.frame_rate_numerator")?),
            8 => draft.numbers[3] = Some(self.uint("rendition.frame_rate_denominator")?),
            9 => draft.numbers[4] = Some(self.uint("rendition.channels")?),
            10 => draft.numbers[5] = Some(self.uint("rendition.sample_rate")?),
            11 => draft.language = Some(self.text("rendition.language")?.to_owned()),
            12 => draft.playlist = Some(self.text("rendition.playlist")?.to_owned()),
            13 => draft.mp4 = Some(self.text("rendition.mp4")?.to_owned()),
            _ => return Err(IndexError::UnknownKey { field: "rendition", key }),
        }
        Ok(())
    }

    /// A list of the index block, with its sums checked against its entries.
    fn list(&mut self, kind: Kind) -> Result<List, IndexError> {
        let (name, items, level_name) = match kind {
            Kind::Fragments => ("fragments", 4, "fragments.level"),
            Kind::Files => ("files", 3, "files.level"),
        };
        self.tuple(name, items)?;
        let level = self.level(level_name, MAX_LEVEL)?;
        let total = self.total(kind)?;
        let items = self.items_of(kind, level, level > 0)?;
        check_total(kind, total, items.total())?;
        Ok(List { level, total, items })
    }

    fn total(&mut self, kind: Kind) -> Result<Total, IndexError> {
        match kind {
            Kind::Fragments => {
                let count = self.uint("fragments.count")?;
                limit("fragments.count", count, MAX_FRAGMENTS)?;
                let bytes = self.uint("fragments.bytes")?;
                limit("fragments.bytes", bytes, count * MAX_BLOCK_BYTES as u64)?;
                Ok(Total { count, bytes })
            }
            Kind::Files => {
                let count = self.uint("files.count")?;
                limit("files.count", count, MAX_FILES)?;
                Ok(Total { count, bytes: 0 })
            }
        }
    }

    /// A page's entries. No page is empty: a writer never makes one, and a reader could be kept busy with them.
    fn items(&mut self, kind: Kind, level: u8) -> Result<Items, IndexError> {
        self.items_of(kind, level, true)
    }

    fn items_of(&mut self, kind: Kind, level: u8, at_least_one_entry: bool) -> Result<Items, IndexError> {
        let field = match kind {
            Kind::Fragments => "fragments.entries",
            Kind::Files => "files.entries",
        };
        let entries = self.array(field)?;
        if at_least_one_entry {
            at_least_one(field, entries)?;
        }
        // Nothing is reserved for `entries`, which may be any number: the bytes run out first.
        match (level, kind) {
            (0, Kind::Fragments) => {
                (0..entries).map(|_| self.fragment()).collect::<Result<_, _>>().map(Items::Fragments)
            }
            (0, Kind::Files) => (0..entries).map(|_| self.file()).collect::<Result<_, _>>().map(Items::Files),
            _ => (0..entries).map(|_| self.page_entry(kind)).collect::<Result<_, _>>().map(Items::Pages),
        }
    }

    fn fragment(&mut self) -> Result<Fragment, IndexError> {
        self.tuple("fragment", 2)?;
        let id = BlockId::from_bytes(self.bytes32("fragment.id")?);
        let length = self.uint32("fragment.length")?;
        check_fragment_length(length)?;
        Ok(Fragment { id, length })
    }

    fn file(&mut self) -> Result<File, IndexError> {
        self.tuple("file", 4)?;
        let path = self.text("file.path")?.to_owned();
        let media_type = self.text("file.media_type")?.to_owned();
        let claimed = self.uint("file.size")?;
        let count = self.array("file.runs")?;
        limit("file.runs", count, MAX_RUNS)?;
        let runs = (0..count).map(|_| self.run()).collect::<Result<_, _>>()?;
        let file = File { path, media_type, runs };
        check_file(&file)?;
        match file.size() {
            actual if actual == claimed => Ok(file),
            actual => Err(IndexError::FileSize { path: file.path, claimed, actual }),
        }
    }

    fn run(&mut self) -> Result<Run, IndexError> {
        self.tuple("run", 3)?;
        Ok(Run {
            first_order: self.uint32("run.first_order")?,
            blocks: self.uint32("run.blocks")?,
            bytes: self.uint("run.bytes")?,
        })
    }

    fn page_entry(&mut self, kind: Kind) -> Result<PageEntry, IndexError> {
        self.tuple("page entry", 4)?;
        let id = BlockId::from_bytes(self.bytes32("page entry.id")?);
        let length = self.uint32("page entry.length")?;
        at_least_one("page entry.length", length.into())?;
        limit("page entry.length", length.into(), MAX_BLOCK_BYTES as u64)?;
        let total = self.total(kind)?;
        at_least_one("page entry.count", total.count)?;
        let below = match kind {
            Kind::Fragments => Below::Fragments(total),
            Kind::Files => Below::Files { count: total.count, first_path: self.first_path()? },
        };
        Ok(PageEntry { page: PageRef { id, length }, below })
    }

    fn first_path(&mut self) -> Result<String, IndexError> {
        let path = self.text("page entry.first_path")?;
        check_path_of("page entry.first_path", path)?;
        Ok(path.to_owned())
    }

    fn level(&mut self, field: &'static str, most: u8) -> Result<u8, IndexError> {
        let level = self.uint(field)?;
        limit(field, level, most.into())?;
        Ok(level as u8) // at most `most`
    }

    /// Opens an array of exactly `expected` items.
    fn tuple(&mut self, field: &'static str, expected: u64) -> Result<(), IndexError> {
        match self.array(field)? {
            found if found == expected => Ok(()),
            found => Err(IndexError::Items { field, found, expected }),
        }
    }

    fn array(&mut self, field: &'static str) -> Result<u64, IndexError> {
        named(field, self.0.array())?.ok_or(IndexError::Indefinite { field })
    }

    fn map(&mut self, field: &'static str) -> Result<u64, IndexError> {
        named(field, self.0.map())?.ok_or(IndexError::Indefinite { field })
    }

    fn uint(&mut self, field: &'static str) -> Result<u64, IndexError> {
        named(field, self.0.u64())
    }

    fn uint32(&mut self, field: &'static str) -> Result<u32, IndexError> {
        let found = self.uint(field)?;
        u32::try_from(found).map_err(|_| IndexError::Limit { field, found, limit: u32::MAX.into() })
    }

    fn text(&mut self, field: &'static str) -> Result<&'b str, IndexError> {
        named(field, self.0.str())
    }

    fn bytes32(&mut self, field: &'static str) -> Result<[u8; 32], IndexError> {
        let bytes = named(field, self.0.bytes())?;
        let wrong = |_| IndexError::Items { field, found: bytes.len() as u64, expected: 32 };
        bytes.try_into().map_err(wrong)
    }
}

/// A rendition of which some keys have been read.
#[derive(Default)]
struct RenditionDraft {
    kind: Option<RenditionKind>,
    name: Option<String>,
    codecs: Option<String>,
    peak: Option<u64>,
    average: Option<u64>,
    numbers: [Option<u64>; 6],
    language: Option<String>,
    playlist: Option<String>,
    mp4: Option<String>,
}

impl RenditionDraft {
    fn finish(self) -> Result<Rendition, IndexError> {
        let [width_px, height_px, frame_rate_numerator, frame_rate_denominator, channels, sample_rate_hz] =
            self.numbers;
        Ok(Rendition {
            kind: required(0, self.kind)?,
            name: required(1, self.name)?,
            codecs: required(2, self.codecs)?,
            peak_bandwidth_bps: required(3, self.peak)?,
            average_bandwidth_bps: required(4, self.average)?,
            width_px,
            height_px,
            frame_rate_numerator,
            frame_rate_denominator,
            channels,
            sample_rate_hz,
            language: self.language,
            playlist: required(12, self.playlist)?,
            mp4: self.mp4,
        })
    }
}

fn required<T>(key: u64, value: Option<T>) -> Result<T, IndexError> {
    value.ok_or(IndexError::MissingKey { field: "rendition", key })
}

fn rendition_kind(found: u64) -> Result<RenditionKind, IndexError> {
    match found {
        0 => Ok(RenditionKind::Video),
        1 => Ok(RenditionKind::Audio),
        2 => Ok(RenditionKind::Text),
        _ => Err(IndexError::Value { field: "rendition.kind", found }),
    }
}

fn check_cipher(found: u64) -> Result<(), IndexError> {
    if found == CIPHER_NONE { Ok(()) } else { Err(IndexError::Cipher { found }) }
}

/// Compares what a list or entry claims with the sums over what is below it.
pub(super) fn check_total(kind: Kind, claimed: Total, actual: Total) -> Result<(), IndexError> {
    let (count, bytes) = match kind {
        Kind::Fragments => ("fragments.count", "fragments.bytes"),
        Kind::Files => ("files.count", "files.bytes"),
    };
    check_sum(count, claimed.count, actual.count)?;
    check_sum(bytes, claimed.bytes, actual.bytes)
}

fn check_sum(field: &'static str, claimed: u64, actual: u64) -> Result<(), IndexError> {
    if claimed == actual { Ok(()) } else { Err(IndexError::Sum { field, claimed, actual }) }
}

/// There is one encoding of what was read, and `bytes` must be it: so numbers and lengths are the shortest.
fn check_canonical(field: &'static str, canonical: &[u8], bytes: &[u8]) -> Result<(), IndexError> {
    if canonical == bytes { Ok(()) } else { Err(IndexError::NotCanonical { field }) }
}

fn named<T>(field: &'static str, item: Result<T, decode::Error>) -> Result<T, IndexError> {
    item.map_err(|error| IndexError::Cbor { field, reason: error.to_string() })
}
