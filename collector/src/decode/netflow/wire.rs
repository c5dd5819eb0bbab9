//! Reading big-endian numbers that may be cut off.

/// A 16-bit number at `offset`.
#[inline]
pub(super) fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset + 2)?;
    Some(u16::from_be_bytes([field[0], field[1]]))
}

/// A 32-bit number at `offset`.
#[inline]
pub(super) fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    Some(u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
}

/// An unsigned integer of 1 to 8 bytes (reduced-size encoding, RFC 7011 §6.2); other lengths read as 0.
#[inline]
pub(super) fn unsigned(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_be_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ if bytes.len() < 8 => bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)),
        _ => 0,
    }
}
