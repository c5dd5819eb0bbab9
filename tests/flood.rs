//! Those who send half requests, slow ones and too many: they cost the collector no datagram, and other people no page.

#![allow(clippy::disallowed_methods, reason = "attackers and visitors come at a pace")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::support::demo::{demo_data, start_demo};
use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::http::{Person, connect_from, read_reply};
use crate::support::net::UdpSocketState;
use crate::support::wait::wait_until;

/// Half-sent requests that are held.
const HELD: usize = 1_100;
/// Flows sent meanwhile, and how many a second.
const FLOWS: u64 = 100_000;
const RATE: u64 = 10_000;
/// Until something that must happen has happened.
const LIMIT: Duration = Duration::from_secs(60);

fn serve() -> Start<'static> {
    Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0")
}

fn address(process: &Ezscale) -> SocketAddr {
    let http = process.http.as_deref().expect("a portal");
    http.trim_start_matches("http://").parse().expect("its address")
}

/// The attackers need descriptors of their own.
fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    assert!(
        hard >= 4_096,
        "the test holds {HELD} connections: raise the hard limit on open files (ulimit -Hn)"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
}

/// Who reads metrics has an address of its own: of the attackers' address, a connection may give way to theirs at any time.
const SCRAPER: &str = "127.8.0.1";

/// Sum of a metric over the series that have these labels.
fn metric(process: &Ezscale, series: &str) -> u64 {
    let mut scraper = Person::new(SCRAPER, process.http.as_deref().expect("a portal"));
    let text = scraper.get("/metrics").expect("metrics").body;
    let values = text
        .lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next())
        .map(|value| value.parse::<u64>().expect("a whole number"));
    values.sum()
}

