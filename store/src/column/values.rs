//! Attribute values of one type in a column, and of mixed types behind a column of type codes.
//!
//! Strings and bytes are byte columns, booleans, integers and doubles are numbers, arrays and key-value lists
//! are byte columns without a dictionary of their canonical bytes (see [`crate::canonical`]). A value that was sent with nothing set
//! is a zero in an integer column, so that no value is free.

use bytes::Bytes;

use super::{Effort, FormatError, Reader, Selection, bytes as byte_column, floats, integers};
use crate::canonical;
use crate::model::AnyValue;

/// The number of types, which are coded 0 to 7 in the order of [`AnyValue`]'s variants.
pub const TYPES: u8 = 8;

/// The code of a value's type; part of the format.
pub fn type_code(value: &AnyValue) -> u8 {
    match value {
        AnyValue::Empty => 0,
        AnyValue::String(_) => 1,
        AnyValue::Bool(_) => 2,
        AnyValue::Int(_) => 3,
        AnyValue::Double(_) => 4,
        AnyValue::Bytes(_) => 5,
        AnyValue::Array(_) => 6,
        AnyValue::KeyValues(_) => 7,
    }
}

/// Appends a column of values that all have one type.
pub fn encode(out: &mut Vec<u8>, effort: Effort, values: &[&AnyValue]) {
    let Some(first) = values.first() else { return };
    let number = |value: &&AnyValue| match value {
        AnyValue::Bool(value) => i64::from(*value),
        AnyValue::Int(value) => *value,
        _ => 0,
    };
    match first {
        AnyValue::Empty | AnyValue::Bool(_) | AnyValue::Int(_) => {
            integers::encode(out, effort, values.iter().map(number));
        }
        AnyValue::Double(_) => {
            let double = |value: &&AnyValue| if let AnyValue::Double(value) = value { *value } else { 0.0 };
            floats::encode(out, effort, values.iter().map(double));
        }
        AnyValue::String(_) | AnyValue::Bytes(_) => {
            let slices: Vec<&[u8]> = values
                .iter()
                .map(|value| match value {
                    AnyValue::String(text) => text.as_bytes(),
                    AnyValue::Bytes(bytes) => bytes,
                    _ => unreachable!("all values of a typed column have its type"),
                })
                .collect();
            byte_column::encode(out, effort, &slices);
        }
        AnyValue::Array(_) | AnyValue::KeyValues(_) => {
            let mut nested = Vec::new();
            let ends: Vec<usize> = values
                .iter()
                .map(|value| {
                    canonical::put_value(&mut nested, value);
                    nested.len()
                })
                .collect();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let slices: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &nested[start..*end]).collect();
            byte_column::encode_plain(out, effort, &slices);
        }
    }
}

/// Reads the selected values of a column of the type `code`.
pub fn decode(
    reader: &mut Reader<'_>,
    code: u8,
    selection: &Selection,
) -> Result<Vec<AnyValue>, FormatError> {
    let nested = |bytes: &[u8]| {
        let mut nested = Reader::new(bytes, "nested value");
        let value = canonical::read_value(&mut nested)?;
        nested.finish()?;
        if type_code(&value) == code { Ok(value) } else { Err(FormatError::Invalid { what: "nested value" }) }
    };
    Ok(match code {
        0 => {
            let zeros = integers::decode(reader, selection)?;
            if zeros.iter().any(|zero| *zero != 0) {
                return Err(reader.invalid());
            }
            vec![AnyValue::Empty; zeros.len()]
        }
        1 => byte_column::decode_strings(reader, selection)?.into_iter().map(AnyValue::String).collect(),
        2 => {
            let bits = integers::decode_indices(reader, selection, 2)?;
            bits.into_iter().map(|bit| AnyValue::Bool(bit == 1)).collect()
        }
        3 => integers::decode(reader, selection)?.into_iter().map(AnyValue::Int).collect(),
        4 => floats::decode(reader, selection)?.into_iter().map(AnyValue::Double).collect(),
        5 => byte_column::decode_with(reader, selection, |bytes| {
            Ok(AnyValue::Bytes(Bytes::copy_from_slice(bytes)))
        })?,
        6 | 7 => byte_column::decode_plain(reader, selection, nested)?,
        _ => return Err(reader.invalid()),
    })
}

/// Appends a column of values of any types: the type codes (integers), then a column for each type.
pub fn encode_mixed(out: &mut Vec<u8>, effort: Effort, values: &[&AnyValue]) {
    integers::encode(out, effort, values.iter().map(|value| i64::from(type_code(value))));
    for code in 0..TYPES {
        let of_type: Vec<&AnyValue> =
            values.iter().copied().filter(|value| type_code(value) == code).collect();
        encode(out, effort, &of_type);
    }
}

/// Reads the selected values of a column of any types.
pub fn decode_mixed(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<AnyValue>, FormatError> {
    let codes = integers::decode_indices(reader, &Selection::all(selection.count()), usize::from(TYPES))?;
    let mut columns = Vec::with_capacity(usize::from(TYPES));
    for code in 0..TYPES {
        let of_type = selection.nested(codes.iter().map(|found| usize::from(*found == usize::from(code))));
        columns.push(decode(reader, code, &of_type)?.into_iter());
    }
    let codes = selection.take(codes).into_iter();
    codes.map(|code| columns[code].next().ok_or_else(|| reader.invalid())).collect()
}
