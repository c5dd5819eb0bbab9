//! What runs in the background beside the collector.

use std::future::Future;
use std::time::Duration;

use tracing::{debug, warn};

use crate::Analytics;

/// How often usage follows the flows.
pub const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Refreshes `usage_5m` every `every` until `stop` is done, and once more then, so that what a drained collector wrote
/// last is counted. A refresh that fails is reported and tried again next time; nothing is lost by it.
pub async fn keep_usage_fresh(analytics: &Analytics, every: Duration, stop: impl Future<Output = ()> + Send) {
    let mut stop = std::pin::pin!(stop);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => refresh(analytics).await,
        }
    }
    refresh(analytics).await;
}

async fn refresh(analytics: &Analytics) {
    match analytics.refresh_usage(|_| ()).await {
        Ok(done) if done.windows_recomputed > 0 => {
            debug!(
                flows_sequence = done.flows_sequence,
                windows = done.windows_recomputed,
                "usage refreshed"
            );
        }
        Ok(_) => {}
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "usage not refreshed");
        }
    }
}
