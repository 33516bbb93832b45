//! What oteld answers about itself in Prometheus' terms. It has no rules and no alerts.

use super::respond::Success;

/// The version of the Prometheus API that clients may count on; Grafana reads it to know which calls exist.
const API_VERSION: &str = "3.5.0";

/// Without `features`: with them Grafana takes the server for Mimir.
pub(super) async fn buildinfo() -> Success {
    Success::plain(&serde_json::json!({
        "version": API_VERSION,
        "revision": concat!("oteld-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

pub(super) async fn rules() -> Success {
    Success::plain(&serde_json::json!({ "groups": [] }))
}

pub(super) async fn alerts() -> Success {
    Success::plain(&serde_json::json!({ "alerts": [] }))
}

pub(super) async fn alertmanagers() -> Success {
    Success::plain(&serde_json::json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}
