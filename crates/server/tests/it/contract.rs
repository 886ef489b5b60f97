//! Holds answers against the served OpenAPI document.

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Answer, Request, Server};

pub struct Contract {
    document: Value,
}

impl Contract {
    pub fn new(document: Value) -> Self {
        assert_eq!(document["openapi"], "3.1.0");
        Self { document }
    }

    /// Every path and method, as `("GET", "/v1/orders/{id}")`.
    pub fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let mut operations = Vec::new();
        for (path, item) in paths {
            for method in ["get", "post", "patch", "put", "delete"] {
                if item.get(method).is_some() {
                    operations.push((method.to_ascii_uppercase(), path.clone()));
                }
            }
        }
        operations
    }

    /// Panics if the answer is not one that the document promises for the route.
    #[track_caller]
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let Some(template) = self.template(path) else {
            assert!(
                matches!(answer.status, 400 | 404 | 408 | 413 | 414 | 431 | 503) || path.starts_with("/docs"),
                "{method} {path} is not documented: {}",
                answer.status
            );
            return;
        };
        let operation = &self.document["paths"][&template][method.to_ascii_lowercase()];
        // Every route may refuse a request before it knows what it is for, or by its method.
        if operation.is_null() || matches!(answer.status, 405 | 408 | 414 | 431) {
            return;
        }
        let responses = &operation["responses"];
        let class = format!("{}XX", answer.status / 100);
        let response = [answer.status.to_string(), class].iter().find_map(|key| responses.get(key).cloned());
        let Some(response) = response else {
            panic!(
                "{method} {template} answers {}, which is not documented: {}",
                answer.status,
                answer.text()
            );
        };
        let response = self.resolve(response);
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            return;
        };
        let media_type =
            answer.header("content-type").unwrap_or_default().split(';').next().unwrap().to_owned();
        let Some(content) = content.get(&media_type) else {
            panic!("{method} {template} answers {} as {media_type}, which is not documented", answer.status);
        };
        if media_type.ends_with("json") {
            self.check_schema(
                &content["schema"],
                &answer.json(),
                &format!("{method} {template} {}", answer.status),
            );
        }
    }

    fn check_schema(&self, schema: &Value, instance: &Value, what: &str) {
        let root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"],
            "allOf": [schema],
        });
        let validator = jsonschema::validator_for(&root).unwrap();
        let errors: Vec<String> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:?} in {instance}");
    }

    fn resolve(&self, value: Value) -> Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(pointer) => self.document.pointer(pointer.trim_start_matches('#')).unwrap().clone(),
            None => value,
        }
    }

    /// The documented path that matches, literal segments before parameters.
    fn template(&self, path: &str) -> Option<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let fits = |template: &&String| {
            let (wanted, found): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            wanted.len() == found.len()
                && wanted.iter().zip(&found).all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
        };
        paths.keys().filter(fits).min_by_key(|template| template.matches('{').count()).cloned()
    }
}

#[test]
fn every_route_of_the_contract_is_documented_and_the_document_names_no_other() {
    let server = Server::start();
    let mut operations = server.contract().operations();
    operations.sort();
    let listed: Vec<String> = operations.iter().map(|(method, path)| format!("{method} {path}")).collect();
    let expected = "\
GET /health
GET /livez
GET /metrics
GET /openapi.json
GET /problems/{slug}
GET /products
GET /purchase/metrics
GET /purchase/orders/{userId}
GET /readyz
GET /v1/admin/dead-letters
GET /v1/admin/dead-letters/{id}
GET /v1/admin/delivery
GET /v1/admin/reconciliation
GET /v1/events
GET /v1/exports/movements.csv
GET /v1/exports/orders.csv
GET /v1/info
GET /v1/orders
GET /v1/orders/{id}
GET /v1/products
GET /v1/products/{id}
GET /v1/products/{id}/stream
GET /v1/time
PATCH /v1/admin/products/{id}
POST /buy
POST /orders
POST /products/restock
POST /purchase
POST /v1/admin/dead-letters/discard
POST /v1/admin/dead-letters/retry
POST /v1/admin/dead-letters/{id}/discard
POST /v1/admin/dead-letters/{id}/retry
POST /v1/admin/delivery/pause
POST /v1/admin/delivery/resume
POST /v1/admin/products
POST /v1/admin/products/{id}/pause
POST /v1/admin/products/{id}/resume
POST /v1/admin/products/{id}/stock
POST /v1/orders
POST /v1/orders/{id}/cancel";
    assert_eq!(listed.join("\n"), expected);
    for (method, path) in operations {
        let concrete = path
            .replace("{id}/stream", "none/stream")
            .replace("{id}", "none")
            .replace("{userId}", "u")
            .replace("{slug}", "sold-out");
        let answer = server.send(&Request::new(&method, &concrete));
        assert_ne!(answer.status, 405, "{method} {path} is documented, but not served");
    }
}

