//! Scenario files: what is simulated, in TOML.

use crate::{
    faults::Fault,
    network::REGIONS,
    replication::{Group, Outage, Settings},
    sessions::{Sessions, Shape, Trace, TraceError},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const MOST_NODES: usize = 100_000;
const MOST_BLOCKS: usize = 3_000_000;
const MOST_REPLICATION: usize = 16;
/// Ten years.
const MOST_HOURS: f64 = 87_600.0;

/// A scenario as the file says it. `sim/README.md` explains each key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence for readers.
    pub about: String,
    nodes: usize,
    blocks: usize,
    #[serde(default = "two")]
    replication: usize,
    hours: f64,
    /// Whether every block must be in place in the end.
    #[serde(default)]
    settles: bool,
    #[serde(default = "five")]
    sample_minutes: f64,
    #[serde(default)]
    links: Links,
    #[serde(default)]
    core: Core,
    sessions: Option<SessionKeys>,
    #[serde(default)]
    usual_faults: bool,
    #[serde(default)]
    faults_per_hour: BTreeMap<Fault, f64>,
    #[serde(default)]
    deaths_at_once: Vec<AtOnce>,
    #[serde(default)]
    joins_at_once: Vec<AtOnce>,
    #[serde(default)]
    regions_down: Vec<RegionDown>,
    #[serde(default)]
    operators: usize,
    #[serde(default)]
    operators_down: Vec<OperatorDown>,
    #[serde(default)]
    full_percent: u64,
    #[serde(default)]
    malicious_percent: u64,
    #[serde(default)]
    just_uploaded: bool,
    #[serde(default)]
    oracle: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Links {
    lost_per_million: u64,
    uplink_bytes_per_s: u64,
    downlink_bytes_per_s: u64,
    slow_percent: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Core {
    grace_seconds: Option<u64>,
    ping_seconds: Option<u64>,
    sync_seconds: Option<u64>,
    minimum_age_seconds: Option<u64>,
    drop_delay_seconds: Option<u64>,
    repair_bytes_per_s: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionKeys {
    median_minutes: Option<f64>,
    median_away_minutes: Option<f64>,
    shape: Option<ShapeKey>,
    /// Beside the scenario.
    trace: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShapeKey {
    Exponential,
    HeavyTailed,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtOnce {
    at_minutes: f64,
    percent: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionDown {
    region: usize,
    at_minutes: f64,
    minutes: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorDown {
    operator: usize,
    at_minutes: f64,
    /// For ever without.
    minutes: Option<f64>,
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or has other keys or values than a scenario.
    #[error("{}: {source}", path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// The trace it names is not one.
    #[error("{}: {source}", path.display())]
    Trace {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: TraceError,
    },
    /// A value is out of range.
    #[error("{}: {source}", path.display())]
    Range {
        /// Which file.
        path: PathBuf,
        /// Which value.
        source: RangeError,
    },
}

/// A value of a scenario that it cannot have.
#[derive(Debug, thiserror::Error)]
#[error("{key} is {value}; it may be {allowed}")]
pub struct RangeError {
    key: &'static str,
    value: String,
    allowed: &'static str,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            lost_per_million: 1_000,
            uplink_bytes_per_s: 12_500_000,
            downlink_bytes_per_s: 62_500_000,
            slow_percent: 0,
        }
    }
}

impl Core {
    const fn times(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("grace_seconds", self.grace_seconds),
            ("ping_seconds", self.ping_seconds),
            ("sync_seconds", self.sync_seconds),
            ("minimum_age_seconds", self.minimum_age_seconds),
            ("drop_delay_seconds", self.drop_delay_seconds),
        ]
    }
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// As the variant says.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = read(path)?;
        let scenario: Self = toml::from_str(&text)
            .map_err(|source| ScenarioError::Toml { path: path.to_owned(), source: Box::new(source) })?;
        scenario.check().map_err(|source| ScenarioError::Range { path: path.to_owned(), source })?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), RangeError> {
        let range = |is_right: bool, key, value: &dyn ToString, allowed| {
            if is_right { Ok(()) } else { Err(RangeError { key, value: value.to_string(), allowed }) }
        };
        range((1..=MOST_NODES).contains(&self.nodes), "nodes", &self.nodes, "1 to 100,000")?;
        range((1..=MOST_BLOCKS).contains(&self.blocks), "blocks", &self.blocks, "1 to 3,000,000")?;
        let copies = (1..=MOST_REPLICATION.min(self.nodes)).contains(&self.replication);
        range(copies, "replication", &self.replication, "1 to 16, and no more than there are nodes")?;
        let hours = self.hours.is_finite() && self.hours > 0.0 && self.hours <= MOST_HOURS;
        range(hours, "hours", &self.hours, "above 0, at most 87,600")?;
        let sampled = self.sample_minutes.is_finite() && self.sample_minutes >= 0.1;
        range(sampled, "sample_minutes", &self.sample_minutes, "0.1 at least")?;
        range(self.full_percent <= 90, "full_percent", &self.full_percent, "0 to 90")?;
        range(self.malicious_percent <= 90, "malicious_percent", &self.malicious_percent, "0 to 90")?;
        range(self.links.slow_percent <= 100, "slow_percent", &self.links.slow_percent, "0 to 100")?;
        range(
            self.links.lost_per_million <= 1_000_000,
            "lost_per_million",
            &self.links.lost_per_million,
            "0 to 1,000,000",
        )?;
        let slowest = self.links.uplink_bytes_per_s.min(self.links.downlink_bytes_per_s);
        range(slowest >= 1_000, "uplink_bytes_per_s or downlink_bytes_per_s", &slowest, "1,000 at least")?;
        for (key, seconds) in self.core.times() {
            range(seconds.is_none_or(|seconds| seconds > 0), key, &0, "1 at least")?;
        }
        for rate in self.faults_per_hour.values() {
            range(rate.is_finite() && (0.0..=1e6).contains(rate), "faults_per_hour", rate, "0 to 1,000,000")?;
        }
        range(
            !self.settles || self.sessions.is_none(),
            "settles",
            &"true",
            "false where there are sessions, which never end",
        )?;
        let is_time = |minutes: f64| minutes.is_finite() && (0.0..=self.hours * 60.0).contains(&minutes);
        for at_once in self.deaths_at_once.iter().chain(&self.joins_at_once) {
            range(at_once.percent <= 100, "percent", &at_once.percent, "0 to 100")?;
            range(is_time(at_once.at_minutes), "at_minutes", &at_once.at_minutes, "0 to the end of `hours`")?;
        }
        for down in &self.regions_down {
            range(down.region < REGIONS, "region", &down.region, "0 to 7")?;
            range(is_time(down.at_minutes), "at_minutes", &down.at_minutes, "0 to the end of `hours`")?;
            range(is_time(down.minutes), "minutes", &down.minutes, "0 to `hours`")?;
        }
        range(self.operators <= self.nodes, "operators", &self.operators, "0 for none, to as many as there are nodes")?;
        for down in &self.operators_down {
            range(down.operator < self.operators, "operator", &down.operator, "0 to `operators` less one")?;
            range(is_time(down.at_minutes), "at_minutes", &down.at_minutes, "0 to the end of `hours`")?;
            range(down.minutes.is_none_or(is_time), "minutes", &"outside", "0 to `hours`, or absent: for ever")?;
        }
        if let Some(sessions) = &self.sessions {
            let given = |minutes: Option<f64>| minutes.is_some_and(|minutes| minutes.is_finite() && minutes > 0.0);
            let is_right =
                sessions.trace.is_some() != (given(sessions.median_minutes) && given(sessions.median_away_minutes));
            range(
                is_right,
                "sessions",
                &"incomplete",
                "a `trace`, or `median_minutes` and `median_away_minutes` above 0",
            )?;
        }
        Ok(())
    }

    /// The settings of a run; a trace is looked for beside the scenario.
    ///
    /// # Errors
    /// If the trace cannot be read.
    pub fn settings(&self, path: &Path, seed: u64) -> Result<Settings, ScenarioError> {
        let faults_until = if self.usual_faults || self.settles || !self.faults_per_hour.is_empty() {
            self.length()
        } else {
            Duration::ZERO
        };
        let mut settings = Settings::new(self.nodes, self.blocks, self.replication, faults_until, seed);
        let seconds = |value: Option<u64>, of: &mut Duration| {
            if let Some(value) = value {
                *of = Duration::from_secs(value);
            }
        };
        seconds(self.core.grace_seconds, &mut settings.config.grace);
        seconds(self.core.ping_seconds, &mut settings.config.ping_interval);
        seconds(self.core.sync_seconds, &mut settings.config.sync_interval);
        seconds(self.core.minimum_age_seconds, &mut settings.config.minimum_age);
        seconds(self.core.drop_delay_seconds, &mut settings.config.drop_delay);
        settings.config.repair_bytes_per_s = self.core.repair_bytes_per_s;
        settings.lost_per_million = self.links.lost_per_million;
        settings.bytes_per_s = Some(self.links.uplink_bytes_per_s);
        settings.full_percent = self.full_percent;
        settings.malicious_percent = self.malicious_percent;
        settings.just_uploaded = self.just_uploaded;
        settings.usual_faults = self.usual_faults;
        settings.more_faults.clone_from(&self.faults_per_hour);
        settings.downlink_bytes_per_s = Some(self.links.downlink_bytes_per_s);
        settings.slow_percent = self.links.slow_percent;
        let at_once = |all: &[AtOnce]| all.iter().map(|one| (minutes(one.at_minutes), one.percent)).collect();
        settings.deaths_at_once = at_once(&self.deaths_at_once);
        settings.joins_at_once = at_once(&self.joins_at_once);
        let region = |one: &RegionDown| Outage {
            group: Group::Region(one.region),
            at: minutes(one.at_minutes),
            length: Some(minutes(one.minutes)),
        };
        let operator = |one: &OperatorDown| Outage {
            group: Group::Operator(one.operator),
            at: minutes(one.at_minutes),
            length: one.minutes.map(minutes),
        };
        settings.operators = self.operators;
        settings.outages =
            self.regions_down.iter().map(region).chain(self.operators_down.iter().map(operator)).collect();
        settings.compare_with_oracle = self.oracle;
        settings.sessions = self.sessions.as_ref().map(|keys| keys.sessions(path)).transpose()?;
        Ok(settings)
    }

    /// How long it goes on after the warm-up.
    #[must_use]
    pub fn length(&self) -> Duration {
        minutes(self.hours * 60.0)
    }

    /// How often the network is looked at.
    #[must_use]
    pub fn sample_every(&self) -> Duration {
        minutes(self.sample_minutes)
    }

    /// Whether every block must be in place in the end.
    #[must_use]
    pub const fn settles(&self) -> bool {
        self.settles
    }
}

impl SessionKeys {
    fn sessions(&self, scenario: &Path) -> Result<Sessions, ScenarioError> {
        let Some(trace) = &self.trace else {
            let shape = match self.shape {
                Some(ShapeKey::HeavyTailed) => Shape::HeavyTailed,
                Some(ShapeKey::Exponential) | None => Shape::Exponential,
            };
            let median = |value: Option<f64>| minutes(value.unwrap_or_default());
            return Ok(Sessions::Drawn {
                median: median(self.median_minutes),
                median_away: median(self.median_away_minutes),
                shape,
            });
        };
        let path = scenario.parent().unwrap_or(Path::new("")).join(trace);
        let trace = Trace::parse(&read(&path)?).map_err(|source| ScenarioError::Trace { path, source })?;
        Ok(Sessions::Trace(trace))
    }
}

fn read(path: &Path) -> Result<String, ScenarioError> {
    fs::read_to_string(path).map_err(|source| ScenarioError::File { path: path.to_owned(), source })
}

fn minutes(minutes: f64) -> Duration {
    Duration::from_millis((minutes * 60_000.0).round() as u64)
}

const fn two() -> usize {
    2
}

const fn five() -> f64 {
    5.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check().map_err(|error| error.to_string())?;
        Ok(scenario)
    }

    const LEAST: &str = "about = \"x\"\nnodes = 10\nblocks = 20\nhours = 1\n";

    #[test]
    fn what_is_not_said_is_as_the_daemon_has_it() {
        let settings = parsed(LEAST).unwrap().settings(Path::new("x.toml"), 3).unwrap();
        assert_eq!(settings, Settings { usual_faults: false, ..Settings::new(10, 20, 2, Duration::ZERO, 3) });
    }

    #[test]
    fn mistakes_are_named() {
        for (more, word) in [
            ("node = 3", "node"),
            ("nodes = 0", "duplicate"),
            ("full_percent = 91", "full_percent"),
            ("malicious_percent = 91", "malicious_percent"),
            ("faults_per_hour = { crush = 1 }", "crush"),
            ("deaths_at_once = [{ at_minutes = 1, percent = 101 }]", "percent"),
            ("sessions = { median_minutes = 60 }", "sessions"),
            ("sessions = { median_minutes = 60, median_away_minutes = 0 }", "sessions"),
            ("sessions = { trace = \"a\", median_minutes = 1, median_away_minutes = 1 }", "sessions"),
            ("sample_minutes = 0", "sample_minutes"),
            ("regions_down = [{ region = 8, at_minutes = 1, minutes = 1 }]", "region"),
            ("operators_down = [{ operator = 0, at_minutes = 1 }]", "operator"),
            ("operators = 5\noperators_down = [{ operator = 0, at_minutes = 1, minutes = 61 }]", "minutes"),
            ("joins_at_once = [{ at_minutes = -1, percent = 1 }]", "at_minutes"),
            ("links = { slow_percent = 101 }", "slow_percent"),
            ("links = { uplink_bytes_per_s = 0 }", "uplink"),
            ("replication = 11", "replication"),
            ("core = { grace_seconds = 0 }", "grace_seconds"),
            ("faults_per_hour = { crash = -1 }", "faults_per_hour"),
            ("deaths_at_once = [{ at_minutes = 61, percent = 1 }]", "at_minutes"),
            ("settles = true\nsessions = { median_minutes = 60, median_away_minutes = 5 }", "settles"),
        ] {
            let error = parsed(&format!("{LEAST}{more}")).unwrap_err();
            assert!(error.contains(word), "{more}: {error}");
        }
    }
}
