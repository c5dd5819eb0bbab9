//! Which module may name which: the layers of `lib.rs`.

use std::path::{Path, PathBuf};

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
fn layer(folder: &Path, file: &Path) -> String {
    let inner = file.strip_prefix(folder).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Only of the code: tests may name anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn is_test(layer: &str, file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    layer == "testing" || name.ends_with("tests") || file.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn api_and_pages_stand_on_the_core_and_do_not_know_each_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    assert!(files.len() > 100, "{}", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let own = layer(&folder, file);
        if is_test(&own, file) {
            continue;
        }
        let forbidden: &[&str] = match own.as_str() {
            "api" => &["pages", "server"],
            "pages" => &["api", "server"],
            "endpoints" | "lib" => &[],
            "server" => &["pages", "api"],
            _ => &["api", "pages"],
        };
        let text = std::fs::read_to_string(file).unwrap();
        for upper in forbidden {
            if without_tests(&text).contains(&format!("crate::{upper}::")) {
                wrong.push(format!("{} names crate::{upper}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
