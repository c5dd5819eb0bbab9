//! A mail server that keeps what it gets: real SMTP on a real socket, refusing when it is told to.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A mail as it was handed over.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Headers and body, lines ending in `\n`.
    pub(crate) text: String,
}

impl Mail {
    /// The value of a header that fits in one line.
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no header {name} in\n{}", self.text))
    }
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Mail>,
    /// Answers to the next `RCPT TO`s; after them, every recipient is known.
    refusals: VecDeque<String>,
}

/// Listens until the test's process ends.
#[derive(Clone, Debug)]
pub(crate) struct MailServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl MailServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let server = Self {
            address: listener.local_addr().expect("a listener has an address"),
            state: Arc::default(),
        };
        let state = server.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || converse(&stream, &state));
            }
        });
        server
    }

    /// For the configuration.
    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Answers the next recipient with this, such as `451 try later`.
    pub(crate) fn refuse_next(&self, answer: &str) {
        self.state
            .lock()
            .expect("no holder panics")
            .refusals
            .push_back(answer.to_owned());
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.state.lock().expect("no holder panics").mails.clone()
    }
}

/// One connection; ends when the client goes.
fn converse(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let say = |text: &str| (&*stream).write_all(format!("{text}\r\n").as_bytes()).ok();
    let (mut from, mut to) = (String::new(), String::new());
    say("220 test ESMTP")?;
    loop {
        let line = lines.next()?.ok()?;
        let verb = line.split([' ', ':']).next()?.to_uppercase();
        let address = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        match verb.as_str() {
            "EHLO" => say("250-test\r\n250-8BITMIME\r\n250 SMTPUTF8")?,
            "MAIL" => {
                from = address();
                say("250 fine")?;
            }
            "RCPT" => {
                to = address();
                let refusal = state.lock().expect("no holder panics").refusals.pop_front();
                say(refusal.as_deref().unwrap_or("250 fine"))?;
            }
            "DATA" => {
                say("354 go on")?;
                let mut text = String::new();
                loop {
                    let line = lines.next()?.ok()?;
                    if line == "." {
                        break;
                    }
                    text.push_str(line.strip_prefix('.').unwrap_or(&line));
                    text.push('\n');
                }
                let mail = Mail {
                    from: from.clone(),
                    to: to.clone(),
                    text,
                };
                state.lock().expect("no holder panics").mails.push(mail);
                say("250 taken")?;
            }
            "RSET" | "NOOP" => say("250 fine")?,
            "QUIT" => {
                say("221 bye")?;
                return None;
            }
            _ => say("500 what?")?,
        }
    }
}
