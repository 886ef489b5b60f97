//! A lock in Redis as shops build it (`SET key value NX PX life`).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use redis::aio::ConnectionManager;
use redis::{ExistenceCheck, SetExpiry, SetOptions};
use uuid::Uuid;

use super::Shop;

/// How long a buyer waits for the lock.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// The longest pause between two tries, in milliseconds. Hundreds wait at once, so the lock is asked for often enough.
const PAUSE_MAX_MS: u128 = 150;

/// The lock of one product.
#[derive(Clone)]
pub struct Lock {
    redis: ConnectionManager,
    key: String,
    life: Duration,
}

impl Lock {
    /// The lock of `product`, which opens by itself after `life`.
    ///
    /// # Errors
    /// There is no Redis.
    pub fn of(shop: &Shop, product: &str, life: Duration) -> Result<Lock> {
        Ok(Lock { redis: shop.stores.redis()?, key: format!("lock:{product}"), life })
    }

    /// Takes it if nobody has it. `value` says whose it is then.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn take(&mut self, value: &str) -> Result<bool> {
        let life_ms = u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX);
        let options =
            SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::PX(life_ms));
        let set: Option<String> = redis::cmd("SET")
            .arg(&self.key)
            .arg(value)
            .arg(options)
            .query_async(&mut self.redis)
            .await
            .context("cannot ask Redis for the lock")?;
        Ok(set.is_some())
    }

    /// Takes it, trying again and again for six seconds. Says whether it has it.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn wait(&mut self, value: &str) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.take(value).await? {
                return Ok(true);
            }
            Lock::pause().await;
        }
        Ok(false)
    }

    /// The pause before the next try: each of another length, or all who wait would always ask at the same moment.
    pub async fn pause() {
        let pause_ms = Uuid::new_v4().as_u128() % PAUSE_MAX_MS;
        tokio::time::sleep(Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0))).await;
    }

    /// Opens it if `value` is still in it. Says whether it was.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn release(&mut self, value: &str) -> Result<bool> {
        let script = redis::Script::new(
            r"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
            return redis.call('DEL', KEYS[1])",
        );
        let opened: i64 = script
            .key(&self.key)
            .arg(value)
            .invoke_async(&mut self.redis)
            .await
            .context("cannot open the lock in Redis")?;
        Ok(opened == 1)
    }
}
