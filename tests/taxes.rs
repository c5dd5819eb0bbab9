//! The commands for those who issue invoices and for tax rates: what is set is shown, what cannot be is refused.

mod support;

use support::ezscale::DataDir;

/// What a command that fails says.
fn refusal(data: &DataDir, arguments: &[&str]) -> String {
    let output = data.command(arguments).output().expect("ezscale can be started");
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_entity_says_what_it_was_told() {
    let data = DataDir::new();
    data.run(&[
        "entity",
        "set",
        "--name",
        "Beispiel Hosting GmbH",
        "--country",
        "DE",
        "--vat-id",
        "DE 123.456.789",
    ]);
    // What is not given stays.
    data.run(&["entity", "set", "ent_1", "--city", "Berlin"]);
    let shown = data.run(&["entity", "show"]);
    for part in ["Beispiel Hosting GmbH", "DE123456789", "Berlin"] {
        assert!(shown.contains(part), "{shown}");
    }
    let second = data.add(
        &[
            "entity",
            "add",
            "--name",
            "Example Inc.",
            "--country",
            "US",
            "--number-prefix",
            "US",
        ],
        "ent_",
    );
    let listed = data.run(&["entity", "list"]);
    assert!(listed.contains(&second) && listed.contains("Example Inc."), "{listed}");
    let taken = refusal(&data, &["entity", "set", "--number-prefix", "US"]);
    assert!(taken.contains(&second), "{taken}");
}

#[test]
fn a_tax_rate_ends_before_the_next_begins() {
    let data = DataDir::new();
    let add = ["tax", "add", "--country", "DE", "--rate"];
    let old = data.add(
        &[&add[..], &["19", "--from", "2007-01-01T00:00:00+01:00"]].concat(),
        "tax_",
    );
    let next = [&add[..], &["20.5", "--from", "2100-01-01T00:00:00+01:00"]].concat();
    let overlap = refusal(&data, &next);
    assert!(overlap.contains(&old) && overlap.contains("end it first"), "{overlap}");
    data.run(&["tax", "end", &old, "--at", "2100-01-01T00:00:00+01:00"]);
    let new = data.add(&next, "tax_");
    let listed = data.run(&["tax", "list", "--country", "DE"]);
    for part in [&old, &new, "VAT 19 %", "VAT 20.5 %", "2099-12-31T23:00:00Z"] {
        assert!(listed.contains(part), "{listed}");
    }
    assert!(!data.run(&["tax", "list", "--country", "FR"]).contains("VAT"));
}
