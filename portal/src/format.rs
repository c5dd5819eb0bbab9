//! Numbers and times as people read them.

use billing::catalog::QuotaUnit;
use billing::evidence::UsageCharge;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::money::{Currency, Money};

/// The family of units a volume is told in. On the pages of a service it is that of its plan, so that every number can be
/// compared with what is included; where it sells no transfer it is binary. Pages about the network are decimal, as rates are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VolumeUnits {
    /// kB, MB, GB: powers of 1000.
    #[default]
    Decimal,
    /// KiB, MiB, GiB: powers of 1024.
    Binary,
}

impl VolumeUnits {
    /// Three significant digits: `0 B`, `1.23 GB`, `512 MiB`.
    pub(crate) fn bytes(self, value: u64) -> String {
        match self {
            VolumeUnits::Decimal => with_prefix(value, 1000, ["kB", "MB", "GB", "TB", "PB", "EB"]),
            VolumeUnits::Binary => with_prefix(value, 1024, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
        }
        .unwrap_or_else(|| format!("{value} B"))
    }

    /// Those that usage is charged by.
    pub(crate) fn of_charge(charge: &UsageCharge) -> VolumeUnits {
        match charge {
            UsageCharge::Transfer { unit, .. } => (*unit).into(),
            UsageCharge::Percentile { .. } => VolumeUnits::Binary,
        }
    }
}

impl From<QuotaUnit> for VolumeUnits {
    fn from(unit: QuotaUnit) -> VolumeUnits {
        match unit {
            QuotaUnit::Gb => VolumeUnits::Decimal,
            QuotaUnit::Gib => VolumeUnits::Binary,
        }
    }
}

/// A volume in decimal units: `0 B`, `999 B`, `1.23 GB`.
pub(crate) fn bytes(value: u64) -> String {
    VolumeUnits::Decimal.bytes(value)
}

/// A sampling error: `± 1.96 %`; nothing for what was counted packet by packet.
pub(crate) fn error_bound(bound_ppm: u32) -> String {
    match bound_ppm {
        0 => String::new(),
        ppm => format!("± {} %", analytics::counter_reconciliation::percent_text(ppm)),
    }
}

/// Bits per second: `12.3 Mbit/s`.
pub(crate) fn bits_per_second(value: u64) -> String {
    let prefixed = with_prefix(
        value,
        1000,
        ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s", "Ebit/s"],
    );
    prefixed.unwrap_or_else(|| format!("{value} bit/s"))
}

/// Three significant digits (four where `base` allows 1000 to 1023) in the unit that fits; `None` below the first.
fn with_prefix(value: u64, base: u64, units: [&str; 6]) -> Option<String> {
    if value < base {
        return None;
    }
    let (value, base) = (u128::from(value), u128::from(base));
    let mut scale = base;
    for unit in units {
        for (digits, limit) in [(2, 1000), (1, 1000), (0, base)] {
            let ten_pow = 10u128.pow(digits);
            let rounded = (value * ten_pow + scale / 2) / scale;
            if rounded >= limit {
                continue;
            }
            let (whole, fraction) = (rounded / ten_pow, rounded % ten_pow);
            return Some(match digits {
                0 => format!("{whole} {unit}"),
                digits => format!("{whole}.{fraction:0width$} {unit}", width = digits as usize),
            });
        }
        scale *= base;
    }
    None
}

/// A volume in a given unit, such as the one a plan is sold by: `9.31 GiB`, `1,000 GB`. Rounded half up to three digits,
/// whole units from 100 on.
pub(crate) fn in_unit(bytes: u64, unit_bytes: u64, unit: &str) -> String {
    let (bytes, unit_bytes) = (u128::from(bytes), u128::from(unit_bytes.max(1)));
    for digits in [2, 1] {
        let ten_pow = 10u128.pow(digits);
        let rounded = (bytes * ten_pow + unit_bytes / 2) / unit_bytes;
        if rounded < 1000 {
            let (whole, fraction) = (rounded / ten_pow, rounded % ten_pow);
            return format!("{whole}.{fraction:0width$} {unit}", width = digits as usize);
        }
    }
    let whole = (bytes + unit_bytes / 2) / unit_bytes;
    format!("{} {unit}", grouped(u64::try_from(whole).unwrap_or(u64::MAX)))
}

/// An integer with thousands separated: `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A decimal as text with the thousands of its whole part separated: `-1,234.5`.
pub(crate) fn grouped_decimal(text: &str) -> String {
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => ("-", size),
        None => ("", text),
    };
    let (whole, fraction) = match size.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (size, String::new()),
    };
    match whole.parse() {
        Ok(whole) => format!("{sign}{}{fraction}", grouped(whole)),
        Err(_) => text.to_owned(),
    }
}

/// `22 Nov 2026 14:05` in the given zone.
pub(crate) fn minute(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%-d %b %Y %H:%M")
}

/// `22 Nov 2026 14:05:07`, for what happens more often than once a minute.
pub(crate) fn second(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%-d %b %Y %H:%M:%S")
}

/// `22 Nov 2026 14:05 CET`: where nothing beside it names the zone.
pub(crate) fn minute_and_zone(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%-d %b %Y %H:%M %Z")
}

/// `14:05` in the given zone.
pub(crate) fn clock(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%H:%M")
}

