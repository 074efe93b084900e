//! One line on the terminal for somebody who waits.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::driver::walked::Walked;

/// How often the line is written anew.
const EACH: Duration = Duration::from_millis(200);

/// Does what may walk over many files. A terminal shows meanwhile how many they are.
pub(super) fn during<T>(walked: &Walked, work: impl FnOnce() -> T) -> T {
    if io::stderr().is_terminal() { shown(walked, io::stderr(), EACH, work) } else { work() }
}

fn shown<T>(walked: &Walked, mut terminal: impl Write + Send, each: Duration, work: impl FnOnce() -> T) -> T {
    let (going_on, ended) = mpsc::channel::<Infallible>();
    let before = walked.files();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut told = before;
            while ended.recv_timeout(each) == Err(RecvTimeoutError::Timeout) {
                let files = walked.files();
                if files != told {
                    // Where nobody looks there is nobody to tell.
                    let _ = write!(terminal, "\r{files} files\u{1b}[K");
                    told = files;
                }
            }
            if told != before {
                let _ = write!(terminal, "\r\u{1b}[K");
            }
        });
        let done = work();
        drop(going_on);
        done
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_count_is_shown_and_wiped_away() {
        let (walked, (mut screen, terminal)) = (Walked::default(), io::pipe().unwrap());
        shown(&walked, terminal, Duration::from_millis(1), || {
            walked.one();
            let mut line = [0; 11];
            screen.read_exact(&mut line).unwrap();
            assert_eq!(line, *b"\r1 files\x1b[K");
        });
        let mut rest = String::new();
        screen.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\r\x1b[K");
    }

    #[test]
    fn where_nothing_is_walked_nothing_is_shown() {
        let mut terminal = Vec::new();
        shown(&Walked::default(), &mut terminal, Duration::from_millis(1), || {
            std::thread::sleep(Duration::from_millis(30));
        });
        assert_eq!(terminal, b"");
    }
}
