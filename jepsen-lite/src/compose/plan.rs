//! What a run needs before it begins: the nodes of the Compose files, ports, images, and a project that is free.

#![allow(clippy::disallowed_methods, reason = "prepares what is tested, and is part of no node")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use super::docker::{self, words};
use super::{Options, file};
use crate::driver::{Addresses, SETTINGS, loopback};
use crate::nemesis::topology::Topology;

/// A cluster that can be started.
pub struct Plan {
    pub topology: Topology,
    /// Version and image of what is tested, in words.
    pub tested: String,
    pub(super) options: Options,
    /// The Compose file of the run.
    pub(super) document: Value,
    /// Where this machine reaches the nodes.
    pub(super) addresses: BTreeMap<String, Addresses>,
}

impl Plan {
    /// Reads the Compose files, and asks the engine for what a run needs.
    ///
    /// # Errors
    /// What is missing, and what to do about it; or what of the files cannot be run.
    pub fn read(options: Options) -> Result<Plan, String> {
        docker::check()?;
        let files: Vec<String> = (options.files.iter())
            .flat_map(|file| ["--file".to_owned(), file.display().to_string()])
            .collect();
        let compose = words(&["compose", "--project-name", &options.project], &files);
        let config = ["config", "--format", "json"].map(str::to_owned);
        let config = docker::now(&[compose, config.to_vec()].concat())?;
        let config = serde_json::from_str(&config);
        let config = config.map_err(|error| format!("docker compose config prints no JSON: {error}"))?;
        // Held until all are known, so that none is given twice.
        let mut held = Vec::new();
        let port = || -> std::io::Result<SocketAddr> {
            let listener = TcpListener::bind(SocketAddr::new(loopback(), 0))?;
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        };
        let nodes = file::nodes(config, &options.project, &environment(&options), port)?;
        let versions: Result<Vec<String>, String> =
            nodes.images.iter().map(|image| docker::version_of(image, &files.join(" "))).collect();
        docker::check_is_free(&options.project)?;
        Ok(Plan {
            topology: nodes.topology,
            tested: versions?.join(", "),
            options,
            document: nodes.document,
            addresses: nodes.addresses,
        })
    }
}

/// Settings of all nodes, as variables.
fn environment(options: &Options) -> Vec<(String, String)> {
    let replicas = ("meta.replication_factor", options.replication_factor.to_string());
    let shards = options.shards.map(|shards| ("meta.shards", shards.to_string()));
    let settings = SETTINGS.into_iter().map(|(key, value)| (key, value.to_owned()));
    let variable = |key: &str| format!("OTELD_{}", key.replace('.', "_").to_ascii_uppercase());
    settings.chain([replicas]).chain(shards).map(|(key, value)| (variable(key), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_variables() {
        let options = Options {
            files: Vec::new(),
            project: "p".into(),
            keep: false,
            replication_factor: 3,
            shards: Some(16),
        };
        let variables: BTreeMap<String, String> = environment(&options).into_iter().collect();
        assert_eq!(variables["OTELD_STORAGE_MEMTABLE_BYTES_MAX"], "4MiB");
        assert_eq!(variables["OTELD_META_REPLICATION_FACTOR"], "3");
        assert_eq!(variables["OTELD_META_SHARDS"], "16");
        assert!(
            !environment(&Options { shards: None, ..options }).iter().any(|(key, _)| key.contains("SHARDS"))
        );
    }
}
