//! A program with settings of every kind: their sources, reports, errors and warnings.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use settings::check::{absolute_path, base_url, of_scheme, plain, secret};
use settings::reader::{self, Read};
use settings::{
    Environment, GivenOption, Listen, Loaded, Loader, Overrides, Problems, Reader, Reported, Schema, Value, Warning,
    WithoutEffect, flaws, invalid, load, reference,
};
use tempfile::TempDir;
use url::Url;

#[derive(Debug, Clone)]
struct Settings {
    dry_run: bool,
    factor: f64,
    timeout: Duration,
    age: Duration,
    workers: usize,
    share: f32,
    mode: u32,
    root: String,
    token: Option<SecretString>,
    report: Option<SecretString>,
    source: Option<Url>,
    proxy: Option<Url>,
    store: Option<SecretString>,
    fast: bool,
    names: Vec<String>,
    listen: Vec<Listen>,
    limits: Vec<(String, String)>,
}

const DOC: &str = "What it does.";

fn read(loader: &mut Loader<'_>) -> Result<Settings, Reported> {
    let dry_run = loader.setting("dry_run", &["MOVER_DRY_RUN"]).doc(DOC).with_default("no", reader::flag());
    let factor = loader.setting("factor", &["MOVER_FACTOR"]).doc(DOC).with_default("1.5", reader::positive());
    let timeout = loader.setting("pool.timeout", &["MOVER_TIMEOUT"]).doc(DOC).with_default("30", reader::seconds());
    let age = loader.setting("pool.age", &["MOVER_AGE"]).doc(DOC).with_default("0", reader::age());
    let workers = loader.setting("pool.workers", &["MOVER_WORKERS"]).doc(DOC).with_default("4", reader::count(64));
    let share = loader.setting("pool.share", &["MOVER_SHARE"]).doc(DOC).with_default("0.5", reader::share());
    let mode = loader.setting("disk.mode", &["MOVER_MODE"]).doc(DOC).with_default("0750", reader::mode());
    let root = loader.setting("disk.root", &["MOVER_ROOT"]).doc(DOC).required(reader::text(absolute_path));
    let token = loader.setting("source.token", &["MOVER_TOKEN", "TOKEN"]).doc(DOC).optional(reader::secret(secret));
    let report = loader.setting("source.report", &["MOVER_REPORT"]).doc(DOC).optional(reader::secret_url(plain));
    let source = loader.setting("source.url", &["MOVER_URL"]).doc(DOC).optional(reader::url(base_url));
    let proxy = loader.setting("source.proxy", &["MOVER_PROXY"]).doc(DOC).optional(reader::proxy_url());
    let amqp = reader::url_with_credentials(|text| of_scheme(text, &["amqp", "amqps"], "give amqp://HOST"));
    let store = loader.setting("source.store", &["MOVER_STORE"]).doc(DOC).optional(amqp);
    let pace = reader::choice(&[("slow", false), ("fast", true)]);
    let fast = loader.setting("pace", &["MOVER_PACE"]).doc(DOC).with_default("slow", pace);
    let names = loader.setting("names", &["MOVER_NAMES"]).doc(DOC).optional(reader::names());
    let addresses = reader::addresses(|text| settings::address(text, "/run/mover.sock"));
    let listen = loader.setting("listen", &["MOVER_LISTEN"]).doc(DOC).optional(addresses);
    let limits = loader.setting("limits", &[]).doc(DOC).optional(Reader::new("mapping", read_limits));
    if let (Ok(age), Ok(timeout)) = (age, timeout)
        && age > timeout
    {
        loader.violation("pool.age", invalid("above pool.timeout", "lower it"));
    }
    Ok(Settings {
        dry_run: dry_run?,
        factor: factor?,
        timeout: timeout?,
        age: age?,
        workers: workers?,
        share: share?,
        mode: mode?,
        root: root?,
        token: token?,
        report: report?,
        source: source?,
        proxy: proxy?,
        store: store?,
        fast: fast?,
        names: names?.unwrap_or_default(),
        listen: listen?.unwrap_or_default(),
        limits: limits?.unwrap_or_default(),
    })
}

