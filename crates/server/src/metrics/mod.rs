//! What the edge counts: per core, in arrays of atomics that only that core writes, merged when somebody scrapes.

mod collector;
mod process;
mod rabbit;
mod redis;
mod text;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use utoipa::openapi::{HttpMethod, OpenApi};

pub(crate) use collector::oldest_undelivered_seconds;
pub(crate) use text::{Format, render};

/// Upper bounds of request durations, in seconds.
pub(crate) const DURATION_BOUNDS_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Every status that the edge sends; the last stands for any other.
const STATUSES: [u16; 25] = [
    200, 201, 202, 204, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 416, 422, 429,
    431, 500, 503, 0,
];

/// A bucket per bound, one above them all, and the sum in microseconds.
const CELLS: usize = DURATION_BOUNDS_SECONDS.len() + 2;

/// A method and a route template, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

impl Slot {
    /// A path that matched nothing, or a request that did not get as far as a route.
    pub(crate) const UNMATCHED: Self = Self(0);
}

/// Every method and route template that the document knows: a closed set, so that no client can make up labels.
#[derive(Debug)]
pub(crate) struct RouteTable {
    /// Method and template by slot.
    labels: Vec<(&'static str, String)>,
    slots: HashMap<(&'static str, String), Slot>,
    purchase: Slot,
}

/// Methods that no route has.
const OTHER: &str = "OTHER";

impl RouteTable {
    pub(crate) fn new(document: &OpenApi) -> Self {
        let mut labels = vec![(OTHER, "unmatched".to_owned())];
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (HttpMethod::Get, &item.get),
                (HttpMethod::Post, &item.post),
                (HttpMethod::Patch, &item.patch),
                (HttpMethod::Put, &item.put),
                (HttpMethod::Delete, &item.delete),
            ] {
                if operation.is_some() {
                    labels.push((name_of(&method), path.clone()));
                }
            }
            labels.push((OTHER, path.clone()));
        }
        labels.push(("GET", "/docs/{*rest}".to_owned()));
        let slots: HashMap<_, _> =
            labels.iter().cloned().enumerate().map(|(number, label)| (label, Slot(number))).collect();
        let purchase = slots.get(&("POST", "/v1/orders".to_owned())).copied().unwrap_or(Slot::UNMATCHED);
        Self { labels, slots, purchase }
    }

    /// `POST /v1/orders`.
    pub(crate) fn purchase(&self) -> Slot {
        self.purchase
    }

    /// Where to count an answer of the router; `None` is a path that matched nothing.
    pub(crate) fn slot(&self, method: &Method, template: Option<&str>) -> Slot {
        let Some(template) = template else {
            return Slot::UNMATCHED;
        };
        // axum answers HEAD with the route of GET.
        let name = match *method {
            Method::GET | Method::HEAD => "GET",
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => OTHER,
        };
        let find = |name| self.slots.get(&(name, template.to_owned())).copied();
        find(name).or_else(|| find(OTHER)).unwrap_or(Slot::UNMATCHED)
    }

    /// Method and route.
    pub(crate) fn labels(&self, slot: Slot) -> (&'static str, &str) {
        self.labels.get(slot.0).map_or((OTHER, "unmatched"), |(method, route)| (method, route))
    }
}

fn name_of(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Put => "PUT",
        HttpMethod::Delete => "DELETE",
        _ => OTHER,
    }
}

/// The counters of one core.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Slot × status × cell.
    durations: Vec<AtomicU64>,
    queued: AtomicU64,
    rejected: AtomicU64,
    bad_request: AtomicU64,
}

