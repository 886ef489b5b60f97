//! `yoink worker`: carries the redis engine's orders to its ledger, and sells nothing.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use yoink_engine::Engine;

use super::args::WorkerArgs;
use super::banner::{Store, reachable};
use super::serve::{CATCH_UP, watch_signals};
use super::{logging, process};
use crate::config::Config;

/// Works until told to stop.
pub(super) fn run(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    process::harden();
    let config = Config::load(args.layer(), args.config.as_deref())?;
    let settings = config.worker_settings()?;
    logging::init(&config.log)?;
    let shutdown = CancellationToken::new();
    watch_signals(shutdown.clone())?;
    // Nodes that leave the work to workers say 0, maybe in a file that all of them share.
    let workers = config.workers.max(1);
    let engine = Engine::open_redis(config.redis_options(workers)?)?;
    let served =
        crate::serve(engine.clone(), settings, |listen| announce(&config, listen, workers), shutdown);
    tracing::info!("closing");
    engine.close_blocking(CATCH_UP);
    served?;
    tracing::info!("closed; what was in hand stays in the stream for other workers");
    Ok(ExitCode::SUCCESS)
}

fn announce(config: &Config, listen: SocketAddr, workers: usize) {
    let Ok((redis, postgres)) = config.servers() else { return };
    let url = format!("http://{}", reachable(listen));
    let text = format!(
        "Yoink {} carries orders to the ledger.\n\n  watch       {url}/readyz  {url}/metrics\n{}\nCtrl-C ends it; \
         nothing is lost.\n",
        env!("CARGO_PKG_VERSION"),
        Store::Servers { redis, postgres, workers }
    );
    // A worker whose standard output is gone works on.
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
}
