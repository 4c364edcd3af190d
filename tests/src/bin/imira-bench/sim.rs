//! The simulated network: the figures of `imira-sim report`, against their goals.

use anyhow::Result;
use imira_sim::report::{Bound, Scale, figures};

use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};

pub(crate) const SUITE: Suite = Suite { name: "sim", steps: &[Step { what: "networks, simulated", run }] };

/// Any: the figures of a seed are the same on every machine.
const SEED: u64 = 1;

fn run(context: &Context) -> Result<Vec<Row>> {
    let scale = if context.quick { Scale::Quick } else { Scale::Full };
    let figures = figures(scale, SEED, |what, done, of| context.progress.at(format!("{what}, {done} of {of}")))?;
    let row = |figure: &imira_sim::report::Figure| {
        let ours = (figure.value, figure.unit);
        match figure.bound {
            Bound::AtMost(most) => Row::absolute(&figure.what, ours, Goal::FigureAtMost(most)),
            Bound::AtLeast(least) => Row::absolute(&figure.what, ours, Goal::FigureAtLeast(least)),
            Bound::Stated => Row::absolute(&figure.what, ours, Goal::None),
        }
        .with_note(&figure.note)
    };
    Ok(figures.iter().map(row).collect())
}
