//! The figures: as a table for people, as JSON for programs.

use std::io::IsTerminal as _;

use anyhow::Result;
use serde::Serialize;

use crate::measure::Compared;

/// The bar of a row that just reaches its goal.
const GOAL_CELLS: f64 = 8.0;
const CELLS: usize = 12;
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// One figure beside its reference.
pub(crate) struct Row {
    what: String,
    ours: f64,
    reference: f64,
    reference_is: &'static str,
    unit: &'static str,
    goal: Goal,
    /// Lowest and highest ratio among the rounds.
    spread: Option<(f64, f64)>,
    /// CPU seconds per GiB, ours and the reference's.
    cpu: Option<(f64, f64)>,
    /// What there is to know of it.
    note: String,
}

/// What the ratio, ours divided by the reference, should be, or the figure itself.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// The figure, not its ratio and not rounded: one block lost is not nearly none.
    FigureAtLeast(f64),
    FigureAtMost(f64),
    /// For information.
    None,
}

impl Row {
    /// Speeds in MB/s (10^6 bytes), medians of the rounds.
    pub(crate) fn speed(what: &str, reference_is: &'static str, goal: Goal, compared: &Compared) -> Self {
        Self {
            spread: Some(compared.spread()),
            cpu: Some((compared.ours.cpu_per_gib(), compared.reference.cpu_per_gib())),
            ..Self::figure(what, (compared.ours.speed(), "MB/s"), (compared.reference.speed(), reference_is), goal)
        }
    }

