//! Whose turn it is, since when, why, and what to do.

use std::borrow::Cow;

use catalog::{State, Status};
use provisioner_report::{self as report, HoldKind, Observed, TaskState};
use time::OffsetDateTime;

use super::{Provisioner, Row, Skip, Story, System};

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(in super::super) enum Turn {
    Operator,
    Provider,
    Identity,
    Storage,
    Customer,
    Provisioner,
    #[default]
    Nobody,
}

impl Turn {
    /// All, the most urgent for operators first.
    pub(in super::super) const ALL: [Self; 7] = [
        Self::Operator,
        Self::Provider,
        Self::Identity,
        Self::Storage,
        Self::Customer,
        Self::Provisioner,
        Self::Nobody,
    ];

    /// The key in queries and exports.
    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Provider => "provider",
            Self::Identity => "identity",
            Self::Storage => "storage",
            Self::Customer => "customer",
            Self::Provisioner => "provisioner",
            Self::Nobody => "nobody",
        }
    }

    /// The name for people.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Operator => "Operator",
            Self::Provider => "Provider",
            Self::Identity => "Identity service",
            Self::Storage => "Storage",
            Self::Customer => "Customer",
            Self::Provisioner => "Provisioner",
            Self::Nobody => "Nobody",
        }
    }
}

impl From<report::Turn> for Turn {
    fn from(turn: report::Turn) -> Self {
        match turn {
            report::Turn::Customer => Self::Customer,
            report::Turn::Provider => Self::Provider,
            report::Turn::Identity => Self::Identity,
            report::Turn::Storage => Self::Storage,
            report::Turn::Operator => Self::Operator,
            report::Turn::Provisioner => Self::Provisioner,
        }
    }
}

/// The answer to "why?" about a resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in super::super) struct Conclusion {
    pub(in super::super) turn: Turn,
    /// `None` if it is unknown, or if it is nobody's turn.
    pub(in super::super) since: Option<OffsetDateTime>,
    pub(in super::super) why: Cow<'static, str>,
    /// What happens next, or what to do.
    pub(in super::super) next: Cow<'static, str>,
    /// For a shell, in this order.
    pub(in super::super) commands: Vec<String>,
}

/// Shows what the service of a provisioner does, on its host.
const SERVICE: [&str; 2] =
    ["systemctl status hpc-storage-provisioner", "journalctl --unit hpc-storage-provisioner --since '1 hour ago'"];

/// Draws the conclusion about a resource.
pub(super) fn conclude(story: &Story, row: &Row) -> Conclusion {
    let order_since = row.order.as_ref().and_then(|order| order.created);
    let system = story.system(&row.system);
    let of_document = match &row.skipped {
        Some(Skip::Identity(reason)) => Some(Conclusion {
            since: row.hold().and_then(|hold| hold.since).or(order_since),
            ..to_do(
                Turn::Identity,
                format!(
                    "The project {} has no Unix GID: {}. The document skips its resources.",
                    quoted(&row.project),
                    bare(reason)
                ),
                "Create the project's Unix group in the identity service. The proxy asks again at each refresh.",
            )
        }),
        Some(Skip::Malformed(reason)) => Some(to_do(
            Turn::Provider,
            format!("The record in Waldur cannot be used: {}. The document skips it.", bare(reason)),
            "Correct the record in Waldur.",
        )),
        Some(Skip::Absent) => None,
        None => waits_for_customer(row),
    };
    if let Some(conclusion) = of_document {
        return conclusion;
    }
    let conclusion = match row.hold() {
        Some(hold) => held(row, hold),
        None => not_held(row, system),
    };
    let conclusion = Conclusion { since: conclusion.since.or(order_since), ..conclusion };
    if conclusion.turn == Turn::Nobody {
        return Conclusion { since: None, ..conclusion };
    }
    system.and_then(|system| without_provisioner(story, system, &conclusion)).unwrap_or(conclusion)
}

/// The customer decides about an order before anybody else can act.
fn waits_for_customer(row: &Row) -> Option<Conclusion> {
    let order = row.order.as_ref()?;
    let (why, next) = match order.state.as_str() {
        "pending-consumer" => (
            format!("The {} order waits for the customer's approval.", order.kind),
            "The customer approves or rejects the order in Waldur.",
        ),
        "pending-project" => (
            format!("The {} order waits for the start of the project.", order.kind),
            "Nothing until the project's start date. The customer can change that date in Waldur.",
        ),
        "pending-start-date" => (
            format!("The {} order waits for its start date.", order.kind),
            "Nothing until that date. The customer can change it in Waldur.",
        ),
        _ => return None,
    };
    Some(Conclusion { since: order.created, ..to_do(Turn::Customer, why, next) })
}

