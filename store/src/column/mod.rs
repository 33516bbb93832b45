//! Columns: the bytes of many values of one type, the one layer under batches and segments.
//!
//! A column of no values has no bytes. The number of values of a column is never in the column: what holds it
//! knows it. Every block of [`integers::BLOCK`] values takes at least two bytes, which bounds what a decoder
//! allocates by the length of its input (see [`Reader::check_count`]).

mod error;
mod reader;
mod selection;

pub mod bytes;
pub mod floats;
pub mod integers;
pub mod values;

pub use error::FormatError;
pub use reader::Reader;
pub use selection::Selection;

/// How hard an encoder tries. Decoders read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For batches: whole bytes an integer, no compression.
    Fast,
    /// For segments: bits an integer, deltas, decimals, lz4.
    Small,
}

/// LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// LEB128 of the number with its sign in the lowest bit.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
