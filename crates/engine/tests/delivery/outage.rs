//! What callers and gauges are told while the ledger is down.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use yoink_core::{OrderId, Seq, Timestamp};
use yoink_engine::{
    DeadLetterState,
    OnDeadLetter::{Park, Release},
    delivery::{Delivery, DeliveryError, DeliveryOptions, Next, Source, SourceClosed, Stop},
    ledger::{LedgerFault, Times},
};

use crate::shop::{Shop, all_delivered, customers, dead_letters, look, options, order_id, start, until};

/// Longer than anything here takes on a slow machine; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A delivery with this many parked dead letters, the first of which has the number 1.
async fn parked(folder: &std::path::Path, shop: &Shop, fault: &LedgerFault, count: u64) -> Delivery {
    fault.refuse_customers("bad", Times::Always);
    shop.sell((0..count).map(|_| "bad".to_owned()));
    let once = DeliveryOptions { attempts_max: 1, ..options(fault, Park) };
    let delivery = start(folder, shop, once).unwrap();
    until(&delivery, "all are parked", || delivery.status().dead_letters_open == count).await;
    delivery
}

#[tokio::test]
async fn a_call_that_fails_before_it_wrote_anything_says_that_nothing_happened() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = parked(folder.path(), &shop, &fault, 1).await;
    fault.refuse_all(Times::Always);
    let answer = delivery.discard_dead_letter(1, "no".into()).await;
    assert!(matches!(answer, Err(DeliveryError::Ledger(_))), "{answer:?}");
    let answer = delivery.retry_dead_letter(1).await;
    assert!(matches!(answer, Err(DeliveryError::Ledger(_))), "{answer:?}");
    assert_eq!(dead_letters(&delivery).await[0].state, DeadLetterState::Parked);
    assert_eq!(shop.given_back(order_id(1)), (0, 0));
}

#[tokio::test]
async fn a_discard_that_fails_after_its_first_transaction_does_not_say_that_nothing_happened() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = parked(folder.path(), &shop, &fault, 1).await;
    shop.fill_disk_at_fail(&fault);
    let answer = delivery.discard_dead_letter(1, "no".into()).await;
    assert!(matches!(answer, Err(DeliveryError::OutcomeUnknown)), "{answer:?}");
    assert_eq!(shop.given_back(order_id(1)), (1, 1), "and yet its units came back");

    fault.clear();
    until(&delivery, "the failure is carried", || delivery.position() == 2).await;
    assert_eq!(dead_letters(&delivery).await[0].state, DeadLetterState::Discarded);
    assert_eq!(shop.given_back(order_id(1)).0, 1);
}

#[tokio::test]
async fn a_call_that_cannot_read_what_it_did_does_not_say_that_nothing_happened() {
    for is_retry in [true, false] {
        let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
        let delivery = parked(folder.path(), &shop, &fault, 1).await;
        // Nothing but the call is at work, so that the read that fails is the call's.
        delivery.pause().await.unwrap();
        fault.break_read_after_commit(Times::Count(1));
        let (answer, state) = match is_retry {
            true => (delivery.retry_dead_letter(1).await, DeadLetterState::Retried),
            false => (delivery.discard_dead_letter(1, "no".into()).await, DeadLetterState::Discarded),
        };
        assert!(matches!(answer, Err(DeliveryError::OutcomeUnknown)), "{answer:?}");
        assert_eq!(delivery.dead_letter(1).await.unwrap().unwrap().state, state);
    }
}

