use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holders never leave its data half changed, so that a panic of a holder does not matter to others.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
