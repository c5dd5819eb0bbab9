//! A person's browser, as far as the server sees it: a connection that is kept, a cookie, one page after the other.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A page that takes longer is an error.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// A page as it was answered.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Page {
    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.lines().filter_map(move |line| {
            let (of, value) = line.split_once(':')?;
            of.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(of, _)| of.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    /// The first address in it that begins so and goes on with an id.
    pub(crate) fn link(&self, begin: &str) -> Option<String> {
        let mut rest = self.body.as_str();
        while let Some((_, after)) = rest.split_once(begin) {
            let id: String = after
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if id.contains('_') {
                return Some(format!("{begin}{id}"));
            }
            rest = after;
        }
        None
    }

    fn hidden(&self, name: &str) -> Option<&str> {
        let marker = format!("name=\"{name}\" value=\"");
        self.body.split_once(&marker)?.1.split('"').next()
    }
}

#[derive(Debug)]
pub(crate) struct Browser {
    to: SocketAddr,
    from: Ipv4Addr,
    stream: Option<TcpStream>,
    cookies: Vec<(String, String)>,
    /// Pages come as browsers have them sent; before, they are to be read here.
    pub(crate) accepts: &'static str,
}

impl Browser {
    /// One on a machine of its own.
    pub(crate) fn new(to: SocketAddr, from: Ipv4Addr) -> Browser {
        Browser {
            to,
            from,
            stream: None,
            cookies: Vec::new(),
            accepts: "identity",
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Page> {
        self.request("GET", path, "")
    }

    /// Signs in; asked again while the server checks others' passwords.
    pub(crate) fn sign_in(&mut self, email: &str, password: &str) -> anyhow::Result<()> {
        for _ in 0..50 {
            let form = self.get("/signin")?;
            let token = form.hidden("csrf_token").context("the sign-in form has a token")?;
            let encoded = email.replace('+', "%2B").replace('@', "%40");
            let body = format!("csrf_token={token}&email={encoded}&password={password}");
            let answer = self.request("POST", "/signin", &body)?;
            match answer.status {
                303 => return Ok(()),
                429 | 503 => pause(),
                status => bail!("{email} is not signed in: {status}"),
            }
        }
        bail!("{email} is not signed in: the server stays busy")
    }

    fn request(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Page> {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: ezscale-bench\r\naccept-encoding: {}\r\ncookie: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            self.to,
            self.accepts,
            cookies.join("; "),
            body.len()
        );
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(text.as_bytes()).context("send a request")?;
        let page = read(&mut stream).with_context(|| format!("{method} {path}"))?;
        for cookie in page.headers("set-cookie") {
            let (name, value) = cookie
                .split(';')
                .next()
                .and_then(|pair| pair.split_once('='))
                .unwrap_or_default();
            self.cookies.retain(|(of, _)| of != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        if !page.header("connection").eq_ignore_ascii_case("close") {
            self.stream = Some(stream);
        }
        Ok(page)
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((self.from, 0)).into())?;
        socket.connect_timeout(&self.to.into(), PAGE_LIMIT).context("connect")?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PAGE_LIMIT))?;
        stream.set_write_timeout(Some(PAGE_LIMIT))?;
        Ok(stream)
    }
}

fn read(stream: &mut TcpStream) -> anyhow::Result<Page> {
    let mut bytes = Vec::with_capacity(64 << 10);
    let mut chunk = [0; 64 << 10];
    let mut more = |bytes: &mut Vec<u8>| -> anyhow::Result<()> {
        match stream.read(&mut chunk)? {
            0 => bail!("closed before the whole answer was there"),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
        Ok(())
    };
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(&mut bytes)?;
    };
    let mut body = bytes.split_off(head_end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut page = Page {
        status: status.context("a status")?,
        head,
        body: String::new(),
    };
    if let Ok(length) = page.header("content-length").parse::<usize>() {
        while body.len() < length {
            more(&mut body)?;
        }
    } else if page.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            more(&mut body)?;
        }
    }
    page.body = String::from_utf8_lossy(&body).into_owned();
    Ok(page)
}

/// Before a busy server is asked again.
#[allow(
    clippy::disallowed_methods,
    reason = "a server that says it is busy is asked again later, a set number of times"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(500));
}
