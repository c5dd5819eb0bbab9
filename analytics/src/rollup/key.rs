//! What volume is told apart by.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt32Array};
use schemas::address::Address;
use tables::column::TableDef;
use tables::definitions::{
    AS_1H, AS_5M, AS_REST, INTERFACE_1H, INTERFACE_5M, PORT_1H, PORT_5M, PORT_REST, USAGE_1H, USAGE_5M,
};

use super::Row;
use crate::AnalyticsError;
use crate::store::parquet::column;

/// Ports from here on are given to clients for a connection (RFC 6335 has 49152, Linux 32768) and tell nothing of the application.
const CLIENT_PORTS_FROM: u16 = 32_768;

/// A key, and the two tables that hold volume by it.
pub(crate) trait Key: Copy + Ord + Hash + Debug + Send + Sync + 'static {
    const FIVE_MINUTES: &'static TableDef;
    const HOUR: &'static TableDef;
    /// Its columns in both.
    const COLUMNS: &'static [&'static str];
    /// Keys that a window holds at most; the smaller ones become [`Key::rest`].
    const KEYS_MAX: usize = usize::MAX;
    /// Its columns of a batch.
    type Stored<'a>;

    /// Stands for the smaller keys.
    #[must_use]
    fn rest(self) -> Self {
        self
    }

    /// Its columns, one value for each row.
    fn arrays(rows: &[Row<Self>]) -> Result<Vec<ArrayRef>, AnalyticsError>;

    fn stored(batch: &RecordBatch) -> Result<Self::Stored<'_>, AnalyticsError>;

    fn at(stored: &Self::Stored<'_>, row: usize) -> Self;
}

fn u8s<K>(rows: &[Row<K>], value: impl Fn(&K) -> u8) -> ArrayRef {
    Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| value(&row.key))))
}

fn u32s<K>(rows: &[Row<K>], value: impl Fn(&K) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| value(&row.key))))
}

/// 0 = of no service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ByService(pub(crate) u32);

impl Key for ByService {
    const FIVE_MINUTES: &'static TableDef = &USAGE_5M;
    const HOUR: &'static TableDef = &USAGE_1H;
    const COLUMNS: &'static [&'static str] = &["service"];
    type Stored<'a> = &'a [u32];

    fn arrays(rows: &[Row<ByService>]) -> Result<Vec<ArrayRef>, AnalyticsError> {
        Ok(vec![u32s(rows, |key| key.0)])
    }

    fn stored(batch: &RecordBatch) -> Result<&[u32], AnalyticsError> {
        Ok(column::<UInt32Array>(batch, "service")?.values())
    }

    #[inline]
    fn at(stored: &&[u32], row: usize) -> ByService {
        ByService(stored[row])
    }
}

/// The interface that faces the other network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ByInterface {
    pub(crate) exporter: Address,
    pub(crate) if_index: u32,
    pub(crate) boundary: u8,
}

impl Hash for ByInterface {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let exporter = u128::from_be_bytes(self.exporter.0);
        state.write_u64((exporter >> 64) as u64 ^ exporter as u64);
        state.write_u64(u64::from(self.if_index) << 8 | u64::from(self.boundary));
    }
}

