//! DELTA_BINARY_PACKED of 64-bit integers (Parquet format, "Delta Encoding").

use super::dictionary::is_one;

/// Values of a block, and of each of its miniblocks, whose widths are chosen one by one.
const BLOCK_VALUES: usize = 128;
const MINIBLOCK_VALUES: usize = 32;
const MINIBLOCKS: usize = BLOCK_VALUES / MINIBLOCK_VALUES;

/// Appends the encoded values.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    varint(BLOCK_VALUES as u64, out);
    varint(MINIBLOCKS as u64, out);
    varint(values.len() as u64, out);
    let Some(first) = values.first() else {
        zigzag(0, out);
        return;
    };
    zigzag(*first, out);
    if is_one(values) {
        // Blocks of a least delta of 0, on which nothing is put.
        let blocks = (values.len() - 1).div_ceil(BLOCK_VALUES);
        out.resize(out.len() + blocks * (1 + MINIBLOCKS), 0);
        return;
    }
    let mut deltas = [0_i64; BLOCK_VALUES];
    let mut at = 1;
    while at < values.len() {
        let count = BLOCK_VALUES.min(values.len() - at);
        let (before, after) = (&values[at - 1..at - 1 + count], &values[at..at + count]);
        let mut least = i64::MAX;
        for ((delta, before), after) in deltas.iter_mut().zip(before).zip(after) {
            *delta = after.wrapping_sub(*before);
            least = least.min(*delta);
        }
        block(&deltas[..count], least, out);
        at += count;
    }
}

fn block(deltas: &[i64], least: i64, out: &mut Vec<u8>) {
    zigzag(least, out);
    let widths_at = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    for (index, miniblock) in deltas.chunks(MINIBLOCK_VALUES).enumerate() {
        // The last miniblock is filled up with the least delta, which takes no bits of its own.
        let mut values = [0_u64; MINIBLOCK_VALUES];
        let mut union = 0;
        for (value, delta) in values.iter_mut().zip(miniblock) {
            *value = delta.wrapping_sub(least) as u64;
            union |= *value;
        }
        let width = u64::BITS - union.leading_zeros();
        out[widths_at + index] = width as u8;
        pack(&values, width, out);
    }
}

/// Packs 32 values of `width` bits, least significant bit first: `4 × width` bytes.
fn pack(values: &[u64; MINIBLOCK_VALUES], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut gathered, mut filled) = (0_u64, 0_u32);
    for value in values {
        gathered |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&gathered.to_le_bytes());
            filled -= u64::BITS;
            gathered = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    // 32 × width bits are a multiple of 32.
    if filled > 0 {
        out.extend_from_slice(&(gathered as u32).to_le_bytes());
    }
}

/// An unsigned number in as many bytes of seven bits as it needs, which is how Parquet's encodings write lengths.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)) as u64, out);
}
