//! What writing a flow costs, by writer and order: the choice that docs/decisions/006-encoding.md records.

use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use collector::simulate::encode::SimProtocol;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schemas::address::Address;
use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::MeteringConfig;
use serde::Serialize;
use tables::column::Layout;
use tables::flow::{FLOWS, Flow, FlowColumns};
use tables::metering::Enricher;
use tables::table::{Encoder, ROW_GROUP_ROWS, RowGroup};

use crate::flows::Flows;
use crate::report::{Report, progress};

/// The simulated clock at the first flow, UTC milliseconds.
const START_MS: i64 = 1_790_000_000_000;
const FLOWS_PER_MS: u64 = 100;
const FLOWS_PER_DATAGRAM: u64 = 14;
const EXPORTERS: u64 = 10;
const SAMPLING_RATE: u32 = 1_000;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct EncodeArgs {
    /// Flows to encode
    #[arg(long, default_value_t = 2_000_000)]
    encode_flows: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    writer: &'static str,
    order: &'static str,
    /// CPU nanoseconds of one thread, ordering included.
    write_ns_per_flow: f64,
    /// All columns back to Arrow.
    read_ns_per_flow: f64,
    bytes_per_flow: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    General,
    Tuned,
    Own,
    /// As compaction writes.
    OwnLasting,
}

pub(crate) fn run(args: &EncodeArgs) -> anyhow::Result<Vec<Row>> {
    progress(format_args!("encoding {} flows", args.encode_flows));
    let flows = flows(args.encode_flows)?;
    let arrival = "as they arrive";
    let mut rows = Vec::new();
    for (writer, title) in [
        (Writer::General, "parquet crate, its defaults, Zstandard 1"),
        (Writer::Tuned, "parquet crate, encodings by column"),
        (Writer::Own, "ours"),
    ] {
        rows.push(measure(writer, title, arrival, &flows, |_| {})?);
    }
    rows.push(measure(Writer::Own, "ours", "time of end", &flows, |flows| {
        flows.sort_by_key(|flow| flow.end_at_ms);
    })?);
    rows.push(measure(
        Writer::OwnLasting,
        "ours, lasting",
        "service, time",
        &flows,
        |flows| {
            flows.sort_by_key(|flow| (flow.dst_service, flow.src_service, flow.received_at_ms));
        },
    )?);
    let mut report = Report::new(2, &["writer", "order", "flows/s", "write ns", "read ns", "bytes/flow"]);
    for row in &rows {
        report.row(&[
            row.writer.to_owned(),
            row.order.to_owned(),
            format!("{:.2} M", 1e3 / row.write_ns_per_flow),
            format!("{:.0}", row.write_ns_per_flow),
            format!("{:.0}", row.read_ns_per_flow),
            format!("{:.2}", row.bytes_per_flow),
        ]);
    }
    report.print("Encoding, on one thread");
    Ok(rows)
}

/// Flows as the collector stores them: decoded, with their services.
fn flows(count: u64) -> anyhow::Result<Vec<Flow>> {
    let mut source = Flows::new(1, SimProtocol::Ipfix);
    let next = |index: u64| {
        let at_ms = START_MS + (index / FLOWS_PER_MS) as i64;
        let datagram = index / FLOWS_PER_DATAGRAM;
        let mut flow = source.next(at_ms, index.is_multiple_of(10));
        flow.exporter = Address::from_v4([198, 51, 100, (datagram % EXPORTERS) as u8]);
        flow.observation_domain = 1;
        flow.sampling_rate = SAMPLING_RATE;
        flow
    };
    let mut flows: Vec<Flow> = (0..count).map(next).collect();
    let prefixes = crate::addresses::prefixes(crate::PREFIXES)?;
    let assign = |(prefix, number): (String, u64)| -> anyhow::Result<Assignment> {
        Ok(Assignment {
            service: (1 + number % crate::addresses::SERVICES) as u32,
            target: Target::Prefix(prefix.parse()?),
            valid_from_ms: 0,
            valid_to_ms: None,
        })
    };
    let assignments = prefixes.zip(0..).map(assign).collect::<anyhow::Result<Vec<_>>>()?;
    let enricher = Enricher::new(&MeteringConfig::default(), Arc::new(Assignments::new(assignments)?));
    flows.iter_mut().for_each(|flow| enricher.enrich(flow));
    Ok(flows)
}

