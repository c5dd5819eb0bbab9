//! What each column of `flows` costs to encode, in nanoseconds and bytes a value.
use arrow::array::RecordBatch;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::file::writer::SerializedFileWriter;
use schemas::address::Address;
use schemas::flow::{FLOWS, Flow, FlowColumns};
use schemas::table::{Encoder, ROW_GROUP_ROWS};

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.next()) * u128::from(n) >> 64) as u64
    }
    fn zipf(&mut self, n: u64) -> u64 {
        let u = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((n as f64).powf(u) - 1.0) as u64
    }
}

fn flows(n: usize) -> Vec<Flow> {
    let mut rng = Rng(88172645463325252);
    let t0 = 1_767_225_600_000i64;
    (0..n)
        .map(|i| {
            let at = t0 + (i / 1000) as i64;
            let out = rng.below(2) == 0;
            let own = Address::from_v4((0x0a00_0000u32 + rng.zipf(100_000) as u32 * 7).to_be_bytes());
            let peer_n = rng.zipf(4_000_000) as u32;
            let peer =
                Address::from_v4((0x2000_0000u32.wrapping_add(peer_n.wrapping_mul(2654435761) >> 3)).to_be_bytes());
            let service_port = [443u16, 80, 443, 443, 53, 22, 25565, 3306][rng.below(8) as usize];
            let client = 32768 + rng.below(28000) as u16;
            let packets = 1 + rng.zipf(500);
            let bytes = packets * (40 + rng.below(1460));
            let duration = rng.zipf(60_000) as i64;
            let end = at - 1 - rng.below(15_000) as i64;
            let asn = (peer_n.wrapping_mul(40503) >> 12) % 5_000;
            Flow {
                received_at_ms: at,
                start_at_ms: end - duration,
                end_at_ms: end,
                exporter: Address::from_v4([198, 51, 100, 1]),
                observation_domain: 1,
                protocol_version: 10,
                sampling_rate: 1000,
                in_if: 512 + rng.below(4) as u32,
                out_if: 520 + rng.below(24) as u32,
                direction: 0,
                src_addr: if out { own } else { peer },
                dst_addr: if out { peer } else { own },
                src_port: if out { service_port } else { client },
                dst_port: if out { client } else { service_port },
                ip_protocol: [6, 6, 6, 17][rng.below(4) as usize],
                tcp_flags: [0x1b, 0x1b, 0x10, 0x18, 0x02][rng.below(5) as usize],
                tos: 0,
                next_hop: Address::from_v4([10, 255, 0, rng.below(4) as u8]),
                src_as: if out { 0 } else { asn },
                dst_as: if out { asn } else { 0 },
                src_mask: if out { 24 } else { 16 + (asn % 9) as u8 },
                dst_mask: if out { 16 + (asn % 9) as u8 } else { 24 },
                bytes,
                packets,
                src_service: if out { own.0[14] as u32 * 4 + 1 } else { 0 },
                dst_service: if out { 0 } else { own.0[14] as u32 * 4 + 1 },
                ..Flow::default()
            }
        })
        .collect()
}

fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn main() {
    let n = 1 << 20;
    let rows = flows(n);
    let per_row = |ns: u64| ns as f64 / n as f64;
    let groups: Vec<FlowColumns> = rows
        .chunks(ROW_GROUP_ROWS)
        .map(|rows| rows.iter().copied().collect())
        .collect();
    let mut encoder = Encoder::new(&FLOWS).unwrap();
    encoder.encode(&groups[0].values()).unwrap();
    let t = cpu_ns();
    let encoded: Vec<_> = groups.iter().map(|g| encoder.encode(&g.values()).unwrap()).collect();
    let total: usize = encoded.iter().flat_map(|g| g.column_bytes()).sum();
    println!(
        "ours {:.1} ns/row {:.2} B/row",
        per_row(cpu_ns() - t),
        total as f64 / n as f64
    );
    let mut variant = |name: &str, rows: &[Flow]| {
        let groups: Vec<FlowColumns> = rows
            .chunks(ROW_GROUP_ROWS)
            .map(|rows| rows.iter().copied().collect())
            .collect();
        let t = cpu_ns();
        let encoded: Vec<_> = groups.iter().map(|g| encoder.encode(&g.values()).unwrap()).collect();
        let total: usize = encoded.iter().flat_map(|g| g.column_bytes()).sum();
        println!(
            "{name} {:.1} ns/row {:.2} B/row",
            per_row(cpu_ns() - t),
            total as f64 / n as f64
        );
    };
    let mut sorted = rows.clone();
    for chunk in sorted.chunks_mut(ROW_GROUP_ROWS) {
        chunk.sort_by_key(|f| f.src_service != 0);
    }
    variant("partitioned by direction in groups", &sorted);
    sorted.sort_by_key(|f| (f.dst_service, f.src_service, f.received_at_ms));
    variant("sorted by service, 1 M", &sorted);
    sorted.sort_by_key(|f| (f.src_addr, f.dst_addr));
    variant("sorted by address, 1 M", &sorted);
    let ours: Vec<f64> = (0..FLOWS.columns.len())
        .map(|i| encoded.iter().map(|g| g.column_bytes().nth(i).unwrap()).sum::<usize>() as f64 / n as f64)
        .collect();
    let batches: Vec<RecordBatch> = groups.iter().map(|g| g.clone().into_batch()).collect();
    let properties = FLOWS.writer_properties();
    let t = cpu_ns();
    let mut w = ArrowWriter::try_new(Vec::new(), FLOWS.arrow_schema(), Some(properties.clone())).unwrap();
    for b in &batches {
        w.write(b).unwrap();
    }
    let out = w.into_inner().unwrap();
    println!(
        "ArrowWriter {:.1} ns/row {:.2} B/row",
        per_row(cpu_ns() - t),
        out.len() as f64 / n as f64
    );
    let schema = FLOWS.arrow_schema();
    let parquet_schema = ArrowSchemaConverter::new().convert(&schema).unwrap();
    let file = SerializedFileWriter::new(
        Vec::new(),
        parquet_schema.root_schema_ptr(),
        std::sync::Arc::new(properties),
    )
    .unwrap();
    let factory = ArrowRowGroupWriterFactory::new(&file, schema.clone());
    let writers = factory.create_column_writers(0).unwrap();
    for (i, mut writer) in writers.into_iter().enumerate() {
        let t = cpu_ns();
        for b in &batches {
            for leaf in compute_leaves(schema.field(i), b.column(i)).unwrap() {
                writer.write(&leaf).unwrap();
            }
        }
        let chunk = writer.close().unwrap();
        let ns = per_row(cpu_ns() - t);
        let t = cpu_ns();
        for g in &groups {
            let values = g.values();
            encoder.encode_column(i, &values[i]).unwrap();
        }
        let our_ns = per_row(cpu_ns() - t);
        println!(
            "{:20} arrow {:6.1} ns {:6.3} B   ours {:6.1} ns {:6.3} B",
            schema.field(i).name(),
            ns,
            chunk.close().bytes_written as f64 / n as f64,
            our_ns,
            ours[i]
        );
    }
}
