//! The load itself: workers that take the next request, patch it, send it, and count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::latency::Latency;
use crate::pool::Template;
use crate::send::{Outcome, Sender, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Elapsed(Duration),
    /// Items sent, rounded up to whole requests.
    Items(u64),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub connections: usize,
    /// Requests that wait for their answer on one connection.
    pub in_flight: usize,
    /// Items a second over all connections; 0 is as fast as the answers come.
    pub rate: u64,
    pub until: Until,
}

/// What was counted, for one worker or all of them.
#[derive(Clone, Default)]
pub struct Counts {
    pub requests: u64,
    pub items: u64,
    /// Uncompressed bytes of the acknowledged requests.
    pub bytes: u64,
    pub rejected_items: u64,
    /// Requests that were not acknowledged, by status.
    pub errors: BTreeMap<String, u64>,
    pub latency: Latency,
}

/// Acknowledged items so far, for a progress bar.
#[derive(Default)]
pub struct Progress {
    pub items: AtomicU64,
    pub failed_requests: AtomicU64,
}

struct Shared {
    templates: Vec<Template>,
    next: AtomicU64,
    /// Tells the ids of this run from those of others.
    run: u64,
    started: Instant,
    started_unix_nano: u64,
    interval: Option<Duration>,
    until: Until,
    progress: Arc<Progress>,
}

/// Runs `plan` with `templates` (all of about the same number of items) and returns the counts and the seconds taken.
pub async fn run(
    plan: &Plan,
    templates: Vec<Template>,
    progress: Arc<Progress>,
) -> Result<(Counts, f64), String> {
    assert!(!templates.is_empty(), "there is always a template");
    let started_unix_nano = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| "the wall clock is before 1970".to_owned())?
        .as_nanos() as u64;
    let items_mean = templates.iter().map(Template::items).sum::<u64>() as f64 / templates.len() as f64;
    let interval = (plan.rate > 0).then(|| Duration::from_secs_f64(items_mean / plan.rate as f64));
    let shared = Arc::new(Shared {
        templates,
        next: AtomicU64::new(0),
        run: started_unix_nano,
        started: Instant::now(),
        started_unix_nano,
        interval,
        until: plan.until,
        progress,
    });
    let mut workers = JoinSet::new();
    for _ in 0..plan.connections {
        let sender = Sender::new(&plan.target)?;
        for _ in 0..plan.in_flight {
            workers.spawn(work(Arc::clone(&shared), sender.clone()));
        }
    }
    let mut total = Counts::default();
    while let Some(counts) = workers.join_next().await {
        total.merge(&counts.map_err(|error| format!("a worker stopped: {error}"))?);
    }
    Ok((total, shared.started.elapsed().as_secs_f64()))
}

async fn work(shared: Arc<Shared>, mut sender: Sender) -> Counts {
    let mut counts = Counts::default();
    while let Some((number, due)) = shared.take() {
        if let Some(due) = due {
            sleep_until(due).await;
        }
        let templates = shared.templates.len() as u64;
        let template = &shared.templates[(number % templates) as usize];
        let sent = Instant::now();
        let time_unix_nano = shared.started_unix_nano + (sent - shared.started).as_nanos() as u64;
        let request = template.request(shared.run, number / templates, time_unix_nano);
        let outcome = sender.send(request).await;
        // With a rate, time spent waiting for a slow server is the server's: count from when the request was due.
        let latency = due.unwrap_or(sent).elapsed();
        let failed = matches!(outcome, Outcome::Failed { .. });
        counts.add(template, outcome, latency);
        if failed {
            shared.progress.failed_requests.fetch_add(1, Ordering::Relaxed);
            // A server that refuses at once must not be asked a hundred thousand times a second.
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            shared.progress.items.fetch_add(template.items(), Ordering::Relaxed);
        }
    }
    counts
}

impl Shared {
    /// Number of the next request and when it is due, or `None` at the end of the run.
    fn take(&self) -> Option<(u64, Option<Instant>)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.interval.map(|interval| self.started + interval.mul_f64(number as f64));
        let over = match self.until {
            Until::Elapsed(duration) => due.unwrap_or_else(Instant::now) >= self.started + duration,
            Until::Items(items) => self.items_before(number) >= items,
        };
        (!over).then_some((number, due))
    }

    fn items_before(&self, number: u64) -> u64 {
        let templates = self.templates.len() as u64;
        let whole: u64 = self.templates.iter().map(Template::items).sum();
        let rest = &self.templates[..(number % templates) as usize];
        number / templates * whole + rest.iter().map(Template::items).sum::<u64>()
    }
}

impl Counts {
    fn add(&mut self, template: &Template, outcome: Outcome, latency: Duration) {
        self.latency.record(latency);
        match outcome {
            Outcome::Accepted { rejected } => {
                self.requests += 1;
                self.items += template.items().saturating_sub(rejected);
                self.bytes += template.len() as u64;
                self.rejected_items += rejected;
            }
            Outcome::Failed { status } => *self.errors.entry(status).or_default() += 1,
        }
    }

    fn merge(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.items += other.items;
        self.bytes += other.bytes;
        self.rejected_items += other.rejected_items;
        for (status, count) in &other.errors {
            *self.errors.entry(status.clone()).or_default() += count;
        }
        self.latency.merge(&other.latency);
    }
}
