//! Arguments of `lfs`, and the parser of its output.

use thiserror::Error;

use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};

/// The unit of numbers without a suffix, in bytes.
pub(super) const BLOCK: u64 = 1024;

/// Invalid limits or output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum InvalidOutput {
    #[error("a limit of {0} bytes is not a multiple of 1 KiB")]
    Uneven(u64),
    #[error(
        "the numbers are inaccurate because some servers do not answer: check them with `lfs check servers`. `lfs` printed: {0}"
    )]
    Inaccurate(String),
    #[error("`lfs` printed no quota of this file system: {0:?}")]
    Unknown(String),
    #[error("`lfs` printed a number that does not fit into 64 bits of bytes: {0}")]
    Beyond(u64),
}

/// Reads limits and usage; quiet, without the heading.
pub(super) fn read_quota(project: u32, mount: &str) -> Vec<String> {
    ["quota", "-q", "-p", &project.to_string(), mount].map(str::to_owned).into()
}

/// Reads the default quota of projects; quiet.
pub(super) fn read_default(mount: &str) -> Vec<String> {
    ["quota", "-q", "-P", mount].map(str::to_owned).into()
}

/// Reads the index of a directory's metadata server.
pub(super) fn read_metadata_server(path: &str) -> Vec<String> {
    ["getdirstripe", "-m", path].map(str::to_owned).into()
}

/// Sets all four limits as numbers without suffixes, which would be powers of 1024 even for inodes.
pub(super) fn set_quota(project: u32, limits: &QuotaLimits, mount: &str) -> Result<Vec<String>, InvalidOutput> {
    let [soft, hard] = [limits.space_soft().0, limits.space_hard().0];
    if let Some(uneven) = [soft, hard].into_iter().find(|bytes| !bytes.is_multiple_of(BLOCK)) {
        return Err(InvalidOutput::Uneven(uneven));
    }
    Ok(four(project, [soft / BLOCK, hard / BLOCK, limits.inodes_soft().0, limits.inodes_hard().0], mount))
}

/// Removes all limits.
pub(super) fn clear_quota(project: u32, mount: &str) -> Vec<String> {
    four(project, [0; 4], mount)
}

fn four(project: u32, limits: [u64; 4], mount: &str) -> Vec<String> {
    let mut arguments = vec!["setquota".to_owned(), "-p".to_owned(), project.to_string()];
    for (flag, limit) in ["-b", "-B", "-i", "-I"].into_iter().zip(limits) {
        arguments.extend([flag.to_owned(), limit.to_string()]);
    }
    arguments.push(mount.to_owned());
    arguments
}

