//! What a test has happen between two system calls on its own thread: what somebody else does just then.

use std::cell::RefCell;

/// Between which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Moment {
    /// A directory was made aside, and is not open yet.
    Made,
    /// A directory was renamed, and was not looked at since.
    Renamed,
}

type Deed = Box<dyn FnMut(Moment)>;

thread_local! {
    static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

/// Nothing happens any more once this is dropped: the next test may run on the same thread.
#[must_use]
pub(in crate::driver) struct Happens;

impl Drop for Happens {
    fn drop(&mut self) {
        DEED.take();
    }
}

/// Has this happen on this thread from now on.
pub(in crate::driver) fn happens(deed: impl FnMut(Moment) + 'static) -> Happens {
    DEED.set(Some(Box::new(deed)));
    Happens
}

/// The moment has come.
pub(in crate::driver) fn at(moment: Moment) {
    // Taken out meanwhile: what happens may call what has such moments itself.
    if let Some(mut deed) = DEED.take() {
        deed(moment);
        DEED.set(Some(deed));
    }
}
