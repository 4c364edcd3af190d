//! Whole runs, with what must hold checked at every step.

#![allow(clippy::unwrap_used)]

use chunkstore_block::BlockId;
use dht_core::{Config, Limits, Position, closest};
use imira_sim::replication::{
    Counts, Failure, Fault, Group, Like, Outage, Sabotage, Sample, Settings, Violation, run, watch,
};
use std::{collections::BTreeMap, time::Duration};

/// With a fifth of the default times, so that what takes hours takes minutes; faults come five times as often.
fn hurried(nodes: usize, blocks: usize, replication: usize, minutes: u64, seed: u64) -> Settings {
    let mut settings = Settings::new(nodes, blocks, replication, Duration::from_secs(minutes * 60), seed);
    settings.hurry = 5;
    settings.config = Config {
        grace: Duration::from_secs(120),
        minimum_age: Duration::from_secs(120),
        proof_lifetime: Duration::from_secs(120),
        drop_delay: Duration::from_secs(24),
        ..settings.config
    };
    settings
}

fn succeed(settings: &Settings) -> Counts {
    expect(settings, run(settings, |_| {}))
}

fn succeed_for(settings: &Settings, length: Duration, every: Duration) -> (Vec<Sample>, Counts) {
    expect(settings, watch(settings, length, every, |_| ()))
}

/// Who reads the panic can repeat the run to the same event.
fn expect<T>(settings: &Settings, outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{failure}; commit {}, {settings:?}", env!("IMIRA_COMMIT")))
}

/// What the checks say of a run that must not succeed.
fn violation(settings: &Settings) -> Option<Violation> {
    run(settings, |_| {}).err().map(|failure| failure.violation)
}

#[test]
fn thousand_nodes_keep_every_block() {
    let counts = succeed(&hurried(1_000, 10_000, 2, 6, 1));
    for fault in [
        Fault::Crash,
        Fault::Death,
        Fault::Join,
        Fault::Partition,
        Fault::Liar,
        Fault::FullDisk,
        Fault::Damage,
        Fault::Rot,
        Fault::Deletion,
        Fault::WrongBytes,
        Fault::LostWrites,
        Fault::Misled,
    ] {
        assert!(counts.faults.get(&fault).is_some_and(|count| *count > 0), "no {fault:?}");
    }
    assert!(counts.pulls > 0 && counts.drops > 0);
}

#[test]
fn many_small_networks_keep_every_block() {
    for seed in 0..12 {
        // Of 60 nodes, most faults hit one at a time, but each is a larger part of the whole.
        succeed(&hurried(60, 1_000, 2 + (seed % 2) as usize, 10, seed));
    }
}

#[test]
fn a_network_at_rest_moves_nothing() {
    let quiet = Settings::new(200, 2_000, 2, Duration::ZERO, 1);
    let counts = succeed(&Settings { usual_faults: false, lost_per_million: 0, ..quiet });
    assert_eq!((counts.pulls, counts.drops, counts.offered), (0, 0, 0));
}

#[test]
fn same_seed_same_run() {
    let settings = hurried(60, 500, 2, 5, 7);
    let counts = succeed(&settings);
    assert_eq!(counts, succeed(&settings));
    assert_ne!(counts, succeed(&Settings { seed: 8, ..settings }));
}

#[test]
fn copies_dropped_without_proof_are_seen() {
    let settings = Settings { sabotage: Some(Sabotage::DropUnproved), ..hurried(100, 2_000, 2, 10, 1) };
    let failure = run(&settings, |_| {}).unwrap_err();
    assert!(matches!(failure.violation, Violation::Dropped { .. }), "{failure}");
    assert!(failure.event > 0 && failure.to_string().contains(&failure.event.to_string()), "{failure}");
    assert_eq!(run(&settings, |_| {}), Err(failure), "the same at the same event");
}

#[test]
fn blocks_outlive_their_stand_ins_where_all_the_closest_are_full() {
    // With 109 and 110, a stand-in that had dropped its copy before was the only one left, and refused it for an hour.
    for seed in [0, 1, 2, 3, 109, 110] {
        let more_faults = BTreeMap::from([(Fault::StandInDeath, 100.0)]);
        let settings = Settings { full_percent: 20, more_faults, ..hurried(60, 600, 2, 10, seed) };
        let counts = succeed(&settings);
        assert!(counts.faults[&Fault::StandInDeath] > 0);
    }
}

