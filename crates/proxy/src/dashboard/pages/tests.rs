use std::collections::HashMap;
use std::sync::Arc;

use maud::Markup;
use provisioner_report::{self as report, Amount, Change, Event, HoldKind, Rejected, TaskState, Trashed};
use serde_json::{Value, json};
use time::Duration;

use super::super::export;
use super::super::filter::{self, PAGE_SIZE};
use super::super::health;
use super::super::story::testing::*;
use super::super::story::{self, Story};
use super::*;
use crate::reports::{Received, Sample};
use crate::testing::policy;

fn view(story: &Story) -> View<'_> {
    View {
        frame: Frame { root: "/below", username: Some("alice"), open_to_all: false },
        story,
        now: now(),
        waldur: "https://waldur.example.org/",
        read_at: Some(now() - Duration::seconds(3)),
    }
}

/// All pages of a story, with names for messages.
fn pages(story: &Story) -> Vec<(String, String)> {
    let view = view(story);
    let page = |name: &str, page: Markup| (name.to_owned(), page.into_string());
    let mut pages = vec![
        page("now", now::page(&view, &health::of_story(story, view.now))),
        page("resources", resources::page(&view, &filter::Query::parse(""))),
        page("tree", resources::page(&view, &filter::Query::parse("view=tree"))),
        page("changes", changes::page(&view, &changes::Query::parse(""))),
        page("trash", trash::page(&view, trash::Query::parse(""))),
    ];
    pages.extend(story.rows.iter().take(20).map(|row| page(&name(row), resource::page(&view, row))));
    pages
}

fn resources_page(story: &Story, query: &str) -> String {
    resources::page(&view(story), &filter::Query::parse(query)).into_string()
}

/// A world in which everything is shown.
fn full(text: &str) -> (Vec<Value>, Vec<Received>) {
    let records = vec![
        record(0, json!({"slug": text, "backend_id": text})),
        record(
            1,
            json!({"slug": text, "state": "Updating", "order_in_progress": order(text, text), "backend_id": text}),
        ),
        record(2, json!({"slug": text, "project_slug": "unknown"})),
        record(3, json!({"slug": text, "limits": {"storage": "much"}})),
        record(4, json!({"state": "Terminated"})),
        record(5, json!({})),
        record(6, json!({"attributes": {"storage_data_type": text.replace(['/', '\0'], "")}})),
    ];
    let changes = || vec![Change { what: text.into(), old: text.into(), new: text.into() }];
    let everything = |number, kind: Option<HoldKind>| {
        let mut it = reported(number);
        it.detail = text.into();
        it.history = vec![Event { at: ago(1), text: text.into() }];
        it.hold = kind.map(|kind| report::Hold {
            reason: text.into(),
            changes: changes(),
            commands: vec![text.into(), text.into()],
            ..hold(kind, report::Turn::Operator)
        });
        it.task = kind.is_none().then(|| report::Task {
            action: text.into(),
            why: text.into(),
            steps: vec![text.into()],
            changes: changes(),
            error: Some(text.into()),
            ..task(TaskState::Failed)
        });
        it
    };
    let mut orphan = everything(9, Some(HoldKind::Conflict));
    orphan.path = text.into();
    let resources =
        vec![everything(0, Some(HoldKind::Asks)), everything(1, None), everything(5, Some(HoldKind::Drift)), orphan];
    let mut alpha = received("alpha", resources);
    alpha.report.program = text.into();
    alpha.report.pass.error = Some(text.into());
    alpha.report.systems[0].error = Some(text.into());
    alpha.report.systems.push(report::System {
        name: text.into(),
        error: Some(text.into()),
        ..alpha.report.systems[0].clone()
    });
    alpha.report.rejected = vec![Rejected { id: Some(id(6)), reason: text.into() }];
    alpha.report.trash = vec![Trashed {
        id: id(4),
        system: text.into(),
        since: ago(9),
        expires: None,
        usage: Some(Amount { bytes: 1, inodes: 1 }),
    }];
    let sample = |hours, bytes| {
        Arc::new(Sample { at: ago(hours), usage: HashMap::from([(id(0), Amount { bytes, inodes: 1 })]) })
    };
    alpha.samples = vec![sample(9, 3 * GIB), sample(5, 4 * GIB), sample(1, 5 * GIB)];
    (records, vec![alpha])
}

fn full_story(text: &str) -> Story {
    let (records, reports) = full(text);
    let reports: Vec<_> = reports.into_iter().map(Arc::new).collect();
    story::join(Some(&snapshot_of(&records, text)), &policy(), &reports, now())
}

