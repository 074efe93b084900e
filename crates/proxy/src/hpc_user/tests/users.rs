//! The optional user endpoint.

use serde_json::json;

use super::world::{Mood, change, client, give, look, world};
use super::*;

fn user(uid: impl Into<Option<u32>>, email: impl Into<Option<&'static str>>) -> UserIdentity {
    UserIdentity { uid: uid.into(), email: email.into().map(String::from) }
}

#[tokio::test]
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
    pass(INCOMPLETE_MAX_AGE).await;
    assert_eq!(api.users(names).await["nobody"], user(5, None));
    assert_eq!(look(&world, |world| world.asked_users.len()), 6 + 4, "all but the two complete ones");
}

#[tokio::test]
async fn a_failing_user_endpoint_leaves_nulls_and_what_is_cached() {
    let (world, settings) = world().await;
    change(&world, |world| {
        let user = json!({ "unixUid": 20001, "email": "anna@example.com" });
        world.users = [(String::from("anna"), user.clone()), (String::from("ben"), user)].into();
    });
    let api = client(&settings);
    let anna = user(20001, "anna@example.com");
    assert_eq!(api.users(["anna"]).await["anna"], anna);
    pass(GID_MAX_AGE).await;
    for mood in [Mood::Says(500, ""), Mood::Says(403, ""), Mood::Says(200, "<html>"), Mood::Breaks, Mood::Redirects] {
        change(&world, |world| world.mood = mood);
        let users = api.users(["anna", "ben"]).await;
        assert_eq!((&users["anna"], &users["ben"]), (&anna, &UserIdentity::default()));
        pass(INCOMPLETE_MAX_AGE).await;
    }
    assert_eq!(look(&world, |world| world.asked_users.len()), 1);
    change(&world, |world| world.mood = Mood::Answers);
    assert_eq!(api.users(["anna", "ben"]).await["ben"], anna);
}

#[tokio::test]
async fn an_endpoint_that_hangs_for_one_user_is_asked_about_the_others_next() {
    let (world, settings) = world().await;
    let names: Vec<String> = (0..9).map(|number| format!("user-{number}")).collect();
    let api = client(&settings);
    api.resolve(["b"]).await.expect("a token is at hand from here on");
    change(&world, |world| world.mood = Mood::Hangs);
    tokio::time::pause();
    api.users(&names).await;
    tokio::time::resume();
    change(&world, |world| world.mood = Mood::Answers);
    pass(HOLD_OFF).await;
    api.users(&names).await;
    let asked = look(&world, |world| world.asked_users.clone());
    assert!(!asked.is_empty() && asked.len() < names.len(), "{asked:?}");
    assert!(asked.contains(&names[8]), "{asked:?}");
}

#[tokio::test]
async fn without_a_user_endpoint_nothing_is_asked() {
    let (world, settings) = world().await;
    let api = client(&config::HpcUserApi { user_path: None, ..settings });
    assert_eq!(api.users(["anna"]).await, [(String::from("anna"), UserIdentity::default())].into());
    assert_eq!(look(&world, |world| world.tokens), 0);
}

#[tokio::test]
async fn another_replica_goes_on_from_what_is_known() {
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
    let told = serde_json::to_vec(&one.known()).expect("JSON");
    let take = |ago| other.go_on_from(serde_json::from_slice(&told).expect("what was told"), ago);

    take(Duration::from_secs(1));
    let asked = look(&world, |world| world.asked.len());
    assert_eq!((other.resolve(["a"]).await.expect("GIDs"), other.users(["anna"]).await), (gids, users));
    assert_eq!(look(&world, |world| (world.asked.len(), world.asked_users.len())), (asked, 1), "nobody was asked");
    other.resolve(["b"]).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked.len()), asked + 1, "what only this one knew is given up");

    take(GID_MAX_AGE);
    other.resolve(["a"]).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked.len()), asked + 2, "it is due when it was due there");
}