/// Disks are full for half the time, so that the publications of a block come to lie on different nodes.
fn crowded(seed: u64) -> Settings {
    Settings { more_faults: BTreeMap::from([(Fault::FullDisk, 1_500.0)]), ..hurried(60, 1_000, 2, 10, seed) }
}

#[test]
fn every_publication_of_a_block_keeps_its_copies_where_references_find_no_room() {
    (0..6).for_each(|seed| _ = succeed(&crowded(seed)));
}

#[test]
fn copies_dropped_without_asking_for_references_are_seen() {
    let seen = (0..6).any(|seed| {
        let settings = Settings { sabotage: Some(Sabotage::DropUnasked), ..crowded(seed) };
        matches!(violation(&settings), Some(Violation::Dropped { .. }))
    });
    assert!(seen);
}

#[test]
fn liars_and_hoarders_do_not_keep_others_from_repair() {
    for seed in 0..4 {
        let more_faults = BTreeMap::from([(Fault::WrongSums, 60.0), (Fault::Hoarder, 60.0)]);
        let counts = succeed(&Settings { more_faults, ..hurried(60, 1_000, 2, 10, seed) });
        assert!(counts.faults[&Fault::WrongSums] > 0 && counts.faults[&Fault::Hoarder] > 0);
    }
}

#[test]
fn disks_that_lose_writes_wrong_bytes_and_misled_lookups_cost_no_block() {
    for seed in 0..4 {
        let more_faults =
            BTreeMap::from([(Fault::LostWrites, 600.0), (Fault::Misled, 300.0), (Fault::WrongBytes, 60.0)]);
        let counts = succeed(&Settings { more_faults, ..hurried(60, 1_000, 2, 10, seed) });
        assert!(counts.faults[&Fault::LostWrites] > 5 && counts.faults[&Fault::Misled] > 2);
    }
}

/// The settings succeed; with the sabotage, this is said.
fn violation_by(sabotage: Sabotage, settings: Settings) -> Option<Violation> {
    succeed(&settings);
    violation(&Settings { sabotage: Some(sabotage), ..settings })
}

#[test]
fn wrong_bytes_that_are_believed_are_seen() {
    let more_faults = BTreeMap::from([(Fault::WrongBytes, 300.0)]);
    let said = violation_by(Sabotage::BelieveBytes, Settings { more_faults, ..hurried(60, 1_000, 2, 10, 1) });
    assert!(matches!(said, Some(Violation::WrongBytes { .. })), "{said:?}");
}

#[test]
fn a_network_that_repairs_nothing_is_seen() {
    let said = violation_by(Sabotage::RepairOff, hurried(60, 1_000, 2, 10, 1));
    assert!(matches!(said, Some(Violation::NotSettled { .. })), "{said:?}");
    let more_faults = BTreeMap::from([(Fault::Death, 800.0)]);
    let said = violation_by(Sabotage::RepairOff, Settings { more_faults, ..hurried(60, 1_000, 2, 10, 1) });
    assert!(matches!(said, Some(Violation::Lost { .. })), "{said:?}");
}

#[test]
fn lookups_that_name_the_nodes_of_long_ago_are_seen() {
    // Those who come tell those who are there, and pings tell who has gone; but nobody tells newcomers of each other.
    let joins_at_once = vec![(Duration::from_secs(60), 100)];
    let said = violation_by(Sabotage::StaleLookups, Settings { joins_at_once, ..hurried(60, 1_000, 2, 10, 1) });
    assert!(matches!(said, Some(Violation::NotSettled { .. })), "{said:?}");
}

#[test]
fn what_was_deleted_and_comes_back_is_seen() {
    let more_faults = BTreeMap::from([(Fault::Deletion, 100.0), (Fault::Damage, 1_000.0)]);
    let said = violation_by(Sabotage::ForgetOrders, Settings { more_faults, ..hurried(60, 1_000, 2, 10, 1) });
    assert!(matches!(said, Some(Violation::Returned { .. })), "{said:?}");
}

