//! Retention by age: whole windows go on every replica when their time has come by the clocks of a majority.

#![allow(clippy::disallowed_methods, reason = "a real cluster in a real directory")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod world;

use std::collections::BTreeSet;

use world::{Cluster, HOUR_NANOS, now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_windows_go_on_all_replicas_and_stay_gone() {
    let mut cluster = Cluster::start("4h").await;
    let begun = now();
    let (old, young) = (begun - 3 * HOUR_NANOS, begun + 2 * HOUR_NANOS);
    let both = ["old", "young"].map(str::to_owned).into();
    for (time, text) in [(old, "old"), (young, "young")] {
        assert_eq!(cluster.write(time, text).await, None);
    }
    assert_eq!(cluster.lines().await, both);
    let before = cluster.floors();
    assert!(before.iter().all(|floor| *floor <= begun - 4 * HOUR_NANOS), "{before:?}");

    // One fast clock, even the leader's, moves nothing: the floor that comes in the end is that of the others.
    cluster.clocks[0].set_offset_nanos(1000 * 24 * HOUR_NANOS as i64);
    for index in [1, 2] {
        cluster.clocks[index].set_offset_nanos(5 * HOUR_NANOS as i64);
    }
    cluster.floors_reach(old + 1).await;
    let expected = now() + HOUR_NANOS;
    assert!(cluster.floors().iter().all(|floor| *floor <= expected), "{:?}", cluster.floors());
    assert_eq!(cluster.lines().await, BTreeSet::from(["young".to_owned()]));

    // The front tells the client as soon as it knows; the same request again counts once.
    let told = world::until("a late record is rejected", async || cluster.write(old, "late").await).await;
    assert_eq!(told, "1 rejected: older than the tenant's data is kept");

    // The clocks are right again; what is gone stays gone.
    cluster.restart().await;
    assert_eq!(cluster.lines().await, BTreeSet::from(["young".to_owned()]));
    for rows in cluster.stop_and_read().await {
        assert!(rows.len() == 1 && rows[0].contains("young"), "{rows:?}");
    }
}
