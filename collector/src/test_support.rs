//! Datagrams made by hand, for tests.

use schemas::address::Address;

/// The exporter that they come from.
pub(crate) fn source() -> Address {
    Address::from_v4([198, 51, 100, 7])
}

/// A NetFlow v5 datagram with one record per (bytes, packets).
pub(crate) fn v5_datagram(flow_sequence: u32, records: &[(u32, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&5u16.to_be_bytes());
    payload.extend_from_slice(&(records.len() as u16).to_be_bytes());
    payload.extend_from_slice(&100_000u32.to_be_bytes());
    payload.extend_from_slice(&1_700_000_000u32.to_be_bytes());
    payload.extend_from_slice(&0u32.to_be_bytes());
    payload.extend_from_slice(&flow_sequence.to_be_bytes());
    payload.extend_from_slice(&[0, 0, 0, 0]);
    for (bytes, packets) in records {
        let mut record = [0u8; 48];
        record[..4].copy_from_slice(&[192, 0, 2, 1]);
        record[4..8].copy_from_slice(&[203, 0, 113, 9]);
        record[12..14].copy_from_slice(&1u16.to_be_bytes());
        record[14..16].copy_from_slice(&2u16.to_be_bytes());
        record[16..20].copy_from_slice(&packets.to_be_bytes());
        record[20..24].copy_from_slice(&bytes.to_be_bytes());
        record[24..28].copy_from_slice(&99_000u32.to_be_bytes());
        record[28..32].copy_from_slice(&99_500u32.to_be_bytes());
        record[38] = 17;
        payload.extend_from_slice(&record);
    }
    payload
}