fn held(row: &Row, hold: &report::Hold) -> Conclusion {
    let is_obstructed = row.reported().is_some_and(|reported| reported.observed == Observed::Obstructed);
    let next = match (hold.turn, hold.commands.is_empty()) {
        (_, false) if hold.kind == HoldKind::Asks => "Review the plan and carry it out, on the provisioner's host.",
        (_, false) if hold.commands.len() == 1 => "Run the command on the provisioner's host.",
        (_, false) => "Run the commands on the provisioner's host.",
        (report::Turn::Customer, _) => "The customer acts in Waldur.",
        (report::Turn::Provider, _) => "Correct it in Waldur.",
        (report::Turn::Identity, _) => "Add the missing group or user to the identity service.",
        (report::Turn::Storage, _) => "The provisioner retries in each pass.",
        (report::Turn::Provisioner, _) => "The provisioner retries by itself.",
        (report::Turn::Operator, _) if is_obstructed => {
            "Look at the path on the storage, and move away what is there. The next pass shows the result."
        }
        (report::Turn::Operator, _) if hold.kind == HoldKind::Drift => {
            "Correct the directory on the storage, or the resource in Waldur if the document is wrong. The next pass shows the result."
        }
        (report::Turn::Operator, _) => "Resolve the reason. The next pass shows the result.",
    };
    let since = hold.since.or_else(|| row.order.as_ref()?.created);
    let conclusion = to_do(hold.turn.into(), hold.reason.clone(), next);
    Conclusion { since, commands: hold.commands.clone(), ..conclusion }
}

fn not_held(row: &Row, system: Option<&System>) -> Conclusion {
    if let Some(task) = row.task().filter(|task| task.state != TaskState::Done) {
        let conclusion = match (&task.error, task.state) {
            (Some(error), _) => to_do(
                Turn::Provisioner,
                format!("The last attempt to {} failed: {}.", task.action, bare(error)),
                "The next pass tries again.",
            ),
            (None, TaskState::Failed) => to_do(
                Turn::Provisioner,
                format!("The last attempt to {} failed.", task.action),
                "The next pass tries again.",
            ),
            _ => to_do(Turn::Provisioner, format!("{}.", capitalized(bare(&task.why))), next_steps(&task.steps)),
        };
        return Conclusion { since: task.since, ..conclusion };
    }
    if let Some(reason) = &row.rejected {
        return to_do(
            Turn::Operator,
            format!("The provisioner rejects the item in the document: {}.", bare(reason)),
            "Correct the resource in Waldur, or the settings of the proxy.",
        );
    }
    if let Some(error) = system.and_then(|system| system.error.as_ref()) {
        return to_do(
            Turn::Storage,
            format!("The provisioner cannot read the storage system: {}.", bare(error)),
            "The provisioner retries in each pass.",
        );
    }
    let is_reported_on = system.is_some_and(|system| !system.reporters.is_empty());
    if let Some(order) = &row.order {
        let done = row.task().is_some();
        return match (is_reported_on, done) {
            (true, true) => to_do(
                Turn::Provisioner,
                format!(
                    "The last pass carried out the {} order, but Waldur still shows it as {}.",
                    order.kind, order.state
                ),
                "The next pass looks at it again.",
            ),
            (true, false) => to_do(
                Turn::Provisioner,
                format!(
                    "The {} order is {}. The provisioner's last report does not contain it yet.",
                    order.kind, order.state
                ),
                "The next pass works on it.",
            ),
            (false, _) => to_do(
                Turn::Operator,
                format!("The {} order is {}, and nobody reports about this storage system.", order.kind, order.state),
                "Check that a provisioner runs for this system, and that it sends reports.",
            )
            .with_commands(&SERVICE),
        };
    }
    if let Some(conclusion) = in_transition(row) {
        return conclusion;
    }
    match row.status {
        Some(Status::Removed) => terminated(row),
        Some(Status::Error) => Conclusion {
            commands: set_state_ok(row),
            ..to_do(Turn::Provider, "Its state in Waldur is Erred: an order failed.", "Correct its state in Waldur.")
        },
        Some(_) => in_use(row, is_reported_on),
        None => idle("Waldur does not list it, and nothing is planned for it."),
    }
}

/// Waldur changes such a resource only if somebody acts.
fn in_transition(row: &Row) -> Option<Conclusion> {
    let transition = row.transition.as_ref().filter(|_| row.state != Some(State::Erred))?;
    let state = row.state.map_or("in transition", State::as_str);
    if row.state == Some(State::Creating) && !transition.has_backend_id {
        return Some(to_do(
            Turn::Provider,
            "Creating in Waldur without an order: its order was deleted before it was carried out.",
            "Set its state to Terminated in Waldur's administration. If the directory is still wanted, the customer orders it again.",
        ));
    }
    let conclusion = to_do(
        Turn::Provider,
        format!("{state} in Waldur, but it has no order in progress."),
        "Check its past orders in Waldur, and set its state accordingly.",
    );
    Some(Conclusion { commands: set_state_ok(row), ..conclusion })
}

/// The call that sets the resource to OK. A relayed call needs a token of the realm instead of one of Waldur.
fn set_state_ok(row: &Row) -> Vec<String> {
    let call = |transition: &super::Transition| {
        let url = &transition.set_state_ok_url;
        let token = if url.contains("/api/callbacks/") { "Bearer $ACCESS_TOKEN" } else { "Token $WALDUR_TOKEN" };
        format!("curl --fail --request POST --header \"Authorization: {token}\" '{}'", url.replace('\'', "%27"))
    };
    row.transition.iter().map(call).collect()
}

