//! The benchmark measures the built program: short runs of it, beside nobody.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_short_run_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("results.json");
    let bench = Path::new(env!("CARGO_BIN_EXE_ezscale-bench"));
    assert!(
        bench.with_file_name("ezscale").is_file(),
        "the ezscale binary is not beside {}: build the whole workspace",
        bench.display()
    );
    let output = Command::new(bench)
        .args(["collect", "--protocols", "v9", "--only", "ezscale"])
        // A rate that an unoptimised collector takes on a busy machine.
        .args(["--flows", "60000", "--rate", "20000"])
        .args(["--prefixes", "1000"])
        .arg("--dir")
        .arg(folder.path().join("data"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("FLOWS PER CPU-SECOND") && said.contains("ezscale collect"),
        "{said}"
    );

    let results: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let best = &results["collect"][0]["best"];
    assert_eq!(best["protocol"], "v9");
    assert_eq!(best["flows_stored"], best["sent"]["flows"], "{said}");
    assert_eq!(best["bytes_stored"], best["sent"]["bytes"], "{said}");
    assert!(best["flows_stored"].as_u64().unwrap() >= 60_000);
    assert!(best["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(best["rss_peak_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(best["disk_bytes"].as_u64().unwrap() > 500_000);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("data")).unwrap().collect();
    assert!(left.is_empty(), "data is left over: {left:?}");
}

#[test]
fn a_short_closing_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("results.json");
    let bench = Path::new(env!("CARGO_BIN_EXE_ezscale-bench"));
    let output = Command::new(bench)
        .args(["billing", "--subscriptions", "120", "--databases", "sqlite"])
        .args([
            "--flow-rates",
            "20000",
            "--seconds",
            "1",
            "--prefixes",
            "1000",
            "--operations",
            "400",
        ])
        .arg("--dir")
        .arg(folder.path().join("data"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let results: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let closing = results["billing"]["closing"].as_array().unwrap();
    let counts = |row: &Value| ["usage_rows", "invoices", "lines", "postings"].map(|name| row[name].as_u64().unwrap());
    assert_eq!(counts(&closing[0]), [0, 120, 120, 3 * 120], "{said}");
    // A line of the base price for each, and one of usage for the 100 whose plans charge for it; half of these used more
    // than is included, which is one more posting.
    assert_eq!(counts(&closing[1]), [120 * 8640, 120, 220, 3 * 120 + 50], "{said}");
    assert_eq!(counts(&closing[2]), [0, 0, 0, 0], "{said}");
    assert!(closing[1]["rss_peak_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(results["billing"]["ledger"].as_array().unwrap().len(), 4, "{said}");
    assert_eq!(results["billing"]["events"].as_array().unwrap().len(), 3, "{said}");
}
