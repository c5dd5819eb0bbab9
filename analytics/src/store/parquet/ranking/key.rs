//! Keys of several columns as words of 64 bits.
//!
//! Columns lie one after the other, the next word beginning where one does not fit; what no column needs is zero:
//!
//! ```text
//! GROUP BY src_addr, dst_port, ip_protocol     word 0, 1: the address     word 2: 0 … | protocol | port
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, TimeUnit, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{DataFusionError, internal_err};

/// Where a key's columns lie in its words.
#[derive(Clone, Debug)]
pub(super) struct KeyLayout {
    columns: Vec<Place>,
    pub(super) words: usize,
}

#[derive(Clone, Debug)]
struct Place {
    kind: DataType,
    word: usize,
    shift: u32,
}

/// The values of one column of the keys, and where they go.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyValues<'a> {
    values: Values<'a>,
    word: usize,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    I64(&'a [i64]),
    Number(&'a [i128]),
}

impl KeyLayout {
    /// `None` when a column's type is not one of these.
    pub(super) fn of(kinds: impl IntoIterator<Item = DataType>) -> Option<KeyLayout> {
        let (mut word, mut used_bits) = (0, 0);
        let mut columns = Vec::new();
        for kind in kinds {
            let bits = match &kind {
                DataType::UInt8 => u8::BITS,
                DataType::UInt16 => u16::BITS,
                DataType::UInt32 => u32::BITS,
                DataType::UInt64 | DataType::Timestamp(TimeUnit::Millisecond, _) => u64::BITS,
                DataType::Decimal128(..) => u128::BITS,
                _ => return None,
            };
            if used_bits + bits > u64::BITS && used_bits > 0 {
                (word, used_bits) = (word + 1, 0);
            }
            columns.push(Place {
                kind,
                word,
                shift: used_bits,
            });
            used_bits += bits;
            while used_bits > u64::BITS {
                (word, used_bits) = (word + 1, used_bits - u64::BITS);
            }
        }
        Some(KeyLayout {
            words: word + usize::from(!columns.is_empty()),
            columns,
        })
    }

    /// What the arrays hold for keys.
    pub(super) fn values<'a>(&self, arrays: &'a [ArrayRef]) -> Result<Vec<KeyValues<'a>>, DataFusionError> {
        let mut all = Vec::with_capacity(arrays.len());
        for (Place { kind, word, shift }, array) in self.columns.iter().zip(arrays) {
            if array.data_type() != kind || array.null_count() > 0 {
                return internal_err!(
                    "a key is {} with {} nulls, not {kind}",
                    array.data_type(),
                    array.null_count()
                );
            }
            let values = match kind {
                DataType::UInt8 => Values::U8(array.as_primitive::<UInt8Type>().values()),
                DataType::UInt16 => Values::U16(array.as_primitive::<UInt16Type>().values()),
                DataType::UInt32 => Values::U32(array.as_primitive::<UInt32Type>().values()),
                DataType::UInt64 => Values::U64(array.as_primitive::<UInt64Type>().values()),
                DataType::Decimal128(..) => Values::Number(array.as_primitive::<Decimal128Type>().values()),
                _ => Values::I64(array.as_primitive::<TimestampMillisecondType>().values()),
            };
            all.push(KeyValues {
                values,
                word: *word,
                shift: *shift,
            });
        }
        Ok(all)
    }

    /// The keys' columns again, from their words.
    pub(super) fn arrays(&self, words: &[Vec<u64>]) -> Vec<ArrayRef> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for Place { kind, word, shift } in &self.columns {
            let bits = words[*word].iter().map(|bits| bits >> shift);
            arrays.push(match kind {
                DataType::UInt8 => Arc::new(UInt8Array::from_iter_values(bits.map(|bits| bits as u8))),
                DataType::UInt16 => Arc::new(UInt16Array::from_iter_values(bits.map(|bits| bits as u16))),
                DataType::UInt32 => Arc::new(UInt32Array::from_iter_values(bits.map(|bits| bits as u32))),
                DataType::UInt64 => Arc::new(UInt64Array::from_iter_values(bits)),
                DataType::Decimal128(..) => {
                    let numbers = words[*word].iter().zip(&words[word + 1]);
                    let numbers = numbers.map(|(low, high)| (u128::from(*high) << 64 | u128::from(*low)).cast_signed());
                    Arc::new(Decimal128Array::from_iter_values(numbers).with_data_type(kind.clone()))
                }
                _ => {
                    let instants = TimestampMillisecondArray::from_iter_values(bits.map(u64::cast_signed));
                    Arc::new(instants.with_data_type(kind.clone()))
                }
            });
        }
        arrays
    }
}

/// Makes a key of each row.
pub(super) fn pack<const W: usize>(rows: usize, columns: &[KeyValues<'_>], keys: &mut Vec<[u64; W]>) {
    keys.clear();
    keys.resize(rows, [0; W]);
    for KeyValues { values, word, shift } in columns {
        fn or<const W: usize, T: Copy>(keys: &mut [[u64; W]], word: usize, values: &[T], bits: impl Fn(T) -> u64) {
            for (key, value) in keys.iter_mut().zip(values) {
                key[word] |= bits(*value);
            }
        }
        match values {
            Values::U8(values) => or(keys, *word, values, |value| u64::from(value) << shift),
            Values::U16(values) => or(keys, *word, values, |value| u64::from(value) << shift),
            Values::U32(values) => or(keys, *word, values, |value| u64::from(value) << shift),
            Values::U64(values) => or(keys, *word, values, |value| value),
            Values::I64(values) => or(keys, *word, values, i64::cast_unsigned),
            Values::Number(values) => {
                for (key, value) in keys.iter_mut().zip(*values) {
                    key[*word] = *value as u64;
                    key[*word + 1] = (*value >> 64) as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_from_words() {
        let instants = TimestampMillisecondArray::from(vec![-1, i64::MAX]).with_timezone("UTC");
        let number = Decimal128Array::from(vec![i128::MIN, 7]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt8Array::from(vec![1, 255])),
            Arc::new(UInt32Array::from(vec![2, u32::MAX])),
            Arc::new(number),
            Arc::new(UInt16Array::from(vec![3, u16::MAX])),
            Arc::new(instants),
            Arc::new(UInt64Array::from(vec![4, u64::MAX])),
        ];
        for columns in [&columns[..], &columns[..2], &columns[2..3], &columns[3..]] {
            let layout = KeyLayout::of(columns.iter().map(|column| column.data_type().clone())).unwrap();
            let mut keys: Vec<[u64; 6]> = Vec::new();
            pack(2, &layout.values(columns).unwrap(), &mut keys);
            let words: Vec<Vec<u64>> = (0..layout.words)
                .map(|word| keys.iter().map(|key| key[word]).collect())
                .collect();
            assert_eq!(layout.arrays(&words), columns);
            assert!(keys.iter().all(|key| key[layout.words..].iter().all(|word| *word == 0)));
        }
        assert_eq!(
            KeyLayout::of([DataType::UInt8, DataType::UInt32]).unwrap().words,
            1,
            "side by side"
        );
        assert!(KeyLayout::of([DataType::Utf8]).is_none());
    }

    #[test]
    fn a_key_of_another_type_is_an_error() {
        let layout = KeyLayout::of([DataType::UInt8]).unwrap();
        let other: ArrayRef = Arc::new(UInt16Array::from(vec![1]));
        assert!(layout.values(&[other]).is_err());
        let null: ArrayRef = Arc::new(UInt8Array::from(vec![None, Some(1)]));
        assert!(layout.values(&[null]).is_err());
    }
}
