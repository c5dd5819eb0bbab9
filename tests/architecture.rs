//! The documents and the tree say the same: every path and link in them leads somewhere, and code in documentation is none that nobody
//! compiles.
//!
//! What counts as a path, in backquotes and outside of blocks of code:
//!
//! * a name whose first part is a folder of the repository (`billing/src/ledger.rs`, `docs/decisions/`), from the root or from the folder of
//!   the document;
//! * the name of a Rust file (`state.rs`, `decode/dispatch.rs`), which must be the end of some path.
//!
//! A word in capitals stands for something (`fuzz/findings/TARGET/`, `src/commands/NOUN.rs`), as do `<…>`, `*` and `…`. The data folder has names that folders of the
//! repository have too: see [`IN_DATA_FOLDER`].

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Made, and no part of the tree.
const MADE: &[&str] = &["target", ".git", "ezscale-data", "ezscale-demo"];
/// Says what was, too.
const HISTORY: &str = "CHANGELOG.md";
/// What is in an installation's folder, named from there.
const IN_DATA_FOLDER: &[&str] = &[
    "collector/status.json",
    "collector/interfaces.json",
    "collector/imports.json",
];

/// Every file and folder of the tree, from its root.
fn tree() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry can be read").path();
            let name = path.strip_prefix(ROOT).expect("it is below the root");
            let name = name.to_str().expect("a name is text").to_owned();
            if MADE.contains(&name.as_str()) {
                continue;
            }
            // Not through links, which may lead out of the tree.
            if path.is_dir() && !path.is_symlink() {
                walk(&path, found);
            }
            found.insert(name);
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new(ROOT), &mut found);
    found
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of a document with their numbers, without blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_fence && !is_code).then_some((at + 1, line))
    })
}

/// A path without `.` and `..`, from the root; `None` where it leads out of it.
fn plain(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let joined = PathBuf::from(folder).join(path);
    for part in joined.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// The anchor that a heading gets.
fn anchor_of(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

/// What is wrong with a link of a document, if something is.
fn wrong_link(tree: &BTreeSet<String>, document: &str, folder: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => document.to_owned(),
        path => plain(folder, path).unwrap_or_default(),
    };
    if !tree.contains(&target) {
        return Some(format!("the link {link} leads nowhere"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = read(&target);
    let mut headings = prose(&text).filter_map(|(_, line)| line.strip_prefix('#'));
    let is_there = headings.any(|heading| anchor_of(heading.trim_start_matches('#')) == anchor);
    (!is_there).then(|| format!("{target} has no heading for #{anchor}"))
}

/// Whether a word in backquotes is a path by the rule above, and leads nowhere.
fn is_wrong_path(tree: &BTreeSet<String>, folder: &str, word: &str) -> bool {
    let is_plain = word
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '-' | '_'));
    if !is_plain || IN_DATA_FOLDER.contains(&word) {
        return false;
    }
    let path = word.trim_end_matches('/');
    let stands_for_something = path
        .split(['/', '.', '-', '_'])
        .any(|word| word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase()));
    let is_there = tree.contains(path) || plain(folder, path).is_some_and(|path| tree.contains(&path));
    if is_there || stands_for_something {
        return false;
    }
    if path.ends_with(".rs") {
        let end = format!("/{path}");
        return !tree.iter().any(|known| known.ends_with(&end));
    }
    let first = word.split_once('/').map(|(first, _)| first);
    first.is_some_and(|first| tree.contains(first))
}

#[test]
fn every_path_and_link_in_the_documents_leads_somewhere() {
    let tree = tree();
    let documents = tree.iter().filter(|name| name.ends_with(".md") && *name != HISTORY);
    let mut wrong = Vec::new();
    for document in documents {
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = read(document);
        for (number, line) in prose(&text) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap_or_default();
                if let Some(problem) = wrong_link(&tree, document, folder, link) {
                    wrong.push(format!("{document}:{number}: {problem}"));
                }
            }
            for word in line.split('`').skip(1).step_by(2) {
                if is_wrong_path(&tree, folder, word) {
                    wrong.push(format!("{document}:{number}: there is no {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_path_is_told_from_other_words() {
    let tree = BTreeSet::from(
        [
            "docs",
            "docs/a.md",
            "src",
            "src/state.rs",
            "src/store",
            "src/store/state.rs",
        ]
        .map(str::to_owned),
    );
    for (word, is_wrong) in [
        ("docs/a.md", false),
        ("docs/b.md", true),
        ("src/store/", false),
        ("src/stores/", true),
        ("store/state.rs", false),
        ("states.rs", true),
        ("a.md", false),
        ("docs/NAME.md", false),
        ("docs/NAME/a.md", false),
        ("application/json", false),
        ("src/*.rs", false),
        ("collector/status.json", false),
        ("state", false),
    ] {
        assert_eq!(is_wrong_path(&tree, "docs", word), is_wrong, "{word}");
    }
    assert_eq!(plain("docs/decisions", "../a.md").as_deref(), Some("docs/a.md"));
    assert_eq!(plain("docs", "../../a.md"), None);
    assert_eq!(anchor_of("Backup and `restore`, of S3"), "backup-and-restore-of-s3");
}

/// There is no step that compiles them: what shows how a thing is used is a unit test.
#[test]
fn code_in_documentation_is_no_rust() {
    let mut wrong = Vec::new();
    for name in tree().iter().filter(|name| name.ends_with(".rs")) {
        let mut is_open = false;
        for (number, line) in read(name).lines().enumerate() {
            let line = line.trim_start();
            let Some(text) = line.strip_prefix("//!").or(line.strip_prefix("///")) else {
                is_open = false;
                continue;
            };
            let Some(language) = text.trim_start().strip_prefix("```") else {
                continue;
            };
            is_open = !is_open;
            // Without a word it is Rust, and so it is with those that say how it is run.
            let runs = ["", "rust", "no_run", "ignore", "should_panic", "compile_fail"];
            if is_open && runs.contains(&language.split(',').next().unwrap_or_default().trim()) {
                wrong.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "write ```text, or a unit test: {wrong:#?}");
}
