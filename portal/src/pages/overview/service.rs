//! One service as those who watch the network see it: whose it is, what it holds, who meters it, its traffic and its peers.
//! What it costs is for its customer and for finance.

use analytics::Meters;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory::assignments_of;

use super::PATH;
use super::attacks::{Attacks, AttacksQuery};
use crate::auth::{Ops, Role};
use crate::customer;
use crate::error::{PageError, page_beside};
use crate::format;
use crate::pages::peers::{PeerRow, peer_rows};
use crate::pages::usage::details;
use crate::pages::usage::traffic::{self, Addresses, TrafficView, exporter_name};
use crate::path::Path;
use crate::query::PageQuery;
use crate::range::{PageZone, Range, RangeQuery};
use crate::shell::Shell;
use crate::state::AppState;

/// Remote addresses shown.
const TOP_PEERS: usize = 15;
/// Targets shown; a service that holds more has them counted.
const MAX_TARGETS: usize = 32;

/// A prefix, interface or VLAN that the service holds now.
struct TargetRow {
    target: String,
    since: String,
}

#[derive(Template)]
#[template(path = "ops_service.html")]
struct ServicePage {
    shell: Shell,
    /// The overview over the same time.
    overview: String,
    id: ServiceId,
    details: String,
    customer: CustomerId,
    customer_name: String,
    /// Who looks may see the customer's page.
    links_customer: bool,
    archived: Option<String>,
    targets: Vec<TargetRow>,
    targets_total: usize,
    /// Names of the exporters that meter it; empty where any may.
    meters: Vec<String>,
    traffic: TrafficView,
    peers: Vec<PeerRow>,
    attacks: Attacks,
}

/// The overview over the time that is shown here.
fn overview_href(range: &Range) -> String {
    match range.preset.as_str() {
        preset @ ("24h" | "7d" | "30d") => format!("{PATH}?range={preset}"),
        _ => format!("{PATH}?{}", range.time_query()),
    }
}

/// Where the page of a service lies.
pub(super) fn href(service: ServiceId) -> String {
    format!("{PATH}/services/{service}")
}

pub(crate) async fn show(
    State(state): State<AppState>,
    ops: Ops,
    Path(service): Path<String>,
    PageQuery(asked): PageQuery<RangeQuery>,
    PageQuery(shown): PageQuery<AttacksQuery>,
) -> Result<Response, PageError> {
    render(&state, &ops, &service, &asked, shown).await
}

pub(super) async fn render(
    state: &AppState,
    ops: &Ops,
    service: &str,
    asked: &RangeQuery,
    shown: AttacksQuery,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_for_staff(state, ops, service).await?;
    let id = own.service.id;
    let addresses = Addresses {
        csv: format!("{}/usage.csv", href(id)),
        json: format!("/api/v1/ops/services/{id}/usage"),
    };
    // As the overview: whoever follows an hour from there finds the same hour here.
    let traffic = traffic::view(state, &account, &own, &PageZone::utc(), asked, &addresses).await?;
    let (from_ms, to_ms) = (traffic.range.from_ms, traffic.range.to_ms);
    let peers = state
        .flow_store()
        .top_peers(id.number(), from_ms, to_ms, TOP_PEERS)
        .await?;

    let now_ms = state.now_ms();
    let mut held = assignments_of(state.db().pool(), id).await?;
    held.retain(|row| row.valid_from_ms <= now_ms && row.valid_to_ms.is_none_or(|to_ms| now_ms < to_ms));
    let targets = held.iter().take(MAX_TARGETS).map(|row| TargetRow {
        target: row.target.to_string(),
        since: format::date(row.valid_from_ms, &TimeZone::UTC),
    });
    let metered = customer::metered(state, &own.service);
    let named = match &metered.meters {
        Meters::Named(exporters) => exporters.as_slice(),
        Meters::AllBut(_) => &[],
    };
    let meters = named.iter().map(|address| exporter_name(state, *address));
    let (bytes_in, bytes_out) = (traffic.totals.bytes_in, traffic.totals.bytes_out);
    let attacks = Attacks::of(state, id, &traffic.range, ops.0.user.role, shown).await?;
    let draft = attacks.draft.clone();
    let is_refused = traffic.problem.is_some();
    let shown = ServicePage {
        shell: Shell::new(&ops.0, own.service.name.clone(), PATH),
        overview: overview_href(&traffic.range),
        id,
        details: details(&own),
        customer: account.id,
        customer_name: account.name.clone(),
        links_customer: ops.0.user.role == Role::Admin,
        archived: own
            .service
            .archived_at_ms
            .map(|at_ms| format::date(at_ms, &TimeZone::UTC)),
        targets: targets.collect(),
        targets_total: held.len(),
        meters: meters.collect(),
        peers: peer_rows(&peers, bytes_in, bytes_out, own.volume_units()),
        traffic,
        attacks,
    };
    let body = page_beside(&shown, is_refused)?;
    Ok(draft.answer(body))
}

pub(crate) async fn download(
    State(state): State<AppState>,
    ops: Ops,
    Path(service): Path<String>,
    PageQuery(asked): PageQuery<RangeQuery>,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_for_staff(&state, &ops, &service).await?;
    Ok(traffic::csv(&state, &account, &own, &PageZone::utc(), &asked).await?)
}
