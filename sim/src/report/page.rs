//! The page: self-contained, light or dark as the reader's system is, readable on a phone.

use super::{
    experiments::Findings,
    plot::{COLOURS, Colour, Plot, PlotError, Room, Series},
};
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #5c6570; --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e6e9ed; --faint: #9aa4af; --line: #39414a; } }
body { margin: 0 auto; max-width: 58rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; } .scenario, footer { color: var(--faint); font-size: .875rem; overflow-wrap: anywhere; }
nav ul { padding-left: 1.2rem; } a { color: inherit; }
figure { margin: 0; } .picture svg { display: block; width: 100%; height: auto; } .narrow { display: none; }
.picture text { fill: var(--ink); font-family: system-ui, sans-serif; }
.picture [stroke='#000000'], .picture [stroke='#000'] { stroke: var(--faint); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; margin: .25rem 0 .5rem; padding: 0; font-size: .875rem; }
.legend li { display: flex; align-items: baseline; }
.legend svg { flex: none; width: 1.9rem; height: .7rem; margin-right: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: break-word; }
.of { padding-top: 1.1rem; font-size: 1rem; } .what { width: 34%; } .found, .goal, .verdict { white-space: nowrap; }
.missed { font-weight: 600; } .missed .note { font-weight: 400; }
@media (max-width: 40rem) {
  .wide, thead { display: none; } .narrow { display: block; }
  table, tbody, tr, td, .of { display: block; } tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  td, .of, .what { width: auto; border: 0; padding: 0; } td:empty { display: none; }
  td[data-of]::before { content: attr(data-of) ': '; color: var(--faint); }
  .goal:not(:empty), .verdict:not(:empty) { display: inline-block; margin-right: .5rem; } .note { color: var(--faint); }
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
        let cells = [
            ("what", "", &self.what),
            ("found", "found", &found),
            ("goal", "goal", &goal),
            ("verdict", "", &verdict.to_owned()),
            ("note", "", &self.note),
        ];
        let cells = cells.map(|(class, of, text)| cell(class, of, text));
        let class = if self.is_missed() { " class=\"missed\"" } else { "" };
        format!("<tr{class}>{}</tr>", cells.concat())
    }
}

/// A cell, with the head of its column for a page that is too narrow for columns.
fn cell(class: &str, of: &str, text: &str) -> String {
    let of = if of.is_empty() { String::new() } else { format!(" data-of=\"{of}\"") };
    format!("<td class=\"{class}\"{of}>{}</td>", escaped(text))
}

/// What `tests/tests/simulated.rs` measured of real daemons, beside what was simulated.
const VALIDATION: &str = include_str!("../../validation.csv");

fn validation() -> String {
    let row = |line: &str| {
        let texts: Vec<_> = line.split(',').collect();
        let at = |index: usize| texts.get(index).copied().unwrap_or_default();
        let number = |index| at(index).parse::<f64>().ok();
        let difference = number(2).zip(number(1)).map_or_else(String::new, |(simulated, real)| {
            format!("{:+.0} %", 100.0 * (simulated - real) / real.max(f64::MIN_POSITIVE))
        });
        let cells = [
            cell("what", "", at(0)),
            cell("found", "real", at(1)),
            cell("found", "simulated", at(2)),
            cell("found", "difference", &difference),
            cell("bound", "may differ by", at(3)),
        ];
        format!("<tr>{}</tr>", cells.concat())
    };
    let rows: Vec<_> = VALIDATION.lines().skip(1).map(row).collect();
    format!(
        "<h2>Beside real nodes</h2>\n<p>The same nodes, blocks and deaths in real daemons on one machine and in the simulator, whose links are \
         slower.</p>\n\
         <table><thead><tr><th>what</th><th>real</th><th>simulated</th><th>difference</th><th>may differ by</th></tr></thead>\
         <tbody>\n{}\n</tbody></table>\n",
        rows.join("\n")
    )
}

