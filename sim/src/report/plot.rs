//! One plot: its numbers as CSV, its picture as SVG.

use plotters::{
    coord::{
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
};
use std::{fmt::Write as _, ops::Range};

/// How much room a picture has: the page shows the one that fits its reader's screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Wide,
    /// A phone held upright.
    Narrow,
}

/// Of one series, on light ground and in the dark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colour {
    light: RGBColor,
    dark: RGBColor,
}

/// Told apart also by those who do not see all colours: those of Okabe and Ito (2008), darker or lighter where the ground asks for it. Pictures
/// are drawn with those for light ground; the page exchanges them in the dark.
pub(super) const COLOURS: [Colour; 6] = [
    Colour::new((0x00, 0x72, 0xB2), (0x56, 0xB4, 0xE9)),
    Colour::new((0xD5, 0x5E, 0x00), (0xFF, 0x84, 0x38)),
    Colour::new((0x00, 0x94, 0x6B), (0x1F, 0xC4, 0x93)),
    Colour::new((0xB8, 0x55, 0x8C), (0xE6, 0x9C, 0xC8)),
    Colour::new((0x30, 0x30, 0x30), (0xF2, 0xF2, 0xF2)),
    Colour::new((0x9A, 0x6A, 0x00), (0xF0, 0xE4, 0x42)),
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
    /// No more than there are colours.
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

impl Room {
    const fn size(self) -> (u32, u32) {
        match self {
            Self::Wide => (800, 380),
            Self::Narrow => (360, 300),
        }
    }

    /// About so many numbers fit below the picture and beside it.
    const fn marks(self) -> (usize, usize) {
        match self {
            Self::Wide => (10, 10),
            Self::Narrow => (5, 7),
        }
    }
}

impl Colour {
    const fn new(light: (u8, u8, u8), dark: (u8, u8, u8)) -> Self {
        Self { light: RGBColor(light.0, light.1, light.2), dark: RGBColor(dark.0, dark.1, dark.2) }
    }

    /// As pictures have it, and what the page puts in its place in the dark.
    pub(super) fn written(self) -> (String, String) {
        let hex = |RGBColor(red, green, blue): RGBColor| format!("#{red:02X}{green:02X}{blue:02X}");
        (hex(self.light), hex(self.dark))
    }
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

    /// Where lines and numbers are: at 1, 2 and 5 times powers of ten, or at fewer if there is room for `most`; `None`: where they fall.
    fn marks(self, (low, high): (f64, f64), most: usize) -> Option<Vec<f64>> {
        if self.scale != Scale::Logarithmic {
            return None;
        }
        let at = |steps: &[f64]| -> Vec<f64> {
            let powers = low.floor() as i32..=high.ceil() as i32;
            let marks = powers.flat_map(|power| steps.iter().map(move |step| f64::from(power) + step.log10()));
            marks.filter(|mark| (low..=high).contains(mark)).collect()
        };
        let fitting = [[1.0, 2.0, 5.0].as_slice(), &[1.0, 3.0]].into_iter().map(at).find(|marks| marks.len() <= most);
        Some(fitting.unwrap_or_else(|| at(&[1.0])))
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

    /// The series with their colours.
    pub(super) fn coloured(&self) -> impl Iterator<Item = (&Series, Colour)> {
        self.series.iter().zip(COLOURS)
    }

    pub(super) fn svg(&self, room: Room) -> Result<String, PlotError> {
        if self.series.len() > COLOURS.len() {
            return Err(PlotError { name: self.name, reason: "it has more series than there are colours".to_owned() });
        }
        let mut svg = String::new();
        self.draw(room, &mut svg).map_err(|error| PlotError { name: self.name, reason: error.to_string() })?;
        Ok(svg)
    }

    fn draw(&self, room: Room, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let scaled = |series: &Series| -> Vec<(f64, f64)> {
            series.points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y))).collect()
        };
        let all: Vec<_> = self.series.iter().flat_map(scaled).collect();
        let across = Ruler::new(self.x, all.iter().map(|(x, _)| *x));
        let up = Ruler::new(self.y, all.iter().map(|(_, y)| *y));
        let root = SVGBackend::with_string(svg, room.size()).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            // The last number below the axis is half outside.
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(62)
            .build_cartesian_2d(across, up)?;
        let marks = room.marks();
        chart
            .configure_mesh()
            .x_labels(marks.0)
            .y_labels(marks.1)
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .x_label_formatter(&|place| self.x.written(*place))
            .y_label_formatter(&|place| self.y.written(*place))
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 16))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (series, Colour { light, .. }) in self.coloured() {
            let points = scaled(series);
            if series.is_theory {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, light.stroke_width(2)))?;
            } else {
                chart.draw_series(LineSeries::new(points.clone(), light.stroke_width(2)))?;
                chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, light.filled())))?;
            }
        }
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
        let most = hint.max_num_points();
        self.axis.marks(self.ends, most).unwrap_or_else(|| self.places.key_points(hint))
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
    if magnitude >= 100.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", in_threes(magnitude.round() as usize));
    }
    let decimals = if magnitude >= 1.0 { 1 } else { 3 };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// 12,345.
