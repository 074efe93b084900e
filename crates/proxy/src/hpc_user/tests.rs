//! The client with an HPC User API on loopback.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Barrier;
use tokio::time::advance;

use self::world::{Mood, change, client, give, look, numbered, time_out, world};
use super::*;
use program::error_chain;

mod users;
mod world;

#[tokio::test(start_paused = true)]
async fn gids_are_cached_and_unknown_projects_are_requested_again() {
    let (world, settings) = world().await;
    give(&world, "a", 30500);
    give(&world, "ä & =+/?#%", 7);
    give(&world, "null", Value::Null);
    let slugs = ["a", "ä & =+/?#%", "null", "new", "a"];
    let api = client(&settings);
    let gids = api.resolve(slugs).await.expect("GIDs");
    let expected = [("a", Ok(30500)), ("ä & =+/?#%", Ok(7)), ("null", Err(NoGid::Null)), ("new", Err(NoGid::Unknown))];
    assert_eq!(gids, expected.map(|(slug, gid)| (slug.to_owned(), gid)).into());

    give(&world, "new", 9);
    let gids = api.resolve(slugs).await.expect("GIDs");
    assert_eq!(gids["new"], Ok(9));
    assert_eq!(look(&world, |world| world.asked[1].clone()), ["new", "null"]);
    assert_eq!(look(&world, |world| world.tokens), 1);
}

#[tokio::test(start_paused = true)]
async fn many_projects_are_requested_in_concurrent_batches_of_limited_size() {
    let (world, settings) = world().await;
    let slugs = numbered(1000);
    for (slug, gid) in slugs.iter().zip(1..) {
        give(&world, slug, gid);
    }
    change(&world, |world| world.company = Some(Arc::new(Barrier::new(CONCURRENCY))));
    let api = client(&settings);
    // In a task, as in the service: the future must be `Send`.
    let gids = tokio::spawn({
        let slugs = slugs.clone();
        async move { (api.users(["anna"]).await, api.resolve(slugs).await) }
    });
    let gids = gids.await.expect("no panic").1.expect("GIDs");
    for (slug, gid) in slugs.iter().zip(1..) {
        assert_eq!(gids[slug], Ok(gid));
    }
    look(&world, |world| {
        assert_eq!(world.asked.len(), 1000 / batches::MAX_SLUGS);
        assert_eq!(world.most_under_way, CONCURRENCY);
        assert_eq!(world.tokens, 1);
    });
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_long_for_the_server_is_halved() {
    let (world, settings) = world().await;
    let slugs = numbered(100);
    for slug in &slugs {
        give(&world, slug, 5);
    }
    change(&world, |world| world.longest_query = Some(200));
    let gids = client(&settings).resolve(&slugs).await.expect("GIDs");
    assert!(slugs.iter().all(|slug| gids[slug] == Ok(5)));
    change(&world, |world| world.longest_query = Some(3));
    let error = client(&settings).resolve(&slugs).await.expect_err("a single slug is too long");
    assert!(error_chain(&error).contains("414"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn slugs_that_no_request_can_contain_have_no_gid() {
    let (world, settings) = world().await;
    let long = "x".repeat(5000);
    let gids = client(&settings).resolve(["", &long]).await.expect("GIDs");
    assert_eq!(gids, [(String::new(), Err(NoGid::InvalidSlug)), (long, Err(NoGid::InvalidSlug))].into());
    assert!(look(&world, |world| world.asked.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_at_once_and_only_once() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    change(&world, |world| world.refused_tokens = 1);
    let api = client(&settings);
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1));
    assert_eq!(look(&world, |world| world.tokens), 2);

    change(&world, |world| world.refused_tokens = usize::MAX);
    let error = api.resolve(["a", "b"]).await.expect_err("every token is refused");
    assert!(matches!(error, HpcUserError::Refused(_)), "{error}");
    assert!(error.to_string().contains("check the rights of HPC_USER_CLIENT_ID"));
    assert_eq!(look(&world, |world| world.tokens), 3);
}

#[tokio::test(start_paused = true)]
async fn concurrent_refusals_request_one_new_token() {
    let (world, settings) = world().await;
    change(&world, |world| world.refused_tokens = 1);
    client(&settings).resolve(numbered(400)).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.tokens), 2);
}

#[tokio::test(start_paused = true)]
async fn cached_gids_remain_in_use_while_the_api_fails_and_are_refreshed_when_old() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    let api = client(&settings);
    api.resolve(["a"]).await.expect("GIDs");
    give(&world, "a", 2);
    advance(Duration::from_mins(59)).await;
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1));
    assert_eq!(look(&world, |world| world.asked.len()), 1);

    change(&world, |world| world.mood = Mood::Says(500, ""));
    advance(Duration::from_mins(2)).await;
    assert_eq!(api.resolve(["a"]).await.expect("the old GID remains in use")["a"], Ok(1));
    let error = api.resolve(["a", "b"]).await.expect_err("b is not cached");
    assert!(
        error_chain(&error).contains("HPC User API returned no usable answer")
            && error_chain(&error).contains("it answered 500"),
        "{error}"
    );

    change(&world, |world| world.mood = Mood::Answers);
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1), "not requested again within the hold-off");
    advance(HOLD_OFF).await;
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(2));

    change(&world, |world| drop(world.projects.remove("a")));
    advance(GID_MAX_AGE).await;
    assert_eq!(
        api.resolve(["a"]).await.expect("GIDs")["a"],
        Err(NoGid::Unknown),
        "a definite answer replaces the cached GID"
    );
    change(&world, |world| world.mood = Mood::Says(500, ""));
    api.resolve(["a"]).await.expect_err("the withdrawn GID does not return");
}

