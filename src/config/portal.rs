//! `[portal]`: where it listens, how people reach it, and whom it believes.

use std::net::SocketAddr;

use anyhow::bail;
use ipnet::IpNet;
use portal::{ForwardedHeader, HttpSettings, MetricsAccess, Proxies};
use serde::{Deserialize, Serialize};

use super::hidden;

/// With fewer connections no page would load.
const MIN_CONNECTIONS: usize = 16;
const MAX_CONNECTIONS: usize = 65_536;
/// A shorter token could be guessed.
const MIN_TOKEN_CHARS: usize = 20;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PortalConfig {
    /// Address the portal listens on.
    pub(crate) http: SocketAddr,
    /// Whether cookies are sent over https only; where absent, as `public_url` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secure_cookies: Option<bool>,
    /// Where people reach the portal, for links in mails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// Proxies that are believed about whom they speak for.
    #[serde(deserialize_with = "schemas::prefix::list")]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The header in which they say so.
    pub(crate) forwarded_header: ForwardedHeader,
    /// Connections at one time; fewer where the limit on open files is low.
    pub(crate) max_connections: usize,
    /// Of one address, or of a /64 of IPv6.
    pub(crate) max_connections_per_client: usize,
    /// Who may read `/metrics` without signing in; where absent this machine, unless a proxy is configured.
    #[serde(
        deserialize_with = "schemas::prefix::optional_list",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) metrics_allow: Option<Vec<IpNet>>,
    /// A bearer token that opens `/metrics`.
    #[serde(serialize_with = "hidden", skip_serializing_if = "String::is_empty")]
    pub(crate) metrics_token: String,
}

