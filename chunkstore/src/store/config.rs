/// The smallest and the largest segment that are made without being asked for.
const LEAST_SEGMENT_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u64 = 256 << 20;
/// One part in so many of the quota is for repair. A guess.
const REPAIR_SHARE: u64 = 20;
/// A small store has at least so many segments, so that deletions free some of them.
const LEAST_SEGMENTS: u64 = 16;

/// How a store is opened. What each knob costs is in `docs/store.md`.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The most bytes that the store keeps on disk, its index included.
    pub quota_bytes: u64,
    /// How much of the quota uploads leave free for repair.
    pub repair_reserve_bytes: u64,
    /// Memory for keys that were read lately; bodies are in the system's page cache.
    pub block_cache_bytes: usize,
    /// Memory in which changes of the index wait to be written.
    pub write_buffer_bytes: usize,
    /// Open files of index and segments together.
    pub max_open_files: usize,
    /// Most bytes of a segment, 4 MiB to 2 GiB; what is outside is brought inside.
    pub segment_bytes: u64,
}

impl StoreConfig {
    /// A quota, a twentieth of it kept for repair, and memory of about 60 MiB.
    pub fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            repair_reserve_bytes: quota_bytes / REPAIR_SHARE,
            block_cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            max_open_files: 512,
            segment_bytes: (quota_bytes / LEAST_SEGMENTS).clamp(LEAST_SEGMENT_BYTES, SEGMENT_BYTES),
        }
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.clamp(LEAST_SEGMENT_BYTES, 2 << 30)
    }
}
