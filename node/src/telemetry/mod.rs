//! The node's own telemetry: logs to standard error, and metrics, logs and traces over OTLP, by default into the
//! cluster itself.

pub mod readings;
pub mod requests;
mod delivery;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use self::delivery::Watched;
use self::readings::{Kind, Reading};
use crate::config::TelemetryConfig;
use crate::server::Node;

/// Not logged unless `OTELD_LOG` asks for it: openraft calls it an error whenever a member that starts or is down
/// does not answer a vote or a heartbeat, several times a second. That a member stopped, or that a node does not
/// answer, is said by oteld itself.
const QUIET: &str = "openraft=off";

/// Keeps the exporters alive; stop it last.
pub struct Telemetry {
    exporters: Option<Exporters>,
}

struct Exporters {
    meters: SdkMeterProvider,
    loggers: SdkLoggerProvider,
    tracers: SdkTracerProvider,
}

/// Starts logging to standard error at `OTELD_LOG` (else `default_level`), and the exporters where an endpoint is
/// configured. Must run inside the runtime.
///
/// # Errors
/// What is wrong with `OTELD_LOG` or the endpoint, in words.
pub fn start(config: &TelemetryConfig, service: &str, default_level: &str) -> Result<Telemetry, String> {
    let wanted = std::env::var("OTELD_LOG").unwrap_or_else(|_| format!("{default_level},{QUIET}"));
    let filter = EnvFilter::try_new(&wanted).map_err(|error| format!("OTELD_LOG={wanted}: {error}"))?;
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    if config.endpoint.is_empty() {
        Registry::default().with(to_stderr).try_init().map_err(|error| error.to_string())?;
        return Ok(Telemetry { exporters: None });
    }
    let exporters = Exporters::start(config, service)
        .map_err(|error| format!("telemetry.endpoint {}: {error}", config.endpoint))?;
    // Only oteld's own events: what the transport under the exporters logs would feed itself.
    let own = || Targets::new().with_target("oteld", tracing::Level::INFO);
    let logs = OpenTelemetryTracingBridge::new(&exporters.loggers).with_filter(own());
    let spans = tracing_opentelemetry::layer()
        // Where the code is and which thread ran it tells an operator nothing.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracer(exporters.tracers.tracer("oteld"))
        .with_filter(own());
    let registry = Registry::default().with(to_stderr).with(logs).with(spans);
    registry.try_init().map_err(|error| error.to_string())?;
    Ok(Telemetry { exporters: Some(exporters) })
}

impl Telemetry {
    /// Exports the node's readings from now on.
    pub fn observe(&self, node: &Node) {
        let Some(exporters) = &self.exporters else { return };
        let meter = exporters.meters.meter("oteld");
        let node_name: Arc<str> = node.name().into();
        let source = node.readings();
        let mut names: Vec<Reading> = source.read();
        names.sort_by(|a, b| a.name.cmp(b.name));
        names.dedup_by(|a, b| a.name == b.name);
        for reading in names {
            register(&meter, &reading, node_name.clone(), source.clone());
        }
    }

    /// Sends what is left and ends the exporters.
    pub fn stop(self) {
        if let Some(Exporters { meters, loggers, tracers }) = self.exporters {
            // The cluster may be gone already: what cannot be sent is lost, as for any telemetry of a last moment.
            let wait = Duration::from_secs(1);
            let _ = tracers.shutdown_with_timeout(wait);
            let _ = loggers.shutdown_with_timeout(wait);
            let _ = meters.shutdown_with_timeout(wait);
        }
    }
}

/// One instrument whose callback picks its values out of the node's readings.
fn register(meter: &Meter, reading: &Reading, node: Arc<str>, source: readings::Source) {
    let name = reading.name;
    // All callbacks of one collection read the same values closely enough; each reads its own name only.
    let source = Arc::new(Mutex::new(source));
    let observe = move |observe: &dyn Fn(f64, &[KeyValue])| {
        let readings = source.lock().unwrap_or_else(PoisonError::into_inner).read();
        for reading in readings.iter().filter(|reading| reading.name == name) {
            let mut attributes = vec![KeyValue::new("oteld.node", node.to_string())];
            attributes.extend(reading.labels.iter().map(|(k, v)| KeyValue::new(*k, v.clone())));
            observe(reading.value, &attributes);
        }
    };
    match reading.kind {
        Kind::Counter => {
            meter
                .f64_observable_counter(name)
                .with_description(reading.help)
                .with_unit(reading.unit)
                .with_callback(move |observer| observe(&|value, labels| observer.observe(value, labels)))
                .build();
        }
        Kind::Gauge => {
            meter
                .f64_observable_gauge(name)
                .with_description(reading.help)
                .with_unit(reading.unit)
                .with_callback(move |observer| observe(&|value, labels| observer.observe(value, labels)))
                .build();
        }
    }
}

impl Exporters {
    fn start(
        config: &TelemetryConfig,
        service: &str,
    ) -> Result<Exporters, opentelemetry_otlp::ExporterBuildError> {
        let endpoint = match config.endpoint.contains("://") {
            true => config.endpoint.clone(),
            false => format!("http://{}", config.endpoint),
        };
        let resource = Resource::builder()
            .with_service_name("oteld")
            .with_attribute(KeyValue::new("service.instance.id", service.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let metrics = MetricExporter::builder().with_tonic().with_endpoint(&endpoint).build()?;
        let logs = LogExporter::builder().with_tonic().with_endpoint(&endpoint).build()?;
        let spans = SpanExporter::builder().with_tonic().with_endpoint(&endpoint).build()?;
        let interval = Duration::from_millis(config.interval_ms.max(100));
        let reader =
            PeriodicReader::builder(Watched::new(metrics, &endpoint)).with_interval(interval).build();
        Ok(Exporters {
            meters: SdkMeterProvider::builder().with_reader(reader).with_resource(resource.clone()).build(),
            loggers: SdkLoggerProvider::builder()
                .with_batch_exporter(logs)
                .with_resource(resource.clone())
                .build(),
            tracers: SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                // Queries only, one span each: what the exporters send in makes no spans of its own.
                .with_sampler(Sampler::AlwaysOn)
                .with_resource(resource)
                .build(),
        })
    }
}
