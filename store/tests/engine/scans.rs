//! What scans cost, and where they stop.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use oteld_store::Store;
use oteld_store::model::{Shard, Signal, Tenant, Window};
use oteld_store::scan::{Order, Scan, ScanBudget, ScanError, ScanScope};

use crate::world::{Request, SHARDS, START, World};

fn scope() -> ScanScope {
    let shards: BTreeSet<Shard> = (0..SHARDS).map(Shard).collect();
    ScanScope { tenant: Tenant::default(), shards: Arc::new(shards), time_unix_nano: 0..u64::MAX }
}

/// Requests of each signal in ten stretches of event time, half of them in segments.
async fn filled() -> (World, Store) {
    let mut world = World::new(1);
    let store = world.open().await;
    for n in 0..10 {
        for signal in Signal::ALL {
            let start = START + n * Window::NANOS / 5;
            let mut request = Request::sample(&world.random, signal, 20, start..start + Window::NANOS / 5);
            request.tenant = Tenant::default();
            world.append(&store, &request).await;
        }
        if n == 4 {
            store.flush().await.unwrap();
        }
    }
    (world, store)
}

#[tokio::test]
async fn a_reader_of_the_first_logs_reads_little() {
    let (_world, store) = filled().await;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let budget = ScanBudget::unlimited();
        let mut seen = 0;
        store
            .pin()
            .logs(&scope(), &budget, order, &mut |_| true, &mut |_| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert!(seen == 3 && budget.rows() <= 100, "{order:?}: {} of 200 rows", budget.rows());
    }
}

#[tokio::test]
async fn many_traces_are_read_in_one_go() {
    let (_world, store) = filled().await;
    let pin = store.pin();
    let mut ids = BTreeSet::new();
    let all = ScanBudget::unlimited();
    pin.traces(&scope(), &all, Order::OldestFirst, &mut |trace| {
        ids.insert(trace[0].span.trace_id);
        ControlFlow::Continue(())
    })
    .unwrap();
    let budget = ScanBudget::unlimited();
    let traces = pin.traces_by_id(&scope(), &budget, &ids).unwrap();
    assert_eq!(traces.len(), ids.len());
    assert!(ids.len() > 20 && budget.rows() <= all.rows(), "{} rows for {} traces", budget.rows(), ids.len());
}

#[tokio::test]
async fn a_scan_stops_at_its_budget_and_when_it_is_cancelled() {
    let (_world, store) = filled().await;
    let pin = store.pin();
    let count = |budget: &ScanBudget| {
        pin.metrics(&scope(), budget, &mut |_| true, &mut |_| ControlFlow::Continue(()))
    };
    let all = ScanBudget::unlimited();
    count(&all).unwrap();
    assert!(all.rows() == 200 && all.bytes() > 0);
    count(&ScanBudget::new(200, all.bytes())).unwrap();
    let limit = count(&ScanBudget::new(199, u64::MAX)).unwrap_err();
    assert!(matches!(limit, ScanError::Limit { what: "rows scanned", limit: 199 }), "{limit}");
    let limit = count(&ScanBudget::new(u64::MAX, all.bytes() - 1)).unwrap_err();
    assert!(matches!(limit, ScanError::Limit { what: "bytes scanned", .. }), "{limit}");
    all.cancel();
    assert!(matches!(count(&all).unwrap_err(), ScanError::Cancelled));
}

#[tokio::test]
async fn series_of_segments_in_scope_are_listed_without_reading_pages() {
    let (world, store) = filled().await;
    store.flush().await.unwrap();
    let budget = ScanBudget::unlimited();
    let series = store.pin().series(&scope(), &budget, &mut |_| true).unwrap();
    let streams = store.pin().streams(Signal::Logs, &scope(), &budget).unwrap();
    assert!(!series.is_empty() && !streams.is_empty());
    assert_eq!(budget.rows(), 0);
    world.check(&store.pin());
}

#[tokio::test]
async fn a_scan_of_too_many_series_stops_while_they_are_gathered() {
    let (_world, store) = filled().await;
    let pin = store.pin();
    let budget = ScanBudget::unlimited();
    let mut series = 0;
    let mut count = |_| {
        series += 1;
        ControlFlow::Continue(())
    };
    pin.metrics(&scope(), &budget, &mut |_| true, &mut count).unwrap();
    let few = budget.with_series_max(series / 4);
    let before = budget.rows();
    let mut none = |_| panic!("shown before the limit was reached");
    let limit = pin.metrics(&scope(), &few, &mut |_| true, &mut none).unwrap_err();
    assert!(matches!(limit, ScanError::Limit { what: "series", .. }), "{limit}");
    assert!(few.rows() - before < before, "all rows were read");
    let exactly = budget.with_series_max(series);
    pin.metrics(&scope(), &exactly, &mut |_| true, &mut |_| ControlFlow::Continue(())).unwrap();
}
