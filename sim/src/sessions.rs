//! Nodes that come and go: how long they stay, and how long they are away.

use crate::random::Random;
use std::{collections::BTreeMap, time::Duration};

/// How nodes come and go, each on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Lengths are drawn.
    Drawn {
        /// Half of the sessions are no longer.
        median: Duration,
        /// Half of the absences are no longer.
        median_away: Duration,
        /// How the lengths spread.
        shape: Shape,
    },
    /// As a trace says; nodes that are not in it stay.
    Trace(Trace),
}

/// How drawn lengths spread around their median.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Who has stayed for long leaves as soon as who has just come.
    Exponential,
    /// Pareto with exponent 1.5: most are short and a few very long, as those of file sharers are (Stutzbach, Rejaie: Understanding
    /// churn in peer-to-peer networks, 2006).
    HeavyTailed,
}

/// Times at which nodes are up, from the end of the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// For each node when it comes and goes, in turn, in order of time; it is up before the first.
    turns: BTreeMap<usize, Vec<Duration>>,
}

/// Why a trace cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line has not the form of the others.
    #[error("line {line} is not `node,from_seconds,to_seconds` with whole numbers: {text:?}")]
    Line {
        /// From 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// A node comes before it has gone.
    #[error("line {line}: node {node} is up in two sessions at a time, or its sessions are not in order")]
    Overlap {
        /// From 1.
        line: usize,
        /// Which node.
        node: usize,
    },
}

const PARETO_EXPONENT: f64 = 1.5;
/// Nobody stays for less: a machine takes so long to start.
const SHORTEST: Duration = Duration::from_secs(10);
/// Longer than any run.
const LONGEST: Duration = Duration::from_secs(3_650 * 24 * 3_600);

impl Shape {
    /// A length of this median.
    pub(crate) fn draw(self, random: &mut Random, median: Duration) -> Duration {
        // Above 0, at most 1.
        let uniform = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rest = 1.0 - uniform;
        let medians = match self {
            Self::Exponential => -rest.ln() / std::f64::consts::LN_2,
            Self::HeavyTailed => (2.0 * rest).powf(-1.0 / PARETO_EXPONENT),
        };
        Duration::try_from_secs_f64(median.as_secs_f64() * medians).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
    }
}

impl Trace {
    /// Reads lines `node,from_seconds,to_seconds`, sessions of a node in order of time; a first line of other words is a heading.
    /// Seconds count from the end of the warm-up.
    ///
    /// # Errors
    /// As the variant says.
    pub fn parse(csv: &str) -> Result<Self, TraceError> {
        let mut turns: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
        for (index, text) in csv.lines().enumerate() {
            let line = index + 1;
            let numbers: Option<Vec<u64>> = text.split(',').map(|field| field.trim().parse().ok()).collect();
            let (node, from, to) = match numbers.as_deref() {
                Some([node, from, to]) if from < to => (*node as usize, *from, *to),
                None if line == 1 || text.trim().is_empty() => continue,
                _ => return Err(TraceError::Line { line, text: text.to_owned() }),
            };
            let own = turns.entry(node).or_insert_with(|| vec![Duration::ZERO]);
            let from = Duration::from_secs(from);
            if own.last().is_some_and(|last| *last > from) {
                return Err(TraceError::Overlap { line, node });
            }
            own.extend([from, Duration::from_secs(to)]);
        }
        Ok(Self { turns })
    }

    /// When each node goes and comes, in turn: it goes first.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (usize, &[Duration])> {
        self.turns.iter().map(|(node, turns)| (*node, turns.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_drawn_is_above_the_median() {
        let median = Duration::from_secs(3_600);
        for shape in [Shape::Exponential, Shape::HeavyTailed] {
            let mut random = Random::new(5);
            let mut lengths: Vec<_> = (0..10_001).map(|_| shape.draw(&mut random, median)).collect();
            lengths.sort_unstable();
            let (middle, last) = (lengths[5_000].as_secs(), lengths[10_000]);
            assert!((3_400..3_800).contains(&middle), "{shape:?}: {middle}");
            assert!(lengths[0] >= SHORTEST && last <= LONGEST);
            let is_long = last > 100 * median;
            assert_eq!(is_long, shape == Shape::HeavyTailed, "{shape:?}: {last:?}");
        }
    }

    #[test]
    fn a_trace_is_read_and_its_mistakes_are_named() {
        let trace = Trace::parse("node,from,to\n3, 10, 20\n3,30,40\n1,0,5\n").unwrap();
        let seconds = |turns: &[Duration]| turns.iter().map(Duration::as_secs).collect::<Vec<_>>();
        let turns: Vec<_> = trace.turns().map(|(node, turns)| (node, seconds(turns))).collect();
        assert_eq!(turns, [(1, vec![0, 0, 5]), (3, vec![0, 10, 20, 30, 40])]);
        for (csv, line) in [("a,b,c\nx,1,2\n", 2), ("1,2\n", 1), ("1,5,5\n", 1), ("h\n1,9,8\n", 2)] {
            let error = Trace::parse(csv).unwrap_err();
            assert!(matches!(&error, TraceError::Line { line: found, .. } if *found == line), "{csv:?}: {error}");
        }
        let error = Trace::parse("7,0,10\n7,5,20\n").unwrap_err();
        assert_eq!(error, TraceError::Overlap { line: 2, node: 7 });
    }
}
