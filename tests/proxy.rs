//! Clients behind real proxies, with the configurations of docs/proxy.md: who they are is what the proxy saw, not what they
//! say, and the portal is as safe as its public address says.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use schemas::db::Database;
use sqlx::Row as _;

use crate::support::command::{Background, output_of};
use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::http::Person;
use crate::support::wait::wait_until;

const GUIDE: &str = include_str!("../docs/proxy.md");
const NAME: &str = "portal.example.net";
const EMAIL: &str = "ops@example.net";
const PASSWORD: &str = "correct horse battery";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(30);

/// The block of the guide in a language.
fn of_guide(language: &str) -> String {
    let (_, rest) = GUIDE.split_once(&format!("```{language}\n")).unwrap();
    rest.split("```").next().unwrap().to_owned()
}

/// Replaces what must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the guide says {from}");
    text.replace(from, to)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Data with somebody of the staff.
fn with_staff(config: &str) -> DataDir {
    let mut data = DataDir::new();
    data.set_config(config);
    let mut add = data.command(&["user", "add", "--email", EMAIL, "--name", "Olu", "--role", "ops"]);
    let mut added = add.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(added.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(added.wait().unwrap().success());
    data
}

fn serve(data: &DataDir) -> (Ezscale, SocketAddr) {
    let process = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(data);
    let address = process
        .http
        .as_deref()
        .unwrap()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    (process, address)
}

/// Where the sessions were opened from, the newest first.
fn session_addresses(data: &DataDir) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let database = Database::open(&Database::default_url(&data.path())).await.unwrap();
        let rows = sqlx::query("SELECT ip FROM sessions ORDER BY created_at_ms DESC")
            .fetch_all(database.pool())
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    })
}

fn wait_until_it_listens(proxy: &mut Background, port: u16) {
    proxy.wait_until("the proxy to listen", LIMIT, |_| {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// nginx with the guide's configuration, in a folder of its own.
struct Nginx {
    _process: Background,
    folder: PathBuf,
    https: u16,
    http: u16,
}

impl Nginx {
    fn start(folder: &Path, https: u16, portal: SocketAddr) -> Nginx {
        let http = free_port();
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        output_of(
            Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args(["-subj", &format!("/CN={NAME}")])
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate),
        );
        let mut site = of_guide("nginx");
        for (from, to) in [
            ("server 127.0.0.1:8080;", format!("server {portal};")),
            ("    listen [::]:80;\n", String::new()),
            ("    listen [::]:443 ssl http2;\n", String::new()),
            ("listen 80;", format!("listen 127.0.0.1:{http};")),
            ("listen 443 ssl http2;", format!("listen 127.0.0.1:{https} ssl http2;")),
            (
                "/etc/letsencrypt/live/portal.example.net/fullchain.pem",
                certificate.display().to_string(),
            ),
            (
                "/etc/letsencrypt/live/portal.example.net/privkey.pem",
                key.display().to_string(),
            ),
        ] {
            site = replaced(&site, from, &to);
        }
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", folder.display()))
            .collect();
        let main = format!(
            "pid {0}/nginx.pid;\nerror_log stderr warn;\ndaemon off;\nworker_processes 1;\n\
             events {{ worker_connections 1024; }}\nhttp {{\n    access_log off;\n{temporary}{site}\n}}\n",
            folder.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, main).unwrap();
        let mut process = Background::start(
            "nginx",
            Command::new("nginx").arg("-p").arg(folder).arg("-c").arg(&file),
            folder,
        );
        wait_until_it_listens(&mut process, https);
        Nginx {
            _process: process,
            folder: folder.to_owned(),
            https,
            http,
        }
    }

    /// What curl answers, header first, when it comes from an address of this machine. Cookies are kept by address.
    fn curl(&self, from: &str, path: &str, arguments: &[&str]) -> String {
        let jar = self.folder.join(format!("{from}.cookies"));
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--include",
            "--insecure",
            "--interface",
            from,
        ])
        .args(["--max-time", "60"])
        .arg("--resolve")
        .arg(format!("{NAME}:{}:127.0.0.1", self.https))
        .arg("--cookie")
        .arg(&jar)
        .arg("--cookie-jar")
        .arg(&jar)
        .args(arguments)
        .arg(format!("https://{NAME}:{}{path}", self.https));
        output_of(&mut curl)
    }

    /// Signs in from an address, with further headers; answers what was answered.
    fn sign_in(&self, from: &str, email: &str, password: &str, headers: &[&str]) -> String {
        let page = self.curl(from, "/signin", headers);
        let (_, rest) = page.split_once("name=\"csrf_token\" value=\"").unwrap();
        let token = rest.split('"').next().unwrap();
        let origin = format!("Origin: https://{NAME}:{}", self.https);
        let mut arguments = vec!["--header", &origin];
        arguments.extend_from_slice(headers);
        let fields = [
            format!("csrf_token={token}"),
            format!("email={email}"),
            format!("password={password}"),
        ];
        for field in &fields {
            arguments.extend(["--data-urlencode", field]);
        }
        self.curl(from, "/signin", &arguments)
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let found = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(of, _)| of.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value)
}

