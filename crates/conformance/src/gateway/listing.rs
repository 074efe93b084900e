//! The listing as a case wants the command to see it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;

use super::{Answer, Call, End, Gateway, HANG, Received, WorldChange, status_of};
use crate::exchange::Page;

/// How long a request waits for a change of a listing that a case has changed.
const WAIT: Duration = Duration::from_secs(1);

/// What to do to pages of the listing.
#[derive(Clone)]
pub(crate) enum ListingChange {
    /// This answer instead.
    Answer(Answer),
    /// An HTML page with status 200.
    Html,
    /// Only the first half of the body, then the connection ends like this.
    CutOff(End),
    /// The page with changes, which keeps its other headers but not its tag.
    Edit(Arc<dyn Fn(&mut Value) + Send + Sync>),
}

/// What the command sees instead of the proxy's listing.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) change: Option<ListingChange>,
    /// Most items of a page, whatever the command asks for.
    pub(crate) page_size: Option<u64>,
    /// A change of the world, after this page has been read.
    pub(crate) after_page: Option<(u64, WorldChange)>,
    /// Forwards no preference to wait, as if the proxy did not know it.
    pub(crate) ignores_waits: bool,
    /// Answers this page once with this status.
    pub(crate) fail_page: Option<(u64, u16)>,
}

