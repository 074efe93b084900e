//! Listings that are empty, incomplete, old or strange.

use serde_json::{Value, json};
use simulator::world::{NewResource, OrderState, ResourceState};

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level, both};
use crate::gateway::{Answer, End, ListingChange};
use crate::outcome::{Outcome, seen};

const WHOLE: &str =
    "8.3: Never act on a list that is empty, incomplete or an error. Absence from the list never means delete";
const PAGES: &str = "3: To read the whole document, read all pages from 1 to pages";
const CHANGES: &str = "3: If total differs between two pages, or the pages do not have total items together, the document has changed: read it again. 2: If the tags of two pages differ, start again with the first page";
const UNKNOWN: &str = "3: Clients must ignore keys that they do not know";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("listings/empty", Level::Must, WHOLE, empty),
        Case::new("listings/short", Level::Must, WHOLE, short),
        Case::new("listings/absent", Level::Must, WHOLE, absent),
        Case::new("listings/paged", Level::Must, PAGES, paged),
        Case::new("listings/total-changes-between-pages", Level::Must, CHANGES, total_changes),
        Case::new("listings/content-changes-between-pages", Level::Must, CHANGES, content_changes),
        Case::new("listings/a-page-fails", Level::Must, WHOLE, page_fails),
        Case::new(
            "listings/skipped",
            Level::Must,
            "7: skipped: resources that cannot be processed: absence never means delete",
            skipped,
        ),
        Case::new(
            "listings/mock-identities",
            Level::Must,
            "7: mock_identities: never act on such a document",
            mock_identities,
        ),
        Case::new("listings/name-null", Level::Must, "4: Targets: a key or name may be null", name_null),
        Case::new("listings/unknown-keys", Level::Should, UNKNOWN, unknown_keys),
        Case::new(
            "listings/unknown-order-type",
            Level::Must,
            "8.1: the order types are Create, Update, Terminate and Restore",
            |bench| unknown_order(bench, "type", json!("Transfer")),
        ),
        Case::new(
            "listings/unknown-offering-type",
            Level::Should,
            "8.1: orders[itemId].offeringType decides what approval means",
            |bench| unknown_order(bench, "offeringType", json!("Marketplace.Rancher")),
        ),
        Case::new(
            "listings/unknown-values",
            Level::Must,
            "3: Clients must not act on an item with a value that they do not know: a status, a type of quota, a unit",
            unknown_values,
        ),
        Case::new(
            "listings/another-storage-system",
            Level::Must,
            "2: storage_system: items on this storage system",
            another_storage_system,
        ),
        Case::new(
            "listings/redirect",
            Level::Must,
            "8.2: Send a credential only to the origin that it belongs to, and follow no redirects",
            redirect,
        ),
        Case::new(
            "listings/site-agent-by-its-other-name",
            Level::Must,
            "8.1: offering types Marketplace.Slurm, Marketplace.SiteAgent",
            other_name,
        ),
        Case::new(
            "listings/a-malformed-item",
            Level::Should,
            "8.3: an item that is not understood: hold it, and go on with the others",
            malformed_item,
        ),
        Case::new(
            "listings/asks-only-for-changes",
            Level::May,
            "2: send the ETag back in If-None-Match and get 304 while nothing has changed",
            conditional,
        ),
    ];
    let faults = [
        ("500", ListingChange::Answer(Answer::Status(500))),
        ("502", ListingChange::Answer(Answer::Status(502))),
        ("503", ListingChange::Answer(Answer::Status(503))),
        ("403", ListingChange::Answer(Answer::Status(403))),
        ("html", ListingChange::Html),
        ("cut-off", ListingChange::CutOff(End::Closed)),
        ("reset-in-the-body", ListingChange::CutOff(End::Reset)),
        ("reset", ListingChange::Answer(Answer::Reset)),
        ("hang", ListingChange::Answer(Answer::Hang)),
    ];
    for (name, change) in faults {
        cases.push(Case::new(format!("listings/error-{name}"), Level::Must, WHOLE, move |bench| error(bench, &change)));
    }
    cases.extend(both(
        "listings/old",
        Level::Must,
        "8.2: 409: unclear: read the document again. A document may be older than Waldur",
        old,
    ));
    cases
}

/// The directories of 10 TB are as they were.
fn untouched(bench: &mut Bench<'_>, made: &[Ordered]) -> Outcome {
    for (number, ordered) in (0..).zip(made) {
        bench.is(*ordered, &Expected::of(number, 10))?;
    }
    Ok(())
}

/// With the proxy's own listing, everything goes on.
fn recovers(bench: &mut Bench<'_>, made: &[Ordered]) -> Outcome {
    bench.restore_listing();
    let other = bench.order(9, 10);
    bench.done(other)?;
    untouched(bench, made)
}

/// The projects and users of a page.
fn items(page: &mut Value) -> impl Iterator<Item = &mut Value> {
    let is_item = |item: &&mut Value| matches!(item["target"]["targetType"].as_str(), Some("project" | "user"));
    page["resources"].as_array_mut().into_iter().flatten().filter(is_item)
}

