use std::process::Command;

use proptest::prelude::*;

use super::page::{HEIGHT, WIDTH};
use super::text::{Faces, Weight};
use super::*;
use crate::document::DocumentKind;
use crate::document::examples::{LineOf, buyer, document, every_kind, reverse_charge, vat_19};

/// What a reader of PDF finds in it, laid out as on paper, by page.
fn read(pdf: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("document.pdf");
    std::fs::write(&path, pdf).unwrap();
    let output = Command::new("pdftotext")
        .args(["-layout", "-enc", "UTF-8"])
        .arg(&path)
        .arg("-")
        .output()
        .expect("pdftotext is missing: install poppler-utils, as tests/run does");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end_matches('\u{c}')
        .split('\u{c}')
        .map(str::to_owned)
        .collect()
}

fn many(count: usize) -> Document {
    let names: Vec<String> = (1..=count)
        .map(|number| match number % 4 {
            0 => format!("Dedicated server {number} with a name that goes on and on: rack 17, row B, hall Frankfurt am Main, replaced on 9 January"),
            1 => format!("VPS Large {number}"),
            2 => format!("Übertragung {number}: Škoda Łódź, Ελλάδα, Київ"),
            _ => format!("サーバー {number} 株式会社"),
        })
        .collect();
    let lines: Vec<LineOf<'_>> = names
        .iter()
        .map(|name| (name.as_str(), "1", "month", "20", 2000))
        .collect();
    document(
        DocumentKind::Invoice,
        buyer("Škoda Łódź GmbH", "Köln", "DE", "DE987654321"),
        &[vat_19()],
        false,
        "EUR",
        &lines,
    )
}

#[test]
fn every_kind_of_document_has_its_text() {
    for (name, document) in every_kind() {
        let file = pdf(&document).unwrap();
        let text = read(&file).join("\n");
        for part in [
            &document.number,
            &document.buyer.name,
            &document.seller.vat_id,
            document.kind.title(),
        ] {
            assert!(text.contains(part), "{name} lacks {part}:\n{text}");
        }
        assert_eq!(text.contains("Price incl. tax"), document.prices_include_tax, "{name}");
        for line in &document.lines {
            let first_word = line.description.split(' ').next().unwrap();
            assert!(text.contains(first_word), "{name} lacks {first_word}:\n{text}");
        }
        assert!(!text.contains('\u{FFFD}') && !text.contains('?'), "{name}:\n{text}");
        for amount in &document.taxes {
            assert!(text.contains(&amount.rule.note), "{name}:\n{text}");
        }
        assert!(
            file.len() < 200_000,
            "{name} has {} bytes: fonts are embedded in part",
            file.len()
        );
        assert_eq!(
            file,
            pdf(&document).unwrap(),
            "{name}: the same document, the same bytes"
        );
    }
}

#[test]
fn a_credit_note_says_what_is_given_back() {
    let lines = [("VPS Large, not used from 16 January", "-1", "month", "1500", -1500)];
    let buyer = buyer("Exemple SARL", "Paris", "FR", "FR12345678901");
    let document = document(
        DocumentKind::CreditNote,
        buyer,
        &[reverse_charge()],
        false,
        "JPY",
        &lines,
    );
    let text = read(&pdf(&document).unwrap()).join("\n");
    let squeezed: Vec<&str> = text.split_whitespace().collect();
    let squeezed = squeezed.join(" ");
    for part in [
        "Credit note CN-2026-000007",
        "Corrects INV-2025-000913",
        "of 1 December 2025",
        "1 month 1,500 1,500",
        "Net amount (JPY)",
        "Total credited JPY 1,500",
        "Reverse charge: Article 196 of Directive 2006/112/EC",
        "Page 1 of 1",
        "FRANCE",
    ] {
        assert!(squeezed.contains(part), "{part}: {text}");
    }
    assert!(!squeezed.contains("Please pay"), "{text}");
}

