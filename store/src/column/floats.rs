//! Floating-point numbers in blocks, every bit pattern kept.
//!
//! A block is an exponent byte and an integer block: exponent 255 means the bits of the numbers, `e` below 10
//! means integers that give the numbers when divided by 10^e. The same idea as the decimal encoding of ALP
//! (Afroozeh et al., 2023), without its exceptions: a block is decimal or it is not.

use super::{Effort, FormatError, Reader, Selection, integers};

const BITS: u8 = 255;
const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to here are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Appends a column.
pub fn encode(out: &mut Vec<u8>, effort: Effort, values: impl IntoIterator<Item = f64>) {
    let mut block = [0.0; integers::BLOCK];
    let mut len = 0;
    for value in values {
        block[len] = value;
        len += 1;
        if len == integers::BLOCK {
            encode_block(out, effort, &block);
            len = 0;
        }
    }
    if len > 0 {
        encode_block(out, effort, &block[..len]);
    }
}

/// Reads the selected values of a column.
pub fn decode(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<f64>, FormatError> {
    reader.check_count(selection.count() as u64)?;
    let mut values = Vec::with_capacity(selection.len());
    let mut integers = Vec::with_capacity(integers::BLOCK);
    for block in selection.blocks(integers::BLOCK) {
        let exponent = reader.byte()?;
        if block.is_unwanted() {
            integers::skip_block(reader, block.len)?;
            continue;
        }
        integers.clear();
        integers::decode_block(reader, block.len, &mut integers)?;
        let wanted = block.wanted().flat_map(|range| &integers[range]);
        if exponent == BITS {
            values.extend(wanted.map(|bits| f64::from_bits(*bits as u64)));
        } else {
            let power = POWERS.get(usize::from(exponent)).ok_or_else(|| reader.invalid())?;
            values.extend(wanted.map(|integer| *integer as f64 / power));
        }
    }
    Ok(values)
}

fn encode_block(out: &mut Vec<u8>, effort: Effort, values: &[f64]) {
    let mut block = [0; integers::BLOCK];
    let block = &mut block[..values.len()];
    let exponents = if effort == Effort::Fast { 1 } else { POWERS.len() };
    let found = (0..exponents).find(|exponent| {
        values.iter().zip(block.iter_mut()).all(|(value, integer)| match decimal(*value, POWERS[*exponent]) {
            Some(exact) => {
                *integer = exact;
                true
            }
            None => false,
        })
    });
    match found {
        Some(exponent) => out.push(exponent as u8),
        None => {
            out.push(BITS);
            block.iter_mut().zip(values).for_each(|(integer, value)| *integer = value.to_bits() as i64);
        }
    }
    integers::encode_block(out, effort, block);
}

/// The integer that gives exactly `value` when divided by `power`.
fn decimal(value: f64, power: f64) -> Option<i64> {
    let scaled = (value * power).round();
    let exact = scaled.abs() <= EXACT && (scaled as i64 as f64 / power).to_bits() == value.to_bits();
    exact.then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_bit_pattern_comes_back(
            values in prop_oneof![
                proptest::collection::vec(any::<u64>(), 0..300),
                proptest::collection::vec((0_i32..100_000).prop_map(|n| (f64::from(n) / 100.0).to_bits()), 0..300),
                proptest::collection::vec(
                    proptest::sample::select(vec![0, 1 << 63, f64::NAN.to_bits(), 0x7ff0_0000_dead_beef]), 0..300),
            ],
        ) {
            for effort in [Effort::Fast, Effort::Small] {
                let mut bytes = Vec::new();
                encode(&mut bytes, effort, values.iter().map(|bits| f64::from_bits(*bits)));
                let mut reader = Reader::new(&bytes, "floats");
                let all = Selection::all(values.len());
                let back: Vec<u64> = decode(&mut reader, &all)?.into_iter().map(f64::to_bits).collect();
                prop_assert_eq!(&back, &values);
                reader.finish()?;
                let some = Selection::patchy(values.len());
                let mut reader = Reader::new(&bytes, "floats");
                let back: Vec<u64> = decode(&mut reader, &some)?.into_iter().map(f64::to_bits).collect();
                prop_assert_eq!(&back, &some.take(values.clone()));
                reader.finish()?;
            }
        }
    }
}
