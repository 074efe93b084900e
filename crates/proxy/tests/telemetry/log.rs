//! The log.

use serde_json::Value;
use simulator::{PROVIDER_TOKEN, Simulator, World};

use crate::program::{Program, machine_tokens, settings, token};

fn request_id(line: &Value) -> &Value {
    &line["spans"][0]["request_id"]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_one_line_with_caller_path_and_duration() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    let caller = token(&simulator);
    let answer = program.get("/api/storage-resources/?page_size=1", &caller).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-request-id"], "scenario-1");
    let bytes = answer.bytes().await.unwrap().len();
    assert_eq!(program.get("/api/storage-resources/?page=0", &caller).await.status(), 422);
    assert_eq!(program.get("/nowhere", &caller).await.status(), 404);
    assert_eq!(program.get("/api/storage-resources/?access_token=hunter2", "bad").await.status(), 401);

    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));
    let lines = ended.with_message("answered");
    let [listing, unprocessable, nowhere, refused] = lines.as_slice() else { panic!("{lines:#?}") };
    assert_eq!(listing["target"], "access");
    assert_eq!(listing["level"], "INFO");
    assert_eq!(listing["method"], "GET");
    assert_eq!(listing["path"], "/api/storage-resources/?page_size=1");
    assert_eq!(listing["status"], 200);
    assert_eq!(listing["bytes"], bytes);
    assert_eq!(listing["caller"], "jdoe");
    assert!(listing["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(listing["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(request_id(listing), "scenario-1");
    assert_eq!(unprocessable["status"], 422);
    assert_eq!(nowhere["status"], 404);
    assert_eq!(nowhere["caller"], Value::Null);
    assert_eq!(refused["status"], 401);
    assert_eq!(refused["caller"], Value::Null);
    assert_eq!(refused["path"], "/api/storage-resources/?access_token=[redacted]");
    // Log lines of a request have its ID.
    let reason = ended.with_message("caller refused");
    assert_eq!(request_id(&reason[0]), "scenario-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_shows_mappings_and_exchanges_but_no_secret() {
    let simulator = Simulator::start(World::demo()).await;
    for format in ["json", "human"] {
        simulator.clear_requests();
        let mut settings = settings(&simulator);
        settings.retain(|(name, _)| *name != "LOG_FORMAT");
        settings.extend([("DEBUG", "true".to_owned()), ("LOG_FORMAT", format.to_owned())]);
        settings.push(("CSCS_KEYCLOAK_CLIENT_SECRET", "keycloak-client-secret".to_owned()));
        let program = Program::serve(&settings);
        let caller = token(&simulator);
        assert_eq!(program.get("/api/storage-resources/", &caller).await.status(), 200);
        let ended = program.stop();
        let log = ended.log.join("\n");

        for text in ["mapped", "mount_point", "upstream exchange", "marketplace-provider-resources", "scenario-1"] {
            assert!(log.contains(text), "{text} is not in\n{log}");
        }
        let machine_tokens = machine_tokens(&simulator);
        assert!(!machine_tokens.is_empty(), "the HPC User API was asked with a token");
        let secrets = [PROVIDER_TOKEN, "hpc-secret", "keycloak-client-secret", &caller];
        for secret in secrets.into_iter().chain(machine_tokens.iter().map(String::as_str)) {
            assert!(!log.contains(secret), "{secret} is in\n{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mappings_and_exchanges_are_shown_only_with_debug() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    assert_eq!(program.get("/api/storage-resources/", &token(&simulator)).await.status(), 200);
    let ended = program.stop();
    assert!(ended.json().iter().all(|line| line["level"] != "DEBUG"));
    assert!(ended.with_message("mapped").is_empty());
    // The settings in force are logged without secrets.
    let settings: Vec<_> = ended.json().into_iter().filter(|line| line["target"] == "settings").collect();
    assert!(settings.iter().any(|line| line["message"].as_str().unwrap().starts_with("waldur_api.api_url = http")));
    assert!(!ended.log.join("\n").contains(PROVIDER_TOKEN));
}
