//! Volumes to rates, keys to names.
//!
//! * Steps at the end of a range that reaches to now are still filling: one that is not over, or whose windows may still get
//!   flows that are on their way. Their rate is taken over the part that has passed; they are marked by `open_from_ms` and do
//!   not count for the peak.
//! * Keys are what analytics answers (`svc_12`, `6`, `192.0.2.1 513`, `64500`); names are looked up when shown, so that a
//!   renamed service shows its new name over its whole history.

use std::collections::HashMap;
use std::sync::Arc;

use analytics::usage::closed_until_ms;
use analytics::{Dimension, Overview, OverviewSeries};
use jiff::Timestamp;
use schemas::address::Address;
use schemas::ids::ServiceId;
use schemas::metering::MeteringConfig;
use serde::Serialize;

use super::query::OverviewRequest;

/// Colours of the palette in `staff.css`; beyond them it starts anew.
const COLOURS: usize = 10;

/// Names for keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Service number → (service name, customer name).
    pub(crate) services: HashMap<u32, (String, String)>,
    /// What exporters and their interfaces are called.
    pub(crate) metering: Arc<MeteringConfig>,
}

/// What a series stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OverviewSeriesKind)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SeriesKind {
    Key,
    /// Traffic of no service.
    Unattributed,
    /// Sum of the keys that are larger than those named.
    Larger,
    /// Sum of the keys that were too small to be named.
    Other,
}

/// One band of the chart and one row of the table.
#[derive(Clone, PartialEq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OverviewSeries)]
pub(crate) struct SeriesView {
    pub(crate) key: String,
    pub(crate) name: String,
    /// Second line: the customer, the address, the number behind the name; empty where there is none.
    pub(crate) detail: String,
    pub(crate) kind: SeriesKind,
    /// The service it stands for, where the catalogue has it.
    pub(crate) service: Option<ServiceId>,
    /// Class of `staff.css` that gives the band its colour.
    pub(crate) colour: String,
    pub(crate) bits_per_second: Vec<u64>,
    pub(crate) total_bytes: u64,
    pub(crate) mean_bits_per_second: u64,
    pub(crate) peak_bits_per_second: u64,
    /// Of all traffic in the range.
    pub(crate) share_percent: f64,
}

/// The overview as it is drawn.
#[derive(Clone, PartialEq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OverviewFigures)]
pub(crate) struct OverviewView {
    /// RFC 3339.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) by: Dimension,
    pub(crate) step_ms: i64,
    pub(crate) starts_ms: Vec<i64>,
    /// Start of the first step that is still filling, where the range reaches it.
    pub(crate) open_from_ms: Option<i64>,
    /// What was measured since then, and its mean rate over what has passed.
    pub(crate) open_bytes: u64,
    pub(crate) open_bits_per_second: u64,
    /// Keys with traffic in the range, and how many of them are larger than those named.
    pub(crate) keys_total: usize,
    pub(crate) keys_skipped: usize,
    pub(crate) keys_named: usize,
    pub(crate) total_bytes: u64,
    /// Sum of all series per step.
    pub(crate) total_bits_per_second: Vec<u64>,
    pub(crate) total_mean_bits_per_second: u64,
    pub(crate) total_peak_bits_per_second: u64,
    pub(crate) series: Vec<SeriesView>,
}

