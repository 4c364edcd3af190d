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
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
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
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) found: String,
    pub(super) goal: String,
    pub(super) is_reached: bool,
}

pub(super) fn write(title: &str, about: &str, figures: &[Figure], plots: &[Plot]) -> Result<String, PlotError> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escaped(title),
        escaped(about)
    );
    page.push_str("<table><thead><tr><th>figure</th><th>found</th><th>goal</th><th></th></tr></thead><tbody>\n");
    for figure in figures {
        let (class, verdict) = if figure.is_reached { ("", "reached") } else { (" class=\"missed\"", "missed") };
        let cells = [&figure.what, &figure.found, &figure.goal].map(|text| format!("<td>{}</td>", escaped(text)));
        _ = writeln!(page, "<tr{class}>{}<td>{verdict}</td></tr>", cells.concat()); // a string takes everything
    }
    page.push_str("</tbody></table>\n<nav><ul>\n");
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
