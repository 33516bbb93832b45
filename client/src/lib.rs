//! Client library for a cluster: the admin API's types, and (feature `http`) a client over HTTP.

pub mod admin;
#[cfg(feature = "http")]
pub mod client;