fn empty(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(3)?;
    bench.edit_listing(|page| {
        page["resources"] = json!([]);
        page["orders"] = json!({});
        page["pagination"]["total"] = json!(0);
        page["pagination"]["pages"] = json!(0);
        page["pagination"]["has_next"] = json!(false);
    });
    bench.settle()?;
    untouched(bench, &made)?;
    recovers(bench, &made)
}

/// The list lacks an item that its `total` counts.
fn short(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(3)?;
    bench.stop();
    let id = made[0].resource.to_string();
    bench.edit_listing(move |page| {
        if let Some(items) = page["resources"].as_array_mut() {
            items.retain(|item| item["itemId"] != id.as_str());
        }
    });
    let ended = bench.order_end(made[1].resource);
    bench.start()?;
    bench.settle()?;
    untouched(bench, &made)?;
    bench.no_calls_of(ended, |action| action != "set_backend_id")?;
    bench.restore_listing();
    bench.done(ended)
}

/// A resource that is not in the list any more, without an order.
fn absent(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(3)?;
    bench.world(|world| {
        world.resources.shift_remove(&made[0].resource);
        world.orders.shift_remove(&made[0].order);
    });
    bench.settle()?;
    let path = "/capstor/store/cscs/uni/p0";
    let probed = bench.probe.read(path, &made[0].resource.to_string()).map_err(|error| bench.probe.failure(&error))?;
    if probed.exists == Some(false) {
        return seen(format!("{path} is gone"));
    }
    let other = bench.order(9, 10);
    bench.done(other)
}

fn paged(bench: &mut Bench<'_>) -> Outcome {
    bench.gateway().change_listing(|listing| listing.page_size = Some(2));
    let made = bench.create(5)?;
    let resized = bench.order_size(made[4].resource, 20);
    bench.done(resized)?;
    bench.is(resized, &Expected::of(4, 20))
}

/// The first page shows the termination of its first directory as executing. Before the second page is read, that is called off.
fn between_pages(bench: &mut Bench<'_>, one_more: bool) -> Outcome {
    let made = bench.create(4)?;
    bench.stop();
    let ordered = bench.order_end(made[0].resource);
    bench.force(ordered, OrderState::Executing, ResourceState::Terminating);
    let more = one_more.then(|| bench.world(|world| (world.offerings[0].uuid, world.projects[9].uuid)));
    bench.gateway().change_listing(|listing| {
        listing.page_size = Some(3);
        listing.after_page = Some((
            1,
            Box::new(move |world| {
                world.force_order(ordered.order, OrderState::Erred);
                world.change(ordered.resource, "state", "OK".into());
                if let Some(place) = more {
                    let record = json!({ "limits": { "storage": 1 } });
                    world.add_resource(
                        place,
                        "one-more",
                        ResourceState::Ok,
                        record.as_object().cloned().unwrap_or_default(),
                    );
                }
            }),
        ));
    });
    bench.start()?;
    bench.settle()?;
    untouched(bench, &made)?;
    bench.no_calls_of(ordered, |action| action == "set_state_done")
}

fn total_changes(bench: &mut Bench<'_>) -> Outcome {
    between_pages(bench, true)
}

fn content_changes(bench: &mut Bench<'_>) -> Outcome {
    between_pages(bench, false)
}

/// The second page is an error, once. The first one has a termination that would be carried out without a callback before it.
fn page_fails(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(4)?;
    bench.gateway().change_listing(|listing| {
        listing.page_size = Some(3);
        listing.fail_page = Some((2, 502));
    });
    bench.settle()?;
    untouched(bench, &made)?;
    recovers(bench, &made)
}

fn error(bench: &mut Bench<'_>, change: &ListingChange) -> Outcome {
    let made = bench.create(2)?;
    bench.change_listing(Some(change.clone()));
    bench.settle()?;
    untouched(bench, &made)?;
    recovers(bench, &made)
}

/// The listing shows an order that has been cancelled since.
fn old(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.stop();
    let ended = bench.order_end(made[0].resource);
    bench.gateway().change_listing(|listing| {
        listing.after_page = Some((
            1,
            Box::new(move |world| {
                // It is pending.
                let _ = world.cancel(ended.order);
            }),
        ));
    });
    bench.start()?;
    bench.settle()?;
    untouched(bench, &made)?;
    recovers(bench, &made)
}

fn skipped(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    // Waldur's record cannot be read any more.
    bench.world(|world| world.change(made[0].resource, "limits", json!({ "storage": "a lot" })));
    bench.settle()?;
    untouched(bench, &made)?;
    let resized = bench.order_size(made[1].resource, 20);
    bench.done(resized)?;
    bench.is(made[0], &Expected::of(0, 10))
}

fn mock_identities(bench: &mut Bench<'_>) -> Outcome {
    bench.edit_listing(|page| page["mock_identities"] = json!(true));
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.settle()?;
    bench.no_calls(ordered)?;
    bench.is_absent(ordered)?;
    bench.restore_listing();
    bench.done(ordered)
}

