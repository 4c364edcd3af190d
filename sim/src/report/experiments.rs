//! The questions that the report answers.

mod deaths;
mod malicious;
mod titles;

use super::{
    ReportError, Scale,
    page::{Bound, Figure},
    plot::{Axis, Plot, Series, in_threes},
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
use std::{collections::BTreeMap, time::Duration};

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

pub(super) type Experiment = fn(Scale, u64) -> Result<Findings, ReportError>;

pub(super) const ALL: [(&str, Experiment); 7] = [
    ("lookups", lookups),
    ("load", load),
    ("malicious nodes", malicious::malicious),
    ("sessions", sessions),
    ("whole titles", titles::titles),
    ("deaths at once", deaths::deaths),
    ("repair traffic", traffic),
];

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
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
        "k = 20, alpha = 3, ends when the 2 closest have answered, {} searches a size, 50 ms there and back; seed {seed}: imira-sim lookups --nodes \
         N --results 2 --lookups {count} --seed {seed}. With --results 20 it searches as the daemon does.",
        in_threes(count)
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
        let (warm, cold) = (at.warm_ms.p50 as f64, at.cold_ms.p50 as f64);
        figures.extend([
            Figure::new("search of 10,000 nodes for the R = 2 closest, mean", (at.hops.mean, "hops"), Bound::AtMost(2.6))
                .with(&format!("{:.1} requests", at.requests.mean)),
            Figure::new("99 of 100 of these searches", (at.hops.p99 as f64, "hops"), Bound::AtMost(5.0)),
            Figure::new("of these searches, right", (share(at.right, at.lookups), "%"), Bound::AtLeast(99.9)),
            Figure::new("their median time at 50 ms, connections open", (warm, "ms"), Bound::AtMost(200.0)),
            Figure::new("their median time at 50 ms, none open", (cold, "ms"), Bound::AtMost(300.0))
                .with("three hops of a handshake, a gate and a request each; a gate inside QUIC's handshake would save 150 ms"),
        ]);
    }
    let of_20 = search::run(&search::Settings::quiet(10_000, count, 20, seed), |_| ());
    let (warm, cold) = (of_20.warm_ms.p50 as f64, of_20.cold_ms.p50 as f64);
    figures.extend([
        Figure::new(
            "search of 10,000 nodes for the 20 closest, as the daemon makes it, mean",
            (of_20.hops.mean, "hops"),
            Bound::Stated,
        )
        .with(&format!(
            "to the farthest of the twenty; {:.1} requests; one search serves all blocks of a region",
            of_20.requests.mean
        )),
        Figure::new("99 of 100 of the searches for 20", (of_20.hops.p99 as f64, "hops"), Bound::Stated),
        Figure::new("of the searches for 20, right", (share(of_20.right, of_20.lookups), "%"), Bound::Stated)
            .with("all twenty are the closest"),
        Figure::new("median time of the searches for 20 at 50 ms, connections open", (warm, "ms"), Bound::Stated),
        Figure::new("median time of the searches for 20 at 50 ms, none open", (cold, "ms"), Bound::Stated),
    ]);
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
        shows: "Nodes get blocks in proportion to the part of the keyspace that they are closest to, so operators need room for several times the \
                mean; a second copy evens it out a little."
            .to_owned(),
        scenario: format!("100 blocks a node, seed {seed}: imira-sim placement --nodes N --blocks 100N --replicas R --churn 0 --seed {seed}."),
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