/// Parses limits and usage. `None` unless all four limits are set for this project itself.
pub(super) fn parse_quota(output: &str, mount: &str) -> Result<(Option<QuotaLimits>, Usage), InvalidOutput> {
    let unknown = || unknown(output);
    let (row, rest) = row(output, mount)?;
    let mut default = false;
    for line in rest.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // From 2.16 on, the line begins with the number of errors.
        if line.trim_start_matches(|each: char| each.is_ascii_digit() || each == ' ').starts_with(INACCURATE) {
            return Err(InvalidOutput::Inaccurate(row.trim().to_owned()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        // `pid 3773301 is using default file quota set_quota`: the limits are not the project's own.
        let [_, _, "is", "using", "default", _, "quota", "setting"] = words[..] else { return Err(unknown()) };
        default = true;
    }
    let mut numbers = Vec::new();
    for word in row.split_whitespace().filter(|word| !is_grace(word)) {
        if word.starts_with('[') {
            return Err(InvalidOutput::Inaccurate(row.trim().to_owned()));
        }
        // A star marks an exceeded limit.
        let number = word.strip_suffix('*').unwrap_or(word);
        numbers.push(number.parse::<u64>().map_err(|_| unknown())?);
    }
    let [used, soft, hard, files, files_soft, files_hard] = numbers[..] else { return Err(unknown()) };
    let bytes = |kib: u64| kib.checked_mul(BLOCK).map(Bytes).ok_or(InvalidOutput::Beyond(kib));
    let usage = Usage { space: bytes(used)?, inodes: Inodes(files) };
    if default || [soft, hard, files_soft, files_hard].contains(&0) {
        return Ok((None, usage));
    }
    // Invalid limits, such as a soft limit above its hard limit, count as none and are set again.
    let limits = QuotaLimits::new([bytes(soft)?, bytes(hard)?], [Inodes(files_soft), Inodes(files_hard)]);
    Ok((limits.ok(), usage))
}

/// The line after a row with numbers for which some servers did not answer.
const INACCURATE: &str = "Some errors happened when getting quota info";

/// Splits the output into the row of numbers, without the mount point, and the rest.
fn row<'a>(output: &'a str, mount: &str) -> Result<(&'a str, &'a str), InvalidOutput> {
    let row = output.trim_start().strip_prefix(mount).filter(|row| row.starts_with(char::is_whitespace));
    // A long mount point is on a separate line.
    let row = row.ok_or_else(|| unknown(output))?.trim_start();
    Ok(row.split_once('\n').unwrap_or((row, "")))
}

fn unknown(output: &str) -> InvalidOutput {
    InvalidOutput::Unknown(output.chars().take(300).collect())
}

/// The default quota of projects: soft and hard KiB, soft and hard inodes; 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Default(pub(super) [u64; 4]);

impl Default {
    /// The limits that Lustre 2.16 and later show for a project without limits; `None` if one of them is not set.
    pub(super) fn limits(self) -> Option<QuotaLimits> {
        let [soft, hard, inodes_soft, inodes_hard] = self.0;
        let space = [soft, hard].map(|kib| Bytes(kib.saturating_mul(BLOCK)));
        QuotaLimits::new(space, [inodes_soft, inodes_hard].map(Inodes)).ok()
    }
}

/// Parses the default quota: a row of soft limit, hard limit and grace time, of space and of inodes, without usage.
pub(super) fn default(output: &str, mount: &str) -> Result<Default, InvalidOutput> {
    let words: Vec<&str> = row(output, mount)?.0.split_whitespace().collect();
    let [soft, hard, _, inodes_soft, inodes_hard, _] = words[..] else { return Err(unknown(output)) };
    let mut numbers = [0; 4];
    for (number, word) in numbers.iter_mut().zip([soft, hard, inodes_soft, inodes_hard]) {
        *number = word.parse().map_err(|_| unknown(output))?;
    }
    Ok(Default(numbers))
}

/// Whether this is a grace time: `-`, `none`, `expired` or `6d23h59m50s`.
fn is_grace(word: &str) -> bool {
    matches!(word, "-" | "none" | "expired")
        || (word.starts_with(|first: char| first.is_ascii_digit())
            && word.ends_with(|last: char| "wdhms".contains(last))
            && word.chars().all(|each| each.is_ascii_digit() || "wdhms".contains(each)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(space: [u64; 2], inodes: [u64; 2]) -> QuotaLimits {
        QuotaLimits::new(space.map(|kib| Bytes(kib * BLOCK)), inodes.map(Inodes)).unwrap()
    }

    fn usage(kib: u64, inodes: u64) -> Usage {
        Usage { space: Bytes(kib * BLOCK), inodes: Inodes(inodes) }
    }

    #[test]
    fn all_four_limits_are_bare_numbers() {
        let arguments = set_quota(5001, &limits([1000, 2000], [7, 9]), "/mnt/lustre").unwrap();
        assert_eq!(arguments.join(" "), "setquota -p 5001 -b 1000 -B 2000 -i 7 -I 9 /mnt/lustre");
        assert_eq!(clear_quota(5001, "/m").join(" "), "setquota -p 5001 -b 0 -B 0 -i 0 -I 0 /m");
        assert_eq!(read_quota(5001, "/m").join(" "), "quota -q -p 5001 /m");
        let uneven = QuotaLimits::new([Bytes(1024), Bytes(1025)], [Inodes(1); 2]).unwrap();
        assert_eq!(set_quota(1, &uneven, "/m"), Err(InvalidOutput::Uneven(1025)));
    }

    #[test]
    fn recorded_output_is_parsed() {
        let all = Some(limits([307_200, 309_200], [10_000, 11_000]));
        for (output, mount, expected) in [
            // Normal, and over all four limits with all kinds of grace times.
            (
                "    /mnt/lustre       4       0       0       -       1       0       0       -\n",
                "/mnt/lustre",
                (None, usage(4, 1)),
            ),
            (
                "    /mnt/lustre  308000*  307200  309200 6d23h59m50s  10101*  10000  11000 1w2d\n",
                "/mnt/lustre",
                (all, usage(308_000, 10_101)),
            ),
            (
                "    /mnt/lustre  309200*  307200  309200    none   10101*  10000  11000 expired\n",
                "/mnt/lustre",
                (all, usage(309_200, 10_101)),
            ),
            // A mount point of 16 or more characters.
            (
                "/mnt/lustre/scratch\n                   8  307200  309200       -       2   10000   11000       -\n",
                "/mnt/lustre/scratch",
                (all, usage(8, 2)),
            ),
            // Default limits, not the project's.
            (
                "        /lustre       0 8589934592 10737418240       -       0  3000000 36000000       -\npid 6215 is using default block quota setting\npid 6215 is using default file quota setting\n",
                "/lustre",
                (None, usage(0, 0)),
            ),
            // Only one kind of limit is set.
            (
                "        /lustre       0  307200  309200       -       0       0       0       -\n",
                "/lustre",
                (None, usage(0, 0)),
            ),
        ] {
            assert_eq!(parse_quota(output, mount), Ok(expected), "{output}");
        }
    }

    #[test]
    fn the_default_quota_of_2_16_is_parsed() {
        let recorded = include_str!("../../../tests/recorded/lustre-default-quota.txt");
        let shown = limits([1_000_000, 2_000_000], [1000, 2000]);
        assert_eq!(parse_quota(recorded, "/mnt"), Ok((Some(shown), usage(0, 0))));
        assert_eq!(read_default("/mnt").join(" "), "quota -q -P /mnt");
        // Grace times are seconds or words.
        for output in ["  /mnt 1000000 2000000 604800 1000 2000 604800\n", "/mnt\n 1000000 2000000 1w 1000 2000 none\n"]
        {
            assert_eq!(default(output, "/mnt").unwrap().limits(), Some(shown), "{output}");
        }
        assert_eq!(default("/mnt 0 2000000 10 0 0 10", "/mnt"), Ok(Default([0, 2_000_000, 0, 0])));
        assert_eq!(Default([0, 2_000_000, 0, 0]).limits(), None);
        for output in ["", "/mnt 0 1 2 - 0 1 2 -", "/mnt a 1 2 0 1 2", "/other 0 1 2 0 1 2"] {
            assert!(matches!(default(output, "/mnt"), Err(InvalidOutput::Unknown(_))), "{output}");
        }
    }

    #[test]
    fn inaccurate_and_unknown_output_is_an_error() {
        let recorded = include_str!("../../../tests/recorded/lustre-inaccurate-2.16.txt");
        for output in [recorded.to_owned(), recorded.replace(['[', ']'], "")] {
            let Err(fault) = parse_quota(&output, "/mnt") else { panic!("{output}") };
            assert!(fault.to_string().contains("inaccurate because some servers do not answer"), "{fault}");
        }
        let inaccurate = "        /univ_1 [10200224]       0       0       -   17724       0       0       -\nSome errors happened when getting quota info. Some devices may be not working or deactivated. The data in \"[]\" is inaccurate.\n";
        assert!(matches!(parse_quota(inaccurate, "/univ_1"), Err(InvalidOutput::Inaccurate(_))));
        let first = inaccurate.lines().next().unwrap();
        assert!(matches!(parse_quota(first, "/univ_1"), Err(InvalidOutput::Inaccurate(_))));
        let second = "/univ_1 1 0 0 - 1 0 0 -\nSome errors happened when getting quota info.\n";
        assert!(matches!(parse_quota(second, "/univ_1"), Err(InvalidOutput::Inaccurate(_))));
        for output in [
            "",
            "/other 1 0 0 - 1 0 0 -",
            "/univ_10 1 0 0 - 1 0 0 -",
            "/univ_1 1 0 0 - 1 0 -",
            "/univ_1 1 0 0 - 1 0 0 - 0",
            "/univ_1 1M 0 0 - 1 0 0 -",
            "/univ_1 1 0 0 - 1 0 0 -\n/univ_1 2 0 0 - 1 0 0 -",
            "/univ_1 1 0 0 -\n1 0 0 -",
            "/univ_1 1 0 0 - 1k 0 0 -",
            "/univ_1 -1 0 0 - 1 0 0 -",
            "Disk quotas for prj 1 (pid 1):\n/univ_1 1 0 0 - 1 0 0 -",
        ] {
            assert!(
                matches!(parse_quota(output, "/univ_1"), Err(InvalidOutput::Unknown(_))),
                "{output}: {:?}",
                parse_quota(output, "/univ_1")
            );
        }
        assert_eq!(parse_quota("/m 18446744073709551615 0 0 - 1 0 0 -", "/m"), Err(InvalidOutput::Beyond(u64::MAX)));
        assert_eq!(parse_quota("/m 1 3 2 - 1 1 1 -", "/m"), Ok((None, usage(1, 1))));
    }

    proptest! {
        #[test]
        fn no_output_causes_a_panic(output in "(/m[ \n])?([0-9*\\[\\]a-z \n-]|[0-9]+ ){0,30}") {
            let _ = parse_quota(&output, "/m");
        }

        #[test]
        fn limits_that_are_set_are_parsed(soft in 1_u64..1 << 52, more in 0_u64..1 << 52, files in 1_u64.., used in 0_u64..1 << 53) {
            let desired = limits([soft, soft + more], [1, files]);
            let [_, _, _, _, b, _, bb, _, i, _, ii, _] = &set_quota(1, &desired, "/m").unwrap()[..] else { panic!() };
            let output = format!("             /m {used:>7}  {b} {bb}       -       1 {i} {ii}       -\n");
            prop_assert_eq!(parse_quota(&output, "/m"), Ok((Some(desired), usage(used, 1))));
        }
    }
}
