//! OTLP/JSON (OTLP specification 1.x, "JSON Protobuf Encoding"): rewritten to the wire form in one pass, so that both
//! encodings make the same rows.
//!
//! Beyond lowerCamelCase it takes the proto file's snake_case names, 64-bit integers as numbers or strings, and null for
//! a default, as the protobuf JSON mapping says. Unknown names are ignored; of a name that appears twice the last one
//! counts. Enums are numbers.

mod lexer;
mod schema;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use oteld_store::model::Signal;
use thiserror::Error;

use self::lexer::{Lexer, Problem, Token};
use self::schema::{FIELDS_MAX, Field, Message, Type};
use super::DecodeError;
use crate::write::admit::{AdmitError, Ticket};

/// Deepest nesting of messages, as on the wire.
const DEPTH_MAX: usize = 100;

/// What is wrong with a JSON request, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}{message} (at byte {offset})")]
pub struct JsonError {
    /// As in `resourceSpans[0].scopeSpans[1].spans[3].traceId: `; empty for the request itself.
    pub path: String,
    pub message: String,
    /// In the text.
    pub offset: usize,
}

/// Rewrites a request to protobuf bytes. They are charged to `ticket`.
pub(super) fn to_wire(signal: Signal, text: &[u8], ticket: &mut Ticket) -> Result<Vec<u8>, DecodeError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError {
        path: String::new(),
        message: "the text is not UTF-8".to_owned(),
        offset: error.valid_up_to(),
    })?;
    let message = match signal {
        Signal::Metrics => &schema::METRICS,
        Signal::Logs => &schema::LOGS,
        Signal::Traces => &schema::TRACES,
    };
    let mut writer =
        Writer { lexer: Lexer::new(text), wire: Vec::new(), charged: 0, path: Vec::new(), ticket };
    match writer.request(message) {
        Ok(()) => Ok(writer.wire),
        Err(Fault::Admit(error)) => Err(error.into()),
        Err(Fault::Problem(problem)) => {
            let path = writer.path_text();
            Err(JsonError { path, message: problem.message.into_owned(), offset: problem.offset }.into())
        }
    }
}

enum Fault {
    Problem(Problem),
    Admit(AdmitError),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Fault::Problem(problem)
    }
}

impl From<AdmitError> for Fault {
    fn from(error: AdmitError) -> Self {
        Fault::Admit(error)
    }
}

enum Step {
    Field(&'static str),
    Index(usize),
}

struct Writer<'a, 't> {
    lexer: Lexer<'a>,
    wire: Vec<u8>,
    /// How much of `wire` the ticket has paid for.
    charged: usize,
    path: Vec<Step>,
    ticket: &'t mut Ticket,
}

/// Where in the wire bytes each field of a message was written.
type Written = [(usize, usize); FIELDS_MAX];

impl<'a> Writer<'a, '_> {
    fn request(&mut self, message: &'static Message) -> Result<(), Fault> {
        if self.lexer.value()? != Token::Object {
            return Ok(self.lexer.problem("the request is not an object")?);
        }
        self.message(message, 0)?;
        Ok(self.lexer.end()?)
    }

    /// The members of a message whose brace was read.
    fn message(&mut self, message: &'static Message, depth: usize) -> Result<(), Fault> {
        let mut written: Written = [(0, 0); FIELDS_MAX];
        let mut first = true;
        while let Some(name) = self.lexer.name(first)? {
            first = false;
            let token = self.lexer.value()?;
            let Some((index, field)) = message.field(&name) else {
                self.lexer.skip(token)?;
                continue;
            };
            self.path.push(Step::Field(field.name));
            self.erase(&mut written, index);
            let start = self.wire.len();
            match token {
                Token::Null => {}
                Token::Array if field.repeated => self.elements(field, depth)?,
                _ if field.repeated => self.expected("an array")?,
                token => self.value(field, token, depth)?,
            }
            written[index] = (start, self.wire.len());
            self.path.pop();
        }
        Ok(())
    }

