//! A store of as many blocks as 1 TB has: its memory, and what it costs to open it.
//!
//! The blocks are small, since it is their number that counts, but not so small that a store would keep them among its keys.
//! A fresh process opens the store, so that memory and counters are its own; the files have been put out of the page cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rand::prelude::{RngExt as _, SeedableRng as _, SmallRng};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use super::adapter;
use super::pool::Block;
use super::store::in_parallel;
use crate::Context;
use crate::measure::{Stopwatch, median, proc_value, repeat, settle};
use crate::report::{Goal, Row};

const MANY: u64 = 1_000_000;
const MANY_QUICK: u64 = 100_000;
const FEW: u64 = 1_000;
const BODY_BYTES: usize = 4_096;
/// Many, since each waits for its sync.
const WRITERS: usize = 64;
/// Blocks that the fresh process reads, for the memory of a store in use.
const READS: u64 = 10_000;

const MB: f64 = 1e6;
const MEMORY_LIMIT_MB: f64 = 250.0;
const OPEN_LIMIT_S: f64 = 5.0;
/// Who walks reads at least the ids.
const ID_BYTES: f64 = 32.0;

pub(super) fn measure(context: &Context) -> Result<Vec<Row>> {
    let count = if context.quick { MANY_QUICK } else { MANY };
    let many = opened(context, count)?;
    let few = opened(context, FEW)?;
    Ok(rows(count, &many, &few))
}

fn rows(count: u64, many: &[Opened], few: &[Opened]) -> Vec<Row> {
    let of = |opened: &[Opened], what: fn(&Opened) -> f64| median(opened.iter().map(what));
    let what = |text: &str| format!("{count} blocks: {text}");
    let limited = |text: &str, (ours, unit), limit| {
        Row::figure(&what(text), (ours, unit), (limit, "the limit"), Goal::AtMost(1.0))
    };
    let seconds = of(many, |opened| opened.open_seconds);
    vec![
        limited("peak memory of open", (of(many, |opened| opened.peak_open_bytes as f64 / MB), "MB"), MEMORY_LIMIT_MB),
        limited("peak memory, 10,000 reads", (of(many, |opened| opened.peak_bytes as f64 / MB), "MB"), MEMORY_LIMIT_MB),
        Row::figure(
            &what("of it no mapped files"),
            (of(many, |opened| opened.anonymous_bytes as f64 / MB), "MB"),
            (of(few, |opened| opened.anonymous_bytes as f64 / MB), "with 1,000 blocks"),
            Goal::None,
        ),
        limited("open, cold page cache", (seconds, "s"), OPEN_LIMIT_S),
        Row::figure(
            &what("bytes read by open, per block"),
            (of(many, |opened| opened.read_bytes as f64) / count as f64, "bytes"),
            (ID_BYTES, "a walk of the ids alone"),
            Goal::AtMost(0.5),
        ),
        Row::figure(
            &what("open"),
            (seconds * 1e3, "ms"),
            (of(few, |opened| opened.open_seconds) * 1e3, "with 1,000 blocks"),
            Goal::None,
        ),
    ]
}

fn opened(context: &Context, count: u64) -> Result<Vec<Opened>> {
    let path = context.folder.join(format!("store-{count}"));
    context.progress.at(format!("storing {count} blocks of 4 KiB"));
    fill(&path, count)?;
    settle(&context.folder)?;
    let opened = repeat(context.progress, || {
        forget(&path)?;
        in_a_fresh_process(&path, count)
    })?;
    fs::remove_dir_all(&path)?;
    settle(&context.folder)?;
    Ok(opened)
}

fn fill(path: &Path, count: u64) -> Result<()> {
    let store = adapter::open(path)?;
    in_parallel(WRITERS, usize::try_from(count)?, |number| {
        let block = small_block(number as u64);
        adapter::put(&store, block.id, &block.body)
    })
}

/// The same for the same number, so that the fresh process knows the ids too.
fn small_block(number: u64) -> Block {
    Block::random(&mut SmallRng::seed_from_u64(number), BODY_BYTES)
}

/// Puts the files of a folder out of the page cache.
fn forget(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = File::open(&path)?;
            file.sync_data()?; // dirty pages stay
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn in_a_fresh_process(path: &Path, count: u64) -> Result<Opened> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("open-store").arg(path).arg(count.to_string()).output()?;
    ensure!(output.status.success(), "the fresh process: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the answer of the fresh process")
}

/// What the fresh process does: opens the store, reads from it, prints what that cost as JSON.
#[derive(Args)]
pub(crate) struct OpenStore {
    folder: PathBuf,
    blocks: u64,
}

#[derive(Serialize, Deserialize)]
struct Opened {
    open_seconds: f64,
    /// Through system calls or from the disk, whichever is more: mapped pages are in the second only.
    read_bytes: u64,
    peak_open_bytes: u64,
    peak_bytes: u64,
    /// At the end.
    anonymous_bytes: u64,
}

impl OpenStore {
    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    pub(crate) fn run(&self) -> Result<()> {
        let (called, fetched) = (proc_value("io", "rchar")?, proc_value("io", "read_bytes")?);
        let watch = Stopwatch::start();
        let store = adapter::open(&self.folder)?;
        let open_seconds = watch.seconds();
        let read_bytes = (proc_value("io", "rchar")? - called).max(proc_value("io", "read_bytes")? - fetched);
        let peak_open_bytes = memory("VmHWM")?;
        let mut random = SmallRng::seed_from_u64(5);
        for _ in 0..READS {
            adapter::read(&store, &small_block(random.random_range(0..self.blocks)).id)?;
        }
        let (peak_bytes, anonymous_bytes) = (memory("VmHWM")?, memory("RssAnon")?);
        let opened = Opened { open_seconds, read_bytes, peak_open_bytes, peak_bytes, anonymous_bytes };
        println!("{}", serde_json::to_string(&opened)?);
        Ok(())
    }
}

fn memory(name: &str) -> Result<u64> {
    Ok(proc_value("status", name)? * 1_024)
}
