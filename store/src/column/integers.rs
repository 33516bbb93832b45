//! Integers in blocks of [`BLOCK`], each with the encoding that suits it.
//!
//! A block is a mode byte and then:
//! - 0 constant: the value (signed varint).
//! - 1 packed: base (signed varint), width in bits (byte), the distances from the base, bit-packed.
//! - 2 packed with exceptions: base, width, number of exceptions (byte), the low bits of the distances, then for
//!   each exception its position (byte) and the bits above the width (varint).
//! - 3 delta, 4 delta with exceptions: the first value (signed varint), then modes 1 and 2 over the differences
//!   from value to value.
//!
//! Bits are packed from the lowest bit of the first byte; arithmetic wraps, so that any 64-bit number, signed or
//! unsigned, is kept. Exceptions are those of PFOR (Zukowski et al., "Super-Scalar RAM-CPU Cache Compression",
//! 2006).

use super::{Effort, FormatError, Reader, Selection, put_signed, put_varint};

/// Values in a block; the last one of a column may have fewer.
pub const BLOCK: usize = 128;

const CONSTANT: u8 = 0;
const PACKED: u8 = 1;
const PACKED_EXCEPTIONS: u8 = 2;
const DELTA: u8 = 3;
const DELTA_EXCEPTIONS: u8 = 4;

/// Appends a column.
pub fn encode(out: &mut Vec<u8>, effort: Effort, values: impl IntoIterator<Item = i64>) {
    let mut block = [0; BLOCK];
    let mut len = 0;
    for value in values {
        block[len] = value;
        len += 1;
        if len == BLOCK {
            encode_block(out, effort, &block);
            len = 0;
        }
    }
    if len > 0 {
        encode_block(out, effort, &block[..len]);
    }
}

/// Appends a column of unsigned integers.
pub fn encode_u64(out: &mut Vec<u8>, effort: Effort, values: impl IntoIterator<Item = u64>) {
    encode(out, effort, values.into_iter().map(|value| value as i64));
}

