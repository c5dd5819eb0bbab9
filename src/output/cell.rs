//! What a listing holds: columns with a name and a kind, and cells.

use analytics::counter_reconciliation::percent_text;
use rust_decimal::Decimal;
use schemas::money::Money;
use schemas::spreadsheet::inert;
use schemas::window::instant_text;
use serde_json::Value;

use super::{bits_per_second, byte_count};

/// What the cells of a column are; numbers stand to the right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Text,
    Number,
    /// In people's units in tables, the number of bytes elsewhere.
    Bytes,
    /// The same for bits per second.
    BitRate,
    /// Parts per million: percent in tables.
    Ppm,
    /// A decimal in JSON and CSV, with the currency in a column of its own.
    Money,
}

/// A column: its name is the field in JSON and the header in CSV, so it does not change; a unit stands last in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What tables show where there is no value.
    pub(super) absent: &'static str,
    /// What tables call it, where that is not its name.
    title: Option<&'static str>,
    /// Only JSON and CSV have it: a table is as wide as a terminal.
    pub(super) is_only_data: bool,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        absent: "",
        title: None,
        is_only_data: false,
    }
}

/// Words, ids, instants.
pub(crate) const fn text(name: &'static str) -> Column {
    column(name, Kind::Text)
}

pub(crate) const fn number(name: &'static str) -> Column {
    column(name, Kind::Number)
}

/// A volume; the name ends in `bytes`.
pub(crate) const fn bytes(name: &'static str) -> Column {
    column(name, Kind::Bytes)
}

/// A rate; the name ends in `bps`.
pub(crate) const fn bit_rate(name: &'static str) -> Column {
    column(name, Kind::BitRate)
}

/// A share; the name ends in `ppm`.
pub(crate) const fn ppm(name: &'static str) -> Column {
    column(name, Kind::Ppm)
}

pub(crate) const fn money(name: &'static str) -> Column {
    column(name, Kind::Money)
}

impl Column {
    /// With a word for tables where there is no value, such as `any`; JSON has `null`, CSV nothing.
    pub(crate) const fn or(self, absent: &'static str) -> Column {
        Column { absent, ..self }
    }

    /// With a name for tables and records; JSON and CSV keep the field's.
    pub(crate) const fn titled(self, title: &'static str) -> Column {
        Column {
            title: Some(title),
            ..self
        }
    }

    /// In JSON and CSV alone.
    pub(crate) const fn only_data(self) -> Column {
        Column {
            is_only_data: true,
            ..self
        }
    }

    /// What people read: the title, else the name without the unit that each value has beside it.
    pub(super) fn label(self) -> String {
        if let Some(title) = self.title {
            return title.to_owned();
        }
        let unit = match self.kind {
            Kind::Ppm => "_ppm",
            Kind::BitRate => "_bps",
            Kind::Bytes => "_bytes",
            Kind::Text | Kind::Number | Kind::Money => "",
        };
        self.name.strip_suffix(unit).unwrap_or(self.name).replace('_', " ")
    }

    pub(super) fn heading(self) -> String {
        self.label().to_uppercase()
    }

    pub(super) fn is_right(self) -> bool {
        self.kind != Kind::Text
    }
}

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Cell {
    Absent,
    Text(String),
    /// UTC milliseconds; to the second where people read them.
    Instant(i64),
    Whole(i128),
    Decimal(Decimal),
    Money(Money),
    Flag(bool),
    /// As it is in JSON; in one line elsewhere.
    Json(Value),
}

impl Cell {
    /// Any value as JSON has it.
    ///
    /// # Errors
    /// When it has no form in JSON.
    pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<Cell> {
        Ok(Cell::Json(serde_json::to_value(value)?))
    }

