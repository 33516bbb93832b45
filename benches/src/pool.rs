//! Requests that are encoded once and made unique by writing times, ids and values into their bytes.
//!
//! Every field that changes has a fixed width in OTLP's protobuf (`fixed64`, 8 and 16 byte ids, digits in a text),
//! so a request is a copy of its template with some bytes overwritten: no encoding while the load runs.

use bytes::Bytes;

/// Begins every mark. No byte of it occurs in UTF-8 text, so a template's texts never hold one by chance.
const MARK: [u8; 4] = [0xF5, 0xC1, 0xF8, 0xFF];

/// Text that stands where the 16 hexadecimal digits of a unique number go.
pub const TEXT_MARK: &str = "~~~unique-text~~";

/// What is written over a mark. The index tells the fields of one kind within a request apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `fixed64` time of the request plus 1 µs times the index.
    Time,
    /// `fixed64` start of the span with that index, which ended at the time of the request.
    SpanStart,
    /// 8 bytes that are unique for the index.
    SpanId,
    /// 16 bytes that are unique for the index. Its mark is two marks long.
    TraceId,
    /// `double` that moves slowly and has three decimals.
    Gauge,
    /// `sfixed64` that only grows from one use of the template to the next.
    Counter,
}

impl Field {
    const ALL: [Field; 6] =
        [Field::Time, Field::SpanStart, Field::SpanId, Field::TraceId, Field::Gauge, Field::Counter];

    /// Eight bytes to encode where the field will be written. `index` must be below 2^24.
    pub fn mark(self, index: usize) -> [u8; 8] {
        assert!(index < 1 << 24, "a mark holds an index of 24 bits");
        let index = (index as u32).to_le_bytes();
        [MARK[0], MARK[1], MARK[2], MARK[3], self as u8, index[0], index[1], index[2]]
    }

    pub fn mark_u64(self, index: usize) -> u64 {
        u64::from_le_bytes(self.mark(index))
    }

    fn len(self) -> usize {
        if self == Field::TraceId { 16 } else { 8 }
    }
}

/// One encoded request and where its changing bytes are.
pub struct Template {
    bytes: Vec<u8>,
    fields: Vec<(u32, Field, u32)>,
    texts: Vec<u32>,
    items: u64,
}

impl Template {
    /// Finds the marks in an encoded request of `items` items.
    pub fn new(bytes: Vec<u8>, items: u64) -> Template {
        assert!(bytes.len() < u32::MAX as usize, "an encoded request is below 4 GiB");
        let (mut fields, mut texts) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if rest.len() >= 8 && rest.starts_with(&MARK) {
                let field = Field::ALL[usize::from(rest[4])];
                fields.push((at as u32, field, u32::from_le_bytes([rest[5], rest[6], rest[7], 0])));
                at += field.len();
            } else if rest.starts_with(TEXT_MARK.as_bytes()) {
                texts.push(at as u32);
                at += TEXT_MARK.len();
            } else {
                at += 1;
            }
        }
        Template { bytes, fields, texts, items }
    }

    pub fn items(&self) -> u64 {
        self.items
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn field_count(&self, field: Field) -> usize {
        self.fields.iter().filter(|(_, f, _)| *f == field).count()
    }

    /// The request with all marks overwritten. `run` differs from run to run and `number` from request to request.
    pub fn request(&self, run: u64, number: u64, time_unix_nano: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        let unique = mix(run ^ mix(number));
        for &(at, field, index) in &self.fields {
            let at = at as usize;
            let index = u64::from(index);
            let value = match field {
                Field::Time => time_unix_nano + index * 1_000,
                Field::SpanStart => time_unix_nano - duration_nanos(unique.wrapping_add(index)),
                Field::SpanId | Field::TraceId => mix(unique.wrapping_add(index)) | 1,
                Field::Gauge => gauge(number.wrapping_add(index * 37)).to_bits(),
                Field::Counter => number * 10 + index % 10,
            };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            if field == Field::TraceId {
                bytes[at + 8..at + 16].copy_from_slice(&(unique ^ index).to_le_bytes());
            }
        }
        for (index, &at) in self.texts.iter().enumerate() {
            let at = at as usize;
            write_hex(&mut bytes[at..at + 16], mix(unique.wrapping_add(index as u64)));
        }
        Bytes::from(bytes)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection, so distinct numbers stay distinct.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Between 0.1 and 105 ms, the short ones being frequent.
fn duration_nanos(seed: u64) -> u64 {
    let random = mix(seed);
    100_000 + (random & 0x1F_FFFF) * (1 + random % 50)
}

fn gauge(seed: u64) -> f64 {
    // A triangle over 2,000 steps of 0.001 between 50 and 51.
    let step = seed % 2_000;
    (50_000 + step.min(2_000 - step)) as f64 / 1_000.0
}

fn write_hex(to: &mut [u8], value: u64) {
    for (digit, byte) in to.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * digit)) & 0xF;
        *byte = b"0123456789abcdef"[nibble as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_of_one_template_share_no_id() {
        let mut bytes = vec![1, 2, 3];
        bytes.extend(Field::TraceId.mark(0));
        bytes.extend([0; 8]);
        bytes.extend(Field::SpanId.mark(1));
        bytes.extend(TEXT_MARK.as_bytes());
        let template = Template::new(bytes, 1);
        let (first, second) = (template.request(7, 0, 1 << 60), template.request(7, 1, 1 << 60));
        assert_eq!(first[..3], [1, 2, 3]);
        for range in [3..19, 19..27, 27..43] {
            assert_ne!(first[range.clone()], second[range]);
        }
        assert!(first[27..43].iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn a_counter_never_falls() {
        let template = Template::new(Field::Counter.mark(9).to_vec(), 1);
        let value = |number| {
            let request = template.request(1, number, 1 << 60);
            u64::from_le_bytes(request[..].try_into().expect("eight bytes"))
        };
        assert!((0..100).all(|number| value(number) <= value(number + 1)));
    }
}
