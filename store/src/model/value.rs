//! Attribute values.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// OTLP's `AnyValue`. `Empty` is a value that was sent with nothing set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AnyValue {
    #[default]
    Empty,
    String(Arc<str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Bytes),
    Array(Vec<AnyValue>),
    KeyValues(Attributes),
}

/// Key and value pairs in the order in which they were sent. Keys should be unique but need not be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes(pub Vec<(Arc<str>, AnyValue)>);

impl Attributes {
    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&AnyValue> {
        self.0.iter().find(|(k, _)| &**k == key).map(|(_, value)| value)
    }

    /// The first value of `key`, when it is a string.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(AnyValue::String(value)) => Some(value),
            _ => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &AnyValue)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Arc<str>>, V: Into<AnyValue>> FromIterator<(K, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Attributes(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<&str> for AnyValue {
    fn from(value: &str) -> Self {
        AnyValue::String(value.into())
    }
}

impl From<String> for AnyValue {
    fn from(value: String) -> Self {
        AnyValue::String(value.into())
    }
}

impl From<bool> for AnyValue {
    fn from(value: bool) -> Self {
        AnyValue::Bool(value)
    }
}

impl From<i64> for AnyValue {
    fn from(value: i64) -> Self {
        AnyValue::Int(value)
    }
}

impl From<f64> for AnyValue {
    fn from(value: f64) -> Self {
        AnyValue::Double(value)
    }
}
