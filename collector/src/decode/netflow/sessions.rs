//! Transport sessions: an exporter's address *and* its UDP port (RFC 7011 §2, §8.4).
//!
//! Two routers behind one address (NAT, a relay) number their domains and templates alike. Nothing that one of them says may be used for
//! the other: templates, announced rates, sequence numbers and the start of the clock belong to the session.
//!
//! A port is not a name for ever. NAT gives a session another port, and some senders open a socket for each datagram. A datagram from a new
//! port goes on with a session that is known where its numbers do: the sequence number that is expected next, and, where
//! the header tells the exporter's uptime, the same start. Otherwise the port begins a session of its own, whose data waits for
//! its own templates. NAT may also give a port that fell silent to another router behind the address: where a datagram from it is no
//! continuation of the port's session, and the next one of exactly one other session, the two change places, so that nothing is read
//! with the other's templates. Sessions of one address are bounded; those without a template go first, then those silent longest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::double_counting::DoubleCounting;
use super::state::Domain;
use crate::sampling::{AnnouncedRates, DomainKey};
use crate::times::Clock;

/// The port of a session that all ports of its address share: by configuration, or as version 0.1 kept it.
pub(super) const PORT_NOT_KNOWN: u16 = 0;
/// Datagrams (v9) or records (v5, v7, IPFIX) that may be missing where a session goes on under another port.
const MISSING_DATAGRAMS_MAX: u32 = 64;
const MISSING_RECORDS_MAX: u32 = 2_048;
/// Numbers that several exporters are at soon after they started tell nothing where no uptime does, unless nothing is missing.
const SMALL_NUMBER: u32 = 1 << 16;
/// How exactly two datagrams of one exporter agree on its start: headers tell whole seconds.
const START_TOLERANCE_MS: i64 = 5_000;
/// NAT gives a port to another session when it was silent for a while.
const PORT_SILENCE_MS: i64 = 5_000;

/// What one session is remembered by.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct TransportSession {
    pub(super) domains: BTreeMap<DomainKey, Domain>,
    pub(super) rates: AnnouncedRates,
    /// IE 160 of the last options record that had it, for domains that were told none.
    pub(super) boot_ms: Option<i64>,
    /// IE 36 of the last options record that had it, for domains that were told none.
    #[serde(default)]
    pub(super) active_timeout_s: Option<u32>,
    /// Which of its packets it observes on their way in and on their way out.
    #[serde(default)]
    pub(super) twice: DoubleCounting,
}

impl TransportSession {
    /// How many flows are remembered of it and in all its domains.
    pub(super) fn remembered_flows(&self) -> usize {
        let of_domains: usize = self.domains.values().map(|domain| domain.meaning.remembered()).sum();
        of_domains + self.twice.remembered()
    }

    pub(super) fn last_heard_ms(&self) -> Option<i64> {
        self.domains.values().map(|domain| domain.last_heard_ms).max()
    }

    fn has_templates(&self) -> bool {
        self.domains.values().any(|domain| !domain.templates.is_empty())
    }

    /// Whether a datagram of this domain is the next one of the session.
    fn goes_on_with(&self, key: DomainKey, sequence: u32, clock: Clock, received_at_ms: i64) -> bool {
        let Some(domain) = self.domains.get(&key) else {
            return false;
        };
        let Some(step) = domain.sequence.step_to(sequence) else {
            return false;
        };
        let missing_max = if key.protocol_version == 9 {
            MISSING_DATAGRAMS_MAX
        } else {
            MISSING_RECORDS_MAX
        };
        match starts_alike(domain, clock, received_at_ms) {
            Some(is_same_start) => step <= missing_max && is_same_start,
            // Without an uptime only the number itself tells; a count that begins tells nothing.
            None => (step == 0 && sequence != 0) || (step <= missing_max && sequence >= SMALL_NUMBER),
        }
    }

    /// Whether it fell silent, and a datagram of this domain cannot be its own: of another start, or its number jumps where no start
    /// is told.
    fn was_left(&self, key: DomainKey, sequence: u32, clock: Clock, received_at_ms: i64) -> bool {
        let is_silent =
            |heard_ms: Option<i64>| heard_ms.is_some_and(|ms| received_at_ms.saturating_sub(ms) >= PORT_SILENCE_MS);
        let Some(domain) = self.domains.get(&key) else {
            return is_silent(self.last_heard_ms());
        };
        let is_of_another = match starts_alike(domain, clock, received_at_ms) {
            Some(is_same_start) => !is_same_start,
            None => domain.sequence.jumps_to(sequence, MISSING_RECORDS_MAX),
        };
        is_of_another && is_silent(Some(domain.last_heard_ms))
    }
}

