//! One plot: its numbers as CSV, its picture as SVG.

use plotters::{
    coord::{
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
};
use std::{fmt::Write as _, ops::Range};

/// Pixels; the page scales it to its width.
const SIZE: (u32, u32) = (760, 380);
/// Told apart also by those who do not see all colours (Okabe, Ito 2008). The page exchanges them in the dark.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// What one picture shows.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Of the CSV file and of the link to the plot.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// One sentence: what is to be seen.
    pub(super) shows: String,
    /// What was simulated, and the command that does it again.
    pub(super) scenario: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Where the names of the series do not lie over them.
    pub(super) names: Corner,
    pub(super) series: Vec<Series>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// From 0.
    Linear,
    /// Per cent, up to 100 and down to what there is.
    Share,
    Logarithmic,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Corner {
    UpperLeft,
    LowerLeft,
    LowerRight,
}

/// Points in ascending order of x.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// A reference from theory or from elsewhere, not simulated.
    pub(super) is_theory: bool,
}

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot {name} could not be drawn: {reason}")]
pub struct PlotError {
    name: &'static str,
    reason: String,
}

impl Axis {
    pub(super) const fn linear(label: &'static str) -> Self {
        Self { label, scale: Scale::Linear }
    }

    pub(super) const fn share(label: &'static str) -> Self {
        Self { label, scale: Scale::Share }
    }

    pub(super) const fn logarithmic(label: &'static str) -> Self {
        Self { label, scale: Scale::Logarithmic }
    }

    /// Where a value lies on the axis.
    fn place(self, value: f64) -> f64 {
        if self.scale == Scale::Logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    fn written(self, place: f64) -> String {
        written(if self.scale == Scale::Logarithmic { 10_f64.powf(place) } else { place })
    }

    /// The least and the greatest place with a little room.
    fn range(self, places: impl Iterator<Item = f64>) -> (f64, f64) {
        let zero = (self.scale == Scale::Linear).then_some(0.0);
        let (low, high) = places
            .chain(zero)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !low.is_finite() || !high.is_finite() {
            return (0.0, 1.0);
        }
        let room = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-9);
        match self.scale {
            Scale::Linear if low == 0.0 => (0.0, high + room),
            Scale::Share => (low - room, 100.0),
            Scale::Linear | Scale::Logarithmic => (low - room, high + room),
        }
    }

    /// Where lines and numbers are: at 1, 2 and 5 times powers of ten; `None`: where they fall.
    fn marks(self, (low, high): (f64, f64)) -> Option<Vec<f64>> {
        if self.scale != Scale::Logarithmic {
            return None;
        }
        let powers = low.floor() as i32..=high.ceil() as i32;
        let steps: &[f64] = if powers.clone().count() > 5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let marks = powers.flat_map(|power| steps.iter().map(move |step| f64::from(power) + step.log10()));
        Some(marks.filter(|mark| (low..=high).contains(mark)).collect())
    }
}

impl Series {
    pub(super) fn measured(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, is_theory: false }
    }

    pub(super) fn theory(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, is_theory: true }
    }
}

impl Plot {
    /// One row for each x, one column for each series; a value that was not measured is empty.
    pub(super) fn csv(&self) -> String {
        let mut xs: Vec<f64> = self.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let names = self.series.iter().map(|series| quoted(&series.name));
        let mut csv: String = [quoted(self.x.label)].into_iter().chain(names).collect::<Vec<_>>().join(",");
        csv.push('\n');
        for x in xs {
            let value = |series: &Series| {
                series.points.iter().find(|(at, _)| *at == x).map_or(String::new(), |(_, y)| y.to_string())
            };
            let row: Vec<_> = [x.to_string()].into_iter().chain(self.series.iter().map(value)).collect();
            _ = writeln!(csv, "{}", row.join(",")); // a string takes everything
        }
        csv
    }

    pub(super) fn svg(&self) -> Result<String, PlotError> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| PlotError { name: self.name, reason: error.to_string() })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let scaled = |series: &Series| -> Vec<(f64, f64)> {
            series.points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y))).collect()
        };
        let all: Vec<_> = self.series.iter().flat_map(scaled).collect();
        let across = Ruler::new(self.x, all.iter().map(|(x, _)| *x));
        let up = Ruler::new(self.y, all.iter().map(|(_, y)| *y));
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(64)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .x_label_formatter(&|place| self.x.written(*place))
            .y_label_formatter(&|place| self.y.written(*place))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            let points = scaled(series);
            let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2));
            if series.is_theory {
                let line = DashedLineSeries::new(points, 6, 4, colour.stroke_width(2));
                chart.draw_series(line)?.label(&series.name).legend(legend);
            } else {
                chart
                    .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                    .label(&series.name)
                    .legend(legend);
                chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 13))
            .position(match self.names {
                Corner::UpperLeft => SeriesLabelPosition::UpperLeft,
                Corner::LowerLeft => SeriesLabelPosition::LowerLeft,
                Corner::LowerRight => SeriesLabelPosition::LowerRight,
            })
            .background_style(WHITE.filled())
            .border_style(TRANSPARENT)
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// An axis over a range of places, for the library that draws.
struct Ruler {
    axis: Axis,
    places: RangedCoordf64,
    ends: (f64, f64),
}

impl Ruler {
    fn new(axis: Axis, places: impl Iterator<Item = f64>) -> Self {
        let ends = axis.range(places);
        Self { axis, places: (ends.0..ends.1).into(), ends }
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        self.places.map(place, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.axis.marks(self.ends).unwrap_or_else(|| self.places.key_points(hint))
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format(place: &f64) -> String {
        written(*place)
    }
}

/// Three figures, without zeros behind them.
fn written(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1e6 || (magnitude > 0.0 && magnitude < 1e-3) {
        return format!("{value:.1e}");
    }
    let decimals = if magnitude >= 100.0 || value == value.round() {
        0
    } else if magnitude >= 1.0 {
        1
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        Plot {
            name: "test",
            title: "A test",
            shows: "Nothing.".to_owned(),
            scenario: "none".to_owned(),
            x: Axis::logarithmic("nodes"),
            y: Axis::linear("hops"),
            names: Corner::UpperLeft,
            series: vec![
                Series::measured("found, \"quoted\"", vec![(10.0, 1.5), (100.0, 2.0)]),
                Series::theory("log2 N", vec![(10.0, 3.3), (1_000.0, 10.0)]),
            ],
        }
    }

    #[test]
    fn the_csv_has_a_row_for_each_x_and_a_column_for_each_series() {
        let expected = "\"nodes\",\"found, \"\"quoted\"\"\",\"log2 N\"\n10,1.5,3.3\n100,2,\n1000,,10\n";
        assert_eq!(plot().csv(), expected);
    }

    #[test]
    fn the_picture_is_svg_with_its_labels() {
        let svg = plot().svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["nodes", "hops", "log2 N"] {
            assert!(svg.contains(text), "{text}");
        }
        let empty = Plot { series: vec![Series::measured("nothing", vec![])], ..plot() };
        assert!(empty.svg().unwrap().contains("</svg>"));
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 1.0, 2.57, 150.0, 10_000.0, 2_500_000.0, 0.0001].map(written);
        assert_eq!(texts, ["0", "0.250", "1", "2.6", "150", "10000", "2.5e6", "1.0e-4"]);
    }
}
