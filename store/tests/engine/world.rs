//! A store on a simulated disk beside the plainest model of what it has to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use oteld_env::{Clock, Env, Net, Random, SimDisk, Tasks};
use oteld_store::batch::{Batch, PartRows};
use oteld_store::canonical::{row_bytes, value_bytes};
use oteld_store::model::sample::Sample;
use oteld_store::model::{LogRow, MetricRow, RequestId, Rows, Shard, Signal, SpanRow, Tenant, Window};
use oteld_store::scan::{Order, RowSet, Scan, ScanBudget, ScanScope};
use oteld_store::{AppendError, Appended, Floors, OpenError, Store, StoreOptions};

pub(crate) const SHARDS: u32 = 3;
/// Start of event time in tests.
pub(crate) const START: u64 = 1000 * Window::NANOS;

/// One request: its parts are the rows of each shard.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) signal: Signal,
    pub(crate) id: RequestId,
    pub(crate) tenant: Tenant,
    pub(crate) parts: Vec<(Shard, Rows)>,
}

impl Request {
    /// Made-up rows with event times in `time`.
    pub(crate) fn sample(random: &Random, signal: Signal, rows: usize, time: Range<u64>) -> Request {
        let id = RequestId(random.next_u128());
        let tenant = Tenant::new(if random.in_range(0..4) == 0 { "other" } else { "default" });
        let sample = Sample { tenant: tenant.clone(), time_unix_nano: time, request: id };
        Request { signal, id, tenant, parts: split(sample.rows(random, signal, rows)) }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.id.0 as u64
    }

    /// Some of its parts, as they go into a batch.
    pub(crate) fn part_rows(&self, take: impl Fn(Shard) -> bool) -> Vec<PartRows> {
        let parts = self.parts.iter().filter(|(shard, _)| take(*shard));
        parts
            .map(|(shard, rows)| PartRows {
                request: self.id,
                digest: self.digest(),
                tenant: self.tenant.clone(),
                shard: *shard,
                epoch: 1,
                rows: rows.clone(),
            })
            .collect()
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch::encode(self.signal, self.part_rows(|_| true))
    }
}

/// Rows by shard, each row's shard being a function of its key.
fn split(rows: Rows) -> Vec<(Shard, Rows)> {
    let mut parts: BTreeMap<Shard, Rows> = BTreeMap::new();
    let signal = rows.signal();
    let mut part = |n: u128, push: &mut dyn FnMut(&mut Rows)| {
        let shard = Shard((n % u128::from(SHARDS)) as u32);
        push(parts.entry(shard).or_insert_with(|| Rows::new(signal)));
    };
    match rows {
        Rows::Metrics(rows) => rows.into_iter().for_each(|row| {
            part(row.series.id.0, &mut |part| {
                let Rows::Metrics(rows) = part else { unreachable!() };
                rows.push(row.clone());
            });
        }),
        Rows::Logs(rows) => rows.into_iter().for_each(|row| {
            part(row.stream.id.0, &mut |part| {
                let Rows::Logs(rows) = part else { unreachable!() };
                rows.push(row.clone());
            });
        }),
        Rows::Traces(rows) => rows.into_iter().for_each(|row| {
            part(u128::from_le_bytes(row.span.trace_id), &mut |part| {
                let Rows::Traces(rows) = part else { unreachable!() };
                rows.push(row.clone());
            });
        }),
    }
    parts.into_iter().collect()
}

/// A simulated disk and what a store on it has acknowledged.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) random: Random,
    pub(crate) options: StoreOptions,
    /// Parts that the store has to show.
    pub(crate) held: Vec<(Signal, Tenant, Shard, Rows)>,
    /// Definitions that were sent before and are left out of later batches, as a front does it.
    sent: BTreeSet<u128>,
}

