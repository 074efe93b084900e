//! `hpc-storage-proxy`: reads storage resources from Waldur, adds Unix identities and publishes the document that
//! storage provisioners follow.

pub mod auth;
pub mod clock;
pub mod hpc_user;
pub mod oauth;
pub mod settings;
pub mod upstream;
pub mod waldur;
