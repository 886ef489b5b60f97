//! The disk of Redis is damaged, or full.

use std::path::Path;
use std::time::Duration;

use yoink_engine::CallError;

use crate::shop::{Shop, request, rounds};

const STOCK: u64 = 20_000;
/// As in `crash.rs`.
const SELLING_WITHIN: Duration = Duration::from_secs(6);

/// Flips a bit of the byte that `choose` finds.
fn flip(file: &Path, choose: impl FnOnce(&[u8]) -> Option<usize>) {
    let mut bytes = std::fs::read(file).unwrap();
    let place = choose(&bytes).expect("there is such a byte");
    bytes[place] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// The last digit of the last figure that says how much is available.
fn a_figure(bytes: &[u8]) -> Option<usize> {
    let name = b"\r\navailable\r\n$";
    let at = bytes.windows(name.len()).rposition(|window| window == name)? + name.len();
    let ends = bytes[at..].iter().enumerate().filter(|(_, byte)| **byte == b'\r');
    Some(at + ends.map(|(end, _)| end).nth(1)? - 1)
}

/// Where a command begins, in the middle.
fn a_command(bytes: &[u8]) -> Option<usize> {
    let middle = bytes.len() / 2;
    Some(middle + bytes[middle..].windows(3).position(|window| window == b"\r\n*")? + 2)
}

#[test]
fn a_log_of_redis_that_is_damaged_is_not_believed_and_the_sale_is_filled_from_the_ledger() {
    let mut shop = Shop::start();
    let first = shop.open_with_shoes(STOCK, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    for round in 0..rounds(2) {
        crowd.wait_for(40);
        shop.redis.kill();
        let file = shop.redis.aof().unwrap();
        if round % 2 == 0 {
            // Redis has no means to notice that.
            flip(&file, a_figure);
        } else {
            flip(&file, a_command);
            let refused = shop.redis.restart().unwrap_err().to_string();
            assert!(refused.contains("Bad file format"), "{refused}");
            std::fs::remove_dir_all(shop.redis.folder().join("appendonlydir")).unwrap();
        }
        shop.redis.restart().unwrap();
        let took = shop.wait_until_selling(&first, &mut bought);
        assert!(took < SELLING_WITHIN, "round {round}: selling again after {took:?}");
    }
    crowd.wait_for(20);
    bought.extend(shop.disperse(crowd));
    shop.reconcile(&second);
    let kept = shop.close_the_books(&first, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}

#[test]
fn a_disk_that_has_no_room_for_the_log_of_redis_loses_nothing() {
    let mut shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let crowd = shop.crowd(&[&engine], 8);
    let mut bought = Vec::new();
    for round in 0..rounds(1) {
        crowd.wait_for(40);
        let bytes = std::fs::metadata(shop.redis.aof().unwrap()).unwrap().len();
        shop.redis.limit_files(bytes + 2_000).unwrap();
        // Rather than to answer anybody whose order is on no disk.
        shop.redis.wait_ended().unwrap();
        let refused = shop.run(engine.purchase(request(&format!("early-{round}"), 1, "early")));
        assert!(matches!(refused, Err(CallError::Unreachable | CallError::OutcomeUnknown)), "{refused:?}");
        shop.redis.restart().unwrap();
        let took = shop.wait_until_selling(&engine, &mut bought);
        assert!(took < SELLING_WITHIN, "round {round}: selling again after {took:?}");
    }
    crowd.wait_for(20);
    bought.extend(shop.disperse(crowd));
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "what was answered was on the disk");
}
