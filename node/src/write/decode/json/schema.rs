//! The messages of OTLP's requests as tables: JSON names, field numbers and types of opentelemetry-proto 1.x.

/// How a field's value is written in JSON and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    /// Base64 in JSON.
    Bytes,
    /// Hex in JSON, as OTLP has it for trace and span ids.
    HexBytes,
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number only: OTLP/JSON has no enum names.
    Enum,
    Message(&'static Message),
}

/// A field of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// lowerCamelCase.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Type,
    pub(super) repeated: bool,
}

/// A message type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) fields: &'static [Field],
}

/// Most fields that a message has.
pub(super) const FIELDS_MAX: usize = 16;

impl Message {
    /// The field of a JSON name: lowerCamelCase, or snake_case as in the proto file.
    pub(super) fn field(&'static self, name: &str) -> Option<(usize, &'static Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.is_named(name))
    }
}

impl Field {
    fn is_named(&self, name: &str) -> bool {
        if self.name == name {
            return true;
        }
        let mut given = name.bytes();
        let spelled = self.name.bytes().all(|byte| match byte {
            b'A'..=b'Z' => given.next() == Some(b'_') && given.next() == Some(byte.to_ascii_lowercase()),
            byte => given.next() == Some(byte),
        });
        spelled && given.next().is_none()
    }
}

const fn one(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, repeated: false }
}

const fn many(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, repeated: true }
}

const fn attributes(number: u32) -> Field {
    many("attributes", number, Type::Message(&KEY_VALUE))
}

const SCHEMA_URL: Field = one("schemaUrl", 3, Type::String);
const RESOURCE_FIELD: Field = one("resource", 1, Type::Message(&RESOURCE));
const SCOPE_FIELD: Field = one("scope", 1, Type::Message(&SCOPE));

static ANY_VALUE: Message = Message {
    fields: &[
        one("stringValue", 1, Type::String),
        one("boolValue", 2, Type::Bool),
        one("intValue", 3, Type::Int64),
        one("doubleValue", 4, Type::Double),
        one("arrayValue", 5, Type::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Type::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Type::Bytes),
        one("stringValueStrindex", 8, Type::Int32),
    ],
};

static ARRAY_VALUE: Message = Message { fields: &[many("values", 1, Type::Message(&ANY_VALUE))] };

static KEY_VALUE_LIST: Message = Message { fields: &[many("values", 1, Type::Message(&KEY_VALUE))] };

static KEY_VALUE: Message = Message {
    fields: &[
        one("key", 1, Type::String),
        one("value", 2, Type::Message(&ANY_VALUE)),
        one("keyStrindex", 3, Type::Int32),
    ],
};

static SCOPE: Message = Message {
    fields: &[
        one("name", 1, Type::String),
        one("version", 2, Type::String),
        attributes(3),
        one("droppedAttributesCount", 4, Type::Uint32),
    ],
};

static ENTITY_REF: Message = Message {
    fields: &[
        one("schemaUrl", 1, Type::String),
        one("type", 2, Type::String),
        many("idKeys", 3, Type::String),
        many("descriptionKeys", 4, Type::String),
    ],
};

static RESOURCE: Message = Message {
    fields: &[
        attributes(1),
        one("droppedAttributesCount", 2, Type::Uint32),
        many("entityRefs", 3, Type::Message(&ENTITY_REF)),
    ],
};

/// `ExportMetricsServiceRequest`.
pub(super) static METRICS: Message =
    Message { fields: &[many("resourceMetrics", 1, Type::Message(&RESOURCE_METRICS))] };

static RESOURCE_METRICS: Message =
    Message { fields: &[RESOURCE_FIELD, many("scopeMetrics", 2, Type::Message(&SCOPE_METRICS)), SCHEMA_URL] };

static SCOPE_METRICS: Message =
    Message { fields: &[SCOPE_FIELD, many("metrics", 2, Type::Message(&METRIC)), SCHEMA_URL] };