#[test]
fn the_document_is_valid_and_the_page_that_shows_it_loads_nothing_from_elsewhere() {
    let server = Server::start();
    let page = server.get("/docs/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("swagger"), "{}", page.text());
    assert!(!page.text().contains("https://"), "{}", page.text());
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
}

#[test]
fn only_a_change_of_stock_needs_a_header() {
    let server = Server::start_empty(|_| {});
    let contract = server.contract();
    let needed: Vec<(String, String)> = contract
        .operations()
        .into_iter()
        .filter(|(method, path)| {
            let operation = &contract.document["paths"][path][method.to_ascii_lowercase()];
            let parameters = operation["parameters"].as_array();
            parameters
                .into_iter()
                .flatten()
                .any(|parameter| parameter["in"] == "header" && parameter["required"] == true)
        })
        .collect();
    assert_eq!(needed, [("POST".to_owned(), "/v1/admin/products/{id}/stock".to_owned())]);
}

/// Where a documented schema stands in a request: how a value is sent there.
struct Place<'a> {
    name: &'static str,
    /// Into the document, to the schema.
    pointer: String,
    send: Box<dyn Fn(&Value) -> Answer + 'a>,
}

fn parameter(document: &Value, path: &str, method: &str, name: &str) -> String {
    let base = format!("/paths/{}/{method}/parameters", path.replace('/', "~1"));
    let parameters = document.pointer(&base).unwrap().as_array().unwrap();
    let index = parameters.iter().position(|parameter| parameter["name"] == name).unwrap();
    format!("{base}/{index}/schema")
}

/// As it is written in a query.
fn in_query(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Values at the bounds of a schema and one beyond, and texts with each kind of character.
fn probes(schema: &Value) -> Vec<Value> {
    if let Some(length_max) = schema["maxLength"].as_u64() {
        assert!(schema["minLength"].is_u64() && schema["pattern"].is_string(), "{schema}");
        let lengths = [0, 1, length_max as usize, length_max as usize + 1];
        let at_bounds = lengths.map(|length| "a".repeat(length));
        let characters = "\u{0}\t\n\u{1f} !-./09:@AZ[_`az{~\u{7f}\u{80}\u{9f}\u{a0}ü\u{2028}🦀";
        let with_each = characters.chars().map(|character| format!("a{character}a"));
        return at_bounds.into_iter().chain(with_each).map(Value::from).collect();
    }
    let bound = |name: &str| schema[name].as_i64().unwrap_or_else(|| panic!("no {name} in {schema}"));
    let (minimum, maximum) = (i128::from(bound("minimum")), i128::from(bound("maximum")));
    let number = |number: i128| serde_json::from_str(&number.to_string()).unwrap();
    [minimum - 1, minimum, maximum, maximum + 1].map(number).into()
}

/// The places in queries and headers.
fn places_outside_bodies<'a>(server: &'a Server, document: &Value) -> Vec<Place<'a>> {
    let query = |path: &'static str, name: &'static str| Place {
        name,
        pointer: parameter(document, path, "get", name),
        send: Box::new(move |value| server.admin("GET", &format!("{path}?{name}={}", in_query(value)), None)),
    };
    let keyed = |path: &'static str, body: Value| Place {
        name: "Idempotency-Key",
        pointer: parameter(document, &path.replace("/1/", "/{id}/"), "post", "Idempotency-Key"),
        send: Box::new(move |value| {
            let request = Request::new("POST", path).key(ADMIN_KEY).json(&body);
            server.send(&request.header("idempotency-key", value.as_str().unwrap()))
        }),
    };
    let (orders, letters, events) = ("/v1/orders", "/v1/admin/dead-letters", "/v1/events");
    vec![
        query(orders, "customer_id"),
        query(orders, "product_id"),
        query(orders, "after"),
        query(orders, "limit"),
        query(letters, "product"),
        query(letters, "after"),
        query(letters, "limit"),
        query(events, "after"),
        query(events, "limit"),
        keyed("/v1/orders", json!({"customer_id": "ann", "product_id": "1"})),
        keyed("/buy", json!({"userId": "ann", "productId": "1"})),
        keyed("/products/restock", json!({"productId": "1", "amount": 1})),
        keyed("/v1/admin/products/1/stock", json!({"delta": 1, "reason": "a truck came"})),
        keyed(
            "/v1/admin/products",
            json!({"name": "x", "price": {"amount": 1, "currency": "EUR"}, "stock": 1}),
        ),
    ]
}

