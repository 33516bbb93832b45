//! PromQL from query text to answer, over rows on two leaves.

mod aggregations;
mod functions;
mod native;
mod opentelemetry;
mod operators;
mod selectors;
mod steps;
mod world;
