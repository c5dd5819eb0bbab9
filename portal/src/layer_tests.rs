//! Which module may name which: the layers of `lib.rs`, and that no modules of the crate's root stand on each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Arrows that close a circle and may: from, to, and why.
const MAY_CLOSE_A_CIRCLE: &[(&str, &str, &str)] = &[];

/// Who names whom, and in which files.
type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first part of a file's module: `pages` of `pages/admin/plans.rs`.
fn layer(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Only of the code: tests may name anything, and so may comments.
fn code_of(text: &str) -> String {
    let without_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = without_tests.lines();
    let code: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n")
}

fn is_test(layer: &str, file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    layer == "testing" || name.ends_with("tests") || file.components().any(|part| part.as_os_str() == "tests")
}

/// The name that a text begins with.
fn first_name(text: &str) -> String {
    let letters = text.trim_start().chars();
    letters
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// What code names of the crate's root: `a` of `crate::a::B`, `a` and `b` of `crate::{a, b::{C, D}}`.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            names.insert(first_name(path));
            continue;
        };
        let mut depth = 1;
        let mut begins = true;
        for (at, letter) in group.char_indices() {
            if begins {
                names.insert(first_name(&group[at..]));
            }
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            begins = depth == 1 && letter == ',';
        }
    }
    // What follows the last comma of a group.
    names.remove("");
    names
}

/// Of the code of the whole crate. The root puts the modules together: it names them all.
fn arrows() -> Arrows {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    assert!(files.len() > 100, "{}", files.len());
    let inner: Vec<&Path> = files.iter().map(|file| file.strip_prefix(&folder).unwrap()).collect();
    let modules: BTreeSet<String> = inner.iter().map(|file| layer(file)).collect();
    let mut arrows = Arrows::new();
    for file in inner {
        let from = layer(file);
        if from == "lib" || is_test(&from, file) {
            continue;
        }
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for to in named(&code_of(&text)) {
            let file = file.display().to_string();
            assert!(modules.contains(&to), "{file} names crate::{to}, which is no module");
            if to != from {
                arrows.entry((from.clone(), to)).or_default().insert(file);
            }
        }
    }
    assert!(arrows.len() > 100, "{}", arrows.len());
    arrows
}

#[test]
fn names_of_the_root_are_found_one_by_one_and_in_groups() {
    let code =
        "use crate::a::{B, c::D};\nuse crate::{\n    e, f::{self, G, h::I},\n    j as k,\n};\nlet x = crate::l::m();";
    assert_eq!(Vec::from_iter(named(code)), ["a", "e", "f", "j", "l"]);
}

#[test]
fn api_and_pages_stand_on_the_core_and_do_not_know_each_other() {
    let is_wrong = |(from, to): &(String, String)| {
        let upper: &[&str] = match from.as_str() {
            "api" => &["pages", "endpoints", "server"],
            "pages" => &["api", "endpoints", "server"],
            "endpoints" => &["server"],
            "server" => &["api", "pages"],
            _ => &["api", "pages", "endpoints", "server"],
        };
        upper.contains(&to.as_str())
    };
    let wrong = Vec::from_iter(arrows().into_iter().filter(|(arrow, _)| is_wrong(arrow)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_modules_stand_on_each_other_in_a_circle() {
    let mut arrows = arrows();
    arrows.retain(|(from, to), _| {
        let may = |(allowed_from, allowed_to, _): &(&str, &str, &str)| from == allowed_from && to == allowed_to;
        !MAY_CLOSE_A_CIRCLE.iter().any(may)
    });
    // Whatever stands on nothing that is left is in no circle.
    loop {
        let left = arrows.len();
        let standing: BTreeSet<String> = arrows.keys().map(|(from, _)| from.clone()).collect();
        arrows.retain(|(_, to), _| standing.contains(to));
        if arrows.len() == left {
            break;
        }
    }
    assert!(arrows.is_empty(), "these close a circle, or lead to one: {arrows:#?}");
}
