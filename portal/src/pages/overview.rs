//! The traffic overview of ops: what the whole network carries, stacked by service, protocol, interface or AS.
//!
//! The server renders the table and puts the chart's figures beside it; `overview.js` draws and refreshes. A query that
//! cannot be answered shows the last 24 hours and says why. From a service's row it is one click to the service alone.

pub(crate) mod attacks;
pub(crate) mod service;

use analytics::Dimension;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use jiff::tz::TimeZone;

use crate::auth::Ops;
use crate::error::{Failure, PageError, page_beside};
use crate::exporters::counter_reconciliation;
use crate::first_steps::FirstSteps;
use crate::format;
use crate::overview::query::{OverviewQuery, OverviewRequest, Preset, QueryError};
use crate::overview::view::{OverviewView, SeriesKind, SeriesView};
use crate::overview::{self, Answer};
use crate::query::PageQuery;
use crate::range::{self, PRESETS};
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the page.
pub(crate) const PATH: &str = "/ops";

/// A link that may be the current one: a range or a tab.
struct Choice {
    label: &'static str,
    href: String,
    active: bool,
}

/// A figure above the chart.
struct Tile {
    title: &'static str,
    value: String,
    note: String,
    href: Option<&'static str>,
    alarming: bool,
}

/// A row of the table.
struct KeyRow {
    series: SeriesView,
    /// The page of a service, over the time shown here; of a sum, the page that names its keys.
    href: Option<String>,
    total: String,
    mean: String,
    peak: String,
    share: String,
}

struct SumRow {
    total: String,
    mean: String,
    peak: String,
}

/// What is still filling at the end of the range.
struct OpenRow {
    /// `14:00 – 14:03 UTC`.
    span: String,
    total: String,
    mean: String,
}

/// Pages of keys, the largest first.
struct Pages {
    /// `11–20 of 37`.
    text: String,
    /// Keys on a page.
    limit: usize,
    larger: Option<String>,
    smaller: Option<String>,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    /// What is to be done before there is something to show.
    first_steps: Option<FirstSteps>,
    path: &'static str,
    problem: Option<QueryError>,
    presets: Vec<Choice>,
    tabs: Vec<Choice>,
    by: &'static str,
    /// As the caption of the table names it.
    by_words: &'static str,
    key_heading: &'static str,
    from_input: String,
    to_input: String,
    /// Only a range that ends now changes.
    refreshes: bool,
    tiles: Vec<Tile>,
    rows: Vec<KeyRow>,
    sum: SumRow,
    open: Option<OpenRow>,
    /// Absent where all keys are on one page.
    pages: Option<Pages>,
    range_text: String,
    step_text: String,
    json_href: String,
    chart_json: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Ops(who): Ops,
    PageQuery(query): PageQuery<OverviewQuery>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let (request, problem) = match query.check(now_ms) {
        Ok(request) => (request, None),
        Err(problem) => {
            let fallback = OverviewQuery::default()
                .check(now_ms)
                .map_err(|error| Failure::BadRequest(error.to_string()))?;
            (fallback, Some(problem))
        }
    };
    let answer = overview::answer(&state, &request).await?;
    let is_refused = problem.is_some();
    let first_steps = FirstSteps::of_traffic(&state).await?;
    let mut shown = overview_page(
        Shell::new(&who, "Traffic", PATH),
        first_steps,
        &request,
        problem,
        answer,
    )?;
    let typed = |text: &Option<String>| text.clone().unwrap_or_default();
    shown.from_input = range::field(is_refused, &typed(&query.from), shown.from_input);
    shown.to_input = range::field(is_refused, &typed(&query.to), shown.to_input);
    page_beside(&shown, is_refused)
}