fn terminated(row: &Row) -> Conclusion {
    match row.reported().map(|reported| reported.observed) {
        Some(Observed::Trashed) => idle("Terminated in Waldur. Its directory is in the trash."),
        Some(Observed::Purging) => idle("Terminated in Waldur. Its directory is being deleted from the trash."),
        Some(Observed::Present) => to_do(
            Turn::Provisioner,
            "Terminated in Waldur, but its directory is still there.",
            "The next pass looks at it again.",
        ),
        Some(Observed::Absent | Observed::Unmarked | Observed::Obstructed) => {
            idle("Terminated in Waldur. Nothing of it is on the storage.")
        }
        Some(Observed::Unknown) | None => idle("Terminated in Waldur."),
    }
}

fn in_use(row: &Row, is_reported_on: bool) -> Conclusion {
    if let Some(problem) = &row.quota_problem {
        return to_do(
            Turn::Provider,
            format!("Its quotas cannot be trusted: {}.", bare(problem)),
            "Correct its limits or options in Waldur.",
        );
    }
    let Some(reported) = row.reported() else {
        return if is_reported_on {
            to_do(
                Turn::Provisioner,
                "In use in Waldur. The provisioner's last report does not contain it yet.",
                "The next report shows it.",
            )
        } else {
            idle(
                "In use in Waldur. Nobody reports about this storage system, so the state of its directory is unknown.",
            )
        };
    };
    match reported.observed {
        Observed::Present => idle("The directory is as the document says."),
        Observed::Absent | Observed::Trashed => {
            to_do(Turn::Provisioner, "In use in Waldur, but there is no directory.", "The next pass looks at it again.")
        }
        Observed::Purging | Observed::Unmarked | Observed::Obstructed => to_do(
            Turn::Operator,
            format!("In use in Waldur, but its directory is not at its path: {}.", bare(or_unknown(&reported.detail))),
            "Look at the path on the storage.",
        ),
        Observed::Unknown => to_do(
            Turn::Storage,
            format!("The storage could not be read: {}.", bare(or_unknown(&reported.detail))),
            "The provisioner retries in each pass.",
        ),
    }
}

/// Replaces a conclusion that depends on a provisioner, if none or more than one works on the system.
fn without_provisioner(story: &Story, system: &System, conclusion: &Conclusion) -> Option<Conclusion> {
    if !matches!(conclusion.turn, Turn::Provisioner | Turn::Storage | Turn::Operator) {
        return None;
    }
    let names = |positions: &[usize]| {
        let names: Vec<_> = positions.iter().map(|position| story.provisioners[*position].name()).collect();
        names.join(" and ")
    };
    let alive: Vec<_> = system.alive(story).collect();
    match alive[..] {
        [] => {
            let Provisioner { received, .. } = &story.provisioners[*system.reporters.first()?];
            let why = format!(
                "The provisioner {} is silent: its next report is overdue. Last known: {}",
                received.name, conclusion.why
            );
            let next = "Check that the provisioner runs.";
            let silent = Conclusion { since: Some(received.received_at), ..to_do(Turn::Operator, why, next) };
            Some(silent.with_commands(&SERVICE))
        }
        [one] => {
            let received = &story.provisioners[one].received;
            let error = received.report.pass.error.as_ref().filter(|_| conclusion.turn == Turn::Provisioner)?;
            let why =
                format!("The last pass of {} failed: {}. Last known: {}", received.name, bare(error), conclusion.why);
            let failed = to_do(Turn::Operator, why, "Correct the cause. The provisioner retries in each pass.");
            Some(Conclusion { since: Some(received.report.pass.ended_at), ..failed }.with_commands(&SERVICE))
        }
        _ => Some(Conclusion {
            since: conclusion.since,
            ..to_do(
                Turn::Operator,
                format!("{} both report about this storage system. {}", names(&alive), conclusion.why),
                "Stop all but one of these provisioners.",
            )
        }),
    }
}

impl Conclusion {
    fn with_commands(self, commands: &[&str]) -> Self {
        Self { commands: commands.iter().map(|command| (*command).to_owned()).collect(), ..self }
    }
}

fn to_do(turn: Turn, why: impl Into<Cow<'static, str>>, next: impl Into<Cow<'static, str>>) -> Conclusion {
    Conclusion { turn, why: why.into(), next: next.into(), ..Conclusion::default() }
}

/// A reason inside a sentence, whose full stop is its own.
fn bare(reason: &str) -> &str {
    reason.trim_end_matches(['.', ' '])
}

fn idle(why: &'static str) -> Conclusion {
    Conclusion { why: why.into(), ..Conclusion::default() }
}

fn next_steps(steps: &[String]) -> String {
    if steps.is_empty() {
        "The next pass works on it.".to_owned()
    } else {
        format!("The next pass: {}.", steps.join(", "))
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { "(without a slug)".to_owned() } else { format!("“{text}”") }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "no details are reported" } else { text }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
