use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::document::examples::{LINES, beside, buyer, document, every_kind, reverse_charge, rule, two_rates, vat_19};

#[test]
fn documents_as_xml() {
    for (name, document) in every_kind() {
        if ["standard", "outside_credit_note", "several_taxes"].contains(&name) {
            insta::assert_snapshot!(name, xml(&document).unwrap());
        }
    }
}

#[test]
fn what_the_standard_needs_is_asked_for() {
    let kind = DocumentKind::Invoice;
    let french = || buyer("Exemple SARL", "Paris", "FR", "FR12345678901");
    let reversed = || document(kind, french(), &[reverse_charge()], false, "EUR", &LINES);
    let refused = |change: &dyn Fn(&mut Document)| {
        let mut document = reversed();
        change(&mut document);
        xml(&document).unwrap_err().to_string()
    };
    assert!(xml(&reversed()).is_ok());
    let outside = rule("Outside", TaxCategory::OutOfScope, "0", "Not subject to EU VAT");
    for (error, part) in [
        (refused(&|document| document.seller.country.clear()), "seller's country"),
        (
            refused(&|document| document.seller.vat_id.clear()),
            "seller's VAT number (`--vat-id`)",
        ),
        (refused(&|document| document.seller.name.clear()), "seller's name"),
        (refused(&|document| document.buyer.vat_id.clear()), "buyer's VAT number"),
        (refused(&|document| document.buyer.country.clear()), "buyer's country"),
        (refused(&|document| document.lines.clear()), "at least one line"),
        (refused(&|document| document.taxes.clear()), "which tax holds"),
        (refused(&|document| document.taxes[0].rule.note.clear()), "why no tax"),
        (
            refused(&|document| document.taxes.push(document.taxes[0].clone())),
            "AE and AE",
        ),
        (refused(&|document| document.total.minor += 1), "the total is"),
        (refused(&|document| document.open.minor += 1), "what is open is"),
        (refused(&|document| document.lines[0].net.minor += 1), "the subtotal is"),
        (
            refused(&|document| {
                document.seller.registration.clear();
                document.taxes[0].rule = outside.clone();
            }),
            "registration number (`--registration`)",
        ),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let fine = [("VPS", "1", "", "5.501", 5501)];
    let dinars = document(kind, french(), &[vat_19()], false, "KWD", &fine);
    assert!(matches!(xml(&dinars), Err(UblError::TooFine { .. })));
}

#[test]
fn a_line_s_amount_is_its_quantity_times_its_price() {
    for (name, document) in every_kind() {
        for line in &document.lines {
            let net = document.said(line.net);
            let priced = Priced::of(line, net).unwrap();
            let product = Money::round_from_major(priced.quantity * priced.price, document.currency).unwrap();
            assert_eq!(product, net, "{name}: {}", line.description);
            assert!(priced.price >= Decimal::ZERO);
        }
    }
}

#[test]
fn corrections_bear_their_own_rate_beside_what_is_charged_now() {
    let german = buyer("Škoda GmbH", "Köln", "DE", "DE987654321");
    let text = xml(&two_rates(DocumentKind::Invoice, &german)).unwrap();
    let of = |name: &str| -> Vec<String> {
        let (open, close) = (format!("<{name}"), format!("</{name}>"));
        text.split(&open)
            .skip(1)
            .map(|rest| rest.split_once('>').unwrap().1.split_once(&close).unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(of("cbc:TaxableAmount"), ["-153.00", "306.00"]);
    // Of the whole, then of each rate.
    assert_eq!(of("cbc:TaxAmount"), ["33.66", "-24.48", "58.14"]);
    // Of the breakdown, then of the lines.
    assert_eq!(of("cbc:Percent"), ["16", "19", "16", "19"]);
    let once = xml(&every_kind()
        .into_iter()
        .find(|(name, _)| *name == "one_rate_twice")
        .unwrap()
        .1)
    .unwrap();
    assert_eq!(once.matches("<cac:TaxSubtotal>").count(), 1, "{once}");
    let outside = rule("Outside", TaxCategory::OutOfScope, "0", "Not subject to EU VAT");
    let one = |rule: TaxRule| {
        let line = [("Setup", "1", "", "10", 1000)];
        document(DocumentKind::Invoice, german.clone(), &[rule], false, "EUR", &line)
    };
    let error = xml(&beside(one(outside), one(vat_19()))).unwrap_err().to_string();
    assert!(error.contains("O and S"), "{error}");
    let mut stray = one(vat_19());
    stray.lines[0].tax_group = 7;
    assert!(matches!(xml(&stray), Err(UblError::NoTax)));
}

#[test]
fn characters_that_xml_cannot_hold_are_left_out() {
    let fine = [("a\u{1}b & <c> \"d\"", "1", "", "1", 100)];
    let document = document(
        DocumentKind::Invoice,
        buyer("B", "C", "DE", ""),
        &[vat_19()],
        false,
        "EUR",
        &fine,
    );
    let text = xml(&document).unwrap();
    assert!(text.contains("<cbc:Name>ab &amp; &lt;c&gt;"), "{text}");
}

/// Runs the official schema and rules over files; what they find, by file.
fn validated(files: &[PathBuf]) -> serde_json::Map<String, serde_json::Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/test-tools/en16931/bin/python3");
    assert!(
        python.exists(),
        "{} is missing: `tests/run` installs what validates invoices",
        python.display()
    );
    let output = Command::new(python)
        .arg(root.join("tests/en16931.py"))
        .args(files)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_kind_of_document_passes_the_official_schema_and_rules() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, document) in every_kind() {
        let path = dir.path().join(format!("{name}.xml"));
        std::fs::write(&path, xml(&document).unwrap()).unwrap();
        files.push(path);
    }
    // Two that must fail: one for the schema, one for the rules. Without them a validator that says nothing would pass.
    let standard = every_kind().into_iter().find(|(name, _)| *name == "standard");
    let sound = xml(&standard.unwrap().1).unwrap();
    let broken = dir.path().join("broken_schema.xml");
    std::fs::write(&broken, sound.replace("cbc:IssueDate", "cbc:IssuedOn")).unwrap();
    files.push(broken);
    let broken = dir.path().join("broken_rules.xml");
    std::fs::write(
        &broken,
        sound.replace(">91.00</cbc:PayableAmount>", ">91.01</cbc:PayableAmount>"),
    )
    .unwrap();
    files.push(broken);

    let found = validated(&files);
    assert_eq!(found.len(), files.len());
    for (file, findings) in &found {
        let findings = findings.as_array().unwrap();
        let text = format!("{findings:#?}");
        match file.as_str() {
            "broken_schema.xml" => assert!(text.contains("IssuedOn"), "{text}"),
            "broken_rules.xml" => assert!(text.contains("BR-CO-16"), "{text}"),
            _ => assert!(findings.is_empty(), "{file}: {text}"),
        }
    }
}
