//! The questions that the report answers.

use super::{
    ReportError, Scale,
    page::{Bound, Figure},
    plot::{Axis, Plot, Series},
};
use crate::{
    oracle::least_bandwidth,
    placement,
    random::Random,
    replication::{Counts, Sample, Settings, watch},
    search,
    sessions::{Sessions, Shape},
};
use dht_core::{Position, Ring};
use std::{collections::BTreeSet, time::Duration};

/// What experiments have found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) figures: Vec<Figure>,
    pub(super) plots: Vec<Plot>,
}

impl Findings {
    pub(super) fn extend(&mut self, more: Self) {
        self.figures.extend(more.figures);
        self.plots.extend(more.plots);
    }
}

type Experiment = fn(Scale, u64) -> Result<Findings, ReportError>;

pub(super) const ALL: [(&str, Experiment); 7] = [
    ("lookups", lookups),
    ("load", load),
    ("malicious nodes", malicious),
    ("sessions", sessions),
    ("whole films", films),
    ("deaths at once", deaths),
    ("repair traffic", traffic),
];

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
/// Blocks of a film of two hours (white paper 4.2: 1 MB each).
const FILM_BLOCKS: i32 = 7_200;

fn lookups(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (sizes, count): (&[usize], usize) = match scale {
        Scale::Quick => (&[100, 300, 1_000, 3_000, 10_000], 2_000),
        Scale::Full => (&[100, 300, 1_000, 3_000, 10_000, 30_000, 100_000], 10_000),
    };
    let settings = |nodes| search::Settings::quiet(nodes, count, 2, seed);
    let reports: Vec<_> = sizes.iter().map(|nodes| (*nodes as f64, search::run(&settings(*nodes), |_| ()))).collect();
    let series =
        |value: fn(&search::Report) -> f64| reports.iter().map(|(nodes, report)| (*nodes, value(report))).collect();
    let log2: Vec<_> = reports.iter().map(|(nodes, _)| (*nodes, nodes.log2())).collect();
    let scenario = format!(
        "k = 20, alpha = 3, ends when the 2 closest have answered, {count} searches a size, 50 ms there and back; seed {seed}: \
         imira-sim lookups --nodes N --lookups {count} --seed {seed}."
    );
    let hops = Plot {
        name: "lookup-hops",
        title: "Hops of a search",
        shows: "A search takes two to three hops where a binary search would take log2 N: each hop settles more than four bits.".to_owned(),
        scenario: scenario.clone(),
        x: Axis::logarithmic("nodes"),
        y: Axis::linear("hops"),
        series: vec![
            Series::measured("mean", series(|report| report.hops.mean)),
            Series::measured("99 of 100 within", series(|report| report.hops.p99 as f64)),
            Series::theory("log2 N", log2),
        ],
    };
    let times = Plot {
        name: "lookup-time",
        title: "Time of a search",
        shows: "Half of the searches end within so many milliseconds; cold, each new peer costs two round trips more (QUIC, gate).".to_owned(),
        scenario,
        x: Axis::logarithmic("nodes"),
        y: Axis::linear("ms, median"),
        series: vec![
            Series::measured("connections open", series(|report| report.warm_ms.p50 as f64)),
            Series::measured("no connection open", series(|report| report.cold_ms.p50 as f64)),
        ],
    };
    let mut figures = Vec::new();
    if let Some((_, at)) = reports.iter().find(|(nodes, _)| *nodes == 10_000.0) {
        let right = at.right as f64 / at.lookups as f64;
        let (warm, cold) = (at.warm_ms.p50 as f64, at.cold_ms.p50 as f64);
        figures.extend([
            Figure::new("search of 10,000 nodes, mean", (at.hops.mean, "hops"), Bound::AtMost(2.6)),
            Figure::new("search of 10,000 nodes, 99 of 100", (at.hops.p99 as f64, "hops"), Bound::AtMost(5.0)),
            Figure::new("search of 10,000 nodes, right", (right * 100.0, "%"), Bound::AtLeast(99.9)),
            Figure::new("its median time at 50 ms, connections open", (warm, "ms"), Bound::AtMost(200.0)),
            Figure::new("its median time at 50 ms, none open", (cold, "ms"), Bound::AtMost(300.0))
                .with("three hops of a handshake, a gate and a request each; a gate inside QUIC's handshake would save 150 ms"),
        ]);
    }
    Ok(Findings { figures, plots: vec![hops, times] })
}