/// Shards, each with the epoch at which the store came into its set.
pub(crate) fn members(shards: &BTreeSet<Shard>) -> BTreeMap<Shard, u64> {
    shards.iter().map(|shard| (*shard, 1)).collect()
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let random = Random::from_seed(seed);
        let options = StoreOptions {
            dir: PathBuf::from("/data"),
            wal_file_bytes: 64 << 10,
            wal_keep_bytes: 64 << 10,
            memtable_bytes_max: 1 << 20,
            min_free_bytes: 1 << 10,
            definitions_bytes_max: 8 << 10,
            compact_fan_in: 3,
            background: false,
            ..StoreOptions::default()
        };
        let disk = SimDisk::new(Random::from_seed(seed ^ 1), 1 << 30);
        World { disk, random, options, held: Vec::new(), sent: BTreeSet::new() }
    }

    pub(crate) fn env(&self) -> Env {
        Env {
            clock: Clock::real(),
            random: self.random.clone(),
            disk: Arc::new(self.disk.clone()),
            net: Net::Tcp,
            tasks: Tasks::inline(),
        }
    }

    pub(crate) async fn try_open(&self) -> Result<Store, OpenError> {
        Store::open(self.env(), self.options.clone()).await
    }

    pub(crate) async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    /// A request of random size and signal, within a few windows.
    pub(crate) fn request(&self) -> Request {
        let signal = Signal::ALL[self.random.in_range(0..3) as usize];
        let start = START + self.random.in_range(0..3) * Window::NANOS / 2;
        let rows = self.random.in_range(1..8) as usize;
        Request::sample(&self.random, signal, rows, start..start + Window::NANOS / 2)
    }

    /// The model now holds all parts of a request.
    pub(crate) fn hold(&mut self, request: &Request) {
        for (shard, rows) in &request.parts {
            self.held.push((request.signal, request.tenant.clone(), *shard, rows.clone()));
        }
    }

    /// Appends a whole request, which must be new.
    pub(crate) async fn append(&mut self, store: &Store, request: &Request) {
        let parts: Vec<usize> = (0..request.parts.len()).collect();
        let batch = request.batch();
        let lean = Batch::parse(batch.bytes_for(&|hash| self.sent.contains(&hash))).unwrap();
        let outcome = match store.append(&lean, &parts).await {
            Err(AppendError::MissingDefinitions(missing)) => {
                assert!(missing.iter().all(|hash| self.sent.contains(hash)));
                store.append(&batch, &parts).await
            }
            outcome => outcome,
        };
        let outcome = outcome.unwrap();
        assert!(outcome.iter().all(|part| *part == Appended::Applied), "{outcome:?}");
        self.sent.extend(batch.definition_hashes());
        self.hold(request);
    }

    /// Asserts that every method of [`Scan`] answers as the model does, for all and for a part of the rows.
    pub(crate) fn check(&self, scan: &dyn Scan) {
        let shards = |range: Range<u32>| Arc::new(range.map(Shard).collect::<BTreeSet<_>>());
        for tenant in [Tenant::default(), Tenant::new("other")] {
            let narrow = START + Window::NANOS / 3..START + Window::NANOS;
            for (shards, time_unix_nano) in [(shards(0..SHARDS), 0..u64::MAX), (shards(1..2), narrow)] {
                let scope = ScanScope { tenant: tenant.clone(), shards, time_unix_nano };
                let expected = answers(&self.model(&scope), &scope);
                let found = answers(scan, &scope);
                for ((name, expected), (_, found)) in expected.iter().zip(&found) {
                    // A span that another one with its id replaces may leave its stream in the list.
                    let is_enough = *name == "span streams" && expected.iter().all(|id| found.contains(id));
                    assert!(
                        is_enough || expected == found,
                        "{name}: expected {} rows, found {}",
                        expected.len(),
                        found.len()
                    );
                }
            }
        }
    }

    /// The rows in scope, each key once with its greatest value.
    fn model(&self, scope: &ScanScope) -> RowSet {
        let mut points: BTreeMap<_, (Shard, MetricRow)> = BTreeMap::new();
        let mut logs: BTreeMap<_, (Shard, LogRow)> = BTreeMap::new();
        let mut spans: BTreeMap<_, (Shard, SpanRow)> = BTreeMap::new();
        for (_, tenant, shard, rows) in &self.held {
            if *tenant != scope.tenant {
                continue;
            }
            for index in 0..rows.len() {
                if !scope.time_unix_nano.contains(&rows.event_time_unix_nano(index)) {
                    continue;
                }
                match rows {
                    Rows::Metrics(rows) => {
                        let row = &rows[index];
                        greatest(&mut points, (row.series.id, row.point.time_unix_nano), *shard, row, |r| {
                            value_bytes(r)
                        });
                    }
                    Rows::Logs(rows) => {
                        let row = &rows[index];
                        greatest(&mut logs, (row.request, row.ordinal), *shard, row, |r| value_bytes(r));
                    }
                    Rows::Traces(rows) => {
                        let row = &rows[index];
                        greatest(&mut spans, (row.span.trace_id, row.span.span_id), *shard, row, |r| {
                            value_bytes(r)
                        });
                    }
                }
            }
        }
        let mut set = RowSet::default();
        points.into_values().for_each(|(shard, row)| set.add(&scope.tenant, shard, Rows::Metrics(vec![row])));
        logs.into_values().for_each(|(shard, row)| set.add(&scope.tenant, shard, Rows::Logs(vec![row])));
        spans.into_values().for_each(|(shard, row)| set.add(&scope.tenant, shard, Rows::Traces(vec![row])));
        set
    }
}

