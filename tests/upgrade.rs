//! Data folders of earlier versions open with today's program and mean what they meant (tests/upgrade/README.md).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::command::output_of;
use crate::support::ezscale::{DataDir, Start, cents};

/// A copy of the folder that version 7bef553 left.
pub(crate) fn folder_of_7bef553() -> DataDir {
    let data = DataDir::new();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/7bef553.tar.gz");
    output_of(
        Command::new("tar")
            .arg("-xzf")
            .arg(archive)
            .arg("-C")
            .arg(data.scratch()),
    );
    std::fs::rename(data.scratch().join("folder"), data.path()).expect("the archive holds one folder");
    data
}

fn invoices(data: &DataDir) -> Vec<(String, i64, String)> {
    let listed: Value =
        serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("an array of invoices");
    let text = |invoice: &Value, key: &str| invoice[key].as_str().expect("a text").to_owned();
    let invoices = listed.as_array().expect("an array").iter().rev();
    invoices
        .map(|invoice| {
            let total = cents(&invoice["total"]);
            (text(invoice, "number"), total, text(invoice, "status"))
        })
        .collect()
}

const INVOICES: [(&str, i64, &str); 6] = [
    ("INV-2026-000001", 3_569, "paid"),
    ("INV-2026-000002", 5_000, "finalised"),
    ("INV-2026-000003", 3_783, "partially_paid"),
    ("INV-2026-000004", 18_333, "finalised"),
    ("CN-2026-000001", -595, "applied"),
    ("CN-2026-000002", -764, "applied"),
];

fn usage(data: &DataDir) -> Vec<(u64, u64, u64)> {
    let sql = "SELECT service, sum(bytes_in) AS i, sum(bytes_out) AS o FROM usage_5m \
               WHERE window_start < '2026-02-01' GROUP BY service ORDER BY service";
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    let rows = data.query_json(sql);
    rows.iter()
        .map(|row| (number(row, "service"), number(row, "i"), number(row, "o")))
        .collect()
}

#[test]
fn a_folder_of_7bef553_opens_with_its_flows_books_and_an_undecoded_journal() {
    let data = folder_of_7bef553();
    let kept: Vec<_> = invoices(&data);
    let expected = INVOICES.map(|(number, total, status)| (number.to_owned(), total, status.to_owned()));
    assert_eq!(kept, expected);

    // The segment that was not decoded is, by the first process that collects.
    let collector = Start::new("collect").netflow("127.0.0.1:0");
    collector.on(&data).terminate();
    let stored = "SELECT count(*) AS flows, sum(bytes) AS bytes FROM flows";
    let [flows, bytes] = data.query_numbers(stored, ["flows", "bytes"]);
    assert_eq!((flows, bytes), (64 + 10, 57_600_000_000 + 10_045));
    let january = [
        (1, 32_000_000_000, 16_000_000_000),
        (2, 8_000_000_000, 0),
        (3, 1_600_000_000, 0),
    ];
    assert_eq!(usage(&data), january);
    let checked = data.run(&["invoice", "check", "--all"]);
    assert!(
        checked.contains("2 usage lines recomputed from flows: 2 equal, 0 adjusted since, 0 differ"),
        "{checked}"
    );
    assert!(data.run(&["ledger", "check"]).contains("no violations"));

    // Old and new files are merged and re-read as one table.
    data.run(&["storage", "compact"]);
    assert_eq!(data.query_numbers(stored, ["flows", "bytes"]), [flows, bytes]);
    collector.on(&data).terminate();
    assert_eq!(usage(&data), january);
}

/// What 7bef553 charged is corrected by today's rules: 12 of 48 GB were flagged after 18 GB over the quota were charged.
#[test]
fn what_7bef553_charged_is_corrected_by_the_next_invoice() {
    let data = folder_of_7bef553();
    let credit_before = data.run(&["credit", "show", "cus_1"]);
    data.run(&["clock", "set", "2026-03-02T12:00:00Z"]);
    // It was charged in nobody's name.
    data.run(&["invoice", "close"]);
    assert!(data.run(&["invoice", "list"]).contains("held"));
    data.set_issuer();
    data.run(&["invoice", "close"]);
    let all = invoices(&data);
    let march: Vec<i64> = all.iter().skip(INVOICES.len()).map(|(_, total, _)| *total).collect();
    // Ada: 20.00 in advance, 12 × 0.10 given back, 19 % on it. Bob: 50.00.
    assert!(march.contains(&(2_380 - 143)), "{all:?}, {credit_before}");
    assert!(data.run(&["ledger", "check"]).contains("no violations"));
}
