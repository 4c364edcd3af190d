//! What the network costs today, so that a change of the core shows what it changes.

#![allow(clippy::unwrap_used)]

use imira_sim::{
    replication::{Counts, Failure, Sample, Settings, run, watch},
    search,
};
use std::{fmt::Write as _, path::Path, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

/// Everything here follows from seeds and whole numbers, so it is the same on every machine.
fn figures() -> String {
    let mut text = String::new();
    let found = search::run(&search::Settings::quiet(3_000, 1_000, 2, 1), |_| ());
    let (hops, requests) = (found.hops.mean, found.requests.mean);
    writeln!(text, "searches: {} of {} right, {hops:.3} hops, {requests:.3} requests", found.right, found.lookups)
        .unwrap();
    // One of each kind that is drawn.
    for seed in 1..=9 {
        let settings = Settings { compare_with_oracle: true, ..Settings::drawn(60, seed) };
        let counts = expect(seed, run(&settings, |_| ()));
        // The same run again, looked at until the last faults are over.
        let length = settings.faults_until + settings.settle() / 3;
        let (samples, _) = expect(seed, watch(&settings, length, MINUTE, |_| ()));
        writeln!(
            text,
            "faults, seed {seed}: {} pulled, {} dropped, {} offered, {} audits, {} digests, {} lookups, {} s to rest, {} lost with all holders; {}",
            counts.pulls,
            counts.drops,
            counts.offered,
            counts.audits,
            counts.digests,
            counts.lookups,
            counts.settled.unwrap().as_secs(),
            counts.excused,
            means(&samples, &counts)
        )
        .unwrap();
    }
    let deaths_at_once = vec![(MINUTE, 10)];
    let settings = Settings {
        usual_faults: false,
        deaths_at_once,
        compare_with_oracle: true,
        ..Settings::new(100, 2_000, 2, Duration::ZERO, 1)
    };
    let (samples, counts) = expect(1, watch(&settings, 30 * MINUTE, MINUTE, |_| ()));
    let is_whole = |sample: &&Sample| sample.time > MINUTE && sample.with_all_copies == sample.acknowledged;
    let whole = samples.iter().find(is_whole).unwrap().time.as_secs() / 60;
    writeln!(
        text,
        "a tenth dies: all copies after {whole} min, {} pulled, {} lost, {} of them with all holders at once; {}",
        counts.pulls,
        counts.excused,
        counts.doomed,
        means(&samples, &counts)
    )
    .unwrap();
    text
}

/// How the network was on average, and what repair moved.
fn means(samples: &[Sample], counts: &Counts) -> String {
    let all: usize = samples.iter().map(|sample| sample.acknowledged).sum();
    let share = |of: fn(&Sample) -> usize| 100.0 * samples.iter().map(of).sum::<usize>() as f64 / all as f64;
    format!(
        "{:.3} % in place, {:.3} % readable, {} bytes moved, {:.3} times the oracle's",
        share(|sample| sample.in_place),
        share(|sample| sample.readable),
        counts.bytes_blocks,
        counts.bytes_blocks as f64 / counts.oracle_bytes as f64
    )
}

/// Who reads the panic can repeat the run to the same event.
fn expect<T>(seed: u64, outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| panic!("seed {seed}, commit {}: {failure}", env!("IMIRA_COMMIT")))
}

/// The seeds here took 8 s and all tests of the simulator 54 s on two processors that others used as well. CI has three minutes for them.
#[test]
fn the_figures_are_those_of_the_baseline() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/baseline.txt");
    let found = figures();
    if std::env::var_os("IMIRA_WRITE_BASELINE").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "the core costs something else than before.\nbefore:\n{expected}\nnow:\n{found}\nIf that is better, or the price of something that is worth it, run \
         `IMIRA_WRITE_BASELINE=1 cargo nextest run --workspace -E 'binary(baseline)'` and say in the commit why"
    );
}
