use crate::BlockId;

/// Why an index is refused, by its reader or its writer (`docs/index-format.md`, "What a reader checks").
///
/// Only [`Mismatch`](Self::Mismatch) and [`NotWanted`](Self::NotWanted) are about the peer that sent the bytes: they
/// may be asked for elsewhere. Everything else is about the content itself, and every honest copy of it has the same fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The bytes are not the block that was asked for.
    #[error("the bytes have the id {actual}, not {expected}")]
    Mismatch {
        /// The id that named the block.
        expected: BlockId,
        /// SHA-256 of the bytes.
        actual: BlockId,
    },
    /// A page was supplied that the loader does not wait for.
    #[error("page {0} is not wanted")]
    NotWanted(BlockId),
    /// The loader was finished too early.
    #[error("{missing} pages of the index have not been supplied")]
    Incomplete {
        /// How many pages are known and not there.
        missing: usize,
    },
    /// The CBOR is cut off, or an item has another type than the format says.
    #[error("{field}: {reason}")]
    Cbor {
        /// The field.
        field: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A length is indefinite, which deterministic CBOR forbids.
    #[error("{field} has an indefinite length")]
    Indefinite {
        /// The field.
        field: &'static str,
    },
    /// An array has another number of items than the format says.
    #[error("{field} has {found} items where there must be {expected}")]
    Items {
        /// The field.
        field: &'static str,
        /// Items in the block.
        found: u64,
        /// Items in the format.
        expected: u64,
    },
    /// A map lacks a key.
    #[error("{field} lacks key {key}")]
    MissingKey {
        /// The map.
        field: &'static str,
        /// The key.
        key: u64,
    },
    /// A map has a key that version 1 does not know.
    #[error("{field} has the unknown key {key}")]
    UnknownKey {
        /// The map.
        field: &'static str,
        /// The key.
        key: u64,
    },
    /// The bytes are not the one form in which this content may be written.
    #[error("{field} is not deterministic CBOR")]
    NotCanonical {
        /// The block or map.
        field: &'static str,
    },
    /// Bytes follow the end of the block's map.
    #[error("{field} is followed by {bytes} more bytes")]
    Trailing {
        /// Which block.
        field: &'static str,
        /// How many bytes.
        bytes: usize,
    },
    /// The block says that it is something else.
    #[error("{field} says {found:?} where there must be {expected:?}")]
    Kind {
        /// The field.
        field: &'static str,
        /// What it says, cut to 32 characters.
        found: String,
        /// What it must say.
        expected: &'static str,
    },
    /// Another version of the format.
    #[error("{field} is {found}; this program reads version 1")]
    Version {
        /// The field.
        field: &'static str,
        /// The version in the block.
        found: u64,
    },
    /// The content is encrypted in a way that this program does not know.
    #[error("index.cipher is {found}; this program knows only 0 (none)")]
    Cipher {
        /// The cipher in the block.
        found: u64,
    },
    /// Something is more than the format allows.
    #[error("{field} is {found}; the limit is {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        limit: u64,
    },
    /// A number that must be at least one is zero.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A number is not one of those that the format lists.
    #[error("{field} is {found}, which the format does not list")]
    Value {
        /// The field.
        field: &'static str,
        /// The number.
        found: u64,
    },
    /// A page stands at another level than the list that names it says.
    #[error("{field} is {found} where there must be {expected}")]
    Level {
        /// The field.
        field: &'static str,
        /// The level in the page.
        found: u64,
        /// One less than that of the list.
        expected: u64,
    },
    /// A sum does not fit what it is taken over.
    #[error("{field} says {claimed}; the entries below sum to {actual}")]
    Sum {
        /// The field.
        field: &'static str,
        /// What it says.
        claimed: u64,
        /// The sum.
        actual: u64,
    },
    /// A page has another length than the list that names it says.
    #[error("page {id} has {actual} bytes; the entry that names it says {claimed}")]
    PageLength {
        /// The page.
        id: BlockId,
        /// What the entry says.
        claimed: u32,
        /// Its length.
        actual: usize,
    },
    /// A page is named twice.
    #[error("page {0} is named twice")]
    RepeatedPage(BlockId),
    /// A fragment is listed twice.
    #[error("fragment {0} is listed twice")]
    RepeatedFragment(BlockId),
    /// The same fragment was given with two lengths.
    #[error("fragment {id} has {first} bytes and then {second}")]
    TwoLengths {
        /// The fragment.
        id: BlockId,
        /// Its length when it was first pushed.
        first: u32,
        /// Its length now.
        second: u32,
    },
    /// A path that the format does not allow.
    #[error("{field}: {reason}: {path:?}")]
    Path {
        /// The field.
        field: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A media type that the format does not allow.
    #[error("file.media_type is not 1 to 127 characters from 0x21 to 0x7e: {0:?}")]
    MediaType(String),
    /// Files do not ascend by path, or a path is there twice.
    #[error("files are not in ascending order at {path:?}")]
    Unsorted {
        /// The file that is not above the one before it.
        path: String,
    },
    /// A page of files does not begin with the path that the entry gives.
    #[error("the page begins with {actual:?}; the entry that names it says {claimed:?}")]
    FirstPath {
        /// What the entry says.
        claimed: String,
        /// The first path below.
        actual: String,
    },
    /// A run names fragments that are not there.
    #[error("file {path:?}: a run of {blocks} blocks from order {first_order} is not inside 1..{fragments}")]
    Run {
        /// The file.
        path: String,
        /// Where the run begins.
        first_order: u32,
        /// How many blocks it names.
        blocks: u32,
        /// How many fragments there are.
        fragments: usize,
    },
    /// A run's fragments have other lengths than it claims.
    #[error("file {path:?}: the run from order {first_order} says {claimed} bytes; its blocks have {actual}")]
    RunBytes {
        /// The file.
        path: String,
        /// Where the run begins.
        first_order: u32,
        /// What the run says.
        claimed: u64,
        /// What its blocks have together.
        actual: u64,
    },
    /// A file's size is not the sum of its runs.
    #[error("file {path:?}: size is {claimed}; its runs have {actual} bytes")]
    FileSize {
        /// The file.
        path: String,
        /// What the file says.
        claimed: u64,
        /// The sum of its runs.
        actual: u64,
    },
    /// One entry, or the index block with the shortest lists, is longer than a page may be.
    #[error("{field} has {bytes} bytes, which is more than fits in a block of {limit}")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest block.
        limit: usize,
    },
}
