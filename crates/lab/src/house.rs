//! Who sells in a run: a shop of the lab's own, or the real `yoink`. The scene and the audit treat both alike.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tokio::task::block_in_place;
use yoink_testkit::Client;

use crate::books::{Books, Count, read_orders};
use crate::catalogue::{Entry, Seller, Shelf};
use crate::crowd::Answers;
use crate::shop::{Addresses, TraceReader, stock_key};
use crate::stage::{DRAIN_MAX, Servers, ShopCommand, ShopProcess, connect, open_books, own_program};
use crate::yoink::YoinkShop;

/// What is sold where.
#[derive(Clone, Debug)]
pub struct Opening {
    /// By which strategy or engine.
    pub entry: Entry,
    /// The servers.
    pub addresses: Addresses,
    /// A name that no other run has.
    pub run: String,
    /// The products.
    pub products: Vec<String>,
    /// Units of each.
    pub units: u64,
    /// Where this run keeps its files.
    pub folder: PathBuf,
    /// Where the run's events are written down.
    pub trace: PathBuf,
}

/// Whoever sells.
#[derive(Debug)]
pub enum House {
    /// A shop of the lab's.
    Lab(Box<LabShop>),
    /// One of Yoink's engines.
    Yoink(Box<YoinkShop>),
}

impl House {
    /// Puts the products on the shelf and opens.
    ///
    /// # Errors
    /// It does not open.
    pub async fn open(opening: Opening, servers: &Servers) -> Result<House> {
        match opening.entry.seller {
            Seller::Strategy { shelf, .. } => Ok(House::Lab(Box::new(LabShop::open(opening, shelf).await?))),
            Seller::Engine(engine) => {
                let shop = block_in_place(|| YoinkShop::open(engine, opening, &servers.yoink()?))?;
                Ok(House::Yoink(Box::new(shop)))
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            House::Lab(shop) => shop.process.url(),
            House::Yoink(shop) => shop.url(),
        }
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        match self {
            House::Lab(shop) => shop.process.client(),
            House::Yoink(shop) => shop.client(),
        }
    }

    /// Opens it again if it has died.
    ///
    /// # Errors
    /// It does not open.
    pub fn keep_open(&mut self) -> Result<()> {
        match self {
            House::Lab(shop) => shop.process.keep_open(),
            House::Yoink(shop) => shop.keep_open(),
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        match self {
            House::Lab(shop) => shop.process.kill(),
            House::Yoink(shop) => shop.kill(),
        }
    }

    /// Units that it says to have taken from the shelf so far.
    ///
    /// # Errors
    /// It does not say.
    pub fn taken(&mut self) -> Result<u64> {
        match self {
            House::Lab(shop) => shop.taken(),
            House::Yoink(shop) => shop.taken(),
        }
    }

    /// Resident memory of its process, in MiB; `None` if it does not run.
    #[must_use]
    pub fn memory_mib(&self) -> Option<f64> {
        let bytes = match self {
            House::Lab(shop) => shop.process.resident_bytes(),
            House::Yoink(shop) => shop.resident_bytes(),
        };
        bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
    }

    /// Waits until nothing is under way any more, for as long as anybody would. `answers` are what the crowd was told.
    ///
    /// # Errors
    /// It does not open again.
    pub fn drain(&mut self, answers: &Answers) -> Result<()> {
        match self {
            House::Lab(shop) => match shop.process.drain()? {
                0 => Ok(()),
                // What is still under way is neither lost nor stuck, so there is no verdict.
                left => bail!("{left} orders were still under way after {DRAIN_MAX:?}"),
            },
            House::Yoink(shop) => shop.drain(answers),
        }
    }

    /// Counts the books.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn books(&mut self, answers: &Answers) -> Result<Books> {
        match self {
            House::Lab(shop) => shop.books().await,
            House::Yoink(shop) => block_in_place(|| shop.books(answers)),
        }
    }
}

/// A shop of the lab's: a process that sells by a strategy, and the stores in which its books are.
#[derive(Debug)]
pub struct LabShop {
    process: ShopProcess,
    shelf: Shelf,
    opening: Opening,
    trace: TraceReader,
    taken: u64,
}

impl LabShop {
    async fn open(opening: Opening, shelf: Shelf) -> Result<LabShop> {
        let url = opening.addresses.postgres.as_deref();
        let url = url.context("every shop of the lab's keeps books in PostgreSQL")?;
        open_books(&connect(url).await?, &opening.entry, &opening.products, opening.units).await?;
        let command = ShopCommand {
            program: own_program()?,
            strategy: opening.entry.name,
            addresses: opening.addresses.clone(),
            run: opening.run.clone(),
            trace: opening.trace.clone(),
            point: opening.entry.point,
        };
        let process = block_in_place(|| ShopProcess::open(command))?;
        let trace = TraceReader::open(&opening.trace).context("cannot read what the shop writes down")?;
        Ok(LabShop { process, shelf, opening, trace, taken: 0 })
    }

    /// By what the shop says in its trace.
    fn taken(&mut self) -> Result<u64> {
        let events = self.trace.read_new()?;
        self.taken += u64::try_from(events.iter().filter(|event| event.unit.is_some()).count())?;
        Ok(self.taken)
    }

    async fn books(&self) -> Result<Books> {
        let url = self.opening.addresses.postgres.as_deref().context("there is no PostgreSQL")?;
        let client = connect(url).await?;
        let mut books = Books { counts: Vec::new(), orders: read_orders(&client).await? };
        for product in &self.opening.products {
            let available = self.available(&client, product).await?;
            books.counts.push(Count { product: product.clone(), stocked: self.opening.units, available });
        }
        Ok(books)
    }

    /// The number that the shop would go on selling from.
    async fn available(&self, client: &tokio_postgres::Client, product: &str) -> Result<i64> {
        if self.shelf == Shelf::Postgres {
            let row = client.query_one("SELECT stock FROM products WHERE id = $1", &[&product]).await?;
            return Ok(i64::from(row.get::<_, i32>(0)));
        }
        let url = self.opening.addresses.redis.as_deref().context("there is no Redis")?;
        let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let count: Option<i64> = redis::cmd("GET").arg(stock_key(product)).query_async(&mut redis).await?;
        Ok(count.unwrap_or(0))
    }
}
