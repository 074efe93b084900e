//! Test hooks for the current thread: actions of other users between two system calls, and failing system calls.

use std::cell::{Cell, RefCell};

use rustix::io::Errno;

/// A point between two system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A directory was created under a temporary name, but not opened yet.
    Created,
    /// A directory was renamed, but not checked yet.
    Renamed,
    /// The listed content of a directory was deleted, but not yet the directory.
    Emptied,
}

type Action = Box<dyn FnMut(Moment)>;

thread_local! {
    static RENAME_ERROR: Cell<Option<Errno>> = const { Cell::new(None) };
    static NO_HANDLES: Cell<Option<u32>> = const { Cell::new(None) };
    static ACTION: RefCell<Option<Action>> = const { RefCell::new(None) };
}

/// Removes all hooks when dropped, since the next test can run on the same thread.
#[must_use]
pub(crate) struct Hook;

impl Drop for Hook {
    fn drop(&mut self) {
        ACTION.take();
        RENAME_ERROR.take();
        NO_HANDLES.take();
    }
}

/// Runs this action at each moment on this thread.
pub(crate) fn on_each_moment(action: impl FnMut(Moment) + 'static) -> Hook {
    ACTION.set(Some(Box::new(action)));
    Hook
}

/// Makes renames without replacing fail with this error on this thread.
pub(crate) fn refuse_renames(error: Errno) -> Hook {
    RENAME_ERROR.set(Some(error));
    Hook
}

/// Makes the search for marks run out of handles once on this thread, after it has opened this many directories.
pub(crate) fn run_out_of_handles_after(opened: u32) -> Hook {
    NO_HANDLES.set(Some(opened));
    Hook
}

/// Called before the search for marks opens a directory.
pub(crate) fn before_opening() -> Result<(), Errno> {
    match NO_HANDLES.take() {
        Some(0) => Err(Errno::MFILE),
        left => {
            NO_HANDLES.set(left.map(|left| left - 1));
            Ok(())
        }
    }
}

/// The error set by [`refuse_renames`].
pub(crate) fn rename_error() -> Option<Errno> {
    RENAME_ERROR.get()
}

/// Runs the action of the test, if there is one.
pub(crate) fn at(moment: Moment) {
    // Removed while it runs, because the action can reach such moments itself.
    if let Some(mut action) = ACTION.take() {
        action(moment);
        ACTION.set(Some(action));
    }
}
