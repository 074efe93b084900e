//! TLS for clients, and the replacement of certificates.

use std::fs;
use std::path::Path;

use reqwest::{Certificate, Client};
use simulator::{Simulator, World};
use tempfile::TempDir;

use crate::program::{Program, settings};

/// Writes a new certificate and its key; returns a client that trusts only this certificate.
fn renew_certificate(directory: &Path) -> Client {
    proxy::transport::install_tls_provider();
    let generated = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    fs::write(directory.join("key.pem"), generated.signing_key.serialize_pem()).unwrap();
    fs::write(directory.join("certificate.pem"), generated.cert.pem()).unwrap();
    let trusted = Certificate::from_pem(generated.cert.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap()
}

fn serve_with_certificate(simulator: &Simulator) -> (TempDir, Client, Program) {
    let directory = tempfile::tempdir().unwrap();
    let client = renew_certificate(directory.path());
    let mut settings = settings(simulator);
    let path = |name: &str| directory.path().join(name).display().to_string();
    settings.extend([("SERVER_TLS_CERTIFICATE", path("certificate.pem")), ("SERVER_TLS_KEY", path("key.pem"))]);
    let program = Program::serve(&settings);
    (directory, client, program)
}

/// Whether the server presents the certificate that the client trusts.
async fn is_served(program: &Program, client: &Client) -> bool {
    match client.get(format!("https://{}/api/version", program.address())).send().await {
        Ok(answer) => answer.status() == 200,
        Err(error) => {
            assert!(error.is_connect(), "{error:?}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_used_without_a_restart() {
    let simulator = Simulator::start(World::demo()).await;
    let (directory, first, mut program) = serve_with_certificate(&simulator);
    assert!(is_served(&program, &first).await);
    let plain = crate::program::client().get(format!("http://{}/api/version", program.address())).send().await;
    assert!(plain.is_err(), "requests without TLS fail");

    let second = renew_certificate(directory.path());
    program.wait_for("the certificate was reloaded for new connections");
    assert!(is_served(&program, &second).await);
    assert!(is_served(&program, &first).await, "an open connection stays usable");
    assert_eq!(program.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_replacement_leaves_the_old_certificate_in_use() {
    let simulator = Simulator::start(World::demo()).await;
    let (directory, first, mut program) = serve_with_certificate(&simulator);
    // A certificate that does not belong to the key.
    let key = fs::read_to_string(directory.path().join("key.pem")).unwrap();
    let other = renew_certificate(directory.path());
    fs::write(directory.path().join("key.pem"), &key).unwrap();
    let line = program.wait_for("invalid change, the old settings stay in force");
    assert!(line.contains("server.tls_key") && line.contains("is not the key of the certificate in"), "{line}");
    assert!(is_served(&program, &first).await);
    assert!(!is_served(&program, &other).await);
    // SIGHUP does not change that.
    program.signal("HUP");
    program.wait_for("server.tls_key");
    // A partial file, as during copying.
    fs::write(directory.path().join("certificate.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let line = program.wait_for("contains no PEM certificate");
    assert!(line.contains("server.tls_certificate"), "{line}");
    assert!(is_served(&program, &first).await);

    let third = renew_certificate(directory.path());
    program.wait_for("the certificate was reloaded");
    assert!(is_served(&program, &third).await);
    let log = program.stop().log.join("\n");
    assert!(key.lines().filter(|line| !line.starts_with("--")).all(|line| !log.contains(line)), "{log}");
}
