//! `yoink-lab shop`: the process that sells.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;

use crate::catalogue::{self, Seller};
use crate::cli::ShopArgs;
use crate::shop::{Addresses, Shop, Trace, serve};

/// Sells until standard input ends: whoever opened the shop is gone then.
///
/// # Errors
/// The shop cannot be opened.
pub async fn shop(args: ShopArgs) -> Result<ExitCode> {
    let entry = catalogue::find(&args.strategy).context("there is no such strategy")?;
    let Seller::Strategy { open, .. } = entry.seller else { bail!("{} is sold by yoink itself", entry.name) };
    let addresses = Addresses { postgres: args.postgres, redis: args.redis, amqp: args.amqp };
    let trace = Trace::open(&args.trace)?;
    let shop = Shop::open(&addresses, args.run, trace, args.point.as_deref()).await?;
    let strategy = open(std::sync::Arc::clone(&shop)).await.context("the strategy cannot begin")?;
    let listener = TcpListener::bind(args.listen).await.context("cannot listen")?;
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = serve(listener, shop, strategy) => served?,
        _ = end => {}
    }
    Ok(ExitCode::SUCCESS)
}
