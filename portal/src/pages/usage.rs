//! What a customer's services use: the list of services, and one service with its chart, its period and its coverage.

use analytics::{SeriesPoint, UsageMode};
use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use billing::evidence::UsageCharge;
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::money::Money;

use crate::api;
use crate::auth::Customer;
use crate::customer::{self, OwnService, PeriodToDate};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::range::{Asked, PRESETS, STEPS, step_name};
use crate::shell::Shell;
use crate::state::AppState;

/// Services on one page of the list.
const SERVICES_PER_PAGE: usize = 50;
/// From so many services on, the list can be searched.
const SEARCHABLE_SERVICES: usize = 8;
/// Longest search text looked at, in characters.
const MAX_SEARCH_CHARS: usize = 100;
/// Rows of the table beneath the chart; the newest are shown, the CSV file has all.
const MAX_TABLE_ROWS: usize = 400;
/// Gaps named on a page.
const MAX_GAPS_SHOWN: usize = 20;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/usage", get(list))
        .route("/usage/{service}", get(one))
        .route("/usage/{service}/usage.csv", get(download))
}

/// Which directions count, in words.
pub(crate) fn mode_words(mode: UsageMode) -> &'static str {
    match mode {
        UsageMode::Sum => "received + sent",
        UsageMode::In => "received",
        UsageMode::Out => "sent",
        UsageMode::Max => "the larger of received and sent",
    }
}

/// A period to date as the pages print it.
struct PeriodView {
    from: String,
    /// Last day of the period.
    until: String,
    received: String,
    sent: String,
    billed: String,
    mode: &'static str,
    /// Included transfer, where the plan has one.
    quota: Option<QuotaView>,
    percentile: Option<PercentileView>,
    percentile_any: String,
    projected: String,
    cost_so_far: Option<Money>,
    cost_projected: Option<Money>,
    will_cost: bool,
    coverage: String,
    is_complete: bool,
}

struct QuotaView {
    included: String,
    percent: u64,
    projected_percent: u64,
    is_over: bool,
    will_be_over: bool,
}

struct PercentileView {
    commit: String,
    percent: u64,
    is_over: bool,
}

fn percent_of(part: u64, whole: u64) -> u64 {
    match whole {
        0 if part == 0 => 0,
        0 => 100,
        whole => u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(u64::MAX),
    }
}

impl PeriodView {
    fn new(to_date: &PeriodToDate, zone: &TimeZone) -> PeriodView {
        let usage = &to_date.usage;
        let percentile = usage.percentile_95_bps;
        // In the unit that the plan is sold by, so that its numbers are recognised.
        let volume = |bytes: u64| match &to_date.charge {
            Some(UsageCharge::Transfer { unit, .. }) => format::in_unit(bytes, unit.bytes(), unit.name()),
            _ => format::bytes(bytes),
        };
        let quota = to_date.included_bytes().map(|included| QuotaView {
            included: volume(included),
            percent: percent_of(usage.billed_bytes, included),
            projected_percent: percent_of(to_date.projected_bytes, included),
            is_over: usage.billed_bytes > included,
            will_be_over: to_date.projected_bytes > included,
        });
        PeriodView {
            from: format::date(usage.from_ms, zone),
            until: format::date(usage.to_ms - 1, zone),
            received: format::bytes(usage.bytes_in),
            sent: format::bytes(usage.bytes_out),
            billed: volume(usage.billed_bytes),
            mode: mode_words(to_date.mode),
            quota,
            percentile: to_date.commit_bps().map(|commit| PercentileView {
                commit: format::bits_per_second(commit),
                percent: percent_of(percentile.unwrap_or(0), commit),
                is_over: percentile.unwrap_or(0) > commit,
            }),
            percentile_any: percentile.map_or_else(|| "–".to_owned(), format::bits_per_second),
            projected: volume(to_date.projected_bytes),
            cost_so_far: to_date.cost_so_far,
            cost_projected: to_date.cost_projected,
            will_cost: to_date.cost_projected.is_some_and(|cost| cost.minor > 0),
            coverage: coverage_words(usage.windows_measured, usage.windows_expected),
            is_complete: usage.windows_measured == usage.windows_expected,
        }
    }
}

/// `99.8 % measured`; never rounded up to 100.
fn coverage_words(measured: u64, expected: u64) -> String {
    if expected == 0 {
        return "nothing to measure yet".to_owned();
    }
    let permille = u128::from(measured) * 1000 / u128::from(expected);
    format!("{}.{} % measured", permille / 10, permille % 10)
}

struct ServiceRow {
    id: String,
    name: String,
    details: String,
    period: PeriodView,
}

#[derive(Template)]
#[template(path = "usage_list.html")]
struct UsageList {
    shell: Shell,
    rows: Vec<ServiceRow>,
    total: usize,
    is_searchable: bool,
    search: String,
    page: usize,
    pages: usize,
    received: String,
    sent: String,
    extra: Option<Money>,
}

