//! The stored tables beside [`crate::flow::FLOWS`].

use crate::column::{ColumnType, Layout, TableDef, column};
use crate::flow::FLOWS;

/// Every stored table, in the order the documentation lists them.
pub const TABLES: [&TableDef; 12] = [
    &FLOWS,
    &USAGE_5M,
    &USAGE_1H,
    &INTERFACE_5M,
    &INTERFACE_1H,
    &PORT_5M,
    &PORT_1H,
    &AS_5M,
    &AS_1H,
    &COUNTERS,
    &COLLECTION_5M,
    &TRUTH_1H,
];

/// The autonomous system of rows that hold what the smaller pairs of a window make together.
pub const AS_REST: u32 = u32::MAX;
/// The port of rows that hold what the smaller ports of a protocol make together in a window.
pub const PORT_REST: u32 = 65_536;

/// Usage of every service by 5-minute window, computed from [`FLOWS`] alone (U1). Service 0 is unattributed traffic (U2).
/// A service and window without metered traffic has no row; whether it was measured at all is told by [`COLLECTION_5M`].
#[rustfmt::skip] // a row of the table is a line
pub const USAGE_5M: TableDef = TableDef {
    name: "usage_5m",
    doc: "Metered volume per service and 5-minute window, scaled by the sampling rate. Service 0 = not attributed. No row = no metered traffic.",
    time_column: "window_start",
    sort: &["service", "window_start"],
    format: 1,
    computed: true,
    columns: &[
        column("window_start", ColumnType::Instant, "UTC ms", Layout::Delta, true, "start of the window; it is 5 minutes long and half-open"),
        column("service", ColumnType::U32, "", Layout::Dictionary, true, "service, 0 = not attributed"),
        column("bytes_in", ColumnType::U64, "bytes", Layout::Delta, false, "layer-3 bytes received by the service, scaled"),
        column("bytes_out", ColumnType::U64, "bytes", Layout::Delta, false, "layer-3 bytes sent by the service, scaled"),
        column("packets_in", ColumnType::U64, "packets", Layout::Delta, false, "packets received, scaled"),
        column("packets_out", ColumnType::U64, "packets", Layout::Delta, false, "packets sent, scaled"),
        column("flows", ColumnType::U64, "flows", Layout::Delta, false, "metered flow records with a share in this window"),
        column("samples", ColumnType::U64, "packets", Layout::Delta, false, "unscaled packets behind the volume, for its error bound"),
        column("error_bound_ppm", ColumnType::U32, "ppm", Layout::Delta, false, "the true volume lies so close to the stored one in 95 of 100 cases: 196 · √(1 / samples) % in parts per million, rounded up; 0 = every packet was counted"),
    ],
};

/// A sum over metered flows by window and by hour.
macro_rules! rollup {
    ($five:ident $hour:ident, $stem:literal, $by:literal, sort $sort:tt, $($key:expr,)+) => {
        rollup!($five, concat!($stem, "_5m"), "window_start", $by, sort $sort "window_start", "start of the window; it is 5 minutes long and half-open",
            "metered flow records with a share in this window", $($key,)+);
        rollup!($hour, concat!($stem, "_1h"), "hour_start", $by, sort $sort "hour_start", "start of the hour, UTC",
            "the same counts of its windows together: a flow counts once in each window that it has a share in", $($key,)+);
    };
    ($name:ident, $table:expr, $time:literal, $by:literal, sort [$($sort:literal),+] $last:literal, $start:literal, $flows:literal, $($key:expr,)+) => {
        #[doc = concat!("Metered volume by ", $by, ", computed from [`FLOWS`] alone (U1); its sums are those of [`USAGE_5M`] (U2).")]
        pub const $name: TableDef = TableDef {
            name: $table,
            doc: concat!("Metered volume by ", $by, ", scaled by the sampling rate: what questions about the whole network are answered from. No row = no metered traffic."),
            time_column: $time,
            sort: &[$($sort,)+ $last],
            format: 1,
            computed: true,
            columns: &[
                column($time, ColumnType::Instant, "UTC ms", Layout::Delta, true, $start),
                $($key,)+
                column("bytes_in", ColumnType::U64, "bytes", Layout::Delta, false, "layer-3 bytes received by our services, scaled"),
                column("bytes_out", ColumnType::U64, "bytes", Layout::Delta, false, "layer-3 bytes sent by our services, scaled"),
                column("packets_in", ColumnType::U64, "packets", Layout::Delta, false, "packets received, scaled"),
                column("packets_out", ColumnType::U64, "packets", Layout::Delta, false, "packets sent, scaled"),
                column("flows", ColumnType::U64, "flows", Layout::Delta, false, $flows),
                column("samples", ColumnType::U64, "packets", Layout::Delta, false, "unscaled packets behind the volume"),
            ],
        };
    };
}

