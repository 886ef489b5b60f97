//! How much of Redis' log was written when: what a power failure may take back.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use yoink_testkit::{RedisServer, Reply};

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The oldest write that a power failure takes. `appendfsync everysec` promises nothing about the last second; the rest
/// of the second is left for what a look itself takes.
const AGE_MAX: Duration = Duration::from_millis(900);

/// How long the log was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: Instant,
    bytes: u64,
}

/// Looks at Redis' log again and again, from when it is made until the power is cut.
#[derive(Debug)]
pub(super) struct RedisLog {
    path: PathBuf,
    /// Dropped, it ends the thread.
    stop: SyncSender<()>,
    looks: JoinHandle<Vec<Sample>>,
}

impl RedisLog {
    /// Begins to look at the log of `redis`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn watch(redis: &RedisServer) -> Result<RedisLog> {
        let path = redis.aof()?;
        let first = look(&path)?;
        let (stop, stopped) = sync_channel(0);
        let watched = path.clone();
        let looks = std::thread::spawn(move || {
            let mut samples = vec![first];
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // A look that fails is one sample less.
                samples.extend(look(&watched));
            }
            samples
        });
        Ok(RedisLog { path, stop, looks })
    }

    /// Kills Redis, cuts its log back to where it stood at most 900 ms before and not before it was watched, and starts
    /// it again.
    ///
    /// # Errors
    /// Its log is on the disk before it answers, so that a power failure takes nothing; or it was begun anew since it
    /// is watched; or Redis does not start.
    pub(super) fn cut_power(self, redis: &mut RedisServer) -> Result<()> {
        let setting = redis.command(&["CONFIG", "GET", "appendfsync"])?;
        if setting.items().get(1).and_then(Reply::text).is_none_or(|value| value == "always") {
            bail!("this Redis has everything on the disk before it answers: a power failure takes nothing");
        }
        redis.kill();
        let killed = Instant::now();
        drop(self.stop);
        let Ok(samples) = self.looks.join() else { bail!("nobody looked at the log of Redis") };
        if redis.aof()? != self.path {
            bail!("Redis has begun another log since {} was watched", self.path.display());
        }
        let Some(on_disk) = oldest(&samples, killed) else {
            bail!("nobody has looked at the log of Redis within {AGE_MAX:?}");
        };
        let written = look(&self.path)?.bytes;
        redis.truncate_aof(written.saturating_sub(on_disk.bytes))?;
        redis.restart()?;
        Ok(())
    }
}

fn look(path: &Path) -> Result<Sample> {
    // The time first: what is written while the file is looked at is kept.
    let at = Instant::now();
    Ok(Sample { at, bytes: std::fs::metadata(path)?.len() })
}

/// The first sample, in the order of time, that is not older than a power failure may reach back at `now`.
fn oldest(samples: &[Sample], now: Instant) -> Option<Sample> {
    samples.iter().find(|sample| now.saturating_duration_since(sample.at) <= AGE_MAX).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_failure_reaches_back_900_ms_and_not_before_the_first_look() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let samples: Vec<Sample> =
            [0, 50, 100, 150].map(|ms| Sample { at: at(ms), bytes: 1_000 + ms }).to_vec();
        let bytes = |ms| oldest(&samples, at(ms)).map(|sample| sample.bytes);
        assert_eq!(bytes(160), Some(1_000), "everything since the first look is younger");
        assert_eq!(bytes(900), Some(1_000), "just young enough");
        assert_eq!(bytes(901), Some(1_050));
        assert_eq!(bytes(1_050), Some(1_150));
        assert_eq!(bytes(1_051), None, "nobody has looked for too long");
        assert_eq!(oldest(&[], begun), None);
    }
    fn is_there(redis: &RedisServer, key: &str) -> bool {
        redis.command(&["EXISTS", key]).unwrap().integer() == Some(1)
    }

    #[test]
    fn what_was_written_since_the_first_look_is_gone_and_the_rest_is_there() {
        let mut redis = RedisServer::builder().config("appendfsync everysec").start().unwrap();
        redis.command(&["SET", "before", "1"]).unwrap();
        let log = RedisLog::watch(&redis).unwrap();
        redis.command(&["SET", "after", "1"]).unwrap();
        log.cut_power(&mut redis).unwrap();
        assert!(is_there(&redis, "before") && !is_there(&redis, "after"));
    }

    #[test]
    fn a_redis_that_has_everything_on_the_disk_loses_nothing() {
        let mut redis = RedisServer::builder().config("appendfsync always").start().unwrap();
        let log = RedisLog::watch(&redis).unwrap();
        redis.command(&["SET", "after", "1"]).unwrap();
        let refused = log.cut_power(&mut redis).unwrap_err();
        assert!(refused.to_string().contains("takes nothing"), "{refused:#}");
        assert!(is_there(&redis, "after"));
    }
}
