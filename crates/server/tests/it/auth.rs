//! Who may do what.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use yoink_server::{ApiKey, JwtSecret, JwtSettings, KeyHash, Mode, Scope, Scopes};

use crate::harness::{ADMIN_KEY, Answer, Request, Server};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const OLD_SECRET: &[u8] = b"the secret before it, still accepted!";

fn key_of(scope: Scope) -> String {
    format!("test-key-for-{}-0123456789", scope.name().replace(':', "-"))
}

fn guarded() -> Server {
    Server::start_with(|settings| {
        settings.mode = Mode::Guarded;
        settings.keys = Scope::ALL
            .into_iter()
            .map(|scope| ApiKey {
                name: scope.name().to_owned(),
                hash: KeyHash::of(&key_of(scope)),
                scopes: Scopes::from_iter([scope]),
            })
            .collect();
        let secret = |kid: &str, secret: &[u8]| JwtSecret { kid: kid.to_owned(), secret: secret.to_vec() };
        settings.jwt = Some(JwtSettings {
            secrets: vec![secret("new", SECRET), secret("old", OLD_SECRET)],
            audience: "yoink".to_owned(),
            issuer: Some("shop".to_owned()),
        });
    })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn claims(customer: &str) -> Value {
    json!({"sub": customer, "aud": "yoink", "iss": "shop", "exp": now() + 300, "nbf": now() - 5})
}

fn sign(header: &Header, claims: &Value, secret: &[u8]) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn header(kid: &str) -> Header {
    Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) }
}

fn token(customer: &str) -> String {
    sign(&header("new"), &claims(customer), SECRET)
}

fn buy(server: &Server, credential: &str, body: &Value) -> Answer {
    server.send(&Request::new("POST", "/v1/orders").key(credential).json(body))
}

#[test]
fn every_route_asks_for_what_it_should() {
    let server = guarded();
    // Which scopes open a route; none: it is open to all.
    let opens = |method: &str, path: &str| -> &[Scope] {
        match (method, path) {
            ("POST", "/v1/orders" | "/v1/orders/{id}/cancel" | "/orders" | "/buy" | "/purchase") => {
                &[Scope::Buy]
            }
            ("GET", "/v1/orders/{id}") => &[Scope::Buy, Scope::OrdersRead],
            ("GET", "/v1/orders" | "/purchase/orders/{userId}") => &[Scope::OrdersRead],
            ("GET", "/metrics") => &[Scope::Metrics],
            (_, "/products/restock" | "/v1/events") => &[Scope::Admin],
            (_, path) if path.starts_with("/v1/admin/") || path.starts_with("/v1/exports/") => {
                &[Scope::Admin]
            }
            _ => &[],
        }
    };
    for (method, path) in server.contract().operations() {
        let concrete = path
            .replace("/{id}/stream", "/none/stream")
            .replace("{id}", "00000000-0000-0000-0000-000000000000");
        let concrete = concrete.replace("{userId}", "u").replace("{slug}", "sold-out");
        let request =
            || Request::new(&method, &concrete).header("content-type", "application/json").body("{}");
        let scopes = opens(&method, &path);
        let status = |request: Request| server.send(&request).status;
        if scopes.is_empty() {
            assert!(!matches!(status(request()), 401 | 403), "{method} {path} is open");
            continue;
        }
        let anonymous = server.send(&request());
        assert_eq!(anonymous.status, 401, "{method} {path} without a key");
        assert!(
            anonymous.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")),
            "{method} {path}"
        );
        assert_eq!(status(request().key("wrong-key")), 401, "{method} {path} with a wrong key");
        for scope in Scope::ALL {
            let status = status(request().key(&key_of(scope)));
            match scopes.contains(&scope) {
                true => assert!(!matches!(status, 401 | 403), "{method} {path} with {scope:?}: {status}"),
                false => assert_eq!(status, 403, "{method} {path} with {scope:?}"),
            }
        }
        let with_token = status(request().key(&token("ann")));
        match scopes.iter().any(|scope| matches!(scope, Scope::Buy | Scope::OrdersRead)) {
            true => assert!(with_token != 401, "{method} {path} with a customer's token: {with_token}"),
            false => assert_eq!(with_token, 403, "{method} {path} with a customer's token"),
        }
    }
}

