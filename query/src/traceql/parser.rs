//! From text to tree. What TraceQL has and oteld does not is refused by name.
//!
//! The grammar is Tempo's (its TraceQL language documentation): `&&` and `||` have one precedence and group to
//! the left, comparisons bind tighter.

use super::ast::{AttributeScope, Expr, Field, KIND_NAMES, Op, STATUS_NAMES, Spanset, Value};
use super::lexer::{Token, error_at, tokens};
use crate::QueryError;

/// Brackets within brackets.
const DEPTH_MAX: usize = 64;

/// Changes from `&&` to `||` or back, first operators included.
const ALTERNATIONS_MAX: usize = 128;

/// Parses a query of at most `length_max` bytes.
pub fn parse(text: &str, length_max: usize) -> Result<Spanset, QueryError> {
    if text.len() > length_max {
        return Err(QueryError::bad(format!(
            "the query has {} bytes, more than the limit query_length_max of {length_max}",
            text.len()
        )));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len(), depth: 0, alternations: 0 };
    let spanset = parser.spanset()?;
    parser.hints()?;
    match parser.peek() {
        None => Ok(spanset),
        Some(_) => Err(parser.unexpected("the end of the query")),
    }
}

/// Parses what names a field outside a query: `resource.service.name`, `span.x`, `.x`, `status`, `span:name`; any
/// other text is the key of an attribute of any scope.
pub fn parse_field(text: &str) -> Field {
    let parsed = tokens(text).ok().and_then(|tokens| match tokens.as_slice() {
        [(_, Token::Attribute { scope, key })] => Some(Field::Attribute { scope: *scope, key: key.clone() }),
        [(_, Token::Word(word))] => intrinsic(word),
        _ => None,
    });
    parsed.unwrap_or_else(|| Field::Attribute { scope: AttributeScope::Any, key: text.to_owned() })
}

/// The field that an intrinsic's name stands for; `None` for names that are none, or not built.
fn intrinsic(name: &str) -> Option<Field> {
    Some(match name {
        "name" | "span:name" => Field::Name,
        "status" | "span:status" => Field::Status,
        "statusMessage" | "span:statusMessage" => Field::StatusMessage,
        "kind" | "span:kind" => Field::Kind,
        "duration" | "span:duration" => Field::Duration,
        "span:id" => Field::SpanId,
        "span:parentID" => Field::ParentId,
        "trace:id" => Field::TraceId,
        "traceDuration" | "trace:duration" => Field::TraceDuration,
        "rootName" | "trace:rootName" => Field::RootName,
        "rootServiceName" | "trace:rootService" => Field::RootServiceName,
        "instrumentation:name" => Field::ScopeName,
        "instrumentation:version" => Field::ScopeVersion,
        "event:name" => Field::EventName,
        _ => return None,
    })
}

/// Intrinsics that TraceQL has and oteld does not.
const INTRINSICS_NOT_BUILT: [&str; 9] = [
    "childCount",
    "span:childCount",
    "parent",
    "nestedSetLeft",
    "nestedSetRight",
    "event:timeSinceStart",
    "link:spanID",
    "link:traceID",
    "trace:state",
];

