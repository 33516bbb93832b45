//! Byte strings, of any or of one length, plain or through a dictionary.
//!
//! A column is a flags byte (1: dictionary, 2: lz4), with a dictionary the number of its entries (varint), the
//! lengths of the strings or entries (integers), their bytes one after the other, and with a dictionary an index
//! a row (integers). Compressed bytes have their stored length (varint) before them. Entries are in the order of
//! their first row.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{Effort, FormatError, Reader, Selection, integers, put_varint};

const DICTIONARY: u8 = 1;
const LZ4: u8 = 2;
/// No column's bytes are more than this, compressed or not.
const BYTES_MAX: u64 = 1 << 30;
/// Shorter bytes are not worth compressing.
const COMPRESS_MIN: usize = 64;

/// Appends a column.
pub fn encode(out: &mut Vec<u8>, effort: Effort, values: &[&[u8]]) {
    if values.is_empty() {
        return;
    }
    match Dictionary::of(values) {
        Some(dictionary) => {
            let entries: Vec<&[u8]> = dictionary.entries.iter().map(|row| values[*row as usize]).collect();
            put_strings(out, effort, DICTIONARY, &entries);
            integers::encode(out, effort, dictionary.indices.iter().map(|index| i64::from(*index)));
        }
        None => put_strings(out, effort, 0, values),
    }
}

/// Appends a column without a dictionary: for strings that decode to more than a reference, which a dictionary
/// would let few bytes repeat without bound.
pub fn encode_plain(out: &mut Vec<u8>, effort: Effort, values: &[&[u8]]) {
    if !values.is_empty() {
        put_strings(out, effort, 0, values);
    }
}

fn put_strings(out: &mut Vec<u8>, effort: Effort, flags: u8, values: &[&[u8]]) {
    let len: usize = values.iter().map(|value| value.len()).sum();
    assert!(len as u64 <= BYTES_MAX, "what one request carries is far below a column's limit");
    let compressed = (effort == Effort::Small && len >= COMPRESS_MIN)
        .then(|| lz4_flex::block::compress(&values.concat()))
        .filter(|compressed| compressed.len() + len / 16 < len);
    out.push(flags | if compressed.is_some() { LZ4 } else { 0 });
    if flags & DICTIONARY != 0 {
        put_varint(out, values.len() as u64);
    }
    integers::encode(out, effort, values.iter().map(|value| value.len() as i64));
    match compressed {
        Some(compressed) => {
            put_varint(out, compressed.len() as u64);
            out.extend_from_slice(&compressed);
        }
        None => values.iter().for_each(|value| out.extend_from_slice(value)),
    }
}

/// Which values are distinct: an open-addressing table, given up as soon as it does not pay.
struct Dictionary {
    /// Rows with the first appearance of each entry.
    entries: Vec<u32>,
    /// The entry of each row.
    indices: Vec<u32>,
}

impl Dictionary {
    /// `None` when more than half of the values are distinct.
    fn of(values: &[&[u8]]) -> Option<Self> {
        const FREE: u32 = u32::MAX;
        let mut table = vec![FREE; 64];
        let mut entries: Vec<u32> = Vec::new();
        let mut hashes: Vec<u64> = Vec::new();
        let mut indices = Vec::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            if row > 0 && values[row - 1] == *value {
                indices.push(indices[row - 1]);
                continue;
            }
            let hash = xxh3_64(value);
            let mut slot = hash as usize & (table.len() - 1);
            loop {
                match table[slot] {
                    FREE => {
                        table[slot] = entries.len() as u32;
                        indices.push(entries.len() as u32);
                        entries.push(row as u32);
                        hashes.push(hash);
                        break;
                    }
                    entry
                        if hashes[entry as usize] == hash
                            && values[entries[entry as usize] as usize] == *value =>
                    {
                        indices.push(entry);
                        break;
                    }
                    _ => slot = (slot + 1) & (table.len() - 1),
                }
            }
            if entries.len() > row / 2 + 16 {
                return None;
            }
            if entries.len() * 2 > table.len() {
                table = vec![FREE; table.len() * 2];
                for (entry, hash) in hashes.iter().enumerate() {
                    let mut slot = *hash as usize & (table.len() - 1);
                    while table[slot] != FREE {
                        slot = (slot + 1) & (table.len() - 1);
                    }
                    table[slot] = entry as u32;
                }
            }
        }
        (entries.len() <= values.len() / 2).then_some(Dictionary { entries, indices })
    }
}

/// Byte strings of a column that was read, and which of them each selected row has.
struct Decoded<'a, 's> {
    bytes: std::borrow::Cow<'a, [u8]>,
    /// Of all strings.
    lengths: Vec<usize>,
    rows: Rows<'s>,
}

enum Rows<'s> {
    /// The entry of each selected row.
    Entries(Vec<usize>),
    /// The strings are those of the rows.
    Plain(&'s Selection),
}

