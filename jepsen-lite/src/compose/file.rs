//! What is run of a Compose file: its nodes and no other service, on ports of this run alone, and nothing that outlives
//! it. Pure: from the document that `docker compose config` prints to one of the same form.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::driver::Addresses;
use crate::nemesis::topology::Topology;

/// Ports within the containers, as `docker/config` has them.
const NODE_PORT: u16 = 7070;
const QUERY_PORT: u16 = 8081;
const OTLP_HTTP_PORT: u16 = 4318;
const OTLP_GRPC_PORT: u16 = 4317;

#[derive(Debug)]
pub(super) struct Nodes {
    /// A Compose file.
    pub(super) document: Value,
    pub(super) topology: Topology,
    pub(super) images: BTreeSet<String>,
    /// Where this machine reaches the nodes.
    pub(super) addresses: BTreeMap<String, Addresses>,
}

/// Role and number of a service that is a node: `storage-N`, `meta-N`, `front-N`.
fn place(name: &str) -> Option<(&str, u32)> {
    let (role, number) = name.rsplit_once('-')?;
    ["storage", "meta", "front"].contains(&role).then_some(())?;
    Some((role, number.parse().ok()?))
}

/// The nodes of `config`, each with `environment` beside its own. `port` gives addresses of this machine that are free.
///
/// # Errors
/// What of the file cannot be run without harm to others, or is missing.
pub(super) fn nodes(
    mut config: Value,
    project: &str,
    environment: &[(String, String)],
    mut port: impl FnMut() -> io::Result<SocketAddr>,
) -> Result<Nodes, String> {
    let services = config.get_mut("services").and_then(Value::as_object_mut);
    let mut services = services.map(std::mem::take).unwrap_or_default();
    services.retain(|name, _| place(name).is_some());
    let topology = topology(&services);
    if topology.storage.is_empty() || topology.fronts.is_empty() {
        return Err("the Compose file has no services storage-1... and front-1...: these are the nodes that the compose \
                    driver takes, and meta-1... where the meta group is apart"
            .into());
    }
    let (mut images, mut addresses, mut volumes) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for (name, service) in &mut services {
        let service = service.as_object_mut().ok_or_else(|| format!("service {name} is no object"))?;
        let image = service.get("image").and_then(Value::as_str);
        images.insert(image.ok_or_else(|| format!("service {name} has no image"))?.to_owned());
        volumes.extend(volumes_of(name, service)?);
        if service.contains_key("container_name") {
            return Err(format!(
                "service {name} has a container_name, and could be somebody else's container"
            ));
        }
        // Other services are left out, and a node that ended shall stay ended until that was seen.
        for key in ["build", "depends_on", "profiles", "scale", "deploy"] {
            service.remove(key);
        }
        service.insert("restart".into(), json!("no"));
        let own = service.entry("environment").or_insert(Value::Null);
        if own.is_null() {
            *own = json!({});
        }
        let own = own.as_object_mut().ok_or_else(|| format!("the environment of {name} is no object"))?;
        own.extend(environment.iter().map(|(name, value)| (name.clone(), json!(value))));
        let is_front = topology.fronts.contains(name);
        let (ports, reached) =
            published(is_front, &mut port).map_err(|error| format!("no free port: {error}"))?;
        service.insert("ports".into(), ports);
        addresses.insert(name.clone(), reached);
    }
    let whole = config.as_object_mut().ok_or("the Compose file is no object")?;
    if let Some(all) = whole.get_mut("volumes").and_then(Value::as_object_mut) {
        all.retain(|name, _| volumes.contains(name));
    }
    whole.insert("name".into(), json!(project));
    whole.insert("services".into(), Value::Object(services));
    for kind in ["volumes", "networks"] {
        check_is_ours(whole, kind, project)?;
    }
    Ok(Nodes { document: config, topology, images, addresses })
}

