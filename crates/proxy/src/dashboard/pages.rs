//! The pages: each answers one question. They are functions of the joined story and the query.

pub(super) mod changes;
pub(super) mod now;
pub(super) mod resource;
pub(super) mod resources;
#[cfg(test)]
mod tests;
pub(super) mod trash;

use std::borrow::Cow;

use maud::{Markup, html};
use time::OffsetDateTime;
use uuid::Uuid;

use super::filter::Paging;
use super::layout::{self, Frame, Place};
use super::story::{Conclusion, Row, Story, Turn};
use super::text::{count, path, plural, prose, visible, when};

/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) story: &'a Story,
    pub(super) now: OffsetDateTime,
    /// Base of links into Waldur's web interface, with a trailing slash.
    pub(super) waldur: &'a str,
    /// When the snapshot was read; `None` if there is none yet.
    pub(super) read_at: Option<OffsetDateTime>,
}

impl View<'_> {
    fn page(&self, title: &str, place: Place, is_entry: bool, content: &Markup) -> Markup {
        let content = html! {
            (content)
            footer {
                p {
                    @match self.read_at {
                        Some(at) => { "Waldur was read " (when(at, self.now)) "." }
                        None => "Waldur has not been read yet."
                    }
                    " This page changes nothing."
                }
                ul.links {
                    li { a href=(self.link("/docs")) { "Documentation of the API" } }
                    li { a href=(self.waldur) { "Waldur" } }
                }
            }
        };
        layout::page(&self.frame, title, Some((place, is_entry)), &content)
    }

    fn link(&self, path: &str) -> String {
        format!("{}{path}", self.frame.root)
    }

    fn resource_link(&self, id: Uuid) -> String {
        format!("{}/ui/resources/{id}", self.frame.root)
    }

    /// A link to the page of a resource, with its path or what else identifies it.
    fn resource(&self, row: &Row) -> Markup {
        let name = name(row);
        html! {
            @match row.id {
                Some(id) => a.path href=(self.resource_link(id)) { (path(&name)) },
                None => span.path { (path(&name)) },
            }
        }
    }
}

/// The path of a resource, or what else identifies it.
fn name(row: &Row) -> String {
    let id = || row.id.map_or_else(|| "a record without a UUID".to_owned(), |id| id.to_string());
    match (&row.path, &row.slug) {
        (path, _) if !path.is_empty() => path.clone(),
        (_, slug) if !slug.is_empty() => slug.clone(),
        _ => id(),
    }
}

/// The name of whose turn it is. The text says everything; the colour repeats it.
fn turn(turn: Turn) -> Markup {
    html! { span class={ "turn " (turn.as_str()) } { (turn.name()) } }
}

/// Longer reasons are cut in tables; the page of the resource shows all.
const MAX_REASON: usize = 180;

fn short_reason(conclusion: &Conclusion) -> Markup {
    prose(&shortened(&conclusion.why, MAX_REASON))
}

/// The text, or its beginning of this many characters.
fn shortened(text: &str, length: usize) -> Cow<'_, str> {
    text.char_indices().nth(length).map_or(Cow::Borrowed(text), |(end, _)| Cow::Owned(format!("{}…", &text[..end])))
}

/// A table that can be scrolled by keyboard if it is wider than the window. Its caption is only heard: the heading above is seen.
fn table(id: &str, caption: &str, content: &Markup) -> Markup {
    captioned(id, &html! { caption #(id) { span.hidden { (caption) } } }, content)
}

/// A table with a visible caption, for several below one heading.
fn titled_table(id: &str, caption: &str, content: &Markup) -> Markup {
    captioned(id, &html! { caption #(id) { (caption) } }, content)
}

fn captioned(id: &str, caption: &Markup, content: &Markup) -> Markup {
    html! { div.scroll role="region" aria-labelledby=(id) tabindex="0" { table { (caption) (content) } } }
}

/// Links to the other pages of a list. `link` makes the URL of a page.
fn pager(label: &str, paging: Paging, link: impl Fn(usize) -> String) -> Markup {
    let Paging { page, pages, total, .. } = paging;
    html! {
        @if pages > 1 {
            nav.pager aria-label=(label) {
                @if page > 1 { a href=(link(page - 1)) rel="prev" { "Previous" } } @else { span.muted { "Previous" } }
                span { "Page " (count(page as u64)) " of " (count(pages as u64)) " (" (plural(total, "row", "rows")) ")" }
                @if page < pages { a href=(link(page + 1)) rel="next" { "Next" } } @else { span.muted { "Next" } }
            }
        }
    }
}

/// A choice of a form. `options` are values and names.
fn select<'a>(
    name: &str,
    label: &str,
    all: &str,
    chosen: &str,
    options: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Markup {
    html! {
        div.field {
            label for={ "f-" (name) } { (label) }
            select #{ "f-" (name) } name=(name) {
                option value="" { (all) }
                @for (value, text) in options {
                    option value=(value) selected[value == chosen] { (visible(text)) }
                }
            }
        }
    }
}
