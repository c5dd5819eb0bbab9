//! Where requests to endpoints may go.
//!
//! A customer names the address that we then send requests to, from inside our network. So only addresses of the public
//! Internet are spoken to: the name is resolved by us, each answer is checked, and the connection goes to what was checked,
//! so that a name which answers differently a second later gains nothing. Redirects are not followed and proxies of the
//! environment are not used, because both would go elsewhere unchecked.
//!
//! `allow_private` lifts all of it, for tests and for operators whose endpoints stand beside EZSCALE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::discord_address;
use super::endpoint::{EndpointError, EndpointKind, NOT_PUBLIC};

/// Characters of an endpoint's URL at most.
pub const MAX_URL_CHARS: usize = 500;
/// Until a name is resolved, and until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an endpoint has answered. Whoever needs longer notes the event and works later.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept for an endpoint at most.
const MAX_IDLE_PER_HOST: usize = 2;
/// Of an answer that asks for patience, so much is read to find for how long.
const MAX_ANSWER_BYTES: usize = 4 << 10;

/// A URL that requests may go to, as far as can be seen before they do.
#[derive(Clone, PartialEq, Eq)]
pub struct VettedUrl {
    kind: EndpointKind,
    url: Url,
}

impl VettedUrl {
    pub fn kind(&self) -> EndpointKind {
        self.kind
    }

    /// What may be shown of it.
    pub fn shown(&self) -> String {
        match self.kind {
            EndpointKind::Webhook => self.url.as_str().to_owned(),
            EndpointKind::Discord => discord_address::shown(&self.url),
        }
    }

    /// All of it: of a Discord channel a secret.
    pub(super) fn as_str(&self) -> &str {
        self.url.as_str()
    }
}

impl std::fmt::Debug for VettedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VettedUrl").field(&self.shown()).finish()
    }
}

/// What speaks to endpoints. Clones share its connections.
#[derive(Clone, Debug)]
pub struct WebhookClient {
    http: reqwest::Client,
    allow_private: bool,
}

/// How an endpoint took a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum EndpointResponse {
    /// A status of 2xx.
    Accepted,
    /// Any other status, or a URL that nothing is sent to.
    Refused(Refusal),
    /// Nobody answered, and why.
    Unreachable(String),
}

/// Why an endpoint did not take a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    /// For the endpoint's owner.
    pub(super) why: String,
    /// What it answered, where it was asked.
    pub(super) status: Option<u16>,
    /// How long to wait before the next request, where it says so (429).
    pub(super) retry_after_ms: Option<i64>,
}

impl Refusal {
    fn new(why: impl Into<String>) -> Refusal {
        Refusal {
            why: why.into(),
            status: None,
            retry_after_ms: None,
        }
    }

    /// Reads of an answer what it says, and for how long it asks for patience.
    async fn of(mut response: reqwest::Response) -> Refusal {
        let status = response.status();
        let mut refusal = Refusal {
            status: Some(status.as_u16()),
            ..Refusal::new(format!("answered {status}"))
        };
        if status.is_redirection() {
            refusal.why = format!("answered {status}: redirects are not followed, register the address it points to");
        }
        if status != reqwest::StatusCode::TOO_MANY_REQUESTS {
            return refusal;
        }
        let header = response.headers().get(reqwest::header::RETRY_AFTER);
        let in_header = header.and_then(|value| value.to_str().ok()).and_then(milliseconds);
        refusal.retry_after_ms = match in_header {
            Some(after_ms) => Some(after_ms),
            None => {
                let mut body = Vec::new();
                while let Ok(Some(part)) = response.chunk().await {
                    body.extend_from_slice(&part);
                    if body.len() > MAX_ANSWER_BYTES {
                        break;
                    }
                }
                retry_after_in(&body)
            }
        };
        refusal
    }
}

/// Seconds, whole or not, as milliseconds, rounded up.
fn milliseconds(seconds: &str) -> Option<i64> {
    let seconds: f64 = seconds.trim().parse().ok()?;
    (0.0..1e9).contains(&seconds).then(|| (seconds * 1000.0).ceil() as i64)
}

/// `{"retry_after": 64.57, …}`
fn retry_after_in(body: &[u8]) -> Option<i64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    milliseconds(&answer.get("retry_after")?.to_string())
}

impl WebhookClient {
    /// # Errors
    /// When TLS cannot be set up, for want of root certificates.
    pub fn new(allow_private: bool) -> Result<WebhookClient, EndpointError> {
        WebhookClient::waiting(allow_private, ANSWER_TIMEOUT)
    }