pub(super) fn in_threes(number: usize) -> String {
    let (thousands, rest) = (number / 1_000, number % 1_000);
    if thousands == 0 { rest.to_string() } else { format!("{},{rest:03}", in_threes(thousands)) }
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
        for room in [Room::Wide, Room::Narrow] {
            let svg = plot().svg(room).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for text in ["nodes", "hops"] {
                assert!(svg.contains(text), "{text}");
            }
        }
        let empty = Plot { series: vec![Series::measured("nothing", vec![])], ..plot() };
        assert!(empty.svg(Room::Wide).unwrap().contains("</svg>"));
        let too_many = Plot { series: vec![Series::measured("one of seven", vec![]); 7], ..plot() };
        assert!(too_many.svg(Room::Wide).is_err());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 1.0, 2.57, 10_f64.powf(30_f64.log10()), 150.0, -1_500.0, 10_000.0, 2_500_000.0, 0.0001]
            .map(written);
        assert_eq!(texts, ["0", "0.25", "1", "2.6", "30", "150", "-1,500", "10,000", "2.5e6", "1.0e-4"]);
        assert_eq!([0, 999, 1_000, 1_002_003].map(in_threes), ["0", "999", "1,000", "1,002,003"]);
    }

    #[test]
    fn a_logarithmic_axis_has_as_many_numbers_as_there_is_room_for() {
        let axis = Axis::logarithmic("nodes");
        let marks = |most| axis.marks((2.0, 4.0), most).unwrap().len();
        assert_eq!([10, 5, 3].map(marks), [7, 5, 3]);
        assert_eq!(Axis::linear("hops").marks((0.0, 4.0), 5), None);
    }

    /// As in WCAG 2.2: how bright one is beside the other.
    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let part = |byte: u8| {
            let part = f64::from(byte) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let brightness = |RGBColor(red, green, blue): RGBColor| {
            0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue) + 0.05
        };
        let ratio = brightness(a) / brightness(b);
        ratio.max(1.0 / ratio)
    }

    #[test]
    fn each_colour_is_one_of_its_own_and_stands_out_from_the_ground() {
        let light = (COLOURS.map(|colour| colour.light), WHITE);
        let dark = (COLOURS.map(|colour| colour.dark), RGBColor(0x14, 0x17, 0x1B));
        for (colours, ground) in [light, dark] {
            for (at, colour) in colours.into_iter().enumerate() {
                // What WCAG asks of lines and marks.
                assert!(contrast(colour, ground) >= 3.0, "{colour:?} on {ground:?}: {}", contrast(colour, ground));
                for other in &colours[..at] {
                    let apart = |a: u8, b: u8| f64::from(a.abs_diff(b)).powi(2);
                    let apart = apart(colour.0, other.0) + apart(colour.1, other.1) + apart(colour.2, other.2);
                    assert!(apart.sqrt() >= 60.0, "{colour:?} and {other:?}");
                }
            }
        }
    }
}