fn load(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let sizes: &[u32] = match scale {
        Scale::Quick => &[30, 100, 300],
        Scale::Full => &[30, 100, 300, 1_000, 3_000],
    };
    let measured = |replicas| -> Vec<_> {
        let of =
            |nodes: &u32| (f64::from(*nodes), placement::run(*nodes, nodes * 100, replicas, 0, seed).max_over_mean());
        sizes.iter().map(of).collect()
    };
    let theory = sizes.iter().map(|nodes| (f64::from(*nodes), f64::from(*nodes).ln() + 0.577)).collect();
    let plot = Plot {
        name: "load",
        title: "The fullest node against the mean",
        shows: "Nodes get blocks in proportion to the part of the keyspace that they are closest to, so operators need room for several times the mean; a second \
                copy evens it out a little."
            .to_owned(),
        scenario: format!("100 blocks a node, seed {seed}: imira-sim placement --nodes N --blocks 100N --churn 0 --seed {seed}."),
        x: Axis::logarithmic("nodes"),
        y: Axis::linear("max / mean"),
        series: vec![
            Series::measured("R = 1", measured(1)),
            Series::measured("R = 2", measured(2)),
            Series::measured("R = 3", measured(3)),
            Series::theory("ln N + 0.58: the largest of N exponential shares", theory),
        ],
    };
    Ok(Findings { figures: Vec::new(), plots: vec![plot] })
}

fn malicious(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (500, 20_000) } else { (1_000, 200_000) };
    let mut random = Random::new(seed);
    let mut ring = Ring::default();
    let all: Vec<_> = (0..nodes).map(|_| Position::from_bytes(random.bytes())).collect();
    all.iter().for_each(|node| _ = ring.insert(*node));
    let homes: Vec<Vec<Position>> =
        (0..blocks).map(|_| ring.closest(&Position::from_bytes(random.bytes()), 4)).collect();
    let percents = [0, 5, 10, 20, 30, 40];
    let readable = |replication: usize, percent: usize, random: &mut Random| {
        let mut bad = BTreeSet::new();
        while bad.len() < nodes * percent / 100 {
            bad.insert(all[random.below(nodes)]);
        }
        let lost = homes.iter().filter(|homes| homes.iter().take(replication).all(|home| bad.contains(home))).count();
        1.0 - lost as f64 / homes.len() as f64
    };
    let mut series = Vec::new();
    let mut at_20 = 0.0;
    for replication in [2, 3, 4] {
        let points: Vec<_> =
            percents.iter().map(|p| (*p as f64, readable(replication, *p, &mut random) * 100.0)).collect();
        if replication == 3 {
            at_20 = points.iter().find(|(percent, _)| *percent == 20.0).map_or(0.0, |(_, share)| *share);
        }
        series.push(Series::measured(format!("R = {replication}"), points));
    }
    for replication in [2, 3, 4] {
        let points =
            percents.iter().map(|p| (*p as f64, (1.0 - (*p as f64 / 100.0).powi(replication)) * 100.0)).collect();
        series.push(Series::theory(format!("1 - f^{replication}"), points));
    }
    let plot = Plot {
        name: "malicious",
        title: "Blocks that can be read when so many nodes are malicious",
        shows: "Before liars are found, if the node that a film was uploaded to kept nothing: a block is gone when all its R holders keep nothing of what they took; readers \
                get past any smaller number of them."
            .to_owned(),
        scenario: format!("{nodes} nodes, {blocks} blocks, malicious nodes drawn anew for each point; seed {seed}."),
        x: Axis::linear("malicious nodes, %"),
        y: Axis::share("readable, %"),
        series,
    };
    let figure = Figure::new(
        "20 % malicious: blocks read, R = 3, before liars are found, from their holders alone",
        (at_20, "%"),
        Bound::AtLeast(99.0),
    );
    let mut findings = Findings { figures: vec![figure], plots: vec![plot] };
    findings.extend(liars(scale, seed)?);
    findings.extend(misled(scale, seed));
    Ok(findings)
}

