//! Modules of a crate know each other one way: where one names a second, by whatever way, the second does not name the first.
//!
//! Counted are modules right below `src`, and every path that begins with `crate::`, in code that is not for tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Source, sources_of, words};

/// The crates that hold to it, by the folders of their manifests.
const CRATES: [&str; 6] = ["schemas", "tables", "activity", "collector", "analytics", "billing"];

/// Arrows that close a circle all the same, with what for: the error of a whole crate names what it carries.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("billing::error", "billing::guard", "says why billing is stopped"),
    ("billing::error", "billing::subscription", "says in which state one is"),
];

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The first names of the paths that begin with `crate::`: of `crate::{a::B, c}` both.
fn named_from_root<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut named = Vec::new();
    for (at, four) in words.windows(4).enumerate() {
        match four {
            ["crate", ":", ":", "{"] => {
                let (mut depth, mut begins) = (0, false);
                for word in &words[at + 3..] {
                    match *word {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        name if begins => named.push(name),
                        _ => {}
                    }
                    begins = depth == 1 && matches!(*word, "{" | ",");
                    if depth == 0 {
                        break;
                    }
                }
            }
            ["crate", ":", ":", name] => named.push(*name),
            _ => {}
        }
    }
    named
}

/// What the root re-exports, with the module that has it: `BillingError` is in `error`.
fn reexported<'a>(root: &[&'a str]) -> BTreeMap<&'a str, &'a str> {
    let mut owners = BTreeMap::new();
    for statement in root.split(|word| *word == ";") {
        let begin = statement.iter().position(|word| *word == "use");
        if let Some([module, ":", ":", names @ ..]) = begin.map(|begin| &statement[begin + 1..]) {
            owners.extend(names.iter().map(|name| (*name, *module)));
        }
    }
    owners
}

/// Which module of a crate names which others.
fn arrows_of(sources: &[Source]) -> Arrows {
    let name_of = |source: &Source| source.module.rsplit("::").next().unwrap_or_default().to_owned();
    let modules: BTreeSet<String> = sources.iter().map(name_of).collect();
    let root = sources.iter().find(|source| source.module.ends_with("::lib"));
    let root_words = words(&root.expect("a crate has a root").code);
    let owners = reexported(&root_words);
    let mut arrows = Arrows::new();
    for source in sources {
        let own = name_of(source);
        let krate = source.module.split("::").next().unwrap_or_default();
        for named in named_from_root(&words(&source.code)) {
            let owner = || owners.get(named).copied();
            let module = modules.get(named).map(String::as_str).or_else(owner);
            if let Some(module) = module.filter(|module| *module != own && own != "lib" && modules.contains(*module)) {
                let from = arrows.entry(source.module.clone()).or_default();
                from.insert(format!("{krate}::{module}"));
            }
        }
    }
    arrows
}

/// The shortest way from a module back to itself.
fn circle(arrows: &Arrows, start: &str) -> Option<Vec<String>> {
    let mut waiting = VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop_front() {
        for next in arrows.get(way.last()?).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                waiting.push_back(longer);
            }
        }
    }
    None
}

#[test]
fn modules_know_each_other_one_way() {
    let mut problems = Vec::new();
    let mut arrows: Arrows = CRATES
        .iter()
        .flat_map(|folder| arrows_of(&sources_of(folder)))
        .collect();
    assert!(arrows.len() > 60, "the sources are read: {}", arrows.len());
    for (from, to, reason) in ALLOWED {
        if !arrows.get_mut(*from).is_some_and(|named| named.remove(*to)) {
            problems.push(format!("{from} names {to} no more: strike that it may ({reason})"));
        }
    }
    // Each circle once: by the first of its modules.
    let circles = arrows.keys().filter_map(|start| circle(&arrows, start));
    let circles = circles.filter(|circle| circle.iter().all(|module| *module >= circle[0]));
    problems.extend(circles.map(|circle| circle.join(" → ")));
    assert!(
        problems.is_empty(),
        "move what closes the circle into the module below, or into one of its own\n{}",
        problems.join("\n")
    );
}

#[test]
fn a_circle_is_found_by_whatever_way() {
    let source = |module: &str, code: &str| Source {
        module: format!("x::{module}"),
        path: String::new(),
        code: code.to_owned(),
    };
    let sources = [
        source("lib", "pub mod a; pub use b::{Bad, Worse}; use crate::a::A;"),
        source("a", "use crate::{Worse, c::{self, D}}; fn f() { other::b() }"),
        source("b", "fn g() { crate::c::h(crate::b::i()) }"),
        source("c", "struct D;"),
    ];
    let found = arrows_of(&sources);
    let of = |module: &str| found.get(module).map(|named| named.iter().cloned().collect::<Vec<_>>());
    assert_eq!(of("x::a").unwrap(), ["x::b", "x::c"]);
    assert_eq!(
        (of("x::b").unwrap(), of("x::c"), of("x::lib")),
        (vec!["x::c".to_owned()], None, None)
    );
    assert!(found.keys().all(|start| circle(&found, start).is_none()));
    let mut closed = found.clone();
    closed.insert("x::c".to_owned(), BTreeSet::from(["x::a".to_owned()]));
    assert_eq!(circle(&closed, "x::b").unwrap().join(" "), "x::b x::c x::a x::b");
}
