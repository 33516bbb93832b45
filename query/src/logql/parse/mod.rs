//! LogQL text to its syntax tree: tokens by winnow, then recursive descent with one token of look-ahead.
//!
//! Written from the language's documentation (grafana.com/docs/loki, "LogQL: Log query language"). What the
//! language has and oteld has not is an error that names it.

mod lexer;
mod log;
mod metric;

use lexer::{Token, TokenKind};

use super::ast::{Matcher, Quantity, Query};
use crate::{QueryError, QueryErrorKind};

/// Brackets and parentheses that may be open at once: bounds the stack that parsing and evaluation need.
const DEPTH_MAX: usize = 64;

/// Binary operators in one query: their trees lean to one side, so that they too need stack.
const OPERATORS_MAX: usize = 256;

/// Parses a query of at most `length_max` bytes.
pub fn parse(text: &str, length_max: usize) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text, length_max)?;
    let query = if parser.peek_symbol("{") {
        Query::Logs(parser.log_query()?)
    } else {
        Query::Metric(parser.metric_expression()?)
    };
    parser.end()?;
    Ok(query)
}

/// Parses a stream selector alone. `{}` is allowed here, as in Loki's series API, and takes every stream.
pub fn parse_selector(text: &str, length_max: usize) -> Result<Vec<Matcher>, QueryError> {
    let mut parser = Parser::new(text, length_max)?;
    let matchers = parser.matchers()?;
    parser.end()?;
    if !matchers.is_empty() {
        log::refuse_match_all(&matchers)?;
    }
    Ok(matchers)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    operators: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, length_max: usize) -> Result<Self, QueryError> {
        if text.len() > length_max {
            let message = format!("the query is {} bytes long, the limit is {length_max} bytes", text.len());
            return Err(QueryError::new(QueryErrorKind::Limit, message));
        }
        Ok(Parser { text, tokens: lexer::tokens(text)?, next: 0, depth: 0, operators: 0 })
    }

    fn peek(&self) -> &TokenKind {
        &self.tokens[self.next].kind
    }

    fn peek_second(&self) -> &TokenKind {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].kind
    }

    fn peek_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol)
    }

    fn peek_word(&self, word: &str) -> bool {
        matches!(self.peek(), TokenKind::Identifier(found) if found == word)
    }

    /// Steps over one token; stays on the last, which is the end.
    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.peek_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn identifier(&mut self) -> Result<String, QueryError> {
        let TokenKind::Identifier(name) = self.peek().clone() else {
            return Err(self.unexpected("a name"));
        };
        self.advance();
        Ok(name)
    }

    fn string(&mut self) -> Result<String, QueryError> {
        let TokenKind::Text(text) = self.peek().clone() else {
            return Err(self.unexpected("a string in quotes"));
        };
        self.advance();
        Ok(text)
    }

    fn quantity(&mut self) -> Result<Quantity, QueryError> {
        let negative = self.take_symbol("-");
        let TokenKind::Quantity(quantity) = *self.peek() else {
            return Err(self.unexpected("a number, a duration or a size"));
        };
        self.advance();
        let sign = if negative { -1.0 } else { 1.0 };
        Ok(match quantity {
            Quantity::Number(value) => Quantity::Number(sign * value),
            Quantity::Duration(value) => Quantity::Duration(sign * value),
            Quantity::Bytes(value) => Quantity::Bytes(sign * value),
        })
    }

    fn duration_nanos(&mut self) -> Result<i64, QueryError> {
        let start = self.next;
        let nanos = match self.quantity()? {
            Quantity::Duration(seconds) => (seconds * 1e9).round(),
            Quantity::Number(0.0) => 0.0,
            _ => {
                self.next = start;
                return Err(self.unexpected("a duration such as 5m"));
            }
        };
        // A century: far beyond what is stored, and safe to add to any time.
        if nanos.abs() > 100.0 * 365.0 * 86_400.0 * 1e9 {
            self.next = start;
            return Err(self.error("a duration of more than 100 years"));
        }
        Ok(nanos as i64)
    }

    /// Runs `inside` one level deeper, for everything that recurses.
    fn nested<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(&format!("more than {DEPTH_MAX} levels of parentheses")));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    fn count_operator(&mut self) -> Result<(), QueryError> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(self.error(&format!("more than {OPERATORS_MAX} operators in one query")));
        }
        Ok(())
    }

    fn end(&self) -> Result<(), QueryError> {
        if *self.peek() == TokenKind::End { Ok(()) } else { Err(self.unexpected("the end of the query")) }
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        self.error(&format!("unexpected {}, expected {expected}", self.peek()))
    }

    fn error(&self, message: &str) -> QueryError {
        let place = lexer::place(self.text, self.tokens[self.next].at);
        QueryError::bad(format!("{place}: {message}"))
    }
}

#[cfg(test)]
mod tests;
