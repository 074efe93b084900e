//! What all pages have in common.

use maud::{DOCTYPE, Markup, html};

use super::text::isolated;

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

/// The pages in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Now,
    Resources,
    Changes,
    Trash,
}

impl Place {
    const ALL: [Self; 4] = [Self::Now, Self::Resources, Self::Changes, Self::Trash];

    /// The path after the root.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Now => "/ui/",
            Self::Resources => "/ui/resources",
            Self::Changes => "/ui/changes",
            Self::Trash => "/ui/trash",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Now => "Now",
            Self::Resources => "Resources",
            Self::Changes => "Changes",
            Self::Trash => "Trash and usage",
        }
    }
}

/// The stylesheet of all pages.
pub(super) const STYLE: &str = include_str!("../../assets/dashboard.css");
/// The icon of all pages.
pub(super) const ICON: &str = include_str!("../../assets/dashboard.svg");

/// A whole page with the navigation. `place` is the current entry; `is_entry` is false for a page below it.
pub(super) fn page(frame: &Frame<'_>, title: &str, place: Option<(Place, bool)>, content: &Markup) -> Markup {
    let root = frame.root;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (super::text::visible(title)) " · Storage" }
                link rel="icon" type="image/svg+xml" href={ (root) "/ui/icon.svg" };
                link rel="stylesheet" href={ (root) "/ui/style.css?v=" (env!("CARGO_PKG_VERSION")) };
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                @if frame.open_to_all {
                    p.banner role="status" {
                        strong { "Authentication is disabled" }
                        " (" code { "auth.disable_auth" } "): everybody who can reach this port sees these pages. For development only."
                    }
                }
                header.top {
                    p.brand { "Storage" }
                    @if frame.open_to_all || frame.username.is_some() {
                        nav aria-label="Pages" {
                            ul {
                                @for entry in Place::ALL {
                                    @let current = place.filter(|(place, _)| *place == entry);
                                    li {
                                        a href={ (root) (entry.path()) }
                                            aria-current=[current.map(|(_, is_entry)| if is_entry { "page" } else { "true" })] {
                                            (entry.name())
                                        }
                                    }
                                }
                            }
                        }
                        form.find role="search" action={ (root) "/ui/resources" } {
                            label.hidden for="find" { "Find resources" }
                            input #find type="search" name="q" placeholder="Path, project, UUID" autocomplete="off";
                            button { "Find" }
                        }
                    }
                    @if let (Some(username), false) = (frame.username, frame.open_to_all) {
                        form.user method="post" action={ (root) "/ui/logout" } {
                            span.hidden { "Signed in as " } (isolated(username))
                            button { "Sign out" }
                        }
                    }
                }
                main #main tabindex="-1" { (content) }
            }
        }
    }
}
