//! Loads and validates the settings of a program. The environment takes precedence over `.env` (if the program reads it),
//! then a YAML file, then defaults. Loading reports all errors at once, each with its key, its source and a remedy.
//!
//! A program declares its settings one after another with a [`Loader`]; adding a setting takes a declaration, and a field of
//! the program's own structure. Loading, the report of the settings in force, warnings about unknown keys and the [reference()]
//! follow from these declarations:
//!
//! ```
//! use settings::{Environment, Loader, Overrides, Reported, Schema, load, reader};
//!
//! #[derive(Debug)]
//! struct Settings {
//!     workers: usize,
//! }
//!
//! fn read(loader: &mut Loader<'_>) -> Result<Settings, Reported> {
//!     let workers = loader
//!         .setting("pool.workers", &["POOL_WORKERS"])
//!         .doc("Number of worker threads, 1 to 64.")
//!         .with_default("4", reader::count(64));
//!     // After all declarations, so that all errors are reported at once.
//!     Ok(Settings { workers: workers? })
//! }
//!
//! static SCHEMA: Schema<Settings> = Schema {
//!     read,
//!     config_variables: &["POOL_CONFIG"],
//!     reads_dotenv: true,
//!     prefixes: &["POOL_"],
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
mod flaws;
mod listen;
mod load;
mod loader;
mod problem;
pub mod reader;
mod reference;
mod schema;
mod secret_file;
mod source;
mod sources;
mod table;
mod value;
mod variables;
mod warning;
mod yaml;

pub use environment::Environment;
pub use flaws::flaws;
pub use listen::{Listen, address};
pub use load::{Change, Loaded, Overrides, load};
pub use loader::{InForce, Loader, Reported};
pub use problem::{Invalid, Problem, Problems, invalid, quoted};
pub use reader::Reader;
pub use reference::reference;
pub use schema::{Oddities, Schema};
pub use secret_file::read as read_secret;
pub use source::Source;
pub use sources::GivenOption;
pub use table::{Preset, Row};
pub use value::Value;
pub use warning::{Warning, WithoutEffect};

/// Exit code of a program with invalid settings: `EX_CONFIG` of sysexits.
pub const EXIT_CODE: u8 = 78;