/// Turns volumes into rates and keys into names.
pub(crate) fn overview_view(
    overview: &Overview,
    request: &OverviewRequest,
    names: &Names,
    now_ms: i64,
) -> OverviewView {
    let steps = overview.starts_ms.len();
    let widths_ms = step_widths_ms(overview, request);
    // Before this its windows are complete. A range that ends in a closed window is closed, whatever its last step is.
    let closed_ms = closed_until_ms(now_ms);
    let is_open = |start_ms: &i64| (start_ms + overview.step_ms).min(request.to_ms) > closed_ms;
    let first_open = overview.starts_ms.iter().position(is_open);
    let open_from_ms = first_open.map(|first| overview.starts_ms[first]);
    // Open steps alone are still better than no peak at all.
    let closed_steps = first_open.filter(|first| *first > 0).unwrap_or(steps);
    let range = Range {
        covered_ms: widths_ms.iter().sum(),
        widths_ms,
        closed_steps,
        total_bytes: overview
            .series
            .iter()
            .map(|series| series.total_bytes)
            .fold(0, u64::saturating_add),
    };

    let mut total_by_step = vec![0u64; steps];
    for series in &overview.series {
        for (sum, bytes) in total_by_step.iter_mut().zip(&series.bytes) {
            *sum = sum.saturating_add(*bytes);
        }
    }
    let total_rates = range.rates(&total_by_step);
    let open = first_open.unwrap_or(steps);
    let open_bytes = total_by_step[open..].iter().copied().fold(0, u64::saturating_add);
    let open_ms: i64 = range.widths_ms[open..].iter().sum();
    let mut next_colour = 0;
    let series = overview
        .series
        .iter()
        .map(|series| {
            let label = label(&series.key, request.by, names);
            let colour = match label.kind {
                SeriesKind::Other => "ez-s-other".to_owned(),
                SeriesKind::Larger => "ez-s-larger".to_owned(),
                SeriesKind::Unattributed => "ez-s-unattributed".to_owned(),
                SeriesKind::Key => {
                    next_colour = next_colour % COLOURS + 1;
                    format!("ez-s{next_colour}")
                }
            };
            series_view(series, label, colour, &range)
        })
        .collect();
    OverviewView {
        from: instant(request.from_ms),
        to: instant(request.to_ms),
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        by: request.by,
        step_ms: overview.step_ms,
        starts_ms: overview.starts_ms.clone(),
        open_from_ms,
        open_bytes,
        open_bits_per_second: rate(open_bytes, open_ms),
        keys_total: overview.keys_total,
        keys_skipped: request.skip.min(overview.keys_total),
        keys_named: overview.keys_total.saturating_sub(request.skip).min(request.limit),
        total_bytes: range.total_bytes,
        total_mean_bits_per_second: rate(range.total_bytes, range.covered_ms),
        total_peak_bits_per_second: range.peak(&total_rates),
        total_bits_per_second: total_rates,
        series,
    }
}

/// How the steps of a range turn volumes into rates.
#[derive(Debug)]
struct Range {
    /// Part of each step that lies in the range and in the past.
    widths_ms: Vec<i64>,
    covered_ms: i64,
    /// Steps that are over.
    closed_steps: usize,
    total_bytes: u64,
}

impl Range {
    fn rates(&self, bytes: &[u64]) -> Vec<u64> {
        bytes
            .iter()
            .zip(&self.widths_ms)
            .map(|(bytes, width_ms)| rate(*bytes, *width_ms))
            .collect()
    }

    fn peak(&self, rates: &[u64]) -> u64 {
        rates.iter().take(self.closed_steps).copied().max().unwrap_or(0)
    }
}

fn series_view(series: &OverviewSeries, label: Label, colour: String, range: &Range) -> SeriesView {
    let bits_per_second = range.rates(&series.bytes);
    SeriesView {
        key: series.key.clone(),
        name: label.name,
        detail: label.detail,
        kind: label.kind,
        service: label.service,
        colour,
        total_bytes: series.total_bytes,
        mean_bits_per_second: rate(series.total_bytes, range.covered_ms),
        peak_bits_per_second: range.peak(&bits_per_second),
        share_percent: share_percent(series.total_bytes, range.total_bytes),
        bits_per_second,
    }
}

fn step_widths_ms(overview: &Overview, request: &OverviewRequest) -> Vec<i64> {
    let width_ms = |start_ms: &i64| {
        let from_ms = (*start_ms).max(request.from_ms);
        let to_ms = (start_ms + overview.step_ms).min(request.to_ms);
        (to_ms - from_ms).max(0)
    };
    overview.starts_ms.iter().map(width_ms).collect()
}

/// Mean bits per second of a volume, rounded down; 0 over no time.
pub(crate) fn rate(bytes: u64, width_ms: i64) -> u64 {
    match u128::try_from(width_ms) {
        Ok(width_ms @ 1..) => u64::try_from(u128::from(bytes) * 8_000 / width_ms).unwrap_or(u64::MAX),
        _ => 0,
    }
}

