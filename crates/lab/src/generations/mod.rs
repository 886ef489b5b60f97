//! The four generations of the older system behind one door, with its routes, answers and metrics, so that what was
//! written to load it works unchanged.

mod metrics;
mod routes;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use redis::AsyncCommands as _;
use tokio::net::TcpListener;

use crate::catalogue::{self, Needs, Seller};
use crate::shop::{Addresses, Shop, Strategy, Trace, stock_key};
use crate::stage::{Servers, connect, open_books};

pub(crate) use metrics::{Figures, Latencies};

/// The strategies behind `/api/v1/buy` to `/api/v4/buy`.
const STRATEGIES: [&str; 4] = ["naive", "atomic-sql", "redis-sync", "redis-queue"];

/// Everything behind the door.
pub(crate) struct Generations {
    pub(crate) all: Vec<Generation>,
    pub(crate) latencies: Latencies,
    pub(crate) begun: Instant,
}

/// One generation, with books and a shelf of its own.
pub(crate) struct Generation {
    /// 1 to 4.
    pub(crate) version: u8,
    pub(crate) shop: Arc<Shop>,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) products: Vec<String>,
    pub(crate) figures: Figures,
}

/// What is sold.
#[derive(Clone, Debug)]
pub struct Goods {
    /// Ids of the products.
    pub products: Vec<String>,
    /// Units of each, in each generation.
    pub units: u64,
}

/// Opens the four generations on these servers.
///
/// # Errors
/// A server does not start, or a generation cannot begin.
pub async fn open(servers: &mut Servers, goods: &Goods) -> Result<Router> {
    let needs = Needs { postgres: true, redis: Some(&[]), rabbit: false };
    tokio::task::block_in_place(|| servers.start(needs, &[]))?;
    let latencies = metrics::latencies();
    let mut all = Vec::new();
    for (version, name) in (1..).zip(STRATEGIES) {
        let figures = Figures::new(latencies.clone(), version);
        let opened = open_one((version, name), servers, goods, figures).await;
        all.push(opened.with_context(|| format!("generation {version} cannot begin"))?);
    }
    Ok(routes::router(Arc::new(Generations { all, latencies, begun: Instant::now() })))
}

async fn open_one(
    (version, name): (u8, &str),
    servers: &mut Servers,
    goods: &Goods,
    figures: Figures,
) -> Result<Generation> {
    let entry = catalogue::find(name).with_context(|| format!("there is no strategy {name}"))?;
    let Seller::Strategy { open, .. } = entry.seller else { bail!("{name} is sold by yoink itself") };
    let Addresses { postgres, redis, amqp } = servers.addresses(entry.needs, &[]).await?;
    let url = postgres.as_deref().context("there is no PostgreSQL")?;
    open_books(&connect(url).await?, &entry, &goods.products, goods.units).await?;
    // The stock's key is the same in every generation, so each has a database of Redis for itself.
    let redis = match redis {
        Some(url) => Some(shelf_of_its_own(&url, version, &goods.products).await?),
        None => None,
    };
    let addresses = Addresses { postgres, redis, amqp };
    let run = uuid::Uuid::new_v4().simple().to_string();
    let shop = Shop::open(&addresses, run, Trace::nowhere(), None).await?;
    let strategy = open(Arc::clone(&shop)).await?;
    Ok(Generation { version, shop, strategy, products: goods.products.clone(), figures })
}

/// Database number `version` of a Redis, without the stock that an earlier sale may have left there.
async fn shelf_of_its_own(url: &str, version: u8, products: &[String]) -> Result<String> {
    let authority = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url.get(authority..).and_then(|rest| rest.find('/')).map_or(url.len(), |path| authority + path);
    let url = format!("{}/{version}", url.get(..end).unwrap_or(url));
    let mut redis = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    for product in products {
        let _: u64 = redis.del(stock_key(product)).await.context("cannot clear the shelf in Redis")?;
    }
    Ok(url)
}

/// Answers until the process ends.
///
/// # Errors
/// The socket fails.
pub async fn serve(listener: TcpListener, router: Router) -> Result<()> {
    axum::serve(listener, router).await.context("the generations stopped listening")
}
