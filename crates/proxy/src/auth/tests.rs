//! Tokens against a realm that answers over HTTP on loopback.

mod changes;
mod http;
mod introspection;
mod realm;
mod table;
