//! What is said of each storage system.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Number};
use settings::{Invalid, Value, invalid, read_secret};

use super::Settings;
use crate::ledger::ProjectIds;
use crate::limits::Terabyte;
use crate::preflight::Modes;
use driver_posix::tree::acl::{self, Named};
use driver_scale as scale;
use driver_vast as vast;
use storage_driver::Mode;

/// A storage system as the settings describe it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemConfig {
    /// Its name in the document, in lower case.
    #[serde(skip)]
    pub name: String,
    /// What ACLs add to the mode of each directory; `None`: ACLs are left alone.
    #[serde(skip)]
    pub acl: Option<Named>,
    /// The modes of directories that it accepts (`lowest_mode`, `highest_mode`).
    #[serde(skip)]
    pub modes: Modes,
    /// The files that its secrets were read from.
    #[serde(skip)]
    pub secret_files: Vec<PathBuf>,
    /// What drives it.
    pub driver: DriverName,
    /// What a TB of Waldur is here: `TB` (10^12 bytes) or `TiB` (2^40).
    pub terabyte: Terabyte,
    /// Its root in published paths; `/NAME` unless given.
    #[serde(default)]
    pub published_root: Option<String>,
    /// Where the file system is mounted, for drivers that must tell (`lustre`); the root unless given.
    #[serde(default)]
    pub mount: Option<PathBuf>,
    /// How IBM Storage Scale is reached; for the driver `scale`.
    #[serde(default)]
    pub scale: Option<scale::Settings>,
    /// How VAST is reached; for the driver `vast`.
    #[serde(default)]
    pub vast: Option<vast::Settings>,
    /// The directory that is its root here; as published unless given.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Whether the root must lie on a file system of its own.
    #[serde(default = "yes")]
    pub must_be_mounted: bool,
    /// Whether owner and group are set; needs rights.
    #[serde(default = "yes")]
    pub change_owner: bool,
    /// Owner of projects' directories.
    #[serde(default)]
    pub owner_uid: u32,
    /// The lowest GID and UID that are taken for real.
    #[serde(default = "thousand")]
    pub lowest_id: u32,
    /// Where project IDs come from: `gid`, or `from: N`.
    #[serde(default = "by_gid")]
    pub project_ids: ProjectIds,
    /// How many resources are worked on at one time, 1 to 64.
    #[serde(default = "four")]
    pub at_once: usize,
}

/// Names of drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// Directories without quotas: what was agreed is written down, not enforced.
    Posix,
    /// Directories with project quotas of the kernel, on XFS.
    Xfs,
    /// The same on ext4.
    Ext4,
    /// Directories with project quotas of Lustre, by `lfs`.
    Lustre,
    /// Directories with quotas of CephFS.
    Cephfs,
    /// Filesets of IBM Storage Scale, by its management interface.
    Scale,
    /// Directories with quotas of VAST, by its management system.
    Vast,
    /// In memory: for trials of `plan` and `run` without any storage.
    Memory,
}

fn yes() -> bool {
    true
}

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
    /// Whether both are directories of one root on this machine.
    fn is_driven_where(&self, other: &Self) -> bool {
        let mounted =
            |system: &Self| !matches!(system.driver, DriverName::Scale | DriverName::Vast | DriverName::Memory);
        mounted(self) && mounted(other) && self.root() == other.root()
    }

    /// Its root in published paths.
    pub fn published_root(&self) -> String {
        self.published_root.clone().unwrap_or_else(|| format!("/{}", self.name))
    }

    /// Its root on this machine.
    pub fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| PathBuf::from(self.published_root()))
    }
}

const EXAMPLE: &str =
    "map each system's name to its driver, for example {\"capstor\": {\"driver\": \"posix\", \"terabyte\": \"TB\"}}";