/// Per cent.
fn share(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// Copies on a node, and what they send it through: how far a figure of moved copies holds.
fn burden(nodes: usize, blocks: usize, replication: usize) -> String {
    // From 32 KiB on up to 1,000,000 bytes more, each length as often as another.
    let mean_bytes = 32.0 * 1_024.0 + 500_000.0;
    let bytes = (blocks * replication) as f64 / nodes as f64 * mean_bytes;
    format!("R = {replication}: {:.1} MB a node, uplink 12.5 MB/s", bytes / 1e6)
}

/// Draws a network and blocks, and names the `replication` closest nodes of each block, closest first.
fn draw_homes(nodes: usize, blocks: usize, replication: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let mut ring = Ring::default();
    let mut numbers = BTreeMap::new();
    for node in 0..nodes {
        let position = Position::from_bytes(random.bytes());
        ring.insert(position);
        numbers.insert(position, node);
    }
    let homes = |target: Position| ring.closest(&target, replication).iter().map(|home| numbers[home]).collect();
    (0..blocks).map(|_| homes(Position::from_bytes(random.bytes()))).collect()
}

/// For each of `nodes` whether it is one of `count` drawn ones.
fn draw_nodes(nodes: usize, count: usize, random: &mut Random) -> Vec<bool> {
    let mut drawn = vec![false; nodes];
    let mut left = count.min(nodes);
    while left > 0 {
        let node = random.below(nodes);
        left -= usize::from(!drawn[node]);
        drawn[node] = true;
    }
    drawn
}

fn sessions(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 2_000) } else { (500, 20_000) };
    // The first is not yet what the second is.
    let hours = 2;
    let away = 10 * MINUTE;
    let mut series = Vec::new();
    let mut at_60 = Vec::new();
    let shapes = [(2, Shape::Exponential, ""), (3, Shape::Exponential, ""), (3, Shape::HeavyTailed, ", heavy-tailed")];
    for (replication, shape, called) in shapes {
        let (mut in_place, mut readable) = (Vec::new(), Vec::new());
        for minutes in [15, 30, 60, 120, 480] {
            let sessions = Sessions::Drawn { median: minutes * MINUTE, median_away: away, shape };
            let settings = Settings { sessions: Some(sessions), ..quiet(nodes, blocks, replication, seed) };
            let (samples, _) = watched("sessions", &settings, hours * HOUR, 5 * MINUTE)?;
            let late = || samples.iter().filter(|sample| sample.time >= HOUR);
            let mean = |value: fn(&Sample) -> usize| {
                late().map(|sample| share(value(sample), sample.acknowledged)).sum::<f64>()
                    / late().count().max(1) as f64
            };
            let means = (mean(|sample| sample.in_place), mean(|sample| sample.readable));
            in_place.push((f64::from(minutes), means.0));
            readable.push((f64::from(minutes), means.1));
            if minutes == 60 {
                at_60.push((replication, called, means));
            }
        }
        series.push(Series::measured(format!("in place, R = {replication}{called}"), in_place));
        series.push(Series::measured(format!("readable, R = {replication}{called}"), readable));
    }
    let (samples, _) = watched("a quiet network", &quiet(nodes, blocks, 2, seed), HOUR, 5 * MINUTE)?;
    let at_rest = samples.last().map_or(0.0, |sample| share(sample.in_place, sample.acknowledged));
    let (of_2, of_3) = (burden(nodes, blocks, 2), burden(nodes, blocks, 3));
    let plot = Plot {
        name: "sessions",
        title: "Blocks in place when nodes come and go",
        shows: "In place: on the disks of all R closest nodes, where a node within its grace period counts. Readable: on a node that is up. \
                Heavy-tailed sessions and absences have the same medians as the others (exponential) but are Pareto with exponent 1.5: most are \
                shorter, a few very long, so most nodes that are up at a moment stay for long, and some that are away do not come back within the \
                run."
            .to_owned(),
        scenario: format!(
            "{nodes} nodes, {} blocks; {of_2}; {of_3}. Median absence 10 min, as long as the grace period, with the disk kept; mean over the last \
             of {hours} hours; seed {seed}.",
            in_threes(blocks)
        ),
        x: Axis::logarithmic("median session, minutes"),
        y: Axis::share("blocks, %"),
        series,
    };
    let mut figures =
        vec![Figure::new("blocks on their R closest, quiet", (at_rest, "%"), Bound::AtLeast(99.9)).with(&of_2)];
    for (replication, called, (in_place, readable)) in at_60 {
        let what = format!(
            "blocks on their R closest, 60-minute median sessions{called}, absences of 10 min, R = {replication}"
        );
        let note = format!(
            "{}; {:.2} % are on nodes that are all away, and cannot be copied",
            burden(nodes, blocks, replication),
            100.0 - readable
        );
        let bound = if called.is_empty() { Bound::AtLeast(99.0) } else { Bound::Stated };
        figures.push(Figure::new(&what, (in_place, "%"), bound).with(&note));
    }
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
        "{nodes} nodes, {} blocks, R = 2, {days} days; exponential sessions with a median of 4.9 days, absences of 2 h, {deaths_per_hour:.2} deaths \
         and as many joins an hour among 1,000 nodes; a ping every 60 s (the daemon: 5 s) and a comparison every 600 s (the daemon: 60 s), so that \
         {days} days can be simulated; seed {seed}.",
        in_threes(blocks)
    );
    let traffic = Plot {
        name: "traffic",
        title: "Bytes moved to keep the copies",
        shows: "Beside what an oracle moves that knows everything at once and keeps exact placement, and what was destroyed for good. The oracle \
                drops at once what stood in for a node that returns; the network does so after a while, and need not copy it again if the node goes \
                again."
            .to_owned(),
        scenario: scenario.clone(),
        x: Axis::linear("days"),
        y: Axis::linear("moved, GiB"),
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
    // Nothing of it was simulated with these uplinks and lifetimes.
    let mut series: Vec<_> = [10.0, 50.0, 200.0]
        .iter()
        .map(|rate| Series::theory(format!("{rate} Mbit/s, extrapolated"), capacity(*rate, to_carbonite / 2.0)))
        .collect();
    series.push(Series::theory("50 Mbit/s, Blake and Rodrigues' bound", capacity(50.0, 1.0)));
    let capacity = Plot {
        name: "capacity",
        title: "Bytes that a node can keep, extrapolated",
        shows: format!(
            "Extrapolated from the one run above, not measured: what an uplink, half of it for repair, would sustain when nodes stay for so long, \
             if the network moved {:.2} times Blake and Rodrigues' bound at every lifetime, as it did there at about a year.",
            to_carbonite / 2.0
        ),
        scenario: format!("No simulation of its own; the factor is of: {scenario}"),
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
