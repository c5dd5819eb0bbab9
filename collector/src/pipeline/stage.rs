//! Datagrams to rows: decode, enrich, gather. One path for live segments, recovery and imports.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::assignment::Assignments;
use schemas::metering::MeteringConfig;
use schemas::window::WindowStart;
use serde::Serialize;
use tables::metering::Enricher;
use tables::table::{ROW_GROUP_ROWS, RowGroup};

use super::encode::{EncodePool, EncodedFlows};
use crate::counts::{CountKey, Counter};
use crate::decode::dispatch::{DecoderCheckpoint, Dispatcher};
use crate::decode::netflow::AnnouncedInterface;
use crate::decode::{Datagram, Decoded};
use crate::sink::{GatheredRows, TimeSpan};
use crate::status::{ExporterStatus, Tracker};

/// Decoder state, attribution and status, fed datagram by datagram.
#[derive(Debug)]
pub(crate) struct Stage {
    metering: MeteringConfig,
    dispatcher: Dispatcher,
    enricher: Arc<Enricher>,
    pool: EncodePool,
    tracker: Tracker,
    decoded: Decoded,
    window: Option<WindowStart>,
    gathered: GatheredRows,
}

impl Stage {
    /// `encode_threads` threads encode what is decoded.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(crate) fn new(
        metering: MeteringConfig,
        assignments: Arc<Assignments>,
        encode_threads: usize,
    ) -> std::io::Result<Stage> {
        let dispatcher = Dispatcher::new(&metering);
        Stage::with(metering, assignments, encode_threads, dispatcher, Tracker::default())
    }

    fn with(
        metering: MeteringConfig,
        assignments: Arc<Assignments>,
        encode_threads: usize,
        dispatcher: Dispatcher,
        tracker: Tracker,
    ) -> std::io::Result<Stage> {
        Ok(Stage {
            dispatcher,
            enricher: Arc::new(Enricher::new(&metering, assignments)),
            pool: EncodePool::new(encode_threads)?,
            tracker: tracker_of(tracker, &metering),
            decoded: Decoded::default(),
            window: None,
            gathered: GatheredRows::default(),
            metering,
        })
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// As [`Stage::new`].
    pub(crate) fn restore(
        metering: MeteringConfig,
        assignments: Arc<Assignments>,
        encode_threads: usize,
        decoders: DecoderCheckpoint,
        tracker: Tracker,
    ) -> std::io::Result<Stage> {
        let dispatcher = Dispatcher::restore(&metering, decoders);
        Stage::with(metering, assignments, encode_threads, dispatcher, tracker)
    }

    /// Takes over a changed configuration; call between segments.
    pub(crate) fn set_metering(&mut self, metering: MeteringConfig, assignments: Arc<Assignments>) {
        self.dispatcher.set_metering(&metering);
        self.tracker.set_listed(&metering);
        self.enricher = Arc::new(Enricher::new(&metering, assignments));
        self.metering = metering;
    }

    /// What [`Stage::restore`] goes on from, to be written.
    pub(crate) fn decoder_checkpoint(&self) -> impl Serialize + '_ {
        self.dispatcher.checkpoint()
    }

    pub(crate) fn exporters(&self) -> Vec<ExporterStatus> {
        self.tracker.exporters(self.dispatcher.domains(), &self.metering)
    }

    /// The same without what the decoders' own checkpoint holds.
    pub(crate) fn exporters_without_domains(&self) -> Vec<ExporterStatus> {
        self.tracker.exporters([], &self.metering)
    }

    pub(crate) fn totals(&self) -> &BTreeMap<String, u64> {
        self.tracker.totals()
    }

    /// Decodes one datagram.
    pub(crate) fn push(&mut self, datagram: &Datagram<'_>) {
        self.enter_window(datagram.received_at_ms);
        let key = self.dispatcher.decode(datagram, &mut self.decoded);
        self.tracker.heard(
            key.exporter,
            key.protocol_version,
            datagram.received_at_ms,
            datagram.payload.len(),
        );
        if self.decoded.flows.len() >= ROW_GROUP_ROWS {
            self.cut_group();
        }
    }

    /// Counts something that is not a datagram, in the window of `at_ms`.
    pub(crate) fn count(&mut self, at_ms: i64, key: CountKey, counter: Counter, amount: u64) {
        self.enter_window(at_ms);
        self.decoded.counts.add(key, counter, amount);
    }

    fn enter_window(&mut self, at_ms: i64) {
        self.gathered.first_received_ms.get_or_insert(at_ms);
        let window = WindowStart::containing(at_ms);
        if self.window != Some(window) {
            self.leave_window();
            self.window = Some(window);
        }
    }

    fn leave_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        let counts = std::mem::take(&mut self.decoded.counts);
        self.tracker.counts(&counts);
        self.gathered.windows.entry(window).or_default().merge(&counts);
    }

    /// Hands the flows gathered so far to the encoding threads.
    fn cut_group(&mut self) {
        if !self.decoded.flows.is_empty() {
            self.gathered.flow_rows += self.decoded.flows.len() as u64;
            self.pool.push(&mut self.decoded.flows, &self.enricher);
        }
        let finished = self.pool.finished();
        self.gather(finished);
    }

    fn gather(&mut self, encoded: Vec<EncodedFlows>) {
        for flows in encoded {
            let TimeSpan { min_ms, max_ms } = flows.times;
            self.gathered.flow_times = Some(TimeSpan::including(self.gathered.flow_times, min_ms, max_ms));
            self.tracker.flows(&flows.summary);
            self.gathered.flows.push(flows.group);
        }
    }

    /// Flows so far, encoded or not.
    pub(crate) fn flow_rows(&self) -> u64 {
        self.gathered.flow_rows + self.decoded.flows.len() as u64
    }

    /// Takes the row groups that are encoded so far, so that they can be written while decoding goes on.
    pub(crate) fn take_row_groups(&mut self) -> Vec<RowGroup> {
        std::mem::take(&mut self.gathered.flows)
    }

    /// Counts as lost what sequence numbers still wait for; call at the end of a capture, after which nothing follows.
    pub(crate) fn give_up_gaps(&mut self) {
        self.dispatcher.give_up_gaps(&mut self.decoded);
    }

    /// What exporters said of their interfaces since the last time.
    pub(crate) fn take_interfaces(&mut self) -> Vec<AnnouncedInterface> {
        std::mem::take(&mut self.decoded.interfaces)
    }

    /// Takes everything gathered; the state of the decoders stays.
    pub(crate) fn take(&mut self) -> GatheredRows {
        self.cut_group();
        let encoded = self.pool.drain();
        self.gather(encoded);
        self.dispatcher.start_segment(&mut self.decoded);
        self.leave_window();
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.counters = std::mem::take(&mut self.decoded.counters);
        gathered
    }
}

