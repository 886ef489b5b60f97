//! The interleaving that broke a run, taken from what the run itself wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::catalogue::Broken;
use crate::run::Outcome;
use crate::shop::{Event, EventKind};

/// Requests that are told of at most: more than a reader can follow are none.
const CAST_MAX: usize = 4;
/// Lines of events that belong to no request at most.
const BACKGROUND_MAX: usize = 8;

/// What happened to a few requests, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// What it shows, in one sentence.
    pub title: String,
    /// In the order of time.
    pub lines: Vec<TimelineLine>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineLine {
    /// Microseconds after the first line.
    pub after_us: u64,
    /// `A`, `B`, … for buyers; empty for what concerns everybody.
    pub who: String,
    /// What happened.
    pub what: String,
    /// What was seen or written.
    pub detail: String,
    /// Whether the lab did it.
    pub is_fault: bool,
}

/// The requests that are told of, and why these.
struct Cast {
    title: String,
    keys: Vec<String>,
}

/// Finds the requests that show what the audit found, and tells what they did. `None` if nothing is broken.
#[must_use]
pub fn timeline(outcome: &Outcome) -> Option<Timeline> {
    let mut cast = cast(outcome)?;
    let mut events = of_cast(&outcome.events, &cast.keys);
    cast.keys.sort_by_key(|key| events.iter().position(|event| &event.key == key));
    let (first, last) = (events.first()?.at_us, events.last()?.at_us);
    let surroundings = outcome.events.iter().filter(|event| {
        let is_near = (first..=last).contains(&event.at_us);
        is_near && !cast.keys.contains(&event.key) && (event.key.is_empty() || event.kind == EventKind::Fault)
    });
    events.extend(surroundings.take(BACKGROUND_MAX));
    events.sort_by_key(|event| event.at_us);
    let lines = events.into_iter().map(|event| TimelineLine {
        after_us: event.at_us.saturating_sub(first),
        who: letter(&cast.keys, &event.key),
        what: event.step.clone(),
        detail: event.detail.clone(),
        is_fault: event.kind == EventKind::Fault,
    });
    Some(Timeline { title: cast.title, lines: lines.collect() })
}

fn of_cast<'a>(events: &'a [Event], keys: &[String]) -> Vec<&'a Event> {
    events.iter().filter(|event| keys.contains(&event.key)).collect()
}

/// Buyers are called A, B, C … in the order in which they came.
fn letter(keys: &[String], key: &str) -> String {
    let index = keys.iter().position(|known| known == key);
    let letter = index.and_then(|index| u8::try_from(index).ok()).map(|index| char::from(b'A' + index));
    letter.map_or_else(String::new, String::from)
}

fn cast(outcome: &Outcome) -> Option<Cast> {
    let expected = outcome.entry.defect.map(|defect| defect.breaks);
    let shown = |breaks: &Broken| outcome.verdict.count(*breaks) > 0;
    let found = || outcome.verdict.findings.first().map(|finding| finding.breaks);
    match expected.filter(shown).or_else(found)? {
        Broken::Oversold => oversold(outcome),
        Broken::Stuck => stuck(outcome),
        breaks @ (Broken::Lost | Broken::Duplicated | Broken::Mismatched | Broken::Phantom) => {
            named(outcome, breaks)
        }
    }
}

/// The buyers of the unit that was sold most closely to the end, of those that were sold more than once. Where no unit was,
/// those who bought when as many were sold as there were.
fn oversold(outcome: &Outcome) -> Option<Cast> {
    let shared = shared_units(outcome).into_iter().find(|(_, keys)| keys.len() > 1);
    let Some(((unit, product), keys)) = shared else { return too_late(outcome) };
    let count = keys.len();
    let keys = at_odds(&outcome.events, unit, keys);
    let of = if outcome.books.counts.len() > 1 { format!(" of {product}") } else { String::new() };
    let mut title = match unit {
        1 => format!("The last unit{of} was sold to {count} buyers"),
        unit => format!("The unit{of} at which {unit} were left was sold to {count} buyers"),
    };
    let cast = with_hit(&outcome.events, keys);
    if cast.len() < count {
        // Writing to a string cannot fail.
        let _ = write!(title, "; {} of them", cast.len());
    }
    Some(Cast { title, keys: cast })
}

