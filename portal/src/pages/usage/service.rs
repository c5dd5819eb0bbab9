//! One service of a customer: its period, its chart and its coverage.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::traffic::{self, Addresses, TrafficView};
use super::{PeriodView, details};
use crate::auth::Customer;
use crate::customer;
use crate::error::{PageError, page_beside};
use crate::path::Path;
use crate::query::PageQuery;
use crate::range::{PageZone, RangeQuery};
use crate::shell::Shell;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "usage_service.html")]
struct UsageService {
    shell: Shell,
    id: String,
    details: String,
    period: PeriodView,
    traffic: TrafficView,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    customer: Customer,
    Path(service): Path<String>,
    PageQuery(asked): PageQuery<RangeQuery>,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let id = own.service.id;
    let addresses = Addresses {
        csv: format!("/usage/{id}/usage.csv"),
        json: format!("/api/v1/services/{id}/usage"),
    };
    let zone = PageZone::of(&account);
    let traffic = traffic::view(&state, &account, &own, &zone, &asked, &addresses).await?;
    let to_date = customer::period_to_date(&state, &account, &own).await?;
    let is_refused = traffic.problem.is_some();
    let shown = UsageService {
        shell: Shell::new(&customer.who, own.service.name.clone(), "/usage"),
        id: id.to_string(),
        details: details(&own),
        period: PeriodView::new(&to_date, own.volume_units(), &account.time_zone),
        traffic,
    };
    page_beside(&shown, is_refused)
}

pub(crate) async fn download(
    State(state): State<AppState>,
    customer: Customer,
    Path(service): Path<String>,
    PageQuery(asked): PageQuery<RangeQuery>,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    Ok(traffic::csv(&state, &account, &own, &PageZone::of(&account), &asked).await?)
}
