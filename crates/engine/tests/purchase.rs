//! Buying, asking again, giving back: the embedded engine from the outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::sync::Arc;

use common::{buy, id, open, product, restock, runtime};
use yoink_core::{CustomerId, Rejection};
use yoink_engine::{CallError, EngineState, OrderFilter, OrderStatus, Replayed};

#[test]
fn sixty_four_requests_with_one_key_are_one_order_and_sixty_three_replays() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 100)).await.unwrap();
        for round in 0..20 {
            let key = format!("key-{round}");
            let asks: Vec<_> = (0..64)
                .map(|_| {
                    let (engine, request) = (engine.clone(), buy("ann", "1", 1, Some(&key)));
                    tokio::spawn(async move { engine.purchase(request).await })
                })
                .collect();
            let mut answers = Vec::new();
            for ask in asks {
                answers.push(ask.await.unwrap().unwrap());
            }
            assert_eq!(answers.iter().filter(|answer| answer.replayed == Replayed::No).count(), 1);
            assert!(
                answers.iter().all(|answer| answer.order == answers[0].order && answer.seq == answers[0].seq)
            );
        }
        assert_eq!(engine.storefront().product(&id("1")).unwrap().figures.sold, 20);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn a_winner_who_asks_again_after_sell_out_is_told_so_and_a_stranger_is_told_sold_out() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 1)).await.unwrap();
        let won = engine.purchase(buy("ann", "1", 1, Some("k"))).await.unwrap();
        let again = engine.purchase(buy("ann", "1", 1, Some("k"))).await.unwrap();
        assert_eq!((again.order, again.replayed), (won.order, Replayed::Yes));
        let sold_out = CallError::Refused(Rejection::SoldOut { available: 0 });
        assert_eq!(engine.purchase(buy("bob", "1", 1, Some("k"))).await.unwrap_err(), sold_out);
        assert_eq!(engine.purchase(buy("ann", "1", 1, Some("other"))).await.unwrap_err(), sold_out);
        let reused = engine.purchase(buy("ann", "1", 2, Some("k"))).await.unwrap_err();
        assert_eq!(reused, CallError::Refused(Rejection::KeyReused { original: Some(won.order) }));
        // Units that come back are sold again, without anybody doing anything.
        engine.cancel(won.order, "changed my mind".into()).await.unwrap();
        engine.purchase(buy("bob", "1", 1, Some("k"))).await.unwrap();
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn a_thousand_buyers_of_the_last_unit_leave_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 1)).await.unwrap();
        let asks: Vec<_> = (0..1_000)
            .map(|buyer| {
                let (engine, request) = (engine.clone(), buy(&format!("buyer-{buyer}"), "1", 1, None));
                tokio::spawn(async move { engine.purchase(request).await })
            })
            .collect();
        let mut accepted = 0;
        for ask in asks {
            match ask.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(error) => assert_eq!(error, CallError::Refused(Rejection::SoldOut { available: 0 })),
            }
        }
        assert_eq!(accepted, 1);
        assert!(engine.reconcile().await.unwrap().ok);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

