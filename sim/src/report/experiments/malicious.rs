//! Nodes that keep nothing of what they took, and nodes that name each other only.

use super::{
    Findings, HOUR, MINUTE, draw_homes, draw_nodes, minutes_of, quiet, share,
    titles::{TITLE_BLOCKS, rule_of_three, whole_titles},
    watched,
};
use crate::{
    random::Random,
    replication::{Sample, Settings},
    report::{
        ReportError, Scale,
        page::{Bound, Figure},
        plot::{Axis, Plot, Series, in_threes},
    },
    search,
};

pub(super) fn malicious(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let mut findings = before(scale, seed);
    findings.extend(liars(scale, seed)?);
    findings.extend(shares(scale, seed)?);
    findings.extend(misled(scale, seed));
    Ok(findings)
}

/// Blocks and titles that can be read from their holders alone.
fn before(scale: Scale, seed: u64) -> Findings {
    let (nodes, blocks) = if scale == Scale::Quick { (500, 21_600) } else { (1_000, 201_600) };
    let draws = 20;
    let mut random = Random::new(seed);
    let homes = draw_homes(nodes, blocks, 4, &mut random);
    let (mut measured, mut theory, mut figures) = (Vec::new(), Vec::new(), Vec::new());
    for replication in [2, 3, 4] {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for percent in [0_u32, 5, 10, 20, 30, 40] {
            let (mut readable, mut whole, mut titles) = (0, 0, 0);
            for _ in 0..draws {
                let bad = draw_nodes(nodes, nodes * percent as usize / 100, &mut random);
                let is_readable = |homes: &Vec<usize>| homes.iter().take(replication).any(|home| !bad[*home]);
                for title in homes.chunks_exact(TITLE_BLOCKS) {
                    let there = title.iter().filter(|homes| is_readable(homes)).count();
                    readable += there;
                    whole += usize::from(there == title.len());
                    titles += 1;
                }
            }
            let all_gone = (f64::from(percent) / 100.0).powi(replication as i32);
            found.push((f64::from(percent), share(readable, titles * TITLE_BLOCKS)));
            expected.push((f64::from(percent), (1.0 - all_gone) * 100.0));
            if percent == 20 {
                let what = format!(
                    "20 % malicious, before liars are found, from the holders alone: blocks read, R = {replication}"
                );
                let bound = if replication == 3 { Bound::AtLeast(99.0) } else { Bound::Stated };
                let note = format!("1 - f^R: {:.2} %; malicious nodes drawn {draws} times", 100.0 * (1.0 - all_gone));
                figures.push(Figure::new(&what, (share(readable, titles * TITLE_BLOCKS), "%"), bound).with(&note));
                let what = format!(
                    "20 % malicious, before liars are found, from the holders alone: whole titles, R = {replication}"
                );
                let note = format!(
                    "{whole} of {titles} titles of 7,200 blocks; (1 - f^R)^7200: {:.2} %, if each block had holders of its own, which {} nodes do \
                     not give; until then titles are read from the node that they were uploaded to",
                    100.0 * whole_titles(1.0 - all_gone),
                    in_threes(nodes)
                );
                figures.push(Figure::new(&what, (share(whole, titles), "%"), Bound::Stated).with(&note));
            }
        }
        measured.push(Series::measured(format!("R = {replication}"), found));
        theory.push(Series::theory(format!("1 - f^{replication}"), expected));
    }
    let plot = Plot {
        name: "malicious",
        title: "Blocks that can be read when so many nodes are malicious",
        shows: "Before liars are found, if the node that a film was uploaded to kept nothing: a block is gone when all its R holders keep nothing \
                of what they took; readers get past any smaller number of them. Malicious nodes are not ingest nodes in this model: films are \
                uploaded to honest ones."
            .to_owned(),
        scenario: format!(
            "{} nodes, {} blocks on their R closest; mean of {draws} draws of the malicious nodes for each point; the replication core does not \
             run; seed {seed}.",
            in_threes(nodes),
            in_threes(blocks)
        ),
        x: Axis::linear("malicious nodes, %"),
        y: Axis::share("blocks readable, %"),
        series: measured.into_iter().chain(theory).collect(),
    };
    Findings { figures, plots: vec![plot] }
}

