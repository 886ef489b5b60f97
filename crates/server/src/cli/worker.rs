//! `yoink worker`: carries the redis engine's orders to its ledger, or decides what the rabbitmq engine queued. It takes
//! no orders itself.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use super::args::WorkerArgs;
use super::banner::{Servers, reachable};
use super::serve::{CATCH_UP, open_on_servers, watch_signals};
use super::{logging, process};
use crate::config::{Config, EngineName};
use tokio_util::sync::CancellationToken;

/// Works until told to stop.
pub(super) fn run(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    process::harden();
    let mut config = Config::load(args.layer(), args.process.config.as_deref())?;
    config.choose_engine_on_servers();
    let settings = config.worker_settings()?;
    logging::init(&config.log)?;
    let shutdown = CancellationToken::new();
    watch_signals(shutdown.clone())?;
    // Nodes that leave the work to workers say 0, maybe in a file that all of them share.
    let workers = config.workers.max(1);
    let engine = open_on_servers(&config, workers)?;
    let served =
        crate::serve(engine.clone(), settings, |listen| announce(&config, listen, workers), shutdown);
    tracing::info!("closing");
    engine.close_blocking(CATCH_UP);
    served?;
    let place = if config.engine == EngineName::Rabbitmq { "queue" } else { "stream" };
    tracing::info!("closed; what was in hand stays in the {place} for other workers");
    Ok(ExitCode::SUCCESS)
}

fn announce(config: &Config, listen: SocketAddr, workers: usize) {
    let Some(servers) = Servers::of(config, workers) else { return };
    let work = match config.engine {
        EngineName::Rabbitmq => "decides what is queued",
        EngineName::Redis | EngineName::Embedded => "carries orders to the ledger",
    };
    let url = format!("http://{}", reachable(listen));
    let text = format!(
        "Yoink {} {work}.\n\n  watch       {url}/readyz  {url}/metrics\n{servers}\nCtrl-C ends it; nothing is \
         lost.\n",
        env!("CARGO_PKG_VERSION"),
    );
    // A worker whose standard output is gone works on.
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
}
