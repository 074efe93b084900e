//! The selection of resources that a query describes, and links to other selections.

use std::cmp::Ordering;

use catalog::{State, Status};
use provisioner_report::HoldKind;
use url::form_urlencoded;

use super::story::{Row, Story, Turn};

/// Rows on a page.
pub(super) const PAGE_SIZE: usize = 100;
/// Longer texts select nothing useful; the rest is ignored, so that links stay short.
const MAX_TEXT: usize = 300;

/// A selection, its order, and the page that is shown. Empty texts select everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    /// Words that must all occur in the row.
    pub(super) text: String,
    pub(super) system: String,
    pub(super) data_type: String,
    pub(super) status: Option<Status>,
    pub(super) state: Option<State>,
    pub(super) hold: Option<HoldFilter>,
    /// A part of the customer's name.
    pub(super) customer: String,
    pub(super) turn: Option<Turn>,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    /// Whether resources are grouped by system, type and customer.
    pub(super) tree: bool,
    /// From 1.
    pub(super) page: usize,
    /// Parameters with values that are not known, which select nothing.
    pub(super) unknown: Vec<(&'static str, String)>,
}

/// Selects by hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldFilter {
    Any,
    None,
    Kind(HoldKind),
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    Path,
    Customer,
    Status,
    /// The most urgent turn first, and the longest wait first.
    #[default]
    Turn,
    Since,
    Usage,
    Fullness,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Path, Self::Customer, Self::Status, Self::Turn, Self::Since, Self::Usage, Self::Fullness];

    fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Customer => "customer",
            Self::Status => "status",
            Self::Turn => "turn",
            Self::Since => "since",
            Self::Usage => "usage",
            Self::Fullness => "fullness",
        }
    }

    /// Compares two rows; those that have no such value are last, also if the order is reversed.
    fn compare(self, one: &Row, other: &Row, descending: bool) -> Ordering {
        fn last<T: PartialOrd>(one: Option<T>, other: Option<T>, descending: bool) -> Ordering {
            match (one, other) {
                (Some(one), Some(other)) => directed(one.partial_cmp(&other).unwrap_or(Ordering::Equal), descending),
                (one, other) => one.is_none().cmp(&other.is_none()),
            }
        }
        fn text<'a>(one: &'a str, other: &'a str, descending: bool) -> Ordering {
            let some = |text: &'a str| Some(text).filter(|text| !text.is_empty());
            last(some(one), some(other), descending)
        }
        let since = |row: &Row| row.conclusion.since;
        let turns = one.conclusion.turn.cmp(&other.conclusion.turn);
        match self {
            Self::Path => Ordering::Equal,
            Self::Customer => text(&one.customer, &other.customer, descending),
            Self::Status => last(one.status.map(Status::as_str), other.status.map(Status::as_str), descending),
            Self::Turn => directed(turns, descending).then_with(|| last(since(one), since(other), false)),
            Self::Since => last(since(one), since(other), descending),
            Self::Usage => last(bytes(one), bytes(other), descending),
            Self::Fullness => last(one.fullness(), other.fullness(), descending),
        }
        .then_with(|| text(&one.path, &other.path, self == Self::Path && descending))
        .then_with(|| one.id.cmp(&other.id))
    }
}

fn bytes(row: &Row) -> Option<u64> {
    row.usage().map(|usage| usage.bytes)
}

fn directed(order: Ordering, descending: bool) -> Ordering {
    if descending { order.reverse() } else { order }
}

/// The kinds of holds with their keys, the most urgent first.
pub(super) const HOLDS: [(HoldKind, &str); 7] = [
    (HoldKind::Asks, "asks"),
    (HoldKind::Conflict, "conflict"),
    (HoldKind::Refused, "refused"),
    (HoldKind::Drift, "drift"),
    (HoldKind::Declined, "declined"),
    (HoldKind::Fault, "fault"),
    (HoldKind::Waiting, "waiting"),
];

/// The key of a kind of hold.
pub(super) fn hold_name(kind: HoldKind) -> &'static str {
    HOLDS.into_iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

impl HoldFilter {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::None => "none",
            Self::Kind(kind) => hold_name(kind),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "any" => Some(Self::Any),
            "none" => Some(Self::None),
            _ => HOLDS.into_iter().find(|(_, name)| *name == text).map(|(kind, _)| Self::Kind(kind)),
        }
    }
}

