//! Kills at random moments, which do not change the outcome.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::{BASIC, Ordered, SLURM, Site};

/// Rounds for each kind of order.
const ROUNDS: usize = 7;

/// Pseudorandom numbers, the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The kind of order of a round.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Make,
    Grow,
    End,
}

/// Places orders, runs `pass` after each, and a complete pass after each kind.
fn play(site: &Site, mut pass: impl FnMut(&Site)) -> Vec<Ordered> {
    let (mut made, mut orders) = (Vec::<Ordered>::new(), Vec::new());
    for kind in [Kind::Make, Kind::Grow, Kind::End] {
        for round in 0..ROUNDS {
            let ordered = match kind {
                Kind::Make => site.order([SLURM, BASIC][round % 2], round, 10),
                Kind::Grow => site.order_size(made[round].resource, 20),
                Kind::End if round.is_multiple_of(3) => continue,
                Kind::End => site.order_end(made[round].resource),
            };
            if matches!(kind, Kind::Make) {
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
fn kills_do_not_change_the_outcome() {
    let (calm, killed) = (Site::new(), Site::new());
    let expected = play(&calm, |_| {});
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut within = 0;
    let orders = play(&killed, |site| {
        let before = count(site, "begun");
        let mut apply = site.spawn(&["apply"]);
        // Every second delay starts when work begins, because the time until then depends on the machine.
        let moment = if random.below(2) == 0 {
            while count(site, "begun") == before && apply.child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            random.below(14_000)
        } else {
            random.below(60_000)
        };
        std::thread::sleep(Duration::from_micros(moment));
        apply.child.kill().unwrap();
        apply.child.wait().unwrap();
        apply.output();
        within += usize::from(count(site, "begun") > before && count(site, "begun") > count(site, "ended"));
    });
    assert!(within > 2, "only {within} kills interrupted work");
    for (expected, order) in expected.iter().zip(&orders) {
        assert_eq!(calm.states(*expected), killed.states(*order));
        assert_eq!(calm.backend_id(expected.resource), killed.backend_id(order.resource));
    }
    assert_eq!(tree(&calm), tree(&killed));
    assert!(!tree(&killed).keys().any(|name| name.contains(".new-")));
    let calls = |site: &Site, end: &str| site.calls().iter().filter(|path| path.ends_with(end)).count();
    assert!(calls(&killed, "set_state_erred/") + calls(&killed, "reject_by_provider/") == 0);
    killed.apply().stdout_has("0 to do, 0 held");
    killed.run(&["check"]).exits_with(0).stdout_has("a journal of");
}

/// The number of lines of the journal with this event.
fn count(site: &Site, event: &str) -> usize {
    let journal = std::fs::read_to_string(site.state("journal")).unwrap_or_default();
    journal.matches(&format!("\"event\":\"{event}\"")).count()
}

/// Every path with its mode, without the time in the names of the trash.
pub(crate) fn tree(site: &Site) -> BTreeMap<String, u32> {
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
        walk(&site.root(system), &site.at("/"), &mut found);
    }
    found
}
