//! A real browser: headless Chromium through its driver.

use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};

use super::command::Background;

/// Until the driver listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Until somebody is signed in: as long as the password's check takes.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(20);

/// Chromium with a profile of its own, which goes with it.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Background,
    _dir: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Browser {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null());
        let mut driver = Background::start("chromedriver", &mut command, dir.path());
        let mut port = None;
        driver.wait_until("the driver to say its port", START_LIMIT, |driver| {
            let log = driver.log();
            let said = log
                .lines()
                .find_map(|line| line.split("started successfully on port ").nth(1));
            port = said.and_then(|rest| rest.trim_end_matches('.').trim().parse::<u16>().ok());
            port.is_some()
        });
        let port = port.expect("the condition held");
        let profile = dir.path().join("profile");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ];
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let mut capabilities = serde_json::Map::new();
        capabilities.insert(
            "goog:chromeOptions".to_owned(),
            serde_json::json!({ "args": arguments }),
        );
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromium starts; is it installed? tests/run installs it");
        Browser {
            client,
            _driver: driver,
            _dir: dir,
        }
    }

    pub(crate) async fn close(self) {
        self.client.close().await.expect("the browser closes");
    }
}

/// Signs somebody in, and whoever was before out.
pub(crate) async fn sign_in(client: &Client, base: &str, email: &str, password: &str) {
    client.delete_all_cookies().await.expect("cookies can be deleted");
    client
        .goto(&format!("{base}/signin"))
        .await
        .expect("the sign-in page opens");
    let form = client.form(Locator::Css("form")).await.expect("a form to sign in");
    form.set_by_name("email", email).await.expect("a field for the email");
    form.set_by_name("password", password)
        .await
        .expect("a field for the password");
    form.submit().await.expect("the form can be sent");
    let deadline = tokio::time::Instant::now() + SIGN_IN_LIMIT;
    loop {
        let at = client.current_url().await.expect("an address");
        if !at.path().contains("signin") {
            return;
        }
        let late = tokio::time::Instant::now() >= deadline;
        assert!(
            !late,
            "{email} is signed in, and not at {at}:\n{}",
            client.source().await.unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
