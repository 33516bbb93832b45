//! Range aggregations, vector aggregations and binary operations.

use super::super::ast::{
    BinaryOp, CompareOp, Grouping, LabelReplace, LogQuery, Matching, MetricExpr, Quantity, RangeAggregation,
    RangeOp, VectorOp,
};
use super::super::matcher;
use super::super::view::label_name;
use super::Parser;
use super::lexer::TokenKind;
use crate::QueryError;

/// Valid in the language, and not built.
const RANGE_OPS_NOT_BUILT: [&str; 2] = ["rate_counter", "variants"];

/// Valid in the language, and not built.
const VECTOR_OPS_NOT_BUILT: [&str; 4] = ["approx_topk", "count_values", "stddev", "stdvar"];

/// How tightly operators bind, loosest first.
const LEVELS: usize = 6;

impl Parser<'_> {
    pub(super) fn metric_expression(&mut self) -> Result<MetricExpr, QueryError> {
        self.binary(0)
    }

    /// All operators that bind at `level` or tighter; left-associative except `^`.
    fn binary(&mut self, level: usize) -> Result<MetricExpr, QueryError> {
        if level == LEVELS {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.binary_op(level) {
            self.advance();
            self.count_operator()?;
            let returns_bool = self.take_word("bool");
            if returns_bool && !matches!(op, BinaryOp::Compare(_)) {
                return Err(self.error("bool follows only a comparison"));
            }
            let matching = self.matching()?;
            let right = match op {
                BinaryOp::Pow => self.nested(|parser| parser.binary(level))?,
                _ => self.binary(level + 1)?,
            };
            let set = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless);
            let scalar = |side: &MetricExpr| matches!(side, MetricExpr::Scalar(_));
            if set && (scalar(&left) || scalar(&right)) {
                return Err(self.error("and, or and unless stand between vectors"));
            }
            left = MetricExpr::Binary { op, returns_bool, matching, sides: Box::new((left, right)) };
        }
        Ok(left)
    }

    fn binary_op(&self, level: usize) -> Option<BinaryOp> {
        let (found, op) = match self.peek() {
            TokenKind::Identifier(word) => match word.as_str() {
                "or" => (0, BinaryOp::Or),
                "and" => (1, BinaryOp::And),
                "unless" => (1, BinaryOp::Unless),
                _ => return None,
            },
            TokenKind::Symbol(symbol) => match *symbol {
                "==" => (2, BinaryOp::Compare(CompareOp::Equal)),
                "!=" => (2, BinaryOp::Compare(CompareOp::NotEqual)),
                ">" => (2, BinaryOp::Compare(CompareOp::Greater)),
                ">=" => (2, BinaryOp::Compare(CompareOp::GreaterOrEqual)),
                "<" => (2, BinaryOp::Compare(CompareOp::Less)),
                "<=" => (2, BinaryOp::Compare(CompareOp::LessOrEqual)),
                "+" => (3, BinaryOp::Add),
                "-" => (3, BinaryOp::Sub),
                "*" => (4, BinaryOp::Mul),
                "/" => (4, BinaryOp::Div),
                "%" => (4, BinaryOp::Mod),
                "^" => (5, BinaryOp::Pow),
                _ => return None,
            },
            _ => return None,
        };
        (found == level).then_some(op)
    }

    fn matching(&mut self) -> Result<Matching, QueryError> {
        let on = self.peek_word("on");
        if !on && !self.peek_word("ignoring") {
            return Ok(Matching::default());
        }
        self.advance();
        let labels = self.label_list()?;
        for group in ["group_left", "group_right"] {
            if self.peek_word(group) {
                return Err(QueryError::not_supported(group));
            }
        }
        Ok(Matching { on, labels })
    }

    fn unary(&mut self) -> Result<MetricExpr, QueryError> {
        if self.take_symbol("(") {
            let inside = self.nested(Self::metric_expression)?;
            self.expect_symbol(")")?;
            return Ok(inside);
        }
        if matches!(self.peek(), TokenKind::Symbol("-" | "+") | TokenKind::Quantity(_)) {
            self.take_symbol("+");
            return Ok(MetricExpr::Scalar(self.number()?));
        }
        let TokenKind::Identifier(name) = self.peek().clone() else {
            return Err(self.unexpected("a selector, a number or a function"));
        };
        if let Some(op) = range_op(&name) {
            self.advance();
            return Ok(MetricExpr::Range(self.range_aggregation(&name, op)?));
        }
        if let Some(op) = vector_op(&name) {
            self.advance();
            return self.nested(|parser| parser.vector_aggregation(op));
        }
        if name == "label_replace" {
            self.advance();
            return self.nested(Self::label_replace);
        }
        if name == "vector" {
            self.advance();
            self.expect_symbol("(")?;
            let value = self.number()?;
            self.expect_symbol(")")?;
            return Ok(MetricExpr::Vector(value));
        }
        if RANGE_OPS_NOT_BUILT.contains(&name.as_str()) || VECTOR_OPS_NOT_BUILT.contains(&name.as_str()) {
            return Err(QueryError::not_supported(format!("the function {name}")));
        }
        Err(self.error(&format!("unknown function `{name}`")))
    }

    fn label_replace(&mut self) -> Result<MetricExpr, QueryError> {
        self.expect_symbol("(")?;
        let of = Box::new(self.metric_expression()?);
        let mut texts = [const { String::new() }; 4];
        for text in &mut texts {
            self.expect_symbol(",")?;
            *text = self.string()?;
        }
        self.expect_symbol(")")?;
        let [target, replacement, source, regex] = texts;
        matcher::anchored(&regex)?;
        if label_name(&target) != target {
            return Err(self.error(&format!("invalid label name {target:?} in label_replace")));
        }
        Ok(MetricExpr::LabelReplace { rule: LabelReplace { target, replacement, source, regex }, of })
    }

    fn number(&mut self) -> Result<f64, QueryError> {
        let start = self.next;
        match self.quantity()? {
            Quantity::Number(value) => Ok(value),
            _ => {
                self.next = start;
                Err(self.unexpected("a number"))
            }
        }
    }

    fn vector_aggregation(&mut self, op: VectorOp) -> Result<MetricExpr, QueryError> {
        let mut grouping = self.grouping()?;
        self.expect_symbol("(")?;
        let mut parameter = None;
        if matches!(op, VectorOp::TopK | VectorOp::BottomK) {
            let k = self.number()?;
            if k < 1.0 {
                return Err(self.error("topk and bottomk need a parameter of 1 or more"));
            }
            parameter = Some(k);
            self.expect_symbol(",")?;
        }
        let of = Box::new(self.metric_expression()?);
        self.expect_symbol(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        if grouping.is_some() && matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
            return Err(self.error("sort and sort_desc take no grouping"));
        }
        Ok(MetricExpr::Aggregate { op, parameter, grouping, of })
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        let without = self.peek_word("without");
        if !without && !self.peek_word("by") {
            return Ok(None);
        }
        self.advance();
        Ok(Some(Grouping { without, labels: self.label_list()? }))
    }

    fn label_list(&mut self) -> Result<Vec<String>, QueryError> {
        self.expect_symbol("(")?;
        let mut labels = Vec::new();
        while !self.take_symbol(")") {
            if !labels.is_empty() {
                self.expect_symbol(",")?;
            }
            labels.push(self.identifier()?);
        }
        labels.sort();
        labels.dedup();
        Ok(labels)
    }

    /// What stands behind the name: `(query [range] offset o) by (labels)`, the range before or behind the stages.
    fn range_aggregation(&mut self, name: &str, op: RangeOp) -> Result<RangeAggregation, QueryError> {
        self.expect_symbol("(")?;
        let mut parameter = None;
        if op == RangeOp::Quantile {
            parameter = Some(self.number()?);
            self.expect_symbol(",")?;
        }
        let selector = self.selector()?;
        let mut range = self.range()?;
        let mut stages = Vec::new();
        let unwrap = self.stages(&mut stages)?;
        if range.is_none() {
            range = self.range()?;
        }
        let Some((range_nanos, offset_nanos)) = range else {
            return Err(self.unexpected("a range such as [5m]"));
        };
        self.expect_symbol(")")?;
        let grouping = self.grouping()?;
        let needs_unwrap = op.needs_unwrap();
        if needs_unwrap && unwrap.is_none() {
            return Err(QueryError::bad(format!("invalid aggregation {name} without unwrap")));
        }
        if !needs_unwrap && op != RangeOp::Rate && unwrap.is_some() {
            return Err(QueryError::bad(format!("invalid aggregation {name} with unwrap")));
        }
        if grouping.is_some() && (!needs_unwrap || op == RangeOp::Sum) {
            return Err(QueryError::bad(format!("grouping not allowed for {name} aggregation")));
        }
        Ok(RangeAggregation {
            op,
            parameter,
            query: LogQuery { selector, stages },
            unwrap,
            range_nanos,
            offset_nanos,
            grouping,
        })
    }

    /// `[5m] offset 1h`, in nanoseconds.
    fn range(&mut self) -> Result<Option<(u64, i64)>, QueryError> {
        if !self.take_symbol("[") {
            return Ok(None);
        }
        let range = self.duration_nanos()?;
        if range <= 0 {
            return Err(self.error("a range must be longer than zero"));
        }
        self.expect_symbol("]")?;
        let offset = if self.take_word("offset") { self.duration_nanos()? } else { 0 };
        if self.peek_symbol("@") {
            return Err(QueryError::not_supported("the modifier `@`"));
        }
        Ok(Some((range.unsigned_abs(), offset)))
    }
}

