//! Storms that the older systems shipped, each with what it expects.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::options::{Customers, Route, StormOptions};
use crate::report::StormReport;
use crate::schedule::Stage;

/// Units that the `stress` preset puts on sale when it can create its own product.
const STRESS_UNITS: u64 = 100;
/// Units that `anti-bot` and `idempotency` put on sale at least, so that nothing they show is hidden by a sell-out.
const ENOUGH_UNITS: u64 = 1_000;
/// Purchases a minute that `POST /purchase` lets one customer make.
const PURCHASES_A_MINUTE: u64 = 5;

/// A storm with a name and expectations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Arrivals rise from 50 over 300 to 1,000 a second within 55 seconds: 10 s at 50, 10 s up to 300, 10 s at 300,
    /// 10 s up to 1,000, 15 s at 1,000. Nobody may be left without an answer.
    Spike,
    /// 200 buyers, 100 units: exactly 100 are accepted and 100 refused.
    Stress,
    /// One customer hammers `POST /purchase`: after five in a minute there is only 429.
    AntiBot,
    /// The same key twice: one order, and the second answer says that it is a replay.
    Idempotency,
    /// 20 buyers at once.
    Twenty,
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 5] =
        [Preset::Spike, Preset::Stress, Preset::AntiBot, Preset::Idempotency, Preset::Twenty];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Preset::Spike => "spike",
            Preset::Stress => "stress",
            Preset::AntiBot => "anti-bot",
            Preset::Idempotency => "idempotency",
            Preset::Twenty => "twenty",
        }
    }

    /// Fills in what `options` leaves open.
    pub(crate) fn fill(self, options: &mut StormOptions) {
        match self {
            Preset::Spike => {
                if options.stages.is_empty() && options.requests.is_none() && options.duration.is_none() {
                    options.stages = spike_stages();
                }
            }
            Preset::Stress => {
                options.buyers.get_or_insert(2 * STRESS_UNITS);
            }
            Preset::AntiBot => {
                options.buyers.get_or_insert(20);
                options.customers.get_or_insert(Customers::One);
                options.route.get_or_insert(Route::CompatPurchase);
                options.concurrency.get_or_insert(1);
            }
            Preset::Idempotency => {
                options.buyers.get_or_insert(1);
                options.same_key_times.get_or_insert(2);
            }
            Preset::Twenty => {
                options.buyers.get_or_insert(20);
            }
        }
    }

    /// Units of the product that the storm creates for itself if it can; `None` if the preset takes what is there.
    pub(crate) fn own_units(self, options: &StormOptions) -> Option<u64> {
        let purchases = match self {
            Preset::Stress => STRESS_UNITS,
            Preset::AntiBot | Preset::Idempotency => {
                options.requests.or(options.buyers).unwrap_or(0).max(ENOUGH_UNITS)
            }
            Preset::Spike | Preset::Twenty => return None,
        };
        Some(purchases.saturating_mul(options.quantity.into()))
    }

    /// Holds the report against the preset's expectations. `available` is what the product had before.
    pub(crate) fn checks(self, report: &StormReport, available: Option<u64>) -> Vec<Check> {
        match self {
            Preset::Spike => spike(report),
            Preset::Stress => sells_out(report, available),
            Preset::AntiBot => anti_bot(report),
            Preset::Idempotency => idempotency(report),
            Preset::Twenty => {
                let mut checks = vec![answered(report)];
                checks.extend(sells_out(report, available));
                checks
            }
        }
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Preset, UnknownPreset> {
        let found = Preset::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| UnknownPreset { name: text.to_owned() })
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// There is no preset of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset {name:?}; there are spike, stress, anti-bot, idempotency, twenty")]
pub struct UnknownPreset {
    name: String,
}

/// One expectation and whether it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is expected, as a sentence.
    pub name: String,
    /// Whether it was met.
    pub ok: bool,
    /// The figures.
    pub detail: String,
}

