//! The pages of the portal, read from its table of endpoints: what is looked at with GET and is no file and no API.

use std::path::Path;

/// Where the table lies.
const TABLE: &str = "portal/src/endpoints/table.rs";
/// What is no page: the API, files, and what machines ask.
const NOT_PAGES: [&str; 6] = ["/api/", "/healthz", "/readyz", "/metrics", "/assets/", "/hooks/"];

/// Every path of a page, as it is registered.
pub(crate) fn pages() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    let table = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let pages: Vec<String> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("get(\"")?.split('"').next())
        .filter(|path| !NOT_PAGES.iter().any(|not| path.starts_with(not)))
        .map(str::to_owned)
        .collect();
    assert!(pages.len() > 40, "the portal has pages: {pages:?}");
    pages
}
