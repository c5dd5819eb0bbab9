//! One exporter's answers: the tables of IF-MIB (RFC 2863) read column beside column.
//!
//! The octets of both directions come first and in the same messages, each row with the instant its message arrived: what flows
//! are compared with has no skew between the directions and none by the length of the table. The other counters and the names
//! follow. A device without 64-bit counters is read by its 32-bit ones.

use std::collections::BTreeMap;
use std::time::Duration;

use async_snmp::{
    Auth, AuthProtocol, Client, CryptoError, ErrorStatus, MAX_UDP_PAYLOAD, Oid, PrivProtocol, Retry, UdpHandle,
    UdpTransport, UsmConfig, Value, VarBind,
};
use schemas::address::Address;
use schemas::interfaces::{INTERFACES_MAX, KnownInterface};
use schemas::metering::{SnmpAuth, SnmpConfig, SnmpPrivacy};

use super::SNMP_DOMAIN;
use super::targets::Target;
use crate::decode::InterfaceCounters;

const SYS_UPTIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];
const IF_ENTRY: [u32; 9] = [1, 3, 6, 1, 2, 1, 2, 2, 1];
const IF_X_ENTRY: [u32; 10] = [1, 3, 6, 1, 2, 1, 31, 1, 1, 1];

/// Columns of `ifTable`.
const IF_DESCR: u32 = 2;
const IF_TYPE: u32 = 3;
const IF_SPEED: u32 = 5;
const IF_ADMIN_STATUS: u32 = 7;
const IF_OPER_STATUS: u32 = 8;
const IF_IN_OCTETS: u32 = 10;
const IF_IN_DISCARDS: u32 = 13;
const IF_IN_ERRORS: u32 = 14;
const IF_OUT_OCTETS: u32 = 16;
const IF_OUT_DISCARDS: u32 = 19;
const IF_OUT_ERRORS: u32 = 20;
/// Columns of `ifXTable`.
const IF_NAME: u32 = 1;
const IF_HC_IN_OCTETS: u32 = 6;
const IF_HC_IN_UCAST: u32 = 7;
const IF_HC_IN_MULTICAST: u32 = 8;
const IF_HC_IN_BROADCAST: u32 = 9;
const IF_HC_OUT_OCTETS: u32 = 10;
const IF_HC_OUT_UCAST: u32 = 11;
const IF_HC_OUT_MULTICAST: u32 = 12;
const IF_HC_OUT_BROADCAST: u32 = 13;
const IF_HIGH_SPEED: u32 = 15;
const IF_ALIAS: u32 = 18;

/// Rows that one message asks for; less where the device says that so many are too many.
const ROWS_PER_MESSAGE: u32 = 16;
const RETRIES: u32 = 1;

/// Why an exporter did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum SnmpError {
    #[error("settings of snmp cannot be used")]
    Settings { source: CryptoError },
    #[error("no good answer: check address, community or user, and the access list of the device")]
    Ask { source: Box<async_snmp::Error> },
    #[error("not done within {seconds} s")]
    Deadline { seconds: u64 },
    #[error("the device answers the same rows again and again")]
    Loop,
    #[error("the device shows no interface: its view may leave out IF-MIB")]
    Nothing,
}

/// What an interface is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct InterfaceFacts {
    name: String,
    description: String,
    long_name: String,
    speed_bps: u64,
    if_type: u32,
    /// As in the table `counters`.
    status: u32,
}

impl InterfaceFacts {
    pub(super) fn interface(&self, told_at_ms: i64) -> KnownInterface {
        KnownInterface {
            name: self.name.clone(),
            description: self.description.clone(),
            long_name: self.long_name.clone(),
            speed_bps: self.speed_bps,
            told_at_ms,
        }
    }
}

/// Counters of one interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct InterfaceReading {
    pub(super) if_index: u32,
    counters: InterfaceCounters,
}