/// The production core among nodes that keep nothing of what was uploaded a moment ago.
fn liars(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 1_000) } else { (200, 8_000) };
    let mut findings = Findings::default();
    let mut series = Vec::new();
    for (replication, just_uploaded) in [(2, true), (3, true), (4, true), (3, false)] {
        let settings = quiet(nodes, blocks, replication, seed);
        let settings = Settings { malicious_percent: 20, just_uploaded, ..settings };
        let (samples, _) = watched("malicious nodes", &settings, HOUR, 2 * MINUTE)?;
        let all = |sample: &Sample| sample.acknowledged + sample.lost as usize;
        let whole = samples.iter().map(|sample| (minutes_of(sample), share(sample.with_all_copies, all(sample))));
        let kept = if just_uploaded { "" } else { ", ingest nodes keep nothing" };
        series.push(Series::measured(format!("R = {replication}{kept}"), whole.collect()));
        let Some(last) = samples.last() else { continue };
        let readable = last.readable as f64 / all(last).max(1) as f64;
        let unreadable = all(last) - last.readable;
        let what =
            format!("20 % malicious: blocks that cannot be read an hour after their upload, R = {replication}{kept}");
        let bound = if replication == 3 && just_uploaded { Bound::AtMost(0.0) } else { Bound::Stated };
        // The rule of three: so rare at most, with a confidence of 95 %, is what was not seen at all.
        let at_most = if unreadable == 0 { 3.0 / all(last).max(1) as f64 } else { 1.0 - readable };
        let film = (1.0 - at_most).powi(FILM_BLOCKS) * 100.0;
        let sure = if unreadable == 0 { "by this sample alone at least " } else { "" };
        let note = format!("of {} blocks; whole films of 7,200 that can be read: {sure}{film:.1} %", all(last));
        findings.figures.push(Figure::new(&what, (unreadable as f64, "blocks"), bound).with(&note));
    }
    findings.plots.push(Plot {
        name: "liars",
        title: "After an upload to a network of which a fifth keeps nothing",
        shows: "Audits find the liars, and others get the blocks: from honest holders, and from the node that the film was uploaded to, which keeps each block until R nodes have proved theirs."
            .to_owned(),
        scenario: format!("{nodes} nodes, {blocks} blocks of 0.5 MB on average; half of the liars give wrong bytes, half give none; seed {seed}."),
        x: Axis::linear("min"),
        y: Axis::share("blocks with R honest copies, %"),
        series,
    });
    Ok(findings)
}

/// Searches among nodes that name each other only.
fn misled(scale: Scale, seed: u64) -> Findings {
    let (nodes, lookups) = if scale == Scale::Quick { (3_000, 500) } else { (10_000, 3_000) };
    let found = |results, percent: u32| {
        let quiet = search::Settings::quiet(nodes, lookups, results, seed);
        let settings = search::Settings { malicious_percent: percent, ..quiet };
        let report = search::run(&settings, |_| ());
        (f64::from(percent), share(report.right, report.lookups))
    };
    let series = [20, 2].map(|results| {
        let points = [0, 10, 20, 30, 40].map(|percent| found(results, percent));
        Series::measured(format!("of the {results} closest"), points.to_vec())
    });
    let plot = Plot {
        name: "misled",
        title: "Searches among nodes that name each other only",
        shows: "A search for the twenty closest, as the daemon makes it, asks many who are honest; one that ended with the two closest would often end among liars.".to_owned(),
        scenario: format!(
            "{nodes} nodes, {lookups} searches a point; right: all closest nodes found; seed {seed}: imira-sim lookups --malicious-percent P --results N --nodes {nodes}."
        ),
        x: Axis::linear("malicious nodes, %"),
        y: Axis::share("searches that are right, %"),
        series: series.into(),
    };
    Findings { figures: Vec::new(), plots: vec![plot] }
}

fn minutes_of(sample: &Sample) -> f64 {
    sample.time.as_secs_f64() / 60.0
}

/// A network without the usual faults.
fn quiet(nodes: usize, blocks: usize, replication: usize, seed: u64) -> Settings {
    Settings { usual_faults: false, ..Settings::new(nodes, blocks, replication, Duration::ZERO, seed) }
}

fn watched(
    experiment: &'static str,
    settings: &Settings,
    length: Duration,
    every: Duration,
) -> Result<(Vec<Sample>, Counts), ReportError> {
    let seed = settings.seed;
    watch(settings, length, every, |_| ()).map_err(|violation| ReportError::Violation { experiment, seed, violation })
}