/// The values of an attribute.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    page.split(&start).skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
}

#[test]
fn every_page_has_the_structure_that_keyboards_and_screen_readers_need() {
    for (name, page) in pages(&full_story("plain")) {
        let count = |text: &str| page.matches(text).count();
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{name}");
        assert_eq!((count("<h1"), count("<main"), count("<title>"), count(" href=\"#main\"")), (1, 1, 1, 1), "{name}");
        // Headings do not skip levels.
        let levels: Vec<u32> = page.split("<h").skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10)).collect();
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{name}: {levels:?}");
        assert_eq!(count("<table"), count("<caption"), "{name}");
        assert_eq!(count("<table"), count("role=\"region\""), "{name}");
        assert!(
            page.split("<th").skip(1).filter(|rest| !rest.starts_with("ead")).all(|rest| rest
                .split_once('>')
                .unwrap()
                .0
                .contains("scope=")),
            "{name}"
        );
        assert_eq!(attributes(&page, "aria-current").len(), 1, "{name}");
        for tag in page.split('<') {
            let names = ["class", "id", "scope", "href"]
                .map(|attribute| attributes(tag.split('>').next().unwrap(), attribute).len());
            assert!(names.into_iter().all(|count| count < 2), "{name}: {tag}");
        }
        // Every control has a label, and every reference its target.
        let ids = attributes(&page, "id");
        for control in page.split(['<']).filter(|tag| tag.starts_with("input") || tag.starts_with("select")) {
            let id = attributes(control, "id").first().copied();
            let labelled = id.is_some_and(|id| attributes(&page, "for").contains(&id));
            assert!(labelled || control.contains("type=\"hidden\""), "{name}: {control}");
        }
        for target in ["for", "aria-labelledby", "list"].map(|it| attributes(&page, it)).into_iter().flatten() {
            assert!(ids.contains(&target), "{name}: {target}");
        }
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{name}: {ids:?}");
    }
}

#[test]
fn pages_have_no_scripts_and_no_inline_styles_and_stay_on_this_server() {
    for (name, page) in pages(&full_story("plain")) {
        for forbidden in ["<script", " style=", "<style", "javascript:", " onclick=", " onload="] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
        let of_waldur = |link: &&str| link.starts_with("https://waldur.example.org/");
        let links = ["href", "src", "action"].map(|it| attributes(&page, it)).concat();
        assert!(
            links.iter().all(|link| link.starts_with("/below/") || link.starts_with('#') || of_waldur(link)),
            "{name}: {links:?}"
        );
    }
}