impl InterfaceReading {
    /// The row of the table.
    pub(super) fn row(&self, exporter: Address, facts: Option<&InterfaceFacts>) -> InterfaceCounters {
        InterfaceCounters {
            exporter,
            observation_domain: SNMP_DOMAIN,
            if_index: self.if_index,
            if_type: facts.map_or(0, |facts| facts.if_type),
            speed_bps: facts.map_or(0, |facts| facts.speed_bps),
            status: facts.map_or(0, |facts| facts.status),
            ..self.counters
        }
    }
}

/// Everything of one poll.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct PollResult {
    pub(super) uptime_centiseconds: u32,
    pub(super) counters: Vec<InterfaceReading>,
    /// Where they were read.
    pub(super) facts: Option<BTreeMap<u32, InterfaceFacts>>,
}

/// Asks for everything. Names are read when `names` says so, the device restarted since `uptime_centiseconds`, or an interface
/// shows up that is not `known`.
pub(super) async fn ask(
    target: &Target,
    names: bool,
    known: &[u32],
    uptime_centiseconds: u32,
) -> Result<PollResult, SnmpError> {
    let client = connect(target).await?;
    let uptime = client.get(&Oid::from_slice(&SYS_UPTIME)).await.map_err(failed)?;
    let mut answer = PollResult {
        uptime_centiseconds: uptime.varbinds.first().map_or(0, |bound| unsigned(&bound.value)) as u32,
        ..PollResult::default()
    };
    let octets = octets(&client).await?;
    if octets.is_empty() {
        return Err(SnmpError::Nothing);
    }
    let details = if target.snmp.counters {
        table(&client, &DETAILS).await?
    } else {
        Table::new()
    };
    answer.counters = octets
        .iter()
        .map(|(if_index, row)| reading(*if_index, row, details.get(if_index)))
        .collect();
    let has_restarted = answer.uptime_centiseconds < uptime_centiseconds;
    let is_new = |reading: &InterfaceReading| known.binary_search(&reading.if_index).is_err();
    if names || has_restarted || answer.counters.iter().any(is_new) {
        let table = table(&client, &FACTS).await?;
        answer.facts = Some(table.iter().map(|(if_index, row)| (*if_index, facts(row))).collect());
    }
    Ok(answer)
}

fn failed(source: Box<async_snmp::Error>) -> SnmpError {
    SnmpError::Ask { source }
}

async fn connect(target: &Target) -> Result<Client<UdpHandle>, SnmpError> {
    let auth = auth(&target.snmp).map_err(|source| SnmpError::Settings { source })?;
    let retry = Retry::fixed(RETRIES, Duration::ZERO).unwrap_or_else(|_| Retry::none());
    let any_port = if target.socket().is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    // Version 3 tells the device how much we take. Net-SNMP answers `genErr` where its rows do not fit into that.
    let transport = UdpTransport::builder()
        .bind(any_port)
        .receive_capacity(MAX_UDP_PAYLOAD)
        .build()
        .await
        .map_err(failed)?;
    Client::builder(target.socket(), auth)
        .request_timeout(Duration::from_millis(target.snmp.timeout_ms))
        .retry(retry)
        .build_with(&transport)
        .await
        .map_err(failed)
}

/// Whether a device may answer fewer rows, as it could not answer so many: what RFC 3416 calls `tooBig`, some call `genErr`.
fn is_too_much(error: &async_snmp::Error) -> bool {
    matches!(
        error,
        async_snmp::Error::Snmp {
            status: ErrorStatus::TooBig | ErrorStatus::GenErr,
            ..
        }
    )
}

