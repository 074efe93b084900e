//! *Trash and usage*: what expires when, and what is full or will be?

use std::collections::HashMap;

use maud::{Markup, html};
use provisioner_report::Terabyte;
use time::{Duration, OffsetDateTime};
use url::form_urlencoded;

use super::super::filter::Paging;
use super::super::layout::Place;
use super::super::story::{Row, Story, Trashed};
use super::super::text::{FULL, bytes, count, dash, isolated, or_dash, plural, space, used, when, when_or_dash};
use super::{View, pager, table, titled_table};

/// Resources that are full within this time are shown.
const SOON: Duration = Duration::days(30);
/// Rows of each list on a page: there are three lists.
const ROWS: usize = 50;

/// The pages of the three lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Query {
    trash: usize,
    full: usize,
    totals: usize,
}

impl Query {
    pub(in super::super) fn parse(query: &str) -> Self {
        let mut parsed = Self { trash: 1, full: 1, totals: 1 };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let page = value.parse().unwrap_or(1);
            match &*name {
                "trash" => parsed.trash = page,
                "full" => parsed.full = page,
                "totals" => parsed.totals = page,
                _ => {}
            }
        }
        parsed
    }

    fn to_url(self) -> String {
        let Self { trash, full, totals } = self;
        format!("?trash={trash}&full={full}&totals={totals}")
    }
}

pub(in super::super) fn page(view: &View<'_>, query: Query) -> Markup {
    let story = view.story;
    let full = full(story, view.now);
    let totals = totals(story);
    let link = |query: Query| format!("{}{}", view.link(Place::Trash.path()), query.to_url());
    let (trash_pages, full_pages, totals_pages) = (
        Paging::sized(story.trash.len(), query.trash, ROWS),
        Paging::sized(full.len(), query.full, ROWS),
        Paging::sized(totals.len(), query.totals, ROWS),
    );
    let content = html! {
        h1 { "Trash and usage" }
        (lead(view, &full))
        section aria-labelledby="trash" {
            h2 #trash { "Trash" }
            @if story.trash.is_empty() { p.empty { "No provisioner reports a directory in the trash." } }
            @else { (trash(view, trash_pages.of(&story.trash))) }
            (pager("Pages of the trash", trash_pages, |page| link(Query { trash: page, ..query }) + "#trash"))
        }
        section aria-labelledby="full" {
            h2 #full { "Full, or soon" }
            @if full.is_empty() { p.empty { "Nothing is above 90 %, and nothing will be full within 30 days, as far as usage is reported." } }
            @else { (full_table(view, full_pages.of(&full))) }
            (pager("Pages of full resources", full_pages, |page| link(Query { full: page, ..query }) + "#full"))
        }
        section aria-labelledby="totals" {
            h2 #totals { "Totals" }
            @if totals.is_empty() { p.empty { "No provisioner reports usage." } }
            @else { (system_table(story, &totals)) (customer_table(view, totals_pages.of(&totals))) }
            (pager("Pages of totals", totals_pages, |page| link(Query { totals: page, ..query }) + "#totals"))
        }
    };
    view.page("Trash and usage", Place::Trash, true, &content)
}

fn lead(view: &View<'_>, full: &[(&Row, Option<OffsetDateTime>)]) -> Markup {
    let story = view.story;
    let next = story.trash.iter().find_map(|trashed| trashed.expires);
    html! {
        p.lead {
            @if story.trash.is_empty() { "Nothing is in the trash. " }
            @else {
                strong { (plural(story.trash.len(), "directory", "directories")) } " in the trash"
                @if let Some(next) = next { ", the next one can be purged " (when(next, view.now)) }
                ". "
            }
            strong { (plural(full.len(), "resource", "resources")) } @if full.len() == 1 { " is" } @else { " are" } " above 90 % or will be full within 30 days."
        }
    }
}

