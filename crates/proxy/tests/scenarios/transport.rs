//! Proxies and certificates.