#[tokio::test(start_paused = true)]
async fn keep_only_limits_the_caches() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    give(&world, "b", 2);
    let api = client(&settings);
    api.resolve(["a"]).await.expect("GIDs");
    api.resolve(["b"]).await.expect("GIDs");
    api.keep_only(&["b".into()].into(), &HashSet::new());
    api.resolve(["a", "b"]).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked.clone()), [["a"], ["b"], ["a"]]);
}

#[tokio::test(start_paused = true)]
async fn answers_before_a_failure_are_cached() {
    let (world, settings) = world().await;
    let slugs = numbered(60);
    for slug in &slugs {
        give(&world, slug, 5);
    }
    let api = client(&settings);
    api.resolve(&slugs[..50]).await.expect("GIDs");
    change(&world, |world| world.mood = Mood::Says(503, ""));
    api.resolve(&slugs).await.expect_err("ten are not cached");
    change(&world, |world| world.mood = Mood::Answers);
    api.resolve(&slugs).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked[1].clone()), slugs[50..]);
}

#[tokio::test(start_paused = true)]
async fn invalid_answers_of_the_api_are_errors_that_name_it() {
    let (world, settings) = world().await;
    let cases = [
        (Mood::Says(200, "<html>s3cret</html>"), "the answer is not the expected JSON"),
        (Mood::Says(200, "[]"), "invalid answer"),
        (Mood::Says(200, r#"{"projects": "s3cret"}"#), "it has no list `projects`"),
        (Mood::Says(204, ""), "it answered 204"),
        (Mood::Says(403, "s3cret"), "the HPC User API refuses the machine token"),
        (Mood::Says(404, "s3cret"), "check HPC_USER_API_URL"),
        (Mood::Says(429, "s3cret"), "it answered 429"),
        (Mood::Says(500, "s3cret"), "it answered 500"),
        (Mood::Redirects, "it redirects to https://elsewhere.example.com/x;"),
        (Mood::Breaks, "the connection ended before the answer was complete"),
        (Mood::Floods, "the answer is larger than"),
    ];
    for (mood, words) in cases {
        change(&world, |world| world.mood = mood);
        let error = client(&settings).resolve(["a"]).await.expect_err(words);
        let text = error_chain(&error);
        assert!(text.contains(words) && text.contains("HPC User API"), "{text} should say {words}");
        assert!(!text.contains("s3cret") && !format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_api_times_out() {
    let (world, settings) = world().await;
    let api = client(&settings);
    api.resolve(["b"]).await.expect("GIDs");
    change(&world, |world| world.mood = Mood::Hangs);
    let (outcome, ()) = futures::future::join(api.resolve(["a"]), time_out(&world, 1)).await;
    let error = outcome.expect_err("no answer");
    assert!(
        matches!(&error, HpcUserError::Exchange(error) if matches!(error.cause, UpstreamError::TimedOut)),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_token_the_error_names_the_token_endpoint() {
    let (world, settings) = world().await;
    change(&world, |world| world.token_endpoint_is_down = true);
    let error = client(&settings).resolve(["a"]).await.expect_err("no token");
    assert!(
        error_chain(&error).contains("HPC User API's token endpoint")
            && error_chain(&error).contains("it answered 503"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn missing_settings_are_named() {
    let (_world, settings) = world().await;
    let without = config::HpcUserApi { client_secret: None, ..settings };
    let api = client(&without);
    let error = api.resolve(["a"]).await.expect_err("not configured");
    assert!(error.to_string().contains("HPC_USER_CLIENT_SECRET"), "{error}");
    assert!(api.resolve(Vec::<String>::new()).await.expect("nothing is needed").is_empty());
}

#[tokio::test(start_paused = true)]
async fn development_mode_works_without_the_api() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    let settings = config::HpcUserApi { development_mode: true, ..settings };
    let api = client(&settings);
    let gids = api.resolve(["a", "b"]).await.expect("GIDs");
    assert_eq!((gids["a"], gids["b"]), (Ok(1), Err(NoGid::Unknown)));
    change(&world, |world| world.mood = Mood::Says(500, ""));
    let gids = api.resolve(["a", "b"]).await.expect("GIDs");
    assert_eq!((gids["a"], gids["b"]), (Ok(1), Err(NoGid::Unreachable)));
    let api = client(&config::HpcUserApi { api_url: None, ..settings });
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Err(NoGid::NotConfigured));
}

#[tokio::test(start_paused = true)]
async fn a_check_reports_token_and_api_separately() {
    let (world, settings) = world().await;
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Ok(()), api: Some(Ok(())) }), "{check:?}");
    change(&world, |world| world.mood = Mood::Says(404, ""));
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Ok(()), api: Some(Err(HpcUserError::NotFound(_))) }), "{check:?}");
    change(&world, |world| world.token_endpoint_is_down = true);
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Err(HpcUserError::Token(_)), api: None }), "{check:?}");
    let check = client(&config::HpcUserApi { api_url: None, ..settings }).check().await;
    assert!(matches!(check, Check { token: Err(HpcUserError::NotConfigured(_)), api: None }), "{check:?}");
}
