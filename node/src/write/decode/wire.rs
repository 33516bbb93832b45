//! The protobuf wire format: a bounds-checked reader that borrows from the message.
//!
//! It accepts and rejects exactly what prost does (varint overflow, tag 0, groups in unknown fields, 100 levels of
//! nesting), see <https://protobuf.dev/programming-guides/encoding/>.

use thiserror::Error;

/// Deepest nesting of messages, as in every protobuf implementation.
const DEPTH_MAX: u32 = 100;

/// What is wrong with the bytes, and where.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{kind} at byte {offset}")]
pub struct WireError {
    pub kind: WireErrorKind,
    /// From the start of the message.
    pub offset: usize,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WireErrorKind {
    #[error("the message ends inside a field")]
    Truncated,
    #[error("a varint is longer than 64 bits")]
    Varint,
    #[error("a field key is not valid")]
    Key,
    #[error("a field has another wire type than its definition")]
    WireType,
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("a group ends that did not start")]
    Group,
    #[error("messages are nested more than {DEPTH_MAX} deep")]
    Depth,
}

/// How a field's value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Length,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// A field's number and wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: u32,
    pub(super) wire: WireType,
}

/// Reads the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    message: &'a [u8],
    position: usize,
    end: usize,
    depth_left: u32,
}

impl<'a> Reader<'a> {
    /// Reads a whole message.
    pub(super) fn new(message: &'a [u8]) -> Self {
        Reader { message, position: 0, end: message.len(), depth_left: DEPTH_MAX }
    }

    #[cold]
    fn error<T>(&self, kind: WireErrorKind) -> Result<T, WireError> {
        Err(WireError { kind, offset: self.position })
    }