fn overview_page(
    shell: Shell,
    first_steps: Option<FirstSteps>,
    request: &OverviewRequest,
    problem: Option<QueryError>,
    answer: Answer,
) -> Result<OverviewPage, Failure> {
    let by = request.by.name();
    let range = range_query(request);
    let chart_json = serde_json::to_string(&answer.view)
        .map_err(|error| Failure::internal("write the chart's figures")(error.into()))?;
    let tiles = tiles(&answer);
    let view = answer.view;
    // What the address asks for cannot be asked for again and again.
    let refreshes = request.preset.is_some() && problem.is_none();
    let base = format!("{PATH}?by={by}&{range}");
    let pages = pages(&view, request, &base);
    let open = open_row(&view);
    let ranked = |kind: SeriesKind| match (&pages, kind) {
        (Some(pages), SeriesKind::Larger) => pages.larger.clone(),
        (Some(pages), SeriesKind::Other) => pages.smaller.clone(),
        _ => None,
    };
    let rows = view.series.iter().map(|series| {
        let counted = match series.kind {
            SeriesKind::Larger => Some(view.keys_skipped),
            SeriesKind::Other => Some(view.keys_total - view.keys_skipped - view.keys_named),
            SeriesKind::Key | SeriesKind::Unattributed => None,
        };
        let mut row = key_row(series.clone(), request, ranked(series.kind));
        if let Some(count) = counted {
            row.series.detail = format!("{count} {}", counted_words(request.by, count));
        }
        row
    });
    let rows = rows.collect();
    Ok(OverviewPage {
        shell,
        first_steps,
        path: PATH,
        problem,
        presets: Preset::ALL
            .into_iter()
            .map(|preset| Choice {
                label: preset.name(),
                href: format!("{PATH}?by={by}&range={}", preset.name()),
                active: request.preset == Some(preset),
            })
            .collect(),
        tabs: [
            (Dimension::Service, "Services"),
            (Dimension::Protocol, "Protocols"),
            (Dimension::Port, "Ports"),
            (Dimension::Interface, "Interfaces"),
            (Dimension::Exporter, "Exporters"),
            (Dimension::Site, "Sites"),
            (Dimension::Boundary, "Boundaries"),
            (Dimension::As, "AS numbers"),
        ]
        .into_iter()
        .map(|(dimension, label)| Choice {
            label,
            href: format!("{PATH}?by={}&{range}", dimension.name()),
            active: request.by == dimension,
        })
        .collect(),
        by,
        by_words: match request.by {
            Dimension::Service => "service",
            Dimension::Protocol => "protocol",
            Dimension::Port => "port",
            Dimension::Interface => "interface",
            Dimension::Exporter => "exporter",
            Dimension::Site => "site",
            Dimension::Boundary => "what the interface faces",
            Dimension::As => "AS",
        },
        key_heading: match request.by {
            Dimension::Service => "Service",
            Dimension::Protocol => "Protocol",
            Dimension::Port => "Port",
            Dimension::Interface => "Interface",
            Dimension::Exporter => "Exporter",
            Dimension::Site => "Site",
            Dimension::Boundary => "Interface faces",
            Dimension::As => "Autonomous system",
        },
        from_input: input_time(request.from_ms),
        to_input: input_time(request.to_ms),
        refreshes,
        tiles,
        sum: SumRow {
            total: format::bytes(view.total_bytes),
            mean: format::bits_per_second(view.total_mean_bits_per_second),
            peak: format::bits_per_second(view.total_peak_bits_per_second),
        },
        range_text: format!(
            "{} – {} UTC",
            format::minute(request.from_ms, &TimeZone::UTC),
            format::minute(request.to_ms, &TimeZone::UTC)
        ),
        step_text: step_text(view.step_ms),
        json_href: format!(
            "/api/v1/ops/overview?by={by}&{range}&limit={}&skip={}",
            request.limit, request.skip
        ),
        chart_json: in_script(&chart_json),
        rows,
        open,
        pages,
    })
}

/// The pages before and after the keys that are named.
fn pages(view: &OverviewView, request: &OverviewRequest, base: &str) -> Option<Pages> {
    if view.keys_total <= request.limit && request.skip == 0 {
        return None;
    }
    let page = |skip: usize| format!("{base}&limit={}&skip={skip}", request.limit);
    let last = view.keys_skipped + view.keys_named;
    Some(Pages {
        text: match view.keys_named {
            0 => format!("none after the {} there are", view.keys_total),
            _ => format!("{}–{last} of {}", view.keys_skipped + 1, view.keys_total),
        },
        limit: request.limit,
        larger: (view.keys_skipped > 0).then(|| page(view.keys_skipped.saturating_sub(request.limit))),
        smaller: (last < view.keys_total).then(|| page(last)),
    })
}