/// Share in percent with one decimal; 0 of nothing.
pub(crate) fn share_percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

fn instant(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

#[derive(Debug, PartialEq)]
struct Label {
    name: String,
    detail: String,
    kind: SeriesKind,
    service: Option<ServiceId>,
}

impl Label {
    fn key(name: impl Into<String>, detail: impl Into<String>) -> Label {
        Label {
            name: name.into(),
            detail: detail.into(),
            kind: SeriesKind::Key,
            service: None,
        }
    }
}

fn label(key: &str, by: Dimension, names: &Names) -> Label {
    match key {
        "larger" => {
            return Label {
                kind: SeriesKind::Larger,
                ..Label::key("Larger", "all larger ones")
            };
        }
        "other" => {
            return Label {
                kind: SeriesKind::Other,
                ..Label::key("Other", "all smaller ones")
            };
        }
        "unattributed" => {
            return Label {
                kind: SeriesKind::Unattributed,
                ..Label::key("Unattributed", "addresses no service holds")
            };
        }
        _ => {}
    }
    let known = match by {
        Dimension::Service => key.parse::<ServiceId>().ok().map(|id| service_label(id, names)),
        Dimension::Protocol => key.parse::<u8>().ok().map(protocol_label),
        Dimension::Port => port_label(key),
        Dimension::Interface => interface_label(key, names),
        Dimension::Exporter => exporter_label(key, names),
        Dimension::Site => Some(site_label(key)),
        Dimension::Boundary => Some(boundary_label(key)),
        Dimension::As => key.parse::<u32>().ok().map(as_label),
    };
    known.unwrap_or_else(|| Label::key(key, ""))
}

fn service_label(id: ServiceId, names: &Names) -> Label {
    match names.services.get(&id.number()) {
        Some((name, customer)) => Label {
            service: Some(id),
            ..Label::key(name, format!("{customer} · {id}"))
        },
        None => Label::key(id.to_string(), "no longer in the catalogue"),
    }
}

fn exporter_label(key: &str, names: &Names) -> Option<Label> {
    let exporter: Address = key.parse().ok()?;
    let configured = names
        .metering
        .exporter(exporter, 0)
        .filter(|config| config.name.is_some());
    Some(match configured {
        Some(config) => Label::key(config.name_of(exporter), key),
        None => Label::key(key, ""),
    })
}

fn site_label(key: &str) -> Label {
    match key.strip_prefix("site ") {
        Some(name) => Label::key(name, ""),
        None => Label::key("No site", "exporters without a site in the configuration"),
    }
}

fn boundary_label(key: &str) -> Label {
    match key {
        "external" => Label::key("External", "transit, peering and customers' own lines"),
        "internal" => Label::key("Internal", "our own network"),
        _ => Label::key("Unknown", "interfaces that the configuration does not judge"),
    }
}

/// `6 443`: a protocol and a port, by the names that people know them by.
fn port_label(key: &str) -> Option<Label> {
    let (protocol, port) = key.split_once(' ')?;
    let (protocol, port): (u8, u16) = (protocol.parse().ok()?, port.parse().ok()?);
    let protocol_name = protocol_label(protocol).name;
    if port == 0 {
        let why = match protocol {
            6 | 17 | 132 => "both ports are 32768 or more",
            _ => "has no ports",
        };
        return Some(Label::key(protocol_name, why));
    }
    let number = format!("{protocol_name} {port}");
    Some(match port_name(protocol, port) {
        Some(name) => Label::key(name, number),
        None => Label::key(number, ""),
    })
}

/// What runs on a port, as IANA's registry or the makers have it: what a hosting network sees most.
fn port_name(protocol: u8, port: u16) -> Option<&'static str> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    Some(match (protocol, port) {
        (TCP, 20 | 21) => "FTP",
        (TCP, 22) => "SSH",
        (TCP, 23) => "Telnet",
        (TCP, 25 | 465 | 587) => "SMTP",
        (TCP | UDP, 53) => "DNS",
        (TCP, 853) => "DNS over TLS",
        (TCP, 80) => "HTTP",
        (TCP, 443) => "HTTPS",
        (UDP, 443) => "QUIC",
        (TCP, 110 | 995) => "POP3",
        (TCP, 143 | 993) => "IMAP",
        (UDP, 123) => "NTP",
        (UDP, 161 | 162) => "SNMP",
        (TCP, 179) => "BGP",
        (TCP, 389 | 636) => "LDAP",
        (TCP, 445) => "SMB",
        (UDP, 500 | 4500) => "IPsec",
        (UDP, 514) | (TCP, 6514) => "Syslog",
        (TCP, 873) => "rsync",
        (TCP | UDP, 1194) => "OpenVPN",
        (TCP, 1433) => "SQL Server",
        (TCP, 2049) => "NFS",
        (TCP, 3306) => "MySQL",
        (TCP | UDP, 3389) => "Remote Desktop",
        (UDP, 3478) => "STUN",
        (UDP, 5060) | (TCP, 5060 | 5061) => "SIP",
        (TCP, 5432) => "PostgreSQL",
        (TCP, 5900) => "VNC",
        (TCP, 6379) => "Redis",
        (TCP, 8080) => "HTTP (8080)",
        (TCP, 8443) => "HTTPS (8443)",
        (UDP, 9987) => "TeamSpeak",
        (UDP, 11211) => "Memcached",
        (TCP, 25_565) => "Minecraft",
        (UDP, 19_132) => "Minecraft Bedrock",
        (TCP | UDP, 27_015) => "Source engine",
        (TCP, 27_017) => "MongoDB",
        (UDP, 28_015) => "Rust (game)",
        (TCP | UDP, 30_120) => "FiveM",
        _ => return None,
    })
}

