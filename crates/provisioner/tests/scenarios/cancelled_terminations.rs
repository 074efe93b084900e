//! Terminations that are cancelled or fail.

use simulator::Fault;
use simulator::world::{OrderState, ResourceState};

use crate::support::{BASIC, SLURM, Site};

#[test]
fn a_directory_stays_until_waldur_accepts_the_termination() {
    let site = Site::new();
    let made = site.order(BASIC, 0, 10);
    site.apply();
    let path = site.at("/tape/store/cscs/uni/p0");
    std::fs::write(path.join("data"), "precious").unwrap();
    let ended = site.order_end(made.resource);
    site.simulator.set_fault("POST /api/*", Fault::status(500));
    site.run(&["apply"]).exits_with(1).stdout_has("failed (");
    assert!(path.exists() && site.trash(BASIC).is_empty(), "the approval comes before the work");
    assert_eq!(site.states(ended).0, OrderState::PendingProvider);

    site.simulator.clear_faults();
    site.simulator.world(|world| world.cancel(ended.order).unwrap());
    site.apply().stdout_has("0 to do, 0 held");
    assert_eq!(std::fs::read_to_string(path.join("data")).unwrap(), "precious");
    assert_eq!(site.states(ended), (OrderState::Canceled, ResourceState::Ok));
    site.apply().stdout_has("0 to do, 0 held");
}

#[test]
fn a_directory_is_restored_if_its_termination_is_set_erred() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let path = site.at("/capstor/store/cscs/uni/p0");
    let ended = site.order_end(made.resource);
    site.simulator.set_fault("POST /api/*set_state_done/", Fault::status(500));
    site.run(&["apply"]).exits_with(1);
    assert!(!path.exists());
    assert_eq!(site.states(ended).0, OrderState::Executing);

    site.simulator.clear_faults();
    site.simulator.world(|world| world.set_erred(ended.order, "cancelled", "").unwrap());
    site.apply().stdout_has("restore");
    assert!(path.exists() && site.trash(SLURM).is_empty());
    site.apply().stdout_has("0 to do, 0 held");
}

#[test]
fn the_next_pass_reports_a_removal_that_could_not_be_reported() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
    site.apply();
    let ended = made.map(|made| site.order_end(made.resource));
    site.simulator.set_fault_times("POST /api/*set_state_done/", Fault::Reset, 1);
    site.simulator.set_fault_times("POST /api/*approve_by_provider/", Fault::Reset, 2);
    site.run(&["apply"]).exits_with(1);
    site.simulator.clear_faults();
    site.apply();
    for ended in ended {
        assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated));
    }
    assert_eq!((site.trash(SLURM).len(), site.trash(BASIC).len()), (1, 1));
}
