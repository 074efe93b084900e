//! Settings of each storage system.

use std::path::PathBuf;

use provisioner_core::preflight::Modes;
use serde::Deserialize;
use serde_json::{Map, Number};
use settings::reader::Read;
use settings::{Invalid, Value, invalid, read_secret};
use storage_driver::Mode;
use storage_driver::limits::Terabyte;
use storage_driver::registration::{InvalidSettings, OpenDriver, Registration, SystemSettings};

use crate::drivers::{self, NoDriver};
use crate::ledger::ProjectIds;

/// A storage system as the settings describe it.
#[derive(Debug, Clone)]
pub struct SystemConfig {
    /// Its name in the document, in lower case.
    pub name: String,
    pub driver: &'static Registration,
    /// Opens the driver with the settings of this system.
    pub open: OpenDriver,
    /// The root in published paths.
    pub published_root: String,
    /// The root on this machine.
    pub root: PathBuf,
    /// The accepted modes of directories (`lowest_mode`, `highest_mode`).
    pub modes: Modes,
    /// The files that secrets were read from.
    pub secret_files: Vec<PathBuf>,
    /// The meaning of a TB in Waldur: `TB` (10^12 bytes) or `TiB` (2^40).
    pub terabyte: Terabyte,
    /// Owner of project directories.
    pub owner_uid: u32,
    /// The lowest GID and UID that are not reserved for the operating system.
    pub lowest_id: u32,
    /// Where project IDs come from: `gid`, or `from: N`. `None` where directories have none.
    pub project_ids: Option<ProjectIds>,
    /// Number of resources that are worked on at the same time, 1 to 64.
    pub at_once: usize,
}

/// The settings that do not depend on the driver.
#[derive(Debug, Deserialize)]
struct Common {
    terabyte: Terabyte,
    published_root: Option<String>,
    root: Option<PathBuf>,
    #[serde(default)]
    owner_uid: u32,
    #[serde(default = "thousand")]
    lowest_id: u32,
    #[serde(default = "by_gid")]
    project_ids: ProjectIds,
    #[serde(default = "four")]
    at_once: usize,
}

/// The keys that do not depend on the driver.
const KEYS: [&str; 10] = [
    "driver",
    "terabyte",
    "published_root",
    "root",
    "owner_uid",
    "lowest_id",
    "lowest_mode",
    "highest_mode",
    "project_ids",
    "at_once",
];

fn thousand() -> u32 {
    1000
}

fn four() -> usize {
    4
}

fn by_gid() -> ProjectIds {
    ProjectIds::Gid
}

impl SystemConfig {
    /// Whether both have the same directory of this machine as their root.
    fn shares_root_with(&self, other: &Self) -> bool {
        self.driver.local_root && other.driver.local_root && self.root == other.root
    }
}

const EXAMPLE: &str =
    "map each system's name to its driver, for example {\"capstor\": {\"driver\": \"posix\", \"terabyte\": \"TB\"}}";

