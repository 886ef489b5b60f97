//! Which worker has a lock: what is in Redis does not say, but a lock that nobody renews belongs to whoever stands still.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::{Mode, RedisClient, Reply};

use super::stage::{LOCK_LIFE, RabbitStage, WORKERS};
use crate::drill::shop::processes::Role;

/// Answers of PostgreSQL are held for so long, so that locks are held for longer.
const SLOW: Duration = Duration::from_millis(15);
/// How often locks are looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// A lock with so little left to live was not renewed by anybody.
const NEARLY_OVER: Duration = Duration::from_millis(80);
/// Workers that are stopped until one has a lock.
const TRIES: u32 = 400;

/// Stops a worker while it has a lock, for longer than the lock lives, and tells which.
pub(super) fn stop_holder(stage: &mut RabbitStage, random: &mut SmallRng) -> Result<Role> {
    let mut redis = stage.redis.client()?;
    stage.workers_to_postgres.set(Mode::Delay(SLOW))?;
    for _ in 0..TRIES {
        let worker = Role::Worker(random.random_range(0..WORKERS));
        let begun = Instant::now();
        stage.shop.process(worker)?.freeze();
        if ends_unrenewed(&mut redis)? {
            stage.workers_to_postgres.set(Mode::Pass)?;
            let pause = LOCK_LIFE.mul_f64(random.random_range(1.2..2.5));
            std::thread::sleep(pause.saturating_sub(begun.elapsed()));
            return Ok(worker);
        }
        stage.shop.process(worker)?.thaw();
        std::thread::sleep(Duration::from_millis(random.random_range(5..40)));
    }
    stage.workers_to_postgres.set(Mode::Pass)?;
    bail!("none of {TRIES} workers had a lock when it was stopped")
}

/// Watches the locks that are there now: whether one of them is neither renewed nor given back until its life is over.
fn ends_unrenewed(redis: &mut RedisClient) -> Result<bool> {
    let mut watched = locks(redis)?;
    while !watched.is_empty() {
        std::thread::sleep(LOOK_PAUSE);
        let now = locks(redis)?;
        if watched.iter().any(|(name, lock)| {
            // Looked at often enough, nobody but its end can have removed it.
            let is_over =
                !now.contains_key(name) || now.get(name).is_some_and(|found| found.value != lock.value);
            is_over && lock.left < NEARLY_OVER
        }) {
            return Ok(true);
        }
        watched.retain(|name, lock| {
            now.get(name).is_some_and(|found| found.value == lock.value && found.left <= lock.left)
        });
        for (name, lock) in &mut watched {
            lock.left = now.get(name).map_or(lock.left, |found| found.left);
        }
    }
    Ok(false)
}

/// A lock as Redis has it.
struct Found {
    value: String,
    left: Duration,
}

/// The locks that somebody has, by name.
fn locks(redis: &mut RedisClient) -> Result<HashMap<String, Found>> {
    let mut found = HashMap::new();
    for name in redis.command(&["KEYS", "yoink:*:lock"])?.items().iter().filter_map(Reply::text) {
        let value = redis.command(&["GET", &name])?.text();
        let left = redis.command(&["PTTL", &name])?.integer().and_then(|left| u64::try_from(left).ok());
        if let (Some(value), Some(left)) = (value, left) {
            found.insert(name, Found { value, left: Duration::from_millis(left) });
        }
    }
    Ok(found)
}