/// 100,000 cancels race 100,000 purchases for ten units: the law holds at the end, and every unit is somewhere.
#[test]
fn a_hundred_thousand_raced_cancels_and_purchases_keep_the_law() {
    const LANES: usize = 64;
    const PAIRS_PER_LANE: usize = 100_000 / LANES + 1;
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 10)).await.unwrap();
        let (engine_of_lane, driver) = engine.with_own_lane();
        tokio::spawn(driver.run());
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let engine = engine_of_lane.clone();
                tokio::spawn(async move {
                    let mut accepted = 0_u64;
                    for pair in 0..PAIRS_PER_LANE {
                        let request = buy(&format!("buyer-{lane}"), "1", 1, Some(&format!("{pair}")));
                        match engine.purchase(request).await {
                            Ok(order) => {
                                accepted += 1;
                                let (left, right) = tokio::join!(
                                    engine.cancel(order.order, "raced".into()),
                                    engine.cancel(order.order, "raced".into())
                                );
                                let (left, right) = (left.unwrap().1, right.unwrap().1);
                                assert!(
                                    left != right,
                                    "one cancel gives the units back, the other finds it done"
                                );
                            }
                            Err(error) => {
                                assert_eq!(error, CallError::Refused(Rejection::SoldOut { available: 0 }));
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                    accepted
                })
            })
            .collect();
        let mut accepted = 0;
        for lane in lanes {
            accepted += lane.await.unwrap();
        }
        assert!(accepted > 10, "{accepted} accepted");
        let figures = engine.storefront().product(&id("1")).unwrap().figures;
        assert_eq!((figures.stocked, figures.available, figures.sold), (10, 10, 0));
        let reconciliation = engine.reconcile().await.unwrap();
        assert!(reconciliation.ok, "{reconciliation:?}");
        assert_eq!(reconciliation.orders.cancelled, accepted);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn restocks_are_made_once_per_key_and_withdrawals_stop_at_what_is_sold() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 2)).await.unwrap();
        engine.purchase(buy("ann", "1", 2, None)).await.unwrap();
        let made = engine.adjust_stock(restock("1", 3, "a")).await.unwrap();
        let again = engine.adjust_stock(restock("1", 3, "a")).await.unwrap();
        assert_eq!((made.replayed, again.replayed, again.seq), (Replayed::No, Replayed::Yes, made.seq));
        assert_eq!(again.figures.stocked, 5);
        let below = engine.adjust_stock(restock("1", -4, "b")).await.unwrap_err();
        assert_eq!(below, CallError::Refused(Rejection::BelowCommitted { available: 3 }));
        let figures = engine.adjust_stock(restock("1", -3, "c")).await.unwrap().figures;
        assert_eq!((figures.available, figures.withheld, figures.sold), (0, 3, 2));
        let missing = engine.adjust_stock(restock("9", 1, "d")).await.unwrap_err();
        assert_eq!(missing, CallError::Refused(Rejection::ProductNotFound));
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn lists_are_pages_by_customer_status_and_product() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 100)).await.unwrap();
        engine.create_product(product("2", 100)).await.unwrap();
        for round in 0..10 {
            for customer in ["ann", "bob"] {
                let product = if round % 2 == 0 { "1" } else { "2" };
                engine.purchase(buy(customer, product, 1, None)).await.unwrap();
            }
        }
        let filter = |after, limit| OrderFilter {
            customer: Some(CustomerId::parse("ann").unwrap()),
            product: Some(id("1")),
            after,
            limit,
            ..OrderFilter::default()
        };
        let first = engine.orders(filter(0, 3)).await.unwrap().orders;
        let second = engine.orders(filter(first[2].seq, 3)).await.unwrap().orders;
        assert_eq!((first.len(), second.len()), (3, 2));
        assert!(first.iter().chain(&second).is_sorted_by_key(|order| order.seq));
        engine.cancel(first[0].id, "no".into()).await.unwrap();
        let cancelled =
            OrderFilter { status: Some(OrderStatus::Cancelled), limit: 10, ..OrderFilter::default() };
        assert_eq!(engine.orders(cancelled).await.unwrap().orders.len(), 1);
        let all =
            engine.orders(OrderFilter { limit: usize::MAX, ..OrderFilter::default() }).await.unwrap().orders;
        assert_eq!(all.len(), 20);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn a_full_inbox_answers_at_once_and_nothing_happened() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = yoink_engine::Options::new(folder.path());
    options.inbox_tickets_max = 8;
    let engine = yoink_engine::Engine::open(options).unwrap();
    runtime().block_on(async {
        engine.create_product(product("1", 100_000)).await.unwrap();
        let asks: Vec<_> = (0..2_000)
            .map(|buyer| {
                let (engine, request) = (engine.clone(), buy(&format!("b{buyer}"), "1", 1, None));
                tokio::spawn(async move { engine.purchase(request).await })
            })
            .collect();
        let (mut accepted, mut overloaded) = (0, 0);
        for ask in asks {
            match ask.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(CallError::Overloaded) => overloaded += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(accepted > 0 && overloaded > 0, "{accepted} accepted, {overloaded} turned away");
        assert_eq!(engine.storefront().product(&id("1")).unwrap().figures.sold, accepted);
        assert_eq!(engine.figures().overloaded, overloaded);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn a_closed_engine_says_so_and_what_it_accepted_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let runtime = runtime();
    let won = runtime.block_on(async {
        engine.create_product(product("1", 5)).await.unwrap();
        engine.purchase(buy("ann", "1", 2, Some("k"))).await.unwrap()
    });
    engine.close_blocking(std::time::Duration::from_secs(5));
    assert_eq!(engine.state(), EngineState::Closing);
    let refused = runtime.block_on(engine.purchase(buy("bob", "1", 1, None))).unwrap_err();
    assert_eq!(refused, CallError::Closing);
    drop(engine);
    let engine = open(folder.path());
    runtime.block_on(async {
        let again = engine.purchase(buy("ann", "1", 2, Some("k"))).await.unwrap();
        assert_eq!((again.order, again.seq, again.replayed), (won.order, won.seq, Replayed::Yes));
        assert_eq!(engine.order(won.order).await.unwrap().unwrap().quantity, 2);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn callers_who_are_gone_are_left_out_before_the_decision() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(folder.path()));
    runtime().block_on(async {
        engine.create_product(product("1", 10_000)).await.unwrap();
        // Polled once, so that it is on its way, and then dropped.
        let mut sent = 0;
        for buyer in 0..1_000 {
            let request = buy(&format!("b{buyer}"), "1", 1, Some("k"));
            let mut call = Box::pin(engine.purchase(request));
            let _ = futures_poll_once(&mut call).await;
            sent += 1;
        }
        let sold = engine.storefront().product(&id("1")).unwrap().figures.sold;
        assert!(sold <= sent);
        // Whatever was decided is whole: the key of each finds one order or none.
        assert!(engine.reconcile().await.unwrap().ok);
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// A listing that finds little must not keep the writer from selling: it looks at a bounded number of orders and says
/// where to go on.
#[test]
fn a_listing_that_passes_over_many_orders_comes_in_pages_and_misses_none() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 100_000)).await.unwrap();
        let (lane, driver) = engine.with_own_lane();
        tokio::spawn(driver.run());
        let buyers: Vec<_> = (0..120)
            .map(|buyer| {
                let lane = lane.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        lane.purchase(buy(&format!("b{buyer}"), "1", 1, None)).await.unwrap();
                    }
                })
            })
            .collect();
        for buyer in buyers {
            buyer.await.unwrap();
        }
        let last = engine.purchase(buy("last", "1", 1, None)).await.unwrap();
        engine.cancel(last.order, "no".into()).await.unwrap();
        let (mut after, mut pages, mut found) = (0, 0, Vec::new());
        loop {
            let filter = OrderFilter {
                status: Some(OrderStatus::Cancelled),
                limit: 10,
                after,
                ..OrderFilter::default()
            };
            let page = engine.orders(filter).await.unwrap();
            pages += 1;
            found.extend(page.orders.into_iter().map(|order| order.id));
            match page.next_after {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!((found, pages), (vec![last.order], 3), "12,001 orders at 5,000 a page");
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

/// While the first request with a key is undecided, a second one waits for it, whatever the storefront says meanwhile.
#[test]
fn who_asks_again_while_the_first_is_undecided_is_never_told_no() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.create_product(product("1", 1)).await.unwrap();
        for round in 0..300 {
            let name = format!("buyer-{round}");
            let asks: Vec<_> = (0..8)
                .map(|_| {
                    let (engine, request) = (engine.clone(), buy(&name, "1", 1, Some("k")));
                    tokio::spawn(async move { engine.purchase(request).await })
                })
                .collect();
            let mut orders = Vec::new();
            for ask in asks {
                orders.push(ask.await.unwrap().expect("the last unit is this buyer's").order);
            }
            assert!(orders.iter().all(|order| *order == orders[0]));
            engine.cancel(orders[0], "next round".into()).await.unwrap();
        }
    });
    engine.close_blocking(std::time::Duration::ZERO);
}
