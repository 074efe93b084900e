//! Replays the corpus, and mutations of it, without libFuzzer: for CI, and for machines without libFuzzer.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// The seed inputs of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "the corpus of {target} is missing");
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A mutation: position, number of bytes to remove, and what to insert: noise, or a part of another input.
type Edit = (Index, usize, Result<Vec<u8>, (Index, Index, usize)>);

fn edited(seeds: &[Vec<u8>], seed: Index, edits: Vec<Edit>) -> Vec<u8> {
    let mut data = seed.get(seeds).clone();
    for (at, length, by) in edits {
        let piece = by.unwrap_or_else(|(other, from, length)| {
            let other = other.get(seeds);
            let from = from.index(other.len() + 1);
            other[from..other.len().min(from + length)].to_vec()
        });
        let at = at.index(data.len() + 1);
        let end = data.len().min(at + length);
        data.splice(at..end, piece);
    }
    data
}

fn replay(target: &str, cases: u32, check: fn(&[u8])) {
    let seeds = seeds(target);
    check(b"");
    seeds.iter().for_each(|seed| check(seed));
    let piece =
        prop_oneof![vec(any::<u8>(), 0..4).prop_map(Ok), (any::<Index>(), any::<Index>(), 0..80_usize).prop_map(Err),];
    let edits = vec((any::<Index>(), 0..8_usize, piece), 0..6);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    proptest!(config, |(seed: Index, edits in edits)| check(&edited(&seeds, seed, edits)));
}

#[test]
fn records() {
    replay("records", 300, fuzz::records::check);
}

#[test]
fn query() {
    replay("query", 2000, fuzz::query::check);
}

#[test]
fn answers() {
    replay("answers", 2000, fuzz::answers::check);
}

#[test]
fn token() {
    assert!(fuzz::token::TOKENS.iter().all(|token| fuzz::token::admitted(token.as_bytes()).is_some()));
    replay("token", 2000, fuzz::token::check);
}

#[test]
fn settings() {
    fuzz::settings::load_from(b"").expect("the minimum is valid");
    replay("settings", 2000, fuzz::settings::check);
}
