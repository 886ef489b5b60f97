//! A storm with every question answered: options after the preset and the defaults, checked for contradictions.

use std::time::Duration;

use crate::attempt::RequestTemplate;
use crate::error::{OptionsProblem, StormError};
use crate::options::{Arrivals, Audit, Customers, Route, StormOptions};
use crate::schedule::Stage;
use crate::target::Target;

/// Files that the process has open besides the storm's connections.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// How the purchases come.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// Each buyer begins the next purchase when the last one is answered.
    Closed { ending: Ending, think_time: Duration },
    /// Purchases begin at instants fixed beforehand.
    Open { stages: Vec<Stage>, arrivals: Arrivals },
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Purchases(u64),
    After(Duration),
}

/// The answered questions.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) product: String,
    pub(crate) quantity: u32,
    pub(crate) route: Route,
    pub(crate) pace: Pace,
    pub(crate) customers: Customers,
    pub(crate) same_key_times: u32,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) warm_up_requests: u64,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) audit: Audit,
    pub(crate) audit_patience: Duration,
    /// For look-ups: the buyer's key or, without one, the admin's.
    pub(crate) read_key: Option<String>,
    pub(crate) template: RequestTemplate,
}

impl Plan {
    /// Answers every question of `options`, which a preset has already filled in.
    ///
    /// # Errors
    /// [`StormError::Options`] for contradictions, [`StormError::TooFewFiles`] if the process may not open that many
    /// connections.
    pub(crate) fn new(options: &StormOptions, target: Target) -> Result<Plan, StormError> {
        let problem = StormError::Options;
        let buyers = options.buyers.unwrap_or(1_000);
        let same_key_times = options.same_key_times.unwrap_or(1);
        for (value, name) in [
            (buyers, "the number of buyers"),
            (u64::from(options.quantity), "the quantity"),
            (u64::from(same_key_times), "the number of tries per key"),
            (options.requests.unwrap_or(1), "the number of requests"),
            (options.concurrency.unwrap_or(1) as u64, "the concurrency"),
            (options.threads.unwrap_or(1) as u64, "the number of threads"),
        ] {
            if value == 0 {
                return Err(problem(OptionsProblem::Zero(name)));
            }
        }
        let pace = pace(options, buyers).map_err(problem)?;
        let concurrency = concurrency(options, &pace, buyers).map_err(problem)?;
        check_open_files(concurrency)?;
        let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let route = options.route.unwrap_or_default();
        let customers = options.customers.unwrap_or_default();
        let template =
            RequestTemplate::new(options, route, &target, seed, customers, buyers).map_err(problem)?;
        Ok(Plan {
            threads: options.threads.unwrap_or_else(|| threads(&pace, concurrency)).min(concurrency),
            product: options.product.clone(),
            quantity: options.quantity,
            timeout: options.timeout,
            warm_up_requests: options.warm_up_requests.unwrap_or(concurrency as u64),
            audit: options.audit,
            audit_patience: options.audit_patience,
            read_key: options.key.clone().or_else(|| options.admin_key.clone()),
            target,
            route,
            pace,
            customers,
            same_key_times,
            concurrency,
            seed,
            template,
        })
    }

    /// Requests that the storm will send, if that is known beforehand.
    pub(crate) fn requests_expected(&self) -> Option<u64> {
        match &self.pace {
            Pace::Closed { ending: Ending::Purchases(purchases), .. } => {
                Some(purchases.saturating_mul(self.same_key_times.into()))
            }
            Pace::Closed { .. } => None,
            Pace::Open { stages, .. } => Some(stages.iter().map(Stage::arrivals).sum::<f64>() as u64),
        }
    }

    /// One line for the report's head.
    pub(crate) fn describe(&self) -> String {
        let connections = self.concurrency;
        match &self.pace {
            Pace::Closed { ending, think_time } => {
                let ending = match ending {
                    Ending::Purchases(count) => format!("{count} purchases"),
                    Ending::After(duration) => format!("purchases for {:.1} s", duration.as_secs_f64()),
                };
                let think = if think_time.is_zero() {
                    String::new()
                } else {
                    format!(", {:.0} ms of thought between two", think_time.as_secs_f64() * 1e3)
                };
                format!("closed loop, {ending} over {connections} connections{think}")
            }
            Pace::Open { stages, .. } => {
                let rates: Vec<String> = stages
                    .iter()
                    .map(|stage| {
                        let seconds = stage.duration.as_secs_f64();
                        if stage.from_per_s == stage.to_per_s {
                            format!("{}/s for {seconds} s", stage.to_per_s)
                        } else {
                            format!("to {}/s in {seconds} s", stage.to_per_s)
                        }
                    })
                    .collect();
                format!("open loop, {}, at most {connections} connections", rates.join(", "))
            }
        }
    }
}

fn pace(options: &StormOptions, buyers: u64) -> Result<Pace, OptionsProblem> {
    if !options.stages.is_empty() {
        if options.requests.is_some() || options.duration.is_some() {
            return Err(OptionsProblem::StagesAndEnding);
        }
        return Ok(Pace::Open { stages: options.stages.clone(), arrivals: options.arrivals });
    }
    let ending = match (options.requests, options.duration) {
        (Some(_), Some(_)) => return Err(OptionsProblem::TwoEndings),
        (None, Some(duration)) => Ending::After(duration),
        (requests, None) => Ending::Purchases(requests.unwrap_or(buyers)),
    };
    Ok(Pace::Closed { ending, think_time: options.think_time })
}

fn concurrency(options: &StormOptions, pace: &Pace, buyers: u64) -> Result<usize, OptionsProblem> {
    let limit = options.connections_max.max(1);
    let buyers = usize::try_from(buyers).unwrap_or(usize::MAX);
    let wanted = match (options.concurrency, pace) {
        (Some(asked), _) if asked > limit => return Err(OptionsProblem::TooManyConnections { asked, limit }),
        (Some(asked), _) => asked,
        // More buyers than connections take turns; that is a closed loop's nature and not a lie.
        (None, Pace::Closed { .. }) => buyers.min(limit),
        (None, Pace::Open { .. }) => limit,
    };
    Ok(match pace {
        Pace::Closed { ending: Ending::Purchases(purchases), .. } => {
            wanted.min(usize::try_from(*purchases).unwrap_or(usize::MAX))
        }
        _ => wanted,
    })
}

/// One thread sends some 100,000 requests a second, and on a small machine a second one takes its core from the server
/// beside it; it pays with very many connections or arrivals.
fn threads(pace: &Pace, concurrency: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let heavy = match pace {
        Pace::Closed { .. } => concurrency > 256,
        Pace::Open { stages, .. } => {
            stages.iter().any(|stage| stage.from_per_s.max(stage.to_per_s) > 5_000.0)
        }
    };
    if heavy { cores.min(2) } else { 1 }
}

fn check_open_files(connections: usize) -> Result<(), StormError> {
    let needed = connections as u64 + FILES_BESIDE_CONNECTIONS;
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < needed => Err(StormError::TooFewFiles { connections, needed, limit }),
        _ => Ok(()),
    }
}