/// Who bought after as many units of the product were sold as there were, in the order of time. `None` if nobody did.
fn too_late(outcome: &Outcome) -> Option<Cast> {
    let products = products(outcome);
    let mut buyers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in outcome.events.iter().filter(|event| event.unit.is_some()) {
        let Some(product) = products.get(event.key.as_str()) else { continue };
        let buyers = buyers.entry(product).or_default();
        if !buyers.contains(&event.key.as_str()) {
            buyers.push(&event.key);
        }
    }
    let late = outcome.books.counts.iter().flat_map(|count| {
        let stocked = usize::try_from(count.stocked).unwrap_or(usize::MAX);
        buyers.get(count.product.as_str()).into_iter().flatten().skip(stocked)
    });
    let keys: Vec<String> = late.map(|key| (*key).to_owned()).collect();
    let count = keys.len();
    let title =
        format!("{count} units were sold after all that there were: where they came from, and who got them");
    (count > 0).then(|| Cast { title, keys: with_hit(&outcome.events, keys) })
}

/// As many buyers as a reader can follow. Whoever was hit by a fault comes first: that is where a unit came from that was
/// sold before, or that there never was.
fn with_hit(events: &[Event], keys: Vec<String>) -> Vec<String> {
    let hit = events.iter().find(|event| event.kind == EventKind::Fault && !event.key.is_empty());
    let mut cast: Vec<String> = hit.into_iter().map(|event| event.key.clone()).collect();
    cast.extend(keys.into_iter().filter(|key| hit.is_none_or(|hit| &hit.key != key)));
    cast.truncate(CAST_MAX);
    cast
}

/// Of those who took a unit, first those who had looked before one of them took it: the most that there are. Others may
/// have seen it because it was on the shelf again, which says nothing to a reader who is not told how it came there.
fn at_odds(events: &[Event], unit: i64, keys: Vec<String>) -> Vec<String> {
    let looked_and_took = |key: &String| {
        let own: Vec<&Event> = events.iter().filter(|event| &event.key == key).collect();
        let took = own.iter().position(|event| event.unit == Some(unit))?;
        let looked = own.get(took.saturating_sub(1))?.at_us;
        Some((looked, own.get(took)?.at_us))
    };
    let spans: Vec<(u64, u64)> = keys.iter().filter_map(looked_and_took).collect();
    if spans.len() < keys.len() {
        return keys;
    }
    let at_odds_with = |took: u64| -> Vec<bool> {
        spans.iter().map(|(looked, later)| *looked < took && took <= *later).collect()
    };
    let groups = spans.iter().map(|(_, took)| at_odds_with(*took));
    let Some(most) = groups.max_by_key(|group| group.iter().filter(|is_in| **is_in).count()) else {
        return keys;
    };
    let (group, others): (Vec<_>, Vec<_>) = keys.into_iter().zip(most).partition(|(_, is_in)| *is_in);
    group.into_iter().chain(others).map(|(key, _)| key).collect()
}

/// Who took which unit of which product, by the shop's own count, the last unit first; each with its buyers in the order of
/// time. Empty where units came back: then the count stands at the same number again, and two buyers who found it there may
/// have got two units.
#[must_use]
pub fn shared_units(outcome: &Outcome) -> BTreeMap<(i64, &str), Vec<String>> {
    let mut units: BTreeMap<(i64, &str), Vec<String>> = BTreeMap::new();
    if outcome.events.iter().any(|event| event.kind == EventKind::GivesBack) {
        return units;
    }
    let products = products(outcome);
    for event in &outcome.events {
        let (Some(unit), Some(product)) = (event.unit, products.get(event.key.as_str())) else { continue };
        let keys = units.entry((unit, *product)).or_default();
        if !keys.contains(&event.key) {
            keys.push(event.key.clone());
        }
    }
    units
}

/// What each request with a live order has bought.
fn products(outcome: &Outcome) -> BTreeMap<&str, &str> {
    let live = outcome.books.orders.iter().filter(|order| order.is_live && order.quantity > 0);
    live.map(|order| (order.key.as_str(), order.product.as_str())).collect()
}

/// Requests that took a unit of which no order tells.
fn stuck(outcome: &Outcome) -> Option<Cast> {
    let booked: BTreeSet<&str> = outcome.books.orders.iter().map(|order| order.key.as_str()).collect();
    let mut keys: Vec<String> = Vec::new();
    for event in outcome.events.iter().filter(|event| event.unit.is_some()) {
        if !booked.contains(event.key.as_str()) && !keys.contains(&event.key) {
            keys.push(event.key.clone());
        }
    }
    let title = format!("{} units were taken for which there is no order; one of them", keys.len());
    keys.truncate(1);
    (!keys.is_empty()).then_some(Cast { title, keys })
}

/// A request that the finding itself names: one whose own steps were written down.
fn named(outcome: &Outcome, breaks: Broken) -> Option<Cast> {
    let finding = outcome.verdict.findings.iter().find(|finding| finding.breaks == breaks)?;
    let steps = |key: &String| outcome.events.iter().filter(|event| &event.key == key).count();
    let key = finding.keys.iter().max_by_key(|key| steps(key))?;
    let title = match breaks {
        Broken::Lost => format!("{}: one of them", finding.says),
        _ => format!("{}; one of them", finding.says),
    };
    Some(Cast { title, keys: vec![key.clone()] })
}

