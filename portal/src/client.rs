//! Whom a request comes from.
//!
//! The peer of a connection is the client, unless it is one of the proxies that the configuration trusts: then the client
//! is what the proxies say, read from right to left. Each proxy adds on the right the address it was spoken to from; the
//! first one that is not itself a trusted proxy is the client, and what stands left of it was written by the client.
//!
//! ```text
//! X-Forwarded-For: 203.0.113.66, 198.51.100.7, 10.0.0.2      peer 10.0.0.1
//!                  made up       client        proxy         proxy
//! ```
//!
//! Only one header is read, the one that the proxies are known to write ([`ForwardedHeader`]): a proxy that writes
//! X-Forwarded-For passes on a `Forwarded` that the client made up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses read of one request at most: longer chains are made up.
const MAX_HOPS: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What proxies add: a request with one of these did not start on this machine.
const SIGNS_OF_A_PROXY: [HeaderName; 7] = [
    header::FORWARDED,
    header::VIA,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

/// The header in which the trusted proxies say whom they speak for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` beside it.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Which proxies are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub trusted: Vec<IpNet>,
    pub header: ForwardedHeader,
}

impl Proxies {
    /// Whether an address is one of them.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        is_in(&self.trusted, ip)
    }

    /// The client of a request from a peer.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Client {
                ip: peer,
                scheme: None,
                came_through_proxy: SIGNS_OF_A_PROXY.iter().any(|name| headers.contains_key(name)),
            };
        }
        let hops = match self.header {
            ForwardedHeader::XForwardedFor => x_forwarded_for(headers),
            ForwardedHeader::Forwarded => forwarded(headers),
        };
        let mut client = Client {
            ip: peer,
            scheme: None,
            came_through_proxy: true,
        };
        for hop in hops.iter().rev().take(MAX_HOPS) {
            // The proxy on its right does not say, or not in an address: no more is known than that proxy.
            let Some(ip) = hop.ip else { break };
            client.ip = ip;
            client.scheme = hop.scheme.or(client.scheme);
            if !self.trusts(ip) {
                break;
            }
        }
        client
    }
}

/// Whether one of some networks holds an address.
pub(crate) fn is_in(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// An IPv6 host owns a /64: all of it is one client.
pub(crate) fn grouped(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

/// How the client reached the first proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn of(text: &str) -> Option<Scheme> {
        match text.trim() {
            text if text.eq_ignore_ascii_case("https") => Some(Scheme::Https),
            text if text.eq_ignore_ascii_case("http") => Some(Scheme::Http),
            _ => None,
        }
    }
}

/// Whom a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// As a trusted proxy says; `None` where nobody does.
    pub(crate) scheme: Option<Scheme>,
    /// A proxy, trusted or not, stands between.
    pub(crate) came_through_proxy: bool,
}

impl Client {
    /// Of a request whose client was not looked at: tests that leave the server out.
    const UNKNOWN: Client = Client {
        ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        scheme: None,
        came_through_proxy: false,
    };

    /// Of a request that [`identify`] has seen.
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Client {
        extensions.get::<Client>().copied().unwrap_or(Client::UNKNOWN)
    }
}

/// One address of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hop {
    ip: Option<IpAddr>,
    scheme: Option<Scheme>,
}

/// All values of a header that is a list, in order.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        // What is no text is no address either.
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .collect()
}

/// The schemes stand in a list of their own. Most proxies write one for the whole request, some one for each address.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Hop> {
    let addresses = elements(headers, &X_FORWARDED_FOR);
    let schemes = elements(headers, &X_FORWARDED_PROTO);
    let is_one_for_each = schemes.len() == addresses.len();
    let hops = addresses.iter().enumerate().map(|(index, address)| {
        let scheme = if is_one_for_each {
            schemes.get(index)
        } else {
            schemes.last()
        };
        Hop {
            ip: node(address),
            scheme: scheme.and_then(|scheme| Scheme::of(scheme)),
        }
    });
    hops.collect()
}

/// RFC 7239 §4: `for=192.0.2.43;proto=https, for="[2001:db8::17]:4711"`.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hops = elements(headers, &header::FORWARDED).into_iter().map(|element| {
        let mut hop = Hop { ip: None, scheme: None };
        for pair in element.split(';') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("for") {
                hop.ip = node(value);
            } else if name.trim().eq_ignore_ascii_case("proto") {
                hop.scheme = Scheme::of(value);
            }
        }
        hop
    });
    hops.collect()
}

/// An address with or without a port: `192.0.2.43`, `192.0.2.43:47011`, `[2001:db8::17]:4711`, `2001:db8::17`. Names, such as
/// `unknown` and `_hidden`, are none.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical())
}

/// How people reach the portal.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) proxies: Proxies,
    /// Without a slash at its end.
    pub(crate) portal_url: String,
}

