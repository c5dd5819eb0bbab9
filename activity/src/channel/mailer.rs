//! Mail: what is said of an event, as text and HTML, over SMTP.
//!
//! The Message-ID names the delivery, so that a mail which is sent again after a crash is recognised as the same: mailboxes
//! that look for duplicates show one.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use futures::future::BoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lettre::message::header::{ContentType, Date, Header as _, HeaderName, HeaderValue};
use lettre::message::{Attachment as Attached, Mailbox, MultiPart};
use lettre::transport::smtp::response::Category;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use schemas::ids::DeliveryId;
use schemas::secret::Secret;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::message::{Message, Target, Tone, compose};
use crate::event::Event;

/// Until a server has taken a mail.
pub const SMTP_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of a server's answer that are kept.
const MAX_ANSWER_CHARS: usize = 300;

/// How mail is sent: the section `[mail]` of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailConfig {
    /// `smtps://name:password@host` (TLS from the start) or `smtp://name:password@host:587` (STARTTLS, required unless the
    /// host is this machine or `?tls=none` is added). Nothing is mailed where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_url: Option<Secret>,
    /// `Example Hosting <billing@example.net>`
    pub from: String,
    /// Where answers go; to `from` where empty.
    pub reply_to: String,
}

impl Default for MailConfig {
    fn default() -> MailConfig {
        MailConfig {
            smtp_url: None,
            from: "billing@localhost".to_owned(),
            reply_to: String::new(),
        }
    }
}

/// Why no mail can be sent or made.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("mail.smtp_url is not understood: use smtps://name:password@host or smtp://name:password@host:587")]
    Url,
    #[error("mail.smtp_url: tls={0:?} is not known: use required or none")]
    Tls(String),
    #[error("mail.{field} = {text:?} is no address: use one like Example Hosting <billing@example.net>")]
    Address { field: &'static str, text: String },
    #[error("set up SMTP")]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("fill in the mail's template")]
    Template(#[from] askama::Error),
    #[error("put the mail together")]
    Build(#[from] lettre::error::Error),
    #[error("{0:?} is not a mailbox")]
    Recipient(String),
    #[error("{0:?} is no MIME type")]
    Mime(String),
}

schemas::error_codes! {
    MailError: "mail";
    of []
    source []
    Refused: Address = "address", Recipient = "recipient";
    Fault: Url = "url", Tls = "tls", Smtp = "smtp", Template = "template", Build = "build", Mime = "mime";
}

impl MailConfig {
    /// # Errors
    /// When an address or the URL cannot be used, with what to write instead.
    pub fn validate(&self) -> Result<(), MailError> {
        self.mailboxes()?;
        match &self.smtp_url {
            Some(url) => smtp_url(url.reveal()).map(|_| ()),
            None => Ok(()),
        }
    }

    fn mailboxes(&self) -> Result<(Mailbox, Mailbox), MailError> {
        let mailbox = |field, text: &str| {
            text.parse::<Mailbox>().map_err(|_| MailError::Address {
                field,
                text: text.to_owned(),
            })
        };
        let from = mailbox("from", &self.from)?;
        let reply_to = match self.reply_to.as_str() {
            "" => from.clone(),
            text => mailbox("reply_to", text)?,
        };
        Ok((from, reply_to))
    }
}

/// A file that goes with a mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    pub name: String,
    /// `application/pdf`
    pub mime: String,
    pub bytes: Vec<u8>,
}

/// Makes the file that goes with an event's mail, such as an invoice's PDF; an error is tried again later.
pub trait Attachments: Send + Sync + Debug {
    fn of<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<Option<Attachment>, Box<dyn std::error::Error + Send + Sync>>>;
}

/// What sends mail. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    reply_to: Mailbox,
    portal_url: String,
    attachments: Option<Arc<dyn Attachments>>,
}

