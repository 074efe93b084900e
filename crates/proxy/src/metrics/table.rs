//! Every number that is published: the one list from which descriptions are registered and `docs/metrics.md` is made.

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations in buckets, with their number (`_count`) and their sum (`_sum`).
    Histogram,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// One number, or several that labels tell apart.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name, as Prometheus has it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// Labels. Their values are few, and none comes from outside.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn row(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

pub(crate) const REQUESTS: &str = "hpc_storage_proxy_request_duration_seconds";
pub(crate) const RUNNING: &str = "hpc_storage_proxy_requests_running";
pub(crate) const READY: &str = "hpc_storage_proxy_ready";
pub(crate) const REFRESHES: &str = "hpc_storage_proxy_refresh_duration_seconds";
pub(crate) const PHASES: &str = "hpc_storage_proxy_refresh_phase_duration_seconds";
pub(crate) const AGE: &str = "hpc_storage_proxy_snapshot_age_seconds";
pub(crate) const BYTES: &str = "hpc_storage_proxy_snapshot_bytes";
pub(crate) const ITEMS: &str = "hpc_storage_proxy_items";
pub(crate) const SKIPPED: &str = "hpc_storage_proxy_skipped_resources";
pub(crate) const QUOTA_PROBLEMS: &str = "hpc_storage_proxy_quota_problems";
pub(crate) const GIDS: &str = "hpc_storage_proxy_gid_cache_entries";
pub(crate) const GID_HITS: &str = "hpc_storage_proxy_gid_cache_hits_total";
pub(crate) const GID_MISSES: &str = "hpc_storage_proxy_gid_cache_misses_total";
pub(crate) const TOKENS: &str = "hpc_storage_proxy_token_renewals_total";
pub(crate) const KEYS: &str = "hpc_storage_proxy_key_renewals_total";
pub(crate) const KEYS_AGE: &str = "hpc_storage_proxy_keys_age_seconds";
pub(crate) const EXCHANGES: &str = "hpc_storage_proxy_upstream_exchange_duration_seconds";
pub(crate) const REPEATS: &str = "hpc_storage_proxy_upstream_repeats_total";
pub(crate) const SUCCESS_AGE: &str = "hpc_storage_proxy_upstream_success_age_seconds";
pub(crate) const BREAKER: &str = "hpc_storage_proxy_upstream_breaker";
pub(crate) const SHARED_UP: &str = "hpc_storage_proxy_shared_cache_up";
pub(crate) const SHARED_EXCHANGES: &str = "hpc_storage_proxy_shared_cache_exchanges_total";
pub(crate) const TAKEN: &str = "hpc_storage_proxy_readings_taken_total";
pub(crate) const LOST_LINES: &str = "hpc_storage_proxy_log_lines_lost_total";
pub(crate) const BUILD: &str = "hpc_storage_proxy_build_info";

