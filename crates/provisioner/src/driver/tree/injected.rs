//! What a test has happen between two system calls on its own thread: what somebody else does just then.

use std::cell::RefCell;

/// Between which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Moment {
    /// A directory was made aside, and is not open yet.
    Made,
}

type Deed = Box<dyn FnMut(Moment)>;

thread_local! {
    static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

/// Has this happen on this thread from now on.
pub(in crate::driver) fn happens(deed: impl FnMut(Moment) + 'static) {
    DEED.set(Some(Box::new(deed)));
}

/// The moment has come.
pub(in crate::driver) fn at(moment: Moment) {
    // Taken out meanwhile: what happens may call what has such moments itself.
    if let Some(mut deed) = DEED.take() {
        deed(moment);
        DEED.set(Some(deed));
    }
}