/// Reads the selected values of a column.
pub fn decode(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<i64>, FormatError> {
    reader.check_count(selection.count() as u64)?;
    let mut values = Vec::with_capacity(selection.len());
    let mut scratch = Vec::with_capacity(BLOCK);
    for block in selection.blocks(BLOCK) {
        if block.is_unwanted() {
            skip_block(reader, block.len)?;
        } else if block.is_wanted_whole() {
            decode_block(reader, block.len, &mut values)?;
        } else {
            scratch.clear();
            decode_block(reader, block.len, &mut scratch)?;
            block.wanted().for_each(|range| values.extend_from_slice(&scratch[range]));
        }
    }
    Ok(values)
}

/// Reads a column of unsigned integers.
pub fn decode_u64(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<u64>, FormatError> {
    Ok(decode(reader, selection)?.into_iter().map(|value| value as u64).collect())
}

/// Reads a column whose values must be of a smaller type.
pub fn decode_as<T: TryFrom<i64>>(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<Vec<T>, FormatError> {
    let values = decode(reader, selection)?;
    values.into_iter().map(|value| T::try_from(value).map_err(|_| reader.invalid())).collect()
}

/// Reads a column of indices below `limit`.
pub fn decode_indices(
    reader: &mut Reader<'_>,
    selection: &Selection,
    limit: usize,
) -> Result<Vec<usize>, FormatError> {
    let values = decode(reader, selection)?;
    let index = |value: i64| usize::try_from(value).ok().filter(|index| *index < limit);
    values.into_iter().map(|value| index(value).ok_or_else(|| reader.invalid())).collect()
}

/// Reads a column of list lengths: those of the selected rows, and their items in the columns that hold the items
/// of all rows, which are no more than the rest of the bytes can hold.
pub fn decode_counts(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<(Vec<usize>, Selection), FormatError> {
    let counts: Vec<usize> = decode_as(reader, &Selection::all(selection.count()))?;
    let total = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count as u64));
    reader.check_count(total)?;
    let items = selection.nested(counts.iter().copied());
    Ok((selection.take(counts), items))
}

pub(super) fn encode_block(out: &mut Vec<u8>, effort: Effort, values: &[i64]) {
    let (min, max) = range(values);
    if min == max {
        out.push(CONSTANT);
        put_signed(out, min);
        return;
    }
    let widest = bits(max.wrapping_sub(min) as u64);
    if effort == Effort::Fast {
        out.push(PACKED);
        put_packed(out, values.iter().copied(), min, widest.next_multiple_of(8));
        return;
    }
    let plain = Plan::of(values.iter().copied(), min, widest);
    let mut deltas = [0; BLOCK];
    let deltas = &mut deltas[..values.len() - 1];
    for (delta, pair) in deltas.iter_mut().zip(values.windows(2)) {
        *delta = pair[1].wrapping_sub(pair[0]);
    }
    let (min_delta, max_delta) = range(deltas);
    let widest_delta = bits(max_delta.wrapping_sub(min_delta) as u64);
    let mut delta = Plan::of(deltas.iter().copied(), min_delta, widest_delta);
    let mut base = min_delta;
    // Where one series ends and the next begins, time jumps back: a base above the jumps makes them exceptions.
    let mut ordered = [0; BLOCK];
    let ordered = &mut ordered[..deltas.len()];
    ordered.copy_from_slice(deltas);
    let above = *ordered.select_nth_unstable(deltas.len() / 16).1;
    if above > min_delta {
        let plan = Plan::of(deltas.iter().copied(), above, u64::BITS);
        if plan.bytes < delta.bytes {
            (delta, base) = (plan, above);
        }
    }
    // The first value costs delta up to ten bytes; a rough five decides well enough.
    if delta.bytes + 5 < plain.bytes {
        out.push(if delta.exceptions > 0 { DELTA_EXCEPTIONS } else { DELTA });
        put_signed(out, values[0]);
        delta.put(out, deltas, base);
    } else {
        out.push(if plain.exceptions > 0 { PACKED_EXCEPTIONS } else { PACKED });
        plain.put(out, values, min);
    }
}

pub(super) fn decode_block(
    reader: &mut Reader<'_>,
    len: usize,
    values: &mut Vec<i64>,
) -> Result<(), FormatError> {
    let mode = reader.byte()?;
    match mode {
        CONSTANT => {
            let value = reader.signed()?;
            values.extend(std::iter::repeat_n(value, len));
        }
        PACKED | PACKED_EXCEPTIONS => {
            let (base, offsets) = read_offsets(reader, len, mode == PACKED_EXCEPTIONS)?;
            values.extend(offsets[..len].iter().map(|offset| base.wrapping_add(*offset as i64)));
        }
        DELTA | DELTA_EXCEPTIONS => {
            let mut value = reader.signed()?;
            let (base, offsets) = read_offsets(reader, len - 1, mode == DELTA_EXCEPTIONS)?;
            values.push(value);
            for offset in &offsets[..len - 1] {
                value = value.wrapping_add(base).wrapping_add(*offset as i64);
                values.push(value);
            }
        }
        _ => return Err(reader.invalid()),
    }
    Ok(())
}

/// Passes over a block.
pub(super) fn skip_block(reader: &mut Reader<'_>, len: usize) -> Result<(), FormatError> {
    let mut ahead = reader.clone();
    match ahead.byte()? {
        CONSTANT => {
            ahead.signed()?;
        }
        PACKED => {
            ahead.signed()?;
            let width = ahead.byte()?;
            ahead.take(packed_len(len, u32::from(width)))?;
        }
        // Exceptions say only one after the other how long they are.
        _ => return decode_block(reader, len, &mut Vec::with_capacity(len)),
    }
    *reader = ahead;
    Ok(())
}

fn range(values: &[i64]) -> (i64, i64) {
    let first = values.first().copied().unwrap_or_default();
    values.iter().fold((first, first), |(min, max), value| (min.min(*value), max.max(*value)))
}

fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// A width, and what a block costs with it.
struct Plan {
    width: u32,
    exceptions: usize,
    bytes: usize,
}

impl Plan {
    /// The cheapest width for the distances from `base`, the widest of which has `widest` bits.
    fn of(values: impl ExactSizeIterator<Item = i64>, base: i64, widest: u32) -> Self {
        let len = values.len();
        let mut of_width = [0_usize; 65];
        for value in values {
            of_width[bits(value.wrapping_sub(base) as u64) as usize] += 1;
        }
        let mut best = Plan { width: widest, exceptions: 0, bytes: packed_len(len, widest) };
        let mut exceptions = 0;
        for width in (0..widest).rev() {
            exceptions += of_width[width as usize + 1];
            let each = 1 + ((widest - width) as usize).div_ceil(7);
            let bytes = packed_len(len, width) + 1 + exceptions * each;
            if bytes < best.bytes {
                best = Plan { width, exceptions, bytes };
            }
        }
        best
    }

    fn put(&self, out: &mut Vec<u8>, values: &[i64], base: i64) {
        if self.exceptions == 0 {
            return put_packed(out, values.iter().copied(), base, self.width);
        }
        put_signed(out, base);
        out.extend([self.width as u8, self.exceptions as u8]);
        let low = (1_u64 << self.width) - 1;
        put_bits(out, values.iter().map(|value| value.wrapping_sub(base) as u64 & low), self.width);
        for (position, value) in values.iter().enumerate() {
            let offset = value.wrapping_sub(base) as u64;
            if offset > low {
                out.push(position as u8);
                put_varint(out, offset >> self.width);
            }
        }
    }
}

fn put_packed(out: &mut Vec<u8>, values: impl Iterator<Item = i64>, base: i64, width: u32) {
    put_signed(out, base);
    out.push(width as u8);
    put_bits(out, values.map(|value| value.wrapping_sub(base) as u64), width);
}

fn packed_len(len: usize, width: u32) -> usize {
    (len * width as usize).div_ceil(8)
}

fn put_bits(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, width: u32) {
    if width.is_multiple_of(8) {
        let width = width as usize / 8;
        values.for_each(|value| out.extend_from_slice(&value.to_le_bytes()[..width]));
        return;
    }
    let (mut pending, mut filled) = (0_u128, 0);
    for value in values {
        pending |= u128::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(pending as u8);
    }
}

/// The base and the distances of modes 1 to 4.
fn read_offsets(
    reader: &mut Reader<'_>,
    len: usize,
    exceptions: bool,
) -> Result<(i64, [u64; BLOCK]), FormatError> {
    let base = reader.signed()?;
    let width = u32::from(reader.byte()?);
    if width > u64::BITS {
        return Err(reader.invalid());
    }
    let exceptions = if exceptions { reader.byte()? } else { 0 };
    let packed = reader.take(packed_len(len, width))?;
    let mut offsets = [0; BLOCK];
    unpack(packed, width, &mut offsets[..len]);
    for _ in 0..exceptions {
        let position = usize::from(reader.byte()?);
        let high = reader.varint()?;
        if position >= len || width + bits(high) > u64::BITS {
            return Err(reader.invalid());
        }
        // With a width of 64 there is nothing above it, and `high` is 0.
        offsets[position] |= high.checked_shl(width).unwrap_or(0);
    }
    Ok((base, offsets))
}

fn unpack(packed: &[u8], width: u32, offsets: &mut [u64]) {
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let (mut pending, mut filled) = (0_u128, 0);
    let mut bytes = packed.iter();
    for offset in offsets {
        while filled < width {
            let byte = bytes.next().copied().unwrap_or_default();
            pending |= u128::from(byte) << filled;
            filled += 8;
        }
        *offset = pending as u64 & mask;
        pending >>= width;
        filled -= width;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(effort: Effort, values: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, effort, values.iter().copied());
        out
    }

    #[test]
    fn regular_times_with_a_jump_between_series_cost_less_than_a_byte() {
        let values: Vec<i64> =
            (0..4096).map(|n| 1_800_000_000_000_000_000 + (n % 150) * 15_000_000_000 + n / 150).collect();
        let bytes = encoded(Effort::Small, &values);
        assert!(bytes.len() < values.len() * 3 / 4, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn any_integers_come_back(
            values in prop_oneof![
                proptest::collection::vec(any::<i64>(), 0..300),
                proptest::collection::vec(-5_i64..5, 0..300),
                proptest::collection::vec(prop_oneof![9 => 0_i64..9, 1 => any::<i64>()], 0..300),
            ],
            sorted: bool,
        ) {
            let mut values = values;
            if sorted {
                values.sort_unstable();
            }
            for effort in [Effort::Fast, Effort::Small] {
                let bytes = encoded(effort, &values);
                let mut reader = Reader::new(&bytes, "integers");
                prop_assert_eq!(&decode(&mut reader, &Selection::all(values.len()))?, &values);
                reader.finish()?;
                let some = Selection::patchy(values.len());
                let mut reader = Reader::new(&bytes, "integers");
                prop_assert_eq!(&decode(&mut reader, &some)?, &some.take(values.clone()));
                reader.finish()?;
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_or_integers(bytes: Vec<u8>, count in 0_usize..1000) {
            let _ = decode(&mut Reader::new(&bytes, "integers"), &Selection::all(count));
            let _ = decode(&mut Reader::new(&bytes, "integers"), &Selection::patchy(count));
        }
    }
}