/// Names of IP protocols as IANA's registry has them; those a hosting network sees.
fn protocol_label(protocol: u8) -> Label {
    let name = match protocol {
        0 => "HOPOPT",
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4 in IP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6 in IP",
        46 => "RSVP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        88 => "EIGRP",
        89 => "OSPF",
        97 => "EtherIP",
        103 => "PIM",
        112 => "VRRP",
        115 => "L2TP",
        132 => "SCTP",
        136 => "UDPLite",
        137 => "MPLS in IP",
        255 => "not reported",
        _ => return Label::key(format!("protocol {protocol}"), ""),
    };
    Label::key(name, format!("protocol {protocol}"))
}

/// `192.0.2.1 513`: exporter and SNMP index.
fn interface_label(key: &str, names: &Names) -> Option<Label> {
    let (exporter, if_index) = key.split_once(' ')?;
    let exporter: Address = exporter.parse().ok()?;
    let if_index: u32 = if_index.parse().ok()?;
    let configured = names.metering.exporter(exporter, 0);
    let known = names.metering.interfaces.interface(exporter, 0, if_index);
    let name_of_interface = configured
        .and_then(|config| config.interface_names.get(&if_index).map(String::as_str))
        .or_else(|| known?.best_name());
    let interface = match name_of_interface {
        _ if if_index == 0 => "no interface".to_owned(),
        Some(name) => name.to_owned(),
        None => format!("if {if_index}"),
    };
    Some(match configured.filter(|config| config.name.is_some()) {
        Some(config) => Label::key(
            format!("{} {interface}", config.name_of(exporter)),
            match name_of_interface {
                Some(_) => format!("{exporter} if {if_index}"),
                None => exporter.to_string(),
            },
        ),
        None => Label::key(format!("{exporter} {interface}"), ""),
    })
}

