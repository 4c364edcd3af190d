//! The scenario files, and what they can say that no other test says.

#![allow(clippy::unwrap_used)]

use imira_sim::replication::{Group, Outage, Sample, Settings, watch};
use imira_sim::scenario::Scenario;
use imira_sim::sessions::{Sessions, Shape, Trace};
use std::{path::Path, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn every_scenario_of_the_repository_can_be_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let scenarios: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    for path in &scenarios {
        Scenario::read(path).and_then(|scenario| scenario.settings(path, 1)).unwrap();
    }
    assert!(scenarios.len() >= 8);
}

/// Looks at 80 nodes that nothing happens to but what the settings say.
fn looked_at(settings: Settings, minutes: u32) -> Vec<Sample> {
    let settings = Settings { usual_faults: false, lost_per_million: 0, ..settings };
    let outcome = watch(&settings, minutes * MINUTE, MINUTE, |_| ());
    outcome.unwrap_or_else(|failure| panic!("{failure}; commit {}, {settings:?}", env!("IMIRA_COMMIT"))).0
}

fn up_at(samples: &[Sample], minute: u32) -> usize {
    samples.iter().find(|sample| sample.time == minute * MINUTE).unwrap().up
}

fn eighty() -> Settings {
    Settings::new(80, 800, 3, Duration::ZERO, 1)
}

#[test]
fn whoever_would_come_to_a_region_that_is_dark_comes_afterwards() {
    let outages = vec![Outage { group: Group::Region(1), at: MINUTE, length: Some(5 * MINUTE) }];
    let samples = looked_at(Settings { outages, joins_at_once: vec![(2 * MINUTE, 100)], ..eighty() }, 8);
    let (first, with_more, after) = (up_at(&samples, 1), up_at(&samples, 5), up_at(&samples, 7));
    assert!((60..80).contains(&first), "{first} are up without an eighth");
    assert!((60..80).contains(&(with_more - first)), "{} have come without an eighth", with_more - first);
    assert!((3..5).all(|minute| up_at(&samples, minute) == with_more));
    assert_eq!(after, 160);
}

#[test]
fn what_an_operator_takes_along_is_there_again_from_others() {
    let outages = vec![Outage { group: Group::Operator(3), at: MINUTE, length: None }];
    let samples = looked_at(Settings { outages, operators: 8, ..eighty() }, 40);
    let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
    assert_eq!((first.up, last.up), (80, 70));
    assert_eq!(last.with_all_copies, last.acknowledged, "repaired");
    assert_eq!(
        last.acknowledged as u64 + last.lost,
        first.acknowledged as u64,
        "the others had all three copies there"
    );
}

#[test]
fn heavy_tailed_sessions_keep_blocks_in_place_as_well() {
    let sessions = Sessions::Drawn { median: 60 * MINUTE, median_away: 5 * MINUTE, shape: Shape::HeavyTailed };
    let samples = looked_at(Settings { sessions: Some(sessions), ..eighty() }, 180);
    assert!(samples.iter().any(|sample| sample.up < 80), "nobody left");
    let (in_place, all) =
        samples.iter().fold((0, 0), |(in_place, all), sample| (in_place + sample.in_place, all + sample.acknowledged));
    assert!(in_place as f64 / all as f64 > 0.9, "{in_place} of {all}");
}

#[test]
fn a_trace_is_followed_to_the_minute() {
    let trace = Trace::parse("node,from,to\n3,0,90\n3,270,9000\n7,0,150\n").unwrap();
    let samples = looked_at(Settings { sessions: Some(Sessions::Trace(trace)), ..eighty() }, 6);
    assert_eq!([1, 2, 3, 4, 5].map(|minute| up_at(&samples, minute)), [80, 79, 78, 78, 79]);
}
