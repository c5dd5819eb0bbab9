//! What no source may name: column formats and engines in the portal and the command line, SQL on a table outside the module that
//! owns it, and what names it in turn (`circles.rs`).
//!
//! It reads sources as text; nothing is compiled for it. A statement is seen where its table follows `FROM`, `JOIN`, `INTO` or `UPDATE` in
//! upper case, as all of ours are written; a table whose name comes out of a variable is not.

mod circles;
mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use owners::{Access, EXCEPTIONS, Exception, OWNERS};

/// Crates that tie a source to how flows are stored.
const COLUMNAR: [&str; 6] = [
    "arrow",
    "arrow_array",
    "arrow_schema",
    "datafusion",
    "parquet",
    "object_store",
];

/// Crates that ask for flows and usage by `analytics::FlowStore` alone, by the folders of their manifests.
const ASKS_BY_QUESTIONS: [&str; 2] = ["portal", "."];

/// A member of the workspace that is no part of the product: it measures.
const MEASURES: &str = "benches";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    let text = read(&path);
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of Rust below a folder, in order.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return files;
    };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A source of the product without its tests and comments, continued lines joined.
struct Source {
    /// `billing::invoice`: the crate, and the file or folder below its `src`.
    module: String,
    /// From the root of the repository.
    path: String,
    code: String,
}

/// The name of the module that a line declares.
fn module_declared(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
    line.trim_start_matches("pub ").strip_prefix("mod ")
}

/// Whether a line and the attributes after it mark the next item as a test; that item's line.
fn item_under_test<'a>(lines: &[&'a str], at: usize) -> Option<&'a str> {
    if lines[at].trim() != "#[cfg(test)]" {
        return None;
    }
    let mut following = lines[at + 1..].iter().map(|line| line.trim());
    following.find(|line| !line.starts_with("#["))
}

/// The modules in files of their own that a source has for its tests, by the paths of their files without `.rs`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().expect("a file lies in a folder");
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let within = match name {
        "lib" | "main" | "mod" => folder.to_owned(),
        name => folder.join(name),
    };
    let lines: Vec<&str> = text.lines().collect();
    let items = (0..lines.len()).filter_map(|at| item_under_test(&lines, at));
    let names = items.filter_map(|item| module_declared(item)?.strip_suffix(';'));
    names.map(|name| within.join(name)).collect()
}

/// The text without the module of tests in it and without comments.
fn code_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut code = String::with_capacity(text.len());
    let mut is_in_tests = false;
    for (at, line) in lines.iter().enumerate() {
        let begins_tests = |item: &str| module_declared(item).is_some_and(|rest| rest.ends_with('{'));
        if line.starts_with("#[cfg(test)]") && item_under_test(&lines, at).is_some_and(begins_tests) {
            is_in_tests = true;
        }
        if is_in_tests {
            is_in_tests = *line != "}";
            continue;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        code.push_str(line.trim_end().trim_end_matches('\\'));
        code.push(' ');
    }
    code
}

/// The sources of a crate, tests left out.
fn sources_of(folder: &str) -> Vec<Source> {
    let src = root().join(folder).join("src");
    let name = manifest(folder)["package"]["name"]
        .as_str()
        .expect("a crate has a name")
        .to_owned();
    let texts: Vec<(PathBuf, String)> = rust_files(&src)
        .into_iter()
        .map(|path| {
            let text = read(&path);
            (path, text)
        })
        .collect();
    let tests: BTreeSet<PathBuf> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &Path| path.with_extension("").ancestors().any(|part| tests.contains(part));
    let product = texts.iter().filter(|(path, _)| !is_test(path));
    let sources = product.map(|(path, text)| {
        let below = path.strip_prefix(&src).expect("it lies below").with_extension("");
        let first = below.iter().next().expect("a file has a name").to_string_lossy();
        Source {
            module: format!("{name}::{first}"),
            path: path.strip_prefix(root()).expect("it lies below").display().to_string(),
            code: code_of(text),
        }
    });
    sources.collect()
}

