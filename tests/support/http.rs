//! A client of HTTP/1.1 that comes from an address of its own and sends what it likes, half requests too.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The lines of the header, without the first.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The value of the first hidden field of a name.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .body
            .split_once(&marker)
            .unwrap_or_else(|| panic!("a field {name} in {}", self.body));
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

/// Connects from an address of this machine, such as 127.0.0.7.
pub(crate) fn connect_from(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let from: IpAddr = from.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    socket.connect_timeout(&SockAddr::from(to), ANSWER_LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

/// Reads one answer.
pub(crate) fn read_reply(stream: &mut TcpStream, is_head: bool) -> std::io::Result<Reply> {
    let began = Instant::now();
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    let mut more = |bytes: &mut Vec<u8>| -> std::io::Result<bool> {
        let read = stream.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    };
    let header_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !more(&mut bytes)? {
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "closed before an answer"));
        }
    };
    let head = String::from_utf8_lossy(&bytes[..header_end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or_default();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply {
        status,
        headers,
        body: String::new(),
        took: Duration::ZERO,
    };
    let mut body = bytes.split_off(header_end);
    if !is_head {
        if let Ok(length) = reply.header("content-length").parse::<usize>() {
            while body.len() < length && more(&mut body)? {}
        } else if reply.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            body = loop {
                if let Some(whole) = unchunked(&body) {
                    break whole;
                }
                if !more(&mut body)? {
                    return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "closed within an answer"));
                }
            };
        }
    }
    reply.body = String::from_utf8_lossy(&body).into_owned();
    reply.took = began.elapsed();
    Ok(reply)
}

/// The body of chunks, if the last one is there.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let length = std::str::from_utf8(&bytes[..line_end]).ok()?;
        let length = usize::from_str_radix(length.split(';').next()?.trim(), 16).ok()?;
        let chunk = bytes.get(line_end + 2..line_end + 2 + length)?;
        body.extend_from_slice(chunk);
        bytes = bytes.get(line_end + 2 + length + 2..)?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// Somebody with a connection that is kept, and cookies.
#[derive(Debug)]
pub(crate) struct Person {
    from: String,
    to: SocketAddr,
    stream: Option<TcpStream>,
    cookies: Vec<(String, String)>,
}

impl Person {
    /// Who comes from an address of this machine.
    pub(crate) fn new(from: &str, http: &str) -> Person {
        let to = http
            .trim_start_matches("http://")
            .parse()
            .expect("the portal's address");
        Person {
            from: from.to_owned(),
            to,
            stream: None,
            cookies: Vec::new(),
        }
    }

    /// The same browser, with another connection.
    pub(crate) fn another_tab(&self) -> Person {
        Person {
            from: self.from.clone(),
            to: self.to,
            stream: None,
            cookies: self.cookies.clone(),
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<Reply> {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> std::io::Result<Reply> {
        let pairs: Vec<String> = form
            .iter()
            .map(|(name, value)| {
                format!(
                    "{name}={}",
                    value.replace('%', "%25").replace('+', "%2B").replace('&', "%26")
                )
            })
            .collect();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &headers, &pairs.join("&"))
    }

    /// Sends a request over the connection that is kept, or over a new one where the other side has closed it.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Reply> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.to);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            text.push_str(&format!("cookie: {}\r\n", pairs.join("; ")));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let began = Instant::now();
        let kept = self.stream.take();
        let was_kept = kept.is_some();
        let reply = match self.exchange(kept, method, &text) {
            Err(_) if was_kept => self.exchange(None, method, &text),
            other => other,
        };
        let mut reply = reply?;
        reply.took = began.elapsed();
        for (_, cookie) in reply
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        {
            let (name, value) = cookie
                .split(';')
                .next()
                .and_then(|pair| pair.split_once('='))
                .unwrap_or_default();
            self.cookies.retain(|(of, _)| of != name);
            if !cookie.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(reply)
    }

    fn exchange(&mut self, kept: Option<TcpStream>, method: &str, text: &str) -> std::io::Result<Reply> {
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect_from(&self.from, self.to)?,
        };
        stream.write_all(text.as_bytes())?;
        let reply = read_reply(&mut stream, method == "HEAD")?;
        if !reply.header("connection").eq_ignore_ascii_case("close") {
            self.stream = Some(stream);
        }
        Ok(reply)
    }

    pub(crate) fn sign_in(&mut self, email: &str, password: &str) -> Reply {
        let form = self.get("/signin").expect("the page to sign in on");
        let token = form.hidden("csrf_token");
        let fields = [("csrf_token", token.as_str()), ("email", email), ("password", password)];
        self.post("/signin", &fields).expect("an answer to signing in")
    }
}
