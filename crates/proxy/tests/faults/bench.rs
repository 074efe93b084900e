//! A simulator behind gates, the proxies that use it, and the faults that they meet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use simulator::{Fault, PROVIDER_TOKEN, Received, Simulator, TokenSpec, World};
use tempfile::TempDir;

use crate::gate::{Certificates, Gate, Manner};
use crate::support::{Answer, Proxy, start_with};
use crate::table::{Trouble, Upstream};

const LISTING: &str = "/api/storage-resources/?page_size=500";
/// Path of Sentry's endpoint.
const ENVELOPES: &str = "/api/7/envelope/";

pub(crate) struct Bench {
    pub(crate) simulator: Simulator,
    gates: Gates,
    trusted: TempDir,
}

struct Gates {
    waldur: Gate,
    hpc: Gate,
    tokens: Gate,
    keycloak: Gate,
    sentry: Gate,
}

impl Bench {
    pub(crate) async fn start(world: World, certificates: &Arc<Certificates>) -> Self {
        let simulator = Simulator::start(world).await;
        let gate = || Gate::start(simulator.address(), certificates);
        let gates = Gates {
            waldur: gate().await,
            hpc: gate().await,
            tokens: gate().await,
            keycloak: gate().await,
            sentry: gate().await,
        };
        let trusted = TempDir::new().unwrap();
        certificates.write(&trusted.path().join("ca.pem"));
        let bench = Self { simulator, gates, trusted };
        bench.simulator.realm().set_base(&format!("https://{}", bench.gates.keycloak.address()));
        bench
    }

    fn gate(&self, upstream: Upstream) -> &Gate {
        match upstream {
            Upstream::Resources | Upstream::Customers => &self.gates.waldur,
            Upstream::Gids => &self.gates.hpc,
            Upstream::Tokens => &self.gates.tokens,
            Upstream::Discovery | Upstream::Keys => &self.gates.keycloak,
            Upstream::Sentry => &self.gates.sentry,
        }
    }

    /// Starts a proxy with `more` settings and an exchange timeout of `seconds`, and waits for its first reading.
    pub(crate) async fn proxy(&self, seconds: &str, more: &[(&str, &str)]) -> Proxy {
        let at = |upstream, path: &str| format!("https://{}{path}", self.gate(upstream).address());
        let waldur = at(Upstream::Resources, "/api");
        let hpc = at(Upstream::Gids, "/hpc");
        let tokens = at(Upstream::Tokens, "/auth/realms/cscs/protocol/openid-connect/token");
        let keycloak = at(Upstream::Keys, "/auth/");
        let dsn = format!("https://publickey@{}/7", self.gates.sentry.address());
        let trusted = self.trusted.path().join("ca.pem");
        let settings = [
            ("WALDUR_API_URL", waldur.as_str()),
            ("HPC_USER_API_URL", &hpc),
            ("HPC_USER_OIDC_TOKEN_URL", &tokens),
            ("CSCS_KEYCLOAK_URL", &keycloak),
            ("DISABLE_AUTH", "false"),
            ("SENTRY_DSN", &dsn),
            ("SENTRY_TRACES_SAMPLE_RATE", "1"),
            ("SSL_CERT_FILE", trusted.to_str().unwrap()),
            // The most verbose log must not contain secrets either.
            ("DEBUG", "true"),
            ("WALDUR_TIMEOUT", seconds),
            ("HPC_USER_TIMEOUT", seconds),
            // Sequentially, so that each page contradicts the previous one.
            ("WALDUR_PAGES_AT_ONCE", "1"),
        ];
        let proxy = start_with(&self.simulator, &[&settings, more].concat()).await;
        until("the first reading", || {
            let log = proxy.log();
            log.contains("the catalogue is read") || log.contains("an upstream cannot be read")
        })
        .await;
        proxy
    }

    /// Requests a fresh listing with this token.
    pub(crate) async fn list_as(&self, proxy: &Proxy, token: &str) -> Answer {
        let headers = [("Authorization", &*format!("Bearer {token}")), ("Cache-Control", "no-cache")];
        proxy.get_with(LISTING, &headers).await
    }

    /// Requests a fresh listing with a valid token.
    pub(crate) async fn list(&self, proxy: &Proxy) -> Answer {
        self.list_as(proxy, &self.caller()).await
    }

