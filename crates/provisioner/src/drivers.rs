//! The drivers that a system's settings can name.

use storage_driver::registration::Registration;

pub(crate) mod on_demand;

/// Lists the crates with drivers: the Cargo feature that includes each, the names of its drivers, and its registrations.
macro_rules! drivers {
    ($($(feature $feature:literal)? [$($name:literal),+] => $list:path;)+) => {
        /// All drivers of this build.
        pub(crate) fn all() -> impl Iterator<Item = &'static Registration> {
            let lists: &[&[Registration]] = &[$($(#[cfg(feature = $feature)])? $list),+];
            lists.iter().copied().flatten()
        }

        /// The Cargo feature that includes a driver, whether or not this build has it.
        fn feature(name: &str) -> Option<&'static str> {
            match name {
                $($($name)|+ => [$($feature)?].first().copied(),)+
                _ => None,
            }
        }
    };
}

drivers! {
    feature "exec" ["exec"] => driver_exec::DRIVERS;
    feature "posix" ["posix", "xfs", "ext4", "lustre", "cephfs"] => driver_posix::DRIVERS;
    feature "scale" ["scale"] => driver_scale::DRIVERS;
    feature "vast" ["vast"] => driver_vast::DRIVERS;
    ["memory"] => storage_driver::memory::DRIVERS;
}

/// Why there is no driver of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoDriver {
    /// This build left it out; it comes with this Cargo feature.
    LeftOut(&'static str),
    Unknown,
}

/// The driver of a name.
pub(crate) fn named(name: &str) -> Result<&'static Registration, NoDriver> {
    all().find(|driver| driver.name == name).ok_or_else(|| feature(name).map_or(NoDriver::Unknown, NoDriver::LeftOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(feature = "exec", feature = "posix", feature = "scale", feature = "vast"))]
    fn the_table_names_every_driver() {
        for driver in all().filter(|driver| driver.name != "memory") {
            assert!(feature(driver.name).is_some(), "{} is missing in the table", driver.name);
        }
    }

    #[test]
    fn a_driver_of_another_build_is_distinguished_from_an_unknown_one() {
        assert!(named("memory").is_ok());
        assert_eq!(named("nfs").unwrap_err(), NoDriver::Unknown);
        assert_eq!(named("scale").err(), (!cfg!(feature = "scale")).then_some(NoDriver::LeftOut("scale")));
    }
}