/// One side of a comparison.
enum Operand {
    Field(Field),
    NestedSetParent,
    Value(Value),
    Nil,
    Expr(Expr),
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    alternations: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn symbol(&self) -> Option<&'static str> {
        match self.peek() {
            Some(Token::Symbol(symbol)) => Some(symbol),
            _ => None,
        }
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.symbol() == Some(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), QueryError> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected(&format!("{symbol:?}"))) }
    }

    fn unexpected(&self, wanted: &str) -> QueryError {
        let found = match self.peek() {
            None => "the end of the query".to_owned(),
            Some(Token::Symbol(symbol)) => format!("{symbol:?}"),
            Some(Token::Word(word) | Token::ParentAttribute(word)) => format!("{word:?}"),
            Some(Token::Attribute { key, .. }) => format!("the attribute {key:?}"),
            Some(_) => "a literal".to_owned(),
        };
        error_at(self.at(), format!("expected {wanted}, found {found}"))
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, QueryError>) -> Result<T, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(error_at(self.at(), format!("brackets are nested deeper than {DEPTH_MAX}")));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// `left`, which becomes one level deeper. Trees are walked by recursion, here and on every leaf.
    fn alternated<T>(&mut self, left: T) -> Result<T, QueryError> {
        self.alternations += 1;
        if self.alternations > ALTERNATIONS_MAX {
            return Err(error_at(
                self.at(),
                format!("&& and || alternate more than {ALTERNATIONS_MAX} times in the query"),
            ));
        }
        Ok(left)
    }

    fn spanset(&mut self) -> Result<Spanset, QueryError> {
        let mut left = self.spanset_part()?;
        while let Some(symbol) = self.symbol() {
            match symbol {
                "&&" | "||" => {
                    self.next += 1;
                    let right = self.spanset_part()?;
                    left = match (symbol, left) {
                        ("&&", Spanset::And(mut parts)) => {
                            parts.push(right);
                            Spanset::And(parts)
                        }
                        ("&&", left) => Spanset::And(vec![self.alternated(left)?, right]),
                        (_, Spanset::Or(mut parts)) => {
                            parts.push(right);
                            Spanset::Or(parts)
                        }
                        (_, left) => Spanset::Or(vec![self.alternated(left)?, right]),
                    };
                }
                ")" => break,
                "|" => return Err(self.pipeline()),
                ">" | ">>" | "<" | "<<" | "~" | "!>" | "!>>" | "!<" | "!<<" | "!~" | "&>" | "&>>" | "&<"
                | "&<<" | "&~" => {
                    return Err(QueryError::not_supported(format!("the structural operator {symbol}")));
                }
                _ => return Err(self.unexpected("&&, || or the end of the query")),
            }
        }
        Ok(left)
    }

    /// The refusal of what follows a `|`.
    fn pipeline(&self) -> QueryError {
        match self.tokens.get(self.next + 1) {
            Some((_, Token::Word(stage))) => {
                QueryError::not_supported(format!("the TraceQL pipeline stage {stage}()"))
            }
            Some(_) => QueryError::not_supported("a TraceQL pipeline (|)"),
            None => error_at(self.end, "a pipeline stage is missing after |"),
        }
    }

    fn spanset_part(&mut self) -> Result<Spanset, QueryError> {
        if self.take("(") {
            let inner = self.nested(Parser::spanset)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if let Some(Token::Word(word)) = self.peek() {
            return Err(if self.tokens.get(self.next + 1).is_some_and(|(_, t)| *t == Token::Symbol("(")) {
                QueryError::not_supported(format!("the TraceQL function {word}() outside a filter"))
            } else {
                self.unexpected("{")
            });
        }
        self.expect("{")?;
        if self.take("}") {
            return Ok(Spanset::all());
        }
        let expr = self.expr()?;
        self.expect("}")?;
        Ok(Spanset::Filter(expr))
    }

    fn expr(&mut self) -> Result<Expr, QueryError> {
        let mut left = self.comparison()?;
        while let Some(symbol @ ("&&" | "||")) = self.symbol() {
            self.next += 1;
            let right = self.comparison()?;
            left = match (symbol, left) {
                ("&&", Expr::And(mut parts)) => {
                    parts.push(right);
                    Expr::And(parts)
                }
                ("&&", left) => Expr::And(vec![self.alternated(left)?, right]),
                (_, Expr::Or(mut parts)) => {
                    parts.push(right);
                    Expr::Or(parts)
                }
                (_, left) => Expr::Or(vec![self.alternated(left)?, right]),
            };
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expr, QueryError> {
        let at = self.at();
        let left = self.operand()?;
        let op = match self.symbol() {
            Some("=") => Op::Eq,
            Some("!=") => Op::Ne,
            Some("=~") => Op::Regex,
            Some("!~") => Op::NotRegex,
            Some("<") => Op::Lt,
            Some("<=") => Op::Le,
            Some(">") => Op::Gt,
            Some(">=") => Op::Ge,
            Some(symbol @ ("+" | "-" | "*" | "/" | "%" | "^")) => {
                return Err(QueryError::not_supported(format!("arithmetic ({symbol}) in a TraceQL filter")));
            }
            _ => return bare(left, at),
        };
        self.next += 1;
        let right = self.operand()?;
        if let Some(symbol @ ("+" | "-" | "*" | "/" | "%" | "^")) = self.symbol() {
            return Err(QueryError::not_supported(format!("arithmetic ({symbol}) in a TraceQL filter")));
        }
        compare(left, op, right, at)
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        let at = self.at();
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("a condition")) };
        if !matches!(token, Token::Symbol(_)) {
            self.next += 1;
        }
        Ok(match token {
            Token::Text(text) => Operand::Value(Value::Text(text)),
            Token::Int(int) => Operand::Value(Value::Int(int)),
            Token::Float(float) => Operand::Value(Value::Float(float)),
            Token::Duration(nanos) => Operand::Value(Value::Duration(nanos)),
            Token::Attribute { scope, key } => Operand::Field(Field::Attribute { scope, key }),
            Token::ParentAttribute(name) => {
                return Err(QueryError::not_supported(format!("an attribute of the parent span ({name})")));
            }
            Token::Word(word) => word_operand(&word, at)?,
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.nested(Parser::expr)?;
                self.expect(")")?;
                Operand::Expr(inner)
            }
            Token::Symbol("!") => {
                self.next += 1;
                let inner = self.nested(Parser::operand)?;
                Operand::Expr(Expr::Not(Box::new(bare(inner, at)?)))
            }
            Token::Symbol("-") => {
                self.next += 1;
                match self.operand_number() {
                    Some(value) => Operand::Value(value),
                    None => return Err(self.unexpected("a number after -")),
                }
            }
            Token::Symbol(_) => return Err(self.unexpected("a condition")),
        })
    }

    /// The negative of the number that follows.
    fn operand_number(&mut self) -> Option<Value> {
        let value = match self.peek()? {
            Token::Int(int) => Value::Int(-int),
            Token::Float(float) => Value::Float(-float),
            Token::Duration(nanos) => Value::Duration(-nanos),
            _ => return None,
        };
        self.next += 1;
        Some(value)
    }

    /// `with (most_recent=true)` asks for what oteld does anyway: the newest traces.
    fn hints(&mut self) -> Result<(), QueryError> {
        if self.peek() != Some(&Token::Word("with".into())) {
            return Ok(());
        }
        self.next += 1;
        self.expect("(")?;
        loop {
            match self.peek() {
                Some(Token::Word(hint)) if hint == "most_recent" => self.next += 1,
                Some(Token::Word(hint)) => {
                    return Err(QueryError::not_supported(format!("the query hint {hint}")));
                }
                _ => return Err(self.unexpected("a hint")),
            }
            self.expect("=")?;
            self.operand()?;
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")
    }
}