static METRIC: Message = Message {
    fields: &[
        one("name", 1, Type::String),
        one("description", 2, Type::String),
        one("unit", 3, Type::String),
        one("gauge", 5, Type::Message(&GAUGE)),
        one("sum", 7, Type::Message(&SUM)),
        one("histogram", 9, Type::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Type::Message(&EXPONENTIAL_HISTOGRAM)),
        one("summary", 11, Type::Message(&SUMMARY)),
        many("metadata", 12, Type::Message(&KEY_VALUE)),
    ],
};

const TEMPORALITY: Field = one("aggregationTemporality", 2, Type::Enum);

static GAUGE: Message = Message { fields: &[many("dataPoints", 1, Type::Message(&NUMBER_POINT))] };

static SUM: Message = Message {
    fields: &[
        many("dataPoints", 1, Type::Message(&NUMBER_POINT)),
        TEMPORALITY,
        one("isMonotonic", 3, Type::Bool),
    ],
};

static HISTOGRAM: Message =
    Message { fields: &[many("dataPoints", 1, Type::Message(&HISTOGRAM_POINT)), TEMPORALITY] };

static EXPONENTIAL_HISTOGRAM: Message =
    Message { fields: &[many("dataPoints", 1, Type::Message(&EXPONENTIAL_POINT)), TEMPORALITY] };

static SUMMARY: Message = Message { fields: &[many("dataPoints", 1, Type::Message(&SUMMARY_POINT))] };

const START_TIME: Field = one("startTimeUnixNano", 2, Type::Fixed64);
const TIME: Field = one("timeUnixNano", 3, Type::Fixed64);

static NUMBER_POINT: Message = Message {
    fields: &[
        attributes(7),
        START_TIME,
        TIME,
        one("asDouble", 4, Type::Double),
        one("asInt", 6, Type::Sfixed64),
        many("exemplars", 5, Type::Message(&EXEMPLAR)),
        one("flags", 8, Type::Uint32),
    ],
};

static HISTOGRAM_POINT: Message = Message {
    fields: &[
        attributes(9),
        START_TIME,
        TIME,
        one("count", 4, Type::Fixed64),
        one("sum", 5, Type::Double),
        many("bucketCounts", 6, Type::Fixed64),
        many("explicitBounds", 7, Type::Double),
        many("exemplars", 8, Type::Message(&EXEMPLAR)),
        one("flags", 10, Type::Uint32),
        one("min", 11, Type::Double),
        one("max", 12, Type::Double),
    ],
};

static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        attributes(1),
        START_TIME,
        TIME,
        one("count", 4, Type::Fixed64),
        one("sum", 5, Type::Double),
        one("scale", 6, Type::Sint32),
        one("zeroCount", 7, Type::Fixed64),
        one("positive", 8, Type::Message(&BUCKETS)),
        one("negative", 9, Type::Message(&BUCKETS)),
        one("flags", 10, Type::Uint32),
        many("exemplars", 11, Type::Message(&EXEMPLAR)),
        one("min", 12, Type::Double),
        one("max", 13, Type::Double),
        one("zeroThreshold", 14, Type::Double),
    ],
};

static BUCKETS: Message =
    Message { fields: &[one("offset", 1, Type::Sint32), many("bucketCounts", 2, Type::Uint64)] };

static SUMMARY_POINT: Message = Message {
    fields: &[
        attributes(7),
        START_TIME,
        TIME,
        one("count", 4, Type::Fixed64),
        one("sum", 5, Type::Double),
        many("quantileValues", 6, Type::Message(&QUANTILE)),
        one("flags", 8, Type::Uint32),
    ],
};

static QUANTILE: Message =
    Message { fields: &[one("quantile", 1, Type::Double), one("value", 2, Type::Double)] };

