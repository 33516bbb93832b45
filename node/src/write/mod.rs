//! The write path: receive → admit → decode → route → replicate (front); append (storage).

pub mod receive;
pub mod admit;
pub mod decode;
pub mod request;
pub mod route;
pub mod replicate;
pub mod append;

pub use request::{Ingest, Ingested, Rejection, WriteError, WriteRequest};
