use provisioner_report::{self as report, HoldKind, Observed};
use serde_json::json;

use super::super::story::testing::*;
use super::*;

/// Rows that differ in everything that filters see.
fn world() -> Story {
    let changes = [
        json!({}),
        json!({"state": "Creating", "order_in_progress": order("Create", "pending-consumer")}),
        json!({"state": "Erred"}),
        json!({"attributes": {"storage_data_type": "scratch"}, "project_slug": "Astro"}),
        json!({"customer_slug": "elsewhere", "project_slug": "physics"}),
    ];
    let records: Vec<_> = changes.into_iter().enumerate().map(|(number, changes)| record(number, changes)).collect();
    let mut held = reported(3);
    held.hold = Some(hold(HoldKind::Drift, report::Turn::Operator));
    held.usage = Some(report::Amount { bytes: 9 * GIB, inodes: 1 });
    let mut absent = reported(4);
    absent.observed = Observed::Absent;
    absent.usage = None;
    story(&records, vec![received("alpha", vec![reported(0), held, absent])])
}

/// Numbers of the selected resources.
fn selected(query: &str) -> Vec<usize> {
    let story = world();
    let rows = Query::parse(query).select(&story);
    let number = |row: &&Row| (0..5).find(|number| row.id == Some(id(*number))).unwrap();
    rows.iter().map(number).collect()
}

fn selected_in_any_order(query: &str) -> Vec<usize> {
    let mut selected = selected(query);
    selected.sort_unstable();
    selected
}

#[test]
fn filters_combine() {
    for (query, rows) in [
        ("", &[0, 1, 2, 3, 4][..]),
        ("system=capstor", &[0, 1, 2, 3, 4]),
        ("system=vast", &[]),
        ("type=scratch", &[3]),
        ("status=active", &[0, 3, 4]),
        ("state=Erred", &[2]),
        ("hold=any", &[3]),
        ("hold=drift", &[3]),
        ("hold=conflict", &[]),
        ("hold=none", &[0, 1, 2, 4]),
        ("customer=z%C3%BCRICH", &[0, 1, 2, 3]),
        ("turn=customer", &[1]),
        ("turn=nobody", &[0]),
        ("q=astro", &[3]),
        ("q=capstor+PHYSICS", &[4]),
        ("q=astro+physics", &[]),
        ("q=the+reason", &[3]),
        ("status=active&customer=univ", &[0, 3]),
        ("status=active&customer=univ&hold=none", &[0]),
        ("status=active&customer=univ&hold=none&turn=operator", &[]),
        ("system=&type=&status=&state=&hold=&customer=&turn=&q=", &[0, 1, 2, 3, 4]),
        ("state=Erred&state=OK", &[0, 3, 4]),
    ] {
        assert_eq!(selected_in_any_order(query), rows, "{query}");
    }
    let uuid = id(2).to_string();
    assert_eq!(selected(&format!("q={uuid}")), [2]);
}

#[test]
fn unknown_values_select_nothing_and_are_named() {
    for (query, name) in
        [("status=odd", "status"), ("state=ok", "state"), ("hold=x", "hold"), ("turn=x", "turn"), ("sort=x", "sort")]
    {
        assert_eq!(selected(query), [0; 0], "{query}");
        assert_eq!(Query::parse(query).unknown[0].0, name);
    }
}

#[test]
fn rows_are_sorted_and_those_without_a_value_are_last() {
    // Operator, provider, customer, provisioner, nobody.
    assert_eq!(selected(""), [3, 2, 1, 4, 0]);
    assert_eq!(selected("order=desc"), [0, 4, 1, 2, 3]);
    assert_eq!(selected("sort=usage&order=desc")[..2], [3, 0]);
    assert_eq!(selected("sort=usage")[..2], [0, 3]);
    assert_eq!(selected("sort=since")[..2], [3, 1]);
    assert_eq!(selected("sort=since&order=desc")[..2], [1, 3]);
    assert_eq!(*selected("sort=customer").last().unwrap(), 4);
    assert_eq!(*selected("sort=customer&order=desc").last().unwrap(), 4);
    let (up, down) = (selected("sort=path"), selected("sort=path&order=desc"));
    assert!(down.iter().eq(up.iter().rev()), "{up:?} {down:?}");
}

#[test]
fn the_tree_groups_by_place() {
    let story = world();
    let rows = Query::parse("view=tree").select(&story);
    let places: Vec<_> = rows.iter().map(|row| (&row.system, &row.data_type, &row.customer)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_query_survives_its_own_url() {
    let all = "?q=a+%26+b&system=capstor&type=store&status=active&state=OK&hold=drift&customer=Uni%3Dx&turn=operator&sort=usage\
               &order=desc&view=tree&page=3";
    assert_eq!(Query::parse(&all[1..]).to_url(), all);
    assert_eq!(Query::parse("").to_url(), "");
    let query = Query::parse("sort=path");
    assert_eq!(query.sorted_by(Sort::Path).to_url(), "?sort=path&order=desc");
    assert_eq!(query.sorted_by(Sort::Usage).to_url(), "?sort=usage&order=desc");
    assert!(!Query::parse("sort=path&view=tree&page=2").is_filter() && Query::parse("q=x").is_filter());
}

#[test]
fn pages_stay_within_the_list() {
    let rows: Vec<_> = (0..250).collect();
    for (page, shown, first) in [(0, 1, 0), (1, 1, 0), (3, 3, 200), (9, 3, 200), (usize::MAX, 3, 200)] {
        let paging = Paging::new(rows.len(), page);
        assert_eq!((paging.page, paging.pages, paging.of(&rows)[0]), (shown, 3, first));
    }
    assert_eq!(Paging::new(0, 5), Paging { page: 1, pages: 1, total: 0, size: PAGE_SIZE });
    assert_eq!(Query::parse("page=x").page, 1);
}
