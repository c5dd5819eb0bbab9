//! Documents of all kinds, for the tests of both writers.

use jiff::civil::date;
use rust_decimal::Decimal;
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use super::{Corrected, Days, Document, DocumentKind, DocumentLine, Party};
use crate::tax::{TaxCategory, TaxRule, apply};

/// Description, quantity, unit, unit price, amount in minor units.
pub(crate) type LineOf<'a> = (&'a str, &'a str, &'a str, &'a str, i64);

pub(crate) const MONTH: Days = Days {
    first: date(2026, 1, 1),
    last: date(2026, 1, 31),
};

pub(crate) fn seller() -> Party {
    Party {
        name: "Beispiel Hosting GmbH".to_owned(),
        street: "Hauptstraße 1".to_owned(),
        postal_code: "10115".to_owned(),
        city: "Berlin".to_owned(),
        region: String::new(),
        country: "DE".to_owned(),
        vat_id: "DE123456789".to_owned(),
        registration: "HRB 12345 B".to_owned(),
        email: "billing@hosting.example".to_owned(),
    }
}

pub(crate) fn buyer(name: &str, city: &str, country: &str, vat_id: &str) -> Party {
    Party {
        name: name.to_owned(),
        street: "Market Street 12".to_owned(),
        postal_code: "12345".to_owned(),
        city: city.to_owned(),
        region: String::new(),
        country: country.to_owned(),
        vat_id: vat_id.to_owned(),
        registration: String::new(),
        email: "accounts@customer.example".to_owned(),
    }
}

pub(crate) fn rule(name: &str, category: TaxCategory, rate: &str, note: &str) -> TaxRule {
    TaxRule {
        name: name.to_owned(),
        category,
        rate: Percent::new(rate.parse().unwrap()).unwrap(),
        note: note.to_owned(),
    }
}

pub(crate) fn vat_19() -> TaxRule {
    rule("VAT 19 %", TaxCategory::Standard, "19", "")
}

pub(crate) fn reverse_charge() -> TaxRule {
    let note = "Reverse charge: Article 196 of Directive 2006/112/EC";
    rule("Reverse charge", TaxCategory::ReverseCharge, "0", note)
}