    /// One that waits for an answer so long.
    pub(super) fn waiting(allow_private: bool, answer_timeout: Duration) -> Result<WebhookClient, EndpointError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("EZSCALE/", env!("CARGO_PKG_VERSION"), " (webhooks)"))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(answer_timeout)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .no_proxy();
        if !allow_private {
            builder = builder.https_only(true).dns_resolver(Arc::new(PublicOnly));
        }
        Ok(WebhookClient {
            http: builder.build().map_err(EndpointError::Client)?,
            allow_private,
        })
    }

    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Checks what somebody typed as an endpoint's address: its form, and that its name resolves to public addresses only.
    ///
    /// # Errors
    /// When the URL cannot be an endpoint, with what to write instead.
    pub async fn vet(&self, kind: EndpointKind, text: &str) -> Result<VettedUrl, EndpointError> {
        let url = checked(kind, text, self.allow_private)?;
        if let Some(Host::Domain(domain)) = url.host()
            && !self.allow_private
        {
            let port = url.port_or_known_default().unwrap_or(443);
            public_addresses(domain, port).await?;
        }
        Ok(VettedUrl { kind, url })
    }

    /// Sends one request. The body of the answer is not read, unless it asks for patience: only its status counts.
    pub(super) async fn post(
        &self,
        kind: EndpointKind,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> EndpointResponse {
        // An address may have been let in while private ones were allowed.
        let url = match checked(kind, url, self.allow_private) {
            Ok(url) => url,
            Err(EndpointError::Url { why, .. }) => return EndpointResponse::Refused(Refusal::new(why)),
            Err(error) => return EndpointResponse::Refused(Refusal::new(error.to_string())),
        };
        let mut request = self.http.post(url).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => EndpointResponse::Accepted,
            Ok(response) => EndpointResponse::Refused(Refusal::of(response).await),
            Err(error) => EndpointResponse::Unreachable(said(&error)),
        }
    }
}

/// What went wrong, without the URL, which may hold a secret.
fn said(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
    }
    // The last cause says what happened; those above it only where.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if let Some(EndpointError::NotPublic { .. }) = cause.downcast_ref() {
        return NOT_PUBLIC.to_owned();
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else {
        "the request failed"
    };
    format!("{what}: {cause}")
}

/// The URL of an endpoint of a kind, as far as its form goes.
fn checked(kind: EndpointKind, text: &str, allow_private: bool) -> Result<Url, EndpointError> {
    match (kind, checked_form(text, allow_private)) {
        (EndpointKind::Webhook, checked) => checked,
        (EndpointKind::Discord, Ok(url)) => discord_address::checked(url, allow_private),
        // Without what may let anybody post.
        (EndpointKind::Discord, Err(EndpointError::Url { why, .. })) => Err(EndpointError::Url {
            url: "the address".to_owned(),
            why,
        }),
        (EndpointKind::Discord, Err(error)) => Err(error),
    }
}

fn checked_form(text: &str, allow_private: bool) -> Result<Url, EndpointError> {
    let text = text.trim();
    let refuse = |why| EndpointError::Url {
        url: text.chars().take(MAX_URL_CHARS).collect(),
        why,
    };
    if text.len() > MAX_URL_CHARS {
        return Err(refuse("it is longer than 500 characters"));
    }
    let url = Url::parse(text).map_err(|_| refuse("use an address such as https://example.net/events"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => {
            return Err(refuse(
                "use https://, so that nobody on the way reads or changes what is sent",
            ));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("leave out name and password: requests are signed instead"));
    }
    if url.fragment().is_some() {
        return Err(refuse("leave out what follows #: it is never sent"));
    }
    if url.port() == Some(0) {
        return Err(refuse("port 0 is none"));
    }
    let private = "it is not on the public Internet; an operator can allow that with webhooks.allow_private";
    match url.host() {
        None => Err(refuse("it names no host")),
        Some(Host::Ipv4(address)) if !allow_private && !is_public(IpAddr::V4(address)) => Err(refuse(private)),
        Some(Host::Ipv6(address)) if !allow_private && !is_public(IpAddr::V6(address)) => Err(refuse(private)),
        Some(_) => Ok(url),
    }
}

/// What a name resolves to, if all of it is public: a name with one foot in our network is up to no good.
async fn public_addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, EndpointError> {
    let resolving = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port)));
    let resolved = resolving
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    // For operators alone: whose endpoint it is reads that it is not public, and neither where it is nor whether there is one.
    let not_public = || EndpointError::NotPublic { host: host.to_owned() };
    let addresses: Vec<SocketAddr> = match resolved {
        Ok(resolved) => resolved.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the name of an endpoint cannot be resolved");
            return Err(not_public());
        }
    };
    if let Some(address) = addresses.iter().find(|address| !is_public(address.ip())) {
        tracing::warn!(host, address = %address.ip(), "endpoint is not on the public Internet");
        return Err(not_public());
    }
    if addresses.is_empty() {
        tracing::warn!(host, "the name of an endpoint has no address");
        return Err(not_public());
    }
    Ok(addresses)
}

