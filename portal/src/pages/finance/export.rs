//! A month for other books: one workbook, or each sheet of it as CSV.

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use billing::export::{self, SheetKind};

use super::select::Month;
use super::{PATH, months};
use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::query::{PageQuery, wrong};
use crate::shell::Shell;
use crate::state::AppState;

struct MonthRow {
    key: String,
    label: String,
}

#[derive(Template)]
#[template(path = "finance_export.html")]
struct ExportPage {
    shell: Shell,
    months: Vec<MonthRow>,
    sheets: [&'static str; 6],
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct ExportQuery {
    #[serde(default)]
    month: String,
}

/// Half-open, UTC milliseconds.
fn bounds(asked: &ExportQuery) -> Result<(Month, i64, i64), Failure> {
    let wrong = || wrong("month", asked.month.trim(), "a month like 2026-11");
    let month = Month::parse(asked.month.trim()).ok_or_else(wrong)?;
    let (from_ms, to_ms) = month.bounds_ms().ok_or_else(wrong)?;
    Ok((month, from_ms, to_ms))
}

pub(crate) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
    let months = months(&state).await?;
    page(&ExportPage {
        shell: Shell::new(&who, "Export", PATH),
        months: months
            .into_iter()
            .map(|month| MonthRow {
                key: month.key(),
                label: month.label(),
            })
            .collect(),
        sheets: SheetKind::ALL.map(SheetKind::name),
    })
}

pub(crate) async fn workbook(
    State(state): State<AppState>,
    _: Finance,
    PageQuery(asked): PageQuery<ExportQuery>,
) -> Result<Response, PageError> {
    let (month, from_ms, to_ms) = bounds(&asked)?;
    let sheets = export::sheets(state.db(), from_ms, to_ms).await?;
    // Compressing many rows takes a while: not on a thread that serves others.
    let bytes = tokio::task::spawn_blocking(move || export::xlsx(&sheets))
        .await
        .map_err(|error| Failure::internal("write a workbook")(error.into()))??;
    let headers = [
        (
            header::CONTENT_TYPE,
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet".to_owned(),
        ),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"ezscale-{}.xlsx\"", month.key()),
        ),
    ];
    Ok((headers, bytes).into_response())
}

/// `documents.csv`, `taxes.csv` …
pub(crate) async fn sheet(
    State(state): State<AppState>,
    _: Finance,
    Path(name): Path<String>,
    PageQuery(asked): PageQuery<ExportQuery>,
) -> Result<Response, PageError> {
    let kind = name.strip_suffix(".csv").and_then(SheetKind::named);
    let kind = kind.ok_or(Failure::NotFound)?;
    let (month, from_ms, to_ms) = bounds(&asked)?;
    let mut connection = state.db().pool().acquire().await?;
    let sheet = export::sheet(&mut connection, kind, from_ms, to_ms).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}-{}.csv\"", kind.name(), month.key()),
        ),
    ];
    Ok((headers, export::csv(&sheet)?).into_response())
}
