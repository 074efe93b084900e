//! The list of all metrics, from which their descriptions and `docs/metrics.md` are generated.

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only increases, until the process restarts.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Observations in buckets, with their count (`_count`) and sum (`_sum`).
    Histogram,
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Seconds,
    Bytes,
}

/// A metric: one series for each combination of label values.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// Label names. Their values are few, and none comes from clients, except for the names of at most 32 provisioners.
    pub labels: &'static [&'static str],
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
pub(crate) const WAITING: &str = "hpc_storage_proxy_requests_waiting";
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
pub(crate) const SIGN_INS: &str = "hpc_storage_proxy_sign_ins_total";
pub(crate) const LOST_LINES: &str = "hpc_storage_proxy_log_lines_lost_total";
pub(crate) const READINGS: &str = "hpc_storage_proxy_readings_total";
pub(crate) const MISSED: &str = "hpc_storage_proxy_missed_changes_total";
pub(crate) const PUSH_CONNECTED: &str = "hpc_storage_proxy_push_connected";
pub(crate) const PUSH_EVENTS: &str = "hpc_storage_proxy_push_events_total";
pub(crate) const PUSH_RECONNECTS: &str = "hpc_storage_proxy_push_reconnects_total";
pub(crate) const PUSH_SILENCES: &str = "hpc_storage_proxy_push_silences_total";
pub(crate) const REPORT_AGE: &str = "hpc_storage_proxy_report_age_seconds";
pub(crate) const SILENT: &str = "hpc_storage_proxy_provisioner_silent";
pub(crate) const BUILD: &str = "hpc_storage_proxy_build_info";