/// Resolves for the HTTP client, at each connection.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 is replaced by the URL's.
            let addresses = public_addresses(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public Internet: the special-purpose registries of RFC 6890 and its successors, taken
/// strictly. Of IPv6 only 2000::/3 is given out, and what embeds an IPv4 address in there is left out with it.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b); // RFC 6598, carriers' NAT
    let is_protocol = a == 192 && b == 0 && c == 0; // RFC 6890
    let is_relay = a == 192 && b == 88 && c == 99; // RFC 7526
    let is_benchmark = a == 198 && (b == 18 || b == 19); // RFC 2544
    !(a == 0
        || a >= 240
        || is_shared
        || is_protocol
        || is_relay
        || is_benchmark
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_given_out = (a & 0xe000) == 0x2000;
    let is_protocol = a == 0x2001 && b < 0x0200; // RFC 2928, Teredo among them
    let is_documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000); // RFC 3849, RFC 9637
    let is_6to4 = a == 0x2002; // RFC 3056
    is_given_out && !is_protocol && !is_documentation && !is_6to4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_only_the_public_internet_is_public() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.215.14",
            "172.32.0.1",
            "100.128.0.1",
            "::ffff:1.1.1.1",
            "2606:4700::1111",
            "2001:4860::8888",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn s1_what_lies_inside_is_no_endpoint() {
        let client = WebhookClient::new(false).unwrap();
        for (url, words) in [
            ("example.net", "use an address such as"),
            ("http://1.1.1.1/x", "use https://"),
            ("ftp://1.1.1.1/x", "use https://"),
            ("https://me:secret@1.1.1.1/x", "leave out name and password"),
            ("https://1.1.1.1/x#y", "what follows #"),
            ("https://127.0.0.1/x", "public Internet"),
            ("https://2130706433/x", "public Internet"),
            ("https://0x7f.1/x", "public Internet"),
            ("https://[::1]/x", "public Internet"),
            ("https://[::ffff:a9fe:a9fe]/latest/meta-data", "public Internet"),
            ("https://localhost/x", NOT_PUBLIC),
            // No name ends so (RFC 6761): whether there is one inside is not told apart from what is not.
            ("https://printer.invalid/x", NOT_PUBLIC),
            ("https://1.1.1.1:0/x", "port 0"),
        ] {
            let error = client.vet(EndpointKind::Webhook, url).await.unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error:?} does not say {words:?}");
            assert!(
                words != NOT_PUBLIC || !error.contains("127."),
                "{url}: {error:?} says where it is"
            );
        }
        let long = format!("https://1.1.1.1/{}", "x".repeat(MAX_URL_CHARS));
        assert!(client.vet(EndpointKind::Webhook, &long).await.is_err());
        assert_eq!(
            client
                .vet(EndpointKind::Webhook, " https://1.1.1.1/x ")
                .await
                .unwrap()
                .as_str(),
            "https://1.1.1.1/x"
        );
    }

    /// The name is asked again when the connection is made, whatever it said when it was registered.
    #[tokio::test]
    async fn s1_a_name_that_comes_to_point_inside_is_not_spoken_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/x", listener.local_addr().unwrap().port());
        let client = WebhookClient::new(false).unwrap();
        let headers = ["A", "B", "C"].map(|name| (name, "x".to_owned()));
        let refusal = tokio::select! {
            answer = client.post(EndpointKind::Webhook, &url, &headers, "{}".to_owned()) => answer,
            _ = listener.accept() => panic!("a connection was made"),
        };
        let EndpointResponse::Unreachable(why) = refusal else {
            panic!("{refusal:?}")
        };
        // A customer reads this: not a word of what the name led to.
        assert_eq!(why, NOT_PUBLIC);
    }

    #[test]
    fn patience_is_asked_for_in_seconds() {
        assert_eq!(milliseconds("1"), Some(1_000));
        assert_eq!(milliseconds(" 0.0005 "), Some(1));
        assert_eq!(milliseconds("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(milliseconds("-1"), None);
        assert_eq!(milliseconds("NaN"), None);
        assert_eq!(
            retry_after_in(br#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#),
            Some(64_570)
        );
        assert_eq!(retry_after_in(b"busy"), None);
    }
}
