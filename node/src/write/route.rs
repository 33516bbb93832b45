//! Cutting a request into parts: the rows that fall in each shard.
//!
//! A pure function of the request and the split in the metadata, so that a retry through any front makes the
//! same parts (PROTOCOL, failure 8).

use std::collections::BTreeMap;

use oteld_store::model::{RequestId, Rows, Shard, Split, Tenant};

/// The rows of a request by shard; rows keep their order within a shard.
pub fn route(tenant: &Tenant, request: RequestId, split: Split, rows: Rows) -> BTreeMap<Shard, Rows> {
    match rows {
        Rows::Metrics(rows) => {
            // A request names few series often: the shard of the row before is nearly always asked again.
            let mut last: Option<(*const (), *const (), Shard)> = None;
            let groups = group(rows, |row| {
                let resource = std::sync::Arc::as_ptr(&row.series.resource).cast();
                let metric = std::sync::Arc::as_ptr(&row.series.metric).cast();
                match last {
                    Some((r, m, shard)) if (r, m) == (resource, metric) => shard,
                    _ => {
                        let series = &row.series;
                        let shard = split.shard_of_series(tenant, &series.resource, &series.metric.name);
                        last = Some((resource, metric, shard));
                        shard
                    }
                }
            });
            groups.into_iter().map(|(shard, rows)| (shard, Rows::Metrics(rows))).collect()
        }
        Rows::Logs(rows) => {
            let groups = group(rows, |row| split.shard_of_log(row.stream.id, request));
            groups.into_iter().map(|(shard, rows)| (shard, Rows::Logs(rows))).collect()
        }
        Rows::Traces(rows) => {
            let groups = group(rows, |row| split.shard_of_trace(tenant, &row.span.trace_id));
            groups.into_iter().map(|(shard, rows)| (shard, Rows::Traces(rows))).collect()
        }
    }
}

fn group<R>(rows: Vec<R>, mut shard_of: impl FnMut(&R) -> Shard) -> BTreeMap<Shard, Vec<R>> {
    let mut groups: BTreeMap<Shard, Vec<R>> = BTreeMap::new();
    for row in rows {
        groups.entry(shard_of(&row)).or_default().push(row);
    }
    groups
}