fn share(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

fn sessions(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 2_000) } else { (500, 20_000) };
    let hours = 3;
    let away = 10 * MINUTE;
    let mut series = Vec::new();
    let mut at_60 = Vec::new();
    for replication in [2, 3] {
        let (mut in_place, mut readable) = (Vec::new(), Vec::new());
        for minutes in [15, 30, 60, 120, 480] {
            let sessions = Sessions::Drawn { median: minutes * MINUTE, median_away: away, shape: Shape::Exponential };
            let settings = Settings { sessions: Some(sessions), ..quiet(nodes, blocks, replication, seed) };
            let (samples, _) = watched("sessions", &settings, hours * HOUR, 5 * MINUTE)?;
            // The first hour is not yet what it will be.
            let late = || samples.iter().filter(|sample| sample.time >= HOUR);
            let mean = |value: fn(&Sample) -> usize| {
                late().map(|sample| share(value(sample), sample.acknowledged)).sum::<f64>()
                    / late().count().max(1) as f64
            };
            let means = (mean(|sample| sample.in_place), mean(|sample| sample.readable));
            in_place.push((f64::from(minutes), means.0));
            readable.push((f64::from(minutes), means.1));
            if minutes == 60 {
                at_60.push(means);
            }
        }
        series.push(Series::measured(format!("in place, R = {replication}"), in_place));
        series.push(Series::measured(format!("readable, R = {replication}"), readable));
    }
    let (samples, _) = watched("a quiet network", &quiet(nodes, blocks, 2, seed), HOUR, 5 * MINUTE)?;
    let at_rest = samples.last().map_or(0.0, |sample| share(sample.in_place, sample.acknowledged));
    let mib = blocks as f64 * 2.0 / nodes as f64 * 0.5;
    let scenario = format!(
        "{nodes} nodes, {blocks} blocks of 0.5 MB on average, R = 2 ({mib:.0} MiB a node) and 3, uplink 12.5 MB/s, exponential sessions, median absence 10 min with the disk \
         kept, grace period 10 min; mean from the second to the last of {hours} hours; seed {seed}."
    );
    let plot = Plot {
        name: "sessions",
        title: "Blocks in place when nodes come and go",
        shows: "In place: on the disks of all R closest nodes, where a node within its grace period counts. Readable: on a node that is up.".to_owned(),
        scenario,
        x: Axis::logarithmic("median session, min"),
        y: Axis::share("blocks, %"),
        series,
    };
    let mut figures = vec![
        Figure::new("blocks on their R closest: quiet", (at_rest, "%"), Bound::AtLeast(99.9))
            .with(&format!("{mib:.0} MiB a node, uplink 12.5 MB/s")),
    ];
    for (replication, (in_place, readable)) in [2, 3].into_iter().zip(at_60) {
        let unreadable = 100.0 - readable;
        let what =
            format!("blocks on their R closest: 60-minute median sessions, absences of 10 min, R = {replication}");
        let note = format!("{unreadable:.2} % are on nodes that are all away, and cannot be copied");
        figures.push(Figure::new(&what, (in_place, "%"), Bound::AtLeast(99.0)).with(&note));
    }
    Ok(Findings { figures, plots: vec![plot] })
}

