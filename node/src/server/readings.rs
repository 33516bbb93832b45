//! What a node measures about itself, from the counters of its parts.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use oteld_cluster::ids::ReplicaId;
use oteld_env::Env;
use oteld_store::Store;
use oteld_store::model::{Signal, Tenant};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::front::Front;
use crate::admin::own::{OwnStatus, OwnStatusSource};
use crate::config::Config;
use crate::rpc::service::StorageParts;
use crate::telemetry::readings::{Reading, Source, to_prometheus_text};

/// Over how long the ingest rate is taken.
const RATE_SPAN: Duration = Duration::from_secs(10);

/// Reads all parts of a node. Cheap to clone.
#[derive(Clone)]
pub struct OwnReadings(Arc<Inner>);

struct Inner {
    env: Env,
    config: Arc<Config>,
    store: Option<Store>,
    parts: Arc<OnceLock<StorageParts>>,
    front: Option<Arc<Front>>,
    /// Items accepted so far, at the moments of the last readings.
    accepted: Mutex<VecDeque<(Instant, u64)>>,
}

impl OwnReadings {
    pub fn new(
        env: &Env,
        config: &Arc<Config>,
        store: Option<Store>,
        parts: Arc<OnceLock<StorageParts>>,
        front: Option<Arc<Front>>,
    ) -> Self {
        let (env, config) = (env.clone(), config.clone());
        OwnReadings(Arc::new(Inner { env, config, store, parts, front, accepted: Mutex::default() }))
    }

    /// For `/metrics` and the exporter.
    pub fn source(&self) -> Source {
        let inner = self.0.clone();
        Source::new(move || inner.readings())
    }

    /// For the admin API.
    pub fn own_status(&self) -> OwnStatusSource {
        let inner = self.0.clone();
        OwnStatusSource::new(move || inner.own_status())
    }

    /// `/metrics` in Prometheus' text format.
    pub fn router(&self) -> Router {
        let source = self.source();
        let show = move || async move {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], to_prometheus_text(source.read()))
        };
        Router::new().route("/metrics", get(show))
    }
}

impl Inner {
    fn readings(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        if let Some(front) = &self.front {
            front_readings(front, &mut readings);
        }
        if let Some(store) = &self.store {
            store_readings(store, &mut readings);
        }
        if let Some(parts) = self.parts.get() {
            catch_up_readings(parts, &mut readings);
        }
        readings
    }

    fn own_status(&self) -> OwnStatus {
        let store = self.store.as_ref().map(Store::status);
        OwnStatus {
            name: self.config.node.name.clone(),
            replica: self.store.as_ref().map(|store| ReplicaId(store.replica().0)),
            disk_bytes: store.as_ref().map(|status| status.segment_bytes + status.wal_bytes),
            disk_free_bytes: self.env.disk.free_bytes(&self.config.node.data_dir).ok(),
            ingest_items_per_second: self.front.as_ref().map(|front| self.rate(accepted_items(front))),
            read_only: store.and_then(|status| status.read_only),
            lost: self.store.as_ref().and_then(Store::lost),
            catching_up: self.store.is_some()
                && self.parts.get().is_none_or(|parts| parts.tails.is_catching_up()),
        }
    }

    /// Items a second since the oldest reading that is not older than the span.
    fn rate(&self, accepted: u64) -> f64 {
        let now = Instant::now();
        let mut earlier = self.accepted.lock();
        while earlier.len() > 1 && now.duration_since(earlier[0].0) > RATE_SPAN {
            earlier.pop_front();
        }
        let (since, before) = earlier.front().copied().unwrap_or((now, accepted));
        earlier.push_back((now, accepted));
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { (accepted - before) as f64 / seconds } else { 0.0 }
    }
}

fn accepted_items(front: &Front) -> u64 {
    front.receive.metrics.snapshot().iter().map(|count| count.items_accepted).sum()
}

