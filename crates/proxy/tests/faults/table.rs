//! The matrix: for each fault and each upstream what comes of it. `docs/faults.md` is made of it.

use Outcome::{Absent, Denied, Fails, LeftOut, Whole, WholeBut};
use Upstream::{Customers, Discovery, Gids, Keys, Resources, Sentry, Tokens};

/// What the proxy asks, or tells.
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

/// All upstreams, in the order of the columns.
pub(crate) const UPSTREAMS: [Upstream; 7] = [Resources, Customers, Gids, Tokens, Discovery, Keys, Sentry];

impl Upstream {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Resources => "Waldur: resources",
            Customers => "Waldur: customers",
            Gids => "HPC User API",
            Tokens => "its token endpoint",
            Discovery => "Keycloak: discovery",
            Keys => "Keycloak: keys",
            Sentry => "Sentry",
        }
    }

    /// What the simulator calls it.
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

    /// Whether it is asked before callers are admitted, and hardly ever again.
    pub(crate) fn is_realm(self) -> bool {
        matches!(self, Discovery | Keys)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refused,
    BrokenOff,
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
    BadCertificate, BadGateway, BadMembers, BadRecord, BrokenOff, ClockOff, Dripping, EndlessBody, EndlessPages,
    Forbidden, InternalError, MovingPages, NoSuchName, NotFound, NotJson, Redirect, Refused, Reset, Silent,
    TooManyDate, TooManySeconds, Unauthorized, Unavailable, WrongJson,
};

