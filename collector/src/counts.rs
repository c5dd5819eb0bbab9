//! Every datagram and every record that arrives is counted, by exporter and cause (F2).
//!
//! For datagrams: [`Counter::Datagrams`] = [`Counter::DatagramsDecoded`] + every `datagrams_rejected.*`. What the kernel or a
//! full queue dropped never became a datagram and is counted apart.

use std::collections::HashMap;

use schemas::address::Address;

/// Who a count belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CountKey {
    /// `::` where no exporter is known.
    pub exporter: Address,
    /// 0 where not known.
    pub observation_domain: u32,
    /// As in the `flows` table; 0 where not known.
    pub protocol_version: u8,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted. The name is what the `counter` column of `collection_5m` and the metrics carry.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Counter::$variant => $name,)*
                }
            }
        }
    };
}

counters! {
    /// Datagrams read from the journal.
    Datagrams = "datagrams",
    DatagramBytes = "datagram_bytes",
    /// Bytes behind the end that a v5, v7 or IPFIX header gives: not read.
    DatagramBytesTrailing = "datagram_bytes.trailing",
    /// Datagrams whose header and framing were understood, whatever became of single sets or records.
    DatagramsDecoded = "datagrams_decoded",
    DatagramsRejectedShort = "datagrams_rejected.short",
    DatagramsRejectedVersion = "datagrams_rejected.version",
    DatagramsRejectedLength = "datagrams_rejected.length",
    /// A limit on exporters or domains was hit.
    DatagramsRejectedLimit = "datagrams_rejected.limit",
    /// The source is not on the list of allowed exporters.
    DatagramsRejectedSource = "datagrams_rejected.source",
    /// It arrived before: the same sequence number and the same bytes as one of the last of its session.
    DatagramsRejectedDuplicate = "datagrams_rejected.duplicate",
    /// Dropped before they reached the journal.
    DroppedKernel = "dropped.kernel",
    DroppedQueue = "dropped.queue",
    /// Flow records (or sFlow flow samples) that became rows.
    FlowRecords = "flow_records",
    OptionsRecords = "options_records",
    Templates = "templates",
    TemplateWithdrawals = "template_withdrawals",
    TemplatesRejected = "templates_rejected",
    /// Templates given up for newer ones, because their exporter had not repeated them for days and their domain was full.
    TemplatesExpired = "templates_expired",
    /// Templates that were void because their exporter started again.
    TemplatesForgotten = "templates_forgotten.restart",
    /// Transport sessions that went on under another UDP port.
    SessionsMoved = "sessions_moved",
    /// Transport sessions given up: silent for long, or their exporter had too many.
    SessionsExpired = "sessions_expired",
    /// Messages in a datagram behind its first one.
    MessagesFurther = "messages.further_in_datagram",
    /// Datagrams whose header tells a time that is more than a minute from that of their arrival.
    DatagramsClockOff = "datagrams_clock_off",
    /// Announcements of a sampler beyond the limit of its domain.
    SamplersRejected = "samplers_rejected",
    /// Announced rates that ended because their options template was withdrawn or got another layout.
    RatesEndedTemplate = "rates_ended.template",
    /// Announced rates that ended because they were not announced again for long while others were.
    RatesEndedSilent = "rates_ended.not_repeated",
    /// Data sets that wait for their template.
    SetsPending = "sets_pending",
    /// Waiting data sets that their template freed.
    SetsReplayed = "sets_replayed",
    /// Waiting data sets given up: the limit or the age was reached.
    SetsDroppedPending = "sets_dropped.pending",
    SetsRejectedLength = "sets_rejected.length",
    /// Sets of a datagram beyond the limit.
    SetsRejectedLimit = "sets_rejected.limit",
    SetsRejectedReserved = "sets_rejected.reserved_id",
    /// Records cut off by the end of their set.
    RecordsRejectedLength = "records_rejected.length",
    /// Records that cannot be: an IP packet has at least 20 bytes.
    RecordsRejectedSize = "records_rejected.packet_size",
    /// Data records whose template carries no byte or packet count: not flows.
    RecordsWithoutCounters = "records_ignored.no_counters",
    CounterSamples = "counter_samples",
    /// sFlow counter records of other kinds than generic interface counters.
    CounterRecordsIgnored = "counter_records_ignored",
    SamplesIgnored = "samples_ignored",
    /// sFlow samples and IPFIX packet sections that contradict themselves.
    SamplesRejected = "samples_rejected",
    /// sFlow flow samples and IPFIX packet sections without a sampled IP packet.
    SamplesNotIp = "samples_not_ip",
    /// Sampled tunnel packets whose inner packet was asked for and is not in the sampled header: kept under the tunnel's ends.
    TunnelsCut = "tunnels_cut",
    SequenceLost = "sequence_lost",
    SequenceReset = "sequence_reset",
    SequenceReordered = "sequence_reordered",
    /// Flows kept with sampling rate 0.
    FlowsWithoutRate = "flows_without_sampling_rate",
    /// Of those, because several announced rates hold for them and differ, or hold for what is not understood.
    FlowsRateAmbiguous = "flows_rate_ambiguous",
    /// Of those, because their exporter did not announce the sampler that they name.
    FlowsSamplerNotAnnounced = "flows_sampler_not_announced",
    /// Flows whose rate no exporter samples at, or that is orders of magnitude from what was announced before.
    FlowsRateImplausible = "flows_rate_implausible",
    /// Flows whose packets the exporter did not forward: kept, never metered.
    FlowsDiscarded = "flows_discarded_by_exporter",
    /// Flows with neither next hop nor output interface that are taken as forwarded: no setting says that they were discarded.
    FlowsWithoutRoute = "flows_without_route",
    /// Flows made of the answering half of a record.
    FlowsOfAnswers = "flows_of_answers",
    /// Flows whose bytes are the difference of running totals, or a total itself.
    FlowsOfTotals = "flows_of_totals",
    /// Totals of sessions that were forgotten: what was billed of them is not known, and nothing more is.
    TotalsForgotten = "flow_totals.forgotten",
    /// Running totals and updates that came after a later report of their session, or after its end: they were counted with it.
    TotalsLate = "flow_totals.late",
    /// Running totals of a session that were less than before, newer, and did not wrap: differences count from them.
    TotalsFell = "flow_totals.fell",
    /// Second observations of the same packets by the same exporter: kept, not metered.
    FlowsSecondObservation = "flows_second_observation",
    /// Flows whose layer-2 octets were taken off.
    FlowsLayer2TakenOff = "flows_layer2_taken_off",
    /// Flows whose span was bounded by the active timeout, by what said so.
    SpansBoundedConfigured = "spans_bounded.configured",
    SpansBoundedOptions = "spans_bounded.options",
    SpansBoundedLearned = "spans_bounded.learned",
    TimesNegativeDuration = "times_normalised.negative_duration",
    TimesFuture = "times_normalised.future",
    TimesTooOld = "times_normalised.too_old",
    TimesMissing = "times_normalised.missing",
    /// A damaged block of the journal, skipped.
    JournalBlocksDamaged = "journal_blocks_damaged",
    /// Bytes at the end of a segment that a crash cut off: never acknowledged, ignored.
    JournalBytesTorn = "journal_bytes_torn",
}

