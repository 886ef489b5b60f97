//! Who may ask how often: by customer and by address, in memory that does not grow with the number of either.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use yoink_core::CustomerId;

use crate::guard::address::{network_of, wide_network_of};
use crate::problem::{Problem, QUOTA_EXCEEDED};
use crate::settings::{Policy, RateLimits};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Customers or addresses that one limit remembers apart. Beyond, newcomers share [`SHARED_KEYS`] places: a flood of
/// made-up names limits itself, and memory stays bounded.
const KEYS_MAX: usize = 250_000;
const SHARED_KEYS: u64 = 16_384;
/// Each limit is kept in so many parts, of which [`Limits::forget`] looks at one: whoever forgets serves buyers too, and
/// they wait for it.
pub(crate) const PARTS: usize = 16;

/// Every limit of the edge.
#[derive(Debug)]
pub(crate) struct Limits {
    /// On every route that buys.
    general: Trio,
    /// On the compatible `/purchase`, besides.
    purchase: Trio,
}

/// One limit by customer, one by address and one by network.
#[derive(Debug)]
struct Trio {
    by_customer: Option<Limit>,
    by_address: Option<Limit>,
    by_network: Option<Limit>,
}

/// Which limits a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    General,
    Purchase,
}

impl Limits {
    /// `None` if a policy is of 0 requests or 0 seconds.
    pub(crate) fn new(settings: &RateLimits) -> Option<Self> {
        Some(Self {
            general: Trio::new(settings.per_customer, settings.per_address, settings.per_network)?,
            purchase: Trio::new(settings.purchase_compat, settings.purchase_compat, None)?,
        })
    }

    /// Whether anything is limited at all.
    pub(crate) fn is_off(&self, which: Which) -> bool {
        self.trio(which).is_off()
    }

    /// Counts one request.
    ///
    /// # Errors
    /// 429 `quota-exceeded` if it is one too many; then nothing was counted against the limit that refused, nor
    /// against the customer.
    pub(crate) fn check(&self, which: Which, customer: &CustomerId, address: IpAddr) -> Result<(), Problem> {
        let trio = self.trio(which);
        // The address first: what it may not send must not use up what its neighbours may, nor what its customer may
        // buy from elsewhere.
        if let Some(limit) = &trio.by_address {
            limit.check("address", &network_of(address))?;
        }
        if let Some(limit) = &trio.by_network {
            limit.check("network", &wide_network_of(address))?;
        }
        if let Some(limit) = &trio.by_customer {
            limit.check("customer", customer.as_str())?;
        }
        Ok(())
    }

    /// Forgets those who are below their limit, in one of [`PARTS`] parts. To be called so often that each part has its
    /// turn about once a second.
    pub(crate) fn forget(&self) {
        for trio in [&self.general, &self.purchase] {
            for limit in [&trio.by_customer, &trio.by_address, &trio.by_network].into_iter().flatten() {
                limit.forget();
            }
        }
    }

    fn trio(&self, which: Which) -> &Trio {
        match which {
            Which::General => &self.general,
            Which::Purchase => &self.purchase,
        }
    }
}

impl Trio {
    fn new(customer: Option<Policy>, address: Option<Policy>, network: Option<Policy>) -> Option<Self> {
        let limit = |policy: Option<Policy>| match policy {
            None => Some(None),
            Some(policy) => Limit::new(policy).map(Some),
        };
        let (by_customer, by_address) = (limit(customer)?, limit(address)?);
        Some(Self { by_customer, by_address, by_network: limit(network)? })
    }

    fn is_off(&self) -> bool {
        self.by_customer.is_none() && self.by_address.is_none() && self.by_network.is_none()
    }
}

#[derive(Debug)]
struct Limit {
    policy: Policy,
    /// By the rest of a hash divided by [`PARTS`].
    parts: [DefaultKeyedRateLimiter<u64>; PARTS],
    /// The part that forgets next, modulo [`PARTS`].
    next: AtomicUsize,
    clock: DefaultClock,
    /// Seeded, so that nobody can aim two names at one place.
    hasher: RandomState,
    is_full: AtomicBool,
}

impl Limit {
    fn new(policy: Policy) -> Option<Self> {
        let requests = NonZeroU32::new(policy.requests)?;
        let window = Duration::from_secs(u64::from(policy.window_s));
        let quota = Quota::with_period(window.checked_div(policy.requests)?)?.allow_burst(requests);
        Some(Self {
            policy,
            parts: std::array::from_fn(|_| RateLimiter::keyed(quota)),
            next: AtomicUsize::new(0),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            is_full: AtomicBool::new(false),
        })
    }

    fn check(&self, name: &'static str, who: &(impl Hash + ?Sized)) -> Result<(), Problem> {
        let hash = self.hasher.hash_one(who);
        let key = match self.is_full.load(Ordering::Relaxed) {
            true => hash % SHARED_KEYS,
            false => hash,
        };
        // The rest is below `PARTS`, so there always is such a part.
        let Some(part) = self.parts.get((key % PARTS as u64) as usize) else { return Ok(()) };
        part.check_key(&key)
            .map_err(|denied| too_often(name, self.policy, denied.wait_time_from(self.clock.now())))
    }

