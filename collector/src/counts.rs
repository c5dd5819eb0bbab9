//! Every datagram and every record that arrives is counted, by exporter and cause (F2).
//!
//! For datagrams: [`Counter::Datagrams`] = [`Counter::DatagramsDecoded`] + every `datagrams_rejected.*`. What the kernel or a
//! full queue dropped never became a datagram and is counted apart.

use std::collections::BTreeMap;

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
    /// Dropped before they reached the journal.
    DroppedKernel = "dropped.kernel",
    DroppedQueue = "dropped.queue",
    /// Flow records (or sFlow flow samples) that became rows.
    FlowRecords = "flow_records",
    OptionsRecords = "options_records",
    Templates = "templates",
    TemplateWithdrawals = "template_withdrawals",
    TemplatesRejected = "templates_rejected",
    /// Announcements of a sampler beyond the limit of its domain.
    SamplersRejected = "samplers_rejected",
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
    /// Data records whose template carries no byte or packet count: not flows.
    RecordsWithoutCounters = "records_ignored.no_counters",
    CounterSamples = "counter_samples",
    /// sFlow counter records of other kinds than generic interface counters.
    CounterRecordsIgnored = "counter_records_ignored",
    SamplesIgnored = "samples_ignored",
    SamplesRejected = "samples_rejected",
    /// sFlow flow samples without a sampled IP packet.
    SamplesNotIp = "samples_not_ip",
    SequenceLost = "sequence_lost",
    SequenceReset = "sequence_reset",
    SequenceReordered = "sequence_reordered",
    /// Flows kept with sampling rate 0.
    FlowsWithoutRate = "flows_without_sampling_rate",
    TimesNegativeDuration = "times_normalised.negative_duration",
    TimesFuture = "times_normalised.future",
    TimesTooOld = "times_normalised.too_old",
    TimesMissing = "times_normalised.missing",
    /// A damaged block of the journal, skipped.
    JournalBlocksDamaged = "journal_blocks_damaged",
    /// Bytes at the end of a segment that a crash cut off: never acknowledged, ignored.
    JournalBytesTorn = "journal_bytes_torn",
}

/// Counts gathered while decoding.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    values: BTreeMap<(CountKey, Counter), u64>,
}

impl Counts {
    pub fn add(&mut self, key: CountKey, counter: Counter, amount: u64) {
        if amount > 0 {
            *self.values.entry((key, counter)).or_default() += amount;
        }
    }

    pub fn get(&self, key: CountKey, counter: Counter) -> u64 {
        self.values.get(&(key, counter)).copied().unwrap_or(0)
    }

    /// Sum of one counter over all keys.
    pub fn total(&self, counter: Counter) -> u64 {
        self.values
            .iter()
            .filter(|((_, c), _)| *c == counter)
            .map(|(_, value)| value)
            .sum()
    }

    /// In order of key and counter.
    pub fn iter(&self) -> impl Iterator<Item = (CountKey, Counter, u64)> + '_ {
        self.values
            .iter()
            .map(|((key, counter), value)| (*key, *counter, *value))
    }

    pub fn merge(&mut self, other: &Counts) {
        for (key, counter, value) in other.iter() {
            self.add(key, counter, value);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