rollup!(USAGE_1H, "usage_1h", "hour_start", "service", sort ["service"] "hour_start", "start of the hour, UTC",
    "the counts of `usage_5m` together: a flow counts once in each window that it has a share in",
    column("service", ColumnType::U32, "", Layout::Dictionary, true, "service, 0 = not attributed"),
);
rollup!(INTERFACE_5M INTERFACE_1H, "interface", "exporter and interface", sort ["exporter", "if_index", "boundary"],
    column("exporter", ColumnType::Address, "", Layout::Dictionary, true, "address the datagrams came from (sFlow: agent address)"),
    column("if_index", ColumnType::U32, "", Layout::Dictionary, true, "SNMP index of the interface that faces the other network: the input of what was received, the output of what was sent; 0 = not reported"),
    column("boundary", ColumnType::U8, "", Layout::Dictionary, true, "what it faces: 0 unknown, 1 external, 2 internal"),
);
rollup!(PORT_5M PORT_1H, "port", "protocol and port", sort ["ip_protocol", "port"],
    column("ip_protocol", ColumnType::U8, "", Layout::Dictionary, true, "IP protocol number"),
    column("port", ColumnType::U32, "", Layout::Delta, true, "the lower of both ports, which is the one of the application; 0 where there are none or both are 32768 or more; 65536 = what the smaller ports of this protocol make together, where a window has more than 4,096"),
);
rollup!(AS_5M AS_1H, "as", "pair of autonomous systems", sort ["src_as", "dst_as"],
    column("src_as", ColumnType::U32, "", Layout::Dictionary, true, "source autonomous system, the remote one of what was received; 0 = not reported; 4294967295 (in both) = what the smaller pairs make together, where a window has more than 4,096"),
    column("dst_as", ColumnType::U32, "", Layout::Dictionary, true, "destination autonomous system, the remote one of what was sent"),
);

