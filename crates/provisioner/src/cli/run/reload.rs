//! Reloads the settings of the running loop: on SIGHUP, and when a file with a secret has changed.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use settings::{Change, Loaded};
use tracing::{error, info, warn};

use crate::config::Settings;
use crate::provisioner::Provisioner;
use program::error_chain;

/// How often the files with secrets are read. Unlike notifications, this works on every file system and for every way
/// to replace a file: Kubernetes changes the target of a symlink.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How much of a file is compared, in bytes.
const LARGEST: u64 = 1 << 20;
/// Keys, or prefixes of keys, that take effect only at the start.
const AT_START: [&str; 2] = ["log.", "run.listen"];

/// Reads the settings again. The error contains all problems, one line each.
pub(in crate::cli) type Load<'a> = &'a dyn Fn() -> Result<Loaded<Settings>, Vec<String>>;

/// Applies new settings between two passes.
pub(super) struct Reloader<'a> {
    load: Load<'a>,
    current: Loaded<Settings>,
    secrets: Watch,
}

impl<'a> Reloader<'a> {
    pub(super) fn new(current: Loaded<Settings>, load: Load<'a>) -> Self {
        let secrets = Watch::new(secret_files(&current));
        Self { load, current, secrets }
    }

    /// Whether a file with a secret has changed. Reads the files at most once per [`LOOK`].
    pub(super) fn secrets_changed(&mut self) -> bool {
        self.secrets.changed()
    }

    /// The provisioner with the new settings; `None` if they cannot be used, which is logged. Then the old ones stay in
    /// force.
    pub(super) fn reload(&mut self, provisioner: &Provisioner, why: &str) -> Option<Provisioner> {
        info!(why, "reloading the settings");
        let reloaded = (self.load)().and_then(|loaded| {
            let provisioner = provisioner.with(loaded.settings.clone()).map_err(|fault| vec![error_chain(&fault)])?;
            Ok((loaded, provisioner))
        });
        let (loaded, provisioner) = match reloaded {
            Ok(reloaded) => reloaded,
            Err(faults) => {
                for fault in faults {
                    error!("the new settings cannot be used, and the old ones stay in force: {fault}");
                }
                return None;
            }
        };
        for warning in loaded.warnings.iter().filter(|warning| !self.current.warnings.contains(warning)) {
            warn!("{warning}");
        }
        for Change { key, before, after, source } in &loaded.changes_since(&self.current) {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("not set"));
            info!("{key} = {} ({source}), was {}", shown(after), shown(before));
            if AT_START.iter().any(|at_start| key.starts_with(at_start)) {
                warn!(key, "this setting takes effect at the next start");
            }
        }
        info!("the settings are in force");
        self.secrets.follow(secret_files(&loaded));
        self.current = loaded;
        Some(provisioner)
    }
}

/// All files that secrets were read from.
fn secret_files(loaded: &Loaded<Settings>) -> Vec<PathBuf> {
    let of_systems = loaded.settings.systems.iter().flat_map(|system| &system.secret_files).cloned();
    loaded.secret_files().map(Path::to_owned).chain(of_systems).collect()
}

/// Watches the content of files.
struct Watch {
    paths: Vec<PathBuf>,
    /// A hash of each file's content when the settings were last read; `None` if it could not be read.
    known: Vec<Option<u64>>,
    /// The hashes of the last check, and its time.
    last: (Vec<Option<u64>>, Instant),
    keys: RandomState,
}

impl Watch {
    fn new(paths: Vec<PathBuf>) -> Self {
        let keys = RandomState::new();
        let known = hashes(&paths, &keys);
        Self { paths, last: (known.clone(), Instant::now()), known, keys }
    }

    /// Watches these files from now on. If they are the same as before, changes since then still count.
    fn follow(&mut self, paths: Vec<PathBuf>) {
        if paths != self.paths {
            *self = Self::new(paths);
        }
    }

    /// Whether the files have changed, and then stayed the same for one [`LOOK`]: several files may belong together and
    /// are not written at the same moment.
    fn changed(&mut self) -> bool {
        if self.paths.is_empty() || self.last.1.elapsed() < LOOK {
            return false;
        }
        let now = hashes(&self.paths, &self.keys);
        let settled = now == self.last.0;
        self.last = (now, Instant::now());
        let changed = settled && self.last.0 != self.known;
        if changed {
            self.known.clone_from(&self.last.0);
        }
        changed
    }
}

fn hashes(paths: &[PathBuf], keys: &RandomState) -> Vec<Option<u64>> {
    paths.iter().map(|path| settings::files::read(path, LARGEST).ok().map(|bytes| keys.hash_one(bytes))).collect()
}

#[cfg(all(test, feature = "scale"))]
mod tests {
    use driver_scale::simulated::{BLOCK, ROOT, Simulated};
    use settings::{Environment, Overrides, load};

    use super::*;
    use crate::config::SCHEMA;
    use program::Clock;

    #[test]
    fn the_password_of_a_storage_system_is_read_again_when_its_file_changes() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let simulated = Simulated::start();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "wrong").unwrap();
        let systems = serde_json::json!({"capstor": {"driver": "scale", "terabyte": "TB", "scale": {
            "api": {"url": simulated.url}, "user": "proxy", "password_file": file,
            "filesystem": "fs1", "root": ROOT, "mount": simulated.mount(), "block_size": BLOCK,
        }}});
        let variables = [
            ("PROVISIONER_PROXY_URL", "https://proxy.example.org".to_owned()),
            ("PROVISIONER_SYSTEMS", systems.to_string()),
        ];
        let read = || {
            let environment = Environment::new("/", variables.iter().cloned());
            load(&SCHEMA, &environment, &Overrides::default()).map_err(|faults| vec![faults.to_string()])
        };
        let loaded = read().unwrap();
        let provisioner = Provisioner::new(loaded.settings.clone(), Clock::system()).unwrap();
        let mut reloader = Reloader::new(loaded, &read);
        let changed = |reloader: &mut Reloader<'_>| {
            let begun = Instant::now();
            while !reloader.secrets_changed() && begun.elapsed() < LOOK * 10 {
                std::thread::sleep(LOOK / 20);
            }
            assert!(begun.elapsed() < LOOK * 10, "the change was not detected");
        };
        assert!(provisioner.systems[0].driver.trash().unwrap_err().to_string().contains("`password` is wrong"));
        std::fs::write(&file, "hush\n").unwrap();
        changed(&mut reloader);
        let provisioner = reloader.reload(&provisioner, "test").unwrap();
        assert_eq!(provisioner.systems[0].driver.trash().unwrap(), []);
        std::fs::remove_file(&file).unwrap();
        changed(&mut reloader);
        assert!(reloader.reload(&provisioner, "test").is_none());
    }
}