impl<'a, 's> Decoded<'a, 's> {
    fn read(reader: &mut Reader<'a>, selection: &'s Selection) -> Result<Self, FormatError> {
        let flags = reader.byte()?;
        if flags > DICTIONARY | LZ4 {
            return Err(reader.invalid());
        }
        let strings = if flags & DICTIONARY == 0 { selection.count() } else { reader.count()? };
        let lengths: Vec<usize> = integers::decode_as(reader, &Selection::all(strings))?;
        let len = lengths.iter().fold(0_u64, |sum, len| sum.saturating_add(*len as u64));
        if len > BYTES_MAX {
            return Err(reader.invalid());
        }
        let bytes = if flags & LZ4 == 0 {
            reader.take(len as usize)?.into()
        } else {
            let stored = reader.length()?;
            let stored = reader.take(stored)?;
            decompress(stored, len as usize).ok_or_else(|| reader.invalid())?.into()
        };
        let rows = match flags & DICTIONARY {
            0 => Rows::Plain(selection),
            _ => Rows::Entries(integers::decode_indices(reader, selection, strings)?),
        };
        Ok(Decoded { bytes, lengths, rows })
    }

    /// Makes a value of each string that a selected row has; rows of one entry share its value.
    fn values<T: Clone>(
        &self,
        mut make: impl FnMut(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        match &self.rows {
            Rows::Plain(selection) => {
                let mut values = Vec::with_capacity(selection.len());
                let (mut row, mut at) = (0, 0);
                for range in selection.ranges() {
                    at += self.lengths[row..range.start].iter().sum::<usize>();
                    for len in &self.lengths[range.clone()] {
                        values.push(make(&self.bytes[at..at + len])?);
                        at += len;
                    }
                    row = range.end;
                }
                Ok(values)
            }
            Rows::Entries(entries) => {
                let mut starts = Vec::with_capacity(self.lengths.len());
                let mut end = 0;
                for len in &self.lengths {
                    starts.push(end);
                    end += len;
                }
                let mut made: Vec<Option<T>> = vec![None; self.lengths.len()];
                let value = |entry: &usize| match &mut made[*entry] {
                    Some(value) => Ok(value.clone()),
                    made => {
                        let start = starts[*entry];
                        let value = make(&self.bytes[start..start + self.lengths[*entry]])?;
                        Ok(made.insert(value).clone())
                    }
                };
                entries.iter().map(value).collect()
            }
        }
    }
}

/// `None` when the bytes are not lz4 of `len` bytes. lz4 makes at most 255 bytes of one, so that a length that
/// lies is found before it is allocated.
fn decompress(stored: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > stored.len().saturating_mul(255) {
        return None;
    }
    let mut bytes = vec![0; len];
    let written = lz4_flex::block::decompress_into(stored, &mut bytes).ok()?;
    (written == len).then_some(bytes)
}

/// Reads a column and makes a value of each distinct byte string of the selected rows.
pub fn decode_with<T: Clone>(
    reader: &mut Reader<'_>,
    selection: &Selection,
    make: impl FnMut(&[u8]) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    if selection.count() == 0 {
        return Ok(Vec::new());
    }
    Decoded::read(reader, selection)?.values(make)
}

/// Reads a column that must not have a dictionary.
pub fn decode_plain<T: Clone>(
    reader: &mut Reader<'_>,
    selection: &Selection,
    make: impl FnMut(&[u8]) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    if selection.count() == 0 {
        return Ok(Vec::new());
    }
    let decoded = Decoded::read(reader, selection)?;
    if matches!(decoded.rows, Rows::Entries(_)) {
        return Err(reader.invalid());
    }
    decoded.values(make)
}

/// Reads a column of UTF-8 strings; rows with the same dictionary entry share it.
pub fn decode_strings(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<Arc<str>>, FormatError> {
    decode_with(reader, selection, |bytes| {
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| FormatError::Invalid { what: "UTF-8" })
    })
}

/// Reads a column of byte strings that all have `N` bytes.
pub fn decode_arrays<const N: usize>(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<Vec<[u8; N]>, FormatError> {
    decode_with(reader, selection, |bytes| {
        bytes.try_into().map_err(|_| FormatError::Invalid { what: "length of an id" })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_strings_come_back(
            values in prop_oneof![
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..200),
                proptest::collection::vec("[ab]{0,2}", 0..200)
                    .prop_map(|values| values.into_iter().map(String::into_bytes).collect()),
                proptest::collection::vec(Just(b"the same words again".to_vec()), 0..200),
            ],
        ) {
            let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            for effort in [Effort::Fast, Effort::Small] {
                let mut bytes = Vec::new();
                encode(&mut bytes, effort, &slices);
                let mut reader = Reader::new(&bytes, "strings");
                let back = decode_with(&mut reader, &Selection::all(values.len()), |bytes| Ok(bytes.to_vec()))?;
                prop_assert_eq!(&back, &values);
                reader.finish()?;
                let some = Selection::patchy(values.len());
                let mut reader = Reader::new(&bytes, "strings");
                let back = decode_with(&mut reader, &some, |bytes| Ok(bytes.to_vec()))?;
                prop_assert_eq!(&back, &some.take(values.clone()));
                reader.finish()?;
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_or_strings(bytes: Vec<u8>, count in 0_usize..1000) {
            let _ = decode_strings(&mut Reader::new(&bytes, "strings"), &Selection::all(count));
            let _ = decode_strings(&mut Reader::new(&bytes, "strings"), &Selection::patchy(count));
        }
    }

    #[test]
    fn a_lying_length_is_refused_before_it_is_allocated() {
        assert_eq!(decompress(&[0x10, b'a'], 1 << 29), None);
    }
}
