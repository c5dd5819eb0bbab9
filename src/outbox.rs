//! What tells people and programs of events, as the configuration says.

use std::sync::Arc;

use anyhow::Context as _;
use billing::event::{self, Delivered, Dispatched, Mailer, Run, WebhookClient};
use schemas::db::Database;

use crate::attachments::Documents;
use crate::config::Config;

/// A mail server and an HTTP client. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    mailer: Option<Mailer>,
    client: WebhookClient,
}

impl Outbox {
    pub(crate) fn new(config: &Config, database: &Database) -> anyhow::Result<Outbox> {
        let mailer = Mailer::new(&config.mail, &config.portal_url()).context("section [mail] of the configuration")?;
        let documents = Documents {
            database: database.clone(),
        };
        Ok(Outbox {
            mailer: mailer.map(|mailer| mailer.with_attachments(Arc::new(documents))),
            client: WebhookClient::new(config.webhooks.allow_private)?,
        })
    }

    pub(crate) fn client(&self) -> &WebhookClient {
        &self.client
    }

    /// Makes out the deliveries of what is new.
    pub(crate) async fn dispatch(&self, database: &Database, now_ms: i64) -> anyhow::Result<Dispatched> {
        Ok(event::dispatch(database, now_ms).await?)
    }

    /// Sends the mail that is due.
    pub(crate) async fn deliver_mail(&self, database: &Database, run: Run<'_>) -> anyhow::Result<Delivered> {
        Ok(event::deliver_mail(database, self.mailer.as_ref(), run).await?)
    }

    /// Sends the requests to endpoints that are due.
    pub(crate) async fn deliver_webhooks(&self, database: &Database, run: Run<'_>) -> anyhow::Result<Delivered> {
        Ok(event::deliver_webhooks(database, &self.client, run).await?)
    }

    /// Dispatches what is new and sends what is due.
    pub(crate) async fn run_once(&self, database: &Database, now_ms: i64) -> anyhow::Result<(Dispatched, Delivered)> {
        Ok(event::run_once(database, self.mailer.as_ref(), &self.client, now_ms).await?)
    }
}
