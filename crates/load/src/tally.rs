//! What one thread of a storm has counted. Merged when all are done.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::attempt::{Failure, Outcome};
use crate::options::Customers;
use crate::plan::Plan;
use crate::timeline::{Timeline, add, histogram, record};

/// A server that invents a new reason for every answer must not fill the memory.
const REASONS_MAX: usize = 100;

/// An acceptance that the audit will look up.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Which purchase.
    pub(crate) n: u64,
    /// `None` where a compatible route does not name the order.
    pub(crate) order_id: Option<Box<str>>,
    pub(crate) replayed: bool,
}

/// One attempt, measured. Times count from the storm's start.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) n: u64,
    /// When it should have begun; latency counts from here.
    pub(crate) intended: Duration,
    /// When it did begin.
    pub(crate) sent: Duration,
    pub(crate) received: Duration,
    pub(crate) outcome: Outcome,
}

/// Counts and histograms of one thread.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) replayed: u64,
    /// Of those that were accepted.
    pub(crate) queued: u64,
    pub(crate) rejected: Vec<(Box<str>, u64)>,
    pub(crate) too_many_requests: u64,
    pub(crate) unavailable: u64,
    pub(crate) failures: BTreeMap<&'static str, u64>,
    pub(crate) timeline: Timeline,
    pub(crate) lateness_us: Histogram<u32>,
    pub(crate) skipped: u64,
    pub(crate) sold_out_at: Option<Duration>,
    pub(crate) last_accepted_at: Option<Duration>,
    pub(crate) last_answer_at: Duration,
    pub(crate) kept: Vec<Kept>,
    /// Purchases whose outcome only a second question can tell.
    pub(crate) unknown: Vec<u64>,
    /// Customers who were told that there is nothing left.
    pub(crate) sold_out_customers: SoldOutCustomers,
}

/// Counts distinct customers with as little memory as the kind of storm allows.
#[derive(Debug)]
pub(crate) enum SoldOutCustomers {
    /// Every purchase has its own customer, so counting is enough.
    Counted(u64),
    Distinct(HashSet<u64>),
}

impl SoldOutCustomers {
    pub(crate) fn len(&self) -> u64 {
        match self {
            SoldOutCustomers::Counted(count) => *count,
            SoldOutCustomers::Distinct(set) => set.len() as u64,
        }
    }
}

impl Tally {
    pub(crate) fn new(plan: &Plan) -> Tally {
        let counted = plan.customers == Customers::PerPurchase && plan.same_key_times == 1;
        Tally {
            requests: 0,
            accepted: 0,
            replayed: 0,
            queued: 0,
            rejected: Vec::new(),
            too_many_requests: 0,
            unavailable: 0,
            failures: BTreeMap::new(),
            timeline: Timeline::new(),
            lateness_us: histogram(),
            skipped: 0,
            sold_out_at: None,
            last_accepted_at: None,
            last_answer_at: Duration::ZERO,
            kept: Vec::new(),
            unknown: Vec::new(),
            sold_out_customers: if counted {
                SoldOutCustomers::Counted(0)
            } else {
                SoldOutCustomers::Distinct(HashSet::new())
            },
        }
    }

    /// Counts one attempt.
    pub(crate) fn record(&mut self, plan: &Plan, sample: Sample, keep: Keep) {
        self.requests += 1;
        self.last_answer_at = self.last_answer_at.max(sample.received);
        record(&mut self.lateness_us, micros(sample.sent.saturating_sub(sample.intended)));
        let interval = self.timeline.at(sample.received);
        if latency_counts(&sample.outcome) {
            record(&mut interval.latency_us, micros(sample.received.saturating_sub(sample.intended)));
        }
        match sample.outcome {
            Outcome::Accepted { order_id, replayed, queued } => {
                interval.accepted += 1;
                self.queued += u64::from(queued);
                self.accepted += 1;
                self.replayed += u64::from(replayed);
                self.last_accepted_at = self.last_accepted_at.max(Some(sample.received));
                if keep == Keep::Yes {
                    self.kept.push(Kept { n: sample.n, order_id, replayed });
                }
            }
            Outcome::Refused { status, reason, sold_out } => {
                interval.refused += 1;
                self.too_many_requests += u64::from(status == 429);
                self.unavailable += u64::from(status == 503);
                if sold_out {
                    self.sold_out_at = earliest(self.sold_out_at, Some(sample.received));
                    self.count_sold_out(plan, sample.n);
                }
                self.count_reason(reason, 1);
            }
            Outcome::Failed(failure) => {
                interval.errors += 1;
                self.unavailable += u64::from(failure == Failure::OutcomeUnknown);
                *self.failures.entry(failure.name()).or_default() += 1;
                if failure.may_have_bought() && keep == Keep::Yes {
                    self.unknown.push(sample.n);
                }
            }
        }
    }

