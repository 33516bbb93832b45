//! A segment gives back what it was given, or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use oteld_env::Random;
use proptest::prelude::*;

use super::*;
use crate::canonical::row_bytes;
use crate::column::{Effort, Reader, Selection};
use crate::entities::{Entities, SeriesSet, StreamSet};
use crate::model::sample::Sample;
use crate::model::{
    Attributes, Metric, MetricKind, Point, PointValue, Resource, Rows, Scope, Series, SeriesId, Temporality,
};
use crate::page::{self, Named};
use disk::OneFile;

mod disk;

const WINDOW: Window = Window(250_000);

/// Rows by shard, tenant and key.
type Sorted = BTreeMap<(Shard, Tenant, RowKey), SegmentRow>;

fn rows_of(seed: u64, signal: Signal, groups: &[usize]) -> Sorted {
    let random = Random::from_seed(seed);
    let mut sorted = Sorted::new();
    for (number, size) in groups.iter().enumerate() {
        let tenant = Tenant::new(["default", "other"][number % 2]);
        let time_unix_nano = WINDOW.start_unix_nano()..WINDOW.end_unix_nano();
        let request = crate::model::RequestId(random.next_u128());
        let sample = Sample { tenant: tenant.clone(), time_unix_nano, request };
        for row in each(sample.rows(&random, signal, *size)) {
            sorted.insert((Shard(number as u32 / 2), tenant.clone(), key(&row)), row);
        }
    }
    sorted
}

fn each(rows: Rows) -> Vec<SegmentRow> {
    match rows {
        Rows::Metrics(rows) => rows.into_iter().map(SegmentRow::Metric).collect(),
        Rows::Logs(rows) => rows.into_iter().map(SegmentRow::Log).collect(),
        Rows::Traces(rows) => rows.into_iter().map(SegmentRow::Span).collect(),
    }
}

fn key(row: &SegmentRow) -> RowKey {
    match row {
        SegmentRow::Metric(row) => RowKey::of(row),
        SegmentRow::Log(row) => RowKey::of(row),
        SegmentRow::Span(row) => RowKey::of(row),
    }
}

fn bits(row: &SegmentRow) -> Vec<u8> {
    match row {
        SegmentRow::Metric(row) => row_bytes(row),
        SegmentRow::Log(row) => row_bytes(row),
        SegmentRow::Span(row) => row_bytes(row),
    }
}

/// A segment file in memory.
struct Fixture {
    disk: Arc<OneFile>,
}

impl Fixture {
    fn new() -> Self {
        Fixture { disk: Arc::new(OneFile::default()) }
    }

    fn create(&self, signal: Signal, window: Window) -> SegmentWriter {
        SegmentWriter::create(&*self.disk, Path::new("segment"), signal, window).unwrap()
    }

    fn write(&self, signal: Signal, rows: &Sorted, ids: &[AppliedId]) -> SegmentInfo {
        let mut writer = self.create(signal, WINDOW);
        for ((shard, tenant, _), row) in rows {
            writer.push(*shard, tenant, row.clone()).unwrap();
        }
        writer.finish(ids).unwrap()
    }

    fn open(&self) -> Result<Segment, SegmentError> {
        Segment::open(self.disk.clone(), Path::new("segment"))
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk.0.lock().clone()
    }

    fn replace(&self, bytes: &[u8]) {
        *self.disk.0.lock() = bytes.to_vec();
    }
}

fn ids(seed: u64, count: usize) -> Vec<AppliedId> {
    let random = Random::from_seed(seed);
    let id = |_| {
        let shards: BTreeSet<Shard> =
            (0..random.in_range(1..5)).map(|_| Shard(random.in_range(0..64) as u32)).collect();
        AppliedId {
            request: crate::model::RequestId(random.next_u128()),
            digest: random.next_u64(),
            shards: shards.into_iter().collect(),
        }
    };
    let mut ids: Vec<AppliedId> = (0..count).map(id).collect();
    ids.sort();
    ids
}

