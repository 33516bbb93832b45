//! LogQL text to tokens.

use std::fmt;

use winnow::Result;
use winnow::combinator::{alt, delimited, preceded, repeat};
use winnow::error::{ContextError, ParserError};
use winnow::prelude::*;
use winnow::token::{any, literal, one_of, take_till, take_while};

use super::super::ast::Quantity;
use super::super::quantity;
use crate::QueryError;

/// One word of a query, and where it starts in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    Identifier(String),
    Text(String),
    Quantity(Quantity),
    /// An operator, a bracket or a flag of a parser stage.
    Symbol(&'static str),
    End,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenKind::Identifier(name) => write!(f, "`{name}`"),
            TokenKind::Text(text) => write!(f, "the string {text:?}"),
            TokenKind::Quantity(Quantity::Number(value)) => write!(f, "the number {value}"),
            TokenKind::Quantity(Quantity::Duration(_)) => f.write_str("a duration"),
            TokenKind::Quantity(Quantity::Bytes(_)) => f.write_str("a size in bytes"),
            TokenKind::Symbol(symbol) => write!(f, "`{symbol}`"),
            TokenKind::End => f.write_str("the end of the query"),
        }
    }
}

/// Longer ones before their prefixes.
const SYMBOLS: [&str; 32] = [
    "--keep-empty",
    "--strict",
    "|=",
    "|~",
    "|>",
    "!=",
    "!~",
    "!>",
    "=~",
    "==",
    ">=",
    "<=",
    ">",
    "<",
    "=",
    "|",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "@",
    ":",
    "!",
];

/// All tokens of `text`, with an `End` behind the last.
pub(super) fn tokens(text: &str) -> std::result::Result<Vec<Token>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        skip(&mut rest);
        let at = text.len() - rest.len();
        if rest.is_empty() {
            tokens.push(Token { kind: TokenKind::End, at });
            return Ok(tokens);
        }
        let kind = token(&mut rest).map_err(|_| {
            let what = match rest.chars().next() {
                Some('"' | '`' | '\'') => "a string that does not end or has an unknown escape",
                _ => "an unknown character or number",
            };
            QueryError::bad(format!("{}: {what}", place(text, at)))
        })?;
        tokens.push(Token { kind, at });
    }
}

/// `parse error at line l, col c`, both from one.
pub(super) fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("parse error at line {line}, col {column}")
}

fn skip(input: &mut &str) {
    loop {
        *input = input.trim_start();
        if !input.starts_with('#') {
            return;
        }
        *input = input.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

fn token(input: &mut &str) -> Result<TokenKind> {
    let start = *input;
    let result = alt((
        identifier.map(|name: &str| TokenKind::Identifier(name.to_owned())),
        alt((raw_string, quoted_string)).map(TokenKind::Text),
        number.map(TokenKind::Quantity),
        symbol.map(TokenKind::Symbol),
    ))
    .parse_next(input);
    if result.is_err() {
        *input = start;
    }
    result
}

fn identifier<'i>(input: &mut &'i str) -> Result<&'i str> {
    (
        one_of(|c: char| c.is_ascii_alphabetic() || c == '_'),
        take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_'),
    )
        .take()
        .parse_next(input)
}

fn symbol(input: &mut &str) -> Result<&'static str> {
    for symbol in SYMBOLS {
        if input.starts_with(symbol) {
            let _: &str = literal(symbol).parse_next(input)?;
            return Ok(symbol);
        }
    }
    Err(ContextError::from_input(input))
}

fn raw_string(input: &mut &str) -> Result<String> {
    delimited('`', take_till(0.., '`'), '`').map(str::to_owned).parse_next(input)
}