/// How a server took a mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SmtpOutcome {
    Accepted,
    /// Not now, and why.
    Deferred(String),
    /// The server is not to be had, and why.
    Unreachable(String),
    /// Not this mail to this mailbox, ever, and why.
    Rejected(String),
}

/// Whom a mail is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipient<'a> {
    pub(super) address: &'a str,
    /// Whose name is over the mail: the company that invoices this customer.
    pub(super) brand: &'a str,
    /// Why they get it.
    pub(super) why: &'a str,
    pub(super) zone: &'a TimeZone,
}

/// The bar and the button, on light and on dark.
struct Colours {
    light: &'static str,
    dark: &'static str,
}

#[derive(Template)]
#[template(path = "mail/message.html")]
struct Html<'a> {
    message: &'a Message,
    action: Option<(&'a str, String)>,
    preview: &'a str,
    brand: &'a str,
    why: &'a str,
    colours: Colours,
}

#[derive(Template)]
#[template(path = "mail/message.txt", escape = "none")]
struct Text<'a> {
    message: &'a Message,
    action: Option<(&'a str, String)>,
    brand: &'a str,
    why: &'a str,
}

/// A mail's two forms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// What a mail of an event looks like. `portal_url` has no slash at its end.
///
/// # Errors
/// When a template cannot be filled in.
pub fn render(event: &Event, zone: &TimeZone, brand: &str, why: &str, portal_url: &str) -> Result<Rendered, MailError> {
    let message = compose(event, zone);
    let action = message.action.as_ref().map(|(label, target)| match target {
        Target::Page(path) => (*label, format!("{portal_url}{path}")),
        Target::Address { address, .. } => (*label, address.clone()),
    });
    let (light, dark) = match message.tone {
        Tone::Plain => ("#1560bd", "#6aa9f4"),
        Tone::Good => ("#1a7f4b", "#5fcf98"),
        Tone::Alert => ("#b42318", "#ff8a80"),
    };
    let text = Text {
        message: &message,
        action: action.clone(),
        brand,
        why,
    };
    let html = Html {
        message: &message,
        action,
        preview: message.summary(),
        brand,
        why,
        colours: Colours { light, dark },
    };
    Ok(Rendered {
        text: text.render()?,
        html: html.render()?,
        subject: message.subject,
    })
}

impl Mailer {
    /// `None` where the configuration names no server.
    ///
    /// # Errors
    /// When an address or the URL cannot be used, with what to write instead.
    pub fn new(config: &MailConfig, portal_url: &str) -> Result<Option<Mailer>, MailError> {
        let (from, reply_to) = config.mailboxes()?;
        let Some(url) = &config.smtp_url else {
            return Ok(None);
        };
        let url = smtp_url(url.reveal())?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url)?.timeout(Some(SMTP_TIMEOUT));
        Ok(Some(Mailer {
            transport: transport.build(),
            from,
            reply_to,
            portal_url: portal_url.trim_end_matches('/').to_owned(),
            attachments: None,
        }))
    }

    /// Sends files with mails from now on.
    #[must_use]
    pub fn with_attachments(self, attachments: Arc<dyn Attachments>) -> Mailer {
        Mailer {
            attachments: Some(attachments),
            ..self
        }
    }

    pub(super) async fn send(
        &self,
        event: &Event,
        delivery: DeliveryId,
        to: Recipient<'_>,
        now_ms: i64,
    ) -> SmtpOutcome {
        let attachment = match &self.attachments {
            None => None,
            Some(attachments) => match attachments.of(event).await {
                Ok(attachment) => attachment,
                Err(error) => return SmtpOutcome::Deferred(format!("make the attachment: {error}")),
            },
        };
        let mail = match self.mail(event, delivery, to, attachment, now_ms) {
            Ok(mail) => mail,
            Err(error) => return SmtpOutcome::Rejected(causes(&error)),
        };
        match self.transport.send(mail).await {
            Ok(_) => SmtpOutcome::Accepted,
            Err(error) => judged(&error),
        }
    }

    fn mail(
        &self,
        event: &Event,
        delivery: DeliveryId,
        to: Recipient<'_>,
        attachment: Option<Attachment>,
        now_ms: i64,
    ) -> Result<lettre::Message, MailError> {
        let recipient: Mailbox = to
            .address
            .parse()
            .map_err(|_| MailError::Recipient(to.address.to_owned()))?;
        let rendered = render(event, to.zone, to.brand, to.why, &self.portal_url)?;
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .reply_to(self.reply_to.clone())
            .to(recipient)
            .subject(rendered.subject)
            .message_id(Some(self.message_id(event, delivery)))
            // RFC 3834: nobody's holiday notice need answer.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        if let Some(date) = date_of(now_ms) {
            builder = builder.header(date);
        }
        let both = MultiPart::alternative_plain_html(rendered.text, rendered.html);
        let Some(attachment) = attachment else {
            return Ok(builder.multipart(both)?);
        };
        let mime = ContentType::parse(&attachment.mime).map_err(|_| MailError::Mime(attachment.mime.clone()))?;
        let file = Attached::new(attachment.name).body(attachment.bytes, mime);
        Ok(builder.multipart(MultiPart::mixed().multipart(both).singlepart(file))?)
    }

    /// The same for each try of a delivery, and for no other mail: two installations may mail from one domain, but hardly
    /// have an event of one number made in the same millisecond.
    fn message_id(&self, event: &Event, delivery: DeliveryId) -> String {
        let at_ms = event.created_at_ms;
        format!("<{delivery}.{}.{at_ms}@{}>", event.id, self.from.email.domain())
    }
}

