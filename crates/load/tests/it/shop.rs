//! A small real HTTP server that sells, rightly or wrongly. The storm must tell which.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What is wrong with a shop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Sells so many units that it does not have, and hides it in its stock figures.
    OversellsSecretly(u64),
    /// Sells so many units that it does not have, and its stock figures show it.
    OversellsOpenly(u64),
    /// Answers 404 for every tenth order that it accepted.
    ForgetsOrders,
    /// Shows every tenth order as another customer's.
    MixesCustomersUp,
    /// Gives every order to two customers.
    OneIdForTwo,
    /// Ignores idempotency keys.
    IgnoresKeys,
    /// Accepts, and closes the connection instead of answering, for every fifth purchase.
    DropsAfterAccepting,
    /// Accepts, and answers 503 with an unknown outcome, for every fifth purchase.
    UnknownAfterAccepting,
    /// Says that it is sold out while it still has this many units.
    KeepsBack(u64),
    /// Its stock does not add up.
    LosesUnits(i64),
    /// Closes the connection after every answer.
    ClosesConnections,
    /// Answers nobody during the second half of every period.
    Stalls { period: Duration, stall: Duration },
    /// Says 500 to everything that is bought.
    Breaks,
    /// Says that the customer is too fast, after five. The limit is right; `POST /purchase` should have it.
    LimitsPurchases,
    /// Limits too, but says yes to `POST /purchase` and stores nothing.
    StoresNothing,
    /// Limits too, and stores orders without taking their units from the stock.
    SellsWithoutCounting,
    /// Limits too, and every third purchase is for twice as much as was asked.
    DoublesEveryThird,
    /// Limits too, and answers this to `GET /v1/orders`.
    HidesLists(u16),
    /// Says 202 to everybody and decides when it is asked a second time; keeps back so many units.
    DecidesLater(u64),
    /// Limits too, and every listed order is `cancelled`, its unit back in stock.
    CancelsAll,
    /// Limits too, and the list is empty the first few times that it is read.
    ListsLate(u64),
}

/// What a shop has seen.
#[derive(Debug, Default)]
pub struct Books {
    pub stocked: u64,
    pub sold: u64,
    /// By (customer, key).
    pub by_key: HashMap<(String, String), String>,
    /// Customer and quantity by order id.
    pub orders: HashMap<String, (String, u64)>,
    pub purchases: u64,
    /// Times that a list of orders was read.
    pub lists: u64,
    pub time_requests: u64,
    pub connections: u64,
    pub created_products: u64,
    /// The id that orders carry.
    pub product: String,
    pub authorizations: Vec<String>,
    /// Orders that got nothing, and orders that were looked at.
    rejected: HashSet<String>,
    looked_at: HashSet<String>,
    next_id: u64,
}

/// A running shop; ends when it is dropped.
pub struct Shop {
    pub address: SocketAddr,
    pub books: Arc<Mutex<Books>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Shop {
    pub fn open(units: u64, fault: Fault) -> Shop {
        Shop::with_latency(units, fault, Duration::ZERO)
    }

    pub fn with_latency(units: u64, fault: Fault, latency: Duration) -> Shop {
        let books =
            Arc::new(Mutex::new(Books { stocked: units, product: "1".to_owned(), ..Books::default() }));
        let (stop, stopped) = oneshot::channel();
        let (opened, address) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::clone(&books);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                opened.send(listener.local_addr().unwrap()).unwrap();
                let keeper = Keeper { books: shared, fault, latency, opened_at: Instant::now() };
                tokio::select! {
                    _ = stopped => {}
                    () = keeper.serve(listener) => {}
                }
            });
        });
        Shop { address: address.recv().unwrap(), books, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[derive(Clone)]
struct Keeper {
    books: Arc<Mutex<Books>>,
    fault: Fault,
    latency: Duration,
    opened_at: Instant,
}

type Reply = Response<Full<Bytes>>;

fn reply(status: u16, body: Value) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn problem(status: u16, kind: &str) -> Reply {
    reply(status, json!({ "type": format!("/problems/{kind}"), "title": kind, "status": status }))
}

/// Makes hyper close the connection without an answer.
#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("hung up")
    }
}

impl std::error::Error for HangUp {}