#[test]
fn clients_behind_nginx_are_who_they_are() {
    let https = free_port();
    let data = with_staff(&format!(
        "[portal]\npublic_url = 'https://{NAME}:{https}'\ntrusted_proxies = ['127.0.0.1/32']\nmetrics_token = '{TOKEN}'\n"
    ));
    let (process, address) = serve(&data);
    let nginx = Nginx::start(data.scratch(), https, address);

    // The public address is https: cookies are for it alone, and browsers stay there.
    let signed_in = nginx.sign_in("127.0.0.5", EMAIL, PASSWORD, &[]);
    assert_eq!(status(&signed_in), 303, "{signed_in}");
    let cookies: Vec<&str> = signed_in
        .lines()
        .filter_map(|line| line.strip_prefix("set-cookie: "))
        .collect();
    assert!(
        cookies
            .iter()
            .any(|cookie| cookie.starts_with("__Host-ezscale_session=")),
        "{cookies:?}"
    );
    assert!(
        cookies
            .iter()
            .all(|cookie| cookie.starts_with("__Host-") && cookie.contains("; Secure")),
        "{cookies:?}"
    );
    assert!(
        header(&signed_in, "strict-transport-security").starts_with("max-age="),
        "{signed_in}"
    );
    assert_eq!(status(&nginx.curl("127.0.0.5", "/account", &[])), 200);
    assert_eq!(session_addresses(&data), ["127.0.0.5"]);

    // What a client says of itself is not believed, in either header.
    let spoof = [
        "--header",
        "X-Forwarded-For: 203.0.113.66",
        "--header",
        "Forwarded: for=203.0.113.66",
    ];
    assert_eq!(status(&nginx.sign_in("127.0.0.6", EMAIL, PASSWORD, &spoof)), 303);
    assert_eq!(session_addresses(&data)[0], "127.0.0.6");
    // Nor is it where there is no proxy.
    let mut direct = Person::new("127.0.0.8", process.http.as_deref().unwrap());
    let headers = [("x-forwarded-for", "203.0.113.66"), ("x-forwarded-proto", "http")];
    assert_eq!(direct.send("GET", "/signin", &headers, "").unwrap().status, 200);

    // One client's limit is not the others'.
    let mut guesses = 0;
    while status(&nginx.sign_in(
        "127.0.0.7",
        &format!("{guesses}@example.net"),
        "wrong horse battery",
        &spoof,
    )) != 429
    {
        guesses += 1;
        assert!(guesses < 200, "guessing is not slowed down");
    }
    assert_eq!(status(&nginx.sign_in("127.0.0.9", EMAIL, PASSWORD, &[])), 303);

    // Plain http leads to https, at the proxy and at the portal that is told of it.
    let plain = output_of(
        Command::new("curl")
            .args(["--silent", "--include", "--header", &format!("Host: {NAME}")])
            .arg(format!("http://127.0.0.1:{}/usage", nginx.http)),
    );
    assert_eq!(
        (status(&plain), header(&plain, "location")),
        (308, "https://portal.example.net/usage")
    );
    let mut proxy = Person::new("127.0.0.1", process.http.as_deref().unwrap());
    let told = [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "http")];
    let reply = proxy.send("GET", "/usage?range=7d", &told, "").unwrap();
    assert_eq!(
        (reply.status, reply.header("location")),
        (308, format!("https://{NAME}:{https}/usage?range=7d").as_str())
    );
    assert_eq!(proxy.send("POST", "/signin", &told, "").unwrap().status, 403);

    // Metrics: not through the proxy, not because the proxy is on this machine, but with the token.
    assert_eq!(status(&nginx.curl("127.0.0.5", "/metrics", &[])), 404);
    assert_eq!(proxy.get("/metrics").unwrap().status, 403);
    let wrong = [("authorization", "Bearer 0123456789abcdef0123456789abcdee")];
    assert_eq!(proxy.send("GET", "/metrics", &wrong, "").unwrap().status, 403);
    let bearer = format!("Bearer {TOKEN}");
    let reply = proxy
        .send("GET", "/metrics", &[("authorization", &bearer)], "")
        .unwrap();
    assert!(
        reply.status == 200 && reply.body.contains("ezscale_http_connections "),
        "{}",
        reply.body
    );
    process.terminate();
}

