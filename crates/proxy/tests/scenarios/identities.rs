//! The HPC User API: failures, caching, and development mode.

use simulator::{Fault, Simulator, World};

use crate::support::{demo, demo_with, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_missing_gids_are_an_error_but_cached_ones_stay_usable() {
    let mut world = World::demo();
    // Every project has a GID, so none is requested twice.
    let projects: Vec<_> = world.projects.values().map(|project| project.slug.clone()).collect();
    for (number, slug) in (40_000..).zip(projects) {
        world.hpc.set_gid(&slug, Some(number));
    }
    let simulator = Simulator::start(world).await;
    simulator.set_fault("GET /hpc/*", Fault::status(503));
    let proxy = start_with(&simulator, &[]).await;
    proxy.list("").await.assert_upstream_error("HPC User API returned no usable answer");
    simulator.clear_faults();
    let right = proxy.list("?page_size=500").await;
    assert_eq!(right.status, 200);
    simulator.set_fault("GET /hpc/*", Fault::status(503));
    assert_eq!(proxy.list("?page_size=500").await.items(), right.items());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_is_reported_with_the_remedy() {
    let (_simulator, proxy) = demo_with(&[("HPC_USER_CLIENT_SECRET", "wrong-secret")]).await;
    let answer = proxy.list("").await;
    answer.assert_upstream_error("check HPC_USER_CLIENT_ID and HPC_USER_CLIENT_SECRET");
    assert!(!answer.text.contains("wrong-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_machine_token_is_renewed_immediately() {
    let (simulator, proxy) = demo().await;
    assert_eq!(proxy.list("").await.status, 200);
    // The project without a GID is requested in each refresh; the first response rejects the token.
    simulator.set_fault_times("GET /hpc/*", Fault::status(401), 1);
    assert_eq!(proxy.list("").await.status, 200);
    let tokens = simulator.requests().iter().filter(|request| request.path.ends_with("/token")).count();
    assert_eq!(tokens, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn development_mode_invents_the_same_identities_at_every_start() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /hpc/*", Fault::Reset);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let proxy = start_with(&simulator, &[("HPC_USER_DEVELOPMENT_MODE", "true")]).await;
        let answer = proxy.list("?page_size=500").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let log = proxy.log();
        let warning = log.lines().find(|line| line.contains("GIDs are invented (development mode)"));
        assert!(warning.is_some_and(|line| line.contains("invented=")), "{log}");
        assert!(!log.contains("cached GIDs remain in use"), "{log}");
        answers.push(answer.items().to_vec());
    }
    assert_eq!(answers[0], answers[1]);
    let gids: Vec<_> = answers[0].iter().filter_map(|item| item["target"]["targetItem"]["unixGid"].as_u64()).collect();
    assert!(gids.iter().filter(|gid| (30_000..40_000).contains(*gid)).count() > 5, "{gids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_looked_up_if_an_endpoint_is_configured() {
    let mut world = World::demo();
    let slug = "capstor-users-6";
    let slug = if world.resource_by_slug(slug).is_some() {
        slug.to_owned()
    } else {
        let users = |resource: &&simulator::world::Resource| resource.text("slug").starts_with("capstor-users-");
        world.resources.values().find(users).unwrap().text("slug").to_owned()
    };
    world.hpc.users.insert(slug, serde_json::json!({"unixUid": 23_001, "email": "someone@example.org"}));
    let simulator = Simulator::start(world).await;
    let path = ("HPC_USER_USER_PATH", "/api/v1/export/cscs/users/{username}");
    let proxy = start_with(&simulator, &[path]).await;
    let answer = proxy.list("?data_type=users&page_size=500").await;
    let known = answer.items().iter().filter(|item| item["target"]["targetItem"]["unixUid"] == 23_001).count();
    assert_eq!(known, 1, "{}", answer.text);
    let invented = answer.items().iter().filter(|item| !item["target"]["targetItem"]["email"].is_null()).count();
    assert_eq!(invented, 1, "no other user has an address");
}
