//! What clients meet. It can be changed while they are served.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use rustls::ServerConfig;

use super::tls::TlsIdentity;

/// What answers requests, and the certificate that new connections see.
#[derive(Debug)]
pub struct Frontend {
    router: ArcSwap<Router>,
    tls: ArcSwapOption<ServerConfig>,
}

impl Frontend {
    /// With a pair, TLS is spoken on TCP.
    pub fn new(router: Router, pair: Option<TlsIdentity>) -> Arc<Self> {
        Arc::new(Self {
            router: ArcSwap::from_pointee(router),
            tls: ArcSwapOption::new(pair.map(|pair| Arc::new(pair.config()))),
        })
    }

    /// Requests that come from now on are answered by this router; those that run are not disturbed.
    pub fn route(&self, router: Router) {
        self.router.store(Arc::new(router));
    }

    /// Connections that come from now on see this pair, or no TLS.
    pub fn present(&self, pair: Option<TlsIdentity>) {
        self.tls.store(pair.map(|pair| Arc::new(pair.config())));
    }

    pub(super) fn router(&self) -> Router {
        (**self.router.load()).clone()
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }
}
