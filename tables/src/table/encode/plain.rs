//! PLAIN: the values one after the other, as Parquet's types have them. Numbers are little-endian.

/// Columns of up to 32 bits as INT32.
pub(super) fn u32s<T: Copy + Into<u32>>(values: &[T], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(values.len() * size_of::<u32>());
    for value in values {
        out.extend_from_slice(&(*value).into().to_le_bytes());
    }
}

/// As INT64.
pub(super) fn u64s(values: &[u64], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(size_of_val(values));
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}
