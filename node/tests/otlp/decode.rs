//! The wire decoder does what prost does, on what is valid and on what is not.

use oteld::write::admit::{Admission, AdmitError, AdmitOptions};
use oteld::write::decode::{DecodeError, Decoded, decode_protobuf};
use oteld_store::model::{Rows, Signal, Tenant};
use proptest::prelude::*;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::generate::Choices;
use crate::oracle::{self, REQUEST};

fn decode(signal: Signal, message: &[u8]) -> Result<Decoded, DecodeError> {
    let admission = Admission::new(AdmitOptions::default());
    decode_protobuf(signal, &Tenant::default(), REQUEST, message, &mut admission.ticket())
}

/// NaN is not equal to itself, so rows are compared as they print.
fn assert_same(signal: Signal, message: &[u8]) {
    let ours = decode(signal, message);
    let oracle = oracle::decode(signal, message);
    match (&ours, &oracle) {
        (Ok(ours), Some((rows, rejected))) => {
            let ours_rejected = ours.rejection.as_ref().map_or(0, |rejection| rejection.rejected);
            assert_eq!(format!("{:?}", ours.rows), format!("{rows:?}"));
            assert_eq!(ours_rejected, *rejected);
        }
        (Err(_), None) => {}
        _ => panic!("we say {ours:?}, prost says {oracle:?}"),
    }
}

fn request(signal: Signal, choices: &mut Choices) -> Vec<u8> {
    match signal {
        Signal::Metrics => choices.metrics().encode_to_vec(),
        Signal::Logs => choices.logs().encode_to_vec(),
        Signal::Traces => choices.traces().encode_to_vec(),
    }
}

fn nested(number: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(message.len() as u64, &mut bytes);
    bytes.extend_from_slice(message);
    bytes
}

/// Two groups, or two metrics, whose bytes are joined: protobuf merges their fields.
fn merged(signal: Signal, choices: &mut Choices) -> Vec<u8> {
    let group = |choices: &mut Choices| match signal {
        Signal::Metrics => choices.resource_metrics().encode_to_vec(),
        Signal::Logs => choices.resource_logs().encode_to_vec(),
        Signal::Traces => choices.resource_spans().encode_to_vec(),
    };
    if signal == Signal::Metrics && choices.below(2) == 0 {
        let metrics: Vec<u8> = (0..3).flat_map(|_| choices.metric().encode_to_vec()).collect();
        return nested(1, &nested(2, &nested(2, &metrics)));
    }
    nested(1, &[group(choices), group(choices)].concat())
}

