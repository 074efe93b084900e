//! *Resources*: which ones differ or wait?

use catalog::{State, Status};
use maud::{Markup, html};

use super::super::filter::{HOLDS, Paging, Query, Sort, hold_name};
use super::super::layout::Place;
use super::super::story::{Row, Turn};
use super::super::text::{dash, isolated, or_dash, plural, space, visible, when_or_dash};
use super::{View, pager, select, short_reason, turn};

/// With more customers, the form offers no list of their names.
const MAX_CUSTOMERS: usize = 100;

pub(in super::super) fn page(view: &View<'_>, query: &Query) -> Markup {
    let rows = query.select(view.story);
    let paging = Paging::new(rows.len(), query.page);
    let path = view.link(Place::Resources.path());
    let url = |query: &Query| format!("{path}{}", query.to_url());
    let all = query.on_page(1);
    let export = |format: &str| format!("{path}.{format}{}", all.to_url());
    let other_view = Query { tree: !query.tree, ..all.clone() };
    let total = view.story.rows.len();
    let content = html! {
        h1 { "Resources" }
        (form(view, query, &path))
        @for (name, value) in &query.unknown {
            p.error role="alert" { "Nothing is selected: " code { (name) } " has no value " (isolated(value)) "." }
        }
        div.bar-line {
            p role="status" {
                @if query.is_filter() {
                    strong { (plural(rows.len(), "resource", "resources")) } " of " (plural(total, "resource", "resources")) " selected"
                } @else {
                    strong { (plural(rows.len(), "resource", "resources")) }
                }
            }
            ul.actions {
                li { a href=(url(&other_view)) { @if query.tree { "Show as table" } @else { "Show as tree" } } }
                li { a href=(export("csv")) { "CSV" } }
                li { a href=(export("json")) { "JSON" } }
            }
        }
        @if rows.is_empty() {
            p.empty { "No resource matches. " a href=(path) { "Show all resources" } "." }
            p.note { "A new resource appears once the customer has approved its order and its start date has come. Until then only Waldur shows it." }
        } @else {
            (table(view, query, paging.of(&rows), &url))
            (pager("Pages of resources", paging, |page| url(&query.on_page(page))))
        }
    };
    view.page("Resources", Place::Resources, true, &content)
}

fn form(view: &View<'_>, query: &Query, path: &str) -> Markup {
    let story = view.story;
    let systems = story.systems.iter().map(|system| (system.name.as_str(), system.name.as_str()));
    let mut types: Vec<_> = story.rows.iter().map(|row| row.data_type.as_str()).filter(|it| !it.is_empty()).collect();
    types.sort_unstable();
    types.dedup();
    let mut customers: Vec<_> =
        story.rows.iter().map(|row| row.customer.as_str()).filter(|it| !it.is_empty()).collect();
    customers.sort_unstable();
    customers.dedup();
    let holds = [("any", "any hold"), ("none", "not held")].into_iter().chain(HOLDS.map(|(_, name)| (name, name)));
    html! {
        form.filters action=(path) aria-label="Filters" {
            div.field.wide {
                label for="f-q" { "Text" }
                input #f-q type="search" name="q" value=(query.text) placeholder="path, project, reason, UUID" autocomplete="off";
            }
            div.field.wide {
                label for="f-customer" { "Customer" }
                input #f-customer name="customer" value=(query.customer) autocomplete="off"
                    list=[(customers.len() <= MAX_CUSTOMERS).then_some("customers")];
                @if customers.len() <= MAX_CUSTOMERS {
                    datalist #customers { @for name in customers { option value=(visible(name)) {} } }
                }
            }
            (select("turn", "Whose turn", "anybody", query.turn.map_or("", Turn::as_str), Turn::ALL.map(|it| (it.as_str(), it.name()))))
            (select("system", "System", "all", &query.system, systems))
            (select("type", "Type", "all", &query.data_type, types.into_iter().map(|it| (it, it))))
            (select("status", "Status", "all", query.status.map_or("", Status::as_str), Status::ALL.map(|it| (it.as_str(), it.as_str()))))
            (select("state", "State in Waldur", "all", query.state.map_or("", State::as_str), State::KNOWN.map(|it| (it.as_str(), it.as_str()))))
            (select("hold", "Hold", "all", query.hold.map_or("", |it| it.as_str()), holds))
            // Sorting and view survive a new selection.
            @for (name, value) in form_pairs(query) { input type="hidden" name=(name) value=(value); }
            div.buttons {
                button.primary { "Apply" }
                @if query.is_filter() { a href=(path) { "Clear" } }
            }
        }
    }
}

