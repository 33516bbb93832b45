//! The parameters of a request, from its URL and from a form in its body.

use std::ops::Range;

use axum::Form;
use axum::extract::{FromRequest, Query, Request};
use http::{Method, header};
use oteld_query::QueryError;
use oteld_query::logql::{Direction, Matcher, parse_selector};
use oteld_store::model::Tenant;

use super::super::ask::ReadState;
use super::error::LokiError;
use super::time::{parse_step, parse_time};
use crate::tenancy::tenant_of;

/// Says that clients want structured metadata and parsed labels apart from stream labels.
const ENCODING_FLAGS_HEADER: &str = "x-loki-response-encoding-flags";

const HOUR_NANOS: u64 = 3600 * 1_000_000_000;

/// How far back a query looks without `start` and `since`.
pub(super) const QUERY_SINCE_NANOS: u64 = HOUR_NANOS;

/// How far back labels and series are looked for without `start` and `since`.
pub(super) const LABELS_SINCE_NANOS: u64 = 6 * HOUR_NANOS;

/// What a request says.
pub(super) struct Parameters {
    pub(super) tenant: Tenant,
    /// The client sent `categorize-labels`.
    pub(super) categorized: bool,
    now_unix_nano: u64,
    query_length_max: usize,
    pairs: Vec<(String, String)>,
}

impl FromRequest<ReadState> for Parameters {
    type Rejection = LokiError;

    async fn from_request(request: Request, state: &ReadState) -> Result<Self, LokiError> {
        let tenant = tenant_of(request.headers()).map_err(|error| LokiError::bad(error.to_string()))?;
        let flags = request.headers().get(ENCODING_FLAGS_HEADER).and_then(|flags| flags.to_str().ok());
        let categorized =
            flags.is_some_and(|flags| flags.split(',').any(|flag| flag.trim() == "categorize-labels"));
        let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|error| LokiError::bad(error.body_text()))?;
        if request.method() == Method::POST && request.headers().contains_key(header::CONTENT_TYPE) {
            let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
            let Form(more) = form.map_err(|error| LokiError::status(error.status(), error.body_text()))?;
            pairs.extend(more);
        }
        Ok(Parameters {
            tenant,
            categorized,
            now_unix_nano: state.env.clock.now_unix_nanos(),
            query_length_max: state.limits.query_length_max,
            pairs,
        })
    }
}

impl Parameters {
    /// The first value of a name; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a name that are not empty.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.pairs.iter().filter(move |(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// `start` to `end`: without `end` now, without `start` as long before as `since` or `since_nanos` says.
    pub(super) fn times(&self, since_nanos: u64) -> Result<Range<u64>, LokiError> {
        let end = self.time("end")?.unwrap_or(self.now_unix_nano);
        let since = match self.get("since") {
            Some(text) => parse_step(text).ok_or_else(|| cannot_parse("since", text))?,
            None => since_nanos,
        };
        let start = match self.time("start")? {
            Some(start) => start,
            None => end.min(self.now_unix_nano).saturating_sub(since),
        };
        if end < start {
            return Err(LokiError::bad("end timestamp must not be before or equal to start time"));
        }
        Ok(start..end)
    }

    /// `time`, else now.
    pub(super) fn instant(&self) -> Result<u64, LokiError> {
        Ok(self.time("time")?.unwrap_or(self.now_unix_nano))
    }

    fn time(&self, name: &str) -> Result<Option<u64>, LokiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_time(text).map(Some).ok_or_else(|| cannot_parse(name, text))
    }

    /// `step`, else a 250th of the range in whole seconds, at least one.
    pub(super) fn step_nanos(&self, times: &Range<u64>) -> Result<u64, LokiError> {
        match self.get("step") {
            Some(text) => parse_step(text).ok_or_else(|| cannot_parse("step", text)),
            None => Ok(((times.end - times.start) / 250 / 1_000_000_000).max(1) * 1_000_000_000),
        }
    }

    /// `limit`, else 100.
    pub(super) fn limit(&self) -> Result<usize, LokiError> {
        self.limit_or(100)
    }

    /// `limit`, else `default`.
    pub(super) fn limit_or(&self, default: usize) -> Result<usize, LokiError> {
        Ok(self.count("limit")?.unwrap_or(default))
    }

    /// A parameter that counts, from 1.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, LokiError> {
        match self.get(name).map(str::parse) {
            None => Ok(None),
            Some(Ok(0) | Err(_)) => Err(LokiError::bad(format!("{name} must be a positive value"))),
            Some(Ok(count)) => Ok(Some(count)),
        }
    }

    /// `direction`, else backward.
    pub(super) fn direction(&self) -> Result<Direction, LokiError> {
        match self.get("direction").map(str::to_ascii_lowercase).as_deref() {
            None | Some("backward") => Ok(Direction::Backward),
            Some("forward") => Ok(Direction::Forward),
            Some(other) => Err(LokiError::bad(format!("invalid direction '{other}'"))),
        }
    }

    /// `query`, which must be there.
    pub(super) fn query(&self) -> Result<String, LokiError> {
        self.get("query").map(str::to_owned).ok_or_else(|| LokiError::bad("the parameter `query` is missing"))
    }

    /// `query` as a stream selector; `None` where there is none.
    pub(super) fn selector(&self) -> Result<Option<Vec<Matcher>>, LokiError> {
        let parse = |text| parse_selector(text, self.query_length_max);
        Ok(self.get("query").map(parse).transpose()?)
    }

    /// All of `match[]` (also `match`) as stream selectors.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, LokiError> {
        let texts = self.all("match[]").chain(self.all("match"));
        let mut selectors = Vec::new();
        let mut length = 0_usize;
        for text in texts {
            length += text.len();
            selectors.push(parse_selector(text, self.query_length_max)?);
        }
        if length > self.query_length_max {
            let message =
                format!("the selectors are longer than the limit of {} bytes", self.query_length_max);
            return Err(LokiError::bad(message));
        }
        Ok(selectors)
    }

    /// Refuses a parameter that would change the answer and is not built.
    pub(super) fn refuse(&self, name: &str) -> Result<(), LokiError> {
        match self.get(name) {
            None | Some("0" | "0s") => Ok(()),
            Some(_) => Err(QueryError::not_supported(format!("the parameter `{name}`")).into()),
        }
    }
}

fn cannot_parse(name: &str, text: &str) -> LokiError {
    LokiError::bad(format!("could not parse '{name}': {text:?}"))
}
