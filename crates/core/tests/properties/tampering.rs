//! A log that somebody, or a failing disk, changed is noticed: by `check` before it is applied, and by the audit.

use yoink_core::audit::{Audit, Report};
use yoink_core::{Event, Fact, Inconsistency, Inventory, Money, OrderAccepted, OrderId, StockAdjustment};

use crate::generator::{Random, seed};
use crate::shop::Shop;

const LOGS: usize = 60;
const COMMANDS_PER_LOG: usize = 400;

/// What `check` says to the first event that it does not let pass.
fn checked(log: &[Event]) -> Result<(), Inconsistency> {
    let mut inventory = Inventory::new();
    for event in log {
        inventory.check(event)?;
        inventory.apply(event);
    }
    Ok(())
}

fn audited(log: &[Event]) -> Report {
    let mut audit = Audit::new();
    for event in log {
        audit.observe(event);
    }
    audit.report()
}

/// Puts `fact` behind the event at `index` and numbers the rest anew, as somebody would who knows the format.
fn insert(log: &mut Vec<Event>, index: usize, fact: Fact) {
    let event = Event { fact, ..log[index].clone() };
    log.insert(index + 1, event);
    for (seq, event) in (1..).zip(log) {
        event.seq = seq;
    }
}

/// A position of a fact that `is_it`, if there is one.
fn pick(log: &[Event], random: &mut Random, is_it: impl Fn(&Fact) -> bool) -> Option<usize> {
    let positions: Vec<usize> = (0..log.len()).filter(|index| is_it(&log[*index].fact)).collect();
    match positions.is_empty() {
        true => None,
        false => Some(positions[random.below(positions.len())]),
    }
}

/// Runs `tamper` on many logs; it answers `None` where a log holds nothing for it. Both readers must notice.
fn assert_noticed(tamper: impl Fn(&mut Vec<Event>, &mut Random) -> Option<()>) {
    assert_audited(|log, random| {
        tamper(log, random)?;
        assert!(checked(log).is_err(), "check let a tampered log pass");
        Some(())
    });
}

/// As [`assert_noticed`], for what `check` need not see: prices and limits as of then are the audit's.
fn assert_audited(tamper: impl Fn(&mut Vec<Event>, &mut Random) -> Option<()>) {
    let seed = seed();
    eprintln!("to repeat: YOINK_SEED={seed}");
    let mut random = Random(seed);
    let mut tampered = 0;
    for _ in 0..LOGS {
        let mut shop = Shop::default();
        for _ in 0..COMMANDS_PER_LOG {
            shop.play(&random.roll());
        }
        assert_eq!(checked(&shop.log), Ok(()));
        assert!(audited(&shop.log).is_clean());
        if tamper(&mut shop.log, &mut random).is_some() {
            tampered += 1;
            assert!(!audited(&shop.log).is_clean(), "the audit let a tampered log pass");
        }
    }
    assert!(tampered >= LOGS / 2, "only {tampered} logs could be tampered with");
}

fn accepted(fact: &Fact) -> Option<&OrderAccepted> {
    match fact {
        Fact::OrderAccepted(accepted) => Some(accepted),
        _ => None,
    }
}

fn ended(fact: &Fact) -> Option<OrderId> {
    match fact {
        Fact::OrderCancelled { order, .. } | Fact::OrderFailed { order, .. } => Some(*order),
        _ => None,
    }
}

/// Changes one accepted order of the log.
fn change_order(log: &mut [Event], random: &mut Random, change: impl Fn(&mut OrderAccepted)) -> Option<()> {
    let index = pick(log, random, |fact| accepted(fact).is_some())?;
    match &mut log[index].fact {
        Fact::OrderAccepted(accepted) => change(accepted),
        other => panic!("{other:?} is no acceptance"),
    }
    Some(())
}

#[test]
fn an_event_that_was_dropped_is_noticed() {
    assert_noticed(|log, random| {
        log.remove(random.below(log.len() - 1));
        Some(())
    });
}

#[test]
fn an_event_that_is_there_twice_is_noticed() {
    assert_noticed(|log, random| {
        let index = random.below(log.len());
        log.insert(index, log[index].clone());
        Some(())
    });
}