fn counted_words(by: Dimension, count: usize) -> &'static str {
    match (by, count) {
        (Dimension::Service, 1) => "service",
        (Dimension::Service, _) => "services",
        (Dimension::Protocol, 1) => "protocol",
        (Dimension::Protocol, _) => "protocols",
        (Dimension::Port, 1) => "port",
        (Dimension::Port, _) => "ports",
        (Dimension::Exporter, 1) => "exporter",
        (Dimension::Exporter, _) => "exporters",
        (Dimension::Site, 1) => "site",
        (Dimension::Site, _) => "sites",
        (Dimension::Boundary, 1) => "boundary",
        (Dimension::Boundary, _) => "boundaries",
        (Dimension::Interface, 1) => "interface",
        (Dimension::Interface, _) => "interfaces",
        (Dimension::As, 1) => "AS number",
        (Dimension::As, _) => "AS numbers",
    }
}

fn open_row(view: &OverviewView) -> Option<OpenRow> {
    let from_ms = view.open_from_ms?.max(view.from_ms);
    Some(OpenRow {
        span: format!(
            "{} – {} UTC",
            format::minute(from_ms, &TimeZone::UTC),
            clock(view.to_ms)
        ),
        total: format::bytes(view.open_bytes),
        mean: format::bits_per_second(view.open_bits_per_second),
    })
}

fn key_row(series: SeriesView, request: &OverviewRequest, page_of_sum: Option<String>) -> KeyRow {
    KeyRow {
        href: series
            .service
            .map(|id| format!("{}?{}", service::href(id), service_range(request)))
            .or(page_of_sum),
        total: format::bytes(series.total_bytes),
        mean: format::bits_per_second(series.mean_bits_per_second),
        peak: format::bits_per_second(series.peak_bits_per_second),
        share: format!("{:.1}", series.share_percent),
        series,
    }
}

fn tiles(answer: &Answer) -> Vec<Tile> {
    let figures = &answer.tiles;
    let exporters = &answer.exporters;
    let measured = |rate: Option<u64>| rate.map_or_else(|| "–".to_owned(), format::bits_per_second);
    let window = match figures.current_window_start_ms {
        Some(start_ms) => format!("5 min from {}", clock(start_ms)),
        None => "nothing metered in 30 min".to_owned(),
    };
    let quiet = exporters.late + exporters.silent;
    vec![
        Tile {
            title: "In now",
            value: measured(figures.in_bits_per_second),
            note: window.clone(),
            href: None,
            alarming: false,
        },
        Tile {
            title: "Out now",
            value: measured(figures.out_bits_per_second),
            note: window,
            href: None,
            alarming: false,
        },
        Tile {
            title: "Flow records now",
            value: figures
                .flows_per_second
                .map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1} /s")),
            note: "received, all exporters".to_owned(),
            href: None,
            alarming: false,
        },
        Tile {
            title: "Exporters heard",
            value: match exporters.heard + quiet {
                0 => "none yet".to_owned(),
                known => format!("{} of {known}", exporters.heard),
            },
            note: match (exporters.heard, quiet) {
                (0, 0) => "how to send flows here".to_owned(),
                (_, 0) => "none silent".to_owned(),
                (_, quiet) => format!("{quiet} not heard lately"),
            },
            href: Some(match exporters.heard + quiet {
                0 => "/exporters#guide",
                _ => "/exporters",
            }),
            alarming: quiet > 0,
        },
        Tile {
            title: "Counter check",
            value: match (answer.truth.compared, answer.truth.findings) {
                (0, _) => "–".to_owned(),
                (_, 0) => "agree".to_owned(),
                (_, findings) => format!("{findings} disagree"),
            },
            note: match answer.truth.hour_start_ms {
                None if answer.truth.too_short > 0 => {
                    "counters come too seldom: have exporters send them once a minute".to_owned()
                }
                None => "no exporter sends counters yet".to_owned(),
                Some(start_ms) => format!(
                    "of {} compared, {}",
                    answer.truth.compared,
                    counter_reconciliation::hour_words(start_ms)
                ),
            },
            href: Some("/exporters"),
            alarming: answer.truth.findings > 0,
        },
        Tile {
            title: "Unattributed",
            value: figures
                .unattributed_percent
                .map_or_else(|| "–".to_owned(), |share| format!("{share:.1} %")),
            note: match figures.unattributed_percent {
                None => "nothing metered in this range".to_owned(),
                Some(_) => format!(
                    "{} in this range belong to no service",
                    format::bytes(figures.unattributed_bytes)
                ),
            },
            href: None,
            alarming: false,
        },
        Tile {
            title: "Rate unknown",
            value: match exporters.heard + quiet {
                0 => "–".to_owned(),
                _ => format::grouped(figures.flows_without_rate),
            },
            note: if exporters.heard + quiet == 0 {
                "no flow has come yet".to_owned()
            } else if figures.flows_without_rate == 0 {
                "every flow in this range can be billed".to_owned()
            } else {
                "flows in this range are kept, not billed: set a rate".to_owned()
            },
            href: Some("/exporters"),
            alarming: figures.flows_without_rate > 0,
        },
    ]
}

