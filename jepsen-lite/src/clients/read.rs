//! Readers: lists, counts and single traces while faults go on, and at the end all that was ever written.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::time::Instant;

use super::{Phase, Shared};
use crate::history::event::{Count, CountOf, Event, Read, Scope, Way};
use crate::workload::answer::{of_count, of_search, of_trace};
use crate::workload::item::{Item, LANES, Signal};
use crate::workload::query::trace_scope;

/// How long to wait before a read of the end is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Reads this and that until the healing begins. Scopes are cells of a grid, so that the same one is read again and
/// again while its rows are flushed, merged and moved.
pub(super) async fn reader(shared: Rc<Shared>, session: u32) {
    while shared.phase() == Phase::Work {
        let pause = shared.env.random.in_range(shared.plan.read_pause_ms.clone());
        shared.sleep_in_work(Duration::from_millis(pause)).await;
        let signal = Signal::ALL[shared.env.random.in_range(0..3) as usize];
        let Some(scope) = some_cell(&shared, signal) else { continue };
        let done = match shared.env.random.in_range(0..8) {
            0 => count(&shared, session, CountOf::Sums, cell_of(&shared, Signal::Metrics, &scope)).await,
            1 => {
                count(&shared, session, CountOf::Histograms, cell_of(&shared, Signal::Metrics, &scope)).await
            }
            2 => count(&shared, session, CountOf::Lines, cell_of(&shared, Signal::Logs, &scope)).await,
            3 | 4 => one_trace(&shared, session).await,
            _ => search(&shared, session, signal, scope, false).await.map(drop),
        };
        if let Err(error) = done {
            tracing::debug!(target: "jepsen", %error, "read failed");
        }
    }
}

/// Reads everything that was ever written, each cell until its answer is complete.
pub(super) async fn last(shared: &Rc<Shared>, session: u32, deadline: Instant) -> Vec<String> {
    let mut failures = Vec::new();
    for signal in Signal::ALL {
        let mut from = 0;
        let end = shared.end(signal).next_multiple_of(LANES);
        while from < end {
            let to = (from + shared.plan.cell).min(end);
            let scope = Scope { writers: 0..shared.plan.writers, from, to };
            if let Err(why) = until_complete(shared, session, signal, scope, deadline).await {
                let bound = shared.plan.recover_max.as_secs();
                failures.push(format!(
                    "{} {from}..{to} cannot be read completely {bound} s after the last fault: {why}",
                    signal.name()
                ));
                break;
            }
            from = to;
        }
    }
    failures
}