pub(crate) fn document(
    kind: DocumentKind,
    buyer: Party,
    rules: &[TaxRule],
    inclusive: bool,
    currency: &str,
    lines: &[LineOf<'_>],
) -> Document {
    let currency: Currency = currency.parse().unwrap();
    let amounts: Vec<Money> = lines.iter().map(|line| Money::new(line.4, currency)).collect();
    let taxed = apply(&amounts, rules, inclusive, currency).unwrap();
    let lines = lines.iter().zip(&taxed.lines_net).zip(1..);
    let lines = lines.map(
        |((&(description, quantity, unit, price, _), &net), position)| DocumentLine {
            position,
            description: description.to_owned(),
            detail: String::new(),
            quantity: quantity.parse().unwrap(),
            unit: unit.to_owned(),
            unit_price: price.parse::<Decimal>().unwrap(),
            net,
            tax_group: 0,
            period: Some(MONTH),
        },
    );
    let is_invoice = kind == DocumentKind::Invoice;
    Document {
        kind,
        number: if is_invoice {
            "INV-2026-000042"
        } else {
            "CN-2026-000007"
        }
        .to_owned(),
        issued_on: date(2026, 2, 1),
        due_on: is_invoice.then_some(date(2026, 2, 15)),
        currency,
        period: Some(MONTH),
        seller: seller(),
        buyer,
        lines: lines.collect(),
        prices_include_tax: inclusive,
        taxes: taxed.taxes,
        subtotal: taxed.subtotal,
        tax: taxed.tax,
        total: taxed.total,
        paid: Money::zero(currency),
        open: taxed.total,
        corrects: (!is_invoice).then(|| Corrected {
            number: "INV-2025-000913".to_owned(),
            issued_on: date(2025, 12, 1),
        }),
        purchase_order: String::new(),
        notes: Vec::new(),
        payment_instructions: if is_invoice {
            "Please pay by bank transfer to IBAN DE02 1203 0000 0000 2020 51, BIC BYLADEM1001.".to_owned()
        } else {
            String::new()
        },
    }
}

/// Lines of every kind that rating makes: a month, a share of one, usage to the byte, graduated, a discount, nothing.
pub(crate) const LINES: [LineOf<'static>; 6] = [
    ("VPS Large: vm-17.fra", "1", "month", "20", 2000),
    (
        "VPS Small → Large: vm-18.fra, from 9 January",
        "0.741935484",
        "month",
        "20",
        1484,
    ),
    ("Transfer over 2 TiB", "913.377412", "GiB", "0.005", 457),
    ("Transfer, graduated", "12000", "GiB", "0.004", 4100),
    ("Coupon WELCOME: 10 %", "1", "", "-3.94", -394),
    ("Setup & migration <free>", "1", "", "0", 0),
];

/// A document with the lines of another as a group of its own, as corrections stand beside what is charged now.
pub(crate) fn beside(mut document: Document, other: Document) -> Document {
    let group = document.taxes.iter().map(|amount| amount.group).max().unwrap_or(0) + 1;
    for (position, line) in (document.lines.len() + 1..).zip(other.lines) {
        document.lines.push(DocumentLine {
            position: u32::try_from(position).unwrap(),
            tax_group: group,
            ..line
        });
    }
    let taxes = other.taxes.into_iter();
    document
        .taxes
        .extend(taxes.map(|amount| crate::tax::TaxAmount { group, ..amount }));
    for (sum, more) in [
        (&mut document.subtotal, other.subtotal),
        (&mut document.tax, other.tax),
        (&mut document.total, other.total),
        (&mut document.open, other.open),
    ] {
        *sum = sum.checked_add(more).unwrap();
    }
    document
}

pub(crate) fn vat_16() -> TaxRule {
    rule("VAT 16 %", TaxCategory::Standard, "16", "")
}

/// Of a year charged at 16 % the days left given back, and of a plan at 19 % the same days charged.
pub(crate) fn two_rates(kind: DocumentKind, german: &Party) -> Document {
    let (unused, base) = match kind {
        DocumentKind::Invoice => (-15_300, 30_600),
        DocumentKind::CreditNote => (-30_600, 15_300),
    };
    let of = |rule: TaxRule, description: &'static str, price: &'static str, minor: i64| {
        document(
            kind,
            german.clone(),
            &[rule],
            false,
            "EUR",
            &[(description, "1", "", price, minor)],
        )
    };
    let given_back = of(vat_16(), "VPS Small: 153 unused days", "-153", unused);
    beside(given_back, of(vat_19(), "VPS Large, 153 of 365 days", "306", base))
}

/// A document of each kind and category, by name.
pub(crate) fn every_kind() -> Vec<(&'static str, Document)> {
    use DocumentKind::{CreditNote, Invoice};
    let german = || buyer("Škoda Łódź GmbH & Co. KG", "Köln", "DE", "DE987654321");
    let french = || buyer("株式会社 Ελλάς Київ SARL", "Paris", "FR", "FR12345678901");
    let american = || Party {
        region: "CA".to_owned(),
        ..buyer("Example Inc.", "San Francisco", "US", "")
    };
    let turned = LINES.map(|(description, quantity, unit, price, minor)| (description, quantity, unit, price, -minor));

    let mut standard = document(Invoice, german(), &[vat_19()], false, "EUR", &LINES);
    standard.purchase_order = "PO-4711".to_owned();
    standard.notes = vec!["Usage of 3 January, 10:00 to 10:35, was not measured and is not charged.".to_owned()];
    standard.lines[2].detail = "2,961.377412 GiB (in + out), 2,048 GiB included".to_owned();
    let mut partly_paid = document(Invoice, german(), &[vat_19()], false, "EUR", &LINES);
    partly_paid.paid = Money::new(5000, partly_paid.currency);
    partly_paid.open = Money::new(partly_paid.total.minor - 5000, partly_paid.currency);
    let mut without_terms = document(Invoice, german(), &[vat_19()], false, "EUR", &LINES);
    without_terms.due_on = None;
    without_terms.payment_instructions = String::new();
    without_terms.period = None;
    without_terms.seller.email = String::new();
    without_terms.lines[0].period = None;

    let zero = rule("VAT 0 %", TaxCategory::ZeroRated, "0", "");
    let exempt = rule(
        "Exempt",
        TaxCategory::Exempt,
        "0",
        "Article 151 of Directive 2006/112/EC",
    );
    let export = rule(
        "Export",
        TaxCategory::Export,
        "0",
        "Article 146 of Directive 2006/112/EC",
    );
    let outside = rule(
        "Outside the scope",
        TaxCategory::OutOfScope,
        "0",
        "Not subject to EU VAT",
    );
    let canadian = [
        rule("GST 5 %", TaxCategory::Standard, "5", ""),
        rule("QST 9.975 %", TaxCategory::Standard, "9.975", ""),
    ];
    let quebec = || Party {
        region: "QC".to_owned(),
        ..buyer("Exemple Inc.", "Montréal", "CA", "")
    };
    let yen = [
        ("サーバー VPS", "3", "month", "1500", 4500),
        ("Credit", "1", "", "-123", -123),
    ];
    let one = |rule: TaxRule| {
        let line = [("Setup", "1", "", "10.03", 1003)];
        document(Invoice, german(), &[rule], false, "EUR", &line)
    };
    // A part of an invoice whose tax is the proportion of what was charged, a cent beside the rate.
    let mut proportion = document(
        CreditNote,
        german(),
        &[vat_19()],
        false,
        "EUR",
        &[("Part 2 of 10", "1", "credit", "-10.03", -1003)],
    );
    for amount in [&mut proportion.tax, &mut proportion.total, &mut proportion.open] {
        amount.minor += 1;
    }
    proportion.taxes[0].tax.minor += 1;
    vec![
        ("two_rates", two_rates(Invoice, &german())),
        ("two_rates_credit_note", two_rates(CreditNote, &german())),
        ("one_rate_twice", beside(one(vat_19()), one(vat_19()))),
        ("exempt_beside_rated", beside(one(exempt.clone()), one(vat_19()))),
        ("proportion", proportion),
        ("standard", standard),
        ("partly_paid", partly_paid),
        ("without_terms", without_terms),
        (
            "standard_credit_note",
            document(CreditNote, german(), &[vat_19()], false, "EUR", &turned),
        ),
        (
            "included",
            document(Invoice, german(), &[vat_19()], true, "EUR", &LINES),
        ),
        (
            "included_credit_note",
            document(CreditNote, german(), &[vat_19()], true, "EUR", &turned),
        ),
        (
            "reverse_charge",
            document(Invoice, french(), &[reverse_charge()], false, "EUR", &LINES),
        ),
        (
            "reverse_charge_credit_note",
            document(CreditNote, french(), &[reverse_charge()], false, "EUR", &turned),
        ),
        ("zero", document(Invoice, german(), &[zero], false, "EUR", &LINES)),
        ("exempt", document(Invoice, german(), &[exempt], false, "EUR", &LINES)),
        ("export", document(Invoice, american(), &[export], false, "USD", &LINES)),
        (
            "outside",
            document(
                Invoice,
                american(),
                std::slice::from_ref(&outside),
                false,
                "USD",
                &LINES,
            ),
        ),
        (
            "outside_credit_note",
            document(CreditNote, american(), &[outside], false, "USD", &turned),
        ),
        (
            "several_taxes",
            document(Invoice, quebec(), &canadian, false, "CAD", &LINES),
        ),
        (
            "several_taxes_included",
            document(Invoice, quebec(), &canadian, true, "CAD", &LINES),
        ),
        (
            "yen",
            document(Invoice, french(), &[reverse_charge()], false, "JPY", &yen),
        ),
        (
            "yen_taxed",
            document(Invoice, german(), &[vat_19()], false, "JPY", &yen),
        ),
        (
            "dinar",
            document(
                Invoice,
                german(),
                &[zero_dinar()],
                false,
                "KWD",
                &[("VPS", "2", "month", "5.5", 11_000)],
            ),
        ),
        (
            "nothing_due",
            document(
                Invoice,
                german(),
                &[vat_19()],
                false,
                "EUR",
                &[("VPS", "1", "month", "0", 0)],
            ),
        ),
        (
            "more_back_than_due",
            document(
                Invoice,
                german(),
                &[vat_19()],
                false,
                "EUR",
                &[("Unused", "0.5", "month", "-20", -1000)],
            ),
        ),
    ]
}

fn zero_dinar() -> TaxRule {
    rule("VAT 0 %", TaxCategory::ZeroRated, "0", "")
}