fn topology(services: &Map<String, Value>) -> Topology {
    let of = |role: &str| {
        let places = services.keys().filter_map(|name| Some((place(name)?, name.clone())));
        let mut places: Vec<_> = places.filter(|((of, _), _)| *of == role).collect();
        places.sort_by_key(|((_, number), _)| *number);
        places.into_iter().map(|(_, name)| name).collect::<Vec<String>>()
    };
    let (storage, meta) = (of("storage"), of("meta"));
    let meta = if meta.is_empty() { storage.clone() } else { meta };
    Topology { storage, meta, fronts: of("front") }
}

/// The named volumes of a service.
///
/// # Errors
/// When it writes to a directory of this machine: what it finds there is not empty, and what it leaves is not removed.
fn volumes_of(name: &str, service: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mounts = service.get("volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut volumes = Vec::new();
    for mount in mounts {
        let text = |key: &str| mount.get(key).and_then(Value::as_str);
        let is_read_only = mount.get("read_only").and_then(Value::as_bool).unwrap_or(false);
        match (text("type"), text("source")) {
            (Some("volume"), Some(source)) => volumes.push(source.to_owned()),
            (Some("bind"), Some(source)) if !is_read_only => {
                return Err(format!(
                    "service {name} writes to {source} of this machine, which would neither be empty nor be removed; \
                     the compose driver needs volumes"
                ));
            }
            _ => {}
        }
    }
    Ok(volumes)
}

/// Ports that are published, and where they are reached then. Fixed, so that a container that starts again, or is in
/// its network again, is where it was.
fn published(
    is_front: bool,
    port: &mut impl FnMut() -> io::Result<SocketAddr>,
) -> io::Result<(Value, Addresses)> {
    let mut ports = Vec::new();
    let mut publish = |target: u16| -> io::Result<String> {
        let address = port()?;
        ports.push(json!({
            "mode": "ingress", "protocol": "tcp", "target": target,
            "host_ip": address.ip().to_string(), "published": address.port().to_string(),
        }));
        Ok(address.to_string())
    };
    let mut addresses =
        Addresses { node: publish(NODE_PORT)?, query: publish(QUERY_PORT)?, ..Addresses::default() };
    if is_front {
        addresses.otlp_http = publish(OTLP_HTTP_PORT)?;
        addresses.otlp_grpc = publish(OTLP_GRPC_PORT)?;
    }
    Ok((Value::Array(ports), addresses))
}

/// Volumes and networks go with the project. Those with a name of their own could be another's.
fn check_is_ours(whole: &Map<String, Value>, kind: &str, project: &str) -> Result<(), String> {
    let Some(all) = whole.get(kind).and_then(Value::as_object) else { return Ok(()) };
    for (key, one) in all {
        let is_external = one.get("external").and_then(Value::as_bool).unwrap_or(false);
        // An external network is not removed.
        if is_external && kind == "networks" {
            continue;
        }
        let name = one.get("name").and_then(Value::as_str).unwrap_or_default();
        if is_external || !name.starts_with(&format!("{project}_")) {
            return Err(format!(
                "{kind}: `{key}` is called `{name}` and does not belong to project {project} alone; the compose driver \
                 removes what its project has, and touches nothing of others"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        let node = |name: &str| {
            json!({
                "image": "oteld:local",
                "build": {"context": "/src"},
                "restart": "unless-stopped",
                "depends_on": {"storage-1": {"condition": "service_started"}, "object-store": {}},
                "environment": {"OTELD_NODE_NAME": name},
                "networks": {"default": null},
                "ports": [{"target": 8081, "published": "8081"}],
                "volumes": [
                    {"type": "bind", "source": "/src/node.yaml", "target": "/etc/oteld/node.yaml", "read_only": true},
                    {"type": "volume", "source": name, "target": "/var/lib/oteld"},
                ],
            })
        };
        json!({
            "name": "oteld",
            "networks": {"default": {"name": "p_default", "ipam": {}}},
            "services": {
                "front-1": node("front-1"), "storage-10": node("storage-10"), "storage-2": node("storage-2"),
                "storage-1": node("storage-1"), "grafana": {"image": "grafana"}, "object-store": {"image": "minio"},
            },
            "volumes": {
                "front-1": {"name": "p_front-1"}, "storage-1": {"name": "p_storage-1"},
                "storage-2": {"name": "p_storage-2"}, "storage-10": {"name": "p_storage-10"},
                "grafana": {"name": "of somebody else"},
            },
        })
    }

    fn of(config: Value) -> Result<Nodes, String> {
        let mut last = 40_000;
        nodes(config, "p", &[("OTELD_META_SHARDS".into(), "8".into())], || {
            last += 1;
            Ok(SocketAddr::from(([127, 64, 0, 1], last)))
        })
    }

    #[test]
    fn nodes_are_taken_by_their_names_and_other_services_left_out() {
        let nodes = of(config()).unwrap();
        let storage = ["storage-1", "storage-2", "storage-10"].map(str::to_owned).to_vec();
        let expected = Topology { storage: storage.clone(), meta: storage, fronts: vec!["front-1".into()] };
        assert_eq!(nodes.topology, expected);
        assert_eq!(nodes.images.into_iter().collect::<Vec<_>>(), ["oteld:local"]);
        let services = nodes.document["services"].as_object().unwrap();
        assert_eq!(services.len(), 4);
        let one = &services["storage-2"];
        assert_eq!(one["restart"], "no");
        assert!(one.get("build").is_none() && one.get("depends_on").is_none());
        assert_eq!(one["environment"], json!({"OTELD_NODE_NAME": "storage-2", "OTELD_META_SHARDS": "8"}));
        assert_eq!(nodes.document["volumes"].as_object().unwrap().len(), 4);
        assert_eq!(nodes.document["name"], "p");
    }

    #[test]
    fn ports_of_the_file_are_replaced_by_ones_of_the_run() {
        let nodes = of(config()).unwrap();
        let ports = |name: &str| nodes.document["services"][name]["ports"].as_array().unwrap().clone();
        assert_eq!((ports("front-1").len(), ports("storage-1").len()), (4, 2));
        let front = &nodes.addresses["front-1"];
        let query = ports("front-1").into_iter().find(|port| port["target"] == 8081).unwrap();
        assert_eq!(front.query, format!("127.64.0.1:{}", query["published"].as_str().unwrap()));
        assert_eq!(nodes.addresses["storage-1"].otlp_http, "");
        let all: BTreeSet<&String> = nodes.addresses.values().map(|addresses| &addresses.query).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_meta_group_of_its_own_is_seen() {
        let mut config = config();
        config["services"]["meta-1"] = json!({"image": "oteld:other", "networks": {"default": null}});
        let nodes = of(config).unwrap();
        assert_eq!(nodes.topology.meta, ["meta-1"]);
        assert!(nodes.topology.has_dedicated_meta());
        assert_eq!(nodes.images.len(), 2);
    }

    #[test]
    fn what_could_be_of_others_is_refused() {
        type Change = fn(&mut Value);
        let table: [(Change, &str); 6] = [
            (|config| config["volumes"]["storage-1"]["name"] = json!("data"), "`storage-1` is called `data`"),
            (|config| config["volumes"]["storage-1"]["external"] = json!(true), "does not belong"),
            (|config| config["networks"]["default"]["name"] = json!("oteld_default"), "oteld_default"),
            (|config| config["services"]["front-1"]["container_name"] = json!("front"), "container_name"),
            (
                |config| config["services"]["front-1"]["volumes"][0]["read_only"] = json!(false),
                "front-1 writes to /src/node.yaml",
            ),
            (|config| drop(config["services"].as_object_mut().unwrap().remove("front-1")), "no services"),
        ];
        for (change, reason) in table {
            let mut config = config();
            change(&mut config);
            let error = of(config).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let mut config = config();
        config["networks"]["default"] = json!({"name": "shared", "external": true});
        of(config).unwrap();
    }
}
