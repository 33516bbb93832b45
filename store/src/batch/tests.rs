//! A batch gives back what it was given, or an error.

use oteld_env::Random;
use proptest::prelude::*;

use super::*;
use crate::canonical::row_bytes;
use crate::model::sample::Sample;
use crate::model::{AnyValue, LogRecord, LogRow, Resource, Scope, Stream, StreamId};

fn parts(seed: u64, signal: Signal, sizes: &[usize]) -> Vec<PartRows> {
    let random = Random::from_seed(seed);
    sizes
        .iter()
        .enumerate()
        .map(|(number, size)| {
            let tenant = Tenant::new(["default", "other"][number % 2]);
            let request = RequestId(random.next_u128());
            let sample = Sample { tenant: tenant.clone(), time_unix_nano: 1..1 << 62, request };
            let rows = sample.rows(&random, signal, *size);
            PartRows { request, digest: 7, tenant, shard: Shard(number as u32 / 2), epoch: 3, rows }
        })
        .collect()
}

/// Every row, bit for bit.
fn bits(rows: &Rows) -> Vec<Vec<u8>> {
    match rows {
        Rows::Metrics(rows) => rows.iter().map(row_bytes).collect(),
        Rows::Logs(rows) => rows.iter().map(row_bytes).collect(),
        Rows::Traces(rows) => rows.iter().map(row_bytes).collect(),
    }
}

fn assert_holds(batch: &Batch, parts: &[PartRows]) {
    assert_eq!(batch.parts().len(), parts.len());
    for (index, part) in parts.iter().enumerate() {
        let header = &batch.parts()[index];
        assert_eq!((header.request, header.digest, header.shard), (part.request, part.digest, part.shard));
        assert_eq!((&header.tenant, header.epoch), (&part.tenant, part.epoch));
        assert_eq!(header.rows.len(), part.rows.len());
        assert_eq!(bits(&batch.decode(index).unwrap()), bits(&part.rows));
    }
    let every_other: Vec<usize> = (0..parts.len()).step_by(2).collect();
    let expected: Vec<Vec<u8>> = every_other.iter().flat_map(|part| bits(&parts[*part].rows)).collect();
    assert_eq!(bits(&batch.decode_parts(&every_other).unwrap()), expected);
}

/// Where the definitions are whose bytes are in the batch's.
fn carried(batch: &Batch) -> Vec<Range<usize>> {
    let lengths: Vec<usize> =
        batch.0.layout.definitions.iter().filter_map(|reference| reference.len).collect();
    let mut at = batch.0.body.start - lengths.iter().sum::<usize>();
    let place = |len| {
        at += len;
        at - len..at
    };
    lengths.into_iter().map(place).collect()
}

fn decode_all(batch: &Batch) -> Result<Rows, FormatError> {
    batch.decode_parts(&(0..batch.parts().len()).collect::<Vec<_>>())
}

