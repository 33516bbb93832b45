//! TraceQL's tokens. Attribute names run up to a character that cannot be part of one, so `span.a-b/c` is one token.

use super::ast::AttributeScope;
use super::duration::parse_duration;
use crate::QueryError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// An operator or bracket.
    Symbol(&'static str),
    /// A keyword, intrinsic or function name; scoped intrinsics such as `span:name` are one word.
    Word(String),
    Attribute {
        scope: AttributeScope,
        key: String,
    },
    /// An attribute of the parent span, as it was written.
    ParentAttribute(String),
    Text(String),
    Int(i64),
    Float(f64),
    Duration(i64),
}

/// Longest first where one begins another.
const SYMBOLS: [&str; 36] = [
    "&>>", "&<<", "!>>", "!<<", "&&", "||", "&>", "&<", "&~", "!=", "!~", "!>", "!<", "=~", ">=", "<=", ">>",
    "<<", "{", "}", "(", ")", ",", "=", ">", "<", "~", "!", "|", "+", "-", "*", "/", "%", "^", ";",
];

/// Splits a query; each token with the byte at which it starts.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while lexer.skip_space() {
        let start = lexer.at;
        tokens.push((start, lexer.next()?));
    }
    Ok(tokens)
}

/// An error at byte `at` of the query.
pub(super) fn error_at(at: usize, message: impl std::fmt::Display) -> QueryError {
    QueryError::bad(format!("parse error at character {}: {message}", at + 1))
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// False at the end.
    fn skip_space(&mut self) -> bool {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at < self.text.len()
    }

    fn next(&mut self) -> Result<Token, QueryError> {
        let first = self.rest().chars().next().expect("called before the end");
        match first {
            '"' => self.quoted().map(Token::Text),
            '`' => self.raw_quoted(),
            '0'..='9' => self.number(),
            '.' => {
                self.at += 1;
                let key = self.attribute_key()?;
                Ok(Token::Attribute { scope: AttributeScope::Any, key })
            }
            c if c.is_alphabetic() || c == '_' => self.word(),
            _ => {
                let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest().starts_with(symbol)) else {
                    return Err(error_at(self.at, format!("unexpected character {first:?}")));
                };
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
        }
    }

    fn word(&mut self) -> Result<Token, QueryError> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
        let word = self.rest()[..length].to_owned();
        self.at += length;
        if self.rest().starts_with(':') {
            let length = self.rest()[1..].find(|c| !is_word(c)).map_or(self.rest().len(), |n| n + 1);
            let scoped = format!("{word}{}", &self.rest()[..length]);
            self.at += length;
            return Ok(Token::Word(scoped));
        }
        if !self.rest().starts_with('.') {
            return Ok(Token::Word(word));
        }
        let scope = match word.as_str() {
            "resource" => AttributeScope::Resource,
            "span" => AttributeScope::Span,
            "event" => AttributeScope::Event,
            "link" => AttributeScope::Link,
            "instrumentation" => AttributeScope::Instrumentation,
            "parent" => {
                self.at += 1;
                let key = self.attribute_key()?;
                return Ok(Token::ParentAttribute(format!("parent.{key}")));
            }
            _ => {
                return Err(error_at(
                    self.at,
                    format!("unknown attribute scope {word:?}; write .{word} for any scope"),
                ));
            }
        };
        self.at += 1;
        Ok(Token::Attribute { scope, key: self.attribute_key()? })
    }

    fn attribute_key(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        let mut key = String::new();
        while let Some(c) = self.rest().chars().next() {
            if c == '"' {
                key.push_str(&self.quoted()?);
            } else if c.is_whitespace() || "{}()=~!<>&|^,".contains(c) {
                break;
            } else {
                key.push(c);
                self.at += c.len_utf8();
            }
        }
        if key.is_empty() {
            return Err(error_at(start, "an attribute name is missing"));
        }
        Ok(key)
    }

    /// A string in double quotes with Go's escapes.
    fn quoted(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += 1 + offset + 1;
                    return Ok(text);
                }
                '\\' => {
                    let escape = chars.next().map(|(_, c)| c);
                    let digits = match escape {
                        Some('x') => 2,
                        Some('u') => 4,
                        Some('U') => 8,
                        _ => 0,
                    };
                    let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    text.push(unescaped(escape, &code).ok_or_else(|| {
                        error_at(start + 1 + offset, "invalid escape sequence in a string")
                    })?);
                }
                _ => text.push(c),
            }
        }
        Err(error_at(start, "a string is not closed"))
    }

    fn raw_quoted(&mut self) -> Result<Token, QueryError> {
        let start = self.at;
        let Some(length) = self.rest()[1..].find('`') else {
            return Err(error_at(start, "a string is not closed"));
        };
        let text = self.rest()[1..=length].to_owned();
        self.at += length + 2;
        Ok(Token::Text(text))
    }

    fn number(&mut self) -> Result<Token, QueryError> {
        let start = self.at;
        let part_of_number = |c: char| c.is_alphanumeric() || c == '.' || c == 'µ' || c == 'μ';
        let length = self.rest().find(|c| !part_of_number(c)).unwrap_or(self.rest().len());
        let mut text = self.rest()[..length].to_owned();
        self.at += length;
        if text.ends_with(['e', 'E']) && self.rest().starts_with(['+', '-']) {
            let digits =
                self.rest()[1..].find(|c: char| !c.is_ascii_digit()).map_or(self.rest().len(), |n| n + 1);
            text.push_str(&self.rest()[..digits]);
            self.at += digits;
        }
        if let Ok(int) = text.parse() {
            Ok(Token::Int(int))
        } else if let Ok(float) = text.parse() {
            Ok(Token::Float(float))
        } else {
            parse_duration(&text)
                .map(Token::Duration)
                .map_err(|_| error_at(start, format!("invalid number or duration {text:?}")))
        }
    }
}

fn unescaped(escape: Option<char>, code: &str) -> Option<char> {
    Some(match escape? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        'x' | 'u' | 'U' => char::from_u32(u32::from_str_radix(code, 16).ok()?)?,
        c @ ('\\' | '"' | '\'') => c,
        _ => return None,
    })
}