#[test]
fn many_lines_go_over_pages_under_the_same_header() {
    let document = many(120);
    let pages = read(&pdf(&document).unwrap());
    assert!(pages.len() >= 4, "{} pages", pages.len());
    for (page, number) in pages.iter().zip(1..) {
        assert!(page.contains(&format!("Page {number} of {}", pages.len())), "{page}");
        let has_lines = page.contains("VPS Large");
        assert_eq!(page.contains("Unit price"), has_lines, "{page}");
        assert_eq!(page.contains("INV-2026-000042, continued"), number > 1, "{page}");
    }
    let all = pages.concat();
    for number in (1..=120).filter(|number| number % 4 == 1) {
        assert_eq!(all.matches(&format!("VPS Large {number} ")).count(), 1);
    }
    assert!(
        all.contains("2,400.00") && all.contains("456.00") && all.contains("EUR 2,856.00"),
        "{all}"
    );
}

#[test]
fn totals_stay_together_and_nothing_leaves_the_paper() {
    let faces = Faces::load().unwrap();
    for count in 1..70 {
        let document = many(count);
        let pages = layout::pages(&document, &faces);
        let mut with_totals = 0;
        for page in &pages {
            let texts: Vec<&str> = page.texts(&faces).map(|(text, ..)| text).collect();
            let has = |part: &str| texts.iter().any(|text| text.starts_with(part));
            assert_eq!(has("Subtotal"), has("Total"), "{count} lines");
            assert_eq!(has("Payment"), has("Please pay"), "{count} lines");
            with_totals += usize::from(has("Total"));
            for (text, left, width, baseline) in page.texts(&faces) {
                assert!(
                    left >= 0.0 && left + width <= WIDTH - 50.0,
                    "{text} from {left}, {width} wide"
                );
                assert!((20.0..HEIGHT - 30.0).contains(&baseline), "{text} at {baseline}");
            }
        }
        assert_eq!(with_totals, 1, "{count} lines");
    }
}

#[test]
fn a_line_longer_than_a_page_goes_on() {
    let mut document = many(3);
    document.lines[1].detail = "All that was measured, hour by hour. ".repeat(400);
    document.notes = vec!["This has to be said. ".repeat(600)];
    document.payment_instructions = "Pay.\n".repeat(90);
    let faces = Faces::load().unwrap();
    let pages = layout::pages(&document, &faces);
    assert!(pages.len() > 3);
    for page in &pages {
        for (text, _, _, baseline) in page.texts(&faces) {
            assert!(baseline < HEIGHT - 30.0, "{text} at {baseline}");
        }
    }
    assert!(pdf(&document).is_ok());
}

#[test]
fn what_no_font_has_becomes_a_question_mark() {
    let mut document = many(1);
    document.buyer.name = "שלום مرحبا สวัสดี 😀 Ltd".to_owned();
    let text = read(&pdf(&document).unwrap()).join("\n");
    assert!(text.contains("???? ????? ?????? ? Ltd"), "{text}");
}

#[test]
fn lines_break_where_words_end() {
    let faces = Faces::load().unwrap();
    let wrap = |text: &str, width: f32| faces.wrap(text, Weight::Regular, 10.0, width);
    assert_eq!(wrap("one two three", 1000.0), ["one two three"]);
    assert_eq!(wrap("one two three", 40.0), ["one two", "three"]);
    assert_eq!(wrap("one\n\ntwo", 40.0), ["one", "two"]);
    assert_eq!(wrap("1\u{A0}GiB 2\u{A0}GiB", 30.0), ["1\u{A0}GiB", "2\u{A0}GiB"]);
    assert_eq!(wrap("株式会社、東京", 41.0), ["株式会", "社、東京"]);
    assert_eq!(wrap("", 10.0), Vec::<String>::new());
}

proptest! {
    #[test]
    fn wrapping_loses_nothing_and_keeps_the_width(text in "[a-zŁΩЖ株社 .,-]{0,80}", width in 12.0f32..200.0) {
        let faces = Faces::load().unwrap();
        let lines = faces.wrap(&text, Weight::Bold, 9.0, width);
        for line in &lines {
            prop_assert!(faces.width(line, Weight::Bold, 9.0) <= width, "{line}");
        }
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(squeezed(&lines.concat()), squeezed(&text));
    }
}