#[test]
fn many_clients_behind_one_proxy_have_no_common_limit() {
    let https = free_port();
    let data = with_staff(&format!(
        "[portal]\npublic_url = 'https://{NAME}:{https}'\ntrusted_proxies = ['127.0.0.1/32']\nmax_connections_per_client = 16\n"
    ));
    let (process, address) = serve(&data);
    let nginx = Nginx::start(data.scratch(), https, address);
    // From each of twenty addresses twenty requests at a time.
    let clients: Vec<_> = (1..=20)
        .map(|client| {
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--insecure",
                "--parallel",
                "--parallel-max",
                "20",
                "--http1.1",
            ])
            .args([
                "--interface",
                &format!("127.0.4.{client}"),
                "--write-out",
                "%{http_code}\\n",
            ])
            .args(["--resolve", &format!("{NAME}:{https}:127.0.0.1"), "--max-time", "100"])
            .arg(format!("https://{NAME}:{https}/signin?[1-80]"));
            // Each has its output in a file of its own.
            curl.args([
                "--output",
                &nginx.folder.join(format!("page-{client}-#1")).display().to_string(),
            ]);
            std::thread::spawn(move || output_of(&mut curl))
        })
        .collect();
    let mut answered = 0;
    for client in clients {
        for code in client.join().unwrap().lines() {
            assert_eq!(code, "200");
            answered += 1;
        }
    }
    assert_eq!(answered, 20 * 80);
    process.terminate();
}

#[test]
fn clients_behind_caddy_are_who_they_are() {
    let port = free_port();
    let public = format!("http://127.0.0.1:{port}");
    let data = with_staff(&format!(
        "[portal]\npublic_url = '{public}'\ntrusted_proxies = ['127.0.0.1/32']\n"
    ));
    let (process, address) = serve(&data);
    let mut site = of_guide("caddy");
    site = replaced(&site, &format!("\n{NAME} {{"), &format!("\n{public} {{"));
    site = replaced(&site, "127.0.0.1:8080", &address.to_string());
    let file = data.scratch().join("Caddyfile");
    std::fs::write(&file, format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}")).unwrap();
    let mut caddy = Command::new("caddy");
    caddy
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        .env("HOME", data.scratch())
        .env("XDG_DATA_HOME", data.scratch())
        .env("XDG_CONFIG_HOME", data.scratch());
    let mut caddy = Background::start("caddy", &mut caddy, data.scratch());
    wait_until_it_listens(&mut caddy, port);

    let mut person = Person::new("127.0.0.5", &public);
    let spoof = [("x-forwarded-for", "203.0.113.66"), ("forwarded", "for=203.0.113.66")];
    assert_eq!(person.send("GET", "/account", &spoof, "").unwrap().status, 303);
    assert_eq!(person.sign_in(EMAIL, PASSWORD).status, 303);
    assert_eq!(person.get("/account").unwrap().status, 200);
    assert_eq!(session_addresses(&data), ["127.0.0.5"]);
    assert_eq!(person.get("/metrics").unwrap().status, 404);
    wait_until("the session to be used from there", LIMIT, || {
        person
            .send("GET", "/account", &spoof, "")
            .is_ok_and(|reply| reply.status == 200)
    });
    process.terminate();
}
