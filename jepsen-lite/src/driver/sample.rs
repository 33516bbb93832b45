//! What every node says of itself and of the cluster, about once a second.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use oteld_client::admin::{CLUSTER_STATUS_PATH, ClusterStatus, ReplicaStatus, SHARDS_PATH, ShardStatus};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Cluster, Running, ask};
use crate::coverage;
use crate::history::event::{Event, Sample, ShardSample};
use crate::history::recorder::Recorder;
use crate::timeline::Timeline;

const EVERY: Duration = Duration::from_secs(1);

/// How long one answer may take: nodes that answer for the cluster wait for those that do not.
const WAIT: Duration = Duration::from_millis(2_500);

/// Every node is asked about the cluster once in so many rounds: each such question goes to all nodes.
const CLUSTER_ROUNDS: usize = 4;

/// Counters of `/metrics` that are kept, and the names that they have in a history.
const COUNTERS: [(&str, &str); 6] = [
    ("oteld_store_flushes_total", coverage::FLUSHES),
    ("oteld_store_compactions_total", coverage::COMPACTIONS),
    ("oteld_store_segments_installed_total", coverage::SEGMENTS_INSTALLED),
    ("oteld_store_shards_left_total", "shards_left"),
    ("oteld_store_wal_groups_total", "wal_groups"),
    ("oteld_receive_unwritten_total", "unwritten"),
];

/// What the newest answers say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) leader: Option<String>,
    /// Whether every replica of every shard is where it should be.
    pub(crate) is_whole: bool,
    /// By shard, the newest epoch and its set.
    sets: BTreeMap<u32, (u64, Vec<String>)>,
}

impl Seen {
    fn status(&mut self, status: &ClusterStatus) {
        self.leader.clone_from(&status.meta.leader);
        self.is_whole =
            status.shards.total > 0 && status.shards.under_replicated == 0 && status.shards.moving == 0;
    }

    /// How many shards have another set than they had.
    fn moved(&mut self, shards: &BTreeMap<u32, ShardSample>) -> u64 {
        let mut moved = 0;
        for (shard, now) in shards.iter().filter(|(_, now)| now.new.is_none()) {
            match self.sets.get(shard) {
                Some((epoch, _)) if *epoch >= now.epoch => continue,
                Some((_, set)) if *set != now.set => moved += 1,
                _ => {}
            }
            self.sets.insert(*shard, (now.epoch, now.set.clone()));
        }
        moved
    }
}

/// Samples until it is aborted. Must run on a `LocalSet`.
pub(super) async fn run(
    cluster: Rc<RefCell<impl Cluster>>,
    timeline: Timeline,
    recorder: Recorder,
    seen: Rc<RefCell<Seen>>,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0.. {
        ticks.tick().await;
        let mut asked = JoinSet::new();
        for (index, running) in cluster.borrow().running().into_iter().enumerate() {
            let Running { node, boot, resident_bytes, query } = running;
            let sample = Sample { node, boot, resident_bytes, ..Sample::default() };
            let of_cluster = (round + index) % CLUSTER_ROUNDS == 0;
            asked.spawn_local(ask(sample, query, of_cluster));
        }
        while let Some(answered) = asked.join_next().await {
            let Ok((mut sample, status)) = answered else { continue };
            sample.at_us = timeline.now_us();
            let mut seen = seen.borrow_mut();
            if let Some(status) = &status {
                seen.status(status);
            }
            recorder.add(coverage::MOVES_FINISHED, seen.moved(&sample.shards));
            recorder.record(Event::Sample(sample));
        }
    }
}

async fn ask(mut sample: Sample, query: String, of_cluster: bool) -> (Sample, Option<ClusterStatus>) {
    if let Ok((200, body)) = ask::get(&query, "/metrics", WAIT).await {
        let text = String::from_utf8_lossy(&body);
        sample.counters = counters(&text);
        sample.request_bytes = gauge(&text, "oteld_admit_memory_bytes");
        sample.request_bytes_max = gauge(&text, "oteld_admit_memory_limit_bytes");
    }
    if !of_cluster {
        return (sample, None);
    }
    if let Ok(shards) = ask::get_json::<Vec<ShardStatus>>(&query, SHARDS_PATH, WAIT).await {
        sample.shards = shards.into_iter().map(|shard| (shard.shard, of_shard(shard))).collect();
    }
    let status = ask::get_json::<ClusterStatus>(&query, CLUSTER_STATUS_PATH, WAIT).await.ok();
    if let Some(status) = &status {
        sample.seen_by.clone_from(&status.meta.seen_by);
        sample.leader.clone_from(&status.meta.leader);
        sample.term = status.meta.term;
    }
    (sample, status)
}

fn of_shard(shard: ShardStatus) -> ShardSample {
    let names = |replicas: Vec<ReplicaStatus>| replicas.into_iter().map(|replica| replica.node).collect();
    ShardSample { epoch: shard.epoch, set: names(shard.replicas), new: shard.new.map(names) }
}

/// The counters that are kept, each the sum over its labels.
fn counters(metrics: &str) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let kept = COUNTERS.iter().find(|(metric, _)| *metric == name);
        if let (Some((_, kept)), Ok(value)) = (kept, value.parse::<f64>()) {
            *counters.entry((*kept).to_owned()).or_default() += value as u64;
        }
    }
    counters
}

/// A value without labels; 0 where there is none.
fn gauge(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse::<f64>().ok()).map_or(0, |value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text = "# TYPE oteld_store_flushes_total counter\noteld_store_flushes_total 3\nother_total 5\n\
                    oteld_receive_unwritten_total{signal=\"logs\"} 1\noteld_receive_unwritten_total{signal=\"x\"} 2\n";
        let expected = BTreeMap::from([("flushes".to_owned(), 3), ("unwritten".to_owned(), 3)]);
        assert_eq!(counters(text), expected);
    }

    #[test]
    fn a_shard_moved_when_a_newer_epoch_has_another_set() {
        let at = |epoch: u64, set: &[&str], new: bool| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            BTreeMap::from([(0, ShardSample { epoch, new: new.then(|| set.clone()), set })])
        };
        let mut seen = Seen::default();
        let answers = [
            (at(1, &["a", "b"], false), 0),
            (at(2, &["a", "b"], true), 0),
            (at(3, &["a", "c"], false), 1),
            // An older answer, from a node that is behind.
            (at(1, &["a", "b"], false), 0),
            (at(4, &["a", "c"], false), 0),
        ];
        for (shards, moved) in answers {
            assert_eq!(seen.moved(&shards), moved, "{shards:?}");
        }
    }
}