    /// For people.
    pub(super) fn shown(&self, column: Column) -> String {
        match (self, column.kind) {
            (Cell::Absent, _) => column.absent.to_owned(),
            (Cell::Whole(value), Kind::Bytes) => match u64::try_from(*value) {
                Ok(value) => byte_count(value),
                Err(_) => value.to_string(),
            },
            (Cell::Whole(value), Kind::BitRate) => match u64::try_from(*value) {
                Ok(value) => bits_per_second(value),
                Err(_) => value.to_string(),
            },
            (Cell::Whole(value), Kind::Ppm) => match u32::try_from(*value) {
                Ok(value) => format!("{} %", percent_text(value)),
                Err(_) => value.to_string(),
            },
            (Cell::Money(money), _) => money.to_string(),
            (Cell::Instant(at_ms), _) => to_the_second(*at_ms),
            (Cell::Flag(value), _) => if *value { "yes" } else { "no" }.to_owned(),
            (Cell::Json(Value::Array(items)), _) => {
                let words: Vec<String> = items.iter().map(plain_json).collect();
                words.join(", ")
            }
            _ => self.plain(),
        }
    }

    /// For programs that read text: nothing where there is no value, amounts without their currency.
    pub(super) fn plain(&self) -> String {
        match self {
            Cell::Absent => String::new(),
            Cell::Text(text) => text.clone(),
            Cell::Instant(at_ms) => instant_text(*at_ms),
            Cell::Whole(value) => value.to_string(),
            Cell::Decimal(value) => value.normalize().to_string(),
            Cell::Money(money) => money.to_major().to_string(),
            Cell::Flag(value) => value.to_string(),
            Cell::Json(value) => plain_json(value),
        }
    }

    /// As [`Cell::plain`], for CSV: a text that a spreadsheet would compute is marked as text.
    pub(super) fn csv(&self) -> String {
        match self {
            Cell::Text(_) | Cell::Json(Value::String(_)) => inert(self.plain()),
            _ => self.plain(),
        }
    }

    pub(super) fn as_json(&self) -> Value {
        match self {
            Cell::Absent => Value::Null,
            Cell::Text(text) => Value::from(text.as_str()),
            Cell::Instant(_) => Value::from(self.plain()),
            Cell::Whole(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => Value::from(value),
                (_, Ok(value)) => Value::from(value),
                _ => Value::from(value.to_string()),
            },
            // Exact, so as text: JSON's readers take numbers for floats.
            Cell::Decimal(_) | Cell::Money(_) => Value::from(self.plain()),
            Cell::Flag(value) => Value::from(*value),
            Cell::Json(value) => value.clone(),
        }
    }
}

fn plain_json(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Absent, Into::into)
    }
}

/// An empty text is what there is none of.
impl From<String> for Cell {
    fn from(text: String) -> Cell {
        match text.is_empty() {
            true => Cell::Absent,
            false => Cell::Text(text),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Flag(value)
    }
}

impl From<Money> for Cell {
    fn from(value: Money) -> Cell {
        Cell::Money(value)
    }
}

impl From<Decimal> for Cell {
    fn from(value: Decimal) -> Cell {
        Cell::Decimal(value)
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Cell {
        Cell::Json(value)
    }
}

macro_rules! whole_cells {
    ($($number:ty),*) => {
        $(impl From<$number> for Cell {
            fn from(value: $number) -> Cell {
                Cell::Whole(i128::from(value))
            }
        })*
    };
}

whole_cells!(i64, u64, i32, u32, u16, u8);

impl From<usize> for Cell {
    fn from(value: usize) -> Cell {
        // No machine has more than 64 bits of address.
        Cell::Whole(value as i128)
    }
}

/// What has a form in words: ids, names of states.
pub(crate) fn shown(value: impl std::fmt::Display) -> Cell {
    value.to_string().into()
}

/// An instant, RFC 3339.
pub(crate) fn at(at_ms: i64) -> Cell {
    Cell::Instant(at_ms)
}

/// An instant (UTC milliseconds) in a sentence or a table: RFC 3339, in whole seconds.
pub(crate) fn to_the_second(at_ms: i64) -> String {
    instant_text(at_ms.div_euclid(1000) * 1000)
}