/// The production core among nodes that keep nothing of what was uploaded a moment ago.
fn liars(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    // As many blocks as five minutes of one processor allow; where ingest nodes keep nothing, fewer show what is lost.
    let (nodes, blocks, blocks_not_kept) =
        if scale == Scale::Quick { (100, 2_000, 2_000) } else { (200, 100_800, 8_000) };
    let mut findings = Findings::default();
    let mut series = Vec::new();
    for (replication, just_uploaded) in [(2, true), (3, true), (4, true), (3, false)] {
        let blocks = if just_uploaded { blocks } else { blocks_not_kept };
        let settings = quiet(nodes, blocks, replication, seed);
        let settings = Settings { malicious_percent: 20, just_uploaded, ..settings };
        let (samples, _) = watched("malicious nodes", &settings, HOUR, 2 * MINUTE)?;
        let all = |sample: &Sample| sample.acknowledged + sample.lost as usize;
        let whole = samples.iter().map(|sample| (minutes_of(sample), share(sample.with_all_copies, all(sample))));
        let kept = if just_uploaded { "" } else { ", ingest nodes keep nothing" };
        series.push(Series::measured(format!("R = {replication}{kept}"), whole.collect()));
        let Some((first, last)) = samples.first().zip(samples.last()) else { continue };
        let is_goal = replication == 3 && just_uploaded;
        let after = format!("20 % malicious, an hour after the upload, R = {replication}{kept}");
        let unreadable = all(last) - last.readable;
        let note = format!(
            "{} of {} cannot be read; a moment after the upload {:.2} % could be; {:.2} % have R honest copies after the hour",
            in_threes(unreadable),
            in_threes(all(last)),
            share(first.readable, all(first)),
            share(last.with_all_copies, all(last))
        );
        let bound = if is_goal { Bound::AtLeast(99.0) } else { Bound::Stated };
        let what = format!("{after}: blocks read");
        findings.figures.push(Figure::new(&what, (share(last.readable, all(last)), "%"), bound).with(&note));
        let titles = 100.0 * whole_titles(1.0 - unreadable as f64 / all(last).max(1) as f64);
        let note = titles_note(unreadable, blocks);
        findings.figures.push(Figure::new(&format!("{after}: whole titles"), (titles, "%"), bound).with(&note));
    }
    findings.plots.push(Plot {
        name: "liars",
        title: "After an upload to a network of which a fifth keeps nothing",
        shows: "Audits find the liars, and others get the blocks: from honest holders, and from the node that the film was uploaded to, which keeps \
                each block until R nodes have proved theirs. Malicious nodes are not ingest nodes in this model: films are uploaded to honest ones."
            .to_owned(),
        scenario: format!(
            "{nodes} nodes, {} blocks ({} where ingest nodes keep nothing, uploaded two minutes before); half of the liars give wrong bytes, half \
             give none; seed {seed}.",
            in_threes(blocks),
            in_threes(blocks_not_kept)
        ),
        x: Axis::linear("minutes after the upload"),
        y: Axis::share("blocks with R honest copies, %"),
        series,
    });
    Ok(findings)
}