/// The part of the address that says which range is shown.
fn range_query(request: &OverviewRequest) -> String {
    match request.preset {
        Some(preset) => format!("range={}", preset.name()),
        None => exact_range(request.from_ms, request.to_ms),
    }
}

/// From and to as addresses carry them: RFC 3339, with the zone.
fn exact_range(from_ms: i64, to_ms: i64) -> String {
    format!("from={}&to={}", format::rfc3339(from_ms), format::rfc3339(to_ms))
}

/// The same time for the page of one service, whose names of ranges are fewer.
fn service_range(request: &OverviewRequest) -> String {
    match request.preset {
        Some(preset) if PRESETS.iter().any(|(name, _)| *name == preset.name()) => format!("range={}", preset.name()),
        _ => exact_range(request.from_ms, request.to_ms),
    }
}

/// As a date field holds it; UTC.
fn input_time(at_ms: i64) -> String {
    format::minute_field(at_ms, &TimeZone::UTC)
}

/// `14:05`, UTC.
fn clock(at_ms: i64) -> String {
    format::clock(at_ms, &TimeZone::UTC)
}

fn step_text(step_ms: i64) -> String {
    match step_ms / 60_000 {
        minutes if minutes >= 1440 && minutes % 1440 == 0 => format!("{} d", minutes / 1440),
        minutes if minutes >= 60 && minutes % 60 == 0 => format!("{} h", minutes / 60),
        minutes => format!("{minutes} min"),
    }
}

/// JSON inside a script element: no text in it can end the element.
pub(super) fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_end_its_script_element() {
        let text = in_script(r#"{"name":"</script><!-- &amp;"}"#);
        assert!(
            !text.contains('<') && !text.contains('>') && !text.contains('&'),
            "{text}"
        );
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["name"], "</script><!-- &amp;");
    }

    #[test]
    fn a_service_is_shown_over_the_same_time() {
        let now_ms = 1_795_356_210_000;
        let of = |range: &str| {
            let query = OverviewQuery {
                range: Some(range.to_owned()),
                ..OverviewQuery::default()
            };
            service_range(&query.check(now_ms).unwrap())
        };
        assert_eq!(of("7d"), "range=7d");
        assert_eq!(of("1h"), "from=2026-11-22T13:05:00Z&to=2026-11-22T14:03:30Z");
    }

    #[test]
    fn steps_read_as_people_say_them() {
        assert_eq!(step_text(300_000), "5 min");
        assert_eq!(step_text(3_600_000), "1 h");
        assert_eq!(step_text(5_400_000), "90 min");
        assert_eq!(step_text(86_400_000), "1 d");
    }
}
