//! What the decoder remembers of one address between datagrams, and its checkpoint.
//!
//! The state is the checkpoint: plain, ordered data, so that two decoders that saw the same datagrams have equal checkpoints
//! and a restored one goes on to the same flows (F1). Compiled plans are made again from their templates.

use std::collections::BTreeMap;

use schemas::address::Address;
use serde::{Deserialize, Serialize};

use super::sessions::{PORT_NOT_KNOWN, Sessions, TransportSession};
use super::state::Domain;
use crate::sampling::{AnnouncedRates, DomainKey};

/// Everything a [`super::NetflowDecoder`] remembers, to be kept at the start of a journal segment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NetflowCheckpoint {
    pub(super) exporters: BTreeMap<Address, Exporter>,
}

/// A [`NetflowCheckpoint`] as it is written.
#[derive(Debug, Serialize)]
pub(super) struct WrittenCheckpoint<'a> {
    pub(super) exporters: &'a BTreeMap<Address, Exporter>,
}

/// What one address is remembered by: its transport sessions, and the sums that its limits hold for.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "StoredExporter")]
pub(super) struct Exporter {
    pub(super) sessions: Sessions,
    /// What waits for templates in all domains.
    pub(super) pending_bytes: usize,
    /// Of the templates of all domains.
    pub(super) template_fields: usize,
}

/// As a checkpoint holds it: of version 0.1 there was one session for all ports of an address.
#[derive(Deserialize)]
struct StoredExporter {
    #[serde(default)]
    sessions: Sessions,
    #[serde(default)]
    pending_bytes: usize,
    #[serde(default)]
    template_fields: usize,
    #[serde(default)]
    domains: BTreeMap<DomainKey, Domain>,
    #[serde(default)]
    rates: AnnouncedRates,
    #[serde(default)]
    boot_ms: Option<i64>,
}

impl From<StoredExporter> for Exporter {
    fn from(stored: StoredExporter) -> Exporter {
        let mut sessions = stored.sessions;
        if !stored.domains.is_empty() {
            let session = TransportSession {
                domains: stored.domains,
                rates: stored.rates,
                boot_ms: stored.boot_ms,
                ..TransportSession::default()
            };
            sessions.put(PORT_NOT_KNOWN, session);
        }
        Exporter {
            sessions,
            pending_bytes: stored.pending_bytes,
            template_fields: stored.template_fields,
        }
    }
}

impl Exporter {
    /// How many flows are remembered in all its domains.
    pub(super) fn remembered_flows(&self) -> usize {
        self.sessions
            .iter()
            .map(|(_, session)| session.remembered_flows())
            .sum()
    }

    /// How many rates all its sessions have announced.
    pub(super) fn samplers(&self) -> usize {
        self.sessions.iter().map(|(_, session)| session.rates.samplers()).sum()
    }

    /// When its last datagram was understood; `None` where none ever was.
    pub(super) fn last_heard_ms(&self) -> Option<i64> {
        self.sessions
            .iter()
            .filter_map(|(_, session)| session.last_heard_ms())
            .max()
    }

    /// What the options data of the session at that port said.
    pub(super) fn active_timeout_s(&self, port: u16) -> Option<u32> {
        let mut sessions = self.sessions.iter();
        sessions.find(|(other, _)| *other == port)?.1.active_timeout_s
    }

    /// Whether the session at that port was seen to observe packets on their way in and out.
    pub(super) fn observes_twice(&self, port: u16) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.any(|(other, session)| other == port && session.twice.was_seen())
    }

    /// How many rates that the session at that port announced have ended.
    pub(super) fn rates_ended(&self, port: u16) -> u64 {
        let mut sessions = self.sessions.iter();
        let session = sessions.find(|(other, _)| *other == port);
        session.map_or(0, |(_, session)| session.rates.ended())
    }

    /// Every domain of every session, with the session's port.
    pub(super) fn domains(&self) -> impl Iterator<Item = (u16, DomainKey, &Domain)> {
        self.sessions
            .iter()
            .flat_map(|(port, session)| session.domains.iter().map(move |(key, domain)| (port, *key, domain)))
    }

    /// Makes the sums right whatever they were.
    pub(super) fn count(&mut self) {
        self.template_fields = self.domains().map(|(_, _, domain)| domain.template_fields).sum();
        self.pending_bytes = self.domains().map(|(_, _, domain)| domain.pending.bytes()).sum();
    }
}
