//! A place in bytes that may be hostile.

use super::{FormatError, integers, unzigzag};

/// Reads forward; every read is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the bytes in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { bytes, what }
    }

    /// An error about these bytes.
    pub fn invalid(&self) -> FormatError {
        FormatError::Invalid { what: self.what }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Everything must have been read.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.invalid()) }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(FormatError::Truncated { what: self.what });
        };
        self.bytes = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take returned as many bytes as were asked for"))
    }

    pub fn byte(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn u128(&mut self) -> Result<u128, FormatError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.invalid());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.invalid())
    }

    pub fn signed(&mut self) -> Result<i64, FormatError> {
        Ok(unzigzag(self.varint()?))
    }

    /// A length that must still be there.
    pub fn length(&mut self) -> Result<usize, FormatError> {
        let length = self.varint()?;
        if length > self.bytes.len() as u64 {
            return Err(FormatError::Truncated { what: self.what });
        }
        Ok(length as usize)
    }

    /// A number of values that the rest of the bytes can hold.
    pub fn count(&mut self) -> Result<usize, FormatError> {
        let count = self.varint()?;
        self.check_count(count)
    }

    /// Whether the rest can hold a column of `count` values, so that allocating for them is bounded by the input:
    /// a block takes two bytes at least.
    pub fn check_count(&self, count: u64) -> Result<usize, FormatError> {
        if count.div_ceil(integers::BLOCK as u64).saturating_mul(2) > self.bytes.len() as u64 {
            return Err(FormatError::Truncated { what: self.what });
        }
        Ok(count as usize)
    }
}
