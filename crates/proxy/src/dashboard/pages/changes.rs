//! *Changes*: what would the next pass do, and what asks for confirmation?

use maud::{Markup, html};
use provisioner_report::{Change, HoldKind, TaskState};
use time::OffsetDateTime;
use url::form_urlencoded;

use super::super::filter::Paging;
use super::super::layout::Place;
use super::super::story::{Row, Story};
use super::super::text::{count, dash, isolated, or_dash, plural, prose, when_or_dash};
use super::{View, pager, select, shortened, table, titled_table};

/// What becomes of a difference between storage and document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Fate {
    /// It needs confirmation.
    Asks,
    /// The last pass failed to do it; the next one tries again.
    Retried,
    /// The next pass does it.
    Due,
    /// Nothing is done about it.
    Stays,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Asks, Self::Retried, Self::Due, Self::Stays];

    fn as_str(self) -> &'static str {
        match self {
            Self::Asks => "asks",
            Self::Retried => "retried",
            Self::Due => "due",
            Self::Stays => "stays",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Asks => "Asks for confirmation",
            Self::Retried => "Failed, and is tried again",
            Self::Due => "Next pass",
            Self::Stays => "Differs, and nothing is done",
        }
    }
}

/// A change of a resource.
#[derive(Debug)]
struct Entry<'a> {
    row: &'a Row,
    fate: Fate,
    action: &'a str,
    why: &'a str,
    changes: &'a [Change],
    since: Option<OffsetDateTime>,
}

/// The selection of the page. Empty texts select everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct Query {
    system: String,
    fate: Option<Fate>,
    page: usize,
}

impl Query {
    pub(in super::super) fn parse(query: &str) -> Self {
        let mut parsed = Self { page: 1, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "system" => parsed.system = value.into_owned(),
                "what" => parsed.fate = Fate::ALL.into_iter().find(|fate| fate.as_str() == value),
                "page" => parsed.page = value.parse().unwrap_or(1),
                _ => {}
            }
        }
        parsed
    }

    fn to_url(&self) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        if !self.system.is_empty() {
            pairs.append_pair("system", &self.system);
        }
        if let Some(fate) = self.fate {
            pairs.append_pair("what", fate.as_str());
        }
        if self.page > 1 {
            pairs.append_pair("page", &self.page.to_string());
        }
        format!("?{}", pairs.finish())
    }
}

fn entries(story: &Story) -> Vec<Entry<'_>> {
    let mut entries: Vec<_> = story.rows.iter().filter_map(entry).collect();
    entries.sort_by_key(|entry| (entry.fate, &entry.row.system, entry.since.is_none(), entry.since));
    entries
}

fn entry(row: &Row) -> Option<Entry<'_>> {
    if let Some(hold) = row.hold() {
        let fate = if hold.kind == HoldKind::Asks { Fate::Asks } else { Fate::Stays };
        let is_change = fate == Fate::Asks || !hold.changes.is_empty();
        let action = row.task().map_or("", |task| task.action.as_str());
        let (why, changes, since) = (hold.reason.as_str(), hold.changes.as_slice(), row.conclusion.since);
        return is_change.then_some(Entry { row, fate, action, why, changes, since });
    }
    let task = row.task()?;
    let fate = match task.state {
        TaskState::Due => Fate::Due,
        TaskState::Failed => Fate::Retried,
        TaskState::Done => return None,
    };
    let why = task.error.as_ref().unwrap_or(&task.why);
    Some(Entry { row, fate, action: &task.action, why, changes: &task.changes, since: task.since })
}

pub(in super::super) fn page(view: &View<'_>, query: &Query) -> Markup {
    let all = entries(view.story);
    let selected: Vec<_> = all
        .iter()
        .filter(|entry| query.system.is_empty() || entry.row.system == query.system)
        .filter(|entry| query.fate.is_none_or(|fate| fate == entry.fate))
        .collect();
    let paging = Paging::new(selected.len(), query.page);
    let path = view.link(Place::Changes.path());
    let unseen: Vec<_> = view.story.systems.iter().filter(|system| system.reporters.is_empty()).collect();
    let content = html! {
        h1 { "Changes" }
        p.lead { (lead(&all)) }
        @if !unseen.is_empty() {
            p.note { "Nobody reports about "
                @for (position, system) in unseen.iter().enumerate() { @if position > 0 { ", " } (isolated(&system.name)) }
                ", so what will change there is not known here." }
        }
        @if !all.is_empty() {
            (summary(view, &all))
            form.filters action=(path) aria-label="Filters" {
                (select("system", "System", "all", &query.system, view.story.systems.iter().map(|it| (it.name.as_str(), it.name.as_str()))))
                (select("what", "What happens", "all", query.fate.map_or("", Fate::as_str), Fate::ALL.map(|it| (it.as_str(), it.name()))))
                div.buttons { button.primary { "Apply" } @if query.to_url() != "?" { a href=(path) { "Clear" } } }
            }
            @if selected.is_empty() { p.empty { "Nothing matches. " a href=(path) { "Show all changes" } "." } }
            @else { (list(view, paging.of(&selected))) }
            (pager("Pages of changes", paging, |page| format!("{path}{}", Query { page, ..query.clone() }.to_url())))
        }
    };
    view.page("Changes", Place::Changes, true, &content)
}