const COUNTERS: usize = Counter::ALL.len();
/// Counters in a line of a core's cache.
const PART_COUNTERS: usize = 8;

/// Counts gathered while decoding.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Where each key's counts lie in `rows`.
    index: HashMap<CountKey, usize>,
    /// In the order of first appearance.
    rows: Vec<(CountKey, [u64; COUNTERS])>,
    /// The key that was counted last: datagrams of one exporter follow each other.
    last: usize,
}

impl Counts {
    fn row(&mut self, key: CountKey) -> &mut [u64; COUNTERS] {
        if self.rows.get(self.last).is_none_or(|(last, _)| *last != key) {
            let next = self.rows.len();
            self.last = *self.index.entry(key).or_insert(next);
            if self.last == next {
                self.rows.push((key, [0; COUNTERS]));
            }
        }
        &mut self.rows[self.last].1
    }

    pub fn add(&mut self, key: CountKey, counter: Counter, amount: u64) {
        if amount > 0 {
            self.row(key)[counter as usize] += amount;
        }
    }

    /// The same for several counters of one key, which is looked for once.
    pub(crate) fn add_several(&mut self, key: CountKey, amounts: &[(Counter, u64)]) {
        if amounts.iter().any(|(_, amount)| *amount > 0) {
            let row = self.row(key);
            for (counter, amount) in amounts {
                row[*counter as usize] += amount;
            }
        }
    }

    /// Adds an amount for each of [`Counter::ALL`].
    pub(crate) fn add_all(&mut self, key: CountKey, amounts: &[u64; COUNTERS]) {
        let parts = self
            .row(key)
            .chunks_mut(PART_COUNTERS)
            .zip(amounts.chunks(PART_COUNTERS));
        for (sums, amounts) in parts {
            // Most datagrams count a few of many things: memory in which nothing changes is not fetched.
            if amounts.iter().fold(0, |union, amount| union | amount) != 0 {
                sums.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
            }
        }
    }

    pub fn get(&self, key: CountKey, counter: Counter) -> u64 {
        self.index
            .get(&key)
            .map_or(0, |row| self.rows[*row].1[counter as usize])
    }

    /// Sum of one counter over all keys.
    pub fn total(&self, counter: Counter) -> u64 {
        self.rows.iter().map(|(_, values)| values[counter as usize]).sum()
    }

    /// What is not zero, in order of key and counter.
    pub fn iter(&self) -> impl Iterator<Item = (CountKey, Counter, u64)> + '_ {
        let mut rows: Vec<&(CountKey, [u64; COUNTERS])> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows.into_iter().flat_map(|(key, values)| {
            let counted = Counter::ALL.iter().zip(values).filter(|(_, value)| **value > 0);
            counted.map(|(counter, value)| (*key, *counter, *value))
        })
    }

    pub fn merge(&mut self, other: &Counts) {
        for (key, values) in &other.rows {
            self.add_all(*key, values);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl PartialEq for Counts {
    fn eq(&self, other: &Counts) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Counts {}