fn measure(
    writer: Writer,
    title: &'static str,
    order_title: &'static str,
    flows: &[Flow],
    order: impl Fn(&mut Vec<Flow>),
) -> anyhow::Result<Row> {
    let mut ordered = flows.to_vec();
    let began = cpu_ns()?;
    order(&mut ordered);
    let ordering_ns = cpu_ns()? - began;
    let groups: Vec<FlowColumns> = ordered
        .chunks(ROW_GROUP_ROWS)
        .map(|flows| flows.iter().copied().collect())
        .collect();
    let (file, write_ns) = match writer {
        Writer::Own => own(&groups, Encoder::new(&FLOWS)?)?,
        Writer::OwnLasting => own(&groups, Encoder::new(&FLOWS)?.lasting()?)?,
        Writer::General => general(&groups, zstd(WriterProperties::builder()).build())?,
        Writer::Tuned => general(&groups, tuned())?,
    };
    let bytes = file.len();
    let began = cpu_ns()?;
    let mut read_rows = 0;
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file))?
        .with_batch_size(8_192)
        .build()?
    {
        read_rows += batch?.num_rows();
    }
    let read_ns = cpu_ns()? - began;
    anyhow::ensure!(
        read_rows == flows.len(),
        "{read_rows} of {} flows were read",
        flows.len()
    );
    let per_flow = |number: u64| number as f64 / flows.len() as f64;
    Ok(Row {
        writer: title,
        order: order_title,
        write_ns_per_flow: per_flow(ordering_ns + write_ns),
        read_ns_per_flow: per_flow(read_ns),
        bytes_per_flow: per_flow(bytes as u64),
    })
}

fn own(groups: &[FlowColumns], mut encoder: Encoder) -> anyhow::Result<(Vec<u8>, u64)> {
    let began = cpu_ns()?;
    let groups = groups
        .iter()
        .map(|group| encoder.encode(&group.values()))
        .collect::<Result<Vec<RowGroup>, _>>()?;
    let file = tables::table::file_of(&FLOWS, &groups)?;
    Ok((file, cpu_ns()? - began))
}

fn general(groups: &[FlowColumns], properties: WriterProperties) -> anyhow::Result<(Vec<u8>, u64)> {
    let batches: Vec<RecordBatch> = groups.iter().map(|group| group.clone().into_batch()).collect();
    let began = cpu_ns()?;
    let mut writer = ArrowWriter::try_new(Vec::new(), FLOWS.arrow_schema(), Some(properties))?;
    for batch in &batches {
        writer.write(batch)?;
    }
    let file = writer.into_inner()?;
    Ok((file, cpu_ns()? - began))
}

fn zstd(
    properties: parquet::file::properties::WriterPropertiesBuilder,
) -> parquet::file::properties::WriterPropertiesBuilder {
    properties
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
}

/// Delta encoding for times and counters, dictionaries only for columns of few values, statistics only where a query prunes.
fn tuned() -> WriterProperties {
    let mut properties = zstd(WriterProperties::builder())
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None);
    for column in FLOWS.columns {
        let path = ColumnPath::from(column.name);
        properties = match column.layout {
            Layout::Dictionary => properties.set_column_dictionary_enabled(path.clone(), true),
            Layout::Delta => properties.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED),
            Layout::Plain => properties,
        };
        if column.statistics {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
        }
    }
    properties.build()
}

/// CPU time of this thread.
fn cpu_ns() -> anyhow::Result<u64> {
    const PATH: &str = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(PATH).context(PATH)?;
    let first = text.split_ascii_whitespace().next().context(PATH)?;
    Ok(first.parse()?)
}