impl Keeper {
    async fn serve(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            stream.set_nodelay(true).unwrap();
            self.books.lock().unwrap().connections += 1;
            let keeper = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let keeper = keeper.clone();
                    async move { keeper.answer(request).await }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Reply, HangUp> {
        let (parts, body) = request.into_parts();
        let body: Value = match body.collect().await {
            Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            Err(_) => return Err(HangUp),
        };
        if let Some(value) = parts.headers.get("authorization") {
            self.books.lock().unwrap().authorizations.push(value.to_str().unwrap().to_owned());
        }
        let path = parts.uri.path();
        let key = parts.headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
        match (&parts.method, path) {
            (&Method::POST, "/v1/orders") => {
                self.wait().await;
                self.buy(&body["customer_id"], &body, key).map(|reply| self.closing(reply))
            }
            (&Method::POST, "/purchase") => Ok(self.limited_purchase(&body, key)),
            (&Method::GET, "/v1/orders") => Ok(self.list(parts.uri.query().unwrap())),
            (&Method::GET, "/v1/time") => {
                self.books.lock().unwrap().time_requests += 1;
                Ok(reply(200, json!({})))
            }
            (&Method::POST, "/v1/admin/products") => Ok(self.create_product(&body)),
            (&Method::GET, path) => Ok(self.look(path)),
            _ => Ok(problem(404, "not-found")),
        }
    }

    fn closing(&self, mut reply: Reply) -> Reply {
        if self.fault == Fault::ClosesConnections {
            reply.headers_mut().insert("connection", "close".parse().unwrap());
        }
        reply
    }

    async fn wait(&self) {
        if let Fault::Stalls { period, stall } = self.fault {
            let within = self.opened_at.elapsed().as_micros() % period.as_micros();
            if within >= (period - stall).as_micros() {
                tokio::time::sleep(period - Duration::from_micros(within as u64)).await;
            }
        }
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    fn buy(&self, customer: &Value, body: &Value, key: Option<String>) -> Result<Reply, HangUp> {
        let mut books = self.books.lock().unwrap();
        books.purchases += 1;
        let customer = customer.as_str().unwrap().to_owned();
        let quantity = body["quantity"].as_u64().unwrap();
        let key = (customer.clone(), key.unwrap());
        if self.fault != Fault::IgnoresKeys
            && let Some(id) = books.by_key.get(&key)
        {
            let mut replay = order(202, id, &books.product, (&customer, quantity));
            replay.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
            return Ok(replay);
        }
        let capacity = match self.fault {
            Fault::OversellsSecretly(extra) | Fault::OversellsOpenly(extra) => books.stocked + extra,
            Fault::KeepsBack(kept) | Fault::DecidesLater(kept) => books.stocked - kept,
            Fault::Breaks => return Ok(reply(500, json!({}))),
            _ => books.stocked,
        };
        let fits = books.sold + quantity <= capacity;
        if !fits && !matches!(self.fault, Fault::DecidesLater(_)) {
            return Ok(problem(409, "sold-out"));
        }
        books.sold += if fits { quantity } else { 0 };
        books.next_id += 1;
        let number = if self.fault == Fault::OneIdForTwo { books.next_id.div_ceil(2) } else { books.next_id };
        let id = format!("order-{number}");
        books.by_key.insert(key, id.clone());
        if !fits {
            books.rejected.insert(id.clone());
        }
        books.orders.entry(id.clone()).or_insert((customer.clone(), quantity));
        match self.fault {
            Fault::DropsAfterAccepting if number.is_multiple_of(5) => Err(HangUp),
            Fault::UnknownAfterAccepting if number.is_multiple_of(5) => {
                let mut unknown = problem(503, "outcome-unknown");
                unknown.headers_mut().insert("order-outcome", "unknown".parse().unwrap());
                Ok(unknown)
            }
            _ => Ok(order(202, &id, &books.product, (&customer, quantity))),
        }
    }

    /// `POST /purchase` with its limit of five.
    fn limited_purchase(&self, body: &Value, key: Option<String>) -> Reply {
        let mut books = self.books.lock().unwrap();
        books.purchases += 1;
        let customer = body["userId"].as_str().unwrap().to_owned();
        let key = (customer.clone(), key.unwrap());
        let queued = || reply(200, json!({ "status": "queued" }));
        if books.by_key.contains_key(&key) {
            return queued();
        }
        if self.fault != Fault::None && books.purchases > 5 {
            return reply(429, json!({ "error": "Too many requests" }));
        }
        if self.fault == Fault::StoresNothing {
            return queued();
        }
        let mut quantity = body["quantity"].as_u64().unwrap();
        books.next_id += 1;
        if self.fault == Fault::DoublesEveryThird && books.next_id.is_multiple_of(3) {
            quantity *= 2;
        }
        if !matches!(self.fault, Fault::SellsWithoutCounting | Fault::CancelsAll) {
            books.sold += quantity;
        }
        let id = format!("order-{}", books.next_id);
        books.by_key.insert(key, id.clone());
        books.orders.insert(id, (customer, quantity));
        queued()
    }

    /// `GET /v1/orders` in pages of two, so that every reader has to turn them.
    fn list(&self, query: &str) -> Reply {
        let mut books = self.books.lock().unwrap();
        books.lists += 1;
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap();
        let after: u64 = field("after=").parse().unwrap();
        let mut found: Vec<(u64, Value)> = books
            .orders
            .iter()
            .filter(|(_, (customer, _))| customer == field("customer_id="))
            .map(|(id, (customer, quantity))| {
                let number = id.strip_prefix("order-").unwrap().parse().unwrap();
                (number, order_body(id, &books.product, (customer, *quantity)))
            })
            .filter(|(number, _)| *number > after)
            .collect();
        found.sort_by_key(|(number, _)| *number);
        match self.fault {
            Fault::HidesLists(status) => return problem(status, "hidden"),
            Fault::ListsLate(times) if books.lists <= times => found.clear(),
            Fault::CancelsAll => found.iter_mut().for_each(|(_, order)| order["status"] = "cancelled".into()),
            _ => {}
        }
        let next_after = (found.len() > 2).then(|| found[1].0);
        let orders: Vec<Value> = found.into_iter().take(2).map(|(_, order)| order).collect();
        reply(200, json!({ "orders": orders, "next_after": next_after }))
    }

    fn create_product(&self, body: &Value) -> Reply {
        let mut books = self.books.lock().unwrap();
        books.created_products += 1;
        books.stocked = body["stock"].as_u64().unwrap();
        books.sold = 0;
        books.product = "77".to_owned();
        reply(201, json!({ "id": "77" }))
    }

    fn look(&self, path: &str) -> Reply {
        let mut books = self.books.lock().unwrap();
        if let Some(id) = path.strip_prefix("/v1/orders/") {
            if matches!(self.fault, Fault::DecidesLater(_)) && books.looked_at.insert(id.to_owned()) {
                return reply(200, json!({ "id": id, "status": "queued" }));
            }
            return self.look_at_order(&books, id);
        }
        match path {
            "/v1/products/1" | "/v1/products/77" => self.look_at_product(&books),
            _ => problem(404, "not-found"),
        }
    }

    fn look_at_order(&self, books: &Books, id: &str) -> Reply {
        let tenth = id.ends_with('0');
        match books.orders.get(id) {
            Some(_) if self.fault == Fault::ForgetsOrders && tenth => problem(404, "not-found"),
            Some((_, quantity)) if self.fault == Fault::MixesCustomersUp && tenth => {
                order(200, id, &books.product, ("somebody-else", *quantity))
            }
            Some((customer, quantity)) if books.rejected.contains(id) => {
                let mut order = order_body(id, &books.product, (customer, *quantity));
                (order["status"], order["reason"]) = ("rejected".into(), "sold-out".into());
                reply(200, order)
            }
            Some((customer, quantity)) => order(200, id, &books.product, (customer, *quantity)),
            None => problem(404, "not-found"),
        }
    }

    fn look_at_product(&self, books: &Books) -> Reply {
        let (stocked, mut sold) = (books.stocked as i64, books.sold as i64);
        if matches!(self.fault, Fault::OversellsSecretly(_)) {
            sold = sold.min(stocked);
        }
        let missing = if let Fault::LosesUnits(units) = self.fault { units } else { 0 };
        let available = stocked - sold - missing;
        reply(
            200,
            json!({
                "id": "1", "name": "Test", "price": { "amount": 100, "currency": "EUR" },
                "stock": available,
                "figures": { "stocked": stocked, "available": available, "held": 0, "sold": sold, "withheld": 0 },
                "starts_at": null, "ends_at": null, "limit_per_customer": null, "max_per_order": 10, "paused": false,
            }),
        )
    }
}

fn order(status: u16, id: &str, product: &str, bought: (&str, u64)) -> Reply {
    reply(status, order_body(id, product, bought))
}

fn order_body(id: &str, product: &str, (customer, quantity): (&str, u64)) -> Value {
    json!({
        "id": id, "seq": 1, "status": "accepted", "customer_id": customer, "product_id": product,
        "quantity": quantity, "unit_price": { "amount": 100, "currency": "EUR" },
        "accepted_at": "2026-01-05T10:00:00.123456Z",
    })
}
