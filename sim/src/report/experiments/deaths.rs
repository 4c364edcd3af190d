//! Many nodes that die at once: what is lost, and how soon the rest has all its copies again.

use super::{Findings, MINUTE, burden, draw_homes, draw_nodes, minutes_of, quiet, share, watched};
use crate::{
    random::Random,
    replication::{Sample, Settings},
    report::{
        ReportError, Scale,
        page::{Bound, Figure},
        plot::{Axis, Plot, Series, in_threes},
    },
};
use std::time::Duration;

/// Full R takes 22 minutes at most of those measured with the sizes below.
const LENGTH: Duration = Duration::from_secs(40 * 60);
/// Networks drawn to see how much what is lost depends on the draw.
const DRAWS: usize = 100;

pub(super) fn deaths(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 2_000) } else { (500, 20_000) };
    let cases = [(1, 2), (10, 2), (30, 2), (1, 3), (10, 3), (30, 3)];
    let dead = |percent: u32| (nodes * percent as usize).div_ceil(100);
    let drawn = draw_shares(nodes, blocks, &cases.map(|(percent, copies)| (dead(percent), copies)), seed);
    let mut series = Vec::new();
    let mut figures = Vec::new();
    for ((percent, replication), drawn) in cases.into_iter().zip(drawn) {
        let deaths_at_once = vec![(MINUTE, percent)];
        let settings = Settings { deaths_at_once, ..quiet(nodes, blocks, replication, seed) };
        let (samples, counts) = watched("deaths at once", &settings, LENGTH, MINUTE)?;
        let whole =
            samples.iter().map(|sample| (minutes_of(sample), share(sample.with_all_copies, sample.acknowledged)));
        series.push(Series::measured(format!("{percent} % die, R = {replication}"), whole.collect()));
        // Nothing is lost before, so what is left and what was lost are all there were.
        let Some(last) = samples.last() else { continue };
        let all = last.acknowledged + last.lost as usize;
        let of = format!("{percent} % die at once, R = {replication}");
        let unavoidable = unavoidable(nodes, dead(percent), replication);
        let binomial = (unavoidable * (1.0 - unavoidable) / blocks as f64).sqrt();
        let doomed = counts.doomed as f64 / all.max(1) as f64;
        let as_many = drawn.iter().filter(|share| **share >= doomed).count();
        let note = format!(
            "unavoidable, since all R holders are among the dead: {:.3} % expected, \u{b1} {:.3} % (2 sigma of the binomial of {} blocks); but \
             blocks share holders: \u{b1} {:.3} % (2 sigma of {DRAWS} networks drawn as large, of which {as_many} lost as many or more)",
            unavoidable * 100.0,
            binomial * 200.0,
            in_threes(blocks),
            deviation(&drawn, unavoidable) * 200.0
        );
        let lost = share(last.lost as usize, all);
        figures.push(Figure::new(&format!("{of}: blocks lost"), (lost, "%"), Bound::Stated).with(&note));
        let note =
            format!("{} of {} blocks were on dead nodes only, {} were lost", counts.doomed, in_threes(all), last.lost);
        let beyond = last.lost.saturating_sub(counts.doomed) as f64;
        let what = format!("{of}: blocks lost beyond those that only the dead had");
        figures.push(Figure::new(&what, (beyond, "blocks"), Bound::AtMost(0.0)).with(&note));
        figures.push(minutes_to_full(&of, &samples));
    }
    let plot = Plot {
        name: "deaths",
        title: "After many nodes died at once",
        shows: "Copies come back when the grace period of ten minutes is over, fewest copies first; what was lost with all its holders does not \
                count any more.".to_owned(),
        scenario: format!(
            "{nodes} nodes, {} blocks; {}; {}; deaths after one minute; seed {seed}.",
            in_threes(blocks),
            burden(nodes, blocks, 2),
            burden(nodes, blocks, 3)
        ),
        x: Axis::linear("minutes"),
        y: Axis::share("blocks with R copies that are up, %"),
        series,
    };
    Ok(Findings { figures, plots: vec![plot] })
}