/// The sources of the product.
fn sources() -> Vec<Source> {
    let workspace = manifest(".");
    let members = workspace["workspace"]["members"].as_array().expect("a list of members");
    let members = members.iter().map(|member| member.as_str().expect("a folder"));
    let product = members.filter(|member| *member != MEASURES).chain(["."]);
    product.flat_map(sources_of).collect()
}

/// Words and single signs.
fn words(code: &str) -> Vec<&str> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match is_of_word(first) {
            true => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// The relational tables that the migrations leave.
fn tables() -> BTreeSet<String> {
    let folder = root().join("schemas/sql");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the migrations can be listed")
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    let mut tables = BTreeSet::new();
    for file in files {
        let text = read(&file);
        let statements: String = text
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ");
        let mut words = words(&statements);
        words.retain(|word| !matches!(*word, "IF" | "NOT" | "EXISTS"));
        for at in 0..words.len() {
            match words[at..] {
                ["CREATE", "TABLE", name, ..] => tables.insert(name.to_owned()),
                ["DROP", "TABLE", name, ..] => tables.remove(name),
                ["ALTER", "TABLE", old, "RENAME", "TO", new, ..] => {
                    tables.remove(old);
                    tables.insert(new.to_owned())
                }
                _ => false,
            };
        }
    }
    tables
}

/// The tables that the statements in some code name, and whether they are changed.
fn tables_named(code: &str, tables: &BTreeSet<String>) -> BTreeSet<(String, Access)> {
    let words = words(code);
    let mut named = BTreeSet::new();
    for (at, word) in words.iter().enumerate() {
        let access = match *word {
            "FROM" if at > 0 && words[at - 1] == "DELETE" => Access::Writes,
            "INTO" | "UPDATE" => Access::Writes,
            "FROM" | "JOIN" => Access::Reads,
            _ => continue,
        };
        // `FROM invoices i, customers AS c`
        let mut rest = &words[at + 1..];
        while let Some(name) = rest.first().filter(|name| tables.contains(**name)) {
            named.insert(((*name).to_owned(), access));
            rest = &rest[1..];
            if rest.first() == Some(&"AS") {
                rest = &rest[1..];
            }
            if rest
                .first()
                .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
            {
                rest = &rest[1..];
            }
            match rest {
                [",", more @ ..] if *word == "FROM" => rest = more,
                _ => break,
            }
        }
    }
    named
}

/// Who names which table, how, and in which files.
fn uses() -> BTreeMap<(String, String, Access), BTreeSet<String>> {
    let tables = tables();
    let mut uses: BTreeMap<(String, String, Access), BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for (table, access) in tables_named(&source.code, &tables) {
            let key = (source.module.clone(), table, access);
            uses.entry(key).or_default().insert(source.path.clone());
        }
    }
    uses
}

fn owner_of(table: &str) -> Option<&'static str> {
    OWNERS
        .iter()
        .find(|(_, tables)| tables.contains(&table))
        .map(|(owner, _)| *owner)
}

fn allows(exception: &Exception, module: &str, table: &str, access: Access) -> bool {
    // Who may write may read.
    exception.module == module && exception.access >= access && exception.tables.contains(&table)
}