    /// Takes back what an earlier member of the same name wrote.
    fn erase(&mut self, written: &mut Written, index: usize) {
        let (start, end) = written[index];
        if start == end {
            return;
        }
        self.wire.drain(start..end);
        for (other_start, other_end) in written.iter_mut().filter(|(other_start, _)| *other_start >= end) {
            *other_start -= end - start;
            *other_end -= end - start;
        }
    }

    fn elements(&mut self, field: &'static Field, depth: usize) -> Result<(), Fault> {
        let mut index = 0;
        while self.lexer.element(index == 0)? {
            self.path.push(Step::Index(index));
            match self.lexer.value()? {
                Token::Null => self.default_value(field)?,
                token => self.value(field, token, depth)?,
            }
            self.path.pop();
            index += 1;
        }
        Ok(())
    }

    fn default_value(&mut self, field: &'static Field) -> Result<(), Fault> {
        match field.kind {
            Type::String | Type::Bytes | Type::HexBytes | Type::Message(_) => {
                self.length_delimited(field, &[])
            }
            Type::Bool => self.varint(field, 0),
            _ => self.value(field, Token::Number("0"), 0),
        }
    }

    fn value(&mut self, field: &'static Field, token: Token<'a>, depth: usize) -> Result<(), Fault> {
        match field.kind {
            Type::Message(message) => self.nested(field, message, token, depth),
            Type::String => match token {
                Token::String(text) => self.length_delimited(field, text.as_bytes()),
                _ => self.expected("a string"),
            },
            Type::Bytes => match token {
                Token::String(text) => match base64_bytes(&text) {
                    Some(bytes) => self.length_delimited(field, &bytes),
                    None => self.expected("base64"),
                },
                _ => self.expected("a string of base64"),
            },
            Type::HexBytes => match token {
                Token::String(text) => match hex::decode(text.as_bytes()) {
                    Ok(bytes) => self.length_delimited(field, &bytes),
                    Err(error) => self.fail(format!("expected hex digits: {error}")),
                },
                _ => self.expected("a string of hex digits"),
            },
            Type::Bool => match token {
                Token::Bool(value) => self.varint(field, u64::from(value)),
                _ => self.expected("true or false"),
            },
            Type::Double => match double(&token) {
                Some(value) => self.fixed64(field, value.to_bits()),
                None => self.expected("a number, \"NaN\", \"Infinity\" or \"-Infinity\""),
            },
            Type::Enum => match token {
                Token::String(_) => self.fail("enum names are not allowed in OTLP/JSON, send the number"),
                token => self.int32(field, &token),
            },
            Type::Int32 => self.int32(field, &token),
            Type::Sint32 => {
                let value: i32 = self.integer(&token, "a 32-bit integer")?;
                self.varint(field, u64::from(((value << 1) ^ (value >> 31)) as u32))
            }
            Type::Int64 => {
                let value: i64 = self.integer(&token, "a 64-bit integer")?;
                self.varint(field, value as u64)
            }
            Type::Uint32 => {
                let value: u32 = self.integer(&token, "an unsigned 32-bit integer")?;
                self.varint(field, u64::from(value))
            }
            Type::Uint64 => {
                let value = self.integer(&token, "an unsigned 64-bit integer")?;
                self.varint(field, value)
            }
            Type::Fixed32 => {
                let value: u32 = self.integer(&token, "an unsigned 32-bit integer")?;
                self.key(field, 5);
                self.wire.extend_from_slice(&value.to_le_bytes());
                self.pay()
            }
            Type::Fixed64 => {
                let value = self.integer(&token, "an unsigned 64-bit integer")?;
                self.fixed64(field, value)
            }
            Type::Sfixed64 => {
                let value: i64 = self.integer(&token, "a 64-bit integer")?;
                self.fixed64(field, value as u64)
            }
        }
    }

