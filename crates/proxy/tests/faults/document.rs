//! `docs/faults.md`, made of the matrix.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use program::documents;

use crate::table::{MATRIX, Outcome, UPSTREAMS};

const HEAD: &str = "# When an upstream fails

<!-- Generated from crates/proxy/tests/faults by `just docs`; do not edit. -->

What comes of each fault of each upstream. The table is made of the one in `crates/proxy/tests/faults/table.rs`, whose every cell is
tried with the real program against a simulator, over TLS: the fault comes, one client asks for the listing, the fault goes, and
the next `no-cache` listing is whole again, without a restart. (A name that does not resolve is tried at the start alone.)

- **whole**: 200, the same listing as without the fault.
- **502**: `UpstreamServiceError`, and the words given are in `detail`; the log has them in `an upstream cannot be read`. With
  `cache.max_stale` the answer is 200 with the last listing, `Age` and `Warning`, and the log says the same.
- **502 of Keycloak**: `detail` says no more than `the token cannot be checked`, since whoever asks may be a stranger; the words are
  in the log's `the realm's keys cannot be fetched`. This is what a process without keys answers. One that has keys goes on
  with them for 24 hours.
- **left out**: 200 without what cannot be used, which is named in `skipped`, and in the log in `a resource is left out`.
- **401**: `AuthenticationError`, in the log `caller refused`.

GIDs that are known stay in use while the HPC User API, or its token endpoint, fails; the cells are of a listing that needs
one that is not known. With `hpc_user_api.development_mode` such a GID is invented instead.

Connections that are refused, reset or broken off, and the statuses 429, 500, 502, 503 and 504, are tried up to three times within the time
that the upstream has for one answer. An upstream that failed five times in a row is left alone for a second, and one that names
a `Retry-After` for that time, at most 10 s; requests that arrive meanwhile wait for that, within their deadlines. A request for customers
that fails is repeated once more when all pages of resources are read, and these are not read again.

No credential follows a redirect, and neither an upstream's body nor a credential is in an answer or in the log.

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
    text
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Whole => String::from("whole"),
        Outcome::WholeBut(what) => format!("whole; {what}"),
        Outcome::LeftOut(words) => format!("left out: {words}"),
        Outcome::Fails(words) => format!("502: {}", words.replace('|', ", or ")),
        Outcome::Denied(words) => format!("401: {words}"),
        Outcome::Absent(why) => format!("– ({why})"),
    }
}
