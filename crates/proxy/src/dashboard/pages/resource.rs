//! *One resource*: why?

use catalog::Status;
use maud::{Markup, html};
use provisioner_report::{Change, HoldKind, Observed, Task, TaskState, Terabyte};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::filter::hold_name;
use super::super::layout::Place;
use super::super::story::{Quotas, Row, Skip, Turn, ratio};
use super::super::text::{
    bytes, count, dash, isolated, lasting, number, or_dash, path, prose, span, unit, used, when, when_or_dash,
};
use super::{View, name, turn};

pub(in super::super) fn page(view: &View<'_>, row: &Row) -> Markup {
    let title = name(row);
    let content = html! {
        nav.crumbs aria-label="Place" {
            ol {
                li { a href=(view.link(Place::Resources.path())) { "Resources" } }
                @for part in [&row.system, &row.data_type, &row.customer] {
                    @if !part.is_empty() { li { (isolated(part)) } }
                }
            }
        }
        h1.path { (path(&title)) }
        (answer(view, row))
        div.columns {
            (waldur(view, row))
            (document(view, row))
            (storage(view, row))
        }
        (next(view, row))
        (usage(view, row))
        (history(view, row))
        (shell(row))
    };
    view.page(&title, Place::Resources, false, &content)
}

/// The conclusion: the one thing that people came for.
fn answer(view: &View<'_>, row: &Row) -> Markup {
    let conclusion = &row.conclusion;
    html! {
        section class={ "answer " (conclusion.turn.as_str()) } aria-labelledby="answer" {
            h2 #answer {
                @if conclusion.turn == Turn::Nobody { "Nobody has to act" } @else { "Whose turn: " (turn(conclusion.turn)) }
            }
            @if let Some(since) = conclusion.since { p { (lasting("For", since, view.now)) } }
            p.because { (prose(&conclusion.why)) }
            @if !conclusion.next.is_empty() { p { strong { "Next: " } (prose(&conclusion.next)) } }
            (commands(&conclusion.commands))
            @if let (Some(hold), Some(received)) = (row.hold(), row.received()) {
                @if !hold.commands.is_empty() && hold.commands == conclusion.commands {
                    p.note { "From the report of " (isolated(&received.name)) ". Read it before you run it." }
                }
            }
        }
    }
}

/// Commands to paste. Control characters are visible, because a line break would start another command.
fn commands(commands: &[String]) -> Markup {
    html! {
        @if commands.len() > 1 { p.note { "In this order:" } }
        @for command in commands {
            pre tabindex="0" aria-label="Command" { code { (isolated(command)) } }
        }
    }
}

/// A list of names and values.
fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn waldur(view: &View<'_>, row: &Row) -> Markup {
    let mut list = vec![("State", html! { @match row.state { Some(state) => (state.as_str()), None => (dash()) } })];
    match &row.order {
        Some(order) => {
            list.push(("Order", html! { (or_dash(&order.kind)) ", " (or_dash(&order.state)) }));
            list.push(("Ordered", when_or_dash(order.created, view.now)));
        }
        None => list.push(("Order", html! { span.muted { "none in progress" } })),
    }
    if let Some(transition) = &row.transition {
        let text = if transition.has_backend_id { "has a path in Waldur" } else { "no path in Waldur" };
        list.push(("Without order", html! { (text) }));
    }
    list.push(("Customer", or_dash(&row.customer)));
    list.push(("Project", or_dash(&row.project)));
    list.push(("Resource", or_dash(&row.slug)));
    list.push(("UUID", html! { @match row.id { Some(id) => code { (id) }, None => (dash()) } }));
    html! {
        section aria-labelledby="waldur" {
            h2 #waldur { "What Waldur says" }
            (facts(&list))
            @if !matches!(row.skipped, Some(Skip::Absent)) {
                ul.links {
                    @if let Some(id) = row.id { li { a href=(in_waldur(view, "resource-details", id)) { "Resource in Waldur" } } }
                    @if let Some(id) = row.order.as_ref().and_then(|order| order.uuid) {
                        li { a href=(in_waldur(view, "marketplace-order-details", id)) { "Order in Waldur" } }
                    }
                }
            }
        }
    }
}

/// A page of Waldur's web interface, whose UUIDs have no dashes.
fn in_waldur(view: &View<'_>, page: &str, id: Uuid) -> String {
    format!("{}/{page}/{}/", view.waldur.trim_end_matches('/'), id.simple())
}

