//! PromQL from query text to answer, over rows on two leaves.

mod aggregations;
mod functions;
mod opentelemetry;
mod operators;
mod selectors;
mod steps;
mod world;