fn name_null(bench: &mut Bench<'_>) -> Outcome {
    bench.edit_listing(|page| {
        for item in items(page) {
            item["target"]["targetItem"]["name"] = Value::Null;
        }
    });
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected::of(0, 10))
}

fn unknown_keys(bench: &mut Bench<'_>) -> Outcome {
    bench.edit_listing(|page| {
        page["new_key"] = json!({ "a": [1, null] });
        page["pagination"]["new_key"] = json!(1);
    });
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected::of(0, 10))
}

/// An order of a kind that the command cannot know, and a known one beside it.
fn unknown_order(bench: &mut Bench<'_>, key: &'static str, value: Value) -> Outcome {
    let made = bench.create(2)?;
    bench.stop();
    let strange = bench.order_size(made[0].resource, 20);
    let id = strange.resource.to_string();
    bench.edit_listing(move |page| {
        if let Some(order) = page["orders"].get_mut(&id) {
            order[key] = value.clone();
        }
    });
    let known = bench.order_size(made[1].resource, 20);
    bench.start()?;
    bench.done(known)?;
    bench.settle()?;
    bench.no_calls_of(strange, |action| action != "set_backend_id")?;
    bench.is(strange, &Expected::of(0, 10))
}

/// Orders whose items have one unknown value each, and a known one beside them.
fn unknown_values(bench: &mut Bench<'_>) -> Outcome {
    let changes: [fn(&mut Value); 4] = [
        |item| item["quotas"][0]["unit"] = json!("peta"),
        |item| item["quotas"][1]["type"] = json!("bandwidth"),
        |item| item["quotas"][2]["enforcementType"] = json!("grace"),
        |item| item["status"] = json!("migrating"),
    ];
    let strange: Vec<Ordered> = (0..4).map(|number| bench.order(number, 10)).collect();
    let ids: Vec<String> = strange.iter().map(|ordered| ordered.resource.to_string()).collect();
    bench.edit_listing(move |page| {
        for item in items(page) {
            let at = ids.iter().position(|id| item["itemId"] == id.as_str());
            if let Some(change) = at.and_then(|at| changes.get(at)) {
                change(item);
            }
        }
    });
    let known = bench.order(9, 10);
    bench.start()?;
    bench.done(known)?;
    bench.settle()?;
    for ordered in strange {
        bench.no_calls(ordered)?;
        bench.is_absent(ordered)?;
    }
    Ok(())
}

/// Resources of another storage system: one with the path of a directory here, which is terminated, and one that is ordered.
fn another_storage_system(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let path = bench.path(made.resource);
    let [ended, ordered] = bench.world(|world| {
        let (place, limits) = ((world.offerings[1].uuid, world.projects[0].uuid), json!({ "storage": 10 }));
        let record = json!({ "limits": limits, "backend_id": path }).as_object().cloned().unwrap_or_default();
        let resource = world.add_resource(place, "elsewhere", ResourceState::Ok, record);
        let order = world.order_terminate(resource).unwrap_or_default();
        let (offering, project, attributes) = (place.0, place.1, json!({ "storage_data_type": "archive" }));
        let slug = "new-elsewhere".to_owned();
        let created = world.order_create(NewResource { offering, project, slug, limits, attributes });
        [Ordered { resource, order }, Ordered { resource: world.orders[&created].resource, order: created }]
    });
    for other in [ended, ordered] {
        bench.approved(other);
    }
    bench.settle()?;
    for other in [ended, ordered] {
        bench.no_calls(other)?;
    }
    bench.is_absent(ordered)?;
    let resized = bench.order_size(made.resource, 20);
    bench.done(resized)?;
    bench.is(resized, &Expected::of(0, 20))
}

fn redirect(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.change_listing(Some(ListingChange::Answer(Answer::Redirect(302))));
    bench.settle()?;
    untouched(bench, &made)?;
    recovers(bench, &made)
}

fn other_name(bench: &mut Bench<'_>) -> Outcome {
    bench.edit_listing(|page| {
        for (_, order) in page["orders"].as_object_mut().into_iter().flatten() {
            order["offeringType"] = json!("Marketplace.SiteAgent");
        }
    });
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.order_of_calls(ordered, &["approve_by_provider", "set_backend_id", "set_state_done"])?;
    bench.was(ordered, "set_state_done", &Expected::of(0, 10))
}

fn malformed_item(bench: &mut Bench<'_>) -> Outcome {
    let (strange, known) = (bench.order(0, 10), bench.order(1, 10));
    let id = strange.resource.to_string();
    bench.edit_listing(move |page| {
        for item in items(page).filter(|item| item["itemId"] == id.as_str()) {
            item["mountPoint"] = Value::Null;
            item["permission"] = json!({ "value": "rwx", "permissionType": "symbolic" });
        }
    });
    bench.start()?;
    bench.done(known)?;
    bench.settle()?;
    bench.is_absent(strange)
}

fn conditional(bench: &mut Bench<'_>) -> Outcome {
    bench.create(1)?;
    bench.settle()?;
    bench.until("a listing is asked for with If-None-Match", |bench| {
        Ok(bench.gateway().log().iter().any(|exchange| exchange.is_listing() && exchange.known.is_some()))
    })
}
