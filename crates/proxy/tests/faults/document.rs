//! Generates `docs/faults.md` from the matrix.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use program::documents;

use crate::table::{MATRIX, Outcome, UPSTREAMS};

const HEAD: &str = "# When an upstream fails

<!-- Generated from crates/proxy/tests/faults by `just docs`; do not edit. -->

The outcome of each fault of each upstream. This table is generated from `crates/proxy/tests/faults/table.rs`, and a test runs each cell
with the real program against a simulator over TLS: the fault begins, a client requests the listing, the fault ends, and the
next `no-cache` listing must be complete again without a restart. (A host name that does not resolve is tested at the start only.)

- **whole**: 200, with the same listing as without the fault.
- **502**: `UpstreamServiceError` with the given text in `detail`; the log has the text too, in `an upstream cannot be read`. With
  `cache.max_stale` the answer is 200 with the last listing and the headers `Age` and `Warning`, and the log entry is the same.
- **502 for Keycloak**: `detail` only says `the token cannot be checked`, because the client is not authenticated; the given text is
  in the log entry `the realm's keys cannot be fetched`. This is the answer of a process without keys. A process that has
  keys continues to use them for 24 hours. Introspection and a real Keycloak that hangs, stops and restarts: [keycloak.md](keycloak.md#when-keycloak-fails).
- **skipped**: 200 without the resources that cannot be used. They are named in `skipped`, and in the log in `a resource is skipped`.
- **401**: `AuthenticationError`; the log entry is `caller refused`.

Cached GIDs remain in use while the HPC User API or its token endpoint fails; the cells show a listing that needs a GID that is
not cached. With `hpc_user_api.development_mode` such a GID is invented instead.

After a refused, reset or interrupted connection and after the statuses 429, 500, 502, 503 and 504, a request is tried up to three times
within the upstream's timeout. After five consecutive failures the circuit breaker opens for one second; after a `Retry-After` it
opens for that time, at most 10 s. Requests that arrive meanwhile wait, within their deadlines. A failed request for customers is
repeated once after all pages of resources have been read; the pages are not read again.

Credentials are never sent to the target of a redirect. Neither answers nor the log contain bodies of upstreams or credentials.

";

/// Faults that the matrix does not cover, because a listing does not show them.
const TAIL: &str = "
## Shared cache

What `cache.shared_url` shares is not needed for an answer; a server that fails is logged once for readings and once for reports (`the shared cache is unavailable`) and used again within seconds
after it is back. The scenarios `replicas` and `shared_reports` test this with a real server.

| fault | listing | reports of provisioners |
|---|---|---|
| connection refused, no answer, writes refused | whole; each replica reads the upstreams itself | accepted (204); only the replica that received a report shows it. When the server is back, the replicas share what they have, and the newest report of each provisioner wins |
| the server loses its data | whole | the replicas publish what they have |
| forged, swapped or oversized values | whole; they count as absent | removed, with a log entry; the replicas publish theirs again |
| the clock of a replica is wrong by more than five minutes | whole | the other replicas ignore reports from the future; each logs it once |

## Sign-in of operators

The faults of the realm's token endpoint when a browser returns with a code. The page never shows details; the log has them in `an operator cannot sign in`. Nothing is sent again,
because a code is valid only once: \"Sign in again\" begins a new sign-in. `hpc_storage_proxy_sign_ins_total` counts the outcomes. The scenario `sign_in` tests this over TLS.

| fault | status | page | log | outcome |
|---|---|---|---|---|
| connection refused, untrusted certificate | 502 | The identity provider cannot be reached. Try again in a minute. | cannot connect | `unavailable` |
| connection closed or reset | 502 | the same | the connection ended before the answer was complete | `unavailable` |
| no answer, or one byte per second | 502 after 5 s | the same | no complete answer in time | `unavailable` |
| 429, 500, 502, 503 | 502 | the same | it answered 429, … | `unavailable` |
| other statuses, not JSON, JSON of another type | 502 | the same | invalid answer | `unavailable` |
| endless body | 502 | the same | larger than | `unavailable` |
| redirect to another host | 502 | the same; the code is not sent there | it redirects to | `unavailable` |
| an answer within 5 s | 303 | the page that was requested | an operator signed in | `success` |
| `invalid_grant` | 400 | The realm does not accept this sign-in: it was completed before, or it took too long. | the realm does not accept its code | `invalid` |
| `invalid_client`, `unauthorized_client` and others | 502 | The identity provider and this service do not understand each other. | check dashboard.client_id | `misconfigured` |
| tokens that are not accepted | 502 | the same | the claim that is wrong | `misconfigured` |

These pages have `Retry-After: 60` with 502, and a link that signs in again. While a session is refreshed, the same faults give the same pages, and the session stays
valid: a reload of the page tries again. Sessions whose access token has not expired need no answer from the realm. Without the realm's keys nobody can begin to sign in (502, `unavailable`).
";

#[test]
fn generated_documents_are_up_to_date() {
    documents::check(&folder(), &[("faults.md", document())]);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn document() -> String {
    let mut text = String::from(HEAD);
    let titles: Vec<_> = UPSTREAMS.iter().map(|upstream| upstream.title()).collect();
    writeln!(text, "| fault | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len())).unwrap();
    for (trouble, outcomes) in &MATRIX {
        let cells: Vec<_> = outcomes.iter().map(cell).collect();
        writeln!(text, "| {} | {} |", trouble.title(), cells.join(" | ")).unwrap();
    }
    text + TAIL
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Whole => String::from("whole"),
        Outcome::WholeBut(what) => format!("whole; {what}"),
        Outcome::Skipped(words) => format!("skipped: {words}"),
        Outcome::Fails(words) => format!("502: {}", words.replace('|', ", or ")),
        Outcome::Denied(words) => format!("401: {words}"),
        Outcome::Absent(why) => format!("– ({why})"),
    }
}
