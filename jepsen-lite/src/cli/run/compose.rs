//! What `--driver compose` tests.

use std::path::PathBuf;

use jepsen_lite::compose::{Options, Plan, possible};
use jepsen_lite::nemesis::partition::Cuts;

use super::options::RunOptions;
use super::{Prepared, Target, kinds};

/// # Errors
/// What of the options cannot be, or what is missing and what to do about it.
pub(super) fn prepare(options: &RunOptions) -> Result<Prepared, String> {
    let given = &options.compose;
    let files = match given.compose_file.as_slice() {
        [] => vec![PathBuf::from("cluster.yml")],
        files => files.to_vec(),
    };
    let project = given.project.clone().unwrap_or_else(|| "oteld-jepsen".to_owned());
    let image = std::env::var("OTELD_IMAGE").map(|image| format!("OTELD_IMAGE={image} "));
    let named: String = files.iter().map(|file| format!(" --compose-file {}", file.display())).collect();
    let shards = options.shards.map(|shards| format!(" --shards {shards}"));
    let keep = if given.keep { " --keep" } else { "" };
    let command = format!(
        "{}jepsen-lite run --driver compose{named} --project {project}{}{keep}",
        image.unwrap_or_default(),
        shards.unwrap_or_default()
    );
    let plan = Plan::read(Options {
        files,
        project,
        keep: given.keep,
        replication_factor: options.rf,
        shards: options.shards,
    })?;
    Ok(Prepared {
        driver: "compose",
        tested: plan.tested.clone(),
        command,
        cuts: Cuts::Nodes,
        kinds: kinds(&options.faults, &plan.topology, options.rf, possible)?,
        topology: plan.topology.clone(),
        target: Target::Compose(plan),
    })
}
