//! What a customer's services use: the list of services, and one service with its chart, its period and its coverage.

pub(crate) mod service;
pub(crate) mod traffic;

use analytics::UsageMode;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::evidence::UsageCharge;
use jiff::tz::TimeZone;
use schemas::money::Money;

use crate::auth::Customer;
use crate::customer::{self, OwnService, PeriodToDate};
use crate::error::{PageError, page};
use crate::format::{self, VolumeUnits};
use crate::pages::plans::type_name;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Services on one page of the list.
const SERVICES_PER_PAGE: usize = 50;
/// From so many services on, the list can be searched.
const SEARCHABLE_SERVICES: usize = 8;
/// From so much coverage on, what is missing is no alarm.
const NEARLY_COMPLETE_PERCENT: u128 = 99;
/// Minutes of a usage window.
const WINDOW_MINUTES: u64 = 5;
/// Attacks of a period named on its page, the latest first.
const MAX_ATTACKS_NAMED: usize = 3;
/// Longest search text looked at, in characters.
const MAX_SEARCH_CHARS: usize = 100;

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
    /// First and last day.
    dates: String,
    received: String,
    sent: String,
    /// Sampling error of both together; empty where every packet was counted.
    bound: String,
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
    /// How long attacks lasted and when, whose traffic is not charged.
    attacks: Option<String>,
    is_complete: bool,
    /// A gap or a few: nothing to be alarmed by.
    is_nearly_complete: bool,
    /// What is included has what other services leave of theirs in it.
    is_pooled: bool,
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
    fn new(to_date: &PeriodToDate, units: VolumeUnits, zone: &TimeZone) -> PeriodView {
        let usage = &to_date.usage;
        let percentile = usage.percentile_95_bps;
        // What is measured against the plan is in the very unit that the plan is sold by.
        let volume = |bytes: u64| match &to_date.charge {
            Some(UsageCharge::Transfer { unit, .. }) => format::in_unit(bytes, unit.bytes(), unit.name()),
            _ => units.bytes(bytes),
        };
        let included_projected = to_date.included_bytes_projected().unwrap_or_default();
        let quota = to_date.included_bytes().map(|included| QuotaView {
            included: volume(included),
            percent: percent_of(usage.billed_bytes, included),
            projected_percent: percent_of(to_date.projected_bytes, included_projected),
            is_over: usage.billed_bytes > included,
            will_be_over: to_date.projected_bytes > included_projected,
        });
        // What was measured and is not charged is no gap, as on the invoice.
        let counted = usage.windows_measured.saturating_add(usage.windows_excluded);
        PeriodView {
            dates: format::dates(usage.from_ms, usage.to_ms - 1, zone),
            received: units.bytes(usage.bytes_in),
            sent: units.bytes(usage.bytes_out),
            bound: format::error_bound(usage.error_bound_ppm),
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
            coverage: coverage_words(counted, usage.windows_expected),
            attacks: attack_words(usage.windows_excluded, &to_date.excluded, zone),
            is_complete: counted >= usage.windows_expected,
            is_nearly_complete: u128::from(counted) * 100
                >= u128::from(usage.windows_expected) * NEARLY_COMPLETE_PERCENT,
            is_pooled: to_date.is_pooled && to_date.charge.is_some(),
        }
    }
}

/// `20 min of attack traffic, not charged (30 Nov 2026 14:05 – 14:25)`.
fn attack_words(windows: u64, times: &[(i64, i64)], zone: &TimeZone) -> Option<String> {
    if windows == 0 {
        return None;
    }
    let mut named: Vec<String> = Vec::new();
    for &(from_ms, to_ms) in times.iter().rev().take(MAX_ATTACKS_NAMED) {
        let until = match format::date(from_ms, zone) == format::date(to_ms, zone) {
            true => format::clock(to_ms, zone),
            false => format::minute(to_ms, zone),
        };
        named.push(format!("{} – {until}", format::minute(from_ms, zone)));
    }
    if times.len() > MAX_ATTACKS_NAMED {
        named.push(format!("{} more", times.len() - MAX_ATTACKS_NAMED));
    }
    let minutes = windows.saturating_mul(WINDOW_MINUTES);
    Some(format!(
        "{} min of attack traffic, not charged ({})",
        format::grouped(minutes),
        named.join(", ")
    ))
}

/// `99.8 % measured`; never rounded up to 100.
fn coverage_words(measured: u64, expected: u64) -> String {
    match coverage_percent(measured, expected) {
        Some(percent) => format!("{percent} measured"),
        None => "nothing to measure yet".to_owned(),
    }
}

/// `99.8 %`, never rounded up to 100; `None` where there was nothing to measure.
pub(crate) fn coverage_percent(measured: u64, expected: u64) -> Option<String> {
    let permille = (u128::from(measured) * 1000).checked_div(u128::from(expected))?;
    Some(format!("{}.{} %", permille / 10, permille % 10))
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
    is_pooled: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct UsageListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: String,
}

/// Type, site and plan, as far as there are any.
pub(crate) fn details(own: &OwnService) -> String {
    let plan = own.contract.as_ref().map(|contract| contract.last_phase().plan.label());
    let service_type = type_name(&own.service.service_type);
    let parts = [
        Some(service_type.as_str()),
        own.service.site.as_deref(),
        plan.as_deref(),
    ];
    parts.into_iter().flatten().collect::<Vec<&str>>().join(" · ")
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(asked): PageQuery<UsageListQuery>,
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
    let page_number = filter::<usize>("page", &asked.page, "the number of a page")?
        .unwrap_or(1)
        .clamp(1, pages);
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
    // Each service in its units, as on its own page; sums in those of all, where they agree.
    let mut families = shown.iter().map(OwnService::volume_units);
    let first = families.next().unwrap_or(VolumeUnits::Binary);
    let units = if families.all(|units| units == first) {
        first
    } else {
        VolumeUnits::Binary
    };
    let rows = shown.iter().zip(&to_date).map(|(own, to_date)| ServiceRow {
        id: own.service.id.to_string(),
        name: own.service.name.clone(),
        details: details(own),
        period: PeriodView::new(to_date, own.volume_units(), &account.time_zone),
    });
    page(&UsageList {
        shell: Shell::new(&customer.who, "Usage", "/usage"),
        rows: rows.collect(),
        total,
        is_searchable: total >= SEARCHABLE_SERVICES,
        search,
        page: page_number,
        pages,
        received: units.bytes(sum(|to_date| to_date.usage.bytes_in)),
        sent: units.bytes(sum(|to_date| to_date.usage.bytes_out)),
        extra,
        is_pooled: account.billing.pools_usage,
    })
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
    fn attacks_are_named_with_their_times() {
        let zone = TimeZone::UTC;
        assert_eq!(attack_words(0, &[(0, 600_000)], &zone), None);
        assert_eq!(
            attack_words(4, &[(0, 1_200_000)], &zone).unwrap(),
            "20 min of attack traffic, not charged (1 Jan 1970 00:00 – 00:20)"
        );
        let times: Vec<(i64, i64)> = (0..5)
            .map(|day| (day * 86_400_000, day * 86_400_000 + 300_000))
            .collect();
        let words = attack_words(5, &times, &zone).unwrap();
        assert!(
            words.starts_with("25 min") && words.ends_with("3 Jan 1970 00:00 – 00:05, 2 more)"),
            "{words}"
        );
    }

    #[test]
    fn a_share_of_nothing_included_is_the_whole() {
        assert_eq!((percent_of(0, 0), percent_of(1, 0)), (0, 100));
        assert_eq!(percent_of(u64::MAX, 1), u64::MAX);
    }
}
