//! LogQL: Loki's query language over OpenTelemetry logs.
//!
//! Text → [`parse`] → [`plan`] (what the leaves are asked) → [`leaf`] (select, filter, count over one node's rows)
//! → [`evaluate`] (merge and compute on the front). What the language has and oteld has not is
//! [`QueryErrorKind::NotSupported`](crate::QueryErrorKind), never an empty answer.

pub mod ast;
mod quantity;
pub mod parse;
mod matcher;
pub mod view;
mod level;
mod pipeline;
pub mod plan;
pub mod leaf;
pub mod evaluate;
mod fields;

pub use ast::Matcher;
pub use evaluate::{Entry, LogStream, QueryResult, Samples, group_streams};
pub use fields::{DetectedField, detect_fields};
pub use leaf::{LeafReply, StreamVolume, leaf};
pub use parse::{parse, parse_selector};
pub use plan::{Direction, LeafRequest, Plan, QueryParameters, QueryTime, plan};
pub use quantity::duration_nanos;
pub use view::Labels;

#[cfg(test)]
mod tests;
