//! What holds for every query: a step of a range query is an instant query, and no query exhausts the stack.

use oteld_query::promql::{Data, Sample};
use oteld_store::model::PointValue;
use proptest::prelude::*;

use crate::world::{COUNTER, GAUGE, START, World};

const QUERIES: [&str; 16] = [
    "m",
    "m offset 37s",
    "m @ 1700000100",
    "rate(c_total[47s])",
    "increase(c_total[3m])",
    "avg_over_time(m[25s])",
    "changes(m[40s] offset -20s)",
    "max_over_time(rate(c_total[30s])[2m:20s])",
    "sum by (a) (m)",
    "topk(1, m)",
    "count_values(\"v\", m)",
    "m > on (a) group_left () sum by (a) (c_total)",
    "m and on (a) c_total",
    "m or c_total",
    "absent(m{a=\"0\"})",
    "timestamp(m) - time()",
];

/// Seconds and values; no value is a stale marker.
type Points = Vec<(u32, Option<u8>)>;

fn points() -> impl Strategy<Value = Points> {
    prop::collection::btree_map(0..400_u32, prop::option::weighted(0.9, 0..6_u8), 0..25)
        .prop_map(|points| points.into_iter().collect())
}

fn world(series: &[(bool, u8, Points)]) -> World {
    let mut world = World::default();
    for (index, (counter, a, points)) in series.iter().enumerate() {
        let (name, kind) = if *counter { ("c", COUNTER) } else { ("m", GAUGE) };
        let points = points.iter().map(|(seconds, value)| match value {
            Some(value) => World::point(f64::from(*seconds), PointValue::Double(f64::from(*value))),
            None => World::stale(f64::from(*seconds)),
        });
        // Counters are one for each `a`, gauges many.
        let i = if *counter { "-".to_owned() } else { index.to_string() };
        world.add(name, "", kind, &[("a", &a.to_string()), ("i", &i)], points.collect());
    }
    world
}

/// Values by (labels, time).
fn values(data: Data) -> Vec<(String, i64, u64)> {
    let mut values: Vec<_> = match data {
        Data::Vector { time_ms, samples } => samples
            .into_iter()
            .map(|(labels, sample)| match sample {
                Sample::Float(value) => (labels.to_string(), time_ms, value.to_bits()),
                Sample::Histogram(_) => panic!("not a float"),
            })
            .collect(),
        Data::Matrix(matrix) => matrix
            .into_iter()
            .flat_map(|series| {
                let labels = series.labels.to_string();
                series
                    .samples
                    .into_iter()
                    .map(move |(time_ms, value)| (labels.clone(), time_ms, value.to_bits()))
            })
            .collect(),
        other => panic!("not a vector: {other:?}"),
    };
    values.sort();
    values
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_engine_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "m", "{", "}", "(", ")", "[", "]", "5m", ":", "1", "1e400", "\"", "'", "`", "a", "=", "=~", "!~", ",", "+",
            "-", "^", "by", "on", "ignoring", "group_left", "sum", "topk", "rate", "absent", "offset", "@", "start()",
            "or", "unless", "bool", ">", "==", "#", "\\", "é", "nan", "inf", "scalar", "vector", "quantile", "0x", "_",
        ]), 0..12),
        spaced in any::<bool>(),
    ) {
        let query = words.join(if spaced { " " } else { "" });
        let world = World::default();
        // Whatever it says: it comes back.
        let _ = world.instant(&query, 0.0);
        let _ = world.range(&query, 0, 60, 20);
    }

    #[test]
    fn a_step_of_a_range_query_is_an_instant_query(
        series in prop::collection::vec((any::<bool>(), 0..3_u8, points()), 1..6),
        start in 0..200_i64,
        step in prop::sample::select(vec![1_i64, 10, 60, 100]),
        query in prop::sample::select(QUERIES.to_vec()),
    ) {
        let world = world(&series);
        let end = start + step * 4;
        let instants: Result<Vec<_>, _> = (0..5)
            .map(|i| world.instant(query, (start + i * step) as f64).map(|answer| values(answer.data)))
            .collect();
        let range = world.range(query, start, end, step).map(|answer| values(answer.data));
        match (range, instants) {
            (Ok(range), Ok(instants)) => {
                let mut instants = instants.concat();
                instants.sort();
                prop_assert_eq!(range, instants);
            }
            (Err(_), Err(_)) => {}
            (range, instants) => prop_assert!(false, "{:?} {:?} from {}", range, instants, START),
        }
    }
}

#[test]
fn a_query_of_the_greatest_depth_fits_the_stack() {
    let world = World::default();
    assert_eq!(world.ask(&format!("1{}", "+1".repeat(256)), 0.0), "257");
    assert_eq!(world.ask(&format!("{}1", "-".repeat(256)), 0.0), "1");
    assert_eq!(world.ask(&format!("vector(1){}", " or vector(1)".repeat(256)), 0.0), "{} 1");
    assert_eq!(world.ask(&format!("{}vector(2){}", "abs(".repeat(63), ")".repeat(63)), 0.0), "{} 2");
    let deep = format!("{}1{}", "(1+".repeat(64), ")".repeat(64));
    assert_eq!(world.ask(&deep, 0.0), "65");
}