#[derive(serde::Deserialize)]
struct ListAsked {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: String,
}

/// Type, site and plan, as far as there are any.
fn details(own: &OwnService) -> String {
    let plan = own.contract.as_ref().map(|contract| contract.plan.name.as_str());
    let parts = [
        Some(own.service.service_type.as_str()),
        own.service.site.as_deref(),
        plan,
    ];
    parts.into_iter().flatten().collect::<Vec<&str>>().join(" · ")
}

async fn list(
    State(state): State<AppState>,
    customer: Customer,
    Query(asked): Query<ListAsked>,
) -> Result<Response, PageError> {
    let (account, mut services) = customer::services_of(&state, customer.id).await?;
    let total = services.len();
    let search: String = asked.q.trim().chars().take(MAX_SEARCH_CHARS).collect();
    if !search.is_empty() {
        let needle = search.to_lowercase();
        services.retain(|own| {
            let id = own.service.id.to_string();
            own.service.name.to_lowercase().contains(&needle)
                || details(own).to_lowercase().contains(&needle)
                || id == needle
        });
    }
    let pages = services.len().div_ceil(SERVICES_PER_PAGE).max(1);
    let page_number = asked.page.parse().unwrap_or(1).clamp(1, pages);
    let shown: Vec<OwnService> = services
        .into_iter()
        .skip((page_number - 1) * SERVICES_PER_PAGE)
        .take(SERVICES_PER_PAGE)
        .collect();
    let to_date = customer::periods_to_date(&state, &account, &shown).await?;
    let sum = |of: fn(&PeriodToDate) -> u64| to_date.iter().map(of).fold(0u64, u64::saturating_add);
    let mut extra: Option<Money> = None;
    for cost in to_date.iter().filter_map(|to_date| to_date.cost_projected) {
        extra = Some(match extra {
            Some(sum) => sum.checked_add(cost).map_err(billing::BillingError::from)?,
            None => cost,
        });
    }
    let rows = shown.iter().zip(&to_date).map(|(own, to_date)| ServiceRow {
        id: own.service.id.to_string(),
        name: own.service.name.clone(),
        details: details(own),
        period: PeriodView::new(to_date, &account.time_zone),
    });
    page(&UsageList {
        shell: Shell::new(&customer.who, "Usage", "/usage"),
        rows: rows.collect(),
        total,
        is_searchable: total >= SEARCHABLE_SERVICES,
        search,
        page: page_number,
        pages,
        received: format::bytes(sum(|to_date| to_date.usage.bytes_in)),
        sent: format::bytes(sum(|to_date| to_date.usage.bytes_out)),
        extra,
    })
}

struct Choice {
    label: &'static str,
    query: String,
    is_current: bool,
}

struct PointRow {
    start: String,
    received: String,
    sent: String,
    rate: String,
    note: String,
}

struct GapRow {
    from: String,
    to: String,
    minutes: i64,
    exporter: String,
}

#[derive(Template)]
#[template(path = "usage_service.html")]
struct UsageService {
    shell: Shell,
    id: String,
    details: String,
    period: PeriodView,
    ranges: Vec<Choice>,
    steps: Vec<Choice>,
    from_date: String,
    to_date: String,
    query: String,
    time_zone: String,
    points: Vec<PointRow>,
    points_total: usize,
    gaps: Vec<GapRow>,
    gaps_total: usize,
    problem: Option<String>,
}

/// Mean rate over the measured windows of a point.
fn rate_bps(point: &SeriesPoint) -> Option<u64> {
    let seconds = u64::from(point.windows_measured) * 300;
    let bits = u128::from(point.bytes_in) * 8 + u128::from(point.bytes_out) * 8;
    (seconds > 0).then(|| u64::try_from(bits / u128::from(seconds)).unwrap_or(u64::MAX))
}

fn point_row(point: &SeriesPoint, zone: &TimeZone) -> PointRow {
    let unmeasured = point.windows_measured == 0;
    let volume = |bytes: u64| {
        if unmeasured && bytes == 0 {
            "–".to_owned()
        } else {
            format::bytes(bytes)
        }
    };
    PointRow {
        start: format::minute(point.start_ms, zone),
        received: volume(point.bytes_in),
        sent: volume(point.bytes_out),
        rate: rate_bps(point).map_or_else(|| "–".to_owned(), format::bits_per_second),
        note: match (point.windows_measured, point.windows) {
            (_, 0) => "not yet".to_owned(),
            (0, _) => "not measured".to_owned(),
            (measured, windows) if measured < windows => format!("{measured} of {windows} windows measured"),
            _ => String::new(),
        },
    }
}