fn auth(snmp: &SnmpConfig) -> Result<Auth, CryptoError> {
    if let Some(community) = &snmp.community {
        return Ok(Auth::v2c(community.reveal().to_owned()));
    }
    let user = UsmConfig::new(snmp.user.clone().unwrap_or_default());
    let protocol = |auth: SnmpAuth| match auth {
        SnmpAuth::Md5 => AuthProtocol::Md5,
        SnmpAuth::Sha1 => AuthProtocol::Sha1,
        SnmpAuth::Sha224 => AuthProtocol::Sha224,
        SnmpAuth::Sha256 => AuthProtocol::Sha256,
        SnmpAuth::Sha384 => AuthProtocol::Sha384,
        SnmpAuth::Sha512 => AuthProtocol::Sha512,
    };
    let cipher = |privacy: SnmpPrivacy| match privacy {
        SnmpPrivacy::Des => PrivProtocol::Des,
        SnmpPrivacy::Aes128 => PrivProtocol::Aes128,
        SnmpPrivacy::Aes192 => PrivProtocol::Aes192Blumenthal,
        SnmpPrivacy::Aes256 => PrivProtocol::Aes256Blumenthal,
    };
    let user = match (snmp.auth, &snmp.auth_password, snmp.privacy, &snmp.privacy_password) {
        (Some(auth), Some(password), Some(privacy), Some(privacy_password)) => user.auth_priv(
            protocol(auth),
            password.reveal(),
            cipher(privacy),
            privacy_password.reveal(),
        )?,
        (Some(auth), Some(password), _, _) => user.auth(protocol(auth), password.reveal())?,
        _ => user,
    };
    Ok(user.into())
}

/// A column of one of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    If(u32),
    IfX(u32),
}

impl Column {
    fn oid(self) -> Oid {
        match self {
            Column::If(column) => Oid::from_slice(&IF_ENTRY).child(column),
            Column::IfX(column) => Oid::from_slice(&IF_X_ENTRY).child(column),
        }
    }
}

const OCTETS: [Column; 2] = [Column::IfX(IF_HC_IN_OCTETS), Column::IfX(IF_HC_OUT_OCTETS)];
const OCTETS_32: [Column; 2] = [Column::If(IF_IN_OCTETS), Column::If(IF_OUT_OCTETS)];
const DETAILS: [Column; 10] = [
    Column::IfX(IF_HC_IN_UCAST),
    Column::IfX(IF_HC_IN_MULTICAST),
    Column::IfX(IF_HC_IN_BROADCAST),
    Column::If(IF_IN_DISCARDS),
    Column::If(IF_IN_ERRORS),
    Column::IfX(IF_HC_OUT_UCAST),
    Column::IfX(IF_HC_OUT_MULTICAST),
    Column::IfX(IF_HC_OUT_BROADCAST),
    Column::If(IF_OUT_DISCARDS),
    Column::If(IF_OUT_ERRORS),
];
const FACTS: [Column; 8] = [
    Column::If(IF_DESCR),
    Column::If(IF_TYPE),
    Column::If(IF_SPEED),
    Column::If(IF_ADMIN_STATUS),
    Column::If(IF_OPER_STATUS),
    Column::IfX(IF_NAME),
    Column::IfX(IF_HIGH_SPEED),
    Column::IfX(IF_ALIAS),
];

/// One row of several columns.
#[derive(Clone, PartialEq, Debug)]
struct Row {
    /// When the first of its values arrived, UTC milliseconds.
    at_ms: i64,
    /// In the order of the columns.
    values: Vec<Option<Value>>,
}

type Table = BTreeMap<u32, Row>;

/// Bytes in both directions; by 32-bit counters where there are no others.
async fn octets(client: &Client<UdpHandle>) -> Result<Table, SnmpError> {
    let mut table_64 = table(client, &OCTETS).await?;
    table_64.retain(|_, row| row.values.iter().any(Option::is_some));
    if !table_64.is_empty() {
        return Ok(table_64);
    }
    table(client, &OCTETS_32).await
}

