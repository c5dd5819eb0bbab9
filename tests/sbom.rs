//! `deploy/sbom` names what the program is made of: all of it, nothing that only tests need, and as Cargo.lock has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml::Table;

use crate::support::command::output_of;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn bill() -> String {
    output_of(Command::new(Path::new(ROOT).join("deploy/sbom")).current_dir(ROOT))
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("{key} of {of}"))
}

#[test]
fn the_bill_of_materials_names_what_is_linked_with_its_checksums() {
    let written = bill();
    assert_eq!(written, bill(), "the same tree gives the same bytes");
    let bill: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(
        (text(&bill, "bomFormat"), text(&bill, "specVersion")),
        ("CycloneDX", "1.5")
    );
    let program = &bill["metadata"]["component"];
    assert_eq!(
        (text(program, "name"), text(program, "version")),
        ("ezscale", env!("CARGO_PKG_VERSION"))
    );

    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).expect("Cargo.lock can be read");
    let lock: Table = lock.parse().expect("Cargo.lock is TOML");
    let locked: BTreeMap<(&str, &str), Option<&str>> = lock["package"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let field = |name: &str| package.get(name).and_then(toml::Value::as_str);
            let key = (field("name").expect("a name"), field("version").expect("a version"));
            (key, field("checksum"))
        })
        .collect();

    let components = bill["components"].as_array().expect("components");
    let mut references = BTreeSet::from([text(program, "bom-ref")]);
    let mut scopes: BTreeMap<&str, &str> = BTreeMap::new();
    for component in components {
        let (name, version, purl) = (
            text(component, "name"),
            text(component, "version"),
            text(component, "purl"),
        );
        assert!(references.insert(text(component, "bom-ref")), "{purl} is named once");
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{purl} has a licence"
        );
        let checksum = component["hashes"][0]["content"].as_str();
        if purl.starts_with("pkg:cargo/") {
            let known = locked.get(&(name, version));
            assert_eq!(known, Some(&checksum), "{purl} is as in Cargo.lock");
        } else {
            assert!(checksum.is_some_and(|sum| sum.len() == 64), "{purl} has a checksum");
        }
        // Two versions of a crate may be there; linked is what is linked in any.
        let scope = scopes.entry(name).or_insert(text(component, "scope"));
        if text(component, "scope") == "required" {
            *scope = "required";
        }
    }
    for (name, scope) in [
        ("datafusion", Some("required")),
        ("billing", Some("required")),
        ("libsqlite3-sys", Some("required")),
        ("htmx.org", Some("required")),
        ("syn", Some("excluded")),
        ("cc", Some("excluded")),
        ("fantoccini", None),
        ("fixtures", None),
    ] {
        assert_eq!(scopes.get(name).copied(), scope, "{name}");
    }
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        let needs = dependency["dependsOn"].as_array().expect("references");
        let needs = needs.iter().map(|reference| reference.as_str().expect("a reference"));
        for reference in needs.chain([text(dependency, "ref")]) {
            assert!(references.contains(reference), "{reference} is a component");
        }
    }
}