async fn one(
    State(state): State<AppState>,
    customer: Customer,
    Path(service): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let zone = &account.time_zone;
    // A range that cannot be shown is said on the page, which then shows the default.
    let (range, problem) = match api::usage::resolve(&state, &account, &own, &asked) {
        Err(Failure::BadRequest(why)) => {
            let fallback = api::usage::resolve(&state, &account, &own, &Asked::default())?;
            (fallback, Some(why))
        }
        resolved => (resolved?, None),
    };
    let series = api::usage::series(&state, &account, &own, &range).await?;
    let to_date = customer::period_to_date(&state, &account, &own).await?;

    let ranges = PRESETS.iter().map(|(name, label)| Choice {
        label,
        query: format!("range={name}"),
        is_current: range.preset == *name,
    });
    let time = if range.preset.is_empty() {
        format!("from={}&to={}", range.from_ms, range.to_ms)
    } else {
        format!("range={}", range.preset)
    };
    let steps = STEPS.iter().map(|(step, name, label)| Choice {
        label,
        query: format!("{time}&step={name}"),
        is_current: range.step == *step,
    });
    let gaps = series.gaps.iter().rev().take(MAX_GAPS_SHOWN).map(|gap| GapRow {
        from: format::minute(gap.from_ms, zone),
        to: format::minute(gap.to_ms, zone),
        minutes: (gap.to_ms - gap.from_ms) / 60_000,
        exporter: exporter_name(&state, gap.exporter),
    });
    let points = series.points.iter().rev().take(MAX_TABLE_ROWS);
    let (from_date, until_date) = range.dates(zone);
    page(&UsageService {
        shell: Shell::new(&customer.who, own.service.name.clone(), "/usage"),
        id: own.service.id.to_string(),
        details: details(&own),
        period: PeriodView::new(&to_date, zone),
        ranges: ranges.collect(),
        steps: steps.collect(),
        from_date,
        to_date: until_date,
        query: range.query(),
        time_zone: account.time_zone_name().to_owned(),
        points: points.map(|point| point_row(point, zone)).collect(),
        points_total: series.points.len(),
        gaps: gaps.collect(),
        gaps_total: series.gaps.len(),
        problem,
    })
}

/// The configured name of an exporter, else its address. Where none is configured to meter, any would have done.
pub(crate) fn exporter_name(state: &AppState, address: Address) -> String {
    if address == Address::UNSPECIFIED {
        return "any exporter".to_owned();
    }
    let metering = state.metering();
    let configured = metering.exporters.iter().find(|exporter| exporter.address == address);
    configured
        .and_then(|exporter| exporter.name.clone())
        .unwrap_or_else(|| address.to_string())
}

/// The chart's numbers as CSV: exact bytes, RFC 3339 times.
async fn download(
    State(state): State<AppState>,
    customer: Customer,
    Path(service): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let range = api::usage::resolve(&state, &account, &own, &asked)?;
    let series = api::usage::series(&state, &account, &own, &range).await?;
    let body = csv_of(&series.points).map_err(|error| Failure::internal("write CSV")(error.into()))?;
    let name = format!(
        "attachment; filename=\"usage-{}-{}-{}.csv\"",
        own.service.id,
        format::day(range.from_ms, &account.time_zone),
        step_name(range.step),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, body).into_response())
}

fn csv_of(points: &[SeriesPoint]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["start", "end", "bytes_in", "bytes_out", "windows_measured", "windows"])?;
    for point in points {
        writer.write_record([
            format::rfc3339(point.start_ms),
            format::rfc3339(point.end_ms),
            point.bytes_in.to_string(),
            point.bytes_out.to_string(),
            point.windows_measured.to_string(),
            point.windows.to_string(),
        ])?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_never_rounded_up_to_whole() {
        assert_eq!(coverage_words(8640, 8640), "100.0 % measured");
        assert_eq!(coverage_words(8639, 8640), "99.9 % measured");
        assert_eq!(coverage_words(0, 0), "nothing to measure yet");
    }

    #[test]
    fn a_step_that_was_not_measured_is_not_a_zero() {
        let point = SeriesPoint {
            start_ms: 0,
            end_ms: 300_000,
            bytes_in: 0,
            bytes_out: 0,
            windows_measured: 0,
            windows: 1,
        };
        let row = point_row(&point, &TimeZone::UTC);
        assert_eq!((row.received.as_str(), row.note.as_str()), ("–", "not measured"));
        let measured = SeriesPoint {
            windows_measured: 1,
            bytes_in: 37_500_000,
            ..point
        };
        let row = point_row(&measured, &TimeZone::UTC);
        assert_eq!((row.sent.as_str(), row.rate.as_str()), ("0 B", "1.00 Mbit/s"));
        assert_eq!(percent_of(1, 0), 100);
        assert_eq!(percent_of(u64::MAX, 1), u64::MAX);
    }
}
