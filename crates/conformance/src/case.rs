//! What a case is.

use simulator::world::OfferingType;

use crate::bench::Bench;
use crate::outcome::Outcome;

/// How much depends on a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Safety of data, and money.
    Must,
    /// What operators rely on.
    Should,
    /// Good to have.
    May,
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Must, Self::Should, Self::May];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::May => "may",
        }
    }
}

type Run = Box<dyn Fn(&mut Bench<'_>) -> Outcome + Send + Sync>;

/// A case.
pub(crate) struct Case {
    /// `GROUP/NAME`.
    pub(crate) name: String,
    pub(crate) level: Level,
    /// What the specification says, with its section first.
    pub(crate) rule: &'static str,
    /// The type of the offering of the storage system.
    pub(crate) offering: OfferingType,
    pub(crate) run: Run,
}

impl Case {
    /// A case for an offering that a site agent serves.
    pub(crate) fn new(
        name: impl Into<String>,
        level: Level,
        rule: &'static str,
        run: impl Fn(&mut Bench<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), level, rule, offering: OfferingType::Slurm, run: Box::new(run) }
    }

    /// The same case for an offering of type Basic.
    pub(crate) fn basic(mut self) -> Self {
        self.offering = OfferingType::Basic;
        self
    }

    /// Whether the pattern matches the name: `*` matches any text, and a pattern without it matches the beginning.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        matches(pattern, &self.name)
    }
}

/// Two cases, `NAME-site-agent` and `NAME-basic`.
pub(crate) fn both(
    name: &str,
    level: Level,
    rule: &'static str,
    run: impl Fn(&mut Bench<'_>) -> Outcome + Send + Sync + Clone + 'static,
) -> [Case; 2] {
    let case = |kind: &str| Case::new(format!("{name}-{kind}"), level, rule, run.clone());
    [case("site-agent"), case("basic").basic()]
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return true };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_without_a_star_matches_the_beginning() {
        for (pattern, name) in
            [("create", "create/basic"), ("create/basic", "create/basic"), ("*/b*c", "create/basic"), ("*", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("basic", "create/basic"), ("*/b", "create/basic"), ("c*x*", "create/basic")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