/// Interface counters as exporters report them in sFlow counter samples, and as they answer by SNMP.
#[rustfmt::skip] // a row of the table is a line
pub const COUNTERS: TableDef = TableDef {
    name: "counters",
    doc: "Interface counters as the exporter reported them (sFlow generic interface counters, or read by SNMP; RFC 2863 meaning). Counters wrap and restart.",
    time_column: "received_at",
    sort: &["exporter", "if_index", "received_at"],
    format: 1,
    computed: false,
    columns: &[
        column("received_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, "when the datagram or the answer arrived"),
        column("exporter", ColumnType::Address, "", Layout::Dictionary, true, "agent address; by SNMP the exporter's"),
        column("observation_domain", ColumnType::U32, "", Layout::Dictionary, true, "sFlow sub-agent; 4294967295 = read by SNMP"),
        column("if_index", ColumnType::U32, "", Layout::Dictionary, true, "SNMP index of the interface"),
        column("if_type", ColumnType::U32, "", Layout::Dictionary, false, "IANA interface type"),
        column("speed_bps", ColumnType::U64, "bit/s", Layout::Dictionary, false, "interface speed"),
        column("duplex", ColumnType::U32, "", Layout::Dictionary, false, "0 unknown, 1 full, 2 half, 3 in, 4 out"),
        column("status", ColumnType::U32, "", Layout::Dictionary, false, "bit 0 administratively up, bit 1 operationally up"),
        column("in_bytes", ColumnType::U64, "bytes", Layout::Delta, false, "layer-2 bytes received since the counter started"),
        column("in_unicast_packets", ColumnType::U64, "packets", Layout::Delta, false, "unicast packets received"),
        column("in_multicast_packets", ColumnType::U64, "packets", Layout::Delta, false, "multicast packets received"),
        column("in_broadcast_packets", ColumnType::U64, "packets", Layout::Delta, false, "broadcast packets received"),
        column("in_discards", ColumnType::U64, "packets", Layout::Delta, false, "received packets discarded"),
        column("in_errors", ColumnType::U64, "packets", Layout::Delta, false, "received packets with errors"),
        column("out_bytes", ColumnType::U64, "bytes", Layout::Delta, false, "layer-2 bytes sent since the counter started"),
        column("out_unicast_packets", ColumnType::U64, "packets", Layout::Delta, false, "unicast packets sent"),
        column("out_multicast_packets", ColumnType::U64, "packets", Layout::Delta, false, "multicast packets sent"),
        column("out_broadcast_packets", ColumnType::U64, "packets", Layout::Delta, false, "broadcast packets sent"),
        column("out_discards", ColumnType::U64, "packets", Layout::Delta, false, "packets to send discarded"),
        column("out_errors", ColumnType::U64, "packets", Layout::Delta, false, "packets to send with errors"),
    ],
};

/// What the collector counted, per 5-minute window, exporter, domain, protocol and counter (F2). It also tells when an
/// exporter was heard: a window with `datagrams` > 0 was measured.
#[rustfmt::skip] // a row of the table is a line
pub const COLLECTION_5M: TableDef = TableDef {
    name: "collection_5m",
    doc: "Everything that arrived, counted by exporter and cause. Sums of `value` over the rows; several rows of one key may exist.",
    time_column: "window_start",
    sort: &["exporter", "window_start"],
    format: 1,
    computed: false,
    columns: &[
        column("window_start", ColumnType::Instant, "UTC ms", Layout::Delta, true, "start of the 5-minute window of arrival"),
        column("exporter", ColumnType::Address, "", Layout::Dictionary, true, "exporter; :: where the datagram never reached us (kernel drops)"),
        column("observation_domain", ColumnType::U32, "", Layout::Dictionary, false, "observation domain, 0 where not known"),
        column("protocol_version", ColumnType::U8, "", Layout::Dictionary, false, "as in flows; 0 where not known"),
        column("counter", ColumnType::Name, "", Layout::Dictionary, false, "name of the counter, for example `datagrams` or `records_rejected.length`"),
        column("value", ColumnType::U64, "", Layout::Delta, false, "how many in this window"),
    ],
};

/// What flows say of an interface beside what its own counters say, by hour: the truth check. Computed from [`FLOWS`] and
/// [`COUNTERS`]; an interface without counter samples in the hour has no row.
#[rustfmt::skip] // a row of the table is a line
pub const TRUTH_1H: TableDef = TableDef {
    name: "truth_1h",
    doc: "Flows compared with the interface's own counters, per hour, interface and direction (docs/metering.md, Counter reconciliation). Both volumes are layer 2.",
    time_column: "hour_start",
    sort: &["exporter", "if_index", "direction", "hour_start"],
    format: 1,
    computed: true,
    columns: &[
        column("hour_start", ColumnType::Instant, "UTC ms", Layout::Delta, true, "start of the hour, UTC"),
        column("exporter", ColumnType::Address, "", Layout::Dictionary, true, "exporter; for sFlow the agent address"),
        column("if_index", ColumnType::U32, "", Layout::Delta, true, "SNMP index of the interface"),
        column("direction", ColumnType::U8, "", Layout::Dictionary, false, "0 received by the interface, 1 sent"),
        column("covered_ms", ColumnType::U32, "ms", Layout::Delta, false, "time between counter samples that is compared; the rest of the hour has gaps or a counter that restarted"),
        column("counter_bytes", ColumnType::U64, "bytes", Layout::Delta, false, "increase of the counter over that time"),
        column("metered_bytes", ColumnType::U64, "bytes", Layout::Delta, false, "what the flows of that time make on the wire: scaled bytes and layer-2 overhead"),
        column("bytes_scaled", ColumnType::U64, "bytes", Layout::Delta, false, "the same flows at layer 3"),
        column("samples", ColumnType::U64, "packets", Layout::Delta, false, "unscaled packets behind them"),
        column("sampling_rate", ColumnType::U32, "packets", Layout::Dictionary, false, "largest sampling rate among them, 0 = no flows"),
        column("ratio_ppm", ColumnType::U32, "ppm", Layout::Delta, false, "metered_bytes / counter_bytes; the largest value means more than that, or a counter that did not move"),
        column("bound_ppm", ColumnType::U32, "ppm", Layout::Delta, false, "sampling error of metered_bytes, 99 of 100 cases; 0 = every packet was counted"),
        column("verdict", ColumnType::Name, "", Layout::Dictionary, false, "agrees, mismatch, not_sampled, partly_sampled, rate_unknown, too_few_samples, too_short or no_counter"),
        column("guess", ColumnType::Name, "", Layout::Dictionary, false, "what a mismatch may come from, as a question; empty otherwise"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        for table in TABLES {
            assert!(
                table.index_of(table.time_column).is_some(),
                "{}: time column",
                table.name
            );
            for name in table.sort {
                assert!(table.index_of(name).is_some(), "{}: sort column {name}", table.name);
            }
            let mut names: Vec<_> = table.columns.iter().map(|c| c.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(
                names.len(),
                table.columns.len(),
                "{}: column names are unique",
                table.name
            );
            assert!(table.clickhouse_ddl().contains(table.name));
        }
    }

    #[test]
    fn changed_columns_come_with_a_new_format() {
        let found = TABLES.map(|def| {
            let columns = def.columns.iter();
            let text: String = columns
                .map(|column| format!("{} {:?}\n", column.name, column.kind))
                .collect();
            let sum = crc32fast::hash(text.as_bytes());
            (def.name, def.format, def.columns.len(), sum)
        });
        let known = [
            ("flows", 1, 38, 0x7315_8809),
            ("usage_5m", 1, 9, 0x3103_f2a7),
            ("usage_1h", 1, 8, 0x978e_6e99),
            ("interface_5m", 1, 10, 0xa379_cf7b),
            ("interface_1h", 1, 10, 0x4f2b_0488),
            ("port_5m", 1, 9, 0x38d0_a92a),
            ("port_1h", 1, 9, 0x32cc_695f),
            ("as_5m", 1, 9, 0xe655_109d),
            ("as_1h", 1, 9, 0xe466_fccc),
            ("counters", 1, 20, 0xa3b5_5999),
            ("collection_5m", 1, 6, 0xfbdf_758d),
            ("truth_1h", 1, 14, 0xdb9e_2c89),
        ];
        assert_eq!(
            found, known,
            "the columns of a table changed: raise its format by one, so that older programs refuse its files, and note here \
             what is new"
        );
    }

    /// The documentation is the definition: `docs/tables.md` must be what the definitions say.
    #[test]
    fn documentation_matches_the_definitions() {
        let mut expected = String::from(
            "# Stored tables\n\nDerived from `tables/src/flow/mod.rs` and `tables/src/definitions.rs`.\n\n",
        );
        for table in TABLES {
            expected.push_str(&table.markdown());
            expected.push('\n');
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tables.md");
        if std::env::var_os("EZSCALE_UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).expect("docs/tables.md can be written");
        }
        let actual = std::fs::read_to_string(path).expect("docs/tables.md exists");
        assert!(
            actual == expected,
            "docs/tables.md is stale: run with EZSCALE_UPDATE_DOCS=1 to write it anew"
        );
    }
}