fn document(view: &View<'_>, row: &Row) -> Markup {
    let terabyte = view.story.terabyte(&row.system);
    let published = row.published.as_ref().map(|published| {
        let mut list = vec![
            ("Status", html! { (row.status.map_or("", Status::as_str)) }),
            ("Path", path(&row.path)),
            ("Mode", html! { code { (isolated(&published.mode)) } }),
            ("Group", html! { @match published.gid { Some(gid) => { "GID " (gid) }, None => (dash()) } }),
        ];
        if let Some(uid) = published.uid {
            list.push(("User", html! { "UID " (uid) }));
        }
        list.push(("Quotas", quotas(published.quotas, terabyte)));
        if let Some([old, new]) = published.update {
            list.push(("Before the order", quotas(old, terabyte)));
            list.push(("After the order", quotas(new, terabyte)));
        }
        facts(&list)
    });
    // The provisioner repeats the reason.
    let is_skipped_by_proxy = matches!(row.skipped, Some(Skip::Identity(_) | Skip::Malformed(_)));
    html! {
        section aria-labelledby="document" {
            h2 #document { "What the document says" }
            @match (&row.skipped, published) {
                (Some(skip), _) => p { "The document does not contain it: " (isolated(skip.reason())) "." }
                (None, published) => (published.unwrap_or_default())
            }
            @if let Some(problem) = &row.quota_problem { p.note { "The quotas cannot be trusted: " (isolated(problem)) } }
            @if let Some(reason) = row.rejected.as_ref().filter(|_| !is_skipped_by_proxy) { p.note { "The provisioner rejects the item: " (isolated(reason)) } }
        }
    }
}

/// Quotas of the document. Equal soft and hard quotas are shown once.
fn quotas(quotas: Option<Quotas>, terabyte: Terabyte) -> Markup {
    let Some(Quotas { soft_space, hard_space, soft_inodes, hard_inodes }) = quotas else {
        return html! { span.muted { "none" } };
    };
    let pair = |soft: String, hard: String| if soft == hard { soft } else { format!("{soft} soft, {hard} hard") };
    html! {
        (pair(number(soft_space), number(hard_space))) " " (unit(terabyte))
        br;
        (pair(number(soft_inodes), number(hard_inodes))) " inodes"
    }
}

fn storage(view: &View<'_>, row: &Row) -> Markup {
    let system = view.story.system(&row.system);
    html! {
        section aria-labelledby="storage" {
            h2 #storage { "What the provisioner found" }
            @if let (Some(reported), Some(received)) = (row.reported(), row.received()) {
                (facts(&[
                    ("Directory", html! { (observed(reported.observed)) }),
                    ("Details", or_dash(&reported.detail)),
                    ("Last pass", when(received.report.pass.ended_at, view.now)),
                    ("Reported by", html! { (isolated(&received.name)) " " (when(received.received_at, view.now)) }),
                ]))
                @if received.is_silent(view.now) {
                    p.note { strong { "This report is old" } ": the next one should have arrived within "
                        (span(time::Duration::seconds(received.report.next_within_seconds.into()))) "." }
                }
                @if let Some(error) = &received.report.pass.error {
                    p.note { strong { "The last pass failed" } ": " (isolated(error)) }
                }
            } @else if system.is_none_or(|system| system.reporters.is_empty()) {
                p { "Nobody reports about " @if row.system.is_empty() { "it" } @else { (isolated(&row.system)) } ", so the directory is not known here." }
            } @else {
                p { "It is not in the last report about " (isolated(&row.system)) "." }
            }
        }
    }
}

fn observed(observed: Observed) -> &'static str {
    match observed {
        Observed::Present => "is there",
        Observed::Absent => "nothing is there",
        Observed::Unmarked => "a directory that is not known to be this resource's",
        Observed::Obstructed => "something else is there",
        Observed::Trashed => "is in the trash",
        Observed::Purging => "is being deleted from the trash",
        Observed::Unknown => "could not be read",
    }
}

fn next(view: &View<'_>, row: &Row) -> Markup {
    html! {
        @if let Some(task) = row.task() {
            section aria-labelledby="next" {
                h2 #next { @if task.state == TaskState::Done { "What the last pass did" } @else { "What the next pass does" } }
                (work(view, task))
            }
        }
        @if let Some(hold) = row.hold() {
            section aria-labelledby="held" {
                h2 #held { "Why nothing is done" }
                p { span.tag { (hold_name(hold.kind)) } " " (meaning(hold.kind)) "." }
                // Otherwise, it is the answer above.
                @if hold.reason != row.conclusion.why { p { (prose(&hold.reason)) } }
                (changes("held-changes", &hold.changes))
            }
        }
    }
}

fn work(view: &View<'_>, task: &Task) -> Markup {
    html! {
        (facts(&[
            ("Action", html! { span.tag { (isolated(&task.action)) } " " (task_state(task.state)) }),
            ("Reason", or_dash(&task.why)),
            ("Since", when_or_dash(task.since, view.now)),
        ]))
        @if let Some(error) = &task.error { p.note { strong { "Error" } ": " (isolated(error)) } }
        @if !task.steps.is_empty() {
            h3 { "Steps" }
            ol.steps { @for step in &task.steps { li { (isolated(step)) } } }
        }
        (changes("task-changes", &task.changes))
    }
}

