//! Where spans go: to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Spans wait in a queue of [`QUEUE`] that a thread of its own empties; what finds it full is dropped. So a collector that
//! gives no answer costs traces, never a request. It is reached directly, never through a proxy: variables such as
//! `HTTPS_PROXY` are not read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use secrecy::ExposeSecret;
use tracing::{info, warn};
use url::Url;

use super::StartError;
use crate::config::{self, header_list};
use crate::transport::{TransportError, install_tls_provider};

/// Spans that wait at most.
const QUEUE: usize = 2048;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long a span waits for others.
const PAUSE: Duration = Duration::from_secs(2);
/// Deadline for sending one batch, repetitions included.
const SEND: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what was not sent yet.
const FLUSH: Duration = Duration::from_secs(2);

/// What records spans; dropping it sends what is left, for two seconds at most.
#[derive(Debug)]
pub(super) struct Recording(SdkTracerProvider);

impl Drop for Recording {
    fn drop(&mut self) {
        // An error says that the collector did not answer in time, or failed, which is told where it is sent.
        let _ = self.0.shutdown_with_timeout(FLUSH);
    }
}

/// Has spans recorded from now on. `None`: there is no collector. Outside of any runtime, since the client has its own.
pub(super) fn start(settings: &config::Otlp) -> Result<Option<Recording>, StartError> {
    let Some(endpoint) = &settings.endpoint else { return Ok(None) };
    install_tls_provider();
    let http = reqwest::blocking::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND)
        .build()
        .map_err(TransportError::Client)?;
    let headers = settings.headers.as_ref().and_then(|headers| header_list(headers.expose_secret()));
    let headers = headers.unwrap_or_default();
    let headers: HashMap<_, _> =
        headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect();
    // Everything is given that the library would otherwise look for in the environment. The variables of the headers are
    // ours as well, and go before other sources here as there.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(http)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_of(endpoint))
        .with_timeout(SEND)
        .with_headers(headers)
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(PAUSE)
        .build();
    let resource = Resource::builder_empty()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_rate.into()))))
        .with_span_processor(
            BatchSpanProcessor::builder(Telling { exporter, fails: AtomicBool::new(false) })
                .with_batch_config(batches)
                .build(),
        )
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Some(Recording(provider)))
}

/// Where traces go below the collector's base URL.
fn traces_of(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}

/// Sends spans, and logs when that begins to fail and when it works again.
#[derive(Debug)]
struct Telling {
    exporter: opentelemetry_otlp::SpanExporter,
    fails: AtomicBool,
}

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        match (&outcome, self.fails.swap(outcome.is_err(), Ordering::Relaxed)) {
            // The library's errors hold a status or a kind, neither header nor body.
            (Err(error), false) => warn!(
                %error,
                "traces cannot be sent and are lost; check otlp.endpoint, otlp.headers and the collector"
            ),
            (Ok(()), true) => info!("traces are sent again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_below_the_base_url() {
        for (base, traces) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
        ] {
            assert_eq!(traces_of(&Url::parse(base).unwrap()), traces);
        }
    }
}