    fn nested(
        &mut self,
        field: &'static Field,
        message: &'static Message,
        token: Token<'a>,
        depth: usize,
    ) -> Result<(), Fault> {
        if token != Token::Object {
            return self.expected("an object");
        }
        if depth == DEPTH_MAX {
            return self.fail("values are nested too deep");
        }
        self.key(field, 2);
        // The length is filled in afterwards, in a varint of fixed width.
        let start = self.wire.len();
        self.wire.extend_from_slice(&[0; LENGTH_WIDTH]);
        self.message(message, depth + 1)?;
        let length = self.wire.len() - start - LENGTH_WIDTH;
        for (n, byte) in self.wire[start..start + LENGTH_WIDTH].iter_mut().enumerate() {
            let more = if n + 1 < LENGTH_WIDTH { 0x80 } else { 0 };
            *byte = ((length >> (7 * n)) & 0x7f) as u8 | more;
        }
        self.pay()
    }

    fn int32(&mut self, field: &Field, token: &Token<'a>) -> Result<(), Fault> {
        let value: i32 = self.integer(token, "a 32-bit integer")?;
        self.varint(field, i64::from(value) as u64)
    }

    fn integer<T: TryFrom<i128>>(&self, token: &Token<'a>, what: &'static str) -> Result<T, Fault> {
        let value = match token {
            Token::Number(text) => integer(text),
            Token::String(text) => integer(text),
            _ => None,
        };
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => Ok(value),
            None => Ok(self.lexer.problem(format!("expected {what}"))?),
        }
    }

    fn key(&mut self, field: &Field, wire_type: u64) {
        self.raw_varint(u64::from(field.number) << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.wire.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.wire.push(value as u8);
    }

    fn varint(&mut self, field: &Field, value: u64) -> Result<(), Fault> {
        self.key(field, 0);
        self.raw_varint(value);
        self.pay()
    }

    fn fixed64(&mut self, field: &Field, value: u64) -> Result<(), Fault> {
        self.key(field, 1);
        self.wire.extend_from_slice(&value.to_le_bytes());
        self.pay()
    }

    fn length_delimited(&mut self, field: &Field, bytes: &[u8]) -> Result<(), Fault> {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.wire.extend_from_slice(bytes);
        self.pay()
    }

    fn pay(&mut self) -> Result<(), Fault> {
        if let Some(grown) = self.wire.len().checked_sub(self.charged) {
            self.ticket.charge(grown)?;
            self.charged = self.wire.len();
        }
        Ok(())
    }

    fn expected(&self, what: &str) -> Result<(), Fault> {
        self.fail(format!("expected {what}"))
    }

    fn fail(&self, message: impl Into<Cow<'static, str>>) -> Result<(), Fault> {
        Ok(self.lexer.problem(message)?)
    }

    fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if text.is_empty() => text.push_str(name),
                Step::Field(name) => text.extend([".", name]),
                Step::Index(index) => {
                    fmt::Write::write_fmt(&mut text, format_args!("[{index}]")).expect("a string takes it");
                }
            }
        }
        if text.len() > PATH_LENGTH_MAX {
            // Its names are the schema's, in ASCII; both ends say more than the middle.
            let half = PATH_LENGTH_MAX / 2;
            text = format!("{} ... {}", &text[..half], &text[text.len() - half..]);
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text
    }
}

/// Longest path in a message, in characters.
const PATH_LENGTH_MAX: usize = 200;

/// Bytes of a length that is filled in later: enough for 32 GiB.
const LENGTH_WIDTH: usize = 5;

/// An integer as protobuf JSON allows it: digits, or a number with a fraction or exponent that is whole.
fn integer(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    if !text.contains(['.', 'e', 'E']) {
        return text.parse().ok();
    }
    let value: f64 = text.parse().ok()?;
    let exact = value.fract() == 0.0 && value.abs() <= (1_u64 << 53) as f64;
    exact.then_some(value as i128)
}

fn double(token: &Token<'_>) -> Option<f64> {
    let text: &str = match token {
        Token::Number(text) => text,
        Token::String(text) => text,
        _ => return None,
    };
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        text if is_number(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

/// Keeps out what Rust parses and JSON does not know, such as `+1` and `inf`.
fn is_number(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).starts_with(|first: char| first.is_ascii_digit())
}

/// Either alphabet, padded or not, as the protobuf JSON mapping wants it read.
fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = match text.contains(['-', '_']) {
        true => &base64::alphabet::URL_SAFE,
        false => &base64::alphabet::STANDARD,
    };
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}
