//! What [`crate::serve`] needs to know, already checked: no text, no files, no environment.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use ipnet::IpNet;

/// Everything the edge can be told. `Settings::default()` listens on a free loopback port, in [`Mode::Guarded`]
/// without any key: nobody can buy. Change what you need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where buyers (and, without `admin_listen`, operators) connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where operators connect; with it, `listen` answers 404 to every route of operators and to `/metrics`.
    pub admin_listen: Option<SocketAddr>,
    /// Threads that serve, each with its own listener; 0 takes one per core.
    pub threads: usize,
    /// What is served.
    pub role: Role,
    /// Who may use the routes of buyers.
    pub mode: Mode,
    /// The API keys, hashed.
    pub keys: Vec<ApiKey>,
    /// A key with every scope, hashed.
    pub admin_key: Option<KeyHash>,
    /// How customer tokens are checked; `None` accepts none.
    pub jwt: Option<JwtSettings>,
    /// Networks whose `X-Forwarded-For` is believed; none ignores the header.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may ask how often.
    pub rate_limits: RateLimits,
    /// Whether a purchase without `Idempotency-Key` is refused.
    pub idempotency_key: IdempotencyKeyRule,
    /// The largest request body, in bytes.
    pub body_bytes_max: usize,
    /// The most header lines of a request.
    pub headers_max: usize,
    /// The most bytes of a request's head, at least 8192.
    pub header_bytes_max: usize,
    /// How long a request's head may take to arrive.
    pub header_read_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a client may take to read an answer, or any part of a stream.
    pub write_timeout: Duration,
    /// Open connections of the whole process.
    pub connections_max: usize,
    /// Open connections of one address (IPv6: of one /64); `None` does not limit them.
    pub connections_per_address_max: Option<usize>,
    /// Requests being answered by the whole process; more are told 503 `overloaded`.
    pub in_flight_max: usize,
    /// How long connections are still accepted after the shutdown began, while `/readyz` says 503 already, so that a
    /// load balancer has the time to notice.
    pub drain_delay: Duration,
    /// How long the drain waits for open requests after that.
    pub drain_timeout: Duration,
    /// Whether each request writes a line at debug level.
    pub request_log: RequestLog,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_listen: None,
            threads: 0,
            role: Role::Shop,
            mode: Mode::Guarded,
            keys: Vec::new(),
            admin_key: None,
            jwt: None,
            trusted_proxies: Vec::new(),
            rate_limits: RateLimits::default(),
            idempotency_key: IdempotencyKeyRule::Optional,
            body_bytes_max: 4_096,
            headers_max: 64,
            header_bytes_max: 8_192,
            header_read_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            connections_per_address_max: None,
            in_flight_max: 50_000,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(4),
            request_log: RequestLog::On,
        }
    }
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The whole API.
    Shop,
    /// What tells how the process is: `/metrics`, `/livez` and `/readyz`.
    Worker,
}

/// Who may use the routes of buyers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everybody; routes of operators still need a key with `admin`. For loopback only.
    Dev,
    /// Holders of an API key or a customer token.
    Guarded,
}

/// Whether purchases must carry an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotencyKeyRule {
    /// They may.
    Optional,
    /// Without one a purchase is 400.
    Required,
}

/// Whether each request writes a line at debug level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLog {
    /// It does.
    On,
    /// It does not, whatever the log level.
    Off,
}

/// An API key as it is kept: its name for the logs, its hash and what it opens.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// What people call it; appears in logs.
    pub name: String,
    /// The hash of the key.
    pub hash: KeyHash,
    /// What it opens.
    pub scopes: Scopes,
}

/// SHA-256 of a key. Keys are long and random, so a fast hash is enough.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a key as it is sent in `Authorization: Bearer KEY`.
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, key.as_bytes()).as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// A hash kept as bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A hash kept as 64 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let start = index * 2;
            *byte = u8::from_str_radix(text.get(start..start + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The hash as 64 lower-case hexadecimal digits, fit for a configuration file.
    pub fn to_hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Whether both are of the same key, in a time that does not tell how much of them agrees.
    pub fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Buying, and cancelling what was bought, for any customer: the shop's own back end.
    Buy,
    /// Reading any order.
    OrdersRead,
    /// The routes of operators.
    Admin,
    /// `GET /metrics`.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Buy, Self::OrdersRead, Self::Admin, Self::Metrics];

    /// The scope's name in configuration and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::OrdersRead => "orders:read",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }

    /// The scope with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Buy => 1,
            Self::OrdersRead => 2,
            Self::Admin => 4,
            Self::Metrics => 8,
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// How customer tokens (JWT, HS256 only) are checked. `exp`, `nbf`, `aud`, `kid` and `sub` must be there.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// The secrets, each under the `kid` that names it; two of them make a rotation.
    pub secrets: Vec<JwtSecret>,
    /// What `aud` must be.
    pub audience: String,
    /// What `iss` must be; `None` does not look at it.
    pub issuer: Option<String>,
}

/// A secret and its name. `Debug` shows the name only.
#[derive(Clone)]
pub struct JwtSecret {
    /// The `kid` that selects it.
    pub kid: String,
    /// The secret, at least 32 bytes.
    pub secret: Vec<u8>,
}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSecret").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Who may ask how often. A replay of an accepted request is never refused.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Purchases of one customer.
    pub per_customer: Option<Policy>,
    /// Purchases from one address (IPv6: one /64).
    pub per_address: Option<Policy>,
    /// Purchases from one network (IPv4: one /24; IPv6: one /48).
    pub per_network: Option<Policy>,
    /// Purchases of one customer, and from one address, through the compatible `/purchase`.
    pub purchase_compat: Option<Policy>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            per_customer: None,
            per_address: None,
            per_network: None,
            purchase_compat: Some(Policy { requests: 5, window_s: 60 }),
        }
    }
}

/// `requests` at once, and then one more every `window_s / requests` seconds. 0 in either refuses to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many.
    pub requests: u32,
    /// In how many seconds.
    pub window_s: u32,
}
