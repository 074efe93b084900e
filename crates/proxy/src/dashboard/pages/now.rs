//! *Now*: is anything stuck, since when, and whose turn is it?

use maud::{Markup, html};
use time::OffsetDateTime;

use super::super::filter::Query;
use super::super::health::{Level, Line};
use super::super::layout::Place;
use super::super::story::{Row, Turn};
use super::super::text::{count, dash, isolated, lasting, plural, when, when_or_dash};
use super::{View, short_reason, table, turn};

/// Maximum number of resources in the list of the longest waits.
const LONGEST: usize = 15;

pub(in super::super) fn page(view: &View<'_>, health: &[Line]) -> Markup {
    let waiting = |row: &&Row| row.conclusion.turn != Turn::Nobody;
    let mut rows: Vec<_> = view.story.rows.iter().filter(waiting).collect();
    let since = |row: &Row| row.conclusion.since;
    rows.sort_by_key(|row| (since(row).is_none(), since(row), row.conclusion.turn));
    let all = view.story.rows.len();
    let content = html! {
        h1 { "Now" }
        (lead(view, &rows))
        (broken(health))
        section aria-labelledby="turns" {
            h2 #turns { "Whose turn it is" }
            ul.turns {
                @for who in Turn::ALL {
                    @let of_turn = rows.iter().filter(|row| row.conclusion.turn == who);
                    @let number = if who == Turn::Nobody { all - rows.len() } else { of_turn.clone().count() };
                    (card(view, who, number, of_turn.filter_map(|row| since(row)).min()))
                }
            }
        }
        @if !rows.is_empty() {
            section aria-labelledby="longest" {
                h2 #longest { "Longest waits" }
                (longest(view, &rows[..rows.len().min(LONGEST)]))
                @if rows.len() > LONGEST {
                    p { a href=(view.link(Place::Resources.path())) { "All " (plural(all, "resource", "resources")) } ", those that wait first" }
                }
            }
        }
        section aria-labelledby="health" {
            h2 #health { "Health" }
            (lines(view, health))
        }
    };
    view.page("Now", Place::Now, true, &content)
}

fn lead(view: &View<'_>, waiting: &[&Row]) -> Markup {
    let all = view.story.rows.len();
    // The provisioner works by itself: nobody has to be asked.
    let stuck: Vec<_> = waiting.iter().filter(|row| row.conclusion.turn != Turn::Provisioner).collect();
    let longest = stuck.iter().filter_map(|row| row.conclusion.since).min();
    html! {
        p.lead {
            @if view.read_at.is_none() && all == 0 {
                "Waldur has not been read yet, so nothing is known about its resources."
            } @else if all == 0 {
                "There are no resources on these storage systems."
            } @else if stuck.is_empty() && waiting.is_empty() {
                "Nothing waits: nobody has to act on any of " (plural(all, "resource", "resources")) "."
            } @else if stuck.is_empty() {
                "Nothing is stuck: the provisioner works on " (plural(waiting.len(), "resource", "resources")) " of " (count(all as u64)) "."
            } @else {
                strong { (count(stuck.len() as u64)) } " of " (plural(all, "resource", "resources"))
                @if stuck.len() == 1 { " waits for somebody" } @else { " wait for somebody" }
                @if let Some(longest) = longest { ", the longest " (lasting("for", longest, view.now)) }
                "."
            }
        }
    }
}

/// Links to what does not work, because it makes the rest of the page old or wrong.
fn broken(health: &[Line]) -> Markup {
    let broken: Vec<_> = health.iter().filter(|line| line.level == Level::Bad).collect();
    html! {
        @if !broken.is_empty() {
            p {
                span class={ "state " (Level::Bad.as_str()) } { (Level::Bad.name()) ":" } " "
                @for (position, line) in broken.iter().enumerate() { @if position > 0 { ", " } (isolated(&line.what)) }
                ". " a href="#health" { "Details" }
            }
        }
    }
}

fn card(view: &View<'_>, who: Turn, number: usize, longest: Option<OffsetDateTime>) -> Markup {
    let query = Query { turn: Some(who), page: 1, ..Query::default() };
    let link = format!("{}{}", view.link(Place::Resources.path()), query.to_url());
    html! {
        li class={ "card " (who.as_str()) } {
            @if number > 0 {
                a href=(link) { span.number { (count(number as u64)) } " " span.who { (who.name()) } }
            } @else {
                p { span.number { "0" } " " span.who { (who.name()) } }
            }
            p.note {
                @match longest {
                    Some(longest) => { "oldest: " (when(longest, view.now)) }
                    None => (role(who))
                }
            }
        }
    }
}

/// What it means that it is somebody's turn.
fn role(who: Turn) -> &'static str {
    match who {
        Turn::Operator => "us: a command, or a look at the storage",
        Turn::Provider => "our staff, in Waldur",
        Turn::Identity => "a group or user is missing",
        Turn::Storage => "unavailable or full",
        Turn::Customer => "an approval or a date in Waldur",
        Turn::Provisioner => "works by itself",
        Turn::Nobody => "nothing to do",
    }
}

fn longest(view: &View<'_>, rows: &[&Row]) -> Markup {
    table(
        "longest-caption",
        "Resources that wait, the longest wait first",
        &html! {
            thead {
                tr {
                    th scope="col" { "Resource" }
                    th scope="col" { "Whose turn" }
                    th scope="col" { "Since" }
                    th scope="col" { "Why" }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" data-label="Resource" {
                            (view.resource(row))
                            @if !row.customer.is_empty() || !row.project.is_empty() {
                                span.sub { (isolated(&row.customer)) " · " (isolated(&row.project)) }
                            }
                        }
                        td data-label="Whose turn" { (turn(row.conclusion.turn)) }
                        td data-label="Since" { (when_or_dash(row.conclusion.since, view.now)) }
                        td.why data-label="Why" { (short_reason(&row.conclusion)) }
                    }
                }
            }
        },
    )
}

fn lines(view: &View<'_>, health: &[Line]) -> Markup {
    table(
        "health-caption",
        "The proxy, its upstreams and the provisioners",
        &html! {
            thead { tr { th scope="col" { "What" } th scope="col" { "State" } th scope="col" { "Last success" } th scope="col" { "Details" } } }
            tbody {
                @for line in health {
                    tr {
                        th scope="row" data-label="What" { (isolated(&line.what)) }
                        td data-label="State" { span class={ "state " (line.level.as_str()) } { (line.level.name()) } }
                        td data-label="Last success" { (when_or_dash(line.at, view.now)) }
                        td.why data-label="Details" { @if line.text.is_empty() { (dash()) } @else { (isolated(&line.text)) } }
                    }
                }
            }
        },
    )
}
