//! A lock in Redis, one per product: it keeps workers from deciding the same product at once, which would be safe and
//! slow. Nothing rests on it: the fencing token and the row lock of PostgreSQL keep units safe. So whoever cannot ask
//! Redis goes on without.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, Script};
use uuid::Uuid;

use crate::node::KeyPrefix;

/// How long connecting and each answer may take: a Redis that hangs must not hang a worker.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// After Redis could not be asked it is not asked for this long.
const REST: Duration = Duration::from_secs(1);
/// How long it is remembered that somebody waits for a lock.
const WAITING_MS: u64 = 1_000;

/// Takes the lock for `ARGV[2]` milliseconds, or leaves word that somebody waits for it.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
         redis.call('SET', KEYS[2], 1, 'PX', ARGV[3])
         return 0",
    )
});
/// Lets the lock live for another `ARGV[2]` milliseconds, if it is still the caller's.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});
/// Gives the lock back if it is still the caller's. With `ARGV[2]` of 1 only if somebody waits; tells whether it did.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local waits = redis.call('EXISTS', KEYS[2])
         if ARGV[2] == '1' and waits == 0 then return 0 end
         if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
         return 1",
    )
});

/// What became of asking for a lock.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is the caller's.
    Taken(Lock),
    /// It is somebody else's.
    Locked,
    /// Redis cannot be asked now.
    NoRedis,
}

/// A lock that was taken; it may have been lost since.
#[derive(Debug)]
pub(crate) struct Lock {
    product: i32,
    value: String,
    taken_at: Instant,
    renewed_at: Instant,
}

impl Lock {
    /// Since when it has been held without a pause.
    pub(crate) fn age(&self) -> Duration {
        self.taken_at.elapsed()
    }
}

/// The locks of one ledger's products.
pub(crate) struct Locks {
    url: String,
    prefix: KeyPrefix,
    life: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// When Redis could not be asked, since it could the last time.
    failed_at: Option<Instant>,
}

impl Locks {
    pub(crate) fn new(url: &str, ledger: Uuid, life: Duration) -> Self {
        Self { url: url.to_owned(), prefix: KeyPrefix::of(ledger), life, state: Mutex::default() }
    }

    /// Asks once for the lock of a product.
    pub(crate) async fn take(&self, product: i32) -> Asked {
        let begun = Instant::now();
        let value = format!("{:032x}", rand::random::<u128>());
        let lock = Lock { product, value, taken_at: begun, renewed_at: begun };
        match self.ask(&TAKE, &lock, &[self.life_ms(), WAITING_MS]).await {
            Some(1) => Asked::Taken(lock),
            Some(_) => Asked::Locked,
            None => Asked::NoRedis,
        }
    }

    /// Lets a lock live on if a third of its life is over. False: it is not the caller's any more.
    pub(crate) async fn keep(&self, lock: &mut Lock) -> bool {
        if lock.renewed_at.elapsed() < self.life / 3 {
            return true;
        }
        let begun = Instant::now();
        let is_kept = self.ask(&RENEW, lock, &[self.life_ms()]).await == Some(1);
        if is_kept {
            lock.renewed_at = begun;
        }
        is_kept
    }

    /// Gives a lock back, if it is still the caller's.
    pub(crate) async fn give_back(&self, lock: Lock) {
        self.ask(&GIVE_BACK, &lock, &[0]).await;
    }

    /// Gives a lock back if somebody waits for it, and says whether it did.
    pub(crate) async fn hand_over(&self, lock: &Lock) -> bool {
        self.ask(&GIVE_BACK, lock, &[1]).await == Some(1)
    }

    fn life_ms(&self) -> u64 {
        u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Runs a script on a lock; `None` if Redis cannot be asked.
    async fn ask(&self, script: &Script, lock: &Lock, arguments: &[u64]) -> Option<i64> {
        let known = {
            let state = self.state.lock();
            if state.failed_at.is_some_and(|at| at.elapsed() < REST) {
                return None;
            }
            state.connection.clone()
        };
        // One slot of a cluster has both.
        let name = format!("{}:lock", self.prefix.of_product(lock.product));
        let mut call = script.prepare_invoke();
        call.key(&name).key(format!("{name}:waiting")).arg(&lock.value).arg(arguments);
        let answer = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            call.invoke_async(&mut connection).await
        };
        match answer.await {
            Ok(answer) => {
                if self.state.lock().failed_at.take().is_some() {
                    tracing::info!("workers take locks in Redis again");
                }
                Some(answer)
            }
            Err(error) => {
                self.note_failure(&error);
                None
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(ANSWER_MAX));
        let client = redis::Client::open(self.url.as_str())?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        self.state.lock().connection = Some(connection.clone());
        Ok(connection)
    }

    fn note_failure(&self, error: &RedisError) {
        let mut state = self.state.lock();
        // Whatever was wrong: the next one is made anew.
        state.connection = None;
        if state.failed_at.replace(Instant::now()).is_none() {
            tracing::warn!(%error, "Redis cannot be asked for locks; workers go on without, which is as safe");
        }
    }
}