    /// The key of the next field, or `None` at the end of the message.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Option<Key>, WireError> {
        if self.position == self.end {
            return Ok(None);
        }
        let Ok(key) = u32::try_from(self.raw_varint()?) else { return self.error(WireErrorKind::Key) };
        let wire = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return self.error(WireErrorKind::Key),
        };
        let number = key >> 3;
        if number == 0 {
            return self.error(WireErrorKind::Key);
        }
        Ok(Some(Key { number, wire }))
    }

    #[inline]
    fn raw_varint(&mut self) -> Result<u64, WireError> {
        if self.position < self.end && self.message[self.position] < 0x80 {
            self.position += 1;
            return Ok(u64::from(self.message[self.position - 1]));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (n, byte) in self.message[self.position..self.end].iter().take(10).enumerate() {
            if n == 9 && *byte > 1 {
                return self.error(WireErrorKind::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if *byte < 0x80 {
                self.position += n + 1;
                return Ok(value);
            }
        }
        self.error(WireErrorKind::Truncated)
    }

    #[inline]
    fn raw_bytes(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        if length > (self.end - self.position) as u64 {
            return self.error(WireErrorKind::Truncated);
        }
        let start = self.position;
        self.position += length as usize;
        Ok(&self.message[start..self.position])
    }

    #[inline]
    fn raw_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.raw_bytes(N as u64)?.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => self.error(WireErrorKind::Truncated),
        }
    }

    #[inline]
    fn expect(&self, key: Key, wire: WireType) -> Result<(), WireError> {
        if key.wire == wire { Ok(()) } else { self.error(WireErrorKind::WireType) }
    }

    /// A varint field: `uint64`, or to be cast to the narrower type (protobuf truncates).
    #[inline]
    pub(super) fn varint(&mut self, key: Key) -> Result<u64, WireError> {
        self.expect(key, WireType::Varint)?;
        self.raw_varint()
    }

    /// A `uint32` field.
    #[inline]
    pub(super) fn uint32(&mut self, key: Key) -> Result<u32, WireError> {
        Ok(self.varint(key)? as u32)
    }

    /// An `int32` or enum field.
    #[inline]
    pub(super) fn int32(&mut self, key: Key) -> Result<i32, WireError> {
        Ok(self.varint(key)? as i32)
    }

    /// A `sint32` field.
    #[inline]
    pub(super) fn sint32(&mut self, key: Key) -> Result<i32, WireError> {
        let zigzag = self.uint32(key)?;
        Ok(((zigzag >> 1) as i32) ^ -((zigzag & 1) as i32))
    }

    #[inline]
    pub(super) fn bool(&mut self, key: Key) -> Result<bool, WireError> {
        Ok(self.varint(key)? != 0)
    }

    #[inline]
    pub(super) fn fixed32(&mut self, key: Key) -> Result<u32, WireError> {
        self.expect(key, WireType::Fixed32)?;
        Ok(u32::from_le_bytes(self.raw_array()?))
    }

    #[inline]
    pub(super) fn fixed64(&mut self, key: Key) -> Result<u64, WireError> {
        self.expect(key, WireType::Fixed64)?;
        Ok(u64::from_le_bytes(self.raw_array()?))
    }

    #[inline]
    pub(super) fn double(&mut self, key: Key) -> Result<f64, WireError> {
        Ok(f64::from_bits(self.fixed64(key)?))
    }

    #[inline]
    pub(super) fn bytes(&mut self, key: Key) -> Result<&'a [u8], WireError> {
        self.expect(key, WireType::Length)?;
        let length = self.raw_varint()?;
        self.raw_bytes(length)
    }

    #[inline]
    pub(super) fn string(&mut self, key: Key) -> Result<&'a str, WireError> {
        let bytes = self.bytes(key)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => self.error(WireErrorKind::Utf8),
        }
    }

    /// A nested message.
    #[inline]
    pub(super) fn message(&mut self, key: Key) -> Result<Reader<'a>, WireError> {
        if self.depth_left == 0 {
            return self.error(WireErrorKind::Depth);
        }
        let length = self.bytes(key)?.len();
        Ok(Reader {
            message: self.message,
            position: self.position - length,
            end: self.position,
            depth_left: self.depth_left - 1,
        })
    }

    /// Repeated `fixed64` or `double`, packed or not; `push` gets the bits.
    pub(super) fn repeated_fixed64(
        &mut self,
        key: Key,
        mut push: impl FnMut(u64) -> Result<(), super::DecodeError>,
    ) -> Result<(), super::DecodeError> {
        if key.wire != WireType::Length {
            return push(self.fixed64(key)?);
        }
        let packed = self.bytes(key)?;
        let (values, rest) = packed.as_chunks::<8>();
        values.iter().try_for_each(|bytes| push(u64::from_le_bytes(*bytes)))?;
        if rest.is_empty() { Ok(()) } else { Ok(self.error(WireErrorKind::Truncated)?) }
    }

    /// Repeated `uint64`, packed or not.
    pub(super) fn repeated_varint(
        &mut self,
        key: Key,
        mut push: impl FnMut(u64) -> Result<(), super::DecodeError>,
    ) -> Result<(), super::DecodeError> {
        if key.wire != WireType::Length {
            return push(self.varint(key)?);
        }
        let length = self.bytes(key)?.len();
        let mut packed = Reader { position: self.position - length, end: self.position, ..*self };
        while packed.position < packed.end {
            push(packed.raw_varint()?)?;
        }
        Ok(())
    }

    /// Skips the value of a field that is not known.
    pub(super) fn skip(&mut self, key: Key) -> Result<(), WireError> {
        self.skip_nested(key, self.depth_left)
    }

    fn skip_nested(&mut self, key: Key, depth_left: u32) -> Result<(), WireError> {
        if depth_left == 0 {
            return self.error(WireErrorKind::Depth);
        }
        match key.wire {
            WireType::Varint => self.raw_varint().map(|_| ()),
            WireType::Fixed64 => self.raw_bytes(8).map(|_| ()),
            WireType::Fixed32 => self.raw_bytes(4).map(|_| ()),
            WireType::Length => self.bytes(key).map(|_| ()),
            WireType::StartGroup => loop {
                match self.key()? {
                    None => return self.error(WireErrorKind::Truncated),
                    Some(Key { number, wire: WireType::EndGroup }) if number == key.number => return Ok(()),
                    Some(inner) => self.skip_nested(inner, depth_left - 1)?,
                }
            },
            WireType::EndGroup => self.error(WireErrorKind::Group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_holds_at_most_64_bits() {
        let max = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        let mut reader = Reader::new(&max);
        let key = reader.key().unwrap().unwrap();
        assert_eq!(reader.varint(key), Ok(u64::MAX));
        let over = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        let mut reader = Reader::new(&over);
        let key = reader.key().unwrap().unwrap();
        assert_eq!(reader.varint(key), Err(WireError { kind: WireErrorKind::Varint, offset: 1 }));
    }

    #[test]
    fn a_length_beyond_the_message_is_truncation_and_allocates_nothing() {
        let mut reader = Reader::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]);
        let key = reader.key().unwrap().unwrap();
        assert_eq!(reader.bytes(key), Err(WireError { kind: WireErrorKind::Truncated, offset: 6 }));
    }

    #[test]
    fn unknown_groups_are_skipped_and_must_match() {
        let mut reader = Reader::new(&[0x0b, 0x10, 0x05, 0x0c, 0x18, 0x07]);
        let key = reader.key().unwrap().unwrap();
        reader.skip(key).unwrap();
        let key = reader.key().unwrap().unwrap();
        assert_eq!((key.number, reader.varint(key)), (3, Ok(7)));
        let mut reader = Reader::new(&[0x0b, 0x14]);
        let key = reader.key().unwrap().unwrap();
        assert_eq!(reader.skip(key), Err(WireError { kind: WireErrorKind::Group, offset: 2 }));
    }
}