impl Trouble {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Refused => "connection refused",
            BrokenOff => "connection ends within the answer",
            Reset => "connection reset before the answer",
            Silent => "never answers",
            Dripping => "one byte a second",
            Unauthorized => "401",
            Forbidden => "403",
            NotFound => "404",
            TooManySeconds => "429, `Retry-After` in seconds",
            TooManyDate => "429, `Retry-After` as a date",
            InternalError => "500",
            BadGateway => "502",
            Unavailable => "503",
            NotJson => "not JSON",
            WrongJson => "other JSON",
            BadRecord => "`null` in place of a record",
            BadMembers => "one malformed record",
            EndlessBody => "body without end",
            EndlessPages => "pages without end",
            MovingPages => "pages change while they are read",
            Redirect => "redirect to another host",
            BadCertificate => "untrusted certificate",
            NoSuchName => "name does not resolve",
            ClockOff => "clock an hour off",
        }
    }
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200, as without the fault.
    Whole,
    /// 200, as without the fault but for this.
    WholeBut(&'static str),
    /// 200; what has no place is named in `skipped`, with these words.
    LeftOut(&'static str),
    /// 502, with one of these texts, parted by `|`.
    Fails(&'static str),
    /// 401 with these words.
    Denied(&'static str),
    /// There is no such thing, for this reason.
    Absent(&'static str),
}

const UNREACHABLE: Outcome = Fails("cannot connect");
const TIMED_OUT: Outcome = Fails("no complete answer in time");
const BROKE_OFF: Outcome = Fails("the answer broke off");
const WALDUR_REFUSES: Outcome = Fails("check WALDUR_API_TOKEN");
const API_REFUSES: Outcome = Fails("refuses the machine token");
const NOT_JSON: Outcome = Fails("not the JSON expected");
/// As far as there is time for the repetitions that it allows.
const TOO_MANY: Outcome = Fails("it answered 429|no complete answer in time|it is left alone");
const REDIRECTS: Outcome = Fails("it redirects to");
const TOO_LARGE: Outcome = Fails("larger than|no complete answer in time");
const WITH_RESOURCES: Outcome = Absent("the same address as the resources");
const WITH_KEYS: Outcome = Absent("the same address as the keys");
const NO_RECORDS: Outcome = Absent("no list");
const NO_PAGES: Outcome = Absent("no pages");
/// An answer of discovery that is none: Keycloak's fixed paths serve.
const FIXED_PATHS: Outcome = WholeBut("Keycloak's fixed paths are used");
/// Decision D18.
const OWN_FIELDS: Outcome = WholeBut("the customers come from the resources' own fields");

/// Rows: faults; columns: [`UPSTREAMS`].
#[rustfmt::skip]
pub(crate) const MATRIX: [(Trouble, [Outcome; 7]); 24] = [
    (Refused, [UNREACHABLE, WITH_RESOURCES, UNREACHABLE, UNREACHABLE, WITH_KEYS, UNREACHABLE, Whole]),
    (BrokenOff, [BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, Whole]),
    (Reset, [BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, BROKE_OFF, Whole]),
    (Silent, [TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, Whole]),
    (Dripping, [TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, TIMED_OUT, Whole]),
    (Unauthorized, [WALDUR_REFUSES, WALDUR_REFUSES, API_REFUSES, Fails("check HPC_USER_CLIENT_ID"), FIXED_PATHS, Fails("it answered 401"), Whole]),
    (Forbidden, [WALDUR_REFUSES, OWN_FIELDS, API_REFUSES, Fails("it answered 403"), FIXED_PATHS, Fails("it answered 403"), Whole]),
    (NotFound, [Fails("it answered 404"), OWN_FIELDS, Fails("check HPC_USER_API_URL"), Fails("check HPC_USER_OIDC_TOKEN_URL"), FIXED_PATHS, Fails("it answered 404"), Whole]),
    (TooManySeconds, [TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, FIXED_PATHS, TOO_MANY, Whole]),
    (TooManyDate, [TOO_MANY, TOO_MANY, TOO_MANY, TOO_MANY, FIXED_PATHS, TOO_MANY, Whole]),
    (InternalError, [Fails("it answered 500"), Fails("it answered 500"), Fails("it answered 500"), Fails("it answered 500"), FIXED_PATHS, Fails("it answered 500"), Whole]),
    (BadGateway, [Fails("it answered 502"), Fails("it answered 502"), Fails("it answered 502"), Fails("it answered 502"), FIXED_PATHS, Fails("it answered 502"), Whole]),
    (Unavailable, [Fails("it answered 503"), Fails("it answered 503"), Fails("it answered 503"), Fails("it answered 503"), FIXED_PATHS, Fails("it answered 503"), Whole]),
    (NotJson, [NOT_JSON, NOT_JSON, NOT_JSON, NOT_JSON, FIXED_PATHS, NOT_JSON, Whole]),
    (WrongJson, [NOT_JSON, NOT_JSON, Fails("it has no list `projects`"), Fails("`access_token` is missing"), FIXED_PATHS, Fails("it has no list of keys"), Whole]),
    (BadRecord, [Fails("row 1 is not a record"), Fails("uuid, slug or name cannot be read"), Fails("are not objects with a `posixName`"), NO_RECORDS, NO_RECORDS, WholeBut("tokens signed with that key are refused"), Absent("nothing is read")]),
    (BadMembers, [LeftOut("MalformedResourceError"), Fails("uuid, slug or name cannot be read"), LeftOut("something that is not a GID"), NO_RECORDS, NO_RECORDS, WholeBut("tokens signed with that key are refused"), Absent("nothing is read")]),
    (EndlessBody, [TOO_LARGE, TOO_LARGE, TOO_LARGE, TOO_LARGE, FIXED_PATHS, TOO_LARGE, Whole]),
    (EndlessPages, [Whole, Whole, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES]),
    (MovingPages, [Fails("the list of resources changed while it was read"), Fails("the list of customers changed while it was read"), NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES]),
    (Redirect, [REDIRECTS, REDIRECTS, REDIRECTS, REDIRECTS, FIXED_PATHS, REDIRECTS, Whole]),
    (BadCertificate, [UNREACHABLE, WITH_RESOURCES, UNREACHABLE, UNREACHABLE, WITH_KEYS, UNREACHABLE, Whole]),
    (NoSuchName, [UNREACHABLE, WITH_RESOURCES, UNREACHABLE, UNREACHABLE, WITH_KEYS, UNREACHABLE, Whole]),
    (ClockOff, [Whole, Whole, Whole, Whole, Whole, Denied("do the clocks agree?"), Whole]),
];