/// Up to four decimals, without zeros behind them.
fn written(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Pictures are drawn for light ground.
fn dark_colours() -> String {
    let exchange = |colour: Colour| {
        let (light, dark) = colour.written();
        format!("svg [stroke='{light}'] {{ stroke: {dark}; }} svg [fill='{light}'] {{ fill: {dark}; }}\n")
    };
    format!("@media (prefers-color-scheme: dark) {{\n{}}}\n", COLOURS.map(exchange).concat())
}

/// What each line of a plot is: drawn like the line itself, dashed if that is.
fn legend(plot: &Plot) -> String {
    let item = |(series, colour): (&Series, Colour)| {
        let (colour, _) = colour.written();
        let (dashes, point) = if series.is_theory {
            (" stroke-dasharray=\"6 4\"", String::new())
        } else {
            ("", format!("<circle cx=\"16\" cy=\"6\" r=\"3\" fill=\"{colour}\"/>"))
        };
        format!(
            "<li><svg viewBox=\"0 0 32 12\" aria-hidden=\"true\"><line x1=\"0\" y1=\"6\" x2=\"32\" y2=\"6\" stroke=\"{colour}\" \
             stroke-width=\"2\"{dashes}/>{point}</svg>{}</li>",
            escaped(&series.name)
        )
    };
    format!("<ul class=\"legend\">{}</ul>", plot.coloured().map(item).collect::<String>())
}

/// `all`: what each experiment found, by its name.
pub(super) fn write(title: &str, about: &[String], all: &[(&str, Findings)]) -> Result<String, PlotError> {
    let about: String = about.iter().map(|text| format!("<p>{}</p>\n", escaped(text))).collect();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title><style>{STYLE}{1}</style></head><body>\n<h1>{0}</h1>\n{about}",
        escaped(title),
        dark_colours(),
    );
    page.push_str("<table><thead><tr><th>figure</th><th>found</th><th>goal</th><th></th><th>note</th></tr></thead>\n");
    for (name, findings) in all.iter().filter(|(_, findings)| !findings.figures.is_empty()) {
        let rows: Vec<_> = findings.figures.iter().map(Figure::row).collect();
        _ = writeln!(
            page,
            "<tbody><tr><th class=\"of\" colspan=\"5\" scope=\"rowgroup\">{}</th></tr>\n{}</tbody>",
            escaped(name),
            rows.join("\n")
        ); // a string takes everything
    }
    page.push_str("</table>\n");
    page.push_str(&validation());
    let plots = || all.iter().flat_map(|(_, findings)| &findings.plots);
    page.push_str("<nav><ul>\n");
    for plot in plots() {
        _ = writeln!(page, "<li><a href=\"#{}\">{}</a></li>", plot.name, escaped(plot.title));
    }
    page.push_str("</ul></nav>\n");
    for plot in plots() {
        _ = writeln!(
            page,
            "<section id=\"{0}\"><h2>{1}</h2>\n<p>{2}</p>\n<figure><div class=\"picture\" role=\"img\" aria-label=\"{1}\">\
             <div class=\"wide\">{3}</div><div class=\"narrow\">{4}</div></div>{5}</figure>\n\
             <p class=\"scenario\">{6} <a href=\"{0}.csv\">{0}.csv</a></p></section>",
            plot.name,
            escaped(plot.title),
            escaped(&plot.shows),
            plot.svg(Room::Wide)?,
            plot.svg(Room::Narrow)?,
            legend(plot),
            escaped(&plot.scenario)
        );
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::plot::Axis, *};

    fn page() -> String {
        let series = vec![Series::measured("found", vec![(1.0, 1.0), (2.0, 3.0)]), Series::theory("a < b", vec![])];
        let (x, y) = (Axis::linear("days"), Axis::linear("GiB"));
        let plot =
            Plot { name: "test", title: "A test", shows: String::new(), scenario: "none".to_owned(), x, y, series };
        let figure = Figure::new("so many", (3.0, "blocks"), Bound::AtMost(2.0)).with("a & b");
        let findings = Findings { figures: vec![figure], plots: vec![plot] };
        let nothing = Findings::default();
        write("A page", &["Of two.".to_owned()], &[("an experiment", findings), ("another", nothing)]).unwrap()
    }

    #[test]
    fn figures_stand_below_their_experiment_with_goal_and_verdict() {
        let page = page();
        assert!(page.contains("scope=\"rowgroup\">an experiment<") && !page.contains(">another<"));
        assert!(page.contains(
            "<tr class=\"missed\"><td class=\"what\">so many</td><td class=\"found\" data-of=\"found\">3 blocks</td>"
        ));
        assert!(
            page.contains("\u{2264} 2 blocks</td><td class=\"verdict\">missed</td><td class=\"note\">a &amp; b</td>")
        );
    }

    #[test]
    fn the_legend_is_drawn_like_the_lines() {
        let page = page();
        let legend = page.split("<ul class=\"legend\">").nth(1).unwrap().split("</ul>").next().unwrap();
        let items: Vec<_> = legend.split("<li>").skip(1).collect();
        let [measured, theory] = items.as_slice() else { panic!("{legend}") };
        assert!(measured.contains("<circle") && !measured.contains("dasharray"), "{measured}");
        assert!(theory.contains("dasharray") && theory.contains("a &lt; b"), "{theory}");
    }

    #[test]
    fn every_colour_of_a_picture_is_exchanged_in_the_dark() {
        let (page, style) = (page(), dark_colours());
        assert!(page.contains(&style));
        for (light, dark) in COLOURS.map(Colour::written) {
            assert!(style.contains(&format!("[stroke='{light}'] {{ stroke: {dark}; }}")), "{light}");
        }
        assert!(page.contains(&format!("stroke=\"{}\"", COLOURS[0].written().0)), "as the library writes it");
    }
}