fn check(name: impl Into<String>, ok: bool, detail: String) -> Check {
    Check { name: name.into(), ok, detail }
}

fn spike_stages() -> Vec<Stage> {
    let seconds = Duration::from_secs;
    vec![
        Stage::steady(50.0, seconds(10)),
        Stage::ramp(50.0, 300.0, seconds(10)),
        Stage::steady(300.0, seconds(10)),
        Stage::ramp(300.0, 1_000.0, seconds(10)),
        Stage::steady(1_000.0, seconds(15)),
    ]
}

fn answered(report: &StormReport) -> Check {
    check(
        "everybody gets a yes or a no",
        report.errors() == 0 && report.requests > 0,
        format!("{} requests, {} errors", report.requests, report.errors()),
    )
}

fn spike(report: &StormReport) -> Vec<Check> {
    vec![
        answered(report),
        check(
            "every arrival finds a connection",
            report.skipped == 0,
            format!("{} arrivals skipped", report.skipped),
        ),
    ]
}

fn sells_out(report: &StormReport, available: Option<u64>) -> Vec<Check> {
    let Some(available) = available else {
        return vec![check("the stock before is known", false, "the storm ran without its audit".to_owned())];
    };
    let bought = report.orders_given();
    let buyers = report.requests;
    let denied = report.sold_out_refusals + report.audit.as_ref().map_or(0, |audit| audit.orders.rejected);
    let units = available / u64::from(report.quantity.max(1));
    let expected = buyers.min(units);
    vec![
        check(
            format!("exactly {expected} of {buyers} buyers get one"),
            bought == expected && buyers > 0,
            format!("{bought} accepted"),
        ),
        check(
            format!("exactly {} are refused", buyers - expected),
            denied == buyers - expected,
            format!("{denied} were told that it is sold out"),
        ),
    ]
}

fn anti_bot(report: &StormReport) -> Vec<Check> {
    let passed = report.requests.saturating_sub(report.too_many_requests + report.errors());
    vec![
        answered(report),
        check(
            format!("no more than {PURCHASES_A_MINUTE} purchases a minute pass"),
            passed <= PURCHASES_A_MINUTE,
            format!("{passed} of {} passed", report.requests),
        ),
        check(
            "all others are answered 429",
            report.too_many_requests > 0 && report.too_many_requests + passed == report.requests,
            format!("{} answered 429", report.too_many_requests),
        ),
    ]
}

fn idempotency(report: &StormReport) -> Vec<Check> {
    let keys = report.requests / u64::from(report.same_key_times.max(1));
    vec![
        check(
            "every try is accepted",
            report.accepted == report.requests && report.requests > 0,
            format!("{} of {} accepted", report.accepted, report.requests),
        ),
        check(
            "one key gives one order",
            report.distinct_orders == Some(keys),
            format!("{} orders for {keys} keys", report.distinct_orders.unwrap_or(0)),
        ),
        check(
            "every further answer says Idempotent-Replayed: true",
            report.replayed == report.requests - keys,
            format!("{} of {} further answers say so", report.replayed, report.requests - keys),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_found_by_its_name_and_others_are_named_in_the_error() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse(), Ok(preset));
            let error = "tsunami".parse::<Preset>().unwrap_err().to_string();
            assert!(error.contains(preset.name()), "{error}");
        }
    }

    #[test]
    fn the_spike_lasts_55_seconds_and_passes_through_its_three_rates() {
        let stages = spike_stages();
        assert_eq!(stages.iter().map(|stage| stage.duration.as_secs()).sum::<u64>(), 55);
        for rate in [50.0, 300.0, 1_000.0] {
            assert!(stages.iter().any(|stage| stage.from_per_s == rate && stage.to_per_s == rate), "{rate}");
        }
    }

    #[test]
    fn what_the_user_gives_is_not_overwritten() {
        let mut options = StormOptions { buyers: Some(7), ..StormOptions::default() };
        Preset::Stress.fill(&mut options);
        assert_eq!(options.buyers, Some(7));
    }
}
