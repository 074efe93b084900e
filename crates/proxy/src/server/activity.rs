//! How long a connection may go on as it is. Pure: time arrives as an argument.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::limits::{ConnectionLimits, PROGRESS};

/// What happens on a connection, as far as it bears on how long that may last.
///
/// A request that runs has all the time it needs: what it waits for is bounded elsewhere. Once it is answered the
/// client has to take the answer, and then to send the next request. Where several answers are under way at one time each has
/// to go on, so that a lively one does not excuse those that nobody takes.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose answer is not known yet.
    running: usize,
    /// When the present wait began.
    since: Instant,
    /// A request's head has begun, or the first is due.
    head: bool,
    /// HTTP/2: the bytes that come are not only heads.
    multiplexed: bool,
    /// The client does not take what is sent.
    blocked: bool,
    /// Bytes sent since `since`.
    sent: usize,
    /// Answers under way, by number.
    responses: BTreeMap<u64, ResponseProgress>,
    /// The number of the next one.
    next: u64,
    /// When the client was told that the connection closes.
    closing: Option<Instant>,
}

/// One answer of several.
#[derive(Debug)]
struct ResponseProgress {
    /// When it last went on.
    since: Instant,
    /// Bytes handed out since then.
    bytes: usize,
}

impl Activity {
    /// A connection that begins.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            running: 0,
            since: now,
            head: true,
            multiplexed: false,
            blocked: false,
            sent: 0,
            responses: BTreeMap::new(),
            next: 0,
            closing: None,
        }
    }

    /// Bytes came.
    pub(super) fn received(&mut self, now: Instant) {
        if self.running == 0 && !self.head && !self.multiplexed {
            self.head = true;
            self.since = now;
        }
    }

    /// A request came.
    pub(super) fn began(&mut self, multiplexed: bool) {
        self.running += 1;
        self.head = false;
        self.multiplexed = multiplexed;
    }

    /// A request is answered; the answer is still to be sent.
    pub(super) fn answered(&mut self, now: Instant) {
        self.running -= 1;
        self.since = now;
        self.sent = 0;
    }

    /// One answer of several is to be sent. Its number.
    pub(super) fn sending(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.responses.insert(number, ResponseProgress { since: now, bytes: 0 });
        number
    }

    /// Bytes of an answer were handed out, since there is room for some.
    pub(super) fn went_on(&mut self, number: u64, bytes: usize, now: Instant) {
        if let Some(answer) = self.responses.get_mut(&number) {
            answer.bytes += bytes;
            if answer.bytes >= PROGRESS {
                *answer = ResponseProgress { since: now, bytes: 0 };
            }
        }
    }

    /// An answer is sent, or nobody waits for it any more.
    pub(super) fn gone(&mut self, number: u64) {
        self.responses.remove(&number);
    }

    /// Bytes went out. Few of them are no progress, since HTTP/2 sends some even when no answer goes on.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.blocked = false;
        self.sent += bytes;
        if self.sent >= PROGRESS {
            self.since = now;
            self.sent = 0;
        }
    }

    /// No bytes go out until the client takes those that did.
    pub(super) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// The client is told that the connection closes.
    pub(super) fn closing(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// When the connection has lasted long enough as it is; `None` while a request runs and all answers go on.
    pub(super) fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let stuck = self.responses.values().map(|answer| answer.since + limits.idle).min();
        // Those that go on have as long again to come to their end.
        let stuck = stuck.map(|stuck| self.closing.map_or(stuck, |told| stuck.max(told + limits.idle)));
        let whole = (self.running == 0).then(|| self.of_the_whole(limits));
        stuck.into_iter().chain(whole).min()
    }

    /// The deadline while no request runs, whatever single answers do.
    fn of_the_whole(&self, limits: &ConnectionLimits) -> Instant {
        match self.closing {
            _ if self.blocked => self.since + limits.idle,
            Some(told) => told.max(self.since) + limits.farewell,
            None if self.head => self.since + limits.head,
            None => self.since + limits.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        farewell: Duration::from_secs(1),
        connections: 1,
    };

    /// What happens, at which second.
    enum Event {
        Received,
        Began,
        Answered,
        Sent(usize),
        Blocked,
        Sending,
        WentOn(u64, usize),
        Gone(u64),
        Closing,
    }
    use Event::{Answered, Began, Blocked, Closing, Gone, Received, Sending, Sent, WentOn};

    fn deadline(multiplexed: bool, events: &[(u64, Event)]) -> Option<u64> {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        for (second, event) in events {
            let now = start + Duration::from_secs(*second);
            match event {
                Received => activity.received(now),
                Began => activity.began(multiplexed),
                Answered => activity.answered(now),
                Sent(bytes) => activity.sent(*bytes, now),
                Blocked => activity.blocked(),
                Sending => drop(activity.sending(now)),
                WentOn(number, bytes) => activity.went_on(*number, *bytes, now),
                Gone(number) => activity.gone(*number),
                Closing => activity.closing(now),
            }
        }
        activity.deadline(&LIMITS).map(|deadline| (deadline - start).as_secs())
    }

    #[test]
    fn the_first_head_is_due_from_the_start() {
        assert_eq!(deadline(false, &[]), Some(10));
        assert_eq!(deadline(false, &[(3, Received), (7, Received)]), Some(10));
    }

    #[test]
    fn a_running_request_has_all_its_time() {
        assert_eq!(deadline(false, &[(3, Began), (70, Received)]), None);
        assert_eq!(deadline(true, &[(3, Began), (4, Began), (5, Answered)]), None);
        assert_eq!(deadline(false, &[(3, Began), (4, Closing)]), None);
    }

    #[test]
    fn between_requests_a_connection_is_idle_until_the_next_head_begins() {
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (5, Sent(200))]), Some(80));
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (30, Received), (38, Received)]), Some(40));
        assert_eq!(deadline(true, &[(3, Began), (5, Answered), (30, Received)]), Some(80), "no head, a ping perhaps");
    }

    #[test]
    fn an_answer_has_to_be_taken() {
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (6, Sent(PROGRESS)), (7, Blocked)]), Some(81));
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (6, Blocked), (60, Sent(1))]), Some(80));
        let trickle = [(3, Began), (5, Answered), (20, Sent(PROGRESS / 2)), (40, Sent(PROGRESS / 2)), (50, Sent(1))];
        assert_eq!(deadline(true, &trickle), Some(115));
    }

    #[test]
    fn a_lively_answer_does_not_excuse_one_that_nobody_takes() {
        let stuck = || vec![(1, Began), (2, Answered), (2, Sending), (40, Began), (41, Answered), (41, Sending)];
        let with = |more: Vec<(u64, Event)>| deadline(true, &[stuck(), more].into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(with(vec![]), Some(77));
        assert_eq!(with(vec![(70, Sent(PROGRESS)), (70, WentOn(1, PROGRESS)), (71, Began)]), Some(77));
        assert_eq!(with(vec![(50, WentOn(0, PROGRESS / 2)), (60, WentOn(0, PROGRESS / 2))]), Some(116));
        assert_eq!(with(vec![(50, Gone(0))]), Some(116));
        assert_eq!(with(vec![(50, Gone(0)), (50, Gone(1)), (51, Began)]), None);
        // It is told, and what still runs has its time, but no more than that.
        assert_eq!(with(vec![(70, Began), (77, Closing)]), Some(152));
        assert_eq!(with(vec![(50, Gone(0)), (50, Gone(1)), (70, Began), (77, Closing)]), None);
    }

    #[test]
    fn one_that_closes_goes_soon_unless_an_answer_is_being_sent() {
        assert_eq!(deadline(false, &[(3, Received), (4, Closing)]), Some(5));
        assert_eq!(deadline(false, &[(3, Began), (4, Answered), (20, Closing), (30, Closing)]), Some(21));
        assert_eq!(deadline(false, &[(3, Began), (4, Closing), (9, Answered)]), Some(10));
        assert_eq!(deadline(false, &[(3, Began), (4, Answered), (5, Blocked), (6, Closing)]), Some(79));
    }
}
