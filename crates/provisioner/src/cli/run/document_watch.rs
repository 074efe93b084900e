//! Starts a pass as soon as the document changes: a request to the proxy waits for that between two passes.
//!
//! A change is only a reason to look: the pass reads the document itself. Without the watch, for example behind a proxy that
//! does not wait, a pass starts at every `run.interval`.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use program::error_chain;
use storage_driver::DriverError;
use tracing::info;

use super::{SHORTEST, Wake};
use crate::source::{Source, Waited};

/// Waits in a thread of its own, because the request blocks.
pub(super) struct DocumentWatch(Sender<Arc<Source>>);

impl DocumentWatch {
    pub(super) fn start(wake: Sender<Wake>) -> Self {
        let (sender, sources) = mpsc::channel::<Arc<Source>>();
        std::thread::spawn(move || {
            let mut failing = false;
            while let Ok(mut source) = sources.recv() {
                loop {
                    // Passes that end meanwhile, perhaps with new settings, do not need a wait of their own.
                    source = sources.try_iter().last().unwrap_or(source);
                    let began = Instant::now();
                    let waited = source.wait_for_change();
                    log(&waited, &mut failing);
                    match waited {
                        // The server may answer at once, again and again.
                        Ok(Waited::Unchanged) => {
                            std::thread::sleep(SHORTEST.saturating_sub(began.elapsed()));
                            continue;
                        }
                        Ok(Waited::Changed) => {
                            sources.try_iter().for_each(drop);
                            if wake.send(Wake::Pass).is_err() {
                                return;
                            }
                        }
                        // Tried again after the next pass.
                        Ok(Waited::Unsupported) | Err(_) => {}
                    }
                    break;
                }
            }
        });
        Self(sender)
    }

    /// Waits for another document than the one that `source` read last. Called after each pass.
    pub(super) fn wait_for_change(&self, source: &Arc<Source>) {
        // The thread runs as long as the loop.
        let _ = self.0.send(Arc::clone(source));
    }
}

/// Logs when waiting begins to fail, because orders then take up to `run.interval` longer, and when it works again.
fn log(waited: &Result<Waited, DriverError>, failing: &mut bool) {
    let why = match waited {
        Ok(Waited::Changed | Waited::Unchanged) => None,
        Ok(Waited::Unsupported) => {
            Some("the proxy, or a gateway before it, does not support `Prefer: wait` with `If-None-Match`".to_owned())
        }
        Err(error) => Some(error_chain(error)),
    };
    match &why {
        Some(why) if !*failing => {
            info!("cannot wait for changes of the document, so passes start at every run.interval: {why}");
        }
        None if *failing => info!("waiting for changes of the document works again"),
        _ => {}
    }
    *failing = why.is_some();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use driver_rest::simulated::{Reply, serve};
    use serde_json::json;
    use settings::{Environment, Overrides, load};

    use super::*;

    #[test]
    fn a_server_that_ends_every_wait_at_once_gets_few_requests() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let answered = Arc::new(AtomicU64::new(0));
        let answers = Arc::clone(&answered);
        let url = serve(move |_| match answers.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let pagination = json!({"current": 1, "limit": 500, "offset": 0, "pages": 1, "total": 0});
                let body = json!({"status": "success", "resources": [], "orders": {}, "pagination": pagination});
                Reply::Json(200, "etag: \"a\"\r\n", body)
            }
            _ => Reply::Json(304, "etag: \"a\"\r\npreference-applied: wait=45\r\n", json!(null)),
        });
        let variables = [
            ("PROVISIONER_PROXY_URL", url.to_string()),
            ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#.to_owned()),
        ];
        let loaded = load(&crate::config::SCHEMA, &Environment::new("/", variables), &Overrides::default()).unwrap();
        let source = Arc::new(Source::new(&loaded.settings, &Arc::default()).unwrap());
        source.read().unwrap();
        let (wake, woken) = mpsc::channel();
        let began = Instant::now();
        DocumentWatch::start(wake).wait_for_change(&source);
        assert!(woken.recv_timeout(Duration::from_secs(3)).is_err());
        let (waits, seconds) = (answered.load(Ordering::Relaxed) - 1, began.elapsed().as_secs());
        assert!((1..=seconds + 2).contains(&waits), "{waits} requests in {seconds} s");
    }
}
