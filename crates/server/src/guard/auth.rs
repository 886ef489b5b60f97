//! Who asks: nobody in particular, a holder of an API key, or a customer with a token.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use std::sync::Arc;
use yoink_core::CustomerId;

use crate::edge::Core;
use crate::problem::{FORBIDDEN, Problem, UNAUTHORIZED};
use crate::settings::{ApiKey, JwtSettings, KeyHash, Mode, Scope, Scopes, Settings};

/// Clocks of other machines may differ by this much.
const CLOCK_LEEWAY_SECONDS: u64 = 30;
/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anybody; only in [`Mode::Dev`].
    Anyone,
    /// The holder of an API key.
    Key(Scopes),
    /// One customer.
    Customer(CustomerId),
}

impl Caller {
    /// Whether the caller may see and change what belongs to `owner`.
    pub(crate) fn may_act_for(&self, owner: &CustomerId) -> bool {
        match self {
            Self::Anyone | Self::Key(_) => true,
            Self::Customer(customer) => customer == owner,
        }
    }
}

/// Checks keys and tokens.
pub(crate) struct Auth {
    mode: Mode,
    keys: Vec<(KeyHash, Scopes)>,
    tokens: Option<Tokens>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Auth {
    pub(crate) fn new(settings: &Settings) -> Self {
        let named = settings.keys.iter().map(|ApiKey { hash, scopes, .. }| (*hash, *scopes));
        let admin = settings.admin_key.map(|hash| (hash, Scopes::all()));
        Self {
            mode: settings.mode,
            keys: named.chain(admin).collect(),
            tokens: settings.jwt.as_ref().map(Tokens::new),
        }
    }

    /// Who wants to buy, or to change an order. In [`Mode::Dev`] anybody may.
    ///
    /// # Errors
    /// 401 without a valid key or token, 403 with a key that does not open this.
    pub(crate) fn buyer(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.buyer_with(headers, &[Scope::Buy])
    }

    /// Who wants to see one order.
    ///
    /// # Errors
    /// As [`Auth::buyer`].
    pub(crate) fn reader(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.buyer_with(headers, &[Scope::Buy, Scope::OrdersRead])
    }

    /// Who wants to list orders.
    ///
    /// # Errors
    /// As [`Auth::buyer`].
    pub(crate) fn lister(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.buyer_with(headers, &[Scope::OrdersRead])
    }

    /// An operator, in every mode.
    ///
    /// # Errors
    /// 401 without a valid key, 403 with a key without `admin` or a customer's token.
    pub(crate) fn operator(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.identify(headers)? {
            Caller::Key(scopes) if scopes.has(Scope::Admin) => Ok(()),
            _ => Err(forbidden(Scope::Admin)),
        }
    }

    /// Who wants to read metrics. In [`Mode::Dev`] anybody may.
    ///
    /// # Errors
    /// As [`Auth::operator`], for the scope `metrics`.
    pub(crate) fn observer(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.mode == Mode::Dev {
            return Ok(());
        }
        match self.identify(headers)? {
            Caller::Key(scopes) if scopes.has(Scope::Metrics) => Ok(()),
            _ => Err(forbidden(Scope::Metrics)),
        }
    }

    /// A compatible route of operators: open in [`Mode::Dev`], as it was.
    ///
    /// # Errors
    /// As [`Auth::operator`].
    pub(crate) fn operator_unless_dev(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.mode {
            Mode::Dev => Ok(()),
            Mode::Guarded => self.operator(headers),
        }
    }

    fn buyer_with(&self, headers: &HeaderMap, scopes_allowed: &[Scope]) -> Result<Caller, Problem> {
        if self.mode == Mode::Dev {
            // A customer's token still means that customer; anything else opens what is open already.
            let named = match headers.contains_key(header::AUTHORIZATION) {
                true => self.identify(headers).ok(),
                false => None,
            };
            return Ok(named
                .filter(|caller| matches!(caller, Caller::Customer(_)))
                .unwrap_or(Caller::Anyone));
        }
        let caller = self.identify(headers)?;
        match &caller {
            Caller::Key(scopes) if !scopes_allowed.iter().any(|scope| scopes.has(*scope)) => {
                Err(forbidden(scopes_allowed.first().copied().unwrap_or(Scope::Admin)))
            }
            _ => Ok(caller),
        }
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(unauthorized("", "Send Authorization: Bearer KEY."));
        };
        let credential = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, credential)| credential.trim());
        let Some(credential) = credential.filter(|text| text.len() <= TOKEN_BYTES_MAX) else {
            return Err(unauthorized("", "Send Authorization: Bearer KEY."));
        };
        // Only a token has two dots; keys have none.
        let caller = match credential.bytes().filter(|byte| *byte == b'.').count() {
            2 => self.tokens.as_ref().and_then(|tokens| tokens.customer(credential)).map(Caller::Customer),
            _ => self.scopes_of(credential).map(Caller::Key),
        };
        caller.ok_or_else(|| unauthorized(", error=\"invalid_token\"", "The key or token is not valid."))
    }

    fn scopes_of(&self, key: &str) -> Option<Scopes> {
        let hash = KeyHash::of(key);
        // All are compared, so the time does not tell which one is near.
        self.keys.iter().fold(None, |found, (known, scopes)| match known.matches(&hash) {
            true => Some(*scopes),
            false => found,
        })
    }
}

fn unauthorized(error: &str, detail: &'static str) -> Problem {
    let challenge = HeaderValue::from_str(&format!("Bearer realm=\"yoink\"{error}"));
    let challenge = challenge.unwrap_or(HeaderValue::from_static("Bearer"));
    Problem::new(&UNAUTHORIZED, detail).with_header(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden(scope: Scope) -> Problem {
    Problem::new(&FORBIDDEN, format!("This needs a key with the scope {}.", scope.name()))
}

/// Checks customer tokens: HS256 and nothing else, whatever the token says about itself.
struct Tokens {
    keys: Vec<(String, DecodingKey)>,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Tokens {
    fn new(settings: &JwtSettings) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = CLOCK_LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&settings.audience]);
        let mut required = vec!["exp", "nbf", "aud", "sub"];
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let keys = settings.secrets.iter();
        Self {
            keys: keys.map(|secret| (secret.kid.clone(), DecodingKey::from_secret(&secret.secret))).collect(),
            validation,
        }
    }

    fn customer(&self, token: &str) -> Option<CustomerId> {
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let (_, key) = self.keys.iter().find(|(known, _)| *known == kid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok()?.claims;
        CustomerId::parse(&claims.sub).ok()
    }
}

/// Extractor: an operator.
pub(crate) struct Operator;

impl FromRequestParts<Arc<Core>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        core.shared.auth.operator(&parts.headers).map(|()| Self)
    }
}

/// Extractor: somebody who may buy.
pub(crate) struct Buyer(pub(crate) Caller);

impl FromRequestParts<Arc<Core>> for Buyer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        core.shared.auth.buyer(&parts.headers).map(Self)
    }
}
