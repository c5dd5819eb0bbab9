//! What the list of invoices is asked for: month or days, customer, status, kind, page.

use billing::invoice::{InvoiceFilter, InvoiceKind, InvoiceStatus, OpenAt};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use schemas::ids::{CustomerId, InvoiceId};

use crate::error::Failure;
use crate::query::{filter, wrong};

/// What the URL may say; empty fields are as good as none.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct FinanceQuery {
    /// `2026-11`, or `all`; the newest month with invoices where absent.
    #[serde(default)]
    month: String,
    /// `cus_7`.
    #[serde(default)]
    customer: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) kind: String,
    /// Days of finalisation, in UTC, both counted; they go before the month.
    #[serde(default)]
    pub(super) from: String,
    #[serde(default)]
    pub(super) to: String,
    /// Only invoices before this one: the last of the page before.
    #[serde(default)]
    before: String,
}

/// A status that can be selected: what its rows say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StatusFilter {
    Open,
    Overdue,
    Paid,
    Void,
    WrittenOff,
}

impl StatusFilter {
    pub(super) const ALL: [StatusFilter; 5] = [
        StatusFilter::Open,
        StatusFilter::Overdue,
        StatusFilter::Paid,
        StatusFilter::Void,
        StatusFilter::WrittenOff,
    ];

    /// As the address has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            StatusFilter::Open => "open",
            StatusFilter::Overdue => "overdue",
            StatusFilter::Paid => "paid",
            StatusFilter::Void => "void",
            StatusFilter::WrittenOff => "written_off",
        }
    }

    /// As people read it.
    pub(super) fn words(self) -> &'static str {
        match self {
            StatusFilter::WrittenOff => "written off",
            other => other.name(),
        }
    }
}

impl std::str::FromStr for StatusFilter {
    type Err = ();

    fn from_str(text: &str) -> Result<StatusFilter, ()> {
        let mut all = StatusFilter::ALL.into_iter();
        all.find(|status| status.name() == text).ok_or(())
    }
}

/// A month of the calendar, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Month(Date);

impl Month {
    pub(super) fn parse(text: &str) -> Option<Month> {
        let (year, month) = text.split_once('-')?;
        if year.len() != 4 || month.len() != 2 {
            return None;
        }
        Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok().map(Month)
    }

    pub(super) fn of(at_ms: i64) -> Option<Month> {
        let at = Timestamp::from_millisecond(at_ms).ok()?;
        Some(Month(at.to_zoned(TimeZone::UTC).date().first_of_month()))
    }

    pub(super) fn previous(self) -> Option<Month> {
        self.0.checked_sub(1.month()).ok().map(Month)
    }

    /// Half-open, UTC milliseconds.
    pub(super) fn bounds_ms(self) -> Option<(i64, i64)> {
        let start = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
        Some((start(self.0)?, start(self.0.checked_add(1.month()).ok()?)?))
    }

    pub(super) fn key(self) -> String {
        self.0.strftime("%Y-%m").to_string()
    }

    pub(super) fn label(self) -> String {
        self.0.strftime("%B %Y").to_string()
    }
}

/// A checked query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selection {
    pub(super) month: Option<Month>,
    pub(super) customer: Option<CustomerId>,
    pub(super) status: Option<StatusFilter>,
    pub(super) kind: Option<InvoiceKind>,
    /// First and last day.
    from: Option<Date>,
    to: Option<Date>,
    pub(super) before: Option<InvoiceId>,
}

impl Selection {
    /// At an instant, which says what is overdue.
    pub(super) fn filter(self, now_ms: i64) -> InvoiceFilter {
        let bounds = match (self.from, self.to) {
            (None, None) => self.month.and_then(Month::bounds_ms),
            (from, to) => Some((
                from.and_then(midnight_utc_ms).unwrap_or(i64::MIN),
                to.and_then(|day| day.tomorrow().ok())
                    .and_then(midnight_utc_ms)
                    .unwrap_or(i64::MAX),
            )),
        };
        let (status, is_overdue) = match self.status {
            None => (None, None),
            Some(StatusFilter::Open) => (None, Some(false)),
            Some(StatusFilter::Overdue) => (None, Some(true)),
            Some(StatusFilter::Paid) => (Some(InvoiceStatus::Paid), None),
            Some(StatusFilter::Void) => (Some(InvoiceStatus::Void), None),
            Some(StatusFilter::WrittenOff) => (Some(InvoiceStatus::Uncollectible), None),
        };
        InvoiceFilter {
            status,
            open: is_overdue.map(|is_overdue| OpenAt { is_overdue, now_ms }),
            kind: self.kind,
            customer: self.customer,
            from_ms: bounds.map(|(from_ms, _)| from_ms),
            to_ms: bounds.map(|(_, to_ms)| to_ms),
            before: self.before,
            ..InvoiceFilter::default()
        }
    }

    /// The part of the address that says what is selected, without the page.
    pub(super) fn query(self) -> String {
        let month = self.month.map_or_else(|| "all".to_owned(), Month::key);
        let mut query = format!("month={month}");
        let rest = [
            ("customer", self.customer.map(|customer| customer.to_string())),
            ("status", self.status.map(|status| status.name().to_owned())),
            ("kind", self.kind.map(|kind| kind.name().to_owned())),
            ("from", self.from.map(|day| day.to_string())),
            ("to", self.to.map(|day| day.to_string())),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={value}"));
            }
        }
        query
    }

    /// The time that is selected, in words.
    pub(super) fn label(self) -> String {
        match (self.from, self.to) {
            (None, None) => self.month.map_or_else(|| "all months".to_owned(), Month::label),
            (Some(from), Some(to)) => format!("{} to {}", day(from), day(to)),
            (Some(from), None) => format!("from {} on", day(from)),
            (None, Some(to)) => format!("up to {}", day(to)),
        }
    }
}

pub(super) fn select(query: &FinanceQuery, newest: Option<Month>) -> Result<Selection, Failure> {
    let month = match query.month.trim() {
        "" => newest,
        "all" => None,
        text => Some(Month::parse(text).ok_or_else(|| wrong("month", text, "a month like 2026-11, or all"))?),
    };
    Ok(Selection {
        month,
        customer: filter("customer", &query.customer, "an id such as cus_7")?,
        status: filter("status", &query.status, "a status of an invoice, such as open")?,
        kind: filter("kind", &query.kind, "invoice or credit_note")?,
        from: filter("from", &query.from, "a day like 2026-11-30")?,
        to: filter("to", &query.to, "a day like 2026-11-30")?,
        before: filter("before", &query.before, "an id such as inv_7")?,
    })
}

/// `30 Nov 2026`
fn day(date: Date) -> String {
    date.strftime("%-d %b %Y").to_string()
}

fn midnight_utc_ms(date: Date) -> Option<i64> {
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