fn as_label(number: u32) -> Label {
    match number {
        0 => Label::key("AS not reported", "the exporter sends no AS numbers here"),
        64_512..=65_534 | 4_200_000_000..=4_294_967_294 => Label::key(format!("AS{number}"), "private use"),
        64_496..=64_511 | 65_536..=65_551 => Label::key(format!("AS{number}"), "documentation"),
        _ => Label::key(format!("AS{number}"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::query::OverviewQuery;
    use schemas::interfaces::{KnownInterface, KnownInterfaces};
    use schemas::metering::ExporterConfig;

    /// 2026-11-22T14:03:00Z, 3 min into a window.
    const NOW_MS: i64 = 1_795_356_180_000;

    fn request(from_ms: i64, to_ms: i64) -> OverviewRequest {
        let mut request = OverviewQuery::default().check(NOW_MS).unwrap();
        (request.from_ms, request.to_ms) = (from_ms, to_ms);
        request
    }

    fn overview(starts_ms: &[i64], series: &[(&str, &[u64])]) -> Overview {
        Overview {
            from_ms: starts_ms[0],
            to_ms: NOW_MS,
            step_ms: 300_000,
            starts_ms: starts_ms.to_vec(),
            keys_total: series.len(),
            series: series
                .iter()
                .map(|(key, bytes)| OverviewSeries {
                    key: (*key).to_owned(),
                    total_bytes: bytes.iter().sum(),
                    bytes: bytes.to_vec(),
                })
                .collect(),
        }
    }

    #[test]
    fn the_open_step_is_rated_over_its_past_and_never_the_peak() {
        let open_ms = NOW_MS - 180_000;
        let starts = [open_ms - 300_000, open_ms];
        let overview = overview(&starts, &[("svc_1", &[37_500_000, 45_000_000])]);
        let view = overview_view(&overview, &request(starts[0], NOW_MS), &Names::default(), NOW_MS);
        assert_eq!(view.open_from_ms, Some(open_ms));
        assert_eq!(view.series[0].bits_per_second, [1_000_000, 2_000_000]);
        assert_eq!(view.series[0].peak_bits_per_second, 1_000_000);
        assert_eq!(view.total_peak_bits_per_second, 1_000_000);
        assert_eq!(view.total_mean_bits_per_second, 82_500_000 * 8 / 480);
        assert_eq!((view.open_bytes, view.open_bits_per_second), (45_000_000, 2_000_000));
    }

    #[test]
    fn a_window_that_is_over_fills_until_what_is_on_its_way_has_come() {
        let start_ms = NOW_MS - 180_000;
        let starts = [start_ms - 300_000, start_ms];
        let overview = overview(&starts, &[("svc_1", &[37_500_000, 5_000_000])]);
        let open = |now_ms: i64| {
            let request = request(starts[0], start_ms + 300_000);
            overview_view(&overview, &request, &Names::default(), now_ms).open_from_ms
        };
        let end_ms = start_ms + 300_000;
        assert_eq!(open(end_ms + 5_000), Some(start_ms), "over for five seconds");
        assert_eq!(open(end_ms + 119_999), Some(start_ms));
        assert_eq!(open(end_ms + 120_000), None, "closed");
    }

    #[test]
    fn ranks_are_told_and_what_is_before_them_has_a_colour_of_its_own() {
        let open_ms = NOW_MS - 180_000;
        let mut answered = overview(&[open_ms], &[("larger", &[600]), ("svc_1", &[300]), ("other", &[100])]);
        answered.keys_total = 35;
        let mut request = request(open_ms, NOW_MS);
        (request.skip, request.limit) = (10, 10);
        let view = overview_view(&answered, &request, &Names::default(), NOW_MS);
        assert_eq!((view.keys_skipped, view.keys_named, view.keys_total), (10, 10, 35));
        assert_eq!(view.series[0].colour, "ez-s-larger");
        request.skip = 30;
        let view = overview_view(&answered, &request, &Names::default(), NOW_MS);
        assert_eq!((view.keys_skipped, view.keys_named), (30, 5));
        request.skip = 90;
        let view = overview_view(&answered, &request, &Names::default(), NOW_MS);
        assert_eq!((view.keys_skipped, view.keys_named), (35, 0));
    }

    #[test]
    fn a_step_cut_by_the_range_is_rated_over_what_the_range_covers() {
        let start_ms = NOW_MS - 86_400_000 - 180_000;
        let overview = overview(&[start_ms], &[("6", &[1_000])]);
        let view = overview_view(
            &overview,
            &request(start_ms + 200_000, start_ms + 300_000),
            &Names::default(),
            NOW_MS,
        );
        assert_eq!(view.series[0].bits_per_second, [80]);
        assert_eq!(view.open_from_ms, None);
    }

    #[test]
    fn more_than_can_be_counted_is_the_most_that_can() {
        let open_ms = NOW_MS - 180_000;
        let overview = overview(&[open_ms], &[("svc_1", &[u64::MAX]), ("svc_2", &[u64::MAX])]);
        let view = overview_view(&overview, &request(open_ms, NOW_MS), &Names::default(), NOW_MS);
        assert_eq!((view.total_bytes, view.open_bytes), (u64::MAX, u64::MAX));
        assert!(view.series.iter().all(|series| series.total_bytes == u64::MAX));
    }

    #[test]
    fn shares_sum_over_named_keys_other_and_unattributed() {
        let open_ms = NOW_MS - 180_000;
        let overview = overview(
            &[open_ms],
            &[("svc_1", &[600]), ("unattributed", &[300]), ("other", &[100])],
        );
        let view = overview_view(&overview, &request(open_ms, NOW_MS), &Names::default(), NOW_MS);
        let shares: Vec<f64> = view.series.iter().map(|series| series.share_percent).collect();
        assert_eq!(shares, [60.0, 30.0, 10.0]);
        let colours: Vec<&str> = view.series.iter().map(|series| series.colour.as_str()).collect();
        assert_eq!(colours, ["ez-s1", "ez-s-unattributed", "ez-s-other"]);
        assert_eq!(view.total_bytes, 1000);
    }

    #[test]
    fn keys_become_names() {
        let mut names = Names::default();
        names.services.insert(7, ("web-7".to_owned(), "Acme".to_owned()));
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let mut interfaces = KnownInterfaces::default();
        let ae0 = KnownInterface {
            name: "ae0.0".to_owned(),
            ..KnownInterface::default()
        };
        interfaces.set(exporter, 0, 514, ae0);
        names.metering = Arc::new(MeteringConfig {
            exporters: vec![ExporterConfig {
                name: Some("mx1.nyc1".to_owned()),
                ..ExporterConfig::unlisted(exporter)
            }],
            interfaces: Arc::new(interfaces),
            ..MeteringConfig::default()
        });
        let named = |key, by| {
            let label = label(key, by, &names);
            (label.name, label.detail)
        };
        let pair = |name: &str, detail: &str| (name.to_owned(), detail.to_owned());
        assert_eq!(named("svc_7", Dimension::Service), pair("web-7", "Acme · svc_7"));
        assert_eq!(
            named("svc_8", Dimension::Service),
            pair("svc_8", "no longer in the catalogue")
        );
        assert_eq!(label("svc_7", Dimension::Service, &names).service, Some(ServiceId(7)));
        assert_eq!(label("svc_8", Dimension::Service, &names).service, None);
        assert_eq!(named("6", Dimension::Protocol), pair("TCP", "protocol 6"));
        assert_eq!(named("253", Dimension::Protocol), pair("protocol 253", ""));
        assert_eq!(
            named("192.0.2.1 513", Dimension::Interface),
            pair("mx1.nyc1 if 513", "192.0.2.1")
        );
        assert_eq!(
            named("192.0.2.1 514", Dimension::Interface),
            pair("mx1.nyc1 ae0.0", "192.0.2.1 if 514"),
            "as the exporter calls it"
        );
        assert_eq!(
            named("2001:db8::1 5", Dimension::Interface),
            pair("2001:db8::1 if 5", "")
        );
        assert_eq!(named("3320", Dimension::As), pair("AS3320", ""));
        assert_eq!(named("0", Dimension::As).0, "AS not reported");
    }

    #[test]
    fn rates_neither_overflow_nor_divide_by_zero() {
        assert_eq!(rate(u64::MAX, 1), u64::MAX);
        assert_eq!(rate(100, 0), 0);
        assert_eq!(rate(100, -5), 0);
        assert!((share_percent(1, 0) - 0.0).abs() < f64::EPSILON);
    }
}
