use std::fs;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::config::{OnProcessingError, SystemIdentifier, Warning};

mod problems;
mod properties;
mod secret_files;

const TOKEN: &str = "0123456789abcdef0123456789ABCDEF01234567";

/// The minimum without errors and warnings.
const MINIMAL: [(&str, &str); 5] = [
    ("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#),
    ("WALDUR_API_URL", "https://waldur.example.org/api/"),
    ("WALDUR_API_TOKEN", TOKEN),
    ("HPC_USER_DEVELOPMENT_MODE", "true"),
    ("CSCS_KEYCLOAK_URL", "https://idp.example.org/auth/"),
];

/// The warning if no Keycloak is given.
const KEYCLOAK_BY_DEFAULT: &str = "auth.keycloak_url is not given: tokens of https://auth-tds.cscs.ch/auth/ are accepted; \
                                   set CSCS_KEYCLOAK_URL to your Keycloak";

/// A working directory with variables, `.env` and `config.yaml`.
struct Site {
    directory: TempDir,
    variables: Vec<(String, String)>,
    overrides: Overrides,
}

impl Site {
    fn empty() -> Self {
        Self { directory: TempDir::new().unwrap(), variables: Vec::new(), overrides: Overrides::default() }
    }

    fn minimal() -> Self {
        MINIMAL.iter().fold(Self::empty(), |site, (name, value)| site.set(name, value))
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self
    }

    fn dotenv(self, text: &str) -> Self {
        fs::write(self.directory.path().join(".env"), text).unwrap();
        self
    }

    fn yaml(mut self, text: &str) -> Self {
        fs::write(self.directory.path().join("config.yaml"), text).unwrap();
        self.overrides.config = Some(PathBuf::from("config.yaml"));
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&Environment::new(self.directory.path(), self.variables.clone()), &self.overrides)
    }

    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The problems as shown to the operator, without the temporary directory.
    fn problems(&self) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        let problems = self.load().expect_err("problems");
        problems.problems.iter().map(|problem| problem.to_string().replace(&directory, "")).collect()
    }

    /// The value and source of a key.
    fn shown(&self, key: &str) -> (Option<String>, String) {
        let directory = format!("{}/", self.directory.path().display());
        let row = self.loaded().provenance.into_iter().find(|row| row.key == key).unwrap();
        (row.value, row.source.to_string().replace(&directory, ""))
    }

    fn warnings(&self) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        self.loaded().warnings.iter().map(|warning| warning.to_string().replace(&directory, "")).collect()
    }
}

#[test]
fn the_defaults() {
    let Loaded { settings, warnings, config, provenance } = Site::minimal().without("CSCS_KEYCLOAK_URL").loaded();
    assert!(!settings.debug);
    assert_eq!(settings.waldur_api.api_url.as_str(), "https://waldur.example.org/");
    assert_eq!(settings.waldur_api.access_token.expose_secret(), TOKEN);
    assert!(settings.waldur_api.verify_ssl && settings.auth.verify_ssl && settings.hpc_user_api.verify_ssl);
    assert!(!settings.auth.disable_auth && !settings.auth.introspection);
    assert_eq!(settings.auth.keycloak_url.as_str(), "https://auth-tds.cscs.ch/auth/");
    assert_eq!(settings.auth.keycloak_realm, "cscs");
    assert!(settings.auth.keycloak_client_id.is_none() && settings.auth.required_roles.is_empty());
    assert_eq!(settings.hpc_user_api.oidc_scope, "openid");
    assert_eq!(settings.hpc_user_api.user_uid_field, "unixUid");
    assert_eq!(settings.hpc_user_api.user_email_field, "email");
    let backend = &settings.backend_settings;
    assert_eq!(backend.storage_file_system, "lustre");
    let inodes = [backend.inode_base_multiplier, backend.inode_soft_coefficient, backend.inode_hard_coefficient];
    assert_eq!(inodes.map(|number| number.to_string()), ["1000000", "1.33", "2"]);
    assert_eq!(backend.system_identifier, None);
    assert_eq!(backend.on_processing_error, OnProcessingError::Skip);
    assert!(settings.sentry.dsn.is_none() && settings.sentry.traces_sample_rate <= 0.0);
    assert_eq!(settings.server.listen, [Listen::Tcp("127.0.0.1:8000".parse().unwrap())]);
    assert_eq!((warnings, config), (vec![Warning::Odd(KEYCLOAK_BY_DEFAULT.to_owned())], None));
    assert_eq!(provenance.len(), SCHEMA.table().len());
}

