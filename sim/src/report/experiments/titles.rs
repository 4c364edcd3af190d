//! Whole titles: films of two hours, of which every block must be there.

use super::{Findings, HOUR, MINUTE, quiet, share, watched};
use crate::{
    replication::Settings,
    report::{
        ReportError, Scale,
        page::{Bound, Figure},
        plot::{Axis, Plot, Series, in_threes},
    },
    sessions::{Sessions, Shape},
};

/// Blocks of a film of two hours (white paper 4.2: 1 MB each).
pub(super) const TITLE_BLOCKS: usize = 7_200;

/// The part of the titles that is whole if each block is there with this probability, by itself.
pub(super) fn whole_titles(block: f64) -> f64 {
    block.powf(TITLE_BLOCKS as f64)
}

/// The same from the part that is whole of the titles of so many blocks: a longer one is taken for several of these, each by itself.
fn scaled(whole: f64, blocks: usize) -> f64 {
    whole.powf(TITLE_BLOCKS as f64 / blocks.max(1) as f64)
}

/// What was not seen once in so many looks is so frequent at most, with a confidence of 95 %: the rule of three.
pub(super) fn rule_of_three(looks: usize) -> f64 {
    (3.0 / looks.max(1) as f64).min(1.0)
}

pub(super) fn titles(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks, days) = if scale == Scale::Quick { (60, 1_000, 2) } else { (200, TITLE_BLOCKS, 4) };
    let mut figures = Vec::new();
    let mut series = Vec::new();
    for replication in [2, 3] {
        // Exponential: 99 % of the time up.
        let sessions = Sessions::Drawn { median: 99 * HOUR, median_away: HOUR, shape: Shape::Exponential };
        let mut settings = Settings { sessions: Some(sessions), ..quiet(nodes, blocks, replication, seed) };
        settings.config.ping_interval = MINUTE;
        settings.config.sync_interval = 10 * MINUTE;
        let (samples, _) = watched("whole titles", &settings, days * 24 * HOUR, 5 * MINUTE)?;
        let asked: usize = samples.iter().map(|sample| sample.acknowledged * replication).sum();
        let up: usize = samples.iter().map(|sample| sample.copies_up).sum();
        let away = 1.0 - up as f64 / asked.max(1) as f64;
        let seen = asked / replication;
        let unreadable = seen - samples.iter().map(|sample| sample.readable).sum::<usize>();
        let by_formula = |away: f64| 100.0 * whole_titles(1.0 - away.powi(replication as i32));
        let bound = if replication == 3 { Bound::AtLeast(99.99) } else { Bound::Stated };
        let what = format!(
            "whole titles (7,200 blocks), nodes up 99 %, absences of 1 h, R = {replication}: by (1 - u^R)^7200"
        );
        let note = format!(
            "u = {:.3} %: so much of the time a copy was away, taken as if by itself, as the blocks of a title are in a network of many more nodes \
             than it has blocks; nodes are away for 1 h and others stand in after 10 min; without repair, or with absences shorter than that, {:.2} \
             %",
            away * 100.0,
            by_formula(0.01)
        );
        figures.push(Figure::new(&what, (by_formula(away), "%"), bound).with(&note));
        let whole = samples.iter().filter(|sample| sample.readable == sample.acknowledged).count();
        let measured = 100.0 * scaled(whole as f64 / samples.len().max(1) as f64, blocks);
        let what = format!("whole titles, nodes up 99 %, absences of 1 h, R = {replication}: measured");
        let hours = days as usize * 24;
        let mut note = format!(
            "the network's {} blocks are read as one title: {} of {} looks, every 5 min, found all of them; {} of {} looks at a block found no copy",
            in_threes(blocks),
            in_threes(whole),
            in_threes(samples.len()),
            in_threes(unreadable),
            in_threes(seen)
        );
        if blocks != TITLE_BLOCKS {
            note += &format!("; extrapolated to 7,200 blocks by the power of 7,200 / {}", in_threes(blocks));
        }
        if whole == samples.len() {
            let least = 100.0 * scaled(1.0 - rule_of_three(hours), blocks);
            note += &format!(
                "; looks within an hour see the same absences, so {hours} hours alone show {least:.1} % at least (rule of three)"
            );
        }
        note += &format!(
            ". Blocks share their holders among {nodes} nodes, so fewer moments are bad than by the formula, and each is worse"
        );
        figures.push(Figure::new(&what, (measured, "%"), bound).with(&note));
        // Even steps on the logarithmic axis, up to 4 %.
        let points = (0..=40).map(|step| 0.04 * 10_f64.powf(f64::from(step) / 20.0));
        let points = points.map(|percent| (percent, by_formula(percent / 100.0)));
        series.push(Series::theory(format!("(1 - u^R)^7200, R = {replication}"), points.collect()));
        let point = |value| vec![(away * 100.0, value)];
        series.push(Series::measured(
            format!("u with repair, R = {replication}: {:.4} %", by_formula(away)),
            point(by_formula(away)),
        ));
        let looks = format!(
            "all blocks there, R = {replication}: {:.2} % of {} looks",
            share(whole, samples.len()),
            in_threes(samples.len())
        );
        series.push(Series::measured(looks, point(measured)));
    }
    let plot = Plot {
        name: "titles",
        title: "Whole titles that can be read",
        shows: format!(
            "Dashed: what follows if each copy of each block is away for a part u of the time by itself. Points: the same formula with the u that \
             repair makes of nodes that are away for 1 % of the time, and beside it what was measured: at how many looks all {} blocks of the \
             network, read as one title, were there{}.",
            in_threes(blocks),
            if blocks == TITLE_BLOCKS { "" } else { ", to the power of 7,200 by this number" }
        ),
        scenario: format!(
            "{nodes} nodes, {} blocks, {days} days, exponential sessions with a median of 99 h, absences of 1 h; a ping every 60 s (the daemon: 5 \
             s) and a comparison every 600 s (the daemon: 60 s), so that days can be simulated; seed {seed}.",
            in_threes(blocks)
        ),
        x: Axis::logarithmic("a copy is away (u), % of the time"),
        y: Axis::linear("titles, %"),
        series,
    };
    Ok(Findings { figures, plots: vec![plot] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_as_whole_as_all_its_blocks() {
        // As the goals have it: nodes up for 99 % of the time, nothing repaired.
        let without_repair = whole_titles(1.0 - 0.01_f64.powi(2));
        assert!((without_repair - (-0.72_f64).exp()).abs() < 1e-3, "{without_repair}");
        assert!((scaled(0.99, TITLE_BLOCKS / 2) - 0.99 * 0.99).abs() < 1e-12);
        assert!((scaled(0.99, TITLE_BLOCKS) - 0.99).abs() < 1e-12);
        assert_eq!((whole_titles(1.0), scaled(1.0, 10)), (1.0, 1.0));
    }

    #[test]
    fn what_was_never_seen_may_be_rare() {
        assert_eq!(rule_of_three(300), 0.01);
        assert_eq!((rule_of_three(0), rule_of_three(2)), (1.0, 1.0));
    }
}
