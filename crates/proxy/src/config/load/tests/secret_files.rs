//! Secrets in files, and changes between two loads.

use super::*;

/// A site whose token is in a file, named by `name`.
fn site_with(token: &[u8]) -> Site {
    let site = Site::minimal().without("WALDUR_API_TOKEN");
    fs::write(site.directory.path().join("token"), token).unwrap();
    site
}

fn token(site: &Site) -> String {
    site.loaded().settings.waldur_api.access_token.expose_secret().to_owned()
}

#[test]
fn a_file_gives_a_secret_in_every_source() {
    let ended = [TOKEN, "\r\n"].concat();
    for end in ["", "\n", "\r\n"] {
        let site = site_with([TOKEN, end].concat().as_bytes()).set("WALDUR_API_TOKEN_FILE", "token");
        assert_eq!(token(&site), TOKEN, "{end:?}");
    }
    let site = site_with(ended.as_bytes()).set("waldur_api_token_file", "token");
    let shown = site.shown("waldur_api.access_token");
    assert_eq!(shown.0.as_deref(), Some("********"));
    assert_eq!(shown.1, "file token, named by environment variable waldur_api_token_file");
    assert!(site.warnings().is_empty(), "{:?}", site.warnings());

    let site = site_with(ended.as_bytes()).dotenv("WALDUR_API_TOKEN_FILE=token\n");
    assert_eq!(token(&site), TOKEN);
    assert_eq!(site.shown("waldur_api.access_token").1, "file token, named by .env line 1, WALDUR_API_TOKEN_FILE");

    let site = site_with(ended.as_bytes()).yaml("waldur_api: {access_token_file: token}\n");
    assert_eq!(token(&site), TOKEN);
    assert_eq!(site.shown("waldur_api.access_token").1, "file token, named by config.yaml line 1");
    assert!(site.warnings().is_empty(), "{:?}", site.warnings());
    assert_eq!(site.loaded().secret_files().collect::<Vec<_>>(), [site.directory.path().join("token")]);
}

#[test]
fn every_secret_can_be_in_a_file() {
    let given = |name: &str, secret: &str| {
        let site = Site::minimal().set(&format!("{name}_FILE"), "secret");
        fs::write(site.directory.path().join("secret"), secret).unwrap();
        site.loaded().settings
    };
    let revealed = |secret: Option<secrecy::SecretString>| secret.unwrap().expose_secret().to_owned();
    assert_eq!(revealed(given("HPC_USER_CLIENT_SECRET", "one\n").hpc_user_api.client_secret), "one");
    assert_eq!(revealed(given("CSCS_KEYCLOAK_CLIENT_SECRET", "two").auth.keycloak_client_secret), "two");
    let dsn = "https://key@sentry.example/1";
    assert_eq!(revealed(given("SENTRY_DSN", dsn).sentry.dsn), dsn);
    assert_eq!(revealed(given("OTEL_EXPORTER_OTLP_HEADERS", "key=three\n").otlp.headers), "key=three");
}

#[test]
fn the_source_with_precedence_decides_and_an_empty_path_is_no_path() {
    let site = site_with(b"ignored").set("WALDUR_API_TOKEN", TOKEN);
    assert_eq!(token(&site.yaml("waldur_api: {access_token_file: token}\n")), TOKEN);
    let site = site_with(b"ignored").set("WALDUR_API_TOKEN", TOKEN).set("WALDUR_API_TOKEN_FILE", "");
    assert_eq!(token(&site), TOKEN);
    let site = site_with(TOKEN.as_bytes()).set("WALDUR_API_TOKEN", "").set("WALDUR_API_TOKEN_FILE", "token");
    assert_eq!(token(&site), TOKEN);
}

#[test]
fn errors_of_secret_files_are_reported() {
    let key = "waldur_api.access_token (environment variable WALDUR_API_TOKEN_FILE)";
    let named = |token: &[u8], path: &str| site_with(token).set("WALDUR_API_TOKEN_FILE", path).problems();
    assert_eq!(
        named(b"", "none"),
        [format!("{key}: none cannot be read (no such file); correct the path, or make it readable")]
    );
    assert_eq!(named(b"\n", "token"), [format!("{key}: token is empty; write the secret into the file")]);
    let remedy = "give the path of a file that contains only the secret";
    assert_eq!(named(&vec![b'a'; 65537], "token"), [format!("{key}: token is larger than 64 KiB; {remedy}")]);
    assert_eq!(named(b"\xff", "token"), [format!("{key}: token is not valid UTF-8; write the file again")]);
    let key_of_file = "waldur_api.access_token (file token, named by environment variable WALDUR_API_TOKEN_FILE)";
    let remedy = "give the 40 hexadecimal digits that Waldur shows under the user's credentials";
    assert_eq!(named(b"hunter2", "token"), [format!("{key_of_file}: not a token: 7 characters; {remedy}")]);

    let site = site_with(TOKEN.as_bytes()).set("WALDUR_API_TOKEN", TOKEN).set("WALDUR_API_TOKEN_FILE", "token");
    let other = "given twice: the value is also set directly (environment variable WALDUR_API_TOKEN)";
    assert_eq!(site.problems(), [format!("{key}: {other}; remove one of the two")]);
}

#[test]
fn changes_are_reported_by_value_and_secrets_are_masked() {
    let site = site_with(TOKEN.as_bytes()).set("WALDUR_API_TOKEN_FILE", "token");
    let before = site.loaded();
    assert!(site.loaded().changes_since(&before).is_empty());
    let other = "f".repeat(40);
    fs::write(site.directory.path().join("token"), &other).unwrap();
    let site = site.set("CACHE_MAX_AGE", "7");
    let changes = site.loaded().changes_since(&before);
    let changes: Vec<_> =
        changes.iter().map(|change| (change.key, change.before.as_deref(), change.after.as_deref())).collect();
    let mask = Some("********");
    assert_eq!(changes, [("waldur_api.access_token", mask, mask), ("cache.max_age", Some("5"), Some("7"))]);
    assert!(!format!("{changes:?} {before:?}").contains(TOKEN));
    // The same value from another source is no change.
    let site = site.without("WALDUR_API_TOKEN_FILE").set("WALDUR_API_TOKEN", &other);
    assert_eq!(site.loaded().changes_since(&before).len(), 2);
}

#[test]
fn certificate_and_key_are_given_together() {
    let site = Site::minimal().set("SERVER_TLS_KEY", "key.pem");
    let what = "server.tls_certificate: required when server.tls_key is given; set SERVER_TLS_CERTIFICATE, or \
                server.tls_certificate in the YAML file, or remove server.tls_key";
    assert_eq!(site.problems(), [what]);
    assert!(site.set("SERVER_TLS_CERTIFICATE", "certificate.pem").load().is_ok());
}
