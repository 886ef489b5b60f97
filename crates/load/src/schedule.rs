//! When buyers arrive in an open loop: stages of a rate that may rise or fall, turned into exact instants.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp1};

use crate::options::Arrivals;

/// A stretch of time in which the arrival rate goes in a straight line from one value to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long the stage lasts.
    pub duration: Duration,
    /// Arrivals per second at its beginning.
    pub from_per_s: f64,
    /// Arrivals per second at its end.
    pub to_per_s: f64,
}

impl Stage {
    /// A stage with the same rate throughout.
    #[must_use]
    pub fn steady(per_s: f64, duration: Duration) -> Stage {
        Stage { duration, from_per_s: per_s, to_per_s: per_s }
    }

    /// A stage that goes from one rate to another.
    #[must_use]
    pub fn ramp(from_per_s: f64, to_per_s: f64, duration: Duration) -> Stage {
        Stage { duration, from_per_s, to_per_s }
    }

    /// Arrivals that the whole stage stands for: the integral of its rate.
    #[must_use]
    pub fn arrivals(&self) -> f64 {
        (self.from_per_s + self.to_per_s) / 2.0 * self.duration.as_secs_f64()
    }

    /// Seconds after the stage's beginning at which `count` arrivals have happened.
    fn time_of(&self, count: f64) -> f64 {
        let slope = (self.to_per_s - self.from_per_s) / self.duration.as_secs_f64();
        // This form of the quadratic formula neither cancels digits nor divides by a slope of zero.
        let root = (self.from_per_s * self.from_per_s + 2.0 * slope * count).max(0.0).sqrt();
        let denominator = self.from_per_s + root;
        if denominator <= 0.0 { 0.0 } else { 2.0 * count / denominator }
    }
}

/// Why a text is not a list of stages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a rate: {reason}. Write 500 for a steady rate, or stages such as 50:10s,300:20s,1000:25s"
)]
pub struct StageError {
    text: String,
    reason: &'static str,
}

/// Reads `1000` (steady, for `duration`) or `50:10s,300:20s,1000:25s`: in each stage the rate goes in a straight line
/// from where it was to the stage's rate; the first stage is steady. Durations take `ms`, `s` or `m`.
///
/// # Errors
/// [`StageError`] says which part is wrong.
pub fn parse_stages(text: &str, duration: Duration) -> Result<Vec<Stage>, StageError> {
    let fail = |reason| StageError { text: text.to_owned(), reason };
    if !text.contains(':') {
        let per_s = parse_rate(text).ok_or_else(|| fail("the rate must be a number of at least 0"))?;
        return Ok(vec![Stage::steady(per_s, duration)]);
    }
    let mut stages: Vec<Stage> = Vec::new();
    for part in text.split(',') {
        let (rate, length) =
            part.split_once(':').ok_or_else(|| fail("every stage needs a rate and a duration"))?;
        let to_per_s = parse_rate(rate).ok_or_else(|| fail("the rate must be a number of at least 0"))?;
        let duration =
            parse_duration(length).ok_or_else(|| fail("the duration must look like 10s, 500ms or 2m"))?;
        let from_per_s = stages.last().map_or(to_per_s, |stage| stage.to_per_s);
        stages.push(Stage { duration, from_per_s, to_per_s });
    }
    Ok(stages)
}

fn parse_rate(text: &str) -> Option<f64> {
    let text = text.trim().trim_end_matches("/s");
    text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate >= 0.0 && *rate <= 1_000_000.0)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, seconds) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        (text.strip_suffix('m')?, 60.0)
    };
    let value = number.trim().parse::<f64>().ok()? * seconds;
    (value.is_finite() && value > 0.0 && value <= 86_400.0).then(|| Duration::from_secs_f64(value))
}

/// The instants of all arrivals, counted from the storm's start, in order. Known before the storm begins: nothing that
/// the server does can move one of them.
#[derive(Debug)]
pub struct Schedule {
    stages: Vec<Stage>,
    /// Arrivals due before the current stage.
    arrivals_before: f64,
    /// When the current stage begins.
    offset_s: f64,
    /// How many arrivals must have been due for the next one to be.
    next: f64,
    spacing: Spacing,
}

#[derive(Debug)]
enum Spacing {
    Even,
    Random(Box<StdRng>),
}

