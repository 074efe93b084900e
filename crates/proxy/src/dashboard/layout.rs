//! What all pages have in common.

use maud::{DOCTYPE, Markup, html};

/// What surrounds the content of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// What links to this server begin with: `{root}/ui/…`.
    pub(super) root: &'a str,
    /// The signed-in operator, if there is one.
    pub(super) username: Option<&'a str>,
    /// Whether authentication is disabled.
    pub(super) open_to_all: bool,
}

/// A whole page.
pub(super) fn page(frame: &Frame<'_>, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
            }
            body {
                @if frame.open_to_all {
                    p role="status" {
                        strong { "Authentication is disabled" }
                        " (" code { "auth.disable_auth" } "): everybody who can reach this port sees these pages. For development only."
                    }
                }
                @if let (Some(username), false) = (frame.username, frame.open_to_all) {
                    form method="post" action={ (frame.root) "/ui/logout" } {
                        "Signed in as " strong { (username) } " "
                        button { "Sign out" }
                    }
                }
                main { (content) }
            }
        }
    }
}
