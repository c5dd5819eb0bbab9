//! Against a server that speaks VIES's REST interface.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers each request with the next of its answers, and keeps what it was asked.
pub(crate) struct Stub {
    pub(crate) base_url: String,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) async fn start(answers: &[(u16, &str)]) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/rest-api", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let answers: Vec<(u16, String)> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                kept.lock().unwrap().push(request);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Stub { base_url, asked }
    }
}

/// The first line and the body.
async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        if body.len() >= length.unwrap_or(0) || read == 0 {
            return format!("{} {body}", head.lines().next().unwrap());
        }
    }
}

pub(crate) const VALID: &str = r#"{"countryCode":"FR","vatNumber":"40303265045","requestDate":"2026-01-05T10:00:00.000Z","valid":true,
    "requestIdentifier":"WAPIAAAAZLlHNzZU","name":"SA SODIMAS","address":"RUE AMPERE\n26600 PONT DE L ISERE",
    "traderName":"---","traderNameMatch":"NOT_PROCESSED"}"#;
pub(crate) const INVALID: &str = r#"{"countryCode":"FR","vatNumber":"40303265045","requestDate":"2026-01-05T10:00:00.000Z","valid":false,
    "requestIdentifier":"WAPIAAAAZLlHNzZV","name":"---","address":"---"}"#;
pub(crate) const AWAY: &str = r#"{"actionSucceed":false,"errorWrappers":[{"error":"MS_UNAVAILABLE"}]}"#;

fn question(requester: &str) -> VatQuery {
    VatQuery {
        number: "FR40303265045".to_owned(),
        requester: requester.to_owned(),
    }
}

#[tokio::test]
async fn a_number_is_asked_for_with_the_sellers_and_the_answer_is_read() {
    let stub = Stub::start(&[(200, VALID), (200, INVALID)]).await;
    let vies = Vies::new(&format!("{}/", stub.base_url), TIMEOUT).unwrap();
    let answer = vies.ask(&question("DE136695976")).await.unwrap();
    assert_eq!(
        answer,
        VatResponse {
            valid: true,
            consultation: "WAPIAAAAZLlHNzZU".to_owned(),
            name: "SA SODIMAS".to_owned(),
            address: "RUE AMPERE\n26600 PONT DE L ISERE".to_owned(),
        }
    );
    let answer = vies.ask(&question("")).await.unwrap();
    assert!(!answer.valid);
    assert_eq!(
        (answer.name.as_str(), answer.consultation.as_str()),
        ("", "WAPIAAAAZLlHNzZV")
    );
    let asked = stub.asked.lock().unwrap().clone();
    let body = |at: usize| -> Value {
        let (line, body) = asked[at].split_once(" {").unwrap();
        assert_eq!(line, "POST /rest-api/check-vat-number HTTP/1.1");
        serde_json::from_str(&format!("{{{body}")).unwrap()
    };
    assert_eq!(
        body(0),
        json!({"countryCode": "FR", "vatNumber": "40303265045", "requesterMemberStateCode": "DE", "requesterNumber": "136695976"})
    );
    assert_eq!(body(1), json!({"countryCode": "FR", "vatNumber": "40303265045"}));
}

#[tokio::test]
async fn no_answer_is_neither_valid_nor_invalid() {
    let big = format!(r#"{{"valid":true,"name":"{}"}}"#, "x".repeat(MAX_ANSWER_BYTES));
    let user_error = r#"{"valid":false,"userError":"MS_MAX_CONCURRENT_REQ"}"#;
    for (status, body, said) in [
        (200, AWAY, "the register answered MS_UNAVAILABLE"),
        (500, AWAY, "the register answered MS_UNAVAILABLE"),
        (200, "{}", "the register answered status 200"),
        (503, "<html>", "the register answered status 503"),
        (500, VALID, "the register answered status 500"),
        (200, user_error, "the register answered MS_MAX_CONCURRENT_REQ"),
        (200, &big, "the register answered more than 65536 bytes"),
    ] {
        let stub = Stub::start(&[(status, body)]).await;
        let vies = Vies::new(&stub.base_url, TIMEOUT).unwrap();
        let error = vies.ask(&question("")).await.unwrap_err();
        assert_eq!(error.to_string(), said);
    }
    // Nobody is there, and nobody answers.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    let vies = Vies::new(&format!("http://{address}"), Duration::from_millis(200)).unwrap();
    let error = vies.ask(&question("")).await.unwrap_err();
    assert_eq!(error.to_string(), "the register could not be reached");
    drop(gone);
    let error = vies.ask(&question("")).await.unwrap_err();
    assert_eq!(error.to_string(), "the register could not be reached");
    // What is no number of theirs is invalid.
    let stub = Stub::start(&[(
        400,
        r#"{"actionSucceed":false,"errorWrappers":[{"error":"INVALID_INPUT"}]}"#,
    )])
    .await;
    let vies = Vies::new(&stub.base_url, TIMEOUT).unwrap();
    assert_eq!(vies.ask(&question("")).await.unwrap(), VatResponse::default());
}
