//! Tables for people and one JSON document for programs.

use std::fmt::Display;
use std::process::Command;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// A plain table with a headline: texts to the left, numbers to the right.
pub(crate) struct Report {
    table: Table,
    texts: usize,
    columns: usize,
}

impl Report {
    /// The first `texts` columns hold texts.
    pub(crate) fn new(texts: usize, columns: &[&str]) -> Report {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(columns);
        Report {
            table,
            texts,
            columns: columns.len(),
        }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        self.table.add_row(cells);
    }

    pub(crate) fn print(mut self, headline: &str) {
        for column in self.texts..self.columns {
            if let Some(column) = self.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{headline}\n{}", self.table.trim_fmt());
    }
}

/// In millions, with two decimals.
pub(crate) fn millions(number: f64) -> String {
    format!("{:.2} M", number / 1e6)
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// What is being done, on standard error.
pub(crate) fn progress(text: impl Display) {
    eprintln!(
        "[{}] {text}",
        schemas::clock::machine_now()
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%H:%M:%S")
    );
}

/// Where the figures come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) rmem_max_bytes: u64,
    pub(crate) nfdump: String,
    pub(crate) pmacct: String,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let rmem_max = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: model
                .map_or("unknown", |model| model.trim_start_matches([':', ' ', '\t']))
                .to_owned(),
            kernel: kernel.trim().to_owned(),
            rmem_max_bytes: rmem_max.trim().parse().unwrap_or(0),
            nfdump: version_of("nfdump"),
            pmacct: version_of("nfacctd"),
        }
    }

    pub(crate) fn print(&self) {
        println!(
            "{} processors ({}), Linux {}, net.core.rmem_max {} bytes\n{}; {}",
            self.processors, self.processor, self.kernel, self.rmem_max_bytes, self.nfdump, self.pmacct
        );
    }
}

/// The first line of what a program says of its version.
fn version_of(program: &str) -> String {
    let output = Command::new(program).arg("-V").output();
    let text = output.map(|output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    let first = text
        .as_deref()
        .unwrap_or("not installed")
        .lines()
        .next()
        .unwrap_or("")
        .trim();
    if first.starts_with(program) {
        first.to_owned()
    } else {
        format!("{program}: {first}")
    }
}