/// The places in bodies: the schema of a field, and the body that the value is put into.
fn places_in_bodies(server: &Server) -> Vec<Place<'_>> {
    let count = std::sync::atomic::AtomicU64::new(0);
    let count = std::sync::Arc::new(count);
    let place = |name: &'static str, schema: &str, method: &'static str, path: &'static str, body: &Value| {
        let (body, count) = (body.clone(), std::sync::Arc::clone(&count));
        let send = move |value: &Value| {
            let mut body = body.clone();
            *body.pointer_mut(name).unwrap() = value.clone();
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let request = Request::new(method, path).key(ADMIN_KEY).json(&body);
            server.send(&request.header("idempotency-key", &format!("key-{number}")))
        };
        Place { name, pointer: format!("/components/schemas/{schema}"), send: Box::new(send) }
    };
    let order = json!({"customer_id": "ann", "product_id": "1", "quantity": 1});
    let product = json!({
        "name": "x", "price": {"amount": 1, "currency": "EUR"}, "stock": 1, "limit_per_customer": 1,
        "max_per_order": 1,
    });
    let adjustment = json!({"delta": 1, "reason": "x"});
    let (orders, products, stock) = ("/v1/orders", "/v1/admin/products", "/v1/admin/products/1/stock");
    let (cancel, one) = ("/v1/orders/00000000-0000-0000-0000-000000000000/cancel", "/v1/admin/products/1");
    let bulk = json!({"filter": {"product": "1"}, "reason": "x"});
    vec![
        place("/customer_id", "CustomerId/oneOf/0", "POST", orders, &order),
        place("/customer_id", "CustomerId/oneOf/1", "POST", orders, &order),
        place("/product_id", "ProductId/oneOf/0", "POST", orders, &order),
        place("/product_id", "ProductId/oneOf/1", "POST", orders, &order),
        place("/quantity", "PurchaseBody/properties/quantity", "POST", orders, &order),
        place("/reason", "CancelBody/properties/reason", "POST", cancel, &json!({"reason": "x"})),
        place("/delta", "StockBody/properties/delta/oneOf/0", "POST", stock, &adjustment),
        place("/delta", "StockBody/properties/delta/oneOf/1", "POST", stock, &adjustment),
        place("/reason", "StockBody/properties/reason", "POST", stock, &adjustment),
        place("/name", "NewProductBody/properties/name", "POST", products, &product),
        place("/price/amount", "Money/properties/amount", "POST", products, &product),
        place("/stock", "NewProductBody/properties/stock", "POST", products, &product),
        place(
            "/limit_per_customer",
            "NewProductBody/properties/limit_per_customer",
            "POST",
            products,
            &product,
        ),
        place("/max_per_order", "NewProductBody/properties/max_per_order", "POST", products, &product),
        place("/name", "ProductChangeBody/properties/name", "PATCH", one, &json!({"name": "x"})),
        place(
            "/filter/product",
            "BulkFilter/properties/product",
            "POST",
            "/v1/admin/dead-letters/retry",
            &bulk,
        ),
        place("/reason", "BulkDiscard/properties/reason", "POST", "/v1/admin/dead-letters/discard", &bulk),
    ]
}

#[test]
fn what_the_document_says_of_ids_texts_and_numbers_is_what_the_server_keeps() {
    let server = Server::start_empty(|_| {});
    server.create_product(&json!({"id": "1", "stock": 100_000, "max_per_order": 1_000}));
    let document = server.contract().document.clone();
    let mut places = places_outside_bodies(&server, &document);
    places.extend(places_in_bodies(&server));
    for Place { name, pointer, send } in places {
        let schema = document.pointer(&pointer).unwrap_or_else(|| panic!("no {pointer}"));
        let validator = jsonschema::validator_for(schema).unwrap();
        let (mut fit, mut unfit) = (0, 0);
        for value in probes(schema) {
            // A header holds no other characters; sending them would be another fault.
            let is_sendable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if name == "Idempotency-Key" && !value.as_str().is_some_and(is_sendable) {
                continue;
            }
            let is_fit = validator.is_valid(&value);
            let answer = send(&value);
            assert_eq!(is_fit, answer.status != 400, "{name} at {pointer}: {value}: {}", answer.text());
            *if is_fit { &mut fit } else { &mut unfit } += 1;
        }
        assert!(fit >= 2 && unfit >= 2, "{name} at {pointer}: {fit} fit, {unfit} do not");
    }
}