#[test]
fn two_events_that_changed_places_are_noticed() {
    assert_noticed(|log, random| {
        let index = random.below(log.len() - 1);
        log.swap(index, index + 1);
        Some(())
    });
}

#[test]
fn an_order_that_is_there_twice_under_new_numbers_is_noticed() {
    assert_noticed(|log, random| {
        let index = pick(log, random, |fact| accepted(fact).is_some())?;
        let again = log[index].fact.clone();
        insert(log, index, again);
        Some(())
    });
}

#[test]
fn a_second_order_under_a_key_is_noticed() {
    assert_noticed(|log, random| {
        let index = pick(log, random, |fact| accepted(fact).is_some_and(|order| order.key.is_some()))?;
        let another = OrderAccepted { order: OrderId([0xee; 16]), ..accepted(&log[index].fact)?.clone() };
        insert(log, index, Fact::OrderAccepted(another));
        Some(())
    });
}

#[test]
fn units_that_come_back_twice_are_noticed() {
    assert_noticed(|log, random| {
        let index = pick(log, random, |fact| ended(fact).is_some())?;
        let order = ended(&log[index].fact)?;
        let reason = "again".into();
        let again = match random.below(2) {
            0 => Fact::OrderCancelled { order, reason },
            _ => Fact::OrderFailed { order, reason },
        };
        insert(log, index, again);
        Some(())
    });
}

#[test]
fn units_that_come_back_for_nobodys_order_are_noticed() {
    assert_noticed(|log, random| {
        let fact = Fact::OrderCancelled { order: OrderId([0xee; 16]), reason: "made up".into() };
        insert(log, random.below(log.len()), fact);
        Some(())
    });
}

#[test]
fn an_acceptance_that_became_another_order_is_noticed() {
    assert_noticed(|log, random| {
        let order = ended(&log[pick(log, random, |fact| ended(fact).is_some())?].fact)?;
        for event in log {
            if let Fact::OrderAccepted(accepted) = &mut event.fact
                && accepted.order == order
            {
                accepted.order = OrderId([0xee; 16]);
            }
        }
        Some(())
    });
}

#[test]
fn more_units_sold_than_there_are_is_noticed() {
    assert_noticed(|log, random| change_order(log, random, |order| order.quantity = u32::MAX));
}

#[test]
fn more_units_withdrawn_than_there_are_is_noticed() {
    assert_noticed(|log, random| {
        let index = pick(log, random, |fact| matches!(fact, Fact::StockAdjusted(_)))?;
        let Fact::StockAdjusted(made) = &log[index].fact else {
            return None;
        };
        let more = StockAdjustment { delta: -2_000_000_000, ..made.clone() };
        log[index].fact = Fact::StockAdjusted(more);
        Some(())
    });
}

#[test]
fn an_event_older_than_the_one_before_it_is_noticed() {
    assert_noticed(|log, random| {
        let index = 1 + random.below(log.len() - 1);
        log[index].at.0 = log[index - 1].at.0 - 1;
        Some(())
    });
}

#[test]
fn a_stock_adjustment_that_is_there_twice_under_new_numbers_is_noticed_by_the_audit() {
    assert_audited(|log, random| {
        let index = pick(log, random, |fact| matches!(fact, Fact::StockAdjusted(made) if made.delta > 0))?;
        let again = log[index].fact.clone();
        insert(log, index, again);
        Some(())
    });
}

#[test]
fn an_order_of_no_units_is_noticed_by_the_audit() {
    assert_audited(|log, random| change_order(log, random, |order| order.quantity = 0));
}

#[test]
fn a_price_that_was_changed_afterwards_is_noticed_by_the_audit() {
    assert_audited(|log, random| {
        change_order(log, random, |order| {
            order.unit_price = Money { amount: order.unit_price.amount - 1, ..order.unit_price };
        })
    });
}

#[test]
fn a_pause_that_was_moved_before_an_order_is_noticed_by_the_audit() {
    assert_audited(|log, random| {
        let index = pick(log, random, |fact| accepted(fact).is_some())?;
        let product = accepted(&log[index].fact)?.product;
        insert(log, index - 1, Fact::SalePaused { product });
        Some(())
    });
}