fn front_readings(front: &Front, readings: &mut Vec<Reading>) {
    for count in front.receive.metrics.snapshot() {
        for (name, unit, help, value) in [
            ("oteld.receive.requests", "{request}", "Export requests that began.", count.requests),
            ("oteld.receive.body", "By", "Bytes of export requests as they came.", count.bytes_received),
            ("oteld.receive.items", "{item}", "Items acknowledged.", count.items_accepted),
            ("oteld.receive.items_rejected", "{item}", "Items that could not be kept.", count.items_rejected),
            ("oteld.receive.refused", "{request}", "Requests refused for size or memory.", count.refused),
            ("oteld.receive.invalid", "{request}", "Requests that were not valid.", count.invalid),
            ("oteld.receive.unwritten", "{request}", "Requests that were not replicated.", count.unwritten),
        ] {
            let reading = Reading::counter(name, unit, help, value);
            readings
                .push(reading.with("signal", count.signal.name()).with("protocol", count.protocol.name()));
        }
    }
    let admission = front.receive.admission.snapshot();
    let help = "Memory that requests in flight hold.";
    readings.push(Reading::gauge("oteld.admit.memory", "By", help, admission.used_bytes));
    let help = "The budget for requests in flight.";
    let budget = front.receive.admission.options().memory_bytes_max as u64;
    readings.push(Reading::gauge("oteld.admit.memory_limit", "By", help, budget));
}

fn catch_up_readings(parts: &StorageParts, readings: &mut Vec<Reading>) {
    let (done, total) = parts.tails.catch_up_bytes();
    let pinned = parts.snapshots.pinned() as u64;
    for (name, unit, help, value) in [
        ("oteld.catch_up.copied", "By", "Bytes of peers' segments that came, of the copy under way.", done),
        ("oteld.catch_up.size", "By", "Bytes of peers' segments to copy; 0 when none are.", total),
        ("oteld.catch_up.snapshots", "{snapshot}", "Snapshots of this store that peers copy.", pinned),
    ] {
        readings.push(Reading::gauge(name, unit, help, value));
    }
}

fn store_readings(store: &Store, readings: &mut Vec<Reading>) {
    let status = store.status();
    for (name, unit, help, value) in [
        ("oteld.store.segments", "{segment}", "Segments on disk.", status.segments),
        ("oteld.store.segment_size", "By", "Bytes of segments on disk.", status.segment_bytes),
        ("oteld.store.wal_size", "By", "Bytes of WAL on disk.", status.wal_bytes),
        ("oteld.store.memtable_size", "By", "Bytes of memtables.", status.memtable_bytes),
        ("oteld.store.request_ids", "{request}", "Request ids in memory.", status.ids),
        (
            "oteld.store.lost",
            "",
            "1 when synced data was lost and the store serves nobody.",
            store.lost().is_some().into(),
        ),
        ("oteld.store.read_only", "", "1 when the store refuses writes.", status.read_only.is_some().into()),
        (
            "oteld.store.maintenance_failing",
            "",
            "1 when the last flush or merge failed.",
            status.maintenance_error.is_some().into(),
        ),
    ] {
        readings.push(Reading::gauge(name, unit, help, value));
    }
    for (name, unit, help, value) in [
        ("oteld.store.flushes", "{flush}", "Memtables written as segments.", status.flushes),
        ("oteld.store.compactions", "{compaction}", "Merges of segments.", status.compactions),
        (
            "oteld.store.segments_installed",
            "{segment}",
            "Segments copied from peers whose logs no longer reached back.",
            status.segments_installed,
        ),
        (
            "oteld.store.shards_left",
            "{shard}",
            "Shards whose rows were deleted here after they moved to other stores.",
            status.shards_left,
        ),
        ("oteld.store.wal_groups", "{group}", "Groups synced to the WAL.", status.wal_groups),
    ] {
        readings.push(Reading::counter(name, unit, help, value));
    }
    for signal in Signal::ALL {
        let floor = store.floor(&Tenant::default(), signal) / 1_000_000_000;
        let help =
            "Event time since 1970 below which the default tenant has no rows; 0 while everything is kept.";
        let reading = Reading::gauge("oteld.store.retention_floor", "s", help, floor);
        readings.push(reading.with("signal", signal.name()));
    }
    // Of every signal, so that an empty store has all readings of a full one.
    for signal in Signal::ALL {
        let rows = status.rows.get(&signal).copied().unwrap_or_default();
        let reading = Reading::gauge(
            "oteld.store.rows",
            "{row}",
            "Rows stored, copies in several segments included.",
            rows,
        );
        readings.push(reading.with("signal", signal.name()));
    }
}