/// Holds half-sent requests, each from its address; whichever is closed is sent again.
struct Attack {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    fn start(to: SocketAddr, half: &'static str, from: impl Fn(usize) -> String + Send + 'static) -> Attack {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&begun));
        let thread = std::thread::spawn(move || {
            let mut held: Vec<Option<TcpStream>> = (0..HELD).map(|_| None).collect();
            while !stopping.load(Ordering::Relaxed) {
                for (number, place) in held.iter_mut().enumerate() {
                    if place.as_ref().is_some_and(is_open) || stopping.load(Ordering::Relaxed) {
                        continue;
                    }
                    // Refused is what it should be at times.
                    *place = connect_from(&from(number), to).ok().filter(|stream| {
                        let mut stream = stream;
                        let sent = stream.write_all(half.as_bytes());
                        sent.is_ok() && stream.set_nonblocking(true).is_ok()
                    });
                    counting.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Attack {
            stop,
            begun,
            thread: Some(thread),
        }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there is told by its own message.
            let _ = thread.join();
        }
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut stream = stream;
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Other people, who ask for a page all the while; each over a connection of its own.
struct Others {
    answered: usize,
    slowest: Duration,
}

fn ask_while(process: &Ezscale, mut goes_on: impl FnMut() -> bool) -> Others {
    let mut others = Others {
        answered: 0,
        slowest: Duration::ZERO,
    };
    while goes_on() {
        let from = format!("127.7.0.{}", 1 + others.answered % 200);
        let mut person = Person::new(&from, process.http.as_deref().expect("a portal"));
        let reply = person
            .get("/signin")
            .unwrap_or_else(|error| panic!("{from} is not answered after {} others: {error}", others.answered));
        assert_eq!(reply.status, 200, "{}", reply.body);
        others.answered += 1;
        others.slowest = others.slowest.max(reply.took);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(others.answered > 0, "nobody asked");
    others
}

/// Sends flows beside an attack, asks for pages beside both, and requires that nothing is lost and everybody answered.
fn holds_under(name: &str, half: &'static str, from: impl Fn(usize) -> String + Send + 'static) {
    allow_many_files();
    let data = DataDir::new();
    let process = serve().open_files(1024).on(&data);
    assert!(
        metric(&process, "ezscale_http_connections_max") <= 512,
        "descriptors are kept for the collector"
    );
    let attack = Attack::start(address(&process), half, from);
    wait_until("the attack to be under way", LIMIT, || attack.begun() >= HELD);

    let netflow = process.netflow[0];
    let sender = std::thread::spawn(move || {
        let (to, flows, rate) = (netflow.to_string(), FLOWS.to_string(), RATE.to_string());
        let arguments = [
            "simulate",
            "--format",
            "json",
            "--to",
            &to,
            "--protocol",
            "ipfix",
            "--flows",
            &flows,
            "--rate",
            &rate,
        ];
        crate::support::ezscale::run(&arguments)
    });
    let others = ask_while(&process, || !sender.is_finished());
    let sums: Value = serde_json::from_str(&sender.join().expect("the sender")).expect("its sums");
    let sent = sums["datagrams"].as_u64().expect("datagrams sent");
    wait_until("every datagram to be taken", LIMIT, || {
        UdpSocketState::here(netflow.port()).queued_bytes == 0
    });
    let lost_in_kernel = UdpSocketState::here(netflow.port()).dropped;
    let displaced = metric(&process, "ezscale_http_connections_closed_total{cause=\"displaced\"}");
    assert!(displaced > 0, "the limit on connections was reached");

    // It ends: how long until a request of the attackers' own address is answered, and the connections are gone.
    drop(attack);
    let ended = Instant::now();
    let mut first = Person::new("127.0.0.1", process.http.as_deref().expect("a portal"));
    assert_eq!(first.get("/signin").expect("an answer").status, 200);
    let recovered = ended.elapsed();
    wait_until("the connections to be gone", LIMIT, || {
        metric(&process, "ezscale_http_connections ") < 10
    });

    process.terminate();
    let [flows] = data.query_numbers("SELECT count(*) AS n FROM flows", ["n"]);
    let lost_flows = FLOWS - flows;
    eprintln!(
        "{name}: {HELD} held at ulimit -n 1024, {displaced} displaced; {sent} datagrams sent, {lost_in_kernel} lost, \
         {lost_flows} flows lost; {} requests of others answered, slowest {:.0} ms; answered {:.0} ms after its end",
        others.answered,
        others.slowest.as_secs_f64() * 1e3,
        recovered.as_secs_f64() * 1e3,
    );
    assert_eq!((lost_in_kernel, lost_flows), (0, 0));
}

/// A header that does not end.
const HALF_HEADER: &str = "GET /signin HTTP/1.1\r\nhost: a\r\nx-";
/// A body that does not come.
const HALF_BODY: &str = "POST /hooks/stripe HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";

#[test]
fn half_sent_requests_of_one_client_lose_no_datagram() {
    holds_under("one client", HALF_HEADER, |_| "127.0.0.1".to_owned());
}

#[test]
fn half_sent_requests_of_many_clients_lose_no_datagram() {
    holds_under("1,100 clients", HALF_HEADER, |number| {
        format!("127.9.{}.{}", number / 250, 1 + number % 250)
    });
}

#[test]
fn half_sent_bodies_of_many_clients_lose_no_datagram() {
    holds_under("1,100 bodies", HALF_BODY, |number| {
        format!("127.9.{}.{}", number / 250, 1 + number % 250)
    });
}

#[test]
fn slow_headers_and_bodies_are_given_up_on_every_route() {
    let data = DataDir::new();
    let process = serve().on(&data);
    let mut held: Vec<(&str, TcpStream)> = Vec::new();
    for (number, half) in [
        "GET / HTTP/1.1\r\nhost: a\r\n",
        "POST /signin HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nemail=",
        "POST /signin HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nemail=\r\n",
        "POST /hooks/stripe HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        "POST /no/such/page HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        "POST /api/v1/services HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        "GET /usage HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        "GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("127.9.9.{}", number + 1);
        let mut stream = connect_from(&from, address(&process)).expect("a connection");
        stream.write_all(half.as_bytes()).expect("half a request can be sent");
        held.push((half, stream));
    }
    let began = Instant::now();
    let others = ask_while(&process, || began.elapsed() < Duration::from_secs(5));
    for (half, mut stream) in held {
        // An answer, or none: closed it is, long before a person would give up.
        if let Ok(reply) = read_reply(&mut stream, false) {
            let is_refusal = matches!(reply.status, 400 | 408);
            assert!(is_refusal || half.contains("/healthz"), "{half:?}: {}", reply.status);
        }
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_ne!(
                error.kind(),
                ErrorKind::WouldBlock,
                "{half:?} is still open after {:?}",
                began.elapsed()
            );
        }
    }
    eprintln!(
        "slow requests given up after {:.0} s at most, {} requests of others answered",
        began.elapsed().as_secs_f64(),
        others.answered
    );
    process.terminate();
}

/// The first address on a page that begins so.
fn link(page: &str, begin: &str) -> String {
    let (_, rest) = page
        .split_once(begin)
        .unwrap_or_else(|| panic!("an address {begin}… on {page}"));
    format!("{begin}{}", rest.split(['"', '?', '#']).next().unwrap_or_default())
}

#[test]
fn expensive_reads_of_one_session_hold_up_nobody() {
    const TABS: usize = 40;
    const PASSWORD: &str = "amber-lantern-walk";
    let data = demo_data();
    let process = start_demo(&data);
    let http = process.http.clone().expect("a portal");
    let mut greedy = Person::new("127.6.0.1", &http);
    assert_eq!(greedy.sign_in("customer@demo.example", PASSWORD).status, 303);
    let invoice = link(&greedy.get("/invoices").expect("invoices").body, "/invoices/inv_");
    let explanation = link(
        &greedy.get(&invoice).expect("an invoice").body,
        &format!("{invoice}/lines/"),
    );
    assert_eq!(greedy.get(&explanation).expect("an explanation").status, 200);
    let mut other = Person::new("127.7.0.1", &http);
    assert_eq!(other.sign_in("ops@demo.example", PASSWORD).status, 303);

    let stop = Arc::new(AtomicBool::new(false));
    let tabs: Vec<_> = (0..TABS)
        .map(|_| {
            let (mut tab, path, stop) = (greedy.another_tab(), explanation.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut answered, mut refused) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let reply = tab.get(&path).expect("an answer, even if it is no");
                    match reply.status {
                        200 => answered += 1,
                        503 => {
                            assert!(
                                reply.header("retry-after").parse::<u64>().is_ok(),
                                "{:?}",
                                reply.headers
                            );
                            refused += 1;
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        status => panic!("{status}: {}", reply.body),
                    }
                }
                (answered, refused)
            })
        })
        .collect();
    let began = Instant::now();
    let (mut pages, mut slowest) = (0, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(10) {
        for path in ["/account", "/ops", "/exporters"] {
            let reply = other.get(path).expect("an answer to somebody else");
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            pages += 1;
            slowest = slowest.max(reply.took);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sums = tabs.into_iter().map(|tab| tab.join().expect("a tab"));
    let (answered, refused) = sums.fold((0, 0), |sum, tab| (sum.0 + tab.0, sum.1 + tab.1));
    eprintln!(
        "one session, {TABS} tabs: {answered} explanations, {refused} told to come again; {pages} pages of somebody else, \
         slowest {:.0} ms",
        slowest.as_secs_f64() * 1e3
    );
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    process.terminate();
}

#[test]
fn http_2_is_not_spoken() {
    let data = DataDir::new();
    let process = serve().on(&data);
    for _ in 0..2 {
        let mut stream = connect_from("127.9.0.1", address(&process)).expect("a connection");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // Streams that are begun and reset, as many as fit.
        for stream in 0..50_000_u32 {
            let id = (2 * stream + 1).to_be_bytes();
            bytes.extend_from_slice(&[0, 0, 1, 1, 5, id[0], id[1], id[2], id[3], 0x82]);
            bytes.extend_from_slice(&[0, 0, 4, 3, 0, id[0], id[1], id[2], id[3], 0, 0, 0, 8]);
        }
        // Closed before it is all sent.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"\0"), "frames are answered: {answer:?}");
    }
    let began = Instant::now();
    ask_while(&process, || began.elapsed() < Duration::from_secs(1));
    process.terminate();
}

#[test]
fn a_flood_of_bad_messages_does_not_flood_the_log() {
    const MESSAGES: usize = 2_000;
    let mut data = DataDir::new();
    data.set_config(
        "[payments.stripe]\nsecret_key = 'sk_test_x'\nwebhook_secret = 'whsec_test'\nbase_url = 'http://127.0.0.1:9'\n",
    );
    let process = serve().on(&data);
    let mut attacker = Person::new("127.9.0.1", process.http.as_deref().expect("a portal"));
    for _ in 0..MESSAGES {
        let signature = [("stripe-signature", "t=1,v1=00")];
        let reply = attacker
            .send("POST", "/hooks/stripe", &signature, "{}")
            .expect("an answer");
        assert_eq!(reply.status, 400, "{}", reply.body);
    }
    let lines = process.stderr().lines().count();
    assert!(lines < MESSAGES / 10, "{lines} lines for {MESSAGES} bad messages");
    process.terminate();
}
