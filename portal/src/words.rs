//! Plain words: what pages, mails and help texts do not say, so that one thing keeps one name.

use std::path::{Path, PathBuf};

/// What is not said, and what is said in its place.
const NOT: [(&str, &str); 24] = [
    ("way to pay", "payment method"),
    ("ways to pay", "payment methods"),
    ("hears of", "events, receives"),
    ("starts anew", "resets"),
    ("tell me at", "alert at"),
    ("charge now what is due", "invoice now"),
    ("you hear of it", "we alert you"),
    ("to be had again", "return to stock"),
    ("goes on as so far", "at the current rate"),
    ("told on the invoice", "shown on the invoice"),
    ("made out", "dispatched"),
    ("to be tried again", "to retry"),
    ("taken back", "reversed, cancelled"),
    ("by itself", "automatically"),
    (">what<", "description"),
    ("what you were told", "alerts"),
    ("mbps", "Mbit/s"),
    ("hear of", "receive"),
    ("is told", "is notified"),
    ("are told", "are notified"),
    ("not believed", "verification failed"),
    ("truth check", "counter reconciliation"),
    ("what was due", "due charges"),
    (" anew", "again, re-"),
];

/// Where people read: templates, messages, help texts, and the strings of what refuses, describes and records.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in [
        "portal/templates",
        "activity/templates/mail",
        "activity/src/channel/message",
        "src/commands",
    ] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        found.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file() && !path.ends_with("tests.rs")),
        );
    }
    for folder in ["billing/src", "portal/src"] {
        add_sources(&root.join(folder), &mut found);
    }
    assert!(found.len() > 200, "{}", found.len());
    found
}

/// The sources of a folder and of those in it, but for tests.
fn add_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("test") || name == "words.rs" {
            continue;
        }
        if path.is_dir() {
            add_sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The parts of a line that people read: all of a template's, of a source strings and help texts.
fn read_by_people(path: &Path, line: &str) -> String {
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    let trimmed = line.trim();
    if !is_source {
        // A field's name is none of a page's words.
        return trimmed.replace("port_mbps", "");
    }
    if let Some(help) = trimmed.strip_prefix("///") {
        // Of a command and its arguments it is the help text.
        let is_help = path.parent().is_some_and(|folder| folder.ends_with("src/commands"));
        return if is_help {
            help.replace("_mbps", "").replace("-mbps", "")
        } else {
            String::new()
        };
    }
    if trimmed.starts_with("//") {
        return String::new();
    }
    let strings = trimmed.split('"').skip(1).step_by(2);
    strings
        .collect::<Vec<_>>()
        .join(" ")
        .replace("_mbps", "")
        .replace("-mbps", "")
}

#[test]
fn pages_mails_and_help_texts_use_plain_words() {
    let mut found = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        // Tests stand at the end of a source.
        let text = match text.split_once("#[cfg(test)]\nmod tests {") {
            Some((before, _)) if is_source => before,
            _ => text.as_str(),
        };
        for (number, line) in text.lines().enumerate() {
            let read = read_by_people(&path, line).to_lowercase();
            for (not, but) in NOT {
                if read.contains(not) {
                    found.push(format!("{}:{}: not {not:?} but {but:?}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