static SCHEMA: Schema<Settings> = Schema {
    read,
    config_variables: &["MOVER_CONFIG"],
    reads_dotenv: true,
    prefixes: &["MOVER_"],
    oddities: |settings, given| {
        let odd = !given("pool.workers") && settings.fast;
        odd.then(|| "fast, with few workers".to_owned()).into_iter().collect()
    },
    without_effect: &[WithoutEffect { name: "POOL", begins: "{", instead: "give POOL_WORKERS" }],
};

fn read_limits(value: &Value) -> Read<Vec<(String, String)>> {
    let Value::Map(pairs) = value else { return Err(vec![invalid("not a mapping", "give one")]) };
    let limit = |(name, limit): &(String, Value)| Ok((name.clone(), limit.scalar()?.to_owned()));
    let limits = pairs.iter().map(limit).collect::<Result<Vec<_>, settings::Invalid>>()?;
    let shown = format!("{} limits", limits.len());
    Ok((limits, shown))
}

/// A working directory with variables, `.env` and `config.yaml`.
struct WorkingDirectory {
    directory: TempDir,
    variables: Vec<(String, String)>,
    overrides: Overrides,
}

impl WorkingDirectory {
    fn new() -> Self {
        let site = Self {
            directory: TempDir::new().expect("a folder"),
            variables: Vec::new(),
            overrides: Overrides::default(),
        };
        site.set("MOVER_ROOT", "/data")
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.directory.path().join(name), text).expect("a file");
        self
    }

    fn yaml(mut self, text: &str) -> Self {
        self.overrides.config = Some(PathBuf::from("config.yaml"));
        self.file("config.yaml", text)
    }

    fn load(&self) -> Result<Loaded<Settings>, Problems> {
        load(&SCHEMA, &Environment::new(self.directory.path(), self.variables.clone()), &self.overrides)
    }

    fn loaded(&self) -> Loaded<Settings> {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Removes the path of the temporary directory.
    fn without_directory(&self, texts: impl Iterator<Item = String>) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        texts.map(|text| text.replace(&directory, "")).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.without_directory(self.load().expect_err("problems").problems.iter().map(ToString::to_string))
    }

    /// Value and source of a key.
    fn shown(&self, key: &str) -> String {
        let loaded = self.loaded();
        let mut rows = loaded.report().filter(|row| row.0 == key);
        let (_, value, source) = rows.next().expect("a row");
        self.without_directory(std::iter::once(format!("{value} from {source}"))).remove(0)
    }
}

#[test]
fn the_table_has_no_flaws() {
    assert_eq!(flaws(&SCHEMA), Vec::<String>::new());
}

#[test]
fn sources_have_an_order_of_precedence() {
    let key = "pool.workers";
    let mut site = WorkingDirectory::new();
    assert_eq!(site.shown(key), "4 from default");
    site = site.yaml("pool:\n  workers: 5\n");
    assert_eq!(site.shown(key), "5 from config.yaml line 2");
    site = site.file(".env", "MOVER_WORKERS=6\n");
    assert_eq!(site.shown(key), "6 from .env line 1, MOVER_WORKERS");
    site = site.set("mover_workers", "7");
    assert_eq!(site.shown(key), "7 from environment variable mover_workers");
    let given = GivenOption { option: "--workers", key, value: Value::Text("8".to_owned()) };
    site.overrides.options.push(given);
    assert_eq!(site.shown(key), "8 from command line --workers");
    assert_eq!(site.loaded().settings.workers, 8);
}

