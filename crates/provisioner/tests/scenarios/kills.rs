//! Killed at any moment, and at the same end.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::{BASIC, Ordered, SLURM, Site};

/// Rounds for each kind of order.
const ROUNDS: usize = 7;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a customer orders, round by round.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Make,
    Grow,
    End,
}

/// Orders, a pass for each of them that may be killed, and a whole pass after all.
fn play(site: &Site, mut pass: impl FnMut(&Site)) -> Vec<Ordered> {
    let (mut made, mut orders) = (Vec::<Ordered>::new(), Vec::new());
    for wish in [Wish::Make, Wish::Grow, Wish::End] {
        for round in 0..ROUNDS {
            let ordered = match wish {
                Wish::Make => site.order([SLURM, BASIC][round % 2], round, 10),
                Wish::Grow => site.order_size(made[round].resource, 20),
                Wish::End if round.is_multiple_of(3) => continue,
                Wish::End => site.order_end(made[round].resource),
            };
            if matches!(wish, Wish::Make) {
                made.push(ordered);
            }
            orders.push(ordered);
            pass(site);
        }
        site.apply();
    }
    orders
}

#[test]
fn the_end_is_the_same_as_without_being_killed() {
    let (calm, killed) = (Site::new(), Site::new());
    let expected = play(&calm, |_| {});
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut within = 0;
    let orders = play(&killed, |site| {
        let before = count(site, "begun");
        let mut apply = site.spawn(&["apply"]);
        // Every other one from the moment at which work begins: how long that takes is the machine's affair.
        let moment = if dice.below(2) == 0 {
            while count(site, "begun") == before && apply.child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            dice.below(14_000)
        } else {
            dice.below(60_000)
        };
        std::thread::sleep(Duration::from_micros(moment));
        apply.child.kill().unwrap();
        apply.child.wait().unwrap();
        apply.said();
        within += usize::from(count(site, "begun") > before && count(site, "begun") > count(site, "ended"));
    });
    assert!(within > 2, "only {within} kills fell into work");
    for (expected, order) in expected.iter().zip(&orders) {
        assert_eq!(calm.states(*expected), killed.states(*order));
        assert_eq!(calm.backend_id(expected.resource), killed.backend_id(order.resource));
    }
    assert_eq!(tree(&calm), tree(&killed));
    assert!(!tree(&killed).keys().any(|name| name.contains(".new-")));
    let calls = |site: &Site, end: &str| site.calls().iter().filter(|path| path.ends_with(end)).count();
    assert!(calls(&killed, "set_state_erred/") + calls(&killed, "reject_by_provider/") == 0);
    killed.apply().says("0 to do, 0 held");
    killed.run(&["check"]).ends_with(0).says("a journal of");
}

/// How many lines of the journal say this.
fn count(site: &Site, event: &str) -> usize {
    let journal = std::fs::read_to_string(site.state("journal")).unwrap_or_default();
    journal.matches(&format!("\"event\":\"{event}\"")).count()
}

/// Every directory with its mode, without the moment in the names of the trash.
fn tree(site: &Site) -> BTreeMap<String, u32> {
    fn walk(directory: &Path, base: &Path, found: &mut BTreeMap<String, u32>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path.strip_prefix(base).unwrap().to_str().unwrap();
            let name = if name.contains("/.trash/") { name.rsplit_once('.').unwrap().0 } else { name };
            found.insert(name.to_owned(), entry.metadata().unwrap().permissions().mode());
            if entry.file_type().unwrap().is_dir() {
                walk(&path, base, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    for system in [SLURM, BASIC] {
        walk(&site.root(system), site.directory.path(), &mut found);
    }
    found
}
