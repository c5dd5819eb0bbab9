//! The commands for those who issue invoices and for tax rates: what is set is shown, what cannot be is refused.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::ezscale::DataDir;

/// What a command that fails says.
fn refusal(data: &DataDir, arguments: &[&str]) -> String {
    let output = data.command(arguments).output().expect("ezscale can be started");
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_entity_says_what_it_was_told() {
    let data = DataDir::made();
    data.run(&[
        "entity",
        "set",
        "--name",
        "Beispiel Hosting GmbH",
        "--country",
        "DE",
        "--vat-id",
        "DE 136.695.976",
    ]);
    // What is not given stays.
    data.run(&["entity", "set", "ent_1", "--city", "Berlin"]);
    let shown = data.run(&["entity", "show"]);
    for part in ["Beispiel Hosting GmbH", "DE136695976", "Berlin"] {
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
    let data = DataDir::made();
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
    for part in [&old, &new, "VAT", " 19 ", " 20.5 ", "2099-12-31T23:00:00Z"] {
        assert!(listed.contains(part), "{listed}");
    }
    assert!(!data.run(&["tax", "list", "--country", "FR"]).contains("VAT"));
}

/// A German seller with 19 % at home, and a French customer of a plan of 100.00 a month from now on.
fn french_customer(data: &DataDir) -> String {
    data.set_issuer();
    data.run(&["entity", "set", "--country", "DE", "--vat-id", "DE136695976"]);
    data.run(&[
        "tax",
        "add",
        "--country",
        "DE",
        "--rate",
        "19",
        "--from",
        "2020-01-01T00:00:00Z",
    ]);
    let customer = data.add(
        &[
            "customer",
            "add",
            "--name",
            "Exemple",
            "--email",
            "c@example.net",
            "--currency",
            "EUR",
            "--country",
            "FR",
        ],
        "cus_",
    );
    data.run(&["customer", "profile", &customer, "--city", "Paris"]);
    let plan = data.run(&[
        "plan",
        "add",
        "--name",
        "P",
        "--model",
        "flat",
        "--price",
        "100.00",
        "--currency",
        "EUR",
        "--months",
        "1",
    ]);
    let price = plan
        .split_whitespace()
        .nth(1)
        .expect("plan and price are printed")
        .to_owned();
    let service = data.run(&[
        "service",
        "add",
        "--name",
        "web",
        "--customer",
        &customer,
        "--type",
        "vps",
    ]);
    let service = service
        .split_whitespace()
        .next()
        .expect("a service is printed")
        .to_owned();
    data.run(&["subscription", "add", &service, "--price", &price]);
    customer
}

#[test]
fn a_new_installation_issues_no_invoice_before_somebody_says_who_issues_them() {
    let data = DataDir::made();
    let customer = data.add(
        &[
            "customer",
            "add",
            "--name",
            "Ada",
            "--email",
            "a@example.net",
            "--currency",
            "USD",
            "--country",
            "US",
        ],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "web", "--customer", &customer], "svc_");
    let plan = [
        "plan",
        "add",
        "--name",
        "P",
        "--model",
        "flat",
        "--price",
        "100.00",
        "--currency",
        "USD",
    ];
    let price = data.add(&plan, "prc_");
    data.run(&["subscription", "add", &service, "--price", &price]);
    let output = data
        .command(&["invoice", "close"])
        .output()
        .expect("ezscale can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("held, the company that issues invoices has no name and address yet"),
        "{said}"
    );
    assert!(said.contains("ezscale entity set --name NAME"), "{said}");
    let status = || {
        let listed: serde_json::Value =
            serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("a list is printed");
        listed[0]["status"].as_str().map(str::to_owned)
    };
    assert_eq!(status().as_deref(), Some("held"));
    data.set_issuer();
    data.run(&["invoice", "close"]);
    assert_eq!(status().as_deref(), Some("finalised"));
}

#[test]
fn a_missing_rate_holds_an_invoice_and_the_commands_say_what_to_do() {
    let data = DataDir::made();
    let customer = french_customer(&data);
    let output = data
        .command(&["invoice", "close"])
        .output()
        .expect("ezscale can be started");
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("held, no tax rate is known for FR"), "{said}");
    assert!(
        said.contains("ezscale tax add --country FR --rate PERCENT --from"),
        "{said}"
    );
    let listed: serde_json::Value =
        serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("a list is printed");
    assert_eq!(listed[0]["status"], "held", "{listed}");
    assert!(listed[0]["tax"].is_null(), "{listed}");
    let shown = data.run(&["invoice", "show", "inv_1"]);
    assert!(shown.contains("none yet") && shown.contains(&customer), "{shown}");

    data.run(&[
        "tax",
        "add",
        "--country",
        "FR",
        "--rate",
        "20",
        "--from",
        "2020-01-01T00:00:00Z",
    ]);
    data.run(&["invoice", "close"]);
    let shown = data.run(&["invoice", "show", "inv_1"]);
    assert!(shown.contains("VAT 20 %") && shown.contains("EUR 20.00"), "{shown}");
    let audited = data.run(&["audit", "list"]);
    for action in ["tax.add", "entity.change", "customer.billing_profile"] {
        assert!(audited.contains(action), "{audited}");
    }
}

