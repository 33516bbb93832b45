//! The cluster, its nodes and its shards as text for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use oteld_client::admin::{ClusterStatus, NodeStatus, ReplicaState, ReplicaStatus, ShardStatus};

const UNKNOWN: &str = "-";

pub(crate) fn cluster(status: &ClusterStatus) -> String {
    let mut out = String::new();
    let id = status.cluster_id.as_deref().unwrap_or("not founded yet");
    // Writing to a String does not fail.
    let _ = writeln!(out, "{}  cluster {id}", status.verdict.to_string().to_uppercase());
    for reason in &status.reasons {
        let _ = writeln!(out, "  - {reason}");
    }
    let meta = &status.meta;
    let _ = match (&meta.leader, &meta.seen_by) {
        (Some(leader), _) => writeln!(out, "\nMeta: term {}, leader {leader}", meta.term),
        (None, Some(member)) => {
            writeln!(out, "\nMeta: term {}, no leader, as {member} sees it", meta.term)
        }
        (None, None) => writeln!(out, "\nMeta: no member answers"),
    };
    let mut members = table(&["MEMBER", "ADDRESS", "ROLE", "LAST INDEX"], &[3]);
    for member in &meta.members {
        members.add_row([
            member.node.clone(),
            member.address.clone(),
            member.role.to_string(),
            or_unknown(member.last_log_index),
        ]);
    }
    let _ = writeln!(out, "{members}\n\nNodes: {}\n{}", status.nodes.len(), nodes(&status.nodes));
    let shards = &status.shards;
    let _ = writeln!(
        out,
        "\nShards: {} in total, {} under-replicated, {} moving",
        shards.total, shards.under_replicated, shards.moving
    );
    out
}

pub(crate) fn nodes(nodes: &[NodeStatus]) -> String {
    let mut rows = table(
        &["NODE", "ADDRESS", "ROLES", "ZONE", "STATE", "SHARDS", "DISK", "FREE", "ITEMS/S", "HEARTBEAT"],
        &[5, 6, 7, 8, 9],
    );
    for node in nodes {
        let roles: Vec<String> = node.roles.iter().map(ToString::to_string).collect();
        rows.add_row([
            node.name.clone(),
            node.address.clone(),
            roles.join(","),
            or_unknown(node.zone.as_ref()),
            node.state.to_string(),
            node.shards.to_string(),
            or_unknown(node.disk_bytes.map(bytes)),
            or_unknown(node.disk_free_bytes.map(bytes)),
            or_unknown(node.ingest_items_per_second.map(|rate| format!("{rate:.0}"))),
            or_unknown(node.last_heartbeat_ms.map(age)),
        ]);
    }
    rows.to_string()
}

pub(crate) fn shards(shards: &[ShardStatus]) -> String {
    let mut rows = table(&["SHARD", "EPOCH", "REPLICAS", "MOVING TO", "STEP"], &[0, 1]);
    for shard in shards {
        rows.add_row([
            shard.shard.to_string(),
            shard.epoch.to_string(),
            replicas(&shard.replicas),
            or_unknown(shard.new.as_deref().map(replicas)),
            or_unknown(shard.step),
        ]);
    }
    rows.to_string()
}

/// Names, with the state of those that are not simply active.
fn replicas(replicas: &[ReplicaStatus]) -> String {
    let names = replicas.iter().map(|replica| match replica.state {
        ReplicaState::Active => replica.node.clone(),
        state => format!("{} ({state})", replica.node),
    });
    names.collect::<Vec<_>>().join(", ")
}

pub(crate) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// Binary units, three significant digits or so.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms ago"),
        1_000..120_000 => format!("{} s ago", millis / 1_000),
        120_000..7_200_000 => format!("{} min ago", millis / 60_000),
        _ => format!("{} h ago", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_the_unit_that_reads_best() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(700 << 20), "700 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!(age(999), "999 ms ago");
        assert_eq!(age(119_999), "119 s ago");
        assert_eq!(age(7_200_000), "2 h ago");
    }
}
