//! What a test has happen on its own thread: what somebody else does between two system calls, and a call that a file
//! system does not know.

use std::cell::{Cell, RefCell};

use rustix::io::Errno;

/// Between which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A directory was made aside, and is not open yet.
    Made,
    /// A directory was renamed, and was not looked at since.
    Renamed,
    /// All that was seen in a directory is deleted, and the directory is not yet.
    Emptied,
}

type Deed = Box<dyn FnMut(Moment)>;

thread_local! {
    static REFUSAL: Cell<Option<Errno>> = const { Cell::new(None) };
    static NO_HANDLES: Cell<Option<u32>> = const { Cell::new(None) };
    static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

/// Nothing happens any more once this is dropped: the next test may run on the same thread.
#[must_use]
pub(crate) struct Happens;

impl Drop for Happens {
    fn drop(&mut self) {
        DEED.take();
        REFUSAL.take();
        NO_HANDLES.take();
    }
}

/// Has this happen on this thread from now on.
pub(crate) fn happens(deed: impl FnMut(Moment) + 'static) -> Happens {
    DEED.set(Some(Box::new(deed)));
    Happens
}

/// Has renaming without replacing refused on this thread from now on.
pub(crate) fn refused(error: Errno) -> Happens {
    REFUSAL.set(Some(error));
    Happens
}

/// Has the search for marks run out of handles on this thread, once, after it has opened so many directories.
pub(crate) fn no_handle_is_left_after(opened: u32) -> Happens {
    NO_HANDLES.set(Some(opened));
    Happens
}

/// A directory is about to be opened in the search for marks.
pub(crate) fn opening() -> Result<(), Errno> {
    match NO_HANDLES.take() {
        Some(0) => Err(Errno::MFILE),
        left => {
            NO_HANDLES.set(left.map(|left| left - 1));
            Ok(())
        }
    }
}

/// How renaming without replacing is refused.
pub(crate) fn refusal() -> Option<Errno> {
    REFUSAL.get()
}

/// The moment has come.
pub(crate) fn at(moment: Moment) {
    // Taken out meanwhile: what happens may call what has such moments itself.
    if let Some(mut deed) = DEED.take() {
        deed(moment);
        DEED.set(Some(deed));
    }
}
