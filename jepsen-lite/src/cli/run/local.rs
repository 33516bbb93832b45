//! What `--driver local` tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use jepsen_lite::local::cluster;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::partition::Cuts;
use jepsen_lite::nemesis::schedule::possible;
use jepsen_lite::nemesis::topology::Topology;

use super::options::RunOptions;
use super::{Prepared, Target, kinds};

/// # Errors
/// What of the options cannot be, or what is wrong with the binary.
pub(super) fn prepare(options: &RunOptions) -> Result<Prepared, String> {
    let local = &options.local;
    let (nodes, meta) = (local.nodes.unwrap_or(5), local.meta.unwrap_or(3));
    let (fronts, shards) = (local.fronts.unwrap_or(2), options.shards.unwrap_or(32));
    let topology = Topology::new(nodes, meta, fronts);
    let kinds = kinds(&options.faults, &topology, options.rf, possible)?;
    let oteld = oteld(local.oteld.as_deref())?;
    let given = local.oteld.as_ref().map(|path| format!(" --oteld {}", path.display()));
    let command = format!(
        "jepsen-lite run --driver local --nodes {nodes} --meta {meta} --fronts {fronts} --shards {shards}{}",
        given.unwrap_or_default()
    );
    Ok(Prepared {
        driver: "local",
        tested: version(&oteld)?,
        command,
        cuts: Cuts::Links,
        target: Target::Local { oteld, shards, power_loss: kinds.contains(&FaultKind::Power) },
        kinds,
        topology,
    })
}

/// What to start for a run whose files go to `dir`.
pub(super) fn cluster(
    options: &RunOptions,
    topology: Topology,
    dir: &Path,
    oteld: PathBuf,
    shards: u32,
    power_loss: bool,
) -> cluster::Options {
    cluster::Options {
        dir: dir.to_owned(),
        oteld,
        topology,
        replication_factor: options.rf,
        shards,
        seed: options.seed,
        power_loss,
        guarded: true,
    }
}

fn oteld(given: Option<&Path>) -> Result<PathBuf, String> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(|error| format!("where is this binary? {error}"))?;
            own.with_file_name("oteld")
        }
    };
    // Processes have another working directory than the one that a relative path is for.
    path.canonicalize().map_err(|error| {
        format!(
            "{}: {error}. Build it beside this one (`cargo build --release`), or give --oteld PATH",
            path.display()
        )
    })
}

/// Version of the binary, which has to know `--faults`.
fn version(oteld: &Path) -> Result<String, String> {
    let ask = |arguments: &[&str]| {
        let output = Command::new(oteld).args(arguments).output();
        let output = output.map_err(|error| format!("cannot start {}: {error}", oteld.display()))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if !ask(&["run", "--help"])?.contains("--faults") {
        return Err(format!("{} has no `run --faults`: it cannot be hurt", oteld.display()));
    }
    Ok(format!("{} ({})", ask(&["--version"])?, oteld.display()))
}
