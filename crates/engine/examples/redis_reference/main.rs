//! What the redis engine is held against: `redis_reference REDIS_URL POSTGRES_URL SECONDS ROWS` measures an empty script
//! on the same Redis, over the same client, with as many callers, and a plain `COPY` of as many rows into the same
//! PostgreSQL, and prints one JSON document. `cargo xtask bench --engine redis` runs it; so can anybody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measuring program, not the product"
)]

mod copy;

use std::time::{Duration, Instant};

use redis::Script;
use redis::aio::MultiplexedConnection;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [redis, postgres, seconds, rows] = arguments.as_slice() else {
        panic!("usage: redis_reference REDIS_URL POSTGRES_URL SECONDS ROWS");
    };
    let seconds = Duration::from_secs(seconds.parse().expect("SECONDS is a whole number"));
    let rows: u32 = rows.parse().expect("ROWS is a whole number");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (empty_64, empty_1000, copied) = runtime.block_on(async {
        (
            empty_scripts(redis, 64, seconds).await,
            empty_scripts(redis, 1_000, seconds).await,
            copy::copy(postgres, rows).await,
        )
    });
    println!(
        "{{\"empty_script_per_s_64\":{empty_64:.0},\"empty_script_per_s_1000\":{empty_1000:.0},\
         \"copy_rows_per_s\":{copied:.0}}}"
    );
}

/// Calls per second of a script that does nothing, with `callers` calls under way, on two connections as the engine
/// has one per core.
async fn empty_scripts(url: &str, callers: usize, seconds: Duration) -> f64 {
    let client = redis::Client::open(url).expect("a URL of Redis");
    let mut connections: Vec<MultiplexedConnection> = Vec::new();
    for _ in 0..2 {
        connections.push(client.get_multiplexed_async_connection().await.expect("Redis answers"));
    }
    let script = Script::new("#!lua\nreturn 1");
    let begun = Instant::now();
    let mut running = Vec::new();
    for caller in 0..callers {
        let mut connection = connections.get(caller % 2).expect("there are two").clone();
        let script = script.clone();
        running.push(tokio::spawn(async move {
            let mut calls = 0_u64;
            while begun.elapsed() < seconds {
                let answer: i64 = script.prepare_invoke().invoke_async(&mut connection).await.unwrap();
                calls += u64::try_from(answer).unwrap();
            }
            calls
        }));
    }
    let mut calls = 0;
    for caller in running {
        calls += caller.await.unwrap();
    }
    calls as f64 / begun.elapsed().as_secs_f64()
}