/// All of them, in the order of the reference.
pub const TABLE: &[Metric] = &[
    row(
        REQUESTS,
        Kind::Histogram,
        Unit::Seconds,
        &["route", "status"],
        "Requests of the API, from the request's head to the response's head. `status` is `gone` if an HTTP/2 client \
         cancelled the request, a client that waited for a change disconnected, or the server stopped. Otherwise an HTTP/1 client \
         that disconnects cannot be distinguished from one that has only closed its sending side, so its request counts with its \
         status. Probes and scrapes are not counted, nor is the time that a request waits for a change.",
    ),
    row(RUNNING, Kind::Gauge, Unit::Count, &[], "Running requests; the limit is `server.max_requests`."),
    row(
        WAITING,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Requests that wait for a change (`Prefer: wait=…`); the limit is `server.max_waiting`.",
    ),
    row(READY, Kind::Gauge, Unit::Count, &[], "1 while `/health/ready` returns 200, else 0."),
    row(
        REFRESHES,
        Kind::Histogram,
        Unit::Seconds,
        &["outcome"],
        "Refreshes by this replica, which read all upstreams. `outcome` is `success` or `failure`.",
    ),
    row(
        PHASES,
        Kind::Histogram,
        Unit::Seconds,
        &["phase"],
        "Phases of successful refreshes: `read` reads the upstreams, `build` computes the catalogue, `render` renders it \
         as JSON.",
    ),
    row(
        READINGS,
        Kind::Counter,
        Unit::Count,
        &["kind"],
        "Readings of Waldur. `kind` is `full` for all resources, `changes` for open orders and changed resources. Those that found \
         nothing new count as `unchanged` too.",
    ),
    row(
        MISSED,
        Kind::Counter,
        Unit::Count,
        &[],
        "Resources with changes that a full reading found and the refreshes before should have found. Changes that they cannot see \
         (`cache.full_interval`) do not count.",
    ),
    row(
        AGE,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time since the start of the refresh that created the newest snapshot; absent before the first snapshot. Without \
         `cache.refresh_interval` it grows while there are no requests. It also keeps growing when changed settings need \
         a new snapshot and the refresh fails.",
    ),
    row(BYTES, Kind::Gauge, Unit::Bytes, &[], "Size of the newest snapshot as JSON."),
    row(
        ITEMS,
        Kind::Gauge,
        Unit::Count,
        &["storage_system", "target_type", "status"],
        "Items of the newest snapshot. `storage_system` is a name from the settings, `target_type` is `tenant`, `customer`, \
         `project` or `user`.",
    ),
    row(
        SKIPPED,
        Kind::Gauge,
        Unit::Count,
        &["reason"],
        "Resources skipped in the newest snapshot. `reason` is `MissingIdentityError` or `MalformedResourceError`.",
    ),
    row(
        QUOTA_PROBLEMS,
        Kind::Gauge,
        Unit::Count,
        &["code"],
        "Items of the newest snapshot whose quotas cannot be trusted, so provisioners do not act on them. `code` is that of \
         `quotaProblems` in the listing: `missing_component`, `pinned_by_option`, `unreadable_order`, `zero_limit` or \
         `zero_ordered`.",
    ),
    row(GIDS, Kind::Gauge, Unit::Count, &[], "Projects with a cached GID."),
    row(GID_HITS, Kind::Counter, Unit::Count, &[], "GIDs that refreshes found in the cache."),
    row(GID_MISSES, Kind::Counter, Unit::Count, &[], "GIDs that refreshes requested from the HPC User API."),
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
        "Time since the realm's signing keys were last fetched; absent before that, and with `auth.disable_auth`. It keeps \
         growing when changed settings name a realm whose keys cannot be fetched.",
    ),
    row(
        EXCHANGES,
        Kind::Histogram,
        Unit::Seconds,
        &["upstream", "outcome"],
        "Exchanges with upstreams, retries included. `upstream` is the name used in the log; `outcome` is \
         `success`, `refused` (status 400 to 499), `failed` (500 to 599), `unreachable`, `timed_out`, `broken_off`, \
         `unusable` (too large, or a redirect) or `left_alone` (nothing was sent, because the circuit breaker was open).",
    ),
    row(REPEATS, Kind::Counter, Unit::Count, &["upstream"], "Retried requests to upstreams."),
    row(
        SUCCESS_AGE,
        Kind::Gauge,
        Unit::Seconds,
        &["upstream"],
        "Time since the last successful exchange with an upstream; absent before that. It grows while no requests are sent to it.",
    ),
    row(
        BREAKER,
        Kind::Gauge,
        Unit::Count,
        &["upstream", "state"],
        "1 for the current state of the circuit breaker, 0 for the others: `closed` allows all requests, `open` none for a \
         short time, `half_open` a single trial request.",
    ),
    row(
        SHARED_UP,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while the server of `cache.shared_url` works, 0 while this replica works without it; absent without \
         that setting, and before the first exchange.",
    ),
    row(
        SHARED_EXCHANGES,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Exchanges with that server. `outcome` is `success`, `failed`, `timed_out`, or `left_alone` (nothing was sent, \
         because it has just failed).",
    ),
    row(
        TAKEN,
        Kind::Counter,
        Unit::Count,
        &[],
        "Snapshots that this replica took from the shared cache instead of reading the upstreams. They do not count as refreshes.",
    ),
    row(
        PUSH_CONNECTED,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while the proxy receives Waldur's events, 0 while it does not and only polls; absent without `waldur_api.push`.",
    ),
    row(PUSH_EVENTS, Kind::Counter, Unit::Count, &[], "Events received from Waldur."),
    row(
        PUSH_RECONNECTS,
        Kind::Counter,
        Unit::Count,
        &[],
        "Attempts to receive Waldur's events again after a connection or an attempt had failed.",
    ),
    row(
        PUSH_SILENCES,
        Kind::Counter,
        Unit::Count,
        &[],
        "Connections that looked healthy and were replaced, because refreshes found several changes that no event had announced.",
    ),
    row(
        REPORT_AGE,
        Kind::Gauge,
        Unit::Seconds,
        &["provisioner"],
        "Seconds since a provisioner sent its last report, for at most 32 provisioners. They are forgotten after seven days, and, \
         without `cache.shared_url`, with a restart of the proxy until the next report.",
    ),
    row(
        SILENT,
        Kind::Gauge,
        Unit::Count,
        &["provisioner"],
        "1 if a provisioner has not sent the next report within the time that its last one gave, else 0.",
    ),
    row(
        SIGN_INS,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Sign-ins of operators to the dashboard. `outcome` is `success`, `forbidden` (without the required roles), `declined` (cancelled, \
         or refused by the realm), `invalid` (another browser began it, it took too long, or was completed before), `unavailable` (the realm cannot be reached \
         or has a problem), or `misconfigured` (the realm refuses the client, or its tokens are not accepted).",
    ),
    row(
        LOST_LINES,
        Kind::Counter,
        Unit::Count,
        &[],
        "Log lines that were lost because the reader of standard output was too slow.",
    ),
    row(BUILD, Kind::Gauge, Unit::Count, &["version"], "Always 1."),
    row("process_cpu_seconds_total", Kind::Counter, Unit::Seconds, &[], "CPU time, user and system."),
    row("process_resident_memory_bytes", Kind::Gauge, Unit::Bytes, &[], "Resident memory."),
    row("process_virtual_memory_bytes", Kind::Gauge, Unit::Bytes, &[], "Virtual memory."),
    row(
        "process_virtual_memory_max_bytes",
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "Limit on virtual memory; 0 if there is none.",
    ),
    row("process_open_fds", Kind::Gauge, Unit::Count, &[], "Open file descriptors."),
    row("process_max_fds", Kind::Gauge, Unit::Count, &[], "Limit on open file descriptors."),
    row("process_threads", Kind::Gauge, Unit::Count, &[], "Threads."),
    row(
        "process_start_time_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Start time of the process, in seconds since 1970.",
    ),
];
