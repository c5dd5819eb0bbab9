//! What asks: its address and what it says it is.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::extract::ClientIp;
use crate::state::AppState;

/// Longest user agent kept, in characters.
const MAX_USER_AGENT_CHARS: usize = 200;

/// A program that asks.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) ip: IpAddr,
    /// As it says, cut; empty where it says nothing.
    pub(crate) user_agent: String,
}

impl Agent {
    /// IPv4 as such, also where it came in over IPv6.
    pub(crate) fn ip_text(&self) -> String {
        self.ip.to_canonical().to_string()
    }
}

impl FromRequestParts<AppState> for Agent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Agent, Infallible> {
        let ClientIp(ip) = ClientIp::from_request_parts(parts, state).await?;
        let said = parts.headers.get(header::USER_AGENT);
        let said = said.and_then(|value| value.to_str().ok()).unwrap_or("");
        Ok(Agent {
            ip,
            user_agent: said.chars().take(MAX_USER_AGENT_CHARS).collect(),
        })
    }
}

/// A browser and its system in words, as far as the user agent says it: `Firefox on Linux`.
pub fn device_name(user_agent: &str) -> String {
    // Most name others too, for the sake of old pages: the most particular first.
    let browsers = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    let systems = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Macintosh", "macOS"),
        ("Linux", "Linux"),
    ];
    let first = |known: &[(&str, &'static str)]| {
        let found = known.iter().find(|(mark, _)| user_agent.contains(mark));
        found.map(|(_, name)| *name)
    };
    match (first(&browsers), first(&systems)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, Some(system)) => format!("A program on {system}"),
        (None, None) if user_agent.trim().is_empty() => "Unknown".to_owned(),
        (None, None) => {
            // Such as `python-requests/2.31`.
            let name: String = user_agent.chars().take_while(|c| !c.is_whitespace()).take(40).collect();
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_what_they_say() {
        for (said, expected) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.14.1", "curl"),
            ("python-requests/2.31 x", "python-requests/2.31"),
            ("", "Unknown"),
        ] {
            assert_eq!(device_name(said), expected);
        }
    }
}
