//! All cases, by topic.

mod callbacks;
mod called_off;
mod create;
mod identities;
mod kills;
mod listings;
mod operation;
mod paths;
mod quotas;
mod resize;
mod terminate;

use crate::case::Case;

/// All cases, in the order of the reports.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        create::cases(),
        resize::cases(),
        terminate::cases(),
        callbacks::cases(),
        called_off::cases(),
        listings::cases(),
        identities::cases(),
        quotas::cases(),
        paths::cases(),
        kills::cases(),
        operation::cases(),
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_section_of_the_specification() {
        let specification = include_str!("../../../docs/specification.md");
        let mut names = HashSet::new();
        for case in all() {
            assert!(names.insert(case.name.clone()), "{} occurs twice", case.name);
            assert!(case.name.contains('/') && case.name.len() <= 46, "{}", case.name);
            let section = case.rule.split(':').next().unwrap_or_default();
            let level = if section.contains('.') { "###" } else { "##" };
            assert!(specification.contains(&format!("\n{level} {section} ")), "{}: {}", case.name, case.rule);
        }
    }
}
