//! A request counts once however often it is sent, and equal records of different requests are different records.

use std::collections::BTreeMap;

use crate::harness::Cluster;
use crate::send::{WAYS, Way, logs, metrics, now, spans};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_again_to_another_front_counts_once() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.front(1), cluster.front(2));
    let time = now() - 5_000_000_000;
    let times = |n: u64| time + n * 1_000_000;
    let records: Vec<_> = (0..40).map(|n| (times(n), format!("record {n}"))).collect();
    let points: Vec<_> = (0..40).map(|n| (times(n), n as f64)).collect();
    let exports = [
        logs("retried", records),
        metrics("retried", "retried.requests", true, points),
        spans("retried", 7, (1..=40).map(|n| (n, times(n)))),
    ];
    for export in &exports {
        // Both at once, then each again; gRPC carries the same bytes as HTTP, and so is the same request.
        let (first, second) =
            tokio::join!(one.send(export, Way::HttpProtobuf), two.send(export, Way::HttpProtobuf));
        first.and(second).unwrap();
        two.send(export, Way::Grpc).await.unwrap();
        one.send(export, Way::HttpProtobuf).await.unwrap();
    }
    for front in [one, two] {
        let lines = front.lines("retried", time..time + 1_000_000_000).await.unwrap();
        assert_eq!(lines, (0..40).map(|n| (format!("record {n}"), 1)).collect());
        let counted = front.log_count("sum(count_over_time({service_name=\"retried\"}[5m]))").await.unwrap();
        assert_eq!(counted, 40.0);
        let samples = front.samples("retried_requests_total[5m]").await.unwrap();
        assert_eq!(samples, (0..40).map(|n| (times(n) / 1_000_000, n as f64)).collect::<Vec<_>>());
        let total = front.prometheus_value("sum(sum_over_time(retried_requests_total[5m]))").await.unwrap();
        assert_eq!(total, (0..40).sum::<u64>() as f64);
        let expected: BTreeMap<String, usize> = (1..=40).map(|n| (format!("span {n}"), 1)).collect();
        assert_eq!(front.jaeger_spans(7).await.unwrap(), expected);
    }

    // The same record in requests that differ: by what else is in them, and by an idempotency key.
    let time = now();
    let twin = || (time, "twin".to_owned());
    for way in WAYS {
        one.send(&logs("twins", [twin()]), way).await.unwrap();
    }
    two.send(&logs("twins", [twin(), (time, "another".to_owned())]), Way::HttpProtobuf).await.unwrap();
    for front in [one, two, one] {
        let body = format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"twins"}}}}]}},
               "scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{time}","body":{{"stringValue":"twin"}}}}]}}]}}]}}"#
        );
        let request =
            front.http.post(format!("{}/v1/logs", front.otlp_http)).header("idempotency-key", "mine");
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    let lines = two.lines("twins", time..time + 1).await.unwrap();
    // JSON is not the bytes of protobuf: one of protobuf, one of JSON, one beside another, one with a key.
    assert_eq!(lines, BTreeMap::from([("twin".to_owned(), 4), ("another".to_owned(), 1)]));
}

/// Requests that wait for the same replicas share a batch, and nothing but that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_at_once_only_the_one_with_a_used_key_is_refused() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.front(1), cluster.front(2));
    let time = now() - 1_000_000_000;
    let keyed = async |text: &str| {
        let body = logs("keyed", [(time, text.to_owned())]).to_bytes();
        let request = one.http.post(format!("{}/v1/logs", one.otlp_http)).header("idempotency-key", "used");
        let answer =
            request.header("content-type", "application/x-protobuf").body(body).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(keyed("the first").await, 200);
    let crowd = (0..200_u64).map(|n| {
        let export = logs("crowd", [(time + n, format!("record {n}"))]);
        async move { one.send(&export, Way::HttpProtobuf).await }
    });
    let (crowd, refused) = tokio::join!(futures_util::future::join_all(crowd), keyed("the second"));
    assert_eq!(refused, 409);
    crowd.into_iter().for_each(|outcome| outcome.unwrap());
    let expected: BTreeMap<String, usize> = (0..200).map(|n| (format!("record {n}"), 1)).collect();
    assert_eq!(two.lines("crowd", time..time + 1000).await.unwrap(), expected);
    let lines = two.lines("keyed", time..time + 1).await.unwrap();
    assert_eq!(lines, BTreeMap::from([("the first".to_owned(), 1)]));
}