fn lead(all: &[Entry<'_>]) -> Markup {
    let of = |fate: Fate| all.iter().filter(|entry| entry.fate == fate).count();
    let (asks, next) = (of(Fate::Asks), of(Fate::Due) + of(Fate::Retried));
    html! {
        @if all.is_empty() { "The next pass would change nothing, as far as the provisioners report." }
        @else {
            "The next pass changes " strong { (plural(next, "resource", "resources")) } ". "
            @if asks > 0 { strong { (plural(asks, "change asks", "changes ask")) } " for confirmation." }
            @else { "Nothing asks for confirmation." }
        }
    }
}

/// The number of changes of each system.
fn summary(view: &View<'_>, all: &[Entry<'_>]) -> Markup {
    let names = view.story.systems.iter().map(|system| system.name.as_str());
    let number = |name: &str, fate: Fate| all.iter().filter(|it| it.row.system == name && it.fate == fate).count();
    let link = |system: &str, fate: Fate| {
        let query = Query { system: system.to_owned(), fate: Some(fate), page: 1 };
        format!("{}{}", view.link(Place::Changes.path()), query.to_url())
    };
    titled_table(
        "summary",
        "Changes of each system",
        &html! {
            thead { tr { th scope="col" { "System" } @for fate in Fate::ALL { th.num scope="col" { (fate.name()) } } } }
            tbody {
                @for name in names {
                    tr {
                        th scope="row" data-label="System" { (isolated(name)) }
                        @for fate in Fate::ALL {
                            td.num data-label=(fate.name()) {
                                @match number(name, fate) {
                                    0 => span.muted { "0" }
                                    number => a href=(link(name, fate)) { (count(number as u64)) }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

/// Maximum number of changes that are shown for one resource; its page shows all.
const MAX_CHANGES: usize = 6;
/// Maximum number of characters of a value, and of a reason; the page of the resource shows all.
const MAX_VALUE: usize = 80;
const MAX_REASON: usize = 300;

fn list(view: &View<'_>, entries: &[&Entry<'_>]) -> Markup {
    let groups = entries.chunk_by(|one, other| (one.fate, &one.row.system) == (other.fate, &other.row.system));
    table(
        "changes",
        "Changes, those that ask first",
        &html! {
            thead {
                tr {
                    th scope="col" { "Resource" }
                    th scope="col" { "Action" }
                    th scope="col" { "Now → wanted" }
                    th scope="col" { "Why" }
                    th scope="col" { "Since" }
                }
            }
            @for group in groups {
                tbody {
                    tr.group {
                        th scope="rowgroup" colspan="5" { (group[0].fate.name()) " · " (or_dash(&group[0].row.system)) }
                    }
                    @for entry in group { (line(view, entry)) }
                }
            }
        },
    )
}

fn line(view: &View<'_>, entry: &Entry<'_>) -> Markup {
    let Entry { row, action, why, changes, since, .. } = *entry;
    let value = |text| shortened(text, MAX_VALUE);
    html! {
        tr {
            th scope="row" data-label="Resource" {
                (view.resource(row))
                @if !row.customer.is_empty() { span.sub { (isolated(&row.customer)) } }
            }
            td data-label="Action" { @if action.is_empty() { (dash()) } @else { span.tag { (isolated(action)) } } }
            td data-label="Now → wanted" {
                @if changes.is_empty() { (dash()) } @else {
                    ul.diff {
                        @for change in changes.iter().take(MAX_CHANGES) {
                            li {
                                span.what { (isolated(&value(&change.what))) ": " }
                                del { (or_dash(&value(&change.old))) } span.muted { " → " } ins { (or_dash(&value(&change.new))) }
                            }
                        }
                        @if changes.len() > MAX_CHANGES { li.muted { "and " (changes.len() - MAX_CHANGES) " more" } }
                    }
                }
            }
            td.why data-label="Why" { (prose(&shortened(why, MAX_REASON))) }
            td data-label="Since" { (when_or_dash(since, view.now)) }
        }
    }
}
