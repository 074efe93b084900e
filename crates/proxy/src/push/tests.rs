use futures::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use super::session::tests::{CONNECTED, RECEIPT, open, token};
use super::*;

/// Changes are found every `interval`, and one in `events` of them is announced. Returns the number of events and why listening ended,
/// within a day.
async fn listened(interval: Duration, events: Option<usize>) -> (usize, Option<PushError>) {
    let (session, mut server) = open(CONNECTED, RECEIPT).await;
    let mut session = session.ok().unwrap();
    let (changes, token) = (Notify::new(), token());
    let mut received = 0;
    let broker = async {
        let mut beats = tokio::time::interval(Duration::from_secs(10));
        let mut found = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut number = 0;
        loop {
            tokio::select! {
                _ = beats.tick() => server.send(Message::text("\n")).await.unwrap(),
                _ = found.tick() => {
                    changes.notify_one();
                    number += 1;
                    if events.is_some_and(|events| number % events == 0) {
                        server.send(Message::text("MESSAGE\n\n\0")).await.unwrap();
                    }
                }
            }
        }
    };
    let error = tokio::select! {
        ended = listen(&mut session, &token, &changes, || received += 1) => ended.err(),
        () = broker => unreachable!(),
        () = sleep(Duration::from_hours(24)) => None,
    };
    (received, error)
}

#[tokio::test(start_paused = true)]
async fn a_silent_consumer_is_replaced_if_changes_are_found() {
    let minute = Duration::from_mins(1);
    let begun = Instant::now();
    assert!(matches!(listened(minute, None).await, (0, Some(PushError::NoEvents))));
    assert_eq!(begun.elapsed(), 3 * minute + Duration::from_secs(30));
    // Every third change is announced: coincidence.
    assert!(matches!(listened(minute, Some(3)).await, (479 | 480, None)));
    // Nothing changes.
    assert!(matches!(listened(Duration::from_hours(25), None).await, (0, None)));
}

#[test]
fn pauses_grow_to_a_minute() {
    let pauses: Vec<_> = pauses().take(12).collect();
    assert!(pauses[0] >= MIN_PAUSE && pauses[0] <= 2 * MIN_PAUSE, "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[1] * 2 >= pair[0]), "{pauses:?}");
    assert!(pauses[11] >= MAX_PAUSE && pauses[11] <= 2 * MAX_PAUSE, "{pauses:?}");
}