fn quoted_string(input: &mut &str) -> Result<String> {
    let bytes: Vec<Piece> = delimited('"', repeat(0.., piece), '"').parse_next(input)?;
    let mut text = Vec::new();
    for piece in bytes {
        match piece {
            Piece::Char(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Piece::Byte(byte) => text.push(byte),
        }
    }
    String::from_utf8(text).map_err(|_| ContextError::from_input(input))
}

/// A character, or a byte that `\x` or an octal escape gave.
enum Piece {
    Char(char),
    Byte(u8),
}

fn piece(input: &mut &str) -> Result<Piece> {
    alt((preceded('\\', escape), any.verify(|c: &char| !matches!(c, '"' | '\\' | '\n')).map(Piece::Char)))
        .parse_next(input)
}

/// Go's escapes (Go specification, "Rune literals").
fn escape(input: &mut &str) -> Result<Piece> {
    let kind = any.parse_next(input)?;
    let plain = match kind {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '"' | '\'' => kind,
        'x' => return digits(input, 2, 16).map(|code| Piece::Byte(code as u8)),
        'u' => return code_point(input, 4),
        'U' => return code_point(input, 8),
        '0'..='3' => {
            let low = digits(input, 2, 8)?;
            return Ok(Piece::Byte((kind as u32 - '0' as u32) as u8 * 64 + low as u8));
        }
        _ => return Err(ContextError::from_input(input)),
    };
    Ok(Piece::Char(plain))
}

fn code_point(input: &mut &str, count: usize) -> Result<Piece> {
    let code = digits(input, count, 16)?;
    char::from_u32(code).map(Piece::Char).ok_or_else(|| ContextError::from_input(input))
}

fn digits(input: &mut &str, count: usize, radix: u32) -> Result<u32> {
    let digits = take_while(count..=count, move |c: char| c.is_digit(radix)).parse_next(input)?;
    u32::from_str_radix(digits, radix).map_err(|_| ContextError::from_input(input))
}

/// A number, a duration or a size: one word that starts with a digit.
fn number(input: &mut &str) -> Result<Quantity> {
    let word = number_word.parse_next(input)?;
    let value = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|value| value as f64),
        None => word.parse().ok(),
    };
    value
        .map(Quantity::Number)
        .or_else(|| quantity::duration_seconds(word).map(Quantity::Duration))
        .or_else(|| quantity::bytes(word).map(Quantity::Bytes))
        .ok_or_else(|| ContextError::from_input(input))
}

fn number_word<'i>(input: &mut &'i str) -> Result<&'i str> {
    let digit_follows = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if !digit_follows(input) && !input.strip_prefix('.').is_some_and(digit_follows) {
        return Err(ContextError::from_input(input));
    }
    let word = |c: char| c.is_alphanumeric() || c == '.';
    let mut end = input.find(|c: char| !word(c)).unwrap_or(input.len());
    let exponent = input[..end].ends_with(['e', 'E']) && !input.starts_with("0x");
    if exponent && input[end..].starts_with(['+', '-']) && digit_follows(&input[end + 1..]) {
        end += 1 + input[end + 1..].find(|c: char| !word(c)).unwrap_or(input.len() - end - 1);
    }
    let (word, rest) = input.split_at(end);
    *input = rest;
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<TokenKind> {
        tokens(text).expect(text).into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn strings_know_gos_escapes_and_raw_quotes() {
        let text = |s: &str| vec![TokenKind::Text(s.to_owned()), TokenKind::End];
        assert_eq!(kinds(r#""a\"b\n\u00e9\x41\101""#), text("a\"b\néAA"));
        assert_eq!(kinds(r"`\d+`"), text(r"\d+"));
        for bad in [r#""open"#, r#""\q""#, r#""\xff""#, "`open", "'single'"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_word_of_digits_is_a_number_a_duration_or_a_size() {
        let one = |text: &str| kinds(text).remove(0);
        assert_eq!(one("5m"), TokenKind::Quantity(Quantity::Duration(300.0)));
        assert_eq!(one("10KB"), TokenKind::Quantity(Quantity::Bytes(10_000.0)));
        assert_eq!(one("1e-3"), TokenKind::Quantity(Quantity::Number(0.001)));
        assert_eq!(one(".5"), TokenKind::Quantity(Quantity::Number(0.5)));
        assert!(tokens("5parsecs").is_err());
    }

    #[test]
    fn comments_and_line_breaks_keep_places_right() {
        let error = tokens("{a=\"b\"} # why\n  \u{1}").expect_err("a control character");
        assert!(error.message.starts_with("parse error at line 2, col 3"), "{error}");
    }
}