fn assert_holds(segment: &Segment, rows: &Sorted) {
    assert_eq!(segment.info().rows as usize, rows.len());
    let mut found = Vec::new();
    for (index, page) in segment.pages().iter().enumerate() {
        let group = &segment.groups()[page.group];
        assert!(group.pages.contains(&index));
        let rows = each(segment.page(index).unwrap());
        assert_eq!(rows.len() as u64, page.rows);
        for row in rows {
            let key = key(&row);
            assert!(page.ids.contains(&key.id) && page.time_unix_nano.contains(&key.time_unix_nano));
            found.push(((group.shard, group.tenant.clone(), key), bits(&row)));
        }
    }
    let expected: Vec<_> = rows.iter().map(|(key, row)| (key.clone(), bits(row))).collect();
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_field_of_every_row_comes_back(seed: u64, groups in proptest::collection::vec(0_usize..60, 0..6)) {
        let fixture = Fixture::new();
        for signal in Signal::ALL {
            let rows = rows_of(seed, signal, &groups);
            let ids = ids(seed, groups.len() * 5);
            let info = fixture.write(signal, &rows, &ids);
            let segment = fixture.open().unwrap();
            assert_holds(&segment, &rows);
            prop_assert_eq!(segment.info(), &info);
            prop_assert_eq!(info.bytes as usize, fixture.bytes().len());
            prop_assert_eq!(segment.ids().unwrap(), ids);
            segment.verify().unwrap();
        }
    }

    /// An attacker, or a bug elsewhere, can make the checksums right.
    #[test]
    fn hostile_pages_are_an_error_or_rows(seed: u64, flips in 1_usize..4) {
        let random = Random::from_seed(seed);
        for signal in Signal::ALL {
            let rows: Vec<_> = rows_of(seed, signal, &[40]).into_values().collect();
            let (mut entities, mut series, mut streams) =
                (Entities::default(), SeriesSet::default(), StreamSet::default());
            let mut page_rows = Rows::new(signal);
            let names: Vec<u32> = rows.into_iter().map(|row| match (&mut page_rows, row) {
                (Rows::Metrics(rows), SegmentRow::Metric(row)) => {
                    rows.push(row.clone());
                    series.index(&row.series, &mut entities)
                }
                (Rows::Logs(rows), SegmentRow::Log(row)) => {
                    rows.push(row.clone());
                    streams.index(&row.stream, &mut entities)
                }
                (Rows::Traces(rows), SegmentRow::Span(row)) => {
                    rows.push(row.clone());
                    streams.index(&row.stream, &mut entities)
                }
                _ => unreachable!(),
            }).collect();
            let series: Vec<_> = series.items.into_iter().map(|(series, _)| series).collect();
            let streams: Vec<_> = streams.items.into_iter().map(|(stream, _)| stream).collect();
            let named =
                if signal == Signal::Metrics { Named::Series(&series) } else { Named::Streams(&streams) };
            let mut bytes = Vec::new();
            page::encode(&mut bytes, Effort::Small, &page_rows, &names);
            for _ in 0..50 {
                let mut hostile = bytes.clone();
                for _ in 0..flips {
                    let at = random.in_range(0..hostile.len() as u64) as usize;
                    hostile[at] = random.next_u64() as u8;
                }
                let _ = page::decode(&mut Reader::new(&hostile, "page"), signal, &Selection::all(names.len()), named);
                let _ = definitions::decode(&hostile, signal, names.len());
                let _ = ids::decode(&hostile, names.len() as u64);
            }
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_found() {
    let fixture = Fixture::new();
    for signal in Signal::ALL {
        let rows = rows_of(7, signal, &[2, 1]);
        fixture.write(signal, &rows, &ids(7, 2));
        let good = fixture.bytes();
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << (at % 8);
            fixture.replace(&damaged);
            let found = match fixture.open() {
                Err(_) => true,
                Ok(segment) => {
                    let pages = (0..segment.pages().len()).any(|page| segment.page(page).is_err());
                    segment.verify().is_err() && (pages || segment.ids().is_err())
                }
            };
            assert!(found, "byte {at} of {} of {signal:?}", good.len());
        }
    }
}

#[test]
fn a_file_that_was_cut_or_grew_does_not_open() {
    let fixture = Fixture::new();
    fixture.write(Signal::Logs, &rows_of(3, Signal::Logs, &[3]), &[]);
    let good = fixture.bytes();
    for len in 0..good.len() {
        fixture.replace(&good[..len]);
        assert!(fixture.open().is_err(), "cut to {len}");
    }
    fixture.replace(&[&good[..], &[0]].concat());
    assert!(fixture.open().is_err());
    fixture.replace(&[&[0], &good[..]].concat());
    assert!(fixture.open().is_err());
}

#[test]
fn series_streams_and_pages_are_found_by_tenant_and_shard() {
    let fixture = Fixture::new();
    for signal in Signal::ALL {
        let rows = rows_of(11, signal, &[20, 20, 20, 20]);
        fixture.write(signal, &rows, &[]);
        let segment = fixture.open().unwrap();
        let (tenant, shards) = (Tenant::new("other"), BTreeSet::from([Shard(1)]));
        let of_group = rows.iter().filter(|((shard, name, _), _)| *shard == Shard(1) && *name == tenant);
        let mut ids = BTreeSet::new();
        let mut count = 0;
        for (_, row) in of_group {
            ids.insert(match row {
                SegmentRow::Metric(row) => row.series.id.0,
                SegmentRow::Log(row) => row.stream.id.0,
                SegmentRow::Span(row) => row.stream.id.0,
            });
            count += 1;
        }
        let series = segment.series(&tenant, &shards).map(|series| series.id.0);
        let streams = segment.streams(&tenant, &shards).map(|stream| stream.id.0);
        assert_eq!(series.chain(streams).collect::<BTreeSet<_>>(), ids);
        assert_eq!(segment.pages_of(&tenant, &shards).map(|(_, page)| page.rows).sum::<u64>(), count);
        assert_eq!(segment.info().shards, [Shard(0), Shard(1)]);
    }
}

/// 40 series of a counter, scraped every 15 s for two hours less a minute.
fn counters() -> Vec<(Arc<Series>, Vec<Point>)> {
    let resource = Arc::new(Resource {
        attributes: [("service.name", "cart"), ("host.name", "a")].into_iter().collect(),
        ..Resource::default()
    });
    let scope = Arc::new(Scope { name: "meter".into(), ..Scope::default() });
    let metric = Arc::new(Metric {
        name: "http.requests".into(),
        unit: "1".into(),
        description: "Requests.".into(),
        kind: MetricKind::Sum { monotonic: true, temporality: Temporality::Cumulative },
        metadata: Attributes::default(),
    });
    let random = Random::from_seed(1);
    let point = |scrape: u64, value: f64| Point {
        time_unix_nano: WINDOW.start_unix_nano() + scrape * 15_000_000_000,
        start_time_unix_nano: WINDOW.start_unix_nano() - 1,
        flags: 0,
        value: PointValue::Double(value),
        exemplars: Vec::new(),
    };
    (0..40_u128)
        .map(|id| {
            let attributes = [("path", format!("/items/{id}"))].into_iter().collect();
            let (resource, scope, metric) = (resource.clone(), scope.clone(), metric.clone());
            let series = Series { id: SeriesId(id << 64), resource, scope, metric, attributes };
            let mut value = 0.0;
            let points = (0..476).map(|scrape| {
                value += random.in_range(0..50) as f64;
                point(scrape, value)
            });
            (Arc::new(series), points.collect())
        })
        .collect()
}

#[test]
fn many_pages_of_a_regular_counter_cost_few_bytes_a_point() {
    let fixture = Fixture::new();
    let mut rows = Sorted::new();
    for (series, points) in counters() {
        for point in points {
            let row = SegmentRow::Metric(MetricRow { series: series.clone(), point });
            rows.insert((Shard(0), Tenant::default(), key(&row)), row);
        }
    }
    let info = fixture.write(Signal::Metrics, &rows, &[]);
    let segment = fixture.open().unwrap();
    assert_eq!(segment.pages().len(), rows.len().div_ceil(PAGE_ROWS_MAX));
    assert_holds(&segment, &rows);
    assert!(info.bytes < 2 * info.rows, "{} bytes for {} points", info.bytes, info.rows);
}

#[test]
#[should_panic(expected = "order of their keys")]
fn rows_out_of_order_are_refused() {
    let fixture = Fixture::new();
    let rows = rows_of(5, Signal::Logs, &[5]);
    let mut writer = fixture.create(Signal::Logs, WINDOW);
    for ((shard, tenant, _), row) in rows.into_iter().rev() {
        writer.push(shard, &tenant, row).unwrap();
    }
}

/// The example in docs/format/segment.md.
#[test]
fn the_documented_example_is_what_is_written() {
    let series = Arc::new(Series {
        id: SeriesId(0x11),
        resource: Arc::new(Resource::default()),
        scope: Arc::new(Scope::default()),
        metric: Arc::new(Metric {
            name: "heat".into(),
            unit: "Cel".into(),
            description: "".into(),
            kind: MetricKind::Gauge,
            metadata: Attributes::default(),
        }),
        attributes: [("room", 7_i64)].into_iter().collect(),
    });
    let fixture = Fixture::new();
    let mut writer = fixture.create(Signal::Metrics, Window(0));
    for (time_unix_nano, value) in [(1_000, 20.5), (2_000, 21.0)] {
        let value = PointValue::Double(value);
        let point = Point { time_unix_nano, start_time_unix_nano: 0, flags: 0, value, exemplars: Vec::new() };
        writer.push(Shard(4), &Tenant::default(), MetricRow { series: series.clone(), point }).unwrap();
    }
    let id = AppliedId { request: crate::model::RequestId(0x22), digest: 0x33, shards: vec![Shard(4)] };
    writer.finish(&[id]).unwrap();
    let hex: String = fixture.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, documented(include_str!("../../../docs/format/segment.md")));
}

/// The bytes in a document's `hex` block, without its comments.
fn documented(text: &str) -> String {
    text.lines()
        .skip_while(|line| *line != "```hex")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| line.split('#').next().unwrap_or_default().replace(' ', ""))
        .collect()
}
