//! What reacts to events and tells people and programs of them, as the configuration says.

use std::sync::Arc;

use activity::channel::{self, Channel, Delivered, DeliveryRun, Mailer, Transports, WebhookClient};
use activity::event::{self, Consumer, Dispatched, Handled};
use anyhow::Context as _;
use schemas::db::Database;

use crate::attachments::Documents;
use crate::config::Config;

/// Everything that reacts to events: the channels, and what else is added here.
pub(crate) fn consumers() -> Vec<&'static dyn Consumer> {
    channel::consumers()
}

/// The names of [`consumers`].
pub(crate) fn consumer_names() -> Vec<&'static str> {
    consumers().into_iter().map(|consumer| consumer.name()).collect()
}

/// A mail server and an HTTP client. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    mailer: Option<Mailer>,
    client: WebhookClient,
    portal_url: String,
}

impl Outbox {
    pub(crate) fn new(config: &Config, database: &Database) -> anyhow::Result<Outbox> {
        let portal_url = config.portal_url().trim_end_matches('/').to_owned();
        let mailer = Mailer::new(&config.mail, &portal_url).context("section [mail] of the configuration")?;
        let documents = Documents {
            database: database.clone(),
        };
        Ok(Outbox {
            mailer: mailer.map(|mailer| mailer.with_attachments(Arc::new(documents))),
            client: WebhookClient::new(config.webhooks.allow_private)?,
            portal_url,
        })
    }

    pub(crate) fn client(&self) -> &WebhookClient {
        &self.client
    }

    fn transports(&self) -> Transports<'_> {
        Transports {
            mailer: self.mailer.as_ref(),
            client: &self.client,
            portal_url: &self.portal_url,
        }
    }

    /// Has one consumer handle what is new.
    pub(crate) async fn consume(
        &self,
        database: &Database,
        consumer: &dyn Consumer,
        now_ms: i64,
    ) -> anyhow::Result<Handled> {
        let handled = event::consume(database, consumer, now_ms).await;
        // Also after a failure: what the others have handled too is done.
        event::mark_dispatched(database, &consumer_names(), now_ms).await?;
        Ok(handled?)
    }

    /// Sends what is due over a channel.
    pub(crate) async fn deliver(
        &self,
        database: &Database,
        channel: &dyn Channel,
        run: DeliveryRun<'_>,
    ) -> anyhow::Result<Delivered> {
        Ok(channel::deliver(database, channel, self.transports(), run).await?)
    }

    /// Has all consumers handle what is new, and sends what is due.
    pub(crate) async fn run_once(&self, database: &Database, now_ms: i64) -> anyhow::Result<(Dispatched, Delivered)> {
        // What was dispatched is sent, whatever became of the rest.
        let dispatched = event::dispatch(database, &consumers(), now_ms).await;
        let delivered = channel::deliver_all(database, self.transports(), now_ms).await?;
        Ok((dispatched?, delivered))
    }
}
