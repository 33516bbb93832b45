//! The rules of the house that no compiler checks: which crate may know which, how files look, and that the
//! documents speak of what is there.
#![allow(clippy::disallowed_methods, reason = "reads the source tree, not telemetry")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

/// Which crates of the workspace each may depend on. Dependencies point one way.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("env", &[]),
    ("proto", &[]),
    ("store", &["env"]),
    ("query", &["store", "env"]),
    ("cluster", &["proto", "env"]),
    ("client", &["proto"]),
    ("node", &["env", "store", "query", "cluster", "proto", "client"]),
    ("jepsen-lite", &["client", "node", "env", "cluster", "store", "query"]),
    ("benches", &["client", "env"]),
];

/// Third-party crates that only some crates may depend on, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("openraft", &["cluster"], "consensus is for metadata"),
    ("sled", &["cluster"], "sled keeps the Raft log and nothing else"),
    ("tonic", &["cluster", "proto", "node", "benches", "jepsen-lite"], "store and query know no network"),
    ("axum", &["node", "client"], "store and query know no network; client only serves itself in tests"),
    ("reqwest", &["client", "node"], "store and query know no network"),
    ("opentelemetry-proto", &["node", "benches", "jepsen-lite"], "OTLP types end at decode"),
    ("promql-parser", &["query"], "one crate knows query languages"),
];

/// Words that, in code, may stand in one folder only.
const WORDS_ONLY_IN: &[(&str, &str)] = &[("openraft::", "cluster/src/raft"), ("sled::", "cluster/src/raft")];

const MODULE_NAMES_REFUSED: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "manager"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node/ stands in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let line = manifest.lines().find(|line| line.starts_with("members")).expect("a workspace has members");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Names in the dependency tables (dev and build too) of a member.
fn dependencies(member: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut in_dependencies = false;
    for line in read(&root().join(member).join("Cargo.toml")).lines() {
        if let Some(table) = line.strip_prefix('[') {
            in_dependencies = table.trim_end_matches(']').ends_with("dependencies");
            continue;
        }
        let name: String =
            line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
        if in_dependencies && !name.is_empty() {
            names.insert(name);
        }
    }
    names
}

/// The member that a workspace package lives in.
fn member_of(package: &str) -> Option<&str> {
    match package {
        "oteld" => Some("node"),
        "jepsen-lite" => Some("jepsen-lite"),
        _ => package.strip_prefix("oteld-"),
    }
}

/// Every Rust file of the workspace, relative to the root, sorted.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = members().iter().map(|member| root().join(member)).collect();
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("a folder of the workspace").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    files.sort();
    assert!(files.len() > 50, "the walk found {} files only", files.len());
    files
}

fn fail_with(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn dependencies_between_crates_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    let mut findings = Vec::new();
    for member in members() {
        let Some(allowed) = allowed.get(member.as_str()) else {
            findings.push(format!("{member} is not in MAY_DEPEND_ON"));
            continue;
        };
        for dependency in dependencies(&member) {
            if let Some(other) = member_of(&dependency)
                && !allowed.contains(&other)
            {
                findings.push(format!("{member} depends on {dependency}"));
            }
        }
    }
    fail_with("a crate depends on one that it must not know", &findings);
}

#[test]
fn network_consensus_and_otlp_stay_in_their_crates() {
    let mut findings = Vec::new();
    for member in members() {
        let dependencies = dependencies(&member);
        for (name, allowed, why) in ONLY_IN {
            if dependencies.contains(*name) && !allowed.contains(&member.as_str()) {
                findings.push(format!("{member} depends on {name}: {why}"));
            }
        }
    }
    fail_with("a dependency is in a crate that must not know it", &findings);
}

#[test]
fn openraft_and_sled_are_used_in_the_raft_folder_only() {
    let mut findings = Vec::new();
    for file in rust_files() {
        for (word, folder) in WORDS_ONLY_IN {
            if file.starts_with(folder) || file.ends_with("tidy.rs") {
                continue;
            }
            for (number, line) in read(&root().join(&file)).lines().enumerate() {
                if line.contains(word) && !line.trim_start().starts_with("//") {
                    findings.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    fail_with("used outside of its folder", &findings);
}

#[test]
fn files_are_short() {
    let lengths = rust_files().into_iter().map(|file| (read(&root().join(&file)).lines().count(), file));
    let findings: Vec<String> = lengths
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, file)| format!("{}: {lines} lines", file.display()))
        .collect();
    fail_with("split by decision what is over 600 lines", &findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let findings: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !read(&root().join(file)).starts_with("//! "))
        .map(|file| file.display().to_string())
        .collect();
    fail_with("a file starts with a //! sentence", &findings);
}

#[test]
fn no_module_is_a_drawer() {
    let findings: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| {
            let names = file.iter().map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned());
            names.into_iter().any(|name| MODULE_NAMES_REFUSED.contains(&name.as_str()))
        })
        .map(|file| file.display().to_string())
        .collect();
    fail_with("name a module after what it decides", &findings);
}

/// The mutants that a file asks for.
fn mutants_planted_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("mutant(\"").skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_mutant_of_the_table_is_planted_and_no_other() {
    let named: BTreeSet<String> =
        oteld_env::mutant::ALL.iter().map(|mutant| mutant.name.to_owned()).collect();
    let files = rust_files().into_iter().filter(|file| !file.ends_with("tidy.rs"));
    let texts: Vec<String> = files.map(|file| read(&root().join(file))).collect();
    let planted: BTreeSet<String> =
        texts.iter().flat_map(|text| mutants_planted_in(text)).map(str::to_owned).collect();
    let findings: Vec<String> = named.symmetric_difference(&planted).cloned().collect();
    fail_with("in the table and nowhere planted, or the other way round", &findings);
}

/// Paths in backticks: `node/src/write/`, `cluster.yml`, `docker/smoke.sh`.
fn paths_named_in(document: &str) -> Vec<String> {
    const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".yml", ".yaml", ".sh", ".proto", "/"];
    let mut inside_fence = false;
    let mut paths = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside_fence = !inside_fence;
        } else if !inside_fence {
            let quoted = line.split('`').skip(1).step_by(2);
            let is_path = |text: &&str| {
                ENDINGS.iter().any(|ending| text.ends_with(ending))
                    && !text.starts_with(['/', '.', '*'])
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c))
            };
            paths.extend(quoted.filter(is_path).map(str::to_owned));
        }
    }
    paths
}

#[test]
fn documents_name_files_that_exist() {
    let mut findings = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "STYLE.md", "README.md"] {
        let paths = paths_named_in(&read(&root().join(document)));
        assert!(
            document != "ARCHITECTURE.md" || paths.len() > 20,
            "{document} names {} paths only",
            paths.len()
        );
        for path in paths.iter().filter(|path| !root().join(path).exists()) {
            findings.push(format!("{document}: {path}"));
        }
    }
    fail_with("a document names what is not there", &findings);
}

#[test]
fn decisions_are_numbered_without_gaps_and_have_the_four_parts() {
    let mut names: Vec<String> = fs::read_dir(root().join("docs/adr"))
        .expect("docs/adr")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut findings = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if !name.starts_with(&format!("{:04}-", index + 1)) {
            findings.push(format!("{name}: expected number {:04}", index + 1));
        }
        let text = read(&root().join("docs/adr").join(name));
        for part in ["## Context", "## Decision", "## Rejected", "## Consequences"] {
            if !text.contains(part) {
                findings.push(format!("{name}: no {part:?}"));
            }
        }
    }
    fail_with("docs/adr", &findings);
}
