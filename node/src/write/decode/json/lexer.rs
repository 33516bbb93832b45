//! JSON text (RFC 8259), read value by value.

use std::borrow::Cow;

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: Cow<'static, str>,
    /// Byte in the text.
    pub(super) offset: usize,
}

/// The beginning of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Object,
    Array,
    String(Cow<'a, str>),
    /// As it is written.
    Number(&'a str),
    Bool(bool),
    Null,
}

/// Deepest nesting of values that are skipped.
const SKIP_DEPTH_MAX: usize = 128;

pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Lexer { text, position: 0 }
    }

    pub(super) fn problem<T>(&self, message: impl Into<Cow<'static, str>>) -> Result<T, Problem> {
        Err(Problem { message: message.into(), offset: self.position })
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.position) {
            self.position += 1;
        }
        bytes.get(self.position).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        if self.peek() == Some(byte) {
            self.position += 1;
            return Ok(());
        }
        self.problem(format!("expected {:?}", byte as char))
    }

    /// The text must end here.
    pub(super) fn end(&mut self) -> Result<(), Problem> {
        if self.peek().is_none() { Ok(()) } else { self.problem("there is text after the request") }
    }

    /// A value, or the opening of an object or array.
    pub(super) fn value(&mut self) -> Result<Token<'a>, Problem> {
        match self.peek() {
            Some(b'{') => {
                self.position += 1;
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.position += 1;
                Ok(Token::Array)
            }
            Some(b'"') => Ok(Token::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number(self.number()?)),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(_) => self.problem("this is not a JSON value"),
            None => self.problem("the text ends where a value should be"),
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Problem> {
        if self.text.as_bytes()[self.position..].starts_with(word.as_bytes()) {
            self.position += word.len();
            return Ok(token);
        }
        self.problem("this is not a JSON value")
    }

    /// The next member's name in an object; `None` at its end. `first` is true right after the opening.
    pub(super) fn name(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Problem> {
        if !self.another(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return self.problem("expected a member name in quotes");
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// Whether the array has another element.
    pub(super) fn element(&mut self, first: bool) -> Result<bool, Problem> {
        self.another(b']', first)
    }

    fn another(&mut self, close: u8, first: bool) -> Result<bool, Problem> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.position += 1;
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.position += 1;
                if self.peek() == Some(close) {
                    return self.problem("there is a comma before the end");
                }
                Ok(true)
            }
            Some(_) => self.problem(format!("expected ',' or {:?}", close as char)),
            None => self.problem("the text ends inside an object or array"),
        }
    }

    fn number(&mut self) -> Result<&'a str, Problem> {
        let bytes = self.text.as_bytes();
        let start = self.position;
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = start + usize::from(bytes[start] == b'-');
        let whole = digits(end);
        if whole == 0 || whole > 1 && bytes[end] == b'0' {
            return self.problem("this is not a JSON number");
        }
        end += whole;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction == 0 {
                return self.problem("this is not a JSON number");
            }
            end += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(bytes.len()));
            if exponent == 0 {
                return self.problem("this is not a JSON number");
            }
            end += 1 + sign + exponent;
        }
        self.position = end;
        Ok(&self.text[start..end])
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Problem> {
        self.position += 1;
        let mut built: Option<String> = None;
        loop {
            let rest = &self.text[self.position..];
            let plain =
                rest.bytes().take_while(|byte| *byte != b'"' && *byte != b'\\' && *byte >= 0x20).count();
            let piece = &rest[..plain];
            self.position += plain;
            match rest.as_bytes().get(plain) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(match built {
                        None => Cow::Borrowed(piece),
                        Some(built) => Cow::Owned(built + piece),
                    });
                }
                Some(b'\\') => {
                    let built = built.get_or_insert_default();
                    built.push_str(piece);
                    built.push(self.escape()?);
                }
                Some(_) => return self.problem("a control character in a string must be escaped"),
                None => return self.problem("the text ends inside a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let code = self.text.as_bytes().get(self.position + 1).copied();
        let character = match code {
            Some(plain @ (b'"' | b'\\' | b'/')) => plain as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return self.problem("this escape does not exist in JSON"),
        };
        self.position += 2;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, Problem> {
        let unit = |position: usize| {
            let bytes = self.text.as_bytes().get(position..position + 6)?;
            let hex = bytes.strip_prefix(b"\\u")?;
            hex.iter().try_fold(0, |value, digit| Some(value * 16 + (*digit as char).to_digit(16)?))
        };
        let character = match unit(self.position) {
            Some(high @ 0xd800..=0xdbff) => match unit(self.position + 6) {
                Some(low @ 0xdc00..=0xdfff) => {
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                }
                _ => None,
            },
            Some(unit) => char::from_u32(unit),
            None => None,
        };
        let Some(character) = character else {
            return self.problem("this \\u escape is not a Unicode character");
        };
        self.position += if character > '\u{ffff}' { 12 } else { 6 };
        Ok(character)
    }

    /// Skips the rest of a value whose beginning was read.
    pub(super) fn skip(&mut self, token: Token<'a>) -> Result<(), Problem> {
        let mut open = Vec::new();
        let mut token = token;
        loop {
            let mut first = false;
            match token {
                Token::Object | Token::Array => {
                    if open.len() == SKIP_DEPTH_MAX {
                        return self.problem("values are nested too deep");
                    }
                    open.push(token == Token::Object);
                    first = true;
                }
                _ => {}
            }
            loop {
                let Some(object) = open.last() else { return Ok(()) };
                let another = if *object { self.name(first)?.is_some() } else { self.element(first)? };
                if another {
                    break;
                }
                open.pop();
                first = false;
            }
            token = self.value()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<(), Problem> {
        let mut lexer = Lexer::new(text);
        let token = lexer.value()?;
        lexer.skip(token)?;
        lexer.end()
    }

    #[test]
    fn json_is_taken_and_what_is_not_json_is_refused_as_serde_json_does() {
        for text in [
            "{}",
            "[]",
            " [ 1 , -0.5e+3 ] ",
            "{\"a\":{\"b\":[[],{}]},\"c\":null}",
            "\"\\u00e9\\ud83e\\udd80\"",
            "1e5",
            "0",
            "-0",
            "true",
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "NaN",
            "\"\\x\"",
            "\"\\ud83e\"",
            "\"\\udd80\"",
            "\"a\nb\"",
            "\"a",
            "[1 2]",
            "{\"a\" 1}",
            "tru",
            "[1]]",
            "-",
            "{\"a\":1 \"b\":2}",
            "\"\\u12\"",
            "\"\\ud83e\\u0041\"",
            "[,1]",
            "1e+",
            "\"\\u+123\"",
        ] {
            assert_eq!(
                whole(text).is_ok(),
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn skipping_does_not_recurse() {
        assert!(whole(&"[".repeat(1_000_000)).is_err());
    }
}
