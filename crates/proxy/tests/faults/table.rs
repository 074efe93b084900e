//! The outcome of each fault of each upstream. `docs/faults.md` is generated from this table.

use Outcome::{Absent, Denied, Fails, Skipped, Whole, WholeBut};
use Upstream::{Customers, Discovery, Gids, Keys, Resources, Sentry, Tokens};

/// A service that the proxy calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    Resources,
    Customers,
    Gids,
    Tokens,
    Discovery,
    Keys,
    Sentry,
}

/// In the order of the columns.
pub(crate) const UPSTREAMS: [Upstream; 7] = [Resources, Customers, Gids, Tokens, Discovery, Keys, Sentry];

impl Upstream {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Resources => "Waldur: resources",
            Customers => "Waldur: customers",
            Gids => "HPC User API",
            Tokens => "HPC User API: token endpoint",
            Discovery => "Keycloak: discovery",
            Keys => "Keycloak: keys",
            Sentry => "Sentry",
        }
    }

    /// The simulator's route for it.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Resources => "GET /api/marketplace-provider-resources/",
            Customers => "GET /api/marketplace-provider-offerings/*/customers/",
            Gids => "GET /hpc/*",
            Tokens => "POST */protocol/openid-connect/token",
            Discovery => "GET */.well-known/openid-configuration",
            Keys => "GET */protocol/openid-connect/certs",
            Sentry => "POST /api/7/envelope/",
        }
    }

    /// Whether it is called at the start and rarely afterwards.
    pub(crate) fn is_realm(self) -> bool {
        matches!(self, Discovery | Keys)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refused,
    CutOff,
    Reset,
    Silent,
    Dripping,
    Unauthorized,
    Forbidden,
    NotFound,
    TooManySeconds,
    TooManyDate,
    InternalError,
    BadGateway,
    Unavailable,
    NotJson,
    WrongJson,
    BadRecord,
    BadMembers,
    EndlessBody,
    EndlessPages,
    MovingPages,
    Redirect,
    BadCertificate,
    NoSuchName,
    ClockOff,
}

use Trouble::{
    BadCertificate, BadGateway, BadMembers, BadRecord, ClockOff, CutOff, Dripping, EndlessBody, EndlessPages,
    Forbidden, InternalError, MovingPages, NoSuchName, NotFound, NotJson, Redirect, Refused, Reset, Silent,
    TooManyDate, TooManySeconds, Unauthorized, Unavailable, WrongJson,
};

