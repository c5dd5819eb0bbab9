//! Addresses: of pages that other parts lead to, and which of them are the API's.

/// Whether an address is one of the API, whose readers are programs.
pub(crate) fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

/// The address of the sign-in page that leads back to `next`.
pub(crate) fn sign_in(next: &str) -> String {
    match next {
        "/" => "/signin".to_owned(),
        next => format!("/signin?next={}", percent_encoded(next)),
    }
}

/// As a part of a query, with its slashes.
pub(crate) fn percent_encoded(text: &str) -> String {
    percent_encoded_but(text, b"-_.~/")
}

/// As any part of an address (RFC 3986 §2.3).
pub(crate) fn percent_encoded_part(text: &str) -> String {
    percent_encoded_but(text, b"-_.~")
}

fn percent_encoded_but(text: &str, kept: &[u8]) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_in_page_leads_back() {
        assert_eq!(sign_in("/usage?a=b&c"), "/signin?next=/usage%3Fa%3Db%26c");
        assert_eq!(sign_in("/"), "/signin");
    }
}
