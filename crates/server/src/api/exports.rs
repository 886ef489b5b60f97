//! `GET /v1/exports/orders.csv` and `GET /v1/exports/movements.csv`: streamed from the ledger, page by page.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header;
use yoink_core::Seq;
use yoink_engine::OrderView;
use yoink_engine::ledger::Movement;

use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::wire::When;

/// Rows that one piece of the stream holds.
const PAGE_ROWS: usize = 1_000;

/// What is exported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Export {
    Orders,
    Movements,
}

const ORDER_COLUMNS: [&str; 11] = [
    "id",
    "seq",
    "status",
    "customer_id",
    "product_id",
    "quantity",
    "unit_price_amount",
    "unit_price_currency",
    "accepted_at",
    "ended_at",
    "reason",
];
const MOVEMENT_COLUMNS: [&str; 7] = ["seq", "at", "product_id", "kind", "units", "order_id", "reason"];

/// Every order that the ledger has, as RFC 4180.
///
/// Cells that a spreadsheet would take for a formula begin with an apostrophe.
#[utoipa::path(
    get, path = "/v1/exports/orders.csv", tag = "operators",
    responses((status = 200, description = "The orders", body = String, content_type = "text/csv"), crate::api::ReadProblems)
)]
pub(crate) async fn export_orders(
    _: Operator,
    State(core): State<Arc<Core>>,
) -> Result<impl IntoResponse, Problem> {
    stream_csv(core, Export::Orders).await
}

/// Every movement of units that the ledger has, as RFC 4180.
///
/// Cells that a spreadsheet would take for a formula begin with an apostrophe.
#[utoipa::path(
    get, path = "/v1/exports/movements.csv", tag = "operators",
    responses((status = 200, description = "The movements", body = String, content_type = "text/csv"), crate::api::ReadProblems)
)]
pub(crate) async fn export_movements(
    _: Operator,
    State(core): State<Arc<Core>>,
) -> Result<impl IntoResponse, Problem> {
    stream_csv(core, Export::Movements).await
}

impl Export {
    fn file_name(self) -> &'static str {
        match self {
            Self::Orders => "orders.csv",
            Self::Movements => "movements.csv",
        }
    }

    fn header(self) -> Vec<u8> {
        match self {
            Self::Orders => write_rows([ORDER_COLUMNS.map(Cow::Borrowed)]),
            Self::Movements => write_rows([MOVEMENT_COLUMNS.map(Cow::Borrowed)]),
        }
    }

    /// One page of rows behind `after`, and where the next begins; `None` behind the last.
    async fn page(self, core: &Core, after: Seq) -> Result<(Vec<u8>, Option<Seq>), Problem> {
        let delivery = core.engine.delivery();
        match self {
            Self::Orders => {
                let page = delivery.export_orders(after, PAGE_ROWS).await;
                let page = page.map_err(|error| core.problem(error.into()))?;
                Ok((write_rows(page.orders.iter().map(order_cells)), page.next_after))
            }
            Self::Movements => {
                let rows = delivery.export_movements(after, PAGE_ROWS).await;
                let rows = rows.map_err(|error| core.problem(error.into()))?;
                let last = rows.last().map(|row| row.seq).filter(|_| rows.len() == PAGE_ROWS);
                Ok((write_rows(rows.iter().map(movement_cells)), last))
            }
        }
    }
}

async fn stream_csv(core: Arc<Core>, export: Export) -> Result<impl IntoResponse, Problem> {
    let mut first = export.header();
    let (rows, next) = export.page(&core, 0).await?;
    first.extend(rows);
    let rest = stream::try_unfold(next, move |next| {
        let core = Arc::clone(&core);
        async move {
            let Some(after) = next else { return Ok(None) };
            // The status is sent already: breaking off is the only way to say that something is missing.
            let page = export.page(&core, after).await;
            let (rows, next) = page.map_err(|problem| std::io::Error::other(problem.detail().to_owned()))?;
            Ok::<_, std::io::Error>(Some((Bytes::from(rows), next)))
        }
    });
    let first = stream::once(async move { Ok(Bytes::from(first)) });
    let disposition = format!("attachment; filename=\"{}\"", export.file_name());
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(first.chain(rest))))
}

fn write_rows<'a, const N: usize>(rows: impl IntoIterator<Item = [Cow<'a, str>; N]>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        // Writing to memory cannot fail, and every row has as many cells as its columns.
        let _ = writer.write_record(row.iter().map(|cell| escape(cell).into_owned()));
    }
    writer.into_inner().unwrap_or_default()
}

/// A cell that begins like a formula is run by spreadsheets; an apostrophe before it keeps it a text. Whole numbers
/// are left alone.
fn escape(cell: &str) -> Cow<'_, str> {
    let is_number = cell.strip_prefix('-').unwrap_or(cell).bytes().all(|byte| byte.is_ascii_digit());
    match cell.as_bytes().first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r') if !is_number => Cow::Owned(format!("'{cell}")),
        _ => Cow::Borrowed(cell),
    }
}

fn order_cells(order: &OrderView) -> [Cow<'_, str>; ORDER_COLUMNS.len()] {
    [
        order.id.to_string().into(),
        order.seq.to_string().into(),
        order.status.name().into(),
        order.customer.as_str().into(),
        order.product.to_string().into(),
        order.quantity.to_string().into(),
        order.unit_price.amount.to_string().into(),
        order.unit_price.currency.as_str().to_owned().into(),
        When(order.accepted_at).to_string().into(),
        order.ended_at.map(|at| When(at).to_string()).unwrap_or_default().into(),
        order.reason.as_deref().unwrap_or_default().into(),
    ]
}

fn movement_cells(movement: &Movement) -> [Cow<'_, str>; MOVEMENT_COLUMNS.len()] {
    [
        movement.seq.to_string().into(),
        When(movement.at).to_string().into(),
        movement.product.to_string().into(),
        movement.kind.name().into(),
        movement.units.to_string().into(),
        movement.order.map(|id| id.to_string()).unwrap_or_default().into(),
        movement.reason.as_deref().unwrap_or_default().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_begin_like_a_formula_are_made_texts() {
        for (cell, expected) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-x", "'-x"),
            ("@sum", "'@sum"),
            ("\tx", "'\tx"),
            ("-5", "-5"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(escape(cell), expected);
        }
    }

    #[test]
    fn commas_quotes_and_lines_are_quoted() {
        let row = ["a,b", "say \"hi\"", "two\nlines"].map(Cow::Borrowed);
        assert_eq!(write_rows([row]), b"\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\"\r\n");
    }
}
