//! Holds answers against the served OpenAPI document.

use serde_json::{Value, json};

use crate::harness::{Answer, Server};

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
        let answer = server.send(&crate::harness::Request::new(&method, &concrete));
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
