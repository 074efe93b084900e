# Recipes for daily work; CONTRIBUTING.md has the plain commands. Lists the recipes.
[private]
default:
    @{{ just_executable() }} --list

# Format, lints and unit tests: after every small edit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --lib --bins --locked --quiet

# Tests of one crate: `just test hpc-storage-proxy --lib tokens`
test CRATE *ARGUMENTS:
    cargo test --package {{ CRATE }} --locked {{ ARGUMENTS }}

# Regenerates every generated document
docs:
    UPDATE_DOCUMENTS=1 cargo test --package hpc-storage-proxy --package hpc-storage-provisioner --locked generated_documents

# Everything that the continuous integration runs (or these steps of it)
full *STEPS:
    bash .ci/run {{ STEPS }}

# Builds a release into target/release-VERSION: `just release 1.0.0`
release VERSION *ARGUMENTS:
    packaging/release {{ VERSION }} {{ ARGUMENTS }}