fn task_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Due => "due in the next pass",
        TaskState::Done => "completed by the last pass",
        TaskState::Failed => "failed; the next pass tries again",
    }
}

/// What a kind of hold means.
pub(super) fn meaning(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Waiting => "another party has to act",
        HoldKind::Fault => "a temporary error; the provisioner retries",
        HoldKind::Drift => "in use, but different from the document",
        HoldKind::Conflict => "Waldur and the storage contradict each other",
        HoldKind::Refused => "invalid, or against the rules",
        HoldKind::Asks => "needs confirmation",
        HoldKind::Declined => "Waldur refuses a call; the provisioner retries later",
    }
}

fn changes(id: &str, changes: &[Change]) -> Markup {
    if changes.is_empty() {
        return html! {};
    }
    super::table(
        id,
        "Differences between storage and document",
        &html! {
            thead { tr { th scope="col" { "What" } th scope="col" { "Now" } th scope="col" { "Wanted" } } }
            tbody {
                @for change in changes {
                    tr {
                        th scope="row" data-label="What" { (isolated(&change.what)) }
                        td data-label="Now" { (or_dash(&change.old)) }
                        td data-label="Wanted" { (or_dash(&change.new)) }
                    }
                }
            }
        },
    )
}

fn usage(view: &View<'_>, row: &Row) -> Markup {
    let terabyte = view.story.terabyte(&row.system);
    let (Some(usage), quota) = (row.usage(), row.quota()) else { return html! {} };
    let quota = quota.unwrap_or(provisioner_report::Amount { bytes: 0, inodes: 0 });
    let amount = |used_amount: u64, limit: u64, format: &dyn Fn(u64) -> String| {
        html! { @if limit > 0 { (used(used_amount, limit, format)) } @else { (format(used_amount)) " of no quota" } }
    };
    html! {
        section aria-labelledby="usage" {
            h2 #usage { "Quotas and usage" }
            (facts(&[
                ("Space", amount(usage.bytes, quota.bytes, &|amount| bytes(amount, terabyte))),
                ("Inodes", amount(usage.inodes, quota.inodes, &count)),
                ("Full", html! { @match row.full_at() { Some(at) => { (when(at, view.now)) ", if it grows as before" }, None => span.muted { "not foreseeable" } } }),
            ]))
            (trend(row, terabyte))
        }
    }
}

/// The space in use over the reports that are kept.
fn trend(row: &Row, terabyte: Terabyte) -> Markup {
    let (Some(received), Some(id)) = (row.received(), row.id) else { return html! {} };
    let sampled = received.samples.iter().filter_map(|sample| Some((sample.at, sample.usage.get(&id)?.bytes)));
    let mut points: Vec<(OffsetDateTime, u64)> = sampled.collect();
    points.sort_unstable();
    let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { return html! {} };
    if points.len() < 3 {
        return html! {};
    }
    let top = points.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default().max(1);
    let length = (last.0 - first.0).as_seconds_f64().max(1.0);
    let point = |(at, bytes): &(OffsetDateTime, u64)| {
        let x = (*at - first.0).as_seconds_f64() / length * 300.0;
        format!("{x:.1},{:.1}", 46.0 - ratio(*bytes, top) * 42.0)
    };
    let line = points.iter().map(point).collect::<Vec<_>>().join(" ");
    html! {
        figure {
            svg.trend viewBox="0 0 300 48" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                line x1="0" y1="47" x2="300" y2="47" {}
                polyline points=(line) {}
            }
            figcaption {
                "Space in use: " (bytes(first.1, terabyte)) " → " (bytes(last.1, terabyte)) " within " (span(last.0 - first.0))
            }
        }
    }
}

fn history(view: &View<'_>, row: &Row) -> Markup {
    let Some(reported) = row.reported().filter(|reported| !reported.history.is_empty()) else { return html! {} };
    let rows = html! {
        thead { tr { th scope="col" { "When" } th scope="col" { "What" } } }
        tbody {
            @for event in reported.history.iter().rev() {
                tr {
                    td data-label="When" { (when(event.at, view.now)) }
                    td.why data-label="What" { (isolated(&event.text)) }
                }
            }
        }
    };
    html! {
        section aria-labelledby="history" {
            h2 #history { "History" }
            (super::table("history-caption", "What happened to it, the newest first", &rows))
        }
    }
}

fn shell(row: &Row) -> Markup {
    let Some(id) = row.id.filter(|_| row.reported().is_some()) else { return html! {} };
    html! {
        section aria-labelledby="shell" {
            h2 #shell { "In a shell" }
            p { "On the provisioner's host, this command shows the same with the newest state:" }
            (commands(&[format!("hpc-storage-provisioner explain {id} --fresh")]))
        }
    }
}