#[test]
fn every_table_has_one_owner_who_uses_it() {
    let (tables, uses) = (tables(), uses());
    assert!(tables.len() > 50, "the migrations are read: {tables:?}");
    let mut problems = Vec::new();
    for table in &tables {
        let owners = OWNERS.iter().filter(|(_, owned)| owned.contains(&table.as_str()));
        match owners.collect::<Vec<_>>()[..] {
            [(owner, _)] => {
                let is_used = uses.keys().any(|(module, used, _)| module == owner && used == table);
                if !is_used {
                    problems.push(format!("{table} is {owner}'s, which never names it"));
                }
            }
            [] => problems.push(format!("{table} has no owner: name its module in tests/bans/owners.rs")),
            _ => problems.push(format!("{table} has several owners")),
        }
    }
    let owned = OWNERS.iter().flat_map(|(_, tables)| tables.iter());
    problems.extend(
        owned
            .filter(|table| !tables.contains(**table))
            .map(|table| format!("{table} is owned and does not exist")),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn sql_on_a_table_is_in_the_module_that_owns_it() {
    let uses = uses();
    let mut problems = Vec::new();
    for ((module, table, access), paths) in &uses {
        let Some(owner) = owner_of(table) else { continue };
        let is_allowed = EXCEPTIONS
            .iter()
            .any(|exception| allows(exception, module, table, *access));
        if module != owner && !is_allowed {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            problems.push(format!(
                "{module} {access} {table} ({}): ask {owner} for it",
                paths.join(", ")
            ));
        }
    }
    for exception in EXCEPTIONS {
        let (module, access, reason) = (exception.module, exception.access, exception.reason);
        for table in exception.tables {
            if !uses.contains_key(&(module.to_owned(), (*table).to_owned(), access)) {
                problems.push(format!(
                    "{module} {access} {table} no more: strike the exception ({reason})"
                ));
            }
            if owner_of(table) == Some(module) {
                problems.push(format!("{module} owns {table}: strike the exception ({reason})"));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "the list is tests/bans/owners.rs\n{}",
        problems.join("\n")
    );
}

#[test]
fn the_portal_and_the_command_line_name_no_engine() {
    let mut problems = Vec::new();
    for folder in ASKS_BY_QUESTIONS {
        let manifest = manifest(folder);
        let dependencies = manifest["dependencies"].as_table().expect("a table of dependencies");
        for name in dependencies.keys().filter(|name| is_columnar(name)) {
            problems.push(format!("{folder}/Cargo.toml depends on {name}"));
        }
        // Their tests too: what a test writes into a table has types of its own.
        for path in rust_files(&root().join(folder).join("src")) {
            let text = read(&path);
            for (number, line) in (1..).zip(text.lines()) {
                let words = words(line);
                let mut pairs = words.windows(3);
                if pairs.any(|three| is_columnar(three[0]) && three[1..] == [":", ":"]) {
                    problems.push(format!("{}:{number}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(
        problems.is_empty(),
        "a question about flows is a method of analytics::FlowStore\n{}",
        problems.join("\n")
    );
}

fn is_columnar(name: &str) -> bool {
    let name = name.replace('-', "_");
    let of_family = ["arrow_", "datafusion_", "parquet_"];
    COLUMNAR.contains(&name.as_str()) || of_family.iter().any(|family| name.starts_with(family))
}

#[test]
fn the_look_sees_what_is_there() {
    let tables: BTreeSet<String> = ["users", "sessions", "plans"].map(str::to_owned).into();
    let named = |code: &str| -> Vec<String> {
        let named = tables_named(&code_of(code), &tables);
        named
            .iter()
            .map(|(table, access)| format!("{access} {table}"))
            .collect()
    };
    assert_eq!(
        named("let sql = \"SELECT * FROM sessions s \\\n     JOIN users u ON true\";"),
        ["reads sessions", "reads users"]
    );
    assert_eq!(named("\"DELETE FROM users WHERE id = 1\""), ["writes users"]);
    assert_eq!(
        named("\"SELECT 1 FROM users AS u, plans p, x\""),
        ["reads plans", "reads users"]
    );
    assert_eq!(named("\"INSERT INTO users SELECT 1\""), ["writes users"]);
    assert_eq!(
        named("\"INSERT INTO plans (id) VALUES ($1) ON CONFLICT DO UPDATE SET id = 1\""),
        ["writes plans"]
    );
    assert_eq!(named("// FROM users\n/// FROM users\nfn from(users: i64) {}"), [""; 0]);
    let with_tests = "fn f() {}\n#[cfg(test)]\nmod tests {\n    \"FROM users\"\n}\nfn g() { \"FROM plans\" }\n";
    assert_eq!(named(with_tests), ["reads plans"]);
    let modules = test_modules(Path::new("/a/src/b.rs"), "#[cfg(test)]\npub(crate) mod tests;\nmod c;");
    assert_eq!(modules, [Path::new("/a/src/b/tests")]);
    let modules = test_modules(Path::new("/a/src/lib.rs"), "#[cfg(test)]\nmod testing;");
    assert_eq!(modules, [Path::new("/a/src/testing")]);
}