/// Reads columns beside each other until all have ended.
async fn table(client: &Client<UdpHandle>, columns: &[Column]) -> Result<Table, SnmpError> {
    let mut reader = Reader::new(columns);
    let mut rows = ROWS_PER_MESSAGE;
    // Each message brings at least one new row or asks for fewer, or the reader ends with an error.
    while let Some(oids) = reader.next() {
        match client.get_bulk(&oids, 0, rows).await {
            Ok(bound) => reader.take(&bound, schemas::clock::machine_now_ms())?,
            Err(error) if rows > 1 && is_too_much(&error) => rows /= 2,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(reader.table)
}

/// Where reading stands.
struct Reader {
    columns: Vec<Oid>,
    /// The last object of each column; `None` = the column has ended.
    cursors: Vec<Option<Oid>>,
    table: Table,
}

impl Reader {
    fn new(columns: &[Column]) -> Reader {
        let columns: Vec<Oid> = columns.iter().map(|column| column.oid()).collect();
        Reader {
            cursors: columns.iter().cloned().map(Some).collect(),
            columns,
            table: Table::new(),
        }
    }

    /// What to ask for next.
    fn next(&self) -> Option<Vec<Oid>> {
        let oids: Vec<Oid> = self.cursors.iter().flatten().cloned().collect();
        (!oids.is_empty()).then_some(oids)
    }

    fn take(&mut self, bound: &[VarBind], at_ms: i64) -> Result<(), SnmpError> {
        let asked: Vec<usize> = (0..self.columns.len())
            .filter(|at| self.cursors[*at].is_some())
            .collect();
        if bound.is_empty() {
            self.cursors.fill(None);
            return Ok(());
        }
        for (position, bound) in bound.iter().enumerate() {
            let column = asked[position % asked.len()];
            let Some(cursor) = &self.cursors[column] else {
                continue;
            };
            let inside = bound.oid.strip_prefix(&self.columns[column]);
            let if_index = inside.and_then(|suffix| match suffix.arcs() {
                [if_index] => Some(*if_index),
                _ => None,
            });
            let Some(if_index) = if_index.filter(|_| !bound.value.is_exception()) else {
                self.cursors[column] = None;
                continue;
            };
            if bound.oid.arcs() <= cursor.arcs() {
                return Err(SnmpError::Loop);
            }
            self.cursors[column] = Some(bound.oid.clone());
            if self.table.len() >= INTERFACES_MAX && !self.table.contains_key(&if_index) {
                self.cursors.fill(None);
                return Ok(());
            }
            let row = self.table.entry(if_index).or_insert_with(|| Row {
                at_ms,
                values: vec![None; self.columns.len()],
            });
            row.values[column] = Some(bound.value.clone());
        }
        Ok(())
    }
}

fn unsigned(value: &Value) -> u64 {
    let positive = |number: i32| u64::try_from(number).ok();
    value
        .as_u64()
        .or_else(|| value.as_i32().and_then(positive))
        .unwrap_or(0)
}

fn number(row: &Row, at: usize) -> u64 {
    row.values.get(at).and_then(Option::as_ref).map_or(0, unsigned)
}

fn text(row: &Row, at: usize) -> String {
    let value = row.values.get(at).and_then(Option::as_ref);
    value
        .and_then(Value::as_bytes)
        .map(KnownInterface::text)
        .unwrap_or_default()
}

fn reading(if_index: u32, octets: &Row, details: Option<&Row>) -> InterfaceReading {
    let detail = |at| details.map_or(0, |row| number(row, at));
    InterfaceReading {
        if_index,
        counters: InterfaceCounters {
            received_at_ms: octets.at_ms,
            in_bytes: number(octets, 0),
            out_bytes: number(octets, 1),
            in_unicast_packets: detail(0),
            in_multicast_packets: detail(1),
            in_broadcast_packets: detail(2),
            in_discards: detail(3),
            in_errors: detail(4),
            out_unicast_packets: detail(5),
            out_multicast_packets: detail(6),
            out_broadcast_packets: detail(7),
            out_discards: detail(8),
            out_errors: detail(9),
            ..InterfaceCounters::default()
        },
    }
}

fn facts(row: &Row) -> InterfaceFacts {
    const UP: u64 = 1;
    let high_speed_mbps = number(row, 6);
    InterfaceFacts {
        long_name: text(row, 0),
        if_type: u32::try_from(number(row, 1)).unwrap_or(0),
        // ifSpeed ends at 4.29 Gbit/s; ifHighSpeed is 0 below 1 Mbit/s.
        speed_bps: if high_speed_mbps > 0 {
            high_speed_mbps.saturating_mul(1_000_000)
        } else {
            number(row, 2)
        },
        status: u32::from(number(row, 3) == UP) | u32::from(number(row, 4) == UP) << 1,
        name: text(row, 5),
        description: text(row, 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(column: Column, if_index: u32, value: Value) -> VarBind {
        VarBind::new(column.oid().child(if_index), value)
    }

    fn octets(if_index: u32, at: usize, bytes: u64) -> VarBind {
        bound(OCTETS[at], if_index, Value::Counter64(bytes))
    }

    #[test]
    fn columns_of_different_length_are_read_to_their_ends() {
        let mut reader = Reader::new(&OCTETS);
        assert_eq!(reader.next().unwrap().len(), 2);
        let message = [
            octets(1, 0, 10),
            octets(1, 1, 11),
            octets(513, 0, 20),
            octets(513, 1, 21),
        ];
        reader.take(&message, 5).unwrap();
        // The first column ends here: what follows belongs to the next one.
        let message = [octets(513, 1, 0), octets(600, 1, 31)];
        reader.take(&message, 9).unwrap();
        assert_eq!(reader.next().unwrap(), [OCTETS[1].oid().child(600)]);
        reader
            .take(&[VarBind::new(OCTETS[1].oid().child(600), Value::EndOfMibView)], 9)
            .unwrap();
        assert_eq!(reader.next(), None);
        let read: Vec<(u32, i64, u64, u64)> = reader
            .table
            .iter()
            .map(|(if_index, row)| (*if_index, row.at_ms, number(row, 0), number(row, 1)))
            .collect();
        assert_eq!(read, [(1, 5, 10, 11), (513, 5, 20, 21), (600, 9, 0, 31)]);
    }

    #[test]
    fn a_device_that_repeats_itself_does_not_keep_us() {
        let mut reader = Reader::new(&OCTETS);
        reader.take(&[octets(2, 0, 1), octets(2, 1, 1)], 1).unwrap();
        assert!(matches!(
            reader.take(&[octets(2, 0, 1), octets(2, 1, 1)], 1),
            Err(SnmpError::Loop)
        ));
        let mut reader = Reader::new(&OCTETS);
        reader.take(&[], 1).unwrap();
        assert_eq!(reader.next(), None);
        let mut reader = Reader::new(&OCTETS);
        for if_index in 1..10_000 {
            if reader.next().is_none() {
                break;
            }
            reader
                .take(&[octets(if_index, 0, 1), octets(if_index, 1, 1)], 1)
                .unwrap();
        }
        assert_eq!(reader.table.len(), INTERFACES_MAX);
    }

    #[test]
    fn facts_are_the_best_of_both_tables() {
        let mut reader = Reader::new(&FACTS);
        let name = |text: &'static str| Value::OctetString(text.as_bytes().into());
        let message = [
            bound(FACTS[0], 7, name("Ethernet 7\0")),
            bound(FACTS[1], 7, Value::Integer(6)),
            bound(FACTS[2], 7, Value::Gauge32(u32::MAX)),
            bound(FACTS[3], 7, Value::Integer(1)),
            bound(FACTS[4], 7, Value::Integer(2)),
            bound(FACTS[5], 7, name("xe-0/0/7")),
            bound(FACTS[6], 7, Value::Gauge32(100_000)),
            bound(FACTS[7], 7, name("Transit: Example")),
        ];
        reader.take(&message, 1).unwrap();
        let seven = facts(&reader.table[&7]);
        assert_eq!(
            seven,
            InterfaceFacts {
                name: "xe-0/0/7".to_owned(),
                description: "Transit: Example".to_owned(),
                long_name: "Ethernet 7".to_owned(),
                speed_bps: 100_000_000_000,
                if_type: 6,
                status: 1,
            }
        );
        let reading = reading(7, &reader.table[&7], None);
        let row = reading.row("192.0.2.1".parse().unwrap(), Some(&seven));
        assert_eq!(
            (row.observation_domain, row.speed_bps, row.status),
            (SNMP_DOMAIN, 100_000_000_000, 1)
        );
    }
}
