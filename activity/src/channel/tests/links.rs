//! Links that only the reader of a mail may have are in that mail and nowhere else.

use std::fmt::Write as _;

use schemas::ids::UserId;
use tracing::field::{Field, Visit};
use tracing::span;

use super::*;
use crate::password_reset::ResetRequester;
use crate::{password_reset, verification};

/// A mail server that takes everything, and what it got.
pub(super) async fn mail_server() -> (Mailer, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config: MailConfig = serde_json::from_value(json!({
        "smtp_url": format!("smtp://{}", listener.local_addr().unwrap()), "from": "billing@ada.example",
    }))
    .unwrap();
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(mail_session(stream, Arc::clone(&shared)));
        }
    });
    (
        Mailer::new(&config, "https://portal.ada.example").unwrap().unwrap(),
        taken,
    )
}

async fn mail_session(mut stream: TcpStream, taken: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let (reading, mut writing) = stream.split();
    let mut lines = BufReader::new(reading).lines();
    writing.write_all(b"220 test\r\n").await?;
    let mut text: Option<String> = None;
    while let Some(line) = lines.next_line().await? {
        let answer: &[u8] = match &mut text {
            Some(mail) if line == "." => {
                taken.lock().unwrap().push(std::mem::take(mail));
                text = None;
                b"250 taken\r\n"
            }
            Some(mail) => {
                mail.push_str(&line);
                mail.push('\n');
                continue;
            }
            None if line.starts_with("DATA") => {
                text = Some(String::new());
                b"354 go on\r\n"
            }
            None => b"250 ok\r\n",
        };
        writing.write_all(answer).await?;
    }
    Ok(())
}

/// Keeps what is logged, at debug level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = writeln!(self.0.lock().unwrap(), "{field}={value:?}");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::DEBUG
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The token of the link in a mail, quoted-printable as it is.
fn token_in(mail: &str, path: &str) -> Option<String> {
    let text = mail.replace("=\n", "");
    let (_, rest) = text.split_once(path)?;
    let token: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    (token.len() == 64).then_some(token)
}

#[tokio::test]
async fn a_link_is_in_its_mail_and_neither_shown_nor_stored_nor_logged() {
    let world = world().await;
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    tracing::debug!("this is kept");
    let mut transaction = world.database.begin_write().await.unwrap();
    password_reset::request(
        &mut transaction,
        UserId(1),
        ResetRequester::Anybody,
        "192.0.2.7",
        NOW_MS,
    )
    .await
    .unwrap();
    verification::request(&mut transaction, ADA, NOW_MS).await.unwrap();
    transaction.commit().await.unwrap();
    let (mailer, mails) = mail_server().await;
    let transports = Transports {
        mailer: Some(&mailer),
        ..without_mail(&world.client)
    };
    let (_, delivered) = run_once(&world.database, transports, NOW_MS).await.unwrap();
    assert_eq!(delivered.sent, 2);
    let mails = mails.lock().unwrap().clone();
    let tokens: Vec<String> = ["/reset-password/", "/verify-email/"]
        .iter()
        .map(|path| mails.iter().find_map(|mail| token_in(mail, path)).unwrap())
        .collect();
    let mut shown = log.0.lock().unwrap().clone();
    assert!(shown.contains("this is kept"));
    // As `event show`, `mail show` and their `--mail` print it.
    for event in list(world.database.pool(), EventFilter::default(), 9).await.unwrap() {
        let rendered = preview(&world.database, &event, "https://portal.ada.example")
            .await
            .unwrap();
        let deliveries = world.deliveries(event.id).await;
        let _ = writeln!(shown, "{event:?} {deliveries:?} {rendered:?} {}", event.payload);
        assert!(token_in(&rendered.text, "/reset-password/").is_none());
    }
    let mut stored = Vec::new();
    for file in std::fs::read_dir(world._folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            stored.extend(std::fs::read(path).unwrap());
        }
    }
    for token in &tokens {
        assert!(!shown.contains(token), "it is shown or logged");
        let is_stored = stored.windows(token.len()).any(|bytes| bytes == token.as_bytes());
        assert!(!is_stored, "it is stored");
    }
}