/// One more. Only one thread writes, so a load and a store will do.
fn raise(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn new(table: &RouteTable) -> Self {
        let cells = table.labels.len() * STATUSES.len() * CELLS;
        Self {
            durations: std::iter::repeat_with(AtomicU64::default).take(cells).collect(),
            queued: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            bad_request: AtomicU64::new(0),
        }
    }

    /// An answer was given.
    pub(crate) fn observe(&self, slot: Slot, status: StatusCode, elapsed: Duration) {
        let status =
            STATUSES.binary_search_by(|known| compare(*known, status.as_u16())).unwrap_or(STATUSES.len() - 1);
        let start = (slot.0 * STATUSES.len() + status) * CELLS;
        let seconds = elapsed.as_secs_f64();
        let bucket = DURATION_BOUNDS_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(count) = self.durations.get(start + bucket) {
            raise(count, 1);
        }
        if let Some(sum) = self.durations.get(start + CELLS - 1) {
            raise(sum, u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// A purchase was accepted, or had been before.
    pub(crate) fn count_queued(&self) {
        raise(&self.queued, 1);
    }

    /// A purchase was answered with this status instead.
    pub(crate) fn count_refusal(&self, status: StatusCode) {
        match status {
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::TOO_MANY_REQUESTS => {
                raise(&self.rejected, 1);
            }
            status if status.is_client_error() => raise(&self.bad_request, 1),
            _ => {}
        }
    }
}

/// The order of [`STATUSES`]: ascending, with the 0 for "any other" last.
fn compare(known: u16, wanted: u16) -> std::cmp::Ordering {
    match known {
        0 => std::cmp::Ordering::Greater,
        known => known.cmp(&wanted),
    }
}

/// The counters of all cores together.
#[derive(Debug)]
struct Merged {
    durations: Vec<u64>,
    queued: u64,
    rejected: u64,
    bad_request: u64,
}

/// The durations of one method, route and status.
struct Durations<'a> {
    method: &'static str,
    route: &'a str,
    status: u16,
    sum_seconds: f64,
    /// Upper bound and count; not cumulative.
    buckets: Vec<(f64, u64)>,
}

impl Merged {
    fn of<'a>(cores: impl Iterator<Item = &'a Counters>, table: &RouteTable) -> Self {
        let mut merged = Self {
            durations: vec![0; table.labels.len() * STATUSES.len() * CELLS],
            queued: 0,
            rejected: 0,
            bad_request: 0,
        };
        for core in cores {
            for (sum, cell) in merged.durations.iter_mut().zip(&core.durations) {
                *sum += cell.load(Ordering::Relaxed);
            }
            merged.queued += core.queued.load(Ordering::Relaxed);
            merged.rejected += core.rejected.load(Ordering::Relaxed);
            merged.bad_request += core.bad_request.load(Ordering::Relaxed);
        }
        merged
    }

    /// Every series that was ever used, and for each route the one of its ordinary answer, which starts at 0.
    fn durations<'a>(&'a self, table: &'a RouteTable) -> impl Iterator<Item = Durations<'a>> {
        self.durations.chunks_exact(CELLS).enumerate().filter_map(|(place, cells)| {
            let (method, route) = table.labels(Slot(place / STATUSES.len()));
            let status = STATUSES.get(place % STATUSES.len()).copied()?;
            let (sum_us, counts) = cells.split_last()?;
            let count = counts.iter().sum::<u64>();
            if count == 0 && status != usual_status(method, route) {
                return None;
            }
            let bounds = DURATION_BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
            Some(Durations {
                method,
                route,
                status,
                // Whole microseconds below 2^53 are exact.
                sum_seconds: *sum_us as f64 / 1e6,
                buckets: bounds.zip(counts.iter().copied()).collect(),
            })
        })
    }
}

fn usual_status(method: &str, route: &str) -> u16 {
    match (method, route) {
        (_, "unmatched") => 404,
        (OTHER, _) => 405,
        ("POST", "/v1/orders" | "/orders" | "/buy") => 202,
        ("POST", "/v1/admin/products") => 201,
        _ => 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lands_in_its_series_and_nowhere_else() {
        let table = RouteTable {
            labels: vec![(OTHER, "unmatched".into()), ("GET", "/a".into())],
            slots: HashMap::from([(("GET", "/a".to_owned()), Slot(1))]),
            purchase: Slot::UNMATCHED,
        };
        let (first, second) = (Counters::new(&table), Counters::new(&table));
        let slot = table.slot(&Method::HEAD, Some("/a"));
        first.observe(slot, StatusCode::CONFLICT, Duration::from_micros(300));
        second.observe(slot, StatusCode::CONFLICT, Duration::from_secs(60));
        second.observe(slot, StatusCode::IM_A_TEAPOT, Duration::ZERO);
        let merged = Merged::of([&first, &second].into_iter(), &table);
        let count = |series: &Durations<'_>| series.buckets.iter().map(|(_, count)| count).sum::<u64>();
        let used: Vec<_> = merged
            .durations(&table)
            .filter(|series| count(series) > 0)
            .map(|series| (series.route.to_owned(), series.status, count(&series)))
            .collect();
        assert_eq!(used, [("/a".to_owned(), 409, 2), ("/a".to_owned(), 0, 1)]);
        let conflict = merged.durations(&table).find(|series| series.status == 409).unwrap();
        assert_eq!(conflict.buckets[1], (0.000_5, 1));
        assert_eq!(conflict.buckets[14], (f64::INFINITY, 1));
        assert!((conflict.sum_seconds - 60.0003).abs() < 1e-9);
    }

    #[test]
    fn statuses_are_ascending_so_that_they_are_found() {
        for (place, status) in STATUSES.iter().enumerate().take(STATUSES.len() - 1) {
            assert_eq!(STATUSES.binary_search_by(|known| compare(*known, *status)), Ok(place));
        }
    }
}