fn sorted(mut parts: Vec<PartRows>) -> Vec<PartRows> {
    parts.sort_by_key(|part| (part.shard, part.request));
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_field_of_every_row_comes_back(seed: u64, sizes in proptest::collection::vec(0_usize..40, 0..6)) {
        for signal in Signal::ALL {
            let parts = sorted(parts(seed, signal, &sizes));
            let batch = Batch::encode(signal, parts.clone());
            assert_holds(&batch, &parts);
            let parsed = Batch::parse(batch.bytes().clone()).unwrap();
            assert_holds(&parsed, &parts);
            prop_assert_eq!(parsed.row_count() as usize, sizes.iter().sum::<usize>());
            prop_assert_eq!(parsed.signal(), signal);
        }
    }

    #[test]
    fn selected_parts_and_new_epochs_keep_the_rows(seed: u64, chosen in proptest::collection::vec(0_usize..5, 0..5)) {
        for signal in Signal::ALL {
            let all = sorted(parts(seed, signal, &[5, 0, 20, 9, 1]));
            let batch = Batch::encode(signal, all.clone());
            let mut chosen = chosen.clone();
            let selected = batch.select(&chosen).unwrap().with_epoch(&|shard| u64::from(shard.0) + 100);
            chosen.sort_unstable();
            chosen.dedup();
            let expected: Vec<PartRows> = chosen
                .iter()
                .map(|part| PartRows { epoch: u64::from(all[*part].shard.0) + 100, ..all[*part].clone() })
                .collect();
            assert_holds(&Batch::parse(selected.bytes().clone()).unwrap(), &expected);
            prop_assert!(batch.select(&[5]).is_err());
        }
    }

    #[test]
    fn any_damage_is_found(seed: u64) {
        let random = Random::from_seed(seed);
        for signal in Signal::ALL {
            let bytes = Batch::encode(signal, parts(seed, signal, &[3, 4])).bytes().clone();
            for _ in 0..200 {
                let mut damaged = bytes.to_vec();
                let at = random.in_range(0..damaged.len() as u64) as usize;
                damaged[at] ^= random.in_range(1..256) as u8;
                prop_assert!(Batch::parse(damaged.into()).is_err(), "byte {}", at);
            }
            let cut = random.in_range(0..bytes.len() as u64) as usize;
            prop_assert!(Batch::parse(bytes.slice(..cut)).is_err());
            prop_assert!(Batch::parse([&bytes[..], &[0]].concat().into()).is_err());
        }
    }

    #[test]
    fn hostile_headers_with_good_checksums_are_an_error_or_a_batch(seed: u64, flips in 1_usize..4) {
        let random = Random::from_seed(seed);
        for signal in Signal::ALL {
            let bytes = Batch::encode(signal, parts(seed, signal, &[1, 3, 2])).bytes().to_vec();
            let header_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
            for _ in 0..50 {
                let mut hostile = bytes.clone();
                for _ in 0..flips {
                    let at = random.in_range(24..24 + header_len as u64) as usize;
                    hostile[at] = *[0, 1, 0x7f, 0xff, random.next_u64() as u8]
                        .get(random.in_range(0..5) as usize)
                        .unwrap();
                }
                let checksum = layout::header_checksum(&hostile[..16], &hostile[24..24 + header_len]);
                hostile[16..24].copy_from_slice(&checksum.to_le_bytes());
                if let Ok(batch) = Batch::parse(hostile.into()) {
                    let _ = decode_all(&batch);
                    let _ = batch.select(&[0]);
                }
            }
        }
    }

    /// An attacker can make the checksums right.
    #[test]
    fn hostile_bytes_with_good_checksums_are_an_error_or_rows(seed: u64, flips in 1_usize..4) {
        let random = Random::from_seed(seed);
        for signal in Signal::ALL {
            let batch = Batch::encode(signal, parts(seed, signal, &[3, 9]));
            for _ in 0..20 {
                let mut layout = batch.0.layout.clone();
                let ranges = carried(&batch).into_iter().chain([batch.0.body.clone()]);
                let mut payload: Vec<Vec<u8>> = ranges.map(|range| batch.bytes()[range].to_vec()).collect();
                for _ in 0..flips {
                    let piece = random.in_range(0..payload.len() as u64) as usize;
                    if !payload[piece].is_empty() {
                        let at = random.in_range(0..payload[piece].len() as u64) as usize;
                        payload[piece][at] = random.next_u64() as u8;
                    }
                }
                let body = payload.pop().unwrap();
                layout.body_checksum = xxh3_64(&body);
                let definitions = layout.definitions.iter_mut().zip(payload).map(|(reference, bytes)| {
                    let definition = Definition::new(reference.kind, bytes.into());
                    reference.hash = definition.hash;
                    Some(Arc::new(definition))
                });
                let definitions = definitions.collect();
                let hostile = Batch::build(layout, definitions, &body);
                let parsed = Batch::parse(hostile.bytes().clone()).unwrap();
                let _ = decode_all(&parsed);
            }
        }
    }
}

