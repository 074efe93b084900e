//! Credentials: a client of the realm alone where the proxy relays, a token of Waldur's where it does not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::json;
use simulator::world::{OrderState, ResourceState, Role};
use simulator::{Fault, Received};

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN, names};

/// The requests that came from the provisioner itself.
fn own(site: &Site) -> Vec<Received> {
    let ours = |request: &Received| {
        request.header("user-agent").is_some_and(|agent| agent.starts_with("hpc-storage-provisioner/"))
    };
    site.simulator.requests().into_iter().filter(ours).collect()
}

#[test]
fn a_client_of_the_realm_is_enough_where_the_proxy_relays() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
    site.apply().says("2 done");
    for made in made {
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    }
    let asked = own(&site);
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.path.starts_with("/auth/"), "Waldur is never asked: {}", request.line());
    }
}

#[test]
fn without_a_token_for_waldur_the_orders_wait_and_the_remedy_is_told() {
    let site = Site::without_relay();
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
    let said = site.run(&["apply"]).ends_with(1);
    for words in ["there is no token", "waldur.api_token", "callbacks.relay", "0 done, 2 failed"] {
        assert!(said.out.contains(words), "{words:?} is missing: {}", said.out);
    }
    assert!(!said.out.contains("approved"), "nothing was: {}", said.out);
    for made in made {
        assert_eq!(site.states(made), (OrderState::PendingProvider, ResourceState::Creating));
    }
    assert!(site.calls().is_empty());
    assert!(names(&site.root(SLURM)).is_empty(), "nothing is made for an order that is not approved");
    site.run(&["check"]).ends_with(1).says("FAILED  callbacks: ").says("waldur.api_token");
}

#[test]
fn check_finds_a_token_that_may_not_approve_orders_without_changing_anything() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site.run(&["check"]).ends_with(0).says("warn    Waldur token: whether").says("nothing is ordered on capstor yet");
    site.order(SLURM, 0, 10);
    site.order(BASIC, 0, 10);
    let owner = site.run(&["check"]).ends_with(0);
    let owner = owner.says("ok      Waldur token: the token's user provisioner may approve orders");
    assert!(!owner.out.contains("warn "), "{}", owner.out);
    // The manager of one offering sees that one only; the manager of both sees all, and may approve nothing.
    let grant = |site: &Site, system: &str| {
        site.simulator.world(|world| {
            let offering = world.offering_by_slug(system).unwrap().uuid;
            world.grant("provisioner", Role::OfferingManager(offering));
        });
    };
    site.simulator.world(|world| world.users.iter_mut().find(|it| it.username == "provisioner").unwrap().roles.clear());
    grant(&site, SLURM);
    let said = site.run(&["check"]).ends_with(1);
    said.says("FAILED  Waldur token: the token's user does not see the resources of tape");
    grant(&site, BASIC);
    let said = site.run(&["check"]).ends_with(1);
    let said =
        said.says("FAILED  Waldur token: the token's user provisioner sees the orders of capstor, tape but may not");
    said.says("403").says("CUSTOMER.OWNER");
    // Where Waldur does not describe the user, the warning says what to test.
    site.simulator.set_fault("GET /api/users/me/", Fault::status(404));
    site.run(&["check"]).ends_with(0).says("warn    Waldur token: whether").says("is unknown").says("test it");
    let rows = site.json(&["check"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["check"] == "Waldur token").unwrap();
    assert_eq!((&row["ok"], &row["warning"]), (&json!(true), &json!(true)), "{row}");
    assert!(site.calls().is_empty(), "{:?}", site.calls());
}

#[test]
fn the_token_of_waldur_is_checked_only_where_it_is_used() {
    let mut site = Site::new();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", "0000000000000000000000000000000000000000");
    let ordered = site.order(SLURM, 0, 10);
    let said = site.run(&["check"]).ends_with(0);
    assert!(!said.out.contains("Waldur token"), "the proxy relays: {}", said.out);
    site.apply();
    assert_eq!(site.states(ordered).0, OrderState::Done);
    site.run(&["check"]).ends_with(1).says("FAILED  Waldur token: Waldur refuses the token (401)");
}

#[test]
fn the_token_of_waldur_goes_to_waldur_alone() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    let made = site.order(SLURM, 0, 10);
    site.apply();
    assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    for request in own(&site) {
        let token = request.headers.iter().any(|(_, value)| value.contains(WALDUR_TOKEN));
        assert_eq!(token, request.path.starts_with("/api/"), "{}", request.line());
        assert!(!request.path.starts_with("/api/") || request.header("authorization").unwrap().starts_with("Token "));
    }
    // Whoever sits at the proxy's address gets the realm's token and no other.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    site.set("PROVISIONER_PROXY_URL", &format!("http://{}", listener.local_addr().unwrap()));
    let heads = std::thread::spawn(move || heads(&listener));
    site.run(&["plan"]).ends_with(1).told("the proxy answers 500");
    let heads = heads.join().unwrap().to_lowercase();
    assert!(heads.contains("authorization: bearer ") && !heads.contains(WALDUR_TOKEN), "{heads}");
}

/// Three requests, each answered with 500.
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
fn a_link_to_another_place_is_refused() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/");
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    let made = site.order(SLURM, 0, 10);
    site.run(&["apply"]).ends_with(1).says("neither to the proxy nor to waldur.api_url");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    assert!(own(&site).iter().all(|request| request.path.starts_with("/auth/")));
}

#[test]
fn a_client_that_the_realm_does_not_know_is_told_as_such() {
    let mut site = Site::new();
    site.set("PROVISIONER_CLIENT_ID", "somebody");
    let made = site.order(SLURM, 0, 10);
    site.run(&["apply"]).ends_with(1).told("nothing was touched").told("check proxy.client_id");
    site.unset("PROVISIONER_CLIENT_ID");
    site.unset("PROVISIONER_CLIENT_SECRET");
    site.unset("PROVISIONER_TOKEN_URL");
    site.run(&["apply"]).ends_with(1).told("the proxy answers 401").told("proxy.client_id");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}
