//! Starts a pass as soon as the document changes: a request to the proxy waits for that between two passes.
//!
//! A change is only a reason to look: the pass reads the document itself. Without the watch, for example behind a proxy that
//! does not wait, a pass starts at every `run.interval`.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use program::error_chain;
use tracing::debug;

use super::Wake;
use crate::source::{Source, Waited};

/// Waits in a thread of its own, because the request blocks.
pub(super) struct DocumentWatch(Sender<Arc<Source>>);

impl DocumentWatch {
    pub(super) fn start(wake: Sender<Wake>) -> Self {
        let (sender, sources) = mpsc::channel::<Arc<Source>>();
        std::thread::spawn(move || {
            while let Ok(mut source) = sources.recv() {
                loop {
                    // Passes that end meanwhile, perhaps with new settings, do not need a wait of their own.
                    source = sources.try_iter().last().unwrap_or(source);
                    match source.wait_for_change() {
                        Ok(Waited::Unchanged) => continue,
                        Ok(Waited::Changed) => {
                            sources.try_iter().for_each(drop);
                            if wake.send(Wake::Pass).is_err() {
                                return;
                            }
                        }
                        Ok(Waited::Unsupported) => debug!("the proxy does not wait for changes"),
                        Err(error) => debug!("cannot wait for changes: {}", error_chain(&error)),
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