/// Parameters of the query that the form has no control for.
fn form_pairs(query: &Query) -> Vec<(String, String)> {
    let rest = Query { sort: query.sort, descending: query.descending, tree: query.tree, page: 1, ..Query::default() };
    let rest = rest.to_url();
    let pairs = url::form_urlencoded::parse(rest.trim_start_matches('?').as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn table(view: &View<'_>, query: &Query, rows: &[&Row], url: &dyn Fn(&Query) -> String) -> Markup {
    let sortable = |sort: Sort, name: &str, class: &str| {
        let is_current = query.sort == sort;
        let direction = if query.descending { "descending" } else { "ascending" };
        html! {
            th scope="col" class=[(!class.is_empty()).then_some(class)] aria-sort=[is_current.then_some(direction)] {
                a href=(url(&query.sorted_by(sort))) {
                    (name)
                    @if is_current { span.arrow aria-hidden="true" { @if query.descending { " ↓" } @else { " ↑" } } }
                }
            }
        }
    };
    let head = html! {
        thead {
            tr {
                (sortable(Sort::Path, "Resource", ""))
                (sortable(Sort::Customer, if query.tree { "Project" } else { "Customer" }, ""))
                @if !query.tree { th scope="col" { "System" } }
                (sortable(Sort::Status, "Waldur", ""))
                (sortable(Sort::Turn, "Whose turn", ""))
                (sortable(Sort::Since, "Since", ""))
                (sortable(Sort::Usage, "Space used", "num"))
            }
        }
    };
    let group = |row: &Row| [row.system.clone(), row.data_type.clone(), row.customer.clone()];
    let groups = rows.chunk_by(|one, other| !query.tree || group(one) == group(other));
    let body = html! {
        @for rows in groups {
            tbody {
                @if query.tree { (group_header(rows[0])) }
                @for row in rows { (line(view, query, row)) }
            }
        }
    };
    super::table("rows", "Selected resources", &html! { (head) (body) })
}

/// The place of a group of resources in the tree.
fn group_header(row: &Row) -> Markup {
    html! {
        tr.group {
            th scope="rowgroup" colspan="6" {
                @if row.system.is_empty() { "System not known" }
                @else { (isolated(&row.system)) " / " (or_dash(&row.data_type)) " / " (or_dash(&row.customer)) }
            }
        }
    }
}

fn line(view: &View<'_>, query: &Query, row: &Row) -> Markup {
    let conclusion = &row.conclusion;
    html! {
        tr {
            th scope="row" data-label="Resource" { (view.resource(row)) }
            @if query.tree {
                td data-label="Project" { (or_dash(&row.project)) }
            } @else {
                td data-label="Customer" {
                    (or_dash(&row.customer))
                    @if !row.project.is_empty() { span.sub { (isolated(&row.project)) } }
                }
                td data-label="System" {
                    (or_dash(&row.system))
                    @if !row.data_type.is_empty() { span.sub { (isolated(&row.data_type)) } }
                }
            }
            td data-label="Waldur" {
                @match (row.state, row.status) {
                    (Some(state), _) => (state.as_str()),
                    _ => (dash()),
                }
                @if let Some(order) = &row.order { span.sub { (isolated(&order.kind)) " order, " (isolated(&order.state)) } }
            }
            td.why data-label="Whose turn" {
                (turn(conclusion.turn))
                @if let Some(hold) = row.hold() { " " span.tag { (hold_name(hold.kind)) } }
                @if conclusion.turn != Turn::Nobody { span.sub { (short_reason(conclusion)) } }
            }
            td data-label="Since" { (when_or_dash(conclusion.since, view.now)) }
            td.num data-label="Space used" { (space(row.usage(), row.quota(), view.story.terabyte(&row.system))) }
        }
    }
}