    /// Everything that `other` counted counts here too.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.requests += other.requests;
        self.accepted += other.accepted;
        self.replayed += other.replayed;
        self.queued += other.queued;
        for (reason, count) in other.rejected {
            self.count_reason(reason, count);
        }
        self.too_many_requests += other.too_many_requests;
        self.unavailable += other.unavailable;
        for (name, count) in other.failures {
            *self.failures.entry(name).or_default() += count;
        }
        self.timeline.merge(other.timeline);
        add(&mut self.lateness_us, &other.lateness_us);
        self.skipped += other.skipped;
        self.sold_out_at = earliest(self.sold_out_at, other.sold_out_at);
        self.last_accepted_at = self.last_accepted_at.max(other.last_accepted_at);
        self.last_answer_at = self.last_answer_at.max(other.last_answer_at);
        self.kept.extend(other.kept);
        self.unknown.extend(other.unknown);
        match (&mut self.sold_out_customers, other.sold_out_customers) {
            (SoldOutCustomers::Counted(mine), theirs) => *mine += theirs.len(),
            (SoldOutCustomers::Distinct(mine), SoldOutCustomers::Distinct(theirs)) => mine.extend(theirs),
            (SoldOutCustomers::Distinct(_), SoldOutCustomers::Counted(_)) => {}
        }
    }

    fn count_sold_out(&mut self, plan: &Plan, n: u64) {
        match &mut self.sold_out_customers {
            SoldOutCustomers::Counted(count) => *count += 1,
            SoldOutCustomers::Distinct(set) => {
                set.insert(plan.template.customer_number(n));
            }
        }
    }

    fn count_reason(&mut self, reason: Box<str>, count: u64) {
        if let Some((_, total)) = self.rejected.iter_mut().find(|(known, _)| *known == reason) {
            *total += count;
        } else if self.rejected.len() < REASONS_MAX {
            self.rejected.push((reason, count));
        } else {
            self.count_other(count);
        }
    }

    fn count_other(&mut self, count: u64) {
        match self.rejected.iter_mut().find(|(known, _)| &**known == "other") {
            Some((_, total)) => *total += count,
            None => self.rejected.push(("other".into(), count)),
        }
    }
}

/// Whether answers are kept for the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Yes,
    No,
}

/// A time-out is the slowest answer there is, so it counts. A failure to connect takes microseconds, says nothing of
/// the server's speed and would flatter it.
fn latency_counts(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(Failure::Connect | Failure::Closed | Failure::Protocol))
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whole microseconds, at least 1 so that nothing falls out of a histogram's range.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::options::StormOptions;
    use crate::report::Percentiles;
    use crate::target::Target;

    fn plan() -> Plan {
        let target = Target {
            url: "http://127.0.0.1:1".to_owned(),
            host: HeaderValue::from_static("127.0.0.1:1"),
            base: String::new(),
            address: "127.0.0.1:1".parse().unwrap(),
        };
        Plan::new(&StormOptions { concurrency: Some(1), ..StormOptions::default() }, target).unwrap()
    }

    fn sample(outcome: Outcome) -> Sample {
        let ms = Duration::from_millis;
        Sample { n: 0, intended: ms(1_000), sent: ms(1_100), received: ms(1_150), outcome }
    }

    fn refusal(reason: &str) -> Outcome {
        Outcome::Refused { status: 409, reason: reason.into(), sold_out: reason == "sold-out" }
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_our_own_delay_is_kept_apart() {
        let plan = plan();
        let mut tally = Tally::new(&plan);
        tally.record(&plan, sample(refusal("sold-out")), Keep::Yes);
        let latency = Percentiles::of(&tally.timeline.total());
        assert!((149_000..151_000).contains(&latency.p50_us), "{latency:?}");
        let lateness = Percentiles::of(&tally.lateness_us);
        assert!((99_000..101_000).contains(&lateness.p50_us), "{lateness:?}");
    }

    #[test]
    fn a_time_out_counts_as_latency_and_a_refused_connection_does_not() {
        let plan = plan();
        let mut tally = Tally::new(&plan);
        tally.record(&plan, sample(Outcome::Failed(Failure::Connect)), Keep::Yes);
        assert_eq!((tally.timeline.total().len(), tally.unknown.len()), (0, 0));
        tally.record(&plan, sample(Outcome::Failed(Failure::Timeout)), Keep::Yes);
        assert_eq!((tally.timeline.total().len(), tally.unknown.len()), (1, 1));
    }

    #[test]
    fn two_tallies_merge_into_what_one_would_have_counted() {
        let plan = plan();
        let (mut one, mut other) = (Tally::new(&plan), Tally::new(&plan));
        for tally in [&mut one, &mut other] {
            tally.record(&plan, sample(refusal("sold-out")), Keep::Yes);
            let accepted = Outcome::Accepted { order_id: Some("7".into()), replayed: false, queued: true };
            tally.record(&plan, sample(accepted), Keep::Yes);
        }
        one.merge(other);
        assert_eq!((one.requests, one.accepted, one.queued, one.kept.len()), (4, 2, 2, 2));
        assert_eq!((one.rejected.len(), one.sold_out_customers.len()), (1, 2));
        assert_eq!(one.timeline.total().len(), 4);
    }

    #[test]
    fn a_flood_of_invented_reasons_is_counted_in_bounded_memory() {
        let plan = plan();
        let mut tally = Tally::new(&plan);
        for number in 0..1_000 {
            tally.record(&plan, sample(refusal(&format!("reason-{number}"))), Keep::No);
        }
        assert!(tally.rejected.len() <= REASONS_MAX + 1);
        assert_eq!(tally.rejected.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
    }
}
