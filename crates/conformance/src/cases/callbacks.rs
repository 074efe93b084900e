//! Answers to callbacks, with and without their effect.

use serde_json::json;
use simulator::world::OrderState;

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level};
use crate::exchange::Front;
use crate::gateway::{Answer, Effect, When};
use crate::outcome::{Outcome, seen};

const ACCEPTED: &str = "8.2: 2xx: done. 8: Each pass derives everything again from the document";
const REFUSED: &str = "8.2: 400: refused, back off; 401, 403: alert an operator; do not fail the order. 8.1: the work follows the approval";
const UNCLEAR: &str = "8.2: 409, timeout, reset, 5xx: unclear: read the document again. If the goal is reached, the call succeeded; otherwise retry later";
const CREDENTIALS: &str = "8.2: Send a credential only to the origin that it belongs to, and follow no redirects";

const ANSWERS: [Answer; 11] = [
    Answer::Status(200),
    Answer::Status(202),
    Answer::Status(400),
    Answer::Status(401),
    Answer::Status(403),
    Answer::Status(404),
    Answer::Status(409),
    Answer::Status(500),
    Answer::Status(502),
    Answer::Reset,
    Answer::Hang,
];

/// The callbacks whose answers are changed: the case's name, the action, what is ordered, and whether the offering is Basic.
const CALLS: [(&str, &str, Work, bool); 8] = [
    ("create-approve", "approve_by_provider", Work::Create, false),
    ("create-backend-id", "set_backend_id", Work::Create, false),
    ("create-done", "set_state_done", Work::Create, false),
    ("resize-approve", "approve_by_provider", Work::Resize, false),
    ("terminate-approve", "approve_by_provider", Work::Terminate, false),
    ("terminate-done", "set_state_done", Work::Terminate, false),
    ("basic-create-approve", "approve_by_provider", Work::Create, true),
    ("basic-terminate-approve", "approve_by_provider", Work::Terminate, true),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Create,
    Resize,
    Terminate,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, action, work, basic) in CALLS {
        for answer in ANSWERS {
            let rule = match answer {
                Answer::Status(200 | 202) => ACCEPTED,
                Answer::Status(400 | 401 | 403 | 404) => REFUSED,
                _ => UNCLEAR,
            };
            let name = format!("callbacks/{name}-{}", answer.text());
            let case = Case::new(name, Level::Must, rule, move |bench| answered(bench, action, work, answer));
            cases.push(if basic { case.basic() } else { case });
        }
    }
    cases.push(Case::new("callbacks/reads-before-it-repeats", Level::Should, UNCLEAR, reads_before_it_repeats));
    cases.push(Case::new("callbacks/redirect", Level::Must, CREDENTIALS, redirect));
    cases.push(Case::new("callbacks/link-to-another-origin", Level::Must, CREDENTIALS, link_to_another_origin));
    cases
}

/// Two orders of the same kind: the answer to one is changed before the effect, that to the other after it.
fn answered(bench: &mut Bench<'_>, action: &'static str, work: Work, answer: Answer) -> Outcome {
    let made = if work == Work::Create { Vec::new() } else { bench.create(2)? };
    bench.stop();
    let order = |bench: &Bench<'_>, number: u32| match work {
        Work::Create => bench.order(number, 10),
        Work::Resize => bench.order_size(made[number as usize].resource, 20),
        Work::Terminate => bench.order_end(made[number as usize].resource),
    };
    let (before, after) = (order(bench, 0), order(bench, 1));
    bench.on(before, action, Effect::Answer(When::Before, answer));
    bench.on(after, action, Effect::Answer(When::After, answer));
    bench.start()?;
    let refused = matches!(answer, Answer::Status(400 | 401 | 403 | 404));
    // After a refusal, the command may call no more.
    let left = usize::from(refused);
    bench.until(&format!("{action} is called"), |bench| Ok(bench.gateway().rules() <= left))?;
    if refused {
        bench.settle()?;
    } else {
        for ordered in [before, after] {
            bench.done(ordered)?;
            if work == Work::Terminate {
                super::terminate::gone(bench, ordered)?;
            }
        }
    }
    for (number, ordered) in [(0, before), (1, after)] {
        untouched_until_approved(bench, work, number, ordered)?;
        consistent(bench, work, answer, number, ordered)?;
    }
    Ok(())
}

