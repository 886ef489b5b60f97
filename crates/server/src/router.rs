//! All URLs on one page.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderValue, header};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::api::{
    adjust_stock, cancel, change_product, create_product, dead_letters, dead_letters_bulk, delivery, events,
    exports, get_order, health, info, list_orders, metrics, openapi, pause, products, reconciliation, stream,
};
use crate::compat::{flash_sale_engine, flash_sale_system, yoink};
use crate::edge::Core;
use crate::problem::Problem;

fn buyers() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(products::list_products))
        .routes(routes!(products::get_product))
        .routes(routes!(stream::stream_stock))
        // POST /v1/orders does not come this far: `edge.rs` sends it to `api/purchase.rs`. It is named here so that
        // `Allow` names it.
        .route("/v1/orders", post(async || Problem::no_such_route()))
        .routes(routes!(list_orders::list_orders))
        .routes(routes!(get_order::get_order))
        .routes(routes!(cancel::cancel_order))
        .routes(routes!(info::get_time))
        .routes(routes!(info::get_info))
        // Always there.
        .routes(routes!(health::get_health))
        .routes(routes!(health::get_livez))
        .routes(routes!(health::get_readyz))
        .routes(routes!(openapi::get_openapi))
        .routes(routes!(openapi::get_problem))
        // As the older systems had them.
        .routes(routes!(yoink::list_products))
        .routes(routes!(yoink::order))
        .routes(routes!(flash_sale_engine::buy))
        .routes(routes!(flash_sale_system::purchase))
        .routes(routes!(flash_sale_system::list_orders))
        .routes(routes!(flash_sale_system::get_metrics))
}

fn operators() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(create_product::create_product))
        .routes(routes!(change_product::change_product))
        .routes(routes!(adjust_stock::adjust_stock))
        .routes(routes!(pause::pause_product))
        .routes(routes!(pause::resume_product))
        .routes(routes!(delivery::get_delivery))
        .routes(routes!(delivery::pause_delivery))
        .routes(routes!(delivery::resume_delivery))
        .routes(routes!(dead_letters::list_dead_letters))
        .routes(routes!(dead_letters::get_dead_letter))
        .routes(routes!(dead_letters::retry_dead_letter))
        .routes(routes!(dead_letters::discard_dead_letter))
        .routes(routes!(dead_letters_bulk::retry_dead_letters))
        .routes(routes!(dead_letters_bulk::discard_dead_letters))
        .routes(routes!(reconciliation::get_reconciliation))
        .routes(routes!(events::list_events))
        .routes(routes!(exports::export_orders))
        .routes(routes!(exports::export_movements))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(flash_sale_system::restock))
}

/// What a worker answers.
fn workers() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(health::get_livez))
        .routes(routes!(health::get_readyz))
        .routes(routes!(metrics::get_metrics))
}

/// Which routes a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// All of them.
    Everything,
    /// Those of buyers; operators have a listener of their own.
    Buyers,
    /// What tells how a worker is.
    Worker,
}

/// The routes, before they are given a core.
#[derive(Clone)]
pub(crate) struct Routes {
    buyers: Router<Arc<Core>>,
    operators: Router<Arc<Core>>,
}

/// The routes and the document that describes them, from the same source.
pub(crate) fn describe() -> (Routes, OpenApi) {
    let (buyers, of_buyers) = buyers().split_for_parts();
    let (operators, of_operators) = operators().split_for_parts();
    let mut document = crate::openapi::frame();
    document.merge(of_buyers);
    document.merge(of_operators);
    (Routes { buyers, operators }, document)
}

/// The routes of one listener of one core.
pub(crate) fn for_core(routes: &Routes, surface: Surface, core: &Arc<Core>) -> Router {
    if surface == Surface::Worker {
        return finish(Router::from(workers()), core);
    }
    let documentation = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let documentation: Router<Arc<Core>> = documentation.into();
    let mut router = routes.buyers.clone().merge(documentation.layer(middleware::map_response(allow_page)));
    if surface == Surface::Everything {
        router = router.merge(routes.operators.clone());
    }
    finish(router, core)
}

fn finish(router: Router<Arc<Core>>, core: &Arc<Core>) -> Router {
    router
        .layer(middleware::from_fn(label))
        .fallback(async || Problem::no_such_route())
        .with_state(Arc::clone(core))
}

/// The template of the route that answered; goes back to the edge with the answer.
#[derive(Clone, Debug)]
pub(crate) struct RouteTemplate(MatchedPath);

impl RouteTemplate {
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

async fn label(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(RouteTemplate(matched));
    }
    response
}

/// The page at `/docs` has its own scripts and styles, and nothing from elsewhere.
async fn allow_page(mut response: Response) -> Response {
    let policy =
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