/// Notes whom a request comes from, for all that follows. A page that was asked for over plain http, where people reach the
/// portal by https, is there.
pub(crate) async fn identify(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(Client::UNKNOWN.ip, |peer| peer.0.ip());
    let client = front.proxies.client(peer, request.headers());
    request.extensions_mut().insert(client);
    if client.scheme == Some(Scheme::Http) && front.portal_url.starts_with("https://") {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let text = "sent over http, where others can read it: use https\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        return Redirect::permanent(&format!("{}{path}", front.portal_url)).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &[&str], header: ForwardedHeader) -> Proxies {
        Proxies {
            trusted: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            header,
        }
    }

    fn client_of(proxies: &Proxies, peer: &str, lines: &[(&'static str, &str)]) -> (String, Option<Scheme>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let client = proxies.client(peer.parse().unwrap(), &headers);
        (client.ip.to_string(), client.scheme)
    }

    #[test]
    fn the_chain_is_read_from_the_right_and_only_from_trusted_peers() {
        let local = proxies(
            &["127.0.0.1/32", "10.0.0.0/8", "::1/128"],
            ForwardedHeader::XForwardedFor,
        );
        let xff = "x-forwarded-for";
        for (peer, lines, expected) in [
            // Nobody that is trusted speaks.
            ("198.51.100.9", vec![(xff, "203.0.113.66")], "198.51.100.9"),
            ("127.0.0.1", vec![], "127.0.0.1"),
            ("127.0.0.1", vec![(xff, "198.51.100.7")], "198.51.100.7"),
            // The left part is what the client wrote.
            ("127.0.0.1", vec![(xff, "203.0.113.66, 198.51.100.7")], "198.51.100.7"),
            (
                "127.0.0.1",
                vec![(xff, "10.0.0.9, 198.51.100.7, 10.0.0.2")],
                "198.51.100.7",
            ),
            // In several lines it is one list.
            (
                "127.0.0.1",
                vec![(xff, "203.0.113.66"), (xff, "198.51.100.7"), (xff, "10.0.0.2")],
                "198.51.100.7",
            ),
            // Nobody but proxies: the one that is farthest away.
            ("127.0.0.1", vec![(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            // What is no address ends the chain at the proxy that wrote it.
            ("127.0.0.1", vec![(xff, "198.51.100.7, unknown, 10.0.0.2")], "10.0.0.2"),
            ("127.0.0.1", vec![(xff, "unknown")], "127.0.0.1"),
            ("127.0.0.1", vec![(xff, "")], "127.0.0.1"),
            // Ports and both forms of IPv6; a mapped address is an IPv4 one.
            ("127.0.0.1", vec![(xff, "198.51.100.7:4711")], "198.51.100.7"),
            ("::1", vec![(xff, "[2001:db8::7]:4711")], "2001:db8::7"),
            ("::1", vec![(xff, "2001:db8::7")], "2001:db8::7"),
            ("::ffff:127.0.0.1", vec![(xff, "[::ffff:198.51.100.7]")], "198.51.100.7"),
            // The other header is not read.
            ("127.0.0.1", vec![("forwarded", "for=203.0.113.66")], "127.0.0.1"),
        ] {
            assert_eq!(client_of(&local, peer, &lines).0, expected, "{peer} {lines:?}");
        }
        let nobody = Proxies::default();
        assert_eq!(client_of(&nobody, "127.0.0.1", &[(xff, "198.51.100.7")]).0, "127.0.0.1");
    }

    #[test]
    fn forwarded_says_address_and_scheme() {
        let local = proxies(&["127.0.0.1/32", "2001:db8:1::/48"], ForwardedHeader::Forwarded);
        for (value, expected) in [
            (
                "for=198.51.100.7;proto=https;by=10.0.0.1",
                ("198.51.100.7", Some(Scheme::Https)),
            ),
            (
                "For=\"[2001:db8::17]:4711\"; Proto=http",
                ("2001:db8::17", Some(Scheme::Http)),
            ),
            (
                "for=203.0.113.66;proto=https, for=198.51.100.7;proto=http, for=\"[2001:db8:1::2]\"",
                ("198.51.100.7", Some(Scheme::Http)),
            ),
            ("for=_hidden, for=unknown", ("127.0.0.1", None)),
            ("proto=https", ("127.0.0.1", None)),
        ] {
            let (ip, scheme) = client_of(&local, "127.0.0.1", &[("forwarded", value)]);
            assert_eq!((ip.as_str(), scheme), expected, "{value}");
        }
        let spoofed = [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "203.0.113.66")];
        assert_eq!(client_of(&local, "127.0.0.1", &spoofed).0, "198.51.100.7");
    }

    #[test]
    fn the_scheme_is_that_of_the_clients_own_connection() {
        let local = proxies(&["127.0.0.1/32", "10.0.0.0/8"], ForwardedHeader::XForwardedFor);
        for (addresses, schemes, expected) in [
            ("198.51.100.7", "https", Some(Scheme::Https)),
            ("203.0.113.66, 198.51.100.7", "https", Some(Scheme::Https)),
            ("198.51.100.7, 10.0.0.2", "https, http", Some(Scheme::Https)),
            ("203.0.113.66, 198.51.100.7", "https, http", Some(Scheme::Http)),
            ("198.51.100.7", "gopher", None),
            ("198.51.100.7", "", None),
        ] {
            let lines = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)];
            assert_eq!(
                client_of(&local, "127.0.0.1", &lines).1,
                expected,
                "{addresses} {schemes}"
            );
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let group = |text: &str| grouped(text.parse().unwrap()).to_string();
        assert_eq!(group("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(group("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(group("192.0.2.1"), "192.0.2.1");
    }
}
