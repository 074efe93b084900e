use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::place::Place;

use super::*;
use storage_driver::Mode;

#[test]
fn the_inventory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let driver = Inventory { file: folder.path().join("inventory.json"), lock: Mutex::new(()) };
    let make_unmarked = |place: &Place| {
        let present =
            Present { uid: 0, gid: 0, mode: Mode(0o755), limits: None, project: None, usage: None, acl: None };
        let entry = Entry { place: place.to_string(), mark: None, present, trashed: None };
        let add = |entries: &mut Vec<Entry>| {
            entries.push(entry);
            Ok(true)
        };
        driver.update(&|_| Ok(()), add).unwrap();
    };
    assert_conforms(&Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &make_unmarked });
}
