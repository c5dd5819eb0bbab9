//! A real browser: headless Chromium through its driver.

use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};

use super::command::Background;

/// Until the driver listens.
const START_LIMIT: Duration = Duration::from_secs(30);

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
