//! Every setting with its names, kind and preset.

use std::path::PathBuf;

use secrecy::SecretString;
use settings::{Invalid, Kind, Preset, Setting, address, check, invalid};
use url::Url;

use super::{Settings, Waldur, system};

fn waldur(settings: &mut Settings) -> &mut Waldur {
    settings.waldur.get_or_insert_with(|| Waldur {
        #[expect(clippy::expect_used, reason = "a constant that is a URL")]
        api_url: Url::parse("http://unset.invalid/").expect("a URL"),
        api_token: SecretString::default(),
    })
}

fn lease_url(text: &str) -> Result<(), Invalid> {
    let is_one = redis::Client::open(text).is_ok();
    if is_one {
        Ok(())
    } else {
        Err(invalid("not a URL of a Valkey or Redis server", "write it like redis://host:6379"))
    }
}

pub(super) static TABLE: &[Setting<Settings>] = &[
    Setting {
        key: "proxy.url",
        variables: &["PROVISIONER_PROXY_URL"],
        kind: Kind::Url(check::base_url, |s, url| s.proxy.url = url),
        preset: Preset::Required,
        doc: "URL of the proxy, without `/api`: `https://storage-proxy.example.org`.",
    },
    Setting {
        key: "proxy.public_url",
        variables: &["PROVISIONER_PROXY_PUBLIC_URL"],
        kind: Kind::Url(check::base_url, |s, url| s.proxy.public_url = Some(url)),
        preset: Preset::Absent,
        doc: "The proxy's `server.public_url`, if it relays callbacks and `proxy.url` is a different URL.",
    },
    Setting {
        key: "proxy.token_url",
        variables: &["PROVISIONER_TOKEN_URL"],
        kind: Kind::Url(check::base_url, |s, url| s.proxy.token_url = Some(url)),
        preset: Preset::Absent,
        doc: "Token endpoint of the realm: `https://auth.example.org/auth/realms/cscs/protocol/openid-connect/token`.",
    },
    Setting {
        key: "proxy.client_id",
        variables: &["PROVISIONER_CLIENT_ID"],
        kind: Kind::Text(check::plain, |s, text| s.proxy.client_id = Some(text)),
        preset: Preset::Absent,
        doc: "Client ID in the realm; the client needs a service account.",
    },
    Setting {
        key: "proxy.client_secret",
        variables: &["PROVISIONER_CLIENT_SECRET"],
        kind: Kind::Secret(check::secret, |s, text| s.proxy.client_secret = Some(text)),
        preset: Preset::Absent,
        doc: "Secret of the client.",
    },
    Setting {
        key: "proxy.timeout",
        variables: &["PROVISIONER_TIMEOUT"],
        kind: Kind::Seconds(|s, time| s.proxy.timeout = time),
        preset: Preset::Is("60"),
        doc: "Timeout of one exchange with the proxy or Waldur.",
    },
    Setting {
        key: "waldur.api_url",
        variables: &["PROVISIONER_WALDUR_API_URL"],
        kind: Kind::Url(check::base_url, |s, url| waldur(s).api_url = url),
        preset: Preset::Absent,
        doc: "URL of Waldur's API. Required for `usage --report`, and for callbacks if the proxy does not relay them \
              (`callbacks.relay`). The token is sent to this origin only.",
    },
    Setting {
        key: "waldur.api_token",
        variables: &["PROVISIONER_WALDUR_API_TOKEN"],
        kind: Kind::Secret(check::secret, |s, text| waldur(s).api_token = text),
        preset: Preset::Absent,
        doc: "Token of a user of the service provider; for callbacks, the user must be an owner of its organization.",
    },
    Setting {
        key: "systems",
        variables: &["PROVISIONER_SYSTEMS"],
        kind: Kind::Own("mapping", system::put),
        preset: Preset::Required,
        doc: "The storage systems to manage, by their names in the document. Their keys are described in `provisioner.md`.",
    },
    Setting {
        key: "state_directory",
        variables: &["PROVISIONER_STATE_DIRECTORY"],
        kind: Kind::Text(check::absolute_path, |s, text| s.state_directory = PathBuf::from(text)),
        preset: Preset::Is("/var/lib/hpc-storage-provisioner"),
        doc: "Directory of the journal, the ledger of project IDs and the leases. Keep it: it records unfinished work.",
    },
    Setting {
        key: "drift.heal",
        variables: &["PROVISIONER_DRIFT_HEAL"],
        kind: Kind::Flag(|s, flag| s.policy.heal = flag),
        preset: Preset::Is("false"),
        doc: "Whether to correct quotas, mode, owner and ACLs of directories in use that differ from the document. \
              Otherwise the differences are only reported.",
    },
    Setting {
        key: "policy.shrink_below_usage",
        variables: &["PROVISIONER_SHRINK_BELOW_USAGE"],
        kind: Kind::Flag(|s, flag| s.policy.shrink_below_usage = flag),
        preset: Preset::Is("false"),
        doc: "Whether quotas may shrink below the usage, which stops all writing.",
    },
    Setting {
        key: "policy.refuse",
        variables: &["PROVISIONER_REFUSE"],
        kind: Kind::Flag(|s, flag| s.policy.refuse = flag),
        preset: Preset::Is("false"),
        doc: "Whether to reject an order that asks for something impossible (a limit of 0, permissions that are not octal \
              digits), or to set it erred after its approval. Otherwise it is held, like every other order that cannot be \
              carried out, until a person decides: `hpc-storage-provisioner reject`.",
    },
    Setting {
        key: "policy.absent_is_gone",
        variables: &["PROVISIONER_ABSENT_IS_GONE"],
        kind: Kind::Flag(|s, flag| s.policy.absent_is_gone = flag),
        preset: Preset::Is("false"),
        doc: "Whether to complete a termination if the directory is neither at its path nor in the trash. Otherwise it is \
              held: the directory may have been moved, or another file system may be mounted.",
    },
    Setting {
        key: "policy.mass",
        variables: &["PROVISIONER_MASS"],
        kind: Kind::Count(1_000_000, |s, count| s.policy.mass = count),
        preset: Preset::Is("5"),
        doc: "Number of removals, of rejections, and of changes without an order that one pass may make on a system without \
              confirmation: this number, or 2 % of the system's resources, whichever is more. In 24 hours, four times as many.",
    },
    Setting {
        key: "purge.enabled",
        variables: &["PROVISIONER_PURGE_ENABLED"],
        kind: Kind::Flag(|s, flag| s.purge.enabled = flag),
        preset: Preset::Is("false"),
        doc: "Whether the command `purge` deletes. `run` never does.",
    },
    Setting {
        key: "purge.retention_days",
        variables: &["PROVISIONER_PURGE_RETENTION_DAYS"],
        kind: Kind::Count(36_500, |s, count| s.purge.retention_days = count),
        preset: Preset::Is("90"),
        doc: "Minimum number of days that a tree stays in the trash.",
    },
    Setting {
        key: "purge.at_most",
        variables: &["PROVISIONER_PURGE_AT_MOST"],
        kind: Kind::Count(100_000, |s, count| s.purge.at_most = count),
        preset: Preset::Is("10"),
        doc: "Maximum number of trees that one call of `purge` deletes.",
    },
    Setting {
        key: "purge.rate",
        variables: &["PROVISIONER_PURGE_RATE"],
        kind: Kind::Count(1_000_000, |s, count| s.purge.rate = count),
        preset: Preset::Is("10000"),
        doc: "Maximum number of files and directories that `purge` deletes per second, in all trees together.",
    },
    Setting {
        key: "run.interval",
        variables: &["PROVISIONER_RUN_INTERVAL"],
        kind: Kind::Seconds(|s, time| s.run.interval = time),
        preset: Preset::Is("60"),
        doc: "Time from one pass to the next, with a jitter of 10 %.",
    },
    Setting {
        key: "run.listen",
        variables: &["PROVISIONER_LISTEN"],
        kind: Kind::Addresses(
            |text| address(text, "unix:/run/hpc-storage-provisioner/admin.sock"),
            |s, listen| s.run.listen = listen,
        ),
        preset: Preset::Absent,
        doc: "Address for `/health/live`, `/health/ready`, `/metrics` and `POST /nudge`, which starts a pass at once. \
              Nothing there is secret, but clients are not authenticated: make it reachable from the machine or the cluster only.",
    },
    Setting {
        key: "lease.url",
        variables: &["PROVISIONER_LEASE_URL"],
        kind: Kind::SecretUrl(lease_url, |s, url| s.lease_url = Some(url)),
        preset: Preset::Absent,
        doc: "Valkey or Redis server for the leases, if provisioners on several hosts manage the same systems: \
              `redis://host:6379`. Without it, a lock in the state directory excludes other processes on this host only.",
    },
    Setting {
        key: "usage.component",
        variables: &["PROVISIONER_USAGE_COMPONENT"],
        kind: Kind::Text(check::plain, |s, text| s.usage_component = text),
        preset: Preset::Is("storage"),
        doc: "Component of the offerings for which `usage --report` reports the used space, in TB of the system.",
    },
    Setting {
        key: "mock_identities",
        variables: &["PROVISIONER_MOCK_IDENTITIES"],
        kind: Kind::Flag(|s, flag| s.mock_identities = flag),
        preset: Preset::Is("false"),
        doc: "Whether to accept a document with invented GIDs, from a proxy in development mode. For trials.",
    },
    Setting {
        key: "log.debug",
        variables: &["PROVISIONER_DEBUG"],
        kind: Kind::Flag(|s, flag| s.debug = flag),
        preset: Preset::Is("false"),
        doc: "Whether to log every callback.",
    },
    Setting {
        key: "log.format",
        variables: &["PROVISIONER_LOG_FORMAT"],
        kind: Kind::Choice(&[("human", |s| s.json_log = false), ("json", |s| s.json_log = true)]),
        preset: Preset::Is("human"),
        doc: "Text lines (`human`), or JSON.",
    },
];
