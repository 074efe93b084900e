//! The router and the TLS certificate that clients get. Both can be replaced while the server runs.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use rustls::ServerConfig;

use super::tls::TlsIdentity;

/// The router for new requests, and the TLS configuration for new TCP connections.
#[derive(Debug)]
pub struct Frontend {
    router: ArcSwap<Router>,
    tls: ArcSwapOption<ServerConfig>,
}

impl Frontend {
    /// With a certificate, TCP connections use TLS.
    pub fn new(router: Router, pair: Option<TlsIdentity>) -> Arc<Self> {
        Arc::new(Self {
            router: ArcSwap::from_pointee(router),
            tls: ArcSwapOption::new(pair.map(|pair| Arc::new(pair.config()))),
        })
    }

    /// Uses this router for new requests; running ones are not affected.
    pub fn set_router(&self, router: Router) {
        self.router.store(Arc::new(router));
    }

    /// Uses this certificate for new connections; `None`: no TLS.
    pub fn set_tls(&self, pair: Option<TlsIdentity>) {
        self.tls.store(pair.map(|pair| Arc::new(pair.config())));
    }

    pub(super) fn router(&self) -> Router {
        (**self.router.load()).clone()
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }
}