impl std::fmt::Debug for PortalConfig {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortalConfig")
            .field("http", &self.http)
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

impl Default for PortalConfig {
    fn default() -> PortalConfig {
        PortalConfig {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            secure_cookies: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            max_connections: portal::MAX_CONNECTIONS,
            max_connections_per_client: portal::MAX_CONNECTIONS_PER_CLIENT,
            metrics_allow: None,
            metrics_token: String::new(),
        }
    }
}

impl PortalConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Some(url) = &self.public_url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            bail!("portal.public_url = {url:?} is no address: use one like https://portal.example.net");
        }
        for (name, value) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_client", self.max_connections_per_client),
        ] {
            if !(MIN_CONNECTIONS..=MAX_CONNECTIONS).contains(&value) {
                bail!("portal.{name} = {value} is out of range: use {MIN_CONNECTIONS} to {MAX_CONNECTIONS}");
            }
        }
        let networks = [
            ("trusted_proxies", Some(&self.trusted_proxies)),
            ("metrics_allow", self.metrics_allow.as_ref()),
        ];
        for (name, list) in networks {
            for network in list.into_iter().flatten() {
                if *network != network.trunc() {
                    let whole = network.trunc();
                    bail!(
                        "portal.{name}: {network} names an address inside the network {whole}: write {whole}, or the address alone"
                    );
                }
                if name == "trusted_proxies" && network.prefix_len() == 0 {
                    bail!(
                        "portal.trusted_proxies: {network} would accept any address that a client claims: name the proxies"
                    );
                }
            }
        }
        if !self.metrics_token.is_empty() && self.metrics_token.chars().count() < MIN_TOKEN_CHARS {
            bail!(
                "portal.metrics_token is shorter than {MIN_TOKEN_CHARS} characters: make one with `openssl rand -hex 24`"
            );
        }
        Ok(())
    }

    fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Whether cookies are sent over https only.
    pub(crate) fn secures_cookies(&self) -> bool {
        self.secure_cookies.unwrap_or(self.is_https())
    }

    /// What of it is worth a second look, in sentences.
    pub(super) fn advice(&self, lines: &mut Vec<String>) {
        if self.is_https() && !self.secures_cookies() {
            lines.push(
                "portal.secure_cookies = false: public_url is https, but sessions are sent over http too; leave it out"
                    .to_owned(),
            );
        }
        if !self.trusted_proxies.is_empty() && self.public_url.is_none() {
            lines.push(
                "portal.public_url is not set: links in mails lead to the address that the portal listens on, and cookies are sent \
                 over http; set it to where people reach the proxy, such as \"https://portal.example.net\" (docs/proxy.md)"
                    .to_owned(),
            );
        }
        if !self.http.ip().is_loopback() && self.trusted_proxies.is_empty() {
            lines.push(format!(
                "portal.http = \"{}\": passwords and sessions pass the network in plain HTTP; listen on 127.0.0.1 behind a proxy \
                 with TLS, or name the proxy in trusted_proxies (docs/proxy.md)",
                self.http
            ));
        }
        if self.is_https() && self.trusted_proxies.is_empty() && self.http.ip().is_loopback() {
            lines.push(
                "portal.trusted_proxies is empty: behind a proxy everybody has its address in the audit log, and shares one \
                 limit on sign-ins and connections; name the proxy, such as \"127.0.0.1/32\" (docs/proxy.md)"
                    .to_owned(),
            );
        }
    }

    /// How the portal is reached, with so many connections at most.
    pub(crate) fn http_settings(&self, max_connections: usize) -> HttpSettings {
        // A proxy on this machine that says of nobody whom it speaks for would make everybody local.
        let is_published = self.public_url.is_some() || !self.trusted_proxies.is_empty();
        HttpSettings {
            max_connections,
            max_connections_per_client: self.max_connections_per_client,
            proxies: Proxies {
                trusted: self.trusted_proxies.clone(),
                header: self.forwarded_header,
            },
            metrics: MetricsAccess {
                allow: self.metrics_allow.clone().unwrap_or_default(),
                allow_local: self.metrics_allow.is_none() && !is_published,
                token: self.metrics_token.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn cookies_follow_the_public_address() {
        for (text, secure) in [
            ("", false),
            ("[portal]\npublic_url = 'https://portal.example.net'", true),
            ("[portal]\npublic_url = 'http://portal.example.net'", false),
            ("[portal]\nsecure_cookies = true", true),
            (
                "[portal]\nsecure_cookies = false\npublic_url = 'https://portal.example.net'",
                false,
            ),
        ] {
            let config = Config::parse(text).unwrap();
            assert_eq!(config.portal.secures_cookies(), secure, "{text}");
        }
    }

    #[test]
    fn metrics_are_open_to_this_machine_only_while_nobody_else_is_there() {
        for (text, is_local) in [
            ("", true),
            ("[portal]\npublic_url = 'http://portal.example.net'", false),
            ("[portal]\ntrusted_proxies = ['10.0.0.1/32']", false),
            ("[portal]\nmetrics_allow = []", false),
        ] {
            let config = Config::parse(text).unwrap();
            assert_eq!(config.portal.http_settings(64).metrics.allow_local, is_local, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("trusted_proxies = ['0.0.0.0/0']", "name the proxies"),
            ("trusted_proxies = ['10.0.0.1/8']", "write 10.0.0.0/8"),
            ("trusted_proxies = ['proxy.example.net']", "line 2"),
            ("forwarded_header = 'x-real-ip'", "x-forwarded-for"),
            ("max_connections = 4", "use 16 to 65536"),
            ("metrics_token = 'short'", "openssl rand"),
        ] {
            let error = format!("{:#}", Config::parse(&format!("[portal]\n{text}")).unwrap_err());
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_check_advises_where_a_setting_of_the_proxy_is_missing() {
        let plain = "in plain HTTP";
        let no_url = "portal.public_url is not set";
        for (text, expected) in [
            ("", vec![]),
            ("trusted_proxies = ['127.0.0.1/32']", vec![no_url]),
            ("http = '0.0.0.0:8080'", vec![plain]),
            ("http = '[::]:8080'", vec![plain]),
            (
                "http = '192.0.2.1:8080'\npublic_url = 'https://portal.example.net'",
                vec![plain],
            ),
            ("http = '0.0.0.0:8080'\ntrusted_proxies = ['10.0.0.1/32']", vec![no_url]),
            (
                "http = '0.0.0.0:8080'\ntrusted_proxies = ['10.0.0.1/32']\npublic_url = 'https://portal.example.net'",
                vec![],
            ),
        ] {
            let config = Config::parse(&format!("[portal]\n{text}")).unwrap();
            let lines = config.reading().join("\n");
            for words in [plain, no_url] {
                assert_eq!(lines.contains(words), expected.contains(&words), "{text:?}: {lines}");
            }
        }
    }

    #[test]
    fn test_cards_on_a_public_portal_are_warned_of() {
        let with = |url: &str| {
            let config = Config::parse(&format!("[portal]\npublic_url = '{url}'\n[payments.test]")).unwrap();
            config.reading().join("\n").contains("[payments.test] on")
        };
        assert!(with("https://portal.example.net"));
        assert!(!with("http://localhost:8080"));
    }

    #[test]
    fn a_check_advises() {
        let config =
            Config::parse("[portal]\npublic_url = 'https://portal.example.net'\nsecure_cookies = false").unwrap();
        let lines = config.reading().join("\n");
        assert!(
            lines.contains("secure_cookies") && lines.contains("trusted_proxies"),
            "{lines}"
        );
        assert!(
            !toml::to_string(&Config::parse("[portal]\nmetrics_token = '0123456789abcdef0123'").unwrap())
                .unwrap()
                .contains("0123456789")
        );
    }
}
