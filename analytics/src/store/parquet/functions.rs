//! SQL functions: for addresses, which are stored as 16 bytes with IPv4 mapped into IPv6, and for volume.
//!
//! * `addr('192.0.2.1')`: the 16 bytes; text that is no address is an error.
//! * `addr_text(column)`: the address as people write it.
//! * `in_prefix(column, '192.0.2.0/24')`: whether the address lies in the prefix.
//! * `scaled(bytes, sampling_rate, sampling_divisor)`: the volume, as everything that is billed computes it.
//!
//! [`AddressLiterals`] lets an address column be compared with text directly: `src_addr = '192.0.2.1'`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringBuilder, UInt64Array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, UInt32Type, UInt64Type};
use datafusion::common::{DFSchema, DataFusionError, exec_err, plan_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::{Expr, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use schemas::address::Address;
use schemas::sampling::scaled;

const ADDRESS: DataType = DataType::FixedSizeBinary(16);

pub(super) fn all() -> [ScalarUDF; 4] {
    [
        ScalarUDF::from(AddressFunction::new(Kind::Parse)),
        ScalarUDF::from(AddressFunction::new(Kind::Text)),
        ScalarUDF::from(AddressFunction::new(Kind::InPrefix)),
        ScalarUDF::from(Scaled::new()),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Parse,
    Text,
    InPrefix,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct AddressFunction {
    kind: Kind,
    signature: Signature,
}

impl AddressFunction {
    fn new(kind: Kind) -> AddressFunction {
        let arguments = match kind {
            Kind::Parse => vec![DataType::Utf8],
            Kind::Text => vec![ADDRESS],
            Kind::InPrefix => vec![ADDRESS, DataType::Utf8],
        };
        AddressFunction {
            kind,
            signature: Signature::exact(arguments, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for AddressFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Parse => "addr",
            Kind::Text => "addr_text",
            Kind::InPrefix => "in_prefix",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match self.kind {
            Kind::Parse => ADDRESS,
            Kind::Text => DataType::Utf8,
            Kind::InPrefix => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        // A call whose arguments are all literals is worked out once and stays a literal.
        let constant = call.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { call.number_rows };
        let result: ArrayRef = match (self.kind, call.args.as_slice()) {
            (Kind::Parse, [text]) => parse(&text.to_array(rows)?)?,
            (Kind::Text, [addresses]) => text_of(addresses.to_array(rows)?.as_fixed_size_binary()),
            (Kind::InPrefix, [addresses, prefix]) => {
                in_prefix(addresses.to_array(rows)?.as_fixed_size_binary(), prefix, rows)?
            }
            _ => return exec_err!("{}: wrong number of arguments", self.name()),
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// [`schemas::sampling::scaled`] of columns.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Scaled {
    signature: Signature,
}

impl Scaled {
    fn new() -> Scaled {
        let arguments = vec![DataType::UInt64, DataType::UInt32, DataType::UInt32];
        Scaled {
            signature: Signature::exact(arguments, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        "scaled"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::UInt64)
    }

    /// Null where an argument is, and only there: rankings by volume are of numbers that are never null.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), DataType::UInt64, nullable)))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [amount, rate, divisor] = call.args.as_slice() else {
            return exec_err!("scaled: wrong number of arguments");
        };
        let rows = call.number_rows;
        let (amount, rate, divisor) = (amount.to_array(rows)?, rate.to_array(rows)?, divisor.to_array(rows)?);
        let nulls = NullBuffer::union(
            NullBuffer::union(amount.nulls(), rate.nulls()).as_ref(),
            divisor.nulls(),
        );
        let (amount, rate, divisor) = (
            amount.as_primitive::<UInt64Type>().values(),
            rate.as_primitive::<UInt32Type>().values(),
            divisor.as_primitive::<UInt32Type>().values(),
        );
        let volume: ScalarBuffer<u64> = amount
            .iter()
            .zip(rate)
            .zip(divisor)
            .map(|((amount, rate), divisor)| scaled(*amount, *rate, *divisor))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::new(volume, nulls))))
    }
}

fn parse(text: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let mut addresses = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
    for value in text.as_string::<i32>() {
        match value {
            Some(value) => addresses.append_value(parse_address(value)?.0)?,
            None => addresses.append_null(),
        }
    }
    Ok(Arc::new(addresses.finish()))
}

fn text_of(addresses: &FixedSizeBinaryArray) -> ArrayRef {
    let mut text = StringBuilder::with_capacity(addresses.len(), addresses.len() * 16);
    for value in addresses {
        match value.and_then(Address::from_slice) {
            Some(address) => text.append_value(address.to_string()),
            None => text.append_null(),
        }
    }
    Arc::new(text.finish())
}

fn in_prefix(
    addresses: &FixedSizeBinaryArray,
    prefix: &ColumnarValue,
    rows: usize,
) -> Result<ArrayRef, DataFusionError> {
    let inside = |value: Option<&[u8]>, prefix: Prefix| {
        value
            .and_then(Address::from_slice)
            .map(|address| prefix.contains(address))
    };
    if let ColumnarValue::Scalar(prefix) = prefix {
        let prefix = prefix.try_as_str().flatten().map(Prefix::parse).transpose()?;
        let result = addresses
            .iter()
            .map(|value| prefix.and_then(|prefix| inside(value, prefix)));
        return Ok(Arc::new(result.collect::<BooleanArray>()));
    }
    let prefixes = prefix.to_array(rows)?;
    let mut result = Vec::with_capacity(rows);
    for (value, prefix) in addresses.iter().zip(prefixes.as_string::<i32>()) {
        let prefix = prefix.map(Prefix::parse).transpose()?;
        result.push(prefix.and_then(|prefix| inside(value, prefix)));
    }
    Ok(Arc::new(BooleanArray::from(result)))
}

fn parse_address(text: &str) -> Result<Address, DataFusionError> {
    match text.trim().parse() {
        Ok(address) => Ok(address),
        Err(_) => exec_err!("{text:?} is not an IP address"),
    }
}

/// A prefix over the 128-bit form; an IPv4 prefix of n bits is a mapped one of n + 96.
#[derive(Clone, Copy)]
struct Prefix {
    network: u128,
    mask: u128,
}

impl Prefix {
    fn parse(text: &str) -> Result<Prefix, DataFusionError> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (parse_address(address)?, Some(bits)),
            None => (parse_address(text)?, None),
        };
        let family_bits = if address.is_v4() { 32 } else { 128 };
        let bits = match bits.map(str::parse::<u32>) {
            None => family_bits,
            Some(Ok(bits)) if bits <= family_bits => bits,
            Some(_) => return exec_err!("{text:?} is not a prefix: its length is between 0 and {family_bits}"),
        };
        let host_bits = family_bits - bits;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Prefix {
            network: address.to_u128() & mask,
            mask,
        })
    }

    fn contains(self, address: Address) -> bool {
        address.to_u128() & self.mask == self.network
    }
}

/// Reads text compared with an address column as an address.
#[derive(Debug)]
pub(super) struct AddressLiterals;

impl ExprPlanner for AddressLiterals {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>, DataFusionError> {
        let comparison = matches!(
            expr.op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        if !comparison {
            return Ok(PlannerResult::Original(expr));
        }
        let is_address = |side: &Expr| side.get_type(schema).is_ok_and(|kind| kind == ADDRESS);
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match (literal_text(&left), literal_text(&right)) {
            (None, Some(text)) if is_address(&left) => (left, address_literal(&text)?),
            (Some(text), None) if is_address(&right) => (address_literal(&text)?, right),
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        let planned = match op {
            BinaryOperator::Eq => left.eq(right),
            BinaryOperator::NotEq => left.not_eq(right),
            BinaryOperator::Lt => left.lt(right),
            BinaryOperator::LtEq => left.lt_eq(right),
            BinaryOperator::Gt => left.gt(right),
            _ => left.gt_eq(right),
        };
        Ok(PlannerResult::Planned(planned))
    }
}

fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

fn address_literal(text: &str) -> Result<Expr, DataFusionError> {
    match text.trim().parse::<Address>() {
        Ok(address) => Ok(lit(ScalarValue::FixedSizeBinary(16, Some(address.0.to_vec())))),
        Err(_) => plan_err!("{text:?} is not an IP address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(prefix: &str, address: &str) -> bool {
        Prefix::parse(prefix).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn prefixes_of_both_families() {
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"), "an IPv4 prefix holds IPv4 only");
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(contains("::/0", "192.0.2.1"), "mapped addresses are IPv6 addresses too");
        for bad in ["192.0.2.0/33", "2001:db8::/129", "192.0.2/24", "192.0.2.0/-1", ""] {
            assert!(Prefix::parse(bad).is_err(), "{bad}");
        }
    }
}