#[tokio::test]
async fn a_discard_is_done_when_it_is_answered_however_many_releases_wait_before_it() {
    const OLDER: u64 = 150;
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = parked(folder.path(), &shop, &fault, OLDER + 1).await;
    // Paused, delivery does not work off the older ones by itself.
    delivery.pause().await.unwrap();
    delivery.stop(Stop::Now);
    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    let releasing = "UPDATE dead_letters SET state = 'releasing', then_state = 'released' WHERE id <= ?1";
    assert_eq!(ledger.execute(releasing, [i64::try_from(OLDER).unwrap()]).unwrap(), 150);
    drop(ledger);

    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    let last = i64::try_from(OLDER + 1).unwrap();
    let discarded = delivery.discard_dead_letter(last, "a robot".into()).await.unwrap().unwrap();
    assert_eq!((discarded.state, discarded.reason.as_deref()), (DeadLetterState::Discarded, Some("a robot")));
    assert_eq!(shop.given_back(order_id(OLDER + 1)), (1, 1));
    assert_eq!(shop.given_back(order_id(1)), (0, 0));

    delivery.resume().await.unwrap();
    until(&delivery, "all are released", || delivery.position() == 2 * (OLDER + 1)).await;
    delivery.stop(Stop::Now);
    assert_eq!(look(folder.path(), "SELECT count(*) FROM dead_letters WHERE state = 'released'"), 150);
}

/// Whether delivery has trouble, and how old the oldest undelivered order is.
type Shown = (bool, Option<Timestamp>);

/// A shop that notes what delivery shows at each of its looks at the log.
#[derive(Clone)]
struct Observed {
    shop: Shop,
    delivery: Arc<OnceLock<Delivery>>,
    seen: Arc<Mutex<Vec<Shown>>>,
}

impl Source for Observed {
    fn events(&self, after: Seq, limit: usize, wait: Duration) -> Result<Next, SourceClosed> {
        if let Some(delivery) = self.delivery.get() {
            let status = delivery.status();
            self.seen.lock().push((status.last_error.is_some(), status.oldest_undelivered_at));
        }
        Source::events(&self.shop, after, limit, wait)
    }

    fn fail(&self, order: OrderId, reason: Box<str>) -> Result<(), SourceClosed> {
        self.shop.fail(order, reason)
    }

    fn now(&self) -> Timestamp {
        self.shop.now()
    }
}

async fn soon(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_age_of_the_oldest_undelivered_order_is_shown_throughout_an_outage() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(100));
    fault.refuse_all(Times::Always);
    let observed = Observed { shop: shop.clone(), delivery: Arc::default(), seen: Arc::default() };
    let source = Box::new(observed.clone());
    let delivery = Delivery::start(folder.path(), options(&fault, Release), source, shop.last_seq()).unwrap();
    observed.delivery.set(delivery.clone()).unwrap();

    let in_trouble = || -> Vec<Option<Timestamp>> {
        let seen = observed.seen.lock();
        seen.iter().filter(|(is_trouble, _)| *is_trouble).map(|(_, oldest)| *oldest).collect()
    };
    // Each of these looks comes after the ledger was opened again.
    soon("the ledger was opened again often", || in_trouble().len() >= 10).await;
    let shown = in_trouble();
    assert!(shown.iter().all(|oldest| *oldest == Some(Timestamp(1_000_000))), "{shown:?}");

    fault.clear();
    all_delivered(&delivery, &shop).await;
    soon("nothing is undelivered", || delivery.status().oldest_undelivered_at.is_none()).await;
    delivery.stop(Stop::Now);
}

#[tokio::test]
async fn orders_accepted_while_the_ledger_cannot_even_be_opened_are_seen_to_wait() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    let (path, away) = (folder.path().join("ledger.db"), folder.path().join("away"));
    std::fs::rename(&path, &away).unwrap();
    fault.refuse_all(Times::Count(1));
    let answer = delivery.resume().await;
    assert!(matches!(answer, Err(DeliveryError::Ledger(_))), "{answer:?}");
    assert_eq!(delivery.status().oldest_undelivered_at, None);
    shop.sell(customers(10));
    soon("they are seen", || delivery.status().oldest_undelivered_at == Some(Timestamp(1_000_000))).await;

    std::fs::rename(&away, &path).unwrap();
    all_delivered(&delivery, &shop).await;
    assert_eq!(delivery.counts().await.unwrap().confirmed, 10);
}
