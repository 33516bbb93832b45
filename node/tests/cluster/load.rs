//! A load of numbered items of all signals, each request repeated until some front acknowledges it, and the proof
//! that exactly these items are stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::process::{PATIENCE, until};
use crate::send::{Export, Front, Way, logs, metrics, now, spans};

/// Items of one request. They have consecutive numbers, one a millisecond.
const ITEMS: u64 = 5;

/// Writers of each signal.
const WRITERS: u64 = 2;

/// One of so many requests goes to two fronts at once.
const TWICE: usize = 5;

const MILLI: u64 = 1_000_000;

/// Spans of one trace.
const TRACE_SPANS: u64 = 200;

pub(crate) struct Load {
    fronts: Vec<Front>,
    start: u64,
    acknowledged: Arc<AtomicU64>,
    retries: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// Each gives its signal, its number, and how many items it wrote.
    writers: JoinSet<(Signal, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    fn service(self, writer: u64) -> String {
        format!("load-{writer}")
    }

    /// The request with the items from `first` on.
    fn export(self, start: u64, writer: u64, first: u64) -> Export {
        let numbers = first..first + ITEMS;
        let time = |n: u64| start + n * MILLI;
        let service = self.service(writer);
        match self {
            Signal::Logs => logs(&service, numbers.map(|n| (time(n), format!("item {n}")))),
            Signal::Metrics => metrics(&service, "load.item", false, numbers.map(|n| (time(n), n as f64))),
            Signal::Traces => spans(&service, trace(writer, first), numbers.map(|n| (n + 1, time(n)))),
        }
    }
}

fn trace(writer: u64, number: u64) -> u128 {
    u128::from(writer + 1) << 64 | u128::from(number / TRACE_SPANS)
}

impl Load {
    pub(crate) fn start(fronts: &[&Front]) -> Load {
        let fronts: Vec<Front> = fronts.iter().map(|front| (*front).clone()).collect();
        // A whole millisecond, as Prometheus has them; early enough that no item is of the future.
        let start = (now() / MILLI - 120_000) * MILLI;
        let mut load = Load {
            fronts,
            start,
            acknowledged: Arc::default(),
            retries: Arc::default(),
            stop: Arc::default(),
            writers: JoinSet::new(),
        };
        for signal in [Signal::Metrics, Signal::Logs, Signal::Traces] {
            for writer in 0..WRITERS {
                let fronts = load.fronts.clone();
                let (acknowledged, retries) = (load.acknowledged.clone(), load.retries.clone());
                let stop = load.stop.clone();
                load.writers.spawn(async move {
                    let mut first = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let export = signal.export(start, writer, first);
                        let tries = write(&fronts, &export, (writer + first / ITEMS) as usize).await;
                        retries.fetch_add(tries - 1, Ordering::Relaxed);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        first += ITEMS;
                        // A few hundred items a second and signal: enough to be in the middle of something always.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    (signal, writer, first)
                });
            }
        }
        load
    }

    /// Waits until so many more requests are acknowledged.
    pub(crate) async fn acknowledges(&self, more: u64, when: &str) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        until(&format!("{more} acknowledgements {when}"), async || {
            let now = self.acknowledged.load(Ordering::Relaxed) - from;
            if now >= more { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
    }

    /// Ends the writers after their last acknowledgement and compares what `front` shows with what they wrote.
    pub(crate) async fn finish(mut self, front: &Front) {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        while let Some(written) = self.writers.join_next().await {
            let (signal, writer, items) = written.unwrap();
            total += items;
            match signal {
                Signal::Logs => self.expect_logs(front, writer, items).await,
                Signal::Metrics => self.expect_metrics(front, writer, items).await,
                Signal::Traces => self.expect_spans(front, writer, items).await,
            }
        }
        let retries = self.retries.load(Ordering::Relaxed);
        assert!(retries > 0, "no request was sent again");
        println!("{total} items, {retries} requests sent again");
    }

    async fn expect_logs(&self, front: &Front, writer: u64, items: u64) {
        const PAGE: u64 = 2_000;
        for from in (0..items + PAGE).step_by(PAGE as usize) {
            let time = self.start + from * MILLI..self.start + (from + PAGE) * MILLI;
            let lines = front.lines(&Signal::Logs.service(writer), time).await.unwrap();
            let expected = (from..items.min(from + PAGE)).map(|n| (format!("item {n}"), 1));
            same("log lines", lines, expected.collect());
        }
    }

    async fn expect_metrics(&self, front: &Front, writer: u64, items: u64) {
        let selector = format!("load_item{{job=\"{}\"}}[1h]", Signal::Metrics.service(writer));
        let mut samples = BTreeMap::new();
        for (milliseconds, value) in front.samples(&selector).await.unwrap() {
            *samples.entry((milliseconds, value as u64)).or_insert(0) += 1;
        }
        let expected = (0..items).map(|n| ((self.start / MILLI + n, n), 1));
        same("samples", samples, expected.collect());
    }

    async fn expect_spans(&self, front: &Front, writer: u64, items: u64) {
        for from in (0..items).step_by(TRACE_SPANS as usize) {
            let spans = front.jaeger_spans(trace(writer, from)).await.unwrap();
            let expected = (from..items.min(from + TRACE_SPANS)).map(|n| (format!("span {}", n + 1), 1));
            same("spans", spans, expected.collect());
        }
    }
}

/// Sends until a front acknowledges, to one after the other beginning with `first`; some requests go to two fronts
/// at once, as if a client had given up on the first too early. Gives the number of times that it was sent.
async fn write(fronts: &[Front], export: &Export, first: usize) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    loop {
        let front = |number: usize| &fronts[number % fronts.len()];
        let one = front(first + sent as usize);
        sent += 1;
        let outcome = if first.is_multiple_of(TWICE) {
            sent += 1;
            let two = front(first + sent as usize);
            let (a, b) =
                tokio::join!(one.send(export, Way::HttpProtobuf), two.send(export, Way::HttpProtobuf));
            a.or(b)
        } else {
            one.send(export, Way::HttpProtobuf).await
        };
        let Err(error) = outcome else { return sent };
        assert!(Instant::now() < deadline, "no front acknowledged within {PATIENCE:?}: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn same<K: Ord + std::fmt::Debug>(what: &str, shown: BTreeMap<K, usize>, expected: BTreeMap<K, usize>) {
    let missing: Vec<&K> = expected.keys().filter(|key| !shown.contains_key(key)).collect();
    let surplus: Vec<(&K, &usize)> =
        shown.iter().filter(|(key, count)| expected.get(key) != Some(count)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: {} of {} missing, such as {:?}; {} too many, such as {:?}",
        missing.len(),
        expected.len(),
        &missing[..missing.len().min(3)],
        surplus.len(),
        &surplus[..surplus.len().min(3)],
    );
}