#[test]
fn rows_of_a_batch_share_their_definitions() {
    let parts = parts(1, Signal::Logs, &[64, 64]);
    let batch = Batch::encode(Signal::Logs, parts);
    let resources = |part| match batch.decode(part).unwrap() {
        Rows::Logs(rows) => rows.into_iter().map(|row| row.stream.resource.clone()).collect::<Vec<_>>(),
        _ => unreachable!(),
    };
    let (once, again) = (resources(0), resources(0));
    assert!(once.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
}

#[test]
fn a_batch_for_somebody_who_knows_its_definitions_needs_them_to_be_read() {
    for signal in Signal::ALL {
        let parts = sorted(parts(1, signal, &[20, 30]));
        let batch = Batch::encode(signal, parts.clone());
        let hashes: Vec<u128> = batch.definition_hashes().collect();
        let known = hashes[0];
        let lean = Batch::parse(batch.bytes_for(&|hash| hash == known)).unwrap();
        assert!(lean.bytes().len() < batch.bytes().len());
        assert_eq!(lean.decode(0).unwrap_err(), FormatError::MissingDefinitions(vec![known]));
        assert_eq!(lean.resolve(|_, _| None).unwrap_err(), FormatError::MissingDefinitions(vec![known]));

        let leanest = Batch::parse(batch.bytes_for(&|_| true)).unwrap();
        assert_eq!(carried(&leanest).len(), 0);
        let mut definitions = crate::definitions::Definitions::new(1 << 20);
        let all = definitions.resolve(&batch).unwrap();
        assert_eq!(all.named().count(), 0);
        let resolved = definitions.resolve(&leanest).unwrap();
        assert_eq!(resolved.named().map(|named| named.hash).collect::<Vec<_>>(), hashes);
        assert_holds(&resolved, &parts);
        assert_holds(&Batch::parse(resolved.select(&[0, 1]).unwrap().bytes().clone()).unwrap(), &parts);
        assert_eq!(batch.bytes_for(&|_| false), batch.bytes());
    }
}

/// What an instrument reports in another order, and what reports it with others, is the same list.
#[test]
fn a_list_of_series_does_not_depend_on_the_order_of_its_points() {
    let parts = parts(3, Signal::Metrics, &[50]);
    let mut turned = parts.clone();
    let Rows::Metrics(rows) = &mut turned[0].rows else { unreachable!() };
    rows.reverse();
    let hashes = |parts| {
        let mut hashes: Vec<u128> = Batch::encode(Signal::Metrics, parts).definition_hashes().collect();
        hashes.sort_unstable();
        hashes
    };
    assert_eq!(hashes(parts), hashes(turned));
}

/// The example in docs/format/batch.md.
#[test]
fn the_documented_example_is_what_is_written() {
    let resource = Arc::new(Resource {
        attributes: [("service.name", "cart")].into_iter().collect(),
        ..Resource::default()
    });
    let scope = Arc::new(Scope { name: "cart".into(), ..Scope::default() });
    let stream = Arc::new(Stream { id: StreamId(0x11), resource, scope });
    let record = LogRecord {
        time_unix_nano: 1_000,
        severity_number: 9,
        body: AnyValue::String("hello".into()),
        attributes: [("n", 5_i64)].into_iter().collect(),
        ..LogRecord::default()
    };
    let row = LogRow { stream, request: RequestId(0x22), ordinal: 0, record };
    let part = PartRows {
        request: RequestId(0x22),
        digest: 0x33,
        tenant: Tenant::default(),
        shard: Shard(4),
        epoch: 5,
        rows: Rows::Logs(vec![row]),
    };
    let batch = Batch::encode(Signal::Logs, vec![part]);
    let hex: String = batch.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let documented: String = include_str!("../../../docs/format/batch.md")
        .lines()
        .skip_while(|line| *line != "```hex")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| line.split('#').next().unwrap_or_default().replace(' ', ""))
        .collect();
    assert_eq!(hex, documented);
}
