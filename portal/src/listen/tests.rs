//! Who gives way, when, and for what; over real sockets what a connection does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::connections::Admitted;
use super::stream::CloseReason;
use super::*;

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Whether a connection is told to close at once.
async fn is_displaced(admitted: &Admitted) -> bool {
    tokio::time::timeout(Duration::from_millis(1), admitted.given_up())
        .await
        .is_ok()
}

fn counts(connections: &Connections, name: &str) -> u64 {
    connections.given_up().find(|(cause, _)| *cause == name).unwrap().1
}

#[tokio::test]
async fn a_client_displaces_its_own_and_all_together_the_longest_waiting() {
    let connections = Connections::new(4, 2, ClientTimeouts::DEFAULT);
    let first = connections.admit(ip("2001:db8::1")).unwrap();
    let second = connections.admit(ip("2001:db8::2")).unwrap();
    // The same /64: one client.
    let third = connections.admit(ip("2001:db8::ffff:1")).unwrap();
    assert!(is_displaced(&first).await && !is_displaced(&second).await);
    let fourth = connections.admit(ip("192.0.2.1")).unwrap();
    let fifth = connections.admit(ip("192.0.2.2")).unwrap();
    assert_eq!(connections.open(), 4);
    // The longest waiting is answered by now; the next one gives way.
    second.pace().request_began();
    second.pace().request_is_whole();
    let sixth = connections.admit(ip("192.0.2.3")).unwrap();
    assert!(is_displaced(&third).await && !is_displaced(&second).await);
    assert_eq!((connections.open(), counts(&connections, "displaced")), (4, 2));
    // Where everybody is being answered there is no place.
    for busy in [&fourth, &fifth, &sixth] {
        busy.pace().request_is_whole();
    }
    assert_eq!(connections.admit(ip("192.0.2.4")).unwrap_err(), NoCapacity);
    second.pace().answered();
    let _seventh = connections.admit(ip("192.0.2.4")).unwrap();
    assert!(is_displaced(&second).await);
    assert_eq!(connections.refused(), 1);
    drop((first, second, third, fourth, fifth, sixth));
    assert_eq!(connections.open(), 1);
}

#[tokio::test]
async fn trusted_proxies_have_no_share_of_their_own() {
    let connections = Connections::new(8, 2, ClientTimeouts::DEFAULT);
    let held: Vec<Admitted> = (0..8).map(|_| connections.admit(None).unwrap()).collect();
    assert_eq!(connections.open(), 8);
    let _next = connections.admit(None).unwrap();
    assert!(is_displaced(&held[0]).await);
}

/// With one limit that is over soon, and others that are not while a test runs.
fn impatient(of: impl FnOnce(&mut ClientTimeouts)) -> ClientTimeouts {
    let long = Duration::from_secs(3_600);
    let mut patience = ClientTimeouts {
        header: long,
        body: long,
        idle: long,
        stall: long,
        look: Duration::from_millis(5),
    };
    of(&mut patience);
    patience
}

#[tokio::test]
async fn each_wait_has_its_limit() {
    const SOON: Duration = Duration::from_millis(20);
    for (name, patience) in [
        ("header_timeout", impatient(|patience| patience.header = SOON)),
        ("body_timeout", impatient(|patience| patience.body = SOON)),
        ("idle_timeout", impatient(|patience| patience.idle = SOON)),
    ] {
        let connections = Connections::new(8, 8, patience);
        let admitted = connections.admit(ip("192.0.2.1")).unwrap();
        let pace = admitted.pace();
        // Through all that it can wait for; it is given up where its time is over, and not before.
        for (is_at, step) in [
            ("header_timeout", None),
            ("body_timeout", Some(Pace::request_began as fn(&Pace))),
            ("", Some(Pace::request_is_whole as fn(&Pace))),
            ("idle_timeout", Some(Pace::answered as fn(&Pace))),
        ] {
            if let Some(step) = step {
                step(&pace);
            }
            if is_at == name {
                admitted.given_up().await;
                break;
            }
            let deadline = pace.deadline().map(|(at, _)| at);
            let long = tokio::time::Instant::now() + Duration::from_secs(60);
            assert!(deadline.is_none_or(|at| at > long), "{name}: {is_at} is not over");
        }
        assert_eq!(counts(&connections, name), 1);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
    let connections = Connections::new(8, 8, impatient(|patience| patience.stall = Duration::from_millis(400)));
    for is_slow in [false, true] {
        let admitted = connections.admit(ip("192.0.2.1")).unwrap();
        let pace = admitted.pace();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = ClientStream::new(ours, Arc::clone(&pace));
        pace.request_began();
        pace.request_is_whole();
        pace.answered();
        let write = tokio::spawn(async move { stream.write_all(&[0; 64 * 20]).await });
        let read = tokio::spawn(async move {
            let mut bytes = [0; 64];
            if !is_slow {
                std::future::pending::<()>().await;
            }
            // Longer than the limit altogether.
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                theirs.read_exact(&mut bytes).await.unwrap();
            }
        });
        tokio::select! {
            () = admitted.given_up() => assert!(!is_slow),
            written = write => {
                written.unwrap().unwrap();
                assert!(is_slow);
            }
        }
        read.abort();
    }
    assert_eq!(counts(&connections, CloseReason::Stalled.name()), 1);
}

/// A server with one page, and what stops it.
async fn server() -> (
    SocketAddr,
    Arc<Connections>,
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<()>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(64, 32, ClientTimeouts::DEFAULT);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let shared = Arc::clone(&connections);
    let running = tokio::spawn(async move {
        let router = Router::new().route("/", get(|| async { "hello" }));
        run(listener, router, shared, &Proxies::default(), async {
            let _ = stopped.await;
        })
        .await;
    });
    (address, connections, stop, running)
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while !answer.ends_with(b"hello") {
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "closed before the answer");
        answer.extend_from_slice(&bytes[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_connection_is_kept_for_further_requests_and_ends_with_the_server() {
    let (address, connections, stop, running) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(connections.open(), 1);
    stop.send(()).unwrap();
    running.await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(connections.open(), 0);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let (address, _connections, _stop, _running) = server().await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n", "HTTP/1.1 200"),
        ("GET / HTTP/1.1\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n", "HTTP/1.1 400"),
        ("GET http://a/ HTTP/1.1\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.0\r\n", "HTTP/1.0 200"),
        ("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n", "HTTP/1.0 400"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(status), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn http_2_is_refused_and_leaves_nothing_behind() {
    let (address, connections, _stop, _running) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A reset, should the server close with something unread, is a refusal too.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while connections.open() > 0 {
        assert!(std::time::Instant::now() < deadline, "the connection is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
