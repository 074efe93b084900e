//! `status`: what is held, in the trash, and unfinished.

use std::collections::BTreeMap;

use program::error_chain;
use serde_json::json;

use super::out::{self, Page};
use super::{Failure, orphans, plans};
use crate::pass;
use crate::provisioner::Provisioner;

pub(super) fn status(
    provisioner: &Provisioner,
    orphans: bool,
    json: bool,
    plans::Limit { limit }: plans::Limit,
    fresh: bool,
) -> Result<(), Failure> {
    let (survey, notes) = provisioner.look(fresh)?;
    if orphans {
        out::notes(&notes);
        orphans::show(provisioner, &survey.document, json)?;
        return orphans::empty(provisioner, &survey);
    }
    let plan = pass::planned(&survey, provisioner.settings.policy, false);
    let mut counts = BTreeMap::new();
    for held in &plan.held {
        *counts.entry(held.hold).or_insert(0_usize) += 1;
    }
    let trash: BTreeMap<_, _> = provisioner
        .systems
        .iter()
        .map(|system| {
            (system.key.as_str(), system.driver.trash().map(|trash| trash.len()).map_err(|fault| error_chain(&fault)))
        })
        .collect();
    let begun = survey.cases.iter().filter(|case| case.unfinished).count();
    if json {
        let trash: BTreeMap<_, _> = trash.iter().map(|(system, count)| (system, count.as_ref().ok())).collect();
        out::print_json(&json!({
            "resources": survey.cases.len(), "to_do": plan.tasks.len(), "held": counts, "in_trash": trash, "begun": begun,
            "notes": notes, "reasons": plan.held,
        }))?;
        return orphans::empty(provisioner, &survey);
    }
    let mut page = Page::new();
    if plans::groups(&mut page, plans::held(&plan, &provisioner.systems), limit) {
        page.line(0, "Some are not shown: --limit 0 shows all.");
    }
    page.labelled("resources", &survey.cases.len().to_string());
    page.labelled("to do", &plan.tasks.len().to_string());
    page.labelled("begun", &begun.to_string());
    for (hold, count) in counts {
        page.labelled(hold.name(), &count.to_string());
    }
    for (system, count) in trash {
        let count = count.map_or_else(|fault| fault, |count| count.to_string());
        page.labelled("trash", &format!("{count} on {system}"));
    }
    out::notes(&notes);
    page.print()?;
    orphans::empty(provisioner, &survey)
}