fn tracker_of(mut tracker: Tracker, metering: &MeteringConfig) -> Tracker {
    tracker.set_listed(metering);
    tracker
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{source, v5_datagram};

    #[test]
    fn f2_a_new_router_is_shown_as_refused_until_the_list_holds_it() {
        let allowing = |network: &str| {
            let mut metering = MeteringConfig::default();
            metering.decoding.allowed_exporters = vec![network.parse().unwrap()];
            metering
        };
        let mut stage = Stage::new(allowing("192.0.2.0/24"), Arc::default(), 1).unwrap();
        let payload = v5_datagram(0, &[(100, 1)]);
        let datagram = |received_at_ms| Datagram {
            received_at_ms,
            source: source(),
            source_port: 0,
            payload: &payload,
        };
        let counted = |gathered: &GatheredRows, counter| -> u64 {
            gathered.windows.values().map(|counts| counts.total(counter)).sum()
        };
        stage.push(&datagram(1_700_000_000_000));
        let gathered = stage.take();
        assert_eq!(
            (gathered.flow_rows, counted(&gathered, Counter::DatagramsRejectedSource)),
            (0, 1)
        );
        let shown = stage.exporters();
        assert_eq!(
            (shown[0].address, shown[0].is_refused(), shown[0].datagrams),
            (source(), true, 1)
        );
        assert_eq!(shown[0].counters["datagrams_rejected.source"], 1);

        stage.set_metering(allowing("198.51.100.0/24"), Arc::default());
        stage.push(&datagram(1_700_000_010_000));
        let gathered = stage.take();
        assert_eq!(
            (gathered.flow_rows, counted(&gathered, Counter::DatagramsDecoded)),
            (1, 1)
        );
        let shown = stage.exporters();
        assert_eq!(
            (shown[0].is_refused(), shown[0].flows, shown[0].datagrams),
            (false, 1, 2)
        );
    }
}
