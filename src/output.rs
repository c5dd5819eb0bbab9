//! What commands print: tables that line up and progress of long work.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A plain table: bold-free, no frame, columns lined up.
pub struct Listing {
    table: Table,
    right: Vec<usize>,
    rows: usize,
}

impl Listing {
    pub fn new(columns: &[&str]) -> Listing {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| name.to_uppercase()));
        Listing { table, right: Vec::new(), rows: 0 }
    }

    /// Aligns a column of numbers to the right.
    pub fn right(mut self, column: usize) -> Listing {
        self.right.push(column);
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells);
        self.rows += 1;
    }

    /// Prints the table, or `empty` on standard error when it has no rows.
    pub fn print(mut self, empty: &str) {
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
pub struct Progress {
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

    pub fn counted(what: &str, total: u64) -> Progress {
        Progress::styled("{msg:28} {bar:30} {human_pos:>12} / {human_len}  {per_sec}  {eta}", what, total)
    }

    pub fn bytes(what: &str, total: u64) -> Progress {
        Progress::styled("{msg:28} {bar:30} {binary_bytes:>12} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta}", what, total)
    }

    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub fn finish(&self) {
        self.bar.finish();
    }
}

/// An instant for people and programs: RFC 3339, UTC, to the second where nothing is lost.
pub fn instant(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{at_ms} ms"),
    }
}
