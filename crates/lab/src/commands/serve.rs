//! `yoink-lab serve`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::show;
use crate::cli::ServeArgs;
use crate::generations::{self, Goods};
use crate::stage::{Given, Servers};

/// Serves the four generations until it is told to end.
///
/// # Errors
/// A server does not start, or the address is taken.
pub async fn serve(args: ServeArgs) -> Result<ExitCode> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; another --listen may do", args.listen))?;
    let given = Given { postgres: args.postgres, redis: args.redis, ..Given::default() };
    let mut servers = Servers::new(given);
    let goods = Goods { products: args.product, units: args.units };
    let served = serve_generations(listener, &mut servers, &goods).await;
    servers.clear().await.and(served)?;
    Ok(ExitCode::SUCCESS)
}

async fn serve_generations(listener: TcpListener, servers: &mut Servers, goods: &Goods) -> Result<()> {
    let address = listener.local_addr()?;
    let router = generations::open(servers, goods).await?;
    show(&format!("listening on http://{address}"))?;
    show(
        "POST /api/v1/buy to /api/v4/buy with {\"userId\":1,\"productId\":1}; GET /health, /metrics. Ctrl-C ends it.",
    )?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        served = generations::serve(listener, router) => served,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}
