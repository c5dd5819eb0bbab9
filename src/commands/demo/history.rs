//! The demo's past: flows of every five minutes, encoded as their exporters would, pushed through the real decoders into
//! the tables; then usage, then the invoices of the month that ended.

use std::ops::Range;

use analytics::Analytics;
use analytics::MeteredUsage;
use anyhow::Context as _;
use billing::invoice;
use collector::decode::Datagram;
use collector::import::Importer;
use collector::simulate::encode::{EncodeError, SimExporter};
use collector::simulate::fleet::Fleet;
use jiff::Timestamp;
use schemas::address::Address;
use schemas::db::Database;
use schemas::window::{WINDOW_MS, windows};

use super::live::counter_interval_ms;
use crate::config::Config;
use crate::options::load_assignments;
use crate::output::Progress;

/// Windows that may wait between the encoding and the decoding thread.
const QUEUE_WINDOWS: usize = 8;
/// The UDP port that the demo's exporters speak from.
const EXPORTER_PORT: u16 = 50_000;

/// Datagrams of one window.
struct Reported {
    at_ms: i64,
    datagrams: Vec<(Address, Vec<Vec<u8>>)>,
}

/// Encodes and stores the flows of `range`; gives the exporters back, which go on with their sequence numbers.
pub(crate) async fn fill(
    config: &Config,
    database: &Database,
    fleet: &Fleet,
    exporters: Vec<SimExporter>,
    range: Range<i64>,
    density: u32,
) -> anyhow::Result<Vec<SimExporter>> {
    let assignments = load_assignments(database).await?;
    // Each span is an import of its own: under one name, the second would be taken for the first, repeated.
    let name = format!("demo history from {}", range.start);
    let importer = Importer::open(&config.open_storage()?, config.metering(), assignments, &name)?;
    let total = ((range.end - range.start) / WINDOW_MS) as u64;
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Reported>(QUEUE_WINDOWS);
    let fleet = fleet.clone();
    let encoding = std::thread::spawn(move || -> Result<Vec<SimExporter>, EncodeError> {
        let mut exporters = exporters;
        for window in windows(range.start, range.end) {
            for exporter in &mut exporters {
                exporter.set_counter_interval_ms(counter_interval_ms(range.end - window.end_ms()));
            }
            let reported = report(&fleet, &mut exporters, window.start_ms()..window.end_ms(), density)?;
            if sender.send(reported).is_err() {
                // The decoding side failed and says so itself.
                break;
            }
        }
        Ok(exporters)
    });
    let summary = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let progress = Progress::counted("history: 5-minute windows", total);
        let mut importer = importer;
        for (done, reported) in receiver.into_iter().enumerate() {
            for (source, payloads) in &reported.datagrams {
                for payload in payloads {
                    importer.push(&Datagram {
                        received_at_ms: reported.at_ms,
                        source: *source,
                        source_port: EXPORTER_PORT,
                        payload,
                    })?;
                }
            }
            progress.set(done as u64 + 1);
        }
        let summary = importer.finish()?;
        progress.finish();
        Ok(summary)
    });
    let summary = summary.await?.context("store the history")?;
    let exporters = encoding
        .join()
        .map_err(|_| anyhow::anyhow!("the encoding thread failed"))??;
    tell!("{} flows decoded and stored", summary.flows);

    let analytics = Analytics::open(&config.open_storage()?)?;
    let progress = Progress::counted("usage: days", 0);
    analytics
        .refresh_rollups(|now| progress.set_of(now.days_done as u64, now.days_total as u64))
        .await?;
    progress.finish();
    Ok(exporters)
}

/// What the exporters send at the end of a span of time.
fn report(
    fleet: &Fleet,
    exporters: &mut [SimExporter],
    span: Range<i64>,
    density: u32,
) -> Result<Reported, EncodeError> {
    let mut datagrams = Vec::with_capacity(exporters.len());
    let mut flows = Vec::new();
    for (index, exporter) in exporters.iter_mut().enumerate() {
        flows.clear();
        fleet.flows_of(index, span.start, span.end, density, &mut flows);
        let mut payloads = Vec::new();
        exporter.encode(span.end - 1, &flows, &mut payloads)?;
        datagrams.push((exporter.config().address, payloads));
    }
    // sFlow carries no times: received inside the window, its samples count there.
    Ok(Reported {
        at_ms: span.end - 1,
        datagrams,
    })
}

/// Closes the periods that ended inside the history.
pub(crate) async fn close_invoices(config: &Config, database: &Database, now: Timestamp) -> anyhow::Result<()> {
    let analytics = Analytics::open(&config.open_storage()?)?;
    let usage = MeteredUsage::new(analytics, &config.metering());
    let closing = invoice::close_all(database, &usage, now.as_millisecond()).await?;
    if let Some((customer, error)) = closing.failed.into_iter().next() {
        return Err(anyhow::Error::from(error).context(format!("close the period of {customer}")));
    }
    tell!("{} invoices closed", closing.invoices.len());
    Ok(())
}