#[test]
fn the_table_has_no_flaws() {
    assert_eq!(settings::flaws(&SCHEMA), Vec::<String>::new());
}

#[test]
fn sources_have_an_order_of_precedence() {
    let key = "backend_settings.storage_file_system";
    let site = Site::minimal();
    assert_eq!(site.shown(key), (Some("lustre".to_owned()), "default".to_owned()));
    let site = site.yaml("# c\nbackend_settings:\n  storage_file_system: from-yaml\n");
    assert_eq!(site.shown(key), (Some("from-yaml".to_owned()), "config.yaml line 3".to_owned()));
    let site = site.dotenv("\nstorage_file_system=from-dotenv\n");
    assert_eq!(site.shown(key), (Some("from-dotenv".to_owned()), ".env line 2, storage_file_system".to_owned()));
    let site = site.set("Storage_File_System", "any-case");
    assert_eq!(site.shown(key), (Some("any-case".to_owned()), "environment variable Storage_File_System".to_owned()));
    let site = site.set("STORAGE_FILE_SYSTEM", "exact");
    assert_eq!(site.shown(key), (Some("exact".to_owned()), "environment variable STORAGE_FILE_SYSTEM".to_owned()));
}

#[test]
fn listen_options_replace_all_other_addresses() {
    let mut site = Site::minimal().set("SERVER_LISTEN", "0.0.0.0:80, [::1]:81");
    let listen = |site: &Site| site.shown("server.listen");
    assert_eq!(
        listen(&site),
        (Some("0.0.0.0:80, [::1]:81".to_owned()), "environment variable SERVER_LISTEN".to_owned())
    );
    site.overrides.options.extend(listen_option(&[Listen::Tcp("127.0.0.1:9".parse().unwrap())]));
    assert_eq!(listen(&site), (Some("127.0.0.1:9".to_owned()), "command line --listen".to_owned()));
}