static EXEMPLAR: Message = Message {
    fields: &[
        many("filteredAttributes", 7, Type::Message(&KEY_VALUE)),
        one("timeUnixNano", 2, Type::Fixed64),
        one("asDouble", 3, Type::Double),
        one("asInt", 6, Type::Sfixed64),
        one("spanId", 4, Type::HexBytes),
        one("traceId", 5, Type::HexBytes),
    ],
};

/// `ExportLogsServiceRequest`.
pub(super) static LOGS: Message =
    Message { fields: &[many("resourceLogs", 1, Type::Message(&RESOURCE_LOGS))] };

static RESOURCE_LOGS: Message =
    Message { fields: &[RESOURCE_FIELD, many("scopeLogs", 2, Type::Message(&SCOPE_LOGS)), SCHEMA_URL] };

static SCOPE_LOGS: Message =
    Message { fields: &[SCOPE_FIELD, many("logRecords", 2, Type::Message(&LOG_RECORD)), SCHEMA_URL] };

static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Type::Fixed64),
        one("observedTimeUnixNano", 11, Type::Fixed64),
        one("severityNumber", 2, Type::Enum),
        one("severityText", 3, Type::String),
        one("body", 5, Type::Message(&ANY_VALUE)),
        attributes(6),
        one("droppedAttributesCount", 7, Type::Uint32),
        one("flags", 8, Type::Fixed32),
        one("traceId", 9, Type::HexBytes),
        one("spanId", 10, Type::HexBytes),
        one("eventName", 12, Type::String),
    ],
};

/// `ExportTraceServiceRequest`.
pub(super) static TRACES: Message =
    Message { fields: &[many("resourceSpans", 1, Type::Message(&RESOURCE_SPANS))] };

static RESOURCE_SPANS: Message =
    Message { fields: &[RESOURCE_FIELD, many("scopeSpans", 2, Type::Message(&SCOPE_SPANS)), SCHEMA_URL] };

static SCOPE_SPANS: Message =
    Message { fields: &[SCOPE_FIELD, many("spans", 2, Type::Message(&SPAN)), SCHEMA_URL] };

static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Type::HexBytes),
        one("spanId", 2, Type::HexBytes),
        one("traceState", 3, Type::String),
        one("parentSpanId", 4, Type::HexBytes),
        one("name", 5, Type::String),
        one("kind", 6, Type::Enum),
        one("startTimeUnixNano", 7, Type::Fixed64),
        one("endTimeUnixNano", 8, Type::Fixed64),
        attributes(9),
        one("droppedAttributesCount", 10, Type::Uint32),
        many("events", 11, Type::Message(&EVENT)),
        one("droppedEventsCount", 12, Type::Uint32),
        many("links", 13, Type::Message(&LINK)),
        one("droppedLinksCount", 14, Type::Uint32),
        one("status", 15, Type::Message(&STATUS)),
        one("flags", 16, Type::Fixed32),
    ],
};

static EVENT: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Type::Fixed64),
        one("name", 2, Type::String),
        attributes(3),
        one("droppedAttributesCount", 4, Type::Uint32),
    ],
};

static LINK: Message = Message {
    fields: &[
        one("traceId", 1, Type::HexBytes),
        one("spanId", 2, Type::HexBytes),
        one("traceState", 3, Type::String),
        attributes(4),
        one("droppedAttributesCount", 5, Type::Uint32),
        one("flags", 6, Type::Fixed32),
    ],
};

static STATUS: Message = Message { fields: &[one("message", 2, Type::String), one("code", 3, Type::Enum)] };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_camel_case_and_by_snake_case() {
        for name in ["startTimeUnixNano", "start_time_unix_nano"] {
            assert_eq!(SPAN.field(name).map(|(_, field)| field.number), Some(7));
        }
        for name in
            ["starttimeunixnano", "start_time_unix_nano_", "startTime_unix_nano", "StartTimeUnixNano", ""]
        {
            assert_eq!(SPAN.field(name), None, "{name}");
        }
    }
}