/// Whether a header tells the same start of its exporter as the last one of a domain; `None` where one of them tells no uptime.
fn starts_alike(domain: &Domain, clock: Clock, received_at_ms: i64) -> Option<bool> {
    let (before, now) = (domain.sequence.uptime_ms()?, clock.uptime_ms?);
    let passed_ms = i64::from(now.wrapping_sub(before) as i32);
    let elapsed_ms = received_at_ms.saturating_sub(domain.last_heard_ms);
    Some(passed_ms.abs_diff(elapsed_ms) <= START_TOLERANCE_MS.unsigned_abs())
}

/// How a datagram found its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionMatch {
    Known,
    New,
    /// A session that was known under another port.
    Moved,
}

/// The sessions of one address, by port.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sessions(BTreeMap<u16, TransportSession>);

impl Sessions {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &TransportSession)> {
        self.0.iter().map(|(port, session)| (*port, session))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut TransportSession)> {
        self.0.iter_mut().map(|(port, session)| (*port, session))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get_mut(&mut self, port: u16) -> Option<&mut TransportSession> {
        self.0.get_mut(&port)
    }

    pub(super) fn put(&mut self, port: u16, session: TransportSession) {
        self.0.insert(port, session);
    }

    /// Finds or makes the session of a datagram; a new one beyond `max` takes the place of another, which is answered.
    pub(super) fn admit(
        &mut self,
        port: u16,
        key: DomainKey,
        sequence: u32,
        clock: Clock,
        received_at_ms: i64,
        max: usize,
    ) -> (SessionMatch, Option<TransportSession>) {
        if self.0.contains_key(&port) {
            return (SessionMatch::Known, None);
        }
        let joined = if port == PORT_NOT_KNOWN {
            self.0
                .iter()
                .max_by_key(|(_, session)| session.last_heard_ms())
                .map(|(port, _)| *port)
        } else {
            self.0.contains_key(&PORT_NOT_KNOWN).then_some(PORT_NOT_KNOWN)
        };
        let mut same = self
            .0
            .iter()
            .filter(|(_, session)| session.goes_on_with(key, sequence, clock, received_at_ms))
            .map(|(port, _)| *port);
        // Of two that it might be it is neither.
        let only = same.next().filter(|_| same.next().is_none());
        if let Some(session) = joined.or(only).and_then(|from| self.0.remove(&from)) {
            self.0.insert(port, session);
            return (SessionMatch::Moved, None);
        }
        let evicted = if self.0.len() >= max { self.evict() } else { None };
        self.0.insert(port, TransportSession::default());
        (SessionMatch::New, evicted)
    }

    /// Lets the session of a port that fell silent change places with the one that a datagram from it goes on with; answers whether
    /// there is one. Of two that it might be it is neither.
    pub(super) fn change_places(
        &mut self,
        port: u16,
        key: DomainKey,
        sequence: u32,
        clock: Clock,
        received_at_ms: i64,
    ) -> bool {
        if self.0.len() < 2 {
            return false;
        }
        let own = self.0.get(&port);
        if own.is_none_or(|own| !own.was_left(key, sequence, clock, received_at_ms)) {
            return false;
        }
        let mut others = self
            .0
            .iter()
            .filter(|(other, session)| **other != port && session.goes_on_with(key, sequence, clock, received_at_ms))
            .map(|(other, _)| *other);
        let Some(other) = others.next().filter(|_| others.next().is_none()) else {
            return false;
        };
        let (left, taken) = (self.0.remove(&port), self.0.remove(&other));
        self.0.extend(left.map(|session| (other, session)));
        self.0.extend(taken.map(|session| (port, session)));
        true
    }

    /// Forgets sessions without a domain.
    pub(super) fn remove_empty(&mut self) {
        self.0.retain(|_, session| !session.domains.is_empty());
    }

    /// Takes out the session that is missed least.
    fn evict(&mut self) -> Option<TransportSession> {
        let least = self
            .0
            .iter()
            .min_by_key(|(_, session)| (session.has_templates(), session.last_heard_ms()));
        let port = *least?.0;
        self.0.remove(&port)
    }

    /// Takes out the sessions that were silent since before `oldest_ms`, but for the one heard last.
    pub(super) fn take_silent(&mut self, oldest_ms: i64) -> Vec<TransportSession> {
        let is_silent =
            |session: &TransportSession| session.last_heard_ms().is_none_or(|heard_ms| heard_ms < oldest_ms);
        let newest = self
            .0
            .iter()
            .max_by_key(|(_, session)| session.last_heard_ms())
            .map(|(port, _)| *port);
        let ports: Vec<u16> = self
            .0
            .iter()
            .filter(|(port, session)| Some(**port) != newest && is_silent(session))
            .map(|(port, _)| *port)
            .collect();
        ports.iter().filter_map(|port| self.0.remove(port)).collect()
    }
}
