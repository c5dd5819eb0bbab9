//! Which crate of ours may stand on which, and what none may come to depend on, by whatever way.
//!
//! It reads `Cargo.toml` and `Cargo.lock` as cargo does: nothing is compiled for it, and what fails names the way by which a
//! crate comes in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use toml::{Table, Value};

/// Each crate of ours with those it may depend on, tests included. One that is not here may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    // What tests begin with. It knows nothing of the product, and only tests stand on it.
    ("fixtures", &[]),
    ("schemas", &[]),
    ("tables", &["schemas"]),
    ("activity", &["fixtures", "schemas"]),
    ("collector", &["schemas", "tables"]),
    ("analytics", &["schemas", "tables", "activity"]),
    ("billing", &["fixtures", "schemas", "activity"]),
    ("operations", &["schemas", "activity", "billing"]),
    ("growth", &["schemas", "activity", "billing"]),
    (
        "portal",
        &[
            "fixtures",
            "schemas",
            "tables",
            "activity",
            "collector",
            "analytics",
            "billing",
            "operations",
            "growth",
        ],
    ),
    (
        "ezscale",
        &[
            "fixtures",
            "schemas",
            "tables",
            "activity",
            "collector",
            "analytics",
            "billing",
            "operations",
            "growth",
            "portal",
        ],
    ),
    (
        "benches",
        &["schemas", "tables", "activity", "collector", "analytics", "billing"],
    ),
];

/// What takes minutes to build, or ties a crate to how flows are stored.
const COLUMNAR: &[&str] = &["arrow", "parquet", "datafusion"];

/// Crates that do without, themselves and all they depend on, so that they build and test alone in seconds.
const FREE_OF_COLUMNS: &[&str] = &["schemas", "activity", "billing", "operations", "growth"];

/// Crates that do not name them: what they ask of flows has types of its own.
const NAMES_NO_COLUMNS: &[&str] = &["portal"];

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn read(path: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests of the workspace by the crates' names.
fn manifests() -> BTreeMap<String, Table> {
    let root = read("Cargo.toml");
    let members = root["workspace"]["members"].as_array().expect("a list of members");
    let mut folders: Vec<String> = members
        .iter()
        .map(|member| format!("{}/Cargo.toml", member.as_str().expect("a folder")))
        .collect();
    folders.push("Cargo.toml".to_owned());
    let named = folders.iter().map(|path| {
        let manifest = read(path);
        let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
        (name, manifest)
    });
    named.collect()
}

/// The packages that a section of a manifest names, those for some systems only among them.
fn named_in(manifest: &Table, section: &str, workspace: &Table) -> BTreeSet<String> {
    let for_systems = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(|systems| systems.values())
        .filter_map(|system| system.get(section));
    let tables = manifest.get(section).into_iter().chain(for_systems);
    let entries = tables.filter_map(Value::as_table).flatten();
    entries
        .map(|(name, entry)| {
            // Renamed here, or where the workspace says what the name means.
            let renamed = |entry: &Value| entry.get("package").and_then(Value::as_str).map(str::to_owned);
            renamed(entry)
                .or_else(|| workspace.get(name).and_then(renamed))
                .unwrap_or_else(|| name.clone())
        })
        .collect()
}

fn workspace_dependencies() -> Table {
    let root = read("Cargo.toml");
    root["workspace"]["dependencies"].as_table().expect("a table").clone()
}

/// A package as `Cargo.lock` names it.
type Package = (String, String);

/// What each locked package depends on. Of registry packages these are the dependencies they are built with; of ours, those of
/// tests too.
fn locked() -> BTreeMap<Package, Vec<Package>> {
    let lock = read("Cargo.lock");
    let packages = lock["package"].as_array().expect("a list of packages");
    let text = |package: &Value, key: &str| package[key].as_str().expect("a text").to_owned();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        versions
            .entry(text(package, "name"))
            .or_default()
            .push(text(package, "version"));
    }
    let mut tree = BTreeMap::new();
    for package in packages {
        let dependencies = package.get("dependencies").and_then(Value::as_array);
        let found = dependencies.into_iter().flatten().map(|dependency| {
            // `name`, and its version where there are several.
            let mut words = dependency.as_str().expect("a text").split(' ');
            let name = words.next().expect("a name").to_owned();
            let version = words.next().map(str::to_owned);
            let version = version.unwrap_or_else(|| versions[&name][0].clone());
            (name, version)
        });
        tree.insert((text(package, "name"), text(package, "version")), found.collect());
    }
    tree
}

fn is_columnar(name: &str) -> bool {
    let is_of = |family: &&str| name == *family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'));
    COLUMNAR.iter().any(is_of)
}

/// The shortest way from a crate of ours to a package that it must do without.
fn way_to_columns(name: &str) -> Option<String> {
    let (ours, lock, workspace) = (manifests(), locked(), workspace_dependencies());
    let start = lock
        .keys()
        .find(|(locked, _)| locked == name)
        .unwrap_or_else(|| panic!("Cargo.lock has no {name}: cargo metadata writes it"));
    let mut waiting = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::from([start.clone()]);
    while let Some(way) = waiting.pop_front() {
        let last = way.last().expect("a way has a start");
        let built_with = ours.get(&last.0).map(|manifest| {
            let mut names = named_in(manifest, "dependencies", &workspace);
            names.extend(named_in(manifest, "build-dependencies", &workspace));
            names
        });
        for next in &lock[last] {
            // What only the tests of ours need is not built with it.
            if built_with.as_ref().is_some_and(|names| !names.contains(&next.0)) || !seen.insert(next.clone()) {
                continue;
            }
            let mut longer = way.clone();
            longer.push(next.clone());
            if is_columnar(&next.0) {
                let names: Vec<&str> = longer.iter().map(|(name, _)| name.as_str()).collect();
                return Some(names.join(" → "));
            }
            waiting.push_back(longer);
        }
    }
    None
}

#[test]
fn no_crate_stands_on_one_that_it_must_not_know() {
    let (ours, workspace) = (manifests(), workspace_dependencies());
    let mut problems = Vec::new();
    for (name, manifest) in &ours {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| known == name) else {
            problems.push(format!("{name} is not in ARROWS: say which crates it may stand on"));
            continue;
        };
        for section in SECTIONS {
            for dependency in named_in(manifest, section, &workspace) {
                if ours.contains_key(&dependency) && !allowed.contains(&dependency.as_str()) {
                    problems.push(format!("{name} has come to stand on {dependency} ([{section}])"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_must_build_in_seconds_has_no_columns_by_any_way() {
    let ours = manifests();
    let free = FREE_OF_COLUMNS.iter().filter(|name| ours.contains_key(**name));
    let ways: Vec<String> = free.filter_map(|name| way_to_columns(name)).collect();
    assert!(ways.is_empty(), "{}", ways.join("\n"));
    // The look sees what is there.
    let way = way_to_columns("analytics").expect("analytics asks DataFusion");
    assert!(way.starts_with("analytics → "), "{way}");
}

#[test]
fn pages_and_the_api_name_no_column() {
    let (ours, workspace) = (manifests(), workspace_dependencies());
    let mut problems = Vec::new();
    for name in NAMES_NO_COLUMNS {
        let manifest = &ours[*name];
        for section in SECTIONS {
            let named = named_in(manifest, section, &workspace);
            let columnar = named.iter().filter(|dependency| is_columnar(dependency));
            problems.extend(columnar.map(|dependency| format!("{name} names {dependency} ([{section}])")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
