//! What the network costs today, so that a change of the core shows what it changes.

#![allow(clippy::unwrap_used)]

use imira_sim::{
    replication::{Settings, run, watch},
    search,
};
use std::{fmt::Write as _, path::Path, time::Duration};

/// Everything here follows from seeds and whole numbers, so it is the same on every machine.
fn figures() -> String {
    let mut text = String::new();
    let found = search::run(&search::Settings::quiet(3_000, 1_000, 2, 1), |_| ());
    let (hops, requests) = (found.hops.mean, found.requests.mean);
    writeln!(text, "searches: {} of {} right, {hops:.3} hops, {requests:.3} requests", found.right, found.lookups)
        .unwrap();
    for seed in 1..=5 {
        let counts = run(&Settings::drawn(60, seed), |_| ()).unwrap();
        writeln!(
            text,
            "faults, seed {seed}: {} pulled, {} dropped, {} offered, {} audits, {} digests, {} lookups, {} min to rest, {} lost with all holders",
            counts.pulls, counts.drops, counts.offered, counts.audits, counts.digests, counts.lookups, counts.settled_min.unwrap(), counts.excused
        )
        .unwrap();
    }
    let deaths_at_once = vec![(Duration::from_secs(60), 10)];
    let settings = Settings { usual_faults: false, deaths_at_once, ..Settings::new(100, 2_000, 2, Duration::ZERO, 1) };
    let (samples, counts) = watch(&settings, Duration::from_secs(1_800), Duration::from_secs(60), |_| ()).unwrap();
    let is_whole = |sample: &&imira_sim::replication::Sample| {
        sample.time.as_secs() > 60 && sample.with_all_copies == sample.acknowledged
    };
    let whole = samples.iter().find(is_whole).map(|sample| sample.time.as_secs() / 60);
    writeln!(text, "a tenth dies: all copies after {whole:?} min, {} pulled, {} lost", counts.pulls, counts.excused)
        .unwrap();
    text
}

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