    fn keys(&self) -> usize {
        self.parts.iter().map(RateLimiter::len).sum()
    }

    fn forget(&self) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % PARTS;
        if let Some(part) = self.parts.get(next) {
            part.retain_recent();
            part.shrink_to_fit();
        }
        self.is_full.store(self.keys() > KEYS_MAX, Ordering::Relaxed);
    }
}

/// Who comes too often is told what is allowed, and after which `wait` one more is.
pub(crate) fn too_often(name: &'static str, policy: Policy, wait: Duration) -> Problem {
    let Policy { requests, window_s } = policy;
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let header = |text: String| HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    Problem::new(
        &QUOTA_EXCEEDED,
        format!("At most {requests} purchases in {window_s} seconds per {name}; nothing happened."),
    )
    .with_retry_after(seconds)
    .with_outcome("none")
    .with_header(RATE_LIMIT_POLICY, header(format!("\"{name}\";q={requests};w={window_s}")))
    .with_header(RATE_LIMIT, header(format!("\"{name}\";r=0;t={seconds}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u32, window_s: u32) -> Limits {
        Limits::new(&RateLimits {
            per_customer: Some(Policy { requests, window_s }),
            ..RateLimits::default()
        })
        .unwrap()
    }

    fn customer(name: &str) -> CustomerId {
        CustomerId::parse(name).unwrap()
    }

    #[test]
    fn one_customer_over_the_limit_leaves_the_others_alone() {
        let limits = limits(2, 3_600);
        let address = "192.0.2.1".parse().unwrap();
        let check = |name| limits.check(Which::General, &customer(name), address);
        assert!(check("ann").is_ok());
        assert!(check("ann").is_ok());
        let refused = check("ann").unwrap_err();
        let headers = refused.headers();
        let value =
            |name: &str| headers.iter().find(|(n, _)| n.as_str() == name).unwrap().1.to_str().unwrap();
        assert_eq!(value("ratelimit-policy"), "\"customer\";q=2;w=3600");
        assert_eq!(value("ratelimit"), format!("\"customer\";r=0;t={}", value("retry-after")));
        assert!(check("bob").is_ok());
    }

    #[test]
    fn what_an_address_may_not_send_does_not_count_against_the_customer() {
        let limits = Limits::new(&RateLimits {
            per_customer: Some(Policy { requests: 2, window_s: 3_600 }),
            per_address: Some(Policy { requests: 1, window_s: 3_600 }),
            ..RateLimits::default()
        })
        .unwrap();
        let check =
            |address: &str| limits.check(Which::General, &customer("ann"), address.parse().unwrap()).is_ok();
        let addresses = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(addresses.map(check), [true, false, false, true, false]);
    }

    #[test]
    fn a_flood_of_names_is_limited_together_in_bounded_memory() {
        let limits = limits(1, 3_600);
        let address = "192.0.2.1".parse().unwrap();
        let mut accepted = 0;
        for number in 0..KEYS_MAX + 1 {
            accepted +=
                usize::from(limits.check(Which::General, &customer(&number.to_string()), address).is_ok());
        }
        assert_eq!(accepted, KEYS_MAX + 1);
        limits.forget();
        let mut late = 0;
        for number in 0..200_000 {
            late += usize::from(
                limits.check(Which::General, &customer(&format!("late-{number}")), address).is_ok(),
            );
        }
        assert!(late <= SHARED_KEYS as usize, "{late} newcomers got in");
        let held = limits.general.by_customer.as_ref().unwrap().keys();
        assert!(held <= KEYS_MAX + 1 + SHARED_KEYS as usize, "{held} keys");
    }

    #[test]
    fn forgetting_looks_at_one_part_at_a_time_and_at_all_of_them_in_turn() {
        // A request is made up for within a microsecond, so everybody may be forgotten at once.
        let limits = limits(1_000_000, 1);
        let limit = limits.general.by_customer.as_ref().unwrap();
        let total = 16_000;
        for number in 0..total {
            limit.check("customer", &number).unwrap();
        }
        let mut left = vec![limit.keys()];
        for _ in 0..PARTS {
            limits.forget();
            left.push(limit.keys());
        }
        assert_eq!((left.first(), left.last()), (Some(&total), Some(&0)));
        let largest = left.windows(2).map(|pair| pair[0] - pair[1]).max().unwrap();
        assert!(largest < total / 8, "one call forgot {largest} of {total}: {left:?}");
    }

    #[test]
    fn a_policy_of_nothing_is_impossible() {
        let limits = |requests, window_s| {
            Limits::new(&RateLimits {
                per_address: Some(Policy { requests, window_s }),
                ..RateLimits::default()
            })
        };
        assert!(limits(0, 60).is_none());
        assert!(limits(5, 0).is_none());
        assert!(limits(5, 60).is_some());
    }
}
