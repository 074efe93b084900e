//! Errors in a program's table of settings.

use crate::reference::is_one_row;
use crate::schema::Schema;
use crate::table::Row;

/// Errors in the table itself, a sentence each, for a test of the program. Names must be unique, defaults valid, and each
/// row must fit into the reference.
pub fn flaws<S>(schema: &Schema<S>) -> Vec<String> {
    let described = schema.described();
    let table = &described.rows;
    let keys = table.iter().map(|row| row.key.to_owned()).chain(table.iter().filter_map(Row::file_key));
    let mut names: Vec<_> = keys.chain(schema.variables(table)).collect();
    names.sort_unstable();
    let duplicates = names.windows(2).filter(|pair| pair[0] == pair[1]);
    let rows = table.iter().filter(|row| !is_one_row(row));
    duplicates
        .map(|pair| format!("duplicate name {}", pair[0]))
        .chain(described.problems.iter().map(|problem| format!("invalid default of {}: {}", problem.key, problem.what)))
        .chain(rows.map(|row| format!("{} does not fit into a row of the reference", row.key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::loader::{Loader, Reported};
    use crate::reader::{flag, secret};

    fn flaws_of(read: fn(&mut Loader<'_>) -> Result<(), Reported>) -> Vec<String> {
        flaws(&Schema {
            read,
            config_variables: &["CONFIG"],
            reads_dotenv: true,
            prefixes: &[],
            oddities: |(), _| Vec::new(),
            without_effect: &[],
        })
    }

    #[test]
    fn flaws_of_the_table_are_found() {
        type Read = fn(&mut Loader<'_>) -> Result<(), Reported>;
        let cases: [(Read, &[&str]); 6] = [
            (
                |loader| {
                    let _ = loader.setting("a", &["A"]).doc("A.").required(flag());
                    loader.setting("s.b", &[]).doc("B.").with_default("yes", flag()).map(|_| ())
                },
                &[],
            ),
            (
                |loader| {
                    let _ = loader.setting("a", &["A"]).doc("").optional(flag());
                    loader.setting("a", &["B"]).doc("").optional(flag()).map(|_| ())
                },
                &["duplicate name a"],
            ),
            (
                |loader| loader.setting("a", &["CONFIG"]).doc("").optional(flag()).map(|_| ()),
                &["duplicate name CONFIG"],
            ),
            (
                |loader| {
                    let _ = loader.setting("a", &["A"]).doc("").optional(secret(check::secret));
                    loader.setting("a_file", &["A_FILE"]).doc("").optional(flag()).map(|_| ())
                },
                &["duplicate name A_FILE", "duplicate name a_file"],
            ),
            (
                |loader| loader.setting("a", &["A"]).doc("").with_default("perhaps", flag()).map(|_| ()),
                &["invalid default of a: `perhaps` is not a boolean"],
            ),
            (
                |loader| loader.setting("a", &["A"]).doc("This | that.").optional(flag()).map(|_| ()),
                &["a does not fit into a row of the reference"],
            ),
        ];
        for (read, flaws) in cases {
            assert_eq!(flaws_of(read), flaws);
        }
    }
}
