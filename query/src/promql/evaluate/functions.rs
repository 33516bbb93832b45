//! Functions of instant vectors and scalars.

use std::cmp::Ordering;

use super::super::ast::Node;
use super::super::calendar::{civil_from_days, days_from_civil, days_in_month};
use super::super::labels::Labels;
use super::{Column, Evaluator, Timeline, Value, drop_empty, map, map_steps, native, without_names};
use crate::QueryError;

/// Whether a function can be evaluated as a call. Functions of range vectors, `absent` and `timestamp` of a selector
/// have nodes of their own.
pub(crate) fn is_function(name: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "clamp",
        "clamp_max",
        "clamp_min",
        "histogram_fraction",
        "histogram_quantile",
        "label_join",
        "label_replace",
        "pi",
        "round",
        "scalar",
        "sort",
        "sort_desc",
        "time",
        "timestamp",
        "vector",
        "year",
        "month",
    ];
    OTHERS.contains(&name)
        || math(name).is_some()
        || date(name).is_some()
        || native::of_histogram(name).is_some()
}

fn math(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => f64::to_degrees,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => f64::to_radians,
        "sgn" => |value| if value == 0.0 || value.is_nan() { value } else { value.signum() },
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

/// Functions of a time in seconds since the Unix epoch, in UTC.
fn date(name: &str) -> Option<fn(f64) -> f64> {
    fn civil(seconds: f64) -> (i64, u32, u32) {
        civil_from_days(days(seconds))
    }
    fn days(seconds: f64) -> i64 {
        (seconds as i64).div_euclid(86_400)
    }
    fn second_of_day(seconds: f64) -> i64 {
        (seconds as i64).rem_euclid(86_400)
    }
    Some(match name {
        "year" => |seconds| civil(seconds).0 as f64,
        "month" => |seconds| f64::from(civil(seconds).1),
        "day_of_month" => |seconds| f64::from(civil(seconds).2),
        "day_of_week" => |seconds| (days(seconds) + 4).rem_euclid(7) as f64,
        "day_of_year" => |seconds| (days(seconds) - days_from_civil(civil(seconds).0, 1, 1) + 1) as f64,
        "days_in_month" => |seconds| f64::from(days_in_month(civil(seconds).0, civil(seconds).1)),
        "hour" => |seconds| (second_of_day(seconds) / 3600) as f64,
        "minute" => |seconds| (second_of_day(seconds) / 60 % 60) as f64,
        _ => return None,
    })
}

fn seconds(when: &Timeline) -> Vec<f64> {
    (0..when.steps()).map(|step| when.at(step) as f64 / 1000.0).collect()
}

fn unlabelled(values: Vec<f64>) -> Vec<Column> {
    vec![Column::floats(Labels::default(), values.into_iter().map(Some).collect())]
}

impl Evaluator<'_> {
    pub(super) fn call(
        &mut self,
        function: &str,
        args: &[Node],
        when: &Timeline,
    ) -> Result<Value, QueryError> {
        if let Some(f) = math(function) {
            return Ok(Value::Vector(map(self.vector(&args[0], when)?, f)?));
        }
        if let Some(f) = date(function) {
            let times = match args.first() {
                Some(arg) => self.vector(arg, when)?,
                None => unlabelled(seconds(when)),
            };
            return Ok(Value::Vector(map(times, f)?));
        }
        if let Some(f) = native::of_histogram(function) {
            let columns = native::map_histograms(self.vector(&args[0], when)?, |_, histogram| f(histogram));
            return Ok(Value::Vector(without_names(columns)?));
        }
        Ok(Value::Vector(match function {
            "time" => return Ok(Value::Scalar(seconds(when))),
            "pi" => return Ok(Value::Scalar(vec![std::f64::consts::PI; when.steps()])),
            "scalar" => {
                let columns = self.vector(&args[0], when)?;
                return Ok(Value::Scalar((0..when.steps()).map(|step| only_value(&columns, step)).collect()));
            }
            "vector" => unlabelled(self.scalar(&args[0], when)?),
            "timestamp" => {
                let times = seconds(when);
                let columns = self.vector(&args[0], when)?.into_iter().map(|column| {
                    let time = |step: usize| column.is_at(step).then_some(times[step]);
                    Column::floats(column.labels.clone(), (0..when.steps()).map(time).collect())
                });
                without_names(columns.collect())?
            }
            "clamp" => {
                let (low, high) = (self.scalar(&args[1], when)?, self.scalar(&args[2], when)?);
                let within = |step: usize, value: f64| {
                    let (low, high): (f64, f64) = (low[step], high[step]);
                    if high < low {
                        return None;
                    }
                    Some(at_most(at_least(value, low), high))
                };
                map_steps(self.vector(&args[0], when)?, within)?
            }
            "clamp_min" => {
                let low = self.scalar(&args[1], when)?;
                map_steps(self.vector(&args[0], when)?, |step, value| Some(at_least(value, low[step])))?
            }
            "clamp_max" => {
                let high = self.scalar(&args[1], when)?;
                map_steps(self.vector(&args[0], when)?, |step, value| Some(at_most(value, high[step])))?
            }
            "round" => {
                let nearest = match args.get(1) {
                    Some(arg) => self.scalar(arg, when)?,
                    None => vec![1.0; when.steps()],
                };
                let round = |step: usize, value: f64| {
                    let inverse = 1.0 / nearest[step];
                    Some((value * inverse + 0.5).floor() / inverse)
                };
                map_steps(self.vector(&args[0], when)?, round)?
            }
            "sort" => sorted(self.vector(&args[0], when)?, when, |a, b| a.partial_cmp(&b)),
            "sort_desc" => sorted(self.vector(&args[0], when)?, when, |a, b| b.partial_cmp(&a)),
            "histogram_quantile" => {
                let quantiles = self.scalar(&args[0], when)?;
                let buckets = self.vector(&args[1], when)?;
                self.histogram_quantile(&quantiles, buckets, when)?
            }
            "histogram_fraction" => {
                let (lower, upper) = (self.scalar(&args[0], when)?, self.scalar(&args[1], when)?);
                let columns = self.vector(&args[2], when)?;
                self.histogram_fraction(&lower, &upper, columns, when)?
            }
            "label_replace" => self.label_replace(args, when)?,
            "label_join" => self.label_join(args, when)?,
            other => return Err(QueryError::not_supported(format!("the function {other}()"))),
        }))
    }
}