/// How long after the deaths of the first minute all blocks have R copies that are up.
fn minutes_to_full(of: &str, samples: &[Sample]) -> Figure {
    let minutes_after = |sample: &Sample| minutes_of(sample) - 1.0;
    // Ever after: it may look full before the nodes die.
    let ever_after = |share: f64| {
        let is_short = |sample: &Sample| (sample.with_all_copies as f64) < sample.acknowledged as f64 * share;
        let short = samples.iter().rposition(is_short).map_or(0, |last| last + 1);
        samples.get(short).map(|sample| minutes_after(sample).max(0.0))
    };
    let what = format!("{of}: minutes to full R");
    let written =
        |minutes: Option<f64>| minutes.map_or("not within the run".to_owned(), |it| format!("after {it} min"));
    let note = format!(
        "looked at once a minute; the grace period is 10 of them; 99 % of the blocks: {}",
        written(ever_after(0.99))
    );
    match ever_after(1.0) {
        Some(minutes) => Figure::new(&what, (minutes, "min"), Bound::Stated).with(&note),
        None => {
            let length = samples.last().map_or(0.0, minutes_after);
            Figure::new(&what, (length, "min"), Bound::Stated).with(&format!("not reached in these; {note}"))
        }
    }
}

/// The share of blocks of which all holders are among the dead.
fn unavoidable(nodes: usize, dead: usize, replication: usize) -> f64 {
    (0..replication).map(|copy| dead.saturating_sub(copy) as f64 / (nodes - copy) as f64).product()
}

/// For each number of dead nodes and of copies that share in networks drawn anew.
fn draw_shares(nodes: usize, blocks: usize, cases: &[(usize, usize)], seed: u64) -> Vec<Vec<f64>> {
    let mut random = Random::new(seed);
    let most = cases.iter().map(|(_, replication)| *replication).max().unwrap_or_default();
    let mut shares = vec![Vec::new(); cases.len()];
    for _ in 0..DRAWS {
        let homes = draw_homes(nodes, blocks, most, &mut random);
        for ((dead, replication), shares) in cases.iter().zip(&mut shares) {
            let is_dead = draw_nodes(nodes, *dead, &mut random);
            let lost = homes.iter().filter(|homes| homes.iter().take(*replication).all(|home| is_dead[*home])).count();
            shares.push(lost as f64 / blocks as f64);
        }
    }
    shares
}

/// The standard deviation from what is expected. Blocks that lie beside each other have the same holders, so it is more than that of as many
/// blocks that each had holders of their own.
fn deviation(shares: &[f64], expected: f64) -> f64 {
    let squares: f64 = shares.iter().map(|share| (share - expected).powi(2)).sum();
    (squares / shares.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unavoidable_depends_on_the_draw_more_than_the_binomial_says() {
        let expected = unavoidable(100, 30, 2);
        assert!((expected - 0.3 * 29.0 / 99.0).abs() < 1e-12);
        assert_eq!(unavoidable(100, 1, 2), 0.0);
        let drawn = draw_shares(100, 1_000, &[(30, 2), (1, 2)], 1);
        let deviation = deviation(&drawn[0], expected);
        let binomial = (expected * (1.0 - expected) / 1_000.0).sqrt();
        assert!(deviation > binomial && deviation < 10.0 * binomial, "{deviation}, {binomial}");
        assert_eq!(drawn[1], [0.0; DRAWS]);
    }

    #[test]
    fn full_is_when_it_stays_full() {
        let sample = |minute: u64, with_all_copies| Sample {
            time: Duration::from_secs(minute * 60),
            up: 1,
            acknowledged: 100,
            in_place: 0,
            readable: 100,
            with_all_copies,
            copies_up: 0,
            lost: 0,
            moved_bytes: 0,
            oracle_bytes: 0,
            destroyed_bytes: 0,
        };
        let samples: Vec<_> =
            [100, 50, 99, 98, 99, 100].into_iter().zip(0..).map(|(all, minute)| sample(minute, all)).collect();
        let figure = minutes_to_full("x", &samples);
        assert_eq!(
            (figure.value, figure.note.ends_with("99 % of the blocks: after 3 min")),
            (4.0, true),
            "{}",
            figure.note
        );
        let never = minutes_to_full("x", &samples[..5]);
        assert!(never.note.starts_with("not reached"), "{}", never.note);
    }
}