/// All of them, in the order of the reference.
pub const TABLE: &[Metric] = &[
    row(
        REQUESTS,
        Kind::Histogram,
        Unit::Seconds,
        &["route", "status"],
        "Requests of the API, from the head to the head of the answer. `status` is `gone` where the caller of HTTP/2 \
         cancelled the request, or the server stopped. With HTTP/1 a caller that leaves looks like one that has ended its \
         sending side, so the request counts with its answer. Probes and scrapes do not count.",
    ),
    row(RUNNING, Kind::Gauge, Unit::Count, &[], "Requests that run now; `server.max_requests` is the most."),
    row(READY, Kind::Gauge, Unit::Count, &[], "1 while `/health/ready` answers 200, else 0."),
    row(
        REFRESHES,
        Kind::Histogram,
        Unit::Seconds,
        &["outcome"],
        "Readings of all upstreams by this replica. `outcome` is `success` or `failure`.",
    ),
    row(
        PHASES,
        Kind::Histogram,
        Unit::Seconds,
        &["phase"],
        "Parts of the readings that succeed: `read` asks the upstreams, `build` computes the catalogue, `render` makes it \
         JSON.",
    ),
    row(
        AGE,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time since the reading of the newest snapshot began; absent before the first. Without \
         `cache.refresh_interval` it grows while nobody asks. It also goes on growing when new settings need another \
         snapshot that cannot be read.",
    ),
    row(BYTES, Kind::Gauge, Unit::Bytes, &[], "Size of the newest snapshot as JSON."),
    row(
        ITEMS,
        Kind::Gauge,
        Unit::Count,
        &["storage_system", "target_type", "status"],
        "Items of the newest snapshot. `storage_system` is a name of the settings, `target_type` is `tenant`, `customer`, \
         `project` or `user`.",
    ),
    row(
        SKIPPED,
        Kind::Gauge,
        Unit::Count,
        &["reason"],
        "Resources that the newest snapshot leaves out. `reason` is `MissingIdentityError` or `MalformedResourceError`.",
    ),
    row(
        QUOTA_PROBLEMS,
        Kind::Gauge,
        Unit::Count,
        &["code"],
        "Items of the newest snapshot whose quotas cannot be trusted, so no provisioner acts on them. `code` is as in \
         `quotaProblems` of the listing: `missing_component`, `pinned_by_option`, `unreadable_order`, `zero_limit` or \
         `zero_ordered`.",
    ),
    row(GIDS, Kind::Gauge, Unit::Count, &[], "Projects whose GID is cached."),
    row(GID_HITS, Kind::Counter, Unit::Count, &[], "GIDs that a reading took from the cache."),
    row(GID_MISSES, Kind::Counter, Unit::Count, &[], "GIDs about which a reading asked the HPC User API."),
    row(
        TOKENS,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Requests for a machine token for the HPC User API. `outcome` is `success` or `failure`.",
    ),
    row(
        KEYS,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Requests for the realm's signing keys. `outcome` is `success` or `failure`.",
    ),
    row(
        KEYS_AGE,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time since the realm's signing keys were last fetched; absent before, and with `auth.disable_auth`. It goes on \
         growing when new settings name a realm whose keys cannot be fetched.",
    ),
    row(
        EXCHANGES,
        Kind::Histogram,
        Unit::Seconds,
        &["upstream", "outcome"],
        "Exchanges with upstreams, each with its repetitions. `upstream` is the name that the log uses; `outcome` is \
         `success`, `refused` (a status of 400 to 499), `failed` (500 to 599), `unreachable`, `timed_out`, `broken_off`, \
         `unusable` (too large, or a redirect) or `left_alone` (nothing was sent, since it failed before).",
    ),
    row(REPEATS, Kind::Counter, Unit::Count, &["upstream"], "Requests that were sent again."),
    row(
        SUCCESS_AGE,
        Kind::Gauge,
        Unit::Seconds,
        &["upstream"],
        "Time since an upstream last answered; absent before. It grows while nothing is asked of it.",
    ),
    row(
        BREAKER,
        Kind::Gauge,
        Unit::Count,
        &["upstream", "state"],
        "1 for the state in which the breaker is, 0 for the others: `closed` lets requests through, `open` none for a \
         moment, `half_open` one that tries.",
    ),
    row(
        SHARED_UP,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while the server of `cache.shared_url` does what is asked of it, 0 while this replica stands alone; absent without \
         that setting, and before the first exchange.",
    ),
    row(
        SHARED_EXCHANGES,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Exchanges with that server. `outcome` is `success`, `failed`, `timed_out`, or `left_alone` (nothing was sent, since it \
         failed a moment ago).",
    ),
    row(
        TAKEN,
        Kind::Counter,
        Unit::Count,
        &[],
        "Readings of other replicas that this one has taken from there instead of asking the upstreams. They are no refreshes.",
    ),
    row(
        LOST_LINES,
        Kind::Counter,
        Unit::Count,
        &[],
        "Lines of the log that were lost, since whoever reads standard output did not keep up.",
    ),
    row(BUILD, Kind::Gauge, Unit::Count, &["version"], "Always 1."),
    row("process_cpu_seconds_total", Kind::Counter, Unit::Seconds, &[], "Processor time, of users and of the system."),
    row("process_resident_memory_bytes", Kind::Gauge, Unit::Bytes, &[], "Memory in use."),
    row("process_virtual_memory_bytes", Kind::Gauge, Unit::Bytes, &[], "Addresses in use."),
    row(
        "process_virtual_memory_max_bytes",
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "The limit on addresses; 0 where there is none.",
    ),
    row("process_open_fds", Kind::Gauge, Unit::Count, &[], "Open files and connections."),
    row("process_max_fds", Kind::Gauge, Unit::Count, &[], "The limit on open files and connections."),
    row("process_threads", Kind::Gauge, Unit::Count, &[], "Threads."),
    row(
        "process_start_time_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "When the process started, in seconds since 1970.",
    ),
];
