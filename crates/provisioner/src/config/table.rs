//! The table of all settings: key, variable, reader, default and meaning of each, and the rules that involve several.

use std::path::PathBuf;

use settings::reader::{addresses, choice, count, flag, seconds, secret, secret_url, text, url};
use settings::{Invalid, Loader, Reader, Reported, address, check, invalid};

use url::Url;

use super::{KubernetesSettings, LeaseSettings, Proxy, Purge, Report, Run, Settings, SystemConfig, Waldur, system};
use provisioner_core::plan::Policy;

/// Reads every setting, in the order of the reference. No function below returns before all of its settings are read.
pub(super) fn read(loader: &mut Loader<'_>) -> Result<Settings, Reported> {
    let proxy = proxy(loader);
    let waldur = waldur(loader);
    let systems = loader
        .setting("systems", &["PROVISIONER_SYSTEMS"])
        .doc(
            "The storage systems to manage, by their names in the document. Their keys are described in \
             `provisioner.md`.",
        )
        .required(Reader::new("mapping", system::read));
    let state_directory = loader
        .setting("state_directory", &["PROVISIONER_STATE_DIRECTORY"])
        .doc("Directory of the journal and the leases. Keep it: the journal is the audit log.")
        .with_default("/var/lib/hpc-storage-provisioner", text(check::absolute_path).map(PathBuf::from));
    let policy = policy(loader);
    let purge = purge(loader);
    let run = run(loader);
    let report = report(loader);
    let lease = lease(loader, systems.as_deref().unwrap_or_default());
    let usage_component = loader
        .setting("usage.component", &["PROVISIONER_USAGE_COMPONENT"])
        .doc("Component of the offerings for which `usage --report` reports the used space, in TB of the system.")
        .with_default("storage", text(check::plain));
    let mock_identities = loader
        .setting("mock_identities", &["PROVISIONER_MOCK_IDENTITIES"])
        .doc("Whether to accept a document with invented GIDs, from a proxy in development mode. For trials.")
        .with_default("false", flag());
    let debug = loader
        .setting("log.debug", &["PROVISIONER_DEBUG"])
        .doc("Whether to log every callback.")
        .with_default("false", flag());
    let json_log = loader
        .setting("log.format", &["PROVISIONER_LOG_FORMAT"])
        .doc("Text lines (`human`), or JSON.")
        .with_default("human", choice(&[("human", false), ("json", true)]));
    Ok(Settings {
        proxy: proxy?,
        waldur: waldur?,
        systems: systems?,
        state_directory: state_directory?,
        policy: policy?,
        purge: purge?,
        run: run?,
        report: report?,
        lease: lease?,
        usage_component: usage_component?,
        mock_identities: mock_identities?,
        debug: debug?,
        json_log: json_log?,
    })
}

fn proxy(loader: &mut Loader<'_>) -> Result<Proxy, Reported> {
    let proxy_url = loader
        .setting("proxy.url", &["PROVISIONER_PROXY_URL"])
        .doc("URL of the proxy, without `/api`: `https://storage-proxy.example.org`.")
        .required(url(check::base_url));
    let public_url = loader
        .setting("proxy.public_url", &["PROVISIONER_PROXY_PUBLIC_URL"])
        .doc("The proxy's `server.public_url`, if it relays callbacks and `proxy.url` is a different URL.")
        .optional(url(check::base_url));
    let token_url = loader
        .setting("proxy.token_url", &["PROVISIONER_TOKEN_URL"])
        .doc("Token endpoint of the realm: `https://auth.example.org/auth/realms/cscs/protocol/openid-connect/token`.")
        .optional(url(check::base_url));
    let client_id = loader
        .setting("proxy.client_id", &["PROVISIONER_CLIENT_ID"])
        .doc("Client ID in the realm; the client needs a service account.")
        .optional(text(check::plain));
    let client_secret = loader
        .setting("proxy.client_secret", &["PROVISIONER_CLIENT_SECRET"])
        .doc("Secret of the client.")
        .optional(secret(check::secret));
    let timeout = loader
        .setting("proxy.timeout", &["PROVISIONER_TIMEOUT"])
        .doc("Timeout of one exchange with the proxy or Waldur.")
        .with_default("60", seconds());
    let parts = [
        ("proxy.token_url", token_url.as_ref().map(Option::is_some)),
        ("proxy.client_id", client_id.as_ref().map(Option::is_some)),
        ("proxy.client_secret", client_secret.as_ref().map(Option::is_some)),
    ];
    if parts.iter().any(|(_, given)| *given == Ok(true)) {
        for (key, _) in parts.into_iter().filter(|(_, given)| *given == Ok(false)) {
            let what = "missing, but another setting of the client is given";
            loader.violation(key, invalid(what, "set all three, or none"));
        }
    }
    Ok(Proxy {
        url: proxy_url?,
        public_url: public_url?,
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        timeout: timeout?,
    })
}