/// Reads the systems: a mapping in YAML, or JSON in one text.
pub(super) fn read(value: &Value) -> Read<Vec<SystemConfig>> {
    let systems = match value {
        Value::Text(text) => serde_json::from_str(text).map_err(|_| vec![invalid("not a JSON object", EXAMPLE)])?,
        other => json(other).map_err(|invalid| vec![invalid])?,
    };
    let serde_json::Value::Object(systems) = systems else { return Err(vec![invalid("not a mapping", EXAMPLE)]) };
    if systems.is_empty() {
        return Err(vec![invalid("empty", EXAMPLE)]);
    }
    let (mut read, mut problems) = (Vec::<SystemConfig>::new(), Vec::new());
    for (name, value) in systems {
        let part = name.escape_debug().to_string();
        match system(&name, value) {
            Ok(system) if read.iter().any(|other| other.name == system.name) => {
                problems.push(Invalid { part: Some(part), ..invalid("the name is used twice", "remove one of them") });
            }
            Ok(system) if read.iter().any(|other| other.shares_root_with(&system)) => {
                let error = invalid("another system has the same root", "give each system its own root");
                problems.push(Invalid { part: Some(part), ..error });
            }
            Ok(system) => read.push(system),
            Err(error) => problems.push(Invalid { part: Some(part), ..error }),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let shown = |system: &SystemConfig| {
        format!("{}: {} at {}", system.name, system.driver.name, system.root.display()).to_lowercase()
    };
    let text = read.iter().map(shown).collect::<Vec<_>>().join(", ");
    Ok((read, text))
}

fn system(name: &str, value: serde_json::Value) -> Result<SystemConfig, Invalid> {
    let serde_json::Value::Object(mut values) = value else {
        return Err(from_driver(InvalidSettings::new(
            "not a mapping",
            "see docs/provisioner.md for the settings of a system",
        )));
    };
    let driver = driver(&values)?;
    let known = || KEYS.into_iter().chain(drivers::all().flat_map(|driver| driver.keys).copied());
    if let Some(unknown) = values.keys().find(|key| known().all(|known| known != *key)) {
        let mut keys: Vec<_> = known().map(|key| format!("`{key}`")).collect();
        keys.sort_unstable();
        keys.dedup();
        return Err(invalid(
            format!("unknown field `{}`, expected one of {}", unknown.escape_debug(), keys.join(", ")),
            "see docs/provisioner.md for the settings of a system",
        ));
    }
    if !driver.keys.contains(&"acl") && values.get("acl").is_some_and(|acl| !acl.is_null()) {
        return Err(invalid("this driver sets no ACLs", "remove `acl`, and set ACLs with the system's own tools"));
    }
    let modes = modes(&mut values)?;
    let mut secret_files = Vec::new();
    let mut for_driver = Map::new();
    for key in driver.keys {
        if let Some(mut value) = values.remove(*key) {
            if let Some(mapping) = value.as_object_mut() {
                secret_files.extend(secrets(mapping)?);
            }
            for_driver.insert((*key).to_owned(), value);
        }
    }
    let common: Common = serde_json::from_value(values.into()).map_err(|error| from_driver(error.into()))?;
    let name = name.trim().to_lowercase();
    if !storage_driver::place::is_plain(&name) {
        return Err(invalid(
            "the name of the system is not a valid file name",
            "use letters, digits, `.`, `_` and `-`",
        ));
    }
    let published_root = common.published_root.unwrap_or_else(|| format!("/{name}"));
    let root = common.root.unwrap_or_else(|| PathBuf::from(&published_root));
    if !published_root.starts_with('/') || !root.is_absolute() {
        return Err(invalid("a root does not begin with `/`", "give the absolute path"));
    }
    if root.as_os_str() == "/" || published_root.trim_end_matches('/').is_empty() {
        return Err(invalid("the root is `/`", "give the directory that holds only the data of this system"));
    }
    if !(1..=64).contains(&common.at_once) {
        return Err(invalid("`at_once` is not between 1 and 64", "give a number in this range"));
    }
    let open = (driver.configure)(SystemSettings { root: root.clone(), values: for_driver }).map_err(from_driver)?;
    Ok(SystemConfig {
        name,
        driver,
        open,
        published_root,
        root,
        modes,
        secret_files,
        terabyte: common.terabyte,
        owner_uid: common.owner_uid,
        lowest_id: common.lowest_id,
        project_ids: driver.project_ids.then_some(common.project_ids),
        at_once: common.at_once,
    })
}

/// The driver that a system's settings name.
fn driver(values: &Map<String, serde_json::Value>) -> Result<&'static Registration, Invalid> {
    let Some(name) = values.get("driver") else {
        return Err(invalid("missing field `driver`", "see docs/provisioner.md for the settings of a system"));
    };
    drivers::named(name.as_str().unwrap_or_default()).map_err(|none| match none {
        NoDriver::LeftOut(feature) => invalid(
            format!("this program was built without the driver {name}"),
            format!("use a build with the Cargo feature `{feature}`, which is on by default"),
        ),
        NoDriver::Unknown => {
            let names: Vec<_> = drivers::all().map(|driver| format!("`{}`", driver.name)).collect();
            invalid(
                format!("`driver` is not one of {}", names.join(", ")),
                "choose one of them: see docs/provisioner.md",
            )
        }
    })
}

fn from_driver(settings: InvalidSettings) -> Invalid {
    invalid(settings.problem, settings.remedy)
}

/// Removes and parses the accepted modes: octal digits, as text, or as the number that YAML reads them as.
fn modes(system: &mut Map<String, serde_json::Value>) -> Result<Modes, Invalid> {
    let preset = Modes::default();
    let mut take = |key: &str, preset: Mode| {
        let given = system.remove(key).filter(|given| !given.is_null());
        let Some(given) = given else { return Ok(preset) };
        // A number has lost its leading zeros.
        let digits = given.as_str().map_or_else(|| format!("{:0>4}", given.to_string()), ToOwned::to_owned);
        Mode::parse(&digits)
            .ok_or_else(|| invalid(format!("`{key}` is not three or four octal digits"), "write it like \"2770\""))
    };
    let modes = Modes { lowest: take("lowest_mode", preset.lowest)?, highest: take("highest_mode", preset.highest)? };
    if modes.lowest.0 & !modes.highest.0 != 0 {
        return Err(invalid(
            "`lowest_mode` has bits that `highest_mode` lacks, so no mode is accepted",
            "correct one of them",
        ));
    }
    Ok(modes)
}

/// Reads the secrets of a management interface from the files in `NAME_file`, and turns numbers into text. Returns the files.
fn secrets(block: &mut Map<String, serde_json::Value>) -> Result<Vec<PathBuf>, Invalid> {
    let mut files = Vec::new();
    for name in ["password", "token"] {
        if let Some(path) = block.remove(&format!("{name}_file")) {
            let path = PathBuf::from(path.as_str().unwrap_or_default());
            let secret = read_secret(&path)
                .map_err(|fault| Invalid { what: format!("{name}_file: {}", fault.what), ..fault })?;
            block.insert(name.into(), secret.into());
            files.push(path);
        }
        if let Some(number) = block.get(name).filter(|value| value.is_number()).map(ToString::to_string) {
            block.insert(name.into(), number.into());
        }
    }
    Ok(files)
}

/// A YAML value as JSON.
fn json(value: &Value) -> Result<serde_json::Value, Invalid> {
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => match text.as_str() {
            // YAML's booleans arrive as text.
            "true" | "True" | "yes" | "on" => true.into(),
            "false" | "False" | "no" | "off" => false.into(),
            text => text.into(),
        },
        Value::Number { value, text } => match text.parse::<u64>() {
            Ok(whole) => whole.into(),
            Err(_) => Number::from_f64(*value).map_or(serde_json::Value::Null, Into::into),
        },
        Value::Unwritten | Value::Unreadable => value.scalar().map(Into::into)?,
        Value::List(items) => items.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            pairs.collect::<Result<Map<_, _>, Invalid>>()?.into()
        }
    })
}
