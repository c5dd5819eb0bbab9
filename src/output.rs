//! What commands print: tables that line up and progress of long work.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// An error and its causes in one line. Some libraries' errors repeat their cause: it is said once.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if text.contains(&said) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&said);
    }
    text
}

/// A plain table: bold-free, no frame, columns lined up.
pub(crate) struct Listing {
    table: Table,
    right: Vec<usize>,
    rows: usize,
}

impl Listing {
    pub(crate) fn new(columns: &[&str]) -> Listing {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| name.to_uppercase()));
        Listing {
            table,
            right: Vec::new(),
            rows: 0,
        }
    }

    /// Aligns a column of numbers to the right.
    pub(crate) fn right(mut self, column: usize) -> Listing {
        self.right.push(column);
        self
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells);
        self.rows += 1;
    }

    /// Prints the table, or `empty` on standard error when it has no rows.
    pub(crate) fn print(mut self, empty: &str) {
        if self.rows == 0 {
            eprintln!("{empty}");
            return;
        }
        for column in self.right {
            if let Some(column) = self.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{}", self.table.trim_fmt());
    }
}

/// A progress bar on standard error; silent where that is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn styled(template: &str, what: &str, total: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(what.to_owned());
        Progress { bar }
    }

    pub(crate) fn counted(what: &str, total: u64) -> Progress {
        Progress::styled(
            "{msg:28} {bar:30} {human_pos:>12} / {human_len}  {per_sec}  {eta}",
            what,
            total,
        )
    }

    pub(crate) fn bytes(what: &str, total: u64) -> Progress {
        Progress::styled(
            "{msg:28} {bar:30} {binary_bytes:>12} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
            what,
            total,
        )
    }

    /// For work whose total shows on the way.
    pub(crate) fn set_of(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Takes the bar away: what follows is the answer.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub(crate) fn finish(&self) {
        self.bar.finish();
    }
}

/// A volume for people: binary units, one decimal.
pub(crate) fn byte_count(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let exponent = (bytes.max(1).ilog2() / 10) as usize;
    match exponent {
        0 => format!("{bytes} B"),
        _ => format!(
            "{:.1} {}",
            bytes as f64 / (1u64 << (10 * exponent)) as f64,
            UNITS[exponent]
        ),
    }
}

/// A rate for people: decimal units, one decimal.
pub(crate) fn bits_per_second(bps: u64) -> String {
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let mut value = bps as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bps} bit/s"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let inner = std::io::Error::other("no field nope");
        let error = anyhow::Error::from(inner)
            .context("schema error: no field nope")
            .context("run query");
        assert_eq!(causes(&error), "run query: schema error: no field nope");
    }

    #[test]
    fn volumes_and_rates_read_well() {
        assert_eq!(byte_count(0), "0 B");
        assert_eq!(byte_count(1023), "1023 B");
        assert_eq!(byte_count(1536), "1.5 KiB");
        assert_eq!(byte_count(u64::MAX), "16.0 EiB");
        assert_eq!(bits_per_second(999), "999 bit/s");
        assert_eq!(bits_per_second(55_000_000), "55.0 Mbit/s");
    }
}
