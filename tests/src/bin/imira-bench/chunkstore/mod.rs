//! The block store beside plain files: durable puts, verified reads, bytes written, memory and time of a large store.
//!
//! Bodies are random and distinct, and made, like their ids, before the clock starts.

mod adapter;
mod many;
mod plain;
mod pool;
mod store;

use anyhow::Result;

use crate::measure::{alternate, median, repeat};
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};
use plain::PlainFile;
use pool::{Pool, Sizes};

pub(crate) use many::OpenStore;

pub(crate) const SUITE: Suite = Suite {
    name: "chunkstore",
    steps: &[
        Step { what: "durable put of 1 MiB, 1 writer", run: |context| put(context, Sizes::Full, 1, 0.8) },
        Step { what: "durable put of 1 MiB, 16 writers", run: |context| put(context, Sizes::Full, 16, 1.0) },
        Step { what: "durable put of the mix, 1 writer", run: |context| put(context, Sizes::Mixed, 1, 0.7) },
        Step { what: "durable put of the mix, 16 writers", run: |context| put(context, Sizes::Mixed, 16, 0.7) },
        Step { what: "bytes written", run: bytes_written },
        Step { what: "verified read of 1 MiB", run: |context| read(context, Sizes::Full, 0.9) },
        Step { what: "verified read of the mix", run: |context| read(context, Sizes::Mixed, 0.8) },
        Step { what: "scrub", run: scrub },
        Step { what: "many small blocks", run: many::measure },
        Step { what: "group commit", run: group_commit },
    ],
};

/// Bytes of bodies in a run: several times the buffers that a store may fill for free, and not more, since a virtual machine
/// that frees a GiB at once gives it back to its host, and whoever touches it next pays (`docs/benchmarks.md`).
const POOL_BYTES: usize = 256 << 20;
const WRITERS: [usize; 6] = [1, 2, 4, 8, 16, 32];

const APPEND: &str = "append+fdatasync of each, one writer";
const PREAD: &str = "pread+SHA-256";

fn put(context: &Context, sizes: Sizes, writers: usize, goal: f64) -> Result<Vec<Row>> {
    let pool = Pool::new(sizes, POOL_BYTES);
    let compared = alternate(
        context.progress,
        || store::put(&context.folder, &pool, writers),
        || plain::append(&context.folder, &pool),
    )?;
    let what = format!("durable put of {}, {}", sizes.name(), in_words(writers));
    Ok(vec![Row::speed(&what, APPEND, Goal::AtLeast(goal), &compared)])
}

fn read(context: &Context, sizes: Sizes, goal: f64) -> Result<Vec<Row>> {
    let pool = Pool::new(sizes, POOL_BYTES);
    let order = pool.shuffled();
    let store = store::filled(&context.folder, &pool)?;
    let file = PlainFile::write(&context.folder, &pool)?;
    let compared =
        alternate(context.progress, || store::read(&store, &pool, &order), || file.read_and_hash(&pool, &order))?;
    let what = format!("verified read of {}, random order", sizes.name());
    Ok(vec![Row::speed(&what, PREAD, Goal::AtLeast(goal), &compared)])
}

/// One thread each: `imira-node verify` uses all cores, and so could the reference.
fn scrub(context: &Context) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sizes in [Sizes::Full, Sizes::Mixed] {
        let pool = Pool::new(sizes, POOL_BYTES);
        let store = store::filled(&context.folder, &pool)?;
        let compared = alternate(context.progress, || store::scrub(&store, &pool), || Ok(plain::hash(&pool)))?;
        let what = format!("scrub of {}, unthrottled", sizes.name());
        rows.push(Row::speed(&what, "SHA-256 in memory", Goal::AtLeast(0.7), &compared));
        drop(store);
        store::remove(&context.folder)?;
    }
    Ok(rows)
}

fn bytes_written(context: &Context) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sizes in [Sizes::Full, Sizes::Mixed] {
        let pool = Pool::new(sizes, POOL_BYTES);
        let written = repeat(context.progress, || store::bytes_written(&context.folder, &pool))?;
        let per_byte = median(written.into_iter().map(|bytes| bytes as f64 / pool.bytes() as f64));
        let what = format!("bytes written per byte, {}, flushed", sizes.name());
        rows.push(Row::figure(&what, (per_byte, "bytes"), (1.0, "the body itself"), Goal::AtMost(1.1)));
    }
    Ok(rows)
}

/// What more writers give: each row against one writer of the same store.
fn group_commit(context: &Context) -> Result<Vec<Row>> {
    let pool = Pool::new(Sizes::Full, POOL_BYTES);
    let mut rows = Vec::new();
    for writers in WRITERS {
        let compared = alternate(
            context.progress,
            || store::put(&context.folder, &pool, writers),
            || store::put(&context.folder, &pool, 1),
        )?;
        let what = format!("group commit of 1 MiB, {}", in_words(writers));
        rows.push(Row::speed(&what, "ours, one writer", Goal::None, &compared));
    }
    Ok(rows)
}

fn in_words(writers: usize) -> String {
    if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") }
}
