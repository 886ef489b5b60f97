//! Both servers fail at once.

use std::time::{Duration, Instant};

use yoink_engine::CallError;

use crate::shop::{Shop, request, rounds};

const STOCK: u64 = 20_000;

#[test]
fn redis_may_die_or_be_emptied_while_the_ledger_is_down() {
    let mut shop = Shop::start();
    let first = shop.open_with_shoes(STOCK, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    for round in 0..rounds(2) {
        crowd.wait_for(30);
        shop.postgres.terminate().unwrap();
        // Orders that only Redis and the nodes know.
        crowd.wait_for(30);
        if round % 2 == 0 {
            shop.redis.kill();
            shop.redis.restart().unwrap();
        } else {
            shop.redis(&["FLUSHALL"]);
        }
        // Nobody can fill it, and so nobody sells.
        let (begun, mut refused) = (Instant::now(), 0);
        while refused < 5 {
            match shop.run(first.purchase(request(&format!("early-{round}"), 1, "early"))) {
                Err(CallError::Rebuilding) => refused += 1,
                Err(CallError::Unreachable | CallError::OutcomeUnknown) => {}
                other => panic!("sold from what may be incomplete: {other:?}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not say that it is being filled");
        }
        shop.postgres.restart().unwrap();
        let took = shop.wait_until_selling(&first, &mut bought);
        assert!(took < Duration::from_secs(10), "round {round}: selling again after {took:?}");
    }
    crowd.wait_for(30);
    bought.extend(shop.disperse(crowd));
    shop.reconcile(&second);
    let kept = shop.close_the_books(&first, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}