fn trash(view: &View<'_>, trash: &[Trashed]) -> Markup {
    table(
        "trash-caption",
        "Directories in the trash, those that expire first",
        &html! {
            thead {
                tr {
                    th scope="col" { "Resource" }
                    th scope="col" { "Customer" }
                    th scope="col" { "System" }
                    th scope="col" { "In the trash since" }
                    th scope="col" { "Expires" }
                    th.num scope="col" { "Space" }
                }
            }
            tbody {
                @for trashed in trash {
                    @let row = trashed.row.and_then(|row| view.story.rows.get(row));
                    tr {
                        th scope="row" data-label="Resource" {
                            @match row { Some(row) => (view.resource(row)), None => code { (trashed.id) } }
                        }
                        td data-label="Customer" { @match row { Some(row) => (or_dash(&row.customer)), None => (dash()) } }
                        td data-label="System" { (isolated(&trashed.system)) }
                        td data-label="In the trash since" { (when(trashed.since, view.now)) }
                        td data-label="Expires" {
                            @match trashed.expires { Some(at) => (when(at, view.now)), None => span.muted { "never by itself" } }
                        }
                        td.num data-label="Space" {
                            @match trashed.usage {
                                Some(usage) => (bytes(usage.bytes, view.story.terabyte(&trashed.system))),
                                None => (dash()),
                            }
                        }
                    }
                }
            }
        },
    )
}

/// The resources that are full or soon will be, with the time when they are; the most urgent first.
fn full(story: &Story, now: OffsetDateTime) -> Vec<(&Row, Option<OffsetDateTime>)> {
    let each = story.rows.iter().filter_map(|row| {
        let full_at = row.full_at().filter(|at| *at - now < SOON);
        let fullness = row.fullness()?;
        (fullness >= FULL || full_at.is_some()).then_some((row, full_at, fullness))
    });
    let mut rows: Vec<_> = each.collect();
    rows.sort_by(|(one, _, a), (other, _, b)| b.total_cmp(a).then_with(|| one.path.cmp(&other.path)));
    rows.into_iter().map(|(row, full_at, _)| (row, full_at)).collect()
}

fn full_table(view: &View<'_>, rows: &[(&Row, Option<OffsetDateTime>)]) -> Markup {
    table(
        "full-caption",
        "Resources that are above 90 % or will be full within 30 days, the fullest first",
        &html! {
            thead {
                tr {
                    th scope="col" { "Resource" }
                    th scope="col" { "Customer" }
                    th.num scope="col" { "Space" }
                    th.num scope="col" { "Inodes" }
                    th scope="col" { "Full" }
                }
            }
            tbody {
                @for (row, full_at) in rows {
                    tr {
                        th scope="row" data-label="Resource" { (view.resource(row)) }
                        td data-label="Customer" { (or_dash(&row.customer)) }
                        td.num data-label="Space" { (space(row.usage(), row.quota(), view.story.terabyte(&row.system))) }
                        td.num data-label="Inodes" {
                            @match (row.usage(), row.quota()) {
                                (Some(usage), Some(quota)) if quota.inodes > 0 => (used(usage.inodes, quota.inodes, count)),
                                (Some(usage), _) => (count(usage.inodes)),
                                _ => (dash()),
                            }
                        }
                        td data-label="Full" {
                            @if row.fullness().is_some_and(|part| part >= 1.0) || full_at.is_some_and(|at| at <= view.now) { strong { "now" } }
                            @else { (when_or_dash(*full_at, view.now)) }
                        }
                    }
                }
            }
        },
    )
}

/// Space of a customer on a system.
#[derive(Debug, Default)]
struct Total<'a> {
    customer: &'a str,
    system: &'a str,
    resources: usize,
    used: u64,
    quota: u64,
    trash: u64,
}

/// The totals by customer and system.
type Totals<'a> = HashMap<(&'a str, &'a str), Total<'a>>;

fn total<'a, 'b>(totals: &'b mut Totals<'a>, customer: &'a str, system: &'a str) -> &'b mut Total<'a> {
    totals.entry((customer, system)).or_insert(Total { customer, system, ..Total::default() })
}