fn word_operand(word: &str, at: usize) -> Result<Operand, QueryError> {
    if let Some(field) = intrinsic(word) {
        return Ok(Operand::Field(field));
    }
    if let Some(code) = STATUS_NAMES.iter().position(|name| *name == word) {
        return Ok(Operand::Value(Value::Status(code as u8)));
    }
    if let Some(kind) = KIND_NAMES.iter().position(|name| *name == word) {
        return Ok(Operand::Value(Value::Kind(kind as u8)));
    }
    match word {
        "true" => Ok(Operand::Value(Value::Bool(true))),
        "false" => Ok(Operand::Value(Value::Bool(false))),
        "nil" => Ok(Operand::Nil),
        "nestedSetParent" => Ok(Operand::NestedSetParent),
        _ if INTRINSICS_NOT_BUILT.contains(&word) => {
            Err(QueryError::not_supported(format!("the intrinsic {word}")))
        }
        _ => Err(error_at(at, format!("unknown identifier {word:?}; an attribute is written .{word}"))),
    }
}

/// An operand that stands alone has to be a condition by itself.
fn bare(operand: Operand, at: usize) -> Result<Expr, QueryError> {
    match operand {
        Operand::Expr(expr) => Ok(expr),
        Operand::Value(Value::Bool(value)) => Ok(Expr::Const(value)),
        Operand::Field(field @ Field::Attribute { .. }) => {
            Ok(Expr::Compare { field, op: Op::Eq, value: Value::Bool(true) })
        }
        _ => Err(error_at(at, "expected a condition, found a value that is not a boolean")),
    }
}

fn compare(left: Operand, op: Op, right: Operand, at: usize) -> Result<Expr, QueryError> {
    let regex = matches!(op, Op::Regex | Op::NotRegex);
    match (left, right) {
        (Operand::Field(field), Operand::Value(value)) => typed(field, op, value, at),
        (Operand::Value(value), Operand::Field(field)) => match op.flipped() {
            Some(op) => typed(field, op, value, at),
            None => Err(error_at(at, "a regular expression stands on the right side")),
        },
        (Operand::Field(field), Operand::Nil) | (Operand::Nil, Operand::Field(field)) => match op {
            Op::Ne => Ok(Expr::Exists(field)),
            Op::Eq => Ok(Expr::Not(Box::new(Expr::Exists(field)))),
            _ => Err(error_at(at, "nil can be compared with = and != only")),
        },
        (Operand::NestedSetParent, Operand::Value(value)) => match (op, &value) {
            (Op::Lt, Value::Int(0)) | (Op::Eq, Value::Int(-1)) => {
                Ok(Expr::Compare { field: Field::IsRoot, op: Op::Eq, value: Value::Bool(true) })
            }
            _ => Err(QueryError::not_supported("nestedSetParent other than < 0 (a root span)")),
        },
        (Operand::Field(_), Operand::Field(_)) if !regex => {
            Err(QueryError::not_supported("the comparison of two fields in a TraceQL filter"))
        }
        _ => Err(error_at(at, "a comparison needs a field and a value")),
    }
}

/// A comparison whose types can match; Tempo refuses the others too, instead of finding nothing.
fn typed(field: Field, op: Op, value: Value, at: usize) -> Result<Expr, QueryError> {
    let ordered = matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
    if let Op::Regex | Op::NotRegex = op {
        match &value {
            Value::Text(pattern) => drop(super::filter::anchored_regex(pattern)?),
            _ => return Err(error_at(at, "a regular expression has to be a string")),
        }
    }
    if ordered && matches!(value, Value::Bool(_) | Value::Status(_) | Value::Kind(_)) {
        return Err(error_at(at, "booleans, statuses and kinds can be compared with = and != only"));
    }
    let number = matches!(value, Value::Int(_) | Value::Float(_) | Value::Duration(_));
    let fits = match &field {
        Field::Attribute { .. } => true,
        Field::Status => matches!(value, Value::Status(_)),
        Field::Kind => matches!(value, Value::Kind(_)),
        Field::Duration | Field::TraceDuration => number,
        Field::IsRoot => matches!(value, Value::Bool(_)),
        _ => matches!(value, Value::Text(_)),
    };
    if !fits {
        return Err(error_at(at, format!("{field:?} cannot be compared with {value:?}: their types differ")));
    }
    Ok(Expr::Compare { field, op, value })
}

#[cfg(test)]
mod tests;