fn films(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks, days) = if scale == Scale::Quick { (60, 1_000, 2) } else { (200, 4_000, 4) };
    let mut figures = Vec::new();
    let mut series = Vec::new();
    for replication in [2, 3] {
        // Exponential: 99 % of the time up.
        let sessions = Sessions::Drawn { median: 99 * HOUR, median_away: HOUR, shape: Shape::Exponential };
        let mut settings = Settings { sessions: Some(sessions), ..quiet(nodes, blocks, replication, seed) };
        settings.config.ping_interval = MINUTE;
        settings.config.sync_interval = 10 * MINUTE;
        let (samples, _) = watched("whole films", &settings, days * 24 * HOUR, 5 * MINUTE)?;
        let asked: usize = samples.iter().map(|sample| sample.acknowledged * replication).sum();
        let up: usize = samples.iter().map(|sample| sample.copies_up).sum();
        let away = 1.0 - up as f64 / asked.max(1) as f64;
        let seen = asked / replication;
        let unreadable = seen - samples.iter().map(|sample| sample.readable).sum::<usize>();
        let copies = replication as i32;
        let playable = |away: f64| 100.0 * (1.0 - away.powi(copies)).powi(FILM_BLOCKS);
        let what = format!("whole films (7,200 blocks), nodes up 99 %, absences of 1 h, R = {replication}");
        let note = format!(
            "a copy is away {:.3} % of the time, taken as if by itself: nodes are away for 1 h and others stand in after 10 min; without repair, or with absences shorter than \
             that, {:.2} %; {unreadable} of {seen} looks at a block found no copy",
            away * 100.0,
            playable(0.01)
        );
        let bound = if replication == 3 { Bound::AtLeast(99.99) } else { Bound::Stated };
        figures.push(Figure::new(&what, (playable(away), "%"), bound).with(&note));
        let points =
            (1..=40).map(|tenths| f64::from(tenths) / 10.0).map(|percent| (percent, playable(percent / 100.0)));
        series.push(Series::theory(format!("R = {replication}"), points.collect()));
        series.push(Series::measured(format!("R = {replication}, with repair"), vec![(away * 100.0, playable(away))]));
    }
    let plot = Plot {
        name: "films",
        title: "Whole films that can be read",
        shows: "(1 - u^R)^7200, when each copy is away for a part u of the time by itself; the points are what repair makes of nodes that are away for 1 %.".to_owned(),
        scenario: format!(
            "{nodes} nodes, {blocks} blocks, {days} days, exponential sessions with a median of 99 h, absences of 1 h, pings every minute; seed {seed}."
        ),
        x: Axis::linear("a copy is away, % of the time"),
        y: Axis::linear("films, %"),
        series,
    };
    Ok(Findings { figures, plots: vec![plot] })
}

fn deaths(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 2_000) } else { (500, 20_000) };
    let mut series = Vec::new();
    let mut figures = Vec::new();
    for (percent, replication) in [(1, 2), (10, 2), (30, 2), (1, 3), (10, 3), (30, 3)] {
        let deaths_at_once = vec![(MINUTE, percent)];
        let settings = Settings { deaths_at_once, ..quiet(nodes, blocks, replication, seed) };
        let (samples, counts) = watched("deaths at once", &settings, HOUR, MINUTE)?;
        let whole =
            samples.iter().map(|sample| (minutes_of(sample), share(sample.with_all_copies, sample.acknowledged)));
        series.push(Series::measured(format!("{percent} % die, R = {replication}"), whole.collect()));
        // Nothing is lost before, so what is left and what was lost are all there were.
        let Some(last) = samples.last() else { continue };
        let all = last.acknowledged + last.lost as usize;
        let dead = (nodes * percent as usize).div_ceil(100);
        let expected =
            (0..replication).map(|copy| (dead.saturating_sub(copy)) as f64 / (nodes - copy) as f64).product::<f64>();
        let what =
            format!("blocks lost when {percent} % die at once, R = {replication}, beyond those that only the dead had");
        let note = format!(
            "{} of {all} blocks ({:.3} %) were on dead nodes only, {:.3} % are expected; {} were lost",
            counts.doomed,
            share(counts.doomed as usize, all),
            expected * 100.0,
            last.lost
        );
        let beyond = last.lost.saturating_sub(counts.doomed);
        figures.push(Figure::new(&what, (beyond as f64, "blocks"), Bound::AtMost(0.0)).with(&note));
    }
    let plot = Plot {
        name: "deaths",
        title: "After many nodes died at once",
        shows: "Copies come back when the grace period of ten minutes is over, fewest copies first; what was lost with all its holders does not count any more.".to_owned(),
        scenario: format!("{nodes} nodes, {blocks} blocks of 0.5 MB on average, uplink 12.5 MB/s, deaths after one minute; seed {seed}."),
        x: Axis::linear("min"),
        y: Axis::share("blocks with R copies that are up, %"),
        series,
    };
    Ok(Findings { figures, plots: vec![plot] })
}

