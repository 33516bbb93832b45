//! What the clients of a run do, and to whom.

use std::time::Duration;

use jepsen_lite::clients::{self, Front, NodeAddress, Phase, Plan, Targets};
use jepsen_lite::driver::{REQUEST_BYTES_MAX, Work};
use jepsen_lite::workload::item::Run;
use oteld_env::{Env, Random};
use tokio::sync::watch;

/// How long after the last fault everything must be served.
pub(super) const RECOVER_MAX: Duration = Duration::from_secs(120);

pub(super) async fn work_with(work: Work, members: &[String], run: Run, plan: Plan) -> Vec<String> {
    let front = |name: &String| {
        let addresses = &work.nodes[name];
        Front { name: name.clone(), otlp_http: addresses.otlp_http.clone(), query: addresses.query.clone() }
    };
    let nodes = work.nodes.iter().map(|(name, addresses)| NodeAddress {
        name: name.clone(),
        query: addresses.query.clone(),
        node: addresses.node.clone(),
    });
    let targets = Targets {
        fronts: work.fronts.iter().map(front).collect(),
        nodes: nodes.collect(),
        meta: members.iter().map(|name| work.nodes[name].node.clone()).collect(),
    };
    let env = Env { random: Random::from_seed(run.seed), ..Env::real() };
    let (phases, phase) = watch::channel(Phase::Work);
    let mut healing = work.healing.clone();
    tokio::task::spawn_local(async move {
        // The driver goes only after the clients.
        if healing.wait_for(|healing| *healing).await.is_ok() {
            phases.send_replace(Phase::Heal);
        }
        phases.closed().await;
    });
    clients::run(env, work.timeline, run, plan, targets, work.recorder, phase).await
}

pub(super) fn plan(rate: u64) -> Plan {
    Plan {
        writers: 8,
        items_per_second: rate,
        // About fifty requests a second, so that the rate is not that of connections.
        items_per_request: 1..(rate / 25).clamp(8, 4_000),
        readers: 4,
        read_pause_ms: 200..2_000,
        cell: 4_096,
        meta_sessions: 3,
        probes: true,
        burst_every: 24,
        request_bytes_max: REQUEST_BYTES_MAX,
        answer_wait: Duration::from_secs(5),
        read_wait: Duration::from_secs(20),
        give_up: Duration::from_secs(60),
        recover_max: RECOVER_MAX,
    }
}
