//! The page: self-contained, light or dark as the reader's system is, readable on a phone.

use super::plot::{Plot, PlotError};
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #5c6570; --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e6e9ed; --faint: #9aa4af; --line: #39414a; } }
body { margin: 0 auto; max-width: 52rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; } .scenario, footer { color: var(--faint); font-size: .875rem; overflow-wrap: anywhere; }
nav ul { padding-left: 1.2rem; } a { color: inherit; }
figure { margin: 0; overflow-x: auto; } svg { width: 100%; min-width: 30rem; height: auto; }
svg text { fill: var(--ink); font-family: system-ui, sans-serif; }
svg [fill='#FFFFFF'] { fill: var(--ground); }
svg [stroke='#000000'], svg [stroke='#000'] { stroke: var(--faint); }
.figures { overflow-x: auto; } table { border-collapse: collapse; width: 100%; min-width: 40rem; font-size: .875rem; }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.missed { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  svg [stroke='#0072B2'] { stroke: #56b4e9; } svg [fill='#0072B2'] { fill: #56b4e9; }
  svg [stroke='#D55E00'] { stroke: #ff8c42; } svg [fill='#D55E00'] { fill: #ff8c42; }
  svg [stroke='#009E73'] { stroke: #2fd6a6; } svg [fill='#009E73'] { fill: #2fd6a6; }
}
";

/// A figure of the network with its goal.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Of what.
    pub what: String,
    /// What was found.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it should be.
    pub bound: Bound,
    /// What there is to know of it.
    pub note: String,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
    /// It is stated only.
    Stated,
}

impl Figure {
    pub(super) fn new(what: &str, (value, unit): (f64, &'static str), bound: Bound) -> Self {
        Self { what: what.to_owned(), value, unit, bound, note: String::new() }
    }

    pub(super) fn with(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    fn is_missed(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value > most,
            Bound::AtLeast(least) => self.value < least,
            Bound::Stated => false,
        }
    }

    fn row(&self) -> String {
        let (goal, verdict) = match self.bound {
            Bound::AtMost(most) => (
                format!("\u{2264} {} {}", written(most), self.unit),
                if self.is_missed() { "missed" } else { "reached" },
            ),
            Bound::AtLeast(least) => (
                format!("\u{2265} {} {}", written(least), self.unit),
                if self.is_missed() { "missed" } else { "reached" },
            ),
            Bound::Stated => (String::new(), ""),
        };
        let found = format!("{} {}", written(self.value), self.unit);
        let cells = [&self.what, &found, &goal, &verdict.to_owned(), &self.note]
            .map(|text| format!("<td>{}</td>", escaped(text)));
        let class = if self.is_missed() { " class=\"missed\"" } else { "" };
        format!("<tr{class}>{}</tr>", cells.concat())
    }
}

/// What `tests/tests/simulated.rs` measured of real daemons, beside what was simulated.
const VALIDATION: &str = include_str!("../../validation.csv");

fn validation() -> String {
    let row = |line: &str| {
        let mut cells: Vec<_> = line.split(',').map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        let number = |at: usize| line.split(',').nth(at).and_then(|cell| cell.parse::<f64>().ok());
        let difference = number(2).zip(number(1)).map_or_else(String::new, |(simulated, real)| {
            format!("{:+.0} %", 100.0 * (simulated - real) / real.max(f64::MIN_POSITIVE))
        });
        cells.insert(3, format!("<td>{difference}</td>"));
        format!("<tr>{}</tr>", cells.concat())
    };
    let rows: Vec<_> = VALIDATION.lines().skip(1).map(row).collect();
    format!(
        "<h2>Beside real nodes</h2>\n<p>The same nodes, blocks and deaths in real daemons on one machine and in the simulator, whose links are slower.</p>\n\
         <div class=\"figures\"><table><thead><tr><th>what</th><th>real</th><th>simulated</th><th>difference</th><th>may differ by</th></tr></thead>\
         <tbody>\n{}\n</tbody></table></div>\n",
        rows.join("\n")
    )
}

/// Up to four decimals, without zeros behind them.
fn written(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn write(title: &str, about: &str, figures: &[Figure], plots: &[Plot]) -> Result<String, PlotError> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escaped(title),
        escaped(about)
    );
    page.push_str("<div class=\"figures\"><table><thead><tr><th>figure</th><th>found</th><th>goal</th><th></th><th>note</th></tr></thead><tbody>\n");
    for figure in figures {
        _ = writeln!(page, "{}", figure.row()); // a string takes everything
    }
    page.push_str("</tbody></table></div>\n");
    page.push_str(&validation());
    page.push_str("<nav><ul>\n");
    for plot in plots {
        _ = writeln!(page, "<li><a href=\"#{}\">{}</a></li>", plot.name, escaped(plot.title));
    }
    page.push_str("</ul></nav>\n");
    for plot in plots {
        _ = writeln!(
            page,
            "<section id=\"{0}\"><h2>{1}</h2>\n<p>{2}</p>\n<figure role=\"img\" aria-label=\"{1}\">{3}</figure>\n\
             <p class=\"scenario\">{4} <a href=\"{0}.csv\">{0}.csv</a></p></section>",
            plot.name,
            escaped(plot.title),
            escaped(&plot.shows),
            plot.svg()?,
            escaped(&plot.scenario)
        );
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