impl Gateway {
    pub(super) async fn list(&self, call: &Call, number: usize) -> io::Result<Received> {
        let mut changes = self.listing_changes.subscribe();
        let asked = parameter(&call.target, "page").and_then(|page| page.parse().ok()).unwrap_or(1);
        loop {
            changes.borrow_and_update();
            let (change, page_size, ignores_waits, fails) = {
                let mut state = self.state();
                let fails = state.listing.fail_page.take_if(|(page, _)| *page == asked).map(|(_, status)| status);
                (state.listing.change.clone(), state.listing.page_size, state.listing.ignores_waits, fails)
            };
            if let Some(status) = fails.and_then(|status| StatusCode::from_u16(status).ok()) {
                self.note(number, |exchange| exchange.fault = Some("once".into()));
                return Ok(Received::text(status, r#"{"detail": "simulated"}"#));
            }
            let target = page_size.map_or_else(|| call.target.clone(), |size| with_page_size(&call.target, size));
            let mut headers = call.headers.clone();
            if ignores_waits {
                headers.remove("prefer");
            }
            let (method, body) = (call.method.clone(), call.body.clone());
            let call = Call { front: call.front, method, target, headers, body };
            let received = if let Some(change) = change {
                self.note(number, |exchange| exchange.fault = Some("the case changes the listing".into()));
                self.changed(&call, number, &change).await?
            } else {
                tokio::select! {
                    received = self.forward(&call) => received?,
                    _ = changes.changed() => continue,
                }
            };
            let page = page_of(&received);
            self.note(number, |exchange| {
                exchange.effect = Some(received.status.as_u16());
                exchange.page = page;
            });
            let after = page.and_then(|page| {
                self.state().listing.after_page.take_if(|(number, _)| *number == page.number).map(|(_, change)| change)
            });
            if let Some(change) = after {
                self.simulator.world(change);
            }
            return Ok(received);
        }
    }

    async fn changed(&self, call: &Call, number: usize, change: &ListingChange) -> io::Result<Received> {
        match change {
            ListingChange::Answer(Answer::Status(status)) => {
                Ok(Received::text(status_of(*status), r#"{"detail": "simulated", "error": "UpstreamServiceError"}"#))
            }
            ListingChange::Answer(Answer::Hang) => {
                tokio::time::sleep(HANG).await;
                Err(io::ErrorKind::TimedOut.into())
            }
            ListingChange::Answer(Answer::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
            ListingChange::Answer(Answer::Redirect(status)) => Ok(self.redirect(call, *status)),
            ListingChange::Html => {
                let page = Received::text(StatusCode::OK, "<html><body>maintenance</body></html>");
                Ok(page.with("content-type", "text/html"))
            }
            ListingChange::CutOff(end) => Ok(Received { end: *end, ..self.whole(call).await? }),
            ListingChange::Edit(edit) => {
                let mut received = self.whole(call).await?;
                let Ok(mut page) = serde_json::from_slice::<Value>(&received.body) else { return Ok(received) };
                let mut hasher = DefaultHasher::new();
                // One tag for all pages: that of the proxy, and a mark of the change.
                received.header("etag").hash(&mut hasher);
                let before = page.clone();
                edit(&mut page);
                let mut found = Vec::new();
                differences("", &before, &page, &mut found);
                if !found.is_empty() {
                    let text = format!("the case changes the listing: {}", shortened(&found));
                    self.note(number, |exchange| exchange.fault = Some(text));
                }
                Arc::as_ptr(edit).cast::<()>().hash(&mut hasher);
                let tag = format!("\"changed-{:016x}\"", hasher.finish());
                received.body = Bytes::from(page.to_string());
                let received = received.with("etag", &tag);
                if call.header("if-none-match") != Some(tag.as_str()) {
                    return Ok(received);
                }
                let unchanged = Received { status: StatusCode::NOT_MODIFIED, body: Bytes::new(), ..received };
                let Some(wait) = call.wait() else { return Ok(unchanged) };
                let mut changes = self.listing_changes.subscribe();
                let longest = WAIT.min(Duration::from_secs(wait));
                let _ = tokio::time::timeout(longest, changes.changed()).await;
                Ok(unchanged.with("preference-applied", &format!("wait={wait}")))
            }
        }
    }

    /// The page, although the client may know it already.
    async fn whole(&self, call: &Call) -> io::Result<Received> {
        let mut headers = call.headers.clone();
        headers.remove("if-none-match");
        headers.remove("prefer");
        let (method, target, body) = (call.method.clone(), call.target.clone(), call.body.clone());
        self.forward(&Call { front: call.front, method, target, headers, body }).await
    }
}

/// What an edit has changed, for people: each value with its path, an item by its `itemId`.
fn differences(at: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => differences(&at, old, new, found),
                    (_, Some(new)) => found.push(format!("{at} is {new}")),
                    (_, None) => found.push(format!("{at} is missing")),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let name = old["itemId"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                differences(&format!("{at}[{name}]"), old, new, found);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            found.push(format!("{at} has {} entries instead of {}", new.len(), old.len()));
        }
        _ if before == after => {}
        _ => found.push(format!("{at} is {after}")),
    }
}

/// At most five differences, of at most 200 characters each.
fn shortened(found: &[String]) -> String {
    let shown: Vec<String> = found.iter().take(5).map(|text| text.chars().take(200).collect()).collect();
    let more = if found.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn page_of(received: &Received) -> Option<Page> {
    if received.status != StatusCode::OK {
        return None;
    }
    let page: Value = serde_json::from_slice(&received.body).ok()?;
    let items = page["resources"].as_array()?.len();
    let number = |key: &str| page["pagination"][key].as_u64();
    Some(Page { number: number("current")?, pages: number("pages")?, items })
}

fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let query = target.split_once('?')?.1;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The target with a smaller page size.
fn with_page_size(target: &str, size: u64) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let others = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("page_size="));
    let pairs: Vec<String> = others.map(str::to_owned).chain([format!("page_size={size}")]).collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{differences, parameter, shortened, with_page_size};

    #[test]
    fn the_log_names_the_values_that_an_edit_has_changed() {
        let before = json!({"resources": [{"itemId": "a", "gid": 1, "name": "x"}, {"itemId": "b"}], "skipped": [1]});
        let after = json!({"resources": [{"itemId": "a", "gid": "1"}, {"itemId": "b", "more": 2}], "skipped": []});
        let mut found = Vec::new();
        differences("", &before, &after, &mut found);
        found.sort();
        let all = [
            r#"resources[a].gid is "1""#,
            "resources[a].name is missing",
            "resources[b].more is 2",
            "skipped has 0 entries instead of 1",
        ];
        assert_eq!(found, all);
        assert_eq!(shortened(&found), all.join(", "));
        assert_eq!(shortened(&vec!["x".repeat(300); 6]).matches(", ").count(), 5);
    }

    #[test]
    fn the_page_size_is_replaced() {
        assert_eq!(with_page_size("/a/?page=2&page_size=500", 3), "/a/?page=2&page_size=3");
        assert_eq!(with_page_size("/a/", 3), "/a/?page_size=3");
        assert_eq!(parameter("/a/?page=2&page_size=500", "page"), Some("2"));
        assert_eq!(parameter("/a/", "page"), None);
    }
}
