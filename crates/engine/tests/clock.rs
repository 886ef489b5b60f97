//! Time: never back, never a jump, whatever the machine's clock does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;

use common::{buy, product, runtime};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use yoink_core::{Rejection, Timestamp, Window};
use yoink_engine::{CallError, Clock, Engine, Options, TimeSource};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// A machine whose clocks are set by hand.
#[derive(Clone, Default)]
struct Hands {
    wall_us: Arc<AtomicI64>,
    monotonic_us: Arc<AtomicI64>,
}

impl Hands {
    fn pass(&self, us: i64) {
        self.wall_us.fetch_add(us, Ordering::SeqCst);
        self.monotonic_us.fetch_add(us, Ordering::SeqCst);
    }

    fn step(&self, us: i64) {
        self.wall_us.fetch_add(us, Ordering::SeqCst);
    }
}

impl TimeSource for Hands {
    fn wall_us(&self) -> i64 {
        self.wall_us.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> i64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }
}

fn clock_at(wall_us: i64) -> (Hands, Clock) {
    let hands = Hands::default();
    hands.step(wall_us);
    (hands.clone(), Clock::new(Box::new(hands), Timestamp(0)))
}

#[test]
fn small_drift_is_followed_at_once() {
    let (hands, clock) = clock_at(100 * SECOND);
    hands.pass(SECOND);
    hands.step(SECOND / 2);
    assert_eq!(clock.tick(), Timestamp(101 * SECOND + SECOND / 2));
    assert_eq!(clock.steps(), 0);
}

#[test]
fn a_step_of_an_hour_forward_is_approached_at_twice_the_pace_and_counted_once() {
    let (hands, clock) = clock_at(0);
    hands.step(HOUR);
    let mut before = clock.tick();
    assert_eq!((before, clock.steps()), (Timestamp(0), 1));
    let mut seconds = 0;
    while before.0 < hands.wall_us() - 3 * SECOND {
        hands.pass(SECOND);
        let now = clock.tick();
        assert!(now.0 - before.0 <= 2 * SECOND, "from {before:?} to {now:?} in one second");
        before = now;
        seconds += 1;
        assert!(seconds < 4_000, "they never meet");
    }
    assert!(seconds > 3_500, "they met after {seconds} s: that was a jump");
}

#[test]
fn a_step_of_an_hour_back_never_turns_time_back_and_never_stops_it() {
    let (hands, clock) = clock_at(2 * HOUR);
    hands.step(-HOUR);
    let mut before = clock.tick();
    for _ in 0..7_300 {
        hands.pass(SECOND);
        let now = clock.tick();
        assert!(now > before, "time stands still at {now:?}");
        before = now;
    }
    assert_eq!(before.0, hands.wall_us());
    assert_eq!(clock.steps(), 1);
}

#[test]
fn readers_between_ticks_follow_the_monotonic_clock_only() {
    let (hands, clock) = clock_at(HOUR);
    hands.pass(SECOND);
    hands.step(HOUR);
    assert_eq!(clock.now(), Timestamp(HOUR + SECOND));
}

#[test]
fn a_jump_of_the_wall_clock_neither_opens_a_sale_early_nor_closes_it() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    hands.step(10 * HOUR);
    let engine = Engine::open_with_time(Options::new(folder.path()), Box::new(hands.clone())).unwrap();
    runtime().block_on(async {
        let mut early = product("early", 10);
        early.window = Window { starts_at: Some(Timestamp(11 * HOUR)), ends_at: None };
        engine.create_product(early).await.unwrap();
        let mut late = product("late", 10);
        late.window = Window { starts_at: None, ends_at: Some(Timestamp(11 * HOUR)) };
        engine.create_product(late).await.unwrap();
        hands.step(2 * HOUR);
        let refused = engine.purchase(buy("ann", "early", 1, None)).await.unwrap_err();
        assert_eq!(
            refused,
            CallError::Refused(Rejection::SaleNotStarted { starts_at: Timestamp(11 * HOUR) })
        );
        engine.purchase(buy("ann", "late", 1, None)).await.unwrap();
        // Known to the writer now, Ann's requests are decided there; a stranger's may be refused early.
        let refused = engine.purchase(buy("bob", "early", 1, None)).await.unwrap_err();
        assert!(matches!(refused, CallError::Refused(Rejection::SaleNotStarted { .. })), "{refused:?}");
    });
    engine.close_blocking(std::time::Duration::ZERO);
}

#[test]
fn an_engine_opened_on_a_machine_whose_clock_went_back_goes_on_after_its_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    hands.step(10 * HOUR);
    let engine = Engine::open_with_time(Options::new(folder.path()), Box::new(hands)).unwrap();
    let runtime = runtime();
    runtime.block_on(engine.create_product(product("1", 10))).unwrap();
    engine.close_blocking(std::time::Duration::ZERO);
    drop(engine);
    let engine = Engine::open_with_time(Options::new(folder.path()), Box::new(Hands::default())).unwrap();
    let order = runtime.block_on(engine.purchase(buy("ann", "1", 1, None))).unwrap();
    assert!(order.accepted_at >= Timestamp(10 * HOUR));
    engine.close_blocking(std::time::Duration::ZERO);
    drop(engine);
    common::open(folder.path()).close_blocking(std::time::Duration::ZERO);
}

/// The first request is under way when the sale ends; the second, with the same key, comes after the end. It waits for
/// the first: if that was accepted, it is told so.
#[test]
fn who_asks_again_after_the_end_while_the_first_is_undecided_is_told_what_the_first_is_told() {
    let seed = 20_260_105;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    hands.step(HOUR);
    let engine = Engine::open_with_time(Options::new(folder.path()), Box::new(hands.clone())).unwrap();
    let mut accepted = 0;
    runtime().block_on(async {
        // On a busy machine the writer is later, so the moments are spread wider until enough come in time.
        let mut spread_us = 400;
        for round in 0..400 {
            if round % 20 == 19 && accepted < round / 10 {
                spread_us = (spread_us * 2).min(50_000);
            }
            let name = format!("sale-{round}");
            let mut ending = product(&name, 10);
            ending.window = Window { starts_at: None, ends_at: Some(Timestamp(hands.wall_us() + SECOND)) };
            engine.create_product(ending).await.unwrap();
            let ask = || engine.purchase(buy(&format!("buyer-{round}"), &name, 1, Some("k")));
            let mut first = Box::pin(ask());
            let begun = std::time::Instant::now();
            let early = std::future::poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx))).await;
            let moment = std::time::Duration::from_micros(random.random_range(0..spread_us));
            while begun.elapsed() < moment {
                std::hint::spin_loop();
            }
            hands.pass(2 * SECOND);
            let second = ask().await;
            let first = match early {
                Poll::Ready(first) => first,
                Poll::Pending => first.await,
            };
            accepted += u32::from(first.is_ok());
            assert_eq!(first.is_ok(), second.is_ok(), "seed {seed}, round {round}: {first:?} and {second:?}");
        }
    });
    assert!(accepted > 20, "only {accepted} of 400 were under way in time");
    engine.close_blocking(std::time::Duration::ZERO);
}