#[test]
fn in_dev_buyers_need_no_key_and_operators_do() {
    let server = Server::start();
    assert_eq!(server.buy("ann").status, 202);
    assert_eq!(server.get("/v1/orders").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
    server.get("/v1/events").problem(401, "unauthorized");
    server.send(&Request::new("GET", "/v1/events").key("wrong")).problem(401, "unauthorized");
    assert_eq!(server.send(&Request::new("GET", "/v1/events").key(ADMIN_KEY)).status, 200);
}

#[test]
fn the_shops_key_buys_for_anybody() {
    let server = guarded();
    let key = key_of(Scope::Buy);
    assert_eq!(buy(&server, &key, &json!({"customer_id": "ann", "product_id": "1"})).status, 202);
    assert_eq!(buy(&server, &key, &json!({"customer_id": "bob", "product_id": "1"})).status, 202);
    let nobody = buy(&server, &key, &json!({"product_id": "1"})).problem(400, "validation");
    assert_eq!(nobody["errors"][0]["pointer"], "/customer_id");
}

#[test]
fn a_customer_buys_sees_and_cancels_only_as_themselves() {
    let server = guarded();
    let (ann, bob) = (token("ann"), token("bob"));
    let own = buy(&server, &ann, &json!({"product_id": "1"}));
    assert_eq!((own.status, &own.json()["customer_id"]), (202, &json!("ann")));
    assert_eq!(buy(&server, &ann, &json!({"customer_id": "ann", "product_id": "1"})).status, 202);
    buy(&server, &ann, &json!({"customer_id": "bob", "product_id": "1"})).problem(403, "forbidden");
    for path in ["/orders", "/buy", "/purchase"] {
        let send = |user: &str| {
            server
                .send(&Request::new("POST", path).key(&ann).json(&json!({"userId": user, "productId": 1})))
                .status
        };
        assert_eq!(send("bob"), 403, "{path}");
        assert!(matches!(send("ann"), 200 | 202), "{path}");
    }
    let path = format!("/v1/orders/{}", own.json()["id"].as_str().unwrap());
    let get = |key: &str| server.send(&Request::new("GET", &path).key(key));
    assert_eq!(get(&ann).status, 200);
    get(&bob).problem(404, "not-found");
    let cancel = |key: &str| {
        server.send(&Request::new("POST", &format!("{path}/cancel")).key(key).json(&json!({"reason": "x"})))
    };
    cancel(&bob).problem(404, "not-found");
    assert_eq!(cancel(&ann).status, 200);
    server.wait_until_shown();
    let list =
        |key: &str, query: &str| server.send(&Request::new("GET", &format!("/v1/orders{query}")).key(key));
    let of_ann = list(&ann, "").json()["orders"].as_array().unwrap().len();
    assert_eq!(of_ann, 5);
    assert_eq!(list(&bob, "").json()["orders"], json!([]));
    list(&bob, "?customer_id=ann").problem(403, "forbidden");
    let old = |key: &str| server.send(&Request::new("GET", "/purchase/orders/ann").key(key)).json();
    assert_eq!((old(&ann).as_array().unwrap().len(), old(&bob)), (5, json!([])));
}

#[test]
fn a_token_that_is_not_exactly_right_is_401() {
    let server = guarded();
    let with = |field: &str, value: Value| {
        let mut claims = claims("ann");
        claims[field] = value;
        sign(&header("new"), &claims, SECRET)
    };
    let without = |field: &str| {
        let mut claims = claims("ann");
        claims.as_object_mut().unwrap().remove(field);
        sign(&header("new"), &claims, SECRET)
    };
    let good = token("ann");
    let (head, rest) = good.split_once('.').unwrap();
    let (body, _) = rest.split_once('.').unwrap();
    // {"alg":"none","kid":"new"}
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoibmV3In0.{body}.");
    let other_algorithm = Header { kid: Some("new".to_owned()), ..Header::new(Algorithm::HS512) };
    for (what, token) in [
        ("expired", with("exp", json!(now() - 40))),
        ("not yet valid", with("nbf", json!(now() + 40))),
        ("for somebody else", with("aud", json!("another"))),
        ("of somebody else", with("iss", json!("another"))),
        ("of nobody", with("sub", json!(""))),
        ("of a control character", with("sub", json!("a\u{0}"))),
        ("no exp", without("exp")),
        ("no nbf", without("nbf")),
        ("no aud", without("aud")),
        ("no iss", without("iss")),
        ("no sub", without("sub")),
        ("another secret", sign(&header("new"), &claims("ann"), b"another secret of thirty-two bytes")),
        ("the other key's secret", sign(&header("new"), &claims("ann"), OLD_SECRET)),
        ("an unknown kid", sign(&header("newer"), &claims("ann"), SECRET)),
        ("no kid", sign(&Header::new(Algorithm::HS256), &claims("ann"), SECRET)),
        ("another algorithm", sign(&other_algorithm, &claims("ann"), SECRET)),
        ("no algorithm", none),
        ("no signature", format!("{head}.{body}.")),
        ("nothing", "..".to_owned()),
        ("far too long", format!("{good}{}", "A".repeat(4_096))),
    ] {
        let answer = buy(&server, &token, &json!({"product_id": "1"}));
        assert_eq!(answer.status, 401, "{what}");
        answer.problem(401, "unauthorized");
    }
    let old = sign(&header("old"), &claims("ann"), OLD_SECRET);
    assert_eq!(buy(&server, &old, &json!({"product_id": "1"})).status, 202);
    let nearly = with("exp", json!(now() - 10));
    assert_eq!(buy(&server, &nearly, &json!({"product_id": "1"})).status, 202, "clocks may differ by 30 s");
}

#[test]
fn an_authorization_header_that_is_no_bearer_is_401() {
    let server = guarded();
    let send = |values: &[&str]| {
        let request = Request::new("POST", "/v1/orders").json(&json!({"product_id": "1"}));
        server.send(&values.iter().fold(request, |request, value| request.header("authorization", value)))
    };
    let good = format!("Bearer {}", key_of(Scope::Buy));
    for values in
        [vec![""], vec!["Bearer"], vec!["Bearer "], vec!["Basic YTpi"], vec![&*good, &*good], vec![ADMIN_KEY]]
    {
        send(&values).problem(401, "unauthorized");
    }
}