#[test]
fn every_kind_is_read_and_shown_without_secrets() {
    let yaml = "
dry_run: on
factor: 2
pool: {timeout: 9, age: 3, workers: 2, share: 1}
disk: {mode: 2770}
source:
  token: 007hush
  report: https://hush@host/
  url: https://host/base
  proxy: socks5://user:hush@h:1
  store: amqps://user:hush@h/x?y=hush
pace: fast
names: [a, 07]
listen: 127.0.0.1:1, unix:/run/s
limits: {one: 010}
";
    let loaded = WorkingDirectory::new().yaml(yaml).loaded();
    let settings = &loaded.settings;
    assert!(settings.dry_run && settings.fast);
    assert_eq!((settings.factor.to_string(), settings.share.to_string()), ("2".to_owned(), "1".to_owned()));
    assert_eq!((settings.timeout, settings.age), (Duration::from_secs(9), Duration::from_secs(3)));
    assert_eq!((settings.workers, settings.mode, settings.root.as_str()), (2, 0o2770, "/data"));
    let revealed = |secret: &Option<SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
    assert_eq!(revealed(&settings.token).as_deref(), Some("007hush"));
    assert_eq!(revealed(&settings.report).as_deref(), Some("https://hush@host/"));
    assert_eq!(revealed(&settings.store).as_deref(), Some("amqps://user:hush@h/x?y=hush"));
    assert_eq!(settings.source.as_ref().map(Url::as_str), Some("https://host/base"));
    assert_eq!(settings.proxy.as_ref().and_then(Url::password), Some("hush"));
    assert_eq!((settings.names.join(" "), settings.listen.len()), ("a 07".to_owned(), 2));
    assert_eq!(settings.limits, [("one".to_owned(), "010".to_owned())]);

    let shown: Vec<_> = loaded.report().map(|(key, value, _)| format!("{key} = {value}")).collect();
    assert_eq!(
        shown,
        [
            "dry_run = true",
            "factor = 2",
            "pool.timeout = 9",
            "pool.age = 3",
            "pool.workers = 2",
            "pool.share = 1",
            "disk.mode = 2770",
            "disk.root = /data",
            "source.token = ********",
            "source.report = ********",
            "source.url = https://host/base",
            "source.proxy = socks5://********@h:1",
            "source.store = amqps://********@h/x",
            "pace = fast",
            "names = a, 07",
            "listen = 127.0.0.1:1, unix:/run/s",
            "limits = 1 limits",
        ]
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    let site = WorkingDirectory::new()
        .yaml("disk:\n  mode: 0999\nlimits:\n  one: [1]\nsource: 5\n")
        .file(".env", "MOVER_PACE=swift\n")
        .set("MOVER_ROOT", "data")
        .set("MOVER_URL", "https://user:hush@host/")
        .set("MOVER_TOKEN", "hush")
        .set("MOVER_TOKEN_FILE", "token");
    assert_eq!(
        site.problems(),
        [
            "source (config.yaml line 5): it is not a mapping; indent its settings below it, or remove it",
            "disk.mode (config.yaml line 2): `0999` is not three or four octal digits; give octal digits, for example 0750",
            "disk.root (environment variable MOVER_ROOT): it does not begin with `/`; give an absolute path",
            "source.token (environment variable MOVER_TOKEN_FILE): given twice: the value is also set directly (environment \
             variable MOVER_TOKEN); remove one of the two",
            "source.url (environment variable MOVER_URL): it contains credentials; remove the part before the `@`",
            "pace (.env line 1, MOVER_PACE): `swift` is not a valid choice; give `slow` or `fast`",
            "limits (config.yaml line 3): a list instead of a single value; give one value",
        ]
    );
    let site = WorkingDirectory::new().set("MOVER_ROOT", "");
    assert_eq!(
        site.problems(),
        ["disk.root (environment variable MOVER_ROOT): blank; give a text, or leave the setting out"]
    );
    let mut site = WorkingDirectory::new();
    site.variables.clear();
    assert_eq!(site.problems(), ["disk.root: required, but not given; set MOVER_ROOT, or disk.root in the YAML file"]);
    let hint = "warning: no settings file was given; --config FILE or MOVER_CONFIG names one";
    assert!(site.load().unwrap_err().to_string().ends_with(hint));
    assert!(!site.yaml("pace: fast\n").load().unwrap_err().to_string().contains(hint), "a file was given");
    // A value that could not be read violates no rule.
    let site = WorkingDirectory::new().set("MOVER_AGE", "31");
    assert_eq!(site.problems(), ["pool.age (environment variable MOVER_AGE): above pool.timeout; lower it"]);
    assert_eq!(site.set("MOVER_TIMEOUT", "x").problems().len(), 1);
}

#[test]
fn settings_are_not_missing_if_the_file_is_unreadable() {
    let mut site = WorkingDirectory::new().set("MOVER_CONFIG", "lost.yaml");
    site.variables.retain(|(name, _)| name != "MOVER_ROOT");
    let what = "lost.yaml cannot be read (no such file); correct the path, or make it readable";
    assert_eq!(site.problems(), [format!("YAML file (environment variable MOVER_CONFIG): {what}")]);
}

#[test]
fn suspicious_settings_cause_warnings() {
    let site = WorkingDirectory::new()
        .yaml("pool: {worker: 1}\ntimeout: 1\nzzz: 1\n")
        .file(".env", "not a line\n")
        .set("MOVER_PACE", "fast")
        .set("MOVER_TOKEN_FILES", "x")
        .set("MOVER_PORT_80_TCP", "x")
        .set("pool", " {\"workers\": 2}");
    let warnings = site.loaded().warnings;
    assert_eq!(
        site.without_directory(warnings.iter().map(ToString::to_string)),
        [
            ".env line 1 is not NAME=value and is skipped",
            "unknown setting `pool.worker` (config.yaml line 1) is ignored; did you mean `pool.workers`?",
            "unknown setting `timeout` (config.yaml line 2) is ignored; did you mean `pool.timeout`?",
            "unknown setting `zzz` (config.yaml line 3) is ignored",
            "unknown setting `MOVER_TOKEN_FILES` (environment variable MOVER_TOKEN_FILES) is ignored; did you mean \
             `MOVER_TOKEN_FILE`?",
            "`POOL` (environment variable pool) has no effect; give POOL_WORKERS, or remove it",
            "fast, with few workers",
        ]
    );
    assert_eq!(warnings.last(), Some(&Warning::Odd("fast, with few workers".to_owned())));
    assert_eq!(site.set("MOVER_WORKERS", "4").set("pool", "elsewhere").loaded().warnings.len(), 5);
}

#[test]
fn a_secret_file_is_read_and_its_changes_are_reported_masked() {
    let site = WorkingDirectory::new().yaml("source: {token_file: token}\n").file("token", "hush\r\n");
    assert_eq!(site.shown("source.token"), "******** from file token, named by config.yaml line 1");
    let before = site.loaded();
    assert_eq!(before.secret_files().collect::<Vec<_>>(), [site.directory.path().join("token")]);
    assert_eq!(before.settings.token.as_ref().map(ExposeSecret::expose_secret), Some("hush"));
    // The same value from another source is no change.
    assert!(site.loaded().changes_since(&before).is_empty());
    let site = site.set("TOKEN", "hush");
    assert!(site.loaded().changes_since(&before).is_empty());
    let changes = site.set("TOKEN", "other").loaded().changes_since(&before);
    let reported: Vec<_> = changes.iter().map(|change| (change.key, change.after.as_deref())).collect();
    assert_eq!(reported, [("source.token", Some("********"))]);
    assert!(!format!("{changes:?}").contains("hush"));
}

#[test]
fn the_reference_has_a_table_for_each_section() {
    let text = reference(&SCHEMA, "# Settings\n");
    let head = "| Key | Variable | Kind | Default | Meaning |\n|---|---|---|---|---|\n";
    let first = "| `dry_run` | `MOVER_DRY_RUN` | boolean | `no` | What it does. |\n";
    assert!(text.starts_with(&format!("# Settings\n\n## General\n\n{head}{first}")), "{text}");
    for line in [
        "\n## `pool`\n",
        "\n## `disk`\n",
        "| `disk.root` | `MOVER_ROOT` | text | **required** | What it does. |",
        "| `source.token` | `MOVER_TOKEN`, `TOKEN` | secret, or its file | – | What it does. |",
        "| `limits` |  | mapping | – | What it does. |",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