/// Reads the systems into the settings. Returns them as they may be shown.
pub(super) fn put(settings: &mut Settings, value: &Value) -> Result<String, Vec<Invalid>> {
    let systems = match value {
        Value::Text(text) => serde_json::from_str(text).map_err(|_| vec![invalid("not a JSON object", EXAMPLE)])?,
        other => json(other).map_err(|wrong| vec![wrong])?,
    };
    let serde_json::Value::Object(systems) = systems else { return Err(vec![invalid("not a mapping", EXAMPLE)]) };
    if systems.is_empty() {
        return Err(vec![invalid("empty", EXAMPLE)]);
    }
    let (mut read, mut faults) = (Vec::<SystemConfig>::new(), Vec::new());
    for (name, value) in systems {
        let part = name.escape_debug().to_string();
        match system(&name, value) {
            Ok(system) if read.iter().any(|other| other.name == system.name) => {
                faults.push(Invalid { part: Some(part), ..invalid("the name is there twice", "remove one of them") });
            }
            Ok(system) if read.iter().any(|other| other.is_driven_where(&system)) => {
                let wrong = invalid("another system has the same root", "give each a root of its own");
                faults.push(Invalid { part: Some(part), ..wrong });
            }
            Ok(system) => read.push(system),
            Err(wrong) => faults.push(Invalid { part: Some(part), ..wrong }),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let shown = |system: &SystemConfig| {
        format!("{}: {:?} at {}", system.name, system.driver, system.root().display()).to_lowercase()
    };
    let text = read.iter().map(shown).collect::<Vec<_>>().join(", ");
    settings.systems = read;
    Ok(text)
}

fn system(name: &str, mut value: serde_json::Value) -> Result<SystemConfig, Invalid> {
    let mut secret_files = Vec::new();
    for block in ["scale", "vast"] {
        if let Some(serde_json::Value::Object(block)) = value.get_mut(block) {
            secret_files.extend(secrets(block)?);
        }
    }
    let (acl, modes) = (entries(&mut value)?, modes(&mut value)?);
    let system: SystemConfig = serde_json::from_value(value).map_err(|error| misread(&error))?;
    let given = match system.driver {
        DriverName::Scale => system.scale.is_some(),
        DriverName::Vast => system.vast.is_some(),
        _ => true,
    };
    if !given {
        return Err(invalid(
            "how the system is reached is missing",
            "add the mapping `scale` or `vast`: see docs/provisioner.md",
        ));
    }
    if acl.is_some() && matches!(system.driver, DriverName::Scale | DriverName::Vast | DriverName::Memory) {
        return Err(invalid("this driver sets no ACLs", "take `acl` out, and set them with the system's own tools"));
    }
    let system = SystemConfig { name: name.trim().to_lowercase(), acl, modes, secret_files, ..system };
    if !crate::place::is_plain(&system.name) {
        return Err(invalid(
            "the name of the system is none that a file could have",
            "use letters, digits, `.`, `_` and `-`",
        ));
    }
    if !system.published_root().starts_with('/') || !system.root().is_absolute() {
        return Err(invalid("a root does not begin with `/`", "give the whole path"));
    }
    if system.root().as_os_str() == "/" || system.published_root().trim_end_matches('/').is_empty() {
        return Err(invalid("the root is `/`", "give the directory that holds the system's data alone"));
    }
    if !(1..=64).contains(&system.at_once) {
        return Err(invalid("at_once is not 1 to 64", "give a number of these"));
    }
    Ok(system)
}

/// Takes the entries of ACLs out of what serde reads, which could not say how they must look.
fn entries(system: &mut serde_json::Value) -> Result<Option<Named>, Invalid> {
    let given = system.as_object_mut().and_then(|system| system.remove("acl")).filter(|given| !given.is_null());
    let Some(given) = given else { return Ok(None) };
    let texts: Vec<String> =
        serde_json::from_value(given).map_err(|_| invalid("`acl` is not a list of texts", acl::FORM))?;
    Named::parse(&texts).map(Some).map_err(|error| invalid(error.to_string(), acl::FORM))
}

/// Takes the accepted modes out of what serde reads: octal digits, as a text or as the number that YAML takes them for.
fn modes(system: &mut serde_json::Value) -> Result<Modes, Invalid> {
    let preset = Modes::default();
    let mut take = |key: &str, preset: Mode| {
        let given = system.as_object_mut().and_then(|system| system.remove(key)).filter(|given| !given.is_null());
        let Some(given) = given else { return Ok(preset) };
        // The number has lost its leading zeros.
        let digits = given.as_str().map_or_else(|| format!("{:0>4}", given.to_string()), ToOwned::to_owned);
        Mode::parse(&digits).ok_or_else(|| {
            invalid(format!("`{key}` is not three or four octal digits"), "give them, for example \"2770\"")
        })
    };
    let modes = Modes { lowest: take("lowest_mode", preset.lowest)?, highest: take("highest_mode", preset.highest)? };
    if modes.lowest.0 & !modes.highest.0 != 0 {
        return Err(invalid(
            "`lowest_mode` has bits that `highest_mode` has not: no mode would do",
            "correct one of them",
        ));
    }
    Ok(modes)
}

/// Serde's text, where that names no more than fields: a value could be a secret in the wrong place.
fn misread(error: &serde_json::Error) -> Invalid {
    let text = error.to_string();
    let remedy = "see docs/provisioner.md for what a system may have";
    if text.starts_with("missing field") {
        return invalid(text, remedy);
    }
    if text.starts_with("unknown field") {
        // Read apart, so that serde does not know of it.
        return invalid(text.replace("`at_once`", "`at_once`, `acl`, `lowest_mode`, `highest_mode`"), remedy);
    }
    if let Some((_, expected)) = text.split_once(", expected ").filter(|_| text.starts_with("unknown variant")) {
        return invalid(format!("a value is not {expected}"), remedy);
    }
    invalid("a value is not of the kind that it should be", remedy)
}

/// Reads secrets of a back-end from the files that `NAME_file` names; a number is the text that it is written as.
/// Returns these files.
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

/// A value of the YAML file as JSON, so that serde can read it.
fn json(value: &Value) -> Result<serde_json::Value, Invalid> {
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => match text.as_str() {
            // YAML's booleans come as they are written.
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
