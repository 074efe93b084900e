//! Certificates and proxies, which are configured for each upstream.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use simulator::{Simulator, World};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::{free_address, skipped, start_with};

/// A TLS server with an untrusted certificate in front of the simulator.
async fn tls_front(backend: SocketAddr) -> SocketAddr {
    proxy::transport::install_tls_provider();
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate disconnects here.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(backend).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_is_rejected_unless_verification_is_disabled_for_the_upstream() {
    let simulator = Simulator::start(World::demo()).await;
    let front = tls_front(simulator.address()).await;
    let over_tls = |url: &str| url.replace(&simulator.base_url(), &format!("https://{front}"));
    let waldur = over_tls(&format!("{}/api", simulator.base_url()));
    let (hpc, tokens) = (over_tls(&simulator.hpc_url()), over_tls(&simulator.token_url()));

    let proxy = start_with(&simulator, &[("WALDUR_API_URL", &waldur)]).await;
    proxy.list("").await.assert_upstream_error("cannot connect");
    assert!(simulator.requests().is_empty(), "no token was sent");
    let proxy = start_with(&simulator, &[("WALDUR_API_URL", &waldur), ("WALDUR_VERIFY_SSL", "false")]).await;
    assert_eq!(proxy.list("").await.status, 200);
    assert!(proxy.log().contains("certificate is not verified"), "{}", proxy.log());

    let identities = [("HPC_USER_API_URL", hpc.as_str()), ("HPC_USER_OIDC_TOKEN_URL", tokens.as_str())];
    // Disabling verification for Waldur does not affect the other upstreams.
    let proxy = start_with(&simulator, &[&identities[..], &[("WALDUR_VERIFY_SSL", "false")]].concat()).await;
    proxy.list("").await.assert_upstream_error("cannot connect");
    let proxy = start_with(&simulator, &[&identities[..], &[("HPC_USER_VERIFY_SSL", "false")]].concat()).await;
    assert_eq!(proxy.list("").await.status, 200);
}

/// A real proxy, as a process. `None`, with a message, if it is not installed; continuous integration requires it.
struct RealProxy(Child);

impl RealProxy {
    async fn start(program: &str, arguments: &[&str], address: SocketAddr) -> Option<Self> {
        let child = match Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{program} cannot be started: {error}");
                skipped(program);
                return None;
            }
        };
        let running = Self(child);
        for _ in 0..2400 {
            if TcpStream::connect(address).await.is_ok() {
                return Some(running);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{program} does not listen");
    }
}

impl Drop for RealProxy {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The source address of the real proxies, by which the simulator recognizes them.
const BEHIND: &str = "127.0.0.2";

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_uses_its_own_socks_proxy() {
    let address = free_address().await;
    let port = address.port().to_string();
    let arguments = ["-i", "127.0.0.1", "-p", &port, "-u", "centre", "-P", "pa55", "-b", BEHIND];
    let Some(_socks) = RealProxy::start("microsocks", &arguments, address).await else { return };
    for scheme in ["socks5", "socks5h"] {
        let url = format!("{scheme}://centre:pa55@{address}");
        for (variable, prefix) in [("WALDUR_SOCKS_PROXY", "/api/"), ("HPC_USER_SOCKS_PROXY", "/hpc/")] {
            let simulator = Simulator::start(World::demo()).await;
            let proxy = start_with(&simulator, &[(variable, &url)]).await;
            let answer = proxy.list("").await;
            assert_eq!(answer.status, 200, "{variable}: {}", answer.text);
            let requests = simulator.requests();
            assert!(requests.iter().any(|request| request.path.starts_with(prefix)));
            for request in requests {
                let through = request.peer.ip().to_string() == BEHIND;
                let token = variable == "HPC_USER_SOCKS_PROXY" && request.path.ends_with("/token");
                assert_eq!(through, request.path.starts_with(prefix) || token, "{variable}: {}", request.line());
            }
            let log = proxy.log();
            assert!(log.contains("Using SOCKS proxy for API request"), "{log}");
            assert!(!log.contains("pa55"), "{log}");
        }
    }
    let simulator = Simulator::start(World::demo()).await;
    let wrong = format!("socks5://centre:wr0ng@{address}");
    let proxy = start_with(&simulator, &[("WALDUR_SOCKS_PROXY", &wrong)]).await;
    let answer = proxy.list("").await;
    answer.assert_upstream_error("cannot connect");
    assert!(!answer.text.contains("wr0ng"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_works_too() {
    let address = free_address().await;
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("tinyproxy.conf");
    let text = format!("Port {}\nListen 127.0.0.1\nBind {BEHIND}\nTimeout 60\nMaxClients 20\n", address.port());
    std::fs::write(&config, text).unwrap();
    let arguments = ["-d", "-c", config.to_str().unwrap()];
    let Some(_proxy) = RealProxy::start("tinyproxy", &arguments, address).await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let proxy = start_with(&simulator, &[("WALDUR_SOCKS_PROXY", &format!("http://{address}"))]).await;
    let answer = proxy.list("").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let waldur: Vec<_> = simulator.requests().into_iter().filter(|request| request.path.starts_with("/api/")).collect();
    assert!(!waldur.is_empty() && waldur.iter().all(|request| request.peer.ip().to_string() == BEHIND));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_proxy_is_never_bypassed() {
    let unused = free_address().await;
    for scheme in ["socks5", "socks5h", "http"] {
        let simulator = Simulator::start(World::demo()).await;
        let proxy = start_with(&simulator, &[("WALDUR_SOCKS_PROXY", &format!("{scheme}://{unused}"))]).await;
        proxy.list("").await.assert_upstream_error("Waldur returned no usable answer");
        assert!(simulator.requests().is_empty(), "{scheme}");
    }
}