async fn until_complete(
    shared: &Rc<Shared>,
    session: u32,
    signal: Signal,
    scope: Scope,
    deadline: Instant,
) -> Result<(), String> {
    loop {
        let invoked_us = shared.timeline.now_us();
        let searched = search(shared, session, signal, scope.clone(), true).await;
        let is_over = Instant::now() >= deadline;
        let why = match searched {
            Ok(false) => return Ok(()),
            Ok(true) => "the answer is partial".to_owned(),
            Err(error) => {
                let completed_us = shared.timeline.now_us();
                let failed = Read { session, signal, invoked_us, completed_us, ..Read::default() };
                let failed = Read { scope: scope.clone(), last: true, partial: true, failed: true, ..failed };
                // What comes before may only be late.
                if is_over {
                    shared.recorder.record(Event::Read(failed));
                }
                error
            }
        };
        if is_over {
            return Err(why);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A cell of the grid that has something: mostly one that is written now, else any.
fn some_cell(shared: &Shared, signal: Signal) -> Option<Scope> {
    let (cell, end) = (shared.plan.cell, shared.end(signal));
    let cells = end.div_ceil(cell);
    let newest = cells.checked_sub(1)?;
    let which = match shared.env.random.in_range(0..3) {
        0 => shared.env.random.in_range(0..cells),
        _ => newest,
    };
    let all = 0..shared.plan.writers;
    let writers = match shared.env.random.in_range(0..3) {
        // Jaeger's search has no writers.
        0 if signal != Signal::Traces => {
            let one = shared.env.random.in_range(0..u64::from(shared.plan.writers)) as u32;
            one..one + 1
        }
        _ => all,
    };
    Some(Scope { writers, from: which * cell, to: (which + 1) * cell })
}

/// The same writers, at a place where the signal has something.
fn cell_of(shared: &Shared, signal: Signal, scope: &Scope) -> Scope {
    let newest = shared.end(signal).div_ceil(shared.plan.cell).saturating_sub(1);
    let from = (scope.from / shared.plan.cell).min(newest) * shared.plan.cell;
    Scope { from, to: from + shared.plan.cell, ..scope.clone() }
}

/// Lists a scope; whether the answer was partial.
async fn search(
    shared: &Rc<Shared>,
    session: u32,
    signal: Signal,
    scope: Scope,
    last: bool,
) -> Result<bool, String> {
    let path = shared.run.search(signal, &scope);
    let mut read = Read { session, signal, scope, ..Read::default() };
    let body = ask(shared, &path, "application/json", &mut read, &[200]).await?.1;
    of_search(shared.run, &body, &mut read).map_err(|error| error.0)?;
    read.last = last;
    let partial = read.partial;
    shared.recorder.record(Event::Read(read));
    Ok(partial)
}

/// One trace by its id, whose spans came in several requests.
async fn one_trace(shared: &Rc<Shared>, session: u32) -> Result<(), String> {
    let end = shared.end(Signal::Traces);
    if end == 0 {
        return Ok(());
    }
    let writer = shared.env.random.in_range(0..u64::from(shared.plan.writers)) as u32;
    let trace = Item { writer, sequence: shared.env.random.in_range(0..end) }.trace();
    let path = shared.run.trace_by_id(writer, trace);
    let scope = trace_scope(writer, trace);
    let mut read = Read { session, signal: Signal::Traces, way: Way::TraceById, scope, ..Read::default() };
    // 206 is Tempo's "partial", 404 its "there is none", which is complete.
    let (status, body) = ask(shared, &path, "application/protobuf", &mut read, &[200, 206, 404]).await?;
    if status != 404 {
        of_trace(shared.run, &body, &mut read).map_err(|error| error.0)?;
    }
    read.partial = status == 206;
    shared.recorder.record(Event::Read(read));
    Ok(())
}

async fn ask(
    shared: &Shared,
    path: &str,
    accept: &str,
    read: &mut Read,
    right: &[u16],
) -> Result<(u16, Bytes), String> {
    let front = shared.some_front();
    read.front = front as u32;
    read.invoked_us = shared.timeline.now_us();
    let request = Request::get(path).header("accept", accept);
    let address = &shared.targets.fronts[front].query;
    let answer = shared.pool.exchange(address, request, Bytes::new(), shared.plan.read_wait).await;
    read.completed_us = shared.timeline.now_us();
    let answer = answer.map_err(|error| error.reason().to_owned())?;
    if !right.contains(&answer.status) {
        let text: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        return Err(format!("{}: {text}", answer.status));
    }
    Ok((answer.status, answer.body))
}

/// Counts in the cluster.
async fn count(shared: &Rc<Shared>, session: u32, of: CountOf, scope: Scope) -> Result<(), String> {
    if scope.from >= shared.end(if of == CountOf::Lines { Signal::Logs } else { Signal::Metrics }) {
        return Ok(());
    }
    let path = shared.run.count(of, &scope);
    let mut read = Read::default();
    let body = ask(shared, &path, "application/json", &mut read, &[200]).await?.1;
    let (total, partial) = of_count(&body).map_err(|error| error.0)?;
    let Read { invoked_us, completed_us, front, .. } = read;
    let count = Count { session, of, scope, invoked_us, completed_us, front, partial, total };
    shared.recorder.record(Event::Count(count));
    Ok(())
}
