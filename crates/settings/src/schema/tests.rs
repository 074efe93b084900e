use super::*;
use crate::setting::Kind;

const fn row(
    key: &'static str,
    variables: &'static [&'static str],
    preset: Preset,
    doc: &'static str,
) -> Setting<bool> {
    Setting { key, variables, kind: Kind::Flag(|settings, flag| *settings = flag), preset, doc }
}

fn schema(table: &'static [Setting<bool>]) -> Schema<bool> {
    Schema {
        table,
        config_variables: &["CONFIG"],
        reads_dotenv: true,
        prefixes: &[],
        unset: || false,
        rules: |_, _| Vec::new(),
        oddities: |_, _| Vec::new(),
        without_effect: &[],
    }
}

#[test]
fn flaws_of_the_table_are_found() {
    const SECRET: Setting<bool> = Setting {
        key: "a",
        variables: &["A"],
        kind: Kind::Secret(crate::check::secret, |_, _| {}),
        preset: Preset::Absent,
        doc: "",
    };
    let cases: [(&'static [Setting<bool>], &[&str]); 6] = [
        (const { &[row("a", &["A"], Preset::Required, "A."), row("s.b", &[], Preset::Is("yes"), "B.")] }, &[]),
        (
            const { &[row("a", &["A"], Preset::Absent, ""), row("a", &["B"], Preset::Absent, "")] },
            &["duplicate name a"],
        ),
        (const { &[row("a", &["CONFIG"], Preset::Absent, "")] }, &["duplicate name CONFIG"]),
        (
            const { &[SECRET, row("a_file", &["A_FILE"], Preset::Absent, "")] },
            &["duplicate name A_FILE", "duplicate name a_file"],
        ),
        (
            const { &[row("a", &["A"], Preset::IfEmpty("perhaps"), "")] },
            &["invalid preset of a: `perhaps` is not a boolean"],
        ),
        (
            const { &[row("a", &["A"], Preset::Absent, "This | that.")] },
            &["a does not fit into a row of the reference"],
        ),
    ];
    for (table, flaws) in cases {
        assert_eq!(schema(table).flaws(), flaws);
    }
}

#[test]
fn a_remedy_names_the_variable_if_there_is_one() {
    static TABLE: &[Setting<bool>] =
        &[row("s.a", &["A", "OLD_A"], Preset::Absent, ""), row("s.b", &[], Preset::Absent, "")];
    let schema = schema(TABLE);
    assert_eq!(schema.how_to_set("s.a"), "set A, or s.a in the YAML file");
    assert_eq!(schema.how_to_set("s.b"), "give s.b in the YAML file");
}
