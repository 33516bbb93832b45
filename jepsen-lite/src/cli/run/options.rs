//! What `jepsen-lite run` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jepsen_lite::nemesis::fault::FaultKind;

const EXAMPLES: &str = "Examples:
  jepsen-lite run --time 60s --rate 1k                     every kind of fault, five storage nodes
  jepsen-lite run --nodes 3 --meta 0 --faults kill,power   three nodes with all roles but the front's
  jepsen-lite run --nodes 5 --rf 3 --time 10m --faults kill,power,pause,partition,disk,clock --rate 20k --seed 7
  jepsen-lite run --driver compose --time 5m --faults kill,pause,partition --rate 1k --seed 7
                                                           the containers of cluster.yml, in a project of their own

With `power` among the kinds, unsynced bytes are lost at every kill.
Ctrl-C ends the faults early; everything is read and judged all the same.
Exit status: 0 every promise held, 1 a promise was broken, 2 it could not be told.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunOptions {
    /// What runs the cluster
    #[arg(long, value_enum, default_value = "local")]
    pub(super) driver: Driver,
    /// How long to write, read and hurt, such as 90s, 10m or 2h
    #[arg(long, default_value = "60s", value_parser = time)]
    pub(super) time: Duration,
    /// Kinds of faults, each of which must be proven to have struck; all that can strike where none are named
    #[arg(long, value_delimiter = ',')]
    pub(super) faults: Vec<FaultKind>,
    /// Items a second of all writers together, such as 500 or 20k
    #[arg(long, default_value = "2k", value_parser = rate)]
    pub(super) rate: u64,
    /// Decides faults and items; processes and networks have chance of their own
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Replicas of each shard
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(super) rf: u32,
    /// Shards, a power of two [default: local: 32, compose: as its nodes are configured]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) shards: Option<u32>,
    /// Where history and logs go, and the data of processes; must be new or empty [default: jepsen-lite-SEED-PID]
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) local: LocalOptions,
    #[command(flatten)]
    pub(super) compose: ComposeOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Driver {
    /// Processes on this machine, with a proxy for every link between them
    Local,
    /// Containers of a Compose file, on a Docker engine on this machine
    Compose,
}

#[derive(Args)]
#[command(next_help_heading = "Options of --driver local")]
pub(super) struct LocalOptions {
    /// Storage nodes [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(super) nodes: Option<u32>,
    /// Nodes of the meta group alone; 0: the storage nodes are its members [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=7))]
    pub(super) meta: Option<u32>,
    /// Front nodes [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(super) fronts: Option<u32>,
    /// The binary to test [default: beside this one]
    #[arg(long)]
    pub(super) oteld: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Options of --driver compose; OTELD_IMAGE names the image of cluster.yml")]
pub(super) struct ComposeOptions {
    /// Compose file with services storage-N, front-N and perhaps meta-N; several add up as for docker compose
    /// [default: cluster.yml]
    #[arg(long, value_name = "FILE")]
    pub(super) compose_file: Vec<PathBuf>,
    /// Name of the project, which must not exist; what it has is removed at the end [default: oteld-jepsen]
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
    /// Leave containers and volumes at the end
    #[arg(long)]
    pub(super) keep: bool,
}

impl RunOptions {
    /// Whether all that was told is for the driver.
    ///
    /// # Errors
    /// What is for the other one.
    pub(super) fn check(&self) -> Result<(), String> {
        let LocalOptions { nodes, meta, fronts, oteld } = &self.local;
        let ComposeOptions { compose_file, project, keep } = &self.compose;
        let of_local = [
            ("--nodes", nodes.is_some(), "the Compose file says which nodes there are"),
            ("--meta", meta.is_some(), "the Compose file says which nodes there are"),
            ("--fronts", fronts.is_some(), "the Compose file says which nodes there are"),
            ("--oteld", oteld.is_some(), "it tests an image: name it in OTELD_IMAGE"),
        ];
        let of_compose = [
            ("--compose-file", !compose_file.is_empty(), "it starts processes"),
            ("--project", project.is_some(), "it starts processes"),
            ("--keep", *keep, "it keeps data and logs, and its processes end with it"),
        ];
        let (driver, foreign) = match self.driver {
            Driver::Local => ("local", of_compose.as_slice()),
            Driver::Compose => ("compose", of_local.as_slice()),
        };
        match foreign.iter().find(|(_, is_told, _)| *is_told) {
            Some((option, _, why)) => Err(format!("{option} is not for --driver {driver}: {why}")),
            None if self.shards.is_some_and(|shards| !shards.is_power_of_two()) => {
                Err(format!("--shards {} is not a power of two", self.shards.unwrap_or_default()))
            }
            None => Ok(()),
        }
    }
}

/// `90s`, `10m`, `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let number = |unit: char| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let seconds = number('s').or_else(|| Some(number('m')? * 60)).or_else(|| Some(number('h')? * 3_600));
    match seconds {
        Some(seconds @ 10..=864_000) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(format!("{seconds} s is not between 10 s and 10 days")),
        None => Err(format!("`{text}` is no time such as 90s, 10m or 2h")),
    }
}

/// `500`, `20k`.
fn rate(text: &str) -> Result<u64, String> {
    let items = match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u64>().ok().and_then(|thousands| thousands.checked_mul(1_000)),
        None => text.parse().ok(),
    };
    items.filter(|items| *items > 0).ok_or_else(|| format!("`{text}` is no rate such as 500 or 20k"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunOptions,
    }

    fn options(arguments: &[&str]) -> Result<RunOptions, clap::Error> {
        let all = std::iter::once("run").chain(arguments.iter().copied());
        Cli::try_parse_from(all).map(|cli| cli.run)
    }

    #[test]
    fn times_and_rates_are_read() {
        assert_eq!(time("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(rate("20k").unwrap(), 20_000);
        for wrong in ["5s", "10", "m", "-1m", "1000h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "k", "20m", "99999999999999999999k"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(options(&["--faults", "flood"]).is_err());
    }

    #[test]
    fn what_is_for_another_driver_is_refused() {
        for (arguments, reason) in [
            (&["--keep"][..], "--keep is not for --driver local"),
            (&["--compose-file", "x.yml"], "--compose-file is not for --driver local"),
            (&["--driver", "compose", "--nodes", "5"], "--nodes is not for --driver compose"),
            (&["--driver", "compose", "--oteld", "/bin/oteld"], "OTELD_IMAGE"),
            (&["--shards", "12"], "power of two"),
        ] {
            let error = options(arguments).unwrap().check().unwrap_err();
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
        for arguments in [
            &["--nodes", "3", "--meta", "0", "--oteld", "x"][..],
            &["--driver", "compose", "--compose-file", "a", "--compose-file", "b", "--keep", "--shards", "8"],
        ] {
            options(arguments).unwrap().check().unwrap();
        }
    }
}
