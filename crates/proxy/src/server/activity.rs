//! The deadline of a connection, computed from its activity. Pure: time arrives as an argument.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::limits::{ConnectionLimits, PROGRESS};

/// The activity of a connection that determines its deadline.
///
/// A running request has no deadline here: its time is limited elsewhere. Then the client must read the response and send
/// the next request. If several responses are being sent, each must make progress: a response that the client reads does
/// not extend the deadline of one that it does not read.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests without a response so far.
    running: usize,
    /// Whether the running HTTP/1 request waits for a change.
    waiting: bool,
    /// Start of the current wait.
    since: Instant,
    head: Head,
    /// HTTP/2, where received bytes are not necessarily heads.
    multiplexed: bool,
    /// Whether the client does not read what is sent.
    blocked: bool,
    /// Bytes sent after `since`.
    sent: usize,
    /// HTTP/2 responses being sent, by number.
    responses: BTreeMap<u64, ResponseProgress>,
    /// Number of the next response.
    next: u64,
    /// When the close was announced to the client.
    closing: Option<Instant>,
}

/// How much of the next request's head was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing was received on the connection yet.
    Silent,
    Started,
    /// The request runs or was answered, and the next one has not started.
    Complete,
}

/// Progress of one response among several.
#[derive(Debug)]
struct ResponseProgress {
    /// When it last made [`PROGRESS`].
    since: Instant,
    /// Bytes passed on since then.
    bytes: usize,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            running: 0,
            waiting: false,
            since: now,
            head: Head::Silent,
            multiplexed: false,
            blocked: false,
            sent: 0,
            responses: BTreeMap::new(),
            next: 0,
            closing: None,
        }
    }

    /// Bytes were received.
    pub(super) fn received(&mut self, now: Instant) {
        if self.head == Head::Silent {
            self.head = Head::Started;
        } else if self.running == 0 && self.head == Head::Complete && !self.multiplexed {
            self.head = Head::Started;
            self.since = now;
        }
    }

    /// Whether nothing was received yet.
    pub(super) fn is_silent(&self) -> bool {
        self.head == Head::Silent
    }

    /// Whether an HTTP/1 request waits for a change.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The running HTTP/1 request starts or stops to wait for a change.
    pub(super) fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// A request started.
    pub(super) fn request_started(&mut self, multiplexed: bool) {
        self.running += 1;
        self.head = Head::Complete;
        self.multiplexed = multiplexed;
    }

    /// A request has its response, which is still to be sent.
    pub(super) fn request_answered(&mut self, now: Instant) {
        self.running -= 1;
        self.waiting = false;
        self.since = now;
        self.sent = 0;
    }

    /// Starts to track one response among several; returns its number.
    pub(super) fn response_started(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.responses.insert(number, ResponseProgress { since: now, bytes: 0 });
        number
    }

    /// Bytes of a response were passed on, because the connection has room for them.
    pub(super) fn response_progressed(&mut self, number: u64, bytes: usize, now: Instant) {
        if let Some(response) = self.responses.get_mut(&number) {
            response.bytes += bytes;
            if response.bytes >= PROGRESS {
                *response = ResponseProgress { since: now, bytes: 0 };
            }
        }
    }

    /// A response was sent or cancelled.
    pub(super) fn response_ended(&mut self, number: u64) {
        self.responses.remove(&number);
    }

    /// Bytes were sent. A few bytes are no progress: HTTP/2 sends some even when no response makes progress.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.blocked = false;
        self.sent += bytes;
        if self.sent >= PROGRESS {
            self.since = now;
            self.sent = 0;
        }
    }

    /// Nothing can be sent until the client reads.
    pub(super) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// The close was announced to the client.
    pub(super) fn closing(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// When to close the connection; `None` while a request runs and no response is being sent.
    pub(super) fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let stuck = self.responses.values().map(|response| response.since + limits.idle).min();
        // After the close is announced, the other responses have the same time again to finish.
        let stuck = stuck.map(|stuck| self.closing.map_or(stuck, |announced| stuck.max(announced + limits.idle)));
        let idle = (self.running == 0).then(|| self.idle_deadline(limits));
        stuck.into_iter().chain(idle).min()
    }

    /// The deadline while no request runs, without regard to individual responses.
    fn idle_deadline(&self, limits: &ConnectionLimits) -> Instant {
        match self.closing {
            _ if self.blocked => self.since + limits.idle,
            Some(announced) => announced.max(self.since) + limits.farewell,
            None if self.head != Head::Complete => self.since + limits.head,
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

    /// What happens at a certain second.
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
                Began => activity.request_started(multiplexed),
                Answered => activity.request_answered(now),
                Sent(bytes) => activity.sent(*bytes, now),
                Blocked => activity.blocked(),
                Sending => drop(activity.response_started(now)),
                WentOn(number, bytes) => activity.response_progressed(*number, *bytes, now),
                Gone(number) => activity.response_ended(*number),
                Closing => activity.closing(now),
            }
        }
        activity.deadline(&LIMITS).map(|deadline| (deadline - start).as_secs())
    }

    #[test]
    fn the_time_for_the_first_head_counts_from_the_start() {
        assert_eq!(deadline(false, &[]), Some(10));
        assert_eq!(deadline(false, &[(3, Received), (7, Received)]), Some(10));
    }

    #[test]
    fn a_running_request_has_no_deadline() {
        assert_eq!(deadline(false, &[(3, Began), (70, Received)]), None);
        assert_eq!(deadline(true, &[(3, Began), (4, Began), (5, Answered)]), None);
        assert_eq!(deadline(false, &[(3, Began), (4, Closing)]), None);
    }

    #[test]
    fn between_requests_a_connection_is_idle_until_the_next_head_begins() {
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (5, Sent(200))]), Some(80));
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (30, Received), (38, Received)]), Some(40));
        assert_eq!(
            deadline(true, &[(3, Began), (5, Answered), (30, Received)]),
            Some(80),
            "not a head, perhaps a ping"
        );
    }

    #[test]
    fn a_response_must_be_read() {
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (6, Sent(PROGRESS)), (7, Blocked)]), Some(81));
        assert_eq!(deadline(false, &[(3, Began), (5, Answered), (6, Blocked), (60, Sent(1))]), Some(80));
        let trickle = [(3, Began), (5, Answered), (20, Sent(PROGRESS / 2)), (40, Sent(PROGRESS / 2)), (50, Sent(1))];
        assert_eq!(deadline(true, &trickle), Some(115));
    }

    #[test]
    fn progress_of_one_response_does_not_extend_the_deadline_of_another() {
        let stuck = || vec![(1, Began), (2, Answered), (2, Sending), (40, Began), (41, Answered), (41, Sending)];
        let with = |more: Vec<(u64, Event)>| deadline(true, &[stuck(), more].into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(with(vec![]), Some(77));
        assert_eq!(with(vec![(70, Sent(PROGRESS)), (70, WentOn(1, PROGRESS)), (71, Began)]), Some(77));
        assert_eq!(with(vec![(50, WentOn(0, PROGRESS / 2)), (60, WentOn(0, PROGRESS / 2))]), Some(116));
        assert_eq!(with(vec![(50, Gone(0))]), Some(116));
        assert_eq!(with(vec![(50, Gone(0)), (50, Gone(1)), (51, Began)]), None);
        // The close is announced; what still runs has its time, but no more.
        assert_eq!(with(vec![(70, Began), (77, Closing)]), Some(152));
        assert_eq!(with(vec![(50, Gone(0)), (50, Gone(1)), (70, Began), (77, Closing)]), None);
    }

    #[test]
    fn a_closing_connection_ends_soon_unless_a_response_is_being_sent() {
        assert_eq!(deadline(false, &[(3, Received), (4, Closing)]), Some(5));
        assert_eq!(deadline(false, &[(3, Began), (4, Answered), (20, Closing), (30, Closing)]), Some(21));
        assert_eq!(deadline(false, &[(3, Began), (4, Closing), (9, Answered)]), Some(10));
        assert_eq!(deadline(false, &[(3, Began), (4, Answered), (5, Blocked), (6, Closing)]), Some(79));
    }
}
