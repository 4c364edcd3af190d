//! Real films with bytes flipped, cut out, cut off or said twice: whatever FFmpeg makes of them, the node gets an answer in time, no
//! process is left, and nothing is written outside the work folder.
//!
//! The films are FFmpeg's, one of each container, and the beginnings of those in `MEDIA_DIR` where that is set. `IMIRA_MUTATIONS` is
//! the number of inputs (300; 10,000 with `IMIRA_SOAK`), `IMIRA_SEED` the first one's seed. A failure prints the seed that it needs.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{FAST, attempt, make};
use tempfile::TempDir;
use transcode::{ErrorKind, Limits, probe};

/// Every so many inputs the whole pipeline is tried; the others are probed only.
const WHOLE_EVERY: u64 = 10;
/// One input's time. Our own limits end it long before, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of a film from `MEDIA_DIR` only the beginning is used.
const PART_BYTES: usize = 300_000;

#[tokio::test]
async fn mutated_films_never_hang_nor_crash_nor_leave_anything() {
    let films = films();
    let first = first_seed();
    let count =
        number("IMIRA_MUTATIONS").unwrap_or(if std::env::var_os("IMIRA_SOAK").is_some() { 10_000 } else { 300 });
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..workers {
        let films = films.clone();
        tasks.spawn(async move {
            let mut taken = 0;
            for seed in (first..first + count).filter(|seed| seed % workers == worker) {
                taken += u64::from(try_one(&films[(seed % films.len() as u64) as usize], seed).await);
            }
            taken
        });
    }
    let taken: u64 = tasks.join_all().await.into_iter().sum();
    // A process that was killed by the end of its future is reaped soon afterwards.
    let patience = Instant::now() + Duration::from_secs(10);
    while !children().is_empty() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(children(), [""; 0], "children are left");
    // Where nothing is taken or nothing refused, the inputs are of no use.
    assert!(count < 100 || (taken > count / 20 && taken < count), "{taken} of {count} were taken");
}

fn first_seed() -> u64 {
    number("IMIRA_SEED").unwrap_or(1)
}

/// The uploader's fault is told as such, and not as the node's.
#[tokio::test]
async fn damage_is_told_as_damage() {
    let films = films();
    let mut misjudged = Vec::new();
    for seed in first_seed()..first_seed() + number("IMIRA_MUTATIONS").unwrap_or(200) {
        let (name, film) = &films[(seed % films.len() as u64) as usize];
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("upload");
        std::fs::write(&input, mutated(film, &mut Random(seed))).unwrap();
        if let Err((ErrorKind::Internal, said)) = one(&input, true).await {
            misjudged.push(format!("IMIRA_SEED={seed} IMIRA_MUTATIONS=1 ({name}): {said}"));
        }
    }
    assert!(misjudged.is_empty(), "{} told as the node's fault:\n{}", misjudged.len(), misjudged.join("\n"));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// Whether the film was taken.
async fn try_one((name, film): &(String, Vec<u8>), seed: u64) -> bool {
    let whole = seed.is_multiple_of(WHOLE_EVERY);
    let what = format!("IMIRA_SEED={seed} IMIRA_MUTATIONS=1 ({name})");
    let home = tempfile::tempdir().unwrap();
    let input = home.path().join("upload");
    std::fs::write(&input, mutated(film, &mut Random(seed))).unwrap();
    let ended =
        tokio::time::timeout(PATIENCE, one(&input, whole)).await.unwrap_or_else(|_| panic!("{what}: no answer"));
    assert_eq!(entries(home.path()), BTreeSet::from(["upload".into()]), "{what}: files beside the upload");
    assert_eq!(processes_with(&input), [""; 0], "{what}: processes are left");
    ended.is_ok()
}

async fn one(input: &Path, whole: bool) -> Result<(), (ErrorKind, String)> {
    let limits = limits();
    if whole {
        attempt(input, &limits).await.map(drop).map_err(|refused| (refused.kind(), format!("{refused:?}")))
    } else {
        probe(input, &limits).await.map(drop).map_err(|refused| (refused.kind(), format!("{refused:?}")))
    }
}

fn limits() -> Limits {
    Limits {
        max_duration: Duration::from_secs(30),
        max_pixels: 1280 * 720,
        probe_timeout: Duration::from_secs(20),
        stall_timeout: Duration::from_secs(20),
        max_memory_bytes: 2 << 30,
        ..Limits::default()
    }
}

fn entries(dir: &Path) -> BTreeSet<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Command lines that name the upload, whose folder is like no other.
fn processes_with(input: &Path) -> Vec<String> {
    let sign = input.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&sign)).collect()
}

/// This process' children, the dead that nobody has asked after among them.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The films that are mutated, with what they are called in a failure.
fn films() -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let mut films: Vec<PathBuf> = KINDS.iter().map(|(name, codecs)| small(&dir, name, codecs)).collect();
    films.extend(std::env::var_os("MEDIA_DIR").into_iter().flat_map(|dir| media(Path::new(&dir))));
    let read = |path: &PathBuf| {
        let mut bytes = std::fs::read(path).unwrap();
        if !path.starts_with(dir.path()) {
            bytes.truncate(PART_BYTES);
        }
        (path.file_name().unwrap().to_string_lossy().into_owned(), bytes)
    };
    films.iter().map(read).collect()
}

fn media(dir: &Path) -> Vec<PathBuf> {
    let mut films: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    films.retain(|path| path.extension().is_some_and(|extension| extension == "mp4"));
    films.sort();
    films
}

const KINDS: &[(&str, &str)] = &[
    ("end.mp4", "X264 -c:a aac"),
    ("start.mp4", "X264 -c:a aac -movflags +faststart"),
    ("fragments.mp4", "X264 -c:a aac -movflags frag_keyframe+empty_moov"),
    ("prores.mov", "-c:v prores_ks -c:a pcm_s16le"),
    ("x264.mkv", "X264 -c:a libvorbis"),
    ("vp8.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus"),
    ("mpeg4.avi", "-c:v mpeg4 -c:a libmp3lame"),
    ("x264.ts", "X264 -c:a aac"),
    ("mpeg2.mpg", "-c:v mpeg2video -c:a mp2"),
    ("theora.ogv", "-c:v libtheora -c:a libvorbis"),
    ("h263.flv", "-c:v flv -ar 44100 -c:a libmp3lame"),
    ("wmv2.asf", "-c:v wmv2 -c:a wmav2"),
];

/// 1 s of a small picture and a tone.
fn small(dir: &TempDir, name: &str, codecs: &str) -> PathBuf {
    let sources = "-f lavfi -i testsrc=s=96x54:r=25:d=1 -f lavfi -i sine=440:d=1";
    make(dir, name, &format!("{sources} {} PATH", codecs.replace("X264", FAST)))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Headers are where the harm is done, so half of the places are among the first bytes.
fn place(random: &mut Random, len: usize) -> usize {
    if random.below(2) == 0 { random.below(len.min(2048)) } else { random.below(len) }
}

fn mutated(film: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = film.to_vec();
    for _ in 0..=random.below(4) {
        let at = place(random, bytes.len());
        let end = (at + 1 + random.below(64)).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..),
            3 => bytes[at..end].fill(0),
            4 => bytes[at..end].fill(0xff),
            5 => (at..end).for_each(|i| bytes[i] = random.next() as u8),
            _ => bytes[at] ^= 1 << random.below(8),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}
