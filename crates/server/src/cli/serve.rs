//! `yoink` and `yoink serve`: from settings to a running server, and down again.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use yoink_engine::Engine;

use super::args::ServeArgs;
use super::banner::{Banner, KeyLine, Servers, Store};
use super::{admin_key, api_client, demo, logging, process};
use crate::config::{Config, DurabilityName, EngineName, Secret};

/// What a second SIGINT or SIGTERM ends with, as a shell would report the first.
const CODE_INTERRUPTED: i32 = 130;
/// How long delivery may catch up at the end. Together with `config::CLOSING_MS_MAX` it fits into the 10 s that process
/// managers give.
pub(super) const CATCH_UP: Duration = Duration::from_secs(4);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Bare `yoink`: development mode, with something to buy.
    Demo,
    /// `yoink serve`.
    Serve,
}

/// Serves until told to stop.
pub(super) fn run(args: &ServeArgs, start: Start) -> anyhow::Result<ExitCode> {
    process::harden();
    let mut flags = args.layer();
    if start == Start::Demo {
        flags.dev = Some(true);
    }
    let mut config = Config::load(flags, args.process.config.as_deref())?;
    config.check()?;
    logging::init(&config.log)?;
    if process::is_root() && !config.dev {
        tracing::warn!("running as root; give yoink a user of its own that owns only the data folder");
    }
    let shutdown = CancellationToken::new();
    watch_signals(shutdown.clone())?;
    let engine = open(&config)?;
    let served = serve(&engine, &mut config, start, shutdown);
    tracing::info!("closing");
    engine.close_blocking(CATCH_UP);
    served?;
    tracing::info!("closed; nothing accepted was lost");
    Ok(ExitCode::SUCCESS)
}

fn open(config: &Config) -> anyhow::Result<Engine> {
    if config.engine == EngineName::Embedded {
        return Ok(Engine::open(config.engine_options())?);
    }
    if config.durability == DurabilityName::Relaxed {
        tracing::warn!(
            "durability is relaxed: a crash of Redis or PostgreSQL may forget accepted orders; every answer says so"
        );
    }
    if config.workers == 0 {
        tracing::info!("no workers here: without `yoink worker` elsewhere nothing is sold");
    }
    open_on_servers(config, config.workers)
}

/// Opens the engine on servers that was asked for, with so many workers.
pub(super) fn open_on_servers(config: &Config, workers: usize) -> anyhow::Result<Engine> {
    match config.engine {
        EngineName::Rabbitmq => Ok(Engine::open_rabbit(config.rabbit_options(workers)?)?),
        EngineName::Redis | EngineName::Embedded => Ok(Engine::open_redis(config.redis_options(workers)?)?),
    }
}

fn serve(
    engine: &Engine,
    config: &mut Config,
    start: Start,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut kept = None;
    if config.dev && config.admin_key.is_none() && config.engine == EngineName::Embedded {
        kept = Some(admin_key::find_or_make(&config.data)?);
        config.admin_key.clone_from(&kept);
    }
    if start == Start::Demo {
        api_client::runtime()?.block_on(demo::open_product(engine))?;
    }
    let settings = config.settings()?;
    let on_ready = |listen| print_banner(engine, config, listen, kept.as_ref());
    Ok(crate::serve(engine.clone(), settings, on_ready, shutdown)?)
}

fn store<'a>(engine: &Engine, config: &'a Config) -> Store<'a> {
    match Servers::of(config, config.workers) {
        Some(servers) => Store::Servers(servers),
        None => Store::Folder {
            path: &config.data,
            events: engine.last_seq(),
            opened_in: Duration::try_from_secs_f64(engine.recovery().seconds).unwrap_or_default(),
        },
    }
}

fn print_banner(engine: &Engine, config: &Config, listen: SocketAddr, kept: Option<&Secret>) {
    let products = engine.storefront().products();
    let banner = Banner {
        listen,
        admin_listen: config.admin_listen,
        store: store(engine, config),
        durability: engine.durability(),
        key: config.dev.then(|| kept.map_or(KeyLine::Given, |key| KeyLine::Kept(key.expose()))),
        products: &products,
    };
    // A server whose standard output is gone serves on.
    std::io::stdout().lock().write_all(banner.to_string().as_bytes()).ok();
}

/// The first SIGTERM or SIGINT begins the way down; the second ends the process where it stands, which loses nothing
/// that was accepted.
pub(super) fn watch_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let runtime = api_client::runtime()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen for signals");
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let watch = move || {
        runtime.block_on(async {
            for count in 1_u32.. {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if count > 1 {
                    std::process::exit(CODE_INTERRUPTED);
                }
                tracing::info!(signal = name, "stopping; once more ends it at once");
                shutdown.cancel();
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).context("cannot start a thread")?;
    Ok(())
}