fn greatest<K: Ord, R: Clone>(
    rows: &mut BTreeMap<K, (Shard, R)>,
    key: K,
    shard: Shard,
    row: &R,
    value: impl Fn(&R) -> Vec<u8>,
) {
    if rows.get(&key).is_none_or(|(_, held)| value(held) < value(row)) {
        rows.insert(key, (shard, row.clone()));
    }
}

/// What every method of [`Scan`] answers, as canonical bytes (doubles that are not numbers are equal there).
fn answers(scan: &dyn Scan, scope: &ScanScope) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let budget = ScanBudget::unlimited();
    let mut answers = Vec::new();
    let some = |id: u128| !id.is_multiple_of(4);
    let series = scan.series(scope, &budget, &mut |series| some(series.id.0)).unwrap();
    answers.push(("series", series.iter().map(|series| series.id.0.to_be_bytes().to_vec()).collect()));
    let mut points = Vec::new();
    scan.metrics(scope, &budget, &mut |series| some(series.id.0), &mut |found| {
        points.extend(
            found
                .points
                .into_iter()
                .map(|point| row_bytes(&MetricRow { series: found.series.clone(), point })),
        );
        ControlFlow::Continue(())
    })
    .unwrap();
    answers.push(("metrics", points));
    for signal in [Signal::Logs, Signal::Traces] {
        let streams = scan.streams(signal, scope, &budget).unwrap();
        let name = if signal == Signal::Logs { "log streams" } else { "span streams" };
        answers.push((name, streams.iter().map(|stream| stream.id.0.to_be_bytes().to_vec()).collect()));
    }
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut logs = Vec::new();
        scan.logs(scope, &budget, order, &mut |stream| some(stream.id.0), &mut |row| {
            logs.push(row_bytes(&row));
            ControlFlow::Continue(())
        })
        .unwrap();
        answers.push(("logs", logs));
        let mut spans = Vec::new();
        let mut ids = BTreeSet::new();
        scan.traces(scope, &budget, order, &mut |trace| {
            spans.push(vec![trace.len() as u8]);
            spans.extend(trace.iter().map(row_bytes));
            ids.extend(trace.iter().map(|row| row.span.trace_id));
            ControlFlow::Continue(())
        })
        .unwrap();
        answers.push(("traces", spans));
        ids.insert([9; 16]);
        let of_ids = scan.traces_by_id(scope, &budget, &ids).unwrap().into_iter().flatten();
        answers.push(("trace", of_ids.map(|row| row_bytes(&row)).collect()));
    }
    answers
}

/// Raises the floor of one tenant and signal.
pub(crate) async fn raise_floor(store: &Store, tenant: &Tenant, signal: Signal, unix_nano: u64) {
    let own = [(signal, [(tenant.clone(), unix_nano)].into())].into();
    store.raise_floors(Floors { own, ..Floors::default() }).await.unwrap();
}