#[test]
fn what_is_not_deleted_is_seen() {
    let said = violation_by(Sabotage::KeepDeleted, hurried(60, 1_000, 2, 10, 1));
    assert!(matches!(said, Some(Violation::Undeleted { .. })), "{said:?}");
}

#[test]
fn a_node_over_its_quota_is_seen() {
    let said = violation_by(Sabotage::Overfill, crowded(0));
    assert!(matches!(said, Some(Violation::OverQuota { .. })), "{said:?}");
}

#[test]
fn a_node_that_remembers_more_than_it_may_is_seen() {
    let said = violation_by(Sabotage::RememberMore, forgetful(0));
    assert!(matches!(said, Some(Violation::OverBound { .. })), "{said:?}");
}

/// Of a hundred blocks, those that can be read an hour after their upload to a network of which a fifth keeps nothing.
fn readable_in_spite_of_liars(just_uploaded: bool) -> f64 {
    let quiet = Settings { usual_faults: false, ..Settings::new(100, 2_000, 2, Duration::ZERO, 1) };
    let settings = Settings { malicious_percent: 20, just_uploaded, ..quiet };
    let hour = Duration::from_secs(3_600);
    let (samples, counts) = succeed_for(&settings, hour, hour);
    let last = samples.last().unwrap();
    100.0 * last.readable as f64 / (last.acknowledged as u64 + counts.excused) as f64
}

#[test]
fn what_liars_threw_away_is_with_honest_nodes_if_the_ingest_node_kept_it() {
    let (kept, not_kept) = (readable_in_spite_of_liars(true), readable_in_spite_of_liars(false));
    assert!(kept == 100.0 && (90.0..99.0).contains(&not_kept), "{kept} %, {not_kept} %");
}

/// Nodes that remember little.
fn forgetful(seed: u64) -> Settings {
    let mut settings = hurried(60, 1_000, 2, 10, seed);
    settings.config.limits = Limits { lacking: 8, overflow: 16, surplus: 8, wants: 16 };
    settings
}

#[test]
fn small_limits_cost_time_and_no_blocks() {
    (0..4).for_each(|seed| _ = succeed(&forgetful(seed)));
}

#[test]
fn a_region_goes_dark_many_come_at_once_and_slow_nodes_hold_up_nobody() {
    let minute = Duration::from_secs(60);
    for seed in 0..3 {
        let settings = Settings {
            outages: vec![
                Outage { group: Group::Region(1), at: minute, length: Some(4 * minute) },
                Outage { group: Group::Region(2), at: 4 * minute, length: Some(minute) },
            ],
            joins_at_once: vec![(2 * minute, 30)],
            slow_percent: 10,
            ..hurried(60, 600, 3, 8, seed)
        };
        let counts = succeed(&settings);
        assert!(counts.faults[&Fault::Join] >= 18 && counts.pulls > 0);
    }
}

/// A given network loses the blocks of which all holders die, each counted once.
#[test]
fn a_given_network_loses_what_only_the_dead_had() {
    let position = |number: u8| Position::of_peer(&[number; 38]);
    let nodes: Vec<_> = (0..20).map(position).collect();
    let blocks: Vec<_> = (0..2_000_u32).map(|number| (BlockId::of(&number.to_be_bytes()), 1_024)).collect();
    let deaths = vec![1, 2, 5, 11, 17];
    let ranked: Vec<_> = nodes.iter().enumerate().map(|(index, position)| (index, *position)).collect();
    let is_lost = |id: &BlockId| closest(&Position::of_block(id), &ranked, 2).iter().all(|node| deaths.contains(node));
    let expected = blocks.iter().filter(|(id, _)| is_lost(id)).count();
    assert!(expected > 20, "{expected}");

    let deaths_after = Duration::from_secs(1);
    let like = Like { nodes, blocks, deaths: deaths.clone(), deaths_after, join: None };
    let settings = Settings::like(like, Config::new(2), 1);
    let (_, counts) = succeed_for(&settings, Duration::from_secs(10), Duration::from_secs(1));
    assert_eq!(counts.excused, expected as u64);
}