fn waldur(loader: &mut Loader<'_>) -> Result<Option<Waldur>, Reported> {
    let api_url = loader
        .setting("waldur.api_url", &["PROVISIONER_WALDUR_API_URL"])
        .doc(
            "URL of Waldur's API. Required for `usage --report`, and for callbacks if the proxy does not relay them \
             (`callbacks.relay`). The token is sent to this origin only.",
        )
        .optional(url(check::base_url));
    let api_token = loader
        .setting("waldur.api_token", &["PROVISIONER_WALDUR_API_TOKEN"])
        .doc("Token of a user of the service provider; for callbacks, the user must be an owner of its organization.")
        .optional(secret(check::secret));
    if let (Ok(None), Ok(Some(_))) = (&api_url, &api_token) {
        let what = "missing, but the token is given";
        loader.violation("waldur.api_url", invalid(what, "set both, or neither"));
    }
    if let (Ok(Some(_)), Ok(None)) = (&api_url, &api_token) {
        let what = "missing, but Waldur's URL is given";
        loader.violation("waldur.api_token", invalid(what, "set both, or neither"));
    }
    let (api_url, api_token) = (api_url?, api_token?);
    Ok(api_url.zip(api_token).map(|(api_url, api_token)| Waldur { api_url, api_token }))
}

fn policy(loader: &mut Loader<'_>) -> Result<Policy, Reported> {
    let heal = loader
        .setting("drift.heal", &["PROVISIONER_DRIFT_HEAL"])
        .doc(
            "Whether to correct quotas, mode, owner and ACLs of directories in use that differ from the document. \
             Otherwise the differences are only reported.",
        )
        .with_default("false", flag());
    let shrink_below_usage = loader
        .setting("policy.shrink_below_usage", &["PROVISIONER_SHRINK_BELOW_USAGE"])
        .doc("Whether quotas may shrink below the usage, which stops all writing.")
        .with_default("false", flag());
    let refuse = loader
        .setting("policy.refuse", &["PROVISIONER_REFUSE"])
        .doc(
            "Whether to reject an order that asks for something impossible (a limit of 0, permissions that are not \
             octal digits), or to set it erred after its approval. Otherwise it is held, like every other order that \
             cannot be carried out, until a person decides: `hpc-storage-provisioner reject`.",
        )
        .with_default("false", flag());
    let absent_is_gone = loader
        .setting("policy.absent_is_gone", &["PROVISIONER_ABSENT_IS_GONE"])
        .doc(
            "Whether to complete a termination if the directory is neither at its path nor in the trash. Otherwise it \
             is held: the directory may have been moved, or another file system may be mounted.",
        )
        .with_default("false", flag());
    let mass = loader
        .setting("policy.mass", &["PROVISIONER_MASS"])
        .doc(
            "Number of removals, of rejections, and of changes without an order that one pass may make on a system \
             without confirmation: this number, or 2 % of the system's resources, whichever is more. In 24 hours, \
             four times as many.",
        )
        .with_default("5", count(1_000_000));
    Ok(Policy {
        heal: heal?,
        shrink_below_usage: shrink_below_usage?,
        refuse: refuse?,
        absent_is_gone: absent_is_gone?,
        mass: mass?,
    })
}

fn purge(loader: &mut Loader<'_>) -> Result<Purge, Reported> {
    let enabled = loader
        .setting("purge.enabled", &["PROVISIONER_PURGE_ENABLED"])
        .doc("Whether the command `purge` deletes. `run` never does.")
        .with_default("false", flag());
    let retention_days = loader
        .setting("purge.retention_days", &["PROVISIONER_PURGE_RETENTION_DAYS"])
        .doc("Minimum number of days that a tree stays in the trash.")
        .with_default("90", count(36_500));
    let at_most = loader
        .setting("purge.at_most", &["PROVISIONER_PURGE_AT_MOST"])
        .doc("Maximum number of trees that one call of `purge` deletes.")
        .with_default("10", count(100_000));
    let rate = loader
        .setting("purge.rate", &["PROVISIONER_PURGE_RATE"])
        .doc("Maximum number of files and directories that `purge` deletes per second, in all trees together.")
        .with_default("10000", count(1_000_000));
    Ok(Purge { enabled: enabled?, retention_days: retention_days?, at_most: at_most?, rate: rate? })
}

fn run(loader: &mut Loader<'_>) -> Result<Run, Reported> {
    let interval = loader
        .setting("run.interval", &["PROVISIONER_RUN_INTERVAL"])
        .doc(
            "Longest time from one pass to the next, with a jitter of 10 %. A pass also starts as soon as the document \
             changes.",
        )
        .with_default("60", seconds());
    let listen = loader
        .setting("run.listen", &["PROVISIONER_LISTEN"])
        .doc(
            "Address for `/health/live`, `/health/ready`, `/metrics` and `POST /nudge`, which starts a pass at once. \
             Nothing there is secret, but clients are not authenticated: make it reachable from the machine or the \
             cluster only.",
        )
        .optional(addresses(|text| address(text, "/run/hpc-storage-provisioner/admin.sock")));
    Ok(Run { interval: interval?, listen: listen?.unwrap_or_default() })
}

