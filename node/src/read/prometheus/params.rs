//! Parameters of a request: from the URL and, for POST, from the form, which comes first as in Go.

use axum::Form;
use axum::extract::{FromRequest, Query, Request};
use http::{Method, header};
use oteld_query::promql::calendar::{days_from_civil, days_in_month};
use oteld_query::promql::{Matcher, parse_selector};
use oteld_query::{Limits, QueryError};
use oteld_store::model::Tenant;

use super::super::ask::AskOptions;
use super::error::ApiError;
use crate::tenancy::tenant_of;

/// Milliseconds farther from the epoch than this are refused: far beyond what a point's time can say.
const TIME_MS_MAX: f64 = 1e17;

/// The parameters of a request and whose it is.
#[derive(Debug)]
pub(super) struct Params {
    pub(super) tenant: Tenant,
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let tenant = tenant_of(request.headers()).map_err(|error| ApiError::bad_data(error.to_string()))?;
        let Query(in_url) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|error| ApiError::bad_data(error.to_string()))?;
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let form = content_type
            .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        let mut pairs = Vec::new();
        if request.method() == Method::POST && form {
            let Form(in_form) = Form::<Vec<(String, String)>>::from_request(request, state)
                .await
                .map_err(|error| ApiError::bad_data(error.to_string()))?;
            pairs = in_form;
        }
        pairs.extend(in_url);
        Ok(Params { tenant, pairs })
    }
}

impl Params {
    /// The first value of a parameter; an empty one counts as none, as in Prometheus.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// The query text. Whether it is a query is for the parser to say.
    pub(super) fn query(&self) -> String {
        self.get("query").unwrap_or_default().to_owned()
    }

    /// A time in milliseconds since the Unix epoch, when it is given.
    pub(super) fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_time_ms(text).map(Some).ok_or_else(|| {
            ApiError::bad_parameter(name, format!("cannot parse {text:?} to a valid timestamp"))
        })
    }

    pub(super) fn required_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.time_ms(name)?
            .ok_or_else(|| ApiError::bad_parameter(name, "cannot parse \"\" to a valid timestamp"))
    }

    /// A duration in milliseconds, when it is given.
    pub(super) fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_duration_ms(text).map(Some).ok_or_else(|| {
            ApiError::bad_parameter(name, format!("cannot parse {text:?} to a valid duration"))
        })
    }

    /// `limit` and its like; 0 is no limit.
    pub(super) fn limit(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let limit = text.parse::<usize>();
        let limit =
            limit.map_err(|_| ApiError::bad_parameter(name, "limit must be a number, 0 or greater"))?;
        Ok((limit > 0).then_some(limit))
    }

    /// The texts of all `match[]`.
    pub(super) fn matches(&self) -> Vec<String> {
        self.pairs.iter().filter(|(name, _)| name == "match[]").map(|(_, text)| text.clone()).collect()
    }

    pub(super) fn ask_options(&self, limits: &Limits) -> Result<AskOptions, ApiError> {
        let eventual = match self.get("consistency") {
            None => false,
            Some("eventual") => true,
            Some(other) => {
                return Err(ApiError::bad_parameter("consistency", format!("{other:?} is not \"eventual\"")));
            }
        };
        let asked = self.duration_ms("timeout")?.map_or(limits.timeout_ms, |ms| ms.unsigned_abs());
        Ok(AskOptions { eventual, timeout_ms: Some(asked.min(limits.timeout_ms)) })
    }
}

/// The series selectors of `match[]`. Parsing may take milliseconds: not for the reactor.
pub(super) fn parse_selectors(texts: &[String], limits: &Limits) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let parsed: Result<_, QueryError> = texts.iter().map(|text| parse_selector(text, limits)).collect();
    parsed.map_err(|error| ApiError::bad_parameter("match[]", error))
}

/// Seconds since the Unix epoch with decimals, or RFC 3339.
fn parse_time_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return (ms.abs() <= TIME_MS_MAX).then_some(ms as i64);
    }
    parse_rfc3339_ms(text)
}

fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let digits = |from: usize, to: usize| -> Option<u32> {
        let field = text.get(from..to)?;
        field.bytes().all(|byte| byte.is_ascii_digit()).then(|| field.parse().ok())?
    };
    let separated = |at: usize, by: &[u8]| text.as_bytes().get(at).is_some_and(|byte| by.contains(byte));
    let punctuated = separated(4, b"-") && separated(7, b"-") && separated(10, b"Tt");
    if !(punctuated && separated(13, b":") && separated(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let year = i64::from(year);
    let in_calendar = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !in_calendar || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut ms = 0.0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        ms = format!("0.{}", &fraction[..length]).parse::<f64>().ok().filter(|_| length > 0)? * 1000.0;
        rest = &fraction[length..];
    }
    let offset_minutes = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) =>
        {
            let number = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let minutes = number(h1, h2) * 60 + number(m1, m2);
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes = (days_from_civil(year, month, day) * 24 + i64::from(hour)) * 60 + i64::from(minute);
    Some(((minutes - offset_minutes) * 60 + i64::from(second)) * 1000 + ms.floor() as i64)
}

/// Seconds with decimals, or a Prometheus duration such as `1h30m`: units from the greatest to the least, each once.
fn parse_duration_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        return (ms.abs() <= TIME_MS_MAX).then_some(ms as i64);
    }
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut units, mut total) = (text, &UNITS[..], 0_i64);
    while !rest.is_empty() {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..length].parse().ok()?;
        rest = &rest[length..];
        let unit = &rest[..rest.bytes().take_while(u8::is_ascii_alphabetic).count()];
        let place = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(units[place].1)?)?;
        units = &units[place + 1..];
        rest = &rest[unit.len()..];
    }
    (!text.is_empty() && total as f64 <= TIME_MS_MAX).then_some(total)
}

/// A label name in a URL: `U__` marks one with escaped characters, `_2E_` for a dot and `__` for an underscore
/// (Prometheus, "values" escaping of UTF-8 names).
pub(super) fn unescape_label_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut plain = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('_') {
            plain.push('_');
            rest = more;
            continue;
        }
        let decoded = after.split_once('_').and_then(|(hex, more)| {
            let code = u32::from_str_radix(hex, 16).ok()?;
            Some((char::from_u32(code)?, more))
        });
        // What is not an escape after all is the name itself.
        let Some((c, more)) = decoded else { return name.to_owned() };
        plain.push(c);
        rest = more;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc3339() {
        let cases = [
            ("1435781451.781", Some(1_435_781_451_781)),
            ("-1.5", Some(-1500)),
            ("1e9", Some(1_000_000_000_000)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781999+02:00", Some(1_435_781_451_781)),
            ("2015-07-01T20:10:51-00:30", Some(1_435_783_251_000)),
            ("1600-02-29T00:00:00Z", Some(-11_670_998_400_000)),
            ("2015-02-29T00:00:00Z", None),
            ("2015-07-01 20:10:51Z", None),
            ("2015-07-01T20:10:51", None),
            ("2015-07-01T20:10:51.Z", None),
            ("NaN", None),
            ("inf", None),
            ("now", None),
            ("é015-07-01T20:10:51Z", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_seconds_or_units_in_order() {
        let cases = [
            ("15", Some(15_000)),
            ("0.25", Some(250)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1y2w3d4h5m6s7ms", Some(33_019_506_007)),
            ("30m1h", None),
            ("1m1m", None),
            ("5", Some(5_000)),
            ("m", None),
            ("5 m", None),
            ("99999999999y", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn escaped_label_names_are_decoded() {
        let cases = [
            ("job", "job"),
            ("U__http_2e_method", "http.method"),
            ("U__a__b", "a_b"),
            ("U___e4_", "ä"),
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_2e", "U__a_2e"),
        ];
        for (escaped, plain) in cases {
            assert_eq!(unescape_label_name(escaped), plain, "{escaped}");
        }
    }
}