    /// A valid token.
    pub(crate) fn caller(&self) -> String {
        self.simulator.realm().mint(&TokenSpec::service_account("provisioner"))
    }

    /// Starts a fault. Redirects lead to `elsewhere`.
    pub(crate) async fn begin(&self, upstream: Upstream, trouble: Trouble, elsewhere: &str) {
        if upstream == Upstream::Tokens {
            // Otherwise the current tokens would remain in use.
            self.machine_tokens().iter().for_each(|token| self.simulator.realm().revoke(token));
        }
        let manner = match trouble {
            Trouble::Refused => Some(Manner::Shut),
            Trouble::BadCertificate => Some(Manner::Untrusted),
            _ => None,
        };
        if let Some(manner) = manner {
            self.gate(upstream).set(manner).await;
        }
        if let Some((route, fault)) = fault(upstream, trouble, elsewhere) {
            self.simulator.set_fault(&route, fault);
        }
    }

    /// Ends all faults.
    pub(crate) async fn end(&self, upstream: Upstream) {
        self.simulator.clear_faults();
        if upstream != Upstream::Customers {
            self.gate(upstream).set(Manner::Open).await;
        }
    }

    /// Texts that must not appear in answers or logs.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let known = [PROVIDER_TOKEN, "hpc-secret", "publickey", "simulated fault", "maintenance"];
        self.machine_tokens().into_iter().chain(known.map(String::from)).collect()
    }

    pub(crate) fn sentry_was_called(&self) -> bool {
        self.simulator.requests().iter().any(|request| request.path == ENVELOPES)
    }

    fn machine_tokens(&self) -> BTreeSet<String> {
        let hpc = |request: &Received| request.path.starts_with("/hpc/");
        let bearer = |request: &Received| request.header("authorization")?.strip_prefix("Bearer ").map(String::from);
        self.simulator.requests().iter().filter(|request| hpc(request)).filter_map(bearer).collect()
    }
}

/// The simulator's fault for this trouble, unless a gate makes it.
fn fault(upstream: Upstream, trouble: Trouble, elsewhere: &str) -> Option<(String, Fault)> {
    let fault = match trouble {
        Trouble::Refused | Trouble::BadCertificate | Trouble::NoSuchName => return None,
        Trouble::CutOff => Fault::CutOff { after: 5 },
        Trouble::Reset => Fault::Reset,
        Trouble::Silent => Fault::Silence,
        Trouble::Dripping => Fault::Dribble { millis: 1000 },
        Trouble::Unauthorized => Fault::status(401),
        Trouble::Forbidden => Fault::status(403),
        Trouble::NotFound => Fault::status(404),
        Trouble::TooManySeconds => Fault::retry_after(429, 1),
        Trouble::TooManyDate => Fault::retry_after_date(429, 1),
        Trouble::InternalError => Fault::status(500),
        Trouble::BadGateway => Fault::status(502),
        Trouble::Unavailable => Fault::status(503),
        Trouble::NotJson => Fault::not_json(),
        Trouble::WrongJson => Fault::wrong_type(),
        Trouble::BadRecord => Fault::BadRecord,
        Trouble::BadMembers => Fault::BadMembers,
        Trouble::EndlessBody => Fault::EndlessBody,
        Trouble::EndlessPages => Fault::EndlessPages,
        Trouble::MovingPages if upstream == Upstream::Customers => {
            return Some((format!("{}?*page=2*", upstream.route()), Fault::header("X-Result-Count", "299")));
        }
        Trouble::MovingPages => Fault::LoseRows { rows: 1 },
        Trouble::Redirect => Fault::redirect(elsewhere),
        Trouble::ClockOff => Fault::header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    };
    Some((upstream.route().to_owned(), fault))
}

/// A world with lists of several pages.
pub(crate) fn large_world() -> World {
    let mut world = World::large(601);
    let known = world.customers.values().map(|row| json!({"uuid": row.uuid, "slug": row.slug, "name": row.name}));
    let more = (0..301_u128)
        .map(|number| json!({"uuid": uuid::Uuid::from_u128(number), "slug": format!("more-{number}"), "name": "More"}));
    let rows: Vec<_> = known.chain(more).collect();
    for offering in world.offerings.values_mut() {
        offering.customers = Some(rows.clone());
    }
    world
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
