//! Stylesheets and scripts, embedded in the binary and served under `/assets/<name>?v=<hash>`.
//!
//! The address changes with the content, so browsers may keep what they have for a year; without the hash they ask again
//! and get 304 while nothing changed.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::path::Path;

struct Asset {
    content_type: &'static str,
    body: &'static [u8],
    hash: String,
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Every file that is served. A new one needs a line here.
const FILES: &[(&str, &str, &[u8])] = &[
    ("tabler.min.css", CSS, include_bytes!("../assets/vendor/tabler.min.css")),
    ("htmx.min.js", SCRIPT, include_bytes!("../assets/vendor/htmx.min.js")),
    (
        "echarts.js",
        SCRIPT,
        include_bytes!("../assets/vendor/echarts.common.min.js"),
    ),
    ("app.css", CSS, include_bytes!("../assets/app.css")),
    ("theme.js", SCRIPT, include_bytes!("../assets/theme.js")),
    ("app.js", SCRIPT, include_bytes!("../assets/app.js")),
    ("charts.js", SCRIPT, include_bytes!("../assets/charts.js")),
    ("usage.js", SCRIPT, include_bytes!("../assets/usage.js")),
    ("staff.css", CSS, include_bytes!("../assets/staff.css")),
    ("overview.js", SCRIPT, include_bytes!("../assets/overview.js")),
    ("exporters.js", SCRIPT, include_bytes!("../assets/exporters.js")),
    ("icon.svg", SVG, include_bytes!("../assets/icon.svg")),
];

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let assets = FILES.iter().map(|(name, content_type, body)| {
        let hash = crate::auth::hex(&Sha256::digest(body)[..8]);
        let asset = Asset {
            content_type,
            body,
            hash,
        };
        (*name, asset)
    });
    assets.collect()
});

/// The address of an embedded file, with its hash.
pub(crate) fn url(name: &str) -> String {
    match ASSETS.get(name) {
        Some(asset) => format!("/assets/{name}?v={}", asset.hash),
        None => format!("/assets/{name}"),
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct Version {
    v: Option<String>,
}

pub(crate) async fn serve(Path(name): Path<String>, Query(version): Query<Version>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.get(name.as_str()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", asset.hash);
    let caching = if version.v.as_deref() == Some(asset.hash.as_str()) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains(&etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        asset.body.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_content() {
        let address = url("app.css");
        let hash = address.strip_prefix("/assets/app.css?v=").unwrap();
        assert_eq!(hash, ASSETS["app.css"].hash);
        assert_eq!(hash.len(), 16);
        assert_ne!(ASSETS["app.css"].hash, ASSETS["app.js"].hash);
    }
}
