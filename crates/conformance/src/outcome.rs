//! How a case ends.

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command violates the rule; the text says what was seen.
    Seen(String),
    /// The case does not apply to this run, with the reason.
    Skipped(String),
    /// The suite itself has a problem.
    Broken(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The failure of a case in which this was seen.
pub(crate) fn seen<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure::Seen(what.into()))
}
