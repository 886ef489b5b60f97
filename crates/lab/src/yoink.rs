//! The real `yoink` as a shop: started, killed and asked like anybody's server. Its books are what its public API says.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use yoink_testkit::{ADMIN_KEY, Client, Yoink, YoinkProcess, free_port};

use crate::books::{BookedOrder, Books, Count};
use crate::crowd::Answers;
use crate::house::Opening;
use crate::stage::{OPEN_MAX, own_program};

/// How long the ledger may take to have every order.
const DRAIN_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A `yoink serve`, started again on the same data when it has died. Dropped, it is ended.
#[derive(Debug)]
pub struct YoinkShop {
    command: Yoink,
    process: YoinkProcess,
    address: SocketAddr,
    products: Vec<String>,
    units: u64,
}

/// A line of `GET /v1/exports/orders.csv`, as far as it is needed.
#[derive(Deserialize)]
struct Exported {
    id: String,
    status: String,
    customer_id: String,
    product_id: String,
    quantity: i64,
}

impl YoinkShop {
    /// Serves with `engine` by the binary `program`, and puts the products on sale.
    ///
    /// # Errors
    /// It does not open, or refuses a product.
    pub(crate) fn open(engine: &str, opening: Opening, program: &Path) -> Result<YoinkShop> {
        let address = free_port().context("no port is free")?;
        let listen = address.to_string();
        let command = Yoink::new(program).args(["serve", "--dev", "--engine", engine, "--listen", &listen]);
        let addresses = &opening.addresses;
        let mut command = match &addresses.postgres {
            None => command.data(opening.folder.join("data")),
            Some(postgres) => {
                migrate(program, postgres)?;
                command.without_data()
            }
        };
        for (flag, url) in
            [("--postgres", &addresses.postgres), ("--redis", &addresses.redis), ("--amqp", &addresses.amqp)]
        {
            if let Some(url) = url {
                command = command.arg(flag).arg(url);
            }
        }
        let process = start(&command)?;
        let shop = YoinkShop { command, process, address, products: opening.products, units: opening.units };
        shop.put_on_sale()?;
        Ok(shop)
    }

    fn put_on_sale(&self) -> Result<()> {
        for product in &self.products {
            let body = json!({
                "id": product,
                "name": "Flash Sale Item",
                "price": {"amount": 19_999, "currency": "EUR"},
                "stock": self.units,
            });
            let answer = self.client().post("/v1/admin/products", &body)?;
            if answer.status != 201 {
                bail!("yoink refuses to sell {product}: {}", answer.text());
            }
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address).with_key(ADMIN_KEY).with_timeout(Duration::from_secs(5))
    }

    pub(crate) fn keep_open(&mut self) -> Result<()> {
        if self.process.exit_status().is_some() {
            self.process = start(&self.command)?;
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill9();
    }

    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        self.process.resident_bytes()
    }

    pub(crate) fn taken(&self) -> Result<u64> {
        let mut client = self.client();
        let mut taken = 0;
        for product in &self.products {
            taken += figure(&mut client, product, "sold")?;
        }
        Ok(taken)
    }