#[test]
fn vat_numbers_are_checked_by_form_and_then_asked_of_vies() {
    let data = DataDir::made();
    let customer = french_customer(&data);
    let refused = refusal(&data, &["customer", "profile", &customer, "--vat-id", "FRnonsense"]);
    assert!(refused.contains("not a VAT number of FR"), "{refused}");
    let off = refusal(&data, &["customer", "vat-check", &customer]);
    assert!(off.contains("[vies]"), "{off}");
    data.run(&["customer", "profile", &customer, "--vat-id", "FR40303265045"]);

    let vies = stub_of_vies(&[
        r#"{"actionSucceed":false,"errorWrappers":[{"error":"MS_UNAVAILABLE"}]}"#,
        r#"{"valid":true,"requestIdentifier":"WAPI1","name":"SA SODIMAS","address":"---"}"#,
    ]);
    // In the data folder, where every command finds it.
    let config = format!("[vies]\nenabled = true\nbase_url = \"{vies}\"\n");
    let file = data.path().join("ezscale.toml");
    std::fs::write(&file, config).expect("the data folder is writable");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it is the owner's alone");
    let away = data.run(&["customer", "vat-check", &customer]);
    assert!(
        away.contains("unavailable") && away.contains("MS_UNAVAILABLE"),
        "{away}"
    );
    data.run(&["invoice", "close"]);
    let held = data.run(&["invoice", "show", "inv_1"]);
    assert!(held.contains("FR40303265045 is not confirmed yet"), "{held}");
    let valid = data.run(&["customer", "vat-check", &customer]);
    assert!(valid.contains("valid SA SODIMAS, WAPI1"), "{valid}");
    data.run(&["invoice", "close"]);
    let shown = data.run(&["invoice", "show", "inv_1"]);
    assert!(
        shown.contains("Reverse charge") && shown.contains("EUR 0.00"),
        "{shown}"
    );
    let evidence = data.run(&["customer", "vat-checks", &customer]);
    for part in ["unavailable", "WAPI1", "SA SODIMAS", "FR40303265045"] {
        assert!(evidence.contains(part), "{evidence}");
    }
}

/// Answers as VIES does, one request after the other, and its address.
fn stub_of_vies(answers: &[&str]) -> String {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut reader = BufReader::new(stream.try_clone().expect("a socket is cloned"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a request is read");
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length is a number");
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body is read");
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(body.contains("\"requesterMemberStateCode\":\"DE\""), "{body}");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n{answer}", answer.len()).expect("it is answered");
        }
    });
    format!("http://{address}")
}
