//! What the clients write and read: items that verify themselves, requests of them, and answers read back.

pub mod item;
pub mod request;
pub mod query;
pub mod answer;
