//! The optional user endpoint.

use serde_json::json;

use super::world::{Mood, change, client, give, look, time_out, world};
use super::*;

fn user(uid: impl Into<Option<u32>>, email: impl Into<Option<&'static str>>) -> UserIdentity {
    UserIdentity { uid: uid.into(), email: email.into().map(String::from) }
}

#[tokio::test(start_paused = true)]
async fn users_are_looked_up_and_cached() {
    let (world, settings) = world().await;
    change(&world, |world| {
        world.users = [
            ("anna", json!({ "unixUid": 20001, "email": " anna@example.com " })),
            ("a/b ?ä", json!({ "unixUid": 20002.0, "email": "b@example.com", "more": 1 })),
            ("odd", json!({ "unixUid": "20003", "email": 7 })),
            ("root", json!({ "unixUid": 0, "email": "  " })),
            ("list", json!([])),
        ]
        .map(|(name, user)| (name.to_owned(), user))
        .into();
    });
    let api = client(&settings);
    let names = ["anna", "a/b ?ä", "odd", "root", "nobody", "..", "", "list"];
    let expected = [
        ("anna", user(20001, "anna@example.com")),
        ("a/b ?ä", user(20002, "b@example.com")),
        ("odd", user(None, None)),
        ("root", user(None, None)),
        ("nobody", user(None, None)),
        ("..", user(None, None)),
        ("", user(None, None)),
        ("list", user(None, None)),
    ];
    let expected: HashMap<_, _> = expected.map(|(name, user)| (name.to_owned(), user)).into();
    assert_eq!(api.users(names).await, expected);
    assert_eq!(look(&world, |world| world.asked_users.len()), 6);
    assert_eq!(api.users(names).await, expected);
    assert_eq!(look(&world, |world| world.asked_users.len()), 6, "cached");

    change(&world, |world| drop(world.users.insert(String::from("nobody"), json!({ "unixUid": 5 }))));
    advance(INCOMPLETE_MAX_AGE).await;
    assert_eq!(api.users(names).await["nobody"], user(5, None));
    assert_eq!(look(&world, |world| world.asked_users.len()), 6 + 4, "all but the two complete ones");
}

#[tokio::test(start_paused = true)]
async fn while_the_user_endpoint_fails_cached_users_remain_and_others_are_null() {
    let (world, settings) = world().await;
    change(&world, |world| {
        let user = json!({ "unixUid": 20001, "email": "anna@example.com" });
        world.users = [(String::from("anna"), user.clone()), (String::from("ben"), user)].into();
    });
    let api = client(&settings);
    let anna = user(20001, "anna@example.com");
    assert_eq!(api.users(["anna"]).await["anna"], anna);
    advance(GID_MAX_AGE).await;
    for mood in [Mood::Says(500, ""), Mood::Says(403, ""), Mood::Says(200, "<html>"), Mood::Breaks, Mood::Redirects] {
        change(&world, |world| world.mood = mood);
        let users = api.users(["anna", "ben"]).await;
        assert_eq!((&users["anna"], &users["ben"]), (&anna, &UserIdentity::default()));
        advance(INCOMPLETE_MAX_AGE).await;
    }
    assert_eq!(look(&world, |world| world.asked_users.len()), 1);
    change(&world, |world| world.mood = Mood::Answers);
    assert_eq!(api.users(["anna", "ben"]).await["ben"], anna);
}

#[tokio::test(start_paused = true)]
async fn after_users_that_time_out_the_others_are_requested_first() {
    let (world, settings) = world().await;
    let names: Vec<String> = (0..9).map(|number| format!("user-{number}")).collect();
    let api = client(&settings);
    api.resolve(["b"]).await.expect("a token is cached from here on");
    change(&world, |world| world.mood = Mood::Hangs);
    futures::future::join(api.users(&names), time_out(&world, CONCURRENCY)).await;
    change(&world, |world| world.mood = Mood::Answers);
    advance(HOLD_OFF).await;
    api.users(&names).await;
    let asked = look(&world, |world| world.asked_users.clone());
    assert!(!asked.is_empty() && asked.len() < names.len(), "{asked:?}");
    assert!(asked.contains(&names[8]), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_user_endpoint_no_requests_are_sent() {
    let (world, settings) = world().await;
    let api = client(&config::HpcUserApi { user_path: None, ..settings });
    assert_eq!(api.users(["anna"]).await, [(String::from("anna"), UserIdentity::default())].into());
    assert_eq!(look(&world, |world| world.tokens), 0);
}

#[tokio::test(start_paused = true)]
async fn another_replica_adopts_the_caches() {
    let (world, settings) = world().await;
    give(&world, "a", 30500);
    change(&world, |world| {
        world.users = [("anna".to_owned(), json!({ "unixUid": 20001, "email": "anna@example.com" }))].into();
    });
    let (one, other) = (client(&settings), client(&settings));
    let gids = one.resolve(["a"]).await.expect("GIDs");
    let users = one.users(["anna"]).await;
    give(&world, "b", 7);
    other.resolve(["b"]).await.expect("GIDs");
    let exported = serde_json::to_vec(&one.export()).expect("JSON");
    let take = |ago| other.adopt(serde_json::from_slice(&exported).expect("the caches"), ago);

    take(Duration::from_secs(1));
    let asked = look(&world, |world| world.asked.len());
    assert_eq!((other.resolve(["a"]).await.expect("GIDs"), other.users(["anna"]).await), (gids, users));
    assert_eq!(look(&world, |world| (world.asked.len(), world.asked_users.len())), (asked, 1), "no requests were sent");
    other.resolve(["b"]).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked.len()), asked + 1, "what only this replica knew is dropped");

    take(GID_MAX_AGE);
    other.resolve(["a"]).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked.len()), asked + 2, "entries keep their age");
}
