//! Addresses of Discord channels, which let anybody post: `https://discord.com/api/webhooks/ID/TOKEN`.

use url::{Host, Url};

use super::endpoint::EndpointError;

/// The hosts of Discord's API.
const HOSTS: [&str; 4] = ["discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"];

/// Checks the form of a channel's address; `allow_private` lets another host stand in for Discord's.
pub(super) fn checked(url: Url, allow_private: bool) -> Result<Url, EndpointError> {
    let refuse = |why| EndpointError::Url {
        // Without what lets anybody post.
        url: shown(&url),
        why,
    };
    let is_of_discord = match url.host() {
        Some(Host::Domain(domain)) => HOSTS.contains(&domain),
        _ => false,
    };
    if !is_of_discord && !allow_private {
        return Err(refuse(
            "copy the address of a webhook from the channel's settings in Discord; it begins with https://discord.com/api/webhooks/",
        ));
    }
    let is_id = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match webhook_parts(&url) {
        Some((id, token)) if is_id(id) && is_token(token) => {}
        _ => {
            return Err(refuse(
                "its path is not /api/webhooks/, a number and a token: copy all of the webhook's address from Discord",
            ));
        }
    }
    let is_known = |(name, value): &(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| match name.as_ref() {
        "thread_id" => is_id(value),
        "wait" => true,
        _ => false,
    };
    if !url.query_pairs().all(|pair| is_known(&pair)) {
        return Err(refuse("after the question mark only thread_id is understood"));
    }
    Ok(url)
}

/// The id and token of a webhook's address: `/api/webhooks/ID/TOKEN`, with the API's version where there is one.
fn webhook_parts(url: &Url) -> Option<(&str, &str)> {
    let mut parts = url.path_segments()?;
    if parts.next()? != "api" {
        return None;
    }
    let mut part = parts.next()?;
    let is_version = part.strip_prefix('v').is_some_and(|rest| rest.parse::<u8>().is_ok());
    if is_version {
        part = parts.next()?;
    }
    let (id, token) = (parts.next()?, parts.next()?);
    (part == "webhooks" && parts.next().is_none()).then_some((id, token))
}

/// An address without its token. Of one that is none of a webhook only the host: any part of it may be the token.
pub(super) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let path = webhook_parts(url).map_or("…".to_owned(), |(id, _)| format!("api/webhooks/{id}/…"));
    format!("{}://{host}{port}/{path}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://discord.com/api/webhooks/1234567890/aB-c_9";

    fn parsed(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn only_addresses_of_channels_are_taken() {
        for good in [
            ADDRESS,
            "https://discordapp.com/api/v10/webhooks/1/x",
            "https://ptb.discord.com/api/webhooks/1/x?thread_id=77",
        ] {
            assert_eq!(checked(parsed(good), false).unwrap().as_str(), good);
        }
        for (bad, words) in [
            ("https://discord.com.example.net/api/webhooks/1/x", "copy the address"),
            ("https://example.net/api/webhooks/1/x", "copy the address"),
            ("https://discord.com/channels/1/2", "its path is not"),
            ("https://discord.com/api/webhooks/1", "its path is not"),
            ("https://discord.com/api/webhooks/one/x", "its path is not"),
            ("https://discord.com/api/webhooks/1/x/slack", "its path is not"),
            ("https://discord.com/api/webhooks/1/x?thread_id=me", "only thread_id"),
            (
                "https://discord.com/api/webhooks/1/x?with_components=true",
                "only thread_id",
            ),
        ] {
            let error = checked(parsed(bad), false).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
        assert!(checked(parsed("http://127.0.0.1:9/api/webhooks/1/x"), true).is_ok());
        assert!(checked(parsed("http://127.0.0.1:9/hook"), true).is_err());
    }

    #[test]
    fn s1_an_address_is_shown_without_its_token() {
        let shown = shown(&parsed(ADDRESS));
        assert_eq!(shown, "https://discord.com/api/webhooks/1234567890/…");
        let error = checked(parsed("https://example.net/api/webhooks/1/secret"), false).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
