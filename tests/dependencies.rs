//! A crate names no dependency that its sources do not use: each costs everybody who builds it time, and is one more to trust.

use std::path::{Path, PathBuf};

use toml::Table;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A workspace of its own, beside ours.
const FUZZ: &str = "fuzz";

fn manifest_of(package: &Path) -> Table {
    let path = package.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of all our packages.
fn packages() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    let manifest = manifest_of(&root);
    let members = manifest["workspace"]["members"].as_array().expect("a list of members");
    let members = members
        .iter()
        .map(|member| root.join(member.as_str().expect("a folder")));
    let mut packages: Vec<PathBuf> = members.chain([root.join(FUZZ)]).collect();
    packages.push(root);
    packages
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Sources of a package under one of its folders, without those of a package that lies in it.
fn sources(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            // What it takes in of other packages is compiled with it.
            let taken_in = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            found.extend(taken_in.filter_map(|other| std::fs::read_to_string(path.with_file_name(other)).ok()));
            found.push(text);
        }
    }
}

/// Whether a line of code names a crate: `name::…`, `use name;` or `use name as …`.
fn names(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let begins = !before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let is_whole_use = before.trim_end().ends_with("use") && (after.starts_with(';') || after.starts_with(" as "));
        begins && (after.starts_with("::") || is_whole_use)
    })
}

fn is_used(dependency: &str, sources: &[String]) -> bool {
    let name = dependency.replace('-', "_");
    sources
        .iter()
        .any(|source| source.lines().any(|line| names(line, &name)))
}

#[test]
fn every_dependency_is_used_by_its_crate() {
    let mut unused = Vec::new();
    for package in packages() {
        let manifest = manifest_of(&package);
        let (mut product, mut tests) = (Vec::new(), Vec::new());
        // Fuzzing has its programs in `targets`.
        for folder in ["src", "targets"] {
            sources(&package.join(folder), &mut product);
        }
        for folder in ["tests", "examples", "benches"] {
            sources(&package.join(folder), &mut tests);
        }
        tests.extend(product.iter().cloned());
        assert!(!product.is_empty(), "{} has sources", package.display());
        for (section, sources) in [("dependencies", &product), ("dev-dependencies", &tests)] {
            let Some(named) = manifest.get(section) else { continue };
            for dependency in named.as_table().expect("a table of dependencies").keys() {
                if !is_used(dependency, sources) {
                    unused.push(format!("{dependency} in [{section}] of {}", package.display()));
                }
            }
        }
    }
    assert!(
        unused.is_empty(),
        "remove what no source names, and run `cargo update --workspace --offline`: {unused:#?}"
    );
}

#[test]
fn every_dependency_of_the_workspace_is_used_by_a_crate() {
    let manifest = manifest_of(Path::new(ROOT));
    let known = manifest["workspace"]["dependencies"].as_table().expect("a table");
    let packages: Vec<Table> = packages().iter().map(|package| manifest_of(package)).collect();
    let is_named = |dependency: &str| {
        packages.iter().any(|package| {
            let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
            sections.iter().any(|section| {
                package
                    .get(*section)
                    .is_some_and(|named| named.get(dependency).is_some())
            })
        })
    };
    let unused: Vec<&String> = known.keys().filter(|dependency| !is_named(dependency)).collect();
    assert!(
        unused.is_empty(),
        "in [workspace.dependencies], and in no crate: {unused:#?}"
    );
}

#[test]
fn a_crate_is_found_in_code_and_not_in_words() {
    for (line, is_named) in [
        ("use arrow::array::ArrayRef;", true),
        ("use libfuzzer_sys as _;", true),
        ("use regex;", true),
        ("    fn f(batch: &arrow::Batch) {}", true),
        ("// see arrow::array", false),
        ("use my_arrow::array;", false),
        ("let arrow = 1;", false),
    ] {
        let name = line.contains("libfuzzer").then_some("libfuzzer_sys");
        let name = name.or(line.contains("regex").then_some("regex")).unwrap_or("arrow");
        assert_eq!(names(line, name), is_named, "{line}");
    }
}

/// Cargo forgets `strip` of a profile for a package that has a table of its own in it: what is shipped would have its symbols.
#[test]
fn the_release_has_no_symbols() {
    let manifest = manifest_of(Path::new(ROOT));
    let release = &manifest["profile"]["release"];
    assert_eq!(release["strip"].as_str(), Some("symbols"));
    let own = manifest["package"]["name"].as_str().expect("the root is a package");
    assert!(
        release["package"].get(own).is_none(),
        "{own} has a table of its own in the release"
    );
}
