//! Loads and validates the settings of a program. The environment takes precedence over `.env` (if the program reads it),
//! then a YAML file, then defaults. Loading reports all errors at once, each with its key, its source and a remedy.
//!
//! A program declares a table of settings. Loading, the report of the settings in force, warnings about unknown keys and
//! the [reference()] are generated from it:
//!
//! ```
//! use settings::{Environment, Kind, Overrides, Preset, Schema, Setting, load};
//!
//! #[derive(Debug, Default)]
//! struct Settings {
//!     workers: usize,
//! }
//!
//! static SCHEMA: Schema<Settings> = Schema {
//!     table: &[Setting {
//!         key: "pool.workers",
//!         variables: &["POOL_WORKERS"],
//!         kind: Kind::Count(64, |settings, number| settings.workers = number),
//!         preset: Preset::Is("4"),
//!         doc: "Threads that work, 1 to 64.",
//!     }],
//!     config_variables: &["POOL_CONFIG"],
//!     reads_dotenv: true,
//!     prefixes: &["POOL_"],
//!     unset: Settings::default,
//!     rules: |_, _| Vec::new(),
//!     oddities: |_, _| Vec::new(),
//!     without_effect: &[],
//! };
//!
//! // A program uses `Environment::of_process()`.
//! let environment = |workers| Environment::new("/", [("POOL_WORKERS", workers)]);
//! let loaded = load(&SCHEMA, &environment("8"), &Overrides::default()).unwrap();
//! assert_eq!(loaded.settings.workers, 8);
//!
//! let problems = load(&SCHEMA, &environment("many"), &Overrides::default()).unwrap_err();
//! assert_eq!(
//!     problems.problems[0].to_string(),
//!     "pool.workers (environment variable POOL_WORKERS): `many` is not a whole number from 1 to 64; give one, for example 4"
//! );
//! ```
//!
//! Only [`Environment::of_process`] reads the process environment.

pub mod check;
mod dotenv;
mod environment;
mod file;
pub mod files;
mod listen;
mod load;
mod problem;
mod reference;
mod schema;
mod secret_file;
mod setting;
mod source;
mod value;
mod variables;
mod warning;
mod yaml;

pub use environment::Environment;
pub use listen::{Listen, address};
pub use load::{Change, GivenOption, InForce, Loaded, Overrides, load};
pub use problem::{Invalid, Problem, Problems, invalid, quoted};
pub use reference::reference;
pub use schema::{Oddities, Rules, Schema, WithoutEffect};
pub use secret_file::read as read_secret;
pub use setting::{Check, Kind, MASK, Preset, ReadUrl, Setting, Word};
pub use source::Source;
pub use value::Value;
pub use warning::Warning;

/// Exit code of a program with invalid settings: `EX_CONFIG` of sysexits.
pub const EXIT_CODE: u8 = 78;