    /// Any figure, with its unit, against a fixed value and what that is.
    pub(crate) fn figure(
        what: &str,
        (ours, unit): (f64, &'static str),
        (reference, reference_is): (f64, &'static str),
        goal: Goal,
    ) -> Self {
        Self {
            what: what.to_owned(),
            ours,
            reference,
            reference_is,
            unit,
            goal,
            spread: None,
            cpu: None,
            note: String::new(),
        }
    }

    /// A figure that stands for itself; its goal is what it is compared with.
    pub(crate) fn absolute(what: &str, (ours, unit): (f64, &'static str), goal: Goal) -> Self {
        let reference = match goal {
            Goal::FigureAtLeast(bound) | Goal::FigureAtMost(bound) => (bound, "goal"),
            Goal::AtLeast(_) | Goal::AtMost(_) | Goal::None => (ours, "itself"),
        };
        Self::figure(what, (ours, unit), reference, goal)
    }

    /// The same with something to know of it.
    pub(crate) fn with_note(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    /// The same with the lowest and the highest ratio of a round.
    pub(crate) fn with_spread(self, spread: (f64, f64)) -> Self {
        Self { spread: Some(spread), ..self }
    }

    /// Rounded as it is printed, so that nobody reads "0.80, goal 0.8, missed". Of nothing to nothing it is 1.
    fn ratio(&self) -> f64 {
        if self.ours == self.reference { 1.0 } else { rounded(self.ours / self.reference, 2) }
    }

    fn holds(&self) -> Option<bool> {
        match self.goal {
            Goal::AtLeast(least) => Some(self.ratio() >= least),
            Goal::AtMost(most) => Some(self.ratio() <= most),
            Goal::FigureAtLeast(least) => Some(self.ours >= least),
            Goal::FigureAtMost(most) => Some(self.ours <= most),
            Goal::None => None,
        }
    }
}

impl Goal {
    fn text(self) -> Option<String> {
        match self {
            Self::AtLeast(least) => Some(format!(">= {}", goal(least))),
            Self::AtMost(most) => Some(format!("<= {}", goal(most))),
            Self::FigureAtLeast(least) => Some(format!(">= {}", exact(least))),
            Self::FigureAtMost(most) => Some(format!("<= {}", exact(most))),
            Self::None => None,
        }
    }

    /// How much of the goal is reached; of what has no goal, its ratio.
    fn reached(self, ratio: f64) -> f64 {
        match self {
            Self::AtLeast(goal) | Self::AtMost(goal) => ratio / goal,
            Self::FigureAtLeast(_) | Self::FigureAtMost(_) | Self::None => ratio,
        }
    }
}

/// One digit, or two where there are two.
fn goal(value: f64) -> String {
    if rounded(value, 1) == rounded(value, 2) { format!("{value:.1}") } else { format!("{value:.2}") }
}

/// `bench.json`: an array of rows. What has no goal has `null` for `goal` and `holds`; the CPU seconds of a row are a row
/// of their own.
pub(crate) fn json(rows: &[(&'static str, Row)]) -> Result<String> {
    let mut lines = Vec::new();
    for (suite, row) in rows {
        lines.push(line(suite, row));
        if let Some((ours, reference)) = row.cpu {
            let what = format!("{}: CPU", row.what);
            let cpu = Row::figure(&what, (ours, "CPU-s/GiB"), (reference, row.reference_is), Goal::None);
            lines.push(line(suite, &cpu));
        }
    }
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

#[derive(Serialize)]
struct Line {
    suite: &'static str,
    what: String,
    ours: f64,
    reference: f64,
    reference_is: &'static str,
    unit: &'static str,
    ratio: f64,
    goal: Option<String>,
    holds: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: String,
}

fn line(suite: &'static str, row: &Row) -> Line {
    Line {
        suite,
        what: row.what.clone(),
        ours: rounded(row.ours, 4),
        reference: rounded(row.reference, 4),
        reference_is: row.reference_is,
        unit: row.unit,
        ratio: row.ratio(),
        goal: row.goal.text(),
        holds: row.holds(),
        note: row.note.clone(),
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The table, with bars and colours on a terminal.
#[expect(clippy::print_stdout, reason = "a command line")]
pub(crate) fn print(rows: &[(&'static str, Row)], load: f64) {
    let terminal = std::io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    println!();
    println!("{}", HEADINGS.replace('|', if terminal { BAR_HEADING } else { "" }));
    for (suite, row) in rows {
        let bar = if terminal { format!("  {}", bar(row)) } else { String::new() };
        println!("{}", painted(&text(suite, row, &bar), row.holds().filter(|_| colour)));
    }
    let goals = rows.iter().filter_map(|(_, row)| row.holds());
    let reached = goals.clone().filter(|holds| *holds).count();
    println!();
    let medians = match rows.iter().any(|(_, row)| row.spread.is_some()) {
        true => format!(" Medians of {} rounds, the first thrown away;", crate::measure::ROUNDS),
        false => String::new(),
    };
    println!("{reached} of {} goals reached.{medians} load at the start {load:.2}.", goals.count());
}

const HEADINGS: &str = "suite       what                                               ours    reference unit          \
ratio  (min-max)    goal   |  CPU-s/GiB   reference is";
const BAR_HEADING: &str = "              ";

fn text(suite: &str, row: &Row, bar: &str) -> String {
    let spread = row.spread.map_or(String::new(), |(low, high)| format!("({low:.2}-{high:.2})"));
    let goal = row.goal.text().unwrap_or_else(|| "-".to_owned());
    let cpu = row.cpu.map_or(String::new(), |(ours, reference)| format!("{ours:.2}/{reference:.2}"));
    let written = match row.goal {
        Goal::FigureAtLeast(_) | Goal::FigureAtMost(_) => exact,
        Goal::AtLeast(_) | Goal::AtMost(_) | Goal::None => number,
    };
    let note = if row.note.is_empty() { String::new() } else { format!("; {}", row.note) };
    format!(
        "{suite:<11} {:<44} {:>10} {:>12} {:<12} {:>6.2}  {spread:<11}  {goal:<7}{bar}  {cpu:<10}  {}{note}",
        row.what,
        written(row.ours),
        written(row.reference),
        row.unit,
        row.ratio(),
        row.reference_is,
    )
}

/// Three significant digits or all of the whole part.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Four digits behind the point, without zeros at the end.
fn exact(value: f64) -> String {
    format!("{}", rounded(value, 4))
}

/// As long as the part of the goal that is reached; the goal is the line.
fn bar(row: &Row) -> String {
    let filled = (row.goal.reached(row.ratio()) * GOAL_CELLS).round().max(0.0);
    let cell = |at: usize| if (at as f64) < filled { '█' } else { '░' };
    let mut cells: Vec<char> = (0..CELLS).map(cell).collect();
    cells.insert(GOAL_CELLS as usize, '│');
    cells.into_iter().collect::<String>() + " "
}

fn painted(text: &str, holds: Option<bool>) -> String {
    match holds {
        Some(true) => format!("{GREEN}{text}{PLAIN}"),
        Some(false) => format!("{RED}{text}{PLAIN}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, goal: Goal) -> Row {
        Row::figure("durable put, 16 writers", (ours, "MB/s"), (219.0, "append+fdatasync"), goal)
    }

    #[test]
    fn a_row_is_written_as_the_design_says() {
        let found: serde_json::Value =
            serde_json::from_str(&json(&[("chunkstore", row(231.0, Goal::AtLeast(1.0)))]).unwrap()).unwrap();
        let expected = serde_json::json!([{
            "suite": "chunkstore", "what": "durable put, 16 writers", "ours": 231.0, "reference": 219.0,
            "reference_is": "append+fdatasync", "unit": "MB/s", "ratio": 1.05, "goal": ">= 1.0", "holds": true,
        }]);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_goal_is_printed_with_all_its_digits() {
        let texts = [Goal::AtLeast(1.0), Goal::AtLeast(0.15), Goal::AtMost(1.02)].map(|goal| goal.text().unwrap());
        assert_eq!(texts, [">= 1.0", ">= 0.15", "<= 1.02"]);
    }

    #[test]
    fn a_goal_holds_for_the_ratio_that_is_printed() {
        assert_eq!(row(218.0, Goal::AtLeast(1.0)).holds(), Some(true)); // 0.995 is printed as 1.00
        assert_eq!(row(216.0, Goal::AtLeast(1.0)).holds(), Some(false));
        assert_eq!(row(240.0, Goal::AtMost(1.1)).holds(), Some(true));
        assert_eq!(row(243.0, Goal::AtMost(1.1)).holds(), Some(false));
        assert_eq!(row(1.0, Goal::None).holds(), None);
    }

    #[test]
    fn a_goal_for_the_figure_itself_is_not_reached_by_rounding() {
        let holds = |ours, goal| Row::absolute("blocks", (ours, "%"), goal).holds();
        assert_eq!(holds(0.0, Goal::FigureAtMost(0.0)), Some(true));
        assert_eq!(holds(1.0, Goal::FigureAtMost(0.0)), Some(false));
        assert_eq!(holds(99.5, Goal::FigureAtLeast(99.99)), Some(false));
        assert_eq!(holds(99.99, Goal::FigureAtLeast(99.99)), Some(true));
        let row = Row::absolute("blocks lost", (0.0, "blocks"), Goal::FigureAtMost(0.0)).with_note("of 600");
        let text = text("sim", &row, "");
        assert!(text.contains(" 1.00 ") && text.contains("<= 0 ") && text.ends_with("goal; of 600"), "{text}");
    }

    #[test]
    fn the_bar_meets_the_line_when_the_goal_is_reached() {
        assert_eq!(bar(&row(219.0, Goal::AtLeast(1.0))), "████████│░░░░ ");
        assert_eq!(bar(&row(0.0, Goal::AtLeast(1.0))), "░░░░░░░░│░░░░ ");
        assert_eq!(bar(&row(2190.0, Goal::AtLeast(1.0))), "████████│████ ");
    }
}