fn mutated(mut message: Vec<u8>, choices: &mut Choices) -> Vec<u8> {
    for _ in 0..=choices.below(3) {
        let position = choices.below(message.len().max(1));
        match choices.below(4) {
            0 => message.truncate(position),
            1 if !message.is_empty() => message[position] ^= 1 << choices.below(8),
            2 if !message.is_empty() => message[position] = choices.next() as u8,
            _ => {
                let end = (position + choices.below(12)).min(message.len());
                let piece = message[position.min(end)..end].to_vec();
                let at = choices.below(message.len() + 1);
                message.splice(at..at, piece);
            }
        }
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn valid_requests_decode_as_prost_decodes_them(seed: u64) {
        for signal in Signal::ALL {
            assert_same(signal, &request(signal, &mut Choices::new(seed)));
        }
    }

    #[test]
    fn messages_that_appear_twice_are_merged(seed: u64) {
        for signal in Signal::ALL {
            assert_same(signal, &merged(signal, &mut Choices::new(seed)));
        }
    }

    #[test]
    fn mutated_requests_are_taken_or_refused_as_prost_does(seed: u64) {
        let mut choices = Choices::new(seed);
        for signal in Signal::ALL {
            let message = request(signal, &mut choices);
            for _ in 0..8 {
                assert_same(signal, &mutated(message.clone(), &mut choices));
            }
        }
    }

    #[test]
    fn random_bytes_are_taken_or_refused_as_prost_does(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        for signal in Signal::ALL {
            assert_same(signal, &bytes);
        }
    }
}

/// A log body of arrays in arrays.
fn nested_body(levels: usize) -> Vec<u8> {
    let value = (0..levels).fold(Vec::new(), |value, _| nested(5, &nested(1, &value)));
    let time = [9_u8, 1, 0, 0, 0, 0, 0, 0, 0];
    nested(1, &nested(2, &nested(2, &[&time[..], &nested(5, &value)].concat())))
}

#[test]
fn nesting_ends_at_the_depth_of_every_protobuf_implementation() {
    for levels in [40, 47, 48, 49, 50, 51, 200] {
        assert_same(Signal::Logs, &nested_body(levels));
    }
    assert!(decode(Signal::Logs, &nested_body(48)).is_ok());
    let error = decode(Signal::Logs, &nested_body(49)).unwrap_err().to_string();
    assert!(error.contains("nested more than 100 deep"), "{error}");
}

#[test]
fn a_log_row_keeps_its_ordinal_when_one_before_it_is_rejected() {
    let timeless = nested(2, &[]);
    let timed = nested(2, &[9, 1, 0, 0, 0, 0, 0, 0, 0]);
    let message = nested(1, &nested(2, &[timeless, timed].concat()));
    let decoded = decode(Signal::Logs, &message).unwrap();
    let Rows::Logs(rows) = &decoded.rows else { panic!("not logs") };
    assert_eq!(rows.iter().map(|row| row.ordinal).collect::<Vec<_>>(), [1]);
    assert_eq!(
        decoded.rejection.unwrap().message,
        "1 log record rejected: time_unix_nano and observed_time_unix_nano are both 0"
    );
}

#[test]
fn a_metric_without_data_is_a_warning() {
    let metric = nested(1, b"up");
    let message = nested(1, &nested(2, &nested(2, &metric)));
    let rejection = decode(Signal::Metrics, &message).unwrap().rejection.unwrap();
    assert_eq!(rejection.rejected, 0);
    assert_eq!(rejection.message, "warning: the metric has no data of a known kind (first: metric \"up\")");
}

#[test]
fn what_is_kept_otherwise_than_it_was_sent_is_a_warning() {
    let time = [9_u8, 1, 0, 0, 0, 0, 0, 0, 0];
    let wrong = [&time[..], &[2 << 3, 99], &nested(9, &[7; 15]), &nested(10, &[7; 3])].concat();
    let right = [&time[..], &[2 << 3, 24], &nested(9, &[7; 16]), &nested(10, &[])].concat();
    let request = |record: &[u8]| nested(1, &nested(2, &nested(2, record)));
    assert_eq!(decode(Signal::Logs, &request(&right)).unwrap().rejection, None);
    let decoded = decode(Signal::Logs, &request(&wrong)).unwrap();
    assert_eq!(decoded.rows.len(), 1);
    let rejection = decoded.rejection.unwrap();
    assert_eq!(rejection.rejected, 0);
    for part in
        ["warning: a trace_id that is not 16 bytes", "a span_id that is not 8", "severity_number above 24"]
    {
        assert!(rejection.message.contains(part), "{}", rejection.message);
    }

    let histogram = |count: u64| {
        let time = [&[3 << 3 | 1][..], &1_u64.to_le_bytes()].concat();
        let count = [&[4 << 3 | 1][..], &count.to_le_bytes()].concat();
        let buckets = nested(6, &[1_u64, 1].map(u64::to_le_bytes).concat());
        let bounds = nested(7, &1_f64.to_le_bytes());
        let point = nested(1, &[time, count, buckets, bounds].concat());
        let metric = [nested(1, b"h"), nested(9, &point)].concat();
        let decoded = decode(Signal::Metrics, &nested(1, &nested(2, &nested(2, &metric)))).unwrap();
        (decoded.rows.len(), decoded.rejection)
    };
    assert_eq!(histogram(2), (1, None));
    let (rows, rejection) = histogram(300);
    let rejection = rejection.unwrap();
    assert_eq!((rows, rejection.rejected), (1, 0));
    assert!(rejection.message.contains("not the sum of its bucket_counts"), "{}", rejection.message);
}

#[test]
fn a_message_of_empty_elements_cannot_outgrow_the_memory_limit() {
    let values = [0x0a, 0x00].repeat(1 << 20);
    let time = [9_u8, 1, 0, 0, 0, 0, 0, 0, 0];
    let record = [&time[..], &nested(5, &nested(5, &values))].concat();
    let message = nested(1, &nested(2, &nested(2, &record)));
    let admission =
        Admission::new(AdmitOptions { message_bytes_max: message.len(), memory_bytes_max: 1 << 30 });
    let mut ticket = admission.ticket();
    let refused = decode_protobuf(Signal::Logs, &Tenant::default(), REQUEST, &message, &mut ticket);
    let request_bytes_max = 8 * message.len();
    assert_eq!(refused, Err(DecodeError::Admit(AdmitError::TooLargeDecoded { request_bytes_max })));
    assert!(admission.snapshot().used_bytes <= request_bytes_max as u64);
}

/// Hashing the resource once a scope would read 160 GB here, thousands of times what the parts cost.
#[test]
fn a_large_resource_with_many_scopes_costs_no_more_than_its_parts() {
    let attribute = nested(1, &[nested(1, b"k"), nested(2, &nested(1, &vec![b'x'; 4 << 20]))].concat());
    let resource = nested(1, &attribute);
    let scope = nested(2, &nested(2, &[9, 1, 0, 0, 0, 0, 0, 0, 0]));
    let time = |group: &[&[u8]]| {
        let message = nested(1, &group.concat());
        let start = tokio::time::Instant::now();
        let rows = decode(Signal::Logs, &message).unwrap().rows.len();
        (rows, start.elapsed())
    };
    let scopes = scope.repeat(40_000);
    let (resource_alone, scopes_alone) = (time(&[&resource, &scope]), time(&[&scopes]));
    let both = time(&[&resource, &scopes]);
    assert_eq!(both.0, 40_000);
    assert!(
        both.1 < (resource_alone.1 + scopes_alone.1) * 20,
        "{both:?} {resource_alone:?} {scopes_alone:?}"
    );
}