/// Go's `math.Max`: infinite where either is +Inf, else NaN where either is NaN.
fn at_least(value: f64, low: f64) -> f64 {
    if value == f64::INFINITY || low == f64::INFINITY {
        return f64::INFINITY;
    }
    if value.is_nan() || low.is_nan() { f64::NAN } else { value.max(low) }
}

/// Go's `math.Min`: infinite where either is -Inf, else NaN where either is NaN.
fn at_most(value: f64, high: f64) -> f64 {
    if value == f64::NEG_INFINITY || high == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if value.is_nan() || high.is_nan() { f64::NAN } else { value.min(high) }
}

/// The value of the only series at a step, else NaN.
fn only_value(columns: &[Column], step: usize) -> f64 {
    let mut present = columns.iter().filter_map(|column| column.values[step]);
    match (present.next(), present.next()) {
        (Some(value), None) => value,
        _ => f64::NAN,
    }
}

/// By value with NaN last; a range query has no order of its own.
fn sorted(
    columns: Vec<Column>,
    when: &Timeline,
    order: impl Fn(f64, f64) -> Option<Ordering>,
) -> Vec<Column> {
    let mut columns = drop_empty(columns);
    if when.steps() == 1 {
        columns.retain(|column| column.values[0].is_some());
        let value = |column: &Column| column.values[0].unwrap_or(f64::NAN);
        columns.sort_by(|a, b| {
            let (a, b) = (value(a), value(b));
            a.is_nan().cmp(&b.is_nan()).then(order(a, b).unwrap_or(Ordering::Equal))
        });
    }
    columns
}