/// The production core among more and more nodes that keep nothing of what was uploaded a moment ago.
fn shares(scale: Scale, seed: u64) -> Result<Findings, ReportError> {
    let (nodes, blocks) = if scale == Scale::Quick { (100, 1_000) } else { (200, 8_000) };
    let mut series = Vec::new();
    let mut figures = Vec::new();
    for (replication, just_uploaded) in [(2, false), (3, false), (3, true)] {
        let (mut at_once, mut after) = (Vec::new(), Vec::new());
        for percent in [0_u32, 10, 20, 30, 40] {
            let settings = quiet(nodes, blocks, replication, seed);
            let settings = Settings { malicious_percent: percent.into(), just_uploaded, ..settings };
            let (samples, _) = watched("shares of malicious nodes", &settings, HOUR, 10 * MINUTE)?;
            let Some((first, last)) = samples.first().zip(samples.last()) else { continue };
            let all = |sample: &Sample| sample.acknowledged + sample.lost as usize;
            at_once.push((f64::from(percent), share(first.readable, all(first))));
            after.push((f64::from(percent), share(last.readable, all(last))));
            if percent == 40 && just_uploaded {
                let what = format!("40 % malicious, an hour after the upload, R = {replication}: blocks read");
                figures.push(Figure::new(&what, (share(last.readable, all(last)), "%"), Bound::Stated));
            }
        }
        let kept = if just_uploaded { "ingest nodes keep copies" } else { "ingest nodes keep nothing" };
        if !just_uploaded {
            series.push(Series::measured(format!("R = {replication}, {kept}, at once"), at_once));
        }
        series.push(Series::measured(format!("R = {replication}, {kept}, an hour later"), after));
    }
    let plot = Plot {
        name: "shares",
        title: "Blocks that can be read when so many nodes keep nothing, with the replication core at work",
        shows: "What no honest node was given is lost, and nothing else: audits find the liars, and the copies that there are suffice to make                 others. As long as the node that a film was uploaded to keeps what R nodes have not proved, nothing is lost at all."
            .to_owned(),
        scenario: format!(
            "{nodes} nodes, {} blocks; half of the malicious give wrong bytes, half give none; films are uploaded to honest nodes; seed {seed}.",
            in_threes(blocks)
        ),
        x: Axis::linear("malicious nodes, %"),
        y: Axis::share("blocks readable, %"),
        series,
    };
    Ok(Findings { figures, plots: vec![plot] })
}

/// What so many blocks, of which some cannot be read, say of titles of 7,200.
fn titles_note(unreadable: usize, blocks: usize) -> String {
    if unreadable > 0 {
        return "as if each block were there by itself".to_owned();
    }
    let at_most = rule_of_three(blocks);
    let least = 100.0 * whole_titles(1.0 - at_most);
    // 1 - (1 - 3 / blocks)^7200 is 1 % then.
    let needed = 3.0 * TITLE_BLOCKS as f64 / -0.99_f64.ln() / 1e6;
    format!(
        "all {} blocks, read as titles, are there, which does not show 99 % by itself: with a confidence of 95 % up to {:.4} % of blocks may yet be \
         unreadable (rule of three), and whole are at least {least:.1} % of titles; to show 99 % takes {needed:.1} million blocks",
        in_threes(blocks),
        at_most * 100.0
    )
}

/// Searches among nodes that name each other only.
fn misled(scale: Scale, seed: u64) -> Findings {
    let (nodes, lookups) = if scale == Scale::Quick { (3_000, 500) } else { (10_000, 3_000) };
    let found = |results, percent: u32| {
        let quiet = search::Settings::quiet(nodes, lookups, results, seed);
        let settings = search::Settings { malicious_percent: percent, ..quiet };
        let report = search::run(&settings, |_| ());
        (f64::from(percent), share(report.right, report.lookups))
    };
    let series = [20, 2].map(|results| {
        let points = [0, 10, 20, 30, 40].map(|percent| found(results, percent));
        Series::measured(format!("of the {results} closest"), points.to_vec())
    });
    let plot = Plot {
        name: "misled",
        title: "Searches among nodes that name each other only",
        shows: "A search for the twenty closest, as the daemon makes it, asks many who are honest; one that ended with the two closest would often \
                end among liars.".to_owned(),
        scenario: format!(
            "{} nodes, {} searches a point; right: all closest nodes found; seed {seed}: imira-sim lookups --nodes {nodes} --lookups {lookups} \
             --results N --malicious-percent P --seed {seed}.",
            in_threes(nodes),
            in_threes(lookups)
        ),
        x: Axis::linear("malicious nodes, %"),
        y: Axis::share("searches that are right, %"),
        series: series.into(),
    };
    Findings { figures: Vec::new(), plots: vec![plot] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sample_cannot_show_is_said() {
        let note = titles_note(0, 21_600);
        assert!(
            note.contains("all 21,600 blocks")
                && note.contains("up to 0.0139 %")
                && note.contains("at least 36.8 %")
                && note.contains("2.1 million"),
            "{note}"
        );
        assert!(!titles_note(1, 21_600).contains("rule of three"));
    }
}