fn report(loader: &mut Loader<'_>) -> Result<Report, Reported> {
    let enabled = loader
        .setting("report.enabled", &["PROVISIONER_REPORT_ENABLED"])
        .doc(
            "Whether `run` sends a report to the proxy after each pass: what it did, what is held and why, and usage. Operators \
             see it on the pages of the proxy.",
        )
        .with_default("true", flag());
    let name = loader
        .setting("report.name", &["PROVISIONER_REPORT_NAME"])
        .doc(
            "Name of this provisioner in reports; by default the names of its systems, joined by `-`. Provisioners that take \
             over from each other need the same name, all others different ones.",
        )
        .optional(text(report_name));
    Ok(Report { enabled: enabled?, name: name? })
}

fn report_name(text: &str) -> Result<(), Invalid> {
    if provisioner_report::is_valid_name(text) {
        return Ok(());
    }
    let remedy =
        "use 1 to 63 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit";
    Err(invalid("not a valid name of a provisioner", remedy))
}

fn lease(loader: &mut Loader<'_>, systems: &[SystemConfig]) -> Result<LeaseSettings, Reported> {
    let redis = loader
        .setting("lease.url", &["PROVISIONER_LEASE_URL"])
        .doc(
            "Valkey or Redis server for the leases, if provisioners on several hosts manage the same systems: \
             `redis://host:6379`. Without it and `lease.kubernetes_namespace`, a lock in the state directory excludes \
             other processes on this host only.",
        )
        .optional(secret_url(lease_url));
    let namespace = loader
        .setting("lease.kubernetes_namespace", &["PROVISIONER_LEASE_KUBERNETES_NAMESPACE"])
        .doc(
            "Namespace of the Lease objects on the Kubernetes API server, if provisioners in several pods manage the \
             same systems; instead of `lease.url`. See \"Mutual exclusion\" in `provisioner.md`.",
        )
        .optional(text(dns_label));
    let credentials = loader
        .setting("lease.kubernetes_credentials", &["PROVISIONER_LEASE_KUBERNETES_CREDENTIALS"])
        .doc("Directory with the files `token` and `ca.crt` of the service account. Both are read for each request.")
        .with_default("/var/run/secrets/kubernetes.io/serviceaccount", text(check::absolute_path).map(PathBuf::from));
    let host = loader
        .setting("lease.kubernetes_host", &["KUBERNETES_SERVICE_HOST"])
        .doc("Host of the Kubernetes API server. Kubernetes sets the variable in each container.")
        .optional(text(check::plain));
    let port = loader
        .setting("lease.kubernetes_port", &["KUBERNETES_SERVICE_PORT"])
        .doc("Port of the Kubernetes API server. Kubernetes sets the variable in each container.")
        .with_default("443", count(65_535));
    let Some(namespace) = namespace? else {
        let redis = redis?;
        return Ok(redis.map_or(LeaseSettings::Files, LeaseSettings::Redis));
    };
    if redis?.is_some() {
        let what = "given, but lease.kubernetes_namespace is given too";
        loader.violation("lease.url", invalid(what, "remove one of them: leases are in one place"));
    }
    for system in systems.iter().filter(|system| !is_dns_subdomain(&system.name)) {
        let what = format!("the name {} cannot be part of the name of a Lease in Kubernetes", system.name);
        let remedy = "use lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part, and at \
                      most 200 characters";
        loader.violation("systems", invalid(what, remedy));
    }
    let Some(host) = host? else {
        let what = "missing, but lease.kubernetes_namespace is given";
        loader.violation("lease.kubernetes_host", invalid(what, "run in a pod, or set KUBERNETES_SERVICE_HOST"));
        return Err(Reported);
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let Ok(api) = Url::parse(&format!("https://{host}:{}/", port?)) else {
        loader.violation("lease.kubernetes_host", invalid("not a host name or an IP address", "correct it"));
        return Err(Reported);
    };
    Ok(LeaseSettings::Kubernetes(KubernetesSettings { api, namespace, credentials: credentials? }))
}

fn lease_url(text: &str) -> Result<(), Invalid> {
    match redis::Client::open(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("not a URL of a Valkey or Redis server", "write it like redis://host:6379")),
    }
}

fn dns_label(text: &str) -> Result<(), Invalid> {
    if is_dns_subdomain(text) && !text.contains('.') && text.len() <= 63 {
        return Ok(());
    }
    let remedy = "use at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends";
    Err(invalid("not a name of a namespace", remedy))
}

/// Whether names of objects in Kubernetes may end with this text.
fn is_dns_subdomain(text: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.iter().all(|end| end.is_some_and(is_plain)) && label.bytes().all(|c| is_plain(c) || c == b'-')
    };
    text.len() <= 200 && text.split('.').all(is_label)
}