/// `2026-11-22T14:05` in the given zone: what a field of type `datetime-local` holds.
pub(crate) fn minute_field(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%Y-%m-%dT%H:%M")
}

/// `2026-11-22` in the given zone: what a field of type `date` and the name of a file hold.
pub(crate) fn day_field(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%Y-%m-%d")
}

/// `22 Nov 2026` in the given zone.
pub(crate) fn date(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%-d %b %Y")
}

/// `19 Oct – 18 Nov 2026` in the given zone: the year of the first day only where it is another, and one day once.
pub(crate) fn dates(from_ms: i64, last_ms: i64, zone: &TimeZone) -> String {
    let year = |at_ms| in_zone(at_ms, zone, "%Y");
    if date(from_ms, zone) == date(last_ms, zone) {
        return date(last_ms, zone);
    }
    let from = if year(from_ms) == year(last_ms) {
        in_zone(from_ms, zone, "%-d %b")
    } else {
        date(from_ms, zone)
    };
    format!("{from} – {}", date(last_ms, zone))
}

/// `1,234.50`: where the currency stands elsewhere in the row.
pub(crate) fn amount(money: Money) -> String {
    let sign = if money.minor < 0 { "-" } else { "" };
    format!("{sign}{}", money.digits())
}

/// `USD 4.549581`, `-USD 4.549581`: an amount as text, with as many places as it has.
pub(crate) fn with_currency(amount: &str, currency: Currency) -> String {
    match amount.strip_prefix('-') {
        Some(size) => format!("-{currency} {size}"),
        None => format!("{currency} {amount}"),
    }
}

fn in_zone(at_ms: i64, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => "beyond the calendar".to_owned(),
    }
}

/// `Sun 22 Nov` in the given zone.
pub(crate) fn weekday(at_ms: i64, zone: &TimeZone) -> String {
    in_zone(at_ms, zone, "%a %-d %b")
}

/// `2026-11-22T14:05:00Z`, for programs.
pub(crate) fn rfc3339(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| String::new(), |at| at.to_string())
}

/// How long ago, roughly: `12 s ago`, `5 min ago`, `3 h ago`, `4 days ago`.
pub(crate) fn ago(at_ms: i64, now_ms: i64) -> String {
    match now_ms.saturating_sub(at_ms) / 1000 {
        ..=0 => "now".to_owned(),
        s @ 1..=119 => format!("{s} s ago"),
        s @ 120..=7_199 => format!("{} min ago", s / 60),
        s @ 7_200..=172_799 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_keep_three_digits_and_carry_into_the_next_prefix() {
        for (value, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (12_345_678, "12.3 MB"),
            (123_456_789, "123 MB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(value), text, "{value}");
        }
        assert_eq!(bits_per_second(9_995_000), "10.0 Mbit/s");
    }

    #[test]
    fn binary_volumes_keep_up_to_1023_of_a_unit() {
        for (value, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (10 << 20, "10.0 MiB"),
            (999 << 30, "999 GiB"),
            (1_000 << 30, "1000 GiB"),
            ((1 << 40) - 1, "1.00 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(VolumeUnits::Binary.bytes(value), text, "{value}");
        }
        assert_eq!(VolumeUnits::from(QuotaUnit::Gib), VolumeUnits::Binary);
    }

    #[test]
    fn a_plan_s_unit_is_kept() {
        for (bytes, text) in [
            (0, "0.00 GiB"),
            (10_000_000_000, "9.31 GiB"),
            (107_320_000_000, "99.9 GiB"),
            (107_374_182_399, "100 GiB"),
            (1000 << 30, "1,000 GiB"),
        ] {
            assert_eq!(in_unit(bytes, 1 << 30, "GiB"), text, "{bytes}");
        }
        assert_eq!(in_unit(1_000_000_000_000, 1_000_000_000, "GB"), "1,000 GB");
    }

    #[test]
    fn times_are_local_and_ages_rough() {
        let zone = TimeZone::get("America/New_York").unwrap();
        assert_eq!(minute(1_792_800_000_000, &zone), "23 Oct 2026 20:00");
        assert_eq!(minute_and_zone(1_792_800_000_000, &zone), "23 Oct 2026 20:00 EDT");
        assert_eq!(minute_field(1_792_800_000_000, &zone), "2026-10-23T20:00");
        assert_eq!(date(1_792_800_000_000, &TimeZone::UTC), "24 Oct 2026");
        assert_eq!(
            dates(1_792_800_000_000, 1_795_348_923_000, &TimeZone::UTC),
            "24 Oct – 22 Nov 2026"
        );
        assert_eq!(
            dates(1_798_000_000_000, 1_798_000_100_000, &TimeZone::UTC),
            "23 Dec 2026"
        );
        assert_eq!(
            dates(1_798_000_000_000, 1_799_000_000_000, &TimeZone::UTC),
            "23 Dec 2026 – 3 Jan 2027"
        );
        assert_eq!(amount(Money::new(-123_450, Currency::USD)), "-1,234.50");
        assert_eq!(ago(0, 0), "now");
        assert_eq!(ago(0, 90_000), "90 s ago");
        assert_eq!(ago(0, 3 * 3_600_000), "3 h ago");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped_decimal("-1234.50"), "-1,234.50");
        assert_eq!(grouped_decimal("0.05"), "0.05");
    }
}
