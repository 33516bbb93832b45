//! The `oteld` binary: one node, or a whole cluster for development.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use oteld::config;
use oteld::dev::{self, DevOptions};
use oteld::faults::Faults;
use oteld::server::Node;
use oteld::telemetry;
use oteld_env::Env;
use oteld_env::mutant::{self, Mutant};

const EXAMPLES: &str = "Examples:
  oteld dev                                  a whole cluster in this process, data in ./oteld-data
  oteld dev --nodes 5 --data-dir /tmp/five   five storage nodes
  oteld run --config /etc/oteld/node-1.yaml  one node of a cluster
  OTELD_LISTEN_QUERY=0.0.0.0:8081 oteld run --config node-1.yaml --set node.zone=a

OTELD_LOG sets what is logged, such as `info` or `oteld=debug,openraft=warn`.";

/// Keeps OpenTelemetry metrics, logs and traces on several machines, and answers PromQL, LogQL, Jaeger and Tempo queries.
#[derive(Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole cluster in one process: storage nodes with the meta group, and a front
    Dev(DevOptions),
    /// Run one node
    Run(RunOptions),
    /// Ask a node whether it is ready; for health checks of containers
    Health(HealthOptions),
}

#[derive(Args)]
struct RunOptions {
    /// YAML file; without one, the defaults, OTELD_* variables and --set are all there is
    #[arg(long)]
    config: Option<PathBuf>,
    /// Set one key, over file and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
    /// For fault tests only: lets a test hurt this process as FILE says; never in production
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

#[derive(Args)]
struct HealthOptions {
    /// Address of the node's query port
    #[arg(long, default_value = "127.0.0.1:8081", env = "OTELD_HEALTH_ENDPOINT")]
    endpoint: String,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(format!("`{text}` is not KEY=VALUE, as in node.zone=a")),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "mutants")]
    if let Err(error) = select_mutant() {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Dev(options) => dev::run(Env::real(), options).await.map_err(|error| error.to_string()),
            Command::Run(options) => run(options).await,
            Command::Health(options) => oteld::server::health::ask(&Env::real(), &options.endpoint).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Plants the bug that the environment names, if it does.
#[cfg(feature = "mutants")]
fn select_mutant() -> Result<(), String> {
    match std::env::var("OTELD_MUTANT") {
        Ok(name) => mutant::select(&name).map_err(|error| format!("OTELD_MUTANT: {error}")),
        Err(_) => Ok(()),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("oteld: {error}");
    ExitCode::FAILURE
}

async fn run(options: RunOptions) -> Result<(), String> {
    let faults = options.faults.as_deref().map(Faults::from_file).transpose()?;
    let env = faults.as_ref().map_or_else(Env::real, Faults::env);
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let config = config::load(&*env.disk, options.config.as_deref(), environment, options.set)
        .map_err(|error| error.to_string())?;
    let telemetry = telemetry::start(&config.telemetry, &config.node.name, "info")?;
    if let Some(Mutant { name, what, .. }) = mutant::selected() {
        tracing::error!(
            mutant = name,
            what,
            "THIS NODE HAS A PLANTED BUG AND BREAKS ITS PROMISES: for fault tests only"
        );
    }
    if let Some(faults) = &faults {
        faults.listen().await?;
    }
    loop {
        let node = Node::start(env.clone(), config.clone()).await.map_err(|error| error.to_string())?;
        telemetry.observe(&node);
        node.announce();
        // One that could not be replaced stays as it is, for the node's other roles.
        let stays_lost = node.is_lost();
        let is_lost = tokio::select! {
            () = dev::until_signal() => false,
            () = node.lost(), if !stays_lost => true,
        };
        if is_lost {
            tracing::error!("starting again: the store lost data, and the node goes on with an empty one");
        } else {
            tracing::info!("stopping: finishing what is under way and closing the store");
        }
        node.stop().await;
        if !is_lost {
            telemetry.stop();
            return Ok(());
        }
    }
}
