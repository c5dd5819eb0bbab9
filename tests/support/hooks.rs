//! A customer's program that hears of events: real HTTP on a real socket, failing when it is told to.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::command::output_of;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no header {name} in {:?}", self.headers), |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// How many of the signatures fit the secret, computed by another program than ours.
    pub(crate) fn signatures_by(&self, secret: &str) -> usize {
        let script = "import hashlib, hmac, sys; print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), hashlib.sha256).hexdigest())";
        let (mut at, mut signatures) = ("", Vec::new());
        for part in self.header("ezscale-signature").split(',') {
            match part.split_once('=').expect("name=value") {
                ("t", value) => at = value,
                ("v1", value) => signatures.push(value),
                other => panic!("{other:?} in a signature"),
            }
        }
        let message = format!("{at}.{}", self.body);
        let expected = output_of(Command::new("python3").args(["-c", script, secret, &message]));
        signatures.into_iter().filter(|value| *value == expected.trim()).count()
    }
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    /// The next answers; after them, everything is taken.
    answers: VecDeque<String>,
}

/// Listens until the test's process ends.
#[derive(Clone, Debug)]
pub(crate) struct HookServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl HookServer {
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
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Answers the next request with this, such as `503 Service Unavailable`.
    pub(crate) fn fail_next(&self, answer: &str) {
        self.state
            .lock()
            .expect("no holder panics")
            .answers
            .push_back(answer.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("no holder panics").requests.clone()
    }
}

/// One connection, with any number of requests.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a number"))];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        let answer = {
            let mut state = state.lock().expect("no holder panics");
            state.requests.push(Request { headers, body });
            state.answers.pop_front()
        };
        let answer = answer.as_deref().unwrap_or("200 OK");
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        (&*stream).write_all(text.as_bytes()).ok()?;
    }
}