fn date_of(at_ms: i64) -> Option<Date> {
    let at = Timestamp::from_millisecond(at_ms).ok()?;
    Date::parse(&at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

/// The URL as the SMTP library takes it. It would send passwords in clear text where no `tls` is asked for; we ask.
fn smtp_url(text: &str) -> Result<String, MailError> {
    let mut url = Url::parse(text).map_err(|_| MailError::Url)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(MailError::Url)?;
    // The host of an unknown scheme is no `Host::Ipv4`, whatever it looks like.
    let is_this_machine = match Host::parse(host) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Ok(Host::Domain(domain)) => domain == "localhost",
        Err(_) => return Err(MailError::Url),
    };
    let asked = url.query_pairs().find(|(name, _)| name == "tls");
    let tls = asked.map(|(_, value)| value.into_owned());
    let is_plain = match (url.scheme(), tls.as_deref()) {
        ("smtps", None) | ("smtp", Some("required")) => return Ok(url.into()),
        ("smtp", Some("none")) => true,
        ("smtp", None) => is_this_machine,
        ("smtp" | "smtps", Some(other)) => return Err(MailError::Tls(other.to_owned())),
        _ => return Err(MailError::Url),
    };
    url.set_query(if is_plain { None } else { Some("tls=required") });
    Ok(url.into())
}

/// Only what a server says of this mail or mailbox is final. That it refuses our name and password (53x) is ours to put
/// right, and no reason to give up.
fn judged(error: &lettre::transport::smtp::Error) -> SmtpOutcome {
    let said: String = causes(error).chars().take(MAX_ANSWER_CHARS).collect();
    match error.status() {
        Some(code) if error.is_permanent() && code.category != Category::Unspecified3 => SmtpOutcome::Rejected(said),
        Some(_) => SmtpOutcome::Deferred(said),
        None => SmtpOutcome::Unreachable(said),
    }
}

/// An error and its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use schemas::ids::{CustomerId, EventId};
    use serde_json::json;

    use super::*;
    use crate::event::EventType;

    fn event() -> Event {
        Event {
            id: EventId(3),
            event_type: EventType::InvoiceFinalised,
            customer: Some(CustomerId(1)),
            subject: "inv_7".to_owned(),
            payload: json!({"invoice": "inv_7", "number": "<b>7</b>", "amount_minor": 1999, "currency": "USD"}),
            created_at_ms: 1_700_000_000_000,
            dispatched_at_ms: None,
        }
    }

    fn mailer() -> Mailer {
        let config: MailConfig = serde_json::from_value(json!({
            "smtp_url": "smtp://127.0.0.1:1", "from": "Ada Hosting <billing@ada.example>", "reply_to": "help@ada.example",
        }))
        .unwrap();
        Mailer::new(&config, "https://portal.ada.example/").unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_mail_names_its_delivery_and_has_both_forms() {
        let to = Recipient {
            address: "bob@example.net",
            brand: "Ada Hosting",
            why: "Because.",
            zone: &TimeZone::UTC,
        };
        let file = Attachment {
            name: "7.pdf".to_owned(),
            mime: "application/pdf".to_owned(),
            bytes: b"%PDF-1.7".to_vec(),
        };
        let now_ms = 1_700_000_123_000;
        let mail = mailer().mail(&event(), DeliveryId(9), to, Some(file), now_ms).unwrap();
        let mail = String::from_utf8(mail.formatted()).unwrap();
        for line in [
            "From: \"Ada Hosting\" <billing@ada.example>\r\n",
            "Reply-To: help@ada.example\r\n",
            "To: bob@example.net\r\n",
            "Subject: Invoice <b>7</b>: USD 19.99\r\n",
            "Message-ID: <dlv_9.evt_3.1700000000000@ada.example>\r\n",
            "Date: Tue, 14 Nov 2023 22:15:23 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
            "Content-Type: application/pdf\r\n",
        ] {
            assert!(mail.contains(line), "no {line:?} in\n{mail}");
        }
    }

    #[test]
    fn html_is_escaped_and_text_is_not() {
        let rendered = render(
            &event(),
            &TimeZone::UTC,
            "Ada & Co",
            "Because.",
            "https://portal.ada.example",
        )
        .unwrap();
        assert!(rendered.html.contains("&#60;b&#62;7") && !rendered.html.contains("<b>7"));
        assert!(rendered.text.contains("<b>7</b>") && rendered.text.contains("Ada & Co"));
        for form in [&rendered.html, &rendered.text] {
            assert!(form.contains("https://portal.ada.example/invoices/inv_7"));
        }
    }

    #[test]
    fn passwords_are_not_sent_in_clear_text_unless_asked() {
        for (url, expected) in [
            (
                "smtp://me:pw@mx.example.net:587",
                "smtp://me:pw@mx.example.net:587?tls=required",
            ),
            ("smtp://mx.example.net?tls=none", "smtp://mx.example.net"),
            ("smtps://me:pw@mx.example.net", "smtps://me:pw@mx.example.net"),
            ("smtp://127.0.0.1:1025", "smtp://127.0.0.1:1025"),
            ("smtp://localhost", "smtp://localhost"),
            ("smtp://192.0.2.1:25", "smtp://192.0.2.1:25?tls=required"),
        ] {
            assert_eq!(smtp_url(url).unwrap(), expected);
        }
        for bad in [
            "mx.example.net",
            "https://mx.example.net",
            "smtp://",
            "smtp://x?tls=maybe",
        ] {
            assert!(smtp_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_is_checked_and_never_shows_its_password() {
        let parse = |value| serde_json::from_value::<MailConfig>(value).unwrap();
        let good = parse(json!({"smtp_url": "smtp://me:hunter2@mx.example.net"}));
        good.validate().unwrap();
        let shown = format!("{good:?} {}", serde_json::to_string(&good).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        for bad in [
            json!({"from": "nobody"}),
            json!({"reply_to": "a@b@c"}),
            json!({"smtp_url": "x"}),
        ] {
            assert!(parse(bad.clone()).validate().is_err(), "{bad}");
        }
        assert!(
            Mailer::new(&MailConfig::default(), "http://localhost")
                .unwrap()
                .is_none()
        );
    }
}
