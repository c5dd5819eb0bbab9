//! BYTE_STREAM_SPLIT: all first bytes of the values, then all second bytes, and so on (Parquet format, "Byte Stream
//! Split"). Numbers are little-endian; streams above the largest value are zeros.

const ADDRESS_BYTES: usize = 16;

/// Columns of up to 32 bits as INT32.
pub(super) fn u32s<T: Copy + Into<u32>>(values: &[T], out: &mut Vec<u8>) {
    let rows = values.len();
    let union = values.iter().fold(0_u32, |union, value| union | (*value).into());
    out.clear();
    out.resize(rows * size_of::<u32>(), 0);
    for (significance, stream) in out.chunks_exact_mut(rows.max(1)).enumerate() {
        let shift = significance * 8;
        if union >> shift == 0 {
            break;
        }
        for (byte, value) in stream.iter_mut().zip(values) {
            *byte = ((*value).into() >> shift) as u8;
        }
    }
}

/// As INT64.
pub(super) fn u64s(values: &[u64], out: &mut Vec<u8>) {
    let rows = values.len();
    let union = values.iter().fold(0, |union, value| union | value);
    out.clear();
    out.resize(size_of_val(values), 0);
    for (significance, stream) in out.chunks_exact_mut(rows.max(1)).enumerate() {
        let shift = significance * 8;
        if union >> shift == 0 {
            break;
        }
        for (byte, value) in stream.iter_mut().zip(values) {
            *byte = (value >> shift) as u8;
        }
    }
}

/// As FIXED_LEN_BYTE_ARRAY(16). Streams that are the same in all rows, as the first twelve of IPv4 addresses are, are
/// filled at once.
pub(super) fn addresses(values: &[[u8; ADDRESS_BYTES]], out: &mut Vec<u8>) {
    let rows = values.len();
    let Some(first) = values.first() else { return };
    let first_bits = u128::from_be_bytes(*first);
    let differing = values
        .iter()
        .fold(0_u128, |union, value| {
            union | (u128::from_be_bytes(*value) ^ first_bits)
        })
        .to_be_bytes();
    out.clear();
    out.resize(rows * ADDRESS_BYTES, 0);
    for (position, stream) in out.chunks_exact_mut(rows).enumerate() {
        if differing[position] == 0 {
            stream.fill(first[position]);
            continue;
        }
        for (byte, value) in stream.iter_mut().zip(values) {
            *byte = value[position];
        }
    }
}