impl TimelineLine {
    /// Milliseconds after the first line, with three decimals.
    #[must_use]
    pub fn after_ms(&self) -> String {
        format!("{:.3}", self.after_us as f64 / 1_000.0)
    }

    /// Who did it, for people.
    #[must_use]
    pub fn who_in_words(&self) -> String {
        match (self.who.is_empty(), self.is_fault) {
            (false, _) => format!("buyer {}", self.who),
            (true, true) => "the lab".to_owned(),
            (true, false) => "the shop".to_owned(),
        }
    }
}

impl Timeline {
    /// As JSON: `title`, and `lines` with `after_us, who, what, detail, is_fault`.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = |line: &TimelineLine| {
            json!({
                "after_us": line.after_us,
                "who": line.who_in_words(),
                "what": line.what,
                "detail": line.detail,
                "is_fault": line.is_fault,
            })
        };
        json!({"title": self.title, "lines": self.lines.iter().map(line).collect::<Vec<_>>()})
    }

    /// As text: a line an event, with the buyers as columns.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}:\n\n", self.title);
        let whats = self.lines.iter().map(|line| line.what.chars().count());
        let width = whats.max().unwrap_or(0).min(60);
        for line in &self.lines {
            let (after_ms, who) = (line.after_ms(), line.who_in_words());
            // Writing to a string cannot fail.
            let line = format!("{after_ms:>10} ms  {who:8} {:width$}  {}", line.what, line.detail);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Told, judge};
    use crate::books::{BookedOrder, Books, Count};
    use crate::catalogue;
    use crate::crowd::Answers;

    fn event(at_us: u64, key: &str, step: &str, unit: Option<i64>) -> Event {
        Event { at_us, key: key.to_owned(), step: step.to_owned(), unit, ..Event::default() }
    }

    fn told(keys: &[&str]) -> Vec<Told> {
        keys.iter().map(|key| Told { key: (*key).to_owned(), ..Told::default() }).collect()
    }

    /// A run of the naive strategy in which `orders` were written for one unit.
    fn outcome(orders: &[&str], events: Vec<Event>) -> Outcome {
        let order = |key: &&str| BookedOrder {
            id: format!("order of {key}"),
            key: (*key).to_owned(),
            customer: format!("customer of {key}"),
            product: "p".to_owned(),
            quantity: 1,
            is_live: true,
        };
        let counts = vec![Count { product: "p".to_owned(), stocked: 1, available: 0 }];
        let books = Books { counts, orders: orders.iter().map(order).collect() };
        let verdict = judge(&books, &told(orders));
        let entry = catalogue::find("naive").unwrap();
        Outcome { entry, verdict, answers: Answers::default(), events, books, memory_mib: None, took_s: 0.0 }
    }

    #[test]
    fn the_buyers_of_one_unit_are_told_of_in_the_order_of_time() {
        let events = vec![
            event(10, "late", "asks", None),
            event(20, "early", "asks", None),
            event(30, "other", "asks", None),
            Event { kind: EventKind::Fault, ..event(35, "", "PostgreSQL is shut down", None) },
            event(40, "early", "writes the stock", Some(1)),
            event(50, "late", "writes the stock", Some(1)),
            Event { kind: EventKind::Fault, ..event(99, "", "much later", None) },
        ];
        let timeline = timeline(&outcome(&["early", "late"], events)).unwrap();
        assert_eq!(timeline.title, "The last unit was sold to 2 buyers");
        let told: Vec<(u64, &str, &str)> = timeline
            .lines
            .iter()
            .map(|line| (line.after_us, line.who.as_str(), line.what.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (0, "A", "asks"),
                (10, "B", "asks"),
                (25, "", "PostgreSQL is shut down"),
                (30, "B", "writes the stock"),
                (40, "A", "writes the stock"),
            ]
        );
        assert!(timeline.text().contains("buyer A  writes the stock"), "{}", timeline.text());
    }

    #[test]
    fn those_who_looked_before_one_of_them_took_the_unit_are_told_of_first() {
        let mut events = Vec::new();
        // The first took it and was done; somebody put it back; six others looked before any of them took it.
        for (place, key) in (0..).zip(["first", "b", "c", "d", "e", "f", "g"]) {
            let (looks, takes) = if place == 0 { (1, 2) } else { (100 + place, 200 + place) };
            events.push(event(looks, key, "looks", None));
            events.push(event(takes, key, "takes", Some(1)));
        }
        events.sort_by_key(|event| event.at_us);
        let timeline = timeline(&outcome(&["first", "b", "c", "d", "e", "f", "g"], events)).unwrap();
        assert_eq!(timeline.title, "The last unit was sold to 7 buyers; 4 of them");
        let steps: Vec<&str> = timeline.lines.iter().map(|line| line.what.as_str()).collect();
        assert_eq!(steps, ["looks", "looks", "looks", "looks", "takes", "takes", "takes", "takes"]);
    }

    #[test]
    fn whoever_was_hit_by_a_fault_is_told_of_too() {
        let events = vec![
            event(10, "hit", "takes the unit", Some(1)),
            Event { kind: EventKind::Fault, ..event(20, "hit", "the answer is lost", None) },
            event(30, "hit", "gives it back", None),
            event(40, "a", "takes the unit", Some(1)),
            event(50, "b", "takes the unit", Some(1)),
        ];
        let timeline = timeline(&outcome(&["a", "b"], events)).unwrap();
        assert_eq!(timeline.lines.len(), 5);
        assert_eq!(timeline.lines[1].who_in_words(), "buyer A");
    }

    #[test]
    fn a_run_without_a_finding_has_no_story() {
        let events = vec![event(10, "a", "takes", Some(1))];
        assert_eq!(timeline(&outcome(&["a"], events)), None);
    }

    #[test]
    fn two_orders_of_one_request_are_told_of_once() {
        let mut outcome =
            outcome(&["a", "a"], vec![event(10, "a", "asks", None), event(20, "b", "asks", None)]);
        outcome.books.counts[0].stocked = 2;
        outcome.verdict = judge(&outcome.books, &told(&["a", "b"]));
        let timeline = timeline(&outcome).unwrap();
        assert_eq!(timeline.lines.len(), 1);
        assert!(timeline.title.contains("had one already"), "{}", timeline.title);
    }

    #[test]
    fn units_are_counted_once_for_each_buyer() {
        let events = vec![
            event(1, "a", "takes", Some(2)),
            event(2, "a", "takes", Some(2)),
            event(3, "b", "takes", Some(2)),
            event(4, "nobody", "takes", Some(1)),
        ];
        let outcome = outcome(&["a", "b"], events);
        let units = shared_units(&outcome);
        assert_eq!(units.into_iter().collect::<Vec<_>>(), [((2, "p"), vec!["a".to_owned(), "b".to_owned()])]);
    }

    /// Two units on the shelf, one of them added by somebody's request, and three buyers who each got another.
    fn with_more_than_stocked(first: Event) -> Outcome {
        let takes = [(20, "a", 3), (30, "b", 2), (40, "c", 1)];
        let mut events = vec![first];
        events.extend(takes.map(|(at_us, key, unit)| event(at_us, key, "takes", Some(unit))));
        let mut outcome = outcome(&["a", "b", "c"], events);
        outcome.books.counts[0].stocked = 2;
        outcome.verdict = judge(&outcome.books, &told(&["a", "b", "c"]));
        outcome
    }

    #[test]
    fn where_no_unit_is_shared_those_who_came_after_the_last_are_told_of_and_the_request_that_was_at_fault() {
        let hostile = Event { kind: EventKind::Fault, ..event(10, "x", "asks for -1 units", None) };
        let timeline = timeline(&with_more_than_stocked(hostile)).unwrap();
        assert!(
            timeline.title.starts_with("1 units were sold after all that there were"),
            "{}",
            timeline.title
        );
        let told: Vec<(&str, &str)> =
            timeline.lines.iter().map(|line| (line.who.as_str(), line.what.as_str())).collect();
        assert_eq!(told, [("A", "asks for -1 units"), ("B", "takes")]);
        assert_eq!(timeline.lines[1].after_us, 30, "the third buyer of two units");
    }

    #[test]
    fn where_units_come_back_none_counts_as_shared() {
        let back = Event { kind: EventKind::GivesBack, ..event(25, "gone", "gives back", None) };
        let mut outcome = with_more_than_stocked(back);
        for event in &mut outcome.events {
            event.unit = event.unit.map(|_| 1);
        }
        assert!(shared_units(&outcome).is_empty());
        let timeline = timeline(&outcome).unwrap();
        assert!(timeline.title.contains("after all that there were"), "{}", timeline.title);
    }

    #[test]
    fn units_of_two_products_are_not_the_same() {
        let events = vec![event(1, "a", "takes", Some(1)), event(2, "b", "takes", Some(1))];
        let mut outcome = outcome(&["a", "b"], events);
        assert_eq!(shared_units(&outcome).len(), 1);
        outcome.books.orders[1].product = "q".to_owned();
        let units = shared_units(&outcome);
        let shared: Vec<((i64, &str), usize)> =
            units.iter().map(|(unit, keys)| (*unit, keys.len())).collect();
        assert_eq!(shared, [((1, "p"), 1), ((1, "q"), 1)]);
    }
}
