//! What goes in at one front is seen at another.

use std::collections::BTreeMap;

use oteld_client::admin::Verdict;

use crate::harness::Cluster;
use crate::send::{WAYS, Way, logs, metrics, now, spans};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_takes_all_three_signals_and_any_front_shows_them() {
    let cluster = Cluster::start().await;
    let (sender, reader) = (cluster.front(1), cluster.front(2));
    for (number, way) in WAYS.into_iter().enumerate() {
        let time = now();
        let (service, trace) = (format!("shop-{number}"), 0xabc0 + number as u128);
        // Each is asked for as soon as it is acknowledged.
        sender.send(&logs(&service, [(time, format!("hello {way:?}"))]), way).await.unwrap();
        let lines = reader.lines(&service, time..time + 1).await.unwrap();
        assert_eq!(lines, BTreeMap::from([(format!("hello {way:?}"), 1)]), "{way:?}");

        sender.send(&metrics(&service, "shop.load", false, [(time, 2.5)]), way).await.unwrap();
        let value = reader.prometheus_value(&format!("shop_load{{job=\"{service}\"}}")).await.unwrap();
        assert_eq!(value, 2.5, "{way:?}");

        sender.send(&spans(&service, trace, [(1, time), (2, time)]), way).await.unwrap();
        let expected = BTreeMap::from([("span 1".to_owned(), 1), ("span 2".to_owned(), 1)]);
        assert_eq!(reader.jaeger_spans(trace).await.unwrap(), expected, "{way:?}");
        assert_eq!(reader.tempo_spans(trace).await.unwrap(), expected, "{way:?}");
    }
    let services = reader.ask("/jaeger/api/services", &[]).await.unwrap();
    assert_eq!(services["data"], serde_json::json!(["shop-0", "shop-1", "shop-2"]));
    let labels = reader.ask("/loki/api/v1/label/service_name/values", &[]).await.unwrap();
    assert_eq!(labels["data"], services["data"]);
    let jobs = reader.ask("/prometheus/api/v1/label/job/values", &[]).await.unwrap();
    assert_eq!(jobs["data"], services["data"]);
    let found = reader.ask("/tempo/api/search", &[("tags", "service.name=shop-1")]).await.unwrap();
    assert_eq!(found["traces"][0]["rootServiceName"], "shop-1", "{found}");

    // One tenant does not see another's.
    let other = sender.http.post(format!("{}/v1/logs", sender.otlp_http)).header("x-scope-orgid", "other");
    let body = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"theirs"}}]}]}]}"#;
    let answer = other.header("content-type", "application/json").body(&body[..]).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        reader.log_count("sum(count_over_time({service_name=~\".+\"}[1h]))").await.unwrap(),
        WAYS.len() as f64
    );
    assert_eq!(sender.send(&logs("shop-0", []), Way::Grpc).await, Ok(()), "an empty request is a success");

    cluster.verdict(Verdict::Healthy).await;
    assert_eq!(
        cluster.complaints(),
        Vec::<String>::new(),
        "a start without faults has nothing to complain of"
    );
}
