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
        Err(invalid("no URL of a Valkey or Redis server", "give one, such as redis://host:6379"))
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
        doc: "The proxy's own `server.public_url`, where it relays callbacks and is reached here by another URL.",
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
        doc: "Client of the realm, with a service account.",
    },
    Setting {
        key: "proxy.client_secret",
        variables: &["PROVISIONER_CLIENT_SECRET"],
        kind: Kind::Secret(check::secret, |s, text| s.proxy.client_secret = Some(text)),
        preset: Preset::Absent,
        doc: "Its secret.",
    },
    Setting {
        key: "proxy.timeout",
        variables: &["PROVISIONER_TIMEOUT"],
        kind: Kind::Seconds(|s, time| s.proxy.timeout = time),
        preset: Preset::Is("60"),
        doc: "Longest time for one exchange with the proxy or Waldur.",
    },
    Setting {
        key: "waldur.api_url",
        variables: &["PROVISIONER_WALDUR_API_URL"],
        kind: Kind::Url(check::base_url, |s, url| waldur(s).api_url = url),
        preset: Preset::Absent,
        doc: "URL of Waldur's API. Needed for `usage --report`, and for callbacks where the proxy does not relay them \
              (`callbacks.relay`). The token goes to this origin alone.",
    },
    Setting {
        key: "waldur.api_token",
        variables: &["PROVISIONER_WALDUR_API_TOKEN"],
        kind: Kind::Secret(check::secret, |s, text| waldur(s).api_token = text),
        preset: Preset::Absent,
        doc: "Token of a user of the service provider; for callbacks an owner of its organization.",
    },
    Setting {
        key: "systems",
        variables: &["PROVISIONER_SYSTEMS"],
        kind: Kind::Own("mapping", system::put),
        preset: Preset::Required,
        doc: "The storage systems that are driven here, by their names in the document: see above.",
    },
    Setting {
        key: "state_directory",
        variables: &["PROVISIONER_STATE_DIRECTORY"],
        kind: Kind::Text(check::absolute_path, |s, text| s.state_directory = PathBuf::from(text)),
        preset: Preset::Is("/var/lib/hpc-storage-provisioner"),
        doc: "Where the journal, the ledger of project IDs and the leases are. Keep it: it says what was begun.",
    },
    Setting {
        key: "drift.heal",
        variables: &["PROVISIONER_DRIFT_HEAL"],
        kind: Kind::Flag(|s, flag| s.policy.heal = flag),
        preset: Preset::Is("false"),
        doc: "Whether quotas, mode, owner and ACLs of directories in use are put right when they are not as they should be. \
              Otherwise they are told.",
    },
    Setting {
        key: "policy.shrink_below_usage",
        variables: &["PROVISIONER_SHRINK_BELOW_USAGE"],
        kind: Kind::Flag(|s, flag| s.policy.shrink_below_usage = flag),
        preset: Preset::Is("false"),
        doc: "Whether quotas may shrink below what is used, which stops all writing.",
    },
    Setting {
        key: "policy.refuse",
        variables: &["PROVISIONER_REFUSE"],
        kind: Kind::Flag(|s, flag| s.policy.refuse = flag),
        preset: Preset::Is("false"),
        doc: "Whether an order that literally asks for something impossible (a limit of 0, permissions that are not octal \
              digits) is rejected before its approval, or set erred after it. Otherwise it is held, like every other order \
              that cannot be carried out, and a person decides: `hpc-storage-provisioner reject`.",
    },
    Setting {
        key: "policy.absent_is_gone",
        variables: &["PROVISIONER_ABSENT_IS_GONE"],
        kind: Kind::Flag(|s, flag| s.policy.absent_is_gone = flag),
        preset: Preset::Is("false"),
        doc: "Whether a termination is said to be done when the directory is neither at its place nor in the trash. \
              Otherwise it is held: the directory may have been moved away, or another file system be mounted.",
    },
    Setting {
        key: "policy.mass",
        variables: &["PROVISIONER_MASS"],
        kind: Kind::Count(1_000_000, |s, count| s.policy.mass = count),
        preset: Preset::Is("5"),
        doc: "How many removals, refusals, and changes without an order each one pass may have on a system without asking: \
              this number, or two in a hundred of its resources, whichever is more. In 24 hours four times as many.",
    },
    Setting {
        key: "purge.enabled",
        variables: &["PROVISIONER_PURGE_ENABLED"],
        kind: Kind::Flag(|s, flag| s.purge.enabled = flag),
        preset: Preset::Is("false"),
        doc: "Whether the command `purge` deletes. The loop never does.",
    },
    Setting {
        key: "purge.retention_days",
        variables: &["PROVISIONER_PURGE_RETENTION_DAYS"],
        kind: Kind::Count(36_500, |s, count| s.purge.retention_days = count),
        preset: Preset::Is("90"),
        doc: "For how many days a tree stays in the trash at least.",
    },
    Setting {
        key: "purge.at_most",
        variables: &["PROVISIONER_PURGE_AT_MOST"],
        kind: Kind::Count(100_000, |s, count| s.purge.at_most = count),
        preset: Preset::Is("10"),
        doc: "How many trees one call of `purge` deletes at most.",
    },
    Setting {
        key: "purge.rate",
        variables: &["PROVISIONER_PURGE_RATE"],
        kind: Kind::Count(1_000_000, |s, count| s.purge.rate = count),
        preset: Preset::Is("10000"),
        doc: "How many files and directories `purge` deletes a second at most, all trees together.",
    },
    Setting {
        key: "run.interval",
        variables: &["PROVISIONER_RUN_INTERVAL"],
        kind: Kind::Seconds(|s, time| s.run.interval = time),
        preset: Preset::Is("60"),
        doc: "Time from one pass to the next, with a tenth more or less.",
    },
    Setting {
        key: "run.listen",
        variables: &["PROVISIONER_LISTEN"],
        kind: Kind::Addresses(
            |text| address(text, "unix:/run/hpc-storage-provisioner/admin.sock"),
            |s, listen| s.run.listen = listen,
        ),
        preset: Preset::Absent,
        doc: "Address for `/health/live`, `/health/ready`, `/metrics` and `POST /nudge`, which begins a pass at once. \
              Nothing there is secret, and nobody is asked who he is: keep it to the machine or the cluster.",
    },
    Setting {
        key: "lease.url",
        variables: &["PROVISIONER_LEASE_URL"],
        kind: Kind::SecretUrl(lease_url, |s, url| s.lease_url = Some(url)),
        preset: Preset::Absent,
        doc: "Valkey or Redis server with the leases, where provisioners on several hosts drive the same systems: \
              `redis://host:6379`. Without it a lock in the state directory keeps others of this host away.",
    },
    Setting {
        key: "usage.component",
        variables: &["PROVISIONER_USAGE_COMPONENT"],
        kind: Kind::Text(check::plain, |s, text| s.usage_component = text),
        preset: Preset::Is("storage"),
        doc: "Component of the offerings that `usage --report` tells the space used, in the offering's TB.",
    },
    Setting {
        key: "mock_identities",
        variables: &["PROVISIONER_MOCK_IDENTITIES"],
        kind: Kind::Flag(|s, flag| s.mock_identities = flag),
        preset: Preset::Is("false"),
        doc: "Whether a document with invented GIDs, from a proxy in development mode, is taken for real. For trials.",
    },
    Setting {
        key: "log.debug",
        variables: &["PROVISIONER_DEBUG"],
        kind: Kind::Flag(|s, flag| s.debug = flag),
        preset: Preset::Is("false"),
        doc: "Whether the log has each callback that goes out.",
    },
    Setting {
        key: "log.format",
        variables: &["PROVISIONER_LOG_FORMAT"],
        kind: Kind::Choice(&[("human", |s| s.json_log = false), ("json", |s| s.json_log = true)]),
        preset: Preset::Is("human"),
        doc: "Lines for people, or JSON.",
    },
];