/// The directory was not changed before Waldur accepted the approval.
fn untouched_until_approved(bench: &mut Bench<'_>, work: Work, number: u32, ordered: Ordered) -> Outcome {
    if bench.is_basic() && work != Work::Terminate {
        return Ok(());
    }
    let probed = match bench.call(ordered, "approve_by_provider") {
        Ok(exchange) => exchange.probed.unwrap_or_default(),
        Err(_) => bench.read(ordered.resource)?,
    };
    let untouched = Expected::of(number, 10);
    match work {
        Work::Create if probed.exists == Some(true) => {
            seen("the directory was created before Waldur accepted the approval")
        }
        Work::Create => Ok(()),
        Work::Resize | Work::Terminate => {
            bench.matches(ordered, &untouched, &probed, " before Waldur accepted the approval")
        }
    }
}

/// The storage agrees with the state of the order.
fn consistent(bench: &mut Bench<'_>, work: Work, answer: Answer, number: u32, ordered: Ordered) -> Outcome {
    let is_done = bench.order_state(ordered) == Some(OrderState::Done);
    let approved = bench.accepted(ordered).iter().any(|call| call.action() == Some("approve_by_provider"));
    match work {
        Work::Create if is_done => {
            bench.is(ordered, &Expected::of(number, 10))?;
            let is_lost = bench.world(|world| world.resources[&ordered.resource].text("backend_id").is_empty());
            // An answer of 2xx without an effect is the suite's own lie.
            if is_lost && !answer.is_success() {
                seen("the order is done, but Waldur has no backend_id")
            } else {
                Ok(())
            }
        }
        Work::Resize if is_done => bench.is(ordered, &Expected::of(number, 20)),
        Work::Resize if !approved => bench.is(ordered, &Expected::of(number, 10)),
        Work::Create | Work::Resize => Ok(()),
        Work::Terminate if is_done && !bench.is_basic() => bench.is_in_trash(ordered),
        Work::Terminate if !approved => bench.is(ordered, &Expected::of(number, 10)),
        Work::Terminate => match bench.read(ordered.resource)? {
            probed if probed.exists != Some(true) && probed.trash == Some(false) => seen("the data is lost"),
            _ => Ok(()),
        },
    }
}

/// Waldur fails three times at the same call.
fn reads_before_it_repeats(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    for _ in 0..3 {
        bench.on(ordered, "set_state_done", Effect::Answer(When::Before, Answer::Status(502)));
    }
    bench.start()?;
    bench.done(ordered)?;
    let mut has_read = true;
    for exchange in bench.gateway().log() {
        let is_done = exchange.action() == Some("set_state_done");
        if is_done && !has_read {
            return seen("set_state_done was repeated, and the document was not read in between");
        }
        has_read = exchange.is_listing() || (has_read && !is_done);
    }
    Ok(())
}

fn redirect(bench: &mut Bench<'_>) -> Outcome {
    for (number, status) in [(0, 302), (1, 307)] {
        let ordered = bench.order(number, 10);
        bench.on(ordered, "approve_by_provider", Effect::Answer(When::Before, Answer::Redirect(status)));
    }
    bench.start()?;
    bench.until("approve_by_provider is called", |bench| Ok(bench.gateway().rules() == 0))?;
    bench.settle()?;
    nothing_elsewhere(bench)
}

fn link_to_another_origin(bench: &mut Bench<'_>) -> Outcome {
    let [foreign, waldur] = [Front::Foreign, Front::Waldur].map(|front| bench.gateway().url(front));
    // The second one only begins with Waldur's origin, which is the name of a user in it.
    let bases = [foreign.clone(), format!("{waldur}@{}", foreign.trim_start_matches("http://"))];
    bench.edit_listing(move |page| {
        for (item, foreign) in page["resources"].as_array_mut().into_iter().flatten().zip(bases.iter().cycle()) {
            for (key, link) in item.as_object_mut().into_iter().flatten() {
                if key.ends_with("_url") {
                    *link = json!(format!("{foreign}/api/marketplace-orders/4d7c3a3a1e0b4c5db6f1a9c84b5a4f10/{key}/"));
                }
            }
        }
    });
    let orders = [bench.order(0, 10), bench.order(1, 10)];
    bench.start()?;
    bench.settle()?;
    nothing_elsewhere(bench)?;
    orders.into_iter().try_for_each(|ordered| bench.is_absent(ordered))
}

fn nothing_elsewhere(bench: &Bench<'_>) -> Outcome {
    let log = bench.gateway().log();
    match log.iter().find(|exchange| exchange.front == Front::Foreign && exchange.leak.is_some()) {
        Some(exchange) => seen(format!("a credential went to another origin: {} {}", exchange.method, exchange.target)),
        None => Ok(()),
    }
}