impl Key for ByInterface {
    const FIVE_MINUTES: &'static TableDef = &INTERFACE_5M;
    const HOUR: &'static TableDef = &INTERFACE_1H;
    const COLUMNS: &'static [&'static str] = &["exporter", "if_index", "boundary"];
    type Stored<'a> = (&'a FixedSizeBinaryArray, &'a [u32], &'a [u8]);

    fn arrays(rows: &[Row<ByInterface>]) -> Result<Vec<ArrayRef>, AnalyticsError> {
        let exporters = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| row.key.exporter.0));
        let exporters = match rows {
            [] => FixedSizeBinaryArray::new_null(16, 0),
            _ => exporters?,
        };
        let exporters: ArrayRef = Arc::new(exporters);
        Ok(vec![
            exporters,
            u32s(rows, |key| key.if_index),
            u8s(rows, |key| key.boundary),
        ])
    }

    fn stored(batch: &RecordBatch) -> Result<(&FixedSizeBinaryArray, &[u32], &[u8]), AnalyticsError> {
        Ok((
            column(batch, "exporter")?,
            column::<UInt32Array>(batch, "if_index")?.values(),
            column::<UInt8Array>(batch, "boundary")?.values(),
        ))
    }

    #[inline]
    fn at(stored: &(&FixedSizeBinaryArray, &[u32], &[u8]), row: usize) -> ByInterface {
        ByInterface {
            exporter: Address::from_slice(stored.0.value(row)).unwrap_or_default(),
            if_index: stored.1[row],
            boundary: stored.2[row],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ByPort {
    pub(crate) ip_protocol: u8,
    /// Of the application; 0 where nobody can tell, [`PORT_REST`].
    pub(crate) port: u32,
}

impl ByPort {
    pub(super) fn of(ip_protocol: u8, ports: (u16, u16)) -> ByPort {
        let port = ports.0.min(ports.1);
        ByPort {
            ip_protocol,
            port: if port < CLIENT_PORTS_FROM { u32::from(port) } else { 0 },
        }
    }
}

impl Hash for ByPort {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.ip_protocol) << 32 | u64::from(self.port));
    }
}

impl Key for ByPort {
    const FIVE_MINUTES: &'static TableDef = &PORT_5M;
    const HOUR: &'static TableDef = &PORT_1H;
    const COLUMNS: &'static [&'static str] = &["ip_protocol", "port"];
    const KEYS_MAX: usize = 4_096;
    type Stored<'a> = (&'a [u8], &'a [u32]);

    fn rest(self) -> ByPort {
        ByPort {
            port: PORT_REST,
            ..self
        }
    }

    fn arrays(rows: &[Row<ByPort>]) -> Result<Vec<ArrayRef>, AnalyticsError> {
        Ok(vec![u8s(rows, |key| key.ip_protocol), u32s(rows, |key| key.port)])
    }

    fn stored(batch: &RecordBatch) -> Result<(&[u8], &[u32]), AnalyticsError> {
        Ok((
            column::<UInt8Array>(batch, "ip_protocol")?.values(),
            column::<UInt32Array>(batch, "port")?.values(),
        ))
    }

    #[inline]
    fn at(stored: &(&[u8], &[u32]), row: usize) -> ByPort {
        ByPort {
            ip_protocol: stored.0[row],
            port: stored.1[row],
        }
    }
}

/// Source and destination: what was received came from the first, what was sent went to the second. [`AS_REST`] in both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ByAs {
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

impl Hash for ByAs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.source) << 32 | u64::from(self.destination));
    }
}

impl Key for ByAs {
    const FIVE_MINUTES: &'static TableDef = &AS_5M;
    const HOUR: &'static TableDef = &AS_1H;
    const COLUMNS: &'static [&'static str] = &["src_as", "dst_as"];
    const KEYS_MAX: usize = 4_096;
    type Stored<'a> = (&'a [u32], &'a [u32]);

    fn rest(self) -> ByAs {
        ByAs {
            source: AS_REST,
            destination: AS_REST,
        }
    }

    fn arrays(rows: &[Row<ByAs>]) -> Result<Vec<ArrayRef>, AnalyticsError> {
        Ok(vec![u32s(rows, |key| key.source), u32s(rows, |key| key.destination)])
    }

    fn stored(batch: &RecordBatch) -> Result<(&[u32], &[u32]), AnalyticsError> {
        Ok((
            column::<UInt32Array>(batch, "src_as")?.values(),
            column::<UInt32Array>(batch, "dst_as")?.values(),
        ))
    }

    #[inline]
    fn at(stored: &(&[u32], &[u32]), row: usize) -> ByAs {
        ByAs {
            source: stored.0[row],
            destination: stored.1[row],
        }
    }
}