#[test]
fn hostile_text_stays_text_in_every_field() {
    let markup = "</bdi></code><script>alert(1)</script>\"' onload='x'&amp;";
    let long: String = "W".repeat(255);
    for text in [markup, "\u{202e}txt.exe", "two\nlines\r\n\t\0", &long, "=cmd|'/C calc'!A1", "שלום עולם"] {
        for (name, page) in pages(&full_story(text)) {
            // Attributes are in double quotes, so single ones need no escape.
            assert!(!page.contains("<script") && !page.contains("\"' onload"), "{name}: {text:?}");
            let is_invisible = |letter: char| letter == '\u{202e}' || letter.is_control();
            // Values of forms must stay what they are.
            let shown = page.split('<').filter_map(|tag| Some(tag.split_once('>')?.1)).collect::<String>();
            assert!(!shown.contains(is_invisible), "{name}: {text:?}");
            let tags = |tag: &str| page.matches(&format!("<{tag}>")).count();
            assert_eq!(tags("bdi"), page.matches("</bdi>").count(), "{name}: {text:?}");
            assert_eq!(page.matches("<tr").count(), page.matches("</tr>").count(), "{name}: {text:?}");
        }
    }
    let shown = resources_page(&full_story(markup), "");
    assert!(shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{shown}");
    // What a person typed is shown again, as text.
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("q", markup)
        .append_pair("status", markup)
        .finish();
    let echoed = resources_page(&full_story("plain"), &query);
    assert!(echoed.contains("value=\"&lt;/bdi&gt;") && !echoed.contains("<script"), "{echoed}");
}

#[test]
fn now_names_whose_turn_it_is_and_links_to_the_selection() {
    let records = [
        record(0, json!({})),
        record(1, json!({"state": "Creating", "order_in_progress": order("Create", "pending-consumer")})),
        record(2, json!({"project_slug": "unknown"})),
    ];
    let story = story(&records, vec![received("alpha", vec![reported(0)])]);
    let page = now::page(&view(&story), &health::of_story(&story, now())).into_string();
    for text in [
        "<strong>2</strong> of 3 resources wait for somebody, the longest ",
        "href=\"/below/ui/resources?turn=customer\"><span class=\"number\">1</span> <span class=\"who\">Customer<",
        "href=\"/below/ui/resources?turn=identity\"",
        "<bdi>Provisioner alpha</bdi>",
        "datetime=\"2027-01-15T06:00:00Z\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("?turn=operator"), "{page}");
    assert!(!page.contains("Does not work"), "{page}");
    let mut failed = received("alpha", vec![reported(0)]);
    failed.report.pass.error = Some("no route".into());
    let broken = self::story(&records, vec![failed]);
    let line = health::of_story(&broken, now()).remove(0);
    assert!(line.at.is_none() && line.text.starts_with("its last pass failed 5 min ago"), "{line:?}");
    let page = now::page(&view(&broken), &health::of_story(&broken, now())).into_string();
    let above = page.find("Does not work:</span> <bdi>Provisioner alpha</bdi>").expect("it is named");
    assert!(above < page.find("Whose turn it is").unwrap(), "{page}");
    let empty = Story::default();
    let unread = View { read_at: None, ..view(&empty) };
    assert!(now::page(&unread, &[]).into_string().contains("Waldur has not been read yet, so nothing is known"));
}

#[test]
fn health_has_a_line_for_each_provisioner_and_system() {
    let lines = |reports: Vec<Received>| {
        let story = story(&[], reports);
        let lines = health::of_story(&story, now());
        lines.into_iter().map(|line| format!("{}: {}, {}", line.what, line.level.name(), line.text)).collect::<Vec<_>>()
    };
    assert_eq!(lines(Vec::new()), ["Storage system capstor: Needs a look, nobody reports about it"]);
    let alpha = || received("alpha", vec![reported(0)]);
    let good = lines(vec![alpha()]);
    assert_eq!(
        good[0],
        "Provisioner alpha: Works, hpc-storage-provisioner 1.0.0: 1 resource, nothing held; the last pass took 1.5 s"
    );
    assert_eq!(good[1], "Storage system capstor: Works, alpha reports about it");
    let silent = Received { received_at: ago(3), ..alpha() };
    let silent = lines(vec![silent]);
    assert_eq!(silent[0], "Provisioner alpha: Does not work, silent: its report is 2 h overdue");
    assert!(silent[1].contains("Needs a look, alpha is silent"), "{silent:?}");
    let both = lines(vec![alpha(), received("beta", Vec::new())]);
    assert!(both[2].contains("Does not work, ") && both[2].contains("stop all but one"), "{both:?}");
}

#[test]
fn exports_select_the_same_as_the_table() {
    let story = full_story("plain");
    for query in ["", "hold=any", "status=active", "q=plain&turn=operator", "q=nothing", "status=odd"] {
        let rows = filter::Query::parse(query).select(&story);
        let json: Vec<Value> = serde_json::from_str(&export::json(&rows).unwrap()).unwrap();
        let ids: Vec<_> = json.iter().filter_map(|row| row["id"].as_str()).collect();
        let csv = export::csv(&rows);
        assert_eq!(csv.matches("\r\n").count(), json.len() + 1, "{query}");
        let in_csv = csv
            .split("\r\n")
            .skip(1)
            .filter(|line| !line.is_empty())
            .map(|line| line.split(',').next().unwrap().trim_matches('"'));
        assert!(in_csv.eq(ids.iter().copied()), "{query}");
        let page = resources_page(&story, query);
        let shown = attributes(&page, "href").into_iter().filter_map(|link| link.strip_prefix("/below/ui/resources/"));
        assert!(shown.eq(ids.iter().copied()), "{query}");
        assert_eq!(json.len(), rows.len());
    }
    let page = resources_page(&story, "hold=any&sort=path&page=1");
    assert!(page.contains("href=\"/below/ui/resources.csv?hold=any&amp;sort=path\""), "{page}");
}

#[test]
fn csv_runs_no_formula_and_breaks_no_line() {
    for (text, cell) in [
        ("=1+1", "\"'=1+1\""),
        ("\u{200b} =1", "\"'\u{200b} =1\""),
        // Columns are separated by semicolons in some countries.
        ("a;=1+1; \"-2;b", "\"a;'=1+1;' \"\"-2;b\""),
        ("a\n@x\nb", "\"a\n'@x\nb\""),
        ("+1", "\"'+1\""),
        ("-1", "\"'-1\""),
        ("@SUM(A1)", "\"'@SUM(A1)\""),
        ("\t=1", "\"'\t'=1\""),
        (" =1", "\"' =1\""),
        ("＝1", "\"'＝1\""),
        ("a\"b,c\nd", "\"a\"\"b,c\nd\""),
        ("plain", "\"plain\""),
    ] {
        let mut row = super::Row::default();
        row.slug = text.into();
        let csv = export::csv(&[&row]);
        assert!(csv.contains(&format!(",{cell},")), "{text:?}: {csv}");
        let json: Vec<Value> = serde_json::from_str(&export::json(&[&row]).unwrap()).unwrap();
        assert_eq!(json[0]["slug"], text);
    }
}

#[test]
fn headers_sort_and_say_how_the_table_is_sorted() {
    let story = full_story("plain");
    let page = resources_page(&story, "sort=path&q=plain");
    assert!(page.contains("<th scope=\"col\" aria-sort=\"ascending\"><a href=\"/below/ui/resources?q=plain&amp;sort=path&amp;order=desc\">Resource"), "{page}");
    assert_eq!(attributes(&page, "aria-sort"), ["ascending"]);
    // A new selection keeps the order.
    assert!(page.contains("<input type=\"hidden\" name=\"sort\" value=\"path\">"), "{page}");
    let tree = resources_page(&story, "view=tree");
    assert!(tree.contains("scope=\"rowgroup\"") && !page.contains("scope=\"rowgroup\""));
}

#[test]
fn one_resource_shows_why_and_what_to_do() {
    let mut held = reported(0);
    held.hold = Some(report::Hold {
        changes: vec![Change { what: "mode".into(), old: "700".into(), new: "775".into() }],
        ..hold(HoldKind::Drift, report::Turn::Operator)
    });
    held.history = vec![Event { at: ago(2), text: "created".into() }];
    let story = story(
        &[record(0, json!({"order_in_progress": order("Update", "executing"), "state": "Updating"}))],
        vec![received("alpha", vec![held])],
    );
    let page = resource::page(&view(&story), &story.rows[0]).into_string();
    for text in [
        "<h1 class=\"path\"><bdi>/capstor/<wbr>store/<wbr>provider/<wbr>uni/<wbr>p0</bdi></h1>",
        "Whose turn: <span class=\"turn operator\">Operator</span>",
        "<code><bdi>hpc-storage-provisioner adopt x</bdi></code>",
        "href=\"https://waldur.example.org/resource-details/00000000000000000000000000001000/\"",
        "<bdi>Update</bdi>, <bdi>executing</bdi>",
        "4.66 GiB",
        "<td data-label=\"Now\"><bdi>700</bdi></td><td data-label=\"Wanted\"><bdi>775</bdi></td>",
        "<bdi>created</bdi>",
    ] {
        let text = text.replace("4.66 GiB", "5.37 GB of 10.7 GB (50 %)");
        assert!(page.contains(&text), "{text}: {page}");
    }
}

#[test]
fn the_reason_of_a_skipped_resource_is_not_repeated() {
    let mut alpha = received("alpha", Vec::new());
    alpha.report.rejected =
        vec![Rejected { id: Some(id(0)), reason: "skipped by the proxy: MissingIdentityError".into() }];
    let story = story(&[record(0, json!({"project_slug": "unknown"}))], vec![alpha]);
    let page = resource::page(&view(&story), story.find(id(0)).unwrap()).into_string();
    assert!(page.contains("has no Unix GID") && !page.contains("MissingIdentityError"), "{page}");
}

#[test]
fn changes_show_what_asks_first() {
    let change = |new: &str| vec![Change { what: "quota".into(), old: "10 TB".into(), new: new.into() }];
    let resources = [
        (0, None, Some(TaskState::Due)),
        (1, Some(HoldKind::Asks), None),
        (2, Some(HoldKind::Drift), None),
        (3, None, Some(TaskState::Failed)),
        (4, None, Some(TaskState::Done)),
        (5, None, None),
    ];
    let resources = resources.map(|(number, held, work)| {
        let mut it = reported(number);
        it.hold = held.map(|kind| report::Hold { changes: change("20 TB"), ..hold(kind, report::Turn::Operator) });
        it.task = work.map(|state| report::Task { changes: change("30 TB"), ..task(state) });
        it
    });
    let records: Vec<_> = (0..6).map(|number| record(number, json!({}))).collect();
    let story = story(&records, vec![received("alpha", resources.into())]);
    let shown = |query: &str| {
        let page = changes::page(&view(&story), &changes::Query::parse(query)).into_string();
        let rows = attributes(&page, "href").into_iter().filter_map(|link| link.strip_prefix("/below/ui/resources/"));
        let number = |shown: &str| (0..6).find(|number| id(*number).to_string() == shown).unwrap();
        (rows.map(number).collect::<Vec<_>>(), page.clone())
    };
    let (rows, page) = shown("");
    assert_eq!(rows, [1, 3, 0, 2]);
    for text in [
        "The next pass changes <strong>2 resources</strong>. <strong>1 change asks</strong> for confirmation.",
        "<del><bdi>10 TB</bdi></del><span class=\"muted\"> → </span><ins><bdi>20 TB</bdi></ins>",
        "href=\"/below/ui/changes?system=capstor&amp;what=asks\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(shown("what=due").0, [0]);
    assert_eq!(shown("system=vast").0, [0; 0]);
    assert_eq!(shown("system=capstor&what=stays").0, [2]);
}

#[test]
fn the_trash_the_full_and_the_totals_are_shown() {
    let mut nearly_full = reported(0);
    nearly_full.usage = Some(Amount { bytes: 19 * GIB / 2, inodes: 1 });
    let mut alpha = received("alpha", vec![nearly_full, reported(1)]);
    alpha.report.trash = vec![Trashed {
        id: id(1),
        system: "capstor".into(),
        since: ago(24),
        expires: Some(ago(-48)),
        usage: Some(Amount { bytes: 2 * GIB, inodes: 1 }),
    }];
    let story = story(&[record(0, json!({})), record(1, json!({"state": "Terminated"}))], vec![alpha]);
    let page = trash::page(&view(&story), trash::Query::parse("")).into_string();
    for text in [
        "<strong>1 directory</strong> in the trash, the next one can be purged ",
        "in 2 days",
        "<strong>1 resource</strong> is above 90 % or will be full within 30 days.",
        "10.2 GB of 10.7 GB (95 %)",
        // Both resources of the customer, and its trash.
        "15.6 GB of 21.5 GB (72 %)",
        "2.15 GB",
        "href=\"/below/ui/resources?system=capstor&amp;customer=University+of+Z%C3%BCrich\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

/// The largest pages at 10,000 resources, all of which wait and have much to say.
#[test]
fn pages_stay_small_at_ten_thousand_resources() {
    let count = 10_000;
    let records: Vec<_> = (0..count)
        .map(|number| record(number, json!({"project_slug": format!("a-project-with-a-usual-name-{number}")})))
        .collect();
    let resources = (0..count).map(|number| {
        let mut it = reported(number);
        it.usage = Some(Amount { bytes: 10 * GIB - GIB / 3, inodes: 9_500 });
        let kind = if number % 2 == 0 { HoldKind::Asks } else { HoldKind::Drift };
        it.hold = Some(report::Hold {
            reason: "quota, mode and owner differ from the document; `drift.heal` corrects it, and this reason is longer than most".into(),
            changes: ["quota", "mode", "owner"].map(|what| Change { what: what.into(), old: "10 TB, 1000000 inodes".into(), new: "20 TB, 2000000 inodes".into() }).into(),
            ..hold(kind, report::Turn::Operator)
        });
        it
    });
    let mut alpha = received("alpha", resources.collect());
    alpha.report.trash = (0..count)
        .map(|number| Trashed {
            id: id(number),
            system: "capstor".into(),
            since: ago(5),
            expires: Some(ago(-5)),
            usage: Some(Amount { bytes: GIB / 3, inodes: 1 }),
        })
        .collect();
    let usage = (0..count).map(|number| (id(number), Amount { bytes: 9 * GIB, inodes: 9_000 })).collect();
    alpha.samples = vec![Arc::new(Sample { at: ago(2), usage })];
    let mut story = story(&records, vec![alpha]);
    for (number, row) in story.rows.iter_mut().enumerate() {
        row.customer = format!("A customer with a usual name, {}", number / 5);
    }
    let view = view(&story);
    let pages = [
        ("now", now::page(&view, &health::of_story(&story, now()))),
        ("resources", resources::page(&view, &filter::Query::parse("page=50"))),
        ("tree", resources::page(&view, &filter::Query::parse("view=tree&page=50"))),
        ("changes", changes::page(&view, &changes::Query::parse("page=50"))),
        ("trash", trash::page(&view, trash::Query::parse("trash=50&full=50&totals=20"))),
    ];
    for (name, page) in pages {
        let size = page.into_string().len();
        assert!(size < 200_000, "{name}: {size} bytes");
    }
    assert_eq!(
        attributes(&resources_page(&story, "page=100"), "href")
            .into_iter()
            .filter(|link| link.starts_with("/below/ui/resources/"))
            .count(),
        PAGE_SIZE
    );
}
