//! Credentials: only a Keycloak client if the proxy relays callbacks, otherwise also a Waldur token.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::json;
use simulator::world::{OrderState, ResourceState, Role};
use simulator::{Fault, Received};

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN, names};

/// The requests of the provisioner itself.
fn own_requests(site: &Site) -> Vec<Received> {
    let ours = |request: &Received| {
        request.header("user-agent").is_some_and(|agent| agent.starts_with("hpc-storage-provisioner/"))
    };
    site.simulator.requests().into_iter().filter(ours).collect()
}

#[test]
fn a_keycloak_client_is_enough_if_the_proxy_relays() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
    site.apply().stdout_has("2 done");
    for made in made {
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    }
    let asked = own_requests(&site);
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.path.starts_with("/auth/"), "Waldur is never called: {}", request.line());
    }
}

#[test]
fn without_a_waldur_token_orders_wait_and_the_remedy_is_shown() {
    let site = Site::without_relay();
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
    let output = site.run(&["apply"]).exits_with(1);
    for text in ["there is no token", "waldur.api_token", "callbacks.relay", "0 done, 2 failed"] {
        assert!(output.out.contains(text), "{text:?} is missing: {}", output.out);
    }
    assert!(!output.out.contains("approved"), "nothing was approved: {}", output.out);
    for made in made {
        assert_eq!(site.states(made), (OrderState::PendingProvider, ResourceState::Creating));
    }
    assert!(site.calls().is_empty());
    assert!(names(&site.root(SLURM)).is_empty(), "nothing is made for an order that is not approved");
    site.run(&["check"]).exits_with(1).stdout_has("FAILED  callbacks: ").stdout_has("waldur.api_token");
}

#[test]
fn check_finds_a_token_that_may_not_approve_orders_without_changing_anything() {
    let mut site = Site::without_relay();
    site.use_waldur_token();
    site.run(&["check"])
        .exits_with(0)
        .stdout_has("warn    Waldur token: whether")
        .stdout_has("there is no resource on capstor yet");
    site.order(SLURM, 0, 10);
    site.order(BASIC, 0, 10);
    let owner = site.run(&["check"]).exits_with(0);
    let owner = owner.stdout_has("ok      Waldur token: the token's user provisioner may approve orders");
    assert!(!owner.out.contains("warn "), "{}", owner.out);
    // The manager of one offering sees only that one; the manager of both sees both, but may not approve.
    let grant = |site: &Site, system: &str| {
        site.simulator.world(|world| {
            let offering = world.offering_by_slug(system).unwrap().uuid;
            world.grant("provisioner", Role::OfferingManager(offering));
        });
    };
    site.simulator.world(|world| world.users.iter_mut().find(|it| it.username == "provisioner").unwrap().roles.clear());
    grant(&site, SLURM);
    let output = site.run(&["check"]).exits_with(1);
    output.stdout_has("FAILED  Waldur token: the token's user does not see the resources of tape");
    grant(&site, BASIC);
    let output = site.run(&["check"]).exits_with(1);
    let output = output
        .stdout_has("FAILED  Waldur token: the token's user provisioner sees the orders of capstor, tape but may not");
    output.stdout_has("403").stdout_has("CUSTOMER.OWNER");
    // If Waldur does not describe the user, the warning says what to test.
    site.simulator.set_fault("GET /api/users/me/", Fault::status(404));
    site.run(&["check"])
        .exits_with(0)
        .stdout_has("warn    Waldur token: whether")
        .stdout_has("is unknown")
        .stdout_has("test it");
    let rows = site.json(&["check"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["check"] == "Waldur token").unwrap();
    assert_eq!((&row["ok"], &row["warning"]), (&json!(true), &json!(true)), "{row}");
    assert!(site.calls().is_empty(), "{:?}", site.calls());
}

#[test]
fn the_waldur_token_is_checked_only_if_it_is_used() {
    let mut site = Site::new();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", "0000000000000000000000000000000000000000");
    let ordered = site.order(SLURM, 0, 10);
    let output = site.run(&["check"]).exits_with(0);
    assert!(!output.out.contains("Waldur token"), "the proxy relays: {}", output.out);
    site.apply();
    assert_eq!(site.states(ordered).0, OrderState::Done);
    site.run(&["check"]).exits_with(1).stdout_has("FAILED  Waldur token: Waldur refuses the token (401)");
}

#[test]
fn the_waldur_token_is_sent_only_to_waldur() {
    let mut site = Site::without_relay();
    site.use_waldur_token();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    for request in own_requests(&site) {
        let token = request.headers.iter().any(|(_, value)| value.contains(WALDUR_TOKEN));
        assert_eq!(token, request.path.starts_with("/api/"), "{}", request.line());
        assert!(!request.path.starts_with("/api/") || request.header("authorization").unwrap().starts_with("Token "));
    }
    // A server at the proxy's address gets only the token of the realm.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    site.set("PROVISIONER_PROXY_URL", &format!("http://{}", listener.local_addr().unwrap()));
    let heads = std::thread::spawn(move || heads(&listener));
    site.run(&["plan"]).exits_with(1).stderr_has("the proxy answers 500");
    let heads = heads.join().unwrap().to_lowercase();
    assert!(heads.contains("authorization: bearer ") && !heads.contains(WALDUR_TOKEN), "{heads}");
}

/// Answers three requests with 500, and returns their heads.
fn heads(listener: &TcpListener) -> String {
    let mut heads = String::new();
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut head = [0; 8192];
        let length = stream.read(&mut head).unwrap();
        heads += &String::from_utf8_lossy(&head[..length]);
        stream
            .write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            .unwrap();
    }
    heads
}

#[test]
fn a_link_to_another_origin_is_refused() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/");
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    let made = site.order(SLURM, 0, 10);
    site.run(&["apply"]).exits_with(1).stdout_has("neither to the proxy nor to waldur.api_url");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    assert!(own_requests(&site).iter().all(|request| request.path.starts_with("/auth/")));
}

#[test]
fn an_unknown_client_is_reported() {
    let mut site = Site::new();
    site.set("PROVISIONER_CLIENT_ID", "somebody");
    let made = site.order(SLURM, 0, 10);
    site.run(&["apply"]).exits_with(1).stderr_has("nothing was touched").stderr_has("check proxy.client_id");
    site.unset("PROVISIONER_CLIENT_ID");
    site.unset("PROVISIONER_CLIENT_SECRET");
    site.unset("PROVISIONER_TOKEN_URL");
    site.run(&["apply"]).exits_with(1).stderr_has("the proxy answers 401").stderr_has("proxy.client_id");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}
