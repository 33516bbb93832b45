//! What `docker inspect` says of a container, as far as faults and their proofs need it.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) state: State,
    config: Config,
    network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    /// `created`, `running`, `paused`, `exited`, ...
    pub(super) status: String,
    /// A paused container is running too.
    running: bool,
    pub(super) paused: bool,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    /// On the engine's machine; 0 where it does not run.
    pub(super) pid: u32,
    exit_code: i64,
    #[serde(default)]
    error: String,
    /// RFC 3339; another start has another.
    pub(super) started_at: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    aliases: Option<Vec<String>>,
    #[serde(rename = "IPAMConfig")]
    ipam: Option<Ipam>,
}

#[derive(Clone, Debug, Deserialize)]
struct Ipam {
    #[serde(rename = "IPv4Address")]
    ipv4: Option<String>,
}

/// What has to be said for a container to be in a network as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) network: String,
    /// Names by which others find it.
    aliases: Vec<String>,
    /// Where the Compose file fixes it.
    ip: Option<String>,
}

impl Attachment {
    /// Arguments of `docker` that bring a container back.
    pub(super) fn connect(&self, container: &str) -> Vec<String> {
        let mut arguments = vec!["network".to_owned(), "connect".to_owned()];
        for alias in &self.aliases {
            arguments.extend(["--alias".to_owned(), alias.clone()]);
        }
        if let Some(ip) = &self.ip {
            arguments.extend(["--ip".to_owned(), ip.clone()]);
        }
        arguments.extend([self.network.clone(), container.to_owned()]);
        arguments
    }
}

impl Container {
    /// The JSON that `docker inspect` prints, in its order.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(json: &str) -> Result<Vec<Container>, String> {
        serde_json::from_str(json)
            .map_err(|error| format!("docker inspect prints what is not known: {error}"))
    }

    /// The service whose container it is.
    pub(super) fn service(&self) -> Option<&str> {
        self.config.labels.get("com.docker.compose.service").map(String::as_str)
    }

    /// Whether its processes run now.
    pub(super) fn runs(&self) -> bool {
        self.state.running && !self.state.paused
    }

    /// Whether there is no process, not even a stopped one.
    pub(super) fn is_gone(&self) -> bool {
        !self.state.running
    }

    /// Whether it ended by SIGKILL, and not by the kernel's for memory.
    pub(super) fn was_killed(&self) -> bool {
        self.state.status == "exited" && self.state.exit_code == 137 && !self.state.oom_killed
    }

    /// Whether it is in no network at all.
    pub(super) fn is_isolated(&self) -> bool {
        self.network_settings.networks.is_empty()
    }

    pub(super) fn is_in(&self, network: &str) -> bool {
        self.network_settings.networks.contains_key(network)
    }

    /// How it ended, in words.
    pub(super) fn how_it_ended(&self) -> String {
        let State { status, exit_code, oom_killed, error, .. } = &self.state;
        let memory = if *oom_killed { ", out of memory" } else { "" };
        let error = if error.is_empty() { String::new() } else { format!(", {error}") };
        format!("container {status} with exit code {exit_code}{memory}{error}")
    }

    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let networks = self.network_settings.networks.iter();
        let attachment = |(network, endpoint): (&String, &Endpoint)| {
            let mut aliases = endpoint.aliases.clone().unwrap_or_default();
            // Docker gives it this one by itself.
            aliases.retain(|alias| !self.id.starts_with(alias.as_str()));
            let ip = endpoint.ipam.as_ref().and_then(|ipam| ipam.ipv4.clone()).filter(|ip| !ip.is_empty());
            Attachment { network: network.clone(), aliases, ip }
        };
        networks.map(attachment).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str, networks: &str) -> Container {
        let json = format!(
            r#"[{{"Id":"9dd802b5c78c0123","Created":"x","State":{state},
                 "Config":{{"Image":"oteld:local","Labels":{{"com.docker.compose.service":"storage-1"}}}},
                 "NetworkSettings":{{"Bridge":"","Networks":{networks}}}}}]"#
        );
        Container::parse(&json).unwrap().remove(0)
    }

    fn state(status: &str, running: bool, paused: bool, oom: bool, exit: i64) -> String {
        format!(
            r#"{{"Status":"{status}","Running":{running},"Paused":{paused},"OOMKilled":{oom},"Dead":false,"Pid":7,
                "ExitCode":{exit},"Error":"","StartedAt":"2026-11-28T06:24:50.508484902Z","FinishedAt":"x"}}"#
        )
    }

    #[test]
    fn the_state_of_a_container_is_read() {
        let running = one(&state("running", true, false, false, 0), "{}");
        assert!(running.runs() && !running.is_gone() && !running.was_killed());
        assert_eq!(running.service(), Some("storage-1"));
        let paused = one(&state("paused", true, true, false, 0), "{}");
        assert!(!paused.runs() && !paused.is_gone() && paused.state.paused);
        let killed = one(&state("exited", false, false, false, 137), "{}");
        assert!(killed.is_gone() && killed.was_killed());
        let out_of_memory = one(&state("exited", false, false, true, 137), "{}");
        assert!(!out_of_memory.was_killed());
        assert_eq!(out_of_memory.how_it_ended(), "container exited with exit code 137, out of memory");
        assert!(Container::parse("{}").is_err());
    }

    #[test]
    fn a_container_goes_back_into_its_network_with_the_names_that_it_had() {
        let networks = r#"{"p_default":{"IPAMConfig":null,"Aliases":["p-storage-1-1","storage-1","9dd802b5c78c"]},
                           "p_other":{"IPAMConfig":{"IPv4Address":"10.0.0.7"},"Aliases":null}}"#;
        let container = one(&state("running", true, false, false, 0), networks);
        assert!(!container.is_isolated() && container.is_in("p_other"));
        let connect: Vec<String> =
            container.attachments().iter().map(|attachment| attachment.connect("it").join(" ")).collect();
        assert_eq!(
            connect,
            [
                "network connect --alias p-storage-1-1 --alias storage-1 p_default it",
                "network connect --ip 10.0.0.7 p_other it"
            ]
        );
        assert!(one(&state("running", true, false, false, 0), "{}").is_isolated());
    }
}