#[test]
fn everything_can_be_given_in_yaml() {
    let yaml = format!(
        r#"
debug: yes
storage_systems: {{vast: v-offering, capstor: 007}}
waldur_api: {{api_url: https://w/api, access_token: "{TOKEN}", verify_ssl: off, agent_header: site/1}}
auth:
  keycloak_url: https://idp.example.org/
  keycloak_realm: no
  keycloak_client_id: 0123
  keycloak_client_secret: 1e999
  introspection: true
  required_roles: [reader, 42]
hpc_user_api:
  api_url: https://hpc/base/
  client_id: id
  client_secret: 00
  oidc_token_url: https://idp/token?p=1
  socks_proxy: socks5://user:hunter2@h:1
  user_path: /users/{{username}}
backend_settings:
  inode_base_multiplier: 1_000
  inode_hard_coefficient: "3"
  system_identifier: offering_slug
  on_processing_error: fail
sentry: {{dsn: "https://key@sentry/1", traces_sample_rate: 0.25}}
server: {{listen: ["127.0.0.1:1", "[::1]:2"]}}
log: {{format: json}}
"#
    );
    let loaded = Site::empty().yaml(&yaml).loaded();
    let settings = &loaded.settings;
    assert!(settings.debug && !settings.waldur_api.verify_ssl);
    let systems: Vec<_> =
        settings.storage_systems.iter().map(|s| (s.name.as_str(), s.offering_slug.as_str())).collect();
    assert_eq!(systems, [("vast", "v-offering"), ("capstor", "007")]);
    assert_eq!(settings.auth.keycloak_realm, "no");
    assert_eq!(settings.auth.keycloak_client_id.as_deref(), Some("0123"));
    assert_eq!(settings.auth.keycloak_client_secret.as_ref().unwrap().expose_secret(), "1e999");
    assert_eq!(settings.auth.required_roles, ["reader", "42"]);
    assert_eq!(settings.hpc_user_api.client_secret.as_ref().unwrap().expose_secret(), "00");
    assert_eq!(settings.backend_settings.inode_base_multiplier.to_string(), "1000");
    assert_eq!(settings.backend_settings.inode_hard_coefficient.to_string(), "3");
    assert_eq!(settings.backend_settings.system_identifier, Some(SystemIdentifier::OfferingSlug));
    assert_eq!(settings.backend_settings.on_processing_error, OnProcessingError::Fail);
    assert_eq!(settings.sentry.traces_sample_rate.to_string(), "0.25");
    assert_eq!(settings.server.listen.len(), 2);
    assert_eq!(loaded.warnings, []);

    let shown: Vec<_> = loaded.report().map(|(key, value, source)| format!("{key} {value} {source}")).collect();
    let shown = shown.join("\n");
    let all = format!("{shown}{loaded:?}");
    for secret in [TOKEN, "hunter2", "1e999", "key@sentry"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(shown.contains("hpc_user_api.socks_proxy socks5://********@h:1 "));
}

#[test]
fn a_token_of_digits_keeps_its_spelling() {
    for token in ["0123456701234567012345670123456701234567", "12345678901234567890123456789012345678e9"] {
        let site = Site::minimal().yaml(&format!("waldur_api:\n  access_token: {token}\n"));
        let mut in_yaml = site;
        in_yaml.variables.retain(|(name, _)| name != "WALDUR_API_TOKEN");
        assert_eq!(in_yaml.loaded().settings.waldur_api.access_token.expose_secret(), token);
        let in_environment = Site::minimal().set("WALDUR_API_TOKEN", token);
        assert_eq!(in_environment.loaded().settings.waldur_api.access_token.expose_secret(), token);
    }
}

#[test]
fn the_file_can_be_named_in_the_environment_or_in_dotenv() {
    let mut site = Site::minimal().yaml("debug: true\n");
    site.overrides.config = None;
    assert!(!site.loaded().settings.debug);
    let site = site.dotenv("WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH=config.yaml");
    assert!(site.loaded().settings.debug);
    assert_eq!(site.loaded().config, Some(PathBuf::from("config.yaml")));
    // An empty variable names no file.
    let site = site.set("WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH", "");
    assert!(!site.loaded().settings.debug);
    let site = site.set("WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH", "nowhere.yaml");
    assert_eq!(
        site.problems(),
        [
            "YAML file (environment variable WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH): nowhere.yaml cannot be read (no such \
          file); correct the path, or make it readable"
        ]
    );
}

/// The variables that may be empty, as found by running the Python proxy.
#[test]
fn an_empty_variable_does_what_it_does_in_the_python_proxy() {
    let may_be_empty = [
        "WALDUR_SOCKS_PROXY",
        "WALDUR_AGENT_HEADER",
        "AGENT_HEADER",
        "CSCS_KEYCLOAK_CLIENT_ID",
        "CSCS_KEYCLOAK_CLIENT_SECRET",
        "HPC_USER_CLIENT_ID",
        "HPC_USER_CLIENT_SECRET",
        "HPC_USER_OIDC_SCOPE",
        "HPC_USER_SOCKS_PROXY",
        "SENTRY_ENVIRONMENT",
        // A fault of the Python proxy's settings (decision D21).
        "SENTRY_DSN",
        // Not known to the Python proxy.
        "CALLBACKS_REQUIRED_ROLES",
        "PROVISIONERS_REQUIRED_ROLES",
        "CSCS_KEYCLOAK_REQUIRED_ROLES",
        "CSCS_KEYCLOAK_SOCKS_PROXY",
        "HPC_USER_USER_PATH",
        "SERVER_TLS_CERTIFICATE",
        "SERVER_TLS_KEY",
        "CACHE_SHARED_URL",
        "DASHBOARD_CLIENT_ID",
        "DASHBOARD_CLIENT_SECRET",
        "DASHBOARD_REQUIRED_ROLES",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_SERVICE_NAME",
    ];
    for name in SCHEMA.table().iter().flat_map(|row| row.variables) {
        let loaded = Site::minimal().set(name, "").load();
        assert_eq!(loaded.is_ok(), may_be_empty.contains(name), "{name}");
    }
    // It hides the value in the file, and remains the source.
    let site = Site::minimal().yaml("waldur_api:\n  socks_proxy: socks5://h:1\n").set("WALDUR_SOCKS_PROXY", "");
    assert_eq!(site.shown("waldur_api.socks_proxy"), (None, "environment variable WALDUR_SOCKS_PROXY".to_owned()));
    let site = Site::minimal().set("HPC_USER_OIDC_SCOPE", "");
    assert_eq!(site.loaded().settings.hpc_user_api.oidc_scope, "openid");
}

#[test]
fn the_python_proxys_other_name_for_the_agent_header_works() {
    let site = Site::minimal().set("AGENT_HEADER", "old/1");
    assert_eq!(site.loaded().settings.waldur_api.agent_header.as_deref(), Some("old/1"));
    let site = site.set("WALDUR_AGENT_HEADER", "new/1");
    assert_eq!(site.loaded().settings.waldur_api.agent_header.as_deref(), Some("new/1"));
}

#[test]
fn unknown_keys_are_warnings_with_the_nearest_known_one() {
    let site = Site::minimal()
        .yaml("waldur_api:\n  api_ulr: x\nauht: {}\nverify_ssl: false\nzzz: 1\nhpc_user_api: {keycloak_realm: x}\n")
        .dotenv("HPC_USER_CLIENT_SECRETS=hunter2\nnot a line\nPATHS=1\n")
        .set("WALDUR_API_TOKENS", "hunter2")
        .set("WALDUR_PORT_80_TCP_ADDR", "10.0.0.1")
        .set("waldur_verify_ssl", "true");
    assert_eq!(
        site.warnings(),
        [
            ".env line 2 is not NAME=value and is skipped",
            "unknown setting `waldur_api.api_ulr` (config.yaml line 2) is ignored; did you mean `waldur_api.api_url`?",
            "unknown setting `auht` (config.yaml line 3) is ignored; did you mean `auth`?",
            "unknown setting `verify_ssl` (config.yaml line 4) is ignored; did you mean `waldur_api.verify_ssl`?",
            "unknown setting `zzz` (config.yaml line 5) is ignored",
            "unknown setting `hpc_user_api.keycloak_realm` (config.yaml line 6) is ignored; did you mean \
             `auth.keycloak_realm`?",
            "unknown setting `WALDUR_API_TOKENS` (environment variable WALDUR_API_TOKENS) is ignored; did you mean \
             `WALDUR_API_TOKEN`?",
            "unknown setting `HPC_USER_CLIENT_SECRETS` (.env line 1, HPC_USER_CLIENT_SECRETS) is ignored; did you mean \
             `HPC_USER_CLIENT_SECRET`?",
        ]
    );
}

#[test]
fn the_default_keycloak_causes_a_warning_if_callers_are_authenticated() {
    let site = Site::minimal().without("CSCS_KEYCLOAK_URL");
    assert_eq!(site.warnings(), [KEYCLOAK_BY_DEFAULT]);
    assert_eq!(site.set("DISABLE_AUTH", "true").warnings(), Vec::<String>::new());
    let site = Site::minimal().without("CSCS_KEYCLOAK_URL").yaml("auth:\n  keycloak_url: https://idp.example.org/\n");
    assert_eq!(site.warnings(), Vec::<String>::new());
}

#[test]
fn a_name_that_differs_from_its_slug_causes_one_warning_unless_decided() {
    let site = Site::minimal().set("STORAGE_SYSTEMS", r#"{"same": "same", "capstor": "c-offering", "vast": "v"}"#);
    assert_eq!(
        site.warnings(),
        [
            "paths and `storageSystem` contain the name of the storage system, as in /capstor/…; to use its offering's slug \
          instead, as in /c-offering/…, set backend_settings.system_identifier (SYSTEM_IDENTIFIER) to offering_slug; to \
          keep the name without this warning, set it to storage_system"
        ]
    );
    for decided in ["storage_system", "offering_slug"] {
        let site = Site::minimal().set("STORAGE_SYSTEMS", r#"{"a": "b"}"#).set("SYSTEM_IDENTIFIER", decided);
        assert_eq!(site.warnings(), Vec::<String>::new());
    }
}