impl Trouble {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Refused => "connection refused",
            CutOff => "connection closed during the answer",
            Reset => "connection reset before the answer",
            Silent => "no answer",
            Dripping => "one byte per second",
            Unauthorized => "401",
            Forbidden => "403",
            NotFound => "404",
            TooManySeconds => "429, `Retry-After` in seconds",
            TooManyDate => "429, `Retry-After` as a date",
            InternalError => "500",
            BadGateway => "502",
            Unavailable => "503",
            NotJson => "not JSON",
            WrongJson => "JSON of another type",
            BadRecord => "`null` in place of a record",
            BadMembers => "one malformed record",
            EndlessBody => "endless body",
            EndlessPages => "endless pages",
            MovingPages => "pages change while they are read",
            Redirect => "redirect to another host",
            BadCertificate => "untrusted certificate",
            NoSuchName => "host name does not resolve",
            ClockOff => "clock wrong by an hour",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200, the same listing as without the fault.
    Whole,
    /// 200, the same listing as without the fault, but with this difference elsewhere.
    WholeBut(&'static str),
    /// 200; records that cannot be used are named in `skipped`, with this text.
    Skipped(&'static str),
    /// 502, with one of these texts, separated by `|`.
    Fails(&'static str),
    /// 401 with this text.
    Denied(&'static str),
    /// The fault does not exist for this upstream, for this reason.
    Absent(&'static str),
}

const UNREACHABLE: Outcome = Fails("cannot connect");
const TIMED_OUT: Outcome = Fails("no complete answer in time");
const INTERRUPTED: Outcome = Fails("the connection ended before the answer was complete");
const WALDUR_REFUSES: Outcome = Fails("check WALDUR_API_TOKEN");
const API_REFUSES: Outcome = Fails("refuses the machine token");
const NOT_JSON: Outcome = Fails("not the expected JSON");
/// The outcome depends on how many retries fit into the deadline.
const TOO_MANY: Outcome = Fails("it answered 429|no complete answer in time|the circuit breaker is open");
const REDIRECTS: Outcome = Fails("it redirects to");
const TOO_LARGE: Outcome = Fails("larger than|no complete answer in time");
const SAME_AS_RESOURCES: Outcome = Absent("same address as the resources");
const SAME_AS_KEYS: Outcome = Absent("same address as the keys");
const NO_RECORDS: Outcome = Absent("no list");
const NO_PAGES: Outcome = Absent("no pages");
/// The discovery document is ignored and Keycloak's fixed paths are used.
const FIXED_PATHS: Outcome = WholeBut("Keycloak's fixed paths are used");
/// Decision D18.
const FROM_RESOURCES: Outcome = WholeBut("customers are taken from the fields of the resources");

/// Rows: faults; columns: [`UPSTREAMS`].
#[rustfmt::skip]
pub(crate) const MATRIX: [(Trouble, [Outcome; 7]); 24] = [
    (Refused, [UNREACHABLE, SAME_AS_RESOURCES, UNREACHABLE, UNREACHABLE, SAME_AS_KEYS, UNREACHABLE, Whole]),
    (CutOff, [INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, Whole]),
    (Reset, [INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, INTERRUPTED, Whole]),
    (Silent, [TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, Whole]),
    (Dripping, [TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, Whole]),
    (Unauthorized, [WALDUR_REFUSES, WALDUR_REFUSES, API_REFUSES, Fails("check HPC_USER_CLIENT_ID"), FIXED_PATHS, Fails("it answered 401"), Whole]),
    (Forbidden, [WALDUR_REFUSES, FROM_RESOURCES, API_REFUSES, Fails("it answered 403"), FIXED_PATHS, Fails("it answered 403"), Whole]),
    (NotFound, [Fails("it answered 404"), FROM_RESOURCES, Fails("check HPC_USER_API_URL"), Fails("check HPC_USER_OIDC_TOKEN_URL"), FIXED_PATHS, Fails("it answered 404"), Whole]),
    (TooManySeconds, [TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, FIXED_PATHS, TOO_MANY, Whole]),
    (TooManyDate, [TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, FIXED_PATHS, TOO_MANY, Whole]),
    (InternalError, [Fails("it answered 500"), Fails("it answered 500"), Fails("it answered 500"), Fails("it answered 500"), FIXED_PATHS, Fails("it answered 500"), Whole]),
    (BadGateway, [Fails("it answered 502"), Fails("it answered 502"), Fails("it answered 502"), Fails("it answered 502"), FIXED_PATHS, Fails("it answered 502"), Whole]),
    (Unavailable, [Fails("it answered 503"), Fails("it answered 503"), Fails("it answered 503"), Fails("it answered 503"), FIXED_PATHS, Fails("it answered 503"), Whole]),
    (NotJson, [NOT_JSON, NOT_JSON, NOT_JSON, NOT_JSON, FIXED_PATHS, NOT_JSON, Whole]),
    (WrongJson, [NOT_JSON, NOT_JSON, Fails("it has no list `projects`"), Fails("`access_token` is missing"), FIXED_PATHS, Fails("it has no list of keys"), Whole]),
    (BadRecord, [Fails("row 1 is not a record"), Fails("uuid, slug or name cannot be read"), Fails("are not objects with a `posixName`"), NO_RECORDS, NO_RECORDS, WholeBut("tokens signed with that key are refused"), Absent("the answer is not read")]),
    (BadMembers, [Skipped("MalformedResourceError"), Fails("uuid, slug or name cannot be read"), Skipped("something that is not a GID"), NO_RECORDS, NO_RECORDS, WholeBut("tokens signed with that key are refused"), Absent("the answer is not read")]),
    (EndlessBody, [TOO_LARGE, TOO_LARGE, TOO_LARGE, TOO_LARGE, FIXED_PATHS, TOO_LARGE, Whole]),
    (EndlessPages, [Whole, Whole, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES]),
    (MovingPages, [Fails("the list of resources changed while it was read"), Fails("the list of customers changed while it was read"), NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES]),
    (Redirect, [REDIRECTS, REDIRECTS, REDIRECTS, REDIRECTS, FIXED_PATHS, REDIRECTS, Whole]),
    (BadCertificate, [UNREACHABLE, SAME_AS_RESOURCES, UNREACHABLE, UNREACHABLE, SAME_AS_KEYS, UNREACHABLE, Whole]),
    (NoSuchName, [UNREACHABLE, SAME_AS_RESOURCES, UNREACHABLE, UNREACHABLE, SAME_AS_KEYS, UNREACHABLE, Whole]),
    (ClockOff, [Whole, Whole, Whole, Whole, Whole, Denied("do the clocks agree?"), Whole]),
];
