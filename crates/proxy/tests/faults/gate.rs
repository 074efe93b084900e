//! A TLS proxy in front of an upstream, which can refuse connections or present an untrusted certificate.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// How a gate treats new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Open,
    /// Refuses them.
    Shut,
    /// Presents an untrusted certificate.
    Untrusted,
}

/// Certificates for 127.0.0.1.
pub(crate) struct Certificates {
    trusted: TlsAcceptor,
    untrusted: TlsAcceptor,
    pem: String,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        proxy::transport::install_tls_provider();
        let (trusted, pem) = certificate();
        Self { trusted, untrusted: certificate().0, pem }
    }

    /// Writes the certificate that clients must trust.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }
}

fn certificate() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    (TlsAcceptor::from(Arc::new(config.unwrap())), made.cert.pem())
}

/// Initially open.
pub(crate) struct Gate {
    address: SocketAddr,
    orders: mpsc::Sender<(Manner, oneshot::Sender<()>)>,
}

impl Gate {
    pub(crate) async fn start(backend: SocketAddr, certificates: &Arc<Certificates>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, waiting) = mpsc::channel(1);
        tokio::spawn(serve(listener, backend, Arc::clone(certificates), waiting));
        Self { address, orders }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and sets how new ones are treated.
    pub(crate) async fn set(&self, manner: Manner) {
        let (done, waiting) = oneshot::channel();
        self.orders.send((manner, done)).await.unwrap();
        waiting.await.unwrap();
    }
}

async fn serve(
    listener: TcpListener,
    backend: SocketAddr,
    certificates: Arc<Certificates>,
    mut orders: mpsc::Receiver<(Manner, oneshot::Sender<()>)>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut acceptor = certificates.trusted.clone();
    loop {
        let mut connections = JoinSet::new();
        // Reserves the port without listening on it while the gate is shut.
        let held = if listener.is_none() { Some(hold(address).await) } else { None };
        let order = loop {
            tokio::select! {
                order = orders.recv() => break order,
                client = accept(listener.as_ref()) => {
                    connections.spawn(pass(client, backend, acceptor.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        };
        let Some((manner, done)) = order else { return };
        drop(held);
        connections.shutdown().await;
        listener = match (manner, listener) {
            (Manner::Shut, _) => None,
            (_, Some(listener)) => Some(listener),
            (_, None) => Some(hold(address).await.listen(128).unwrap()),
        };
        acceptor =
            if manner == Manner::Untrusted { certificates.untrusted.clone() } else { certificates.trusted.clone() };
        // Fails if nobody waits any more.
        let _ = done.send(());
    }
}

/// Binds the port, once no outgoing connection happens to use it.
async fn hold(address: SocketAddr) -> TcpSocket {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(address) {
            Ok(()) => return socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

async fn pass(client: TcpStream, backend: SocketAddr, acceptor: TlsAcceptor) {
    // Fails if the client does not trust the certificate.
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(backend).await else { return };
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
