//! Which frame rate the renditions get.

use crate::source::Rational;

/// Fastest rate we encode; more costs bits that few screens show.
const MAX_FPS: f64 = 60.0;
/// Slowest rate: two pictures between keyframes.
const MIN_FPS: Rational = Rational { num: 1, den: 1 };
/// For files that name no rate.
const UNKNOWN_FPS: Rational = Rational { num: 30, den: 1 };
/// Rates that cameras and broadcasters mean.
const STANDARD: &[Rational] = &[
    Rational { num: 24000, den: 1001 },
    Rational { num: 24, den: 1 },
    Rational { num: 25, den: 1 },
    Rational { num: 30000, den: 1001 },
    Rational { num: 30, den: 1 },
    Rational { num: 48, den: 1 },
    Rational { num: 50, den: 1 },
    Rational { num: 60000, den: 1001 },
    Rational { num: 60, den: 1 },
];
/// A measured rate this near to a standard one is meant to be it; 24 and 24000/1001 are 1 in 1,001 apart.
const SAME: f64 = 0.0004;

/// Chooses between the container's base rate (the finest step between pictures) and its average. A variable rate keeps its base where
/// that is a frame rate; it can also be a clock such as 90000/1, or the fields of interlaced video, two a picture.
pub(crate) fn of_stream(base: Option<Rational>, average: Option<Rational>) -> Option<Rational> {
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
    match (base, average) {
        (Some(b), Some(a)) if near(b.value(), a.value()) => Some(b),
        (Some(b), Some(a)) if near(b.value(), 2.0 * a.value()) => Some(a),
        (Some(b), _) if b.value() <= MAX_FPS => Some(b),
        (_, average) => average,
    }
}

/// The rate to encode at: the source's own where sane, a whole fraction of it above 60.
pub(crate) fn to_encode(source: Option<Rational>) -> Rational {
    let Some(fps) = source else { return UNKNOWN_FPS };
    let capped = cap(fps);
    if capped.value() < MIN_FPS.value() {
        return MIN_FPS;
    }
    nearest_standard(capped).unwrap_or_else(|| small_terms(capped))
}

/// 120 becomes 60, 90 becomes 45: every n-th picture, so that motion stays even.
fn cap(fps: Rational) -> Rational {
    let every = (fps.value() / (MAX_FPS * (1.0 + SAME))).ceil().max(1.0) as u32;
    match fps.den.checked_mul(every) {
        Some(den) => Rational { num: fps.num, den },
        None => Rational { num: MAX_FPS as u32, den: 1 },
    }
}

fn nearest_standard(fps: Rational) -> Option<Rational> {
    STANDARD.iter().copied().find(|s| (s.value() / fps.value() - 1.0).abs() < SAME)
}

/// Averages such as 243090000/8111111 make absurd timescales: thousandths are exact enough for them.
fn small_terms(fps: Rational) -> Rational {
    if fps.num <= 120_000 && fps.den <= 120_000 {
        return fps;
    }
    Rational { num: (fps.value() * 1000.0).round() as u32, den: 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(num: u32, den: u32) -> String {
        to_encode(Rational::new(num, den)).to_string()
    }

    #[test]
    fn sane_rates_stay_and_absurd_ones_are_tamed() {
        assert_eq!(encoded(24, 1), "24/1");
        assert_eq!(encoded(24000, 1001), "24000/1001");
        assert_eq!(encoded(45000, 1499), "45000/1499");
        assert_eq!(encoded(243_090_000, 8_111_111), "30000/1001");
        assert_eq!(encoded(7_777_777, 500_001), "15556/1000");
        assert_eq!(encoded(60, 1), "60/1");
        assert_eq!(encoded(120, 1), "60/1");
        assert_eq!(encoded(90, 1), "90/2");
        assert_eq!(encoded(144, 1), "48/1");
        assert_eq!(encoded(1, 10), "1/1");
        assert_eq!(to_encode(None).to_string(), "30/1");
    }

    #[test]
    fn a_clock_is_no_frame_rate() {
        let average = Rational::new(2997, 100);
        assert_eq!(of_stream(Rational::new(90_000, 1), average), average);
        assert_eq!(of_stream(Rational::new(90_000, 1), None), None);
        assert_eq!(of_stream(Rational::new(30_000, 1001), average), Rational::new(30_000, 1001));
        assert_eq!(of_stream(Rational::new(60_000, 1001), average), average);
        assert_eq!(of_stream(Rational::new(25, 1), Rational::new(71, 9)), Rational::new(25, 1));
    }
}
