//! What holds for every stream of commands.

#![cfg(test)]

mod generator;
mod ids;
mod shop;
mod stock_law;
mod tampering;

use generator::{Random, seed};
use proptest::prelude::*;
use shop::{Coverage, Shop, expected_coverage};

const STREAMS: u64 = 400;
const COMMANDS_PER_STREAM: u64 = 2_500;

/// One stream of commands on a fresh shop.
fn play_stream(seed: u64) -> Coverage {
    let mut random = Random(seed);
    let mut shop = Shop::default();
    let rebuild_at = random.below(2_500) as u64;
    for index in 0..COMMANDS_PER_STREAM {
        shop.play(&random.roll());
        if index % 250 == 0 {
            shop.assert_agreement();
        }
        if index == rebuild_at {
            shop.rebuild_follower();
        }
    }
    shop.assert_agreement();
    shop.coverage
}

fn play_streams(first_seed: u64, streams: impl Iterator<Item = u64>) -> Coverage {
    let mut total = Coverage::new();
    for stream in streams {
        for (name, count) in play_stream(first_seed.wrapping_add(stream)) {
            *total.entry(name).or_default() += count;
        }
    }
    total
}

#[test]
fn a_million_random_commands_keep_every_promise() {
    let seed = seed();
    eprintln!("to repeat: YOINK_SEED={seed}");
    let coverage = std::thread::scope(|scope| {
        let odd = scope.spawn(|| play_streams(seed, (1..STREAMS).step_by(2)));
        let mut total = play_streams(seed, (0..STREAMS).step_by(2));
        for (name, count) in odd.join().expect("the other half") {
            *total.entry(name).or_default() += count;
        }
        total
    });
    eprintln!("{coverage:#?}");
    assert_eq!(coverage.values().sum::<u64>(), STREAMS * COMMANDS_PER_STREAM);
    for name in expected_coverage() {
        let count = coverage.get(name).copied().unwrap_or(0);
        assert!(count >= 100, "{name} was hit only {count} times: the test shows too little");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The same promises on short streams, which shrink to the few commands that break one.
    #[test]
    fn short_streams_keep_every_promise(
        rolls in prop::collection::vec(any::<generator::Roll>(), 1..120),
        rebuild_at in 0_usize..120,
    ) {
        let mut shop = Shop::default();
        for (index, roll) in rolls.iter().enumerate() {
            shop.play(roll);
            shop.assert_agreement();
            if index == rebuild_at {
                shop.rebuild_follower();
            }
        }
    }

    /// Nothing sticks: whatever happened before, the units that are available can all be bought.
    #[test]
    fn if_enough_buyers_ask_everything_is_sold(
        rolls in prop::collection::vec(any::<generator::Roll>(), 1..120),
    ) {
        let mut shop = Shop::default();
        for roll in &rolls {
            shop.play(roll);
        }
        shop.sell_out();
        shop.assert_agreement();
    }
}
