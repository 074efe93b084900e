//! Simulates that the program is killed, on the current thread: from some moment on, neither the journal nor a record can be written, so
//! that no further side effect happens.

use std::cell::RefCell;

/// When the program is killed. Writes to the journal and to records are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// With this write, before the side effect that it announces.
    With(u64),
    /// Before the write after this one: the side effects between the two have happened.
    After(u64),
}

#[derive(Debug)]
struct State {
    kill: Option<Kill>,
    written: u64,
    dead: bool,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Runs a program that is killed. Returns its result, and the number of writes.
pub(crate) fn run<T>(kill: Option<Kill>, program: impl FnOnce() -> T) -> (T, u64) {
    STATE.set(Some(State { kill, written: 0, dead: false }));
    let result = program();
    let state = STATE.take();
    (result, state.map_or(0, |state| state.written))
}

/// Called before each write; fails if the program is dead. Returns whether it is dead after the write.
pub(crate) fn before_write() -> Result<bool, &'static str> {
    STATE.with_borrow_mut(|state| {
        let Some(state) = state else { return Ok(false) };
        if state.dead || state.kill == Some(Kill::After(state.written)) {
            state.dead = true;
            return Err("killed");
        }
        state.written += 1;
        state.dead = state.kill == Some(Kill::With(state.written));
        Ok(state.dead)
    })
}