fn range_op(name: &str) -> Option<RangeOp> {
    Some(match name {
        "count_over_time" => RangeOp::Count,
        "rate" => RangeOp::Rate,
        "bytes_over_time" => RangeOp::Bytes,
        "bytes_rate" => RangeOp::BytesRate,
        "sum_over_time" => RangeOp::Sum,
        "avg_over_time" => RangeOp::Avg,
        "min_over_time" => RangeOp::Min,
        "max_over_time" => RangeOp::Max,
        "stddev_over_time" => RangeOp::StdDev,
        "stdvar_over_time" => RangeOp::StdVar,
        "quantile_over_time" => RangeOp::Quantile,
        "first_over_time" => RangeOp::First,
        "last_over_time" => RangeOp::Last,
        "absent_over_time" => RangeOp::Absent,
        _ => return None,
    })
}

fn vector_op(name: &str) -> Option<VectorOp> {
    Some(match name {
        "sum" => VectorOp::Sum,
        "avg" => VectorOp::Avg,
        "min" => VectorOp::Min,
        "max" => VectorOp::Max,
        "count" => VectorOp::Count,
        "topk" => VectorOp::TopK,
        "bottomk" => VectorOp::BottomK,
        "sort" => VectorOp::Sort,
        "sort_desc" => VectorOp::SortDesc,
        _ => return None,
    })
}