impl Query {
    /// Parses the query of a URL. Unknown parameters are ignored; of repeated ones, the last counts.
    pub(super) fn parse(query: &str) -> Self {
        let mut parsed = Self { page: 1, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value: String = value.trim().chars().take(MAX_TEXT).collect();
            let is_empty = value.is_empty();
            let unknown = &mut parsed.unknown;
            let mut note = |name, value: &str| unknown.push((name, value.to_owned()));
            match &*name {
                "q" => parsed.text = value,
                "system" => parsed.system = value,
                "type" => parsed.data_type = value,
                "customer" => parsed.customer = value,
                _ if is_empty => {}
                "status" => match value.parse() {
                    Ok(status) => parsed.status = Some(status),
                    Err(()) => note("status", &value),
                },
                "state" => match State::known(&value) {
                    Some(state) => parsed.state = Some(state),
                    None => note("state", &value),
                },
                "hold" => match HoldFilter::parse(&value) {
                    Some(hold) => parsed.hold = Some(hold),
                    None => note("hold", &value),
                },
                "turn" => match Turn::ALL.into_iter().find(|turn| turn.as_str() == value) {
                    Some(turn) => parsed.turn = Some(turn),
                    None => note("turn", &value),
                },
                "sort" => match Sort::ALL.into_iter().find(|sort| sort.as_str() == value) {
                    Some(sort) => parsed.sort = sort,
                    None => note("sort", &value),
                },
                "order" => parsed.descending = value == "desc",
                "view" => parsed.tree = value == "tree",
                "page" => parsed.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        parsed
    }

    /// The query as part of a URL, with a question mark unless it is empty.
    pub(super) fn to_url(&self) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let page = (self.page > 1).then(|| self.page.to_string());
        let values = [
            ("q", self.text.as_str()),
            ("system", &self.system),
            ("type", &self.data_type),
            ("status", self.status.map_or("", Status::as_str)),
            ("state", self.state.map_or("", State::as_str)),
            ("hold", self.hold.map_or("", HoldFilter::as_str)),
            ("customer", &self.customer),
            ("turn", self.turn.map_or("", Turn::as_str)),
            ("sort", if self.sort == Sort::default() { "" } else { self.sort.as_str() }),
            ("order", if self.descending { "desc" } else { "" }),
            ("view", if self.tree { "tree" } else { "" }),
            ("page", page.as_deref().unwrap_or_default()),
        ];
        for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
            pairs.append_pair(name, value);
        }
        let pairs = pairs.finish();
        if pairs.is_empty() { pairs } else { format!("?{pairs}") }
    }

    /// The selection that a click on the header of a column leads to: sorted by it, or reversed.
    pub(super) fn sorted_by(&self, sort: Sort) -> Self {
        // The largest numbers are of interest first.
        let first = matches!(sort, Sort::Usage | Sort::Fullness);
        let descending = if self.sort == sort { !self.descending } else { first };
        Self { sort, descending, page: 1, ..self.clone() }
    }

    pub(super) fn on_page(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// Whether it selects less than everything.
    pub(super) fn is_filter(&self) -> bool {
        let everything = Self { sort: self.sort, descending: self.descending, tree: self.tree, ..Self::default() };
        Self { page: 0, unknown: Vec::new(), ..self.clone() } != everything
    }

    /// The selected resources in their order.
    pub(super) fn select<'a>(&self, story: &'a Story) -> Vec<&'a Row> {
        if !self.unknown.is_empty() {
            return Vec::new();
        }
        let (text, customer) = (self.text.to_lowercase(), self.customer.to_lowercase());
        let words: Vec<_> = text.split_whitespace().collect();
        let is_selected = |row: &&Row| {
            (self.system.is_empty() || row.system == self.system)
                && (self.data_type.is_empty() || row.data_type == self.data_type)
                && self.status.is_none_or(|status| row.status == Some(status))
                && self.state.is_none_or(|state| row.state == Some(state))
                && self.turn.is_none_or(|turn| row.conclusion.turn == turn)
                && self.hold.is_none_or(|hold| match (hold, row.hold()) {
                    (HoldFilter::Any, own) => own.is_some(),
                    (HoldFilter::None, own) => own.is_none(),
                    (HoldFilter::Kind(kind), own) => own.is_some_and(|own| own.kind == kind),
                })
                && (customer.is_empty() || row.customer.to_lowercase().contains(&customer))
                && words.iter().all(|word| row.search.contains(word))
        };
        let mut rows: Vec<_> = story.rows.iter().filter(is_selected).collect();
        // Those of an unknown system are last.
        let group = |row: &&'a Row| (row.system.is_empty(), &row.system, &row.data_type, &row.customer);
        rows.sort_by(|one, other| {
            let groups = if self.tree { group(one).cmp(&group(other)) } else { Ordering::Equal };
            groups.then_with(|| self.sort.compare(one, other, self.descending))
        });
        rows
    }
}

/// A page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paging {
    /// From 1.
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) total: usize,
    /// Rows on a page.
    size: usize,
}

impl Paging {
    /// The page nearest to the requested one.
    pub(super) fn new(total: usize, page: usize) -> Self {
        Self::sized(total, page, PAGE_SIZE)
    }

    /// The same with another number of rows on a page.
    pub(super) fn sized(total: usize, page: usize, size: usize) -> Self {
        let pages = total.div_ceil(size).max(1);
        Self { page: page.clamp(1, pages), pages, total, size }
    }

    /// The rows of the page.
    pub(super) fn of<'a, T>(&self, rows: &'a [T]) -> &'a [T] {
        let start = ((self.page - 1) * self.size).min(rows.len());
        &rows[start..rows.len().min(start + self.size)]
    }
}

#[cfg(test)]
mod tests;