fn traffic(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks, days) = if scale == Scale::Quick { (50, 1_000, 2) } else { (500, 5_000, 30) };
    // A node is off once a week for two hours, and one in fifty dies and is replaced in a week: hobbyists, a guess.
    let week = 7 * 24 * HOUR;
    let sessions = Sessions::Drawn { median: week.mul_f64(0.7), median_away: 2 * HOUR, shape: Shape::Exponential };
    let deaths_per_hour = 1_000.0 / 50.0 / 168.0;
    let mut settings =
        Settings { sessions: Some(sessions), compare_with_oracle: true, ..quiet(nodes, blocks, 2, seed) };
    settings.faults_until = days * 24 * HOUR;
    settings.more_faults =
        [(crate::faults::Fault::Death, deaths_per_hour), (crate::faults::Fault::Join, deaths_per_hour)].into();
    // Pings decide how soon a death is noticed, and cost most of the events.
    settings.config.ping_interval = MINUTE;
    settings.config.sync_interval = 10 * MINUTE;
    let (samples, _) = watched("repair traffic", &settings, days * 24 * HOUR, 6 * HOUR)?;
    let days_of = |sample: &Sample| sample.time.as_secs_f64() / 86_400.0;
    let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
    let points =
        |value: fn(&Sample) -> u64| samples.iter().map(|sample| (days_of(sample), gib(value(sample)))).collect();
    let last = samples.last();
    let ratio = |of: fn(&Sample) -> u64| last.map_or(0.0, |last| last.moved_bytes as f64 / of(last).max(1) as f64);
    let (to_oracle, to_carbonite) = (ratio(|sample| sample.oracle_bytes), ratio(|sample| sample.destroyed_bytes));
    let scenario = format!(
        "{nodes} nodes, {blocks} blocks of 0.5 MB on average, R = 2, {days} days; sessions with a median of 4.9 days, absences of 2 h, {deaths_per_hour:.2} deaths and joins an hour among 1,000 \
         nodes, pings every minute; seed {seed}."
    );
    let traffic = Plot {
        name: "traffic",
        title: "Bytes moved to keep the copies",
        shows: "Beside what an oracle moves that knows everything at once and keeps exact placement, and what was destroyed for good. The oracle drops at once what stood in for \
                a node that returns; the network does so after a while, and need not copy it again if the node goes again."
            .to_owned(),
        scenario: scenario.clone(),
        x: Axis::linear("days"),
        y: Axis::linear("GiB"),
        series: vec![
            Series::measured("the network", points(|sample| sample.moved_bytes)),
            Series::theory("an oracle with exact placement", points(|sample| sample.oracle_bytes)),
            Series::theory("copies destroyed for good", points(|sample| sample.destroyed_bytes)),
            Series::theory("Blake and Rodrigues' bound: twice that", points(|sample| 2 * sample.destroyed_bytes)),
        ],
    };
    let lifetimes: Vec<f64> = vec![7.0, 14.0, 30.0, 90.0, 365.0];
    let capacity = |megabits: f64, factor: f64| {
        // Half of the uplink is for viewers.
        let bytes_per_s = megabits * 1e6 / 8.0 / 2.0;
        lifetimes.iter().map(|days| (*days, bytes_per_s / (least_bandwidth(1e12, days * 86_400.0) * factor))).collect()
    };
    let mut series: Vec<_> = [10.0, 50.0, 200.0]
        .iter()
        .map(|rate| Series::measured(format!("{rate} Mbit/s"), capacity(*rate, to_carbonite / 2.0)))
        .collect();
    series.push(Series::theory("50 Mbit/s, the bound", capacity(50.0, 1.0)));
    let capacity = Plot {
        name: "capacity",
        title: "Bytes that a node can keep",
        shows: "What an uplink, half of it for repair, sustains when nodes stay for so long: Blake and Rodrigues' bound, divided by how much more than it this network moved above."
            .to_owned(),
        scenario,
        x: Axis::logarithmic("lifetime of a node, days"),
        y: Axis::logarithmic("TB"),
        series,
    };
    let what =
        format!("repair and hand-over traffic, {days} days, {nodes} nodes, against an oracle with exact placement");
    let note =
        format!("{to_carbonite:.2} x Carbonite's oracle, which does not mind where copies lie (published: 1.44 x)");
    let figure = Figure::new(&what, (to_oracle, "x"), Bound::AtMost(1.2)).with(&note);
    Ok(Findings { figures: vec![figure], plots: vec![traffic, capacity] })
}
