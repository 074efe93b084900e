//! Sends spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Spans wait in a queue of [`QUEUE`], which a separate thread empties; spans that do not fit are dropped. A collector that
//! does not respond therefore costs traces, never a request. Connections are direct: variables such as `HTTPS_PROXY` are
//! not read.

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

use super::{StartError, spans};
use crate::config::{self, header_list};
use crate::transport::{TransportError, install_tls_provider};

/// Maximum number of queued spans.
const QUEUE: usize = 2048;
/// Maximum number of spans per batch.
const BATCH: usize = 512;
/// Maximum time that a span waits for its batch.
const PAUSE: Duration = Duration::from_secs(2);
/// Timeout for sending one batch, retries included.
const SEND: Duration = Duration::from_secs(10);
/// Time for sending queued spans when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

/// The export of spans; dropping it sends the queued ones, for at most [`FLUSH`].
#[derive(Debug)]
pub(super) struct Export(SdkTracerProvider);

impl Drop for Export {
    fn drop(&mut self) {
        // An error means that the collector did not respond in time or failed, which `LoggingExporter` logs.
        let _ = self.0.shutdown_with_timeout(FLUSH);
    }
}

/// Starts to export spans; `None` if there is no collector. Call it outside of any runtime: the client has its own.
pub(super) fn start(settings: &config::Otlp) -> Result<Option<Export>, StartError> {
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
    // Everything is set that the library would otherwise read from the environment. Its variable for headers is one of
    // ours too, with the same precedence.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(http)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint))
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
            BatchSpanProcessor::builder(LoggingExporter { exporter, failing: AtomicBool::new(false) })
                .with_batch_config(batches)
                .build(),
        )
        .build();
    global::set_tracer_provider(provider.clone());
    spans::record();
    Ok(Some(Export(provider)))
}

/// The URL for traces below the collector's base URL.
fn traces_url(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}

/// Sends spans; logs when sending starts to fail and when it works again.
#[derive(Debug)]
struct LoggingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        match (&outcome, self.failing.swap(outcome.is_err(), Ordering::Relaxed)) {
            // The library's errors contain a status or kind, but no header or body.
            (Err(error), false) => warn!(
                %error,
                "cannot send traces, they are lost; check otlp.endpoint, otlp.headers and the collector"
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
    fn the_traces_url_is_below_the_base_url() {
        for (base, traces) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
        ] {
            assert_eq!(traces_url(&Url::parse(base).unwrap()), traces);
        }
    }
}
