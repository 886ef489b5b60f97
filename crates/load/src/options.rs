//! Everything that can be asked of a storm, with defaults that make sense on one's own machine.

use std::path::PathBuf;
use std::time::Duration;

use crate::assertion::Assertion;
use crate::preset::Preset;
use crate::schedule::Stage;

/// What kind of storm to run. Unset options are filled in by the preset, then by the defaults named here.
#[derive(Clone, Debug)]
pub struct StormOptions {
    /// `http://host:port`, optionally with a base path.
    pub target: String,
    /// The product that everybody wants.
    pub product: String,
    /// Units per purchase.
    pub quantity: u32,
    /// Sent as `Authorization: Bearer` with every purchase and look-up, if given.
    pub key: Option<String>,
    /// Used where the storm must do an operator's work: the presets `stress`, `anti-bot` and `idempotency` create their
    /// own product with it. Also sent with look-ups when `key` is not given.
    pub admin_key: Option<String>,
    /// Which of the server's ways to buy is taken.
    pub route: Option<Route>,
    /// A storm that an older system shipped, with its own expectations.
    pub preset: Option<Preset>,
    /// How many buyers there are; 1,000 if not given. In a closed loop also how many are at it at once, up to
    /// `connections_max`.
    pub buyers: Option<u64>,
    /// Purchases in total; as many as buyers if neither this nor `duration` is given. Closed loop only.
    pub requests: Option<u64>,
    /// How long new purchases are begun. Closed loop only.
    pub duration: Option<Duration>,
    /// If not empty the loop is open: buyers arrive at these rates whatever the server does.
    pub stages: Vec<Stage>,
    /// How the arrivals of an open loop are spaced.
    pub arrivals: Arrivals,
    /// Mean pause of a buyer between two purchases in a closed loop, exponentially distributed; zero for none.
    pub think_time: Duration,
    /// Connections used at once. Closed loop: as many as buyers if not given. Open loop: `connections_max`.
    pub concurrency: Option<usize>,
    /// The bound on connections at once. Asking for more is an error, not a silent clamp.
    pub connections_max: usize,
    /// How long one request may take, connecting included.
    pub timeout: Duration,
    /// `GET /v1/time` requests before the storm begins, spread over its connections and never counted. They open the
    /// connections and sell nothing. One per connection if not given; 0 leaves the connections to be opened within the
    /// measurement.
    pub warm_up_requests: Option<u64>,
    /// Who the buyers are.
    pub customers: Option<Customers>,
    /// How many times each purchase is sent in a row under the same idempotency key. 1 is an ordinary storm.
    pub same_key_times: Option<u32>,
    /// Makes names, pauses and random arrivals repeatable. Random if not given; the report names it.
    pub seed: Option<u64>,
    /// Threads that send. 1 or 2 by the size of the storm if not given.
    pub threads: Option<usize>,
    /// Whether every answer is looked up again afterwards.
    pub audit: Audit,
    /// How long the audit waits for an order that is undecided, unreadable or not yet listed; a ledger may be behind.
    pub audit_patience: Duration,
    /// Thresholds such as `p95<50ms`; each is a line of the report, and the storm fails if one does not hold.
    pub asserts: Vec<Assertion>,
    /// What is shown on standard error while the storm runs.
    pub progress: ProgressMode,
    /// Where to write the HTML report with its charts.
    pub html_path: Option<PathBuf>,
    /// Where to write the HDR interval log (`.hlog`).
    pub hdr_path: Option<PathBuf>,
    /// Where to write the charts as single SVG files. Created if it is not there.
    pub svg_dir: Option<PathBuf>,
    /// Where to append every intent before it is sent and every answer when it arrives, as JSON lines.
    pub record_path: Option<PathBuf>,
}

impl Default for StormOptions {
    fn default() -> Self {
        StormOptions {
            target: "http://127.0.0.1:3000".to_owned(),
            product: "1".to_owned(),
            quantity: 1,
            key: None,
            admin_key: None,
            route: None,
            preset: None,
            buyers: None,
            requests: None,
            duration: None,
            stages: Vec::new(),
            arrivals: Arrivals::Even,
            think_time: Duration::ZERO,
            concurrency: None,
            connections_max: 1_000,
            timeout: Duration::from_secs(30),
            warm_up_requests: None,
            customers: None,
            same_key_times: None,
            seed: None,
            threads: None,
            audit: Audit::Full,
            audit_patience: Duration::from_secs(10),
            asserts: Vec::new(),
            progress: ProgressMode::Auto,
            html_path: None,
            hdr_path: None,
            svg_dir: None,
            record_path: None,
        }
    }
}

/// One of the server's ways to buy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/orders`.
    #[default]
    Native,
    /// `POST /orders`, as in Yoink's first generations.
    CompatOrders,
    /// `POST /buy`, as in Yoink and Flash Sale Engine.
    CompatBuy,
    /// `POST /purchase`, as in Flash Sale System. Its answers name no order, so they are looked up by customer.
    CompatPurchase,
}

impl Route {
    /// The path below the target.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Route::Native => "/v1/orders",
            Route::CompatOrders => "/orders",
            Route::CompatBuy => "/buy",
            Route::CompatPurchase => "/purchase",
        }
    }
}

/// Who the buyers of a storm are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Customers {
    /// Every purchase comes from a customer of its own.
    #[default]
    PerPurchase,
    /// There are as many customers as buyers, and they take turns.
    PerBuyer,
    /// One customer buys everything.
    One,
}

/// How the arrivals of an open loop are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances while the rate is steady.
    #[default]
    Even,
    /// As independent people arrive (a Poisson process with the stages' rate).
    Random,
}

/// Whether the storm judges what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audit {
    /// Look every accepted order up again, ask again for every unanswered one, compare the stock before and after.
    #[default]
    Full,
    /// Keep nothing and judge nothing: for measuring speed only. The product need not exist.
    Skip,
}

/// What is shown on standard error while a storm runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// One plain line a second.
    Lines,
    /// Nothing.
    Hidden,
}
