//! Grouping by addresses as numbers.
//!
//! DataFusion has hash tables for numbers, and for 16 fixed bytes only its general one, which copies every key into a row
//! of its own first: that costs more than all else in a ranking of talkers. [`GroupAddressesAsNumbers`] hands aggregations
//! the same 16 bytes as a 128-bit number and turns the groups back into addresses:
//!
//! ```text
//! Aggregate by src_addr    →    Projection address_of(key) AS src_addr
//!                                 Aggregate by key = number_of(src_addr)
//! ```
//!
//! The number is the bytes as the machine holds them: good for being equal, meaningless in order, never seen by a query.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, FixedSizeBinaryArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, exec_err};
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

const ADDRESS_BYTES: usize = 16;
const ADDRESS: DataType = DataType::FixedSizeBinary(ADDRESS_BYTES as i32);
const NUMBER: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// Lets aggregations group addresses as numbers.
#[derive(Debug)]
pub(super) struct GroupAddressesAsNumbers {
    number_of: Arc<ScalarUDF>,
    address_of: Arc<ScalarUDF>,
}

impl GroupAddressesAsNumbers {
    pub(super) fn new() -> GroupAddressesAsNumbers {
        let function = |to| Arc::new(ScalarUDF::from(Reinterpret::new(to)));
        GroupAddressesAsNumbers {
            number_of: function(CastTarget::Number),
            address_of: function(CastTarget::Address),
        }
    }
}

impl OptimizerRule for GroupAddressesAsNumbers {
    fn name(&self) -> &'static str {
        "group_addresses_as_numbers"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let LogicalPlan::Aggregate(aggregate) = plan else {
            return Ok(Transformed::no(plan));
        };
        let mut addresses = Vec::with_capacity(aggregate.group_expr.len());
        for expr in &aggregate.group_expr {
            // With several grouping sets there is more to a group than its expressions.
            let grouping_sets = matches!(expr, Expr::GroupingSet(_));
            addresses.push(!grouping_sets && expr.get_type(aggregate.input.schema())? == ADDRESS);
        }
        if !addresses.contains(&true) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }

        let keys = aggregate.group_expr.into_iter().zip(&addresses);
        let keys = keys.map(|(expr, is_address)| match is_address {
            true => self.number_of.call(vec![expr.unalias()]),
            false => expr,
        });
        let by_number = Aggregate::try_new(aggregate.input, keys.collect(), aggregate.aggr_expr)?;
        let fields = aggregate.schema.iter().zip(by_number.schema.iter()).enumerate();
        let columns = fields.map(|(index, ((qualifier, field), (by_qualifier, by_field)))| {
            let column = Expr::Column(Column::from((by_qualifier, by_field)));
            match addresses.get(index) {
                Some(true) => self
                    .address_of
                    .call(vec![column])
                    .alias_qualified(qualifier.cloned(), field.name()),
                _ => column,
            }
        });
        let columns = columns.collect();
        let projection = Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(by_number)))?;
        Ok(Transformed::yes(LogicalPlan::Projection(projection)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum CastTarget {
    Number,
    Address,
}

impl CastTarget {
    fn data_type(self) -> DataType {
        match self {
            CastTarget::Number => NUMBER,
            CastTarget::Address => ADDRESS,
        }
    }
}

/// The same 16 bytes as another type.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Reinterpret {
    to: CastTarget,
    signature: Signature,
}

impl Reinterpret {
    fn new(to: CastTarget) -> Reinterpret {
        let from = match to {
            CastTarget::Number => ADDRESS,
            CastTarget::Address => NUMBER,
        };
        Reinterpret {
            to,
            signature: Signature::exact(vec![from], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Reinterpret {
    fn name(&self) -> &str {
        match self.to {
            CastTarget::Number => "number_of",
            CastTarget::Address => "address_of",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.to.data_type())
    }

    /// Null where the argument is.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.to.data_type(), nullable)))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [values] = call.args.as_slice() else {
            return exec_err!("{}: wrong number of arguments", self.name());
        };
        let values = values.to_array(call.number_rows)?;
        let result: ArrayRef = match self.to {
            CastTarget::Number => Arc::new(numbers(values.as_fixed_size_binary())?),
            CastTarget::Address => Arc::new(addresses(values.as_primitive::<Decimal128Type>())?),
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn numbers(addresses: &FixedSizeBinaryArray) -> Result<Decimal128Array, DataFusionError> {
    let bytes = addresses.value_data();
    let (chunks, _) = bytes.as_chunks::<ADDRESS_BYTES>();
    let numbers: ScalarBuffer<i128> = chunks.iter().map(|chunk| i128::from_ne_bytes(*chunk)).collect();
    let numbers = Decimal128Array::new(numbers, addresses.nulls().cloned());
    Ok(numbers.with_data_type(NUMBER))
}

fn addresses(numbers: &Decimal128Array) -> Result<FixedSizeBinaryArray, DataFusionError> {
    let bytes: Buffer = numbers.values().inner().clone();
    Ok(FixedSizeBinaryArray::try_new(
        ADDRESS_BYTES as i32,
        bytes,
        numbers.nulls().cloned(),
    )?)
}