/// Totals by customer and system, the largest first.
fn totals(story: &Story) -> Vec<Total<'_>> {
    let mut totals = Totals::new();
    for row in &story.rows {
        let (usage, quota) = (row.usage(), row.quota());
        if usage.is_some() || quota.is_some() {
            let total = total(&mut totals, &row.customer, &row.system);
            total.resources += 1;
            total.used = total.used.saturating_add(usage.map_or(0, |usage| usage.bytes));
            total.quota = total.quota.saturating_add(quota.map_or(0, |quota| quota.bytes));
        }
    }
    for trashed in &story.trash {
        let customer = trashed.row.and_then(|row| story.rows.get(row)).map_or("", |row| &row.customer);
        let total = total(&mut totals, customer, &trashed.system);
        total.trash = total.trash.saturating_add(trashed.usage.map_or(0, |usage| usage.bytes));
    }
    let mut totals: Vec<_> = totals.into_values().collect();
    totals.sort_by(|one, other| {
        let size = |total: &Total<'_>| (total.used, total.trash);
        size(other).cmp(&size(one)).then_with(|| (one.customer, one.system).cmp(&(other.customer, other.system)))
    });
    totals
}

fn head(first: &[&str]) -> Markup {
    html! {
        thead {
            tr {
                @for name in first { th scope="col" { (name) } }
                th.num scope="col" { "Resources" }
                th.num scope="col" { "Used of quotas" }
                th.num scope="col" { "In the trash" }
            }
        }
    }
}

fn numbers(total: &Total<'_>, terabyte: Terabyte) -> Markup {
    let format = |amount| bytes(amount, terabyte);
    html! {
        td.num data-label="Resources" { (count(total.resources as u64)) }
        td.num data-label="Used of quotas" {
            @if total.quota > 0 { (used(total.used, total.quota, format)) } @else { (format(total.used)) }
        }
        td.num data-label="In the trash" { @if total.trash == 0 { (dash()) } @else { (format(total.trash)) } }
    }
}

fn system_table(story: &Story, totals: &[Total<'_>]) -> Markup {
    let mut systems: Vec<Total<'_>> = Vec::new();
    for total in totals {
        let number = systems.iter().position(|sum| sum.system == total.system).unwrap_or_else(|| {
            systems.push(Total { system: total.system, ..Total::default() });
            systems.len() - 1
        });
        let sum = &mut systems[number];
        sum.resources += total.resources;
        sum.used = sum.used.saturating_add(total.used);
        sum.quota = sum.quota.saturating_add(total.quota);
        sum.trash = sum.trash.saturating_add(total.trash);
    }
    systems.sort_by_key(|sum| std::cmp::Reverse(sum.used));
    titled_table(
        "system-totals",
        "By system, the largest first",
        &html! {
            (head(&["System"]))
            tbody {
                @for sum in &systems {
                    tr { th scope="row" data-label="System" { (or_dash(sum.system)) } (numbers(sum, story.terabyte(sum.system))) }
                }
            }
        },
    )
}

fn customer_table(view: &View<'_>, totals: &[Total<'_>]) -> Markup {
    let link = |total: &Total<'_>| {
        let query = super::super::filter::Query {
            customer: total.customer.to_owned(),
            system: total.system.to_owned(),
            page: 1,
            ..Default::default()
        };
        format!("{}{}", view.link(Place::Resources.path()), query.to_url())
    };
    titled_table(
        "customer-totals",
        "By customer and system, the largest first",
        &html! {
            (head(&["Customer", "System"]))
            tbody {
                @for total in totals {
                    tr {
                        th scope="row" data-label="Customer" {
                            @if total.customer.is_empty() { (dash()) } @else { a href=(link(total)) { (isolated(total.customer)) } }
                        }
                        td data-label="System" { (or_dash(total.system)) }
                        (numbers(total, view.story.terabyte(total.system)))
                    }
                }
            }
        },
    )
}
