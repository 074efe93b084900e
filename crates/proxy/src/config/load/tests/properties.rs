//! Properties that hold for any input.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_secret_is_shown(secret in "hush[a-z0-9]{12}", whole in any::<bool>(), production in any::<bool>()) {
        let mut site = Site::minimal().set("HPC_USER_DEVELOPMENT_MODE", if production { "false" } else { "true" });
        for row in SCHEMA.table() {
            let value = match row.label {
                "secret URL, or its file" if whole => format!("https://{secret}@sentry.example/1"),
                "secret, or its file" if whole && row.key == "otlp.headers" => format!("authorization=Bearer%20{secret}"),
                "secret, or its file" | "secret URL, or its file" => secret.clone(),
                "URL, shown without credentials" if whole => format!("redis://{secret}:{secret}@host:1/0"),
                "proxy URL" if whole => format!("socks5://{secret}:{secret}@host:1"),
                "URL, shown without credentials" | "proxy URL" => format!("ftp://{secret}:{secret}@host:1"),
                "URL" if !whole => format!("https://u:{secret}@host/"),
                _ => continue,
            };
            site = site.set(row.variables[0], &value);
        }
        if whole {
            site = site.set("WALDUR_API_TOKEN", TOKEN);
        }
        let shown = match site.load() {
            Ok(loaded) => {
                let rows: Vec<_> = loaded.report().map(|(_, value, source)| format!("{value} {source}")).collect();
                format!("{loaded:?} {rows:?}")
            }
            Err(problems) => format!("{problems} {problems:?}"),
        };
        prop_assert!(!shown.contains(&secret) && !shown.contains(TOKEN), "{}", shown);
    }

    #[test]
    fn no_file_makes_it_panic(
        yaml in any::<String>(),
        likely in "((debug|auth|waldur_api|storage_systems|  api_url|  listen|- a|  <<): ?[]\\[{}&*!|>a-z0-9\"':, ]{0,12}\n){0,6}",
        dotenv in any::<String>(),
    ) {
        let site = Site::minimal().yaml(&yaml).dotenv(&dotenv);
        let _ = site.load();
        let _ = site.yaml(&likely).load();
    }

    #[test]
    fn no_variable_makes_it_panic(values in proptest::collection::vec(any::<String>(), SCHEMA.table().len())) {
        let table = SCHEMA.table();
        let site = table.iter().zip(&values).fold(Site::empty(), |site, (row, value)| site.set(row.variables[0], value));
        let _ = site.load();
    }
}
