//! Modes of directories: those that a system accepts, and those that an order requests.

use storage_driver::Mode;

use super::{Obstacle, due_order};
use crate::document::Resource;

const SETUID: u32 = 0o4000;

/// The modes that a system accepts. A resource with another mode is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Bits that every mode must have.
    pub lowest: Mode,
    /// Bits that a mode may have.
    pub highest: Mode,
}

/// All bits except setuid, which has no effect on a directory and is most likely a mistake. Setgid makes new files inherit the
/// project's group.
impl Default for Modes {
    fn default() -> Self {
        Self { lowest: Mode(0), highest: Mode(0o3777) }
    }
}

impl Modes {
    /// Checks the mode of a resource's directory. The modes of the directories above are checked for setuid only.
    pub(super) fn check(self, mode: Mode, above: &[Mode]) -> Result<(), Obstacle> {
        let (excess, missing) = (mode.0 & !self.highest.0, self.lowest.0 & !mode.0);
        let above = above.iter().find(|above| above.0 & SETUID & !self.highest.0 != 0);
        let (what, key, value) = if let Some(above) = above {
            (format!("a directory above has the mode {:04o}, with setuid", above.0), "highest_mode", self.highest)
        } else if excess != 0 {
            let setuid = if excess & SETUID == 0 { "" } else { " (setuid)" };
            let what = format!("the mode {:04o} has bits that are not accepted, {excess:04o}{setuid}", mode.0);
            (what, "highest_mode", self.highest)
        } else if missing != 0 {
            (format!("the mode {:04o} lacks required bits, {missing:04o}", mode.0), "lowest_mode", self.lowest)
        } else {
            return Ok(());
        };
        let value = value.0;
        Err(Obstacle::needs_operator(format!(
            "{what}: correct it at its source, or change `{key}` ({value:04o}) of this system"
        )))
    }
}

/// The mode that a due order requests, if any.
pub(super) fn ordered(resource: &Resource) -> Result<Option<Mode>, Obstacle> {
    let ordered = due_order(resource).and_then(|order| order.new_options.as_ref()?.get("permissions"));
    let Some(ordered) = ordered.filter(|ordered| !ordered.is_null()) else { return Ok(None) };
    match ordered.as_str() {
        // Waldur's form sends an empty string for a cleared option.
        Some(text) if !text.trim().is_empty() => Mode::parse(text).map(Some).ok_or_else(|| {
            Obstacle::impossible(
                "the order asks for permissions that are not three or four octal digits, as in \"2770\"",
            )
        }),
        _ => Err(Obstacle::needs_operator(
            "the order's new_options.permissions is empty or not text, so the requested permissions are unclear: check the \
             order in Waldur",
        )),
    }
}