    /// Waits until the ledger knows every order that somebody was told of, and has as many units sold as the products'
    /// figures say. What is missing after a while is missing.
    pub(crate) fn drain(&mut self, answers: &Answers) -> Result<()> {
        let promised: BTreeSet<&str> =
            answers.told.iter().filter(|told| told.is_accepted).map(|told| told.key.as_str()).collect();
        let begun = Instant::now();
        while begun.elapsed() < DRAIN_MAX {
            self.keep_open()?;
            // A server that has just been started again may have to be asked twice.
            if let (Ok(books), Ok(taken)) = (self.books(answers), self.taken()) {
                let known: BTreeSet<&str> = books.orders.iter().map(|order| order.key.as_str()).collect();
                let live = books.orders.iter().filter(|order| order.is_live);
                let sold: i64 = live.map(|order| order.quantity).sum();
                if promised.is_subset(&known) && u64::try_from(sold) == Ok(taken) {
                    return Ok(());
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub(crate) fn books(&self, answers: &Answers) -> Result<Books> {
        let mut client = self.client();
        let mut books = Books { counts: Vec::new(), orders: read_orders(&mut client, &answers.keys())? };
        for product in &self.products {
            let available = i64::try_from(figure(&mut client, product, "available")?)?;
            books.counts.push(Count { product: product.clone(), stocked: self.units, available });
        }
        Ok(books)
    }
}

/// Every order of the ledger.
fn read_orders(client: &mut Client, key_of: &BTreeMap<&str, &str>) -> Result<Vec<BookedOrder>> {
    let answer = client.get("/v1/exports/orders.csv").context("yoink does not export its orders")?;
    if answer.status != 200 {
        bail!("yoink does not export its orders: {}", answer.text());
    }
    parse_orders(&answer.text(), key_of)
}

/// A buyer buys once, so the customer names the request.
fn parse_orders(text: &str, key_of: &BTreeMap<&str, &str>) -> Result<Vec<BookedOrder>> {
    let mut orders = Vec::new();
    for row in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let row: Exported = row.context("a line of the export cannot be read")?;
        let key = key_of.get(row.customer_id.as_str()).copied().unwrap_or(&row.customer_id);
        orders.push(BookedOrder {
            id: row.id,
            key: key.to_owned(),
            customer: row.customer_id,
            product: row.product_id,
            quantity: row.quantity,
            is_live: matches!(row.status.as_str(), "accepted" | "confirmed"),
        });
    }
    Ok(orders)
}

/// One of a product's figures; 0 of a product that the server has forgotten.
fn figure(client: &mut Client, product: &str, name: &str) -> Result<u64> {
    let answer = client.get(&format!("/v1/products/{product}"))?;
    if answer.status == 404 {
        return Ok(0);
    }
    let figure = answer.json().pointer(&format!("/figures/{name}")).and_then(Value::as_u64);
    figure.with_context(|| format!("yoink does not say what is {name} of {product}: {}", answer.text()))
}

fn start(command: &Yoink) -> Result<YoinkProcess> {
    let mut process = command.spawn()?;
    process.wait_ready(OPEN_MAX)?;
    Ok(process)
}

/// Makes the tables of the ledger.
fn migrate(program: &Path, postgres: &str) -> Result<()> {
    let migrated = Command::new(program)
        .args(["migrate", "--postgres", postgres])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !migrated.status.success() {
        bail!("yoink migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
    }
    Ok(())
}

/// A `yoink` program in one line: where it is, what it says of its version, and how old its file is.
pub(crate) fn described(program: &Path) -> String {
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let version = match said {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        _ => "which does not tell its version".to_owned(),
    };
    let written = program.metadata().and_then(|file| file.modified());
    let age = written.ok().and_then(|written| written.elapsed().ok());
    let age = age.map_or_else(String::new, |age| format!(", written {} minutes ago", age.as_secs() / 60));
    format!("{} ({version}{age})", program.display())
}

/// The `yoink` program beside the lab's own. Where it is missing and the lab was started by cargo, it is built first.
///
/// # Errors
/// There is none, and it cannot be built.
pub(crate) fn find_program() -> Result<PathBuf> {
    let own = own_program()?;
    let folder = own.parent().context("the lab does not know its own folder")?;
    let program = folder.join("yoink");
    if program.exists() {
        return Ok(program);
    }
    let Some(cargo) = env::var_os("CARGO") else {
        bail!("there is no {}: build it with `cargo build --release`, or give --yoink", program.display());
    };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "yoink-server"]);
    if !folder.ends_with("debug") {
        build.arg("--release");
    }
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
        build.arg("--manifest-path").arg(Path::new(&package).join("Cargo.toml"));
    }
    let status =
        build.stdout(Stdio::null()).status().context("cannot start cargo in order to build yoink")?;
    if !status.success() || !program.exists() {
        bail!("cargo could not build {}: {status}", program.display());
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_read_and_what_was_rejected_is_known_but_not_live() {
        let text = "id,seq,status,customer_id,product_id,quantity,unit_price_amount,unit_price_currency,\
                    accepted_at,ended_at,reason\r\n\
                    o1,1,confirmed,ann,p,2,1,EUR,t,,\r\n\
                    o2,0,rejected,bob,p,1,1,EUR,t,t,sold-out\r\n\
                    o3,3,accepted,somebody,p,1,1,EUR,t,,\r\n\
                    o4,4,failed,cas,p,1,1,EUR,t,t,\"no, never\"\r\n";
        let key_of = BTreeMap::from([("ann", "ka"), ("bob", "kb"), ("cas", "kc")]);
        let orders = parse_orders(text, &key_of).unwrap();
        let read: Vec<(&str, i64, bool)> =
            orders.iter().map(|order| (order.key.as_str(), order.quantity, order.is_live)).collect();
        assert_eq!(read, [("ka", 2, true), ("kb", 1, false), ("somebody", 1, true), ("kc", 1, false)]);
        let named: Vec<(&str, &str)> =
            orders.iter().map(|order| (order.id.as_str(), order.customer.as_str())).collect();
        assert_eq!(named, [("o1", "ann"), ("o2", "bob"), ("o3", "somebody"), ("o4", "cas")]);
        assert!(parse_orders("id,status\r\no1,confirmed\r\n", &key_of).is_err());
    }
}