impl Schedule {
    /// The arrivals of `stages`. With [`Arrivals::Random`] the same `seed` gives the same instants.
    #[must_use]
    pub fn new(stages: &[Stage], arrivals: Arrivals, seed: u64) -> Schedule {
        let mut spacing = match arrivals {
            Arrivals::Even => Spacing::Even,
            Arrivals::Random => Spacing::Random(Box::new(StdRng::seed_from_u64(seed))),
        };
        let first = match &mut spacing {
            Spacing::Even => 0.0,
            Spacing::Random(rng) => Exp1.sample(rng.as_mut()),
        };
        // Reversed, so that the current stage is the last one and a finished one can be popped.
        let stages = stages.iter().rev().copied().filter(|stage| !stage.duration.is_zero()).collect();
        Schedule { stages, arrivals_before: 0.0, offset_s: 0.0, next: first, spacing }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // Rounding must not turn the arrival that is due at the very end of a stage into one more.
        const ROUNDING: f64 = 1e-6;
        loop {
            let stage = self.stages.last()?;
            let within = self.next - self.arrivals_before;
            if within >= stage.arrivals() - ROUNDING {
                self.arrivals_before += stage.arrivals();
                self.offset_s += stage.duration.as_secs_f64();
                self.stages.pop();
                continue;
            }
            let at = self.offset_s + stage.time_of(within.max(0.0)).min(stage.duration.as_secs_f64());
            let step: f64 = match &mut self.spacing {
                Spacing::Even => 1.0,
                Spacing::Random(rng) => Exp1.sample(rng.as_mut()),
            };
            self.next += step;
            return Some(Duration::from_secs_f64(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    #[test]
    fn a_steady_rate_is_evenly_spaced() {
        let times: Vec<_> = Schedule::new(&[Stage::steady(50.0, seconds(2.0))], Arrivals::Even, 0).collect();
        assert_eq!(times.len(), 100);
        assert_eq!(times[0], Duration::ZERO);
        assert!((times[99].as_secs_f64() - 1.98).abs() < 1e-6);
    }

    #[test]
    fn stages_are_read_from_text() {
        let stages = parse_stages("50:10s,300:500ms, 1000:1m", seconds(1.0)).unwrap();
        assert_eq!(stages[0], Stage::steady(50.0, seconds(10.0)));
        assert_eq!(stages[1], Stage::ramp(50.0, 300.0, seconds(0.5)));
        assert_eq!(stages[2], Stage::ramp(300.0, 1000.0, seconds(60.0)));
        assert_eq!(parse_stages("250/s", seconds(3.0)).unwrap(), vec![Stage::steady(250.0, seconds(3.0))]);
    }

    #[test]
    fn text_that_is_no_rate_is_refused_with_an_example() {
        for text in ["", "fast", "-3", "NaN", "50:", "50:10", "50:10s,", "50:0s", ":5s", "inf:1s"] {
            let error = parse_stages(text, seconds(1.0)).unwrap_err().to_string();
            assert!(error.contains("50:10s,300:20s"), "{text}: {error}");
        }
    }

    fn any_stages() -> impl Strategy<Value = Vec<Stage>> {
        prop::collection::vec((0.0..400.0_f64, 0.0..400.0_f64, 1_u64..3_000), 1..6).prop_map(|parts| {
            let stage = |(from, to, ms)| Stage::ramp(from, to, Duration::from_millis(ms));
            parts.into_iter().map(stage).collect()
        })
    }

    proptest! {
        #[test]
        fn the_number_of_arrivals_is_the_integral_of_the_rate_and_time_never_runs_backwards(stages in any_stages()) {
            let integral: f64 = stages.iter().map(Stage::arrivals).sum();
            let total: f64 = stages.iter().map(|stage| stage.duration.as_secs_f64()).sum();
            let times: Vec<_> = Schedule::new(&stages, Arrivals::Even, 0).collect();
            prop_assert!((times.len() as f64 - integral).abs() <= 1.0, "{} arrivals, integral {integral}", times.len());
            prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(times.iter().all(|time| time.as_secs_f64() <= total + 1e-6));
        }

        #[test]
        fn every_prefix_of_the_schedule_follows_the_integral_too(stages in any_stages(), part in 0.0..1.0_f64) {
            let total: f64 = stages.iter().map(|stage| stage.duration.as_secs_f64()).sum();
            let until = total * part;
            let mut integral = 0.0;
            let mut offset = 0.0;
            for stage in &stages {
                let length = stage.duration.as_secs_f64();
                let within = (until - offset).clamp(0.0, length);
                let slope = (stage.to_per_s - stage.from_per_s) / length;
                integral += stage.from_per_s * within + slope * within * within / 2.0;
                offset += length;
            }
            let due = Schedule::new(&stages, Arrivals::Even, 0).filter(|time| time.as_secs_f64() < until).count();
            prop_assert!((due as f64 - integral).abs() <= 1.01, "{due} due, integral {integral}");
        }

        #[test]
        fn random_arrivals_repeat_with_their_seed(seed: u64) {
            let stages = [Stage::ramp(10.0, 200.0, seconds(2.0))];
            let once: Vec<_> = Schedule::new(&stages, Arrivals::Random, seed).collect();
            let again: Vec<_> = Schedule::new(&stages, Arrivals::Random, seed).collect();
            prop_assert!(once.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert_eq!(once, again);
        }
    }
}
