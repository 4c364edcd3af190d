//! How far FFmpeg is, and how long it will still take.

use std::time::Duration;

/// State of a running transcode.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// 0 to 100, never falling.
    pub percent: f64,
    /// Time until the end; `None` until enough was measured.
    pub remaining: Option<Duration>,
    /// Length of the film that is done.
    pub encoded: Duration,
}

/// Turns FFmpeg's reports into progress. Wall time is handed in, so that tests need no clock.
#[derive(Debug)]
pub(crate) struct Estimator {
    total: f64,
    done: f64,
    last: Option<(f64, f64)>,
    /// Seconds of film per second of wall time, smoothed.
    speed: Option<f64>,
}

/// Before this the start of the encoders weighs too much. Guess, checked on the trailer.
const MIN_WALL_SECONDS: f64 = 2.0;
/// Time constant of the smoothing: scenes differ in cost over some ten seconds.
const SMOOTHING_SECONDS: f64 = 15.0;
/// The end of the file is only known when FFmpeg has ended.
const MOST_PERCENT: f64 = 99.9;

impl Estimator {
    pub(crate) fn new(total: Duration) -> Self {
        Self { total: total.as_secs_f64().max(0.001), done: 0.0, last: None, speed: None }
    }

    /// Takes one report: length of film done, at `wall` seconds since the start.
    pub(crate) fn report(&mut self, done: Duration, wall: Duration) -> Progress {
        let (done, wall) = (done.as_secs_f64().max(self.done), wall.as_secs_f64());
        self.measure(done, wall);
        self.done = done;
        let left = (self.total - done).max(0.0);
        let speed = self.speed.filter(|s| wall >= MIN_WALL_SECONDS && *s > 0.0);
        Progress {
            percent: (done / self.total * 100.0).min(MOST_PERCENT),
            remaining: speed.and_then(|s| Duration::try_from_secs_f64(left / s).ok()),
            encoded: Duration::from_secs_f64(done),
        }
    }

    /// The first measurement is the mean since the first film came out; later ones move it by their share of the time constant.
    fn measure(&mut self, done: f64, wall: f64) {
        let Some((last_done, last_wall)) = self.last else {
            self.last = (done > 0.0).then_some((done, wall));
            return;
        };
        let step = wall - last_wall;
        if step <= 0.0 {
            return;
        }
        let now = (done - last_done) / step;
        let weight = 1.0 - (-step / SMOOTHING_SECONDS).exp();
        // Until one time constant has passed all measurements count alike.
        let weight = weight.max((step / wall).min(1.0));
        self.speed = Some(self.speed.map_or(now, |s| s + weight * (now - s)));
        self.last = Some((done, wall));
    }
}

/// The time in one line of `-progress`; `None` for other lines. `out_time_ms` is in microseconds too, so the honest name is read.
pub(crate) fn out_time(line: &str) -> Option<Duration> {
    let us: i64 = line.strip_prefix("out_time_us=")?.parse().ok()?;
    Some(Duration::from_micros(us.try_into().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_microseconds_are_read() {
        assert_eq!(out_time("out_time_us=1500000"), Some(Duration::from_millis(1500)));
        assert_eq!(out_time("out_time_us=-21333"), Some(Duration::ZERO));
        assert_eq!(out_time("out_time_us=N/A"), None);
        assert_eq!(out_time("out_time_ms=1500000"), None);
    }

    #[test]
    fn a_steady_encoder_is_predicted_and_a_start_is_not() {
        let mut estimator = Estimator::new(Duration::from_secs(100));
        let at =
            |e: &mut Estimator, wall: f64| e.report(Duration::from_secs_f64(wall * 2.0), Duration::from_secs_f64(wall));
        assert_eq!(at(&mut estimator, 0.0).remaining, None);
        assert_eq!(at(&mut estimator, 1.0).remaining, None);
        for wall in 2..=10 {
            at(&mut estimator, f64::from(wall));
        }
        let progress = at(&mut estimator, 20.0);
        assert_eq!(progress.percent, 40.0);
        assert!((progress.remaining.unwrap().as_secs_f64() - 30.0).abs() < 0.5);
    }

    #[test]
    fn percent_never_falls_nor_ends_early() {
        let mut estimator = Estimator::new(Duration::from_secs(10));
        estimator.report(Duration::from_secs(6), Duration::from_secs(1));
        assert_eq!(estimator.report(Duration::from_secs(5), Duration::from_secs(2)).percent, 60.0);
        assert_eq!(estimator.report(Duration::from_secs(60), Duration::from_secs(3)).percent, MOST_PERCENT);
    }
}
