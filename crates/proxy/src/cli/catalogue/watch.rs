//! `list --watch`: the listing of a running proxy, and what changes in it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::list::{Format, Listing, without_guides};
use super::row;
use crate::cli::terminal::{self, Terminal, escaped};
use crate::cli::{Failure, access};
use crate::peer::{Document, ID, Peer, PeerError, identity, text};

/// Shortest time from one wait to the next: a server, or several replicas behind one address, can answer at once, again and again.
/// Also the pause after a failure; it doubles with each further one, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Shows the listing, or what in it has this `id`, and each change. Returns only after a failure that lasts.
pub(in crate::cli) async fn run(
    peer: &Peer,
    id: Option<Uuid>,
    format: Format,
    terminal: Terminal,
) -> Result<(), Failure> {
    let mut shown = read(peer, id, terminal).await.map_err(|error| access::failure(&error))?;
    if format.json {
        terminal::print_json(&Listing::new(&shown.items, &shown.skipped))?;
    } else {
        terminal::print(&row::table(without_guides(&shown.items), format.wide, terminal))?;
        for (id, reason) in skipped(&shown) {
            terminal::note(&escaped(&format!("resource {id}  SKIPPED {reason}")));
        }
        terminal::note("Changes follow; Ctrl-C ends.");
    }
    let mut pause = PAUSE;
    loop {
        let earliest = Instant::now() + PAUSE;
        let newest = match next(peer, &shown, id, terminal).await {
            Ok(newest) => newest,
            Err(error) if error.is_transient() => {
                terminal::note(&format!("{}; trying again", access::failure(&error)));
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Err(error) => return Err(access::failure(&error)),
        };
        pause = PAUSE;
        if format.json && (&newest.items, &newest.skipped) != (&shown.items, &shown.skipped) {
            terminal::print_json(&Listing::new(&newest.items, &newest.skipped))?;
        } else if !format.json {
            let now = OffsetDateTime::now_utc().truncate_to_second().format(&Rfc3339).unwrap_or_default();
            let lines = changes(&shown, &newest).into_iter().map(|line| format!("{now}  {line}\n"));
            terminal::print(&lines.collect::<String>())?;
        }
        shown = newest;
        sleep_until(earliest).await;
    }
}

/// The listing after its next change, or after one wait without a change.
async fn next(peer: &Peer, shown: &Document, id: Option<Uuid>, terminal: Terminal) -> Result<Document, PeerError> {
    if !peer.wait_for_change(shown.tag.as_ref()).await? {
        return Ok(shown.clone());
    }
    read(peer, id, terminal).await
}

async fn read(peer: &Peer, id: Option<Uuid>, terminal: Terminal) -> Result<Document, PeerError> {
    let mut document = access::read(peer, false, terminal).await?;
    if let Some(id) = id {
        let has_id = |entry: &Value| text(entry, ID).parse() == Ok(id);
        document.items.retain(has_id);
        document.skipped.retain(has_id);
    }
    Ok(document)
}

/// The ID of each skipped resource, and the reason.
fn skipped(document: &Document) -> impl Iterator<Item = (&str, String)> {
    let reason = |entry| format!("{}: {}", text(entry, "/error"), text(entry, "/detail"));
    document.skipped.iter().map(move |entry| (text(entry, ID), reason(entry)))
}

/// The columns of each item, and the reason for each skipped resource, by what identifies it.
fn entries(document: &Document) -> BTreeMap<[&str; 4], Vec<(&'static str, String)>> {
    let items = document.items.iter().map(|item| (identity(item), row::columns(item).collect()));
    let skipped = skipped(document).map(|(id, reason)| {
        ([id, "skipped", "", ""], vec![("MOUNT POINT", format!("resource {id}")), ("SKIPPED", reason)])
    });
    items.chain(skipped).collect()
}

/// One line for each entry that is new, different or gone. A change of what no column shows has no line.
fn changes(before: &Document, after: &Document) -> Vec<String> {
    let (before, after) = (entries(before), entries(after));
    let mut lines = Vec::new();
    for (key, columns) in &after {
        let old = before.get(key);
        let changed = columns.iter().enumerate().filter_map(|(position, (name, now))| match old {
            None => (*name != "MOUNT POINT" && now != "-").then(|| format!("{name} {now}")),
            Some(old) => (old[position].1 != *now).then(|| format!("{name} {} → {now}", old[position].1)),
        });
        let changed: Vec<_> = changed.collect();
        if !changed.is_empty() {
            let what = if old.is_some() { "" } else { "new: " };
            lines.push(format!("{}  {what}{}", columns[0].1, changed.join(", ")));
        }
    }
    lines.extend(
        before.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(_, old)| format!("{}  gone", old[0].1)),
    );
    lines.iter().map(|line| escaped(line)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(items: &[(&str, &str)], skipped: &[&str]) -> Document {
        let item = |(id, status): &(&str, &str)| json!({"itemId": id, "status": status, "mountPoint": {"default": format!("/s/{id}")}});
        let reason = |id: &&str| json!({"itemId": id, "error": "no_gid", "detail": "two\nlines"});
        Document { items: items.iter().map(item).collect(), skipped: skipped.iter().map(reason).collect(), tag: None }
    }

    #[test]
    fn only_what_differs_has_a_line() {
        let before = document(&[("a", "active"), ("b", "pending"), ("c", "active")], &["d"]);
        let after = document(&[("a", "active"), ("b", "active"), ("d", "pending")], &["c"]);
        let lines = [
            "/s/b  STATUS pending → active",
            "resource c  new: SKIPPED no_gid: two\\nlines",
            "/s/d  new: STATUS pending, SYSTEM -/-, ITEM d",
            "/s/c  gone",
            "resource d  gone",
        ];
        assert_eq!(changes(&before, &after), lines);
        assert!(changes(&after, &after).is_empty());
    }
}
