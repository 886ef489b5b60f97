//! The OpenAPI document: what it says besides the paths, which `router.rs` adds.

use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

use crate::api;

/// The document of this version, as `GET /openapi.json` serves it.
pub fn openapi_json() -> String {
    let (_, document) = crate::router::describe();
    String::from_utf8_lossy(&to_json(&document)).into_owned()
}

/// The document without the routes of the router.
pub(crate) fn frame() -> OpenApi {
    Frame::openapi()
}

pub(crate) fn to_json(document: &OpenApi) -> Bytes {
    // Only maps with text keys are in it, so writing it cannot fail.
    serde_json::to_vec_pretty(document).unwrap_or_default().into()
}

/// What the document says besides its paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Yoink",
        description = "Sells a limited number of units to a crowd: never one twice, never an accepted order lost.\n\n\
            409: the sale says no. 429: you are too fast. 503: we are too slow. Every answer carries `Request-Id`; \
            where an operator said that servers may forget orders, also `Durability: relaxed`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(api::purchase::answer),
    components(responses(api::ProblemDocument), schemas(api::ProblemDocument, api::FieldErrorDocument, crate::compat::OldError)),
    security(("key" = [])),
    modifiers(&Keys),
    tags(
        (name = "buyers", description = "For buyers, and for shops on their behalf"),
        (name = "operators", description = "For operators: keys with the scope `admin`"),
        (name = "always there", description = "Health, metrics, this document"),
        (name = "compatible", description = "As the older systems had them, in their shapes"),
    )
)]
struct Frame;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, or a customer token (JWT). In `--dev`, buyers need none."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}
